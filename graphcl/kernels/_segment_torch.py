"""Forward reductions over segments in plain torch, on any device. Fast on a CPU, the fallback on CUDA."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from graphcl.kernels._csr import accumulation_dtype, csr_matmul
from graphcl.kernels._segments import Segments

# Below this many columns one pass of unsorted additions is cheaper than sorting the index (measured on a CPU).
_SORT_FROM_COLUMNS = 16


def segment_sum(src: Tensor, segments: Segments) -> Tensor:
    if segments.is_sorted or _should_sort(src):
        order = segments.order
        return csr_matmul(segments.offsets, order, None, src)
    return src.new_zeros(segments.size, src.shape[1]).index_add_(0, segments.ids, src.detach())


def _should_sort(src: Tensor) -> bool:
    if src.dtype in (torch.bfloat16, torch.float16):
        return True  # repeated additions into a half accumulator would lose the sum
    if src.device.type == "cpu":
        return src.is_floating_point() and src.shape[1] >= _SORT_FROM_COLUMNS
    return torch.are_deterministic_algorithms_enabled()


def segment_extreme(src: Tensor, segments: Segments, largest: bool) -> Tensor:
    """Largest or smallest entry of every segment; an empty segment holds the identity of the operation."""
    src = src.detach()
    if src.is_floating_point():
        identity = -torch.inf if largest else torch.inf
    else:
        identity = torch.iinfo(src.dtype).min if largest else torch.iinfo(src.dtype).max
    if segments.is_sorted and src.is_floating_point() and src.shape[1] < _SORT_FROM_COLUMNS:
        reduction = "max" if largest else "min"
        return torch.segment_reduce(src.contiguous(), reduction, offsets=segments.offsets, initial=identity)
    out = src.new_full((segments.size, src.shape[1]), identity)
    index = segments.ids.unsqueeze(1).expand(-1, src.shape[1])
    return out.scatter_reduce_(0, index, src, "amax" if largest else "amin")


def segment_logsumexp(src: Tensor, segments: Segments) -> Tensor:
    return composed_logsumexp(src, segments, segment_sum, segment_extreme)


def segment_softmax(src: Tensor, segments: Segments) -> Tensor:
    return composed_softmax(src, segments, segment_sum, segment_extreme)


Sum = Callable[[Tensor, Segments], Tensor]
Extreme = Callable[[Tensor, Segments, bool], Tensor]


def _shifted_exp(src: Tensor, segments: Segments, extreme: Extreme) -> tuple[Tensor, Tensor]:
    """``exp(src - peak of its segment)`` and that peak (0 where it is infinite), with one E x F temporary."""
    wide = src.detach().to(accumulation_dtype(src.dtype))
    peak = extreme(wide, segments, True)
    peak = torch.where(torch.isfinite(peak), peak, torch.zeros_like(peak))
    weights = segments.spread(peak)
    return torch.sub(wide, weights, out=weights).exp_(), peak


def composed_logsumexp(src: Tensor, segments: Segments, total: Sum, extreme: Extreme) -> Tensor:
    weights, peak = _shifted_exp(src, segments, extreme)
    return total(weights, segments).log_().add_(peak).to(src.dtype)


def composed_softmax(src: Tensor, segments: Segments, total: Sum, extreme: Extreme) -> Tensor:
    weights, _ = _shifted_exp(src, segments, extreme)
    mass = total(weights, segments)
    # A segment whose entries are all -inf has no mass: its weights are 0, not 0 / 0.
    mass.masked_fill_(mass == 0, 1.0)
    return weights.div_(segments.spread(mass)).to(src.dtype)
