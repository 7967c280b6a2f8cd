"""Blocked backend of `pair_logsumexp`: tiles that stay in cache, gradients found in the forward sweep where possible.

For ``D_i = log sum_j e^{l_ij}`` with softmax shares pi and upstream gradient g_i,

    d l_ij = g_i pi_ij,   dX_i = g_i P_i with P_i = sum_j pi_ij y_j,   dY_j = sum_i g_i pi_ij x_i.

``P`` never needs the upstream gradient, so the forward sweep forms it beside the row sums. ``dY`` does; but in most
objectives g is one constant times weights known before (the mean over anchors, the weighted mean over tokens). So
while a block of rows is at hand the sweep also forms ``Q_j = sum_i w_i pi_ij x_i``, and backward multiplies it by the
constant. Only another upstream gradient makes backward go over the tiles again.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from graphcl.kernels._matmul import matmul_nt
from graphcl.kernels._moments_torch import row_moments
from graphcl.kernels._product import ScaledProduct, with_row_bias
from graphcl.kernels._tiles import LN2, LOG2E, Blocks, TileSource, scaled_operands, split


class _Sweep(NamedTuple):
    log2sum: Tensor  # (A,) base-2 log of the row sums
    mean_y: Tensor | None  # P (A, p)
    mean_x: Tensor | None  # Q transposed (p, C): the product that fills it is faster this way round
    column_mass: Tensor | None  # sum_i w_i pi_ij (C,), the gradient of a column bias


def _forward_sweep(
    tiles: TileSource, blocks: Blocks, weights: Tensor | None, want_x: bool, want_y: bool, want_bias: bool
) -> _Sweep:
    x, y = tiles.x, tiles.y
    num_anchors, num_candidates = x.shape[0], y.shape[0]
    log2sum = x.new_empty(num_anchors)
    mean_y = torch.zeros_like(x) if want_x else None
    mean_x = y.new_zeros(y.shape[1], y.shape[0]) if want_y else None
    mass = y.new_zeros(num_candidates) if want_bias else None
    stored = want_y or want_bias
    row_edge = min(blocks.rows, num_anchors)
    column_edge = min(blocks.columns, num_candidates)
    flat = x.new_empty(row_edge * (num_candidates if stored else column_edge))
    for rows in split(num_anchors, blocks.rows):
        height = rows.stop - rows.start
        block_mean = mean_y[rows] if mean_y is not None else None
        total = x.new_zeros(height)
        peak = x.new_full((height,), -torch.inf)
        kept: list[tuple[slice, Tensor, Tensor | None]] = []
        for columns in split(num_candidates, blocks.columns):
            area = flat[height * columns.start :] if stored else flat
            if tiles.bounded:
                tile = tiles.exponentials(rows, columns, area)
                if tile is None:
                    continue
            else:
                logits = tiles.logits(rows, columns)
                if logits is None:
                    continue
                new_peak = torch.maximum(peak, logits.amax(dim=1))
                shift = new_peak.masked_fill(new_peak == -torch.inf, 0.0)
                fade = torch.exp2(peak - shift)
                tile = torch.sub(logits, shift[:, None], out=area[: logits.numel()].view(logits.shape)).exp2_()
                total.mul_(fade)
                if block_mean is not None:
                    block_mean.mul_(fade[:, None])
                peak = new_peak
            total.add_(tile.sum(dim=1))
            if block_mean is not None:
                block_mean.add_(matmul_nt(tile, y[columns].T))
            if stored:
                kept.append((columns, tile, None if tiles.bounded else peak))
        level = torch.log2(total) if tiles.bounded else torch.log2(total) + peak
        log2sum[rows] = level
        if block_mean is not None:
            block_mean.div_(total.masked_fill(total == 0, 1.0)[:, None])
        share = 1.0 if weights is None else weights[rows]
        for columns, tile, tile_peak in kept:
            # A row that had no candidate up to this tile holds zeros there, and its peak of -inf keeps them zeros.
            factor = share * torch.exp2(-level if tile_peak is None else tile_peak - level)
            _add_column_gradient(tile, x[rows], factor.masked_fill(total == 0, 0.0), columns, mean_x, mass)
    return _Sweep(log2sum, mean_y, mean_x, mass)


def _add_column_gradient(
    tile: Tensor, x: Tensor, factor: Tensor, columns: slice, mean_x: Tensor | None, mass: Tensor | None
) -> None:
    if mean_x is not None:
        mean_x[:, columns].add_(matmul_nt((x * factor[:, None]).T.contiguous(), tile.T))
    if mass is not None:
        mass[columns].addmv_(tile.T, factor)


def _column_sweep(
    tiles: TileSource, blocks: Blocks, log2sum: Tensor, upstream: Tensor, want_y: bool, want_bias: bool
) -> tuple[Tensor | None, Tensor | None]:
    """``sum_i g_i pi_ij x_i`` transposed and ``sum_i g_i pi_ij`` for any upstream gradient g, from recomputed tiles."""
    x, y = tiles.x, tiles.y
    mean_x = y.new_zeros(y.shape[1], y.shape[0]) if want_y else None
    mass = y.new_zeros(y.shape[0]) if want_bias else None
    flat = x.new_empty(min(blocks.rows, x.shape[0]) * min(blocks.columns, y.shape[0]))
    dead = log2sum == -torch.inf
    upstream = upstream.masked_fill(dead, 0.0)
    level = log2sum.masked_fill(dead, 0.0)
    for rows in split(x.shape[0], blocks.rows):
        if not bool(upstream[rows].any()):
            continue
        factor = upstream[rows] * torch.exp2(-level[rows]) if tiles.bounded else upstream[rows]
        for columns in split(y.shape[0], blocks.columns):
            tile = tiles.exponentials(rows, columns, flat) if tiles.bounded else tiles.logits(rows, columns)
            if tile is None:
                continue
            if not tiles.bounded:
                tile.sub_(level[rows, None]).exp2_()
            _add_column_gradient(tile, x[rows], factor, columns, mean_x, mass)
    return mean_x, mass


def _constant_of(upstream: Tensor, alive: Tensor) -> Tensor | None:
    """The one value of the upstream gradient over rows that have candidates, or None when there are several."""
    values = upstream[alive]
    if values.numel() == 0:
        return upstream.new_zeros(())
    return values[0] if bool((values == values[0]).all()) else None


class _RowLogSumExp(torch.autograd.Function):
    """D and ``sum_i w_i D_i`` over rows with candidates, of operands in powers of two."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        y: Tensor,
        column_bias: Tensor | None,
        weights: Tensor | None,
        product: ScaledProduct,
        blocks: Blocks,
        differentiate: bool,
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        want_x, want_y, want_bias = (differentiate and need for need in ctx.needs_input_grad[:3])
        tiles = TileSource(product, x, y, column_bias)
        speculate = blocks.stored
        sweep = _forward_sweep(tiles, blocks, weights, want_x, want_y and speculate, want_bias and speculate)
        ctx.product, ctx.blocks = product, blocks
        ctx.save_for_backward(x, y, column_bias, weights, *sweep)
        total = sweep.log2sum * LN2
        counted = total.masked_fill(total == -torch.inf, 0.0)
        return total, (counted if weights is None else counted * weights).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor | None, upstream_sum: Tensor | None) -> tuple[Tensor | None, ...]:
        x, y, column_bias, weights, log2sum, mean_y, mean_x, mass = ctx.saved_tensors
        if upstream is None and upstream_sum is None:
            return (None,) * 7
        _, need_y, need_bias = ctx.needs_input_grad[:3]
        alive = log2sum != -torch.inf
        rows = torch.zeros_like(log2sum) if upstream is None else upstream
        constant: Tensor | None = None
        if upstream_sum is not None:
            rows = rows + (upstream_sum if weights is None else upstream_sum * weights)
            constant = upstream_sum if upstream is None else None
        rows = rows.masked_fill(~alive, 0.0)
        dx = None if mean_y is None else mean_y * (rows * LN2)[:, None]
        if not (need_y or need_bias):
            return dx, None, None, None, None, None, None
        foreseen = mean_x is not None or mass is not None
        if foreseen and constant is None and weights is None:
            constant = _constant_of(rows, alive)
        if not foreseen or constant is None:
            tiles = TileSource(ctx.product, x, y, column_bias)
            mean_x, mass = _column_sweep(tiles, ctx.blocks, log2sum, rows, need_y, need_bias)
            constant = torch.ones_like(log2sum[:1])
        # Laid out by rows: sums of a transposed gradient with others take several times as long.
        dy = None if mean_x is None else mean_x.T.clone(memory_format=torch.contiguous_format).mul_(constant * LN2)
        dbias = None if mass is None else mass * (constant * LN2)
        return dx, dy, dbias, None, None, None, None


def weighted_row_logsumexp(product: ScaledProduct, blocks: Blocks, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """D ``(A,)`` without row bias, and ``sum_i w_i D_i``, whose gradient costs no second sweep."""
    x, y = scaled_operands(product)
    bias = None if product.column_bias is None else product.column_bias * LOG2E
    result: tuple[Tensor, Tensor] = _RowLogSumExp.apply(  # type: ignore[no-untyped-call]
        x, y, bias, weights, product.detach(), blocks, torch.is_grad_enabled()
    )
    return result


def logsumexp(product: ScaledProduct, moments: int, blocks: Blocks) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """D, E, V of a product; see `graphcl.kernels.pairs.pair_logsumexp`."""
    mean: Tensor | None = None
    variance: Tensor | None = None
    if moments == 0:
        total = weighted_row_logsumexp(product, blocks, None)[0]
    else:
        total, mean, variance = row_moments(product, blocks, moments)
    return with_row_bias(total, mean, variance, product.row_bias)
