"""Every accepted form of a graph gives the same Data; everything else gives one clear error."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import Tensor
from torch_geometric.data import Data

from graphcl.errors import InputError
from graphcl.graphs import adjacency, as_data, encode_labels, knn_graph
from graphcl.graphs.conversion import check_features
from graphcl.kernels import SparseMatrix

EDGES = [(0, 1), (1, 2), (2, 0), (3, 1)]
X = torch.arange(10.0).reshape(5, 2)  # node 4 is isolated


def pairs(data: Data) -> list[tuple[int, int]]:
    return sorted((int(a), int(b)) for a, b in data.edge_index.T)


def forms() -> dict[str, Any]:
    edge_index = torch.tensor(EDGES).T
    dense = torch.zeros(5, 5)
    dense[edge_index[0], edge_index[1]] = 1
    graph = nx.DiGraph(EDGES)
    graph.add_nodes_from([4])
    nodes = nx.DiGraph()
    nodes.add_nodes_from(range(5))
    nodes.add_edges_from(EDGES)
    return {
        "data": Data(edge_index=edge_index),
        "networkx": nodes,
        "scipy": sp.coo_array(dense.numpy()),
        "scipy matrix": sp.csr_matrix(dense.numpy()),
        "sparse matrix": SparseMatrix.from_edge_index(edge_index, num_nodes=5),
        "tensor": edge_index,
        "array": edge_index.numpy().astype(np.int32),
        "lists": edge_index.tolist(),
    }


@pytest.mark.parametrize("form", list(forms()))
@pytest.mark.parametrize("paired", [False, True])
def test_every_form_gives_the_same_graph(form: str, paired: bool) -> None:
    source = forms()[form]
    data = as_data((source, X)) if paired else as_data(source, X)
    assert pairs(data) == sorted(EDGES)
    assert data.num_nodes == 5
    assert torch.equal(data.x, X)
    assert data.get("edge_weight") is None
    assert data.edge_index.dtype == torch.int64


def test_the_given_data_stays_as_it_is() -> None:
    given = Data(x=X.double(), edge_index=torch.tensor(EDGES, dtype=torch.int32).T, y=torch.tensor([4, 4, 2, 2, 9]))
    data = as_data(given)
    assert data.y.tolist() == [1, 1, 0, 0, 2]
    assert data.label_names == (2, 4, 9)
    assert given.y.tolist() == [4, 4, 2, 2, 9]
    assert given.edge_index.dtype == torch.int32
    assert data.x.dtype == torch.float64
    assert as_data(given, labels=["b", "a", "b", "a", "a"]).label_names == ("a", "b")


def test_undirected_networkx_gets_both_directions_and_weights() -> None:
    graph = nx.MultiGraph()
    graph.add_nodes_from(["c", "a", "b"])
    graph.add_edge("a", "b", weight=2)
    graph.add_edge("a", "b")
    graph.add_edge("c", "c", weight=0.5)
    data = as_data(graph, features=torch.ones(3, 1))
    assert data.node_ids.tolist() == ["c", "a", "b"]
    assert pairs(data) == [(0, 0), (1, 2), (1, 2), (2, 1), (2, 1)]
    assert data.edge_weight.sum() == 2 * 2 + 2 * 1 + 0.5
    assert adjacency(data).to_dense().tolist() == [[0, 0, 0], [0, 0, 2], [0, 2, 0]]


def test_networkx_attributes_become_features_and_labels() -> None:
    graph = nx.path_graph(3)
    nx.set_node_attributes(graph, {node: [float(node), 1.0] for node in graph}, "x")
    nx.set_node_attributes(graph, {0: "left", 1: "left", 2: "right"}, "label")
    nx.set_node_attributes(graph, {0: [1.0], 1: [2.0]}, "partial")
    data = as_data(graph)
    assert data.x.tolist() == [[0, 1], [1, 1], [2, 1]]
    assert data.y.tolist() == [0, 0, 1]
    assert data.label_names == ("left", "right")
    assert data.node_ids.dtype == np.int64
    with pytest.raises(InputError, match=r"1 of 3 nodes have no attribute 'partial', the first is \[2\]"):
        as_data(graph, features="partial")
    assert as_data(nx.Graph([((0, 1), (2, 3))]), torch.ones(2, 1)).node_ids.tolist() == [(0, 1), (2, 3)]


def test_weights_of_matrices() -> None:
    matrix = sp.coo_array(([2.0, 0.0, 3.0], ([0, 1, 2], [1, 2, 0])), shape=(3, 3))
    data = as_data(matrix, torch.ones(3, 1))
    assert pairs(data) == [(0, 1), (2, 0)]
    assert adjacency(data, symmetric=None).to_dense()[1, 0] == 2
    assert adjacency(data).to_dense().tolist() == [[0, 2, 3], [2, 0, 0], [3, 0, 0]]


@pytest.mark.parametrize("kind", ["tensor", "array"])
def test_vectors_alone_get_their_nearest_neighbours(kind: str) -> None:
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    data = as_data(x if kind == "tensor" else x.numpy(), labels=torch.arange(20) % 2, k=3, symmetric="mutual")
    graph = knn_graph(x, 3, symmetric="mutual")
    assert torch.equal(adjacency(data).to_dense(), graph.to_dense())
    assert torch.equal(data.x, x)
    assert data.y.tolist() == [0, 1] * 10


def test_adjacency_has_one_rule_for_repeats_directions_and_loops() -> None:
    edges = torch.tensor([[0, 0, 1, 2, 2], [1, 1, 0, 2, 1]])
    weight = torch.tensor([1.0, 4.0, 2.0, 9.0, 3.0])
    assert adjacency(edges, 4).to_dense().tolist() == [[0, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert adjacency(edges, 4).values is None
    full = adjacency(edges, 4, edge_weight=weight, self_loops=True)
    assert full.to_dense().tolist() == [[1, 4, 0, 0], [4, 1, 3, 0], [0, 3, 1, 0], [0, 0, 0, 1]]
    directed = adjacency(edges, 4, edge_weight=weight, symmetric=None).to_dense()
    assert directed.tolist() == [[0, 2, 0, 0], [4, 0, 3, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    loops = adjacency(torch.empty(2, 0, dtype=torch.int64), 2, self_loops=True)
    assert loops.to_dense().tolist() == [[1, 0], [0, 1]]


def test_adjacency_of_permuted_nodes() -> None:
    generator = torch.Generator().manual_seed(0)
    edges = torch.randint(12, (2, 40), generator=generator)
    order = torch.randperm(12, generator=generator)
    place = torch.argsort(order)
    assert torch.equal(adjacency(place[edges], 12).to_dense(), adjacency(edges, 12).to_dense()[order][:, order])


def test_adjacency_refusals() -> None:
    edges = torch.tensor([[0], [1]])
    with pytest.raises(ValueError, match="num_nodes must be given with an edge_index"):
        adjacency(edges)
    with pytest.raises(ValueError, match="num_nodes and edge_weight belong to an edge_index"):
        adjacency(Data(edge_index=edges, num_nodes=2), 2)
    with pytest.raises(ValueError, match="symmetric must be 'max' or None, got 'sum'"):
        adjacency(edges, 2, symmetric="sum")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"the weight of edge 0 is -1\.0; give finite weights of at least 0"):
        adjacency(edges, 2, edge_weight=torch.tensor([-1.0]))
    with pytest.raises(InputError, match=r"1 edges have weights of shape \(2,\)|edge weights have shape \(2,\) for 1"):
        adjacency(edges, 2, edge_weight=torch.ones(2))
    with pytest.raises(InputError, match=r"edge 0 joins nodes \[0, 1\], but the nodes are 0 to 0"):
        adjacency(edges, 1)


@pytest.mark.parametrize(
    ("source", "features", "labels", "message"),
    [
        (torch.tensor([[0], [1]]), torch.ones(2, 1), [0], "there are 1 labels for 2 nodes; give one label a node"),
        (torch.tensor([[0], [2]]), torch.ones(2, 1), None, r"edge 0 joins nodes \[0, 2\], but the nodes are 0 to 1"),
        (torch.tensor([[0], [-1]]), torch.ones(2, 1), None, r"edge 0 joins nodes \[0, -1\]"),
        (torch.tensor([[0], [1]]), None, None, "the number of nodes is not known; give features"),
        (torch.tensor([[0, 1, 1]]), torch.ones(2, 1), None, r"edge_index has shape \(1, 3\); give shape \(2, edges\)"),
        (nx.path_graph(3), torch.ones(2, 1), None, "there are 2 rows of features for 3 nodes"),
        (nx.Graph(), None, None, "the graph has no node; give at least one node"),
        (nx.path_graph(2), torch.tensor([[1.0], [torch.nan]]), None, r"row 2, column '0': the feature is nan"),
        (nx.path_graph(2), torch.tensor([[1.0, torch.inf], [1, 1]]), None, r"row 1, column '1': the feature is inf"),
        (nx.path_graph(2), torch.ones(2), None, r"features have shape \(2,\); give a matrix"),
        (nx.path_graph(2), [["a"], ["b"]], None, "features are no numbers"),
        (nx.path_graph(2), torch.ones(2, 1), [0.5, 1.0], r"the label 0\.5 is not a whole number"),
        (nx.path_graph(2), torch.ones(2, 1), [[0, 1], [1, 0]], r"labels have shape \(2, 2\)"),
        (sp.coo_array((2, 3)), None, None, r"the adjacency matrix has shape \(2, 3\); give a square matrix"),
        (Data(x=torch.ones(2, 1)), None, None, "the Data has no edge_index"),
        (
            Data(edge_index=torch.tensor([[0], [3]]), num_nodes=2),
            torch.ones(2, 1),
            None,
            r"edge 0 joins nodes \[0, 3\]",
        ),
        (torch.empty(0, 3), None, None, "the features have no row"),
        (torch.tensor([[torch.nan, 1.0]]), None, None, "the feature is nan"),
    ],
)
def test_bad_input_is_named(source: Any, features: Any, labels: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        as_data(source, features, labels)


def test_a_source_of_no_known_form() -> None:
    with pytest.raises(TypeError, match=r"source must be a PyG Data, a NetworkX graph.*got str"):
        as_data("graph.csv")
    with pytest.raises(TypeError, match=r"got Tensor of type torch.float32 and shape \(3,\)"):
        as_data(torch.ones(3))


@pytest.mark.parametrize(
    ("labels", "codes", "names"),
    [
        ([2, 0, 2], [1, 0, 1], (0, 2)),
        ([1.0, 3.0, float("nan")], [0, 1, -1], (1, 3)),
        (["b", "a", None], [1, 0, -1], ("a", "b")),
        ([-1, 7, -1], [-1, 0, -1], (7,)),
        (np.array([[1], [0], [1]]), [1, 0, 1], (0, 1)),
        (torch.tensor([True, False, True]), [1, 0, 1], (False, True)),
        ([1, "a", None], [0, 1, -1], ("1", "a")),
        (np.array([3, None, 1], dtype=object), [1, -1, 0], (1, 3)),
        (np.array([3, 1, 3], dtype=np.uint8), [1, 0, 1], (1, 3)),
    ],
)
def test_labels_become_codes(labels: Any, codes: list[int], names: tuple[Any, ...]) -> None:
    found, classes = encode_labels(labels, num_nodes=3)
    assert found.tolist() == codes
    assert classes == names


def test_labels_of_other_types() -> None:
    with pytest.raises(InputError, match="labels are neither numbers nor texts"):
        encode_labels(np.array([{}, {}], dtype=object))
    with pytest.raises(InputError, match="labels have type complex128"):
        encode_labels(np.array([1j]))


def test_features_are_shared_or_made_dense() -> None:
    x = torch.ones(3, 2)
    assert check_features(x).data_ptr() == x.data_ptr()
    assert check_features(sp.csr_array(np.eye(3))).dtype == torch.float64
    assert check_features(np.eye(3, dtype=np.int8)).dtype == torch.float32
    sparse: Tensor = torch.eye(2).to_sparse()
    assert torch.equal(check_features(sparse), torch.eye(2))
    with pytest.raises(InputError, match="features are complex numbers"):
        check_features(np.array([[1j]]))
