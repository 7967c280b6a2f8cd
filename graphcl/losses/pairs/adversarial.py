"""Perturbed targets for contrast: near and wrong for the task, or far and right for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from graphcl.functional._pair_terms import check_views
from graphcl.functional.claps import perturb_rows
from graphcl.functional.infonce import info_nce

__all__ = ["AdversarialPairs", "adversarial_pairs"]


class AdversarialPairs(NamedTuple):
    """Perturbed targets ``(N, d)``; the gradient of each reaches its target, the directions are constants."""

    positive: Tensor
    negative: Tensor


def adversarial_pairs(
    x: Tensor,
    y: Tensor,
    task_loss: Callable[[Tensor], Tensor],
    log_probabilities: Callable[[Tensor], Tensor],
    *,
    negative_size: float = 1.0,
    positive_size: float = 3.0,
    temperature: float = 0.1,
) -> AdversarialPairs:
    r"""Perturb targets along gradients of the task, of the contrast and of the predicted distribution.

    S. Lee, D. B. Lee, S. J. Hwang, "Contrastive Learning with Adversarial Perturbations for Conditional Text
    Generation", 2021, https://arxiv.org/abs/2012.07280. Confidence: C.

    .. math:: y^-_i = y_i + \epsilon^- \frac{g_i}{\|g_i\|}, \; g = \nabla_y L_{task}; \qquad
        \bar y_i = y_i + \epsilon^+ \frac{c_i}{\|c_i\|}, \; c = \nabla_y L_{contrast}; \qquad
        y^+_i = \bar y_i - \epsilon^+ \frac{f_i}{\|f_i\|}, \;
        f = \nabla_{\bar y} \mathrm{KL}\bigl(p(\cdot | y) \,\|\, p(\cdot | \bar y)\bigr)

    Args:
        x: ``(N, d)`` sources.
        y: ``(N, d)`` targets.
        task_loss: from targets ``(N, d)`` to the scalar loss of the task.
        log_probabilities: from targets to ``(N, K)`` log probabilities of a differentiable head.
        negative_size: epsilon of the negatives.
        positive_size: epsilon of the positives.
        temperature: of the contrast.

    Returns:
        `AdversarialPairs`, the last two arguments of `graphcl.functional.claps`.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: three gradients in the targets, and that of `info_nce`. Parameters of the heads get no gradient here.

    >>> import torch
    >>> head = torch.nn.Linear(2, 3)
    >>> made = adversarial_pairs(
    ...     torch.eye(2), torch.eye(2), lambda y: y.pow(2).sum(), lambda y: head(y).log_softmax(dim=1)
    ... )
    >>> made.negative
    tensor([[2., 0.],
            [0., 2.]])
    """
    check_views("x", x, "y", y)
    anchors = x.detach()
    with torch.enable_grad():
        start = y.detach().requires_grad_()
        (wrong,) = torch.autograd.grad(task_loss(start), start)
        (apart,) = torch.autograd.grad(info_nce(anchors, start, temperature=temperature), start)
        far = perturb_rows(start.detach(), apart, positive_size).requires_grad_()
        kept = log_probabilities(start.detach()).detach()
        divergence = (kept.exp() * (kept - log_probabilities(far))).sum()
        (drift,) = torch.autograd.grad(divergence, far)
    positive = perturb_rows(perturb_rows(y, apart, positive_size), drift, -positive_size)
    return AdversarialPairs(positive, perturb_rows(y, wrong, negative_size))
