"""MCLRec's regulariser of two views: positives towards the hardest negative, negatives away from collapse."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from graphcl.functional._pair_terms import check_temperature, check_views, in_space, paired_similarity
from graphcl.kernels import Similarity, pair_topk
from graphcl.kernels._arguments import MEMORY_BUDGET

__all__ = ["contrastive_regularizer"]


def contrastive_regularizer(
    z1: Tensor,
    z2: Tensor,
    *,
    temperature: float = 1.0,
    similarity: Similarity = "dot",
    form: Literal["code", "paper"] = "code",
    memory_budget: int = MEMORY_BUDGET,
) -> Tensor:
    r"""Contrastive regulariser of MCLRec: margins between positive and negative scores, both ways.

    X. Qin et al., "Meta-optimized Contrastive Learning for Sequential Recommendation", 2023,
    https://arxiv.org/abs/2304.07763. Confidence: V. With z the 2 N stacked rows, p_i the score of row i and its twin,
    n_ij the other scores of row i, m_i the largest of them:

    .. math:: R_{code} = \operatorname{mean}_i \bigl( [p_i - m_i]_+ + \max(p_i, m_i) \bigr) - \operatorname{mean}_{ij}
        n_{ij}, \qquad R_{paper} = \operatorname{mean} p - o_{min} + o_{max} - \operatorname{mean} n

    with :math:`o_{min} = \min(\min p, \max n)` and :math:`o_{max} = \max(\min p, \max n)`. Both are closed forms of the
    sums of clamped margins in the paper and its code: the code takes margins a row, the paper over the batch.

    Args:
        z1: ``(N, d)`` first view.
        z2: ``(N, d)`` second view.
        temperature: divides every score.
        similarity: ``dot`` or ``cosine``.
        form: ``code`` (as released) or ``paper``.
        memory_budget: upper bound in bytes for the tiles of scores.

    Returns:
        A scalar; 0 for a single sample, which has no negative.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(N^2 d) time for the largest negatives, O(N d) memory plus the tiles: the mean needs no pair, since
    the scores of all pairs sum to the squared norm of the sum of rows.

    >>> import torch
    >>> contrastive_regularizer(torch.eye(2), torch.eye(2)), contrastive_regularizer(torch.eye(1), torch.eye(1))
    (tensor(2.), tensor(0.))
    """
    check_views("z1", z1, "z2", z2)
    check_temperature(temperature)
    if similarity == "sqeuclidean":
        raise ValueError("similarity must be 'dot' or 'cosine', got 'sqeuclidean'")
    if form not in ("code", "paper"):
        raise ValueError(f"form must be 'code' or 'paper', got {form!r}")
    num = z1.shape[0]
    _, (first, second) = in_space(similarity, z1, z2)
    rows = torch.cat([first, second])
    positive = paired_similarity(first, second)
    if num < 2:
        return positive.sum() * 0.0
    own = torch.arange(2 * num, device=rows.device)
    # Columns that are no negatives of a row: itself and its twin, in order.
    apart = torch.stack([own % num, own % num + num], 1).flatten()
    offsets = torch.arange(0, 4 * num + 1, 2, device=rows.device)
    hardest = pair_topk(rows.detach(), rows.detach(), 1, exclude=(offsets, apart), memory_budget=memory_budget)
    largest = paired_similarity(rows, rows[hardest.indices[:, 0]]) / temperature
    positive = positive / temperature
    everything = (rows.sum(0) ** 2).sum() - (rows**2).sum()
    mean_negative = (everything / temperature - 2 * positive.sum()) / (2 * num * (2 * num - 2))
    if form == "paper":
        lowest, highest = positive.min(), largest.max()
        return positive.mean() - torch.minimum(lowest, highest) + torch.maximum(lowest, highest) - mean_negative
    both = positive.repeat(2)
    return (torch.relu(both - largest) + torch.maximum(both, largest)).mean() - mean_negative
