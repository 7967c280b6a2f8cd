"""Row normalisation whose gradient is finite at zero rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from graphcl.kernels._arguments import check_matrix, check_positive, compute_dtype

__all__ = ["normalize_rows"]

# A row longer than this has squares inside the range of the type.
_SAFE_EPS = {torch.float32: 1e-15, torch.float64: 1e-145}


def normalize_rows(x: Tensor, eps: float = 1e-12) -> Tensor:
    r"""Rows scaled to unit Euclidean length; a row with ``|x_i| <= eps`` becomes zero, with gradient exactly zero.

    .. math:: n(x_i) = x_i / \|x_i\| \text{ where } \|x_i\| > \epsilon, \quad 0 \text{ elsewhere}

    The stock normalisation divides by ``max(|x|, eps)`` and so sends ``1 / eps`` times the upstream gradient into a
    zero row. Zero rows are common in graphs (isolated nodes after a ReLU).

    Args:
        x: ``(n, d)`` float32, float64, bfloat16 or float16.
        eps: rows no longer than this count as zero.

    Returns:
        ``(n, d)`` in the dtype of ``x``; norms of half inputs are taken in float32.

    Raises:
        ValueError, TypeError: ``x`` is not a float matrix or ``eps`` is not positive.

    Complexity: O(n d) time and memory.

    >>> import torch
    >>> normalize_rows(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    check_matrix("x", x)
    check_positive("eps", eps)
    wide = x.to(compute_dtype(x.dtype))
    if wide.device.type != "cpu" or eps < _SAFE_EPS[wide.dtype]:
        return _by_scaled_rows(wide, eps).to(x.dtype)
    unit: Tensor = _UnitRows.apply(wide, eps)  # type: ignore[no-untyped-call]
    return unit.to(x.dtype)


class _UnitRows(torch.autograd.Function):
    """Two passes forward, three backward, and nothing kept but the result; scaled only where squares overflow."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        in_range = bool(torch.isfinite(length).all())
        length.masked_fill_(length <= eps, torch.inf)
        unit: Tensor = x / length if in_range else _by_scaled_rows(x, eps)
        ctx.eps = eps
        ctx.save_for_backward(x, unit, length if in_range else None)
        return unit

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        x, unit, length = ctx.saved_tensors
        if length is None or torch.is_grad_enabled():
            return _composed_gradient(x, ctx.eps, upstream), None
        along = (unit * upstream).sum(dim=1, keepdim=True)
        return torch.addcmul(upstream, unit, along, value=-1.0).div_(length), None


def _composed_gradient(x: Tensor, eps: float, upstream: Tensor) -> Tensor:
    """Gradient by autograd, itself differentiable where gradients are on."""
    create = torch.is_grad_enabled()
    with torch.enable_grad():
        source = x if x.requires_grad else x.detach().requires_grad_()
        gradient: Tensor
        (gradient,) = torch.autograd.grad(_by_scaled_rows(source, eps), source, upstream, create_graph=create)
    return gradient


def _by_scaled_rows(wide: Tensor, eps: float) -> Tensor:
    """Scaling by the largest entry keeps the squares of tiny and huge rows inside the range of the type."""
    peak = wide.detach().abs().amax(dim=1, keepdim=True) if wide.shape[1] > 0 else wide.new_zeros(wide.shape[0], 1)
    with torch.no_grad():
        zero = peak * torch.linalg.vector_norm(wide / peak.clamp_min(torch.finfo(wide.dtype).tiny), dim=1, keepdim=True)
        zero = zero <= eps
    safe_peak = peak.masked_fill(zero, 1.0)
    scaled = wide.masked_fill(zero, 1.0) / safe_peak
    unit: Tensor = scaled / torch.linalg.vector_norm(scaled, dim=1, keepdim=True)
    return unit.masked_fill(zero, 0.0)
