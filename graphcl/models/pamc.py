"""PamC: clusters contrasted with clusters instead of nodes with nodes."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from graphcl.functional import pamc
from graphcl.models.base_clustering import ClusteringBatch, ClusteringConfig, ContrastiveClustering

__all__ = ["PamC", "PamCConfig"]


class PamCConfig(ClusteringConfig):
    """Settings of :class:`PamC`: those of `ClusteringConfig`, and how meta-nodes are made.

    Args:
        meta_nodes: sums of the rows of a cluster (``hard``, the released code) or of all rows by membership (``soft``,
            the abstract of the paper).
        detach_meta_nodes: no gradient through them: clusters repel nothing, and only neighbours attract.

    Example:
        >>> PamCConfig(meta_nodes="soft").order
        2
    """

    meta_nodes: Literal["hard", "soft"] = "hard"
    detach_meta_nodes: bool = False


class PamC(ContrastiveClustering):
    """Meta-nodes of clusters repel each other and influence-weighted neighbours attract, linear in nodes and edges.

    Paper: G. K. Kulatilleke, M. Portmann, S. S. Chandra, "Efficient block contrastive learning via parameter-free
    meta-node approximation", 2022, https://arxiv.org/abs/2209.14067. See `graphcl.functional.pamc`.
    Deviations: empty clusters are left out (the released code turns into NaN), the start is a contrastive warm-up
    instead of pretrained autoencoders, and the defaults differ; those of the paper are
    ``encoder="mlp", widths=(500, 500, 2000, 10), features="none", radius=None, warmup="autoencoder"``.

    Args:
        num_features, num_clusters, config, generator: see `ContrastiveClustering`.

    Complexity: O(N sum of products of widths + E d + N K d) time a step, where E counts the influence entries.

    Example:
        >>> import torch
        >>> from graphcl.kernels import SparseMatrix
        >>> path = SparseMatrix.from_edge_index(torch.tensor([[0, 1], [1, 0]]), num_nodes=3)
        >>> model = PamC(4, 2)
        >>> z, q = model(model.prepare_features(torch.ones(3, 4), path))
        >>> z.shape, q.shape
        (torch.Size([3, 64]), torch.Size([3, 2]))
    """

    config_class: ClassVar[type[PamCConfig]] = PamCConfig
    config: PamCConfig

    def contrast(self, z: Tensor, q: Tensor, batch: ClusteringBatch) -> Tensor:
        """`graphcl.functional.pamc` with the clusters of the anchors."""
        loss = pamc(
            z,
            q if self.config.meta_nodes == "soft" else q.argmax(dim=1),
            batch.influence,
            num_clusters=self.num_clusters,
            num_anchors=batch.num_anchors,
            detach_meta_nodes=self.config.detach_meta_nodes,
            temperature=self.config.temperature,
        )
        return loss if isinstance(loss, Tensor) else loss[0]
