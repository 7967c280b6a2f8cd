"""Multi-similarity loss, and its hierarchical use over the cuts of a tree (HiPrBERT)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from graphcl.functional._embeddings import check_labels, unit_rows
from graphcl.functional._pair_terms import softplus
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.kernels import Backend, CandidateRule, EqualIds, ExcludeSameIndex, LevelTable, pair_logsumexp
from graphcl.kernels._arguments import MEMORY_BUDGET, check_positive

__all__ = ["hierarchical_multi_similarity", "multi_similarity"]


def multi_similarity(
    embeddings: Tensor,
    labels: Tensor,
    *,
    alpha: float = 2.0,
    beta: float = 50.0,
    base: float = 0.5,
    keys: Tensor | None = None,
    key_labels: Tensor | None = None,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""Multi-similarity: soft maxima over the positives that are too far and the negatives that are too near.

    Xun Wang et al., "Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning" (2019),
    https://arxiv.org/abs/1904.06627

    Use it for metric learning from labels, where hard positives and negatives should weigh most.

    .. math:: L_i = \frac{1}{\alpha} \log \Big(1 + \sum_{p \in P_i} e^{-\alpha (s_{ip} - \lambda)}\Big)
        + \frac{1}{\beta} \log \Big(1 + \sum_{n \in N_i} e^{\beta (s_{in} - \lambda)}\Big)

    with cosines s, P of equal label and N of other labels. An empty sum gives 0, so every anchor counts.

    Args:
        embeddings: ``(N, d)``; normalised here.
        labels: ``(N,)`` integers. Equal rows share a label, so a duplicate is never its own negative.
        alpha: scale of the positives.
        beta: scale of the negatives.
        base: lambda.
        keys: ``(K, d)`` candidates instead of the other rows of ``embeddings``.
        key_labels: ``(K,)`` labels of ``keys``.
        reduction: over all anchors.
        memory_budget: upper bound in bytes for the tiles of the pair engine.
        backend: of the pair engine.

    Returns:
        Scalar, or ``(N,)`` for ``none``.

    Raises:
        ValueError, TypeError: shapes, dtypes or scales that do not fit.

    Complexity: O(N K d) time, O((N + K) d) memory.

    Confidence: V (agrees with the class of pytorch-metric-learning); ``keys`` are a convention of this package.

    >>> import torch
    >>> z = torch.eye(3)
    >>> multi_similarity(z, torch.tensor([0, 0, 1])).round(decimals=4)
    tensor(0.4378)
    """
    x, y, same = _sets(embeddings, labels, keys, key_labels)
    key_ids = labels if key_labels is None else key_labels
    positive: list[CandidateRule] = [EqualIds(labels, key_ids), *same]
    negative: list[CandidateRule] = [EqualIds(labels, key_ids, keep=False)]
    loss = _soft_maxima(x, y, positive, negative, alpha, beta, base, memory_budget, backend)
    return reduce_anchors(loss, reduction)


def hierarchical_multi_similarity(
    embeddings: Tensor,
    labels: Tensor,
    distances: Tensor,
    *,
    alpha: float = 2.0,
    beta: float = 50.0,
    bases: Sequence[float] | None = None,
    keys: Tensor | None = None,
    key_labels: Tensor | None = None,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""Multi-similarity at every cut of a tree: near in the tree counts as positive, far as negative.

    "Hierarchical Pretraining for Biomedical Term Embeddings" (2023).

    Use it for terms or items with known tree distances of a few steps.

    .. math:: L_i = \frac{1}{K} \sum_{k=0}^{K-1} L^{MS}_i(P_k, N_k, \lambda_k), \qquad
        P_k = \{\delta_{ij} \le k\}, \quad N_k = \{\delta_{ij} > k\}

    with tree distances delta from 0 to K. The cut at K has no negatives and is left out. With K = 1 this is
    `multi_similarity`.

    Args:
        embeddings: ``(N, d)``; normalised here.
        labels: ``(N,)`` integers in ``0 .. L - 1``: the tree node of each row.
        distances: ``(L, L)`` integers, the tree distance of two nodes.
        alpha: scale of the positives.
        beta: scale of the negatives.
        bases: lambda of every cut, K numbers; default falls linearly from .8 to .2.
        keys: ``(K, d)`` candidates instead of the other rows of ``embeddings``.
        key_labels: ``(K,)`` labels of ``keys``.
        reduction: over all anchors.
        memory_budget: upper bound in bytes for the tiles of the pair engine.
        backend: of the pair engine.

    Returns:
        Scalar, or ``(N,)`` for ``none``.

    Raises:
        ValueError, TypeError, IndexError: shapes, dtypes, labels or scales that do not fit.

    Complexity: O(K N^2 d) time, O(N d + L^2) memory.

    Confidence: U. Levels, cuts and bases are a convention of this package, not the authors' exact loss.

    >>> import torch
    >>> z, label = torch.eye(3), torch.tensor([0, 1, 2])
    >>> distance = torch.tensor([[0, 1, 2], [1, 0, 2], [2, 2, 0]])
    >>> hierarchical_multi_similarity(z, label, distance).round(decimals=4)
    tensor(0.1522)
    """
    if distances.dim() != 2 or distances.dtype.is_floating_point:
        raise ValueError(
            f"distances must be an integer matrix, got shape {tuple(distances.shape)} of {distances.dtype}"
        )
    x, y, same = _sets(embeddings, labels, keys, key_labels)
    key_ids = labels if key_labels is None else key_labels
    cuts = int(distances.max()) if distances.numel() > 0 else 0
    margins = torch.linspace(0.8, 0.2, cuts).tolist() if bases is None else list(bases)
    if len(margins) != cuts:
        raise ValueError(f"bases must hold one number a cut, {cuts}, got {len(margins)}")
    loss = x.new_zeros(x.shape[0])
    for cut, base in enumerate(margins):
        near = torch.zeros(distances.shape, dtype=x.dtype, device=x.device)
        positive = LevelTable(labels, key_ids, near.masked_fill(distances > cut, -torch.inf))
        negative = LevelTable(labels, key_ids, near.masked_fill(distances <= cut, -torch.inf))
        loss = loss + _soft_maxima(
            x, y, [positive, *same], [negative, *same], alpha, beta, base, memory_budget, backend
        )
    return reduce_anchors(loss / max(cuts, 1), reduction)


def _sets(
    embeddings: Tensor, labels: Tensor, keys: Tensor | None, key_labels: Tensor | None
) -> tuple[Tensor, Tensor, list[CandidateRule]]:
    """Unit anchors, unit candidates, and the rule that keeps an anchor from being its own candidate."""
    x = unit_rows("embeddings", embeddings)
    check_labels("labels", labels, x.shape[0], integer=True)
    if (keys is None) != (key_labels is None):
        raise ValueError("keys and key_labels go together: pass both or neither")
    if keys is None or key_labels is None:
        return x, x, [ExcludeSameIndex()]
    y = unit_rows("keys", keys).to(x.dtype)
    check_labels("key_labels", key_labels, y.shape[0], integer=True)
    return x, y, []


def _soft_maxima(
    x: Tensor,
    y: Tensor,
    positive: Sequence[CandidateRule],
    negative: Sequence[CandidateRule],
    alpha: float,
    beta: float,
    base: float,
    memory_budget: int,
    backend: Backend,
) -> Tensor:
    check_positive("alpha", alpha)
    check_positive("beta", beta)
    loss = x.new_zeros(x.shape[0])
    for anchors, scale, shift, rules in ((-x, alpha, base, positive), (x, beta, -base, negative)):
        hardness = pair_logsumexp(
            anchors,
            y,
            temperature=1.0 / scale,
            rules=rules,
            memory_budget=memory_budget,
            backend=backend,
        ).logsumexp
        loss = loss + softplus(hardness + scale * shift) / scale
    return loss
