"""InfoNCE against a queue of keys from a slowly moving encoder."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from graphcl.functional._pair_terms import (
    check_temperature,
    check_views,
    different_ids,
    merge_logsumexp,
    paired_similarity,
    softplus,
    unit_rows,
)
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.kernels import Backend, CandidateRule, EqualIds, ExcludeSameIndex, pair_logsumexp
from graphcl.kernels._arguments import MEMORY_BUDGET, check_indices, check_same_space

__all__ = ["moco"]


def moco(
    queries: Tensor,
    keys: Tensor,
    queue: Tensor,
    *,
    in_batch: bool = False,
    detach_keys: bool = True,
    ids: Tensor | None = None,
    queue_ids: Tensor | None = None,
    groups: Tensor | None = None,
    queue_groups: Tensor | None = None,
    rules: CandidateRule | Sequence[CandidateRule] = (),
    temperature: float | Tensor = 0.07,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""Momentum contrast: every query finds its key among the rows of a queue (and the keys of the batch).

    K. He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", 2020,
    https://arxiv.org/abs/1911.05722. With ``in_batch`` and ``detach_keys=False`` this is the form of "ESimCSE: Enhanced
    Sample Building Method for Contrastive Learning of Unsupervised Sentence Embedding", 2021,
    https://arxiv.org/abs/2109.04380 (queue 2.5 times the batch, temperature .05). With ``groups`` an anchor only meets
    negatives of its own group (language, market, node type), so that the group is not a shortcut: this package's
    convention for "Unsupervised Context Aware Sentence Representation Pretraining for Multi-lingual Dense Retrieval".
    Confidence: C (momentum queue), P (ESimCSE), U (groups). Use it when many negatives are wanted from small batches.

    .. math:: L_i = -\log \frac{e^{\langle q_i, k_i \rangle/\tau}}
        {e^{\langle q_i, k_i \rangle/\tau} + \sum_{m \in \text{queue}} e^{\langle q_i, m \rangle/\tau}
        \; [+ \sum_{j \ne i} e^{\langle q_i, k_j \rangle/\tau}]}

    Args:
        queries: ``(N, d)``.
        keys: ``(N, d)``; row i is the positive of query i.
        queue: ``(Q, d)`` negatives, constants; may have no rows.
        in_batch: the other keys of the batch are negatives too.
        detach_keys: the keys carry no gradient.
        ids: ``(N,)`` integers; rows with the id of the anchor are never its negatives.
        queue_ids: ``(Q,)`` ids of the queue.
        groups: ``(N,)`` integers; only rows of the anchor's group are its negatives.
        queue_groups: ``(Q,)`` groups of the queue.
        rules: further rules on the queue, for instance a false-negative filter of `graphcl.losses.pairs`.
        temperature: positive number, 0-dim tensor, or ``(N,)``.
        weight: ``(N,)`` non-negative weights of the anchors.
        reduction: ``mean``, ``sum`` or ``none``.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `graphcl.kernels.pair_logsumexp`.

    Returns:
        A scalar, or ``(N,)`` for ``none``. An anchor without negatives has loss 0.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(N Q d) time, O((N + Q) d) memory plus the tiles.

    >>> import torch
    >>> moco(torch.eye(2), torch.eye(2), torch.zeros(3, 2), temperature=1.0)
    tensor(0.7437)
    """
    check_views("queries", queries, "keys", keys)
    check_same_space("queries", queries, "queue", queue)
    check_temperature(temperature)
    num = queries.shape[0]
    x, k, negatives = unit_rows(queries, keys.detach() if detach_keys else keys, queue.detach())
    further = tuple(rules) if isinstance(rules, Sequence) else (rules,)
    grouped = _same_group(num, negatives.shape[0], groups, queue_groups)
    sums = [(negatives, (*different_ids(num, negatives.shape[0], ids, queue_ids), *grouped, *further))]
    if in_batch:
        own = () if groups is None else (EqualIds(groups, groups),)
        sums.append((k, (*(different_ids(num, num, ids, ids) or (ExcludeSameIndex(),)), *own)))
    total = merge_logsumexp(
        [
            pair_logsumexp(
                x, rows, temperature=temperature, rules=allowed, memory_budget=memory_budget, backend=backend
            ).logsumexp
            for rows, allowed in sums
        ]
    )
    return reduce_anchors(softplus(total - paired_similarity(x, k) / temperature), reduction, weight=weight)


def _same_group(
    num: int, num_queue: int, groups: Tensor | None, queue_groups: Tensor | None
) -> tuple[CandidateRule, ...]:
    if groups is None and queue_groups is None:
        return ()
    if groups is None or queue_groups is None:
        given = "queue_groups" if groups is None else "groups"
        raise ValueError(f"groups and queue_groups are compared with each other, got only {given}")
    check_indices("groups", groups, num, None, check=False)
    check_indices("queue_groups", queue_groups, num_queue, None, check=False)
    return (EqualIds(groups, queue_groups),)
