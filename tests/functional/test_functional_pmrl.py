"""PMRL against a dense singular value decomposition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from graphcl.functional import Reduction, pmrl, principal_direction


def random_views(num_views: int, rows: int, dim: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, dim, generator=generator, dtype=torch.float64) for _ in range(num_views)]


def slow_pmrl(views: list[Tensor], present: Tensor, tau1: float, tau2: float) -> tuple[Tensor, Tensor]:
    """Both parts, with torch's own decomposition and differentiation."""
    intra, directions = [], []
    for i in range(views[0].shape[0]):
        columns = [view[i] / view[i].norm() for view, there in zip(views, present[i].tolist(), strict=True) if there]
        if not columns:
            continue
        matrix = torch.stack(columns, dim=1)
        u, s, _ = torch.linalg.svd(matrix, full_matrices=False)
        intra.append(torch.logsumexp(s / tau1, dim=0) - s[0] / tau1)
        along = float(u[:, 0].detach() @ matrix.sum(dim=1).detach())
        if abs(along) < 1e-8:
            along = float(u[:, 0].detach() @ matrix[:, 0].detach())
        sign = -1.0 if along < 0 else 1.0
        directions.append(sign * u[:, 0])
    stacked = torch.stack(directions)
    logits = stacked @ stacked.T / tau2
    inter = torch.logsumexp(logits, dim=1) - logits.diagonal()
    return torch.stack(intra).mean(), inter.mean()


@pytest.mark.parametrize(("num_views", "dim"), [(1, 3), (2, 4), (3, 4), (4, 3), (3, 2)])
def test_equals_the_dense_decomposition(num_views: int, dim: int) -> None:
    views = [v.requires_grad_() for v in random_views(num_views, 5, dim)]
    present = torch.ones(5, num_views, dtype=torch.bool)
    loss, parts = pmrl(views, temperature=0.3, instance_temperature=0.2, return_components=True)
    intra, inter = slow_pmrl(views, present, 0.3, 0.2)
    torch.testing.assert_close(parts["intra"], intra)
    torch.testing.assert_close(parts["inter"], inter)
    for got, wanted in zip(torch.autograd.grad(loss, views), torch.autograd.grad(intra + inter, views), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-7, atol=1e-9)


def test_missing_modalities_drop_their_column() -> None:
    views = [v.requires_grad_() for v in random_views(3, 6, 4)]
    present = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 0], [0, 1, 1]]).bool()
    loss, parts = pmrl(
        views, temperature=0.3, instance_temperature=0.2, instance_weight=0.5, present=present, return_components=True
    )
    intra, inter = slow_pmrl(views, present, 0.3, 0.2)
    torch.testing.assert_close(loss, intra + 0.5 * inter)
    torch.testing.assert_close(parts["intra"], intra)
    wanted = torch.autograd.grad(intra + 0.5 * inter, views)
    for got, want in zip(torch.autograd.grad(loss, views), wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-7, atol=1e-9)
    spectrum = principal_direction(views, present=present)
    assert spectrum.rank_limit.tolist() == [3, 2, 1, 0, 2, 2]
    assert float(spectrum.singular_values[2, 1:].detach().abs().max()) == 0.0


def test_squares_of_singular_values_sum_to_the_number_of_views() -> None:
    spectrum = principal_direction(random_views(3, 7, 5))
    torch.testing.assert_close((spectrum.singular_values**2).sum(dim=1), torch.full((7,), 3.0, dtype=torch.float64))
    torch.testing.assert_close(spectrum.direction.norm(dim=1), torch.ones(7, dtype=torch.float64))
    towards = (spectrum.direction * sum(v / v.norm(dim=1, keepdim=True) for v in random_views(3, 7, 5))).sum(dim=1)
    assert float(towards.min()) >= 0


def test_two_opposed_views_point_along_the_first() -> None:
    """Their leading direction is their difference, orthogonal to their sum: the sign rule alone cannot decide."""
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(200, 6, generator=generator, dtype=torch.float64)
    second = 0.3 * torch.randn(200, 6, generator=generator, dtype=torch.float64) - first
    for dtype in (torch.float64, torch.float32):
        direction = principal_direction([first.to(dtype), second.to(dtype)]).direction
        assert float((direction * first.to(dtype)).sum(dim=1).min()) > 0


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_gradients(reduction: Reduction) -> None:
    views = [v.requires_grad_() for v in random_views(3, 3, 4)]
    weights = torch.randn(3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    temperatures = [torch.tensor(t, dtype=torch.float64, requires_grad=True) for t in (0.5, 0.4)]

    def weighted(*inputs: Tensor) -> Tensor:
        loss = pmrl(
            list(inputs[:3]),
            temperature=inputs[3],
            instance_temperature=inputs[4],
            reduction=reduction,
        )
        return (loss * weights).sum()

    assert torch.autograd.gradcheck(weighted, (*views, *temperatures))


def test_equal_modalities_have_a_finite_gradient() -> None:
    """Three equal views: two singular values are 0 and equal, where the stock decomposition divides by zero."""
    z = random_views(1, 4, 5)[0].requires_grad_()
    (grad,) = torch.autograd.grad(pmrl([z, z, z]), [z])
    assert torch.isfinite(grad).all()
    # Orthogonal views of equal length: all singular values are equal, the direction is arbitrary.
    basis = [torch.eye(3, dtype=torch.float64)[[k]].repeat(4, 1).requires_grad_() for k in range(3)]
    assert all(torch.isfinite(grad).all() for grad in torch.autograd.grad(pmrl(basis), basis))


def test_degenerate_batches() -> None:
    for rows in (0, 1):
        views = [torch.ones(rows, 3, requires_grad=True) for _ in range(2)]
        loss = pmrl(views)
        assert torch.isfinite(loss)
        assert all(torch.isfinite(grad).all() for grad in torch.autograd.grad(loss, views))
    zeros = [torch.zeros(3, 4, requires_grad=True) for _ in range(2)]
    loss = pmrl(zeros)
    assert torch.isfinite(loss)
    assert all(float(grad.abs().max()) == 0.0 for grad in torch.autograd.grad(loss, zeros))
    views = random_views(2, 3, 4)
    nobody = pmrl(views, present=torch.zeros(3, 2, dtype=torch.bool))
    assert float(nobody) == 0.0


def test_types_and_invariances() -> None:
    views = random_views(3, 9, 5)
    value = pmrl(views, temperature=0.2, instance_temperature=0.2)
    single = pmrl([v.float() for v in views], temperature=0.2, instance_temperature=0.2)
    torch.testing.assert_close(single.double(), value, rtol=2e-5, atol=1e-6)
    assert torch.isfinite(pmrl([v.bfloat16() for v in views], temperature=1e-3, instance_temperature=1e-3))
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        pmrl([v[order] * 2.0 for v in views[::-1]], temperature=0.2, instance_temperature=0.2), value
    )
    torch.testing.assert_close(
        pmrl(views, temperature=0.2, instance_temperature=0.2, memory_budget=512), value, rtol=1e-12, atol=1e-12
    )


def test_arguments_are_named() -> None:
    views = random_views(2, 3, 4)
    with pytest.raises(ValueError, match=r"present must be a bool tensor of shape \(3, 2\)"):
        pmrl(views, present=torch.ones(3, 2))
    with pytest.raises(ValueError, match="at least 1 views, got 0"):
        principal_direction([])
    with pytest.raises(ValueError, match="temperature must be above 0"):
        pmrl(views, instance_temperature=-1.0)
