"""Mixtures of prototypes for every class (PALM)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from graphcl.functional._pair_terms import unit_rows
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.functional.supcon import sup_con
from graphcl.kernels import normalize_rows, sinkhorn
from graphcl.kernels._arguments import check_indices, check_positive, check_same_space

__all__ = ["PALMStep", "palm"]


class PALMStep(NamedTuple):
    """What one batch gives.

    Attributes:
        loss: ``mle + prototype_weight * prototype_contrast``.
        prototypes: ``(P, d)`` unit prototypes after the update, with gradient; keep them detached for the next batch.
        mle: likelihood term.
        prototype_contrast: contrast among the updated prototypes.
    """

    loss: Tensor
    prototypes: Tensor
    mle: Tensor
    prototype_contrast: Tensor


def palm(
    embeddings: Tensor,
    labels: Tensor,
    prototypes: Tensor,
    prototype_labels: Tensor,
    *,
    top_k: int = 5,
    momentum: float = 0.999,
    temperature: float = 0.1,
    prototype_temperature: float = 0.5,
    prototype_weight: float = 1.0,
    epsilon: float = 0.05,
    iterations: int = 3,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> PALMStep:
    r"""PALM: every class is a mixture of prototypes that follow the features; rows go to the prototypes of their class.

    H. Lu, D. Gong, S. Wang, J. Xue, L. Yao, K. Moore, "Learning with Mixture of Prototypes for Out-of-Distribution
    Detection", 2024, https://arxiv.org/abs/2402.02653. Confidence: V. Use it for classes with several modes, and when
    a distance to prototypes should tell strange samples.

    .. math:: c' = n\bigl(m c + (1 - m) U^\top f\bigr), \qquad
        L = -\operatorname{mean}_i \Bigl(\sum_p w_{ip} \ell_{ip} - \log \sum_p e^{\ell_{ip}}\Bigr)
        + \lambda\, \text{SupCon}(c'), \qquad \ell_{ip} = \frac{\langle f_i, \operatorname{sg} c'_p \rangle}{\tau}

    U and w are balanced (Sinkhorn) codes before and after the update, restricted to the prototypes of the row's class
    and, with ``top_k``, to the k of them with the largest code before the update. w sums to one over the prototypes, U
    also over the rows. The contrast among prototypes (temperature ``prototype_temperature``) reaches the embeddings
    through the update.

    Args:
        embeddings: ``(N, d)`` rows f, all views stacked.
        labels: ``(N,)`` integers.
        prototypes: ``(P, d)``; normalised here, no gradient.
        prototype_labels: ``(P,)`` class of every prototype.
        top_k: prototypes of its class a row belongs to; 0 takes all.
        momentum: m, in 0 .. 1.
        temperature: of rows against prototypes.
        prototype_temperature: among prototypes.
        prototype_weight: lambda.
        epsilon: entropy of the codes.
        iterations: of Sinkhorn.
        weight: ``(N,)`` non-negative weights of the rows in the likelihood term.
        reduction: of the likelihood term: ``mean`` over rows whose class has a prototype, ``sum`` or ``none``.

    Returns:
        `PALMStep`; for ``none`` its ``loss`` and ``mle`` are ``(N,)``.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(iterations N P + (N + P) P d) time, O(N P) memory: the prototypes are few.

    >>> import torch
    >>> step = palm(torch.eye(4), torch.tensor([0, 0, 1, 1]), torch.eye(4), torch.tensor([0, 0, 1, 1]))
    >>> step.loss, step.prototypes.shape
    (tensor(1.0987), torch.Size([4, 4]))
    """
    check_same_space("embeddings", embeddings, "prototypes", prototypes)
    check_indices("labels", labels, embeddings.shape[0], None, check=False)
    check_indices("prototype_labels", prototype_labels, prototypes.shape[0], None, check=False)
    for name, value in (("temperature", temperature), ("prototype_temperature", prototype_temperature)):
        check_positive(name, value)
    if not 0.0 <= momentum <= 1.0:
        raise ValueError(f"momentum must lie in 0 .. 1, got {momentum}")
    if top_k < 0:
        raise ValueError(f"top_k must not be negative, got {top_k}")
    rows, old = unit_rows(embeddings, prototypes.detach())
    allowed = labels[:, None] == prototype_labels

    def codes(centers: Tensor) -> Tensor:
        return sinkhorn(rows.detach() @ centers.detach().T, epsilon=epsilon, iterations=iterations)

    with torch.no_grad():
        before = codes(old) * allowed
        if 0 < top_k < prototypes.shape[0]:
            chosen = torch.zeros_like(allowed).scatter(1, before.topk(top_k, dim=1).indices, True)
            allowed &= chosen
            before = before * chosen
        share = _shares(_shares(before, 1), 0)
    new = normalize_rows(momentum * old + (1.0 - momentum) * (share.T @ rows))
    with torch.no_grad():
        pull = _shares(codes(new) * allowed, 1)
    logits = rows @ new.detach().T / temperature
    valid = allowed.any(dim=1)
    fit = torch.logsumexp(logits, dim=1) - (pull * logits).sum(dim=1) if logits.shape[1] > 0 else rows.sum(dim=1)
    mle = reduce_anchors(fit, reduction, valid=valid, weight=weight)
    contrast = sup_con(new, prototype_labels, temperature=prototype_temperature, similarity="dot")
    return PALMStep(mle + prototype_weight * contrast, new, mle, contrast)


def _shares(values: Tensor, dim: int) -> Tensor:
    """Non-negative values over their sum along ``dim``; zeros stay where there is nothing to share."""
    total = values.sum(dim=dim, keepdim=True)
    return values / torch.where(total > 0, total, torch.ones_like(total))
