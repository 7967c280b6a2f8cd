"""Contrast with perturbed targets: near rows that are wrong for the task, far rows that are right."""

from __future__ import annotations

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
from graphcl.kernels import Backend, CandidateRule, ExcludeSameIndex, normalize_rows, pair_logsumexp
from graphcl.kernels._arguments import MEMORY_BUDGET

__all__ = ["claps", "perturb_rows"]


def perturb_rows(rows: Tensor, direction: Tensor, size: float) -> Tensor:
    r"""Move every row by a given distance along its direction, which is a constant.

    S. Lee, D. B. Lee, S. J. Hwang, "Contrastive Learning with Adversarial Perturbations for Conditional Text
    Generation", 2021, https://arxiv.org/abs/2012.07280. Confidence: V.

    .. math:: y_i + \epsilon\, g_i / \|g_i\|

    Args:
        rows: ``(N, d)``; they carry gradient.
        direction: ``(N, d)``, usually a gradient; a zero direction leaves its row where it is.
        size: epsilon; negative moves against the direction.

    Returns:
        ``(N, d)``.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(N d).

    >>> import torch
    >>> perturb_rows(torch.zeros(1, 2), torch.tensor([[3.0, 4.0]]), 5.0)
    tensor([[3., 4.]])
    """
    check_views("rows", rows, "direction", direction)
    return rows + size * normalize_rows(direction.detach())


def claps(
    x: Tensor,
    y: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    released_scaling: bool = False,
    ids: Tensor | None = None,
    temperature: float | Tensor = 0.1,
    return_components: bool = False,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""CLAPS: InfoNCE with an adversarial negative, once with the true target and once with a distant positive.

    S. Lee, D. B. Lee, S. J. Hwang, "Contrastive Learning with Adversarial Perturbations for Conditional Text
    Generation", 2021, https://arxiv.org/abs/2012.07280. Confidence: V. Use it when a differentiable head says what is
    right and wrong; `graphcl.losses.pairs.adversarial_pairs` makes the perturbed rows.

    .. math:: L_i = \tfrac12 \Bigl( -\log \frac{e^{s_{ii}/\tau}}{\sum_j e^{s_{ij}/\tau} + e^{s^-_i/\tau}}
        - \log \frac{e^{s^+_i/\tau}}{e^{s^+_i/\tau} + \sum_{j \ne i} e^{s_{ij}/\tau} + e^{s^-_i/\tau}} \Bigr)

    Args:
        x: ``(N, d)`` sources, the anchors.
        y: ``(N, d)`` targets; row i is the positive of anchor i.
        positive: ``(N, d)`` perturbed targets that mean the same.
        negative: ``(N, d)`` perturbed targets that are wrong.
        released_scaling: leave the temperature out of the second term, as the released code does.
        ids: ``(N,)`` integers; a target with the id of the anchor is never its negative.
        temperature: positive number, 0-dim tensor, or ``(N,)``.
        return_components: also return the two terms, ``target`` and ``perturbed``.
        reduction: ``mean``, ``sum`` or ``none``.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `graphcl.kernels.pair_logsumexp`.

    Returns:
        A scalar, or ``(N,)`` for ``none``; with ``return_components`` also a dictionary.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(N^2 d) time, O(N d) memory plus the tiles.

    >>> import torch
    >>> claps(torch.eye(2), torch.eye(2), torch.eye(2), -torch.eye(2), temperature=1.0)
    tensor(0.4076)
    """
    check_views("x", x, "y", y)
    check_views("x", x, "positive", positive)
    check_views("x", x, "negative", negative)
    check_temperature(temperature)
    anchors, targets, far, near = unit_rows(x, y, positive, negative)
    num = anchors.shape[0]
    rules: tuple[CandidateRule, ...] = different_ids(num, num, ids, ids) or (ExcludeSameIndex(),)
    wrong = paired_similarity(anchors, near)

    def negatives(scale: float | Tensor) -> Tensor:
        others = pair_logsumexp(
            anchors, targets, temperature=scale, rules=rules, memory_budget=memory_budget, backend=backend
        ).logsumexp
        return merge_logsumexp([others, wrong / scale])

    total = negatives(temperature)
    parts = {"target": reduce_anchors(softplus(total - paired_similarity(anchors, targets) / temperature), reduction)}
    scale: float | Tensor = 1.0 if released_scaling else temperature
    total = negatives(scale) if released_scaling else total
    parts["perturbed"] = reduce_anchors(softplus(total - paired_similarity(anchors, far) / scale), reduction)
    loss = 0.5 * (parts["target"] + parts["perturbed"])
    return (loss, parts) if return_components else loss
