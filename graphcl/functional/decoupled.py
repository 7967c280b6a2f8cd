"""Decoupled contrastive learning: the positive leaves the denominator."""

from __future__ import annotations

import torch
from torch import Tensor

from graphcl.functional._pair_terms import (
    both_directions,
    check_temperature,
    check_views,
    different_ids,
    for_both_views,
    in_space,
    merge_logsumexp,
    paired_similarity,
    refuse_key_ids,
    unit_rows,
)
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.kernels import Backend, CandidateRule, ExcludeSameIndex, Similarity, pair_logsumexp
from graphcl.kernels._arguments import MEMORY_BUDGET, check_positive, check_same_space

__all__ = ["dcl", "dclw"]


def dcl(
    z1: Tensor,
    z2: Tensor,
    *,
    keys: Tensor | None = None,
    ids: Tensor | None = None,
    key_ids: Tensor | None = None,
    temperature: float | Tensor = 0.1,
    similarity: Similarity = "cosine",
    symmetric: bool = True,
    positive_weight: Tensor | None = None,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""Decoupled contrastive loss: the log-sum-exp runs over negatives only, so it learns at small batches too.

    C.-H. Yeh et al., "Decoupled Contrastive Learning", 2022, https://arxiv.org/abs/2110.06848. Confidence: V. Use it
    when the batch is small. Its value can be negative, the lower the temperature the lower: do not clip it at 0.

    .. math:: L_i = -\omega_i \frac{s(z^1_i, z^2_i)}{\tau} + \log \sum_{j \ne i} \Bigl( e^{s(z^1_i, z^1_j)/\tau}
        + e^{s(z^1_i, z^2_j)/\tau} \Bigr)

    Args:
        z1: ``(N, d)`` first view.
        z2: ``(N, d)`` second view.
        keys: ``(C, d)`` negatives instead of the other rows of the batch.
        ids: ``(N,)`` integers, one a sample; rows with the id of the anchor are never negatives.
        key_ids: ``(C,)`` ids of the keys.
        temperature: positive number, 0-dim tensor, or ``(N,)``, one a sample.
        similarity: ``cosine``, ``dot`` or ``sqeuclidean``.
        symmetric: also takes the rows of ``z2`` as anchors and averages both orders.
        positive_weight: ``(N,)`` weights omega of the positive terms; ones by default. See `dclw`.
        reduction: ``mean`` over anchors that have a negative, ``sum`` or ``none``.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `graphcl.kernels.pair_logsumexp`.

    Returns:
        A scalar, or for ``none`` ``(2 N,)``, first view first (``(N,)`` if not symmetric); 0 without any negative.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(N^2 d) time, O(N d) memory plus the tiles.

    >>> import torch
    >>> dcl(torch.eye(3), torch.eye(3), temperature=1.0)
    tensor(0.3863)
    """
    check_views("z1", z1, "z2", z2)
    check_temperature(temperature)
    space, (first, second) = in_space(similarity, z1, z2)
    positive = paired_similarity(first, second, space) / temperature
    if positive_weight is not None:
        positive = positive * positive_weight

    def log_sum(anchors: Tensor, candidates: Tensor, rules: tuple[CandidateRule, ...]) -> Tensor:
        return pair_logsumexp(
            anchors,
            candidates,
            temperature=temperature if anchors.shape[0] == first.shape[0] else for_both_views(temperature),
            similarity=space,
            rules=rules,
            memory_budget=memory_budget,
            backend=backend,
        ).logsumexp

    if keys is not None:
        check_same_space("z1", z1, "keys", keys)
        (candidates,) = in_space(similarity, keys)[1]
        rules = different_ids(z1.shape[0], keys.shape[0], ids, key_ids)
        negatives = [log_sum(view, candidates, rules) for view in ((first, second) if symmetric else (first,))]
    else:
        refuse_key_ids(key_ids)
        rules = different_ids(z1.shape[0], z1.shape[0], ids, ids) or (ExcludeSameIndex(),)
        within = log_sum(first, first, rules)
        if symmetric:
            forward, backward = both_directions(
                first,
                second,
                temperature=temperature,
                similarity=space,
                rules=rules,
                memory_budget=memory_budget,
                backend=backend,
            )
            negatives = [
                merge_logsumexp([within, forward]),
                merge_logsumexp([log_sum(second, second, rules), backward]),
            ]
        else:
            negatives = [merge_logsumexp([within, log_sum(first, second, rules)])]
    total = torch.cat(negatives)
    loss = total - positive.repeat(len(negatives))
    return reduce_anchors(loss, reduction, valid=total > -torch.inf)


def dclw(
    z1: Tensor,
    z2: Tensor,
    *,
    keys: Tensor | None = None,
    ids: Tensor | None = None,
    key_ids: Tensor | None = None,
    temperature: float | Tensor = 0.1,
    sigma: float = 0.5,
    detach_weight: bool = True,
    symmetric: bool = True,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""Decoupled contrastive loss whose positives weigh more the further apart they are.

    C.-H. Yeh et al., "Decoupled Contrastive Learning", 2022, https://arxiv.org/abs/2110.06848. Confidence: V (both
    gradients exist in public code; detaching the weight is this package's default).

    Use it in place of `dcl` where many pairs of views are easy from the start.

    .. math:: \omega_i = 2 - N \operatorname{softmax}_i \bigl(\langle z^1_i, z^2_i \rangle / \sigma \bigr)
        \quad\text{over the batch, in the loss of `dcl`}

    Args:
        z1: ``(N, d)`` first view.
        z2: ``(N, d)`` second view.
        keys: ``(C, d)`` negatives instead of the other rows of the batch.
        ids: ``(N,)`` integers, one a sample; rows with the id of the anchor are never negatives.
        key_ids: ``(C,)`` ids of the keys.
        temperature: positive number, 0-dim tensor, or ``(N,)``.
        sigma: temperature of the weights.
        detach_weight: False also differentiates the weights.
        symmetric: also takes the rows of ``z2`` as anchors and averages both orders.
        reduction: ``mean``, ``sum`` or ``none``.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `graphcl.kernels.pair_logsumexp`.

    Returns:
        As `dcl`.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: as `dcl`.

    >>> import torch
    >>> dclw(torch.eye(3), torch.eye(3), temperature=1.0)
    tensor(0.3863)
    """
    check_views("z1", z1, "z2", z2)
    check_positive("sigma", sigma)
    x, y = unit_rows(z1, z2)
    weight = 2.0 - z1.shape[0] * torch.softmax(paired_similarity(x, y) / sigma, dim=0)
    return dcl(
        z1,
        z2,
        keys=keys,
        ids=ids,
        key_ids=key_ids,
        temperature=temperature,
        symmetric=symmetric,
        positive_weight=weight.detach() if detach_weight else weight,
        reduction=reduction,
        memory_budget=memory_budget,
        backend=backend,
    )
