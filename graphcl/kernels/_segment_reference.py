"""The truth of the segment reductions: one Python loop over the segments, gradients by autograd."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from graphcl.kernels._segments import Segments


def _groups(src: Tensor, segments: Segments) -> list[Tensor]:
    return [src[segments.ids == segment] for segment in range(segments.size)]


def _stack(src: Tensor, rows: list[Tensor]) -> Tensor:
    # The empty sum keeps a result of nothing but empty segments in the graph of src.
    return torch.stack(rows) + src[:0].sum().to(src.dtype) if rows else src[:0]


def segment_sum(src: Tensor, segments: Segments) -> Tensor:
    return _stack(src, [group.sum(0).to(src.dtype) for group in _groups(src, segments)])


def segment_mean(src: Tensor, segments: Segments) -> Tensor:
    return _stack(src, [group.sum(0) / max(len(group), 1) for group in _groups(src, segments)])


def segment_extreme(src: Tensor, segments: Segments, largest: bool, empty: float) -> Tensor:
    rows = []
    for group in _groups(src, segments):
        if len(group) == 0:
            rows.append(src.new_full(src.shape[1:], empty))
        else:
            # argmax and argmin name the first of several equal entries, so that one takes the whole gradient.
            winner = group.detach().argmax(0) if largest else group.detach().argmin(0)
            rows.append(group.gather(0, winner.unsqueeze(0)).squeeze(0))
    return _stack(src, rows)


def _shifted_exp(group: Tensor) -> tuple[Tensor, Tensor]:
    peak = group.detach().amax(0)
    shift = torch.where(torch.isfinite(peak), peak, torch.zeros_like(peak))
    return (group - shift).exp(), shift


def segment_logsumexp(src: Tensor, segments: Segments) -> Tensor:
    rows = []
    for group in _groups(src, segments):
        if len(group) == 0:
            rows.append(src.new_full(src.shape[1:], -torch.inf))
            continue
        weights, shift = _shifted_exp(group)
        total = weights.sum(0)
        nothing = total == 0
        rows.append(torch.where(nothing, -torch.inf, total.masked_fill(nothing, 1.0).log() + shift))
    return _stack(src, rows)


def segment_softmax(src: Tensor, segments: Segments) -> Tensor:
    out = src * 0 if src.numel() == 0 else torch.zeros_like(src)
    for segment, group in enumerate(_groups(src, segments)):
        if len(group) > 0:
            weights, _ = _shifted_exp(group)
            total = weights.sum(0)
            out = out.index_put(
                (torch.nonzero(segments.ids == segment)[:, 0],), weights / total.masked_fill(total == 0, 1)
            )
    return out


REDUCTIONS: dict[str, Callable[[Tensor, Segments, float], Tensor]] = {
    "sum": lambda src, segments, _: segment_sum(src, segments),
    "mean": lambda src, segments, _: segment_mean(src, segments),
    "max": lambda src, segments, empty: segment_extreme(src, segments, True, empty),
    "min": lambda src, segments, empty: segment_extreme(src, segments, False, empty),
    "logsumexp": lambda src, segments, _: segment_logsumexp(src, segments),
    "softmax": lambda src, segments, _: segment_softmax(src, segments),
}
