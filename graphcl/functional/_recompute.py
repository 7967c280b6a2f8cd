"""Evaluate a function without keeping what happens inside it, and evaluate it again in backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["recomputed"]

Function = Callable[..., tuple[Tensor, ...]]


def recomputed(function: Function, *inputs: Tensor) -> tuple[Tensor, ...]:
    """``function(*inputs)``, holding only the inputs until backward.

    Unlike `torch.utils.checkpoint` it leaves no reference cycles, which would keep one tile a block alive until the
    garbage collector runs. Gradients reach the inputs only, so the function must not close over others that need one.
    Differentiable once.
    """
    outputs: tuple[Tensor, ...] = _Recomputed.apply(function, *inputs)  # type: ignore[no-untyped-call]
    return outputs


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: Function, *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.function = function
        ctx.save_for_backward(*inputs)
        return function(*inputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad[1:]
        inputs = [t.detach().requires_grad_(need) for t, need in zip(ctx.saved_tensors, needed, strict=True)]
        with torch.enable_grad():
            outputs = ctx.function(*inputs)
        wanted = [t for t in inputs if t.requires_grad]
        reached = [(out, grad) for out, grad in zip(outputs, upstream, strict=True) if out.requires_grad]
        if not reached:
            return (None,) * (1 + len(needed))
        ends, gradients = zip(*reached, strict=True)
        found = iter(torch.autograd.grad(ends, wanted, gradients, allow_unused=True))
        return None, *(next(found) if need else None for need in needed)
