"""MEOW, AdaMEOW and HeCo against their formulas in float64; k-means."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from graphcl.functional import (
    adameow,
    cluster_density,
    heco,
    kmeans,
    meow_info_nce,
    meow_prototype_nce,
    nearest_centroids,
)
from graphcl.functional._sums_of_tanh import separable, separated_sums
from graphcl.kernels import SparseMatrix, normalize_rows


def rows(count: int, width: int = 3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, dtype=torch.float64, generator=generator).requires_grad_()


def exponentials(x: Tensor, y: Tensor, tau: float) -> Tensor:
    return torch.exp(normalize_rows(x) @ normalize_rows(y).T / tau)


def hard_loss(x: Tensor, y: Tensor, clusterings: list[Tensor], tau: float) -> Tensor:
    weight = torch.stack([c[:, None] != c for c in clusterings]).sum(0)
    e = exponentials(x, y, tau)
    return -torch.log(e.diagonal() / (weight * e).sum(1))


# MEOW


@pytest.mark.parametrize("clusterings", [1, 2, 3])
@pytest.mark.parametrize("memory_budget", [64, 2**26])
def test_hard_weights_are_the_formula(clusterings: int, memory_budget: int) -> None:
    x, y = rows(9), rows(9, seed=1)
    ids = [torch.randint(k + 2, (9,), generator=torch.Generator().manual_seed(k)) for k in range(clusterings)]
    ids[0][0], ids[0][1] = 0, 1
    found = meow_info_nce(x, y, ids, temperature=0.3, reduction="none", memory_budget=memory_budget)
    expected = hard_loss(x, y, ids, 0.3)
    torch.testing.assert_close(found, torch.where(expected.isinf(), 0.0, expected))
    weights = rows(9, 1, seed=3)[:, 0].detach()
    assert torch.autograd.gradcheck(
        lambda a, b: (meow_info_nce(a, b, ids, temperature=0.3, reduction="none") * weights).sum(), (x, y)
    )


def test_an_anchor_without_negatives_leaves_the_mean_or_meets_the_floor() -> None:
    x, y = rows(4), rows(4, seed=1)
    shared = [torch.zeros(4, dtype=torch.int64)]
    assert float(meow_info_nce(x, y, shared).detach()) == 0.0
    x32 = x.detach().float().requires_grad_()
    meow_info_nce(x32, y.detach().float(), shared).backward()  # type: ignore[no-untyped-call]
    assert x32.grad is not None
    assert bool((x32.grad == 0).all())
    cosine = (normalize_rows(x) * normalize_rows(y)).sum(1)
    floored = meow_info_nce(x, y, shared, temperature=0.5, floor=-3.0)
    torch.testing.assert_close(floored, (-3.0 - cosine / 0.5).mean())


def test_low_temperatures_and_large_clusters_lose_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(300, 4, dtype=torch.float64, generator=generator) for _ in range(2))
    ids = [torch.zeros(300, dtype=torch.int64) for _ in range(2)]
    ids[0][7], ids[1][7] = 1, 1
    exact = meow_info_nce(x, y, ids, temperature=0.01, reduction="none")
    single = meow_info_nce(x.float(), y.float(), ids, temperature=0.01, reduction="none")
    # One candidate in 300 counts. T sum e_ij minus the sums over clusters would have no digit left in float32.
    torch.testing.assert_close(single.double(), exact, rtol=1e-4, atol=1e-3)
    e = exponentials(x, y, 0.01)
    torch.testing.assert_close(exact[0], -torch.log(e[0, 0] / (2 * e[0, 7])))


def test_prototypes_are_the_formula() -> None:
    x, centroids = rows(7), rows(3, seed=1).detach()
    ids, density = torch.tensor([0, 1, 1, 2, 0, 2, 2]), torch.tensor([0.3, 0.7, 0.5], dtype=torch.float64)
    e = torch.exp(normalize_rows(x) @ normalize_rows(centroids).T / density)
    expected = -torch.log(e[torch.arange(7), ids] / (7 / 3 * e.sum(1)))
    torch.testing.assert_close(meow_prototype_nce(x, centroids, ids, density, reduction="none"), expected)
    weights = rows(7, 1, seed=3)[:, 0].detach()
    assert torch.autograd.gradcheck(
        lambda a: (meow_prototype_nce(a, centroids, ids, density, reduction="none") * weights).sum(), (x,)
    )


def test_density_is_the_formula_and_survives_what_is_degenerate() -> None:
    similarity = torch.tensor([0.9, 0.8, 0.1, 0.2, 0.3, 0.5, -0.2], dtype=torch.float64)
    ids = torch.tensor([0, 0, 1, 1, 1, 2, 1])
    raw = [
        (math.sqrt(0.9) + math.sqrt(0.8)) / 2 / math.log(7),
        (math.sqrt(0.1) + math.sqrt(0.2) + math.sqrt(0.3)) / 4 / math.log(9),
    ]
    raw += [max(raw), max(raw)]
    density = torch.tensor(raw, dtype=torch.float64)
    low, high = torch.quantile(density, torch.tensor([0.1, 0.9], dtype=torch.float64))
    clipped = density.clamp(low, high)
    found = cluster_density(similarity, ids, 4, temperature=0.4)
    torch.testing.assert_close(found, 0.4 * clipped / clipped.mean())
    assert cluster_density(similarity[:2], torch.tensor([0, 1]), 2).tolist() == [0.4, 0.4]
    assert cluster_density(torch.zeros(4), torch.tensor([0, 0, 1, 1]), 2, kind="l2").tolist() == pytest.approx(
        [0.4] * 2
    )
    with pytest.raises(ValueError, match="kind must be 'similarity' or 'l2', got 'cosine'"):
        cluster_density(similarity, ids, 4, kind="cosine")  # type: ignore[arg-type]


# AdaMEOW


def network(seed: int, scale: float = 1.0, hidden: int = 4) -> list[Tensor]:
    parts = [rows(hidden, 3, seed), rows(hidden, 1, seed + 1)[:, 0], rows(hidden, 1, seed + 2)[:, 0]]
    return [(scale * part.detach()).requires_grad_() for part in (*parts, rows(1, 1, seed + 3)[0])]


def soft_loss(x: Tensor, y: Tensor, parts: list[Tensor], tau: float, normalize: bool) -> Tensor:
    hidden, bias, out, last = parts
    u, v = normalize_rows(x), normalize_rows(y)
    omega = torch.sigmoid(torch.tanh((u[:, None] + v[None]) @ hidden.T + bias) @ out + last)
    if normalize:
        omega = omega / omega.mean(1, keepdim=True)
    e = torch.exp(u @ v.T / tau)
    return -torch.log(e.diagonal() / (omega * e).sum(1))


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("scale", [0.3, 1.0, 60.0])
def test_learned_weights_are_the_formula(scale: float, normalize: bool) -> None:
    x, y, parts = rows(6), rows(6, seed=1), network(5, scale)
    weights = rows(6, 1, seed=3)[:, 0].detach()

    def found(*given: Tensor) -> Tensor:
        return adameow(
            given[0],
            given[1],
            *given[2:],
            temperature=0.4,
            normalize_weights=normalize,
            reduction="none",
            memory_budget=1,
        )

    torch.testing.assert_close(found(x, y, *parts), soft_loss(x, y, parts, 0.4, normalize))
    whole = adameow(x, y, *parts, temperature=0.4, normalize_weights=normalize, reduction="none")
    torch.testing.assert_close(found(x, y, *parts), whole)
    assert torch.autograd.gradcheck(lambda *given: (found(*given) * weights).sum(), (x, y, *parts), atol=1e-4)


@pytest.mark.parametrize("scale", [0.01, 0.3, 1.0])
def test_the_network_on_all_pairs_is_one_product(scale: float) -> None:
    a, b, weight = scale * rows(5) + 3.0, scale * rows(4, seed=1) - 2.0, rows(3, 1, seed=2)[:, 0]
    assert separable(b)
    left, right = separated_sums(a, b, weight)
    whole = torch.tanh(a[:, None] + b[None]) @ weight
    torch.testing.assert_close(left @ right.T, whole, rtol=1e-13, atol=1e-13)
    upstream = rows(5, 4, seed=4).detach()
    for one, other in zip(
        torch.autograd.grad(((left @ right.T) * upstream).sum(), (a, b, weight), retain_graph=True),
        torch.autograd.grad((whole * upstream).sum(), (a, b, weight), retain_graph=True),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-11)
    assert not separable(50 / scale * b)
    assert not separable(b[:0])


def test_vanishing_weights_stay_finite() -> None:
    x, y, parts = rows(5), rows(5, seed=1), network(5)
    single = [part.detach().float().requires_grad_() for part in (x, y, *parts[:3])]
    bias = torch.tensor([-300.0], requires_grad=True)
    loss = adameow(*single, bias, temperature=0.4)  # type: ignore[misc, arg-type]
    assert float(loss) == pytest.approx(float(soft_loss(x, y, parts, 0.4, False).mean()) - 300, abs=5)
    loss.backward()  # type: ignore[no-untyped-call]
    assert bias.grad is not None
    assert float(bias.grad) == pytest.approx(1.0, abs=1e-4)


def test_arguments_of_the_network_are_checked() -> None:
    x, parts = rows(4), network(5)
    with pytest.raises(ValueError, match=r"hidden_bias must have shape \(4,\), got shape \(3,\)"):
        adameow(x, x, parts[0], parts[1][:3], parts[2], parts[3])
    with pytest.raises(ValueError, match="out_bias must hold one number"):
        adameow(x, x, parts[0], parts[1], parts[2], parts[2])


# HeCo


def test_positives_share_a_numerator_in_both_directions() -> None:
    x, y = rows(6), rows(6, seed=1)
    dense = torch.tensor(
        [[1, 1, 0, 0, 0, 0], [0, 1, 0, 1, 1, 0], [0, 0, 1, 0, 0, 0]] + [[0] * 6] + [[0, 0, 0, 0, 1, 1]] * 2
    )
    positives = SparseMatrix.from_torch(dense.to_sparse())
    e = exponentials(x, y, 0.6)
    valid = dense.sum(1) > 0

    def side(values: Tensor) -> Tensor:
        return -torch.log((values * dense).sum(1) / values.sum(1))

    expected = torch.where(valid, 0.3 * side(e) + 0.7 * side(e.T), 0.0)
    found = heco(x, y, positives, temperature=0.6, balance=0.3, reduction="none")
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(heco(x, y, positives, temperature=0.6, balance=0.3), expected[valid].mean())
    weights = rows(6, 1, seed=3)[:, 0].detach()
    assert torch.autograd.gradcheck(
        lambda a, b: (heco(a, b, positives, temperature=0.6, balance=0.3, reduction="none") * weights).sum(), (x, y)
    )
    with pytest.raises(ValueError, match=r"positives must have shape \(6, 6\)"):
        heco(x, y, SparseMatrix(torch.tensor([0, 0]), torch.tensor([], dtype=torch.int64), None, (1, 1)))
    with pytest.raises(ValueError, match=r"balance must lie in 0 .. 1, got 2"):
        heco(x, y, positives, balance=2.0)


# k-means


@pytest.mark.parametrize("metric", ["dot", "euclidean"])
def test_assignments_are_the_best_and_centroids_the_means(metric: str) -> None:
    x = rows(40, 3).detach()
    found = kmeans(x, 5, metric=metric, generator=torch.Generator().manual_seed(0), iterations=100)  # type: ignore[arg-type]
    score = x @ found.centroids.T if metric == "dot" else -(torch.cdist(x, found.centroids) ** 2) / 2
    assert torch.equal(found.assignments, score.argmax(1))
    torch.testing.assert_close(found.similarity, score.max(1).values)
    for cluster in range(5):
        members = x[found.assignments == cluster]
        if members.shape[0] == 0:
            assert metric == "dot"
            continue
        # With inner products some centroid may stay unused, and the largest cluster is nudged to make room for it.
        nudge = 1e-6 if metric == "euclidean" else 2e-3
        torch.testing.assert_close(found.centroids[cluster], members.mean(0), rtol=nudge, atol=1e-8)
    blocked = nearest_centroids(x, found.centroids, metric=metric, memory_budget=1)  # type: ignore[arg-type]
    torch.testing.assert_close(blocked[0], found.similarity)


def test_separate_groups_are_found_and_restarts_do_not_make_it_worse() -> None:
    generator = torch.Generator().manual_seed(0)
    centers = 20 * torch.eye(4)
    x = torch.cat([center + torch.randn(30, 4, generator=generator) for center in centers])
    one = kmeans(x, 4, metric="euclidean", generator=torch.Generator().manual_seed(4))
    several = kmeans(x, 4, metric="euclidean", restarts=10, generator=torch.Generator().manual_seed(4))
    assert float(several.similarity.sum()) >= float(one.similarity.sum())
    groups = several.assignments.view(4, 30)
    assert bool((groups == groups[:, :1]).all())
    assert len(set(groups[:, 0].tolist())) == 4
    again = kmeans(x, 4, metric="euclidean", centroids=several.centroids)
    assert torch.equal(again.assignments, several.assignments)


def test_a_centroid_that_nobody_chose_is_used_again() -> None:
    x = torch.tensor([[0.0, 1.0], [0.1, 1.0], [5.0, 1.0], [5.1, 1.0]])
    start = torch.tensor([[2.0, 1.0], [100.0, 1.0]])
    found = kmeans(x, 2, centroids=start, metric="euclidean")
    assert found.assignments.bincount(minlength=2).tolist() == [2, 2]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: kmeans(x, 7), r"num_clusters must lie in 1 .. 6 \(rows\), got 7"),
        (
            lambda x: kmeans(x, 2, metric="cosine"),  # type: ignore[arg-type]
            "metric must be 'dot' or 'euclidean', got 'cosine'",
        ),
        (lambda x: kmeans(x, 2, centroids=x[:3]), r"centroids must have shape \(2, 3\), got shape \(3, 3\)"),
        (lambda x: kmeans(x, 2, iterations=0), "iterations"),
        (lambda x: kmeans(x[0], 1), "x must be a float matrix"),
        (lambda x: meow_info_nce(x, x, []), "clusterings must hold at least one clustering"),
        (lambda x: meow_info_nce(x, x, [torch.zeros(5, dtype=torch.int64)]), r"clusterings\[0\]"),
        (lambda x: meow_info_nce(x, x, [torch.zeros(6)], temperature=-1.0), "temperature"),
        (lambda x: meow_prototype_nce(x, x[:2], torch.full((6,), 2), torch.ones(2)), "assignments"),
    ],
)
def test_bad_arguments_are_named(call: Callable[[Tensor], object], message: str) -> None:
    with pytest.raises((ValueError, IndexError, TypeError), match=message):
        call(rows(6).detach().float())
