"""Weights of positive pairs by the quality of their views."""

from __future__ import annotations

import torch
from torch import Tensor

from graphcl.functional._pair_terms import check_views, paired_similarity, unit_rows
from graphcl.functional.infonce import info_nce
from graphcl.functional.reduction import Reduction
from graphcl.kernels import Backend
from graphcl.kernels._arguments import MEMORY_BUDGET

__all__ = ["attention_pool", "genview", "quality_weights"]


def attention_pool(features: Tensor, attention: Tensor) -> tuple[Tensor, Tensor]:
    r"""Foreground and background of each sample: its parts averaged by an attention map and by the complement.

    "GenView: Enhancing View Quality with Pretrained Generative Model for Self-Supervised Learning", 2024.
    Confidence: C.

    .. math:: f_i = \sum_p \frac{a_{ip}}{\sum_q a_{iq}} h_{ip}, \qquad
        b_i = \sum_p \frac{1 - a_{ip}}{\sum_q (1 - a_{iq})} h_{ip}

    Args:
        features: ``(N, P, d)`` frozen features of the parts (patches, neighbours) of each sample.
        attention: ``(N, P)`` in [0, 1].

    Returns:
        Foreground and background, ``(N, d)`` each; zero where all weights are zero.

    Raises:
        ValueError: shapes that do not match.

    Complexity: O(N P d).

    >>> import torch
    >>> attention_pool(torch.eye(2)[None], torch.tensor([[1.0, 0.0]]))
    (tensor([[1., 0.]]), tensor([[0., 1.]]))
    """
    if features.dim() != 3 or attention.shape != features.shape[:2]:
        raise ValueError(
            "features must have shape (N, P, d) and attention (N, P), "
            f"got {tuple(features.shape)} and {tuple(attention.shape)}"
        )
    pooled = []
    for weights in (attention, 1.0 - attention):
        total = weights.abs().sum(dim=1, keepdim=True)
        pooled.append(torch.einsum("np,npd->nd", weights / total.masked_fill(total == 0, 1.0), features))
    return pooled[0], pooled[1]


def quality_weights(
    foreground1: Tensor, foreground2: Tensor, background1: Tensor, background2: Tensor, *, gamma: float = 1.0
) -> Tensor:
    r"""Weights of mean 1 that favour pairs with a like foreground and an unlike background.

    "GenView: Enhancing View Quality with Pretrained Generative Model for Self-Supervised Learning", 2024.
    Confidence: C.

    .. math:: q_i = \exp\bigl(\gamma (\cos(f^1_i, f^2_i) - \cos(b^1_i, b^2_i))\bigr), \qquad a_i = N q_i / \sum_j q_j

    Args:
        foreground1, foreground2: ``(N, d)`` of the two views, from a frozen encoder; see `attention_pool`.
        background1, background2: ``(N, d)``.
        gamma: sharpness.

    Returns:
        ``(N,)`` weights without gradient; no weight for no rows.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(N d).

    >>> import torch
    >>> quality_weights(torch.eye(2), torch.eye(2), torch.eye(2), torch.eye(2))
    tensor([1., 1.])
    """
    check_views("foreground1", foreground1, "foreground2", foreground2)
    check_views("background1", background1, "background2", background2)
    with torch.no_grad():
        foreground = _paired_cosine(foreground1, foreground2)
        background = _paired_cosine(background1, background2)
        return torch.softmax(gamma * (foreground - background), dim=0) * foreground.shape[0]


def genview(
    z1: Tensor,
    z2: Tensor,
    weight: Tensor,
    *,
    ids: Tensor | None = None,
    keys: Tensor | None = None,
    key_ids: Tensor | None = None,
    temperature: float | Tensor = 1.0,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""InfoNCE from the first view to the second, every pair weighted by the quality of its views.

    "GenView: Enhancing View Quality with Pretrained Generative Model for Self-Supervised Learning", 2024.
    Confidence: C. Use it when views come from a generator or a strong augmentation that may miss the content.

    .. math:: L = \frac{1}{N} \sum_i a_i L_i^{\text{InfoNCE}}

    Args:
        z1: ``(N, d)`` anchors.
        z2: ``(N, d)``; row i is the positive of anchor i.
        weight: ``(N,)``, such as `quality_weights`; no gradient flows to it.
        ids: ``(N,)`` integers; a candidate with the id of the anchor is never its negative.
        keys: ``(C, d)`` negatives instead of the other rows of ``z2``.
        key_ids: ``(C,)`` ids of the keys.
        temperature: positive number, 0-dim tensor, or ``(N,)``.
        reduction: ``mean`` (weights of mean 1 keep their size), ``sum`` or ``none``.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `graphcl.kernels.pair_logsumexp`.

    Returns:
        A scalar, or ``(N,)`` for ``none``.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: that of `info_nce`.

    >>> import torch
    >>> genview(torch.eye(3), torch.eye(3), torch.tensor([3.0, 0.0, 0.0]))
    tensor(0.5514)
    """
    return info_nce(
        z1,
        z2,
        keys=keys,
        ids=ids,
        key_ids=key_ids,
        temperature=temperature,
        weight=weight.detach(),
        reduction=reduction,
        memory_budget=memory_budget,
        backend=backend,
    )


def _paired_cosine(x: Tensor, y: Tensor) -> Tensor:
    left, right = unit_rows(x, y)
    return paired_similarity(left, right)
