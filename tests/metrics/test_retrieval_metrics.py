"""Metrics of retrieved labels against loops and numbers by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from graphcl.metrics import inverse_propensities, retrieval_metrics


def by_loops(
    retrieved: list[list[int]], truth: list[list[int]], weights: list[float], k: int
) -> dict[str, float | None]:
    """The definitions, a query at a time."""
    precision, recall, gain = [], [], []
    reached = possible = 0.0
    for row, labels in zip(retrieved, truth, strict=True):
        if not labels:
            continue
        hits = [label in labels for label in row[:k]]
        precision.append(sum(hits) / k)
        recall.append(sum(hits) / len(labels))
        ideal = sum(1 / math.log2(2 + rank) for rank in range(min(k, len(labels))))
        gain.append(sum(hit / math.log2(2 + rank) for rank, hit in enumerate(hits)) / ideal)
        reached += sum(weights[label] for label, hit in zip(row[:k], hits, strict=True) if hit)
        possible += sum(sorted((weights[label] for label in labels), reverse=True)[:k])
    return {
        f"P@{k}": sum(precision) / len(precision),
        f"R@{k}": sum(recall) / len(recall),
        f"nDCG@{k}": sum(gain) / len(gain),
        f"PSP@{k}": reached / possible,
    }


@pytest.mark.parametrize("seed", [0, 1])
def test_equals_loops(seed: int) -> None:
    generator = np.random.default_rng(seed)
    num_labels, depth = 30, 8
    retrieved = np.stack([generator.permutation(num_labels)[:depth] for _ in range(40)])
    retrieved[3, 5:] = -1  # a short row
    truth = [generator.permutation(num_labels)[: generator.integers(0, 12)].tolist() for _ in range(40)]
    truth[0], truth[1] = [], list(range(num_labels))
    offsets = np.concatenate([[0], np.cumsum([len(labels) for labels in truth])])
    weights = inverse_propensities(generator.integers(0, 50, num_labels), 100)
    found = retrieval_metrics(
        retrieved, offsets, [label for labels in truth for label in labels], ks=[1, 3, 8], weights=weights
    )
    for k in (1, 3, 8):
        for name, value in by_loops(retrieved.tolist(), truth, weights.tolist(), k).items():
            assert found.values[name] == pytest.approx(value, abs=1e-14)
    assert found.without_labels == sum(not labels for labels in truth)
    assert found.queries + found.without_labels == 40


def test_by_hand() -> None:
    # Query 0 has labels {1, 2, 3}: hits at ranks 1 and 3. Query 1 has label {0}: no hit in a row of one.
    found = retrieval_metrics([[1, 0, 3], [4, -1, -1]], [0, 3, 4], [1, 2, 3, 0], ks=[1, 3], weights=[4, 1, 2, 1, 1])
    assert found.values["P@1"] == 0.5
    assert found.values["P@3"] == pytest.approx((2 / 3) / 2)
    assert found.values["R@3"] == pytest.approx((2 / 3) / 2)
    dcg = (1 + 1 / math.log2(4)) / (1 + 1 / math.log2(3) + 1 / math.log2(4))
    assert found.values["nDCG@3"] == pytest.approx(dcg / 2)
    assert found.values["PSP@1"] == pytest.approx(1 / (2 + 4))
    assert found.values["PSP@3"] == pytest.approx(2 / (4 + 4))


def test_the_best_order_scores_one_in_everything_but_precision() -> None:
    found = retrieval_metrics([[5, 2, 0]], [0, 2], [2, 5], ks=[3], weights=[1.0, 1, 2, 1, 1, 3]).values
    assert found == {"P@3": pytest.approx(2 / 3), "R@3": 1.0, "nDCG@3": 1.0, "PSP@3": 1.0}


def test_without_any_label_nothing_is_defined() -> None:
    found = retrieval_metrics([[0, 1]], [0, 0], [], ks=[1], weights=[1.0, 1.0])
    assert found.values == {"P@1": None, "R@1": None, "nDCG@1": None, "PSP@1": None}
    assert (found.queries, found.without_labels) == (0, 1)
    assert retrieval_metrics(np.empty((0, 3)), [0], [], ks=[3]).values["P@3"] is None


def test_propensities_of_the_paper() -> None:
    counts, points = np.array([0, 3, 500]), 1000
    c = (math.log(points) - 1) * 2.5**0.55
    np.testing.assert_allclose(inverse_propensities(counts, points), 1 + c * (counts + 1.5) ** -0.55)
    other = inverse_propensities(counts, points, a=0.5, b=0.4)
    assert other[0] == pytest.approx(1 + (math.log(points) - 1) * 1.4**0.5 / 0.4**0.5)
    with pytest.raises(ValueError, match="num_points must be at least 3"):
        inverse_propensities(counts, 2)
    with pytest.raises(ValueError, match="counts must be a vector"):
        inverse_propensities([-1], 10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"retrieved": [[0, 0]]}, "a label twice in a row"),
        ({"labels": [1, 1]}, "a query has a label twice"),
        ({"ks": [3]}, r"cut-offs in 1\.\.2"),
        ({"offsets": [0, 1]}, "offsets must rise from 0 to the 2 labels"),
        ({"offsets": [0, 1, 2]}, "retrieved must be"),
        ({"labels": [-1, 0]}, "numbers from 0 up"),
        ({"weights": [1.0]}, "a number above 0 for every label"),
    ],
)
def test_bad_arguments(change: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {"retrieved": [[0, 1]], "offsets": [0, 2], "labels": [0, 1], "ks": [1]}
    arguments = {**good, **change}
    with pytest.raises(ValueError, match=message):
        retrieval_metrics(arguments.pop("retrieved"), arguments.pop("offsets"), arguments.pop("labels"), **arguments)
