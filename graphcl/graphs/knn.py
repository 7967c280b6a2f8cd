"""Nearest-neighbour graphs of vectors: exact in blocks, or approximate through faiss."""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple, TypeAlias, get_args

import torch
from torch import Tensor

from graphcl.errors import MissingPackageError
from graphcl.kernels import Similarity, SparseMatrix, knn, normalize_rows

__all__ = ["Metric", "Neighbours", "SearchBackend", "Symmetry", "knn_graph", "nearest_neighbours"]

Metric: TypeAlias = Literal["cosine", "euclidean", "dot"]
SearchBackend: TypeAlias = Literal["exact", "faiss"]
Symmetry: TypeAlias = Literal["union", "mutual", "none"]

_SIMILARITY: Final[dict[str, Similarity]] = {"cosine": "cosine", "euclidean": "sqeuclidean", "dot": "dot"}
# Links and search breadth of the faiss graph index: recall above 0.95 at ten neighbours on common embeddings.
_FAISS_LINKS = 32
_FAISS_BREADTH = 128


class Neighbours(NamedTuple):
    """Neighbours ``(N, k)`` int64 of every row, nearest first, and their scores ``(N, k)``, larger is nearer."""

    indices: Tensor
    scores: Tensor


@torch.no_grad()
def nearest_neighbours(
    x: Tensor,
    k: int,
    *,
    metric: Metric = "cosine",
    include_self: bool = False,
    backend: SearchBackend = "exact",
) -> Neighbours:
    """The k nearest rows of every row.

    A row of zeros has no direction: by ``cosine`` and ``dot`` it has no neighbours and is nobody's neighbour, rather
    than an arbitrary one. By ``euclidean`` it is a point like any other.

    Args:
        x: ``(N, d)`` floating point, finite.
        k: neighbours a row, at least 1.
        metric: ``cosine``, ``dot`` (inner product) or ``euclidean`` distance.
        include_self: whether a row may be its own neighbour.
        backend: ``exact`` compares all pairs in blocks; ``faiss`` searches a navigable small-world graph, which may
            miss neighbours (extra ``[ann]``).

    Returns:
        `Neighbours`. Scores are cosines, inner products or negative distances. Of rows whose scores come out equal the
        one with the lower index comes first (with ``faiss`` any). Where fewer than k rows remain, index -1 with score
        -inf.

    Raises:
        ValueError, TypeError: naming the argument and the value.
        MissingPackageError: faiss is asked for and not installed.

    Complexity:
        ``exact``: O(N^2 d) time, O(N (d + k)) memory plus one tile of 64 MiB. ``faiss``: O(N log N d) time.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.0, 0.0]])
        >>> nearest_neighbours(x, 1).indices.squeeze(1)
        tensor([ 1,  0,  1, -1])
    """
    _check_choice("metric", metric, get_args(Metric))
    _check_choice("backend", backend, get_args(SearchBackend))
    if x.dim() != 2 or not x.is_floating_point():
        raise TypeError(f"x must be a floating-point matrix, got {x.dtype} of shape {tuple(x.shape)}")
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ValueError(f"k must be an integer of at least 1, got {k!r}")
    bad = torch.nonzero(~torch.isfinite(x))
    if bad.numel() > 0:
        row, column = bad[0].tolist()
        raise ValueError(f"x must be finite, got {float(x[row, column])} at row {row}, column {column}")
    kept = torch.arange(x.shape[0], device=x.device)
    if metric != "euclidean":
        kept = torch.nonzero((x != 0).any(dim=1)).squeeze(1)
    rows = x if kept.shape[0] == x.shape[0] else x[kept]
    search = _faiss if backend == "faiss" else _exact
    found = search(rows, k, metric, include_self)
    if rows is x:
        return found
    scores = found.scores.new_full((x.shape[0], k), -torch.inf)
    indices = torch.full((x.shape[0], k), -1, dtype=torch.int64, device=x.device)
    scores[kept] = found.scores
    # Index -1 (nothing found) stays -1: it picks the appended last entry.
    indices[kept] = torch.cat([kept, kept.new_tensor([-1])])[found.indices]
    return Neighbours(indices, scores)


def knn_graph(
    x: Tensor,
    k: int,
    *,
    metric: Metric = "cosine",
    symmetric: Symmetry = "union",
    weighted: bool = False,
    backend: SearchBackend = "exact",
) -> SparseMatrix:
    """Graph that links every row with its k nearest ones.

    Args:
        x: ``(N, d)`` floating point, finite; zero rows stay without edges (see `nearest_neighbours`).
        k: neighbours a row.
        metric: ``cosine``, ``euclidean`` or ``dot``.
        symmetric: ``union`` keeps an edge that either end chose, ``mutual`` one that both chose, ``none`` lists in
            row i the neighbours that i chose.
        weighted: give the edges their scores as values (``cosine`` and ``dot`` only); else the graph is unweighted.
        backend: ``exact`` or ``faiss``.

    Returns:
        ``(N, N)`` without self-loops and without repeated entries, columns ascending within rows.

    Raises:
        ValueError, TypeError: naming the argument and the value.
        MissingPackageError: faiss is asked for and not installed.

    Complexity:
        That of `nearest_neighbours`; O(N k) memory for the graph.

    Example:
        >>> knn_graph(torch.tensor([[0.0], [1.0], [3.0]]), 1, metric="euclidean").to_dense()
        tensor([[0., 1., 0.],
                [1., 0., 1.],
                [0., 1., 0.]])
    """
    _check_choice("symmetric", symmetric, get_args(Symmetry))
    if weighted and metric == "euclidean":
        raise ValueError("weighted needs a similarity, got metric 'euclidean': distances are no weights")
    found = nearest_neighbours(x, k, metric=metric, backend=backend)
    size = x.shape[0]
    present = found.indices >= 0
    rows = torch.arange(size, device=x.device).unsqueeze(1).expand_as(present)[present]
    columns = found.indices[present]
    values = found.scores[present] if weighted else None
    if symmetric == "none":
        return SparseMatrix.from_coo(rows, columns, values, shape=(size, size), check=False)
    both = torch.cat([rows, columns]), torch.cat([columns, rows])
    twice = None if values is None else torch.cat([values, values])
    # Both ends compute one score, up to rounding: the larger one makes the matrix exactly symmetric.
    union = SparseMatrix.from_coo(*both, twice, shape=(size, size), duplicates="max", check=False)
    if symmetric == "union":
        return union
    counts = SparseMatrix.from_coo(*both, shape=(size, size), duplicates="sum", check=False).entry_values()
    mutual = counts == 2
    kept = None if union.values is None else union.values[mutual]
    return SparseMatrix.from_coo(union.pattern.rows[mutual], union.columns[mutual], kept, shape=(size, size))


def _exact(x: Tensor, k: int, metric: Metric, include_self: bool) -> Neighbours:
    scores, indices = knn(x, k, similarity=_SIMILARITY[metric], include_self=include_self, check=False)
    if metric == "euclidean":
        # The expanded square may come out slightly positive for equal rows.
        scores = -torch.sqrt((-scores).clamp_min(0.0))
    return Neighbours(indices, scores)


def _faiss(x: Tensor, k: int, metric: Metric, include_self: bool) -> Neighbours:
    faiss = _import_faiss()
    wide = (normalize_rows(x) if metric == "cosine" else x).float().cpu().contiguous()
    kind = faiss.METRIC_L2 if metric == "euclidean" else faiss.METRIC_INNER_PRODUCT
    index = faiss.IndexHNSWFlat(wide.shape[1], _FAISS_LINKS, kind)
    index.hnsw.efConstruction = _FAISS_BREADTH
    index.hnsw.efSearch = max(_FAISS_BREADTH, 2 * k)
    index.add(wide.numpy())
    values, found = index.search(wide.numpy(), k if include_self else k + 1)
    scores, indices = torch.from_numpy(values), torch.from_numpy(found)
    if metric == "euclidean":
        scores = -torch.sqrt(scores.clamp_min(0.0))
    own = torch.arange(x.shape[0]).unsqueeze(1)
    missing = indices < 0 if include_self else (indices < 0) | (indices == own)
    # What is missing moves to the end; the others keep their order.
    order = torch.sort(missing.to(torch.uint8), dim=1, stable=True).indices[:, :k]
    missing = missing.gather(1, order)
    indices = indices.gather(1, order).masked_fill(missing, -1)
    scores = scores.gather(1, order).masked_fill(missing, -torch.inf)
    return Neighbours(indices.to(x.device), scores.to(x.device, x.dtype))


def _import_faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise MissingPackageError("faiss-cpu", "ann", "the approximate neighbour search") from error
    return faiss


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
