"""Row normalisation whose gradient is finite at zero rows."""

from __future__ import annotations

import torch
from torch import Tensor

from graphcl.kernels._arguments import check_matrix, check_positive, compute_dtype

__all__ = ["normalize_rows"]


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
    # Scaling by the largest entry keeps the squares of tiny and huge rows inside the range of the type.
    peak = wide.detach().abs().amax(dim=1, keepdim=True) if x.shape[1] > 0 else wide.new_zeros(x.shape[0], 1)
    with torch.no_grad():
        zero = peak * torch.linalg.vector_norm(wide / peak.clamp_min(torch.finfo(wide.dtype).tiny), dim=1, keepdim=True)
        zero = zero <= eps
    safe_peak = peak.masked_fill(zero, 1.0)
    scaled = wide.masked_fill(zero, 1.0) / safe_peak
    unit = scaled / torch.linalg.vector_norm(scaled, dim=1, keepdim=True)
    result: Tensor = unit.masked_fill(zero, 0.0).to(x.dtype)
    return result
