"""Raw compressed-row building blocks: no autograd, no argument checks. Every product and reduction stands on these.

Which torch operator runs was decided by measurement (`docs/kernels.md`, "Segments, sparse products, pooling").
"""

from __future__ import annotations

import warnings
import weakref

import torch
from torch import Tensor

# Types that the vectorised embedding-bag kernel of torch sums on a CPU, in float32 registers.
_BAG_TYPES = (torch.float32, torch.bfloat16, torch.float16)
# Types that the CPU kernel of `torch.sparse.sampled_addmm` accepts.
_SAMPLED_TYPES = (torch.float32, torch.float64)
_HAS_MKL: bool = torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]


class CsrPattern:
    """Where the entries of a matrix are: row offsets (M + 1,) and columns (E,), both int64, with what follows cached.

    The transpose is one stable sort of the columns; it is computed once and shared by all matrices on this pattern.
    """

    __slots__ = (
        "__weakref__",
        "_parent",
        "_rows",
        "_transpose",
        "_transposed_values",
        "columns",
        "num_columns",
        "offsets",
    )

    def __init__(self, offsets: Tensor, columns: Tensor, num_columns: int) -> None:
        self.offsets = offsets
        self.columns = columns
        self.num_columns = num_columns
        self._rows: Tensor | None = None
        self._transpose: tuple[CsrPattern, Tensor] | None = None
        # The transpose knows where it came from without keeping it alive.
        self._parent: tuple[weakref.ref[CsrPattern], Tensor] | None = None
        self._transposed_values: tuple[weakref.ref[Tensor], int, Tensor] | None = None

    def __reduce__(self) -> tuple[type[CsrPattern], tuple[Tensor, Tensor, int]]:
        """Copies and pickles carry the pattern alone; caches are rebuilt on demand."""
        return CsrPattern, (self.offsets, self.columns, self.num_columns)

    @property
    def num_rows(self) -> int:
        return self.offsets.shape[0] - 1

    @property
    def rows(self) -> Tensor:
        """Row of every entry, (E,)."""
        if self._rows is None:
            self._rows = row_index(self.offsets, self.columns.shape[0])
        return self._rows

    def transpose(self) -> tuple[CsrPattern, Tensor]:
        """Transposed pattern and the position in this pattern of each of its entries."""
        if self._transpose is None:
            parent = None if self._parent is None else self._parent[0]()
            if parent is not None and self._parent is not None:
                order = self._parent[1]
                inverse = torch.empty_like(order)
                inverse[order] = torch.arange(order.shape[0], device=order.device)
                self._transpose = parent, inverse
            else:
                offsets, order = sort_index(self.columns, self.num_columns)
                # Not `rows`, which would keep them: most matrices need their transpose and never their rows.
                rows = row_index(self.offsets, order.shape[0]) if self._rows is None else self._rows
                transposed = CsrPattern(offsets, rows[order], self.num_rows)
                transposed._parent = weakref.ref(self), order
                self._transpose = transposed, order
        return self._transpose

    def transposed_values(self, values: Tensor) -> Tensor:
        """``values`` in the order of the transpose; remembered while the same constant tensor is asked for."""
        order = self.transpose()[1]
        if values.requires_grad:
            return values.index_select(0, order)
        known = self._transposed_values
        if known is None or known[0]() is not values or known[1] != values._version:
            known = weakref.ref(values), values._version, values.index_select(0, order)
            self._transposed_values = known
        return known[2]


def row_index(offsets: Tensor, num_entries: int) -> Tensor:
    """Segment of every entry, (E,) int64, ascending."""
    segments = torch.arange(offsets.shape[0] - 1, device=offsets.device)
    return torch.repeat_interleave(segments, offsets.diff(), output_size=num_entries)


def offsets_of(index: Tensor, size: int) -> Tensor:
    """Offsets (size + 1,) of the groups that ``index`` (E,) would form once sorted."""
    offsets = torch.zeros(size + 1, dtype=torch.int64, device=index.device)
    torch.cumsum(torch.bincount(index, minlength=size), 0, out=offsets[1:])
    return offsets


def sort_index(index: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Offsets (size + 1,) of the groups of equal ``index`` and the stable order that makes them contiguous."""
    return offsets_of(index, size), torch.sort(index, stable=True).indices


def torch_csr(offsets: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    """``torch.sparse_csr`` view of the arrays, without its beta-state warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support", category=UserWarning)
        return torch.sparse_csr_tensor(offsets, columns, values, shape, check_invariants=False)


def csr_matmul(offsets: Tensor, columns: Tensor | None, values: Tensor | None, dense: Tensor) -> Tensor:
    """``out_i = sum over entries e of row i of values_e * dense[columns_e]``, (M, F).

    ``columns=None`` stands for 0 .. E - 1 (a plain segment sum), ``values=None`` for ones. ``dense`` is (N, F).
    No E x F temporary on a CPU.
    """
    dense = dense.detach()
    values = None if values is None else values.detach()
    num_rows = offsets.shape[0] - 1
    num_entries = dense.shape[0] if columns is None else columns.shape[0]
    if num_entries == 0 or num_rows == 0 or dense.shape[1] == 0:
        return dense.new_zeros(num_rows, dense.shape[1])
    on_cpu = dense.device.type == "cpu"
    if columns is None and values is None and dense.dtype in _SAMPLED_TYPES and (dense.shape[1] == 1 or not on_cpu):
        return torch.segment_reduce(dense.contiguous(), "sum", offsets=offsets, initial=0)
    if on_cpu and dense.dtype in _BAG_TYPES:
        picked = torch.arange(num_entries) if columns is None else columns
        return torch.nn.functional.embedding_bag(
            picked, dense.contiguous(), offsets, mode="sum", per_sample_weights=values, include_last_offset=True
        )
    if not dense.is_floating_point() or (not on_cpu and torch.are_deterministic_algorithms_enabled()):
        return _gathered_sum(offsets, columns, values, dense)
    picked = torch.arange(num_entries, device=dense.device) if columns is None else columns
    weights = dense.new_ones(num_entries) if values is None else values
    matrix = torch_csr(offsets, picked, weights, (num_rows, dense.shape[0]))
    if on_cpu:
        # The reducing form is torch's own vectorised kernel; the plain product would go through MKL, slower here.
        product: Tensor = torch.sparse.mm(matrix, dense.contiguous(), "sum")
        return product
    return matrix @ dense


def _gathered_sum(offsets: Tensor, columns: Tensor | None, values: Tensor | None, dense: Tensor) -> Tensor:
    """The same sum through gathered rows: any dtype, a fixed order of addition on every device, O(E F) memory."""
    terms = dense if columns is None else dense.index_select(0, columns)
    if values is not None:
        terms = terms * values.unsqueeze(1)
    if terms.is_floating_point():
        wide = terms.to(accumulation_dtype(terms.dtype))
        return torch.segment_reduce(wide, "sum", offsets=offsets, initial=0).to(dense.dtype)
    out = dense.new_zeros(offsets.shape[0] - 1, dense.shape[1])
    return out.index_add_(0, row_index(offsets, terms.shape[0]), terms)


def sampled_dot(pattern: CsrPattern, x: Tensor, y: Tensor, memory_budget: int) -> Tensor:
    """``<x[row_e], y[column_e]>`` for every entry of the pattern, (E,)."""
    x, y = x.detach(), y.detach()
    num_entries, width = pattern.columns.shape[0], x.shape[1]
    if num_entries == 0 or width == 0:
        return x.new_zeros(num_entries)
    if width == 1:
        return x[:, 0].index_select(0, pattern.rows) * y[:, 0].index_select(0, pattern.columns)
    shape = pattern.num_rows, pattern.num_columns
    # torch's kernel refuses more entries than the matrix has places, which parallel edges of a small graph can reach.
    fits = num_entries <= shape[0] * shape[1]
    if fits and x.device.type == "cpu" and x.dtype in _SAMPLED_TYPES and _HAS_MKL:
        matrix = torch_csr(pattern.offsets, pattern.columns, x.new_zeros(num_entries), shape)
        dots: Tensor = torch.sparse.sampled_addmm(matrix, x.contiguous(), y.contiguous().t(), beta=0.0).values()
        return dots
    wide = accumulation_dtype(x.dtype)
    # Two gathered tiles and their product live at once.
    block = max(1, memory_budget // (3 * width * (torch.finfo(wide).bits // 8)))
    out = x.new_empty(num_entries)
    for start in range(0, num_entries, block):
        entries = slice(start, start + block)
        left = x.index_select(0, pattern.rows[entries]).to(wide)
        right = y.index_select(0, pattern.columns[entries]).to(wide)
        out[entries] = (left * right).sum(1).to(out.dtype)
    return out


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """Type in which sums are formed: float32 for half types, the type itself otherwise."""
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype
