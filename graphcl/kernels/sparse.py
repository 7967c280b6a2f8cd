"""Compressed sparse row matrices and their two products, differentiable in values and dense operands."""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, Literal, get_args, overload

import torch
from torch import Tensor

from graphcl.kernels._arguments import MEMORY_BUDGET
from graphcl.kernels._csr import CsrPattern, csr_matmul, offsets_of, sampled_dot, torch_csr
from graphcl.kernels.backends import Backend, check_backend, triton_for
from graphcl.kernels.segment import check_offsets, check_range, scatter_sum, segment_max, segment_mean, segment_min
from graphcl.kernels.segment import segment_sum as sum_segments

if TYPE_CHECKING:
    from scipy.sparse import csr_array

__all__ = ["Duplicates", "SparseMatrix", "sddmm", "spmm"]

Duplicates = Literal["keep", "sum", "mean", "max", "min", "first", "error"]
_INDEX_TYPES: Final = (torch.int64, torch.int32)


@dataclass(frozen=True, eq=False, repr=False)
class SparseMatrix:
    r"""A sparse matrix in compressed rows: offsets, columns, optional values, shape. Tensors are shared, never copied.

    Row ``i`` holds entries ``row_offsets[i] .. row_offsets[i + 1] - 1``; entry ``e`` stands in column ``columns[e]``
    with value ``values[e]``, or 1 where ``values`` is None. Several entries may stand at one place; products add them.

    The pattern (offsets, columns) caches the row of every entry and its transpose, and shares both with every matrix
    made by `with_values` and with ``matrix.T``. Gradients flow into ``values`` through every method. Not a tensor and
    not a module buffer: move it with `to`. Do not write into ``row_offsets`` or ``columns`` after construction.

    Args:
        row_offsets: ``(M + 1,)`` int64 (int32 is converted), from 0 to E, never falling.
        columns: ``(E,)`` int64 or int32, in ``0 .. N - 1``; any order within a row.
        values: ``(E,)`` numbers, or None for ones.
        shape: ``(M, N)``.
        check: test the values of offsets and columns.

    Raises:
        IndexError: a column outside ``0 .. N - 1``.
        ValueError, TypeError: a malformed argument, named with its value.

    Complexity: O(E + M) to check, O(1) without.

    >>> import torch
    >>> matrix = SparseMatrix(torch.tensor([0, 2, 3]), torch.tensor([0, 2, 1]), torch.tensor([1.0, 2.0, 3.0]), (2, 3))
    >>> matrix.to_dense()
    tensor([[1., 0., 2.],
            [0., 3., 0.]])
    >>> matrix.T @ torch.tensor([1.0, 1.0])
    tensor([1., 3., 2.])
    """

    row_offsets: Tensor
    columns: Tensor
    values: Tensor | None
    shape: tuple[int, int]
    check: InitVar[bool] = True
    pattern: CsrPattern = field(init=False)

    def __post_init__(self, check: bool) -> None:
        _check_shape(self.shape)
        _check_integers("row_offsets", self.row_offsets, self.shape[0] + 1)
        _check_integers("columns", self.columns, None)
        if self.columns.device != self.row_offsets.device:
            raise ValueError(f"columns is on {self.columns.device} but row_offsets is on {self.row_offsets.device}")
        offsets, columns = self.row_offsets.to(torch.int64), self.columns.to(torch.int64)
        if check:
            check_offsets("row_offsets", offsets, columns.shape[0], "columns")
            check_range("columns", columns, self.shape[1])
        if self.values is not None:
            _check_values("values", self.values, columns)
        object.__setattr__(self, "row_offsets", offsets)
        object.__setattr__(self, "columns", columns)
        object.__setattr__(self, "pattern", CsrPattern(offsets, columns, self.shape[1]))

    @classmethod
    def _on_pattern(cls, pattern: CsrPattern, values: Tensor | None) -> SparseMatrix:
        matrix = object.__new__(cls)
        shape = pattern.num_rows, pattern.num_columns
        fields = {"row_offsets": pattern.offsets, "columns": pattern.columns, "values": values, "shape": shape}
        for name, value in (fields | {"pattern": pattern}).items():
            object.__setattr__(matrix, name, value)
        return matrix

    # Construction

    @classmethod
    def from_coo(
        cls,
        rows: Tensor,
        columns: Tensor,
        values: Tensor | None = None,
        *,
        shape: tuple[int, int],
        duplicates: Duplicates = "keep",
        check: bool = True,
    ) -> SparseMatrix:
        """Matrix of listed entries, in any order; columns come out ascending within each row.

        Args:
            rows: ``(E,)`` integers in ``0 .. M - 1``.
            columns: ``(E,)`` integers in ``0 .. N - 1``.
            values: ``(E,)`` or None for ones.
            shape: ``(M, N)``.
            duplicates: entries at one place are kept side by side (``keep``: products add them), merged into their
                ``sum``, ``mean``, ``max`` or ``min``, reduced to the ``first`` listed, or refused (``error``). Merging
                an unweighted matrix by ``sum`` gives counts; by the others it stays unweighted.
            check: test the values of rows and columns.

        Raises:
            IndexError: a row or column out of range.
            ValueError, TypeError: a malformed argument, named with its value; duplicates under ``error``.

        Complexity: O(E + M): two stable radix sorts and a count.

        >>> import torch
        >>> twice = SparseMatrix.from_coo(torch.tensor([1, 1]), torch.tensor([0, 0]), shape=(2, 1), duplicates="sum")
        >>> twice.values
        tensor([2.])
        """
        _check_shape(shape)
        if duplicates not in get_args(Duplicates):
            raise ValueError(f"duplicates must be one of {', '.join(get_args(Duplicates))}, got {duplicates!r}")
        _check_integers("rows", rows, None)
        _check_integers("columns", columns, rows.shape[0])
        if columns.device != rows.device:
            raise ValueError(f"columns is on {columns.device} but rows is on {rows.device}")
        rows, columns = rows.to(torch.int64), columns.to(torch.int64)
        if values is not None:
            _check_values("values", values, columns)
        if check:
            check_range("rows", rows, shape[0])
            check_range("columns", columns, shape[1])
        order = torch.sort(columns, stable=True).indices
        order = order[torch.sort(rows[order], stable=True).indices]
        rows, columns = rows[order], columns[order]
        values = None if values is None else values.index_select(0, order)
        if duplicates != "keep":
            rows, columns, values = _merge(rows, columns, values, duplicates)
        return cls._on_pattern(CsrPattern(offsets_of(rows, shape[0]), columns, shape[1]), values)

    @classmethod
    def from_edge_index(
        cls,
        edge_index: Tensor,
        edge_weight: Tensor | None = None,
        *,
        num_nodes: int | tuple[int, int],
        duplicates: Duplicates = "keep",
        check: bool = True,
    ) -> SparseMatrix:
        """Matrix that passes messages along the edges of a PyG ``edge_index``: ``A[target, source]``.

        PyG sends messages from ``edge_index[0]`` (source j) to ``edge_index[1]`` (target i); so row i of A lists the
        sources of i, and ``spmm(A, h)[i] = sum_j w_ji h_j`` is PyG's sum aggregation.

        Args:
            edge_index: ``(2, E)`` integers, a tensor or PyG's ``EdgeIndex``.
            edge_weight: ``(E,)`` or None for ones.
            num_nodes: number of nodes, or ``(sources, targets)`` for two kinds of nodes, as PyG's ``size``.
            duplicates: what happens to parallel edges; see `from_coo`.
            check: test that the node numbers are in range.

        Complexity: O(E + nodes).

        >>> import torch
        >>> chain = SparseMatrix.from_edge_index(torch.tensor([[0, 1], [1, 2]]), num_nodes=3)
        >>> chain @ torch.tensor([1.0, 2.0, 4.0])
        tensor([0., 1., 2.])
        """
        if hasattr(edge_index, "as_tensor"):
            edge_index = edge_index.as_tensor()
        if edge_index.dim() != 2 or edge_index.shape[0] != 2:
            raise ValueError(f"edge_index must have shape (2, edges), got shape {tuple(edge_index.shape)}")
        sources, targets = (num_nodes, num_nodes) if isinstance(num_nodes, int) else num_nodes
        shape = targets, sources
        return cls.from_coo(edge_index[1], edge_index[0], edge_weight, shape=shape, duplicates=duplicates, check=check)

    @classmethod
    def from_torch(cls, tensor: Tensor) -> SparseMatrix:
        """Matrix of a ``torch.sparse_csr`` tensor (arrays shared) or ``torch.sparse_coo`` tensor (duplicates summed).

        >>> import torch
        >>> SparseMatrix.from_torch(torch.eye(2).to_sparse_csr()).columns
        tensor([0, 1])
        """
        if tensor.dim() != 2 or tensor.layout not in (torch.sparse_csr, torch.sparse_coo):
            raise ValueError(
                f"tensor must be a sparse_csr or sparse_coo matrix, got {tensor.layout} of shape {tuple(tensor.shape)}"
            )
        shape = tensor.shape[0], tensor.shape[1]
        if tensor.layout == torch.sparse_csr:
            return cls(tensor.crow_indices(), tensor.col_indices(), tensor.values(), shape)
        merged = tensor.coalesce()
        rows, columns = merged.indices()
        return cls.from_coo(rows, columns, merged.values(), shape=shape, check=False)

    @classmethod
    def from_scipy(cls, matrix: Any, *, duplicates: Duplicates = "keep") -> SparseMatrix:
        """Matrix of a SciPy sparse array or matrix of any format.

        >>> import scipy.sparse
        >>> SparseMatrix.from_scipy(scipy.sparse.csr_array([[0.0, 2.0]])).values
        tensor([2.], dtype=torch.float64)
        """
        if not hasattr(matrix, "tocoo"):
            raise TypeError(f"matrix must be a SciPy sparse array, got {type(matrix).__name__}")
        entries = matrix.tocoo()
        rows, columns, values = (torch.as_tensor(part) for part in (entries.row, entries.col, entries.data))
        height, width = (int(size) for size in matrix.shape)
        return cls.from_coo(rows, columns, values, shape=(height, width), duplicates=duplicates)

    # Conversion

    def to_edge_index(self) -> tuple[Tensor, Tensor | None]:
        """``edge_index`` (2, E), sources above targets and sorted by target, and the edge weights.

        ``EdgeIndex(edge_index, sparse_size=matrix.shape[::-1], sort_order="col")`` is PyG's own sorted form.
        """
        return torch.stack([self.columns, self.pattern.rows]), self.values

    def to_torch(self) -> Tensor:
        """``torch.sparse_csr`` tensor on the same arrays (ones where the matrix is unweighted)."""
        return torch_csr(self.row_offsets, self.columns, self.entry_values(), self.shape)

    def to_scipy(self) -> csr_array:
        """``scipy.sparse.csr_array``, on the same memory for CPU matrices whose columns ascend within rows.

        A matrix with unsorted columns or duplicates is copied: SciPy sorts and merges such arrays in place, even on
        the way to another format.
        """
        from scipy.sparse import csr_array

        arrays = (self.entry_values().detach(), self.columns, self.row_offsets)
        shared = csr_array(tuple(part.cpu().numpy() for part in arrays), shape=self.shape)
        return shared if shared.has_canonical_format else shared.copy()

    def to_dense(self) -> Tensor:
        """Dense (M, N) tensor, entries at one place added. O(M N) memory: for small matrices and tests."""
        values = self.entry_values()
        return values.new_zeros(self.shape).index_put((self.pattern.rows, self.columns), values, accumulate=True)

    @overload
    def to(self, target: torch.device | str) -> SparseMatrix: ...
    @overload
    def to(self, target: torch.dtype) -> SparseMatrix: ...
    def to(self, target: torch.device | str | torch.dtype) -> SparseMatrix:
        """Matrix on another device, or with values of another dtype (an unweighted matrix has none and is returned)."""
        if isinstance(target, torch.dtype):
            return self if self.values is None else self.with_values(self.values.to(target))
        if torch.device(target) == self.device:
            return self
        values = None if self.values is None else self.values.to(target)
        return SparseMatrix(self.row_offsets.to(target), self.columns.to(target), values, self.shape, check=False)

    # Derived matrices and vectors

    def with_values(self, values: Tensor | None) -> SparseMatrix:
        """The same pattern, caches included, with other values (E,)."""
        if values is not None:
            _check_values("values", values, self.columns)
        return SparseMatrix._on_pattern(self.pattern, values)

    @property
    def T(self) -> SparseMatrix:
        """Transpose, O(E + N) the first time and O(E) after (only the values move)."""
        transposed, _ = self.pattern.transpose()
        values = None if self.values is None else self.pattern.transposed_values(self.values)
        return SparseMatrix._on_pattern(transposed, values)

    def coalesce(self, duplicates: Duplicates = "sum") -> SparseMatrix:
        """Columns ascending within each row and entries at one place merged by the rule of `from_coo`."""
        return SparseMatrix.from_coo(
            self.pattern.rows, self.columns, self.values, shape=self.shape, duplicates=duplicates, check=False
        )

    def scale(self, rows: Tensor | None = None, columns: Tensor | None = None) -> SparseMatrix:
        """``diag(rows) A diag(columns)`` for factors (M,) and (N,), differentiable in both and in the values."""
        values = self.values
        for name, factor, index, size in (
            ("rows", rows, self.pattern.rows, self.shape[0]),
            ("columns", columns, self.columns, self.shape[1]),
        ):
            if factor is not None:
                if factor.shape != (size,):
                    raise ValueError(f"{name} must have shape ({size},), got shape {tuple(factor.shape)}")
                spread = factor.index_select(0, index)
                values = spread if values is None else values * spread
        return SparseMatrix._on_pattern(self.pattern, values)

    def row_sums(self) -> Tensor:
        """Sum of every row, (M,); the number of entries where the matrix is unweighted."""
        if self.values is None:
            return self.row_offsets.diff().to(torch.get_default_dtype())
        return sum_segments(self.values, self.row_offsets, check=False)

    def column_sums(self) -> Tensor:
        """Sum of every column, (N,); the number of entries where the matrix is unweighted."""
        if self.values is None:
            return torch.bincount(self.columns, minlength=self.shape[1]).to(torch.get_default_dtype())
        return scatter_sum(self.values, self.columns, self.shape[1], check=False)

    def entry_values(self) -> Tensor:
        """Values (E,), ones of the default dtype where the matrix is unweighted."""
        if self.values is not None:
            return self.values
        return torch.ones(self.num_entries, device=self.device)

    @property
    def num_entries(self) -> int:
        return self.columns.shape[0]

    @property
    def device(self) -> torch.device:
        return self.columns.device

    def __matmul__(self, dense: Tensor) -> Tensor:
        return spmm(self, dense)

    def __repr__(self) -> str:
        kind = "unweighted" if self.values is None else str(self.values.dtype).removeprefix("torch.")
        height, width = self.shape
        return f"SparseMatrix({height} x {width}, {self.num_entries} entries, {kind}, {self.device})"


def spmm(matrix: SparseMatrix, dense: Tensor, *, backend: Backend = "auto") -> Tensor:
    r"""Product of a sparse matrix and a dense one: sum aggregation with the edge weights fused in.

    .. math:: y_i = \sum_{e \in \text{row } i} a_e\, h_{c_e}

    Differentiable any number of times in ``matrix.values`` (an `sddmm`) and ``dense`` (a product with the cached
    transpose). No E x d temporary.

    Args:
        matrix: ``(M, N)``.
        dense: ``(N, ...)`` of the same dtype as the values.
        backend: ``reference`` forms the dense matrix; ``torch`` runs anywhere; ``triton`` on CUDA; ``auto`` picks
            ``triton`` on CUDA where it is installed, else ``torch``.

    Returns:
        ``(M, ...)``; an empty row is 0.

    Raises:
        ValueError, TypeError: shapes, dtypes or devices that do not fit, named with their values.

    Complexity: O(E d) time; O(M d) memory beside the inputs. The first backward pass sorts the columns, O(E + N).
    Deterministic on a CPU; on CUDA under ``torch.use_deterministic_algorithms(True)``.

    >>> import torch
    >>> path = SparseMatrix.from_edge_index(torch.tensor([[0, 1], [1, 0]]), torch.tensor([2.0, 3.0]), num_nodes=2)
    >>> spmm(path, torch.tensor([[1.0], [10.0]]))
    tensor([[30.],
            [ 2.]])
    """
    check_backend(backend)
    _check_operand("dense", dense, matrix.shape[1], matrix.device)
    if matrix.values is not None and matrix.values.dtype != dense.dtype:
        raise TypeError(f"dense has dtype {dense.dtype} but the values of matrix have {matrix.values.dtype}")
    flat = dense.reshape(dense.shape[0], dense.shape[1:].numel())
    if backend == "reference":
        values = dense.new_ones(matrix.num_entries) if matrix.values is None else matrix.values
        out = matrix.with_values(values).to_dense() @ flat
    else:
        out = _matmul(matrix.values, flat, matrix.pattern, _triton(backend, dense))
    return out.reshape(matrix.shape[0], *dense.shape[1:])


def sddmm(
    pattern: SparseMatrix,
    x: Tensor,
    y: Tensor,
    *,
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""Sampled product: inner products of rows of ``x`` and ``y`` at the entries of a pattern only.

    .. math:: s_e = \langle x_{r_e}, y_{c_e} \rangle

    Differentiable any number of times in ``x`` and ``y`` (each an `spmm`).

    Args:
        pattern: ``(M, N)``; its values are not read.
        x: ``(M, d)`` floating.
        y: ``(N, d)`` of the same dtype.
        memory_budget: bytes that gathered rows may take where they are needed (``torch`` with half types or on CUDA).
        backend: ``reference`` forms ``x y^T``; ``torch`` runs anywhere; ``triton`` on CUDA; ``auto`` picks ``triton``
            on CUDA where it is installed, else ``torch``.

    Returns:
        ``(E,)`` in the order of ``pattern.columns``; sums of half inputs are formed in float32.

    Raises:
        ValueError, TypeError: shapes, dtypes or devices that do not fit, named with their values.

    Complexity: O(E d) time; O(E) memory beside the inputs and the budget.

    >>> import torch
    >>> pattern = SparseMatrix(torch.tensor([0, 1, 2]), torch.tensor([1, 0]), None, (2, 2))
    >>> sddmm(pattern, torch.eye(2), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    tensor([3., 2.])
    """
    check_backend(backend)
    _check_operand("x", x, pattern.shape[0], pattern.device)
    _check_operand("y", y, pattern.shape[1], pattern.device)
    if x.dim() != 2 or y.dim() != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(
            f"x and y must be matrices with the same number of columns, "
            f"got shapes {tuple(x.shape)} and {tuple(y.shape)}"
        )
    if x.dtype != y.dtype or not x.is_floating_point():
        raise TypeError(f"x and y must share one float dtype, got {x.dtype} and {y.dtype}")
    if memory_budget < 1:
        raise ValueError(f"memory_budget must be at least 1 byte, got {memory_budget}")
    if backend == "reference":
        return (x @ y.T)[pattern.pattern.rows, pattern.columns]
    return _sample(x, y, pattern.pattern, memory_budget, _triton(backend, x))


def _triton(backend: Backend, dense: Tensor) -> ModuleType | None:
    return triton_for("triton_segment", backend, dense.device) if dense.is_floating_point() else None


def _matmul(values: Tensor | None, dense: Tensor, pattern: CsrPattern, triton: ModuleType | None) -> Tensor:
    out: Tensor = _MatMul.apply(values, dense, pattern, triton)  # type: ignore[no-untyped-call]
    return out


def _sample(x: Tensor, y: Tensor, pattern: CsrPattern, memory_budget: int, triton: ModuleType | None) -> Tensor:
    out: Tensor = _SampledDot.apply(x, y, pattern, memory_budget, triton)  # type: ignore[no-untyped-call]
    return out


class _MatMul(torch.autograd.Function):
    """d a_e = <d y_{r_e}, h_{c_e}>, d h = A^T d y. Both are again differentiable."""

    @staticmethod
    def forward(values: Tensor | None, dense: Tensor, pattern: CsrPattern, triton: ModuleType | None) -> Tensor:
        product = csr_matmul if triton is None else triton.csr_matmul
        out: Tensor = product(pattern.offsets, pattern.columns, values, dense)
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        values, dense, ctx.pattern, ctx.triton = inputs
        # Only the gradient of the values needs the dense operand.
        ctx.save_for_backward(values, dense if ctx.needs_input_grad[0] else None)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        values, dense = ctx.saved_tensors
        grad_values = grad_dense = None
        if ctx.needs_input_grad[0]:
            grad_values = _sample(grad, dense, ctx.pattern, MEMORY_BUDGET, ctx.triton)
        if ctx.needs_input_grad[1]:
            transposed, _ = ctx.pattern.transpose()
            turned = None if values is None else ctx.pattern.transposed_values(values)
            grad_dense = _matmul(turned, grad, transposed, ctx.triton)
        return grad_values, grad_dense, None, None


class _SampledDot(torch.autograd.Function):
    """d x = G y and d y = G^T x, where G holds d s on the pattern."""

    @staticmethod
    def forward(x: Tensor, y: Tensor, pattern: CsrPattern, memory_budget: int, triton: ModuleType | None) -> Tensor:
        return sampled_dot(pattern, x, y, memory_budget)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, y, ctx.pattern, _, ctx.triton = inputs
        ctx.save_for_backward(y if ctx.needs_input_grad[0] else None, x if ctx.needs_input_grad[1] else None)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        y, x = ctx.saved_tensors
        grad_x = grad_y = None
        if ctx.needs_input_grad[0]:
            grad_x = _matmul(grad, y, ctx.pattern, ctx.triton)
        if ctx.needs_input_grad[1]:
            transposed, order = ctx.pattern.transpose()
            grad_y = _matmul(grad.index_select(0, order), x, transposed, ctx.triton)
        return grad_x, grad_y, None, None, None


def _merge(
    rows: Tensor, columns: Tensor, values: Tensor | None, duplicates: Duplicates
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Entries sorted by place, one left per place."""
    is_first = torch.ones_like(rows, dtype=torch.bool)
    is_first[1:] = (rows[1:] != rows[:-1]) | (columns[1:] != columns[:-1])
    if duplicates == "error":
        repeated = torch.nonzero(~is_first)
        if repeated.numel() > 0:
            at = int(repeated[0, 0])
            raise ValueError(f"rows and columns name ({int(rows[at])}, {int(columns[at])}) more than once")
        return rows, columns, values
    first = torch.nonzero(is_first)[:, 0]
    offsets = torch.cat([first, first.new_tensor([rows.shape[0]])])
    if values is None:
        merged = offsets.diff().to(torch.get_default_dtype()) if duplicates == "sum" else None
    elif duplicates == "first":
        merged = values.index_select(0, first)
    else:
        reduce = {"sum": sum_segments, "mean": segment_mean, "max": segment_max, "min": segment_min}[duplicates]
        merged = reduce(values, offsets, check=False)
    return rows[first], columns[first], merged


def _check_shape(shape: tuple[int, int]) -> None:
    if len(shape) != 2 or any(isinstance(size, bool) or not isinstance(size, int) or size < 0 for size in shape):
        raise ValueError(f"shape must be two integers of at least 0, got {shape!r}")


def _check_integers(name: str, value: Tensor, length: int | None) -> None:
    if value.dtype not in _INDEX_TYPES:
        raise TypeError(f"{name} must be int64 or int32, got dtype {value.dtype}")
    if value.dim() != 1 or (length is not None and value.shape[0] != length):
        expected = "(entries,)" if length is None else f"({length},)"
        raise ValueError(f"{name} must have shape {expected}, got shape {tuple(value.shape)}")


def _check_values(name: str, values: Tensor, columns: Tensor) -> None:
    if values.shape != columns.shape:
        raise ValueError(f"{name} must have shape {tuple(columns.shape)}, got shape {tuple(values.shape)}")
    if values.dtype is torch.bool or values.is_complex():
        raise TypeError(f"{name} must be a tensor of real numbers, got dtype {values.dtype}")
    if values.device != columns.device:
        raise ValueError(f"{name} is on {values.device} but columns is on {columns.device}")


def _check_operand(name: str, value: Tensor, num_rows: int, device: torch.device) -> None:
    if value.dim() == 0 or value.shape[0] != num_rows:
        raise ValueError(f"{name} must have shape ({num_rows}, ...), got shape {tuple(value.shape)}")
    if value.dtype is torch.bool or value.is_complex():
        raise TypeError(f"{name} must be a tensor of real numbers, got dtype {value.dtype}")
    if value.device != device:
        raise ValueError(f"{name} is on {value.device} but the matrix is on {device}")
