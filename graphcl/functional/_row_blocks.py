"""Objectives whose pairs need more than one product: a block of rows against everything, recomputed in backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from graphcl.kernels._arguments import check_block_size

__all__ = ["over_row_blocks"]


def over_row_blocks(
    function: Callable[..., Tensor],
    rows: Sequence[Tensor],
    shared: Sequence[Tensor],
    *,
    num_columns: int,
    floats_per_pair: int,
    memory_budget: int,
) -> Tensor:
    """``function(*row_blocks, *shared)`` for consecutive blocks of rows, joined.

    Only the inputs of a block live until backward, which evaluates the block again.

    Args:
        function: from tensors of b rows each and the shared ones to a tensor of b rows.
        rows: tensors with one row an anchor, the first of them floating.
        shared: handed to every block as they are.
        num_columns: how many pairs an anchor has.
        floats_per_pair: how many numbers the function and its gradient hold for a pair; sets the height of a block.
        memory_budget: upper bound in bytes for a block (one row at least).
    """
    check_block_size("memory_budget", memory_budget)
    height = max(1, memory_budget // max(1, floats_per_pair * num_columns * rows[0].element_size()))
    result: Tensor = _RowBlocks.apply(function, height, len(rows), *rows, *shared)  # type: ignore[no-untyped-call]
    return result


def _blocks(tensors: Sequence[Tensor], num_row_tensors: int, height: int) -> Iterator[tuple[slice, list[Tensor]]]:
    """Slice and arguments of every block; one empty block where there are no rows."""
    total = tensors[0].shape[0]
    for start in range(0, max(total, 1), height):
        part = slice(start, min(start + height, total))
        yield part, [*(tensor[part] for tensor in tensors[:num_row_tensors]), *tensors[num_row_tensors:]]


class _RowBlocks(torch.autograd.Function):
    """Nothing but the arguments lives between forward and backward, and one block at a time within them."""

    @staticmethod
    def forward(
        ctx: Any, function: Callable[..., Tensor], height: int, num_row_tensors: int, *tensors: Tensor
    ) -> Tensor:
        ctx.function, ctx.height, ctx.num_row_tensors = function, height, num_row_tensors
        ctx.save_for_backward(*tensors)
        blocks = _blocks(tensors, num_row_tensors, height)
        part, block = next(blocks)
        first = function(*block)
        # One tensor for all blocks: a small one kept from every block would pin the heap between them.
        result: Tensor = first.new_empty((tensors[0].shape[0], *first.shape[1:]))
        result[part] = first
        for part, block in blocks:
            result[part] = function(*block)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        tensors, num_row_tensors = ctx.saved_tensors, ctx.num_row_tensors
        wanted = [position for position in range(len(tensors)) if ctx.needs_input_grad[3 + position]]
        gradients: list[Tensor | None] = [None] * len(tensors)
        totals = {position: torch.zeros_like(tensors[position]) for position in wanted}
        for part, block in _blocks(tensors, num_row_tensors, ctx.height):
            leaves = [tensor.detach() for tensor in block]
            with torch.enable_grad():
                for position in wanted:
                    leaves[position].requires_grad_()
                value = ctx.function(*leaves)
            found = torch.autograd.grad(value, [leaves[position] for position in wanted], upstream[part])
            for position, gradient in zip(wanted, found, strict=True):
                total = totals[position]
                (total[part] if position < num_row_tensors else total).add_(gradient)
        for position, total in totals.items():
            gradients[position] = total
        return None, None, None, *gradients
