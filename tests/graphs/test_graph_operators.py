"""Entries of sparse matrices kept by a mask, and unique places, against the general constructor."""

from __future__ import annotations

import pytest
import torch

from graphcl.graphs.operators import keep_entries, unique_pairs
from graphcl.kernels import SparseMatrix


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
@pytest.mark.parametrize("shape", [(7, 5), (1, 30), (30, 1), (2**40, 2**23)])
def test_unique_pairs_are_those_of_the_general_constructor(shape: tuple[int, int], dtype: torch.dtype) -> None:
    rows_of_offsets = min(shape[0], 40)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(rows_of_offsets, (200,), generator=generator).to(dtype)
    columns = torch.randint(min(shape[1], 40), (200,), generator=generator).to(dtype)
    before = rows.clone(), columns.clone()
    shape = rows_of_offsets, shape[1]
    got, want = (
        unique_pairs(rows, columns, shape),
        SparseMatrix.from_coo(rows, columns, shape=shape, duplicates="first"),
    )
    assert got.values is None
    assert torch.equal(got.row_offsets, want.row_offsets)
    assert torch.equal(got.columns, want.columns)
    assert torch.equal(rows, before[0])
    assert torch.equal(columns, before[1])


def test_places_beyond_64_bits_fall_back() -> None:
    found = unique_pairs(torch.tensor([2, 0, 2]), torch.tensor([2**62, 5, 2**62]), (3, 2**62 + 1))
    assert found.columns.tolist() == [5, 2**62]


def test_no_pairs_and_bad_pairs() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    assert unique_pairs(none, none, (2, 3)).num_entries == 0
    with pytest.raises(IndexError, match=r"rows holds 2, outside 0 \.\. 1"):
        unique_pairs(torch.tensor([2]), torch.tensor([0]), (2, 3))
    with pytest.raises(IndexError, match=r"columns holds -1, outside 0 \.\. 2"):
        unique_pairs(torch.tensor([1]), torch.tensor([-1]), (2, 3))
    with pytest.raises(TypeError, match="rows must be int64 or int32"):
        unique_pairs(torch.tensor([1.0]), torch.tensor([0]), (2, 3))
    with pytest.raises(ValueError, match="columns must have shape"):
        unique_pairs(torch.tensor([1]), torch.tensor([0, 0]), (2, 3))


def test_kept_entries_keep_their_order_and_gradient() -> None:
    values = torch.arange(1.0, 5.0, dtype=torch.float64).requires_grad_()
    matrix = SparseMatrix(torch.tensor([0, 2, 2, 4]), torch.tensor([3, 1, 0, 0]), values, (3, 4))
    kept = keep_entries(matrix, torch.tensor([True, False, True, True]))
    assert kept.row_offsets.tolist() == [0, 1, 1, 3]
    assert kept.columns.tolist() == [3, 0, 0]
    (gradient,) = torch.autograd.grad(kept.row_sums().sum(), values)
    assert gradient.tolist() == [1, 0, 1, 1]
    with pytest.raises(ValueError, match=r"kept must be bool of shape \(4,\), got torch.int64 \(4,\)"):
        keep_entries(matrix, torch.ones(4, dtype=torch.int64))
