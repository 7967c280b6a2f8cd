"""Meta-path views as a transform of PyG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch_geometric.data import HeteroData
from torch_geometric.transforms import BaseTransform

from graphcl.graphs.metapath import MetaPathLike, parse_metapath, target_type
from graphcl.graphs.metapath_construction import PerPath, Weights, bounds_of, metapath_adjacency, named_metapaths
from graphcl.graphs.metapath_products import Ties

__all__ = ["AddMetaPathViews"]


class AddMetaPathViews(BaseTransform):  # type: ignore[misc]
    """Adds an edge type ``(target, "metapath_NAME", target)`` for every meta-path, cut to its closest neighbours.

    Like PyG's ``AddMetaPaths``, but bounded: the products are computed by blocks of rows and each row keeps its best
    entries, so neither time nor memory is that of the whole product.

    Args:
        metapaths: chains of edge types, or text such as "PAP"; those in ``graph.metapaths`` when None.
        target: node type at both ends; ``graph.target`` or the one with labels when None.
        k, max_edges: bounds, one of which must be given; see `graphcl.graphs.metapath_adjacency`.
        weights: what ``edge_weight`` carries; ``boolean`` adds none.
        ties: order of equal PathSim.
        seed: of the random order.

    Raises:
        ValueError: no bound.

    >>> graph = HeteroData(target="paper")
    >>> graph["paper"].num_nodes, graph["author"].num_nodes = 2, 1
    >>> graph["paper", "to", "author"].edge_index = torch.tensor([[0, 1], [0, 0]])
    >>> AddMetaPathViews(["PAP"], k=2)(graph)["paper", "metapath_PAP", "paper"].edge_index
    tensor([[0, 1, 0, 1],
            [0, 0, 1, 1]])
    """

    def __init__(
        self,
        metapaths: Sequence[MetaPathLike] | None = None,
        *,
        target: str | None = None,
        k: PerPath = None,
        max_edges: PerPath = None,
        weights: Weights = "count",
        ties: Ties = "random",
        seed: int = 0,
    ) -> None:
        if k is None and max_edges is None:
            raise ValueError("give k or max_edges: a meta-path may connect nearly everybody")
        self.metapaths, self.target = metapaths, target
        self.k, self.max_edges = k, max_edges
        self.weights: Weights = weights
        self.ties: Ties = ties
        self.seed = seed

    def forward(self, data: Any) -> HeteroData:
        """The graph with the new edge types; an edge leads from the neighbour to the node that kept it."""
        target = target_type(data, self.target)
        paths = [parse_metapath(data, path, target=target) for path in named_metapaths(data, self.metapaths)]
        generator = torch.Generator().manual_seed(self.seed)
        for path, (k, max_edges) in zip(paths, bounds_of(paths, self.k, self.max_edges), strict=True):
            view = metapath_adjacency(
                data,
                path,
                k=k,
                max_edges=max_edges,
                weights=self.weights,
                ties=self.ties,
                generator=generator,
            )
            store = data[target, f"metapath_{path.name}", target]
            store.edge_index, weight = view.to_edge_index()
            if weight is not None:
                store.edge_weight = weight
        return data
