"""APE: its score and losses against loops, unknown entities, gradients, and what it learns."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from graphcl.functional.ape import NoiseEvents, ape_nce
from graphcl.models import APE, APEConfig, EventBatch

COUNTS = [torch.tensor([4, 2, 2]), torch.tensor([6, 2]), torch.tensor([1, 3, 4, 0])]
EVENTS = torch.tensor([[0, 1, 2], [2, 0, 1], [1, 1, 0]])
NOISE = NoiseEvents(torch.tensor([[0, 2], [1, 1], [2, 0]]), torch.tensor([[1, 1], [1, 0], [2, 2]]))


def model(**settings: object) -> APE:
    config = APEConfig.model_validate({"dim": 4, **settings})
    return APE(COUNTS, config, generator=torch.Generator().manual_seed(0)).double()


def score(ape: APE, event: list[int]) -> Tensor:
    """The formula in loops; an unknown entity has no pairs."""
    total, pair = torch.zeros((), dtype=torch.float64), 0
    for i in range(3):
        for j in range(i + 1, 3):
            if event[i] >= 0 and event[j] >= 0:
                total = total + ape.pair_weights[pair] * (ape.tables[i][event[i]] @ ape.tables[j][event[j]])
            pair += 1
    return total


def test_compatibility_by_loops_and_unknown_entities() -> None:
    ape = model()
    events = torch.tensor([[0, 1, 2], [2, -1, 1], [-1, -1, 0], [-1, -1, -1]])
    expected = torch.stack([score(ape, event) for event in events.tolist()])
    torch.testing.assert_close(ape(events), expected)
    assert ape.anomaly_score(events)[2:].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("density", ["independent", "entity"])
def test_contrast_by_loops(density: str) -> None:
    ape = model(noise_density=density)
    logs = [torch.log(count / count.sum()).double() for count in COUNTS]
    total = torch.zeros((), dtype=torch.float64)
    for event, types, values in zip(EVENTS.tolist(), NOISE.types.tolist(), NOISE.values.tolist(), strict=True):
        for kind, value in zip(types, values, strict=True):
            changed = [value if position == kind else entity for position, entity in enumerate(event)]
            data_log, noise_log = (
                (0.0, 0.0) if density == "independent" else (logs[kind][event[kind]], logs[kind][value])
            )
            data = score(ape, event) + ape.constant - math.log(2) - data_log
            noise = score(ape, changed) + ape.constant - math.log(2) - noise_log
            total = total + torch.nn.functional.softplus(-data) / 2 + torch.nn.functional.softplus(noise)
    torch.testing.assert_close(ape.contrast(EVENTS, NOISE), total / 3)


@pytest.mark.parametrize("density", ["independent", "entity"])
def test_gradients(density: str) -> None:
    ape = model(noise_density=density)
    parameters = [*ape.tables, ape.raw_weights, ape.constant]
    names = [*(f"tables.{i}" for i in range(3)), "raw_weights", "constant"]

    def loss(*values: Tensor) -> Tensor:
        given = dict(zip(names, values, strict=True))
        tables, weights = [given[f"tables.{i}"] for i in range(3)], torch.nn.functional.softplus(given["raw_weights"])
        logs = ape.log_probabilities
        if density == "independent":
            logs = [torch.zeros_like(log) for log in logs]
        return ape_nce(tables, EVENTS, NOISE, logs, pair_weights=weights, constant=given["constant"], reduction="none")

    assert torch.autograd.gradcheck(loss, [p.detach().clone().requires_grad_() for p in parameters])
    torch.testing.assert_close(loss(*parameters).mean(), ape.contrast(EVENTS, NOISE))


def test_compositional_objective_is_the_likelihood() -> None:
    """With all events as noise, as often as they are likely, the loss is the exact negative log-likelihood."""
    ape = model(objective="compositional", gamma=1.0)
    every = torch.cartesian_prod(torch.arange(3), torch.arange(2), torch.arange(3))  # entity 3 never occurs
    base = sum(log[every[:, i]] for i, log in enumerate(ape.log_probabilities))
    assert isinstance(base, Tensor)
    partition = torch.logsumexp(ape(every) + base, 0)
    torch.manual_seed(0)
    drawn = ape._independent_events(torch.zeros(40_000, 3, dtype=torch.int64))
    share = torch.stack([torch.bincount(drawn[:, i], minlength=len(c)) / len(drawn) for i, c in enumerate(COUNTS[:1])])
    torch.testing.assert_close(share[0], COUNTS[0] / 8, atol=0.02, rtol=0)
    assert int(drawn[:, 2].max()) == 2
    estimate = torch.logsumexp(ape(drawn), 0) - math.log(len(drawn))
    assert float((estimate - partition).detach().abs()) < 0.01
    torch.manual_seed(0)
    loss, parts = ape.objective(EventBatch(EVENTS.repeat(2000, 1), 6000.0))
    assert float(loss.detach()) == pytest.approx(float((partition - ape(EVENTS).mean()).detach()), abs=0.02)
    assert set(parts) == {"compatibility"}


@pytest.mark.parametrize("settings", [{}, {"noise_density": "entity"}, {"objective": "compositional"}])
def test_learns_which_entities_go_together(settings: dict[str, str]) -> None:
    """Two teams with their own users, hosts and hours; mixed events are the anomalies."""
    generator = torch.Generator().manual_seed(0)
    team = torch.randint(2, (2000, 1), generator=generator)
    events = torch.randint(5, (2000, 3), generator=generator) + 5 * team
    ape = APE([torch.ones(10)] * 3, APEConfig.model_validate({"dim": 8, **settings}), generator=generator)
    optimizer = torch.optim.Adam(ape.parameters(), lr=0.05)
    torch.manual_seed(0)
    for _ in range(60):
        loss, _ = ape.objective(EventBatch(events, 2000.0))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    mixed = events[:200].clone()
    mixed[:, 1] = (mixed[:, 1] + 5) % 10
    assert float(ape.anomaly_score(mixed).min()) > float(ape.anomaly_score(events).max())


def test_refuses_what_is_no_event() -> None:
    with pytest.raises(ValueError, match="at least 2 types"):
        APE([torch.ones(3)])
