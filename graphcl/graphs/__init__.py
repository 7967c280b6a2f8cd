"""Graphs: nearest-neighbour graphs, conversion from and to the formats of the field."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphcl.graphs.bipartite import BipartiteGraph, stack_bipartite
    from graphcl.graphs.conversion import adjacency, as_data, encode_labels
    from graphcl.graphs.diffusion import heat_diffusion, ppr_diffusion, ppr_topk
    from graphcl.graphs.heterogeneous_conversion import as_hetero_data, there_and_back
    from graphcl.graphs.hypergraph import Hypergraph, concatenate_hypergraphs
    from graphcl.graphs.hypergraph_builders import (
        attribute_hypergraph,
        community_hypergraph,
        items_sharing_users,
        khop_hypergraph,
        knn_hypergraph,
        membership_hypergraph,
        mmhcl_item_hypergraph,
        session_hypergraph,
        users_sharing_items,
    )
    from graphcl.graphs.influence import influence_matrix
    from graphcl.graphs.knn import Neighbours, knn_graph, nearest_neighbours
    from graphcl.graphs.operators import BipartiteOperator, PropagationOperator, keep_entries
    from graphcl.graphs.smoothing import smooth_features

# Public name -> the file that holds it, imported when the name is first asked for.
_LAZY = {
    "BipartiteGraph": "graphcl.graphs.bipartite",
    "BipartiteOperator": "graphcl.graphs.operators",
    "Hypergraph": "graphcl.graphs.hypergraph",
    "Neighbours": "graphcl.graphs.knn",
    "PropagationOperator": "graphcl.graphs.operators",
    "adjacency": "graphcl.graphs.conversion",
    "as_data": "graphcl.graphs.conversion",
    "as_hetero_data": "graphcl.graphs.heterogeneous_conversion",
    "attribute_hypergraph": "graphcl.graphs.hypergraph_builders",
    "community_hypergraph": "graphcl.graphs.hypergraph_builders",
    "concatenate_hypergraphs": "graphcl.graphs.hypergraph",
    "encode_labels": "graphcl.graphs.conversion",
    "heat_diffusion": "graphcl.graphs.diffusion",
    "influence_matrix": "graphcl.graphs.influence",
    "items_sharing_users": "graphcl.graphs.hypergraph_builders",
    "keep_entries": "graphcl.graphs.operators",
    "khop_hypergraph": "graphcl.graphs.hypergraph_builders",
    "knn_graph": "graphcl.graphs.knn",
    "knn_hypergraph": "graphcl.graphs.hypergraph_builders",
    "membership_hypergraph": "graphcl.graphs.hypergraph_builders",
    "mmhcl_item_hypergraph": "graphcl.graphs.hypergraph_builders",
    "nearest_neighbours": "graphcl.graphs.knn",
    "ppr_diffusion": "graphcl.graphs.diffusion",
    "ppr_topk": "graphcl.graphs.diffusion",
    "session_hypergraph": "graphcl.graphs.hypergraph_builders",
    "smooth_features": "graphcl.graphs.smoothing",
    "stack_bipartite": "graphcl.graphs.bipartite",
    "there_and_back": "graphcl.graphs.heterogeneous_conversion",
    "users_sharing_items": "graphcl.graphs.hypergraph_builders",
}

__all__ = [
    "BipartiteGraph",
    "BipartiteOperator",
    "Hypergraph",
    "Neighbours",
    "PropagationOperator",
    "adjacency",
    "as_data",
    "as_hetero_data",
    "attribute_hypergraph",
    "community_hypergraph",
    "concatenate_hypergraphs",
    "encode_labels",
    "heat_diffusion",
    "influence_matrix",
    "items_sharing_users",
    "keep_entries",
    "khop_hypergraph",
    "knn_graph",
    "knn_hypergraph",
    "membership_hypergraph",
    "mmhcl_item_hypergraph",
    "nearest_neighbours",
    "ppr_diffusion",
    "ppr_topk",
    "session_hypergraph",
    "smooth_features",
    "stack_bipartite",
    "there_and_back",
    "users_sharing_items",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'graphcl.graphs' has no attribute {name!r}")
