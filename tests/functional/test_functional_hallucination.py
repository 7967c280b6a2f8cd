from __future__ import annotations

import pytest
import torch
from torch import Tensor

from graphcl.functional import hallucinate, hallucination, moco


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_is_the_sum_of_two_momentum_contrasts() -> None:
    q, k, made, queue = (rows(4, 3, seed=seed) for seed in range(4))
    loss, parts = hallucination(q, k, made, queue, temperature=0.3, return_components=True)
    first, second = moco(q, k, queue, temperature=0.3), moco(q, made, queue, temperature=0.3)
    torch.testing.assert_close(loss, first + second)
    torch.testing.assert_close(parts["key"], first)
    torch.testing.assert_close(parts["hallucinated"], second)


def test_gradient_reaches_query_and_generated_positive() -> None:
    q, made = rows(3, 4).requires_grad_(), rows(3, 4, seed=1).requires_grad_()
    k, queue, weight = rows(3, 4, seed=2), rows(5, 4, seed=3), rows(3, seed=4)

    def value(a: Tensor, b: Tensor) -> Tensor:
        loss = hallucination(a, k, b, queue, reduction="none", temperature=0.5)
        assert isinstance(loss, Tensor)
        return (weight * loss).sum()

    assert torch.autograd.gradcheck(value, (q, made))


def test_extrapolation() -> None:
    q, k = rows(3, 4), rows(3, 4, seed=1)
    torch.testing.assert_close(hallucinate(q, k, 0.0), k)
    torch.testing.assert_close(hallucinate(q, k, torch.tensor([1.0, 0.5, 0.0])).select(0, 0), 2 * k[0] - q[0])
    drawn = [hallucinate(q, k, generator=torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*drawn)


def test_degenerate_cases_and_messages() -> None:
    zero = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    loss = hallucination(zero, zero, zero, rows(4, 3), temperature=1e-3)
    assert isinstance(loss, Tensor)
    (gradient,) = torch.autograd.grad(loss, zero)
    assert bool(loss.isfinite())
    assert float(gradient.abs().sum()) == 0.0
    with pytest.raises(ValueError, match="hallucinated"):
        hallucination(rows(2, 3), rows(2, 3), rows(3, 3), rows(4, 3))
