"""LightGCN: linear propagation over the user-item graph, ranked pairwise or by softmax."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from graphcl.graphs import BipartiteGraph
from graphcl.models.base_collaborative import CollaborativeConfig, CollaborativeModel, GraphModelConfig
from graphcl.nn import LightGCNConv

__all__ = ["LightGCN", "LightGCNConfig"]


class LightGCNConfig(GraphModelConfig):
    """Settings of :class:`LightGCN`.

    Example:
        >>> LightGCNConfig().layers
        3
    """


class LightGCN(CollaborativeModel):
    r"""LightGCN: embeddings are the mean over propagation layers.

    Paper: He et al., "LightGCN: Simplifying and Powering Graph Convolution Network for Recommendation", 2020,
    https://arxiv.org/abs/2002.02126.

    .. math:: E^{(l+1)} = D^{-1/2} A D^{-1/2} E^{(l)}, \quad E = \frac{1}{L+1} \sum_{l=0}^L E^{(l)}, \quad
        L = -\frac{1}{B} \sum_b \log \sigma(u \cdot p - u \cdot n)
        + \frac{\lambda}{2B} \sum_b (|u^{(0)}|^2 + |p^{(0)}|^2 + |n^{(0)}|^2)

    Args:
        graph: training interactions.
        config: settings; the defaults when None.
        generator: source of the initial weights.

    Complexity: a step takes O(L E d + B d) time and O((U + I) d) memory beside the graph.

    Example:
        >>> graph = BipartiteGraph.from_arrays([0, 0, 1], [0, 1, 1])
        >>> model = LightGCN(graph, LightGCNConfig(hidden=4))
        >>> users, items = model()
        >>> (users @ items.T).shape
        torch.Size([2, 2])
    """

    config_class: ClassVar[type[CollaborativeConfig]] = LightGCNConfig

    def __init__(self, graph: BipartiteGraph, config: Any = None, *, generator: torch.Generator | None = None) -> None:
        super().__init__(graph, config, generator=generator)
        self.convolution = LightGCNConv(
            self.config.layers, reduce=self.config.reduce, include_ego=self.config.include_ego
        )

    def forward(self) -> tuple[Tensor, Tensor]:
        """Propagated user and item embeddings."""
        return self.split(self.convolution(self.embedding, self.operator()))
