"""Pairwise ranking: a met item above one that was not met."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from graphcl.functional._pair_terms import softplus
from graphcl.functional.reduction import Reduction, reduce_anchors

__all__ = ["bpr"]


def bpr(
    positive: Tensor,
    negative: Tensor,
    *,
    form: Literal["logistic", "hinge"] = "logistic",
    floor: float = 0.0,
    margin: float = 1.0,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Bayesian personalised ranking: the score of a positive item should exceed that of a sampled negative one.

    S. Rendle, C. Freudenthaler, Z. Gantner, L. Schmidt-Thieme, "BPR: Bayesian Personalized Ranking from Implicit
    Feedback", 2009, https://arxiv.org/abs/1205.2618. Confidence: V.

    Use it for graph recommenders with one sampled negative a positive; `graphcl.kernels.linear_cross_entropy` ranks
    against a sample or the whole catalogue instead.

    .. math:: L_b = -\log\bigl(\varepsilon + \sigma(p_b - n_b)\bigr), \qquad
        \text{hinge: } L_b = \max(0, m - p_b + n_b)

    With a floor of 0 the logistic form is softplus(n - p), which neither overflows nor saturates; the floor 1e-5 is the
    form of SELFRec. The hinge is that of the first public LightGCL.

    Args:
        positive: ``(B,)`` scores of items that were met.
        negative: ``(B,)`` scores of items that were not, or ``(B, K)`` for K negatives each.
        form: ``logistic`` or ``hinge``.
        floor: ε, at least 0, of the logistic form.
        margin: m of the hinge.
        weight: non-negative weights in the shape of ``positive``.
        reduction: ``mean`` (over pairs), ``sum`` or ``none``.

    Returns:
        A scalar, or losses in the shape of ``negative`` for ``none``.

    Raises:
        ValueError: an unknown form, a negative floor, or shapes that do not fit.

    Complexity: O(B K) time and memory.

    >>> import torch
    >>> bpr(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.0]))
    tensor(0.6931)
    """
    if form not in ("logistic", "hinge"):
        raise ValueError(f"form must be 'logistic' or 'hinge', got {form!r}")
    if not floor >= 0:
        raise ValueError(f"floor must be at least 0, got {floor}")
    if positive.dim() != 1 or negative.dim() not in (1, 2) or negative.shape[0] != positive.shape[0]:
        raise ValueError(
            "positive must have shape (B,) and negative (B,) or (B, K), "
            f"got shapes {tuple(positive.shape)} and {tuple(negative.shape)}"
        )
    if negative.dim() == 2:
        positive = positive[:, None]
        weight = None if weight is None else weight[:, None].expand_as(negative)
    apart = positive - negative
    if form == "hinge":
        loss = (margin - apart).clamp(min=0.0)
    elif floor == 0.0:
        loss = softplus(-apart)
    else:
        loss = -torch.logaddexp(torch.nn.functional.logsigmoid(apart), apart.new_tensor(math.log(floor)))
    return reduce_anchors(loss, reduction, weight=weight)
