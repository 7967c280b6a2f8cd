"""Z-loss by moments against the dense form in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from graphcl.functional import Reduction, z_loss


def problem(rows: int = 5, classes: int = 9, dim: int = 4, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    h = torch.randn(rows, dim, generator=generator, dtype=torch.float64)
    c = torch.randn(classes, dim, generator=generator, dtype=torch.float64)
    return h, c, torch.randint(0, classes, (rows,), generator=generator)


def dense(h: Tensor, c: Tensor, target: Tensor, a: float, b: float) -> Tensor:
    o = h @ c.T
    z = (o.gather(1, target[:, None]).squeeze(1) - o.mean(dim=1)) / o.std(dim=1, correction=0)
    return torch.log1p(torch.exp(a * (b - z))) / a


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(2, 12), st.integers(0, 1000), st.sampled_from([0.1, 1.5, 3.0]))
def test_equals_the_dense_form(rows: int, classes: int, seed: int, a: float) -> None:
    h, c, target = problem(rows, classes, seed=seed)
    h.requires_grad_()
    c.requires_grad_()
    got = z_loss(h, c, target, slope=a, threshold=3.0, reduction="none")
    wanted = dense(h, c, target, a, 3.0)
    torch.testing.assert_close(got, wanted)
    upstream = torch.linspace(-1.0, 2.0, rows, dtype=torch.float64)
    slow = torch.autograd.grad((wanted * upstream).sum(), [h, c])
    for fast, want in zip(torch.autograd.grad((got * upstream).sum(), [h, c]), slow, strict=True):
        torch.testing.assert_close(fast, want, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_gradients(reduction: Reduction) -> None:
    h, c, target = problem()
    weights = torch.randn(5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def weighted(hidden: Tensor, classes: Tensor) -> Tensor:
        loss = z_loss(hidden, classes, target, slope=1.5, threshold=2.0, reduction=reduction)
        return (loss * weights).sum()

    assert torch.autograd.gradcheck(weighted, (h.requires_grad_(), c.requires_grad_()))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(0.01, 100.0), st.floats(-100.0, 100.0))
def test_invariant_to_shift_and_positive_scale_of_the_logits(seed: int, scale: float, shift: float) -> None:
    h, c, target = problem(seed=seed)
    value = z_loss(h, c, target)
    torch.testing.assert_close(z_loss(scale * h, c, target), value)
    moved = c + shift * torch.randn(4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    torch.testing.assert_close(z_loss(h, moved, target), value, rtol=1e-6, atol=1e-6)


def test_no_cancellation_in_float32() -> None:
    h, c, target = problem(8, 50, 16)
    far = c + 100.0
    torch.testing.assert_close(
        z_loss(h.float(), far.float(), target).double(), z_loss(h, far, target), rtol=1e-4, atol=0
    )


def test_rows_without_spread_count_with_zero_gradient() -> None:
    h, c, target = problem()
    zero = torch.zeros_like(h).requires_grad_()
    loss = z_loss(zero, c, target, slope=1.0, threshold=2.0)
    assert loss.item() == pytest.approx(float(torch.nn.functional.softplus(torch.tensor(2.0))), rel=1e-6)
    assert float(torch.autograd.grad(loss, [zero])[0].abs().max()) == 0.0
    h.requires_grad_()
    equal = torch.ones(3, 4, dtype=torch.float64, requires_grad=True)
    grads = torch.autograd.grad(z_loss(h, equal, target.clamp_max(2)), [h, equal])
    assert all(float(grad.abs().max()) == 0.0 for grad in grads)


def test_empty_batch_and_narrow_types() -> None:
    empty = torch.zeros(0, 4, requires_grad=True)
    loss = z_loss(empty, torch.ones(3, 4), torch.zeros(0).long())
    assert loss.item() == 0.0
    h, c, target = problem()
    assert z_loss(h.bfloat16(), c.bfloat16(), target).dtype == torch.float32


def test_arguments_are_named() -> None:
    h, c, target = problem()
    with pytest.raises(IndexError, match="target holds 9"):
        z_loss(h, c, target.clamp_min(9))
    with pytest.raises(ValueError, match="slope must be a finite number above 0"):
        z_loss(h, c, target, slope=0.0)
    with pytest.raises(ValueError, match=r"target must have shape \(5,\)"):
        z_loss(h, c, target[:2])
