"""Geometry of embeddings against loops over pairs, and at more rows than blocks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import skew
from torch import Tensor

from graphcl.metrics import (
    alignment,
    contrastive_gap,
    effective_rank,
    embedding_geometry,
    hubness,
    similarity_distribution,
    spectrum,
    tolerance,
    uniformity,
)


def drawn(seed: int, num: int = 9, dim: int = 4) -> Tensor:
    return torch.randn(num, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit(z: Tensor) -> Tensor:
    return z / (z * z).sum(dim=1, keepdim=True).sqrt()


def test_alignment_uniformity_tolerance_against_loops() -> None:
    a, b = drawn(0), drawn(1)
    x, y = unit(a), unit(b)
    labels = torch.tensor([0, 0, 1, 1, 1, 2, 2, 3, 0])
    assert alignment(a, b) == pytest.approx(float(((x - y) ** 2).sum(1).mean()))
    assert alignment(a, b, alpha=1.0) == pytest.approx(float((x - y).norm(dim=1).mean()))
    pairs = [(i, j) for i in range(9) for j in range(9) if i != j]
    for other in (None, b):
        second = x if other is None else y
        potential = [math.exp(-3 * float(((x[i] - second[j]) ** 2).sum())) for i, j in pairs]
        assert uniformity(a, other=other, t=3.0) == pytest.approx(math.log(np.mean(potential)))
    same = [float(x[i] @ x[j]) for i, j in pairs if labels[i] == labels[j]]
    found = tolerance(a, labels)
    assert found.same_pairs == pytest.approx(np.mean(same))
    assert found.all_pairs == pytest.approx(np.sum(same) / len(pairs))


def test_gap_of_parted_and_of_equal_clouds() -> None:
    cloud = drawn(0, 200, 6)
    shift = torch.zeros(6, dtype=torch.float64)
    shift[0] = 20.0
    parted = contrastive_gap(cloud + shift, cloud - shift)
    assert parted.separability == 1.0
    assert parted.centroid_distance == pytest.approx(2, abs=0.1)
    assert parted.pair_cosine < -0.9
    equal = contrastive_gap(cloud, cloud)
    assert equal.separability == pytest.approx(0.5)
    assert equal.centroid_distance == pytest.approx(0, abs=1e-12)
    assert equal.pair_cosine == pytest.approx(1)
    mixed = contrastive_gap(cloud, drawn(1, 200, 6))
    assert 0.35 < mixed.separability < 0.65
    x, y = unit(cloud), unit(drawn(1, 200, 6))
    cosine = x @ y.T
    assert mixed.pair_cosine == pytest.approx(float(cosine.diagonal().mean()))
    assert mixed.other_cosine == pytest.approx(float(cosine[~torch.eye(200, dtype=torch.bool)].mean()))


def test_gap_of_few_and_degenerate_rows() -> None:
    single = contrastive_gap(drawn(0, 1), drawn(1, 1))
    assert single.other_cosine is None
    assert single.separability == 1.0
    zero = contrastive_gap(torch.zeros(4, 3), torch.zeros(4, 3))
    assert (zero.separability, zero.centroid_distance, zero.pair_cosine) == (0.5, 0.0, 0.0)
    with pytest.raises(ValueError, match="at least one, got 0 and 0"):
        contrastive_gap(torch.zeros(0, 3), torch.zeros(0, 3))
    with pytest.raises(ValueError, match="got 2 and 3"):
        contrastive_gap(torch.zeros(2, 3), torch.zeros(3, 3))


def test_spectrum_is_that_of_the_covariance_across_blocks() -> None:
    z = drawn(0, 20_000, 5) * torch.tensor([5.0, 3.0, 1.0, 0.1, 0.0]).double() + 7
    expected = np.sort(np.linalg.eigvalsh(np.cov(z.numpy().T, bias=True)))[::-1]
    np.testing.assert_allclose(spectrum(z).numpy(), expected, atol=1e-10)
    values = torch.linalg.svdvals(z) ** 2 / 20_000
    torch.testing.assert_close(spectrum(z, center=False), values, rtol=1e-8, atol=1e-10)
    with pytest.raises(ValueError, match="z has no rows"):
        spectrum(torch.zeros(0, 3))


def test_effective_rank() -> None:
    z = drawn(0, 50, 6)
    sigma = torch.linalg.svdvals(z)
    share = sigma / sigma.sum()
    assert effective_rank(z) == pytest.approx(float(torch.exp(-(share * share.log()).sum())))
    assert effective_rank(z[:, :1] @ drawn(1, 1, 6)) == pytest.approx(1, abs=1e-5)
    assert effective_rank(torch.ones(5, 3), center=True) == 0.0
    assert effective_rank(torch.zeros(5, 3)) == 0.0
    assert effective_rank(torch.eye(7)) == pytest.approx(7)


def test_hubness_counts_neighbours() -> None:
    z = drawn(0, 40, 3)
    cosine = unit(z) @ unit(z).T
    cosine.fill_diagonal_(-2)
    nearest = cosine.topk(4, dim=1).indices
    counts = np.bincount(nearest.flatten().numpy(), minlength=40)
    found = hubness(z, 4)
    assert found.occurrences.tolist() == counts.tolist()
    assert found.skewness == pytest.approx(skew(counts))
    assert found.largest == counts.max()
    assert found.antihubs == np.mean(counts == 0)
    queries = drawn(1, 5, 3)
    asked = hubness(z, 2, queries=queries)
    expected = np.bincount((unit(queries) @ unit(z).T).topk(2, dim=1).indices.flatten().numpy(), minlength=40)
    assert asked.occurrences.tolist() == expected.tolist()
    assert hubness(torch.eye(2), 1).skewness == 0.0
    assert int(hubness(torch.eye(2), 10).occurrences.sum()) == 2
    with pytest.raises(ValueError, match="z has no rows"):
        hubness(torch.zeros(0, 3))


@pytest.mark.parametrize("memory_budget", [1, 2**26])
@pytest.mark.parametrize("form", ["rows", "labels", "pairs", "own pairs"])
def test_similarity_distribution_against_loops(form: str, memory_budget: int) -> None:
    a, b = drawn(0).float(), drawn(1).float()
    labels = torch.tensor([0, 0, 1, 1, 1, 2, 2, 3, 0])
    pairs = torch.tensor([[3, 0, 0, 8], [2, 4, 1, 5]])
    listed = {(i, j) for i, j in pairs.T.tolist()}
    own = form in ("labels", "own pairs")
    cosine = unit(a) @ unit(a if own else b).T
    positive: list[float] = []
    negative: list[float] = []
    for i in range(9):
        for j in range(9):
            if own and i == j:
                continue
            near = {"rows": i == j, "labels": bool(labels[i] == labels[j])}.get(form, (i, j) in listed)
            (positive if near else negative).append(float(cosine[i, j]))
    found = similarity_distribution(
        a,
        None if own else b,
        labels=labels if form == "labels" else None,
        positives=pairs if "pairs" in form else None,
        bins=7,
        memory_budget=memory_budget,
    )
    edges = np.linspace(-1, 1, 8)
    assert found.edges == pytest.approx(edges)
    assert found.positive == tuple(np.histogram(positive, edges)[0])
    assert found.negative == tuple(np.histogram(negative, edges)[0])
    assert found.positive_mean == pytest.approx(np.mean(positive))
    assert found.negative_mean == pytest.approx(np.mean(negative))
    shares = [np.histogram(part, edges)[0] / len(part) for part in (positive, negative)]
    assert found.overlap == pytest.approx(np.minimum(*shares).sum())


def test_similarity_distribution_of_a_part_and_of_nothing() -> None:
    a, b = drawn(0, 60).float(), drawn(1, 60).float()
    generator = torch.Generator().manual_seed(0)
    part = similarity_distribution(a, b, max_anchors=10, generator=generator)
    assert sum(part.positive) == 10
    assert sum(part.negative) == 10 * 59
    assert min(part.negative) >= 0
    nothing = similarity_distribution(a[:0], b[:0])
    assert (sum(nothing.positive), nothing.positive_mean, nothing.overlap) == (0, None, None)
    alone = similarity_distribution(a[:2], labels=torch.tensor([0, 1]))
    assert (alone.positive_mean, alone.overlap, sum(alone.negative)) == (None, None, 2)


def test_similarity_distribution_refusals() -> None:
    a, b = drawn(0), drawn(1)
    labels = torch.zeros(9, dtype=torch.int64)
    pairs = torch.tensor([[0], [1]])
    with pytest.raises(ValueError, match="got both"):
        similarity_distribution(a, labels=labels, positives=pairs)
    with pytest.raises(ValueError, match="labels need as many candidates as anchors, got 3 and 9"):
        similarity_distribution(a, b[:3], labels=labels)
    with pytest.raises(ValueError, match="must be the matching rows"):
        similarity_distribution(a)
    with pytest.raises(ValueError, match="a row and itself"):
        similarity_distribution(a, positives=torch.tensor([[1], [1]]))
    with pytest.raises(IndexError, match=r"positives\[1\] holds 9"):
        similarity_distribution(a, b, positives=torch.tensor([[1], [9]]))
    with pytest.raises(ValueError, match=r"shape \(2, pairs\)"):
        similarity_distribution(a, b, positives=torch.tensor([1, 9]))
    with pytest.raises(ValueError, match="max_anchors needs a generator"):
        similarity_distribution(a, b, max_anchors=2)
    with pytest.raises(ValueError, match="bins must be an integer"):
        similarity_distribution(a, b, bins=0)


def test_summary_holds_what_the_inputs_allow() -> None:
    a, b = drawn(0, 30).float(), drawn(1, 30).float()
    labels = torch.arange(30) % 3
    full = embedding_geometry(a, b, labels, k=3).to_dict()
    assert all(value is not None for value in full.values())
    assert full["alignment"] == alignment(a, b)
    assert full["hubness_skewness"] == hubness(a, 3).skewness
    assert full["tolerance_all_pairs"] == tolerance(a, labels).all_pairs
    alone = embedding_geometry(a, k=3).to_dict()
    assert {name for name, value in alone.items() if value is None} == {
        "alignment",
        "tolerance_same_pairs",
        "tolerance_all_pairs",
        "centroid_distance",
        "separability",
        "pair_cosine",
        "other_cosine",
    }
