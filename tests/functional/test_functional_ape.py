from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.nn.functional import softplus

from graphcl.functional import (
    NoiseEvents,
    ape_nce,
    draw_noise_events,
    event_score,
    noise_contrastive_estimation,
    unigram_log_probabilities,
)

SIZES = (4, 5, 3)


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def problem() -> tuple[list[Tensor], Tensor, NoiseEvents, list[Tensor], Tensor]:
    tables = [rows(size, 2, seed=size).requires_grad_() for size in SIZES]
    events = torch.stack([torch.randint(size, (6,), generator=generator(size)) for size in SIZES], dim=1)
    logs = [unigram_log_probabilities(torch.arange(1.0, size + 1).double()) for size in SIZES]
    noise = draw_noise_events(events, logs, 4, generator=generator())
    return tables, events, noise, logs, torch.tensor([0.7, 1.1, 0.4], dtype=torch.float64)


def score_by_loops(tables: list[Tensor], event: list[int], weights: Tensor) -> Tensor:
    pairs = [(0, 1), (0, 2), (1, 2)]
    terms = [w * (tables[i][event[i]] @ tables[j][event[j]]) for w, (i, j) in zip(weights, pairs, strict=True)]
    return torch.stack(terms).sum()


@pytest.mark.parametrize("positive", ["paired", "mean"])
def test_equals_loops_in_value_and_gradient(positive: Literal["paired", "mean"]) -> None:
    tables, events, noise, logs, weights = problem()
    c, k = torch.tensor(-0.3, dtype=torch.float64), 4
    losses = []
    for b, event in enumerate(events.tolist()):
        data, total = score_by_loops(tables, event, weights) + c - math.log(k), torch.zeros((), dtype=torch.float64)
        for r in range(k):
            kind, value = int(noise.types[b, r]), int(noise.values[b, r])
            other = [value if t == kind else event[t] for t in range(3)]
            total = total + softplus(score_by_loops(tables, other, weights) + c - math.log(k) - logs[kind][value])
            if positive == "paired":
                total = total + softplus(-(data - logs[kind][event[kind]])) / k
        if positive == "mean":
            total = total + softplus(-(data - sum(float(logs[t][event[t]]) for t in range(3)) / 3))
        losses.append(total)
    upstream = rows(6, seed=9)
    got = ape_nce(
        tables,
        events,
        noise,
        logs,
        pair_weights=weights,
        constant=c,
        positive_noise=positive,
        reduction="none",
    )
    torch.testing.assert_close(got, torch.stack(losses))
    ours, theirs = (torch.autograd.grad((upstream * value).sum(), tables) for value in (got, torch.stack(losses)))
    torch.testing.assert_close(ours, theirs)


def test_gradcheck_of_weights_and_constant() -> None:
    tables, events, noise, logs, weights = problem()
    weights, c = weights.requires_grad_(), torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda w, c, *t: 0.7 * ape_nce(t, events, noise, logs, pair_weights=w, constant=c), (weights, c, *tables)
    )


def test_score_forms_agree_and_shift_cancels() -> None:
    tables, events, noise, logs, weights = problem()
    torch.testing.assert_close(
        event_score(tables, events, weights),
        torch.stack([score_by_loops(tables, event, weights) for event in events.tolist()]),
    )
    types = torch.tensor([0.5, 2.0, -1.0], dtype=torch.float64)
    products = torch.stack([types[0] * types[1], types[0] * types[2], types[1] * types[2]])
    torch.testing.assert_close(event_score(tables, events, type_weights=types), event_score(tables, events, products))
    torch.testing.assert_close(event_score(tables, events), event_score(tables, events, torch.ones(3).double()))
    shift = 1.7
    data, other = rows(6), rows(6, 4, seed=1)
    torch.testing.assert_close(
        noise_contrastive_estimation(data + shift - shift, other + shift - shift),
        noise_contrastive_estimation(data, other),
    )


def test_drawn_noise_follows_the_distribution() -> None:
    events = torch.zeros(2000, 2, dtype=torch.long)
    logs = [unigram_log_probabilities(torch.tensor([0, 3, 1])), unigram_log_probabilities(torch.tensor([5, 0]))]
    noise = draw_noise_events(events, logs, 2, generator=generator())
    first = noise.values[noise.types == 0]
    assert abs(float((first == 1).double().mean()) - 0.75) < 0.05
    assert not bool((first == 0).any())
    assert bool((noise.values[noise.types == 1] == 0).all())
    assert abs(float((noise.types == 0).double().mean()) - 0.5) < 0.05
    flat = unigram_log_probabilities(torch.tensor([1, 16]), power=0.5).exp()
    assert flat.tolist() == pytest.approx([0.2, 0.8])


def test_degenerate_cases() -> None:
    tables, events, noise, logs, _ = problem()
    none = NoiseEvents(noise.types[:0], noise.values[:0])
    assert float(ape_nce(tables, events[:0], none, logs)) == 0.0
    zero = [torch.zeros(size, 2, dtype=torch.float64, requires_grad=True) for size in SIZES]
    loss = ape_nce(zero, events, noise, logs)
    assert all(float(g.abs().sum()) == 0.0 for g in torch.autograd.grad(loss, zero))
    huge = [1e4 * table.detach() for table in tables]
    assert bool(ape_nce(huge, events, noise, logs).isfinite())


def test_messages() -> None:
    tables, events, noise, logs, _ = problem()
    with pytest.raises(IndexError, match=r"events\[:, 2\] must lie in 0 .. 2"):
        event_score(tables, events + torch.tensor([0, 0, 3]))
    with pytest.raises(ValueError, match="at least 2 types"):
        event_score(tables[:1], events[:, :1])
    with pytest.raises(ValueError, match="got both"):
        event_score(tables, events, torch.ones(3), type_weights=torch.ones(3))
    with pytest.raises(ValueError, match="positive_noise must be"):
        ape_nce(tables, events, noise, logs, positive_noise="none")  # type: ignore[arg-type]
    with pytest.raises(IndexError, match="noise values of type"):
        ape_nce(tables, events, NoiseEvents(noise.types, noise.values + 9), logs)
    with pytest.raises(ValueError, match="not all of them 0"):
        unigram_log_probabilities(torch.zeros(3))
    with pytest.raises(ValueError, match=r"data_logits \(B,\)"):
        noise_contrastive_estimation(rows(3), rows(2, 4))
