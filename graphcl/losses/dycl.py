"""Hierarchical retrieval losses as modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, Unpack

from torch import Tensor, nn

from graphcl.functional.dycl import dycl, smooth_hierarchical_ap
from graphcl.functional.reduction import Reduction, check_reduction
from graphcl.kernels._arguments import MEMORY_BUDGET
from graphcl.losses._base import LossOptions, checked
from graphcl.losses.layout import Layout, Pairs

__all__ = ["DyCL", "SmoothHierarchicalAP"]


class DyCL(nn.Module):
    """Softplus loss over relevance levels; see `graphcl.functional.dycl`.

    Args:
        levels: ``(L, L')`` integers, relevance of a row of z2 with the second label to one of z1 with the first; moved
            and saved with the module.
        scale: of the similarities.
        margins: of the levels 1 to R.
        normalize: ``rows`` or ``columns``.
        options: ``reduction``, ``memory_budget``, ``backend``.

    Shapes: ``forward(z1 (N, d), z2 (M, d), labels (N,), *, key_labels (M,))``.

    >>> import torch
    >>> loss = DyCL(torch.tensor([[1, 0], [0, 1]]), scale=1.0, margins=[0.0])
    >>> loss(torch.eye(2), torch.eye(2), torch.arange(2))
    tensor(0.3133)
    """

    levels: Tensor

    def __init__(
        self,
        levels: Tensor,
        *,
        scale: float = 32.0,
        margins: Sequence[float] = (0.25, 0.35, 0.45),
        normalize: Literal["rows", "columns"] = "rows",
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__()
        self.register_buffer("levels", levels)
        self.scale = scale
        self.margins = tuple(margins)
        self.normalize: Literal["rows", "columns"] = normalize
        self.options = checked(options)

    def forward(self, z1: Tensor, z2: Tensor, labels: Tensor, *, key_labels: Tensor | None = None) -> Tensor:
        return dycl(
            z1,
            z2,
            labels,
            self.levels,
            key_labels=key_labels,
            scale=self.scale,
            margins=self.margins,
            normalize=self.normalize,
            **self.options,
        )


class SmoothHierarchicalAP(nn.Module):
    """One minus smooth hierarchical average precision; see `graphcl.functional.smooth_hierarchical_ap`.

    Args:
        temperature: of the step below the positive.
        slope: of the step beyond the margin.
        margin: where the step becomes linear.
        lift: added to the step above the positive.
        offset: of the linear part; None joins it to the step.
        reduction: over queries.
        memory_budget: upper bound in bytes for the tiles.

    Shapes: ``forward(queries (B, d), candidates (C, d), positives (2, E) or compressed rows, relevance (E,), *,
    exclude)``.

    >>> import torch
    >>> z = torch.eye(2)
    >>> SmoothHierarchicalAP()(z, z, torch.tensor([[0, 1], [1, 0]]), torch.ones(2)).round(decimals=2)
    tensor(0.9900)
    """

    argument_layout: ClassVar[Mapping[str, Layout]] = {
        "positives": Pairs("queries", "candidates"),
        "exclude": Pairs("queries", "candidates"),
    }

    def __init__(
        self,
        temperature: float = 0.01,
        slope: float = 100.0,
        margin: float = 0.05,
        *,
        lift: float = 0.5,
        offset: float | None = None,
        reduction: Reduction = "mean",
        memory_budget: int = MEMORY_BUDGET,
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        self.temperature = temperature
        self.slope = slope
        self.margin = margin
        self.lift = lift
        self.offset = offset
        self.reduction: Reduction = reduction
        self.memory_budget = memory_budget

    def forward(
        self,
        queries: Tensor,
        candidates: Tensor,
        positives: Tensor | tuple[Tensor, Tensor],
        relevance: Tensor,
        *,
        exclude: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        return smooth_hierarchical_ap(
            queries,
            candidates,
            positives,
            relevance,
            exclude=exclude,
            temperature=self.temperature,
            slope=self.slope,
            margin=self.margin,
            lift=self.lift,
            offset=self.offset,
            reduction=self.reduction,
            memory_budget=self.memory_budget,
        )
