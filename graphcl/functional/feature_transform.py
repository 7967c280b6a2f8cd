"""Harder positives by extrapolation and more diverse negatives by interpolation, in embedding space."""

from __future__ import annotations

import torch
from torch import Tensor

from graphcl.functional._draws import draw_beta, draw_permutation
from graphcl.functional._pair_terms import (
    check_temperature,
    check_views,
    different_ids,
    paired_similarity,
    softplus,
    unit_rows,
)
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.kernels import Backend, EqualIds, normalize_rows, pair_logsumexp
from graphcl.kernels._arguments import MEMORY_BUDGET, check_indices, check_same_space

__all__ = ["extrapolate_positives", "feature_transform", "interpolate_negatives"]


def extrapolate_positives(
    queries: Tensor,
    keys: Tensor,
    weight: float | Tensor | None = None,
    *,
    concentration: float = 2.0,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Move the rows of a positive pair apart along the line through them: a harder positive.

    R. Zhu et al., "Improving Contrastive Learning by Visualizing Feature Transformation", 2021,
    https://arxiv.org/abs/2108.02982. Confidence: V.

    .. math:: \hat q = \lambda q + (1-\lambda) k, \quad \hat k = \lambda k + (1-\lambda) q, \qquad
        \lambda = 1 + \mathrm{Beta}(c, c)

    For unit rows the similarity s of the pair becomes :math:`2\lambda(1-\lambda) + (1 - 2\lambda(1-\lambda)) s \le s`.

    Args:
        queries: ``(N, d)``.
        keys: ``(N, d)``.
        weight: lambda: a number, ``(N,)``, or broadcastable to ``(N, d)``; drawn for every pair by default.
        concentration: c of the draw.
        generator: of the draw.

    Returns:
        Both ``(N, d)``, not normalised; gradients flow to both inputs.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(N d).

    >>> import torch
    >>> extrapolate_positives(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), 1.5)[0]
    tensor([[ 1.5000, -0.5000]])
    """
    check_views("queries", queries, "keys", keys)
    if weight is None:
        drawn = draw_beta(
            queries.shape[0], first=concentration, second=concentration, like=queries, generator=generator
        )
        weight = 1.0 + drawn
    share = as_columns(weight)
    return share * queries + (1.0 - share) * keys, share * keys + (1.0 - share) * queries


def interpolate_negatives(
    queue: Tensor,
    permutation: Tensor | None = None,
    weight: float | Tensor | None = None,
    *,
    concentration: float = 1.6,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Mix every negative with another one.

    R. Zhu et al., "Improving Contrastive Learning by Visualizing Feature Transformation", 2021,
    https://arxiv.org/abs/2108.02982. Confidence: V.

    .. math:: \hat m_j = \lambda' m_j + (1 - \lambda') m_{\pi(j)}, \qquad \lambda' \sim \mathrm{Beta}(c, c)

    Args:
        queue: ``(Q, d)``.
        permutation: ``(Q,)`` pi; drawn by default.
        weight: lambda': a number, ``(Q,)``, or broadcastable to ``(Q, d)`` (a weight a dimension); one drawn number by
            default.
        concentration: c of the draw.
        generator: of the draws.

    Returns:
        ``(Q, d)``, not normalised.

    Raises:
        ValueError, TypeError, IndexError: naming the argument and the value.

    Complexity: O(Q d).

    >>> import torch
    >>> interpolate_negatives(torch.eye(2), torch.tensor([1, 0]), 0.75)
    tensor([[0.7500, 0.2500],
            [0.2500, 0.7500]])
    """
    if permutation is None:
        permutation = draw_permutation(queue.shape[0], device=queue.device, generator=generator)
    check_indices("permutation", permutation, queue.shape[0], queue.shape[0], check=True)
    if weight is None:
        weight = draw_beta(first=concentration, second=concentration, like=queue, generator=generator)
    share = as_columns(weight)
    return share * queue + (1.0 - share) * queue[permutation]


def feature_transform(
    queries: Tensor,
    keys: Tensor,
    queue: Tensor,
    *,
    positive_weight: float | Tensor | None = None,
    negative_weight: float | Tensor | None = None,
    permutation: Tensor | None = None,
    renormalize: bool = False,
    generator: torch.Generator | None = None,
    ids: Tensor | None = None,
    queue_ids: Tensor | None = None,
    temperature: float | Tensor = 0.07,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""Momentum contrast on extrapolated positives and interpolated negatives.

    R. Zhu et al., "Improving Contrastive Learning by Visualizing Feature Transformation", 2021,
    https://arxiv.org/abs/2108.02982. Confidence: V. Use it when positives have become easy; push the original keys, not
    the transformed ones, to the queue.

    .. math:: L_i = -\log \frac{e^{\langle \hat q_i, \hat k_i \rangle/\tau}}
        {e^{\langle \hat q_i, \hat k_i \rangle/\tau} + \sum_j e^{\langle \hat q_i, \hat m_j \rangle/\tau}}

    with the rows of `extrapolate_positives` and `interpolate_negatives` of unit rows. Keys and queue are constants; the
    gradient reaches the queries through both rows of the pair.

    Args:
        queries: ``(N, d)``.
        keys: ``(N, d)``; row i is the positive of query i.
        queue: ``(Q, d)`` negatives.
        positive_weight: lambda of `extrapolate_positives`; drawn by default.
        negative_weight: lambda' of `interpolate_negatives`; drawn by default.
        permutation: ``(Q,)`` partners of the negatives; drawn by default.
        renormalize: bring the transformed rows back to unit length.
        generator: of the draws.
        ids: ``(N,)`` integers; a mixture of a row with the id of the query is no negative of it.
        queue_ids: ``(Q,)`` ids of the queue.
        temperature: positive number, 0-dim tensor, or ``(N,)``.
        weight: ``(N,)`` non-negative weights of the anchors.
        reduction: ``mean``, ``sum`` or ``none``.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `graphcl.kernels.pair_logsumexp`.

    Returns:
        A scalar, or ``(N,)`` for ``none``.

    Raises:
        ValueError, TypeError, IndexError: naming the argument and the value.

    Complexity: O(N Q d) time, O((N + Q) d) memory plus the tiles.

    >>> import torch
    >>> feature_transform(torch.eye(2), torch.eye(2), torch.zeros(3, 2), temperature=1.0)
    tensor(0.7437)
    """
    check_views("queries", queries, "keys", keys)
    check_same_space("queries", queries, "queue", queue)
    check_temperature(temperature)
    x, k, negatives = unit_rows(queries, keys.detach(), queue.detach())
    if permutation is None:
        permutation = draw_permutation(negatives.shape[0], device=x.device, generator=generator)
    harder, key = extrapolate_positives(x, k, positive_weight, generator=generator)
    mixed = interpolate_negatives(negatives, permutation, negative_weight, generator=generator)
    if renormalize:
        harder, key, mixed = (normalize_rows(rows) for rows in (harder, key, mixed))
    rules = different_ids(x.shape[0], negatives.shape[0], ids, queue_ids)
    if ids is not None and queue_ids is not None:
        rules = (*rules, EqualIds(ids, queue_ids[permutation], keep=False))
    total = pair_logsumexp(
        harder, mixed, temperature=temperature, rules=rules, memory_budget=memory_budget, backend=backend
    ).logsumexp
    return reduce_anchors(softplus(total - paired_similarity(harder, key) / temperature), reduction, weight=weight)


def as_columns(weight: float | Tensor) -> float | Tensor:
    """A weight a row as a column; numbers and matrices as they are."""
    return weight[:, None] if isinstance(weight, Tensor) and weight.dim() == 1 else weight
