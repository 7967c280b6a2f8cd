from __future__ import annotations

import pytest
import torch
from torch import Tensor

from graphcl.functional import diagonal_rescale, info_nce, rescaled_info_nce


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_scales_features_geometrically() -> None:
    z = rows(3, 4)
    expected = torch.stack([z[:, j] / 1.5**j for j in range(4)], dim=1)
    torch.testing.assert_close(diagonal_rescale(z, 1.5), expected)
    torch.testing.assert_close(
        rescaled_info_nce(z, 2 * z + 1, kappa=1.5),
        info_nce(expected, diagonal_rescale(2 * z + 1, 1.5), temperature=0.2, symmetric=True),
    )


def test_kappa_one_is_info_nce() -> None:
    z1, z2 = rows(5, 4), rows(5, 4, seed=1)
    torch.testing.assert_close(rescaled_info_nce(z1, z2, kappa=1.0), info_nce(z1, z2, temperature=0.2, symmetric=True))


def test_gradient() -> None:
    z1, z2, weight = rows(4, 3).requires_grad_(), rows(4, 3, seed=1).requires_grad_(), rows(8, seed=2)
    assert torch.autograd.gradcheck(
        lambda a, b: (weight * rescaled_info_nce(a, b, kappa=2.0, reduction="none")).sum(), (z1, z2)
    )


def test_wide_embeddings_stay_finite() -> None:
    z = rows(3, 4000).float().requires_grad_()
    loss = rescaled_info_nce(z, z.detach(), kappa=1.5, temperature=1e-3)
    torch.autograd.backward(loss)
    assert bool(loss.isfinite())
    assert z.grad is not None
    assert bool(z.grad.isfinite().all())


def test_messages() -> None:
    with pytest.raises(ValueError, match="kappa"):
        diagonal_rescale(rows(2, 3), 0.0)
