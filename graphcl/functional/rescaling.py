"""A fixed geometric weighting of the features in place of a projection head."""

from __future__ import annotations

import torch
from torch import Tensor

from graphcl.functional._pair_terms import refuse_key_ids
from graphcl.functional.infonce import info_nce
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.kernels import Backend
from graphcl.kernels._arguments import MEMORY_BUDGET, check_matrix, check_positive

__all__ = ["diagonal_rescale", "rescaled_info_nce"]


def diagonal_rescale(z: Tensor, kappa: float) -> Tensor:
    r"""Multiply feature j by :math:`\kappa^{-j}`.

    "Investigating the Benefits of Projection Head for Representation Learning", 2024. Confidence: P.

    .. math:: z_{ij} \leftarrow \kappa^{-j} z_{ij}, \qquad j = 0, \dots, d - 1

    Args:
        z: ``(N, d)``.
        kappa: above 1 the first features count most; 1.01 to 1.5 by the width of z.

    Returns:
        ``(N, d)``.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(N d).

    >>> import torch
    >>> diagonal_rescale(torch.ones(1, 3), 2.0)
    tensor([[1.0000, 0.5000, 0.2500]])
    """
    check_matrix("z", z)
    check_positive("kappa", kappa)
    powers = torch.arange(z.shape[1], dtype=torch.float64, device=z.device)
    return z * (float(kappa) ** -powers).to(z.dtype)


def rescaled_info_nce(
    z1: Tensor,
    z2: Tensor,
    *,
    kappa: float = 1.05,
    keys: Tensor | None = None,
    ids: Tensor | None = None,
    key_ids: Tensor | None = None,
    temperature: float | Tensor = 0.2,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""Symmetric InfoNCE on rescaled features; the representation for later use is z itself.

    "Investigating the Benefits of Projection Head for Representation Learning", 2024. Confidence: P. Use it instead of
    a projection head: no parameters, and features that the contrast would discard keep a small weight.

    .. math:: L = \mathrm{InfoNCE}_{\leftrightarrow}\bigl(D z^1, D z^2\bigr), \qquad
        D = \operatorname{diag}(1, \kappa^{-1}, \dots, \kappa^{-(d-1)})

    Args:
        z1: ``(N, d)`` first view.
        z2: ``(N, d)`` second view.
        kappa: of `diagonal_rescale`.
        keys: ``(C, d)`` negatives instead of the other rows of the batch, rescaled alike.
        ids: ``(N,)`` integers; a row with the id of the anchor is never its negative.
        key_ids: ``(C,)`` ids of the keys.
        temperature: positive number, 0-dim tensor, or ``(N,)``.
        weight: ``(N,)`` non-negative weights of the samples.
        reduction: ``mean`` over the 2 N anchors, ``sum`` or ``none``.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `graphcl.kernels.pair_logsumexp`.

    Returns:
        A scalar, or ``(2 N,)`` for ``none``.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(N^2 d) time, O(N d) memory plus the tiles.

    >>> import torch
    >>> rescaled_info_nce(torch.eye(3), torch.eye(3), temperature=1.0)
    tensor(0.5514)
    """
    first, second = diagonal_rescale(z1, kappa), diagonal_rescale(z2, kappa)
    if keys is None:
        refuse_key_ids(key_ids)
        return info_nce(
            first,
            second,
            ids=ids,
            temperature=temperature,
            symmetric=True,
            weight=weight,
            reduction=reduction,
            memory_budget=memory_budget,
            backend=backend,
        )
    negatives = diagonal_rescale(keys, kappa)
    ways = [
        info_nce(
            anchors,
            positives,
            keys=negatives,
            ids=ids,
            key_ids=key_ids,
            temperature=temperature,
            reduction="none",
            memory_budget=memory_budget,
            backend=backend,
        )
        for anchors, positives in ((first, second), (second, first))
    ]
    return reduce_anchors(torch.cat(ways), reduction, weight=None if weight is None else weight.repeat(2))
