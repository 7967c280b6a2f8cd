"""Retrieval without training: common labels, the labels of the nearest training queries, labels that share words."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphcl.data import LabelledQueries, RetrievalData, SparseRows
from graphcl.data.retrieval import Features, kind_of, num_rows, take_rows

__all__ = ["BASELINES", "baseline_retrieval"]

IntArray = NDArray[np.int64]

BASELINES = ("common labels", "nearest queries", "shared features")
_CHUNK = 1024


def baseline_retrieval(
    name: str, data: RetrievalData, queries: LabelledQueries, k: int, *, neighbours: int = 20
) -> IntArray | None:
    r"""Labels of queries by a method that learns nothing.

    ``common labels``: the labels of most training queries, the same for everyone. ``nearest queries``: labels by
    :math:`\sum_n \cos(x, x_n)` over the nearest training queries that have them. ``shared features``: labels by the
    cosine of the query's features and theirs. Equal scores go to the more common label, then to the lower number.

    Args:
        name: one of the above.
        data: training queries, and features of the labels.
        queries: to retrieve for.
        k: labels a query.
        neighbours: training queries to look at.

    Returns:
        ``(Q, k)`` labels; None for ``shared features`` where labels have none of the queries' kind.

    Raises:
        ValueError: an unknown name.

    Complexity: O(entries of the products) time, O(1024 (N + L)) memory.
    """
    if name not in BASELINES:
        raise ValueError(f"name must be one of {', '.join(BASELINES)}, got {name!r}")
    counts = np.bincount(data.train.labels.columns, minlength=data.num_labels)
    if name == "common labels":
        top = np.lexsort((np.arange(data.num_labels), -counts))[:k]
        return np.tile(top, (queries.num_queries, 1))
    known = data.train.features if name == "nearest queries" else data.label_features
    if known is None or kind_of(known) != kind_of(queries.features):
        return None
    rows = _unit(known)
    labels = _matrix(data.train.labels)
    parts = []
    for start in range(0, num_rows(queries.features), _CHUNK):
        chosen = np.arange(start, min(start + _CHUNK, num_rows(queries.features)))
        scores = _dense(_unit(take_rows(queries.features, chosen)) @ rows.T)
        if name == "nearest queries":
            scores = (_highest(scores, neighbours) @ labels).toarray()
        parts.append(np.lexsort((np.broadcast_to(-counts, scores.shape), -scores), axis=1)[:, :k])
    return np.concatenate(parts) if parts else np.empty((0, k), dtype=np.int64)


def _matrix(rows: SparseRows) -> Any:
    from scipy.sparse import csr_matrix

    return csr_matrix((rows.values, rows.columns, rows.offsets), shape=(rows.num_rows, rows.width))


def _unit(features: Features) -> Any:
    if isinstance(features, SparseRows):
        return _matrix(features.unit_rows())
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(length > 0, length, 1.0)


def _dense(product: Any) -> NDArray[np.float64]:
    table: NDArray[np.float64] = np.asarray(product.toarray() if hasattr(product, "toarray") else product)
    return table


def _highest(scores: NDArray[np.float64], number: int) -> Any:
    """The highest entries above 0 of every row, the others left out."""
    from scipy.sparse import csr_matrix

    number = min(number, scores.shape[1])
    top = np.argsort(-scores, axis=1, kind="stable")[:, :number]
    values = np.maximum(np.take_along_axis(scores, top, axis=1), 0.0)
    offsets = np.arange(scores.shape[0] + 1) * number
    return csr_matrix((values.ravel(), top.ravel(), offsets), shape=scores.shape)
