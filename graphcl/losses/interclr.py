"""InterCLR as a module that owns a memory of all samples and their clusters."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from graphcl.functional.interclr import (
    Hardness,
    interclr,
    sample_cluster_negatives,
    sample_cluster_positives,
)
from graphcl.kernels import normalize_rows, pair_topk, scatter_mean
from graphcl.losses._base import LossOptions, TemperatureLoss, checked
from graphcl.losses.state import ClusterState
from graphcl.losses.temperature import Temperature

__all__ = ["InterCLR"]


class InterCLR(TemperatureLoss):
    """Contrast with cluster mates from a memory; see `graphcl.functional.interclr`.

    Until `refresh` has run once no sample has a cluster and the loss is 0: the warm-up of the paper. Afterwards every
    call in training mode writes the queries into the memory, assigns them to their nearest centroids, and every
    ``centroid_every`` calls recomputes the centroids (see `recompute_centroids`).

    Args:
        num_samples: n of the data set.
        num_clusters: K.
        dim: d.
        temperature: a number or a `Temperature`.
        margin: of the positive.
        num_negatives: rows drawn a query.
        pool: rows drawn from.
        hardness: see `graphcl.functional.sample_cluster_negatives`.
        momentum: share of the new row in the memory; 1 overwrites.
        centroid_every: calls between recomputations.
        min_cluster_size: smaller clusters are dissolved.
        seed: of k-means.
        options: ``reduction``, ``memory_budget``, ``backend``.

    Shapes: ``forward(queries (B, d), ids (B,), *, weight (B,), generator)``, ids in ``0 .. n - 1``.

    >>> import torch
    >>> loss = InterCLR(4, 2, 2, num_negatives=2, pool=2, min_cluster_size=1)
    >>> z = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    >>> float(loss(z, torch.arange(4)))
    0.0
    >>> loss.refresh(epoch=0)
    >>> bool(loss(z, torch.arange(4)) > 0)
    True
    """

    def __init__(
        self,
        num_samples: int,
        num_clusters: int,
        dim: int,
        *,
        temperature: float | Temperature = 0.2,
        margin: float = -0.5,
        num_negatives: int = 16384,
        pool: int = 128000,
        hardness: Hardness = "semi-hard",
        momentum: float = 1.0,
        centroid_every: int = 10,
        min_cluster_size: int = 20,
        seed: int = 0,
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(temperature)
        if not 0.0 < momentum <= 1.0:
            raise ValueError(f"momentum must lie in (0, 1], got {momentum}")
        if centroid_every < 1:
            raise ValueError(f"centroid_every must be at least 1, got {centroid_every}")
        self.margin = margin
        self.num_negatives = num_negatives
        self.pool = pool
        self.hardness: Hardness = hardness
        self.momentum = momentum
        self.centroid_every = centroid_every
        self.min_cluster_size = min_cluster_size
        self.options = checked(options)
        self.clusters = ClusterState(num_samples, num_clusters, dim, seed=seed)
        self.memory: Tensor
        self.written: Tensor
        self.step: Tensor
        self.register_buffer("memory", torch.zeros(num_samples, dim))
        self.register_buffer("written", torch.zeros(num_samples, dtype=torch.bool))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(
        self,
        queries: Tensor,
        ids: Tensor,
        *,
        weight: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        known = self.written.nonzero().squeeze(1)
        assigned = self.clusters.assignments
        places = ids.long().to(assigned.device)
        positives = sample_cluster_positives(torch.where(self.written, assigned, -1), places, generator=generator)
        memory = self.memory.to(queries)
        if int(self.clusters.last_refresh) < 0:
            negatives = places.new_full((places.shape[0], 1), -1)
        else:
            found = sample_cluster_negatives(
                queries.detach(),
                memory[known],
                assigned[known],
                assigned[places],
                self.num_negatives,
                pool=self.pool,
                hardness=self.hardness,
                generator=generator,
            )
            negatives = torch.where(found >= 0, known[found.clamp(min=0)], found)
        loss = interclr(
            queries,
            memory,
            positives,
            negatives,
            margin=self.margin,
            temperature=self.temperature_of(ids),
            weight=weight,
            **self.options,
        )
        if self.training:
            self._remember(queries.detach(), places)
        return loss

    @torch.no_grad()
    def refresh(self, epoch: int) -> None:
        """Cluster the whole memory with k-means."""
        self.clusters.refresh(self.memory, epoch)

    @torch.no_grad()
    def recompute_centroids(self) -> None:
        """Means of the clusters. Members of a cluster that is too small go to their next centroid, and the largest
        cluster is split in two to make up for it."""
        assigned, centroids = self.clusters.assignments.clone(), self.clusters.centroids.clone()
        members = self.written & (assigned >= 0)
        rows, owner = self.memory[members], assigned[members]
        num_clusters = centroids.shape[0]
        sizes = torch.bincount(owner, minlength=num_clusters)
        centroids = torch.where(sizes[:, None] > 0, scatter_mean(rows, owner, num_clusters), centroids)
        small = (sizes < self.min_cluster_size).nonzero().squeeze(1)
        large = (sizes >= self.min_cluster_size).nonzero().squeeze(1)
        if 0 < small.numel() < num_clusters:
            lost = torch.isin(owner, small)
            if bool(lost.any()):
                nearest = pair_topk(rows[lost], centroids[large], 1, similarity="sqeuclidean").indices[:, 0]
                owner[lost] = large[nearest]
            for empty in small.tolist():
                biggest = int(torch.bincount(owner, minlength=num_clusters).argmax())
                inside = (owner == biggest).nonzero().squeeze(1)
                moved = _second_half(rows[inside])
                if bool(moved.any()):
                    owner[inside[moved]] = empty
                    centroids[empty] = rows[inside[moved]].mean(dim=0)
                    centroids[biggest] = rows[inside[~moved]].mean(dim=0)
        assigned[members] = owner
        self.clusters.set(assigned, centroids, int(self.clusters.last_refresh))

    @torch.no_grad()
    def _remember(self, rows: Tensor, places: Tensor) -> None:
        new = normalize_rows(rows).to(self.memory)
        self.memory[places] = normalize_rows((1.0 - self.momentum) * self.memory[places] + self.momentum * new)
        self.written[places] = True
        if int(self.clusters.last_refresh) < 0:
            return
        self.clusters.assignments[places] = self.clusters.assign(self.memory[places])
        self.step += 1
        if int(self.step) % self.centroid_every == 0:
            self.recompute_centroids()

    def extra_repr(self) -> str:
        return f"margin={self.margin}, num_negatives={self.num_negatives}, pool={self.pool}, hardness={self.hardness}"


def _second_half(rows: Tensor, iterations: int = 10) -> Tensor:
    """Which rows go to the second of two clusters; starts from two far apart rows, so it needs no random numbers."""
    first = rows[((rows - rows.mean(dim=0)) ** 2).sum(dim=1).argmax()]
    second = rows[((rows - first) ** 2).sum(dim=1).argmax()]
    moved = torch.zeros(rows.shape[0], dtype=torch.bool, device=rows.device)
    for _ in range(iterations):
        following = ((rows - second) ** 2).sum(dim=1) < ((rows - first) ** 2).sum(dim=1)
        if torch.equal(following, moved) or not bool(following.any()):
            break
        moved = following
        first, second = rows[~moved].mean(dim=0), rows[moved].mean(dim=0)
    return moved
