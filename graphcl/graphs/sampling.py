"""Neighbours drawn from compressed rows, for all nodes at once."""

from __future__ import annotations

import torch
from torch import Tensor

from graphcl.kernels import SparseMatrix

__all__ = ["draw_neighbours", "draw_places", "sampled_rows", "scaled_rows", "take_rows"]

# Up to so many entries a row they are drawn one after the other, beyond by ordering the whole rows.
_DRAWN_SINGLY = 16


def draw_neighbours(
    matrix: SparseMatrix, k: int, *, nodes: Tensor | None = None, generator: torch.Generator | None = None
) -> Tensor:
    """k neighbours of every node in one draw: distinct where it has k, with repetition where it has fewer.

    The draw of HeCo's schema encoder (https://arxiv.org/abs/2105.09111), without its loop over nodes.

    Args:
        matrix: (M, N); row i lists the neighbours of node i. Values are not read.
        k: neighbours a node.
        nodes: (R,) rows to draw for; all of them when None.
        generator: draws.

    Returns:
        (R, k) int64 columns; -1 throughout for a node without neighbours.

    Raises:
        ValueError: k below 1.

    Complexity: O(E log E + R k) for the E entries of these rows.

    >>> star = SparseMatrix(torch.tensor([0, 2, 2]), torch.tensor([0, 1]), None, (2, 2))
    >>> drawn = draw_neighbours(star, 2, generator=torch.Generator().manual_seed(0))
    >>> drawn[0].sort().values, drawn[1]
    (tensor([0, 1]), tensor([-1, -1]))
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    rows = matrix if nodes is None else take_rows(matrix, nodes)
    start, degree = rows.row_offsets[:-1], rows.row_offsets.diff()
    device = rows.device
    if rows.num_entries == 0:
        return torch.full((rows.shape[0], k), -1, dtype=torch.int64, device=device)
    order = _shuffled(rows, generator)
    slot = torch.arange(k, device=device)
    repeated = (torch.rand(rows.shape[0], k, generator=generator, device=device) * degree[:, None]).long()
    within = torch.where(degree[:, None] >= k, slot, torch.minimum(repeated, (degree[:, None] - 1).clamp(min=0)))
    place = (start[:, None] + within).clamp(max=rows.num_entries - 1)
    drawn = rows.columns[order[place]]
    return drawn.masked_fill(degree[:, None] == 0, -1)


def draw_places(sizes: Tensor, k: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """k distinct positions below every size, uniformly; all of them where there are no more than k.

    Floyd's draw for all rows at once (J. Bentley, R. Floyd, "A sample of brilliance", 1987,
    https://doi.org/10.1145/30401.315746): it looks at no position that is not drawn.

    Args:
        sizes: (R,) integers.
        k: at least 1.
        generator: draws.

    Returns:
        (R, k) positions and (R, k) whether a position is one: sizes below k leave some out.

    Raises:
        ValueError: k below 1.

    Complexity: O(R k^2).

    >>> places, drawn = draw_places(torch.tensor([2, 9]), 3, generator=torch.Generator().manual_seed(0))
    >>> places[0, :2], drawn.sum(dim=1), bool((places[1] < 9).all())
    (tensor([0, 1]), tensor([2, 3]), True)
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    places = torch.arange(k, device=sizes.device).repeat(sizes.shape[0], 1)
    drawn = places < sizes[:, None]
    large = (sizes > k).nonzero()[:, 0]
    if large.shape[0] == 0:
        return places, drawn
    chosen = places[large]
    limits = sizes[large, None] - k + torch.arange(k, device=sizes.device)
    draws = torch.rand(limits.shape, generator=generator, dtype=torch.float64, device=sizes.device)
    # The largest random number times the size may round up to the size.
    draws = torch.minimum((draws * (limits + 1)).long(), limits)
    for step in range(k):
        taken = (chosen[:, :step] == draws[:, step, None]).any(dim=1)
        chosen[:, step] = torch.where(taken, limits[:, step], draws[:, step])
    places[large] = chosen.sort(dim=1).values
    return places, drawn


def sampled_rows(matrix: SparseMatrix, k: int | None, *, generator: torch.Generator | None = None) -> SparseMatrix:
    """At most k entries of every row, drawn without repetition; their values are kept.

    Args:
        matrix: (M, N).
        k: entries a row; None keeps all.
        generator: draws.

    Returns:
        (M, N) with entries in the order of ``matrix``.

    Raises:
        ValueError: k below 1.

    Complexity: O(R k^2) for small k, else O(E log E); O(1) where no row has more than k entries.

    >>> full = SparseMatrix(torch.tensor([0, 3]), torch.tensor([0, 1, 2]), None, (1, 3))
    >>> sampled_rows(full, 2).num_entries
    2
    """
    if k is not None and k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if k is None or _longest(matrix) <= k:
        return matrix
    if k <= _DRAWN_SINGLY:
        places, drawn = draw_places(matrix.row_offsets.diff(), k, generator=generator)
        kept = (matrix.row_offsets[:-1, None] + places)[drawn]
    else:
        order = _shuffled(matrix, generator)
        place = torch.arange(matrix.num_entries, device=matrix.device) - matrix.row_offsets[matrix.pattern.rows]
        kept = order[place < k].sort().values
    offsets = matrix.row_offsets.diff().clamp(max=k).cumsum(0)
    values = None if matrix.values is None else matrix.values[kept]
    return SparseMatrix(
        torch.cat([offsets.new_zeros(1), offsets]), matrix.columns[kept], values, matrix.shape, check=False
    )


def scaled_rows(
    operator: SparseMatrix, nodes: Tensor, k: int | None, generator: torch.Generator | None = None
) -> SparseMatrix:
    """Some rows of an operator with at most k entries each, scaled up so that their sum keeps its mean.

    Args:
        operator: (M, N).
        nodes: (R,) rows.
        k: entries a row; None keeps all.
        generator: draws.

    Returns:
        (R, N).

    Raises:
        ValueError: k below 1.

    Complexity: O(E log E) for the E entries of these rows.

    >>> ones = SparseMatrix(torch.tensor([0, 3]), torch.tensor([0, 1, 2]), torch.ones(3), (1, 3))
    >>> scaled_rows(ones, torch.tensor([0]), 2).values
    tensor([1.5000, 1.5000])
    """
    rows = take_rows(operator, nodes)
    kept = sampled_rows(rows, k, generator=generator)
    if kept is rows:
        return rows
    before, after = rows.row_offsets.diff(), kept.row_offsets.diff()
    return kept.scale(rows=before / after.clamp(min=1))


def take_rows(matrix: SparseMatrix, nodes: Tensor) -> SparseMatrix:
    """Some rows of a matrix, in the order they are asked for.

    Args:
        matrix: (M, N).
        nodes: (R,) integers below M.

    Returns:
        (R, N).

    Complexity: O(R + entries of these rows).

    >>> matrix = SparseMatrix(torch.tensor([0, 1, 2]), torch.tensor([1, 0]), None, (2, 2))
    >>> take_rows(matrix, torch.tensor([1])).to_dense()
    tensor([[1., 0.]])
    """
    start = matrix.row_offsets[nodes]
    sizes = matrix.row_offsets[nodes + 1] - start
    offsets = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    total = int(offsets[-1])
    shift = torch.repeat_interleave(start - offsets[:-1], sizes, output_size=total)
    entries = torch.arange(total, device=matrix.device) + shift
    values = None if matrix.values is None else matrix.values[entries]
    return SparseMatrix(offsets, matrix.columns[entries], values, (nodes.shape[0], matrix.shape[1]), check=False)


def _longest(matrix: SparseMatrix) -> int:
    return int(matrix.row_offsets.diff().max()) if matrix.shape[0] else 0


def _shuffled(matrix: SparseMatrix, generator: torch.Generator | None) -> Tensor:
    """Positions of the entries in a random order within each row, rows in place."""
    keys = torch.rand(matrix.num_entries, generator=generator, dtype=torch.float64, device=matrix.device)
    return torch.argsort(matrix.pattern.rows + keys)
