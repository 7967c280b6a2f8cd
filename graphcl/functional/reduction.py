"""One rule for turning the losses of anchors into the loss of a batch, shared by every objective."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

__all__ = ["Reduction", "check_reduction", "reduce_anchors"]

Reduction = Literal["mean", "sum", "none"]


def check_reduction(reduction: str) -> None:
    """Refuse a reduction that is not ``mean``, ``sum`` or ``none``."""
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}")


def reduce_anchors(
    loss: Tensor, reduction: Reduction = "mean", *, valid: Tensor | None = None, weight: Tensor | None = None
) -> Tensor:
    r"""Reduce the losses of anchors, leaving out anchors for which the objective is not defined.

    .. math:: \text{mean} = \frac{\sum_{i \text{ valid}} a_i \ell_i}{\sum_{i \text{ valid}} a_i}, \qquad
        \text{sum} = \sum_{i \text{ valid}} a_i \ell_i

    Args:
        loss: ``(A,)`` loss of each anchor; entries of invalid anchors may be infinite or NaN and pass no gradient.
        reduction: ``mean``, ``sum``, or ``none`` for the weighted losses with 0 at invalid anchors.
        valid: ``(A,)`` bool, true where the anchor counts; all of them by default.
        weight: ``(A,)`` non-negative weights a_i; ones by default.

    Returns:
        A scalar, or ``(A,)`` for ``none``. Without any valid anchor the result is exactly 0 with zero gradient.

    Raises:
        ValueError: unknown reduction.

    Complexity: O(A).

    >>> import torch
    >>> reduce_anchors(torch.tensor([1.0, 3.0, float("inf")]), valid=torch.tensor([True, True, False]))
    tensor(2.)
    """
    check_reduction(reduction)
    weighted = loss if weight is None else loss * weight
    if valid is not None:
        weighted = torch.where(valid, weighted, torch.zeros((), dtype=loss.dtype, device=loss.device))
    if reduction == "none":
        return weighted
    total = weighted.sum()
    if reduction == "sum":
        return total
    if weight is not None:
        counted = weight if valid is None else weight[valid]
        divisor = counted.sum()
        return total / torch.where(divisor > 0, divisor, torch.ones_like(divisor))
    count = loss.numel() if valid is None else int(valid.sum())
    return total / max(count, 1)
