"""Influence matrices against dense powers; cuts against sorting by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from graphcl.graphs.influence import influence_matrix
from graphcl.kernels import SparseMatrix


def random_graph(num: int, probability: float, seed: int, *, weighted: bool = False) -> SparseMatrix:
    generator = torch.Generator().manual_seed(seed)
    upper = torch.rand(num, num, generator=generator, dtype=torch.float64).triu(1)
    dense = torch.where(upper > 1 - probability, upper if weighted else torch.ones_like(upper), 0.0)
    dense = dense + dense.T
    rows, columns = dense.nonzero(as_tuple=True)
    return SparseMatrix.from_coo(rows, columns, dense[rows, columns], shape=(num, num))


def dense_influence(adjacency: SparseMatrix, order: int, accumulate: bool, self_loops: float) -> Tensor:
    walk = adjacency.to_dense() + self_loops * torch.eye(adjacency.shape[0], dtype=torch.float64)
    sums = walk.sum(1, keepdim=True)
    walk = torch.where(sums > 0, walk / sums.clamp(min=1e-300), 0.0)
    powers = [torch.linalg.matrix_power(walk, step + 1) for step in range(order)]
    return torch.stack(powers).sum(0) if accumulate else powers[-1]


def cut(row: Tensor, bound: int) -> Tensor:
    ranked = sorted(range(row.shape[0]), key=lambda j: (-float(row[j].float()), j))
    kept = torch.zeros_like(row)
    for j in ranked[:bound]:
        kept[j] = row[j]
    return kept


@pytest.mark.parametrize("accumulate", [True, False])
@pytest.mark.parametrize("order", [1, 2, 4])
@pytest.mark.parametrize("self_loops", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("block_entries", [1, 40, 2**24])
def test_equals_dense_powers(accumulate: bool, order: int, self_loops: float, block_entries: int) -> None:
    graph = random_graph(17, 0.12, 0, weighted=True)
    found = influence_matrix(graph, order, accumulate=accumulate, self_loops=self_loops, block_entries=block_entries)
    torch.testing.assert_close(found.to_dense(), dense_influence(graph, order, accumulate, self_loops))
    assert found.values is not None
    assert found.values.dtype == torch.float64
    columns = torch.split(found.columns, found.row_offsets.diff().tolist())
    assert all(bool((part.diff() > 0).all()) for part in columns)


@pytest.mark.parametrize("bound", [1, 3, 100])
@pytest.mark.parametrize("block_entries", [1, 30, 2**24])
def test_keeps_the_largest_and_the_lowest_columns_of_ties(bound: int, block_entries: int) -> None:
    # A ring: every row holds symmetric pairs of equal values.
    nodes = torch.arange(9)
    ring = torch.stack([nodes.repeat(2), torch.cat([nodes.roll(1), nodes.roll(-1)])])
    for graph in (
        SparseMatrix.from_edge_index(ring, torch.ones(18, dtype=torch.float64), num_nodes=9),
        random_graph(14, 0.3, 1),
    ):
        whole = influence_matrix(graph, 3).to_dense()
        expected = torch.stack([cut(row, bound) for row in whole])
        found = influence_matrix(graph, 3, max_entries=bound, block_entries=block_entries)
        torch.testing.assert_close(found.to_dense(), expected)
        assert int(found.row_offsets.diff().max()) <= bound


def test_cut_powers_hold_less_and_never_more_than_whole_ones() -> None:
    graph = random_graph(30, 0.2, 2)
    whole = influence_matrix(graph, 3).to_dense()
    approximate = influence_matrix(graph, 3, max_intermediate=5).to_dense()
    assert bool((approximate <= whole + 1e-12).all())
    assert 0 < float(approximate.sum()) < float(whole.sum())
    torch.testing.assert_close(influence_matrix(graph, 3, max_intermediate=30).to_dense(), whole)


def test_rows_sum_to_the_order_and_isolated_nodes_keep_themselves() -> None:
    graph = SparseMatrix.from_coo(torch.tensor([0, 1]), torch.tensor([1, 0]), shape=(4, 4))
    found = influence_matrix(graph, 3)
    torch.testing.assert_close(found.row_sums(), torch.full((4,), 3.0))
    assert found.to_dense()[2].tolist() == [0.0, 0.0, 3.0, 0.0]
    assert influence_matrix(graph, 3, self_loops=0.0).row_offsets.diff().tolist() == [2, 2, 0, 0]


def test_duplicate_edges_and_loops_add_up() -> None:
    twice = SparseMatrix.from_coo(torch.tensor([0, 0, 1]), torch.tensor([1, 1, 1]), shape=(2, 2))
    torch.testing.assert_close(influence_matrix(twice, 1).to_dense(), torch.tensor([[1 / 3, 2 / 3], [0.0, 1.0]]))


def test_graphs_without_nodes_or_edges() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    assert influence_matrix(SparseMatrix.from_coo(none, none, shape=(0, 0)), 2).num_entries == 0
    torch.testing.assert_close(
        influence_matrix(SparseMatrix.from_coo(none, none, shape=(2, 2)), 2).to_dense(), 2 * torch.eye(2)
    )


def test_bad_arguments_are_named() -> None:
    graph = random_graph(4, 0.9, 0)
    with pytest.raises(ValueError, match="order must be an integer of at least 1, got 0"):
        influence_matrix(graph, 0)
    with pytest.raises(ValueError, match="max_entries must be an integer of at least 1, got 0"):
        influence_matrix(graph, max_entries=0)
    with pytest.raises(ValueError, match="max_intermediate must be an integer of at least 1, got True"):
        influence_matrix(graph, max_intermediate=True)
    with pytest.raises(ValueError, match="block_entries"):
        influence_matrix(graph, block_entries=-1)
    with pytest.raises(ValueError, match=r"self_loops must not be negative, got -1"):
        influence_matrix(graph, self_loops=-1.0)
    with pytest.raises(ValueError, match="square"):
        influence_matrix(SparseMatrix.from_coo(torch.tensor([0]), torch.tensor([1]), shape=(2, 3)))
    with pytest.raises(ValueError, match="at least 0, got -1"):
        influence_matrix(
            SparseMatrix.from_coo(torch.tensor([0]), torch.tensor([1]), torch.tensor([-1.0]), shape=(2, 2))
        )
