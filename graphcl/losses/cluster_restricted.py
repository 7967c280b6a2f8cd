"""Cluster-restricted InfoNCE as a module that remembers the clusters of all stages."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from graphcl.functional.cluster_restricted import cluster_restricted_info_nce, compose_stages
from graphcl.kernels._arguments import check_indices
from graphcl.losses._base import LossOptions, TemperatureLoss, checked
from graphcl.losses.temperature import Temperature

__all__ = ["ClusterRestrictedInfoNCE"]


class ClusterRestrictedInfoNCE(TemperatureLoss):
    """InfoNCE with negatives from the anchor's cluster; see `graphcl.functional.cluster_restricted_info_nce`.

    Before the first `add_stage` it is plain InfoNCE.

    Args:
        num_samples: n of the data set.
        num_stages: most stages that will be added.
        num_clusters: K of every stage.
        temperature: a number or a `Temperature`.
        min_negatives: an anchor with fewer takes its parent's.
        symmetric: average both directions.
        options: ``reduction``, ``memory_budget``, ``backend``.

    Shapes: ``forward(z1 (N, d), z2 (N, d), ids (N,), *, keys (C, d), key_ids (C,), weight (N,))``, ids in
    ``0 .. n - 1``; samples of one id are never negatives of each other. Keys have the clusters of the samples that
    ``key_ids`` name.

    >>> import torch
    >>> loss = ClusterRestrictedInfoNCE(3, 1, temperature=1.0, min_negatives=0)
    >>> loss.add_stage(torch.tensor([0, 0, 1]))
    >>> loss(torch.eye(3), torch.eye(3), torch.arange(3))
    tensor(0.2088)
    """

    def __init__(
        self,
        num_samples: int,
        num_stages: int,
        *,
        num_clusters: int = 10,
        temperature: float | Temperature = 0.1,
        min_negatives: int = 2,
        symmetric: bool = False,
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(temperature)
        if num_samples < 1 or num_stages < 1 or num_clusters < 1:
            raise ValueError(
                "num_samples, num_stages and num_clusters must be at least 1, "
                f"got {num_samples}, {num_stages}, {num_clusters}"
            )
        self.num_clusters = num_clusters
        self.min_negatives = min_negatives
        self.symmetric = symmetric
        self.options = checked(options)
        self.stages: Tensor
        self.stage: Tensor
        # Stages to come hold one cluster for all, which restricts nothing.
        self.register_buffer("stages", torch.zeros(num_stages, num_samples, dtype=torch.int64))
        self.register_buffer("stage", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def add_stage(self, clusters: Tensor) -> None:
        """Take the ``(n,)`` clusters of the embeddings of the stage that ends."""
        stage = int(self.stage)
        if stage == self.stages.shape[0]:
            raise ValueError(f"all {stage} stages are there already")
        if clusters.shape != self.stages.shape[1:]:
            raise ValueError(f"clusters must have shape {tuple(self.stages.shape[1:])}, got {tuple(clusters.shape)}")
        compose_stages([clusters], self.num_clusters)  # refuses clusters out of range
        self.stages[stage] = clusters
        self.stage += 1

    @property
    def pseudo_labels(self) -> Tensor:
        """``(n,)`` pseudo-labels from the stages so far, to draw batches inside one of them."""
        return compose_stages(list(self.stages), self.num_clusters)

    def forward(
        self,
        z1: Tensor,
        z2: Tensor,
        ids: Tensor,
        *,
        keys: Tensor | None = None,
        key_ids: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        if keys is not None and key_ids is None:
            raise ValueError("keys need key_ids, the samples whose clusters they have, got None")
        return cluster_restricted_info_nce(
            z1,
            z2,
            self._clusters_of("ids", ids, z1),
            keys=keys,
            key_clusters=None if keys is None or key_ids is None else self._clusters_of("key_ids", key_ids, keys),
            ids=ids,
            key_ids=key_ids,
            min_negatives=self.min_negatives,
            temperature=self.temperature_of(ids),
            symmetric=self.symmetric,
            weight=weight,
            **self.options,
        )

    def _clusters_of(self, name: str, ids: Tensor, rows: Tensor) -> Tensor:
        """``(T, rows)`` clusters of the samples."""
        check_indices(name, ids, rows.shape[0], self.stages.shape[1], check=True)
        return self.stages[:, ids.to(self.stages.device)].to(rows.device)

    def extra_repr(self) -> str:
        return f"min_negatives={self.min_negatives}, symmetric={self.symmetric}"
