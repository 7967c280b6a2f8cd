from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from graphcl.functional import SogCLRState, TemperatureUpdate, gamma_schedule, sogclr, sogclr_bimodal

UPDATE = TemperatureUpdate(rho=0.4, learning_rate=0.02, momentum=0.7, minimum=0.1, maximum=0.5)


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def unit(x: Tensor) -> Tensor:
    return torch.nn.functional.normalize(x)


def state(num: int, *, visited: bool = True) -> SogCLRState:
    draw = torch.Generator().manual_seed(11)
    log_u = torch.randn(num, dtype=torch.float64, generator=draw)
    temperature = 0.2 + 0.2 * torch.rand(num, dtype=torch.float64, generator=draw)
    return SogCLRState(log_u if visited else torch.full_like(log_u, -torch.inf), temperature, 0.1 * log_u)


def direction(
    x: Tensor, pools: list[Tensor], positive: Tensor, old: SogCLRState, gamma: float, ids: list[int], relative: bool
) -> tuple[Tensor, list[float], list[float], list[float]]:
    """Loss of each anchor (differentiable, weights constant), new u, temperature gradient without rho, objective."""
    losses, moved, pulls, objectives = [], [], [], []
    for i in range(len(x)):
        tau = float(old.temperature[i])
        origin = positive[i] if relative else torch.zeros((), dtype=torch.float64)
        costs = torch.stack([x[i] @ z[j] - origin for z in pools for j in range(len(z)) if ids[j] != ids[i]])
        potentials = torch.exp(costs.detach() / tau)
        g, before = float(potentials.mean()), math.exp(float(old.log_u[i]))
        u = g if before == 0.0 else (1 - gamma) * before + gamma * g
        weights = potentials / u / len(costs)
        losses.append((weights * costs).sum() - (0.0 if relative else positive[i]))
        moved.append(u)
        pulls.append(math.log(u) - float((weights * costs.detach()).sum()) / tau)
        objectives.append(tau * math.log(g) - (0.0 if relative else positive[i].item()))
    return torch.stack(losses), moved, pulls, objectives


def check_state(got: SogCLRState, old: SogCLRState, u: list[float], pull: list[float]) -> None:
    assert got.log_u.exp().tolist() == pytest.approx(u)
    running = [0.3 * float(g) + 0.7 * (p + 0.4) for g, p in zip(old.temperature_gradient, pull, strict=True)]
    assert got.temperature_gradient.tolist() == pytest.approx(running)
    moved = [min(max(float(t) - 0.02 * r, 0.1), 0.5) for t, r in zip(old.temperature, running, strict=True)]
    assert got.temperature.tolist() == pytest.approx(moved)
    assert not any(part.requires_grad for part in got)


@pytest.mark.parametrize("visited", [False, True])
def test_unimodal_step_equals_loops(visited: bool) -> None:
    z1, z2 = rows(5, 3).requires_grad_(), rows(5, 3, seed=1).requires_grad_()
    x, y, names = unit(z1), unit(z2), list(range(5))
    old, positive = state(5, visited=visited), (x * y).sum(dim=1)
    first = direction(x, [x, y], positive, old, 0.8, names, False)
    second = direction(y, [x, y], positive, old, 0.8, names, False)
    step = sogclr(z1, z2, old, gamma=0.8, temperature_update=UPDATE)
    expected = (first[0] + second[0]).mean()
    assert step.loss.item() == pytest.approx(expected.item())
    for got, want in zip(
        torch.autograd.grad(step.loss, [z1, z2]), torch.autograd.grad(expected, [z1, z2]), strict=True
    ):
        assert torch.allclose(got, want, rtol=1e-9, atol=1e-12)
    u = [(a + b) / 2 for a, b in zip(first[1], second[1], strict=True)]
    check_state(step.states[0], old, u, [(a + b) / 2 for a, b in zip(first[2], second[2], strict=True)])
    objective = sum(first[3] + second[3]) / 10 + 0.4 * float(old.temperature.mean())
    assert step.objective.item() == pytest.approx(objective)


@pytest.mark.parametrize("visited", [False, True])
def test_bimodal_step_equals_loops(visited: bool) -> None:
    z1, z2 = rows(4, 3).requires_grad_(), rows(4, 3, seed=1).requires_grad_()
    x, y, names = unit(z1), unit(z2), list(range(4))
    old = state(4, visited=visited)
    other = SogCLRState(old.log_u * 0.5, old.temperature.flip(0), old.temperature_gradient)
    positive = (x * y).sum(dim=1)
    first = direction(x, [y], positive, old, 0.6, names, True)
    second = direction(y, [x], positive, other, 0.6, names, True)
    step = sogclr_bimodal(z1, z2, old, other, gamma=0.6, temperature_update=UPDATE)
    expected = 0.5 * (first[0] + second[0]).mean()
    assert step.loss.item() == pytest.approx(expected.item())
    for got, want in zip(
        torch.autograd.grad(step.loss, [z1, z2]), torch.autograd.grad(expected, [z1, z2]), strict=True
    ):
        assert torch.allclose(got, want, rtol=1e-9, atol=1e-12)
    check_state(step.states[0], old, first[1], first[2])
    check_state(step.states[1], other, second[1], second[2])
    objective = sum(first[3] + second[3]) / 8 + 0.4 * float(old.temperature.mean())
    assert step.objective.item() == pytest.approx(objective)


def test_without_update_temperatures_stay() -> None:
    old = state(4)
    step = sogclr(rows(4, 3), rows(4, 3, seed=1), old)
    assert torch.equal(step.states[0].temperature, old.temperature)
    assert torch.equal(step.states[0].temperature_gradient, old.temperature_gradient)


def test_with_gamma_one_the_surrogate_has_the_gradient_of_the_objective() -> None:
    z1, z2 = rows(4, 3).requires_grad_(), rows(4, 3, seed=1)
    old = state(4)
    x, y = unit(z1), unit(z2)
    terms = []
    for anchors, others in ((x, y), (y, x)):
        for i in range(4):
            costs = [anchors[i] @ z[j] - x[i] @ y[i] for z in (anchors, others) for j in range(4) if j != i]
            tau = old.temperature[i]
            terms.append(tau * (torch.logsumexp(torch.stack(costs) / tau, dim=0) - math.log(6)))
    objective = torch.stack(terms).mean()
    step = sogclr(z1, z2, old, gamma=1.0)
    assert step.objective.item() == pytest.approx(objective.item())
    (got,), (want,) = torch.autograd.grad(step.loss, z1), torch.autograd.grad(objective, z1)
    assert torch.allclose(got, 2 * want, rtol=1e-9, atol=1e-12)


def test_rows_of_one_sample_are_no_negatives_and_leave_one_state() -> None:
    z1, z2 = rows(5, 3), rows(5, 3, seed=1)
    ids, names = torch.tensor([3, 8, 3, 1, 8]), [3, 8, 3, 1, 8]
    old = SogCLRState(torch.zeros(5, dtype=torch.float64), *state(5)[1:])
    x, y = unit(z1), unit(z2)
    positive = (x * y).sum(dim=1)
    views = [direction(anchor, [x, y], positive, old, 0.9, names, False) for anchor in (x, y)]
    step = sogclr(z1, z2, old, ids=ids)
    assert float(step.loss) == pytest.approx(float((views[0][0] + views[1][0]).mean()))
    u = [(a + b) / 2 for a, b in zip(views[0][1], views[1][1], strict=True)]
    shared = [(u[0] + u[2]) / 2, (u[1] + u[4]) / 2, (u[0] + u[2]) / 2, u[3], (u[1] + u[4]) / 2]
    assert step.states[0].log_u.exp().tolist() == pytest.approx(shared)


@pytest.mark.parametrize("num", [0, 1, 3])
def test_without_negatives_nothing_moves(num: int) -> None:
    z, old = rows(num, 3).requires_grad_(), state(num, visited=False)
    ids = torch.zeros(num, dtype=torch.int64)
    for step in (
        sogclr(z, z, old, ids=ids, temperature_update=UPDATE),
        sogclr_bimodal(z, z, old, old, ids=ids, temperature_update=UPDATE),
    ):
        assert step.loss.item() == 0.0
        assert torch.equal(torch.autograd.grad(step.loss, z)[0], torch.zeros_like(z))
        for following in step.states:
            for new, before in zip(following, old, strict=True):
                assert torch.equal(new, before) or (num == 3 and torch.allclose(new, before.mean()))


def test_low_temperature_stays_finite() -> None:
    old = SogCLRState(torch.full((6,), -torch.inf), torch.full((6,), 1e-3), torch.zeros(6))
    z1, z2 = rows(6, 3).float().requires_grad_(), rows(6, 3, seed=1).float()
    for step in (sogclr(z1, z2, old), sogclr_bimodal(z1, z2, old, old)):
        assert bool(step.loss.isfinite())
        assert bool(torch.autograd.grad(step.loss, z1)[0].isfinite().all())
        assert all(bool(part.isfinite().all()) for following in step.states for part in following)


def test_gamma_schedule() -> None:
    assert gamma_schedule(5, 0.8, 10) == pytest.approx(0.9)
    assert [gamma_schedule(epoch, 0.8, 10) for epoch in (0, 10, 99)] == [1.0, 0.8, 0.8]


def test_bad_arguments_are_named() -> None:
    z, old = rows(3, 2), state(3)
    with pytest.raises(ValueError, match=r"gamma must lie in \(0, 1\], got 0"):
        sogclr(z, z, old, gamma=0)
    with pytest.raises(ValueError, match=r"state.log_u must have shape \(3,\), got shape \(2,\)"):
        sogclr(z, z, state(2))
    with pytest.raises(ValueError, match=r"ids must have shape \(3,\)"):
        sogclr(z, z, old, ids=torch.arange(2))
    with pytest.raises(ValueError, match=r"minimum must be above 0 and at most maximum, got 0\.5"):
        TemperatureUpdate(minimum=0.5, maximum=0.1)
    with pytest.raises(ValueError, match=r"momentum must lie in 0 \.\. 1, got 2"):
        TemperatureUpdate(momentum=2)
