"""Graphs: nearest-neighbour graphs, conversion from and to the formats of the field."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphcl.graphs.bipartite import BipartiteGraph, stack_bipartite
    from graphcl.graphs.conversion import adjacency, as_data, encode_labels
    from graphcl.graphs.hypergraph import Hypergraph, concatenate_hypergraphs
    from graphcl.graphs.influence import influence_matrix
    from graphcl.graphs.knn import Neighbours, knn_graph, nearest_neighbours
    from graphcl.graphs.operators import BipartiteOperator, PropagationOperator
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
    "concatenate_hypergraphs": "graphcl.graphs.hypergraph",
    "encode_labels": "graphcl.graphs.conversion",
    "influence_matrix": "graphcl.graphs.influence",
    "knn_graph": "graphcl.graphs.knn",
    "nearest_neighbours": "graphcl.graphs.knn",
    "smooth_features": "graphcl.graphs.smoothing",
    "stack_bipartite": "graphcl.graphs.bipartite",
}

__all__ = [
    "BipartiteGraph",
    "BipartiteOperator",
    "Hypergraph",
    "Neighbours",
    "PropagationOperator",
    "adjacency",
    "as_data",
    "concatenate_hypergraphs",
    "encode_labels",
    "influence_matrix",
    "knn_graph",
    "nearest_neighbours",
    "smooth_features",
    "stack_bipartite",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'graphcl.graphs' has no attribute {name!r}")
