"""SogCLR and iSogCLR: global contrastive objectives from small batches, with a moving denominator a sample.

The functions are pure: they take the state of the samples in the batch and return the next one. The modules
`graphcl.losses.SogCLR` and `graphcl.losses.ISogCLR` keep it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor

from graphcl.functional._pair_terms import (
    check_views,
    count_different,
    different_ids,
    paired_similarity,
    unit_rows,
)
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.kernels import Backend, pair_logsumexp
from graphcl.kernels._arguments import MEMORY_BUDGET, check_indices, check_vector

__all__ = [
    "SogCLRState",
    "SogCLRStep",
    "TemperatureUpdate",
    "gamma_schedule",
    "sogclr",
    "sogclr_bimodal",
]


class SogCLRState(NamedTuple):
    """State of the samples of a batch, ``(B,)`` each: log u (-inf before a first visit), temperature, its momentum."""

    log_u: Tensor
    temperature: Tensor
    temperature_gradient: Tensor


class SogCLRStep(NamedTuple):
    """Loss to differentiate, next state (one a direction), and the batch estimate of the objective, for logging."""

    loss: Tensor
    states: tuple[SogCLRState, ...]
    objective: Tensor


@dataclass(frozen=True)
class TemperatureUpdate:
    """How iSogCLR moves the temperature of a sample; the defaults are those of the unimodal form.

    Args:
        rho: weight of the temperature in the objective.
        learning_rate: eta.
        momentum: beta, the part of the new gradient in the running one.
        minimum: lower bound of the temperature.
        maximum: upper bound of the temperature.
    """

    rho: float = 0.3
    learning_rate: float = 0.01
    momentum: float = 0.9
    minimum: float = 0.05
    maximum: float = 0.7

    def __post_init__(self) -> None:
        if not 0 < self.minimum <= self.maximum:
            raise ValueError(f"minimum must be above 0 and at most maximum, got {self.minimum} and {self.maximum}")
        if not 0 <= self.momentum <= 1:
            raise ValueError(f"momentum must lie in 0 .. 1, got {self.momentum}")

    def __call__(self, state: SogCLRState, gradient: Tensor) -> SogCLRState:
        """The state after one step against ``gradient`` of the temperatures."""
        running = (1.0 - self.momentum) * state.temperature_gradient + self.momentum * gradient
        moved = (state.temperature - self.learning_rate * running).clamp(self.minimum, self.maximum)
        return SogCLRState(state.log_u, moved, running)


def gamma_schedule(epoch: int, gamma: float, epochs: int) -> float:
    r"""Rate of the moving denominator, falling from 1 to ``gamma`` along a half cosine.

    .. math:: \gamma_e = \gamma + \tfrac12 (1 - \gamma)(1 + \cos(\pi e / E)) \text{ for } e < E, \quad \gamma
        \text{ afterwards}

    Args:
        epoch: e, from 0.
        gamma: final rate.
        epochs: E.

    >>> gamma_schedule(0, 0.9, 10), gamma_schedule(10, 0.9, 10)
    (1.0, 0.9)
    """
    if epoch >= epochs:
        return gamma
    return gamma + 0.5 * (1.0 - gamma) * (1.0 + math.cos(math.pi * epoch / epochs))


def sogclr(
    z1: Tensor,
    z2: Tensor,
    state: SogCLRState,
    *,
    ids: Tensor | None = None,
    gamma: float = 0.9,
    temperature_update: TemperatureUpdate | None = None,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> SogCLRStep:
    r"""One step of SogCLR (or, with ``temperature_update``, iSogCLR) on two views of one modality.

    Z. Yuan et al., "Provable Stochastic Optimization for Global Contrastive Learning", 2022,
    https://arxiv.org/abs/2202.12387; Z.-H. Qiu et al., "Not All Semantics are Created Equal", 2023,
    https://arxiv.org/abs/2305.11965. Confidence: V. Use it when the batch is small against the number of samples.

    .. math:: F = \operatorname{mean}_i \tau_i \log \mathbb{E}_j e^{(s_{ij} - s_{ii})/\tau_i} + \rho \tau_i, \qquad
        g_i = \operatorname{mean}_j e^{s_{ij}/\tau_i}, \quad u_i \leftarrow (1-\gamma) u_i + \gamma g_i

    .. math:: L = \operatorname{mean}_i \sum_{\text{views}} \Bigl(\operatorname{mean}_j
        \operatorname{sg}\bigl(e^{s_{ij}/\tau_i} / u_i\bigr) s_{ij} - s_{ii}\Bigr)

    The gradient of L estimates that of F; its value does not: watch ``objective``.

    Args:
        z1: ``(B, d)`` first view; candidates of an anchor are the other samples in both views.
        z2: ``(B, d)`` second view.
        state: of the B samples; the first visit of a sample (``log_u`` = -inf) takes gamma 1.
        ids: ``(B,)`` integers; equal ids mark one sample: never a negative, and its state is the mean over its rows.
        gamma: rate of the moving denominator, in (0, 1].
        temperature_update: moves the temperature of every sample.
        reduction: ``mean`` over samples that have a negative, ``sum`` or ``none``.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `graphcl.kernels.pair_logsumexp`.

    Returns:
        `SogCLRStep` with one next state, detached. Samples without negatives keep theirs.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(B^2 d) time, O(B d) memory plus the tiles.

    >>> import torch
    >>> start = SogCLRState(torch.full((3,), -torch.inf), torch.full((3,), 0.5), torch.zeros(3))
    >>> step = sogclr(torch.eye(3), torch.eye(3), start)
    >>> step.loss, step.states[0].log_u
    (tensor(-2.), tensor([0., 0., 0.]))
    """
    x, y, own = _prepare(z1, z2, (state,), ids, gamma)
    num = x.shape[0]
    state = _as_constants(state, x)
    rows = torch.cat([x, y])
    both = _visit(
        rows,
        rows,
        own.repeat(2),
        paired_similarity(x, y).repeat(2),
        SogCLRState(*(part.repeat(2) for part in state)),
        gamma,
        relative=False,
        memory_budget=memory_budget,
        backend=backend,
    )
    valid = both.valid[:num]
    log_u = torch.logaddexp(both.log_u[:num], both.log_u[num:]) - math.log(2.0)
    pull = 0.5 * (both.temperature_pull[:num] + both.temperature_pull[num:])
    following = _next_state(state, log_u, pull, valid, own, temperature_update)
    objective = 0.5 * (both.objective[:num] + both.objective[num:])
    return SogCLRStep(
        reduce_anchors(both.loss[:num] + both.loss[num:], reduction, valid=valid),
        (following,),
        _objective(objective, state, valid, temperature_update),
    )


def sogclr_bimodal(
    z1: Tensor,
    z2: Tensor,
    state1: SogCLRState,
    state2: SogCLRState,
    *,
    ids: Tensor | None = None,
    gamma: float = 0.9,
    temperature_update: TemperatureUpdate | None = None,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> SogCLRStep:
    r"""One step of SogCLR (or, with ``temperature_update``, iSogCLR) between two modalities, each with its own state.

    Z.-H. Qiu et al., "Not All Semantics are Created Equal: Contrastive Self-supervised Learning with Automatic
    Temperature Individualization", 2023, https://arxiv.org/abs/2305.11965. Confidence: V, with the surrogate divided by
    the number of candidates. The published temperatures start at .01 to .05 within ``TemperatureUpdate(rho=6.0,
    minimum=0.005, maximum=0.05)``.

    Use it for two encoders and batches too small for `info_nce`.

    .. math:: h_{ij} = s_{ij} - s_{ii}, \quad g_i = \operatorname{mean}_{j \ne i} e^{h_{ij}/\tau_i}, \quad
        L = \tfrac12 \operatorname{mean}_i \sum_{\text{directions}}
        \operatorname{mean}_j \operatorname{sg}\bigl(e^{h_{ij}/\tau_i} / u_i\bigr) h_{ij}

    Args:
        z1: ``(B, d)`` first modality.
        z2: ``(B, d)`` second modality.
        state1: of the B samples as anchors of the first modality.
        state2: of the B samples as anchors of the second.
        ids: ``(B,)`` integers; equal ids mark one sample, as in `sogclr`.
        gamma: rate of the moving denominator, in (0, 1].
        temperature_update: moves the temperature of every sample.
        reduction: ``mean`` over samples that have a negative, ``sum`` or ``none``.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `graphcl.kernels.pair_logsumexp`.

    Returns:
        `SogCLRStep` with two next states, detached.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(B^2 d) time, O(B d) memory plus the tiles.

    >>> import torch
    >>> start = SogCLRState(torch.full((3,), -torch.inf), torch.full((3,), 0.5), torch.zeros(3))
    >>> sogclr_bimodal(torch.eye(3), torch.eye(3), start, start).states[1].log_u
    tensor([-2., -2., -2.])
    """
    x, y, own = _prepare(z1, z2, (state1, state2), ids, gamma)
    positive = paired_similarity(x, y)
    states = tuple(_as_constants(state, x) for state in (state1, state2))
    visits = [
        _visit(
            anchors,
            candidates,
            own,
            positive,
            state,
            gamma,
            relative=True,
            memory_budget=memory_budget,
            backend=backend,
        )
        for anchors, candidates, state in ((x, y, states[0]), (y, x, states[1]))
    ]
    valid = visits[0].valid
    objectives = [
        _objective(visit.objective, state, valid, temperature_update)
        for visit, state in zip(visits, states, strict=True)
    ]
    return SogCLRStep(
        reduce_anchors(0.5 * (visits[0].loss + visits[1].loss), reduction, valid=valid),
        tuple(
            _next_state(state, visit.log_u, visit.temperature_pull, valid, own, temperature_update)
            for visit, state in zip(visits, states, strict=True)
        ),
        0.5 * (objectives[0] + objectives[1]),
    )


class _Visit(NamedTuple):
    """What one pass over the candidates gives for every anchor; all but the loss are constants."""

    loss: Tensor
    log_u: Tensor
    temperature_pull: Tensor  # gradient of the objective in the temperature, without rho
    objective: Tensor  # tau log g, without rho
    valid: Tensor


def _visit(
    anchors: Tensor,
    candidates: Tensor,
    ids: Tensor,
    positive: Tensor,
    state: SogCLRState,
    gamma: float,
    *,
    relative: bool,
    memory_budget: int,
    backend: Backend,
) -> _Visit:
    """Moving denominator and surrogate; ``relative`` measures similarities from that of the positive."""
    total = pair_logsumexp(
        anchors,
        candidates,
        temperature=state.temperature,
        rules=different_ids(anchors.shape[0], candidates.shape[0], ids, ids),
        moments=1,
        memory_budget=memory_budget,
        backend=backend,
    )
    mean = cast(Tensor, total.mean)
    with torch.no_grad():
        count = count_different(ids, ids)
        valid = count > 0
        zero = torch.zeros_like(positive)
        origin = positive if relative else zero
        log_g = total.logsumexp - count.clamp(min=1).to(positive.dtype).log() - origin / state.temperature
        moved = torch.logaddexp(state.log_u + _log(1.0 - gamma), log_g + _log(gamma))
        log_u = torch.where(state.log_u == -torch.inf, log_g, moved)
        ratio = torch.where(valid, torch.exp(log_g - log_u), zero)
        log_u = torch.where(valid, log_u, state.log_u)
        pull = log_u - ratio * (mean - origin) / state.temperature
        objective = state.temperature * log_g - (zero if relative else positive)
    # d logsumexp = sum_j share_j d s_j / tau: with this the weights of the surrogate stay constant.
    spread = state.temperature * torch.where(valid, total.logsumexp, zero)
    cost = mean.detach() + spread - spread.detach()
    return _Visit(ratio * cost - (ratio * positive if relative else positive), log_u, pull, objective, valid)


def _next_state(
    state: SogCLRState, log_u: Tensor, pull: Tensor, valid: Tensor, ids: Tensor, update: TemperatureUpdate | None
) -> SogCLRState:
    """State after the visit; rows of one sample leave one state, samples without negatives keep theirs."""
    with torch.no_grad():
        following = state._replace(log_u=log_u)
        if update is not None:
            following = update(following, pull + update.rho)
        kept = (torch.where(valid, new, old) for new, old in zip(following, state, strict=True))
        return SogCLRState(*_one_per_id(SogCLRState(*kept), ids))


def _one_per_id(state: SogCLRState, ids: Tensor) -> SogCLRState:
    """Mean of the states of rows with one id (of u, not of its logarithm)."""
    unique, index, count = torch.unique(ids, return_inverse=True, return_counts=True)
    if unique.shape[0] == ids.shape[0]:
        return state
    peak = torch.full_like(state.log_u[: unique.shape[0]], -torch.inf)
    peak = peak.scatter_reduce(0, index, state.log_u, "amax")
    peak = torch.where(peak == -torch.inf, torch.zeros_like(peak), peak)

    def average(values: Tensor) -> Tensor:
        total = torch.zeros_like(values[: unique.shape[0]]).index_add(0, index, values)
        mean: Tensor = total / count
        return mean[index]

    log_u = average(torch.exp(state.log_u - peak[index])).log() + peak[index]
    return SogCLRState(log_u, average(state.temperature), average(state.temperature_gradient))


def _objective(objective: Tensor, state: SogCLRState, valid: Tensor, update: TemperatureUpdate | None) -> Tensor:
    rho = 0.0 if update is None else update.rho
    return reduce_anchors(objective + rho * state.temperature, valid=valid)


def _prepare(
    z1: Tensor, z2: Tensor, states: tuple[SogCLRState, ...], ids: Tensor | None, gamma: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Unit rows of both views and the id of every sample."""
    check_views("z1", z1, "z2", z2)
    num = z1.shape[0]
    for state in states:
        for name, part in zip(SogCLRState._fields, state, strict=True):
            check_vector(f"state.{name}", part, num, device=z1.device)
    if not 0.0 < gamma <= 1.0:
        raise ValueError(f"gamma must lie in (0, 1], got {gamma}")
    if ids is not None:
        check_indices("ids", ids, num, None, check=False)
    x, y = unit_rows(z1, z2)
    return x, y, torch.arange(num, device=x.device) if ids is None else ids


def _as_constants(state: SogCLRState, like: Tensor) -> SogCLRState:
    return SogCLRState(*(part.detach().to(like.dtype) for part in state))


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf
