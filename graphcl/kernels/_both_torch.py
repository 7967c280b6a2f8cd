"""Row and column log-sum-exp of one matrix from one product a tile, forward and backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from graphcl.kernels._matmul import matmul_nt
from graphcl.kernels._product import ScaledProduct
from graphcl.kernels._tiles import LN2, LOG2E, Blocks, TileSource, scaled_operands, split


def _online_add(total: Tensor, peak: Tensor, tile_peak: Tensor) -> tuple[Tensor, Tensor]:
    """Lower ``total`` to the new maximum; returns it and the finite shift to use."""
    new_peak = torch.maximum(peak, tile_peak)
    shift = new_peak.masked_fill(new_peak == -torch.inf, 0.0)
    total.mul_(torch.exp2(peak - shift))
    return new_peak, shift


class _BothLogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        y: Tensor,
        row_bias: Tensor | None,
        column_bias: Tensor | None,
        product: ScaledProduct,
        blocks: Blocks,
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        tiles = TileSource(product, x, y, column_bias, row_bias)
        row_total, column_total = x.new_zeros(x.shape[0]), y.new_zeros(y.shape[0])
        row_peak, column_peak = torch.full_like(row_total, -torch.inf), torch.full_like(column_total, -torch.inf)
        area = min(blocks.rows, x.shape[0]) * min(blocks.columns, y.shape[0])
        flat, spare = x.new_empty(area), x.new_empty(0 if tiles.bounded else area)
        for rows in split(x.shape[0], blocks.rows):
            for columns in split(y.shape[0], blocks.columns):
                if tiles.bounded:
                    tile = tiles.exponentials(rows, columns, flat)
                    if tile is not None:
                        row_total[rows] += tile.sum(dim=1)
                        column_total[columns] += tile.sum(dim=0)
                    continue
                tile = tiles.logits(rows, columns)
                if tile is None:
                    continue
                row_peak[rows], shift = _online_add(row_total[rows], row_peak[rows], tile.amax(dim=1))
                other = torch.sub(tile, shift[:, None], out=spare[: tile.numel()].view(tile.shape)).exp2_()
                row_total[rows] += other.sum(dim=1)
                column_peak[columns], shift = _online_add(column_total[columns], column_peak[columns], tile.amax(dim=0))
                column_total[columns] += tile.sub_(shift).exp2_().sum(dim=0)
        row_level, column_level = torch.log2(row_total), torch.log2(column_total)
        if not tiles.bounded:
            row_level, column_level = row_level + row_peak, column_level + column_peak
        ctx.product, ctx.blocks = product, blocks
        ctx.save_for_backward(x, y, row_bias, column_bias, row_level, column_level)
        return row_level * LN2, column_level * LN2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_rows: Tensor | None, grad_columns: Tensor | None) -> tuple[Tensor | None, ...]:
        x, y, row_bias, column_bias, row_level, column_level = ctx.saved_tensors
        need_x, need_y, need_row_bias, need_column_bias = ctx.needs_input_grad[:4]
        tiles = TileSource(ctx.product, x, y, column_bias, row_bias)
        blocks: Blocks = ctx.blocks
        rows_up, rows_at = _clean(grad_rows, row_level)
        columns_up, columns_at = _clean(grad_columns, column_level)
        if tiles.bounded:
            rows_up, columns_up = rows_up * torch.exp2(-rows_at), columns_up * torch.exp2(-columns_at)
        dx = torch.zeros_like(x) if need_x else None
        dy = y.new_zeros(y.shape[1], y.shape[0]) if need_y else None  # transposed: the faster product
        d_row_bias = torch.zeros_like(row_level) if need_row_bias else None
        d_column_bias = torch.zeros_like(column_level) if need_column_bias else None
        area = min(blocks.rows, x.shape[0]) * min(blocks.columns, y.shape[0])
        flat, spare = x.new_empty(area), x.new_empty(area)
        for rows in split(x.shape[0], blocks.rows):
            for columns in split(y.shape[0], blocks.columns):
                tile = tiles.exponentials(rows, columns, flat) if tiles.bounded else tiles.logits(rows, columns)
                if tile is None:
                    continue
                other = spare[: tile.numel()].view(tile.shape)
                if tiles.bounded:
                    tile.mul_(torch.add(rows_up[rows, None], columns_up[columns], out=other))
                else:
                    torch.sub(tile, rows_at[rows, None], out=other).exp2_().mul_(rows_up[rows, None])
                    tile.sub_(columns_at[columns]).exp2_().mul_(columns_up[columns]).add_(other)
                if dx is not None:
                    dx[rows].add_(matmul_nt(tile, y[columns].T), alpha=LN2)
                if dy is not None:
                    dy[:, columns].add_(matmul_nt(x[rows].T.contiguous(), tile.T), alpha=LN2)
                if d_row_bias is not None:
                    d_row_bias[rows] += tile.sum(dim=1) * LN2
                if d_column_bias is not None:
                    d_column_bias[columns] += tile.sum(dim=0) * LN2
        return dx, None if dy is None else dy.T.contiguous(), d_row_bias, d_column_bias, None, None


def _clean(grad: Tensor | None, level: Tensor) -> tuple[Tensor, Tensor]:
    """Upstream gradient and level with zeros where nothing was summed."""
    dead = level == -torch.inf
    upstream = torch.zeros_like(level) if grad is None else grad.masked_fill(dead, 0.0)
    return upstream, level.masked_fill(dead, 0.0)


def logsumexp_both(product: ScaledProduct, blocks: Blocks) -> tuple[Tensor, Tensor]:
    x, y = scaled_operands(product)
    biases = (None if bias is None else bias * LOG2E for bias in (product.row_bias, product.column_bias))
    result: tuple[Tensor, Tensor] = _BothLogSumExp.apply(  # type: ignore[no-untyped-call]
        x, y, *biases, product.detach(), blocks
    )
    return result
