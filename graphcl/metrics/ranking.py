"""Full ranking of a catalogue, streamed in blocks, and the metrics that are read off the ranks.

No score matrix is kept: a block of scores is made, the items above each target are counted, and the block is dropped.
Every metric here is a function of the ranks of the relevant items ("targets"), so ranks are computed once and any
cut-off, metric or bucket follows in time linear in the number of targets.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from graphcl.kernels import matmul_nt, pair_topk

__all__ = [
    "BucketMetrics",
    "Csr",
    "RankingEvaluation",
    "RankingMetrics",
    "Seen",
    "Ties",
    "evaluate_ranking",
    "metrics_by_popularity",
    "per_query_metrics",
    "rank_of_targets",
    "rank_of_targets_by_score",
    "ranking_metrics",
    "recommend_topk",
]

Ties: TypeAlias = Literal["optimistic", "mean", "pessimistic", "index"]
Seen: TypeAlias = Literal["keep", "exclude"]
Csr: TypeAlias = tuple[Tensor | npt.NDArray[np.integer[Any]], Tensor | npt.NDArray[np.integer[Any]]]
"""Columns of every row, ``(offsets [N+1], columns [E])``: row ``i`` owns ``columns[offsets[i]:offsets[i+1]]``."""
ScoreBlock: TypeAlias = Callable[[slice, slice], Tensor]

DEFAULT_CUTOFFS = (5, 10, 20)
DEFAULT_BUCKET_EDGES = (1, 10, 50)

_MEMORY_BUDGET = 64 * 2**20
# Larger blocks are no faster, and smaller ones lose time between threads; the budget only caps them.
_BEST_BLOCK = 16 * 2**20
# Targets a query from which sorting a row is cheaper than counting it once a target.
_SORTED_ABOVE = 3
# BLAS rounds the entries of a product differently in the fringe that does not fill its register tiles, and in products
# of very few rows. Blocks that start and end on multiples of this size have no fringe, so equal items get equal scores
# and ranks do not depend on the block size. It is a multiple of the tile sides in use (4 to 48).
_ALIGNMENT = 96


@torch.no_grad()
def rank_of_targets(
    queries: Tensor,
    items: Tensor,
    targets: Tensor | Csr,
    *,
    exclude: Csr | None = None,
    ties: Ties = "optimistic",
    depth: int | None = None,
    memory_budget: int = _MEMORY_BUDGET,
    block_size: tuple[int, int] | None = None,
) -> Tensor:
    """Rank of every target among all items by inner product, without keeping a score matrix.

    With ``s_j = <q, x_j>`` over the items that are not excluded, the rank of target ``t`` is

        rank(t) = 1 + #{j : s_j > s_t} + tie(t)

    where ``tie(t)`` follows ``ties``: ``"optimistic"`` 0, ``"pessimistic"`` the number of tied items that are not
    targets, ``"mean"`` half of it, ``"index"`` the number of tied items with a lower index (the order in which
    :func:`recommend_topk` lists them). Under the first three, tied targets of one query take consecutive ranks in index
    order, so that two targets never share a position and NDCG stays at most 1. The score of a target is read from the
    same product as the scores of its competitors, so rounding cannot put it above or below itself.

    Args:
        queries: ``[N, d]``, float; half types are scored in float32.
        items: ``[V, d]``.
        targets: ``[N]`` with one target index per query, or ``(offsets [N+1], columns [T])`` with any number each.
        exclude: ``(offsets [N+1], columns [E])`` of items that are no candidates for that query. A target that is
            itself excluded can never be recommended: its rank is ``inf``.
        ties: the tie rule.
        depth: tell ranks apart only up to here; every later one is ``depth + 1``, which is all that metrics with
            cut-offs of at most ``depth`` need and several times faster where queries have many targets. None ranks all.
        memory_budget: upper bound in bytes of one score block.
        block_size: ``(queries, items)`` of one block; chosen from the budget by default.

    Returns:
        ``[T]`` float64 ranks, aligned with the targets (whole numbers unless ``ties="mean"``).

    Raises:
        ValueError: shapes do not fit, offsets are not monotone, a target repeats within a query, or a score is not
            finite (a diverged model must not look perfect).
        IndexError: a target or excluded index is outside ``0..V-1``.

    Complexity:
        Time O(N V d + T V), memory O(memory_budget + T + E).

    Example:
        >>> queries = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> items = torch.tensor([[3.0, 0.0], [2.0, 2.0], [1.0, 3.0]])
        >>> rank_of_targets(queries, items, torch.tensor([1, 2])).tolist()
        [2.0, 1.0]
    """
    if queries.dim() != 2 or items.dim() != 2 or queries.shape[1] != items.shape[1]:
        raise ValueError(
            f"queries must be [N, d] and items [V, d] with one d, got {tuple(queries.shape)} and {tuple(items.shape)}"
        )
    for name, value in (("queries", queries), ("items", items)):
        if not bool(torch.isfinite(value).all()):
            row = int((~torch.isfinite(value)).any(1).nonzero()[0, 0])
            raise ValueError(f"{name} holds a value that is not finite in row {row}; the model has diverged")
    dtype = torch.promote_types(torch.promote_types(queries.dtype, items.dtype), torch.float32)
    return rank_of_targets_by_score(
        inner_product_scores(queries.to(dtype), items.to(dtype)),
        (queries.shape[0], items.shape[0]),
        targets,
        exclude=exclude,
        ties=ties,
        depth=depth,
        memory_budget=memory_budget,
        block_size=block_size,
        device=queries.device,
        overwrite=True,
    )


def inner_product_scores(queries: Tensor, items: Tensor) -> ScoreBlock:
    """Blocks of ``queries @ items.T`` whose entries do not depend on the block that they are computed in.

    Slices are widened to aligned ones and cut back, see ``_ALIGNMENT``; aligned slices cost nothing extra.

    Args:
        queries: ``[N, d]`` float.
        items: ``[V, d]`` of the same dtype.

    Returns:
        A function of a row slice and a column slice that gives the scores ``[rows, columns]``.

    Complexity:
        Time O(rows columns d) and memory O(rows columns) a call.

    Example:
        >>> scores = inner_product_scores(torch.eye(3), torch.eye(3))
        >>> scores(slice(1, 2), slice(0, 3)).tolist()
        [[0.0, 1.0, 0.0]]
    """
    padded_queries, padded_items = _pad_rows(queries, _ALIGNMENT), _pad_rows(items, _ALIGNMENT)

    def score(rows: slice, columns: slice) -> Tensor:
        first_row, first_column = (_align_down(part.start) for part in (rows, columns))
        last_row, last_column = (_align_up(part.stop) for part in (rows, columns))
        block = matmul_nt(padded_queries[first_row:last_row], padded_items[first_column:last_column])
        return block[
            rows.start - first_row : rows.stop - first_row,
            columns.start - first_column : columns.stop - first_column,
        ]

    return score


def _align_down(position: int) -> int:
    return position // _ALIGNMENT * _ALIGNMENT


def _align_up(position: int) -> int:
    return -(-position // _ALIGNMENT) * _ALIGNMENT


def _pad_rows(matrix: Tensor, multiple: int) -> Tensor:
    missing = -matrix.shape[0] % multiple
    return torch.nn.functional.pad(matrix, (0, 0, 0, missing)) if missing else matrix


@torch.no_grad()
def rank_of_targets_by_score(
    score: ScoreBlock,
    shape: tuple[int, int],
    targets: Tensor | Csr,
    *,
    exclude: Csr | None = None,
    ties: Ties = "optimistic",
    depth: int | None = None,
    memory_budget: int = _MEMORY_BUDGET,
    block_size: tuple[int, int] | None = None,
    device: torch.device | str = "cpu",
    overwrite: bool = False,
) -> Tensor:
    """Ranks of targets under any scorer; :func:`rank_of_targets` is this with inner products.

    Args:
        score: called with a slice of queries and a slice of items, returns their scores ``[rows, columns]``. It is
            called once per block, or twice where the items do not fit into one block, and must then repeat itself.
        shape: ``(N, V)``, numbers of queries and items.
        targets: as in :func:`rank_of_targets`.
        exclude: as in :func:`rank_of_targets`.
        ties: as in :func:`rank_of_targets`.
        depth: as in :func:`rank_of_targets`.
        memory_budget: as in :func:`rank_of_targets`.
        block_size: as in :func:`rank_of_targets`.
        device: where ``score`` computes.
        overwrite: whether every block of scores is made for this call alone, so that it may be written into.

    Returns:
        ``[T]`` float64 ranks.

    Raises:
        ValueError, IndexError: as in :func:`rank_of_targets`.

    Complexity:
        Time O(N V) scores plus O(T V) comparisons, memory O(memory_budget + T + E).

    Example:
        >>> scores = torch.tensor([[0.1, 0.9, 0.5]])
        >>> rank_of_targets_by_score(lambda rows, columns: scores[rows, columns], (1, 3), torch.tensor([2])).tolist()
        [2.0]
    """
    num_queries, num_items = shape
    if ties not in get_args(Ties):
        raise ValueError(f"ties must be one of {', '.join(get_args(Ties))}, got {ties!r}")
    if depth is not None and (depth < 1 or ties != "optimistic"):
        raise ValueError(f"depth must be at least 1 and needs ties='optimistic', got {depth} with {ties!r}")
    target_offsets, target_columns = csr_of_targets(targets, num_queries, num_items, device)
    _refuse_repeats(target_offsets, target_columns, num_items)
    excluded = None if exclude is None else _checked_csr(exclude, "exclude", num_queries, num_items, device)
    rows_per_block, columns_per_block = _block_shape(num_queries, num_items, memory_budget, block_size)
    ranks = torch.empty(target_columns.shape[0], dtype=torch.float64, device=device)
    for start in range(0, num_queries, rows_per_block):
        stop = min(start + rows_per_block, num_queries)
        first, last = int(target_offsets[start]), int(target_offsets[stop])
        if first == last:
            continue
        ranks[first:last] = _rank_block(
            lambda columns, rows=slice(start, stop): score(rows, columns),  # type: ignore[misc]
            _blocks(num_items, columns_per_block),
            target_offsets[start : stop + 1] - first,
            target_columns[first:last],
            None if excluded is None else _rows_of_csr(excluded, start, stop),
            ties,
            depth,
            overwrite,
        )
    return ranks


def _rank_block(
    score: Callable[[slice], Tensor],
    blocks: Sequence[slice],
    offsets: Tensor,
    columns: Tensor,
    excluded: tuple[Tensor, Tensor] | None,
    ties: Ties,
    depth: int | None,
    overwrite: bool,
) -> Tensor:
    """Ranks of the targets of one block of queries; ``excluded`` holds (row, column) pairs."""
    counts = offsets.diff()
    rows = torch.repeat_interleave(torch.arange(counts.shape[0], device=counts.device), counts)
    one_each = bool((counts == 1).all())

    def masked_scores(block: slice) -> Tensor:
        scores = score(block)
        scores = scores if scores.dtype in (torch.float32, torch.float64) else scores.float()
        if excluded is None:
            return scores
        if len(blocks) == 1:
            return _without(scores, *excluded, overwrite)
        inside = (excluded[1] >= block.start) & (excluded[1] < block.stop)
        return _without(scores, excluded[0][inside], excluded[1][inside] - block.start, overwrite)

    cached = masked_scores(blocks[0]) if len(blocks) == 1 else None
    target_scores = torch.empty(0)
    for block in blocks:
        inside = (columns >= block.start) & (columns < block.stop)
        if bool(inside.any()):
            scores = masked_scores(block) if cached is None else cached
            if target_scores.shape[0] == 0:
                target_scores = scores.new_empty(columns.shape[0])
            target_scores[inside] = scores[rows[inside], columns[inside] - block.start]
    reachable = torch.ones_like(columns, dtype=torch.bool)
    if excluded is not None and not bool(torch.isfinite(target_scores).all()):
        reachable = ~_is_member(rows, columns, excluded)
    if not bool(torch.isfinite(target_scores[reachable]).all()):
        raise ValueError("the score of a target is not finite; the model has diverged")

    above = torch.zeros(columns.shape[0], dtype=torch.float64, device=columns.device)
    tied = torch.zeros_like(above)
    for block in blocks:
        scores = masked_scores(block) if cached is None else cached
        if depth is not None:
            ours = overwrite or excluded is not None
            above += _count_above_within(scores, rows, target_scores, depth, overwrite=ours)
            continue
        if ties == "optimistic" and columns.shape[0] > _SORTED_ABOVE * scores.shape[0]:
            above += _count_above_sorted(scores, offsets, target_scores)
            continue
        for chunk in _target_chunks(columns.shape[0], scores.shape[0]):
            rivals = scores if one_each else scores[rows[chunk]]
            threshold = target_scores[chunk, None]
            above[chunk] += _count(rivals, ">", threshold)
            if ties in ("mean", "pessimistic"):
                tied[chunk] += _count(rivals, "==", threshold)
            elif ties == "index":
                index = torch.arange(block.start, block.stop, device=columns.device)
                earlier = rivals.masked_fill(index >= columns[chunk, None], -math.inf)
                tied[chunk] += _count(earlier, "==", threshold)
    if ties == "index":
        ranks = 1 + above + tied
    else:
        # Beyond the depth nobody asks for the order among ties.
        asked = slice(None) if depth is None else torch.nonzero(above < depth)[:, 0]
        before, group = torch.zeros_like(above), torch.ones_like(above)
        if not one_each:
            before[asked], group[asked] = _order_among_tied_targets(rows[asked], columns[asked], target_scores[asked])
        share = {"optimistic": 0.0, "mean": 0.5, "pessimistic": 1.0}[ties]
        ranks = 1 + above + before + (share * (tied - group) if share else 0.0)
    if depth is not None:
        ranks = ranks.clamp(max=depth + 1)
    return torch.where(reachable, ranks, math.inf)


def _without(scores: Tensor, rows: Tensor, columns: Tensor, overwrite: bool = False) -> Tensor:
    """A block of scores with -inf at the listed places; a copy unless the block is ours to write into."""
    masked = scores
    if not overwrite or scores.stride(1) != 1:
        masked = scores.clone(memory_format=torch.contiguous_format)
    if scores.device.type == "cpu" and masked.numel():
        # One flat index written by NumPy takes a quarter of the time of torch's two; rows may stand apart.
        step = masked.stride(0)
        flat = torch.as_strided(masked, ((masked.shape[0] - 1) * step + masked.shape[1],), (1,))
        flat.numpy()[(rows * step + columns).numpy()] = -math.inf
    else:
        masked[rows, columns] = -math.inf
    return masked


def _count_above_within(scores: Tensor, rows: Tensor, thresholds: Tensor, depth: int, *, overwrite: bool) -> Tensor:
    """How many of the ``depth`` highest scores of a target's row are above it; the row's true count up to ``depth``."""
    depth = min(depth, scores.shape[1])
    if scores.device.type == "cpu":
        # NumPy selects with vector instructions where torch's selection does not.
        split = scores.shape[1] - depth
        selected = scores.numpy() if overwrite else scores.numpy().copy()
        selected.partition(split, axis=1)
        highest = torch.from_numpy(selected[:, split:])
    else:
        highest = torch.topk(scores, depth, dim=1, sorted=False).values
    return (highest.index_select(0, rows) > thresholds[:, None]).sum(1)


def _count_above_sorted(scores: Tensor, offsets: Tensor, thresholds: Tensor) -> Tensor:
    """How many scores of a target's row are above it: rows with many targets are sorted once instead."""
    ordered = (
        torch.from_numpy(np.sort(scores.numpy(), axis=1)) if scores.device.type == "cpu" else scores.sort(1).values
    )
    counts = offsets.diff()
    place = torch.arange(thresholds.shape[0], device=offsets.device) - offsets[:-1].repeat_interleave(counts)
    rows = torch.repeat_interleave(torch.arange(counts.shape[0], device=counts.device), counts)
    padded = thresholds.new_zeros(counts.shape[0], int(counts.max()))
    padded[rows, place] = thresholds
    at_most: Tensor = torch.searchsorted(ordered, padded, right=True)[rows, place]
    return scores.shape[1] - at_most


def _order_among_tied_targets(rows: Tensor, columns: Tensor, scores: Tensor) -> tuple[Tensor | float, Tensor | float]:
    """For each target: how many targets of its query tie with it and have a lower index, and how many tie in all."""
    order = torch.argsort(scores, stable=True)
    order = order[torch.argsort(rows[order], stable=True)]
    if not bool(((rows[order].diff() == 0) & (scores[order].diff() == 0)).any()):
        return 0.0, 1.0
    order = torch.argsort(columns, stable=True)
    order = order[torch.argsort(scores[order], stable=True)]
    order = order[torch.argsort(rows[order], stable=True)]
    starts_run = torch.ones_like(order, dtype=torch.bool)
    starts_run[1:] = (rows[order].diff() != 0) | (scores[order][1:] != scores[order][:-1])
    run = starts_run.cumsum(0) - 1
    sizes = torch.bincount(run)
    position = torch.arange(order.shape[0], device=order.device) - (sizes.cumsum(0) - sizes)[run]
    before, group = torch.empty_like(position), torch.empty_like(position)
    before[order], group[order] = position, sizes[run]
    return before.double(), group.double()


def _is_member(rows: Tensor, columns: Tensor, pairs: tuple[Tensor, Tensor]) -> Tensor:
    width = int(torch.cat([columns, pairs[1]]).max()) + 1
    return torch.isin(rows * width + columns, pairs[0] * width + pairs[1])


def _count(scores: Tensor, relation: Literal[">", "=="], threshold: Tensor) -> Tensor:
    """How many entries of each row stand in the relation to the threshold of the row, ``[R, 1]``."""
    if scores.device.type != "cpu":
        return (scores > threshold if relation == ">" else scores == threshold).sum(1)
    # On a CPU NumPy compares and counts bytes several times faster than torch, row by row in the cache.
    compare = np.greater if relation == ">" else np.equal
    hits = compare(scores.numpy(), threshold.numpy())
    return torch.from_numpy(np.fromiter(map(np.count_nonzero, hits), np.int64, hits.shape[0]))


def _target_chunks(num_targets: int, num_rows: int) -> Iterator[slice]:
    """Targets in chunks of as many as the block has rows, so that the gathered rows need no more memory than it."""
    size = max(1, num_rows)
    for start in range(0, num_targets, size):
        yield slice(start, min(start + size, num_targets))


def _blocks(size: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]


def _block_shape(
    num_queries: int, num_items: int, memory_budget: int, block_size: tuple[int, int] | None
) -> tuple[int, int]:
    if block_size is not None:
        if min(block_size) < 1:
            raise ValueError(f"block_size must be two positive numbers, got {block_size}")
        return block_size
    if memory_budget < 1:
        raise ValueError(f"memory_budget must be positive, got {memory_budget}")
    bytes_per_score = 16  # float32 score, gathered row and mask, or float64
    columns = min(
        _align_up(max(num_items, 1)), max(_ALIGNMENT, _align_down(memory_budget // (_ALIGNMENT * bytes_per_score)))
    )
    rows = max(_ALIGNMENT, _align_down(min(memory_budget // 4, _BEST_BLOCK) // (4 * columns)))
    return rows, columns


def csr_of_targets(
    targets: Tensor | Csr, num_queries: int, num_items: int, device: torch.device | str
) -> tuple[Tensor, Tensor]:
    """Checked ``(offsets, columns)`` of targets given as ``[N]`` or as such a pair; see :func:`rank_of_targets`.

    Args:
        targets: ``[N]`` or ``(offsets [N+1], columns [T])``.
        num_queries: ``N``.
        num_items: ``V``.
        device: where the result lives.

    Returns:
        Two int64 tensors.

    Raises:
        ValueError: not integers, or offsets that do not fit.
        IndexError: an item outside ``0..V-1``.

    Complexity:
        Time and memory O(N + T).

    Example:
        >>> csr_of_targets(torch.tensor([4, 2]), 2, 5, "cpu")[0].tolist()
        [0, 1, 2]
    """
    return _checked_csr(_as_csr(targets), "targets", num_queries, num_items, device)


def _as_csr(targets: Tensor | Csr) -> Csr:
    if isinstance(targets, tuple):
        return targets
    columns = torch.as_tensor(targets)
    if columns.dim() != 1:
        raise ValueError(f"targets must be [N] or (offsets, columns), got shape {tuple(columns.shape)}")
    return torch.arange(columns.shape[0] + 1), columns


def _checked_csr(
    csr: Csr, name: str, num_rows: int, num_columns: int, device: torch.device | str
) -> tuple[Tensor, Tensor]:
    offsets, columns = (torch.as_tensor(part) for part in csr)
    for part in (offsets, columns):
        if part.dim() != 1 or part.is_floating_point() or part.dtype == torch.bool:
            raise ValueError(f"{name} must be 1-d integers, got {part.dtype} of shape {tuple(part.shape)}")
    offsets, columns = offsets.to(device, torch.int64), columns.to(device, torch.int64)
    if offsets.shape[0] != num_rows + 1:
        raise ValueError(f"{name} must cover {num_rows} queries, got offsets for {offsets.shape[0] - 1}")
    if int(offsets[0]) != 0 or int(offsets[-1]) != columns.shape[0] or bool((offsets.diff() < 0).any()):
        raise ValueError(f"offsets of {name} must rise from 0 to the number of columns ({columns.shape[0]})")
    outside = (columns < 0) | (columns >= num_columns)
    if bool(outside.any()):
        raise IndexError(f"{name} holds item {int(columns[outside][0])}, outside 0..{num_columns - 1}")
    return offsets, columns


def _refuse_repeats(offsets: Tensor, columns: Tensor, num_items: int) -> None:
    rows = torch.repeat_interleave(torch.arange(offsets.shape[0] - 1, device=offsets.device), offsets.diff())
    keys = (rows * num_items + columns).sort().values
    repeated = keys[1:][keys.diff() == 0]
    if repeated.shape[0]:
        row, column = divmod(int(repeated[0]), num_items)
        raise ValueError(f"targets of query {row} hold item {column} twice; keep each item once")


def _rows_of_csr(csr: tuple[Tensor, Tensor], start: int, stop: int) -> tuple[Tensor, Tensor]:
    offsets, columns = csr
    rows = torch.repeat_interleave(torch.arange(stop - start, device=offsets.device), offsets[start : stop + 1].diff())
    return rows, columns[int(offsets[start]) : int(offsets[stop])]


@dataclass(frozen=True)
class RankingMetrics:
    """Ranking metrics averaged over the queries that have at least one target.

    Attributes:
        values: flat name such as ``"HR@20"`` to mean value; nan where no query could be evaluated.
        users: queries that the means divide by.
        users_without_targets: queries left out because nothing is relevant for them.
        targets: relevant items over all queries.
        unreachable_targets: targets that the protocol excluded from the candidates; they count as misses.
    """

    values: Mapping[str, float]
    users: int
    users_without_targets: int
    targets: int
    unreachable_targets: int

    def to_dict(self) -> dict[str, float]:
        """Flat ``{"HR@5": ..., "NDCG@5": ...}``; metrics that no query defines are left out."""
        return {name: value for name, value in self.values.items() if not math.isnan(value)}


@dataclass(frozen=True)
class BucketMetrics:
    """Metrics of the targets whose training frequency falls into one range.

    Attributes:
        name: label with the range, such as ``"10-49"``.
        items: catalogue items in the range.
        metrics: metrics with only this bucket's targets as relevant; their ranks are still among all items.
    """

    name: str
    items: int
    metrics: RankingMetrics

    def to_dict(self) -> dict[str, str | int | float]:
        """Flat record: name, users, targets, items, then the metrics."""
        counts = {"users": self.metrics.users, "targets": self.metrics.targets, "items": self.items}
        return {"name": self.name, **counts, **self.metrics.to_dict()}


def per_query_metrics(
    ranks: Tensor, offsets: Tensor | npt.NDArray[np.integer[Any]] | None = None, *, ks: Sequence[int] = DEFAULT_CUTOFFS
) -> dict[str, Tensor]:
    """HR, Recall, Precision, NDCG, MRR and MAP at every cut-off for every query.

    With ``R`` relevant items at ranks ``r_1 < r_2 < ...`` and cut-off ``k``:

        HR@k        1 if r_1 <= k else 0
        Recall@k    #{r_i <= k} / R
        Precision@k #{r_i <= k} / k
        NDCG@k      sum_{r_i <= k} 1 / log2(1 + r_i)  /  sum_{i=1}^{min(R, k)} 1 / log2(1 + i)
        MRR@k       1 / r_1 if r_1 <= k else 0
        MAP@k       (1 / R) sum_{r_i <= k} i / r_i

    MAP divides by all ``R`` relevant items as trec_eval does, also where ``R > k``. With one relevant item Recall
    equals HR and MAP equals MRR.

    Args:
        ranks: ``[T]`` ranks of the targets; ``inf`` for a target that cannot be recommended.
        offsets: ``[N+1]`` of the targets of each query; by default every query has one target.
        ks: cut-offs.

    Returns:
        Name such as ``"NDCG@10"`` to ``[N]`` float64 values, nan for queries without a target.

    Raises:
        ValueError: a cut-off or rank below 1, or offsets that do not fit.

    Complexity:
        Time O(T log T + (N + T) len(ks)), memory O(N len(ks) + T).

    Example:
        >>> values = per_query_metrics(torch.tensor([1.0, 3.0]), torch.tensor([0, 2]), ks=[2])
        >>> {name: round(float(value), 4) for name, value in values.items()}
        {'HR@2': 1.0, 'Recall@2': 0.5, 'Precision@2': 0.5, 'NDCG@2': 0.6131, 'MRR@2': 1.0, 'MAP@2': 0.5}
    """
    if not ks or any(k < 1 for k in ks):
        raise ValueError(f"ks must be positive cut-offs, got {list(ks)}")
    ranks = torch.as_tensor(ranks).double()
    if bool((ranks < 1).any()) or bool(ranks.isnan().any()):
        raise ValueError("ranks start at 1 and must not be nan")
    starts = torch.arange(ranks.shape[0] + 1) if offsets is None else torch.as_tensor(offsets)
    starts = starts.to(ranks.device, torch.int64)
    if starts.dim() != 1 or int(starts[0]) != 0 or int(starts[-1]) != ranks.shape[0] or bool((starts.diff() < 0).any()):
        raise ValueError(f"offsets must rise from 0 to the number of ranks ({ranks.shape[0]})")
    relevant = starts.diff()
    num_queries = relevant.shape[0]
    rows = torch.repeat_interleave(torch.arange(num_queries, device=ranks.device), relevant)
    # Only targets within the largest cut-off enter a sum; they come first in the order of their query.
    found = ranks <= max(ks)
    rows, ranks = rows[found], ranks[found]
    order = torch.argsort(ranks, stable=True)
    order = order[torch.argsort(rows[order], stable=True)]
    sorted_ranks = ranks[order]  # by query, then by rank; `rows` is already in that order
    counted = torch.bincount(rows, minlength=num_queries)
    position = torch.arange(ranks.shape[0], device=ranks.device) - (counted.cumsum(0) - counted)[rows] + 1

    def per_query_sum(terms: Tensor) -> Tensor:
        return torch.zeros(num_queries, dtype=torch.float64, device=ranks.device).index_add_(0, rows, terms)

    evaluated = relevant > 0
    divisor = relevant.clamp(min=1).double()
    discounts = 1 / torch.log2(torch.arange(2, max(ks) + 2, device=ranks.device, dtype=torch.float64))
    ideal = torch.cat([discounts.new_zeros(1), discounts.cumsum(0)])
    values: dict[str, Tensor] = {}
    for k in ks:
        hit = (sorted_ranks <= k).double()
        hits = per_query_sum(hit)
        gain = per_query_sum(hit / torch.log2(1 + sorted_ranks))
        first = per_query_sum(hit * (position == 1) / sorted_ranks)
        at_k = {
            "HR": (hits > 0).double(),
            "Recall": hits / divisor,
            "Precision": hits / k,
            "NDCG": gain / ideal[relevant.clamp(min=1, max=k)],
            "MRR": first,
            "MAP": per_query_sum(hit * position / sorted_ranks) / divisor,
        }
        values |= {f"{name}@{k}": torch.where(evaluated, value, math.nan) for name, value in at_k.items()}
    return values


def ranking_metrics(
    ranks: Tensor, offsets: Tensor | npt.NDArray[np.integer[Any]] | None = None, *, ks: Sequence[int] = DEFAULT_CUTOFFS
) -> RankingMetrics:
    """Means of :func:`per_query_metrics` over the queries that have at least one target.

    The divisor is the number of such queries; the others are counted in ``users_without_targets``.

    Args:
        ranks: ``[T]`` ranks of the targets.
        offsets: ``[N+1]`` of the targets of each query; by default every query has one target.
        ks: cut-offs.

    Returns:
        The means with the counts behind them.

    Raises:
        ValueError: as in :func:`per_query_metrics`.

    Complexity:
        Time O(T log T + (N + T) len(ks)), memory O(N len(ks) + T).

    Example:
        >>> metrics = ranking_metrics(torch.tensor([1.0, 7.0]), ks=[5])
        >>> metrics.to_dict()["HR@5"], metrics.users
        (0.5, 2)
    """
    per_query = per_query_metrics(ranks, offsets, ks=ks)
    num_queries = next(iter(per_query.values())).shape[0]
    users = int((~next(iter(per_query.values())).isnan()).sum())
    return RankingMetrics(
        values={name: float(value.nanmean()) for name, value in per_query.items()},
        users=users,
        users_without_targets=num_queries - users,
        targets=int(ranks.shape[0]),
        unreachable_targets=int(ranks.isinf().sum()),
    )


def metrics_by_popularity(
    ranks: Tensor,
    targets: Tensor | Csr,
    train_counts: Tensor | npt.NDArray[np.integer[Any]],
    *,
    ks: Sequence[int] = DEFAULT_CUTOFFS,
    edges: Sequence[int] = DEFAULT_BUCKET_EDGES,
) -> tuple[BucketMetrics, ...]:
    """Metrics of cold and hot targets apart, by how often an item occurs in training.

    Edges ``(1, 10, 50)`` make the buckets ``0 (unseen)``, ``1-9``, ``10-49`` and ``50+``. A query belongs to every
    bucket that one of its targets falls into, with only those targets as relevant; ranks stay ranks among all items.

    Args:
        ranks: ``[T]`` ranks of the targets.
        targets: the targets, as given to :func:`rank_of_targets`.
        train_counts: ``[V]`` occurrences of each item in the training part.
        ks: cut-offs.
        edges: rising lower bounds of the buckets after the first.

    Returns:
        One record per bucket, cold to hot, empty buckets included.

    Raises:
        ValueError: edges that do not rise from at least 1, or shapes that do not fit.
        IndexError: a target outside ``0..V-1``.

    Complexity:
        Time O(len(edges) (N + T log T)), memory O(N + T).

    Example:
        >>> ranks, targets, train_counts = torch.tensor([1.0, 9.0]), torch.tensor([0, 1]), torch.tensor([99, 0])
        >>> buckets = metrics_by_popularity(ranks, targets, train_counts, ks=[5])
        >>> [(bucket.name, bucket.metrics.users, bucket.metrics.to_dict().get("HR@5")) for bucket in buckets]
        [('0 (unseen)', 1, 0.0), ('1-9', 0, None), ('10-49', 0, None), ('50+', 1, 1.0)]
    """
    bounds = list(edges)
    if not bounds or bounds[0] < 1 or any(low >= high for low, high in itertools.pairwise(bounds)):
        raise ValueError(f"edges must rise from at least 1, got {bounds}")
    counts = torch.as_tensor(train_counts).to(ranks.device, torch.int64)
    csr = _as_csr(targets)
    num_queries = torch.as_tensor(csr[0]).shape[0] - 1
    offsets, columns = _checked_csr(csr, "targets", num_queries, counts.shape[0], ranks.device)
    if columns.shape[0] != ranks.shape[0]:
        raise ValueError(f"ranks must hold one rank per target, got {ranks.shape[0]} for {columns.shape[0]}")
    item_bucket = torch.bucketize(counts, torch.tensor(bounds, device=counts.device), right=True)
    rows = torch.repeat_interleave(torch.arange(num_queries, device=ranks.device), offsets.diff())
    records = []
    for bucket, name in enumerate(_bucket_names(bounds)):
        inside = item_bucket[columns] == bucket
        kept = torch.bincount(rows[inside], minlength=num_queries)
        bucket_offsets = torch.cat([kept.new_zeros(1), kept.cumsum(0)])
        metrics = ranking_metrics(ranks[inside], bucket_offsets, ks=ks)
        records.append(BucketMetrics(name, int((item_bucket == bucket).sum()), metrics))
    return tuple(records)


def _bucket_names(bounds: list[int]) -> list[str]:
    below = "0 (unseen)" if bounds[0] == 1 else f"0-{bounds[0] - 1}"
    between = [f"{low}-{high - 1}" if high - low > 1 else str(low) for low, high in itertools.pairwise(bounds)]
    return [below, *between, f"{bounds[-1]}+"]


@torch.no_grad()
def recommend_topk(
    queries: Tensor, items: Tensor, k: int, *, exclude: Csr | None = None, memory_budget: int = _MEMORY_BUDGET
) -> tuple[Tensor, Tensor]:
    """The ``k`` best items of every query by inner product, in the order that :func:`rank_of_targets` ranks them.

    Ties go to the lower index: an item at position ``p`` (from 0) has rank ``p + 1`` under ``ties="index"``.

    Args:
        queries: ``[N, d]`` float.
        items: ``[V, d]``.
        k: length of the lists.
        exclude: ``(offsets [N+1], columns [E])`` of items not to list for that query.
        memory_budget: upper bound in bytes of one score block.

    Returns:
        Scores ``[N, k]`` and item indices ``[N, k]``, best first. Where fewer than ``k`` candidates exist the rest is
        ``-inf`` and ``-1``.

    Raises:
        ValueError: shapes do not fit or ``k < 1``.
        IndexError: an excluded index outside ``0..V-1``.

    Complexity:
        Time O(N V d + N V log k), memory O(N k + E) beyond one block of scores.

    Example:
        >>> scores, best = recommend_topk(torch.tensor([[1.0]]), torch.tensor([[1.0], [3.0], [2.0]]), 2)
        >>> best.tolist()
        [[1, 2]]
    """
    if queries.dim() != 2 or items.dim() != 2 or queries.shape[1] != items.shape[1]:
        raise ValueError(
            f"queries must be [N, d] and items [V, d] with one d, got {tuple(queries.shape)} and {tuple(items.shape)}"
        )
    num_queries, num_items = queries.shape[0], items.shape[0]
    if num_queries == 0:
        return queries.new_empty(0, k), torch.empty(0, k, dtype=torch.int64, device=queries.device)
    # The blocks of `rank_of_targets`, so that one user alone gets the scores that the batch gave.
    rows, columns = _block_shape(num_queries, num_items, memory_budget, None)
    padded = _pad_rows(queries, _ALIGNMENT)
    excluded = None
    if exclude is not None:
        offsets, unsorted = _checked_csr(exclude, "exclude", num_queries, num_items, queries.device)
        offsets, sorted_columns = _unique_per_row((offsets, unsorted), num_items)
        padding = padded.shape[0] - num_queries
        excluded = torch.cat([offsets, offsets[-1:].expand(padding)]), sorted_columns
    best = pair_topk(padded, items, k, exclude=excluded, block_size=(rows, columns))
    return best.values[:num_queries], best.indices[:num_queries]


@dataclass(frozen=True)
class RankingEvaluation:
    """What one evaluation measured and under which protocol.

    Attributes:
        metrics: means over all queries with targets.
        buckets: the same by training frequency of the target, cold to hot; empty without training counts.
        protocol: the choices that make numbers comparable, as plain strings.
        ranks: ``[T]`` ranks of the targets, ``targets`` their offsets and columns (each once per query).
        targets: see ``ranks``.
    """

    metrics: RankingMetrics
    buckets: tuple[BucketMetrics, ...]
    protocol: Mapping[str, str]
    ranks: Tensor = field(repr=False)
    targets: tuple[Tensor, Tensor] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """``{"protocol": ..., "metrics": {"HR@20": ...}, "buckets": [{"name": ...}]}``, ready for JSON."""
        return {
            "protocol": dict(self.protocol),
            "metrics": self.metrics.to_dict(),
            "buckets": [bucket.to_dict() for bucket in self.buckets],
        }


def evaluate_ranking(
    queries: Tensor,
    items: Tensor,
    targets: Tensor | Csr,
    *,
    seen: Seen,
    history: Csr | None = None,
    ties: Ties = "optimistic",
    ks: Sequence[int] = DEFAULT_CUTOFFS,
    train_counts: Tensor | npt.NDArray[np.integer[Any]] | None = None,
    bucket_edges: Sequence[int] = DEFAULT_BUCKET_EDGES,
    memory_budget: int = _MEMORY_BUDGET,
) -> RankingEvaluation:
    """Full-ranking evaluation under a stated protocol: ranks, metrics and cold/hot buckets.

    ``seen`` has no default on purpose: keeping or excluding the items of the history changes the numbers (on Amazon
    Beauty NDCG@10 0.0446 against 0.0576 for one model), and excluding is wrong where people come back to an item.

    Args:
        queries: ``[N, d]`` one query embedding per user.
        items: ``[V, d]`` item embeddings.
        targets: ``[N]`` or ``(offsets, columns)``. An item that repeats within a user counts once.
        seen: ``"keep"`` ranks all items, ``"exclude"`` removes those in ``history`` from the candidates.
        history: ``(offsets [N+1], columns)`` items that each user has seen; needed with ``seen="exclude"``.
        ties: tie rule of :func:`rank_of_targets`.
        ks: cut-offs.
        train_counts: ``[V]`` training occurrences of each item, for the buckets.
        bucket_edges: see :func:`metrics_by_popularity`.
        memory_budget: upper bound in bytes of one score block.

    Returns:
        Metrics, buckets, protocol and ranks.

    Raises:
        ValueError: an unknown ``seen``, ``"exclude"`` without a history, or as in :func:`rank_of_targets`.
        IndexError: an item index outside ``0..V-1``.

    Complexity:
        Time O(N V d + T V), memory O(memory_budget + T + E).

    Example:
        >>> items = torch.eye(3)
        >>> evaluation = evaluate_ranking(items[:2], items, torch.tensor([0, 2]), seen="keep", ks=[1])
        >>> evaluation.metrics.to_dict()["HR@1"]
        0.5
    """
    if seen not in get_args(Seen):
        raise ValueError(f"seen must be 'keep' or 'exclude', got {seen!r}")
    if seen == "exclude" and history is None:
        raise ValueError("seen='exclude' needs the history of every query")
    csr = csr_of_targets(targets, queries.shape[0], items.shape[0], queries.device)
    unique = _unique_per_row(csr, items.shape[0])
    exclude = history if seen == "exclude" else None
    ranks = rank_of_targets(queries, items, unique, exclude=exclude, ties=ties, memory_budget=memory_budget)
    metrics = ranking_metrics(ranks, unique[0], ks=ks)
    buckets: tuple[BucketMetrics, ...] = ()
    if train_counts is not None:
        buckets = metrics_by_popularity(ranks, unique, train_counts, ks=ks, edges=bucket_edges)
    protocol = {
        "ranking": f"full, all {items.shape[0]:,} items",
        "seen items": "kept as candidates" if seen == "keep" else "excluded from the candidates",
        "ties": ties,
        "users evaluated": f"{metrics.users:,}",
        "users without targets": f"{metrics.users_without_targets:,}",
        "targets": f"{metrics.targets:,}",
        "targets excluded by the protocol": f"{metrics.unreachable_targets:,}",
    }
    return RankingEvaluation(metrics, buckets, protocol, ranks, unique)


def _unique_per_row(csr: tuple[Tensor, Tensor], num_items: int) -> tuple[Tensor, Tensor]:
    offsets, columns = csr
    rows = torch.repeat_interleave(torch.arange(offsets.shape[0] - 1, device=offsets.device), offsets.diff())
    keys = torch.unique(rows * num_items + columns)
    kept = torch.bincount(keys // num_items, minlength=offsets.shape[0] - 1)
    return torch.cat([kept.new_zeros(1), kept.cumsum(0)]), keys % num_items
