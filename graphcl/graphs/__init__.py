"""Graphs: nearest-neighbour graphs, conversion from and to the formats of the field."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphcl.graphs.bipartite import BipartiteGraph, stack_bipartite
    from graphcl.graphs.completion import link_sparse_nodes
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
    from graphcl.graphs.metapath import Hop, MetaPath, parse_metapath
    from graphcl.graphs.metapath_construction import (
        Context,
        MetaPathView,
        coarse_adjacency,
        masked_adjacency,
        metapath_adjacency,
        metapath_contexts,
        metapath_views,
        normalize_transposed,
        pathsim_neighbours,
    )
    from graphcl.graphs.metapath_positive_pairs import metapath_positives
    from graphcl.graphs.metapath_ranking import MetaPathScore, enumerate_metapaths, rank_metapaths
    from graphcl.graphs.metapath_transform import AddMetaPathViews
    from graphcl.graphs.operators import BipartiteOperator, PropagationOperator, keep_entries
    from graphcl.graphs.sampling import draw_neighbours, sampled_rows, take_rows
    from graphcl.graphs.smoothing import smooth_features

# Public name -> the file that holds it, imported when the name is first asked for.
_LAZY = {
    "AddMetaPathViews": "graphcl.graphs.metapath_transform",
    "BipartiteGraph": "graphcl.graphs.bipartite",
    "BipartiteOperator": "graphcl.graphs.operators",
    "Context": "graphcl.graphs.metapath_construction",
    "Hop": "graphcl.graphs.metapath",
    "Hypergraph": "graphcl.graphs.hypergraph",
    "MetaPath": "graphcl.graphs.metapath",
    "MetaPathScore": "graphcl.graphs.metapath_ranking",
    "MetaPathView": "graphcl.graphs.metapath_construction",
    "Neighbours": "graphcl.graphs.knn",
    "PropagationOperator": "graphcl.graphs.operators",
    "adjacency": "graphcl.graphs.conversion",
    "as_data": "graphcl.graphs.conversion",
    "as_hetero_data": "graphcl.graphs.heterogeneous_conversion",
    "attribute_hypergraph": "graphcl.graphs.hypergraph_builders",
    "coarse_adjacency": "graphcl.graphs.metapath_construction",
    "community_hypergraph": "graphcl.graphs.hypergraph_builders",
    "concatenate_hypergraphs": "graphcl.graphs.hypergraph",
    "draw_neighbours": "graphcl.graphs.sampling",
    "encode_labels": "graphcl.graphs.conversion",
    "enumerate_metapaths": "graphcl.graphs.metapath_ranking",
    "heat_diffusion": "graphcl.graphs.diffusion",
    "influence_matrix": "graphcl.graphs.influence",
    "items_sharing_users": "graphcl.graphs.hypergraph_builders",
    "keep_entries": "graphcl.graphs.operators",
    "khop_hypergraph": "graphcl.graphs.hypergraph_builders",
    "knn_graph": "graphcl.graphs.knn",
    "knn_hypergraph": "graphcl.graphs.hypergraph_builders",
    "link_sparse_nodes": "graphcl.graphs.completion",
    "masked_adjacency": "graphcl.graphs.metapath_construction",
    "membership_hypergraph": "graphcl.graphs.hypergraph_builders",
    "metapath_adjacency": "graphcl.graphs.metapath_construction",
    "metapath_contexts": "graphcl.graphs.metapath_construction",
    "metapath_positives": "graphcl.graphs.metapath_positive_pairs",
    "metapath_views": "graphcl.graphs.metapath_construction",
    "mmhcl_item_hypergraph": "graphcl.graphs.hypergraph_builders",
    "nearest_neighbours": "graphcl.graphs.knn",
    "normalize_transposed": "graphcl.graphs.metapath_construction",
    "parse_metapath": "graphcl.graphs.metapath",
    "pathsim_neighbours": "graphcl.graphs.metapath_construction",
    "ppr_diffusion": "graphcl.graphs.diffusion",
    "ppr_topk": "graphcl.graphs.diffusion",
    "rank_metapaths": "graphcl.graphs.metapath_ranking",
    "sampled_rows": "graphcl.graphs.sampling",
    "session_hypergraph": "graphcl.graphs.hypergraph_builders",
    "smooth_features": "graphcl.graphs.smoothing",
    "stack_bipartite": "graphcl.graphs.bipartite",
    "take_rows": "graphcl.graphs.sampling",
    "there_and_back": "graphcl.graphs.heterogeneous_conversion",
    "users_sharing_items": "graphcl.graphs.hypergraph_builders",
}

__all__ = [
    "AddMetaPathViews",
    "BipartiteGraph",
    "BipartiteOperator",
    "Context",
    "Hop",
    "Hypergraph",
    "MetaPath",
    "MetaPathScore",
    "MetaPathView",
    "Neighbours",
    "PropagationOperator",
    "adjacency",
    "as_data",
    "as_hetero_data",
    "attribute_hypergraph",
    "coarse_adjacency",
    "community_hypergraph",
    "concatenate_hypergraphs",
    "draw_neighbours",
    "encode_labels",
    "enumerate_metapaths",
    "heat_diffusion",
    "influence_matrix",
    "items_sharing_users",
    "keep_entries",
    "khop_hypergraph",
    "knn_graph",
    "knn_hypergraph",
    "link_sparse_nodes",
    "masked_adjacency",
    "membership_hypergraph",
    "metapath_adjacency",
    "metapath_contexts",
    "metapath_positives",
    "metapath_views",
    "mmhcl_item_hypergraph",
    "nearest_neighbours",
    "normalize_transposed",
    "parse_metapath",
    "pathsim_neighbours",
    "ppr_diffusion",
    "ppr_topk",
    "rank_metapaths",
    "sampled_rows",
    "session_hypergraph",
    "smooth_features",
    "stack_bipartite",
    "take_rows",
    "there_and_back",
    "users_sharing_items",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'graphcl.graphs' has no attribute {name!r}")
