"""Mixup for metric learning: losses on mixed embeddings whose label is mixed too."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from graphcl.functional._draws import draw_uniform
from graphcl.functional._pair_terms import check_views, softplus, unit_rows
from graphcl.functional.feature_transform import as_columns
from graphcl.functional.reduction import Reduction, check_reduction, reduce_anchors
from graphcl.kernels import normalize_rows, scatter_logsumexp
from graphcl.kernels._arguments import check_indices, check_positive

__all__ = [
    "MixedPairs",
    "draw_mixed_pairs",
    "metrix_contrastive",
    "metrix_multi_similarity",
    "mix_rows",
]


class MixedPairs(NamedTuple):
    """Which rows are mixed for which anchors: mixture e belongs to ``anchor[e]``; all ``(E,)`` integers."""

    anchor: Tensor
    first: Tensor
    second: Tensor


def mix_rows(first: Tensor, second: Tensor, weight: float | Tensor) -> Tensor:
    r"""Unit mixtures of unit rows.

    S. Venkataramanan et al., "It Takes Two to Tango: Mixup for Deep Metric Learning", 2022,
    https://arxiv.org/abs/2106.04990. Confidence: C.

    .. math:: v = n\bigl(\lambda\, n(x) + (1 - \lambda)\, n(x')\bigr)

    Args:
        first: ``(E, d)``.
        second: ``(E, d)``.
        weight: lambda: a number or ``(E,)``.

    Returns:
        ``(E, d)``; gradients flow to both inputs.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(E d).

    >>> import torch
    >>> mix_rows(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 5.0]]), 0.5)
    tensor([[0.7071, 0.7071]])
    """
    check_views("first", first, "second", second)
    x, y = unit_rows(first, second)
    share = as_columns(weight)
    return normalize_rows(share * x + (1.0 - share) * y)


def draw_mixed_pairs(
    labels: Tensor,
    mode: Literal["positive_negative", "anchor_negative"],
    *,
    only_without_positives: bool = True,
    num_per_anchor: int = 1,
    generator: torch.Generator | None = None,
) -> MixedPairs:
    """Draw which rows of a labelled batch are mixed for which anchors.

    S. Venkataramanan et al., "It Takes Two to Tango: Mixup for Deep Metric Learning", 2022,
    https://arxiv.org/abs/2106.04990. Confidence: C. Drawing pairs instead of taking all is this package's convention.

    Args:
        labels: ``(N,)`` integers.
        mode: ``positive_negative`` mixes a random positive with a random negative, for anchors that have both;
            ``anchor_negative`` mixes the anchor itself with a random negative.
        only_without_positives: anchor-negative mixtures for anchors without positives only, as published.
        num_per_anchor: draws for every anchor.
        generator: of the draws, on the device of the labels.

    Returns:
        `MixedPairs`.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(N log N + N num_per_anchor).

    >>> import torch
    >>> pairs = draw_mixed_pairs(torch.tensor([0, 0, 1]), "positive_negative")
    >>> pairs.anchor, pairs.first, pairs.second
    (tensor([0, 1]), tensor([1, 0]), tensor([2, 2]))
    """
    if mode not in ("positive_negative", "anchor_negative"):
        raise ValueError(f"mode must be 'positive_negative' or 'anchor_negative', got {mode!r}")
    if num_per_anchor < 1:
        raise ValueError(f"num_per_anchor must be at least 1, got {num_per_anchor}")
    check_indices("labels", labels, None, None, check=False)
    num = labels.shape[0]
    # In the order of the labels a class is one stretch, so positives and negatives are drawn by offsets.
    ordered, order = torch.sort(labels, stable=True)
    start = torch.searchsorted(ordered, labels)
    size = torch.searchsorted(ordered, labels, right=True) - start
    place = torch.empty_like(order).scatter_(0, order, torch.arange(num, device=labels.device))
    positives, negatives = size - 1, num - size
    able = negatives > 0
    if mode == "positive_negative":
        able &= positives > 0
    elif only_without_positives:
        able &= positives == 0
    anchor = able.nonzero().flatten().repeat_interleave(num_per_anchor)
    reference = torch.empty(0, dtype=torch.float64, device=labels.device)

    def below(bound: Tensor) -> Tensor:
        drawn = draw_uniform(bound.shape[0], like=reference, generator=generator)
        return torch.minimum((drawn * bound).long(), bound - 1)

    skipped = below(negatives[anchor])
    second = order[skipped + size[anchor] * (skipped >= start[anchor])]
    if mode == "anchor_negative":
        return MixedPairs(anchor, anchor, second)
    offset = start[anchor] + below(positives[anchor])
    first = order[offset + (offset >= place[anchor])]
    return MixedPairs(anchor, first, second)


def metrix_contrastive(
    anchors: Tensor,
    mixtures: Tensor,
    target: float | Tensor,
    *,
    margin: float = 0.5,
    average: Literal["nonzero", "all"] = "nonzero",
    return_components: bool = False,
    reduction: Reduction = "mean",
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""Contrastive (margin) loss between anchors and mixtures with mixed labels.

    S. Venkataramanan et al., "It Takes Two to Tango: Mixup for Deep Metric Learning", 2022,
    https://arxiv.org/abs/2106.04990. Confidence: C. The published total is the clean loss plus .4 times this one, with
    one :math:`\lambda \sim \mathrm{Beta}(2, 2)` a batch.

    Use it beside the clean contrastive loss when classes are few and embeddings of unseen classes matter.

    .. math:: L_e = \lambda_e D_e + (1 - \lambda_e) [m - D_e]_+, \qquad D_e = \| n(a_e) - n(v_e) \|

    Args:
        anchors: ``(E, d)``.
        mixtures: ``(E, d)``, row e mixed for anchor e, such as the rows of `mix_rows`.
        target: lambda: a number or ``(E,)``; 1 for a mixture of two positives.
        margin: m.
        average: ``nonzero`` divides each of the two parts by the number of its terms above 0, ``all`` by E.
        return_components: also return the two parts, ``pull`` and ``push``.
        reduction: ``mean``, ``sum`` or ``none``.

    Returns:
        A scalar, or ``(E,)`` for ``none``; with ``return_components`` also a dictionary. 0 without mixtures.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(E d).

    >>> import torch
    >>> metrix_contrastive(torch.eye(2), torch.eye(2), 0.75)
    tensor(0.1250)
    """
    check_views("anchors", anchors, "mixtures", mixtures)
    check_reduction(reduction)
    if average not in ("nonzero", "all"):
        raise ValueError(f"average must be 'nonzero' or 'all', got {average!r}")
    x, v = unit_rows(anchors, mixtures)
    distance = torch.linalg.vector_norm(x - v, dim=1)
    parts = {}
    for name, share, term in (
        ("pull", target, distance),
        ("push", 1.0 - target, torch.relu(margin - distance)),
    ):
        counted = term > 0 if average == "nonzero" else None
        parts[name] = reduce_anchors(share * term, reduction, valid=counted)
    loss = parts["pull"] + parts["push"]
    return (loss, parts) if return_components else loss


def metrix_multi_similarity(
    anchors: Tensor,
    mixtures: Tensor,
    target: float | Tensor,
    rows: Tensor,
    *,
    alpha: float = 2.0,
    beta: float = 50.0,
    base: float = 0.5,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Multi-similarity loss over mixtures: the 0/1 label of a pair becomes the mixed one.

    S. Venkataramanan et al., "It Takes Two to Tango: Mixup for Deep Metric Learning", 2022,
    https://arxiv.org/abs/2106.04990. Confidence: P.

    Use it beside `multi_similarity` on the same batch, with mixtures of its rows.

    .. math:: L_i = \frac1\alpha \log\Bigl(1 + \sum_{e \in i} \lambda_e e^{-\alpha(s_e - b)}\Bigr)
        + \frac1\beta \log\Bigl(1 + \sum_{e \in i} (1 - \lambda_e) e^{\beta(s_e - b)}\Bigr), \qquad
        s_e = \cos(a_i, v_e)

    Args:
        anchors: ``(N, d)``.
        mixtures: ``(E, d)``.
        target: lambda: a number or ``(E,)`` in [0, 1].
        rows: ``(E,)`` integers, the anchor of each mixture.
        alpha: sharpness towards positives.
        beta: sharpness towards negatives.
        base: b.
        reduction: ``mean`` over anchors that have a mixture, ``sum`` or ``none``.

    Returns:
        A scalar, or ``(N,)`` for ``none``.

    Raises:
        ValueError, TypeError, IndexError: naming the argument and the value.

    Complexity: O((N + E) d).

    >>> import torch
    >>> metrix_multi_similarity(torch.eye(2), torch.eye(2), 1.0, torch.tensor([0, 1]), alpha=1.0, base=1.0)
    tensor(0.6931)
    """
    check_indices("rows", rows, mixtures.shape[0], anchors.shape[0], check=True)
    check_positive("alpha", alpha)
    check_positive("beta", beta)
    gathered = anchors[rows]
    check_views("anchors[rows]", gathered, "mixtures", mixtures)
    x, v = unit_rows(gathered, mixtures)
    similarity = (x * v).sum(dim=1)
    label = torch.as_tensor(target, dtype=similarity.dtype, device=similarity.device).expand_as(similarity)
    index, num = rows.long(), anchors.shape[0]
    pull = scatter_logsumexp(-alpha * (similarity - base) + label.log(), index, num)
    push = scatter_logsumexp(beta * (similarity - base) + (1.0 - label).log(), index, num)
    met = torch.bincount(index, minlength=num) > 0
    return reduce_anchors(softplus(pull) / alpha + softplus(push) / beta, reduction, valid=met)
