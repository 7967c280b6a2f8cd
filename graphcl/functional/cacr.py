"""Contrastive attraction and repulsion: pairs weighted by distance, within positives and within negatives."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import cast

import torch
from torch import Tensor

from graphcl.functional._pair_terms import check_views, different_ids, refuse_key_ids, unit_rows
from graphcl.functional.infonce import info_nce
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.kernels import Backend, CandidateRule, ExcludeSameIndex, pair_logsumexp
from graphcl.kernels._arguments import MEMORY_BUDGET, check_positive, check_same_space

__all__ = ["cacr", "cacr_rbf"]


def cacr(
    views: Sequence[Tensor],
    *,
    keys: Tensor | None = None,
    ids: Tensor | None = None,
    key_ids: Tensor | None = None,
    attraction_weight: float = 1.0,
    repulsion_weight: float = 1.0,
    positive_sharpness: float = 1.0,
    negative_sharpness: float = 1.0,
    detach_weights: bool = False,
    return_components: bool = False,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""Pulls the far positives harder and pushes the near negatives harder (CACR).

    H. Zheng et al., "Contrastive Attraction and Contrastive Repulsion for Representation Learning". Confidence: V.
    Use it with four views or so; with two the positive weights are trivial.

    .. math:: c_{xy} = \|n(x) - n(y)\|^2, \quad
        CA_i = \operatorname{mean}_x \sum_{k \ne x} \pi^+_k c(z^x_i, z^k_i), \;\; \pi^+_k \propto e^{+\tau^+ c}, \qquad
        CR_i = -\operatorname{mean}_{x<y} \sum_{j \ne i} \pi^-_j c(z^x_i, z^y_j), \;\; \pi^-_j \propto e^{-\tau^- c}

    .. math:: L = \alpha\, CA + \beta\, CR

    Args:
        views: at least two ``(N, d)`` matrices.
        keys: ``(C, d)`` negatives of every view, for instance a queue, instead of the rows of the other views.
        ids: ``(N,)`` integers; a candidate with the id of the anchor is never its negative.
        key_ids: ``(C,)`` ids of the keys.
        attraction_weight: alpha.
        repulsion_weight: beta.
        positive_sharpness: tau+, not negative; 0 weighs positives alike.
        negative_sharpness: tau-, positive.
        detach_weights: differentiate the costs only, not the weights (as the momentum versions do).
        return_components: also return the parts.
        reduction: over the N samples: ``mean``, ``sum`` or ``none``.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `graphcl.kernels.pair_logsumexp`.

    Returns:
        A scalar, or ``(N,)`` for ``none``; with ``return_components`` also ``attraction`` and ``repulsion`` (with their
        weights and the same reduction). A sample without negatives has repulsion 0.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(V^2 N^2 d) time, O(V N d) memory plus the tiles.

    >>> import torch
    >>> cacr([torch.eye(3), torch.eye(3)]).round()
    tensor(-2.)
    """
    if len(views) < 2:
        raise ValueError(f"views must hold at least two matrices, got {len(views)}")
    for position, view in enumerate(views[1:], start=1):
        check_views("views[0]", views[0], f"views[{position}]", view)
    check_positive("negative_sharpness", negative_sharpness)
    if not positive_sharpness >= 0:
        raise ValueError(f"positive_sharpness must be at least 0, got {positive_sharpness}")
    units = unit_rows(*views)
    num = units[0].shape[0]
    if keys is None:
        refuse_key_ids(key_ids)
        pairs = list(combinations(units, 2))
        rules: tuple[CandidateRule, ...] = different_ids(num, num, ids, ids) or (ExcludeSameIndex(),)
    else:
        check_same_space("views[0]", views[0], "keys", keys)
        (candidates,) = unit_rows(keys)
        pairs = [(unit, candidates) for unit in units]
        rules = different_ids(num, keys.shape[0], ids, key_ids)
    attraction = torch.stack([_attraction(units, query, positive_sharpness, detach_weights) for query in units])
    repulsion = torch.stack(
        [
            _nearest_cost(query, candidates, rules, negative_sharpness, detach_weights, memory_budget, backend)
            for query, candidates in pairs
        ]
    )
    parts = {
        "attraction": reduce_anchors(attraction_weight * attraction.mean(dim=0), reduction),
        "repulsion": reduce_anchors(-repulsion_weight * repulsion.mean(dim=0), reduction),
    }
    loss = parts["attraction"] + parts["repulsion"]
    return (loss, parts) if return_components else loss


def cacr_rbf(
    queries: Sequence[Tensor],
    key: Tensor,
    keys: Tensor,
    *,
    ids: Tensor | None = None,
    key_ids: Tensor | None = None,
    temperature: float = 0.2,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""Several queries against one key and a queue, the farthest query weighing most: the kernel form of CACR.

    H. Zheng et al., "Contrastive Attraction and Contrastive Repulsion for Representation Learning". Confidence: U; the
    kernel :math:`e^{-\|q - k\|^2 / 2T}` (cosine over T) is this package's convention.

    Use it for several augmented queries of one sample against a momentum encoder's queue.

    .. math:: L_i = 2 T \sum_v p_v \, \text{InfoNCE}_T(q_v, k;\ \text{keys})_i, \qquad
        p_v = \operatorname{sg} \operatorname{softmax}_v \bigl(\|q_v - k\|^2 / T\bigr)

    Args:
        queries: at least one ``(N, d)`` matrix.
        key: ``(N, d)`` positive of every query, usually from a momentum encoder.
        keys: ``(C, d)`` negatives, usually a queue.
        ids: ``(N,)`` integers; a key with the id of the query is never its negative.
        key_ids: ``(C,)`` ids of the keys.
        temperature: T.
        reduction: ``mean``, ``sum`` or ``none``.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `graphcl.kernels.pair_logsumexp`.

    Returns:
        A scalar, or ``(N,)`` for ``none``.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(V N C d) time, O((V N + C) d) memory plus the tiles.

    >>> import torch
    >>> cacr_rbf([torch.eye(2)], torch.eye(2), torch.zeros(1, 2), temperature=1.0)
    tensor(0.6265)
    """
    if len(queries) == 0:
        raise ValueError("queries must hold at least one matrix, got none")
    check_positive("temperature", temperature)
    losses = torch.stack(
        [
            info_nce(
                query,
                key,
                keys=keys,
                ids=ids,
                key_ids=key_ids,
                temperature=temperature,
                reduction="none",
                memory_budget=memory_budget,
                backend=backend,
            )
            for query in queries
        ]
    )
    target, *units = unit_rows(key, *queries)
    with torch.no_grad():
        distance = torch.stack([((unit - target) ** 2).sum(dim=1) for unit in units])
        share = torch.softmax(distance / temperature, dim=0)
    return reduce_anchors(2.0 * temperature * (share * losses).sum(dim=0), reduction)


def _attraction(units: Sequence[Tensor], query: Tensor, sharpness: float, detach_weights: bool) -> Tensor:
    """Cost of the other views of each sample, weighted towards the far ones."""
    cost = torch.stack([((query - other) ** 2).sum(dim=1) for other in units if other is not query])
    share = torch.softmax(sharpness * (cost.detach() if detach_weights else cost), dim=0)
    return (share * cost).sum(dim=0)


def _nearest_cost(
    query: Tensor,
    candidates: Tensor,
    rules: tuple[CandidateRule, ...],
    sharpness: float,
    detach_weights: bool,
    memory_budget: int,
    backend: Backend,
) -> Tensor:
    """Cost of the negatives of each anchor, weighted towards the near ones; 0 without any."""
    total = pair_logsumexp(
        query,
        candidates,
        temperature=1.0 / sharpness,
        similarity="sqeuclidean",
        rules=rules,
        moments=1,
        memory_budget=memory_budget,
        backend=backend,
    )
    mean = cast(Tensor, total.mean)
    if not detach_weights:
        return -mean
    # d logsumexp / d cost = -sharpness * share: the gradient of the weighted cost under constant weights.
    alive = total.logsumexp > -torch.inf
    scaled = torch.where(alive, total.logsumexp, torch.zeros_like(total.logsumexp)) / sharpness
    return -(mean.detach() + scaled - scaled.detach())
