"""Proto-Triplet as a module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from graphcl.functional.proto_triplet import proto_triplet
from graphcl.functional.reduction import Reduction, check_reduction
from graphcl.kernels._arguments import MEMORY_BUDGET
from graphcl.losses.layout import SHARED, Layout

__all__ = ["ProtoTriplet"]


class ProtoTriplet(nn.Module):
    """Triplet hinge on distances to prototypes; see `graphcl.functional.proto_triplet`.

    Args:
        margin: m.
        reduction: ``mean``, ``sum`` or ``none``.
        memory_budget: bytes for the distances held at once.

    Shapes: ``forward(embeddings (N, d), prototypes (K, d), labels (N,), *, weight (N,))``.

    >>> import torch
    >>> ProtoTriplet()(torch.tensor([[0.0], [3.0]]), torch.tensor([[0.0], [3.0]]), torch.tensor([0, 0]))
    tensor(1.7500)
    """

    argument_layout: ClassVar[Mapping[str, Layout]] = {"prototypes": SHARED}

    def __init__(
        self, margin: float = 0.5, *, reduction: Reduction = "mean", memory_budget: int = MEMORY_BUDGET
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        self.margin = margin
        self.reduction: Reduction = reduction
        self.memory_budget = memory_budget

    def forward(
        self, embeddings: Tensor, prototypes: Tensor, labels: Tensor, *, weight: Tensor | None = None
    ) -> Tensor:
        return proto_triplet(
            embeddings,
            prototypes,
            labels,
            margin=self.margin,
            weight=weight,
            reduction=self.reduction,
            memory_budget=self.memory_budget,
        )

    def extra_repr(self) -> str:
        return f"margin={self.margin}"
