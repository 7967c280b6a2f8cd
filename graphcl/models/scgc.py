"""SCGC and SCGC*: neighbours contrasted with all nodes."""

from __future__ import annotations

from typing import ClassVar

from pydantic import NonNegativeFloat
from torch import Tensor

from graphcl.models.base_clustering import ClusteringBatch, ClusteringConfig, ContrastiveClustering

__all__ = ["SCGC", "SCGCConfig", "SCGCStar", "SCGCStarConfig"]


class SCGCStarConfig(ClusteringConfig):
    """Settings of :class:`SCGCStar`: those of `ClusteringConfig`.

    Example:
        >>> SCGCStarConfig(negatives=512).negatives
        512
    """


class SCGCConfig(ClusteringConfig):
    """Settings of :class:`SCGC`: those of `ClusteringConfig`, and the weight of the decoder.

    Args:
        accumulate: plain SCGC takes the last power of the walk alone.
        reconstruction_weight: of the mean squared error of the decoded features.

    Example:
        >>> SCGCConfig().accumulate
        False
    """

    accumulate: bool = False
    reconstruction_weight: NonNegativeFloat = 1.0


class SCGCStar(ContrastiveClustering):
    """SCGC*: influence-weighted neighbours against all nodes, over accumulated influence and without a decoder.

    Paper: G. K. Kulatilleke, M. Portmann, S. S. Chandra, "SCGC: Self-Supervised Contrastive Graph Clustering", 2022,
    https://arxiv.org/abs/2204.12656. See `graphcl.functional.scgc`.
    Deviations: those of `PamC`, and above ``negatives`` nodes the sum over all of them is estimated from a draw (set
    ``negatives`` to the number of nodes for the exact sum, still in linear memory).

    Args:
        num_features, num_clusters, config, generator: see `ContrastiveClustering`.

    Complexity: O(N sum of products of widths + E d + N S d + N K d) time a step for S negatives.

    Example:
        >>> import torch
        >>> SCGCStar(4, 2).encode(torch.ones(3, 4)).shape
        torch.Size([3, 64])
    """

    config_class: ClassVar[type[ClusteringConfig]] = SCGCStarConfig

    def contrast(self, z: Tensor, q: Tensor, batch: ClusteringBatch) -> Tensor:
        """The contrast of the warm-up, at the temperature of the settings."""
        return self.node_contrast(z, batch, self.config.temperature)


class SCGC(SCGCStar):
    """SCGC: SCGC* over the last power of the walk, with a decoder that keeps the features in the embedding.

    Paper: see `SCGCStar`.

    Args:
        num_features, num_clusters, config, generator: see `ContrastiveClustering`.

    Complexity: that of `SCGCStar` and of the decoder.

    Example:
        >>> import torch
        >>> model = SCGC(4, 2)
        >>> model.decoder(model.encode(torch.ones(3, 4))).shape
        torch.Size([3, 4])
    """

    config_class: ClassVar[type[SCGCConfig]] = SCGCConfig
    config: SCGCConfig

    @property
    def reconstruction_weight(self) -> float:
        """Weight of the reconstruction while clustering."""
        return self.config.reconstruction_weight
