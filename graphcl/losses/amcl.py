"""Adaptive multi-head contrast as a module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from graphcl.functional.amcl import amcl
from graphcl.functional.reduction import Reduction, check_reduction
from graphcl.kernels._arguments import MEMORY_BUDGET
from graphcl.losses.layout import VIEWS, Layout
from graphcl.losses.protocol import LossOutput
from graphcl.losses.temperature import PairTemperature

__all__ = ["AMCL"]


class AMCL(nn.Module):
    """InfoNCE over several heads with learned pair temperatures; see `graphcl.functional.amcl`.

    Owns the temperature networks; the projection heads belong to the model.

    Args:
        dim: d of every head.
        num_heads: how many heads.
        hidden: width of the temperature networks.
        low: lower bound of the temperatures.
        high: upper bound of the temperatures.
        regularization: beta.
        reduction: ``mean``, ``sum`` or ``none``.
        memory_budget: upper bound in bytes for a block of pairs.
        generator: draws the initial weights.

    Shapes: ``forward(heads1, heads2, *, ids (N,), return_components=False)`` with H matrices ``(N, d)`` each, or
    tensors ``(H, N, d)``.

    >>> import torch
    >>> loss = AMCL(4, num_heads=2, generator=torch.Generator().manual_seed(0))
    >>> bool(loss(torch.ones(2, 3, 4), torch.ones(2, 3, 4)).isfinite())
    True
    """

    argument_layout: ClassVar[Mapping[str, Layout]] = {"heads1": VIEWS, "heads2": VIEWS}

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int = 3,
        hidden: int = 128,
        low: float = 1e-2,
        high: float = 2.0,
        regularization: float = 0.1,
        reduction: Reduction = "mean",
        memory_budget: int = MEMORY_BUDGET,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        self.temperatures = nn.ModuleList(
            PairTemperature(dim, hidden, low=low, high=high, generator=generator) for _ in range(num_heads)
        )
        self.hidden = hidden
        self.regularization = regularization
        self.reduction: Reduction = reduction
        self.memory_budget = memory_budget

    def forward(
        self,
        heads1: Sequence[Tensor] | Tensor,
        heads2: Sequence[Tensor] | Tensor,
        *,
        ids: Tensor | None = None,
        return_components: bool = False,
    ) -> LossOutput:
        return amcl(
            list(heads1),
            list(heads2),
            list(self.temperatures),
            ids=ids,
            regularization=self.regularization,
            return_components=return_components,
            reduction=self.reduction,
            memory_budget=self.memory_budget,
        )
