from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from graphcl.functional import attention_pool, genview, info_nce, quality_weights


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_weights_equal_loops() -> None:
    f1, f2, b1, b2 = (rows(4, 3, seed=seed) for seed in range(4))

    def cosine(x: Tensor, y: Tensor) -> float:
        return float(x @ y / (x.norm() * y.norm()))

    raw = [math.exp(2.0 * (cosine(f1[i], f2[i]) - cosine(b1[i], b2[i]))) for i in range(4)]
    got = quality_weights(f1.requires_grad_(), f2, b1, b2, gamma=2.0)
    assert got.tolist() == pytest.approx([4 * value / sum(raw) for value in raw])
    assert not got.requires_grad
    assert quality_weights(*[rows(0, 3)] * 4).shape == (0,)


def test_loss_is_weighted_info_nce() -> None:
    z1, z2, weight = rows(4, 3), rows(4, 3, seed=1), torch.tensor([2.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    each = info_nce(z1, z2, temperature=1.0, reduction="none")
    torch.testing.assert_close(genview(z1, z2, weight), (weight * each).sum() / 4)


def test_gradient_does_not_reach_the_weights() -> None:
    z1, z2 = rows(4, 3).requires_grad_(), rows(4, 3, seed=1).requires_grad_()
    weight = rows(4, seed=2).abs().requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: genview(a, b, weight.detach(), temperature=0.5), (z1, z2))
    torch.autograd.backward(genview(z1, z2, weight))
    assert weight.grad is None


def test_attention_pool() -> None:
    parts, attention = rows(2, 3, 4), torch.tensor([[0.5, 0.0, 1.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    foreground, background = attention_pool(parts, attention)
    torch.testing.assert_close(foreground[0], (0.5 * parts[0, 0] + parts[0, 2]) / 1.5)
    torch.testing.assert_close(background[0], (0.5 * parts[0, 0] + parts[0, 1]) / 1.5)
    assert float(foreground[1].abs().sum()) == 0.0
    torch.testing.assert_close(background[1], parts[1].mean(dim=0))
    with pytest.raises(ValueError, match=r"features must have shape \(N, P, d\)"):
        attention_pool(parts, attention[:1])
