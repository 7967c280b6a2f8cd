"""Inliers attract each other, virtual outliers only their own views (UniCLR, the loss of UniCon-HA)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from graphcl.functional._group_sums import group_sums
from graphcl.functional._pair_terms import check_temperature, check_views, unit_rows
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.kernels import Backend, ExcludeSameIndex, pair_logsumexp
from graphcl.kernels._arguments import MEMORY_BUDGET, check_indices, check_same_space

__all__ = ["uniclr"]


def uniclr(
    inliers: Sequence[Tensor],
    outliers: Sequence[Tensor] = (),
    *,
    outlier_ids: Tensor | None = None,
    soft_temperature: float | None = None,
    temperature: float | Tensor = 0.5,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""UniCLR: all inliers are positives of each other; an outlier has only its other views.

    G. Wang, Y. Wang, J. Qin, D. Zhang, X. Bao, D. Huang, "Unilaterally Aggregated Contrastive Learning with
    Hierarchical Augmentation for Anomaly Detection", 2023, https://arxiv.org/abs/2308.10155. Confidence: P; U with
    ``soft_temperature``, where weights outside the logarithm and without gradient are this package's convention. Use it
    for one-class problems whose outliers are made from inliers (a rotation, a shuffled graph). For several depths of a
    network, add one term a depth with `graphcl.losses.Sum`.

    .. math:: L_a = -\frac{\sum_{p \in P(a)} w_p \ell_{ap}}{\sum_{p \in P(a)} w_p} + \log \sum_{b \ne a} e^{\ell_{ab}},
        \qquad w_p \propto \sum_{b \ne p} e^{\langle z_p, z_b \rangle / \tau_w} \text{ over inliers, or } 1

    Args:
        inliers: V >= 1 views of ``(N, d)``.
        outliers: the same number of views of ``(M, d)``; none for a plain one-class contrast.
        outlier_ids: ``(M,)`` integers; outliers with equal ids are positives of each other, not negatives.
        soft_temperature: tau_w; weighs inliers by how typical they are. Off by default.
        temperature: positive number or 0-dim tensor.
        weight: ``(V N + V M,)`` non-negative weights of the rows, inliers first, view by view.
        reduction: ``mean`` over rows that have a positive, ``sum`` or ``none``.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `graphcl.kernels.pair_logsumexp`.

    Returns:
        A scalar, or ``(V N + V M,)`` for ``none``.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(V^2 (N + M)^2 d) time, O(V (N + M) d) memory plus the tiles.

    >>> import torch
    >>> uniclr([torch.eye(3), torch.eye(3)], [-torch.eye(3), -torch.eye(3)], temperature=1.0)
    tensor(1.8383)
    """
    if len(inliers) == 0:
        raise ValueError("inliers must hold at least one view, got none")
    if len(outliers) not in (0, len(inliers)):
        raise ValueError(f"outliers must have as many views as inliers ({len(inliers)}) or none, got {len(outliers)}")
    check_temperature(temperature)
    for name, group in (("inliers", inliers), ("outliers", outliers)):
        for position, view in enumerate(group):
            check_views(f"{name}[0]", group[0], f"{name}[{position}]", view)
    if outliers:
        check_same_space("inliers[0]", inliers[0], "outliers[0]", outliers[0])
    num_views, num_outliers = len(inliers), outliers[0].shape[0] if outliers else 0
    rows = torch.cat(unit_rows(*inliers, *outliers))
    num_inlier_rows = num_views * inliers[0].shape[0]
    if outlier_ids is None:
        outlier_ids = torch.arange(num_outliers, device=rows.device)
    check_indices("outlier_ids", outlier_ids, num_outliers, None, check=False)
    kind = torch.ones_like(rows[:, 0], dtype=torch.int64)
    kind[:num_inlier_rows] = 0
    name_of = torch.zeros_like(kind)
    name_of[num_inlier_rows:] = outlier_ids.repeat(num_views)
    groups = torch.stack([kind, name_of], dim=1)
    importance = torch.ones_like(rows[:, :1])
    if soft_temperature is not None:
        importance = torch.cat(
            [
                _typicality(rows[:num_inlier_rows].detach(), soft_temperature, memory_budget, backend),
                importance[num_inlier_rows:],
            ]
        )
    # The last column sums the weights.
    weighted = torch.cat([rows, torch.ones_like(importance)], dim=1) * importance
    sums, count = group_sums(groups, groups, weighted)
    sums = sums - weighted
    valid = (count > 1) & (sums[:, -1].detach() > 0)
    share = torch.where(valid, sums[:, -1], torch.ones_like(sums[:, -1]))
    positive = (rows * sums[:, :-1]).sum(dim=1) / share / temperature
    total = pair_logsumexp(
        rows, rows, temperature=temperature, rules=ExcludeSameIndex(), memory_budget=memory_budget, backend=backend
    ).logsumexp
    return reduce_anchors(total - positive, reduction, valid=valid, weight=weight)


def _typicality(rows: Tensor, temperature: float, memory_budget: int, backend: Backend) -> Tensor:
    """``(N, 1)`` weights of inliers, largest 1, from the density of the others around them."""
    density = pair_logsumexp(
        rows, rows, temperature=temperature, rules=ExcludeSameIndex(), memory_budget=memory_budget, backend=backend
    ).logsumexp
    if density.shape[0] < 2:
        return torch.ones_like(density)[:, None]
    return torch.exp(density - density.max())[:, None]
