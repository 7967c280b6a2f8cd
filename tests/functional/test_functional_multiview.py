"""Losses over many views against loops in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from graphcl.functional import info_nce, mean_view_nt_xent, mv_dhel, mv_infonce, nt_xent, pairwise_nt_xent, poly_view

Objective = Callable[..., Tensor]
ALL: list[Objective] = [mv_infonce, mv_dhel, pairwise_nt_xent, mean_view_nt_xent, poly_view]


def random_views(num_views: int, rows: int, dim: int = 4, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, dim, generator=generator, dtype=torch.float64) for _ in range(num_views)]


def unit(z: Tensor) -> list[list[float]]:
    return [(row / row.norm()).tolist() if row.norm() > 0 else row.tolist() for row in z]


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def log_sum(values: list[float]) -> float:
    top = max(values)
    return top + math.log(sum(math.exp(v - top) for v in values))


def slow_mv_infonce(views: list[Tensor], tau: float, denominator: str, ids: list[int] | None = None) -> float:
    z = [unit(v) for v in views]
    losses = []
    for i in range(len(z[0])):
        below, above = [], []
        for a in range(len(z)):
            for b in range(len(z)):
                for j in range(len(z[0])):
                    if (a, i) == (b, j) or (denominator == "cross" and a == b):
                        continue
                    if ids is not None and i != j and ids[i] == ids[j]:
                        continue
                    below.append(dot(z[a][i], z[b][j]) / tau)
                if a != b:
                    above.append(dot(z[a][i], z[b][i]) / tau)
        losses.append(log_sum(below) - log_sum(above))
    return sum(losses) / len(losses)


def slow_mv_dhel(views: list[Tensor], tau: float, ids: list[int]) -> float:
    z = [unit(v) for v in views]
    losses = []
    for i in range(len(z[0])):
        energy = 0.0
        for view in z:
            energy += log_sum([dot(view[i], view[j]) / tau for j in range(len(view)) if ids[i] != ids[j]])
        pairs = [dot(z[a][i], z[b][i]) / tau for a in range(len(z)) for b in range(a)]
        losses.append(energy - log_sum(pairs))
    return sum(losses) / len(losses)


def slow_nt_xent(first: list[list[float]], second: list[list[float]], tau: float) -> float:
    rows = first + second
    losses = []
    for i in range(len(rows)):
        twin = (i + len(first)) % len(rows)
        candidates = [dot(rows[i], rows[j]) / tau for j in range(len(rows)) if j != i]
        losses.append(log_sum(candidates) - dot(rows[i], rows[twin]) / tau)
    return sum(losses) / len(losses)


def slow_poly_view(views: list[Tensor], tau: float) -> float:
    z = [unit(v) for v in views]
    losses = []
    for i in range(len(z[0])):
        for a in range(len(z)):
            for b in range(len(z)):
                if a == b:
                    continue
                own = dot(z[a][i], z[b][i]) / tau
                rest = [dot(z[a][i], z[c][j]) / tau for c in range(len(z)) for j in range(len(z[0])) if j != i]
                losses.append(log_sum([own, *rest]) - own)
    return sum(losses) / len(losses)


@pytest.mark.parametrize("denominator", ["all", "cross"])
@pytest.mark.parametrize("ids", [None, [0, 1, 0, 2, 3]])
def test_mv_infonce_equals_loops(denominator: Any, ids: list[int] | None) -> None:
    views = random_views(3, 5)
    got = mv_infonce(views, temperature=0.3, denominator=denominator, ids=None if ids is None else torch.tensor(ids))
    assert float(got) == pytest.approx(slow_mv_infonce(views, 0.3, denominator, ids), rel=1e-12)


def test_mv_dhel_equals_loops() -> None:
    views = random_views(3, 5)
    assert float(mv_dhel(views, temperature=0.3)) == pytest.approx(slow_mv_dhel(views, 0.3, [0, 1, 2, 3, 4]), rel=1e-12)
    ids = [0, 1, 0, 2, 3]
    got = mv_dhel(views, temperature=0.3, ids=torch.tensor(ids))
    assert float(got) == pytest.approx(slow_mv_dhel(views, 0.3, ids), rel=1e-12)


def test_baselines_equal_loops() -> None:
    views = random_views(3, 5)
    z = [unit(v) for v in views]
    pairs = [slow_nt_xent(z[a], z[b], 0.3) for a in range(3) for b in range(a)]
    assert float(pairwise_nt_xent(views, temperature=0.3)) == pytest.approx(sum(pairs) / 3, rel=1e-12)
    means = []
    for a in range(3):
        others = [[(x + y) / 2 for x, y in zip(z[(a + 1) % 3][i], z[(a + 2) % 3][i], strict=True)] for i in range(5)]
        means.append(slow_nt_xent(z[a], others, 0.3))
    assert float(mean_view_nt_xent(views, temperature=0.3)) == pytest.approx(sum(means) / 3, rel=1e-12)
    assert float(poly_view(views, temperature=0.3)) == pytest.approx(slow_poly_view(views, 0.3), rel=1e-12)


def test_keys_are_further_negatives() -> None:
    views = random_views(2, 4)
    keys = random_views(1, 3, seed=1)[0]
    joined = [torch.cat([view, keys]) for view in views]
    z, k = [unit(v) for v in views], unit(keys)
    expected = []
    for i in range(4):
        energy = 0.0
        for view in z:
            candidates = [view[j] for j in range(4) if j != i] + k
            energy += log_sum([dot(view[i], other) / 0.4 for other in candidates])
        expected.append(energy - dot(z[0][i], z[1][i]) / 0.4)
    got = mv_dhel(views, temperature=0.4, keys=keys, reduction="none")
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64))
    # With keys as instances of their own, MV-InfoNCE sees them once for each view.
    plain = mv_infonce(joined, temperature=0.4, denominator="cross", reduction="none")[:4]
    doubled = mv_infonce(views, temperature=0.4, denominator="cross", keys=keys, reduction="none")
    torch.testing.assert_close(plain, doubled)
    # Keys with the id of an instance are none of its negatives.
    same = mv_infonce(
        views, temperature=0.4, keys=keys, ids=torch.zeros(4).long(), key_ids=torch.zeros(3).long(), reduction="none"
    )
    alone = torch.stack([mv_infonce([v[i : i + 1] for v in views], temperature=0.4) for i in range(4)])
    torch.testing.assert_close(same, alone)


@pytest.mark.parametrize("objective", ALL)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_gradients(objective: Objective, reduction: str) -> None:
    views = [v.requires_grad_() for v in random_views(3, 3, 3)]
    tau = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)

    def weighted(a: Tensor, b: Tensor, c: Tensor, temperature: Tensor) -> Tensor:
        return (objective([a, b, c], temperature=temperature, reduction=reduction) * weights).sum()

    assert torch.autograd.gradcheck(weighted, (*views, tau))


def test_two_views_reduce_to_two_view_losses() -> None:
    a, b = random_views(2, 6)
    torch.testing.assert_close(pairwise_nt_xent([a, b], temperature=0.3), nt_xent(a, b, temperature=0.3))
    torch.testing.assert_close(mean_view_nt_xent([a, b], temperature=0.3), nt_xent(a, b, temperature=0.3))
    torch.testing.assert_close(poly_view([a, b], temperature=0.3), nt_xent(a, b, temperature=0.3))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 7), st.integers(0, 1000), st.sampled_from([0.05, 0.5, 2.0]))
def test_cross_form_is_at_least_the_mean_of_both_one_way_losses(rows: int, seed: int, tau: float) -> None:
    a, b = random_views(2, rows, seed=seed)
    cross = mv_infonce([a, b], temperature=tau, denominator="cross")
    ways = (info_nce(a, b, temperature=tau) + info_nce(b, a, temperature=tau)) / 2
    assert float(cross) >= float(ways) - 1e-12


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(ALL), st.integers(2, 6), st.integers(0, 1000))
def test_invariances(objective: Objective, rows: int, seed: int) -> None:
    views = random_views(3, rows, seed=seed)
    value = objective(views)
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(objective([v[order] for v in views]), value)
    torch.testing.assert_close(objective(views[::-1]), value)
    torch.testing.assert_close(objective([3.0 * views[0], 0.1 * views[1], views[2]]), value)
    torch.testing.assert_close(objective(torch.stack(views)), value)
    torch.testing.assert_close(objective(views, memory_budget=1024), value, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("objective", ALL)
def test_degenerate_batches(objective: Objective) -> None:
    empty = [torch.zeros(0, 3, requires_grad=True) for _ in range(2)]
    loss = objective(empty)
    assert loss.item() == 0.0
    assert torch.autograd.grad(loss, empty)[0].shape == (0, 3)
    one = [torch.randn(1, 3, generator=torch.Generator().manual_seed(0)).requires_grad_() for _ in range(2)]
    same = [torch.ones(4, 3, requires_grad=True) for _ in range(2)]
    for views in (one, same):
        loss = objective(views)
        assert torch.isfinite(loss)
        assert all(torch.isfinite(grad).all() for grad in torch.autograd.grad(loss, views))
    zeros = [torch.zeros(4, 3, requires_grad=True), torch.randn(4, 3, generator=torch.Generator().manual_seed(1))]
    (grad,) = torch.autograd.grad(objective(zeros), zeros[:1])
    assert float(grad.abs().max()) == 0.0


def test_single_instance_has_no_energy() -> None:
    views = [v.requires_grad_() for v in random_views(2, 1)]
    loss = mv_dhel(views)
    assert loss.item() == 0.0
    assert all(float(grad.abs().max()) == 0.0 for grad in torch.autograd.grad(loss, views))


@pytest.mark.parametrize("objective", ALL)
def test_cold_and_narrow_types(objective: Objective) -> None:
    views = random_views(3, 12, 8)
    cold = objective([v.float() for v in views], temperature=1e-3)
    assert torch.isfinite(cold)
    wide = objective(views, temperature=0.2)
    single = objective([v.float() for v in views], temperature=0.2)
    torch.testing.assert_close(single.double(), wide, rtol=2e-5, atol=1e-5)
    half = objective([v.bfloat16() for v in views], temperature=0.2)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half.double(), wide, rtol=5e-2, atol=5e-2)


def test_arguments_are_named() -> None:
    views = random_views(2, 3)
    with pytest.raises(ValueError, match=r"views must hold at least 2 views, got 1"):
        mv_infonce(views[:1])
    with pytest.raises(ValueError, match=r"views\[1\] must have as many rows as views\[0\], got 2 and 3"):
        mv_dhel([views[0], views[1][:2]])
    with pytest.raises(ValueError, match="denominator must be 'all' or 'cross', got 'x'"):
        mv_infonce(views, denominator="x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="temperature must be above 0, got 0"):
        mv_infonce(views, temperature=0.0)
    with pytest.raises(ValueError, match=r"0-dim tensor, got shape \(3,\)"):
        poly_view(views, temperature=torch.ones(3))
    with pytest.raises(ValueError, match=r"ids must have shape \(3,\)"):
        pairwise_nt_xent(views, ids=torch.zeros(2).long())
    with pytest.raises(ValueError, match="key_ids belong to keys"):
        mv_infonce(views, key_ids=torch.zeros(2).long())
    with pytest.raises(ValueError, match="reduction must be"):
        mv_dhel(views, reduction="max")  # type: ignore[arg-type]
