"""Unnormalised models fitted by compositional optimisation of the log partition function."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from graphcl.functional.reduction import reduce_anchors
from graphcl.kernels._arguments import check_vector, compute_dtype

__all__ = ["MECOStep", "meco"]


class MECOStep(NamedTuple):
    """Loss to differentiate, and the next log u, a constant."""

    loss: Tensor
    log_u: Tensor


def meco(
    data_scores: Tensor,
    noise_scores: Tensor,
    log_noise: Tensor,
    log_u: Tensor | None = None,
    *,
    gamma: float = 0.5,
) -> MECOStep:
    r"""One step of maximum likelihood for an unnormalised model, with a moving estimate of its partition function.

    "Learning Unnormalized Statistical Models via Compositional Optimization", 2023. Confidence: P. Use it for energies
    of links or events: unlike noise-contrastive estimation it needs no noise close to the data. The momentum that the
    paper puts on the gradient is the optimiser's.

    .. math:: L = -\operatorname{mean}_b s(x_b) + \log \mathbb{E}_{\tilde x \sim q} \bigl[ e^{s(\tilde x)} / q(\tilde x)
        \bigr], \qquad u \leftarrow (1 - \gamma) u + \gamma \operatorname{mean}_j e^{s_j - \log q_j}

    .. math:: \nabla = -\operatorname{mean} \nabla s_b + \frac1n \sum_j \operatorname{sg}\bigl(e^{s_j - \log q_j} / u
        \bigr) \nabla s_j

    Args:
        data_scores: ``(B,)`` scores of the data.
        noise_scores: ``(n,)`` scores of samples from q.
        log_noise: ``(n,)`` log q of those samples.
        log_u: 0-dim tensor, the moving estimate; None (or -inf) on a first step, which then takes gamma 1 and gives
            the value and gradient of the batch.
        gamma: rate of the moving estimate, in (0, 1].

    Returns:
        `MECOStep`; the value of its loss uses the moved estimate.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(B + n).

    >>> import torch
    >>> meco(torch.zeros(2), torch.zeros(4), torch.full((4,), -1.0)).loss
    tensor(1.)
    """
    device, num_noise = data_scores.device, noise_scores.numel()
    check_vector("data_scores", data_scores, data_scores.numel(), device=device)
    check_vector("noise_scores", noise_scores, num_noise, device=device)
    check_vector("log_noise", log_noise, num_noise, device=device)
    if not 0.0 < gamma <= 1.0:
        raise ValueError(f"gamma must lie in (0, 1], got {gamma}")
    if num_noise == 0:
        raise ValueError("noise_scores must not be empty: the partition function needs a sample")
    wide = compute_dtype(noise_scores.dtype)
    log_mean = torch.logsumexp(noise_scores.to(wide) - log_noise.detach().to(wide), dim=0) - math.log(num_noise)
    batch = log_mean.detach()
    moved = batch
    if log_u is not None:
        kept = log_u.detach().to(batch) + (math.log(1.0 - gamma) if gamma < 1.0 else -math.inf)
        first = log_u == -torch.inf
        moved = torch.where(first.to(batch.device), batch, torch.logaddexp(kept, batch + math.log(gamma)))
    ratio = torch.exp(batch - moved)
    partition = moved + ratio * (log_mean - batch)
    return MECOStep(partition - reduce_anchors(data_scores.to(wide)), moved)
