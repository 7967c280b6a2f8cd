"""Contrast of two views of a heterogeneous graph with several positives a node (HeCo)."""

from __future__ import annotations

from torch import Tensor

from graphcl.functional._pair_terms import check_temperature, check_views, unit_rows
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.kernels import Backend, SparseMatrix, edge_dot, pair_logsumexp_both, segment_logsumexp
from graphcl.kernels._arguments import MEMORY_BUDGET

__all__ = ["heco"]


def heco(
    z1: Tensor,
    z2: Tensor,
    positives: SparseMatrix,
    *,
    temperature: float | Tensor = 0.8,
    balance: float = 0.5,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""Cross-view contrast in which the positives of a node share one numerator.

    X. Wang, N. Liu, H. Han, C. Shi, "Self-supervised Heterogeneous Graph Neural Network with Co-contrastive Learning",
    2021, https://arxiv.org/abs/2105.09111. Confidence: V. Use it for two views of a graph where some other nodes are
    known to be alike, for instance joined by many meta-paths.

    .. math:: L_i = \lambda\, \ell_i(z^1, z^2) + (1 - \lambda)\, \ell_i(z^2, z^1), \qquad
        \ell_i(x, y) = -\log \frac{\sum_{j \in P(i)} e^{\cos(x_i, y_j)/\tau}}{\sum_j e^{\cos(x_i, y_j)/\tau}}

    Args:
        z1: ``(N, d)`` first view.
        z2: ``(N, d)`` second view.
        positives: ``(N, N)``; row i lists P(i), usually with i itself. Values are not read.
        temperature: positive number or 0-dim tensor.
        balance: lambda, the part of the first view as anchor.
        weight: ``(N,)`` non-negative weights of the nodes.
        reduction: ``mean`` over nodes with a positive, ``sum`` or ``none``.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `graphcl.kernels.pair_logsumexp_both`.

    Returns:
        A scalar, or ``(N,)`` for ``none``; a node without positives has loss 0.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(N^2 d + E d) time, O(N d + E) memory plus the tiles.

    >>> import torch
    >>> own = SparseMatrix(torch.tensor([0, 1, 2]), torch.tensor([0, 1]), None, (2, 2))
    >>> heco(torch.eye(2), torch.eye(2), own, temperature=1.0)
    tensor(0.3133)
    """
    check_views("z1", z1, "z2", z2)
    check_temperature(temperature)
    if positives.shape != (z1.shape[0], z1.shape[0]):
        raise ValueError(f"positives must have shape ({z1.shape[0]}, {z1.shape[0]}), got {positives.shape}")
    if not 0.0 <= balance <= 1.0:
        raise ValueError(f"balance must lie in 0 .. 1, got {balance}")
    x, y = unit_rows(z1, z2)
    total = pair_logsumexp_both(x, y, temperature=temperature, memory_budget=memory_budget, backend=backend)
    rows, columns = positives.pattern.rows, positives.columns

    def shared(left: Tensor, right: Tensor) -> Tensor:
        logit = edge_dot(left, right, rows, columns, memory_budget=memory_budget, backend=backend) / temperature
        return segment_logsumexp(logit, positives.row_offsets, check=False)

    valid = positives.row_offsets.diff() > 0
    loss = balance * (total.rows - shared(x, y)) + (1.0 - balance) * (total.columns - shared(y, x))
    return reduce_anchors(loss.masked_fill(~valid, 0.0), reduction, valid=valid, weight=weight)
