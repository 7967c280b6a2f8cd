"""Reductions by the torch-scatter package, where it is installed. Never needed, never imported unasked."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from graphcl.kernels import _segment_torch
from graphcl.kernels._segment_torch import composed_logsumexp, composed_softmax
from graphcl.kernels._segments import Segments


def load() -> ModuleType:
    """The package, or one error that says how to get it."""
    try:
        import torch_scatter
    except ImportError as error:
        raise ImportError(
            "backend 'torch_scatter' needs the torch-scatter package: pip install --no-build-isolation torch-scatter "
            "(as an extra: pip install --no-build-isolation 'graphcl[scatter]'); or pass backend='torch'"
        ) from error
    package: ModuleType = torch_scatter
    return package


def _reduce(src: Tensor, segments: Segments, reduction: str) -> Tensor:
    package = load()
    src = src.detach().contiguous()
    if segments.is_sorted:
        reduced: Tensor = package.segment_csr(src, segments.offsets, reduce=reduction)
    else:
        reduced = package.scatter(src, segments.ids, dim=0, dim_size=segments.size, reduce=reduction)
    return reduced


def segment_sum(src: Tensor, segments: Segments) -> Tensor:
    return _reduce(src, segments, "sum")


def segment_extreme(src: Tensor, segments: Segments, largest: bool) -> Tensor:
    """Empty segments hold whatever the package leaves there; the caller fills them."""
    if src.is_floating_point() and bool((src.detach() == (-torch.inf if largest else torch.inf)).any()):
        # The package starts from the lowest finite number and so takes a segment of infinities for an empty one.
        return _segment_torch.segment_extreme(src, segments, largest)
    return _reduce(src, segments, "max" if largest else "min")


def segment_logsumexp(src: Tensor, segments: Segments) -> Tensor:
    return composed_logsumexp(src, segments, segment_sum, segment_extreme)


def segment_softmax(src: Tensor, segments: Segments) -> Tensor:
    return composed_softmax(src, segments, segment_sum, segment_extreme)
