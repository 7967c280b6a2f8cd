"""Blocked log-sum-exp with the mean and variance of the similarity under the softmax.

With shares pi, ``t_ij = s_ij - E_i`` and upstream gradients gD, gE, gV the tiles recomputed in backward hold

    d l_ij = pi_ij (gD_i + gE_i t_ij + gV_i (t_ij^2 - V_i)),      d s_ij (direct) = pi_ij (gE_i + 2 gV_i t_ij).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from graphcl.kernels._arguments import compute_dtype
from graphcl.kernels._matmul import matmul_nt
from graphcl.kernels._product import ScaledProduct
from graphcl.kernels._tiles import LN2, LOG2E, Blocks, TileSource, split


class _RowMoments(torch.autograd.Function):
    """Base-2 operands: ``row_scale`` and ``column_bias`` arrive multiplied by log2(e); x and y arrive unscaled."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        y: Tensor,
        row_scale: Tensor,
        column_scale: Tensor | None,
        column_bias: Tensor | None,
        product: ScaledProduct,
        blocks: Blocks,
        moments: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        tiles = TileSource(product, x, y, column_bias)
        num_anchors, num_candidates = x.shape[0], y.shape[0]
        log2sum = x.new_full((num_anchors,), -torch.inf)
        mean, variance = x.new_zeros(num_anchors), x.new_zeros(num_anchors)
        for rows in split(num_anchors, blocks.rows):
            total, centre, spread = (x.new_zeros(rows.stop - rows.start) for _ in range(3))
            peak = torch.full_like(total, -torch.inf)
            for columns in split(num_candidates, blocks.columns):
                pair = tiles.similarity_and_logits(rows, columns, row_scale, column_scale)
                if pair is None:
                    continue
                similarity, share = pair
                new_peak = torch.maximum(peak, share.amax(dim=1))
                shift = new_peak.masked_fill(new_peak == -torch.inf, 0.0)
                total.mul_(torch.exp2(peak - shift))
                peak = new_peak
                share.sub_(shift[:, None]).exp2_()
                added = share.sum(dim=1)
                # Moments of the two parts are merged around their own means: no difference of large squares.
                similarity.sub_(centre[:, None])
                step = torch.linalg.vecdot(share, similarity) / added.masked_fill(added == 0, 1.0)
                merged = total + added
                part = added / merged.masked_fill(merged == 0, 1.0)
                if moments == 2:
                    similarity.sub_(step[:, None]).square_()
                    own = torch.linalg.vecdot(share, similarity) / added.masked_fill(added == 0, 1.0)
                    spread = (1 - part) * spread + part * own + part * (1 - part) * step * step
                centre = centre + part * step
                total = merged
            log2sum[rows] = torch.log2(total) + peak
            mean[rows], variance[rows] = centre, spread
        ctx.product, ctx.blocks = product, blocks
        ctx.save_for_backward(x, y, row_scale, column_scale, column_bias, log2sum, mean, variance)
        return log2sum * LN2, mean, variance

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_total: Tensor | None, grad_mean: Tensor | None, grad_variance: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        x, y, row_scale, column_scale, column_bias, log2sum, mean, variance = ctx.saved_tensors
        need_x, need_y, need_row_scale, need_column_scale, need_bias = ctx.needs_input_grad[:5]
        tiles = TileSource(ctx.product, x, y, column_bias)
        blocks: Blocks = ctx.blocks
        dead = log2sum == -torch.inf

        def rowwise(grad: Tensor | None) -> Tensor:
            return torch.zeros_like(mean) if grad is None else grad.masked_fill(dead, 0.0)

        g_total, g_mean, g_variance = rowwise(grad_total), rowwise(grad_mean), rowwise(grad_variance)
        level = log2sum.masked_fill(dead, 0.0)
        dx = torch.zeros_like(x) if need_x else None
        dy = y.new_zeros(y.shape[1], y.shape[0]) if need_y else None  # transposed: the faster product
        d_row_scale = torch.zeros_like(row_scale) if need_row_scale else None
        d_column_scale = y.new_zeros(y.shape[0]) if need_column_scale else None
        d_bias = y.new_zeros(y.shape[0]) if need_bias else None
        for rows in split(x.shape[0], blocks.rows):
            scale = row_scale[rows, None]
            constant = (g_total[rows] - g_variance[rows] * variance[rows])[:, None]
            for columns in split(y.shape[0], blocks.columns):
                pair = tiles.similarity_and_logits(rows, columns, row_scale, column_scale)
                if pair is None:
                    continue
                similarity, share = pair
                share.sub_(level[rows, None]).exp2_()
                centred = similarity - mean[rows, None]
                by_logit = (centred * g_variance[rows, None]).add_(g_mean[rows, None]).mul_(centred).add_(constant)
                by_logit.mul_(share).mul_(LN2)
                direct = centred.mul_(2 * g_variance[rows, None]).add_(g_mean[rows, None]).mul_(share)
                if d_bias is not None:
                    d_bias[columns] += by_logit.sum(dim=0)
                if column_scale is None:
                    scaled = by_logit * scale
                else:
                    scaled = by_logit * scale * column_scale[columns]
                    if d_column_scale is not None:
                        d_column_scale[columns] += torch.mv((by_logit * similarity).T, row_scale[rows])
                if d_row_scale is not None:
                    weighted = by_logit.mul_(similarity)
                    d_row_scale[rows] += (
                        weighted.sum(dim=1) if column_scale is None else torch.mv(weighted, column_scale[columns])
                    )
                gradient = scaled.add_(direct)
                if dx is not None:
                    dx[rows].add_(matmul_nt(gradient, y[columns].T))
                if dy is not None:
                    dy[:, columns].add_(matmul_nt(x[rows].T.contiguous(), gradient.T))
        return dx, None if dy is None else dy.T, d_row_scale, d_column_scale, d_bias, None, None, None


def row_moments(product: ScaledProduct, blocks: Blocks, moments: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """D without row bias, E, and V where ``moments`` is 2."""
    wide = compute_dtype(product.x.dtype)
    scale = product.row_scale
    if not isinstance(scale, Tensor):
        scale = torch.full((product.num_anchors,), scale, dtype=wide, device=product.x.device)
    total, mean, variance = _RowMoments.apply(  # type: ignore[no-untyped-call]
        product.x.to(wide).contiguous(),
        product.y.to(wide).contiguous(),
        scale * LOG2E,
        product.column_scale,
        None if product.column_bias is None else product.column_bias * LOG2E,
        product.detach(),
        blocks,
        moments,
    )
    return total, mean, variance if moments == 2 else None
