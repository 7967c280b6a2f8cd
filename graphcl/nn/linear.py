"""A linear layer that takes the faster of torch's two CPU matrix libraries."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graphcl.kernels._matmul import matmul_nt, widest_unit_is_avx2


class Linear(nn.Linear):
    """``x W^T + b``, as :class:`torch.nn.Linear`, through the product that is fastest on this CPU.

    torch sends float32 products on a CPU to a library that keeps to AVX2 on processors of some makers, although
    another one in the same build does not: measured on an AVX-512 AMD core, 80 against 180 GFLOP/s. Every case but
    float32 on a CPU is torch's own, and so is that one where AVX2 is all that the processor has. Parameters and their
    names are those of :class:`torch.nn.Linear`; results differ by rounding only.

    Args:
        in_features, out_features, bias, device, dtype: as in :class:`torch.nn.Linear`.

    Complexity: time O(N in out), memory O(N out).

    Example:
        >>> Linear(3, 2)(torch.zeros(5, 3)).shape
        torch.Size([5, 2])
    """

    def forward(self, input: Tensor) -> Tensor:
        """[..., in] to [..., out]."""
        fast = input.device.type == "cpu" and input.dtype == self.weight.dtype == torch.float32 and input.numel() > 0
        if not fast or widest_unit_is_avx2() or torch.is_autocast_enabled("cpu"):
            return F.linear(input, self.weight, self.bias)
        rows = input.reshape(-1, self.in_features)
        result: Tensor = _FastLinear.apply(rows, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return result.view(*input.shape[:-1], self.out_features)


def uniform_by_inputs_(parameters: Iterable[Tensor | None], inputs: int, generator: torch.Generator | None) -> None:
    """Draw weights and biases as torch does for a linear map of so many inputs, but from a given generator.

    >>> weight = torch.empty(2, 4)
    >>> uniform_by_inputs_([weight, None], 4, None)
    >>> bool(weight.abs().max() <= 0.5)
    True
    """
    bound = 1.0 / math.sqrt(inputs)
    for parameter in parameters:
        if parameter is not None:
            nn.init.uniform_(parameter, -bound, bound, generator=generator)


class _FastLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        product = matmul_nt(x, weight)
        return product if bias is None else product.add_(bias)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        gradient = upstream[0].contiguous()
        x_gradient = weight_gradient = bias_gradient = None
        if ctx.needs_input_grad[0]:
            x_gradient = matmul_nt(gradient, weight.T)
        if ctx.needs_input_grad[1]:
            # The product with fewer rows is the faster of the two orientations.
            if weight.shape[0] <= weight.shape[1]:
                weight_gradient = matmul_nt(gradient.T, x.T)
            else:
                weight_gradient = matmul_nt(x.T, gradient.T).T
        if ctx.has_bias and ctx.needs_input_grad[2]:
            bias_gradient = gradient.sum(0)
        return x_gradient, weight_gradient, bias_gradient
