"""Block and meta-node forms of InfoNCE, and the exact form over all nodes, as modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Unpack

from torch import Tensor, nn

from graphcl.functional.block import BlockCorrection, block_info_nce, pamc
from graphcl.functional.scgc import scgc
from graphcl.kernels import Similarity
from graphcl.losses._base import EngineOptions, LossOptions, TemperatureLoss, checked
from graphcl.losses.layout import Layout, Pairs
from graphcl.losses.protocol import LossOutput
from graphcl.losses.temperature import Temperature

__all__ = ["SCGC", "BlockInfoNCE", "PamC"]


class BlockInfoNCE(TemperatureLoss):
    """InfoNCE against clusters instead of rows; see `graphcl.functional.block_info_nce`.

    Args:
        temperature: a number or a `Temperature`; with one for every sample, ``forward`` needs ``ids``.
        correction: ``none``, ``diagonal`` or ``full`` second order.
        detach_clusters: no gradient through the clusters.
        similarity: ``cosine``, ``dot`` or ``sqeuclidean``.
        symmetric: average both directions.
        options: ``reduction``, ``memory_budget``, ``backend``.

    Shapes: ``forward(anchors (N, d), positives (N, d), assignment (C,) or (C, K), *, keys (C, d), num_clusters,
    ids (N,), key_ids (C,), weight (N,))``.

    >>> import torch
    >>> BlockInfoNCE(temperature=1.0)(torch.eye(3), torch.eye(3), torch.arange(3))
    tensor(0.5514)
    """

    def __init__(
        self,
        temperature: float | Temperature = 0.1,
        *,
        correction: BlockCorrection = "none",
        detach_clusters: bool = False,
        similarity: Similarity = "cosine",
        symmetric: bool = False,
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(temperature)
        self.correction: BlockCorrection = correction
        self.detach_clusters = detach_clusters
        self.similarity: Similarity = similarity
        self.symmetric = symmetric
        self.options = checked(options)

    def forward(
        self,
        anchors: Tensor,
        positives: Tensor,
        assignment: Tensor,
        *,
        keys: Tensor | None = None,
        num_clusters: int | None = None,
        ids: Tensor | None = None,
        key_ids: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        return block_info_nce(
            anchors,
            positives,
            assignment,
            keys=keys,
            num_clusters=num_clusters,
            correction=self.correction,
            detach_clusters=self.detach_clusters,
            ids=ids,
            key_ids=key_ids,
            weight=weight,
            temperature=self.temperature_of(ids),
            similarity=self.similarity,
            symmetric=self.symmetric,
            **self.options,
        )


class PamC(nn.Module):
    """Meta-nodes that repel, neighbours that attract; see `graphcl.functional.pamc`.

    Args:
        temperature: positive number.
        num_clusters: K, where not every cluster need occur in the ids.
        detach_meta_nodes: no gradient through the meta-nodes.
        return_components: also return the parts.
        options: ``memory_budget``, ``backend``.

    Shapes: ``forward(z (N, d), assignment (N,) or (N, K), edge_index (2, E), edge_weight (E,))``.

    >>> import torch
    >>> PamC()(torch.eye(2), torch.tensor([0, 1]), torch.tensor([[0, 1], [0, 1]]))
    tensor(0.6931)
    """

    argument_layout: ClassVar[Mapping[str, Layout]] = {"edge_index": Pairs("z", "z")}

    def __init__(
        self,
        temperature: float = 1.0,
        *,
        num_clusters: int | None = None,
        detach_meta_nodes: bool = False,
        return_components: bool = False,
        **options: Unpack[EngineOptions],
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.num_clusters = num_clusters
        self.detach_meta_nodes = detach_meta_nodes
        self.return_components = return_components
        self.options = options

    def forward(
        self, z: Tensor, assignment: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None
    ) -> LossOutput:
        return pamc(
            z,
            assignment,
            edge_index,
            edge_weight=edge_weight,
            num_clusters=self.num_clusters,
            detach_meta_nodes=self.detach_meta_nodes,
            temperature=self.temperature,
            return_components=self.return_components,
            **self.options,
        )


class SCGC(nn.Module):
    """Influence-weighted neighbours against all nodes; see `graphcl.functional.scgc`.

    Args:
        temperature: positive number.
        floor: added to the ratio inside the logarithm.
        options: ``reduction``, ``memory_budget``, ``backend``.

    Shapes: ``forward(z (N, d), edge_index (2, E), edge_weight (E,))``.

    >>> import torch
    >>> SCGC()(torch.eye(2), torch.tensor([[0, 1], [0, 1]]))
    tensor(0.6931)
    """

    argument_layout: ClassVar[Mapping[str, Layout]] = {"edge_index": Pairs("z", "z")}

    def __init__(self, temperature: float = 1.0, *, floor: float = 1e-8, **options: Unpack[LossOptions]) -> None:
        super().__init__()
        self.temperature = temperature
        self.floor = floor
        self.options = checked(options)

    def forward(self, z: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        return scgc(
            z, edge_index, edge_weight=edge_weight, temperature=self.temperature, floor=self.floor, **self.options
        )
