"""Sinkhorn: against the textbook iteration, the streamed potentials against the dense plan, masses and dead lines."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from graphcl.kernels import sinkhorn, sinkhorn_potentials


def matrix(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def textbook(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    plan = torch.exp(scores / epsilon)
    rows, columns = plan.shape
    for _ in range(iterations):
        plan = plan / plan.sum(dim=0, keepdim=True) / columns
        plan = plan / plan.sum(dim=1, keepdim=True) / rows
    return plan * rows


@pytest.mark.parametrize("shape", [(7, 4), (1, 3), (5, 1)])
def test_equals_the_textbook_iteration(shape: tuple[int, int]) -> None:
    scores = matrix(*shape)
    torch.testing.assert_close(sinkhorn(scores, epsilon=0.3), textbook(scores, 0.3, 3), rtol=1e-12, atol=1e-14)


def test_rows_sum_to_one_and_columns_approach_equal_shares() -> None:
    codes = sinkhorn(matrix(12, 4), epsilon=0.5, iterations=200)
    torch.testing.assert_close(codes.sum(dim=1), torch.ones(12, dtype=torch.float64), rtol=1e-13, atol=0)
    torch.testing.assert_close(codes.sum(dim=0), torch.full((4,), 3.0, dtype=torch.float64), rtol=1e-8, atol=0)


def test_given_masses() -> None:
    rows = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    columns = torch.tensor([4.0, 2.0], dtype=torch.float64)
    plan = sinkhorn(matrix(3, 2), epsilon=1.0, iterations=300, row_mass=rows, column_mass=columns)
    torch.testing.assert_close(plan.sum(dim=1), rows)
    torch.testing.assert_close(plan.sum(dim=0), columns)


def test_small_epsilon_is_finite_and_float32_is_close() -> None:
    scores = matrix(6, 4) * 100
    assert torch.isfinite(sinkhorn(scores, epsilon=1e-3, iterations=20)).all()
    mild = matrix(6, 4)
    torch.testing.assert_close(sinkhorn(mild.float()).double(), sinkhorn(mild), rtol=1e-4, atol=1e-6)


def test_forbidden_pairs_and_dead_lines() -> None:
    scores = matrix(4, 3)
    scores[0] = -torch.inf
    scores[:, 2] = -torch.inf
    scores[1, 0] = -torch.inf
    scores.requires_grad_()
    plan = sinkhorn(scores, epsilon=0.5)
    assert (plan[0] == 0).all()
    assert (plan[:, 2] == 0).all()
    torch.testing.assert_close(plan[1:].sum(dim=1), torch.ones(3, dtype=torch.float64))
    (gradient,) = torch.autograd.grad((plan * matrix(4, 3, 5)).sum(), scores)
    assert torch.isfinite(gradient).all()


def test_gradient() -> None:
    scores = matrix(4, 3).requires_grad_()
    weight = matrix(4, 3, 1)
    assert torch.autograd.gradcheck(lambda s: (sinkhorn(s, epsilon=0.7) * weight).sum(), scores)


@pytest.mark.parametrize("similarity", ["dot", "cosine", "sqeuclidean"])
def test_potentials_give_the_dense_plan(similarity: str) -> None:
    x, y = matrix(9, 3), matrix(5, 3, 1)
    if similarity == "cosine":
        scores = torch.nn.functional.normalize(x) @ torch.nn.functional.normalize(y).T
    elif similarity == "sqeuclidean":
        scores = -((x[:, None] - y) ** 2).sum(dim=2)
    else:
        scores = x @ y.T
    mass = torch.arange(1.0, 6.0, dtype=torch.float64)
    dual = sinkhorn_potentials(
        x,
        y,
        epsilon=0.4,
        iterations=4,
        similarity=similarity,  # type: ignore[arg-type]
        column_mass=mass,
        memory_budget=200,
    )
    plan = torch.exp(scores / 0.4 - dual.rows[:, None] - dual.columns)
    torch.testing.assert_close(plan, sinkhorn(scores, epsilon=0.4, iterations=4, column_mass=mass), rtol=1e-10, atol=0)
    assert not dual.rows.requires_grad


def test_empty() -> None:
    assert sinkhorn(torch.zeros(0, 3)).shape == (0, 3)
    assert sinkhorn(torch.zeros(3, 0)).shape == (3, 0)
    dual = sinkhorn_potentials(torch.zeros(0, 2), torch.zeros(3, 2))
    assert dual.rows.shape == (0,)
    assert torch.isfinite(dual.columns).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": 0.0}, "epsilon must be a finite number above 0, got 0.0"),
        ({"iterations": 0}, "iterations must be an integer of at least 1, got 0"),
        ({"row_mass": torch.tensor([1.0])}, r"row_mass must have shape \(2,\)"),
        ({"column_mass": torch.tensor([1.0, 0.0, 2.0])}, "column_mass must be above 0, got 0.0"),
    ],
)
def test_wrong_arguments(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sinkhorn(torch.zeros(2, 3), **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        sinkhorn_potentials(torch.zeros(2, 4), torch.zeros(3, 4), **options)  # type: ignore[arg-type]
