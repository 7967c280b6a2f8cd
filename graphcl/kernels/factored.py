"""Products of sparse matrices and diagonals, applied factor by factor and never formed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from graphcl.kernels.backends import Backend
from graphcl.kernels.sparse import SparseMatrix, spmm

__all__ = ["Factor", "FactoredMatrix", "factored_spmm"]

Factor = SparseMatrix | Tensor


class FactoredMatrix:
    r"""A product of sparse and diagonal factors, plus an optional diagonal.

    .. math:: M = F_1 F_2 \cdots F_k + \mathrm{diag}(\delta)

    ``R (R^T h)`` costs two sparse products; the matrix ``R R^T`` may hold far more entries than R and is never built.

    Args:
        factors: at least one of `SparseMatrix` (m, n) and one-dimensional tensor (n,), which stands for a diagonal.
        diagonal: ``(n,)`` added to the diagonal of a square product, or None.

    Raises:
        ValueError, TypeError: factors whose shapes do not chain, named by position.

    >>> import torch
    >>> ratings = SparseMatrix.from_coo(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]), shape=(2, 2))
    >>> FactoredMatrix([ratings, ratings.T]) @ torch.tensor([1.0, 1.0])
    tensor([2., 3.])
    """

    def __init__(self, factors: Sequence[Factor], diagonal: Tensor | None = None) -> None:
        self.factors = tuple(factors)
        self.diagonal = diagonal
        if not self.factors:
            raise ValueError("factors must hold at least one factor, got none")
        shapes = [_shape(position, factor) for position, factor in enumerate(self.factors)]
        for position in range(1, len(shapes)):
            if shapes[position - 1][1] != shapes[position][0]:
                raise ValueError(
                    f"factors[{position}] must have {shapes[position - 1][1]} rows to follow factors[{position - 1}], "
                    f"got {shapes[position][0]}"
                )
        self.shape = shapes[0][0], shapes[-1][1]
        if diagonal is not None and (self.shape[0] != self.shape[1] or diagonal.shape != (self.shape[0],)):
            raise ValueError(
                f"diagonal must have shape (n,) of a square n x n product, got {tuple(diagonal.shape)} for {self.shape}"
            )

    @property
    def T(self) -> FactoredMatrix:
        """Transpose: the transposed factors in reverse order."""
        turned = [factor.T if isinstance(factor, SparseMatrix) else factor for factor in reversed(self.factors)]
        return FactoredMatrix(turned, self.diagonal)

    def matmul(self, dense: Tensor, *, backend: Backend = "auto") -> Tensor:
        """``M @ dense`` for ``dense`` (n, ...), differentiable in it, in the values and in the diagonals.

        Complexity: O(sum of E_k d) time, one intermediate (m_k, d) per factor.
        """
        if dense.dim() == 0 or dense.shape[0] != self.shape[1]:
            raise ValueError(f"dense must have shape ({self.shape[1]}, ...), got shape {tuple(dense.shape)}")
        if self._is_constant:
            product: Tensor = _ConstantProduct.apply(dense, self, backend)  # type: ignore[no-untyped-call]
            return product
        out = dense
        for factor in reversed(self.factors):
            out = spmm(factor, out, backend=backend) if isinstance(factor, SparseMatrix) else _scale(factor, out)
        return out if self.diagonal is None else out + _scale(self.diagonal, dense)

    @property
    def _is_constant(self) -> bool:
        """Whether no gradient is wanted for a factor."""
        values = [factor.values if isinstance(factor, SparseMatrix) else factor for factor in self.factors]
        return not any(value is not None and value.requires_grad for value in [*values, self.diagonal])

    def row_sums(self) -> Tensor:
        """``M @ 1``, (m,): degrees of the product, without the product."""
        floats = [factor.values if isinstance(factor, SparseMatrix) else factor for factor in self.factors]
        known = next((value for value in floats if value is not None), None)
        dtype = torch.get_default_dtype() if known is None else known.dtype
        return self.matmul(torch.ones(self.shape[1], dtype=dtype, device=self.factors[-1].device))

    def to(self, device: torch.device | str) -> FactoredMatrix:
        """The same product on another device; a factor that occurs twice stays one object."""
        moved = {id(factor): factor.to(device) for factor in self.factors}
        diagonal = None if self.diagonal is None else self.diagonal.to(device)
        return FactoredMatrix([moved[id(factor)] for factor in self.factors], diagonal)

    def to_dense(self) -> Tensor:
        """Dense (m, n) tensor, for small matrices and tests."""
        dense = torch.eye(self.shape[1], dtype=self.row_sums().dtype, device=self.factors[-1].device)
        return self.matmul(dense)

    def __matmul__(self, dense: Tensor) -> Tensor:
        return self.matmul(dense)

    def __repr__(self) -> str:
        parts = [repr(factor) if isinstance(factor, SparseMatrix) else "diagonal" for factor in self.factors]
        extra = "" if self.diagonal is None else " + diagonal"
        return f"FactoredMatrix({' @ '.join(parts)}{extra})"


def factored_spmm(factors: Sequence[Factor], dense: Tensor, *, backend: Backend = "auto") -> Tensor:
    r"""``F_1 (F_2 (... (F_k h)))`` without forming a product of factors; see `FactoredMatrix`.

    Args:
        factors: sparse matrices, or ``(n,)`` tensors for diagonals, whose shapes chain.
        dense: ``(n, ...)``.
        backend: of every sparse product; see `spmm`.

    Returns:
        ``(m, ...)``.

    Raises:
        ValueError, TypeError: shapes that do not chain, or no factor.

    Complexity: O(sum of E_k d) time.

    >>> import torch
    >>> ratings = SparseMatrix.from_coo(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]), shape=(2, 2))
    >>> factored_spmm([ratings, ratings.T], torch.tensor([1.0, 1.0]))
    tensor([2., 3.])
    """
    return FactoredMatrix(factors).matmul(dense, backend=backend)


class _ConstantProduct(torch.autograd.Function):
    """Product whose factors need no gradient: diagonals are applied in place, and no step enters the graph."""

    @staticmethod
    def forward(ctx: Any, dense: Tensor, product: FactoredMatrix, backend: Backend) -> Tensor:
        ctx.product, ctx.backend = product, backend
        out = dense.detach()
        owned = False
        for factor in reversed(product.factors):
            if isinstance(factor, SparseMatrix):
                out = spmm(factor, out, backend=backend)
            elif owned and factor.dtype == out.dtype:
                out.mul_(_as_column(factor, out))
            else:
                out = _scale(factor, out)
            owned = True
        diagonal = product.diagonal
        if diagonal is None:
            return out
        if diagonal.dtype == out.dtype == dense.dtype:
            return out.addcmul_(_as_column(diagonal, dense), dense.detach())
        return out + _scale(diagonal, dense.detach())

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        return ctx.product.T.matmul(upstream, backend=ctx.backend), None, None


def _shape(position: int, factor: Factor) -> tuple[int, int]:
    if isinstance(factor, SparseMatrix):
        return factor.shape
    if not isinstance(factor, Tensor) or factor.dim() != 1:
        what = f"shape {tuple(factor.shape)}" if isinstance(factor, Tensor) else type(factor).__name__
        raise TypeError(f"factors[{position}] must be a SparseMatrix or a one-dimensional tensor, got {what}")
    return factor.shape[0], factor.shape[0]


def _as_column(diagonal: Tensor, dense: Tensor) -> Tensor:
    return diagonal.reshape(-1, *[1] * (dense.dim() - 1))


def _scale(diagonal: Tensor, dense: Tensor) -> Tensor:
    return _as_column(diagonal, dense) * dense
