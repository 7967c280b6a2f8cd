"""Contrast that finds and down-weights bad positive pairs while training (dynamic bad pair mining)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from graphcl.functional.infonce import nt_xent
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.kernels import Backend
from graphcl.kernels._arguments import MEMORY_BUDGET, check_positive

__all__ = ["bad_pair_weights", "dbpm"]

Normalise = Literal["peak", "none"]


def bad_pair_weights(
    pair_loss: Tensor,
    mean_history: Tensor,
    *,
    mean: float | Tensor,
    deviation: float | Tensor,
    noisy_cut: float = 2.0,
    faulty_cut: float = 3.0,
    normalise: Normalise = "peak",
) -> Tensor:
    r"""Weights of positive pairs, below one for pairs whose loss was always very low or very high.

    X. Lan, H. Yan, S. Hong, M. Feng, "Towards Enhancing Time Series Contrastive Learning: A Dynamic Bad Pair Mining
    Approach", 2024, https://arxiv.org/abs/2302.03357. Confidence: C.

    .. math:: w_i = \varphi_{\mu, \sigma}(\ell_i) \text{ if } \bar\ell_i \le \mu - c_{np} \sigma \text{ or }
        \bar\ell_i \ge \mu + c_{fp} \sigma, \quad 1 \text{ otherwise}

    Args:
        pair_loss: ``(N,)`` current loss of every pair; no gradient flows into the weights.
        mean_history: ``(N,)`` mean of the losses each pair had so far.
        mean: mu over all pairs of the data set.
        deviation: sigma, the population standard deviation.
        noisy_cut: c_np, of pairs that are too easy (noisy positives).
        faulty_cut: c_fp, of pairs that are too hard (faulty positives).
        normalise: ``peak`` divides the normal density phi by its maximum, so that weights lie in 0 .. 1 (the default of
            this package); ``none`` takes the density as published, which exceeds 1 when sigma is small.

    Returns:
        ``(N,)`` weights; ones when sigma is 0.

    Raises:
        ValueError: naming the argument and the value.

    Complexity: O(N).

    >>> import torch
    >>> loss = torch.tensor([1.0, 2.0, 9.0])
    >>> bad_pair_weights(loss, torch.tensor([1.0, 2.0, 9.0]), mean=1.5, deviation=1.0)
    tensor([1.0000e+00, 1.0000e+00, 6.1019e-13])
    """
    if normalise not in ("peak", "none"):
        raise ValueError(f"normalise must be 'peak' or 'none', got {normalise!r}")
    if mean_history.shape != pair_loss.shape:
        raise ValueError(f"mean_history must have shape {tuple(pair_loss.shape)}, got {tuple(mean_history.shape)}")
    if not float(deviation) >= 0:
        raise ValueError(f"deviation must not be negative, got {float(deviation)}")
    current = pair_loss.detach()
    if float(deviation) == 0.0:
        return torch.ones_like(current)
    history = mean_history.detach().to(current)
    bad = (history <= mean - noisy_cut * deviation) | (history >= mean + faulty_cut * deviation)
    density = torch.exp(-0.5 * ((current - mean) / deviation) ** 2)
    if normalise == "none":
        density = density / (float(deviation) * math.sqrt(2.0 * math.pi))
    return torch.where(bad, density, torch.ones_like(density))


def dbpm(
    z1: Tensor,
    z2: Tensor,
    mean_history: Tensor | None = None,
    *,
    mean: float | Tensor = 0.0,
    deviation: float | Tensor = 0.0,
    noisy_cut: float = 2.0,
    faulty_cut: float = 3.0,
    normalise: Normalise = "peak",
    keys: Tensor | None = None,
    ids: Tensor | None = None,
    key_ids: Tensor | None = None,
    temperature: float | Tensor = 0.2,
    return_components: bool = False,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""NT-Xent whose positive pairs are weighted by their history.

    X. Lan, H. Yan, S. Hong, M. Feng, "Towards Enhancing Time Series Contrastive Learning: A Dynamic Bad Pair Mining
    Approach", 2024, https://arxiv.org/abs/2302.03357. Confidence: V for the loss of a pair, C for the weights. Use it
    when augmentations sometimes make views that are trivially alike or unrelated; `graphcl.losses.DBPM` keeps the
    history.

    .. math:: L = \frac1N \sum_i w_i \ell_i, \qquad \ell_i = \tfrac12 (\text{NT-Xent}_i + \text{NT-Xent}_{i'})

    Args:
        z1: ``(N, d)`` first view.
        z2: ``(N, d)`` second view.
        mean_history: ``(N,)`` mean of the losses each pair had so far; without it all weights are 1 (warm-up).
        mean: mu, see `bad_pair_weights`.
        deviation: sigma.
        noisy_cut: c_np.
        faulty_cut: c_fp.
        normalise: ``peak`` or ``none``.
        keys: ``(C, d)`` negatives instead of the other rows of the batch.
        ids: ``(N,)`` integers; rows of another sample with the same id are never negatives.
        key_ids: ``(C,)`` ids of the keys.
        temperature: positive number, 0-dim tensor, or ``(N,)``.
        return_components: also return the parts.
        reduction: ``mean`` over pairs (not over weights), ``sum`` or ``none``.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `graphcl.kernels.pair_logsumexp`.

    Returns:
        A scalar, or ``(N,)`` for ``none``; with ``return_components`` also ``pair_loss`` and ``pair_weight``, ``(N,)``.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(N^2 d) time, O(N d) memory plus the tiles.

    >>> import torch
    >>> dbpm(torch.eye(3), torch.eye(3), temperature=1.0)
    tensor(0.9048)
    """
    if not isinstance(temperature, Tensor):
        check_positive("temperature", temperature)
    both = nt_xent(
        z1,
        z2,
        keys=keys,
        ids=ids,
        key_ids=key_ids,
        temperature=temperature,
        reduction="none",
        memory_budget=memory_budget,
        backend=backend,
    )
    pair_loss = both.reshape(2, -1).mean(dim=0)
    if mean_history is None:
        weight = torch.ones_like(pair_loss.detach())
    else:
        weight = bad_pair_weights(
            pair_loss,
            mean_history,
            mean=mean,
            deviation=deviation,
            noisy_cut=noisy_cut,
            faulty_cut=faulty_cut,
            normalise=normalise,
        )
    loss = reduce_anchors(weight * pair_loss, reduction)
    return (loss, {"pair_loss": pair_loss, "pair_weight": weight}) if return_components else loss
