"""Entropic transport between rows and columns in log space (Sinkhorn), with dense scores or in linear memory."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from graphcl.kernels._arguments import (
    MEMORY_BUDGET,
    check_block_size,
    check_matrix,
    check_positive,
    check_same_space,
    check_vector,
    compute_dtype,
)
from graphcl.kernels.backends import Backend
from graphcl.kernels.pairs import Similarity, pair_logsumexp

__all__ = ["SinkhornPotentials", "sinkhorn", "sinkhorn_potentials"]


class SinkhornPotentials(NamedTuple):
    """Dual vectors of a transport plan: ``plan[i, j] = exp(s_ij / epsilon - rows[i] - columns[j])``."""

    rows: Tensor
    columns: Tensor


def sinkhorn(
    scores: Tensor,
    *,
    epsilon: float = 0.05,
    iterations: int = 3,
    row_mass: Tensor | None = None,
    column_mass: Tensor | None = None,
) -> Tensor:
    r"""Assignment of rows to columns with prescribed column masses, by alternating normalisation in log space.

    M. Cuturi, "Sinkhorn Distances: Lightspeed Computation of Optimal Transport", 2013,
    https://arxiv.org/abs/1306.0895.

    .. math:: Q_{ij} = \exp(s_{ij} / \epsilon - f_i - g_j), \quad
        g_j \leftarrow \log \sum_i e^{s_{ij}/\epsilon - f_i} - \log c_j, \quad
        f_i \leftarrow \log \sum_j e^{s_{ij}/\epsilon - g_j} - \log r_i

    The rows are normalised last, so they have their masses exactly and the columns approach theirs. Nothing is
    exponentiated before the potentials are subtracted: any ``epsilon`` is safe.

    Args:
        scores: ``(B, K)`` float; -inf forbids a pair.
        epsilon: entropy; smaller is closer to a hard assignment and needs more iterations.
        iterations: rounds of one column and one row normalisation.
        row_mass: ``(B,)`` positive; ones by default.
        column_mass: ``(K,)`` positive; equal shares of the total row mass by default.

    Returns:
        ``(B, K)`` non-negative, float64 for float64 scores and float32 otherwise. Differentiable; detach it for a
        target. A row or column without any allowed pair is zero.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(iterations B K) time, O(B K) memory (times the iterations when differentiated). From embeddings,
    `sinkhorn_potentials` needs O(B + K).

    >>> import torch
    >>> sinkhorn(torch.tensor([[1.0, 0.9], [1.0, 0.0]]), epsilon=0.01, iterations=20).round()
    tensor([[0., 1.],
            [1., 0.]])
    """
    check_matrix("scores", scores)
    check_positive("epsilon", epsilon)
    check_block_size("iterations", iterations)
    logits = scores.to(compute_dtype(scores.dtype)) / epsilon
    log_rows, log_columns = _log_masses(logits, logits.shape[0], logits.shape[1], row_mass, column_mass)
    row_potential = torch.zeros_like(log_rows)
    column_potential = torch.zeros_like(log_columns)
    for _ in range(iterations):
        column_potential = _potential(_logsumexp(logits - row_potential[:, None], 0), log_columns)
        row_potential = _potential(_logsumexp(logits - column_potential, 1), log_rows)
    return torch.exp(logits - row_potential[:, None] - column_potential)


@torch.no_grad()
def sinkhorn_potentials(
    rows: Tensor,
    columns: Tensor,
    *,
    epsilon: float = 0.05,
    iterations: int = 3,
    similarity: Similarity = "dot",
    row_mass: Tensor | None = None,
    column_mass: Tensor | None = None,
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> SinkhornPotentials:
    r"""Dual vectors of the `sinkhorn` plan between two sets of embeddings, without the B x K scores.

    The plan can be recomputed wherever it is needed: its row i is ``row_mass[i]`` times the softmax over j of
    ``s_ij / epsilon - columns[j]``, which is what the pair engine computes with ``candidate_bias=-columns``.

    Args:
        rows: ``(B, d)`` float.
        columns: ``(K, d)`` of the same dtype.
        epsilon: entropy.
        iterations: rounds of one column and one row normalisation, two sweeps over the pairs each.
        similarity: ``dot``, ``cosine`` or ``sqeuclidean``.
        row_mass: ``(B,)`` positive; ones by default.
        column_mass: ``(K,)`` positive; equal shares of the total row mass by default.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `pair_logsumexp`.

    Returns:
        `SinkhornPotentials` of ``(B,)`` and ``(K,)``, without gradient.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(iterations B K d) time, O((B + K) d) memory plus the tiles.

    >>> import torch
    >>> x, y = torch.eye(3)[:2], torch.eye(3)
    >>> dual = sinkhorn_potentials(x, y, epsilon=0.5)
    >>> plan = torch.exp(x @ y.T / 0.5 - dual.rows[:, None] - dual.columns)
    >>> torch.allclose(plan, sinkhorn(x @ y.T, epsilon=0.5))
    True
    """
    check_same_space("rows", rows, "columns", columns)
    check_positive("epsilon", epsilon)
    check_block_size("iterations", iterations)
    wide = compute_dtype(rows.dtype)
    like = torch.empty(0, dtype=wide, device=rows.device)
    log_rows, log_columns = _log_masses(like, rows.shape[0], columns.shape[0], row_mass, column_mass)
    row_potential = torch.zeros_like(log_rows)
    column_potential = torch.zeros_like(log_columns)

    def log_sum(anchors: Tensor, candidates: Tensor, potential: Tensor) -> Tensor:
        return pair_logsumexp(
            anchors,
            candidates,
            temperature=epsilon,
            similarity=similarity,
            candidate_bias=-potential,
            memory_budget=memory_budget,
            backend=backend,
        ).logsumexp

    for _ in range(iterations):
        column_potential = _potential(log_sum(columns, rows, row_potential), log_columns)
        row_potential = _potential(log_sum(rows, columns, column_potential), log_rows)
    return SinkhornPotentials(row_potential, column_potential)


def _log_masses(
    like: Tensor, num_rows: int, num_columns: int, row_mass: Tensor | None, column_mass: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Logs of the two marginals, of the dtype and device of ``like``."""
    logs = []
    for name, mass, length in (("row_mass", row_mass, num_rows), ("column_mass", column_mass, num_columns)):
        if mass is not None:
            check_vector(name, mass, length, device=like.device)
            if bool((mass <= 0).any()):
                raise ValueError(f"{name} must be above 0, got {float(mass.min())}")
        logs.append(None if mass is None else mass.detach().to(like.dtype).log())
    log_rows = like.new_zeros(num_rows) if logs[0] is None else logs[0]
    if logs[1] is not None:
        return log_rows, logs[1]
    total = log_rows.exp().sum() if num_rows > 0 else like.new_ones(())
    return log_rows, (total.log() - math.log(max(num_columns, 1))).expand(num_columns)


def _potential(log_sum: Tensor, log_mass: Tensor) -> Tensor:
    """What to subtract so that the sum becomes the mass; 0 where there is nothing to scale."""
    return torch.where(log_sum == -torch.inf, torch.zeros_like(log_sum), log_sum - log_mass)


def _logsumexp(values: Tensor, dim: int) -> Tensor:
    """Log-sum-exp that passes no gradient to a line without any finite entry."""
    dead = (values == -torch.inf).all(dim=dim, keepdim=True)
    return torch.logsumexp(values.masked_fill(dead, 0.0), dim=dim).masked_fill(dead.squeeze(dim), -torch.inf)
