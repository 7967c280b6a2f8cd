"""Similarities of listed pairs in chunks, gathered again in backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from graphcl.kernels._arguments import compute_dtype
from graphcl.kernels._tiles import MINIATURE, split

# Chunks this large keep the two gathered blocks in cache on a CPU and still amortise the calls.
_CHUNK_ELEMENTS = 2**18


class _EdgeSimilarity(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, rows: Tensor, columns: Tensor, distance: bool, chunk: int) -> Tensor:
        wide = compute_dtype(x.dtype)
        out = torch.empty(rows.shape[0], dtype=wide, device=x.device)
        for part in split(rows.shape[0], chunk):
            left, right = x[rows[part]].to(wide), y[columns[part]].to(wide)
            if distance:
                difference = left - right
                out[part] = -torch.linalg.vecdot(difference, difference)
            else:
                out[part] = torch.linalg.vecdot(left, right)
        ctx.save_for_backward(x, y, rows, columns)
        ctx.distance, ctx.chunk = distance, chunk
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        x, y, rows, columns = ctx.saved_tensors
        wide = compute_dtype(x.dtype)
        need_x, need_y = ctx.needs_input_grad[:2]
        dx = torch.zeros(x.shape, dtype=wide, device=x.device) if need_x else None
        dy = torch.zeros(y.shape, dtype=wide, device=y.device) if need_y else None
        for part in split(rows.shape[0], ctx.chunk):
            row, column, grad = rows[part], columns[part], upstream[part, None]
            if ctx.distance:
                toward = (y[column].to(wide) - x[row].to(wide)) * (2 * grad)
                if dx is not None:
                    dx.index_add_(0, row, toward)
                if dy is not None:
                    dy.index_add_(0, column, toward, alpha=-1)
                continue
            if dx is not None:
                dx.index_add_(0, row, y[column].to(wide) * grad)
            if dy is not None:
                dy.index_add_(0, column, x[row].to(wide) * grad)
        return (
            None if dx is None else dx.to(x.dtype),
            None if dy is None else dy.to(y.dtype),
            None,
            None,
            None,
            None,
        )


def edge_similarity(x: Tensor, y: Tensor, rows: Tensor, columns: Tensor, distance: bool, memory_budget: int) -> Tensor:
    """Dots, or negative squared distances, of ``x[rows]`` and ``y[columns]``."""
    width = max(x.shape[1], 1)
    shrink = max(MINIATURE.get())
    entries = min(_CHUNK_ELEMENTS, memory_budget // (4 * compute_dtype(x.dtype).itemsize))
    chunk = max((entries if shrink == 1 else int(_CHUNK_ELEMENTS / shrink)) // width, 1)
    result: Tensor = _EdgeSimilarity.apply(x, y, rows, columns, distance, chunk)  # type: ignore[no-untyped-call]
    return result
