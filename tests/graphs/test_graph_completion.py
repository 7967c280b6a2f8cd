"""Links for nodes with few neighbours against sorting by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from graphcl.graphs import link_sparse_nodes
from graphcl.kernels import SparseMatrix, normalize_rows


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def random_graph(num: int, probability: float, *, weighted: bool = False) -> SparseMatrix:
    upper = torch.rand(num, num, generator=torch.Generator().manual_seed(0)).triu(1)
    dense = torch.where(upper > 1 - probability, upper if weighted else torch.ones_like(upper), 0.0)
    rows, columns = (dense + dense.T).nonzero(as_tuple=True)
    values = (dense + dense.T)[rows, columns] if weighted else None
    return SparseMatrix.from_coo(rows, columns, values, shape=(num, num))


def slow(adjacency: Tensor, x: Tensor, least: int, weight: float) -> Tensor:
    unit = normalize_rows(x)
    out = adjacency.clone()
    for i in range(x.shape[0]):
        missing = least - int((adjacency[i] != 0).sum())
        scores = [(-float(unit[i] @ unit[j]), j) for j in range(x.shape[0]) if j != i and adjacency[i, j] == 0]
        for score, j in sorted(scores)[: max(missing, 0)]:
            if score < 0:
                out[i, j] = out[j, i] = weight
    return out


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("least", [1, 4, 30])
def test_equals_sorting(least: int, weighted: bool) -> None:
    graph, x = random_graph(20, 0.1, weighted=weighted), drawn(1, 20, 5)
    x[3] = 0
    weight = float(graph.entry_values().mean())
    found = link_sparse_nodes(graph, x, least)
    torch.testing.assert_close(found.to_dense(), slow(graph.to_dense(), x, least, weight))
    assert (found.values is None) == (not weighted)
    full = found.to_dense() > 0
    assert bool((full == full.T).all())
    assert not bool(full.diagonal().any())
    assert not bool(full[3, graph.to_dense()[3] == 0].any())


def test_graphs_with_enough_links_are_returned() -> None:
    graph, x = random_graph(12, 0.9), drawn(1, 12, 5)
    assert link_sparse_nodes(graph, x, 2) is graph
    assert link_sparse_nodes(graph, x, 0) is graph
    nothing = torch.zeros(0, dtype=torch.int64)
    empty = SparseMatrix.from_coo(nothing, nothing, shape=(12, 12))
    assert link_sparse_nodes(empty, torch.zeros(12, 5), 3) is empty
    none = SparseMatrix.from_coo(nothing, nothing, shape=(0, 0))
    assert link_sparse_nodes(none, torch.zeros(0, 5), 3) is none


def test_a_graph_without_edges_becomes_one_of_neighbours() -> None:
    nothing = torch.zeros(0, dtype=torch.int64)
    for values in (None, torch.zeros(0)):
        found = link_sparse_nodes(SparseMatrix.from_coo(nothing, nothing, values, shape=(9, 9)), drawn(0, 9, 2), 1)
        assert bool((found.row_offsets.diff() > 0).any())
        assert bool((found.entry_values() == 1).all())


def test_refusals() -> None:
    graph = random_graph(4, 0.5)
    with pytest.raises(ValueError, match="min_neighbors must be an integer of at least 0, got -1"):
        link_sparse_nodes(graph, torch.ones(4, 2), -1)
    with pytest.raises(ValueError, match=r"adjacency must have shape \(3, 3\), got \(4, 4\)"):
        link_sparse_nodes(graph, torch.ones(3, 2))
