"""Nearest neighbours and their graphs against loops over all pairs."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from graphcl.errors import MissingPackageError
from graphcl.graphs import knn_graph, nearest_neighbours
from graphcl.graphs.knn import Metric, Symmetry


def points(rows: int = 23, columns: int = 4, seed: int = 0) -> Tensor:
    """Small whole numbers, so that ties are common and distances exact; every fifth row is zero."""
    x = torch.randint(-2, 3, (rows, columns), generator=torch.Generator().manual_seed(seed)).double()
    x[::5] = 0
    return x


def score(a: Tensor, b: Tensor, metric: str) -> float:
    if metric == "dot":
        return float(a @ b)
    if metric == "euclidean":
        return -float(((a - b) ** 2).sum().sqrt())
    return float(a @ b / (a.norm() * b.norm()))


def loops(x: Tensor, k: int, metric: str, include_self: bool) -> tuple[list[list[int]], list[list[float]]]:
    zero = [metric != "euclidean" and not bool(row.any()) for row in x]
    indices, scores = [], []
    for i in range(len(x)):
        rows = [j for j in range(len(x)) if (include_self or i != j) and not zero[i] and not zero[j]]
        ranked = sorted(rows, key=lambda j: (-round(score(x[i], x[j], metric), 9), j))[:k]
        missing = k - len(ranked)
        indices.append(ranked + [-1] * missing)
        scores.append([score(x[i], x[j], metric) for j in ranked] + [-torch.inf] * missing)
    return indices, scores


@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("k", [1, 4, 30])
def test_equals_loops_with_ties_and_zero_rows(include_self: bool, k: int) -> None:
    x = points()
    found = nearest_neighbours(x, k, metric="dot", include_self=include_self)
    indices, scores = loops(x, k, "dot", include_self)
    assert found.indices.tolist() == indices
    torch.testing.assert_close(found.scores, torch.tensor(scores, dtype=torch.float64))


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("include_self", [True, False])
def test_real_numbers_equal_loops(metric: Metric, include_self: bool) -> None:
    x = torch.randn(40, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x[7] = 0
    indices, scores = loops(x, 6, metric, include_self)
    found = nearest_neighbours(x, 6, metric=metric, include_self=include_self)
    assert found.indices.tolist() == indices
    torch.testing.assert_close(found.scores, torch.tensor(scores, dtype=torch.float64), rtol=1e-6, atol=1e-6)


def test_distances_of_tied_rows_equal_loops() -> None:
    x = points()
    found = nearest_neighbours(x, 4, metric="euclidean")
    scores = loops(x, 4, "euclidean", False)[1]
    torch.testing.assert_close(found.scores, torch.tensor(scores, dtype=torch.float64), rtol=1e-6, atol=1e-6)


def test_equal_rows_go_by_index() -> None:
    found = nearest_neighbours(torch.ones(5, 2), 3).indices.tolist()
    assert found == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2], [0, 1, 2]]


@pytest.mark.parametrize("rows", [0, 1])
def test_too_few_rows_leave_holes(rows: int) -> None:
    found = nearest_neighbours(torch.ones(rows, 3), 2)
    assert found.indices.tolist() == [[-1, -1]] * rows
    assert found.scores.tolist() == [[-torch.inf, -torch.inf]] * rows
    assert knn_graph(torch.ones(rows, 3), 2).num_entries == 0


def test_all_rows_zero() -> None:
    assert nearest_neighbours(torch.zeros(4, 2), 2).indices.eq(-1).all()
    assert knn_graph(torch.zeros(4, 2), 2, metric="euclidean").num_entries > 0


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "dot"])
@pytest.mark.parametrize("symmetric", ["union", "mutual", "none"])
def test_graph_equals_sets_of_pairs(metric: Metric, symmetric: Symmetry) -> None:
    x = torch.randn(30, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    x[4] = 0
    chosen = {
        (i, j) for i, row in enumerate(nearest_neighbours(x, 3, metric=metric).indices.tolist()) for j in row if j >= 0
    }
    back = {(j, i) for i, j in chosen}
    expected = {"none": chosen, "union": chosen | back, "mutual": chosen & back}[symmetric]
    graph = knn_graph(x, 3, metric=metric, symmetric=symmetric)
    assert graph.values is None
    assert sorted(zip(graph.pattern.rows.tolist(), graph.columns.tolist(), strict=True)) == sorted(expected)


@pytest.mark.parametrize("symmetric", ["union", "mutual", "none"])
def test_weights_are_the_scores(symmetric: Symmetry) -> None:
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    graph = knn_graph(x, 3, symmetric=symmetric, weighted=True)
    unit = torch.nn.functional.normalize(x)
    assert graph.values is not None
    expected = (unit @ unit.T)[graph.pattern.rows, graph.columns]
    torch.testing.assert_close(graph.values, expected)
    if symmetric != "none":
        assert torch.equal(graph.to_dense(), graph.to_dense().T)


def test_a_graph_does_not_depend_on_the_order_of_its_rows() -> None:
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(knn_graph(x[order], 4).to_dense(), knn_graph(x, 4).to_dense()[order][:, order])


def test_no_gradient_and_the_input_stays() -> None:
    x = points().requires_grad_()
    before = x.detach().clone()
    assert not nearest_neighbours(x, 2).scores.requires_grad
    assert torch.equal(x.detach(), before)


def test_bad_arguments_are_named() -> None:
    x = torch.ones(3, 2)
    with pytest.raises(ValueError, match=r"metric must be one of cosine, euclidean, dot, got 'l1'"):
        nearest_neighbours(x, 1, metric="l1")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"backend must be one of exact, faiss, got 'scann'"):
        nearest_neighbours(x, 1, backend="scann")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"k must be an integer of at least 1, got 0"):
        nearest_neighbours(x, 0)
    with pytest.raises(TypeError, match=r"x must be a floating-point matrix, got torch.int64 of shape \(3, 2\)"):
        nearest_neighbours(x.long(), 1)
    with pytest.raises(ValueError, match=r"x must be finite, got nan at row 1, column 0"):
        nearest_neighbours(torch.tensor([[0.0], [float("nan")]]), 1)
    with pytest.raises(ValueError, match=r"symmetric must be one of union, mutual, none, got 'both'"):
        knn_graph(x, 1, symmetric="both")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"weighted needs a similarity, got metric 'euclidean'"):
        knn_graph(x, 1, metric="euclidean", weighted=True)


def test_faiss_that_is_not_installed_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingPackageError, match=r"faiss-cpu: pip install 'graphcl\[ann\]'"):
        nearest_neighbours(torch.ones(3, 2), 1, backend="faiss")


class BruteIndex:
    """Stands in for the index of faiss: exact, but padded with -1 as faiss pads, and without a rule for ties."""

    def __init__(self, width: int, links: int, kind: int) -> None:
        self.hnsw = SimpleNamespace()
        self.kind = kind

    def add(self, rows: np.ndarray[Any, Any]) -> None:
        assert rows.dtype == np.float32
        self.rows = rows

    def search(self, queries: np.ndarray[Any, Any], k: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        scores = queries @ self.rows.T
        if self.kind == 1:
            scores = ((queries[:, None] - self.rows[None]) ** 2).sum(axis=2)
        order = np.argsort(scores if self.kind == 1 else -scores, axis=1)[:, :k]
        values = np.take_along_axis(scores, order, axis=1)
        hole = ((0, 0), (0, k - order.shape[1]))
        return np.pad(values, hole, constant_values=-1.0), np.pad(order, hole, constant_values=-1)


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "dot"])
@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("k", [3, 20])
def test_faiss_answers_are_brought_to_the_exact_form(
    monkeypatch: pytest.MonkeyPatch, metric: Metric, include_self: bool, k: int
) -> None:
    fake = SimpleNamespace(IndexHNSWFlat=BruteIndex, METRIC_L2=1, METRIC_INNER_PRODUCT=0)
    monkeypatch.setitem(sys.modules, "faiss", fake)
    x = torch.randn(15, 4, generator=torch.Generator().manual_seed(6))
    x[3] = 0
    exact = nearest_neighbours(x, k, metric=metric, include_self=include_self)
    found = nearest_neighbours(x, k, metric=metric, include_self=include_self, backend="faiss")
    assert torch.equal(found.indices, exact.indices)
    torch.testing.assert_close(found.scores, exact.scores, rtol=1e-5, atol=2e-3)
