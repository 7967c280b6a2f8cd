"""InfoNCE across two views, and NT-Xent over all rows of two views."""

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
    paired_similarity,
    refuse_key_ids,
    softplus,
)
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.kernels import Backend, ExcludeSameIndex, Similarity, pair_logsumexp
from graphcl.kernels._arguments import MEMORY_BUDGET, check_same_space

__all__ = ["info_nce", "nt_xent"]


def info_nce(
    anchors: Tensor,
    positives: Tensor,
    *,
    keys: Tensor | None = None,
    ids: Tensor | None = None,
    key_ids: Tensor | None = None,
    temperature: float | Tensor = 0.1,
    similarity: Similarity = "cosine",
    symmetric: bool = False,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""InfoNCE: every anchor finds its own row among the rows of the other view, or among given keys.

    A. van den Oord, Y. Li, O. Vinyals, "Representation Learning with Contrastive Predictive Coding", 2018,
    https://arxiv.org/abs/1807.03748. Confidence: V. Use it when the two sides are different things (user and item, text
    and graph) or when the negatives come from a queue; for two views of one thing `nt_xent` has twice the negatives.

    .. math:: L_i = -\log \frac{e^{s(x_i, y_i)/\tau}}{e^{s(x_i, y_i)/\tau} + \sum_{j \in N(i)} e^{s(x_i, y_j)/\tau}}

    Args:
        anchors: ``(N, d)`` rows x.
        positives: ``(N, d)``; row i is the positive of anchor i.
        keys: ``(C, d)`` negatives; by default the other rows of ``positives``. To use both a queue and the batch,
            concatenate them.
        ids: ``(N,)`` integers; a candidate with the id of the anchor is never its negative.
        key_ids: ``(C,)`` ids of the keys; without keys, the ids of the positives are ``ids``.
        temperature: positive number, 0-dim tensor, or ``(N,)``, one a sample.
        similarity: ``cosine``, ``dot`` (raw inner products) or ``sqeuclidean`` (negative squared distance).
        symmetric: also contrasts ``positives`` with ``anchors`` and averages both ways (the CLIP form). Not with keys:
            call the function once a direction, each with its own keys.
        weight: ``(N,)`` non-negative weights of the anchors.
        reduction: ``mean``, ``sum`` or ``none``.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `graphcl.kernels.pair_logsumexp`.

    Returns:
        A scalar, or for ``none`` ``(N,)``, ``(2 N,)`` when symmetric (anchors first). An anchor without negatives has
        loss 0.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(N C d) time, O((N + C) d) memory plus the tiles.

    >>> import torch
    >>> info_nce(torch.eye(3), torch.eye(3), temperature=1.0)
    tensor(0.5514)
    """
    check_views("anchors", anchors, "positives", positives)
    check_temperature(temperature)
    if keys is not None:
        if symmetric:
            raise ValueError("symmetric needs the positives as candidates; with keys call once a direction")
        check_same_space("anchors", anchors, "keys", keys)
        rules = different_ids(anchors.shape[0], keys.shape[0], ids, key_ids)
        space, (x, y, candidates) = in_space(similarity, anchors, positives, keys)
    else:
        refuse_key_ids(key_ids)
        rules = different_ids(anchors.shape[0], anchors.shape[0], ids, ids)
        space, (x, y) = in_space(similarity, anchors, positives)
        candidates = y
    positive = paired_similarity(x, y, space) / temperature
    if symmetric:
        total = torch.cat(
            both_directions(
                x,
                y,
                temperature=temperature,
                similarity=space,
                rules=rules,
                memory_budget=memory_budget,
                backend=backend,
            )
        )
        positive = positive.repeat(2)
        weight = None if weight is None else weight.repeat(2)
    else:
        total = pair_logsumexp(
            x,
            candidates,
            temperature=temperature,
            similarity=space,
            rules=rules,
            memory_budget=memory_budget,
            backend=backend,
        ).logsumexp
    positive_inside = keys is None and ids is None
    loss = total - positive if positive_inside else softplus(total - positive)
    return reduce_anchors(loss, reduction, weight=weight)


def nt_xent(
    z1: Tensor,
    z2: Tensor,
    *,
    keys: Tensor | None = None,
    ids: Tensor | None = None,
    key_ids: Tensor | None = None,
    temperature: float | Tensor = 0.5,
    similarity: Similarity = "cosine",
    symmetric: bool = True,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""NT-Xent: every row of two stacked views finds its twin among all other rows of both views.

    T. Chen, S. Kornblith, M. Norouzi, G. Hinton, "A Simple Framework for Contrastive Learning of Visual
    Representations", 2020, https://arxiv.org/abs/2002.05709. Confidence: V. Use it first for two augmented views of
    the same nodes, sequences or items. No constant is added inside the logarithm.

    .. math:: L_i = -\log \frac{e^{s(z_i, z_{i'})/\tau}}{\sum_{j \ne i} e^{s(z_i, z_j)/\tau}}, \qquad
        z = [z^1; z^2], \; i' = \text{the twin of } i

    Args:
        z1: ``(N, d)`` first view.
        z2: ``(N, d)`` second view.
        keys: ``(C, d)`` negatives instead of the other rows of the batch.
        ids: ``(N,)`` integers, one a sample; rows of another sample with the same id are never negatives.
        key_ids: ``(C,)`` ids of the keys.
        temperature: positive number, 0-dim tensor, or ``(N,)``, one a sample.
        similarity: ``cosine``, ``dot`` or ``sqeuclidean``.
        symmetric: False takes only the rows of ``z1`` as anchors (candidates are still both views).
        weight: ``(N,)`` non-negative weights of the samples.
        reduction: ``mean`` over the 2 N anchors, ``sum`` or ``none``.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `graphcl.kernels.pair_logsumexp`.

    Returns:
        A scalar, or for ``none`` ``(2 N,)``, first view first (``(N,)`` if not symmetric).

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(N^2 d) time, O(N d) memory plus the tiles.

    >>> import torch
    >>> nt_xent(torch.eye(3), torch.eye(3), temperature=1.0)
    tensor(0.9048)
    """
    check_views("z1", z1, "z2", z2)
    check_temperature(temperature)
    num = z1.shape[0]
    space, (first, second) = in_space(similarity, z1, z2)
    positive = paired_similarity(first, second, space) / temperature
    rows = torch.cat([first, second])
    if symmetric:
        anchors, positive, temperature = rows, positive.repeat(2), for_both_views(temperature)
        anchor_ids = None if ids is None else ids.repeat(2)
        weight = None if weight is None else weight.repeat(2)
    else:
        anchors, anchor_ids = first, ids
    if keys is None:
        refuse_key_ids(key_ids)
        candidates = rows
        row_ids = None if ids is None else ids.repeat(2)
        # The diagonal of the stacked rows is each anchor itself; equal ids also cover the twin, which returns below.
        rules = different_ids(anchors.shape[0], 2 * num, anchor_ids, row_ids) or (ExcludeSameIndex(),)
    else:
        check_same_space("z1", z1, "keys", keys)
        candidates = in_space(similarity, keys)[1][0]
        rules = different_ids(anchors.shape[0], keys.shape[0], anchor_ids, key_ids)
    total = pair_logsumexp(
        anchors,
        candidates,
        temperature=temperature,
        similarity=space,
        rules=rules,
        memory_budget=memory_budget,
        backend=backend,
    ).logsumexp
    positive_inside = keys is None and ids is None
    loss = total - positive if positive_inside else softplus(total - positive)
    return reduce_anchors(loss, reduction, weight=weight)
