"""Contrast with pseudo-label weights and a distribution regulariser for imbalanced category discovery (BaCon)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from graphcl.functional._pair_terms import check_temperature, check_views, for_both_views, unit_rows
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.kernels import Backend, ExcludeSameIndex, pair_logsumexp
from graphcl.kernels._arguments import MEMORY_BUDGET, check_matrix, check_positive, check_vector, compute_dtype

__all__ = ["bacon_log_prior", "bacon_regularizer", "bacon_sampling_rate", "bacon_soft"]


def bacon_soft(
    z1: Tensor,
    z2: Tensor,
    probabilities: Tensor,
    *,
    other_probabilities: Tensor | None = None,
    temperature: float | Tensor = 0.07,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""Contrast whose pairs count by the agreement of their class probabilities.

    J. Bai et al., "Towards Distribution-Agnostic Generalized Category Discovery", 2023,
    https://arxiv.org/abs/2310.01376. Confidence: V. Use it when only some samples have labels (give one-hot rows for
    those) and a classifier says how probable the classes of the others are.

    .. math:: L_a = -\frac{1}{\sum_{b \ne a} w_{ab}} \sum_{b \ne a} w_{ab}
        \log \frac{e^{s_{ab}/\tau}}{\sum_{c \ne a} e^{s_{ac}/\tau}}, \qquad
        w_{ab} = \langle p_a, p_b \rangle \text{ for different samples, 1 for the other view}

    over the 2 N rows of both views. The weights have rank K and are never formed: the positives cost O(N K d).

    Args:
        z1: ``(N, d)`` first view.
        z2: ``(N, d)`` second view.
        probabilities: ``(N, K)`` non-negative, no gradient.
        other_probabilities: ``(N, K)`` instead of ``probabilities`` for the second factor of the weights. With the
            identity, ``probabilities`` is the ``(N, N)`` weight matrix itself.
        temperature: positive number, 0-dim tensor, or ``(N,)``.
        weight: ``(N,)`` non-negative weights of the samples.
        reduction: ``mean`` over the 2 N rows, ``sum`` or ``none``.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `graphcl.kernels.pair_logsumexp`.

    Returns:
        A scalar, or ``(2 N,)`` for ``none``, first view first.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(N^2 d + N K d) time, O(N (d + K) + K d) memory plus the tiles.

    >>> import torch
    >>> bacon_soft(torch.eye(2), torch.eye(2), torch.eye(2), temperature=1.0)
    tensor(0.5514)
    """
    check_views("z1", z1, "z2", z2)
    check_temperature(temperature)
    num = z1.shape[0]
    second = probabilities if other_probabilities is None else other_probabilities
    for name, value in (("probabilities", probabilities), ("other_probabilities", second)):
        check_matrix(name, value)
        if value.shape != (num, probabilities.shape[1]):
            raise ValueError(f"{name} must have shape ({num}, {probabilities.shape[1]}), got {tuple(value.shape)}")
        if bool((value < 0).any()):
            raise ValueError(f"{name} must not be negative, got {float(value.detach().min())}")
    x, y = unit_rows(z1, z2)
    left, right = probabilities.detach().to(x.dtype), second.detach().to(x.dtype)
    both = x + y
    # What the low rank gives the sample itself is replaced by the weight 1 of the other view.
    correction = 1.0 - (left * right).sum(dim=1)
    pulled = left @ (right.T @ both) + correction[:, None] * both
    total_weight = 2.0 * (left @ right.sum(dim=0) + correction) - 1.0
    rows, tau = torch.cat([x, y]), for_both_views(temperature)
    positive = (rows * (pulled.repeat(2, 1) - rows)).sum(dim=1) / total_weight.repeat(2)
    total = pair_logsumexp(
        rows, rows, temperature=tau, rules=ExcludeSameIndex(), memory_budget=memory_budget, backend=backend
    ).logsumexp
    return reduce_anchors(total - positive / tau, reduction, weight=None if weight is None else weight.repeat(2))


def bacon_regularizer(logits: Tensor, counts: Tensor, *, power: float = 1.1, temperature: float = 0.1) -> Tensor:
    r"""Keeps the mean prediction close to the estimated class frequencies.

    J. Bai et al., "Towards Distribution-Agnostic Generalized Category Discovery", 2023,
    https://arxiv.org/abs/2310.01376. Confidence: V.

    Use it beside a self-training loss on classes of unequal and partly unknown size.

    .. math:: R = \sum_k q_k \log q_k + \log K, \qquad
        q_k \propto \hat n_k^{-\rho} \operatorname{mean}_i \operatorname{softmax}_k(o_{ik} / \tau)

    Args:
        logits: ``(N, K)`` class scores o.
        counts: ``(K,)`` positive class frequencies, in any unit.
        power: rho.
        temperature: tau.

    Returns:
        A scalar in 0 .. log K; 0 when the mean prediction is proportional to ``counts ** power``, and for no rows.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(N K).

    >>> import torch
    >>> bacon_regularizer(torch.zeros(4, 2), torch.tensor([1.0, 1.0]))
    tensor(0.)
    """
    check_matrix("logits", logits)
    check_vector("counts", counts, logits.shape[1], device=logits.device)
    check_positive("temperature", temperature)
    _check_counts(counts)
    logits = logits.to(compute_dtype(logits.dtype))
    if logits.shape[0] == 0:
        return logits.sum()
    log_mean = torch.logsumexp(torch.log_softmax(logits / temperature, dim=1), dim=0)
    log_q = torch.log_softmax(log_mean - power * counts.detach().to(logits.dtype).log(), dim=0)
    return (log_q.exp() * log_q).sum() + math.log(logits.shape[1])


def bacon_log_prior(counts: Tensor, *, power: float = 0.5) -> Tensor:
    r"""Adjustment of logits by class frequency, to subtract before the softmax of a pseudo-label.

    J. Bai et al., "Towards Distribution-Agnostic Generalized Category Discovery", 2023. Confidence: V.

    .. math:: a_k = \log(f_k^{\rho} + 10^{-12}), \qquad f_k = \hat n_k / \sum_l \hat n_l

    Args:
        counts: ``(K,)`` non-negative class frequencies.
        power: rho.

    Returns:
        ``(K,)``.

    Raises:
        ValueError: nothing is counted, or a count is negative.

    Complexity: O(K).

    >>> import torch
    >>> bacon_log_prior(torch.tensor([1.0, 1.0])).exp().square()
    tensor([0.5000, 0.5000])
    """
    if counts.dim() != 1 or bool((counts < 0).any()) or not float(counts.sum()) > 0:
        raise ValueError(f"counts must be a vector of numbers that are not negative and not all 0, got {counts}")
    return torch.log((counts / counts.sum()) ** power + 1e-12)


def bacon_sampling_rate(counts: Tensor, known: Tensor, *, known_power: float = 0.8, novel_power: float = 0.5) -> Tensor:
    r"""Share of the pseudo-labelled samples of every class to keep, the most confident ones first.

    J. Bai et al., "Towards Distribution-Agnostic Generalized Category Discovery", 2023. Confidence: V.

    .. math:: r_k = (\hat n_{min} / \hat n_k)^{\alpha} \text{ for known classes, } (\hat n_{min} / \hat n_k)^{\beta}
        \text{ for others}

    Args:
        counts: ``(K,)`` positive class frequencies.
        known: ``(K,)`` bool, true for classes with labels.
        known_power: alpha.
        novel_power: beta.

    Returns:
        ``(K,)`` in (0, 1].

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(K).

    >>> import torch
    >>> bacon_sampling_rate(torch.tensor([4.0, 1.0, 4.0]), torch.tensor([True, True, False]), known_power=1.0)
    tensor([0.2500, 1.0000, 0.5000])
    """
    check_vector("counts", counts, counts.shape[0], device=counts.device)
    _check_counts(counts)
    if known.shape != counts.shape or known.dtype != torch.bool:
        raise ValueError(f"known must be a bool tensor of shape {tuple(counts.shape)}, got {tuple(known.shape)}")
    power = torch.where(known, known_power, novel_power).to(counts.dtype)
    return (counts.min() / counts) ** power


def _check_counts(counts: Tensor) -> None:
    if bool((counts <= 0).any()):
        raise ValueError(f"counts must be above 0, got {float(counts.min())}")
