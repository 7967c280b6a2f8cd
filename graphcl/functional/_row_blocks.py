"""Objectives whose pairs need more than one product: a block of rows against everything, recomputed in backward."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

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
    parts = [
        checkpoint(function, *block, *shared, use_reentrant=False, preserve_rng_state=False)
        for block in zip(*(torch.split(tensor, height) for tensor in rows), strict=True)
    ]
    return torch.cat(parts)
