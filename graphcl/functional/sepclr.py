"""Separation of patterns common to two groups from patterns salient in one of them (SepCLR)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from graphcl.functional._at_once import with_gradient_at_once
from graphcl.functional._pair_terms import (
    check_views,
    count_different,
    different_ids,
    logsumexp_rows,
    unit_rows,
)
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.kernels import Backend, ExcludeSameIndex, pair_logsumexp
from graphcl.kernels._arguments import MEMORY_BUDGET, check_matrix, check_positive, compute_dtype

__all__ = ["sepclr", "sepclr_joint_entropy", "sepclr_uniformity"]


def sepclr_uniformity(
    embeddings: Tensor,
    *,
    ids: Tensor | None = None,
    temperature: float = 0.5,
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""Log of the mean Gaussian similarity of all pairs, of embeddings as they are.

    R. Louiset, E. Duchesnay, A. Grigis, P. Gori, "Separating common from salient patterns with Contrastive
    Representation Learning", 2024, https://arxiv.org/abs/2402.11928. Confidence: V.

    Use it where `uniformity` would lose the norms, as `sepclr` does.

    .. math:: U = \log \operatorname{mean}_{i < j} e^{-\|x_i - x_j\|^2 / (2\tau)}

    Args:
        embeddings: ``(N, d)``, not normalised.
        ids: ``(N,)`` integers; pairs of equal ids are left out.
        temperature: tau.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `graphcl.kernels.pair_logsumexp`.

    Returns:
        A scalar, at most 0; exactly 0 when there is no pair.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(N^2 d) time, O(N d) memory plus the tiles.

    >>> import torch
    >>> round(float(sepclr_uniformity(torch.eye(3))), 4)
    -2.0
    """
    check_matrix("embeddings", embeddings)
    check_positive("temperature", temperature)
    num = embeddings.shape[0]
    rules = different_ids(num, num, ids, ids) or (ExcludeSameIndex(),)
    pairs = num * (num - 1) if ids is None else int(count_different(ids, ids).sum())
    rows = embeddings.to(compute_dtype(embeddings.dtype))
    if pairs == 0:
        return rows.sum() * 0.0
    total = pair_logsumexp(
        rows,
        rows,
        temperature=2.0 * temperature,
        similarity="sqeuclidean",
        rules=rules,
        memory_budget=memory_budget,
        backend=backend,
    ).logsumexp
    return logsumexp_rows(total) - torch.log(total.new_tensor(float(pairs)))


def sepclr_joint_entropy(
    common: Tensor,
    salient: Tensor,
    *,
    temperature: float = 0.5,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""Minus the joint entropy of two embeddings, by a kernel density: low when they vary independently.

    R. Louiset, E. Duchesnay, A. Grigis, P. Gori, "Separating common from salient patterns with Contrastive
    Representation Learning", 2024, https://arxiv.org/abs/2402.11928. Confidence: V.

    Use it to keep what two encoders represent apart, as `sepclr` does.

    .. math:: J = \operatorname{mean}_i \log \operatorname{mean}_j
        e^{-(\|c_i - c_j\|^2 + \|s_i - s_j\|^2) / (2 \tau)}, \qquad j = i \text{ included}

    Args:
        common: ``(N, d_c)``; normalised here.
        salient: ``(N, d_s)``, used as it is.
        temperature: tau.
        reduction: ``mean``, ``sum`` or ``none``.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `graphcl.kernels.pair_logsumexp`.

    Returns:
        A scalar, or ``(N,)`` for ``none``; at most 0.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(N^2 (d_c + d_s)) time, O(N (d_c + d_s)) memory plus the tiles: one sweep over both side by side.

    >>> import torch
    >>> sepclr_joint_entropy(torch.eye(2), torch.zeros(2, 1))
    tensor(-0.5662)
    """
    check_matrix("salient", salient)
    check_positive("temperature", temperature)
    (unit,) = unit_rows(common)
    if salient.shape[0] != unit.shape[0]:
        raise ValueError(f"salient must have {unit.shape[0]} rows like common, got {salient.shape[0]}")
    rows = torch.cat([unit, salient.to(unit.dtype)], dim=1)
    total = pair_logsumexp(
        rows,
        rows,
        temperature=2.0 * temperature,
        similarity="sqeuclidean",
        memory_budget=memory_budget,
        backend=backend,
    ).logsumexp
    return reduce_anchors(total - torch.log(total.new_tensor(float(max(rows.shape[0], 1)))), reduction)


def sepclr(
    common: Sequence[Tensor],
    salient: Sequence[Tensor],
    is_target: Tensor,
    *,
    temperature: float = 0.5,
    salient_weight: float = 1000.0,
    background_weight: float = 1000.0,
    entropy_weight: float = 10.0,
    return_components: bool = False,
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""SepCLR: one embedding of what two groups share, and one of what only the target group shows.

    R. Louiset, E. Duchesnay, A. Grigis, P. Gori, "Separating common from salient patterns with Contrastive
    Representation Learning", 2024, https://arxiv.org/abs/2402.11928. Confidence: V. Use it with a background group
    (healthy, organic traffic) and a target group (diseased, campaign traffic).

    .. math:: L = A(c) + 2 U(c) + \beta_s \bigl(A(s \mid target) + 2 U(s')\bigr)
        + \beta_r \operatorname{mean}_{background} \frac{\|s\|^2}{2 \tau} + \lambda J(c, s'), \qquad
        A(a) = \operatorname{mean} \frac{\|a^1 - a^2\|^2}{2 \tau}

    where s' is s with rows of the background set to 0; U, J and the background term are averaged over the two views.

    Args:
        common: two views of ``(N, d_c)``; normalised here.
        salient: two views of ``(N, d_s)``, used as they are.
        is_target: ``(N,)`` bool, false for the background.
        temperature: tau.
        salient_weight: beta_s.
        background_weight: beta_r.
        entropy_weight: lambda.
        return_components: also return the parts.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `graphcl.kernels.pair_logsumexp`.

    Returns:
        A scalar, with ``return_components`` also ``common``, ``salient``, ``background`` and ``joint_entropy``, each
        before its weight.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(N^2 (d_c + d_s)) time, O(N (d_c + d_s)) memory plus the tiles.

    >>> import torch
    >>> c, s = torch.eye(2), torch.tensor([[1.0], [0.0]])
    >>> sepclr([c, c], [s, s], torch.tensor([True, False]), salient_weight=0.0, background_weight=0.0)
    tensor(-10.4456)
    """
    if len(common) != 2 or len(salient) != 2:
        raise ValueError(f"common and salient must hold 2 views each, got {len(common)} and {len(salient)}")
    check_views("common[0]", common[0], "common[1]", common[1])
    check_views("salient[0]", salient[0], "salient[1]", salient[1])
    check_positive("temperature", temperature)
    num = common[0].shape[0]
    if salient[0].shape[0] != num:
        raise ValueError(f"salient must have {num} rows like common, got {salient[0].shape[0]}")
    if is_target.shape != (num,) or is_target.dtype != torch.bool:
        raise ValueError(f"is_target must be bool of shape ({num},), got {is_target.dtype} {tuple(is_target.shape)}")
    c = unit_rows(*common)
    s = [view.to(c[0].dtype) for view in salient]
    shown = [torch.where(is_target[:, None], view, torch.zeros_like(view)) for view in s]

    def halved_square(difference: Tensor, valid: Tensor | None = None) -> Tensor:
        return reduce_anchors((difference**2).sum(dim=1) / (2.0 * temperature), valid=valid)

    # Six sweeps over all pairs, each of which is done with its memory before the next.
    def spread(views: Sequence[Tensor]) -> Tensor:
        first, second = (with_gradient_at_once(partial(sepclr_uniformity, **options), view) for view in views)
        return first + second

    options: dict[str, Any] = {"temperature": temperature, "memory_budget": memory_budget, "backend": backend}
    entropies = [
        with_gradient_at_once(partial(sepclr_joint_entropy, **options), *pair) for pair in zip(c, shown, strict=True)
    ]
    parts = {
        # Twice the uniformity, averaged over two views, is their sum.
        "common": halved_square(c[0] - c[1]) + spread(c),
        "salient": halved_square(s[0] - s[1], is_target) + spread(shown),
        "background": 0.5 * (halved_square(s[0], ~is_target) + halved_square(s[1], ~is_target)),
        "joint_entropy": 0.5 * (entropies[0] + entropies[1]),
    }
    loss = (
        parts["common"]
        + salient_weight * parts["salient"]
        + background_weight * parts["background"]
        + entropy_weight * parts["joint_entropy"]
    )
    return (loss, parts) if return_components else loss
