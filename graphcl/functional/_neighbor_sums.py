"""Weighted sums of exponentials of similarities over listed neighbours, a block of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from graphcl.kernels import SparseMatrix, segment_logsumexp
from graphcl.kernels._arguments import MEMORY_BUDGET
from graphcl.kernels._csr import CsrPattern, csr_matmul, sampled_dot

__all__ = ["neighbor_logsumexp"]

# Entries of a block: few enough that what is made of them stays in cache. A row with more of them is its own block.
_BLOCK_ENTRIES = 2**16


def neighbor_logsumexp(unit: Tensor, weights: SparseMatrix, temperature: float) -> Tensor:
    r"""Log of every row's weighted sum of exponentials of similarities with the rows that it lists.

    .. math:: \log \sum_j G_{ij} e^{s_{ij}/\tau}, \qquad s_{ij} = \langle u_i, u_j \rangle, \; s_{ii} = 0

    One number an entry is kept between forward and backward; the rest is made and used a block of rows at a time.

    Args:
        unit: ``(n, d)`` rows, the anchors first, in the accumulation type.
        weights: ``(N, n)`` positive entries G; ones without values.
        temperature: positive number.

    Returns:
        ``(N,)``; -inf with gradient 0 for a row without entries.

    Complexity: O(E d) time, O(n d + E) memory; the first backward pass sorts the columns.
    """
    out: Tensor = _NeighborLogsumexp.apply(  # type: ignore[no-untyped-call]
        unit, weights.values, weights.pattern, 1.0 / temperature
    )
    return out


class _NeighborLogsumexp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, unit: Tensor, values: Tensor | None, pattern: CsrPattern, scale: float) -> Tensor:
        out = unit.new_empty(pattern.num_rows)
        # The kernel finds all similarities at once; what follows goes block by block and in place.
        logits = sampled_dot(pattern, unit[: pattern.num_rows], unit, MEMORY_BUDGET)
        for rows, entries, block in _blocks(pattern):
            part = logits[entries].mul_(scale)
            part.masked_fill_(_on_diagonal(rows, block), 0.0)
            if values is not None:
                part += values[entries].to(part.dtype).log()
            out[rows] = segment_logsumexp(part, block.offsets, check=False)
        ctx.save_for_backward(unit, values, logits, out)
        ctx.pattern, ctx.scale = pattern, scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        (unit, values, logits, out), pattern = ctx.saved_tensors, ctx.pattern
        need_unit, need_values = ctx.needs_input_grad[:2]
        share = torch.empty_like(logits)
        d_values = torch.empty_like(values) if need_values else None
        for rows, entries, block in _blocks(pattern):
            # Rows without entries, whose log-sum-exp is -inf, are the row of no entry.
            part = torch.sub(logits[entries], out[rows][block.rows], out=share[entries])
            part.exp_().mul_(upstream[rows][block.rows])
            if d_values is not None:
                d_values[entries] = part / values[entries]
            part.masked_fill_(_on_diagonal(rows, block), 0.0).mul_(ctx.scale)
        d_unit = None
        if need_unit:
            transposed, order = pattern.transpose()
            d_unit = csr_matmul(transposed.offsets, transposed.columns, share.index_select(0, order), unit)
            d_unit[: pattern.num_rows] += csr_matmul(pattern.offsets, pattern.columns, share, unit)
        return d_unit, d_values, None, None


def _blocks(pattern: CsrPattern) -> Iterator[tuple[slice, slice, CsrPattern]]:
    """Consecutive rows, their entries, and the pattern of these rows alone."""
    bounds = pattern.offsets.cpu()
    start = 0
    while start < pattern.num_rows:
        most = int(torch.searchsorted(bounds, bounds[start] + _BLOCK_ENTRIES, right=True)) - 1
        stop = min(max(most, start + 1), pattern.num_rows)
        entries = slice(int(bounds[start]), int(bounds[stop]))
        local = pattern.offsets[start : stop + 1] - entries.start
        yield slice(start, stop), entries, CsrPattern(local, pattern.columns[entries], pattern.num_columns)
        start = stop


def _on_diagonal(rows: slice, block: CsrPattern) -> Tensor:
    """Which entries of a block pair a row with itself."""
    own: Tensor = block.columns == block.rows + rows.start
    return own
