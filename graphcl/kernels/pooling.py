"""Meta-nodes: sums, means and second moments of clusters of nodes, and the pooled graph between clusters.

An assignment is hard, ``(N,)`` integers in ``0 .. K - 1``, or soft, ``(N, K)`` weights of any sign and sum; both forms
of one function agree where the soft weights are the one-hot rows of the hard ids. Empty clusters give 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from graphcl.kernels._csr import accumulation_dtype, sort_index
from graphcl.kernels.segment import check_range, scatter_mean, scatter_sum
from graphcl.kernels.sparse import SparseMatrix, spmm

__all__ = ["cluster_mean", "cluster_second_moment", "cluster_sum", "pooled_graph", "pooled_product"]


def cluster_sum(x: Tensor, assignment: Tensor, num_clusters: int, *, check: bool = True) -> Tensor:
    r"""Sum of the members of every cluster.

    .. math:: M_k = \sum_i S_{ik}\, x_i = (S^T x)_k

    Args:
        x: ``(N, d)`` floating.
        assignment: hard ids ``(N,)`` or soft weights ``(N, K)``.
        num_clusters: K.
        check: test the values of hard ids.

    Returns:
        ``(K, d)``, differentiable in ``x`` and in soft weights.

    Raises:
        IndexError: an id outside ``0 .. K - 1``.
        ValueError, TypeError: a malformed argument, named with its value.

    Complexity: hard O(N d), soft O(N K d).

    >>> import torch
    >>> cluster_sum(torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([1, 0, 1]), 3)
    tensor([[2.],
            [5.],
            [0.]])
    """
    if _is_hard(x, assignment, num_clusters, check):
        return scatter_sum(x, assignment, num_clusters, check=False)
    return assignment.T @ x


def cluster_mean(x: Tensor, assignment: Tensor, num_clusters: int, *, check: bool = True) -> Tensor:
    r"""Mean of the members of every cluster.

    .. math:: \mu_k = \sum_i S_{ik}\, x_i \Big/ \sum_i S_{ik}

    Args:
        x: ``(N, d)`` floating.
        assignment: hard ids ``(N,)`` or soft weights ``(N, K)``.
        num_clusters: K.
        check: test the values of hard ids.

    Returns:
        ``(K, d)``; 0 with gradient 0 for a cluster whose weights sum to 0.

    Raises:
        IndexError: an id outside ``0 .. K - 1``.
        ValueError, TypeError: a malformed argument, named with its value.

    Complexity: hard O(N d), soft O(N K d).

    >>> import torch
    >>> cluster_mean(torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([1, 0, 1]), 3)
    tensor([[2.0000],
            [2.5000],
            [0.0000]])
    """
    if _is_hard(x, assignment, num_clusters, check):
        return scatter_mean(x, assignment, num_clusters, check=False)
    return _divide(assignment.T @ x, assignment.sum(0).unsqueeze(1))


def cluster_second_moment(
    x: Tensor,
    assignment: Tensor,
    num_clusters: int,
    *,
    reduce: Literal["sum", "mean"] = "sum",
    check: bool = True,
) -> Tensor:
    r"""Sum, or mean, of the outer products of the members of every cluster.

    .. math:: C_k = \sum_i S_{ik}\, x_i x_i^T, \quad \text{mean: } C_k \Big/ \sum_i S_{ik}

    The covariance of a cluster is the mean form minus ``mu_k mu_k^T``.

    Args:
        x: ``(N, d)`` floating.
        assignment: hard ids ``(N,)`` or soft weights ``(N, K)``.
        num_clusters: K.
        reduce: ``sum`` or ``mean``; the mean of a cluster whose weights sum to 0 is 0.
        check: test the values of hard ids.

    Returns:
        ``(K, d, d)``, differentiable in ``x`` and in soft weights.

    Raises:
        IndexError: an id outside ``0 .. K - 1``.
        ValueError, TypeError: a malformed argument, named with its value.

    Complexity: hard O(N d^2), soft O(N K d^2) time; O(K d^2 + N d) memory, never N d^2.

    >>> import torch
    >>> cluster_second_moment(torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([0, 0]), 1)
    tensor([[[10.,  2.],
             [ 2.,  4.]]])
    """
    if reduce not in ("sum", "mean"):
        raise ValueError(f"reduce must be 'sum' or 'mean', got {reduce!r}")
    if _is_hard(x, assignment, num_clusters, check):
        offsets, order = sort_index(assignment.to(torch.int64), num_clusters)
        groups = [order[start:stop] for start, stop in pairwise(offsets.tolist())]
        moments = _second_moment(x, None, groups)
        mass = offsets.diff().to(accumulation_dtype(x.dtype))
    else:
        moments = _second_moment(x, assignment, ())
        mass = assignment.sum(0)
    return moments if reduce == "sum" else _divide(moments, mass.reshape(-1, 1, 1)).to(x.dtype)


def pooled_product(
    matrix: SparseMatrix,
    assignment: Tensor,
    num_clusters: int,
    *,
    column_assignment: Tensor | None = None,
    num_column_clusters: int | None = None,
    check: bool = True,
) -> Tensor:
    r"""Dense graph between meta-nodes.

    .. math:: P = S^T A\, S, \quad \text{or } S^T A\, T \text{ with an assignment of the columns of its own}

    Args:
        matrix: A, ``(N, N)``, or ``(N, M)`` with ``column_assignment``.
        assignment: hard ids ``(N,)`` or soft weights ``(N, K)``.
        num_clusters: K.
        column_assignment: of the columns, of the same kind (hard or soft), or None for ``assignment``.
        num_column_clusters: of the columns; K where None.
        check: test the values of hard ids.

    Returns:
        ``(K, K)``, or ``(K, L)``, differentiable in soft weights and in the values of A.

    Raises:
        IndexError: an id out of range.
        ValueError, TypeError: a malformed argument, named with its value.

    Complexity: hard O(E + K L); soft O(E L + N K L) time and O(N L + K L) memory. ``A`` is never made dense.

    >>> import torch
    >>> edges = SparseMatrix.from_edge_index(torch.tensor([[0, 1, 2], [1, 0, 0]]), num_nodes=3)
    >>> pooled_product(edges, torch.tensor([0, 0, 1]), 2)
    tensor([[2., 1.],
            [0., 0.]])
    """
    columns, num_columns = _column_side(matrix, assignment, num_clusters, column_assignment, num_column_clusters)
    values = matrix.entry_values()
    is_hard = _check_side("assignment", assignment, matrix.shape[0], num_clusters, check)
    if is_hard != _check_side("column_assignment", columns, matrix.shape[1], num_columns, check):
        raise ValueError("assignment and column_assignment must both be hard ids or both soft weights")
    if not is_hard:
        weighted = matrix if matrix.values is None else matrix.with_values(values.to(columns.dtype))
        return assignment.T @ spmm(weighted, columns)
    cells = _cells(matrix, assignment, columns, num_columns)
    return scatter_sum(values, cells, num_clusters * num_columns, check=False).reshape(num_clusters, num_columns)


def pooled_graph(
    matrix: SparseMatrix,
    assignment: Tensor,
    num_clusters: int,
    *,
    column_assignment: Tensor | None = None,
    num_column_clusters: int | None = None,
    check: bool = True,
) -> SparseMatrix:
    r"""The same product ``S^T A S`` for hard ids as a sparse matrix, for many clusters.

    Args:
        matrix: A, ``(N, N)``, or ``(N, M)`` with ``column_assignment``.
        assignment: hard ids ``(N,)``.
        num_clusters: K.
        column_assignment: hard ids ``(M,)`` of the columns, or None for ``assignment``.
        num_column_clusters: of the columns; K where None.
        check: test the values of the ids.

    Returns:
        ``(K, K)``, or ``(K, L)``, coalesced, differentiable in the values of A.

    Raises:
        IndexError: an id out of range.
        ValueError, TypeError: a malformed argument, named with its value; soft weights.

    Complexity: O(E + K) time and memory.

    >>> import torch
    >>> edges = SparseMatrix.from_edge_index(torch.tensor([[0, 1, 2], [1, 0, 0]]), num_nodes=3)
    >>> pooled_graph(edges, torch.tensor([0, 0, 1]), 2).to_dense()
    tensor([[2., 1.],
            [0., 0.]])
    """
    columns, num_columns = _column_side(matrix, assignment, num_clusters, column_assignment, num_column_clusters)
    for name, side, size, clusters in (
        ("assignment", assignment, matrix.shape[0], num_clusters),
        ("column_assignment", columns, matrix.shape[1], num_columns),
    ):
        if not _check_side(name, side, size, clusters, check):
            raise ValueError(f"{name} must be hard ids of shape ({size},), got shape {tuple(side.shape)}")
    return SparseMatrix.from_coo(
        assignment[matrix.pattern.rows],
        columns[matrix.columns],
        matrix.values,
        shape=(num_clusters, num_columns),
        duplicates="sum",
        check=False,
    )


def _column_side(
    matrix: SparseMatrix,
    assignment: Tensor,
    num_clusters: int,
    column_assignment: Tensor | None,
    num_column_clusters: int | None,
) -> tuple[Tensor, int]:
    if column_assignment is None:
        if matrix.shape[0] != matrix.shape[1]:
            raise ValueError(f"column_assignment is needed for a matrix of shape {matrix.shape}")
        return assignment, num_clusters
    return column_assignment, num_clusters if num_column_clusters is None else num_column_clusters


def _cells(matrix: SparseMatrix, rows: Tensor, columns: Tensor, num_columns: int) -> Tensor:
    """Cell of the pooled table that every entry falls into, int64."""
    row_ids, column_ids = rows.to(torch.int64), columns.to(torch.int64)
    return row_ids[matrix.pattern.rows] * num_columns + column_ids[matrix.columns]


def _is_hard(x: Tensor, assignment: Tensor, num_clusters: int, check: bool) -> bool:
    if x.dim() != 2 or not x.is_floating_point():
        raise ValueError(f"x must be a float matrix (nodes, d), got {x.dtype} of shape {tuple(x.shape)}")
    is_hard = _check_side("assignment", assignment, x.shape[0], num_clusters, check)
    if not is_hard and assignment.dtype != x.dtype:
        raise TypeError(f"assignment has dtype {assignment.dtype} but x has {x.dtype}")
    return is_hard


def _check_side(name: str, assignment: Tensor, num_nodes: int, num_clusters: int, check: bool) -> bool:
    """Whether the assignment is hard, after its checks."""
    if assignment.is_floating_point():
        if assignment.shape != (num_nodes, num_clusters):
            shape = tuple(assignment.shape)
            raise ValueError(f"{name} must have shape ({num_nodes}, {num_clusters}) as soft weights, got {shape}")
        return False
    if assignment.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"{name} must be int64 or int32 ids or float weights, got dtype {assignment.dtype}")
    if assignment.shape != (num_nodes,):
        raise ValueError(f"{name} must have shape ({num_nodes},) as hard ids, got {tuple(assignment.shape)}")
    if check:
        check_range(name, assignment, num_clusters)
    return True


def _divide(total: Tensor, mass: Tensor) -> Tensor:
    empty = mass == 0
    return (total / mass.masked_fill(empty, 1)).masked_fill(empty, 0)


def _second_moment(x: Tensor, weights: Tensor | None, groups: Sequence[Tensor]) -> Tensor:
    out: Tensor = _SecondMoment.apply(x, weights, groups)  # type: ignore[no-untyped-call]
    return out


class _SecondMoment(torch.autograd.Function):
    """One matrix product per cluster: on its members (hard: ``groups``), on all nodes (soft: ``weights``).

    With G_k the gradient of C_k: d x_i = sum_k S_ik (G_k + G_k^T) x_i and d S_ik = x_i^T G_k x_i. The loop over
    clusters costs less than writing their d x d results.
    """

    @staticmethod
    def forward(x: Tensor, weights: Tensor | None, groups: Sequence[Tensor]) -> Tensor:
        num_clusters = len(groups) if weights is None else weights.shape[1]
        out = x.new_empty(num_clusters, x.shape[1], x.shape[1])
        for cluster in range(num_clusters):
            members = x if weights is not None else x.index_select(0, groups[cluster])
            weighted = members if weights is None else members * weights[:, cluster : cluster + 1]
            torch.mm(weighted.T, members, out=out[cluster])
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weights, ctx.groups = inputs
        ctx.save_for_backward(x, weights)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weights = ctx.saved_tensors
        grad_x = torch.zeros_like(x)
        grad_weights = None if weights is None else torch.empty_like(weights)
        for cluster in range(grad.shape[0]):
            both = grad[cluster] + grad[cluster].T
            if weights is None or grad_weights is None:
                rows = ctx.groups[cluster]
                grad_x[rows] = x.index_select(0, rows) @ both
            else:
                turned = x @ both
                grad_x += turned * weights[:, cluster : cluster + 1]
                grad_weights[:, cluster] = (turned * x).sum(1) / 2
        return grad_x, grad_weights, None
