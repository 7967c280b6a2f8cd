"""ConR against loops in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from graphcl.functional import conr


def problem(rows: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(rows, 3, generator=generator, dtype=torch.float64)
    # Tenths, so that differences sit on the window's edge up to rounding.
    y = torch.randint(0, 40, (rows,), generator=generator).double() / 10
    predicted = y + torch.randint(-8, 9, (rows,), generator=generator).double() / 10
    weight = torch.rand(rows, generator=generator, dtype=torch.float64) + 0.5
    return z, y, predicted, weight


def slow_conr(
    z: Tensor,
    y: Tensor,
    predicted: Tensor,
    weight: Tensor,
    *,
    window: float,
    tau: float,
    push: float,
    form: str,
    released: bool,
) -> list[float]:
    unit = z / z.norm(dim=1, keepdim=True)
    logits = (unit @ unit.T / tau).tolist()
    targets, guesses = y.tolist(), predicted.tolist()
    losses = []
    for i in range(len(targets)):
        positive = [j for j in range(len(targets)) if j != i and abs(targets[i] - targets[j]) <= window]
        negative = [
            j
            for j in range(len(targets))
            if abs(targets[i] - targets[j]) > window and abs(guesses[i] - guesses[j]) <= window
        ]
        if not positive or not negative:
            losses.append(0.0)
            continue
        total = sum(math.exp(logits[i][j]) for j in positive)
        for j in negative:
            distance = abs(targets[i] - targets[j])
            pushed = math.exp(push * distance) if form == "exponential" else push * distance
            total += float(weight[i]) * pushed * math.exp(logits[i][j])
        if released:
            total += len(targets) - len(positive)
        terms = [math.log(total) - logits[i][j] for j in positive]
        losses.append(float(weight[i]) * sum(terms) / len(terms))
    return losses


@pytest.mark.parametrize("form", ["exponential", "linear"])
@pytest.mark.parametrize("denominator", ["clean", "released"])
@settings(max_examples=15, deadline=None)
@given(rows=st.integers(2, 14), seed=st.integers(0, 1000), window=st.sampled_from([0.0, 0.2, 0.3, 1.0]))
def test_equals_loops(form: str, denominator: str, rows: int, seed: int, window: float) -> None:
    z, y, predicted, weight = problem(rows, seed)
    expected = slow_conr(
        z, y, predicted, weight, window=window, tau=0.2, push=0.3, form=form, released=denominator == "released"
    )
    got = conr(
        z,
        y,
        predicted,
        sample_weight=weight,
        window=window,
        temperature=0.2,
        push=0.3,
        push_form=form,  # type: ignore[arg-type]
        denominator=denominator,  # type: ignore[arg-type]
        reduction="none",
    )
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-12)
    mean = conr(
        z,
        y,
        predicted,
        sample_weight=weight,
        window=window,
        temperature=0.2,
        push=0.3,
        push_form=form,  # type: ignore[arg-type]
        denominator=denominator,  # type: ignore[arg-type]
    )
    assert float(mean) == pytest.approx(sum(expected) / rows, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("denominator", ["clean", "released"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_gradients(denominator: str, reduction: str) -> None:
    z, y, predicted, weight = problem(6, 3)
    upstream = torch.randn(6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    tau = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)

    def weighted(rows: Tensor, temperature: Tensor) -> Tensor:
        loss = conr(
            rows,
            y,
            predicted,
            sample_weight=weight,
            temperature=temperature,
            denominator=denominator,  # type: ignore[arg-type]
            reduction=reduction,  # type: ignore[arg-type]
        )
        return (loss * upstream).sum()

    assert torch.autograd.gradcheck(weighted, (z.requires_grad_(), tau))


def test_predictions_and_targets_carry_no_gradient() -> None:
    z, y, predicted, _ = problem(8, 1)
    predicted.requires_grad_()
    z.requires_grad_()
    (found,) = torch.autograd.grad(conr(z, y, predicted), [predicted], allow_unused=True)
    assert found is None


def test_anchors_without_partners_are_left_out() -> None:
    z = torch.eye(3, requires_grad=True)
    apart = conr(z, torch.tensor([0.0, 10.0, 20.0]), torch.zeros(3))
    together = conr(z, torch.zeros(3), torch.zeros(3))
    (grad,) = torch.autograd.grad(apart + together, [z])
    assert (apart.item(), together.item(), float(grad.abs().max())) == (0.0, 0.0, 0.0)
    for rows in (0, 1):
        assert float(conr(torch.ones(rows, 2), torch.zeros(rows), torch.zeros(rows))) == 0.0


def test_permutation_scale_blocks_and_types() -> None:
    z, y, predicted, weight = problem(30, 2)
    value = conr(z, y, predicted, sample_weight=weight)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    permuted = conr(3 * z[order], y[order], predicted[order], sample_weight=weight[order])
    torch.testing.assert_close(permuted, value)
    torch.testing.assert_close(
        conr(z, y, predicted, sample_weight=weight, memory_budget=512), value, rtol=1e-12, atol=0
    )
    single = conr(z.float(), y, predicted, sample_weight=weight)
    torch.testing.assert_close(single.double(), value, rtol=2e-5, atol=1e-5)
    assert torch.isfinite(conr(z.bfloat16(), y, predicted, temperature=1e-3))
    zero = torch.zeros(30, 3, requires_grad=True)
    (grad,) = torch.autograd.grad(conr(zero, y, predicted), [zero])
    assert float(grad.abs().max()) == 0.0


def test_arguments_are_named() -> None:
    z, y, predicted, _ = problem(4)
    with pytest.raises(ValueError, match=r"targets must have shape \(4,\)"):
        conr(z, y[:2], predicted)
    with pytest.raises(ValueError, match="push_form must be"):
        conr(z, y, predicted, push_form="x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="denominator must be"):
        conr(z, y, predicted, denominator="x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="reduction must be"):
        conr(z, y, predicted, reduction="x")  # type: ignore[arg-type]
