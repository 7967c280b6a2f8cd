from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from graphcl.functional import claps, perturb_rows


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def value(*arguments: Tensor, **options: object) -> Tensor:
    loss = claps(*arguments, **options)  # type: ignore[arg-type]
    assert isinstance(loss, Tensor)
    return loss


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("ids", [None, [0, 1, 0, 2]])
def test_equals_loops(released: bool, ids: list[int] | None) -> None:
    x, y, far, near = (normalize(rows(4, 3, seed=seed)) for seed in range(4))
    names = ids or [0, 1, 2, 3]
    expected = []
    for i in range(4):
        total = 0.0
        for positive, tau in ((float(x[i] @ y[i]), 0.2), (float(x[i] @ far[i]), 1.0 if released else 0.2)):
            others = [float(x[i] @ y[j]) for j in range(4) if names[j] != names[i]] + [float(x[i] @ near[i])]
            total += math.log1p(sum(math.exp((v - positive) / tau) for v in others))
        expected.append(0.5 * total)
    named = None if ids is None else torch.tensor(ids)
    got = value(x, y, far, near, released_scaling=released, ids=named, temperature=0.2, reduction="none")
    assert got.tolist() == pytest.approx(expected)


def test_components_and_gradient() -> None:
    inputs = tuple(rows(4, 3, seed=seed).requires_grad_() for seed in range(4))
    weight = rows(4, seed=9)
    assert torch.autograd.gradcheck(lambda *z: (weight * value(*z, temperature=0.5, reduction="none")).sum(), inputs)
    loss, parts = claps(*inputs, return_components=True)
    torch.testing.assert_close(loss, 0.5 * (parts["target"] + parts["perturbed"]))


def test_degenerate_cases() -> None:
    assert float(value(*[rows(0, 3)] * 4)) == 0.0
    zero = torch.zeros(3, 2, dtype=torch.float64, requires_grad=True)
    loss = value(zero, zero, zero, zero, temperature=1e-3)
    (gradient,) = torch.autograd.grad(loss, zero)
    assert float(loss) == pytest.approx(math.log(4.0))
    assert float(gradient.abs().sum()) == 0.0
    single = value(rows(1, 3), rows(1, 3), rows(1, 3), rows(1, 3, seed=1))
    assert bool(single.isfinite())


def test_perturbation_has_the_size_and_no_gradient_through_its_direction() -> None:
    y, direction = rows(3, 4).requires_grad_(), rows(3, 4, seed=1).requires_grad_()
    moved = perturb_rows(y, direction, -2.0)
    torch.testing.assert_close((moved - y).norm(dim=1), torch.full((3,), 2.0, dtype=torch.float64))
    torch.autograd.backward(moved.sum())
    assert direction.grad is None
    assert y.grad is not None
    assert torch.equal(y.grad, torch.ones_like(y))
    torch.testing.assert_close(perturb_rows(y, torch.zeros_like(y), 3.0), y)


def test_messages() -> None:
    with pytest.raises(ValueError, match="positive"):
        claps(rows(2, 3), rows(2, 3), rows(3, 3), rows(2, 3))
