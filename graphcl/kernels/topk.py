"""Exact k best candidates of every query, in blocks, with per-row exclusion lists."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from graphcl.kernels._arguments import (
    MEMORY_BUDGET,
    check_block_size,
    check_csr,
    check_indices,
    check_no_nan,
    check_same_space,
    check_similarity,
    compute_dtype,
)
from graphcl.kernels._pairs_reference import dense_logits
from graphcl.kernels._product import ScaledProduct, distance_product
from graphcl.kernels._tiles import MINIATURE, TileSource, check_blocks, split
from graphcl.kernels.backends import Backend, check_backend
from graphcl.kernels.normalize import normalize_rows
from graphcl.kernels.pairs import Similarity
from graphcl.kernels.rules import ExcludePairs

_ROWS = 256
_FEWEST_COLUMNS = 4096

__all__ = ["PairTopK", "knn", "pair_topk"]


class PairTopK(NamedTuple):
    """Best similarities ``(Q, k)`` in order, and the positions ``(Q, k)`` int64 of the candidates that have them."""

    values: Tensor
    indices: Tensor


def pair_topk(
    queries: Tensor,
    items: Tensor,
    k: int,
    *,
    exclude: tuple[Tensor, Tensor] | None = None,
    similarity: Similarity = "dot",
    largest: bool = True,
    memory_budget: int = MEMORY_BUDGET,
    block_size: int | tuple[int, int] | None = None,
    backend: Backend = "auto",
    check: bool = True,
) -> PairTopK:
    """The k most (or least) similar items of every query, exactly; equal scores go to the lower index.

    Args:
        queries: ``(Q, d)`` float32, float64, bfloat16 or float16.
        items: ``(I, d)`` of the same dtype.
        k: how many; where fewer items are left, rows end in value -inf (+inf for ``largest=False``) and index -1.
        exclude: ``(offsets (Q + 1,), columns (E,))`` compressed rows of items to leave out, sorted within a row.
        similarity: ``dot``, ``cosine`` or ``sqeuclidean`` (the negative squared distance, so largest is nearest).
        largest: False returns the least similar.
        memory_budget: upper bound in bytes for the score tiles.
        block_size: tile edge, or ``(queries, items)`` edges.
        backend: ``reference`` sorts the dense matrix; every other choice works in blocks.
        check: validates indices and looks for NaN.

    Returns:
        `PairTopK`; values float64 for float64 inputs and float32 otherwise. Not differentiable: the index set is a
        constant, gather the pairs with `edge_dot` for a gradient.

    Raises:
        ValueError, TypeError, IndexError: naming the argument and the value.

    Complexity: O(Q I d) time, O((Q + I) d + Q k) memory plus one tile.

    >>> import torch
    >>> items = torch.tensor([[1.0], [3.0], [3.0]])
    >>> pair_topk(torch.ones(1, 1), items, 2).indices
    tensor([[1, 2]])
    """
    check_same_space("queries", queries, "items", items)
    check_similarity(similarity)
    check_backend(backend)
    check_block_size("k", k)
    edges = check_blocks(memory_budget, block_size)
    if exclude is not None:
        check_indices("exclude offsets", exclude[0], queries.shape[0] + 1, None, check=False)
        check_indices("exclude columns", exclude[1], None, None, check=False)
    if check:
        check_no_nan("queries", queries)
        check_no_nan("items", items)
        if exclude is not None:
            check_csr("exclude offsets", exclude[0], "exclude columns", exclude[1], queries.shape[0], items.shape[0])
    with torch.no_grad():
        wide = compute_dtype(queries.dtype)
        x, y = queries.detach().to(wide), items.detach().to(wide)
        if similarity == "cosine":
            x, y = normalize_rows(x), normalize_rows(y)
        elif similarity == "sqeuclidean":
            x, y = distance_product(x, y)
        rules = () if exclude is None else (ExcludePairs(*exclude),)
        product = ScaledProduct(x if largest else -x, y, 1.0, None, None, None, rules)
        if backend == "reference":
            values, indices = _sorted_dense(product, k)
        else:
            with torch.autocast(x.device.type, enabled=False):
                values, indices = _blocked(product, k, memory_budget, edges)
    return PairTopK(values if largest else -values, indices)


def knn(
    x: Tensor,
    k: int,
    *,
    y: Tensor | None = None,
    similarity: Similarity = "cosine",
    include_self: bool = False,
    memory_budget: int = MEMORY_BUDGET,
    block_size: int | tuple[int, int] | None = None,
    backend: Backend = "auto",
    check: bool = True,
) -> PairTopK:
    """The k nearest neighbours of every row of ``x`` among the rows of ``y`` (default ``x`` itself), exactly.

    Args:
        x: ``(n, d)``.
        k: neighbours a row; where fewer exist, rows end in value -inf and index -1.
        y: ``(m, d)``; None searches in ``x``.
        similarity: ``cosine``, ``dot`` or ``sqeuclidean``.
        include_self: with ``y=None``, whether a row may be its own neighbour.
        memory_budget, block_size, backend, check: as in `pair_topk`.

    Returns:
        `PairTopK` of ``(n, k)``; equal similarities go to the lower index.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(n m d) time, O((n + m) d + n k) memory plus one tile.

    >>> import torch
    >>> knn(torch.tensor([[0.0], [1.0], [3.0]]), 1, similarity="sqeuclidean").indices
    tensor([[1],
            [0],
            [1]])
    """
    exclude = None
    if y is None and not include_self:
        own = torch.arange(x.shape[0] + 1, device=x.device)
        exclude = (own, own[:-1])
    return pair_topk(
        x,
        x if y is None else y,
        k,
        exclude=exclude,
        similarity=similarity,
        memory_budget=memory_budget,
        block_size=block_size,
        backend=backend,
        check=check,
    )


def _sorted_dense(product: ScaledProduct, k: int) -> tuple[Tensor, Tensor]:
    values, indices = torch.sort(dense_logits(product)[1], dim=1, descending=True, stable=True)
    return _padded(values[:, :k], indices[:, :k], k)


def _padded(values: Tensor, indices: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Exactly k columns; whatever is not there has value -inf and index -1."""
    missing = (0, k - values.shape[1])
    values = functional.pad(values, missing, value=-torch.inf)
    return values, functional.pad(indices, missing, value=-1).masked_fill(values == -torch.inf, -1)


def _blocked(
    product: ScaledProduct, k: int, memory_budget: int, edges: tuple[int, int] | None
) -> tuple[Tensor, Tensor]:
    x, y = product.x, product.y
    tiles = TileSource(product, x.contiguous(), y.contiguous(), None)
    height, width = edges or _tile_edges(product, memory_budget)
    values = x.new_full((x.shape[0], k), -torch.inf)
    indices = torch.full((x.shape[0], k), -1, dtype=torch.int64, device=x.device)
    for rows in split(x.shape[0], height):
        best, where = x.new_empty(rows.stop - rows.start, 0), indices.new_empty(rows.stop - rows.start, 0)
        for columns in split(y.shape[0], width):
            tile = tiles.logits(rows, columns)
            if tile is None:
                continue
            tile_best, tile_where = _row_topk(tile, min(k, tile.shape[1]))
            # Blocks come in ascending order, so a stable sort keeps the lower index first among equals.
            both = torch.cat([best, tile_best], dim=1)
            best, order = torch.sort(both, dim=1, descending=True, stable=True)
            where = torch.cat([where, tile_where + columns.start], dim=1).gather(1, order)[:, :k]
            best = best[:, :k]
        values[rows], indices[rows] = _padded(best, where, k)
    return values, indices


def _tile_edges(product: ScaledProduct, memory_budget: int) -> tuple[int, int]:
    """Few rows, as many columns as the budget holds: every further block of columns costs a selection and a merge."""
    budget = max(memory_budget // product.x.element_size(), 1)
    shrink, shrink_columns = MINIATURE.get()
    fewest = max(min(product.num_candidates, int(_FEWEST_COLUMNS / shrink_columns)), 1)
    rows = max(min(max(int(_ROWS / shrink), 1), product.num_anchors, budget // fewest), 1)
    return rows, max(min(product.num_candidates, budget // rows), 1)


def _row_topk(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Top k of each row by descending score, then ascending index.

    ``torch.topk`` finds the k-th score but takes any of the entries that equal it; only rows where more than k entries
    reach that score are sorted in full.
    """
    # One entry more tells whether the k-th score is tied with one that is left out.
    values, indices = torch.topk(scores, min(k + 1, scores.shape[1]), dim=1)
    cut = values[:, k - 1]
    left_out = (values[:, k:] == cut.unsqueeze(1)).any(dim=1)
    tied = torch.nonzero(left_out & (cut > -torch.inf)).squeeze(1)
    values, indices = values[:, :k], indices[:, :k]
    if tied.numel() > 0:
        tied_values, tied_indices = torch.sort(scores[tied], dim=1, descending=True, stable=True)
        values[tied], indices[tied] = tied_values[:, :k], tied_indices[:, :k]
    indices, order = torch.sort(indices, dim=1)
    values, order = torch.sort(values.gather(1, order), dim=1, descending=True, stable=True)
    return values, indices.gather(1, order)
