"""Labels retrieved for queries: precision, recall, nDCG, and precision weighted by the propensity of labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["RetrievalMetrics", "inverse_propensities", "retrieval_metrics"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class RetrievalMetrics:
    """Means over the queries that have a label.

    Attributes:
        values: ``P@k``, ``R@k``, ``nDCG@k`` and, where propensities were given, ``PSP@k``; None without a query.
        queries: queries with a label.
        without_labels: queries without one; they count nowhere.
    """

    values: dict[str, float | None]
    queries: int
    without_labels: int

    def to_dict(self) -> dict[str, float | None]:
        """The metrics, ready for JSON."""
        return dict(self.values)


def inverse_propensities(counts: Any, num_points: int, *, a: float = 0.55, b: float = 1.5) -> FloatArray:
    r"""How many labels stand behind one that was observed, by how frequent it is.

    Himanshu Jain, Yashoteja Prabhu, Manik Varma, "Extreme Multi-label Loss Functions for Recommendation, Tagging,
    Ranking & Other Missing Label Applications", 2016, https://doi.org/10.1145/2939672.2939756

    .. math:: 1 / p_l = 1 + C (N_l + B)^{-A}, \qquad C = (\log N - 1) (B + 1)^A

    Args:
        counts: ``(L,)`` training points N_l of every label.
        num_points: N, training points in all; at least 3, so that C is above 0.
        a, b: A and B; .55 and 1.5 unless the data set has its own (.5 and .4 for Wikipedia, .6 and 2.6 for Amazon).

    Returns:
        ``(L,)``, at least 1.

    Raises:
        ValueError: fewer than 3 points, a negative count, or constants that are not above 0.

    Complexity: O(L).

    Example:
        >>> inverse_propensities([0, 1000], 1000).round(2).tolist()
        [8.82, 1.22]
    """
    number = np.asarray(counts, dtype=np.float64)
    if num_points < 3:
        raise ValueError(f"num_points must be at least 3, got {num_points}")
    if number.ndim != 1 or (number < 0).any():
        raise ValueError("counts must be a vector of numbers from 0 up")
    if not (a > 0 and b > 0):
        raise ValueError(f"a and b must be above 0, got {a} and {b}")
    found: FloatArray = 1.0 + (math.log(num_points) - 1.0) * (b + 1.0) ** a * (number + b) ** -a
    return found


def retrieval_metrics(
    retrieved: Any,
    offsets: Any,
    labels: Any,
    *,
    ks: Sequence[int] = (1, 3, 5, 10, 20),
    weights: Any = None,
) -> RetrievalMetrics:
    r"""P@k, R@k, nDCG@k and PSP@k of ranked labels.

    With the hits ``h_r`` at rank r and the labels Y of a query::

        P@k    = sum_{r <= k} h_r / k
        R@k    = sum_{r <= k} h_r / |Y|
        nDCG@k = sum_{r <= k} h_r / log2(1 + r)  /  sum_{r <= min(k, |Y|)} 1 / log2(1 + r)
        PSP@k  = sum_q sum_{r <= k} h_r w_r  /  sum_q (sum of the k largest w of the labels of q)

    P@k divides by k also where a query has fewer labels or fewer were retrieved. PSP@k is a ratio of sums over all
    queries, as in the extreme classification repository; the others are means. Queries without a label count nowhere.

    Args:
        retrieved: ``(Q, K)`` labels, best first, none twice; -1 fills up short rows.
        offsets: ``(Q + 1,)`` of the labels of each query.
        labels: ``(E,)`` true labels, none twice for a query.
        ks: cut-offs, at most K.
        weights: ``(L,)`` inverse propensities, see `inverse_propensities`.

    Returns:
        The metrics.

    Raises:
        ValueError: shapes that do not fit, a cut-off outside ``1..K``, or a label twice.

    Complexity: O((Q K + E) log E) time, O(Q K + E) memory.

    Example:
        >>> retrieval_metrics([[4, 0, 2]], [0, 2], [2, 4], ks=[1, 3]).to_dict()["R@3"]
        1.0
    """
    ranked, starts, truth = (np.asarray(part, dtype=np.int64) for part in (retrieved, offsets, labels))
    _check(ranked, starts, truth, ks)
    size = np.diff(starts)
    hits = _hits(ranked, starts, truth)
    kept = size > 0
    hits, size = hits[kept], size[kept]
    count = int(kept.sum())
    discount = 1.0 / np.log2(np.arange(2, ranked.shape[1] + 2))
    best = np.concatenate([[0.0], np.cumsum(discount)])
    found, gain = np.cumsum(hits, axis=1), np.cumsum(hits * discount, axis=1)
    values: dict[str, FloatArray | float] = {}
    for k in ks:
        values[f"P@{k}"] = found[:, k - 1] / k
    for k in ks:
        values[f"R@{k}"] = found[:, k - 1] / size
    for k in ks:
        values[f"nDCG@{k}"] = gain[:, k - 1] / best[np.minimum(k, size)]
    means = {name: float(np.mean(value)) if count else None for name, value in values.items()}
    if weights is not None:
        weight = np.asarray(weights, dtype=np.float64)
        top = max(int(truth.max(initial=-1)), int(ranked.max(initial=-1)))
        if weight.ndim != 1 or weight.size <= top or not (weight > 0).all():
            raise ValueError("weights must be a vector of a number above 0 for every label")
        reached = np.cumsum(hits * weight[np.maximum(ranked[kept], 0)], axis=1).sum(axis=0)
        possible = _largest(weight[truth], starts, ranked.shape[1])
        means.update({f"PSP@{k}": float(reached[k - 1] / possible[k - 1]) if count else None for k in ks})
    return RetrievalMetrics(means, count, int(kept.size - count))


def _check(ranked: IntArray, starts: IntArray, truth: IntArray, ks: Sequence[int]) -> None:
    if ranked.ndim != 2 or starts.shape != (ranked.shape[0] + 1,) or truth.ndim != 1:
        raise ValueError(
            f"retrieved must be (Q, K), offsets (Q + 1,) and labels (E,), got {ranked.shape}, {starts.shape}, "
            f"{truth.shape}"
        )
    if starts[0] != 0 or starts[-1] != truth.size or (np.diff(starts) < 0).any():
        raise ValueError(f"offsets must rise from 0 to the {truth.size} labels")
    if any(not 1 <= k <= ranked.shape[1] for k in ks):
        raise ValueError(f"ks must be cut-offs in 1..{ranked.shape[1]}, got {list(ks)}")
    if (truth < 0).any() or (ranked < -1).any():
        raise ValueError("labels must be numbers from 0 up; -1 fills up retrieved rows")


def _hits(ranked: IntArray, starts: IntArray, truth: IntArray) -> NDArray[np.bool_]:
    """Whether each retrieved label is one of its query; every pair (query, label) is one number."""
    span = max(int(truth.max(initial=0)), int(ranked.max(initial=0))) + 1
    rows = np.repeat(np.arange(ranked.shape[0]), np.diff(starts))
    known = np.sort(rows * span + truth)
    if (known[1:] == known[:-1]).any():
        raise ValueError("a query has a label twice")
    wanted = np.where(ranked >= 0, np.arange(ranked.shape[0])[:, None] * span + ranked, -1)
    ordered = np.sort(wanted, axis=1)
    if ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any():
        raise ValueError("retrieved has a label twice in a row")
    place = np.searchsorted(known, wanted)
    inside = place < known.size
    found: NDArray[np.bool_] = np.zeros(ranked.shape, dtype=np.bool_)
    found[inside] = known[place[inside]] == wanted[inside]
    return found


def _largest(weight: FloatArray, starts: IntArray, width: int) -> FloatArray:
    """``(width,)`` sum over queries of the k largest weights of their labels, for k from 1."""
    rows = np.repeat(np.arange(starts.size - 1), np.diff(starts))
    order = np.lexsort((-weight, rows))
    rank = np.arange(weight.size) - starts[:-1][rows]
    total = np.bincount(np.minimum(rank, width), weights=weight[order], minlength=width + 1)[:width]
    found: FloatArray = np.cumsum(total)
    return found
