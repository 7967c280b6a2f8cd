"""Runs of nearby labels in a sorted list."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["label_window"]


def label_window(y: Tensor, window: float, *, closed: bool) -> tuple[Tensor, Tensor]:
    """Half-open run ``first .. last`` of the sorted labels whose distance to each label is inside the window.

    Found with the rounded difference ``|y_i - y_j| <= window`` (``closed``) or ``<`` itself, not with ``y_i + window``,
    so that the runs agree to the last bit with rules that evaluate the same comparison.
    """
    return _reach(y, window, closed, -1), _reach(y, window, closed, 1) + 1


def _reach(y: Tensor, window: float, closed: bool, step: int) -> Tensor:
    """Furthest position from each in direction ``step`` inside the window; distances grow along a sorted list."""
    start = torch.arange(y.shape[0], device=y.device)
    reach = torch.zeros_like(start)
    jump = 1 << max(y.shape[0] - 1, 1).bit_length()
    while jump > 0:
        target = start + step * (reach + jump)
        distance = (y[target.clamp(0, max(y.shape[0] - 1, 0))] - y).abs()
        near = distance <= window if closed else distance < window
        reach = torch.where((target >= 0) & (target < y.shape[0]) & near, reach + jump, reach)
        jump //= 2
    return start + step * reach
