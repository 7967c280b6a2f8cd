"""A linear layer that takes the faster of torch's two CPU matrix libraries."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# torch sends float32 products on a CPU to MKL, which keeps to AVX2 on processors that are not Intel's; oneDNN, in the
# same torch build, uses what the processor has. Measured on an AVX-512 AMD core: 80 against 180 GFLOP/s.
_HAS_ONEDNN = torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_linear_pointwise")


class Linear(nn.Linear):
    """``x W^T + b``, as :class:`torch.nn.Linear`, through oneDNN where that is the faster product.

    Used for float32 on a CPU; every other case is torch's own. Parameters and their names are those of
    :class:`torch.nn.Linear`; results differ by rounding only.

    Args:
        in_features, out_features, bias, device, dtype: as in :class:`torch.nn.Linear`.

    Complexity: time O(N in out), memory O(N out).

    Example:
        >>> Linear(3, 2)(torch.zeros(5, 3)).shape
        torch.Size([5, 2])
    """

    def forward(self, input: Tensor) -> Tensor:
        """[..., in] to [..., out]."""
        if not takes_onednn(input) or not takes_onednn(self.weight):
            return F.linear(input, self.weight, self.bias)
        rows = input.reshape(-1, self.in_features)
        result: Tensor = _OneDnnLinear.apply(rows, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return result.view(*input.shape[:-1], self.out_features)


def takes_onednn(x: Tensor) -> bool:
    """Whether products of this tensor go through oneDNN: dense float32 with elements, on a CPU, outside autocast."""
    return (
        _HAS_ONEDNN
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and x.numel() > 0
        and not torch.is_autocast_enabled("cpu")
    )


def _product(x: Tensor, y: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x y^T + bias`` for [n, k] and [m, k]."""
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, y, bias, "none", [], "")
    return result


class _OneDnnLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        (gradient,) = upstream
        x_gradient = weight_gradient = bias_gradient = None
        if ctx.needs_input_grad[0]:
            x_gradient = _product(gradient, weight.T)
        if ctx.needs_input_grad[1]:
            # The product with fewer rows is the faster of the two orientations.
            if weight.shape[0] <= weight.shape[1]:
                weight_gradient = _product(gradient.T, x.T)
            else:
                weight_gradient = _product(x.T, gradient.T).T
        if ctx.has_bias and ctx.needs_input_grad[2]:
            bias_gradient = gradient.sum(0)
        return x_gradient, weight_gradient, bias_gradient
