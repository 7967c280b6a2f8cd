"""Consistency of propagated embeddings with targets of the neighbourhood (PixPro, on graph edges)."""

from __future__ import annotations

import torch
from torch import Tensor

from graphcl.functional._pair_terms import check_views, unit_rows
from graphcl.functional._row_blocks import over_row_blocks
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.functional.sparse_positives import _as_pairs
from graphcl.kernels import Backend, SparseMatrix, edge_dot, normalize_rows, spmm
from graphcl.kernels._arguments import MEMORY_BUDGET, check_block_size, check_indices

__all__ = ["propagation_consistency"]

_ROOT_EPS = 1e-6


def propagation_consistency(
    embeddings: Tensor,
    targets: Tensor,
    edges: Tensor | tuple[Tensor, Tensor] | None = None,
    *,
    values: Tensor | None = None,
    pairs: Tensor | None = None,
    gamma: float = 2.0,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""Propagation consistency: embeddings smoothed over similar neighbours agree with the targets of the other view.

    Z. Xie et al., "Propagate Yourself: Exploring Pixel-Level Consistency for Unsupervised Visual Representation
    Learning", 2021, https://arxiv.org/abs/2011.10043. Confidence: V for all pairs; neighbours from a graph are this
    package's convention. Use it without negatives, with targets of a momentum encoder (`EMAEncoder`, momentum from .99
    to 1), once in each direction of two views.

    .. math:: L_i = -2 \cos(y_i, \operatorname{sg} k_i), \qquad
        y_i = n\Bigl(\sum_{j \in N(i) \cup \{i\}} [\cos(x_i, x_j)]_+^\gamma\, n(v_j)\Bigr)

    Args:
        embeddings: ``(N, d)`` rows x.
        targets: ``(M, d_v)`` rows k; no gradient.
        edges: ``(2, E)`` pairs (i, j), row i gathers from j, or compressed rows (offsets, columns); None takes all
            pairs. Loops are always there once, repeated edges count once.
        values: ``(N, d_v)`` rows v, a (linear) transform of x; x itself by default.
        pairs: ``(2, P)`` matched pairs (row of the embeddings, row of the targets); by default row i and target i.
        gamma: sharpness, at least 0; with 0 the mean over neighbours of positive similarity. Below 1 the similarity is
            raised by 1e-6 before the power, where it is positive.
        weight: ``(P,)`` non-negative weights of the pairs.
        reduction: ``mean`` over pairs, ``sum`` or ``none``.
        memory_budget: upper bound in bytes for gathered rows and blocks of pairs.
        backend: see `graphcl.kernels.spmm`.

    Returns:
        A scalar in -2 .. 2, or ``(P,)`` for ``none``. A row always keeps itself, so only a zero row has ``y = 0``.

    Raises:
        ValueError, TypeError, IndexError: naming the argument and the value.

    Complexity: O(E d) time, O(N d + E) memory; O(N^2 d) time for all pairs, in blocks that are recomputed in backward.

    >>> import torch
    >>> x = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    >>> propagation_consistency(x, x, torch.tensor([[0], [1]]))
    tensor(-1.9675)
    """
    num = embeddings.shape[0]
    if values is not None and values.shape[0] != num:
        raise ValueError(f"values must have {num} rows like embeddings, got {values.shape[0]}")
    if not gamma >= 0:
        raise ValueError(f"gamma must not be negative, got {gamma}")
    check_block_size("memory_budget", memory_budget)
    (x,) = unit_rows(embeddings)
    value, target = unit_rows(embeddings if values is None else values, targets.detach())
    if value.shape[1] != target.shape[1]:
        raise ValueError(f"targets must have as many features as the values ({value.shape[1]}), got {target.shape[1]}")
    if edges is None:
        gathered = over_row_blocks(
            lambda block, rows, other: _affinity(block @ rows.T, gamma) @ other,
            (x,),
            (x, value),
            num_columns=num,
            floats_per_pair=6,
            memory_budget=memory_budget,
        )
    else:
        rows, columns = _neighbourhoods(*_as_pairs(edges, num, num), num)
        similarity = edge_dot(x, x, rows, columns, memory_budget=memory_budget, backend=backend)
        matrix = SparseMatrix.from_coo(rows, columns, _affinity(similarity, gamma), shape=(num, num), check=False)
        gathered = spmm(matrix, value, backend=backend)
    propagated = normalize_rows(gathered)
    if pairs is None:
        check_views("embeddings", value, "targets", target)
        cosine = (propagated * target).sum(dim=1)
    else:
        if pairs.dim() != 2 or pairs.shape[0] != 2:
            raise ValueError(f"pairs must have shape (2, pairs), got shape {tuple(pairs.shape)}")
        check_indices("pairs[0]", pairs[0], None, num, check=True)
        check_indices("pairs[1]", pairs[1], None, target.shape[0], check=True)
        cosine = edge_dot(propagated, target, pairs[0], pairs[1], memory_budget=memory_budget, backend=backend)
    return reduce_anchors(-2.0 * cosine, reduction, weight=weight)


def _affinity(similarity: Tensor, gamma: float) -> Tensor:
    """``[s]_+ ** gamma`` with a finite slope at 0 for every gamma."""
    positive = similarity > 0
    base = torch.where(positive, similarity, torch.ones_like(similarity))
    powered = (base + _ROOT_EPS) ** gamma if gamma < 1 else base**gamma
    return torch.where(positive, powered, torch.zeros_like(powered))


def _neighbourhoods(rows: Tensor, columns: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """Every listed pair once, and every row with itself once."""
    own = torch.arange(num, device=rows.device)
    key = torch.unique(torch.cat([rows * num + columns, own * num + own]))
    return key // max(num, 1), key % max(num, 1)
