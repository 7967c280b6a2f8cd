"""SupReMix against loops over every mixture in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from graphcl.functional import Reduction, supremix


def problem(num_views: int, rows: int, seed: int = 0, classes: int = 6) -> tuple[list[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    views = [torch.randn(rows, 3, generator=generator, dtype=torch.float64) for _ in range(num_views)]
    return views, torch.randint(0, classes, (rows,), generator=generator).double() / 2


def slow_supremix(views: list[Tensor], labels: Tensor, tau: float, shares: list[float], window: float) -> Tensor:
    """Every mixture as a vector; NaN for anchors without a positive."""
    z = torch.cat([view / view.norm(dim=1, keepdim=True) for view in views])
    y = labels.repeat(len(views)).tolist()
    fixed = z.detach()
    losses = []
    for i in range(len(y)):
        below: list[Tensor] = []
        above: list[Tensor] = []
        for j in range(len(y)):
            if j == i:
                continue
            logit = z[i] @ z[j] / tau
            below.append(logit + torch.tensor(abs(y[i] - y[j]) + 1.0).double().log())
            if y[j] == y[i]:
                above.append(logit)
            else:
                mixture = shares[i] * fixed[i] + (1 - shares[i]) * fixed[j]
                gap = abs(y[i] - (shares[i] * y[i] + (1 - shares[i]) * y[j]))
                below.append(z[i] @ mixture / tau + torch.tensor(gap + 1.0).double().log())
        for j in range(len(y)):
            for k in range(len(y)):
                if y[j] < y[i] < y[k] and y[i] - y[j] < window and y[k] - y[i] < window:
                    alpha = (y[k] - y[i]) / (y[k] - y[j])
                    logit = z[i] @ (alpha * fixed[j] + (1 - alpha) * fixed[k]) / tau
                    below.append(logit)
                    above.append(logit)
        if above:
            losses.append(torch.logsumexp(torch.stack(below), dim=0) - torch.stack(above).mean())
        else:
            losses.append(z.new_tensor(float("nan")))
    return torch.stack(losses)


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(0, 1000), st.sampled_from([0.6, 1.5, 5.0]))
def test_equals_loops(num_views: int, rows: int, seed: int, window: float) -> None:
    views, labels = problem(num_views, rows, seed)
    for view in views:
        view.requires_grad_()
    shares = torch.linspace(0.0, 0.9, num_views * rows, dtype=torch.float64)
    wanted = slow_supremix(views, labels, 0.4, shares.tolist(), window)
    got = supremix(views, labels, temperature=0.4, anchor_share=shares, window=window, reduction="none")
    defined = ~wanted.isnan()
    torch.testing.assert_close(got, torch.where(defined, wanted, 0.0))
    if bool(defined.any()):
        upstream = torch.linspace(-1.0, 2.0, got.shape[0], dtype=torch.float64)
        slow = torch.autograd.grad((wanted[defined] * upstream[defined]).sum(), views, allow_unused=True)
        for fast, want in zip(torch.autograd.grad((got * upstream).sum(), views), slow, strict=True):
            torch.testing.assert_close(fast, torch.zeros_like(fast) if want is None else want)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_temperature_gradient(reduction: Reduction) -> None:
    views, labels = problem(2, 4)
    tau = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def weighted(temperature: Tensor) -> Tensor:
        loss = supremix(views, labels, temperature=temperature, anchor_share=0.3, reduction=reduction)
        return (loss * weights).sum()

    assert torch.autograd.gradcheck(weighted, (tau,))


def test_only_real_pairs_differentiate_through_both_rows() -> None:
    """Mixtures are constants: a plain numeric derivative would see them move, the loops above detach them."""
    views, labels = problem(1, 6, seed=3)
    views[0].requires_grad_()
    got = torch.autograd.grad(supremix(views, labels, anchor_share=0.2), views)[0]
    slow = slow_supremix(views, labels, 0.3, [0.2] * 6, 5.0)
    wanted = torch.autograd.grad(slow[~slow.isnan()].mean(), views)[0]
    torch.testing.assert_close(got, wanted)


def test_tiles_do_not_change_the_result() -> None:
    views, labels = problem(2, 20, classes=30)
    value = supremix(views, labels, anchor_share=0.2, reduction="none")
    for budget in (64, 1024, 16384):
        tiled = supremix(views, labels, anchor_share=0.2, reduction="none", memory_budget=budget)
        torch.testing.assert_close(tiled, value, rtol=1e-12, atol=1e-12)


def test_sampled_mixtures_are_unbiased_and_follow_the_generator() -> None:
    views, labels = problem(1, 24, classes=12)
    for view in views:
        view.requires_grad_()
    exact = supremix(views, labels, temperature=1.0, anchor_share=0.2)
    exact_grad = torch.autograd.grad(exact, views)[0]
    generator = torch.Generator().manual_seed(0)
    draws = [
        supremix(views, labels, temperature=1.0, anchor_share=0.2, max_mixtures=40, generator=generator)
        for _ in range(60)
    ]
    assert float(torch.stack(draws).detach().mean()) == pytest.approx(exact.item(), abs=2e-3)
    mean_grad = torch.stack([torch.autograd.grad(draw, views)[0] for draw in draws]).mean(dim=0)
    assert float((mean_grad - exact_grad).norm() / exact_grad.norm()) < 0.05
    again = supremix(
        views, labels, temperature=1.0, anchor_share=0.2, max_mixtures=40, generator=torch.Generator().manual_seed(0)
    )
    assert again.item() == draws[0].item()
    # A bound above the number of pairs changes nothing.
    unbounded = supremix(views, labels, temperature=1.0, anchor_share=0.2, max_mixtures=10_000)
    assert unbounded.item() == exact.item()


def test_drawn_shares_follow_the_beta_distribution() -> None:
    from graphcl.functional.supremix import _anchor_shares

    drawn = _anchor_shares(None, (2, 8), torch.zeros(20_000, 1), torch.Generator().manual_seed(0))
    assert float(drawn.mean()) == pytest.approx(0.2, abs=5e-3)
    assert float(drawn.var()) == pytest.approx(2 * 8 / (100 * 11), abs=1e-3)


def test_degenerate_batches() -> None:
    for rows in (0, 1):
        z = torch.ones(rows, 3, requires_grad=True)
        loss = supremix([z], torch.zeros(rows))
        (grad,) = torch.autograd.grad(loss, [z])
        assert loss.item() == 0.0
        assert float(grad.abs().sum()) == 0.0
    same = torch.ones(4, 3, requires_grad=True)
    loss = supremix([same, same], torch.ones(4))
    (grad,) = torch.autograd.grad(loss, [same])
    assert torch.isfinite(loss)
    assert torch.isfinite(grad).all()
    zero = torch.zeros(4, 3, requires_grad=True)
    (grad,) = torch.autograd.grad(supremix([zero], torch.arange(4.0), anchor_share=0.1), [zero])
    assert float(grad.abs().max()) == 0.0


def test_types_and_permutation() -> None:
    views, labels = problem(2, 10)
    value = supremix(views, labels, anchor_share=0.2)
    single = supremix([v.float() for v in views], labels, anchor_share=0.2)
    torch.testing.assert_close(single.double(), value, rtol=2e-5, atol=1e-5)
    assert torch.isfinite(supremix([v.float() for v in views], labels, anchor_share=0.2, temperature=1e-3))
    assert supremix([v.bfloat16() for v in views], labels, anchor_share=0.2).dtype == torch.float32
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    permuted = supremix([3.0 * v[order] for v in views[::-1]], labels[order], anchor_share=0.2)
    torch.testing.assert_close(permuted, value)


def test_arguments_are_named() -> None:
    views, labels = problem(2, 4)
    with pytest.raises(ValueError, match=r"anchor_share must lie in \[0, 1\)"):
        supremix(views, labels, anchor_share=1.0)
    with pytest.raises(ValueError, match=r"anchor_share must be a number or have shape \(8,\)"):
        supremix(views, labels, anchor_share=torch.zeros(3))
    with pytest.raises(ValueError, match="window must be above 0"):
        supremix(views, labels, window=0.0)
    with pytest.raises(ValueError, match="max_mixtures must be an integer of at least 1"):
        supremix(views, labels, max_mixtures=0)
    with pytest.raises(ValueError, match=r"labels must have shape \(4,\)"):
        supremix(views, labels[:3])
