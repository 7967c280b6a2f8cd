"""A scalar part of a loss whose gradient is found together with its value, so that its graph can go at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["with_gradient_at_once"]


def with_gradient_at_once(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """``function(*inputs)``, a scalar, holding one gradient an input until backward and nothing else.

    For losses that are a sum of parts over the same rows: the graphs of the parts would live side by side. Gradients
    reach the inputs only, so the function must not close over other tensors that need one. Differentiable once.
    """
    if not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)):
        return function(*inputs)
    value: Tensor = _AtOnce.apply(function, *inputs)  # type: ignore[no-untyped-call]
    return value


class _AtOnce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        needed = ctx.needs_input_grad[1:]
        leaves = [tensor.detach().requires_grad_(need) for tensor, need in zip(inputs, needed, strict=True)]
        with torch.enable_grad():
            value = function(*leaves)
            wanted = [leaf for leaf in leaves if leaf.requires_grad]
            found = iter(torch.autograd.grad(value, wanted) if value.requires_grad else [None] * len(wanted))
        ctx.save_for_backward(*(next(found) if need else None for need in needed))
        return value.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        return None, *(None if gradient is None else gradient * upstream for gradient in ctx.saved_tensors)
