"""Supervised contrastive learning with positives by label."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from graphcl.functional._group_sums import group_sums
from graphcl.functional._pair_terms import check_temperature, different_ids, in_space, refuse_key_ids
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.kernels import Backend, CandidateRule, EqualIds, ExcludeSameIndex, pair_logsumexp
from graphcl.kernels._arguments import MEMORY_BUDGET, check_indices, check_matrix, check_positive, check_same_space

__all__ = ["sup_con"]


def sup_con(
    embeddings: Tensor,
    labels: Tensor,
    *,
    keys: Tensor | None = None,
    key_labels: Tensor | None = None,
    ids: Tensor | None = None,
    key_ids: Tensor | None = None,
    form: Literal["out", "in"] = "out",
    temperature: float | Tensor = 0.1,
    base_temperature: float | None = None,
    similarity: Literal["cosine", "dot"] = "cosine",
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""Supervised contrastive loss: rows of the anchor's class are its positives.

    P. Khosla et al., "Supervised Contrastive Learning", 2020, https://arxiv.org/abs/2004.11362. Confidence: V. Use it
    when labels (classes, clusters, sessions) say what belongs together. Several views: stack them, repeat the labels.

    .. math:: L^{out}_i = -\frac{1}{|P(i)|} \sum_{p \in P(i)} \log \frac{e^{\ell_{ip}}}{\sum_{j \ne i} e^{\ell_{ij}}},
        \qquad L^{in}_i = -\log \frac{\frac{1}{|P(i)|}\sum_{p \in P(i)} e^{\ell_{ip}}}{\sum_{j \ne i} e^{\ell_{ij}}}

    The positives of the out form cost O(N d): their logits are summed through one sum of rows a class.

    Args:
        embeddings: ``(N, d)`` anchors, and candidates unless keys are given.
        labels: ``(N,)`` integers.
        keys: ``(C, d)`` candidates other than the anchors.
        key_labels: ``(C,)`` labels of the keys.
        ids: ``(N,)`` integers marking equal rows; a row with the id of the anchor is neither positive nor negative.
            Without keys the default is the row itself.
        key_ids: ``(C,)`` ids of the keys.
        form: ``out`` (mean of logs) or ``in`` (log of the mean; weaker gradients).
        temperature: positive number, 0-dim tensor, or ``(N,)``.
        base_temperature: multiplies the loss by ``temperature / base_temperature``; off by default.
        similarity: ``cosine`` or ``dot``.
        weight: ``(N,)`` non-negative weights of the anchors.
        reduction: ``mean`` over anchors that have a positive, ``sum`` or ``none``.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `graphcl.kernels.pair_logsumexp`.

    Returns:
        A scalar, or ``(N,)`` for ``none``; anchors without positives are dropped (0 in ``none``).

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(N C d) time (twice that for ``in``), O((N + C) d) memory plus the tiles.

    >>> import torch
    >>> sup_con(torch.eye(3)[[0, 0, 1]], torch.tensor([5, 5, 7]), temperature=1.0)
    tensor(0.3133)
    """
    check_matrix("embeddings", embeddings)
    check_indices("labels", labels, embeddings.shape[0], None, check=False)
    check_temperature(temperature)
    if form not in ("out", "in"):
        raise ValueError(f"form must be 'out' or 'in', got {form!r}")
    if similarity not in ("cosine", "dot"):
        raise ValueError(f"similarity must be 'cosine' or 'dot', got {similarity!r}")
    if base_temperature is not None:
        check_positive("base_temperature", base_temperature)
    _, (x,) = in_space(similarity, embeddings)
    if keys is None:
        refuse_key_ids(key_ids)
        if key_labels is not None:
            raise ValueError("key_labels belong to keys, got key_labels without keys")
        y, key_labels = x, labels
        own: Tensor | None = torch.arange(x.shape[0], device=x.device) if ids is None else ids
        own_keys = own
        rules: tuple[CandidateRule, ...] = different_ids(x.shape[0], x.shape[0], ids, ids) or (ExcludeSameIndex(),)
    else:
        if key_labels is None:
            raise ValueError("keys need key_labels, got None")
        check_same_space("embeddings", embeddings, "keys", keys)
        check_indices("key_labels", key_labels, keys.shape[0], None, check=False)
        _, (y,) = in_space(similarity, keys)
        own, own_keys = ids, key_ids
        rules = different_ids(x.shape[0], y.shape[0], ids, key_ids)

    def log_sum(all_rules: tuple[CandidateRule, ...]) -> Tensor:
        return pair_logsumexp(
            x, y, temperature=temperature, rules=all_rules, memory_budget=memory_budget, backend=backend
        ).logsumexp

    positive_sum, count = group_sums(labels[:, None], key_labels[:, None], y)
    if own is not None and own_keys is not None:
        own_sum, own_count = group_sums(torch.stack([labels, own], 1), torch.stack([key_labels, own_keys], 1), y)
        positive_sum, count = positive_sum - own_sum, count - own_count
    if form == "out":
        positive = (x * positive_sum).sum(dim=1) / count.clamp(min=1) / temperature
    else:
        positive = log_sum((EqualIds(labels, key_labels), *rules)) - count.clamp(min=1).to(x.dtype).log()
    loss = log_sum(rules) - positive
    if base_temperature is not None:
        loss = loss * (temperature / base_temperature)
    return reduce_anchors(loss, reduction, valid=count > 0, weight=weight)
