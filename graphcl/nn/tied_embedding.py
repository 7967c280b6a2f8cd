"""An embedding table that is read twice in a step: rows as inputs, a block of rows as classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from graphcl.nn.packing import PackedSequences


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


def tied_packed_embedding(
    weight: Tensor, packed: Sequence[PackedSequences], first: int, last: int
) -> tuple[list[Tensor], Tensor]:
    """`tied_embedding` of several sets of packed sequences, looked up at once.

    Args:
        weight: [M, d].
        packed: sets of R rows of C slots each.
        first, last: bounds of the block.

    Returns:
        [R, C, d] of each set, and ``weight[first:last]``.

    Complexity: as :func:`tied_embedding`.

    Example:
        >>> import numpy as np
        >>> from graphcl.nn import pack_sequences
        >>> packed = pack_sequences(np.array([2, 1]), np.array([0, 2]))
        >>> rows, block = tied_packed_embedding(torch.eye(3), [packed, packed], 1, 3)
        >>> [part.shape for part in rows], block.shape
        ([torch.Size([1, 2, 3]), torch.Size([1, 2, 3])], torch.Size([2, 3]))
    """
    ids = [sequences.items.flatten() for sequences in packed]
    rows, block = tied_embedding(weight, torch.cat(ids), first, last)
    parts = torch.split(rows, [part.shape[0] for part in ids])
    return [part.view(*one.items.shape, -1) for part, one in zip(parts, packed, strict=True)], block


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
