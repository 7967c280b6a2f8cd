"""An embedding table that is read twice in a step: rows as inputs, a block of rows as classes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def tied_embedding(weight: Tensor, ids: Tensor, first: int, last: int) -> tuple[Tensor, Tensor]:
    """Rows ``weight[ids]`` and the block ``weight[first:last]``, with one gradient buffer for both.

    Left to autograd, the lookup and the slice each fill a gradient of the whole table and add them up; here the
    block's gradient is laid into one table and the rows' gradients are added to it. Id 0 is padding: its lookups give
    no gradient.

    Args:
        weight: [M, d].
        ids: integers of any shape in 0..M-1.
        first, last: bounds of the block.

    Returns:
        ``weight[ids]`` of shape [*ids.shape, d] and ``weight[first:last]``.

    Complexity: time and memory O(M d + ids d) in backward.

    Example:
        >>> rows, block = tied_embedding(torch.eye(3), torch.tensor([2]), 1, 3)
        >>> rows.tolist(), block.shape
        ([[0.0, 0.0, 1.0]], torch.Size([2, 3]))
    """
    rows, block = _TiedEmbedding.apply(weight, ids, first, last)  # type: ignore[no-untyped-call]
    return rows, block


class _TiedEmbedding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, ids: Tensor, first: int, last: int) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(ids)
        ctx.set_materialize_grads(False)
        ctx.shape, ctx.first, ctx.last = weight.shape, first, last
        return weight[ids], weight[first:last].view_as(weight[first:last])

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        (ids,) = ctx.saved_tensors
        rows, block = upstream
        given = rows if rows is not None else block
        if given is None:
            return None, None, None, None
        gradient = given.new_empty(ctx.shape)
        if block is None:
            gradient.zero_()
        else:
            gradient[: ctx.first] = 0
            gradient[ctx.first : ctx.last] = block
            gradient[ctx.last :] = 0
        if rows is not None:
            flat = ids.flatten()
            padding = gradient[0].clone()
            gradient.index_add_(0, flat, rows.reshape(flat.shape[0], -1))
            gradient[0] = padding
        return gradient, None, None, None
