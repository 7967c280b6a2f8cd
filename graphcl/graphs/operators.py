"""What propagation needs of a graph: something with a shape that multiplies dense rows."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from graphcl.kernels import SparseMatrix, spmm

__all__ = ["BipartiteOperator", "PropagationOperator", "keep_entries", "unique_pairs"]


class PropagationOperator(Protocol):
    """A linear map (M, N) that is applied by ``@``: `SparseMatrix`, `FactoredMatrix`, `BipartiteOperator` and others.

    >>> from graphcl.kernels import SparseMatrix
    >>> operator: PropagationOperator = SparseMatrix(torch.tensor([0, 1]), torch.tensor([0]), None, (1, 1))
    >>> operator @ torch.ones(1, 2)
    tensor([[1., 1.]])
    """

    @property
    def shape(self) -> tuple[int, int]: ...

    def __matmul__(self, dense: Tensor) -> Tensor: ...


class BipartiteOperator:
    r"""Symmetric operator of a bipartite graph, applied block by block and never assembled.

    .. math:: \begin{pmatrix} 0 & B \\ B^T & 0 \end{pmatrix}

    It holds half of what the assembled matrix and its transpose hold, and its backward pass sorts half as many
    entries: choose it for large graphs.

    Args:
        block: B, ``(M, N)``; the operator is ``(M + N, M + N)`` with the rows of B first.

    Complexity: O(E d) to apply, beside one copy of the result.

    >>> block = SparseMatrix.from_coo(torch.tensor([0]), torch.tensor([1]), shape=(1, 2))
    >>> BipartiteOperator(block) @ torch.tensor([1.0, 10.0, 100.0])
    tensor([100.,   0.,   1.])
    """

    def __init__(self, block: SparseMatrix) -> None:
        self.block = block
        self.transposed = block.T
        size = sum(block.shape)
        self.shape = (size, size)

    @property
    def T(self) -> BipartiteOperator:
        """The operator itself: it is symmetric."""
        return self

    def to(self, target: torch.device | str | torch.dtype) -> BipartiteOperator:
        """The operator on another device or with values of another dtype."""
        return BipartiteOperator(self.block.to(target))

    def row_sums(self) -> Tensor:
        """Degrees of all nodes, ``(M + N,)``."""
        return torch.cat([self.block.row_sums(), self.block.column_sums()])

    def to_dense(self) -> Tensor:
        """Dense ``(M + N, M + N)`` tensor, for small graphs and tests."""
        return self @ torch.eye(self.shape[0], dtype=self.block.entry_values().dtype, device=self.block.device)

    def __matmul__(self, dense: Tensor) -> Tensor:
        if dense.dim() == 0 or dense.shape[0] != self.shape[1]:
            raise ValueError(f"dense must have shape ({self.shape[1]}, ...), got shape {tuple(dense.shape)}")
        num_rows = self.block.shape[0]
        return torch.cat([spmm(self.block, dense[num_rows:]), spmm(self.transposed, dense[:num_rows])])

    def __repr__(self) -> str:
        return f"BipartiteOperator({self.block!r})"


def keep_entries(matrix: SparseMatrix, kept: Tensor) -> SparseMatrix:
    """The matrix with some of its entries, in their order.

    Args:
        matrix: ``(M, N)``.
        kept: ``(E,)`` bool.

    Returns:
        ``(M, N)``, differentiable in the values.

    Raises:
        ValueError: ``kept`` is no mask of the entries.

    Complexity: O(E + M), no sort.

    >>> row = SparseMatrix(torch.tensor([0, 2]), torch.tensor([0, 1]), None, (1, 2))
    >>> keep_entries(row, torch.tensor([False, True])).columns
    tensor([1])
    """
    if kept.shape != (matrix.num_entries,) or kept.dtype != torch.bool:
        raise ValueError(f"kept must be bool of shape ({matrix.num_entries},), got {kept.dtype} {tuple(kept.shape)}")
    before = torch.cat([kept.new_zeros(1, dtype=torch.int64), kept.cumsum(0)])
    values = None if matrix.values is None else matrix.values[kept]
    return SparseMatrix(before[matrix.row_offsets], matrix.columns[kept], values, matrix.shape, check=False)


def unique_pairs(rows: Tensor, columns: Tensor, shape: tuple[int, int]) -> SparseMatrix:
    """Unweighted matrix of listed places, each once, columns ascending within rows.

    The same as `SparseMatrix.from_coo` with ``duplicates="first"`` and without values, by one sort of joint numbers.

    Args:
        rows: ``(E,)`` int64 or int32 in ``0 .. M - 1``.
        columns: ``(E,)`` in ``0 .. N - 1``.
        shape: ``(M, N)``.

    Raises:
        IndexError: a row or column out of range.
        ValueError, TypeError: a malformed argument, named with its value.

    Complexity: O(E log E + M) time, O(E + M) memory; ten million places take a fifth of the time of `from_coo`.

    >>> unique_pairs(torch.tensor([1, 0, 1]), torch.tensor([2, 0, 2]), (2, 3)).columns
    tensor([0, 2])
    """
    fits = all(part.dim() == 1 and part.dtype in (torch.int64, torch.int32) for part in (rows, columns))
    if not fits or rows.shape != columns.shape or rows.numel() == 0 or shape[0] * shape[1] >= 2**63:
        return SparseMatrix.from_coo(rows, columns, shape=shape, duplicates="first")
    for name, part, size in (("rows", rows, shape[0]), ("columns", columns, shape[1])):
        low, high = (int(bound) for bound in torch.aminmax(part))
        if low < 0 or high >= size:
            raise IndexError(f"{name} holds {low if low < 0 else high}, outside 0 .. {size - 1}")
    place = rows.to(torch.int64) * shape[1] + columns
    if place.device.type == "cpu":
        # NumPy sorts integers by vector instructions, several times faster than torch on a CPU.
        place.numpy().sort()
    else:
        place = torch.sort(place).values
    place = torch.unique_consecutive(place)
    sorted_rows = torch.div(place, shape[1], rounding_mode="floor")
    offsets = torch.zeros(shape[0] + 1, dtype=torch.int64, device=place.device)
    torch.cumsum(torch.bincount(sorted_rows, minlength=shape[0]), 0, out=offsets[1:])
    return SparseMatrix(offsets, place - sorted_rows * shape[1], None, shape, check=False)
