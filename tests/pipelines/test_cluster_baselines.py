from __future__ import annotations

import numpy as np
import pytest
import torch

from graphcl.kernels import SparseMatrix
from graphcl.pipelines.cluster_baselines import (
    BASELINES,
    cluster_baseline,
    kmeans_labels,
    smoothed_features,
    spectral_labels,
)


def two_cliques(size: int = 6) -> SparseMatrix:
    dense = torch.kron(torch.eye(2), torch.ones(size, size) - torch.eye(size))
    dense[0, size] = dense[size, 0] = 0.1
    return SparseMatrix.from_torch(dense.to_sparse())


def groups_of(labels: np.ndarray[tuple[int], np.dtype[np.int64]]) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(labels == label).tolist()) for label in np.unique(labels)}


CLIQUES = {frozenset(range(6)), frozenset(range(6, 12))}


def test_smoothing_is_the_matrix_power() -> None:
    generator = torch.Generator().manual_seed(0)
    dense = (torch.rand(7, 7, generator=generator, dtype=torch.float64) < 0.3).double().triu(1)
    dense = dense + dense.T
    dense[3] = dense[:, 3] = 0  # an isolated node keeps its features
    x = torch.randn(7, 4, generator=generator, dtype=torch.float64)
    with_loops = dense + torch.eye(7, dtype=torch.float64)
    roots = with_loops.sum(1).rsqrt()
    operator = roots[:, None] * with_loops * roots
    adjacency = SparseMatrix.from_torch(dense.to_sparse())
    smoothed = smoothed_features(x, adjacency, steps=3)
    torch.testing.assert_close(smoothed, torch.linalg.matrix_power(operator, 3) @ x)
    torch.testing.assert_close(smoothed[3], x[3])
    torch.testing.assert_close(smoothed_features(x, adjacency, steps=0), x)


def test_every_baseline_finds_what_features_and_graph_agree_on() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.cat([torch.tensor([[5.0, 0.0]]).repeat(6, 1), torch.tensor([[0.0, 5.0]]).repeat(6, 1)])
    x = x + 0.1 * torch.randn(12, 2, generator=generator)
    for name in BASELINES:
        labels = cluster_baseline(name, x, two_cliques(), 2, seed=0)
        assert labels is not None
        assert labels.dtype == np.int64
        assert groups_of(labels) == CLIQUES, name


def test_baselines_look_at_what_they_say() -> None:
    # Lengths separate the rows as given, directions separate unit rows, the graph separates the smoothed ones.
    x = torch.tensor([[1.0, 0.0], [9.0, 0.0]] * 3 + [[0.0, 1.0], [0.0, 9.0]] * 3)
    by_direction = cluster_baseline("k-means, unit rows", x, two_cliques(), 2, seed=0)
    assert by_direction is not None
    assert groups_of(by_direction) == CLIQUES
    lengths = torch.tensor([[1.0], [9.0]]).repeat(6, 1)
    as_given = cluster_baseline("k-means", lengths, two_cliques(), 2, seed=0)
    assert as_given is not None
    assert groups_of(as_given) == {frozenset(range(0, 12, 2)), frozenset(range(1, 12, 2))}
    noise = torch.cat([torch.ones(6, 1), torch.zeros(6, 1)]) + torch.tensor([[0.9], [-0.9]]).repeat(6, 1)
    smoothed = cluster_baseline("k-means, smoothed", noise, two_cliques(), 2, seed=0)
    assert smoothed is not None
    assert groups_of(smoothed) == CLIQUES
    assert groups_of(spectral_labels(two_cliques(), 2, seed=0)) == CLIQUES


def test_seeds_repeat() -> None:
    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    assert (kmeans_labels(x, 5, seed=3) == kmeans_labels(x, 5, seed=3)).all()


def test_what_does_not_apply_is_none_and_other_names_are_refused() -> None:
    assert cluster_baseline("spectral", torch.randn(12, 2), two_cliques(), 12, seed=0) is None
    with pytest.raises(ValueError, match="name must be one of k-means, "):
        cluster_baseline("ward", torch.randn(12, 2), two_cliques(), 2, seed=0)


def test_equal_rows_and_isolated_nodes_are_no_fault() -> None:
    empty = SparseMatrix.from_coo(
        torch.tensor([], dtype=torch.int64), torch.tensor([], dtype=torch.int64), shape=(6, 6)
    )
    for name in BASELINES:
        labels = cluster_baseline(name, torch.ones(6, 2), empty, 3, seed=0)
        assert labels is not None
        assert labels.shape == (6,)
        assert set(labels) <= {0, 1, 2}
