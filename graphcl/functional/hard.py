"""Contrastive losses that choose their negatives by hardness, or do not weigh them at all."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from graphcl.functional._group_sums import equal_group_pairs
from graphcl.functional._pair_terms import (
    check_temperature,
    check_views,
    count_different,
    different_ids,
    logsumexp_rows,
    paired_similarity,
    refuse_key_ids,
    softplus,
    unit_rows,
)
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.kernels import Backend, edge_dot, pair_topk
from graphcl.kernels._arguments import MEMORY_BUDGET, check_block_size, check_same_space

__all__ = ["hard_contrastive", "simple_contrastive"]


def hard_contrastive(
    z1: Tensor,
    z2: Tensor,
    *,
    keys: Tensor | None = None,
    ids: Tensor | None = None,
    key_ids: Tensor | None = None,
    num_negatives: int | None = None,
    fraction: float | None = None,
    temperature: float | Tensor = 0.2,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""InfoNCE over the positive and only the most similar negatives of each anchor.

    F. Wang, H. Liu, "Understanding the Behaviour of Contrastive Loss", 2021, https://arxiv.org/abs/2012.09740.
    Confidence: P; choosing by count instead of by quantile is this package's convention. Use it when most negatives are
    easy and a high temperature would drown the hard ones.

    .. math:: L_i = -\log \frac{e^{s_{ii}/\tau}}{e^{s_{ii}/\tau} + \sum_{j \in \text{top-}k(i)} e^{s_{ij}/\tau}}, \qquad
        s_{ij} = \cos(z^1_i, z^2_j)

    Args:
        z1: ``(N, d)`` anchors.
        z2: ``(N, d)``; row i is the positive of anchor i.
        keys: ``(C, d)`` negatives; by default the other rows of ``z2``.
        ids: ``(N,)`` integers; a candidate with the id of the anchor is never its negative.
        key_ids: ``(C,)`` ids of the keys.
        num_negatives: k, the same for every anchor. Give this or ``fraction``.
        fraction: k is this part of the negatives of the anchor, at least 1.
        temperature: positive number, 0-dim tensor, or ``(N,)``.
        weight: ``(N,)`` non-negative weights of the anchors.
        reduction: ``mean``, ``sum`` or ``none``.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `graphcl.kernels.pair_topk`.

    Returns:
        A scalar, or ``(N,)`` for ``none``. An anchor without negatives has loss 0. The chosen set is a constant of
        differentiation.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(N C d) time, O(N (d + k)) memory plus the tiles; with ids, also the number of pairs of equal ids.

    >>> import torch
    >>> hard_contrastive(torch.eye(4), torch.eye(4), num_negatives=1, temperature=1.0)
    tensor(0.3133)
    """
    check_views("z1", z1, "z2", z2)
    check_temperature(temperature)
    if keys is None:
        refuse_key_ids(key_ids)
        candidates, own = z2, torch.arange(z1.shape[0], device=z1.device) if ids is None else ids
        ids = key_ids = own
    else:
        check_same_space("z1", z1, "keys", keys)
        candidates = keys
    different_ids(z1.shape[0], candidates.shape[0], ids, key_ids)
    x, y, negatives = unit_rows(z1, z2, candidates)
    if ids is None or key_ids is None:
        exclude, available = None, torch.full((x.shape[0],), negatives.shape[0], device=x.device)
    else:
        exclude, available = equal_group_pairs(ids, key_ids), count_different(ids, key_ids)
    wanted = _wanted(available, num_negatives, fraction)
    width = max(int(wanted.max()) if wanted.numel() > 0 else 0, 1)
    found = pair_topk(x, negatives, width, exclude=exclude, memory_budget=memory_budget, backend=backend).indices
    kept = (found >= 0) & (torch.arange(width, device=x.device) < wanted[:, None])
    rows, slots = kept.nonzero(as_tuple=True)
    logit = edge_dot(x, negatives, rows, found[rows, slots], memory_budget=memory_budget, backend=backend)
    hard = logit.new_full((x.shape[0], width), -torch.inf).index_put((rows, slots), logit)
    per_row = isinstance(temperature, Tensor) and temperature.dim() == 1
    total = logsumexp_rows((hard.T / temperature).T if per_row else hard / temperature)
    return reduce_anchors(softplus(total - paired_similarity(x, y) / temperature), reduction, weight=weight)


def simple_contrastive(
    z1: Tensor,
    z2: Tensor,
    *,
    negative_weight: float = 1.0,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Contrastive loss without hardness: every negative is pushed alike. A baseline for comparison.

    F. Wang, H. Liu, "Understanding the Behaviour of Contrastive Loss", 2021, https://arxiv.org/abs/2012.09740.
    Confidence: P.

    Use it to find out what the hardness of a softmax adds.

    .. math:: L_i = -s_{ii} + \lambda \sum_{j \ne i} s_{ij}, \qquad s_{ij} = \cos(z^1_i, z^2_j)

    Args:
        z1: ``(N, d)`` anchors.
        z2: ``(N, d)``; row i is the positive of anchor i, the other rows are negatives.
        negative_weight: lambda.
        weight: ``(N,)`` non-negative weights of the anchors.
        reduction: ``mean``, ``sum`` or ``none``.

    Returns:
        A scalar, or ``(N,)`` for ``none``.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(N d) time and memory: the negatives enter through their sum.

    >>> import torch
    >>> simple_contrastive(torch.eye(3), torch.eye(3))
    tensor(-1.)
    """
    check_views("z1", z1, "z2", z2)
    x, y = unit_rows(z1, z2)
    loss = -paired_similarity(x, y) + negative_weight * paired_similarity(x, y.sum(dim=0) - y)
    return reduce_anchors(loss, reduction, weight=weight)


def _wanted(available: Tensor, num_negatives: int | None, fraction: float | None) -> Tensor:
    """How many negatives each anchor keeps, given how many it has."""
    if (num_negatives is None) == (fraction is None):
        raise ValueError(f"give one of num_negatives and fraction, got {num_negatives} and {fraction}")
    if num_negatives is not None:
        return available.clamp(max=check_block_size("num_negatives", num_negatives))
    if fraction is None or not (0 < fraction <= 1 and math.isfinite(fraction)):
        raise ValueError(f"fraction must be above 0 and at most 1, got {fraction}")
    # One part in 10^9 guards against 0.3 * 10 falling below 3.
    part = (available.double() * fraction + 1e-9).floor().long()
    return torch.minimum(part.clamp(min=1), available)
