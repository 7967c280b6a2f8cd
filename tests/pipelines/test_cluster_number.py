from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.sparse import block_diag, csr_array

from graphcl.errors import InputError
from graphcl.kernels import SparseMatrix
from graphcl.pipelines.cluster_number import cluster_number_by_eigengap, cluster_number_by_stability

FloatArray = npt.NDArray[np.float64]


def planted(sizes: list[int], inside: float, outside: float, seed: int = 0) -> SparseMatrix:
    """A random graph whose groups are denser inside than between."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(len(sizes)), sizes)
    chance = np.where(group[:, None] == group[None, :], inside, outside)
    upper = np.triu(rng.random(chance.shape) < chance, 1)
    return SparseMatrix.from_scipy(csr_array((upper + upper.T).astype(np.float64)))


def block_diagonal(*parts: SparseMatrix) -> SparseMatrix:
    return SparseMatrix.from_scipy(block_diag([part.to_scipy() for part in parts], format="csr"))


def blobs(centres: FloatArray, count: int, spread: float, seed: int = 0) -> FloatArray:
    points = np.repeat(centres, count, axis=0)
    return points + spread * np.random.default_rng(seed).standard_normal(points.shape)


@pytest.mark.parametrize("groups", [2, 3, 5])
def test_eigengap_finds_planted_groups_dense_and_by_iteration(groups: int) -> None:
    for size in (40, 150):  # below and above the size that is solved densely
        found = cluster_number_by_eigengap(planted([size] * groups, 0.3, 0.01))
        assert found.num_clusters == groups
        assert found.nodes == size * groups
        assert found.method == "eigengap"


def test_eigengap_is_the_gap_of_the_dense_eigenvalues() -> None:
    graph = planted([30, 30, 30], 0.4, 0.05)
    dense = graph.to_dense().numpy()
    degree = dense.sum(1) + dense.sum(1).mean()
    values = np.sort(np.linalg.eigvalsh(dense / np.sqrt(np.outer(degree, degree))))[::-1]
    found = cluster_number_by_eigengap(graph, max_clusters=8)
    assert list(found.scores) == list(range(2, 9))
    for k, gap in found.scores.items():
        assert gap == pytest.approx(values[k - 1] - values[k], abs=1e-10)
    iterated = cluster_number_by_eigengap(planted([300, 300, 300], 0.1, 0.01), max_clusters=8, seed=1)
    again = cluster_number_by_eigengap(planted([300, 300, 300], 0.1, 0.01), max_clusters=8, seed=2)
    assert iterated.num_clusters == again.num_clusters == 3
    assert list(iterated.scores.values()) == pytest.approx(list(again.scores.values()), abs=1e-8)


def test_eigengap_counts_large_components_and_leaves_out_crumbs() -> None:
    crumb = SparseMatrix.from_torch(torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64).to_sparse())
    isolated = SparseMatrix.from_torch(torch.zeros(3, 3, dtype=torch.float64).to_sparse())
    one = planted([60], 0.3, 0.0)
    found = cluster_number_by_eigengap(block_diagonal(one, one, one, crumb, crumb, isolated))
    assert found.num_clusters == 3
    assert found.nodes == 180
    inside = planted([50, 50], 0.4, 0.01)
    assert cluster_number_by_eigengap(block_diagonal(inside, inside, crumb)).num_clusters == 4


def test_eigengap_ignores_self_loops() -> None:
    graph = planted([40, 40], 0.3, 0.02)
    looped = SparseMatrix.from_torch((graph.to_dense() + 5 * torch.eye(80, dtype=torch.float64)).to_sparse())
    assert cluster_number_by_eigengap(looped).scores == cluster_number_by_eigengap(graph).scores


def test_eigengap_refuses_a_graph_that_tells_nothing() -> None:
    pair = SparseMatrix.from_coo(torch.tensor([0, 1]), torch.tensor([1, 0]), shape=(5, 5))
    with pytest.raises(InputError, match=r"no component of three nodes.*give num_clusters"):
        cluster_number_by_eigengap(pair)
    empty = SparseMatrix.from_coo(
        torch.tensor([], dtype=torch.int64), torch.tensor([], dtype=torch.int64), shape=(0, 0)
    )
    with pytest.raises(InputError, match="no component of three nodes"):
        cluster_number_by_eigengap(empty)


@pytest.mark.parametrize("groups", [3, 6])
def test_stability_finds_blobs(groups: int) -> None:
    found = cluster_number_by_stability(blobs(8 * np.eye(groups), 40, 1.0), max_clusters=10)
    assert found.num_clusters == groups
    assert found.scores[groups] == pytest.approx(1.0)
    assert found.scores[groups + 2] < 0.95
    assert found.to_dict()["scores"][str(groups)] == pytest.approx(1.0)


def test_stability_repeats_with_its_seed_and_reads_at_most_so_many_points() -> None:
    points = blobs(3 * np.eye(3), 60, 1.0)
    first = cluster_number_by_stability(points, max_clusters=5, repeats=3, max_points=100, seed=4)
    assert first == cluster_number_by_stability(points, max_clusters=5, repeats=3, max_points=100, seed=4)
    assert first.nodes == 100


def test_stability_projects_wide_points() -> None:
    rng = np.random.default_rng(0)
    wide = blobs(20 * np.eye(3), 40, 1.0) @ rng.standard_normal((3, 200))
    assert cluster_number_by_stability(wide, max_clusters=6, dimensions=4).num_clusters == 3


def test_stability_refuses_what_it_cannot_sample() -> None:
    with pytest.raises(InputError, match="1 distinct points are too few"):
        cluster_number_by_stability(np.ones((50, 3)))
    with pytest.raises(ValueError, match="repeats must be at least 2, got 1"):
        cluster_number_by_stability(np.eye(9), repeats=1)
    with pytest.raises(ValueError, match=r"share must be between 0 and 1, got 1\.0"):
        cluster_number_by_stability(np.eye(9), share=1.0)


def test_many_equal_points_are_counted_once() -> None:
    points = np.repeat(np.diag([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), 20, axis=0)
    found = cluster_number_by_stability(points, max_clusters=20)
    assert max(found.scores) == 3  # 0.8 x 6 distinct points, less one
