"""Aggregation over the neighbours of a node with the edge weights fused into the product."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from graphcl.kernels._csr import accumulation_dtype
from graphcl.kernels.backends import Backend
from graphcl.kernels.segment import segment_softmax
from graphcl.kernels.sparse import SparseMatrix, spmm

__all__ = ["aggregate", "attention_spmm"]


def aggregate(
    matrix: SparseMatrix,
    dense: Tensor,
    edge_weight: Tensor | None = None,
    *,
    reduce: Literal["sum", "mean"] = "sum",
    backend: Backend = "auto",
) -> Tensor:
    r"""Sum or mean of weighted neighbour rows: PyG's message passing without its E x d messages.

    .. math:: y_i = \frac{1}{n_i} \sum_{e \in \text{row } i} w_e\, a_e\, h_{c_e}, \quad
        n_i = 1 \text{ (sum) or the number of entries (mean)}

    Args:
        matrix: ``(M, N)``; its values, where it has them, multiply ``edge_weight``.
        dense: ``(N, ...)``.
        edge_weight: ``(E,)`` in the order of ``matrix.columns``, or None.
        reduce: ``sum`` or ``mean``; the mean divides by the count of entries, not by the sum of weights.
        backend: see `spmm`.

    Returns:
        ``(M, ...)``; a node without neighbours is 0. Differentiable in the weights, the values and ``dense``.

    Raises:
        ValueError, TypeError: a malformed argument, named with its value.

    Complexity: O(E d) time, O(M d + E) memory.

    >>> import torch
    >>> star = SparseMatrix.from_edge_index(torch.tensor([[1, 2], [0, 0]]), num_nodes=3)
    >>> aggregate(star, torch.tensor([0.0, 2.0, 4.0]), reduce="mean")
    tensor([3., 0., 0.])
    """
    if reduce not in ("sum", "mean"):
        raise ValueError(f"reduce must be 'sum' or 'mean', got {reduce!r}")
    if edge_weight is not None:
        if edge_weight.shape != matrix.columns.shape:
            raise ValueError(
                f"edge_weight must have shape ({matrix.num_entries},), got shape {tuple(edge_weight.shape)}"
            )
        matrix = matrix.with_values(edge_weight if matrix.values is None else matrix.values * edge_weight)
    out = spmm(matrix, dense, backend=backend)
    if reduce == "sum":
        return out
    counts = matrix.row_offsets.diff().clamp(min=1).to(accumulation_dtype(dense.dtype))
    return (out / counts.reshape(-1, *[1] * (dense.dim() - 1))).to(dense.dtype)


def attention_spmm(matrix: SparseMatrix, scores: Tensor, dense: Tensor, *, backend: Backend = "auto") -> Tensor:
    r"""Neighbour rows averaged by a softmax of edge scores, as in GAT (Velickovic et al., 2018,
    https://arxiv.org/abs/1710.10903).

    .. math:: y_i = \sum_{e \in \text{row } i} \alpha_e h_{c_e}, \quad
        \alpha_e = e^{s_e} / \sum_{f \in \text{row } i} e^{s_f}

    Args:
        matrix: ``(M, N)``; only its pattern is used.
        scores: ``(E,)``, or ``(E, heads)``, in the order of ``matrix.columns``; -inf removes an entry.
        dense: ``(N, d)``, or ``(N, heads, d)``.
        backend: see `spmm`.

    Returns:
        ``(M, d)`` or ``(M, heads, d)``; 0 for a node without neighbours. Differentiable in scores and ``dense``.

    Raises:
        ValueError, TypeError: a malformed argument, named with its value.

    Complexity: O(E heads d) time; O(E heads) memory beside inputs and output: no E x d temporary.

    >>> import torch
    >>> star = SparseMatrix.from_edge_index(torch.tensor([[1, 2], [0, 0]]), num_nodes=3)
    >>> attention_spmm(star, torch.zeros(2), torch.tensor([[0.0], [2.0], [4.0]]))
    tensor([[3.],
            [0.],
            [0.]])
    """
    if scores.dim() not in (1, 2) or scores.shape[0] != matrix.num_entries:
        raise ValueError(
            f"scores must have shape ({matrix.num_entries},) or ({matrix.num_entries}, heads), "
            f"got shape {tuple(scores.shape)}"
        )
    if dense.dim() != scores.dim() + 1 or (scores.dim() == 2 and dense.shape[1] != scores.shape[1]):
        expected = "(nodes, d)" if scores.dim() == 1 else f"(nodes, {scores.shape[1]}, d)"
        raise ValueError(f"dense must have shape {expected} to match scores, got shape {tuple(dense.shape)}")
    weights = segment_softmax(scores, matrix.row_offsets, backend=backend, check=False)
    if scores.dim() == 1:
        return spmm(matrix.with_values(weights), dense, backend=backend)
    if scores.shape[1] == 0:
        return dense.new_zeros(matrix.shape[0], *dense.shape[1:])
    heads = [
        spmm(matrix.with_values(weights[:, head].contiguous()), dense[:, head], backend=backend)
        for head in range(scores.shape[1])
    ]
    return torch.stack(heads, dim=1)
