"""Small dense products of the tile loops."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

# Below this many multiplications the plain product's lower call cost wins.
_WORTH_MULTIPLICATIONS = 2**15


@cache
def _onednn_linear() -> Any:
    """oneDNN's ``a @ b.T`` on plain tensors, or None where this torch has none."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return None
    return getattr(torch.ops.mkldnn, "_linear_pointwise", None)


def matmul_nt(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b.T`` for ``(n, p)`` and ``(m, p)``; both dense in memory, either way round. No gradient.

    On CPUs the BLAS behind ``torch.mm`` does not use the widest vector unit of every maker; oneDNN, which torch ships
    as well, does, and was measured twice as fast on float32 tiles there.
    """
    if a.dtype == torch.float32 and a.device.type == "cpu" and a.shape[0] * b.numel() >= _WORTH_MULTIPLICATIONS:
        linear = _onednn_linear()
        if linear is not None:
            product: Tensor = linear(a, b, None, "none", [], "")
            return product
    return torch.mm(a, b.T)
