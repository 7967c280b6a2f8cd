"""Z-loss as a module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from graphcl.functional.reduction import Reduction, check_reduction
from graphcl.functional.zloss import z_loss
from graphcl.losses.layout import SHARED, Layout

__all__ = ["ZLoss"]


class ZLoss(nn.Module):
    """Classification by the standardised target logit; see `graphcl.functional.z_loss`.

    Args:
        slope: a.
        threshold: b.
        reduction: over rows.

    Shapes: ``forward(hidden (B, d), weight (n, d), target (B,))``.

    >>> import torch
    >>> ZLoss(threshold=0.0)(torch.tensor([[1.0]]), torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([2]))
    tensor(0.2576)
    """

    argument_layout: ClassVar[Mapping[str, Layout]] = {"weight": SHARED}

    def __init__(self, slope: float = 1.0, threshold: float = 10.0, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_reduction(reduction)
        self.slope = slope
        self.threshold = threshold
        self.reduction: Reduction = reduction

    def forward(self, hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
        return z_loss(hidden, weight, target, slope=self.slope, threshold=self.threshold, reduction=self.reduction)
