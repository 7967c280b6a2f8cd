from __future__ import annotations

from pathlib import Path

import networkx
import numpy as np
import pytest
import scipy.sparse
import torch
from torch_geometric.data import Data, HeteroData

from graphcl.errors import InputError
from graphcl.kernels import SparseMatrix
from graphcl.pipelines.cluster_graphs import ClusterGraph, cluster_graph, read_cluster_graph, structure_features

EDGES = torch.tensor([[0, 1, 1, 2, 3], [1, 0, 2, 1, 4]])
X = torch.tensor([[0.0, 1.0], [0.1, 1.0], [0.0, 0.9], [1.0, 0.0], [1.0, 0.1], [0.9, 0.0]])


def edges_of(graph: ClusterGraph) -> set[tuple[int, int]]:
    rows, columns = graph.adjacency.pattern.rows.tolist(), graph.adjacency.columns.tolist()
    return set(zip(rows, columns, strict=True))


BOTH_WAYS = {(0, 1), (1, 0), (1, 2), (2, 1), (3, 4), (4, 3)}


def test_every_source_becomes_the_same_graph() -> None:
    matrix = scipy.sparse.coo_array((np.ones(5), EDGES.numpy()), shape=(6, 6))
    drawn = networkx.Graph([(0, 1), (1, 2), (3, 4)])
    drawn.add_node(5)
    networkx.set_node_attributes(drawn, dict(enumerate(X.tolist())), "x")
    drawn = networkx.relabel_nodes(drawn, {node: f"n{node}" for node in drawn})
    sources = [Data(x=X, edge_index=EDGES), (EDGES, X), (matrix, X.numpy()), drawn]
    graphs = [cluster_graph(source, 2) for source in sources]
    for graph in graphs[:3]:
        assert edges_of(graph) == BOTH_WAYS
        torch.testing.assert_close(graph.x, X)
        assert graph.ids.to_list() == list(range(6))
        assert graph.content_hash() == graphs[0].content_hash()
    assert graphs[3].num_edges == 3
    assert sorted(graphs[3].ids.to_list()) == [f"n{node}" for node in range(6)]


def test_loops_copies_and_directions_are_counted_and_undone() -> None:
    messy = torch.tensor([[0, 0, 1, 1, 2, 3, 5], [1, 1, 0, 2, 2, 4, 5]])
    graph = cluster_graph(Data(x=X, edge_index=messy), 2)
    assert edges_of(graph) == BOTH_WAYS
    expected = {"edges_given": 7, "self_loops_dropped": 2, "repeated_edges_merged": 1, "directions_added": 2,
                "isolated_nodes": 1, "weighted": False, "features": "given"}  # fmt: skip
    assert graph.facts == expected


def test_weights_stay() -> None:
    matrix = scipy.sparse.csr_array(np.array([[0, 2.5, 0], [0, 0, 1.0], [0, 0, 0]]))
    graph = cluster_graph((matrix, np.eye(3)), 2)
    assert graph.facts["weighted"]
    assert graph.adjacency.to_dense().tolist() == [[0, 2.5, 0], [2.5, 0, 1], [0, 1, 0]]


def test_vectors_alone_are_linked() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(30, 4, generator=generator)
    graph = cluster_graph(vectors, 3, neighbours=4)
    assert int(graph.adjacency.row_offsets.diff().min()) >= 4
    assert cluster_graph(vectors.numpy(), 3, neighbours=4).content_hash() == graph.content_hash()
    few = cluster_graph(vectors[:4], 2, neighbours=10)
    assert few.num_edges == 6  # all pairs
    with pytest.raises(InputError, match="2 vectors are too few"):
        cluster_graph(vectors[:2], 2)


def test_a_graph_without_features_gets_its_eigenvectors() -> None:
    graph = cluster_graph(networkx.karate_club_graph(), 2)
    assert graph.x.shape == (34, 33)
    assert graph.facts["features"].startswith("eigenvectors")
    dense = graph.adjacency.to_dense().numpy().astype(np.float64)
    degree = dense.sum(1) + dense.sum(1).mean()
    operator = dense / np.sqrt(np.outer(degree, degree))
    x = graph.x.double().numpy()
    # X X^T = U Lambda^2 U^T is the square of the operator, up to the eigenvector left out.
    least = np.abs(np.linalg.eigvalsh(operator)).min()
    assert np.abs(x @ x.T - operator @ operator).max() <= least**2 + 1e-5
    large = SparseMatrix.from_scipy(networkx.to_scipy_sparse_array(networkx.barbell_graph(100, 0), dtype=np.float64))
    first, again = structure_features(large, dimensions=5), structure_features(large, dimensions=5, seed=7)
    assert first.shape == (200, 5)
    torch.testing.assert_close((first @ first.T), (again @ again.T), atol=1e-4, rtol=0)


def test_the_number_of_clusters_is_given_counted_or_estimated() -> None:
    labels = torch.tensor([0, 0, 0, 7, 7, -1])
    graph = cluster_graph(Data(x=X, edge_index=EDGES, y=labels))
    assert (graph.num_clusters, graph.estimate) == (2, None)
    assert graph.labels is not None
    assert graph.labels.tolist() == [0, 0, 0, 1, 1, -1]
    assert graph.label_names == (0, 7)
    noise = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    blobs = torch.eye(3).repeat_interleave(20, dim=0) + 0.05 * noise
    found = cluster_graph(blobs, max_clusters=6)
    assert found.num_clusters == 3
    assert found.estimate is not None
    assert found.estimate.method == "stability"
    planted = networkx.planted_partition_graph(3, 40, 0.4, 0.01, seed=0)
    gap = cluster_graph(planted, "eigengap", max_clusters=6)
    assert gap.num_clusters == 3
    assert gap.estimate is not None
    assert gap.estimate.method == "eigengap"


BAD = {
    "more clusters than nodes": (Data(x=X, edge_index=EDGES), 7, "7 clusters of 6 nodes; give num_clusters"),
    "no node": (Data(x=torch.zeros(0, 2), edge_index=torch.zeros(2, 0, dtype=torch.int64)), 2, "no node"),
    "no edge": (Data(x=X, edge_index=torch.zeros(2, 0, dtype=torch.int64)), 2, "no edge between two nodes; give edges"),
    "loops only": (Data(x=X, edge_index=torch.tensor([[0, 3], [0, 3]])), 2, "no edge between two nodes"),
    "NaN": (Data(x=torch.where(X == 0.9, torch.nan, X), edge_index=EDGES), 2, "row 3, column '1': the feature is nan"),
    "labels": (Data(x=X, edge_index=EDGES, y=torch.zeros(5)), None, "5 labels for 6 nodes"),
    "one class": (Data(x=X, edge_index=EDGES, y=torch.zeros(6)), None, "all labels are equal"),
    "edge to nowhere": (Data(x=X, edge_index=torch.tensor([[0], [6]])), 2, "joins nodes"),
    "heterogeneous": (HeteroData(), 2, "heterogeneous"),
    "something else": ("cora.npz", 2, "cannot cluster this"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_graphs_are_refused_in_one_line(case: str) -> None:
    source, clusters, message = BAD[case]
    with pytest.raises(InputError) as error:
        cluster_graph(source, clusters)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_graphs_survive_the_disk(tmp_path: Path) -> None:
    drawn = networkx.planted_partition_graph(2, 15, 0.7, 0.05, seed=0)
    drawn = networkx.relabel_nodes(drawn, {node: (node, "x") for node in drawn})  # ids of any kind become texts
    networkx.set_node_attributes(drawn, {node: "left" if node[0] < 15 else "right" for node in drawn}, "label")
    graph = cluster_graph(drawn, "stability", max_clusters=4)
    graph.write(tmp_path)
    again = read_cluster_graph(tmp_path)
    assert again.content_hash() == graph.content_hash()
    assert again.ids.to_list() == graph.ids.to_list() == [str(node) for node in drawn]
    assert again.label_names == ("left", "right")
    assert again.estimate is not None
    assert graph.estimate is not None
    assert again.estimate.to_dict() == graph.estimate.to_dict()
    assert again.facts == graph.facts
    (tmp_path / "nodes.parquet").write_bytes(b"no parquet")
    with pytest.raises(InputError, match=r"nodes\.parquet: cannot be read"):
        read_cluster_graph(tmp_path)
    (tmp_path / "graph.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"graph\.safetensors: cannot be read"):
        read_cluster_graph(tmp_path)
