"""A second, generated positive for every anchor."""

from __future__ import annotations

import torch
from torch import Tensor

from graphcl.functional._draws import draw_uniform
from graphcl.functional._pair_terms import (
    check_temperature,
    check_views,
    different_ids,
    paired_similarity,
    softplus,
    unit_rows,
)
from graphcl.functional.feature_transform import as_columns
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.kernels import Backend, pair_logsumexp
from graphcl.kernels._arguments import MEMORY_BUDGET, check_same_space

__all__ = ["hallucinate", "hallucination"]


def hallucinate(
    queries: Tensor, keys: Tensor, weight: float | Tensor | None = None, *, generator: torch.Generator | None = None
) -> Tensor:
    r"""Extrapolate a key away from its query, as the input of a generator of further positives.

    "Hallucination Improves the Performance of Unsupervised Visual Representation Learning", 2023. Confidence: U, this
    package's convention.

    .. math:: \tilde k = k + \lambda (k - q), \qquad \lambda \sim U(0, 1)

    Args:
        queries: ``(N, d)``.
        keys: ``(N, d)``.
        weight: lambda: a number or ``(N,)``; drawn for every pair by default.
        generator: of the draw.

    Returns:
        ``(N, d)``, not normalised.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(N d).

    >>> import torch
    >>> hallucinate(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), 0.5)
    tensor([[-0.5000,  1.5000]])
    """
    check_views("queries", queries, "keys", keys)
    if weight is None:
        weight = draw_uniform(queries.shape[0], like=queries, generator=generator)
    return keys + as_columns(weight) * (keys - queries)


def hallucination(
    queries: Tensor,
    keys: Tensor,
    hallucinated: Tensor,
    queue: Tensor,
    *,
    ids: Tensor | None = None,
    queue_ids: Tensor | None = None,
    temperature: float | Tensor = 0.1,
    weight: Tensor | None = None,
    return_components: bool = False,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""InfoNCE with the key and with a generated positive, both against the same negatives.

    "Hallucination Improves the Performance of Unsupervised Visual Representation Learning", 2023. Confidence: U, this
    package's convention. The generator (`graphcl.views.mixing.Hallucinator`) is trained with the encoder.

    Use it with a queue when augmentations give positives that are too easy.

    .. math:: L_i = -\log \frac{e^{\langle q_i, k_i \rangle/\tau}}{e^{\langle q_i, k_i \rangle/\tau} + Z_i}
        - \log \frac{e^{\langle q_i, h_i \rangle/\tau}}{e^{\langle q_i, h_i \rangle/\tau} + Z_i}, \qquad
        Z_i = \sum_m e^{\langle q_i, m \rangle/\tau}

    Args:
        queries: ``(N, d)``.
        keys: ``(N, d)``, constants.
        hallucinated: ``(N, d)`` generated positives; they carry gradient.
        queue: ``(Q, d)`` negatives, constants.
        ids: ``(N,)`` integers; rows of the queue with the id of the query are no negatives.
        queue_ids: ``(Q,)`` ids of the queue.
        temperature: positive number, 0-dim tensor, or ``(N,)``.
        weight: ``(N,)`` non-negative weights of the anchors.
        return_components: also return the two terms, ``key`` and ``hallucinated``.
        reduction: ``mean``, ``sum`` or ``none``.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `graphcl.kernels.pair_logsumexp`.

    Returns:
        A scalar, or ``(N,)`` for ``none``; with ``return_components`` also a dictionary.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(N Q d) time, O((N + Q) d) memory plus the tiles.

    >>> import torch
    >>> hallucination(torch.eye(2), torch.eye(2), torch.eye(2), torch.zeros(3, 2), temperature=1.0)
    tensor(1.4873)
    """
    check_views("queries", queries, "keys", keys)
    check_views("queries", queries, "hallucinated", hallucinated)
    check_same_space("queries", queries, "queue", queue)
    check_temperature(temperature)
    x, k, generated, negatives = unit_rows(queries, keys.detach(), hallucinated, queue.detach())
    total = pair_logsumexp(
        x,
        negatives,
        temperature=temperature,
        rules=different_ids(x.shape[0], negatives.shape[0], ids, queue_ids),
        memory_budget=memory_budget,
        backend=backend,
    ).logsumexp
    parts = {
        name: reduce_anchors(softplus(total - paired_similarity(x, positive) / temperature), reduction, weight=weight)
        for name, positive in (("key", k), ("hallucinated", generated))
    }
    loss = parts["key"] + parts["hallucinated"]
    return (loss, parts) if return_components else loss
