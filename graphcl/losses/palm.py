"""PALM as a module that owns its prototypes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphcl.functional.palm import palm
from graphcl.functional.reduction import Reduction, check_reduction
from graphcl.losses.protocol import LossOutput
from graphcl.losses.state import Prototypes

__all__ = ["PALM"]


class PALM(nn.Module):
    """Mixtures of prototypes for every class; see `graphcl.functional.palm`.

    Every call in training mode moves the prototypes.

    Args:
        num_classes: C; prototype p belongs to class ``p % C``.
        dim: d.
        prototypes_per_class: size of a mixture.
        top_k: prototypes of its class a row belongs to; 0 takes all.
        momentum: of the prototypes.
        temperature: of rows against prototypes.
        prototype_temperature: among prototypes.
        prototype_weight: of the contrast among prototypes.
        epsilon: entropy of the codes.
        iterations: of Sinkhorn.
        reduction: ``mean``, ``sum`` or ``none``.
        generator: draws the first prototypes.

    Shapes: ``forward(embeddings (N, d), labels (N,), *, weight (N,), return_components=False)``; stack the views.

    >>> import torch
    >>> loss = PALM(2, 4, generator=torch.Generator().manual_seed(0))
    >>> before = loss.prototypes().clone()
    >>> _ = loss(torch.eye(4), torch.tensor([0, 0, 1, 1]))
    >>> bool((loss.prototypes() != before).any())
    True
    """

    def __init__(
        self,
        num_classes: int,
        dim: int,
        prototypes_per_class: int = 6,
        *,
        top_k: int = 5,
        momentum: float = 0.999,
        temperature: float = 0.1,
        prototype_temperature: float = 0.5,
        prototype_weight: float = 1.0,
        epsilon: float = 0.05,
        iterations: int = 3,
        reduction: Reduction = "mean",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if num_classes < 1 or prototypes_per_class < 1:
            raise ValueError(
                f"num_classes and prototypes_per_class must be at least 1, got {num_classes}, {prototypes_per_class}"
            )
        check_reduction(reduction)
        self.prototypes = Prototypes(
            num_classes * prototypes_per_class, dim, learnable=False, momentum=momentum, generator=generator
        )
        self.num_classes = num_classes
        self.top_k = top_k
        self.temperature = temperature
        self.prototype_temperature = prototype_temperature
        self.prototype_weight = prototype_weight
        self.epsilon = epsilon
        self.iterations = iterations
        self.reduction: Reduction = reduction

    @property
    def prototype_labels(self) -> Tensor:
        """``(P,)`` class of every prototype."""
        weight = self.prototypes.weight
        return torch.arange(weight.shape[0], device=weight.device) % self.num_classes

    def forward(
        self, embeddings: Tensor, labels: Tensor, *, weight: Tensor | None = None, return_components: bool = False
    ) -> LossOutput:
        step = palm(
            embeddings,
            labels,
            self.prototypes.weight.to(embeddings),
            self.prototype_labels,
            top_k=self.top_k,
            momentum=self.prototypes.momentum,
            temperature=self.temperature,
            prototype_temperature=self.prototype_temperature,
            prototype_weight=self.prototype_weight,
            epsilon=self.epsilon,
            iterations=self.iterations,
            weight=weight,
            reduction=self.reduction,
        )
        if self.training:
            with torch.no_grad():
                self.prototypes.weight.copy_(step.prototypes)
        parts = {"mle": step.mle, "prototype_contrast": step.prototype_contrast}
        return (step.loss, parts) if return_components else step.loss

    def extra_repr(self) -> str:
        return f"num_classes={self.num_classes}, top_k={self.top_k}, temperature={self.temperature}"
