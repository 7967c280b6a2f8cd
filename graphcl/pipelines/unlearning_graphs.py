"""A graph without some of its nodes, as an embedder that forgets them sees it."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphcl.errors import InputError
from graphcl.graphs.conversion import adjacency
from graphcl.kernels import SparseMatrix
from graphcl.models.homogeneous import rows_of_features
from graphcl.pipelines.cluster_graphs import STRUCTURE_DIMENSIONS, structure_features
from graphcl.pipelines.embedding_graphs import EmbeddingGraph, embedding_graph
from graphcl.pipelines.ranking import IntArray

__all__ = ["graph_with_isolated", "graph_without", "numbers_but"]


def numbers_but(size: int, gone: IntArray) -> IntArray:
    """The numbers below ``size`` without some.

    Example:
        >>> numbers_but(4, np.array([1])).tolist()
        [0, 2, 3]
    """
    return np.delete(np.arange(size), gone)


def graph_without(data: EmbeddingGraph, nodes: IntArray) -> EmbeddingGraph:
    """The graph without some (target) nodes: their features, labels, masks and every edge that they have.

    Args:
        data: the whole.
        nodes: numbers of the nodes.

    Returns:
        The rest, renumbered in the same order. Features that were made from the edges are made again.

    Complexity: O(N f + E).

    Example:
        >>> graph = embedding_graph(torch.eye(6))
        >>> graph_without(graph, np.array([0, 5])).num_nodes
        4
    """
    graph, store = _copy_of(data)
    kept = torch.from_numpy(numbers_but(data.num_nodes, nodes))
    made = data.kind == "graph" and _made_from_edges(data.graph)
    number = torch.full((data.num_nodes,), -1)
    number[kept] = torch.arange(kept.shape[0])
    for key in ("x", "y", "train_mask", "val_mask", "test_mask", "node_ids"):
        value = store.get(key)
        if isinstance(value, SparseMatrix | Tensor) and key == "x":
            store[key] = rows_of_features(_coalesced(value), kept)
        elif isinstance(value, Tensor):
            store[key] = value[kept]
        elif value is not None:
            store[key] = [value[node] for node in kept.tolist()]
    _filter_edges(data, graph, number)
    store.num_nodes = kept.shape[0]
    if data.kind == "graph" and not graph.num_edges:
        raise InputError("no edge would be left", "keep more nodes, or delete the run")
    if made:
        graph.x = structure_features(adjacency(graph))
    labels = None if data.labels is None else data.labels[kept]
    found = embedding_graph(graph, data.target or None, name=data.name)
    return replace(found, ids=data.ids.gather(kept.numpy()), labels=labels, label_names=data.label_names)


def graph_with_isolated(data: EmbeddingGraph, nodes: IntArray) -> Any:
    """The PyG graph in which some (target) nodes keep their features and lose every edge."""
    graph, store = _copy_of(data)
    number = torch.arange(data.num_nodes)
    number[torch.from_numpy(nodes)] = -1
    _filter_edges(data, graph, number)
    store.num_nodes = data.num_nodes
    return graph


def _copy_of(data: EmbeddingGraph) -> tuple[Any, Any]:
    """A shallow copy of the PyG graph, and the part of it that holds the target nodes."""
    graph = copy.copy(data.graph)
    return graph, graph[data.target] if data.kind == "heterogeneous" else graph


def _filter_edges(data: EmbeddingGraph, graph: Any, number: Tensor) -> None:
    """Renumber the ends of edges at target nodes; edges with an end that has no number (-1) go."""
    hetero = data.kind == "heterogeneous"
    for kind in list(graph.edge_types) if hetero else [("", "", "")]:
        store = graph[kind] if hetero else graph
        ends = store.edge_index
        moved = [number[ends[side]] if not hetero or kind[2 * side] == data.target else ends[side] for side in (0, 1)]
        stays = (moved[0] >= 0) & (moved[1] >= 0)
        store.edge_index = torch.stack(moved)[:, stays]
        for key in ("edge_weight", "edge_attr"):
            if store.get(key) is not None:
                store[key] = store[key][stays]


def _coalesced(x: Any) -> Any:
    sparse = isinstance(x, Tensor) and x.layout in (torch.sparse_coo, torch.sparse_csr)
    return SparseMatrix.from_torch(x) if sparse else x


def _made_from_edges(graph: Any) -> bool:
    """Whether the features are those that a graph without features gets."""
    x = graph.get("x")
    if not isinstance(x, Tensor) or x.layout != torch.strided or not graph.num_edges:
        return False
    if x.shape[1] != min(STRUCTURE_DIMENSIONS, x.shape[0] - 1):
        return False
    return bool(torch.allclose(structure_features(adjacency(graph)).to(x.dtype), x, atol=1e-5))
