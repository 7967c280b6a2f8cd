"""Soft assignments against loops, and where kernels and clusters vanish."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from graphcl.functional import assignment_divergence, student_t_assignment, target_distribution


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("freedom", [0.5, 1.0, 4.0])
def test_student_t_against_loops(freedom: float) -> None:
    z, centers = drawn(0, 7, 3), drawn(1, 4, 3) + 5
    expected = torch.empty(7, 4, dtype=torch.float64)
    for i in range(7):
        for k in range(4):
            expected[i, k] = (1 + ((z[i] - centers[k]) ** 2).sum() / freedom) ** (-(freedom + 1) / 2)
        expected[i] /= expected[i].sum()
    torch.testing.assert_close(student_t_assignment(z, centers, freedom=freedom), expected)
    weights = drawn(2, 7, 4)
    leaves = (z.requires_grad_(), centers.requires_grad_())
    assert torch.autograd.gradcheck(lambda x, y: (student_t_assignment(x, y, freedom=freedom) * weights).sum(), leaves)


def test_student_t_far_from_the_origin_and_at_a_centre() -> None:
    offset = 1e4
    z = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1e15, 0.0]]) + torch.tensor([offset, 0.0])
    centers = (torch.tensor([[0.0, 0.0], [1.0, 0.0]]) + torch.tensor([offset, 0.0])).requires_grad_()
    q = student_t_assignment(z, centers)
    torch.testing.assert_close(q, torch.tensor([[2 / 3, 1 / 3], [1 / 3, 2 / 3], [0.5, 0.5]]))
    assert bool(torch.autograd.grad(q[:, 0].sum(), centers)[0].isfinite().all())


def test_target_against_loops() -> None:
    q = drawn(0, 6, 3).softmax(1)
    expected = torch.stack([torch.stack([q[i, k] ** 2 / q[:, k].sum() for k in range(3)]) for i in range(6)])
    torch.testing.assert_close(target_distribution(q), expected / expected.sum(1, keepdim=True))
    # In a mini-batch the masses of all rows are given.
    torch.testing.assert_close(target_distribution(q[:2], q.sum(0)), target_distribution(q)[:2])
    assert not target_distribution(q.requires_grad_()).requires_grad


def test_target_without_mass() -> None:
    q = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(target_distribution(q), q)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_divergence_against_loops(reduction: str) -> None:
    p, q, weight = drawn(0, 5, 3).softmax(1), drawn(1, 5, 3).softmax(1), torch.arange(5).double()
    each = torch.stack([sum(p[i, k] * (p[i, k] / q[i, k]).log() for k in range(3)) for i in range(5)])  # type: ignore[misc]
    expected = {"mean": (each * weight).sum() / 10, "sum": (each * weight).sum(), "none": each * weight}[reduction]
    torch.testing.assert_close(assignment_divergence(p, q, weight=weight, reduction=reduction), expected)  # type: ignore[arg-type]


def test_divergence_gradcheck_and_zeros() -> None:
    scores, upstream = drawn(0, 5, 3).requires_grad_(), drawn(2, 5)
    target = drawn(1, 5, 3).softmax(1).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda p, s: (assignment_divergence(p, s.softmax(1), reduction="none") * upstream).sum(), (target, scores)
    )
    hard = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    q = torch.tensor([[1.0, 0.0], [1.0, 0.0]], requires_grad=True)
    loss = assignment_divergence(hard, q, reduction="none")
    assert loss[0].item() == 0
    assert bool(loss.isfinite().all())
    assert bool(torch.autograd.grad(loss.sum(), q)[0].isfinite().all())


def test_refusals() -> None:
    z = drawn(0, 4, 3)
    with pytest.raises(ValueError, match="centers must hold at least one row"):
        student_t_assignment(z, z[:0])
    with pytest.raises(ValueError, match="freedom must be a finite number above 0, got 0"):
        student_t_assignment(z, z, freedom=0.0)
    with pytest.raises(ValueError, match=r"mass must have shape \(3,\), got shape \(2,\)"):
        target_distribution(z, torch.ones(2, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"target must have shape \(4, 3\), got \(2, 3\)"):
        assignment_divergence(z[:2], z)
