"""Subclass-balancing contrast as a module that remembers the sub-clusters of all samples."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor, nn

from graphcl.functional.sbcl import sbcl, sbcl_class_temperature, sbcl_subclusters
from graphcl.losses._base import LossOptions, checked
from graphcl.losses.protocol import LossOutput

__all__ = ["SBCL"]


class SBCL(nn.Module):
    """Subclass-balancing contrast; see `graphcl.functional.sbcl`.

    Before the first `refresh` every class is one sub-cluster, which is supervised contrast: the warm-up of the paper.

    Args:
        num_samples: n of the data set.
        num_classes: C.
        ranked: takes temperatures of the classes and the ranked form.
        temperature: tau.
        base_temperature: tau_b.
        gamma: weight of the class term.
        min_size: least size a sub-cluster is meant to have.
        options: ``reduction``, ``memory_budget``, ``backend``.

    Shapes: ``forward(z1 (N, d), z2 (N, d), labels (N,), ids (N,), *, weight (N,), return_components=False)``, ids in
    ``0 .. n - 1``.

    >>> import torch
    >>> loss = SBCL(4, 2, min_size=1)
    >>> loss.refresh(torch.eye(4), torch.tensor([0, 0, 0, 1]))
    >>> loss.clusters.unique().numel()
    4
    """

    def __init__(
        self,
        num_samples: int,
        num_classes: int,
        *,
        ranked: bool = False,
        temperature: float = 0.1,
        base_temperature: float = 0.07,
        gamma: float = 0.25,
        min_size: int = 10,
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__()
        if num_samples < 1 or num_classes < 1:
            raise ValueError(f"num_samples and num_classes must be at least 1, got {num_samples} and {num_classes}")
        self.ranked = ranked
        self.temperature = temperature
        self.base_temperature = base_temperature
        self.gamma = gamma
        self.min_size = min_size
        self.options = checked(options)
        self.clusters: Tensor
        self.class_temperature: Tensor
        self.register_buffer("clusters", torch.full((num_samples,), -1, dtype=torch.int64))
        self.register_buffer("class_temperature", torch.full((num_classes,), temperature))

    @torch.no_grad()
    def refresh(self, embeddings: Tensor, labels: Tensor, *, generator: torch.Generator | None = None) -> None:
        """Cluster all ``(n, d)`` embeddings anew (every ten epochs, say)."""
        if embeddings.shape[0] != self.clusters.shape[0]:
            raise ValueError(f"embeddings must have {self.clusters.shape[0]} rows, got {embeddings.shape[0]}")
        clusters = sbcl_subclusters(embeddings, labels, min_size=self.min_size, generator=generator)
        self.clusters.copy_(clusters)
        self.class_temperature.copy_(
            sbcl_class_temperature(
                embeddings, labels, clusters, self.class_temperature.shape[0], temperature=self.temperature
            )
        )

    def forward(
        self,
        z1: Tensor,
        z2: Tensor,
        labels: Tensor,
        ids: Tensor,
        *,
        weight: Tensor | None = None,
        return_components: bool = False,
    ) -> LossOutput:
        clusters = self.clusters[ids.to(self.clusters.device)].to(labels.device)
        # A class without sub-clusters is one of its own; negative numbers keep clear of the real ones.
        clusters = torch.where(clusters < 0, -1 - labels.long(), clusters)
        return sbcl(
            z1,
            z2,
            labels,
            clusters,
            class_temperature=self.class_temperature.to(z1.device) if self.ranked else None,
            temperature=self.temperature,
            base_temperature=self.base_temperature,
            gamma=self.gamma,
            weight=weight,
            return_components=return_components,
            **self.options,
        )

    def extra_repr(self) -> str:
        return f"ranked={self.ranked}, temperature={self.temperature}, gamma={self.gamma}, min_size={self.min_size}"
