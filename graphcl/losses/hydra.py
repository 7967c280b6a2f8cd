"""Pair-conditioned contrast as a module that owns the gates."""

from __future__ import annotations

import torch
from torch import Tensor

from graphcl.functional._draws import draw_permutation
from graphcl.functional.hydra import hydra
from graphcl.functional.reduction import Reduction, check_reduction
from graphcl.kernels._arguments import MEMORY_BUDGET
from graphcl.losses._base import TemperatureLoss
from graphcl.losses._key_queue import StepDraws
from graphcl.losses.pairs.gates import PairGate
from graphcl.losses.temperature import Temperature

__all__ = ["Hydra"]


class Hydra(TemperatureLoss):
    """Contrast under gates of pairs of classes; see `graphcl.functional.hydra`.

    Args:
        num_classes: of the labels.
        dim: d of the embeddings.
        hidden: width of the gate network.
        temperature: a number or a `Temperature`.
        include_self: where both classes are equal, the anchor is a positive of itself, as released.
        seed: of the partner labels that are drawn.
        reduction: ``mean``, ``sum`` or ``none``.
        memory_budget: upper bound in bytes for a block of pairs.
        generator: draws the initial weights.

    Shapes: ``forward(z (N, d), labels (N,), partner_labels (N,), *, ids (N,))``; partners are by default the labels of
    the batch in another order.

    >>> import torch
    >>> loss = Hydra(3, 4, hidden=8, generator=torch.Generator().manual_seed(0))
    >>> bool(loss(torch.eye(4), torch.tensor([0, 1, 2, 1])).isfinite())
    True
    """

    def __init__(
        self,
        num_classes: int,
        dim: int,
        *,
        hidden: int = 1024,
        temperature: float | Temperature = 0.1,
        include_self: bool = False,
        seed: int = 0,
        reduction: Reduction = "mean",
        memory_budget: int = MEMORY_BUDGET,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(temperature)
        check_reduction(reduction)
        self.gate = PairGate(num_classes, dim, hidden=hidden, generator=generator)
        self.draws = StepDraws(seed)
        self.include_self = include_self
        self.reduction: Reduction = reduction
        self.memory_budget = memory_budget

    def forward(
        self, z: Tensor, labels: Tensor, partner_labels: Tensor | None = None, *, ids: Tensor | None = None
    ) -> Tensor:
        generator = self.draws(z.device)
        if partner_labels is None:
            partner_labels = labels[draw_permutation(labels.shape[0], device=labels.device, generator=generator)]
        return hydra(
            z,
            labels,
            partner_labels,
            self.gate(labels, partner_labels).to(z.dtype),
            include_self=self.include_self,
            ids=ids,
            temperature=self.temperature_of(ids),
            reduction=self.reduction,
            memory_budget=self.memory_budget,
        )
