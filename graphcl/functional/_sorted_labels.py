"""Runs of nearby labels in a sorted list."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["label_window", "window_among"]


def label_window(y: Tensor, window: float) -> tuple[Tensor, Tensor]:
    """Half-open run ``first .. last`` of the sorted labels whose distance to each label is below the window.

    Found with the rounded difference ``|y_i - y_j| < window`` itself, not with ``y_i + window``, so that the runs agree
    to the last bit with rules that evaluate the same comparison.
    """
    return _reach(y, window, -1), _reach(y, window, 1) + 1


def _reach(y: Tensor, window: float, step: int) -> Tensor:
    """Furthest position from each in direction ``step`` inside the window; distances grow along a sorted list."""
    start = torch.arange(y.shape[0], device=y.device)
    reach = torch.zeros_like(start)
    jump = 1 << max(y.shape[0] - 1, 1).bit_length()
    while jump > 0:
        target = start + step * (reach + jump)
        distance = (y[target.clamp(0, max(y.shape[0] - 1, 0))] - y).abs()
        near = distance < window
        reach = torch.where((target >= 0) & (target < y.shape[0]) & near, reach + jump, reach)
        jump //= 2
    return start + step * reach


def window_among(
    values: Tensor, y: Tensor, window: float, begin: Tensor | None = None, end: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Half-open run ``first .. last`` of the labels y at most ``window`` from each of other values, ends included.

    Only the part ``begin .. end`` of y is searched for a value, all of it by default; y is sorted within that part.
    Rounded like `label_window`: a pair is inside exactly where ``|value - y_j| <= window`` is. O(A log C).
    """
    low = torch.zeros_like(values, dtype=torch.int64) if begin is None else begin
    high = torch.full_like(low, y.shape[0]) if end is None else end
    first = _boundary(values, y, low, high, lambda difference: difference < -window)
    return first, _boundary(values, y, first, high, lambda difference: difference <= window)


def _boundary(values: Tensor, y: Tensor, low: Tensor, high: Tensor, below: Callable[[Tensor], Tensor]) -> Tensor:
    """First position of ``low .. high`` whose ``y_j - value`` is not ``below``, by bisection."""
    for _ in range(y.shape[0].bit_length()):
        middle = ((low + high) // 2).clamp(max=y.shape[0] - 1)
        searching, before = low < high, below(y[middle] - values)
        low = torch.where(searching & before, middle + 1, low)
        high = torch.where(searching & ~before, middle, high)
    return low
