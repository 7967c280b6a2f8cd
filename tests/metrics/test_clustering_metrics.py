"""Measures of clusterings against enumeration, scikit-learn, NetworkX and loops."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score, f1_score, normalized_mutual_info_score, silhouette_score

from graphcl.graphs import adjacency, as_data
from graphcl.kernels import SparseMatrix
from graphcl.metrics import (
    ari,
    clustering_accuracy,
    clustering_metrics,
    conductance,
    confusion_after_matching,
    macro_f1,
    match_clusters,
    mean_and_deviation,
    modularity,
    nmi,
    silhouette,
)

Array = NDArray[Any]


def draw(size: int, classes: int, clusters: int, seed: int) -> tuple[Array, Array]:
    generator = np.random.default_rng(seed)
    return generator.integers(0, classes, size), generator.integers(0, clusters, size)


def best_matching(labels: Array, clusters: Array) -> float:
    """Largest share of nodes over all one-to-one maps of clusters to classes, by enumeration."""
    classes, columns = np.unique(labels).tolist(), np.unique(clusters).tolist()
    size = max(len(classes), len(columns))
    targets = classes + [-1] * (size - len(classes))
    best = 0.0
    for order in permutations(targets):
        table = dict(zip(columns + [-2] * (size - len(columns)), order, strict=True))
        best = max(best, float(np.mean([table[c] == label for c, label in zip(clusters, labels, strict=True)])))
    return best


@pytest.mark.parametrize(("classes", "clusters"), [(3, 3), (2, 5), (5, 2), (4, 1), (1, 4)])
@pytest.mark.parametrize("seed", range(4))
def test_accuracy_is_the_best_over_all_matchings(classes: int, clusters: int, seed: int) -> None:
    labels, found = draw(40, classes, clusters, seed)
    before = found.copy()
    assert clustering_accuracy(labels, found) == pytest.approx(best_matching(labels, found))
    matched = match_clusters(labels, found)
    assert np.mean(matched[found] == labels) == pytest.approx(best_matching(labels, found))
    assert np.array_equal(found, before)


@pytest.mark.parametrize(("classes", "clusters"), [(3, 3), (2, 5), (5, 2)])
def test_agrees_with_scikit_learn(classes: int, clusters: int) -> None:
    labels, found = draw(60, classes, clusters, 9)
    matched = match_clusters(labels, found)[found]
    expected = f1_score(labels, matched, average="macro", labels=np.unique(labels))
    assert macro_f1(labels, found) == pytest.approx(expected)
    assert nmi(labels, found) == pytest.approx(normalized_mutual_info_score(labels, found))
    assert ari(labels, found) == pytest.approx(adjusted_rand_score(labels, found))


def test_numbers_of_clusters_and_classes_do_not_matter() -> None:
    labels, found = draw(50, 3, 4, 1)
    one = clustering_metrics(found, labels=labels)
    other = clustering_metrics(np.array([7, 3, 11, 0])[found], labels=np.array([20, 5, 9])[labels])
    assert one.to_dict() == pytest.approx(other.to_dict())
    assert one.num_clusters == 4


def test_nodes_without_a_label_do_not_count() -> None:
    labels, found = draw(50, 3, 3, 2)
    hidden = labels.copy()
    hidden[::4] = -1
    known = hidden >= 0
    assert clustering_metrics(found, labels=hidden).to_dict() == pytest.approx(
        clustering_metrics(found[known], labels=labels[known]).to_dict()
    )
    # A cluster of unlabelled nodes alone stays unmatched.
    assert match_clusters([0, 0, -1], [0, 0, 2]).tolist() == [0, -1, -1]


def test_inputs_may_be_tensors_arrays_or_lists() -> None:
    labels, found = [0, 0, 1, 1], [1, 1, 0, 1]
    assert clustering_accuracy(torch.tensor(labels), np.array(found)) == clustering_accuracy(labels, found) == 0.75


def test_confusion_puts_matched_clusters_on_the_diagonal() -> None:
    labels, found = draw(80, 3, 5, 3)
    counts, order = confusion_after_matching(labels, found)
    assert counts.shape == (3, 5)
    for row, label in enumerate(np.unique(labels)):
        for column, cluster in enumerate(order):
            assert counts[row, column] == int(((labels == label) & (found == cluster)).sum())
    assert counts.diagonal().sum() / 80 == pytest.approx(clustering_accuracy(labels, found))
    assert confusion_after_matching([0, 1, 2], [0, 0, 0])[0].shape == (3, 1)


def test_refusals_name_the_argument() -> None:
    with pytest.raises(ValueError, match=r"labels must have the length of clusters \(2\), got 3"):
        nmi([0, 1, 1], [0, 1])
    with pytest.raises(TypeError, match="clusters must be integers, got dtype float64"):
        clustering_accuracy([0, 1], np.array([0.0, 1.0]))
    with pytest.raises(ValueError, match="clusters must be at least 0, got -1"):
        clustering_accuracy([0, 1], [0, -1])
    with pytest.raises(ValueError, match="labels must be at least -1, got -2"):
        clustering_accuracy([0, -2], [0, 1])
    with pytest.raises(ValueError, match=r"clusters must be a vector with at least one entry, got shape \(0,\)"):
        clustering_metrics([])
    with pytest.raises(ValueError, match="labels must name at least one class"):
        ari([-1, -1], [0, 1])
    with pytest.raises(ValueError, match=r"graph must have shape \(3, 3\), got shape \(2, 2\)"):
        modularity(SparseMatrix.from_edge_index(torch.tensor([[0], [1]]), num_nodes=2), [0, 1, 1])


def weighted_graph(seed: int = 0, directed: bool = False) -> nx.Graph:
    graph = nx.gnp_random_graph(25, 0.2, seed=seed, directed=directed)
    generator = np.random.default_rng(seed)
    for start, end in graph.edges:
        graph.edges[start, end]["weight"] = float(generator.integers(1, 5))
    return graph


def matrix_of(graph: nx.Graph) -> SparseMatrix:
    data = as_data(graph)
    return (
        SparseMatrix.from_scipy(nx.to_scipy_sparse_array(graph, weight="weight"))
        if graph.is_directed()
        else adjacency(data)
    )


@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize("resolution", [1.0, 0.5])
def test_modularity_agrees_with_networkx(directed: bool, resolution: float) -> None:
    graph = weighted_graph(directed=directed)
    clusters = np.random.default_rng(1).integers(0, 4, 25)
    groups = [set(np.flatnonzero(clusters == c).tolist()) for c in range(4)]
    expected = nx.community.modularity(graph, groups, resolution=resolution)
    assert modularity(matrix_of(graph), clusters, resolution=resolution) == pytest.approx(expected)


def test_conductance_agrees_with_networkx() -> None:
    graph = weighted_graph()
    clusters = np.random.default_rng(1).integers(0, 4, 25)
    found = conductance(matrix_of(graph), clusters)
    expected = [nx.conductance(graph, np.flatnonzero(clusters == c).tolist(), weight="weight") for c in range(4)]
    assert found.per_cluster.tolist() == pytest.approx(expected)
    assert found.mean == pytest.approx(np.mean(expected))


def test_clusters_without_edges_have_no_conductance() -> None:
    edges = torch.tensor([[0, 1], [1, 0]])
    graph = SparseMatrix.from_edge_index(edges, num_nodes=3)
    found = conductance(graph, [0, 0, 2])
    assert found.per_cluster.isnan().tolist() == [True, True, True]
    assert clustering_metrics([0, 0, 2], graph=graph).conductance is None
    assert conductance(graph, [0, 1, 2]).per_cluster.tolist()[:2] == [1.0, 1.0]
    empty = SparseMatrix.from_edge_index(torch.empty(2, 0, dtype=torch.int64), num_nodes=2)
    assert modularity(empty, [0, 1]) == 0.0


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_silhouette_agrees_with_scikit_learn(metric: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    clusters = np.random.default_rng(0).integers(0, 3, 60) * 2
    clusters[0] = 9  # alone
    expected = silhouette_score(x.double().numpy(), clusters, metric=metric)
    assert silhouette(x, clusters, metric=metric) == pytest.approx(expected, abs=1e-6)
    monkeypatch.setattr("graphcl.metrics.clustering._BLOCK_BYTES", 8 * 60 * 7)
    assert silhouette(x, clusters, metric=metric) == pytest.approx(expected, abs=1e-6)


def test_silhouette_of_a_sample() -> None:
    x = torch.cat([torch.zeros(500, 2), torch.ones(500, 2)]) + torch.rand(1000, 2) * 0.2
    clusters = np.repeat([0, 1], 500)
    whole = silhouette(x, clusters)
    part = silhouette(x, clusters, sample=100, seed=3)
    assert part == silhouette(x, clusters, sample=100, seed=3) != silhouette(x, clusters, sample=100, seed=4)
    assert part == pytest.approx(whole, abs=0.05)
    found = clustering_metrics(clusters, x=x, sample=100)
    assert found.silhouette_nodes == 100
    assert clustering_metrics(clusters, x=x).silhouette_nodes == 1000


def test_silhouette_refusals() -> None:
    x = torch.zeros(3, 2)
    with pytest.raises(ValueError, match="clusters must be at least two, got 1 among 3 nodes"):
        silhouette(x, [0, 0, 0])
    with pytest.raises(ValueError, match=r"x must have shape \(3, d\), got shape \(2, 2\)"):
        silhouette(x[:2], [0, 0, 1])
    with pytest.raises(ValueError, match="metric must be 'euclidean' or 'cosine', got 'l1'"):
        silhouette(x, [0, 0, 1], metric="l1")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="sample must be at least 2, got 1"):
        silhouette(x, [0, 0, 1], sample=1)
    assert clustering_metrics([0, 0, 0], x=x).silhouette is None
    assert silhouette(x, [0, 0, 1]) == 0.0


def test_a_summary_needs_a_value() -> None:
    assert mean_and_deviation([2.0, 4.0]) == (3.0, 1.0)
    with pytest.raises(ValueError, match="at least one number"):
        mean_and_deviation([])
