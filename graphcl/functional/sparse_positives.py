"""InfoNCE with any number of weighted positives an anchor, given as a sparse list."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from graphcl.functional._pair_terms import check_temperature, different_ids, in_space, softplus
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.kernels import (
    AnyOf,
    Backend,
    CandidateRule,
    ExcludePairs,
    KeepPairs,
    Similarity,
    edge_dot,
    pair_logsumexp,
)
from graphcl.kernels._arguments import MEMORY_BUDGET, check_indices, check_same_space, check_vector

__all__ = ["multi_positive_info_nce"]


def multi_positive_info_nce(
    anchors: Tensor,
    keys: Tensor,
    positives: Tensor | tuple[Tensor, Tensor],
    positive_weights: Tensor | None = None,
    *,
    ids: Tensor | None = None,
    key_ids: Tensor | None = None,
    denominator: Literal["shared", "own"] = "shared",
    temperature: float | Tensor = 0.1,
    similarity: Similarity = "cosine",
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""InfoNCE whose positives are a sparse list of weighted pairs: a user and all items of that user.

    The multi-positive form of recommendation and graph objectives, a definition of this package. Confidence: V.

    Use it for users with several items, nodes with several neighbours, or any sparse graded positives.

    .. math:: \text{shared: } L_i = -\sum_{p \in P(i)} \hat w_{ip} \Bigl(\ell_{ip} - \log \sum_{j} e^{\ell_{ij}}\Bigr)
        \qquad \text{own: } L_i = -\sum_{p \in P(i)} \hat w_{ip}
        \log \frac{e^{\ell_{ip}}}{e^{\ell_{ip}} + \sum_{j \notin P(i)} e^{\ell_{ij}}}

    with :math:`\hat w_{ip} = w_{ip} / \sum_p w_{ip}`. In ``own`` the positives of an anchor do not compete with each
    other; with one positive an anchor the forms are equal.

    Args:
        anchors: ``(A, d)``.
        keys: ``(C, d)`` candidates; all of them, positives included.
        positives: ``(2, E)`` pairs of anchor and key positions, or compressed rows, a tuple of offsets ``(A + 1,)`` and
            columns ``(E,)``.
        positive_weights: ``(E,)`` non-negative, ones by default. A pair of weight 0 pulls nothing, and in ``own`` it is
            no negative either.
        ids: ``(A,)`` integers; a key with the anchor's id that is not listed as positive is left out.
        key_ids: ``(C,)`` ids of the keys.
        denominator: ``shared`` or ``own``.
        temperature: positive number, 0-dim tensor, or ``(A,)``.
        similarity: ``cosine``, ``dot`` or ``sqeuclidean``.
        weight: ``(A,)`` non-negative weights of the anchors.
        reduction: ``mean`` over anchors that own a positive, ``sum`` or ``none``.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `graphcl.kernels.pair_logsumexp`.

    Returns:
        A scalar, or ``(A,)`` for ``none``; anchors without (weighted) positives are dropped.

    Raises:
        ValueError, TypeError, IndexError: naming the argument and the value.

    Complexity: O(A C d + E d) time, O((A + C) d + E) memory plus the tiles.

    >>> import torch
    >>> pairs = torch.tensor([[0, 0, 1], [0, 1, 2]])
    >>> multi_positive_info_nce(torch.eye(3)[:2], torch.eye(3), pairs, temperature=1.0)
    tensor(1.3014)
    """
    check_same_space("anchors", anchors, "keys", keys)
    check_temperature(temperature)
    if denominator not in ("shared", "own"):
        raise ValueError(f"denominator must be 'shared' or 'own', got {denominator!r}")
    num_anchors, num_keys = anchors.shape[0], keys.shape[0]
    rows, columns = _as_pairs(positives, num_anchors, num_keys)
    space, (x, y) = in_space(similarity, anchors, keys)
    if positive_weights is None:
        positive_weights = x.new_ones(rows.shape[0])
    check_vector("positive_weights", positive_weights, rows.shape[0], device=x.device)
    if bool((positive_weights < 0).any()):
        raise ValueError(f"positive_weights must not be negative, got {float(positive_weights.min())}")
    positive_weights = positive_weights.to(x.dtype)
    pairs = _compressed(rows, columns, num_anchors, num_keys)
    distinct = different_ids(num_anchors, num_keys, ids, key_ids)
    rules: tuple[CandidateRule, ...] = distinct
    if denominator == "own":
        rules = (*distinct, ExcludePairs(*pairs))
    elif distinct:
        rules = (AnyOf([*distinct, KeepPairs(*pairs)]),)
    total = pair_logsumexp(
        x, y, temperature=temperature, similarity=space, rules=rules, memory_budget=memory_budget, backend=backend
    ).logsumexp
    logit = edge_dot(x, y, rows, columns, similarity=space, memory_budget=memory_budget, backend=backend)
    if isinstance(temperature, Tensor) and temperature.dim() == 1:
        logit = logit / temperature[rows]
    else:
        logit = logit / temperature
    pair_loss = total[rows] - logit if denominator == "shared" else softplus(total[rows] - logit)
    weight_sum = positive_weights.new_zeros(num_anchors).index_add(0, rows, positive_weights)
    valid = weight_sum > 0
    share = positive_weights / torch.where(valid, weight_sum, torch.ones_like(weight_sum))[rows]
    loss = pair_loss.new_zeros(num_anchors).index_add(0, rows, share * pair_loss)
    return reduce_anchors(loss, reduction, valid=valid, weight=weight)


def _as_pairs(positives: Tensor | tuple[Tensor, Tensor], num_anchors: int, num_keys: int) -> tuple[Tensor, Tensor]:
    """Anchor and key position of every positive pair."""
    if isinstance(positives, Tensor):
        if positives.dim() != 2 or positives.shape[0] != 2:
            raise ValueError(f"positives must have shape (2, pairs), got shape {tuple(positives.shape)}")
        rows, columns = positives[0], positives[1]
    else:
        offsets, columns = positives
        check_indices("positives offsets", offsets, num_anchors + 1, None, check=False)
        if int(offsets[0]) != 0 or int(offsets[-1]) != columns.shape[0] or bool((offsets.diff() < 0).any()):
            raise ValueError(
                f"positives offsets must rise from 0 to the number of columns {columns.shape[0]}, "
                f"got {int(offsets[0])} to {int(offsets[-1])}"
            )
        rows = torch.repeat_interleave(torch.arange(num_anchors, device=offsets.device), offsets.diff().long())
    check_indices("positives anchor positions", rows, None, num_anchors, check=True)
    check_indices("positives key positions", columns, rows.shape[0], num_keys, check=True)
    return rows.long(), columns.long()


def _compressed(rows: Tensor, columns: Tensor, num_anchors: int, num_keys: int) -> tuple[Tensor, Tensor]:
    """The pairs as compressed rows, sorted within a row."""
    order = torch.argsort(rows * num_keys + columns)
    offsets = torch.bincount(rows, minlength=num_anchors).cumsum(0)
    return torch.cat([offsets.new_zeros(1), offsets]), columns[order]
