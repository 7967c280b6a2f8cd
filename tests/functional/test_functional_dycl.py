"""DyCL and smooth hierarchical average precision against loops in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from graphcl.functional import Reduction, dycl, smooth_hierarchical_ap

# 0 unrelated, 1 same group, 2 same class, 3 same item
LEVELS = torch.tensor([[3, 2, 1, 0], [2, 3, 1, 0], [1, 1, 3, 0], [0, 0, 0, 3]])


def pairs(rows: int, others: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(rows, 3, generator=generator, dtype=torch.float64)
    b = torch.randn(others, 3, generator=generator, dtype=torch.float64)
    return a, b, torch.randint(0, 4, (rows,), generator=generator), torch.randint(0, 4, (others,), generator=generator)


def slow_direction(
    s: list[list[float]], level: list[list[int]], scale: float, margins: list[float]
) -> list[float | None]:
    losses: list[float | None] = []
    for row, levels in zip(s, level, strict=True):
        unrelated = sum(math.exp(scale * v) for v, r in zip(row, levels, strict=True) if r == 0)
        total = 0.0
        for r, margin in enumerate(margins, start=1):
            related = sum(math.exp(-scale * v) for v, lv in zip(row, levels, strict=True) if lv >= r)
            total += math.log(1 + unrelated * related * math.exp(scale * margin))
        losses.append(total if any(lv >= 1 for lv in levels) else None)
    return losses


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 500), st.sampled_from(["rows", "columns"]))
def test_dycl_equals_loops(rows: int, others: int, seed: int, normalize: str) -> None:
    a, b, labels, key_labels = pairs(rows, others, seed)
    axis = 1 if normalize == "rows" else 0
    s = (a / a.norm(dim=axis, keepdim=True)) @ (b / b.norm(dim=axis, keepdim=True)).T
    level = LEVELS[labels][:, key_labels]
    margins = [0.25, 0.35, 0.45]
    wanted = slow_direction(s.tolist(), level.tolist(), 5.0, margins)
    wanted += slow_direction(s.T.tolist(), level.T.tolist(), 5.0, margins)
    got = dycl(
        a,
        b,
        labels,
        LEVELS,
        key_labels=key_labels,
        scale=5.0,
        normalize=normalize,  # type: ignore[arg-type]
        reduction="none",
    )
    torch.testing.assert_close(got, torch.tensor([loss or 0.0 for loss in wanted], dtype=torch.float64))
    kept = [loss for loss in wanted if loss is not None]
    mean = dycl(a, b, labels, LEVELS, key_labels=key_labels, scale=5.0, normalize=normalize)  # type: ignore[arg-type]
    assert float(mean) == pytest.approx(sum(kept) / max(len(kept), 1))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_dycl_gradients(reduction: Reduction) -> None:
    a, b, labels, key_labels = pairs(4, 4, 1)
    weights = torch.randn(8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def weighted(first: Tensor, second: Tensor) -> Tensor:
        loss = dycl(first, second, labels, LEVELS, key_labels=key_labels, scale=3.0, reduction=reduction)
        return (loss * weights).sum()

    assert torch.autograd.gradcheck(weighted, (a.requires_grad_(), b.requires_grad_()))


def test_dycl_swap_tiles_types_and_empty() -> None:
    a, b, labels, key_labels = pairs(12, 12, 2)
    value = dycl(a, b, labels, LEVELS, key_labels=key_labels)
    torch.testing.assert_close(dycl(b, a, key_labels, LEVELS.T, key_labels=labels), value)
    tiled = dycl(2 * a, b, labels, LEVELS, key_labels=key_labels, memory_budget=512)
    torch.testing.assert_close(tiled, value, rtol=1e-12, atol=0)
    single = dycl(a.float(), b.float(), labels, LEVELS, key_labels=key_labels)
    torch.testing.assert_close(single.double(), value, rtol=2e-5, atol=1e-4)
    assert dycl(a.bfloat16(), b.bfloat16(), labels, LEVELS).dtype == torch.float32
    z = torch.zeros(3, 2, requires_grad=True)
    loss = dycl(z, z, torch.tensor([0, 1, 3]), LEVELS)
    assert torch.isfinite(loss)
    assert float(torch.autograd.grad(loss, [z])[0].abs().max()) == 0.0
    nothing = torch.zeros(0, 2)
    assert dycl(nothing, nothing, torch.zeros(0).long(), LEVELS).item() == 0.0
    unrelated = dycl(a, b, labels, torch.zeros(4, 4).long())
    assert unrelated.item() == 0.0


def smooth_step(t: float, tau: float, rho: float, delta: float, lift: float, offset: float | None) -> float:
    logistic = 1 / (1 + math.exp(-t / tau))
    if t <= 0:
        return logistic
    if t <= delta:
        return logistic + lift
    return rho * (t - delta) + (lift + 1 / (1 + math.exp(-delta / tau)) if offset is None else offset)


def slow_hap(
    x: Tensor,
    y: Tensor,
    relevance: Tensor,
    left_out: set[tuple[int, int]],
    constants: tuple[float, float, float],
    offset: float | None,
) -> list[float | None]:
    s = ((x / x.norm(dim=1, keepdim=True)) @ (y / y.norm(dim=1, keepdim=True)).T).tolist()
    losses: list[float | None] = []
    for q, row in enumerate(s):
        rel = relevance[q].tolist()
        total = 0.0
        for i in range(len(row)):
            if rel[i] == 0:
                continue
            rank, hierarchical = 1.0, rel[i]
            for j in range(len(row)):
                if j == i or (q, j) in left_out:
                    continue
                t = row[j] - row[i]
                hierarchical += min(rel[i], rel[j]) * (t >= 0)
                rank += smooth_step(t, *constants, 0.5, offset) if rel[j] < rel[i] else float(t >= 0)
            total += hierarchical / rank
        losses.append(1 - total / sum(rel) if sum(rel) > 0 else None)
    return losses


def graded(rows: int, others: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 3, generator=generator, dtype=torch.float64)
    y = torch.randn(others, 3, generator=generator, dtype=torch.float64)
    relevance = torch.randint(0, 4, (rows, others), generator=generator).double() / 3
    where = torch.nonzero(relevance)
    return x, y, relevance, where.T, relevance[where[:, 0], where[:, 1]]


@pytest.mark.parametrize("budget", [1, 1 << 20])
@pytest.mark.parametrize("offset", [None, 1.44])
@settings(max_examples=10, deadline=None)
@given(rows=st.integers(1, 5), others=st.integers(1, 7), seed=st.integers(0, 500))
def test_hierarchical_ap_equals_loops(budget: int, offset: float | None, rows: int, others: int, seed: int) -> None:
    x, y, relevance, where, values = graded(rows, others, seed)
    shuffled = torch.randperm(values.shape[0], generator=torch.Generator().manual_seed(seed))
    got = smooth_hierarchical_ap(
        x,
        y,
        where[:, shuffled],
        values[shuffled],
        temperature=0.1,
        slope=10.0,
        margin=0.3,
        offset=offset,
        reduction="none",
        memory_budget=budget,
    )
    wanted = slow_hap(x, y, relevance, set(), (0.1, 10.0, 0.3), offset)
    torch.testing.assert_close(got, torch.tensor([loss or 0.0 for loss in wanted], dtype=torch.float64))


def test_excluded_candidates_are_not_ranked() -> None:
    x, y, relevance, where, values = graded(3, 6, 4)
    free = torch.nonzero(relevance == 0)
    offsets = torch.cat([torch.zeros(1).long(), torch.bincount(free[:, 0], minlength=3).cumsum(0)])
    got = smooth_hierarchical_ap(x, y, where, values, exclude=(offsets, free[:, 1]), reduction="none")
    left_out = {(int(q), int(j)) for q, j in free}
    wanted = slow_hap(x, y, relevance, left_out, (0.01, 100.0, 0.05), None)
    torch.testing.assert_close(got, torch.tensor([loss or 0.0 for loss in wanted], dtype=torch.float64))


@pytest.mark.parametrize("budget", [1, 1 << 20])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_hierarchical_ap_gradients(budget: int, reduction: Reduction) -> None:
    """Hard steps are flat, so the numeric derivative agrees wherever no two scores cross."""
    x, y, _, where, values = graded(3, 5, 7)
    weights = torch.randn(3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def weighted(queries: Tensor, candidates: Tensor) -> Tensor:
        loss = smooth_hierarchical_ap(
            queries, candidates, where, values, temperature=0.2, slope=3.0, reduction=reduction, memory_budget=budget
        )
        return (loss * weights).sum()

    assert torch.autograd.gradcheck(weighted, (x.requires_grad_(), y.requires_grad_()))


def test_perfect_order_approaches_zero_and_the_bound_holds() -> None:
    y = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    where, relevance = torch.tensor([[0, 0], [0, 1]]), torch.tensor([1.0, 0.5])
    perfect = smooth_hierarchical_ap(y[:1], y, where, relevance)
    assert float(perfect) == pytest.approx(0.0, abs=1e-6)
    reversed_loss = smooth_hierarchical_ap(-y[:1], y, where, relevance)
    hard = 1 - (0.5 / 3 + (1.0 + 0.5) / 4) / 1.5
    assert float(reversed_loss) >= hard


def test_hierarchical_ap_degenerate() -> None:
    for rows, others in ((0, 3), (2, 3)):
        x, y = torch.ones(rows, 2, requires_grad=True), torch.ones(others, 2, requires_grad=True)
        loss = smooth_hierarchical_ap(x, y, torch.zeros(2, 0).long(), torch.zeros(0))
        assert loss.item() == 0.0
        assert all(float(grad.abs().sum()) == 0.0 for grad in torch.autograd.grad(loss, [x, y]))
    same = torch.ones(4, 2, requires_grad=True)
    loss = smooth_hierarchical_ap(same, same, torch.tensor([[0, 1], [1, 0]]), torch.ones(2))
    assert torch.isfinite(loss)
    assert torch.isfinite(torch.autograd.grad(loss, [same])[0]).all()
    x, y, _, where, values = graded(3, 5)
    assert smooth_hierarchical_ap(x.bfloat16(), y.bfloat16(), where, values).dtype == torch.float32


def test_arguments_are_named() -> None:
    a, b, labels, key_labels = pairs(3, 4)
    with pytest.raises(ValueError, match="normalize must be 'rows' or 'columns'"):
        dycl(a, b, labels, LEVELS, key_labels=key_labels, normalize="x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"key_labels must have shape \(4,\)"):
        dycl(a, b, labels, LEVELS)
    with pytest.raises(ValueError, match="levels must be an integer matrix"):
        dycl(a, b, labels, LEVELS.double(), key_labels=key_labels)
    with pytest.raises(ValueError, match="relevance must be above 0"):
        smooth_hierarchical_ap(a, b, torch.tensor([[0], [1]]), torch.zeros(1))
    with pytest.raises(ValueError, match=r"relevance must have shape \(1,\)"):
        smooth_hierarchical_ap(a, b, torch.tensor([[0], [1]]), torch.ones(2))
    with pytest.raises(ValueError, match="temperature must be a finite number above 0"):
        smooth_hierarchical_ap(a, b, torch.tensor([[0], [1]]), torch.ones(1), temperature=0.0)
