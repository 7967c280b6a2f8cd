"""Sparse matrices: conversions, products and their gradients, normalisations against the papers' dense formulas."""

from __future__ import annotations

import copy
import gc
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
import scipy.sparse
import torch
from torch import Tensor
from torch_geometric.edge_index import EdgeIndex
from torch_geometric.nn import SimpleConv
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.utils import softmax as pyg_softmax

from graphcl.kernels import (
    Backend,
    Duplicates,
    FactoredMatrix,
    SparseMatrix,
    add_self_loops,
    aggregate,
    attention_spmm,
    factored_spmm,
    hypergraph_operator,
    normalize_by_row,
    normalize_symmetric,
    sddmm,
    shared_hyperedge_operator,
    spmm,
)

BACKENDS: list[Backend] = ["reference", "torch", "auto"]
# Five nodes, node 4 isolated; (0, 1) listed twice, rows out of order.
ROWS = torch.tensor([2, 0, 1, 0, 3, 2, 0])
COLUMNS = torch.tensor([3, 2, 0, 1, 2, 0, 1])
VALUES = torch.tensor([3.0, 2.0, 0.5, 1.0, 3.0, 2.0, 4.0], dtype=torch.float64)


def dense_of(rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    out = torch.zeros(shape, dtype=values.dtype)
    for row, column, value in zip(rows.tolist(), columns.tolist(), values.tolist(), strict=True):
        out[row, column] += value
    return out


def example(duplicates: Duplicates = "keep") -> SparseMatrix:
    return SparseMatrix.from_coo(ROWS, COLUMNS, VALUES, shape=(5, 5), duplicates=duplicates)


def symmetric_example() -> tuple[SparseMatrix, Tensor]:
    """Weighted undirected graph on five nodes, node 4 isolated."""
    edges = [(0, 1, 2.0), (0, 2, 1.0), (1, 2, 3.0), (2, 3, 0.5)]
    dense = torch.zeros(5, 5, dtype=torch.float64)
    for i, j, weight in edges:
        dense[i, j] = dense[j, i] = weight
    return SparseMatrix.from_torch(dense.to_sparse_csr()), dense


def random_matrix(seed: int, shape: tuple[int, int], entries: int, dtype: torch.dtype = torch.float64) -> SparseMatrix:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(0, shape[0], (entries,), generator=generator)
    columns = torch.randint(0, shape[1], (entries,), generator=generator)
    values = torch.randn(entries, generator=generator, dtype=torch.float64).to(dtype)
    return SparseMatrix.from_coo(rows, columns, values, shape=shape)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Construction and conversion


def test_coo_entries_are_sorted_by_row_then_column_and_kept() -> None:
    matrix = example()
    assert matrix.row_offsets.tolist() == [0, 3, 4, 6, 7, 7]
    assert matrix.columns.tolist() == [1, 1, 2, 0, 0, 3, 2]
    assert matrix.values is not None
    assert matrix.values.tolist() == [1.0, 4.0, 2.0, 0.5, 2.0, 3.0, 3.0]
    torch.testing.assert_close(matrix.to_dense(), dense_of(ROWS, COLUMNS, VALUES, (5, 5)))
    assert repr(matrix) == "SparseMatrix(5 x 5, 7 entries, float64, cpu)"


@pytest.mark.parametrize(("rule", "merged"), [("sum", 5.0), ("mean", 2.5), ("max", 4.0), ("min", 1.0), ("first", 1.0)])
def test_duplicates_merge_by_the_named_rule_with_gradient(rule: Duplicates, merged: float) -> None:
    values = VALUES.clone().requires_grad_()
    matrix = SparseMatrix.from_coo(ROWS, COLUMNS, values, shape=(5, 5), duplicates=rule)
    assert matrix.num_entries == 6
    assert matrix.to_dense()[0, 1].item() == merged
    assert matrix.to_dense()[2, 3].item() == 3.0
    share = {"sum": (1.0, 1.0), "mean": (0.5, 0.5), "max": (0.0, 1.0), "min": (1.0, 0.0), "first": (1.0, 0.0)}[rule]
    (gradient,) = torch.autograd.grad(matrix.to_dense()[0, 1], values)
    assert (gradient[3].item(), gradient[6].item()) == share
    assert example().coalesce(rule).to_dense().equal(matrix.to_dense())


def test_duplicates_without_values_and_refused() -> None:
    counted = SparseMatrix.from_coo(ROWS, COLUMNS, shape=(5, 5), duplicates="sum")
    assert counted.to_dense()[0].tolist() == [0.0, 2.0, 1.0, 0.0, 0.0]
    assert SparseMatrix.from_coo(ROWS, COLUMNS, shape=(5, 5), duplicates="max").values is None
    with pytest.raises(ValueError, match=r"rows and columns name \(0, 1\) more than once"):
        example("error")
    assert SparseMatrix.from_coo(ROWS[:4], COLUMNS[:4], shape=(5, 5), duplicates="error").num_entries == 4
    with pytest.raises(ValueError, match=r"duplicates must be one of keep, .* got 'drop'"):
        example("drop")  # type: ignore[arg-type]
    assert set(get_args(Duplicates)) == {"keep", "sum", "mean", "max", "min", "first", "error"}


def test_edge_index_points_from_source_to_target() -> None:
    edge_index = torch.tensor([[0, 0, 2], [1, 2, 1]])
    weight = torch.tensor([1.0, 2.0, 3.0])
    matrix = SparseMatrix.from_edge_index(edge_index, weight, num_nodes=3)
    dense = torch.zeros(3, 3)
    for source, target, value in zip(*edge_index.tolist(), weight.tolist(), strict=True):
        dense[target, source] = value
    assert torch.equal(matrix.to_dense(), dense)
    back, back_weight = matrix.to_edge_index()
    assert back_weight is not None
    again = SparseMatrix.from_edge_index(back, back_weight, num_nodes=3)
    assert torch.equal(again.to_dense(), dense)
    assert back[1].tolist() == sorted(back[1].tolist())
    bipartite = SparseMatrix.from_edge_index(torch.tensor([[4], [1]]), num_nodes=(5, 2))
    assert bipartite.shape == (2, 5)
    with pytest.raises(ValueError, match=r"edge_index must have shape \(2, edges\), got shape \(3, 2\)"):
        SparseMatrix.from_edge_index(torch.zeros(3, 2, dtype=torch.int64), num_nodes=3)


def test_pyg_edge_index_class_and_message_passing_agree() -> None:
    matrix = random_matrix(1, (6, 6), 20)
    edge_index, weight = matrix.to_edge_index()
    typed = EdgeIndex(edge_index, sparse_size=(6, 6), sort_order="col")
    typed.validate()
    h = randn(6, 4)
    out = SparseMatrix.from_edge_index(typed, weight, num_nodes=6) @ h

    expected = SimpleConv(aggr="sum")(h, edge_index, weight)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(typed.matmul(h, weight, transpose=True), expected)


def test_torch_and_scipy_round_trips() -> None:
    matrix = example()
    dense = matrix.to_dense()
    assert torch.equal(matrix.to_torch().to_dense(), dense)
    assert torch.equal(SparseMatrix.from_torch(matrix.to_torch()).to_dense(), dense)
    coo = torch.sparse_coo_tensor(torch.stack([ROWS, COLUMNS]), VALUES, (5, 5))
    assert SparseMatrix.from_torch(coo).num_entries == 6
    assert torch.equal(SparseMatrix.from_torch(coo).to_dense(), dense)
    np.testing.assert_array_equal(matrix.to_scipy().toarray(), dense.numpy())
    for kind in (scipy.sparse.csr_array, scipy.sparse.coo_array, scipy.sparse.csc_array):
        assert torch.equal(SparseMatrix.from_scipy(kind(dense.numpy())).to_dense(), dense)
    repeated = scipy.sparse.coo_array((VALUES.numpy(), (ROWS.numpy(), COLUMNS.numpy())), shape=(5, 5))
    assert SparseMatrix.from_scipy(repeated).num_entries == 7
    assert SparseMatrix.from_scipy(repeated, duplicates="sum").num_entries == 6
    with pytest.raises(TypeError, match="matrix must be a SciPy sparse array, got ndarray"):
        SparseMatrix.from_scipy(dense.numpy())
    with pytest.raises(ValueError, match=r"tensor must be a sparse_csr or sparse_coo matrix, got torch\.strided"):
        SparseMatrix.from_torch(dense)


def test_importing_the_kernels_loads_neither_pyg_nor_torch_scatter() -> None:
    script = "import sys, graphcl.kernels; print([m for m in ('torch_geometric', 'torch_scatter') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_transpose_is_cached_and_carries_values_and_gradients() -> None:
    matrix = random_matrix(2, (4, 6), 15)
    assert torch.equal(matrix.T.to_dense(), matrix.to_dense().T)
    assert torch.equal(matrix.T.T.to_dense(), matrix.to_dense())
    assert matrix.T.pattern is matrix.T.pattern
    assert matrix.T.T.pattern is matrix.pattern
    assert matrix.with_values(None).T.pattern is matrix.T.pattern
    alone = random_matrix(2, (4, 6), 15).T  # what it was turned from is gone
    gc.collect()
    assert torch.equal(alone.T.to_dense(), matrix.to_dense())
    assert matrix.values is not None
    values = matrix.values.clone().requires_grad_()
    upstream = randn(6, 4)
    (gradient,) = torch.autograd.grad((matrix.with_values(values).T.to_dense() * upstream).sum(), values)
    torch.testing.assert_close(gradient, upstream[matrix.columns, matrix.pattern.rows])


def test_values_changed_in_place_are_seen_by_the_transpose() -> None:
    matrix = random_matrix(2, (4, 6), 15)
    assert matrix.values is not None
    before = matrix.T.to_dense()
    matrix.values.mul_(2.0)
    assert torch.equal(matrix.T.to_dense(), 2 * before)


def test_copies_and_pickles_keep_the_matrix() -> None:
    matrix = example()
    _ = matrix.T
    for twin in (copy.deepcopy(matrix), pickle.loads(pickle.dumps(matrix))):
        assert torch.equal(twin.to_dense(), matrix.to_dense())
        assert torch.equal(twin.T.to_dense(), matrix.to_dense().T)


def test_sums_scaling_and_moving() -> None:
    matrix = example()
    dense = matrix.to_dense()
    torch.testing.assert_close(matrix.row_sums(), dense.sum(1))
    torch.testing.assert_close(matrix.column_sums(), dense.sum(0))
    unweighted = matrix.with_values(None)
    assert unweighted.row_sums().tolist() == [3.0, 1.0, 2.0, 1.0, 0.0]
    assert unweighted.column_sums().tolist() == [2.0, 2.0, 2.0, 1.0, 0.0]
    left, right = randn(5, seed=1), randn(5, seed=2)
    torch.testing.assert_close(matrix.scale(left, right).to_dense(), left[:, None] * dense * right)
    torch.testing.assert_close(
        unweighted.scale(columns=right).to_dense(), unweighted.to_dense().double() * right, check_dtype=False
    )
    with pytest.raises(ValueError, match=r"rows must have shape \(5,\), got shape \(4,\)"):
        matrix.scale(rows=left[:4])
    narrow = matrix.to(torch.float32)
    assert narrow.values is not None
    assert narrow.values.dtype == torch.float32
    assert matrix.to("cpu") is matrix
    assert unweighted.to(torch.float32) is unweighted
    assert matrix.to("meta").device.type == "meta"


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: SparseMatrix(torch.tensor([0, 1]), torch.tensor([3]), None, (1, 3)), IndexError, "columns holds 3"),
        (lambda: SparseMatrix(torch.tensor([0, 1]), torch.tensor([2**31]), None, (1, 3)), IndexError, "2147483648"),
        (
            lambda: SparseMatrix(torch.tensor([0, 2**31 + 1]), torch.tensor([0]), None, (1, 3)),
            ValueError,
            r"row_offsets must end at 1 \(the number of columns\), got 2147483649",
        ),
        (
            lambda: SparseMatrix(torch.tensor([0, 2, 1, 3]), torch.tensor([0, 0, 0]), None, (3, 1)),
            ValueError,
            r"row_offsets must not fall, got row_offsets\[1\] = 2 and row_offsets\[2\] = 1",
        ),
        (lambda: SparseMatrix(torch.tensor([0, 1]), torch.tensor([0]), None, (2, 3)), ValueError, r"shape \(3,\)"),
        (
            lambda: SparseMatrix(torch.tensor([0.0, 1.0]), torch.tensor([0]), None, (1, 3)),
            TypeError,
            "row_offsets must be int64 or int32, got dtype torch.float32",
        ),
        (
            lambda: SparseMatrix(torch.tensor([0, 1]), torch.tensor([0]), torch.ones(2), (1, 3)),
            ValueError,
            r"values must have shape \(1,\), got shape \(2,\)",
        ),
        (
            lambda: SparseMatrix(torch.tensor([0, 1]), torch.tensor([0]), torch.ones(1).bool(), (1, 3)),
            TypeError,
            "values must be a tensor of real numbers, got dtype torch.bool",
        ),
        (lambda: SparseMatrix(torch.tensor([0]), torch.tensor([]).long(), None, (-1, 3)), ValueError, r"\(-1, 3\)"),
        (lambda: SparseMatrix.from_coo(ROWS, COLUMNS, shape=(3, 5)), IndexError, r"rows holds 3, outside 0 .. 2"),
        (lambda: SparseMatrix.from_coo(ROWS, -COLUMNS, shape=(5, 5)), IndexError, r"columns holds -3"),
        (lambda: SparseMatrix.from_coo(ROWS, COLUMNS[:3], shape=(5, 5)), ValueError, r"columns must have shape \(7,\)"),
    ],
)
def test_malformed_matrices_are_named(build: Callable[[], SparseMatrix], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build()


def test_construction_check_can_be_switched_off() -> None:
    unread = SparseMatrix(torch.tensor([0, 1]), torch.tensor([7]), None, (1, 3), check=False)
    assert unread.columns.tolist() == [7]


# spmm and sddmm


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("trailing", [(), (1,), (5,), (2, 3)], ids=str)
def test_spmm_equals_the_dense_product(trailing: tuple[int, ...], weighted: bool, backend: Backend) -> None:
    matrix = random_matrix(4, (7, 5), 30)
    matrix = matrix if weighted else matrix.with_values(None)
    h = randn(5, *trailing)
    expected = torch.tensordot(matrix.to_dense().double(), h, dims=1)
    out = spmm(matrix, h, backend=backend)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("needs", [(True, False), (False, True), (True, True)])
def test_spmm_gradients(needs: tuple[bool, bool], backend: Backend) -> None:
    """Random upstream gradient; values alone, the dense operand alone, both."""
    matrix = random_matrix(5, (4, 5), 9)  # holds duplicates and an empty row
    assert matrix.values is not None
    values = matrix.values.clone().requires_grad_(needs[0])
    h = randn(5, 3).requires_grad_(needs[1])
    upstream = randn(4, 3, seed=9)
    assert torch.autograd.gradcheck(
        lambda v, x: (spmm(matrix.with_values(v), x, backend=backend) * upstream).sum(), (values, h)
    )


@pytest.mark.parametrize("width", [1, 3])
def test_second_derivatives_of_the_products(width: int) -> None:
    matrix = random_matrix(5, (4, 5), 9)
    values = matrix.entry_values().clone().requires_grad_()
    h, x = randn(5, width).requires_grad_(), randn(4, width, seed=1).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda v, y: spmm(matrix.with_values(v), y), (values, h))
    assert torch.autograd.gradgradcheck(lambda a, b: sddmm(matrix, a, b), (x, h))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("needs", [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("width", [1, 3])
def test_sddmm_gradients(width: int, needs: tuple[bool, bool], backend: Backend) -> None:
    pattern = random_matrix(6, (4, 5), 11)
    x = randn(4, width).requires_grad_(needs[0])
    y = randn(5, width, seed=1).requires_grad_(needs[1])
    left, right = x.detach(), y.detach()
    expected = torch.tensor(
        [float(left[i] @ right[j]) for i, j in zip(pattern.pattern.rows, pattern.columns, strict=True)]
    )
    torch.testing.assert_close(sddmm(pattern, x, y, backend=backend), expected.double(), rtol=1e-6, atol=1e-6)
    upstream = randn(11, seed=2)
    assert torch.autograd.gradcheck(lambda a, b: (sddmm(pattern, a, b, backend=backend) * upstream).sum(), (x, y))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("width", [1, 16, 65])
def test_error_of_the_products_is_at_most_that_of_the_reference(width: int, dtype: torch.dtype) -> None:
    matrix = random_matrix(7, (50, 40), 600, dtype)
    h, x = randn(40, width).to(dtype), randn(50, width, seed=3).to(dtype)
    assert matrix.values is not None
    slack = 32 * torch.finfo(dtype).eps
    for name in ("spmm", "sddmm"):
        leaves = {}
        for kind in ("truth", "reference", "torch"):
            target = torch.float64 if kind == "truth" else dtype
            backend: Backend = "torch" if kind == "torch" else "reference"
            values, dense, left = (t.to(target).requires_grad_() for t in (matrix.values, h, x))
            if name == "spmm":
                out = spmm(matrix.with_values(values), dense, backend=backend)
                inputs = [values, dense]
            else:
                out = sddmm(matrix, left, dense, backend=backend)
                inputs = [left, dense]
            upstream = randn(*out.shape, seed=4).to(dtype).to(target)
            leaves[kind] = [part.double() for part in (out, *torch.autograd.grad(out, inputs, upstream))]
        for truth, plain, mine in zip(leaves["truth"], leaves["reference"], leaves["torch"], strict=True):
            assert ((mine - truth).abs() <= (plain - truth).abs() + slack * (1 + truth.abs().max())).all()


def test_sddmm_in_tiles_equals_one_tile() -> None:
    pattern = random_matrix(8, (20, 30), 100)
    x, y = randn(20, 8).bfloat16(), randn(30, 8, seed=1).bfloat16()
    whole = sddmm(pattern, x, y)
    for budget in (1, 96 * 7, 2**20):
        assert torch.equal(sddmm(pattern, x, y, memory_budget=budget), whole)
    with pytest.raises(ValueError, match="memory_budget must be at least 1 byte, got 0"):
        sddmm(pattern, x, y, memory_budget=0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_products_of_zero_size(dtype: torch.dtype, backend: Backend) -> None:
    empty = SparseMatrix(torch.zeros(4, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), None, (3, 2))
    h = torch.ones(2, 4, dtype=dtype, requires_grad=True)
    out = spmm(empty, h, backend=backend)
    assert torch.equal(out, torch.zeros(3, 4, dtype=dtype))
    (gradient,) = torch.autograd.grad(out.sum(), h)
    assert torch.equal(gradient, torch.zeros(2, 4, dtype=dtype))
    assert sddmm(empty, torch.ones(3, 4, dtype=dtype), h, backend=backend).shape == (0,)
    matrix = SparseMatrix(torch.tensor([0, 1, 2, 2]), torch.tensor([0, 1]), torch.ones(2, dtype=dtype), (3, 2))
    assert spmm(matrix, torch.ones(2, 0, dtype=dtype), backend=backend).shape == (3, 0)
    no_width = sddmm(matrix, torch.ones(3, 0, dtype=dtype), torch.ones(2, 0, dtype=dtype), backend=backend)
    assert no_width.tolist() == [0.0, 0.0]
    no_rows = SparseMatrix(torch.tensor([0]), torch.zeros(0, dtype=torch.int64), None, (0, 2))
    assert spmm(no_rows, torch.ones(2, 4, dtype=dtype), backend=backend).shape == (0, 4)
    no_columns = SparseMatrix(torch.tensor([0, 0]), torch.zeros(0, dtype=torch.int64), None, (1, 0))
    assert spmm(no_columns, torch.ones(0, 4, dtype=dtype), backend=backend).tolist() == [[0.0] * 4]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_strided_operands_and_upstream_gradients(dtype: torch.dtype) -> None:
    matrix = random_matrix(9, (6, 8), 25, dtype)
    wide = randn(10, 8).to(dtype)[::2].requires_grad_()  # (5, 8), passed transposed
    plain = wide.detach().T.contiguous().requires_grad_()
    upstream = randn(10, 6, seed=2).to(dtype)[::2].T
    (first,) = torch.autograd.grad(spmm(matrix, wide.T), wide, upstream)
    (second,) = torch.autograd.grad(spmm(matrix, plain), plain, upstream.contiguous())
    torch.testing.assert_close(first.T, second)
    left = randn(4, 6, seed=3).to(dtype).T
    torch.testing.assert_close(sddmm(matrix, left, wide.T[:, :4]), sddmm(matrix, left.contiguous(), plain[:, :4]))


def test_integer_products_are_exact() -> None:
    big = 2**53 + 1
    matrix = SparseMatrix(torch.tensor([0, 2, 2]), torch.tensor([1, 0]), torch.tensor([1, 2]), (2, 2))
    assert (matrix @ torch.tensor([[1], [big]])).tolist() == [[big + 2], [0]]


def test_rows_past_2_to_the_31_elements() -> None:
    """The last row starts past element 2^31 (untouched virtual memory before it): 32-bit offsets would wrap."""
    size = 2**27 + 2
    dense = torch.empty(size, 16)
    dense[0], dense[-1] = 1.0, 3.0
    matrix = SparseMatrix(torch.tensor([0, 1, 2]), torch.tensor([size - 1, 0]), torch.tensor([2.0, 5.0]), (2, size))
    values = matrix.entry_values().clone().requires_grad_()
    out = spmm(matrix.with_values(values), dense)
    assert out[:, 15].tolist() == [6.0, 5.0]
    (gradient,) = torch.autograd.grad(out.sum(), values)
    assert gradient.tolist() == [48.0, 16.0]
    assert sddmm(matrix, torch.ones(2, 16), dense).tolist() == [48.0, 16.0]


def test_products_repeat_to_the_bit_under_deterministic_algorithms() -> None:
    matrix = random_matrix(10, (300, 400), 9_000, torch.float32)
    values = matrix.entry_values().clone().requires_grad_()
    h = randn(400, 32).float().requires_grad_()
    torch.use_deterministic_algorithms(True)
    try:
        outs = [spmm(matrix.with_values(values), h) for _ in range(2)]
        gradients = [torch.autograd.grad(out.square().sum(), (values, h)) for out in outs]
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(outs[0], outs[1])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_permuting_nodes_permutes_the_product() -> None:
    matrix = random_matrix(12, (8, 8), 30)
    h = randn(8, 3)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    place = torch.argsort(order)
    edge_index, weight = matrix.to_edge_index()
    shuffled = SparseMatrix.from_edge_index(place[edge_index], weight, num_nodes=8)
    torch.testing.assert_close(shuffled @ h[order], (matrix @ h)[order])
    for normalize in (normalize_by_row, normalize_symmetric):
        plain = normalize(matrix.with_values(weight.abs() if weight is not None else None))
        turned = normalize(shuffled.with_values(shuffled.entry_values().abs()))
        torch.testing.assert_close(turned @ h[order], (plain @ h)[order])


def test_bad_operands_are_named() -> None:
    matrix = example()
    with pytest.raises(ValueError, match=r"dense must have shape \(5, ...\), got shape \(4, 2\)"):
        spmm(matrix, torch.ones(4, 2))
    with pytest.raises(TypeError, match=r"dense has dtype torch.float32 but the values of matrix have torch.float64"):
        spmm(matrix, torch.ones(5, 2))
    with pytest.raises(TypeError, match=r"dense must be a tensor of real numbers, got dtype torch.complex64"):
        spmm(matrix, torch.ones(5, 2, dtype=torch.complex64))
    with pytest.raises(ValueError, match="dense is on meta but the matrix is on cpu"):
        spmm(matrix, torch.ones(5, 2, device="meta"))
    with pytest.raises(ValueError, match=r"backend must be one of .* got 'cuda'"):
        spmm(matrix, randn(5, 2), backend="cuda")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"same number of columns, got shapes \(5, 2\) and \(5, 3\)"):
        sddmm(matrix, torch.ones(5, 2), torch.ones(5, 3))
    with pytest.raises(TypeError, match=r"x and y must share one float dtype, got torch.float32 and torch.int64"):
        sddmm(matrix, torch.ones(5, 2), torch.ones(5, 2, dtype=torch.int64))


# Message passing


@pytest.mark.parametrize("reduce", ["sum", "mean"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_aggregate_fuses_edge_weights(reduce: str, backend: Backend) -> None:
    matrix = random_matrix(13, (5, 6), 12)
    weight = randn(12, seed=1).requires_grad_()
    h = randn(6, 2, seed=2).requires_grad_()
    values = matrix.entry_values()
    expected = torch.zeros(5, 2, dtype=torch.float64)
    for entry, (i, j) in enumerate(zip(matrix.pattern.rows.tolist(), matrix.columns.tolist(), strict=True)):
        expected[i] += (values[entry] * weight[entry] * h[j]).detach()
    if reduce == "mean":
        expected /= matrix.row_offsets.diff().clamp(min=1).unsqueeze(1)

    def run(w: Tensor, x: Tensor) -> Tensor:
        return aggregate(matrix, x, w, reduce=reduce, backend=backend)  # type: ignore[arg-type]

    torch.testing.assert_close(run(weight, h), expected)
    upstream = randn(5, 2, seed=3)
    assert torch.autograd.gradcheck(lambda w, x: (run(w, x) * upstream).sum(), (weight, h))
    bare = aggregate(matrix.with_values(None), h, weight, backend=backend)
    torch.testing.assert_close(bare, spmm(matrix.with_values(weight), h))


def test_aggregate_names_bad_arguments() -> None:
    with pytest.raises(ValueError, match="reduce must be 'sum' or 'mean', got 'max'"):
        aggregate(example(), randn(5, 2), reduce="max")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"edge_weight must have shape \(7,\), got shape \(2,\)"):
        aggregate(example(), randn(5, 2), randn(2))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("heads", [None, 1, 3])
def test_attention_equals_gathered_messages(heads: int | None, backend: Backend) -> None:
    matrix = random_matrix(14, (5, 6), 12)
    head_shape = () if heads is None else (heads,)
    scores = randn(12, *head_shape, seed=1).requires_grad_()
    h = randn(6, *head_shape, 2, seed=2).requires_grad_()
    upstream = randn(5, *head_shape, 2, seed=3)
    alpha = pyg_softmax(scores.detach(), matrix.pattern.rows, num_nodes=5)
    messages = alpha.unsqueeze(-1) * h.detach()[matrix.columns]
    expected = torch.zeros(5, *head_shape, 2, dtype=torch.float64).index_add_(0, matrix.pattern.rows, messages)
    torch.testing.assert_close(attention_spmm(matrix, scores, h, backend=backend), expected, rtol=1e-9, atol=1e-9)
    assert torch.autograd.gradcheck(
        lambda s, x: (attention_spmm(matrix, s, x, backend=backend) * upstream).sum(), (scores, h)
    )


def test_attention_edge_cases() -> None:
    matrix = example()
    masked = torch.full((7,), -float("inf"), dtype=torch.float64)
    assert torch.equal(attention_spmm(matrix, masked, randn(5, 2)), torch.zeros(5, 2, dtype=torch.float64))
    assert attention_spmm(matrix, torch.zeros(7, 0), torch.zeros(5, 0, 2)).shape == (5, 0, 2)
    with pytest.raises(ValueError, match=r"scores must have shape \(7,\) or \(7, heads\), got shape \(6,\)"):
        attention_spmm(matrix, torch.zeros(6), torch.zeros(5, 2))
    with pytest.raises(ValueError, match=r"dense must have shape \(nodes, 2, d\) to match scores, got .*\(5, 3, 4\)"):
        attention_spmm(matrix, torch.zeros(7, 2), torch.zeros(5, 3, 4))


# Factored products


def test_factored_product_equals_the_formed_one() -> None:
    left, right = random_matrix(15, (4, 6), 10), random_matrix(16, (6, 5), 12)
    scale = randn(6, seed=1)
    product = FactoredMatrix([left, scale, right])
    dense = left.to_dense() @ torch.diag(scale) @ right.to_dense()
    h = randn(5, 3)
    assert product.shape == (4, 5)
    torch.testing.assert_close(product @ h, dense @ h)
    torch.testing.assert_close(product.T @ randn(4, 3), dense.T @ randn(4, 3))
    torch.testing.assert_close(product.to_dense(), dense)
    torch.testing.assert_close(product.row_sums(), dense.sum(1))
    torch.testing.assert_close(factored_spmm([left, scale, right], h[:, 0]), dense @ h[:, 0])
    square = FactoredMatrix([left, left.T], diagonal=randn(4, seed=2))
    expected = left.to_dense() @ left.to_dense().T + torch.diag(randn(4, seed=2))
    torch.testing.assert_close(square.to_dense(), expected)
    torch.testing.assert_close(square.T @ randn(4, 2, 2), torch.tensordot(expected.T, randn(4, 2, 2), dims=1))
    assert square.to("cpu").shape == (4, 4)
    assert repr(FactoredMatrix([left, scale])).endswith("cpu) @ diagonal)")


def test_factored_product_of_constants_has_the_gradient_of_the_formed_one() -> None:
    ratings = SparseMatrix.from_coo(
        torch.tensor([0, 0, 1, 3]),
        torch.tensor([0, 2, 1, 2]),
        torch.tensor([1.0, 2.0, 3.0, 4.0]).double(),
        shape=(4, 3),
    )
    product = FactoredMatrix([randn(4, seed=1), ratings, ratings.T, randn(4, seed=2)], diagonal=randn(4, seed=3))
    x, upstream = randn(4, 2, seed=4).requires_grad_(), randn(4, 2, seed=5)
    before = x.detach().clone()
    assert torch.autograd.gradcheck(lambda x: ((product @ x) * upstream).sum(), (x,))
    assert torch.autograd.gradgradcheck(lambda x: ((product @ x).square() * upstream).sum(), (x,))
    (found,) = torch.autograd.grad(product @ x, x, upstream)
    torch.testing.assert_close(found, product.to_dense().T @ upstream)
    assert torch.equal(x, before)


def test_factored_product_gradients() -> None:
    matrix = random_matrix(17, (4, 3), 7)
    values = matrix.entry_values().clone().requires_grad_()
    scale, own = randn(3, seed=1).requires_grad_(), randn(4, seed=2).requires_grad_()
    h = randn(4, 2).requires_grad_()
    upstream = randn(4, 2, seed=5)

    def run(v: Tensor, s: Tensor, o: Tensor, x: Tensor) -> Tensor:
        weighted = matrix.with_values(v)
        return ((FactoredMatrix([weighted, s, weighted.T], o) @ x) * upstream).sum()

    assert torch.autograd.gradcheck(run, (values, scale, own, h))


def test_factors_that_do_not_chain_are_named() -> None:
    left = random_matrix(15, (4, 6), 10)
    with pytest.raises(ValueError, match=r"factors\[1\] must have 6 rows to follow factors\[0\], got 4"):
        FactoredMatrix([left, left])
    with pytest.raises(ValueError, match="factors must hold at least one factor, got none"):
        FactoredMatrix([])
    with pytest.raises(TypeError, match=r"factors\[0\] must be a SparseMatrix or a one-dimensional tensor, got shape"):
        FactoredMatrix([torch.ones(2, 2)])
    with pytest.raises(ValueError, match=r"diagonal must have shape \(n,\) of a square n x n product"):
        FactoredMatrix([left], diagonal=torch.ones(4))
    with pytest.raises(ValueError, match=r"dense must have shape \(6, ...\), got shape \(4,\)"):
        FactoredMatrix([left]) @ torch.ones(4)


# Normalisations: the dense formula on five nodes, node 4 isolated


def inverse(x: Tensor, power: float) -> Tensor:
    return torch.diag(torch.tensor([0.0 if v == 0 else float(v) ** power for v in x], dtype=torch.float64))


def test_symmetric_normalisation_equals_the_formula_and_pyg() -> None:
    matrix, dense = symmetric_example()
    root = inverse(dense.sum(1), -0.5)
    torch.testing.assert_close(normalize_symmetric(matrix).to_dense(), root @ dense @ root)
    looped = dense + 2.0 * torch.eye(5, dtype=torch.float64)
    root = inverse(looped.sum(1), -0.5)
    torch.testing.assert_close(normalize_symmetric(matrix, self_loops=2.0).to_dense(), root @ looped @ root)
    directed = random_matrix(20, (6, 6), 14)
    directed = directed.with_values(directed.entry_values().abs()).coalesce()
    edge_index, weight = directed.to_edge_index()
    expected_index, expected_weight = gcn_norm(edge_index, weight, num_nodes=6, add_self_loops=False)
    expected = SparseMatrix.from_edge_index(expected_index, expected_weight, num_nodes=6)
    torch.testing.assert_close(normalize_symmetric(directed).to_dense(), expected.to_dense())


def test_bipartite_normalisation_equals_the_formula() -> None:
    ratings = SparseMatrix.from_coo(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), shape=(3, 4))
    dense = ratings.to_dense().double()
    expected = inverse(dense.sum(1), -0.5) @ dense @ inverse(dense.sum(0), -0.5)
    out = normalize_symmetric(ratings, bipartite=True).to_dense()
    torch.testing.assert_close(out.double(), expected, rtol=1e-6, atol=1e-7)
    with pytest.raises(ValueError, match=r"matrix must be square, got shape \(3, 4\)"):
        normalize_symmetric(ratings)
    with pytest.raises(ValueError, match=r"self_loops needs one kind of nodes, got 1.0 with bipartite=True"):
        normalize_symmetric(ratings, self_loops=1.0, bipartite=True)


def test_row_normalisation_and_self_loops_equal_the_formula() -> None:
    matrix, dense = symmetric_example()
    torch.testing.assert_close(normalize_by_row(matrix).to_dense(), inverse(dense.sum(1), -1.0) @ dense)
    looped = add_self_loops(matrix, 0.5)
    torch.testing.assert_close(looped.to_dense(), dense + 0.5 * torch.eye(5, dtype=torch.float64))
    assert add_self_loops(matrix.with_values(None)).values is None
    walk = normalize_by_row(add_self_loops(matrix))
    torch.testing.assert_close(walk.row_sums(), torch.ones(5, dtype=torch.float64))


def test_normalisations_differentiate_through_the_degrees_without_nan() -> None:
    matrix, _ = symmetric_example()
    values = matrix.entry_values().clone().requires_grad_()
    upstream = randn(5, 5)
    for normalize in (normalize_by_row, normalize_symmetric, lambda m: normalize_symmetric(m, bipartite=True)):
        assert torch.autograd.gradcheck(
            lambda v, f=normalize: (f(matrix.with_values(v)).to_dense() * upstream).sum(), (values,)
        )
    zero = torch.zeros(matrix.num_entries, dtype=torch.float64, requires_grad=True)
    out = normalize_symmetric(matrix.with_values(zero)).to_dense()
    (gradient,) = torch.autograd.grad(out.sum(), zero)
    assert torch.equal(out, torch.zeros_like(out))
    assert torch.isfinite(gradient).all()


def incidence_example() -> tuple[SparseMatrix, Tensor]:
    """Five nodes, four hyperedges: node 4 in none, hyperedge 3 empty, hyperedge 2 with one member."""
    dense = torch.zeros(5, 4, dtype=torch.float64)
    for node, hyperedge in [(0, 0), (1, 0), (2, 0), (1, 1), (3, 1), (2, 2)]:
        dense[node, hyperedge] = 1.0
    return SparseMatrix.from_torch(dense.to_sparse_csr()), dense


@pytest.mark.parametrize("weighted", [False, True])
def test_hypergraph_operator_equals_hgnn(weighted: bool) -> None:
    matrix, h = incidence_example()
    weight = torch.tensor([2.0, 0.5, 3.0, 1.0], dtype=torch.float64) if weighted else torch.ones(4).double()
    nodes = inverse((h * weight).sum(1), -0.5)
    expected = nodes @ h @ torch.diag(weight) @ inverse(h.sum(0), -1.0) @ h.T @ nodes
    operator = hypergraph_operator(matrix, weight if weighted else None)
    torch.testing.assert_close(operator.to_dense(), expected)
    x = randn(5, 3).requires_grad_()
    leaf = weight.clone().requires_grad_()
    upstream = randn(5, 3, seed=1)
    assert torch.autograd.gradcheck(lambda w, y: ((hypergraph_operator(matrix, w) @ y) * upstream).sum(), (leaf, x))
    with pytest.raises(ValueError, match=r"hyperedge_weight must have shape \(4,\), got shape \(5,\)"):
        hypergraph_operator(matrix, torch.ones(5))


@pytest.mark.parametrize("weighted", [False, True])
def test_shared_hyperedge_operators_equal_mmhcl(weighted: bool) -> None:
    matrix, h = incidence_example()
    if weighted:
        matrix = matrix.scale(rows=torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0], dtype=torch.float64))
        h = matrix.to_dense()
    shared = h @ h.T
    without = shared - torch.diag(shared.diagonal())
    users = shared_hyperedge_operator(matrix, normalization="row", keep_diagonal=False)
    torch.testing.assert_close(users.to_dense(), inverse(without.sum(1), -1.0) @ without, rtol=1e-12, atol=1e-12)
    root = inverse(shared.sum(1), -0.5)
    items = shared_hyperedge_operator(matrix, normalization="symmetric", keep_diagonal=True)
    torch.testing.assert_close(items.to_dense(), root @ shared @ root, rtol=1e-12, atol=1e-12)
    root = inverse(without.sum(1), -0.5)
    both = shared_hyperedge_operator(matrix, normalization="symmetric", keep_diagonal=False)
    torch.testing.assert_close(both.to_dense(), root @ without @ root, rtol=1e-12, atol=1e-12)
    plain = shared_hyperedge_operator(matrix.with_values(None), normalization="row", keep_diagonal=True)
    assert torch.isfinite(plain.to_dense()).all()
    with pytest.raises(ValueError, match="normalization must be 'row' or 'symmetric', got 'sym'"):
        shared_hyperedge_operator(matrix, normalization="sym", keep_diagonal=True)  # type: ignore[arg-type]


def test_scipy_cannot_write_into_a_matrix_with_duplicates() -> None:
    rows, columns = torch.tensor([0, 0, 1, 1]), torch.tensor([1, 1, 0, 0])
    matrix = SparseMatrix.from_coo(rows, columns, torch.ones(4), shape=(2, 2))
    exported = matrix.to_scipy()
    exported.sum_duplicates()
    exported.tolil()
    assert matrix.row_offsets.tolist() == [0, 2, 4]
    assert matrix.values is not None
    assert matrix.values.tolist() == [1.0] * 4
    merged = matrix.coalesce()
    assert np.shares_memory(merged.to_scipy().indices, merged.columns.numpy())


def test_more_parallel_edges_than_places() -> None:
    rows, columns = torch.tensor([0, 0, 0, 1, 1]), torch.zeros(5, dtype=torch.int64)
    values = torch.arange(1.0, 6.0, dtype=torch.float64, requires_grad=True)
    matrix = SparseMatrix.from_coo(rows, columns, values, shape=(2, 1))
    x, y = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).double(), torch.tensor([[5.0, 6.0]]).double()
    assert sddmm(matrix, x, y).tolist() == [17.0, 17.0, 17.0, 39.0, 39.0]
    (grad,) = torch.autograd.grad(spmm(matrix, y), values, x)
    assert grad.tolist() == [17.0, 17.0, 17.0, 39.0, 39.0]
