"""Small dense products of the tile loops."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

__all__ = ["matmul_nt", "widest_unit_is_avx2"]

# Below this many multiplications the plain product's lower call cost wins.
_WORTH_MULTIPLICATIONS = 2**15


@cache
def widest_unit_is_avx2() -> bool:
    """Whether the BLAS behind ``torch.mm`` uses all of this x86 processor, so that oneDNN gains little or nothing.

    >>> widest_unit_is_avx2() in (True, False)
    True
    """
    return torch.backends.cpu.get_cpu_capability() == "AVX2"


@cache
def _onednn_linear() -> Any:
    """oneDNN's ``a @ b.T`` on plain tensors, or None where this torch has none."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return None
    return getattr(torch.ops.mkldnn, "_linear_pointwise", None)


def matmul_nt(a: Tensor, b: Tensor) -> Tensor:
    r"""Product of two matrices that are both stored by rows, by the faster of torch's CPU matrix libraries.

    .. math:: c_{ij} = \sum_k a_{ik} b_{jk}

    On CPUs the BLAS behind ``torch.mm`` does not use the widest vector unit of every maker; oneDNN, which torch ships
    as well, does, and was measured twice as fast on float32 tiles there. Which one runs: oneDNN for float32 on a CPU
    from some tens of thousands of multiplications on, ``torch.mm`` for everything else and where a gradient is needed.
    Where AVX2 is the widest unit, two transposed views go to ``torch.mm`` as well, 1.2 to 2.8 times as fast there.

    Args:
        a: ``(n, p)``.
        b: ``(m, p)`` of the same dtype and device; either may be a transposed view.

    Returns:
        ``(n, m)`` in the dtype of the inputs.

    Raises:
        RuntimeError: by torch, for shapes or dtypes that do not fit; nothing is checked here.

    Complexity: O(n m p) time, O(n m) memory.

    >>> import torch
    >>> matmul_nt(torch.eye(2), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    tensor([[1., 3.],
            [2., 4.]])
    """
    differentiable = torch.is_grad_enabled() and (a.requires_grad or b.requires_grad)
    fast = a.dtype == b.dtype == torch.float32 and a.device.type == b.device.type == "cpu"
    if fast and widest_unit_is_avx2():
        # By layout alone: a ranking wants the same bits whatever the block that a score is computed in.
        fast = a.stride(1) == 1 or b.stride(1) == 1
    if fast and not differentiable and a.shape[0] * b.numel() >= _WORTH_MULTIPLICATIONS:
        linear = _onednn_linear()
        if linear is not None:
            product: Tensor = linear(a, b, None, "none", [], "")
            return product
    return torch.mm(a, b.T)
