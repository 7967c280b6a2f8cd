"""Negatives from the anchor's own cluster of earlier stages: labels, rule and batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from graphcl.functional.cluster_restricted import compose_stages
from graphcl.kernels import EqualIds

__all__ = ["StageClusters"]


class StageClusters(nn.Module):
    """Pseudo-labels of the samples of a data set, composed of the clusters of the stages so far.

    J. Zhang et al., "Learning the Unlearned: Mitigating Feature Suppression in Contrastive Learning", 2024,
    https://arxiv.org/abs/2402.11816. Confidence: C. Train a stage with batches from `batches`, or with the labels in
    `graphcl.functional.cluster_restricted_info_nce`; cluster its embeddings; add the clusters; train the next stage on
    the residual. The representation is the concatenation of all stages.

    Args:
        num_samples: n.
        num_clusters: K of a stage.
        max_stages: how many stages may be added.
        min_size: a label with fewer samples falls back to the label of the stage before.

    Raises:
        ValueError, IndexError: sizes below 1, clusters out of range, or too many stages.

    Complexity: O(n max_stages) memory.

    >>> import torch
    >>> state = StageClusters(4, num_clusters=2, max_stages=2)
    >>> state.add(torch.tensor([0, 0, 1, 1]))
    >>> state.add(torch.tensor([0, 0, 0, 1]))
    >>> state.labels()
    tensor([0, 0, 1, 1])
    """

    def __init__(self, num_samples: int, *, num_clusters: int = 10, max_stages: int = 4, min_size: int = 2) -> None:
        super().__init__()
        if min(num_samples, num_clusters, max_stages, min_size) < 1:
            raise ValueError(
                f"sizes must be at least 1, got {num_samples}, {num_clusters}, {max_stages} and {min_size}"
            )
        self.num_clusters = num_clusters
        self.min_size = min_size
        self.stages: Tensor
        self.num_stages: Tensor
        self.register_buffer("stages", torch.zeros(max_stages, num_samples, dtype=torch.int64))
        self.register_buffer("num_stages", torch.zeros((), dtype=torch.int64))

    def add(self, clusters: Tensor) -> None:
        """Append the ``(n,)`` clusters of the stage that was trained last."""
        position = int(self.num_stages)
        if position == self.stages.shape[0]:
            raise ValueError(f"only {position} stages are kept (max_stages)")
        compose_stages([clusters], self.num_clusters)
        if clusters.shape != self.stages.shape[1:]:
            raise ValueError(f"clusters must have shape {tuple(self.stages.shape[1:])}, got {tuple(clusters.shape)}")
        self.stages[position] = clusters.to(self.stages)
        self.num_stages += 1

    def labels(self) -> Tensor:
        """``(n,)`` labels ``0, 1, ...``; one label before the first stage.

        A sample takes the finest label that has ``min_size`` samples; within a label that is split, those that fell
        back share one label.
        """
        num = self.stages.shape[1]
        label = torch.zeros(num, dtype=torch.int64, device=self.stages.device)
        for stage in self.stages[: int(self.num_stages)]:
            # Column 1 of a fallen-back sample is -1, so it meets its like only.
            finer = torch.unique(torch.stack([label, stage], dim=1), dim=0, return_inverse=True)[1]
            enough = torch.bincount(finer)[finer] >= self.min_size
            kept = torch.where(enough, stage, torch.full_like(stage, -1))
            label = torch.unique(torch.stack([label, kept], dim=1), dim=0, return_inverse=True)[1]
        return label

    def rule(self, ids: Tensor) -> EqualIds:
        """Rule that keeps candidates of the anchor's label, for a batch of samples ``ids`` ``(N,)`` against itself."""
        labels = self.labels()[ids.to(self.stages.device)].to(ids.device)
        return EqualIds(labels, labels)

    def batches(self, size: int, *, generator: torch.Generator | None = None) -> Iterator[Tensor]:
        """Shuffled batches of ids, each of ``size`` samples of one label; samples that do not fill one are left out."""
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        order = torch.randperm(self.stages.shape[1], generator=generator, device=self.stages.device)
        labels = self.labels()[order]
        order = order[torch.argsort(labels, stable=True)]
        filled: Sequence[Tensor] = [
            batch
            for group in torch.split(order, torch.bincount(labels).tolist())
            for batch in torch.split(group, size)
            if batch.shape[0] == size
        ]
        for position in torch.randperm(len(filled), generator=generator, device=self.stages.device).tolist():
            yield filled[position]

    def extra_repr(self) -> str:
        return f"num_clusters={self.num_clusters}, stages={int(self.num_stages)}, min_size={self.min_size}"
