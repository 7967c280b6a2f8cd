"""Multi-label softmax, DecoupledSoftmax and SoftTop-k against dense forms in float64."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from graphcl.functional import (
    Reduction,
    decoupled_softmax,
    multi_label_softmax,
    multi_positive_info_nce,
    soft_top_k,
    soft_top_k_threshold,
)

POSITIVES = torch.tensor([[0, 0, 1, 2, 2, 2, 4], [1, 5, 3, 0, 2, 6, 4]])  # query 3 has none


def problem(rows: int = 5, labels: int = 7, dim: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, dim, generator=generator, dtype=torch.float64)
    return x, torch.randn(labels, dim, generator=generator, dtype=torch.float64)


def slow_losses(x: Tensor, y: Tensor, kind: str, tau: float) -> Tensor:
    logits = x @ y.T / tau
    losses = []
    for i in range(x.shape[0]):
        positive = POSITIVES[1, POSITIVES[0] == i].tolist()
        negative = [j for j in range(y.shape[0]) if j not in positive]
        if not positive:
            losses.append(logits.sum() * 0)
            continue
        pool = [list(range(y.shape[0])) if kind == "softmax" else [p, *negative] for p in positive]
        terms = [
            torch.logsumexp(logits[i, candidates], dim=0) - logits[i, p]
            for p, candidates in zip(positive, pool, strict=True)
        ]
        total = torch.stack(terms)
        losses.append(total.sum() if kind == "softmax" else total.mean())
    return torch.stack(losses)


def bisected(logits: Tensor, k: float, alpha: float) -> float:
    low, high = -float(logits.max()) - 60 / alpha, -float(logits.min()) + 60 / alpha
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if float(torch.sigmoid(alpha * (logits + middle)).sum()) < k else (low, middle)
    return (low + high) / 2


@pytest.mark.parametrize("kind", ["softmax", "decoupled"])
def test_softmax_forms_equal_loops(kind: str) -> None:
    x, y = (t.requires_grad_() for t in problem())
    function = multi_label_softmax if kind == "softmax" else decoupled_softmax
    got = function(x, y, POSITIVES, temperature=0.4, reduction="none")
    wanted = slow_losses(x, y, kind, 0.4)
    torch.testing.assert_close(got, wanted)
    upstream = torch.linspace(-1.0, 2.0, 5, dtype=torch.float64)
    slow = torch.autograd.grad((wanted * upstream).sum(), [x, y])
    for fast, want in zip(torch.autograd.grad((got * upstream).sum(), [x, y]), slow, strict=True):
        torch.testing.assert_close(fast, want)
    mean = function(x, y, POSITIVES, temperature=0.4)
    torch.testing.assert_close(mean, wanted.sum() / 4)


def test_compressed_rows_equal_pairs_in_any_order() -> None:
    x, y = problem()
    csr = torch.tensor([0, 2, 3, 6, 6, 7]), torch.tensor([5, 1, 3, 6, 2, 0, 4])
    shuffled = POSITIVES[:, [6, 2, 4, 0, 5, 1, 3]]
    for function in (multi_label_softmax, decoupled_softmax, soft_top_k):
        value = function(x, y, POSITIVES)
        torch.testing.assert_close(function(x, y, csr), value)
        torch.testing.assert_close(function(x, y, shuffled), value)


def test_decoupled_is_the_own_denominator_form_of_sparse_positives() -> None:
    x, y = problem()
    own = multi_positive_info_nce(x, y, POSITIVES, denominator="own", temperature=0.3, similarity="dot")
    torch.testing.assert_close(decoupled_softmax(x, y, POSITIVES, temperature=0.3), own)


def test_one_positive_makes_both_softmaxes_equal() -> None:
    x, y = problem()
    single = torch.stack([torch.arange(5), torch.tensor([1, 0, 6, 3, 3])])
    torch.testing.assert_close(multi_label_softmax(x, y, single), decoupled_softmax(x, y, single))


def test_sampled_positive_is_one_of_the_positives_each_with_its_turn() -> None:
    x, y = problem()
    candidates = [
        {
            round(multi_label_softmax(x[i : i + 1], y, torch.tensor([[0], [p]])).item(), 10)
            for p in POSITIVES[1, POSITIVES[0] == i].tolist()
        }
        for i in range(5)
    ]
    generator = torch.Generator().manual_seed(0)
    seen: list[set[float]] = [set() for _ in range(5)]
    for _ in range(60):
        drawn = multi_label_softmax(x, y, POSITIVES, sample_positive=True, generator=generator, reduction="none")
        for i in (0, 1, 2, 4):
            seen[i].add(round(drawn[i].item(), 10))
    assert seen == candidates


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(2, 40),
    st.floats(0.01, 0.99),
    st.sampled_from([0.3, 2.0, 20.0]),
    st.sampled_from([0.1, 1.0, 30.0]),
    st.sampled_from([256, 1 << 20]),
)
def test_threshold_admits_exactly_k(
    seed: int, labels: int, part: float, alpha: float, spread: float, budget: int
) -> None:
    x, y = problem(3, labels, seed=seed)
    k = torch.full((3,), part * labels, dtype=torch.float64)
    t = soft_top_k_threshold(spread * x, y, k, alpha=alpha, memory_budget=budget)
    shares = torch.sigmoid(alpha * (spread * x @ y.T + t[:, None]))
    torch.testing.assert_close(shares.sum(dim=1), k, rtol=1e-9, atol=1e-9)
    slope = alpha * (shares * (1 - shares)).sum(dim=1)
    for i in range(3):
        if slope[i] < 1e-6:
            continue  # between labels far apart every threshold admits as many, to the last digit
        assert float(t[i]) == pytest.approx(bisected(spread * x[i] @ y.T, part * labels, alpha), rel=1e-6, abs=1e-6)


def test_threshold_needs_few_sweeps() -> None:
    from graphcl.functional import extreme_multilabel

    x, y = problem(4, 500, 8)
    tiles = extreme_multilabel._RowTiles(2.0 * x.float(), y.float(), 64)
    sweeps = 0
    original = tiles.tiles

    def counted() -> object:
        nonlocal sweeps
        sweeps += 1
        return original()

    tiles.tiles = counted  # type: ignore[method-assign, assignment]
    extreme_multilabel._solve(tiles, torch.full((4,), 5.0), 500)
    assert sweeps <= 14


@pytest.mark.parametrize("k", [1, 3, 6])
@pytest.mark.parametrize("budget", [128, 1 << 20])
def test_soft_top_k_equals_bisection(k: int, budget: int) -> None:
    x, y = problem()
    got = soft_top_k(x, y, POSITIVES, k=k, alpha=2.0, temperature=0.4, memory_budget=budget, reduction="none")
    logits = x @ y.T / 0.4
    for i in range(5):
        positive = POSITIVES[1, POSITIVES[0] == i]
        if positive.numel() == 0:
            assert float(got[i]) == 0.0
            continue
        t = bisected(logits[i], k, 2.0)
        wanted = -torch.log(torch.sigmoid(2.0 * (logits[i, positive] + t))).mean()
        assert float(got[i]) == pytest.approx(float(wanted), rel=1e-9)


@pytest.mark.parametrize("budget", [128, 1 << 20])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_soft_top_k_gradients_include_the_threshold(budget: int, reduction: Reduction) -> None:
    x, y = (t.requires_grad_() for t in problem())
    tau = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def weighted(a: Tensor, b: Tensor, temperature: Tensor) -> Tensor:
        loss = soft_top_k(a, b, POSITIVES, k=3, temperature=temperature, reduction=reduction, memory_budget=budget)
        return (loss * weights).sum()

    assert torch.autograd.gradcheck(weighted, (x, y, tau))


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_softmax_gradients_with_temperature(similarity: Literal["dot", "cosine"]) -> None:
    x, y = (t.requires_grad_() for t in problem())
    tau = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    for function in (multi_label_softmax, decoupled_softmax):

        def weighted(a: Tensor, b: Tensor, temperature: Tensor, function=function) -> Tensor:  # type: ignore[no-untyped-def]
            loss = function(a, b, POSITIVES, temperature=temperature, similarity=similarity, reduction="none")
            scaled: Tensor = (loss * torch.arange(5)).sum()
            return scaled

        assert torch.autograd.gradcheck(weighted, (x, y, tau))


def test_rows_without_a_threshold_are_left_out() -> None:
    x, y = (t.requires_grad_() for t in problem())
    k = torch.tensor([3.0, 7.0, 3.0, 3.0, 0.0])
    loss = soft_top_k(x, y, POSITIVES, k=k, reduction="none")
    plain = soft_top_k(x, y, POSITIVES, k=3, reduction="none")
    torch.testing.assert_close(loss, torch.where(torch.tensor([1, 0, 1, 0, 0]).bool(), plain, 0.0))
    grad_x, grad_y = torch.autograd.grad(loss.sum(), [x, y])
    assert torch.isfinite(grad_x).all()
    assert torch.isfinite(grad_y).all()
    assert float(grad_x[[1, 3, 4]].abs().max()) == 0.0
    assert soft_top_k(x, y, POSITIVES, k=7).item() == 0.0
    threshold = soft_top_k_threshold(x, y, k)
    assert threshold[1].item() == float("inf")
    assert threshold[4].item() == float("-inf")
    own = soft_top_k(x, y, POSITIVES, k="positives", reduction="none")
    torch.testing.assert_close(own[0], soft_top_k(x, y, POSITIVES, k=2, reduction="none")[0])


def test_degenerate_batches() -> None:
    for function in (multi_label_softmax, decoupled_softmax, soft_top_k):
        for rows in (0, 3):
            x = torch.ones(rows, 2, requires_grad=True)
            y = torch.ones(8, 2, requires_grad=True)
            loss = function(x, y, torch.zeros(2, 0).long())
            grads = torch.autograd.grad(loss, [x, y])
            assert loss.item() == 0.0
            assert all(float(grad.abs().sum()) == 0.0 for grad in grads)
    x, y = torch.ones(1, 2, requires_grad=True), torch.ones(2, 2, requires_grad=True)
    all_positive = decoupled_softmax(x, y, torch.tensor([[0, 0], [0, 1]]))
    assert all_positive.item() == 0.0
    assert float(torch.autograd.grad(all_positive, [x])[0].abs().max()) == 0.0


def test_cold_large_and_narrow() -> None:
    x, y = problem(5, 7, 6)
    for function in (multi_label_softmax, decoupled_softmax, soft_top_k):
        value = function(x, y, POSITIVES, temperature=0.5)
        single = function(x.float(), y.float(), POSITIVES, temperature=0.5)
        torch.testing.assert_close(single.double(), value, rtol=2e-5, atol=1e-5)
        leaf = x.float().requires_grad_()
        cold = function(leaf, y.float(), POSITIVES, temperature=1e-3, similarity="cosine")
        assert torch.isfinite(cold)
        assert torch.isfinite(torch.autograd.grad(cold, [leaf])[0]).all()
        assert torch.isfinite(function(1000 * x.float(), y.float(), POSITIVES))
        assert function(x.bfloat16(), y.bfloat16(), POSITIVES).dtype == torch.float32
        tiled = function(x, y, POSITIVES, temperature=0.5, memory_budget=256)
        torch.testing.assert_close(tiled, value, rtol=1e-12, atol=1e-12)


def test_arguments_are_named() -> None:
    x, y = problem()
    with pytest.raises(ValueError, match="similarity must be 'dot' or 'cosine'"):
        decoupled_softmax(x, y, POSITIVES, similarity="l2")  # type: ignore[arg-type]
    with pytest.raises(IndexError, match=r"outside 0 \.\. 6"):
        multi_label_softmax(x, y, torch.tensor([[0], [7]]))
    with pytest.raises(ValueError, match=r"k must be a number or have shape \(5,\), got shape \(2,\)"):
        soft_top_k(x, y, POSITIVES, k=torch.ones(2))
    with pytest.raises(ValueError, match="alpha must be a finite number above 0"):
        soft_top_k(x, y, POSITIVES, alpha=0.0)
    with pytest.raises(ValueError, match="same number of features"):
        soft_top_k(x, y[:, :2], POSITIVES)
