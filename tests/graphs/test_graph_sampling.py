"""Draws of neighbours from compressed rows."""

from __future__ import annotations

import pytest
import torch

from graphcl.graphs import draw_neighbours, sampled_rows, take_rows
from graphcl.graphs.sampling import draw_places
from graphcl.kernels import SparseMatrix


def rows_of_length(*lengths: int) -> SparseMatrix:
    """Row i holds columns 10 i, 10 i + 1, ..."""
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    columns = torch.cat([10 * i + torch.arange(length) for i, length in enumerate(lengths)])
    return SparseMatrix(offsets, columns, columns.float(), (len(lengths), 10 * len(lengths)))


def test_draws_repeat_only_where_a_node_has_too_few() -> None:
    drawn = draw_neighbours(rows_of_length(5, 2, 0, 3), 3, generator=torch.Generator().manual_seed(0))
    assert len(set(drawn[0].tolist())) == 3
    assert set(drawn[0].tolist()) <= set(range(5))
    assert set(drawn[1].tolist()) <= {10, 11}
    assert drawn[2].tolist() == [-1, -1, -1]
    assert sorted(drawn[3].tolist()) == [30, 31, 32]
    chosen = draw_neighbours(rows_of_length(5, 2), 1, nodes=torch.tensor([1, 1, 0]))
    assert [value // 10 for value in chosen[:, 0].tolist()] == [1, 1, 0]


def test_draws_are_uniform_and_follow_the_generator() -> None:
    matrix = rows_of_length(4, 2)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.cat([draw_neighbours(matrix, 3, generator=generator) for _ in range(2000)])
    counts = torch.bincount(drawn.flatten(), minlength=20)
    torch.testing.assert_close(counts[:4] / 2000, torch.full((4,), 0.75), atol=0.04, rtol=0)
    torch.testing.assert_close(counts[10:12] / 2000, torch.full((2,), 1.5), atol=0.08, rtol=0)
    first, second = (draw_neighbours(matrix, 3, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)


def test_draws_of_an_empty_matrix_and_bad_numbers() -> None:
    assert draw_neighbours(rows_of_length(0, 0), 2).tolist() == [[-1, -1], [-1, -1]]
    for call in (draw_neighbours, sampled_rows):
        with pytest.raises(ValueError, match="k must be at least 1, got 0"):
            call(rows_of_length(2), 0)


def test_sampled_rows_keep_values_and_short_rows() -> None:
    matrix = rows_of_length(5, 2, 0, 3)
    kept = sampled_rows(matrix, 3, generator=torch.Generator().manual_seed(0))
    assert kept.row_offsets.tolist() == [0, 3, 5, 5, 8]
    assert kept.values is not None
    assert torch.equal(kept.values, kept.columns.float())
    assert kept.columns[3:].tolist() == [10, 11, 30, 31, 32]
    assert sampled_rows(matrix, 5) is matrix
    assert sampled_rows(matrix, None) is matrix


def test_taken_rows_come_in_the_order_asked_for() -> None:
    matrix = rows_of_length(2, 0, 3)
    taken = take_rows(matrix, torch.tensor([2, 0, 2, 1]))
    assert taken.columns.tolist() == [20, 21, 22, 0, 1, 20, 21, 22]
    assert torch.equal(taken.to_dense(), matrix.to_dense()[[2, 0, 2, 1]])
    assert take_rows(matrix, torch.tensor([], dtype=torch.int64)).shape == (0, 30)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_places_are_distinct_in_range_and_uniform(k: int) -> None:
    sizes = torch.tensor([0, 1, k, k + 1, 9]).repeat(3000)
    places, drawn = draw_places(sizes, k, generator=torch.Generator().manual_seed(0))
    assert drawn.sum(dim=1).equal(sizes.clamp(max=k))
    for row in range(15):
        kept = places[row][drawn[row]].tolist()
        assert len(set(kept)) == len(kept)
        assert all(0 <= place < int(sizes[row]) for place in kept)
    for size in (k + 1, 9):
        of_size = places[sizes == size]
        share = torch.bincount(of_size.flatten(), minlength=size) / of_size.shape[0]
        torch.testing.assert_close(share, torch.full((size,), k / size), atol=0.03, rtol=0)
    with pytest.raises(ValueError, match="k must be at least 1"):
        draw_places(sizes, 0)
