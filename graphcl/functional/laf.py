"""Label-agnostic forgetting: make a model lose some samples and keep the others, without labels."""

from __future__ import annotations

import torch
from torch import Tensor

from graphcl.functional._pair_terms import check_views, logsumexp_rows, paired_similarity, unit_rows
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.kernels._arguments import check_positive, compute_dtype

__all__ = ["laf_alignment", "laf_extraction", "variational_reconstruction"]


def variational_reconstruction(
    x: Tensor,
    reconstruction: Tensor,
    mean: Tensor,
    log_variance: Tensor,
    *,
    divergence_weight: float = 0.025,
    return_components: bool = False,
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""Loss of the small variational autoencoders that model retained and forgotten representations.

    "Label-Agnostic Forgetting: A Supervision-Free Unlearning in Deep Models", 2024. Confidence: V.

    Use it to fit the autoencoders that `laf_extraction` needs.

    .. math:: L = \frac1N \sum_i \|\hat x_i - x_i\|^2 + w \frac1N \sum_i
        \mathrm{KL}\bigl(\mathcal N(\mu_i, \sigma_i^2) \,\|\, \mathcal N(0, I)\bigr)

    Args:
        x: ``(N, d)``.
        reconstruction: ``(N, d)``.
        mean: ``(N, h)``.
        log_variance: ``(N, h)``.
        divergence_weight: w.
        return_components: also return ``reconstruction`` and ``divergence``.

    Returns:
        A scalar, 0 without rows; with ``return_components`` also a dictionary.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(N (d + h)).

    >>> import torch
    >>> zero = torch.zeros(2, 3)
    >>> variational_reconstruction(zero, zero + 1, zero, zero)
    tensor(3.)
    """
    check_views("x", x, "reconstruction", reconstruction)
    check_views("mean", mean, "log_variance", log_variance)
    wide = compute_dtype(x.dtype)
    x, reconstruction, mean, log_variance = (part.to(wide) for part in (x, reconstruction, mean, log_variance))
    divergence = 0.5 * (mean**2 + log_variance.exp() - 1.0 - log_variance).sum(dim=1)
    parts = {
        "reconstruction": reduce_anchors(((reconstruction - x) ** 2).sum(dim=1)),
        "divergence": reduce_anchors(divergence_weight * divergence),
    }
    loss = parts["reconstruction"] + parts["divergence"]
    return (loss, parts) if return_components else loss


def laf_extraction(
    retained: Tensor,
    retained_reconstruction: Tensor,
    forgotten: Tensor,
    forgotten_reconstruction: Tensor,
    *,
    return_components: bool = False,
    reduction: Reduction = "sum",
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""Extraction step of LAF: representations leave the model of the forgotten data and stay in that of the retained.

    "Label-Agnostic Forgetting: A Supervision-Free Unlearning in Deep Models", 2024. Confidence: V. Use it to unlearn
    users, items or edges of a trained encoder; follow each step by `laf_alignment` with an optimiser of its own.

    .. math:: L = \sum_i f(\|\hat s_i - s_i\|^2) - \sum_i f(\|\hat u_i - u_i\|^2), \qquad f(m) = e^{m/(m+1)} \in [1, e)

    Args:
        retained: ``(N, d)`` representations s of retained samples.
        retained_reconstruction: ``(N, d)`` their reconstruction by the autoencoder of retained data.
        forgotten: ``(M, d)`` representations u of samples to forget.
        forgotten_reconstruction: ``(M, d)`` their reconstruction by the autoencoder of forgotten data.
        return_components: also return ``retain`` and ``forget`` (each with its sign).
        reduction: ``sum`` as published, or ``mean`` over each of the two sets.

    Returns:
        A scalar; with ``return_components`` also a dictionary.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O((N + M) d).

    >>> import torch
    >>> laf_extraction(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(1, 3), torch.zeros(1, 3))
    tensor(1.)
    """
    check_views("retained", retained, "retained_reconstruction", retained_reconstruction)
    check_views("forgotten", forgotten, "forgotten_reconstruction", forgotten_reconstruction)
    _refuse_none(reduction)
    parts = {
        "retain": reduce_anchors(_bounded_error(retained, retained_reconstruction), reduction),
        "forget": -reduce_anchors(_bounded_error(forgotten, forgotten_reconstruction), reduction),
    }
    loss = parts["retain"] + parts["forget"]
    return (loss, parts) if return_components else loss


def laf_alignment(
    retained: Tensor,
    retained_teacher: Tensor,
    forgotten: Tensor,
    forgotten_teacher: Tensor,
    *,
    temperature: float = 5.0,
    return_components: bool = False,
    reduction: Reduction = "sum",
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""Alignment step of LAF: retained samples stay near the frozen teacher, forgotten ones move away from it.

    "Label-Agnostic Forgetting: A Supervision-Free Unlearning in Deep Models", 2024. Confidence: V.

    Use it to make a trained encoder forget given samples without their labels, after `laf_extraction`.

    .. math:: L = \sum_i \Bigl[ (1 - \cos(s_i, s^t_i)) - \log \sum_j e^{(1 - \cos(u_j, u^t_j)) / T} \Bigr]

    Args:
        retained: ``(N, d)`` representations of retained samples.
        retained_teacher: ``(N, d)`` theirs before unlearning, constants.
        forgotten: ``(M, d)`` representations of samples to forget.
        forgotten_teacher: ``(M, d)`` theirs before unlearning, constants.
        temperature: T, 5 to 20.
        return_components: also return ``retain`` and ``forget`` (each with its sign).
        reduction: ``sum`` over the retained samples as published, or ``mean``.

    Returns:
        A scalar; with ``return_components`` also a dictionary. Without forgotten samples the second term is 0.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O((N + M) d).

    >>> import torch
    >>> laf_alignment(torch.eye(2), torch.eye(2), torch.eye(2), torch.eye(2))
    tensor(-1.3863)
    """
    check_views("retained", retained, "retained_teacher", retained_teacher)
    check_views("forgotten", forgotten, "forgotten_teacher", forgotten_teacher)
    check_positive("temperature", temperature)
    _refuse_none(reduction)
    kept = _cosine_distance(retained, retained_teacher.detach())
    lost = _cosine_distance(forgotten, forgotten_teacher.detach())
    away = logsumexp_rows(lost / temperature) if lost.shape[0] > 0 else lost.sum()
    parts = {
        "retain": reduce_anchors(kept, reduction),
        "forget": -reduce_anchors(away.expand(kept.shape[0]), reduction),
    }
    loss = parts["retain"] + parts["forget"]
    return (loss, parts) if return_components else loss


def _bounded_error(x: Tensor, reconstruction: Tensor) -> Tensor:
    wide = compute_dtype(x.dtype)
    error = ((reconstruction.to(wide) - x.to(wide)) ** 2).sum(dim=1)
    # 1 - 1 / (m + 1) is m / (m + 1), also where m overflows.
    return torch.exp(1.0 - 1.0 / (error + 1.0))


def _cosine_distance(x: Tensor, y: Tensor) -> Tensor:
    left, right = unit_rows(x, y)
    return 1.0 - paired_similarity(left, right)


def _refuse_none(reduction: str) -> None:
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction must be 'mean' or 'sum' (two sets of samples), got {reduction!r}")
