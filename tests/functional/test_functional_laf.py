from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from graphcl.functional import laf_alignment, laf_extraction, variational_reconstruction


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def cosine(x: Tensor, y: Tensor) -> float:
    return float(x @ y / (x.norm() * y.norm()))


def test_extraction_equals_loops() -> None:
    s, s_hat, u, u_hat = rows(4, 3), rows(4, 3, seed=1), rows(2, 3, seed=2), rows(2, 3, seed=3)

    def bounded(a: Tensor, b: Tensor) -> list[float]:
        errors = [float(((a[i] - b[i]) ** 2).sum()) for i in range(len(a))]
        return [math.exp(m / (m + 1)) for m in errors]

    loss, parts = laf_extraction(s, s_hat, u, u_hat, return_components=True)
    assert float(parts["retain"]) == pytest.approx(sum(bounded(s, s_hat)))
    assert float(parts["forget"]) == pytest.approx(-sum(bounded(u, u_hat)))
    torch.testing.assert_close(loss, parts["retain"] + parts["forget"])
    mean = laf_extraction(s, s_hat, u, u_hat, reduction="mean")
    assert float(mean) == pytest.approx(sum(bounded(s, s_hat)) / 4 - sum(bounded(u, u_hat)) / 2)  # type: ignore[arg-type]


def test_alignment_equals_loops() -> None:
    s, s_t, u, u_t = rows(4, 3), rows(4, 3, seed=1), rows(2, 3, seed=2), rows(2, 3, seed=3)
    away = math.log(sum(math.exp((1 - cosine(u[j], u_t[j])) / 7.0) for j in range(2)))
    expected = sum(1 - cosine(s[i], s_t[i]) - away for i in range(4))
    assert float(laf_alignment(s, s_t, u, u_t, temperature=7.0)) == pytest.approx(expected)  # type: ignore[arg-type]


def test_gradients() -> None:
    inputs = tuple(rows(3, 4, seed=seed).requires_grad_() for seed in range(4))
    assert torch.autograd.gradcheck(lambda *z: 0.7 * laf_extraction(*z), inputs)  # type: ignore[operator]
    teacher = rows(3, 4, seed=8)
    assert torch.autograd.gradcheck(
        lambda s, u: 0.7 * laf_alignment(s, teacher, u, teacher),  # type: ignore[operator]
        inputs[:2],
    )
    loss = laf_alignment(*inputs)
    assert isinstance(loss, Tensor)
    torch.autograd.backward(loss)
    assert inputs[1].grad is None
    assert inputs[3].grad is None


def test_reconstruction() -> None:
    x, x_hat, mean, log_variance = (rows(5, 3, seed=seed) for seed in range(4))
    normal = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    standard = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    divergence = torch.distributions.kl_divergence(normal, standard).sum(dim=1).mean()
    got = variational_reconstruction(x, x_hat, mean, log_variance, divergence_weight=0.5)
    torch.testing.assert_close(got, ((x - x_hat) ** 2).sum() / 5 + 0.5 * divergence)


def test_degenerate_cases() -> None:
    empty, some = rows(0, 3), rows(2, 3).requires_grad_()
    far = laf_extraction(empty, empty, some, some.detach() + 1e200)
    assert float(far) == pytest.approx(-2 * math.e)  # type: ignore[arg-type]
    assert float(laf_alignment(some, some, empty, empty)) == pytest.approx(0.0, abs=1e-12)  # type: ignore[arg-type]
    assert float(laf_alignment(empty, empty, some, some)) == 0.0  # type: ignore[arg-type]
    zero = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    loss = laf_alignment(zero, zero, zero, zero)
    assert isinstance(loss, Tensor)
    torch.autograd.backward(loss)
    assert zero.grad is not None
    assert float(zero.grad.abs().sum()) == 0.0


def test_messages() -> None:
    z = rows(2, 3)
    with pytest.raises(ValueError, match="two sets of samples"):
        laf_extraction(z, z, z, z, reduction="none")
    with pytest.raises(ValueError, match="temperature"):
        laf_alignment(z, z, z, z, temperature=0.0)
