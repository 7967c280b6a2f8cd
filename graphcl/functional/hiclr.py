"""Consistency from weak to strong views over a queue (HiCLR)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from graphcl.functional._group_sums import equal_group_pairs
from graphcl.functional._pair_terms import (
    check_temperature,
    check_views,
    different_ids,
    paired_similarity,
    softplus,
    unit_rows,
)
from graphcl.functional._soft_targets import expected_similarity
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.kernels import Backend, edge_dot, pair_logsumexp, pair_topk
from graphcl.kernels._arguments import MEMORY_BUDGET, check_same_space

__all__ = ["hiclr"]


def hiclr(
    views: Sequence[Tensor],
    positives: Tensor,
    queue: Tensor,
    *,
    ids: Tensor | None = None,
    queue_ids: Tensor | None = None,
    neighbors: int = 0,
    directional_weight: float = 0.5,
    temperature: float | Tensor = 0.07,
    weight: Tensor | None = None,
    return_components: bool = False,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""HiCLR: the weakest view is contrasted with a queue, each stronger view imitates the next weaker one.

    J. Zhang, L. Lin, J. Liu, "Hierarchical Consistent Contrastive Learning for Skeleton-Based Action Recognition with
    Growing Augmentations", 2023, https://arxiv.org/abs/2211.13466. Confidence: V. Use it when strong augmentations help
    only if they are not asked to be as close to the key as weak ones.

    .. math:: L = -\log p^0_{i, +} + w \sum_{v \ge 1} H(\operatorname{sg} p^{v-1}_i, p^v_i), \qquad
        p^v_i = \operatorname{softmax}\bigl([\langle q^v_i, k_i \rangle, \langle q^v_i, \text{queue} \rangle]/\tau\bigr)

    Args:
        views: V >= 1 of ``(N, d)``, from the weakest to the strongest augmentation.
        positives: ``(N, d)`` keys k of the anchors, usually of a momentum encoder and without gradient.
        queue: ``(Q, d)`` negatives.
        ids: ``(N,)`` integers; rows of the queue with the id of the anchor are left out.
        queue_ids: ``(Q,)`` ids of the queue.
        neighbors: 1 makes the nearest row of the queue to each view a positive of the first term too (the later epochs
            of the paper), k takes the k nearest; the positives are averaged outside the logarithm.
        directional_weight: w of every consistency term.
        temperature: positive number or 0-dim tensor.
        weight: ``(N,)`` non-negative weights of the anchors.
        return_components: also return the parts.
        reduction: ``mean``, ``sum`` or ``none``.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `graphcl.kernels.pair_logsumexp`.

    Returns:
        A scalar, or ``(N,)`` for ``none``; with ``return_components`` also ``contrast`` and ``consistency``, before
        their weights.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(V N Q d) time, O((V N + Q) d) memory plus the tiles.

    >>> import torch
    >>> z = torch.eye(3)
    >>> hiclr([z, z], z, -z, temperature=1.0)
    tensor(1.2087)
    """
    if len(views) == 0:
        raise ValueError("views must hold at least one view, got none")
    for position, view in enumerate(views):
        check_views("positives", positives, f"views[{position}]", view)
    check_same_space("positives", positives, "queue", queue)
    check_temperature(temperature)
    if neighbors < 0:
        raise ValueError(f"neighbors must not be negative, got {neighbors}")
    rules = different_ids(positives.shape[0], queue.shape[0], ids, queue_ids)
    key, bank, *rows = unit_rows(positives, queue, *views)
    pulls = [paired_similarity(row, key) / temperature for row in rows]
    pushes = [
        pair_logsumexp(
            row, bank, temperature=temperature, rules=rules, memory_budget=memory_budget, backend=backend
        ).logsumexp
        for row in rows
    ]
    losses = [softplus(push - pull) for push, pull in zip(pushes, pulls, strict=True)]
    contrast = losses[0]
    if neighbors > 0:
        exclude = None if ids is None or queue_ids is None else equal_group_pairs(ids, queue_ids)
        near = _nearest_in_any_view(rows, bank, neighbors, exclude, memory_budget, backend)
        near_logit = edge_dot(rows[0], bank, *near, memory_budget=memory_budget, backend=backend) / temperature
        number = 1 + torch.bincount(near[0], minlength=key.shape[0])
        pulled = pulls[0].index_add(0, near[0], near_logit) / number.to(key.dtype)
        contrast = losses[0] + pulls[0] - pulled
    consistency = torch.zeros_like(contrast)
    for weak in range(len(rows) - 1):
        # Shares of the key and of the queue in the weaker view; within the queue its softmax.
        gap = (pulls[weak] - pushes[weak]).detach()
        in_queue = expected_similarity(
            rows[weak],
            rows[weak + 1],
            bank,
            temperature=temperature,
            rules=rules,
            memory_budget=memory_budget,
            backend=backend,
        )
        expected = torch.sigmoid(gap) * pulls[weak + 1] + torch.sigmoid(-gap) * in_queue / temperature
        consistency = consistency + losses[weak + 1] + pulls[weak + 1] - expected
    loss = reduce_anchors(contrast + directional_weight * consistency, reduction, weight=weight)
    if not return_components:
        return loss
    return loss, {
        "contrast": reduce_anchors(contrast, reduction, weight=weight),
        "consistency": reduce_anchors(consistency, reduction, weight=weight),
    }


def _nearest_in_any_view(
    rows: Sequence[Tensor],
    bank: Tensor,
    count: int,
    exclude: tuple[Tensor, Tensor] | None,
    memory_budget: int,
    backend: Backend,
) -> tuple[Tensor, Tensor]:
    """Pairs (anchor, queue row), once each, of queue rows that are among the nearest of any view of the anchor."""
    found = [pair_topk(row, bank, count, exclude=exclude, memory_budget=memory_budget, backend=backend) for row in rows]
    near = torch.cat([one.indices for one in found], dim=1)
    anchor = torch.arange(near.shape[0], device=near.device)[:, None].expand_as(near)
    pairs = torch.unique(torch.stack([anchor[near >= 0], near[near >= 0]], dim=1), dim=0)
    return pairs[:, 0], pairs[:, 1]
