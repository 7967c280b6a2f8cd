from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize, softplus

from graphcl.functional import hydra


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def by_loops(
    z: Tensor,
    gates: Tensor,
    labels: Tensor,
    partners: Tensor,
    tau: float,
    ids: Tensor,
    keys: Tensor,
    key_labels: Tensor,
    key_ids: Tensor,
    include_self: bool = False,
) -> list[list[Tensor]]:
    terms: list[list[Tensor]] = []
    for i in range(len(z)):
        anchor = normalize(z[i] * gates[i], dim=0)
        logits = [normalize(keys[j] * gates[i], dim=0) @ anchor / tau for j in range(len(keys))]
        free = [bool(key_ids[j] != ids[i]) for j in range(len(keys))]
        negatives = [v for j, v in enumerate(logits) if free[j] and key_labels[j] not in (labels[i], partners[i])]
        positives = [
            v for j, v in enumerate(logits) if key_labels[j] == partners[i] and (free[j] or (include_self and j == i))
        ]
        total = torch.logsumexp(torch.stack(negatives), dim=0) if negatives else torch.tensor(-math.inf)
        terms.append([softplus(total - v) for v in positives])
    return terms


LABELS, PARTNERS = torch.tensor([0, 1, 0, 2, 1, 2, 0]), torch.tensor([1, 1, 0, 0, 2, 1, 3])


@pytest.mark.parametrize("include_self", [False, True])
@pytest.mark.parametrize("budget", [1, 500, 64 * 2**20])
def test_equals_loops_in_value_and_gradient(include_self: bool, budget: int) -> None:
    z, gates = rows(7, 4).requires_grad_(), torch.sigmoid(rows(7, 4, seed=1)).requires_grad_()
    here = torch.arange(7)
    terms = by_loops(z, gates, LABELS, PARTNERS, 0.2, here, z, LABELS, here, include_self)
    expected = torch.stack([term for row in terms for term in row]).mean()
    got = hydra(z, LABELS, PARTNERS, gates, include_self=include_self, temperature=0.2, memory_budget=budget)
    torch.testing.assert_close(got, expected)
    ours, theirs = (torch.autograd.grad(value, (z, gates)) for value in (got, expected))
    torch.testing.assert_close(ours, theirs)


def test_keys_and_ids() -> None:
    z, gates, keys = rows(3, 4), rows(3, 4, seed=1).abs(), rows(5, 4, seed=2)
    labels, partners, key_labels = torch.tensor([0, 1, 2]), torch.tensor([1, 0, 0]), torch.tensor([0, 1, 1, 2, 0])
    ids, key_ids = torch.tensor([7, 8, 9]), torch.tensor([8, 7, 3, 3, 3])
    terms = by_loops(z, gates, labels, partners, 0.1, ids, keys, key_labels, key_ids)
    got = hydra(
        z, labels, partners, gates, keys=keys, key_labels=key_labels, ids=ids, key_ids=key_ids, reduction="none"
    )
    assert got.tolist() == pytest.approx([sum(float(term) for term in row) for row in terms])
    free = by_loops(z, gates, labels, partners, 0.1, torch.zeros(3), keys, key_labels, torch.ones(5))
    without = hydra(z, labels, partners, gates, keys=keys, key_labels=key_labels, reduction="sum")
    assert float(without) == pytest.approx(sum(float(term) for row in free for term in row))


def test_open_gates_are_the_ungated_form() -> None:
    z, ones = rows(7, 4), torch.ones(7, 4, dtype=torch.float64)
    unit = normalize(z)
    logits = unit @ unit.T / 0.1
    losses: list[Tensor] = []
    for i in range(7):
        negatives = [logits[i, j] for j in range(7) if LABELS[j] not in (LABELS[i], PARTNERS[i])]
        total = torch.logsumexp(torch.stack(negatives), dim=0)
        losses.extend(softplus(total - logits[i, j]) for j in range(7) if LABELS[j] == PARTNERS[i] and i != j)
    torch.testing.assert_close(hydra(z, LABELS, PARTNERS, ones), torch.stack(losses).mean())


def test_gradcheck_with_upstream() -> None:
    z, gates = rows(7, 3).requires_grad_(), torch.sigmoid(rows(7, 3, seed=1)).requires_grad_()
    tau, weight = torch.tensor(0.5, dtype=torch.float64, requires_grad=True), rows(7, seed=2)
    assert torch.autograd.gradcheck(
        lambda a, g, t: (weight * hydra(a, LABELS, PARTNERS, g, temperature=t, reduction="none")).sum(),
        (z, gates, tau),
    )


def test_degenerate_cases() -> None:
    here = torch.zeros(3, dtype=torch.long)
    z = rows(3, 2).requires_grad_()
    no_positives = hydra(z, here, here + 1, torch.ones(3, 2, dtype=torch.float64))
    no_negatives = hydra(z, here, here, torch.ones(3, 2, dtype=torch.float64))
    for loss in (no_positives, no_negatives):
        (gradient,) = torch.autograd.grad(loss, z)
        assert float(loss.detach()) == 0.0
        assert float(gradient.abs().sum()) == 0.0
    assert float(hydra(rows(0, 2), here[:0], here[:0], rows(0, 2))) == 0.0
    zero = torch.zeros(7, 4, dtype=torch.float64, requires_grad=True)
    closed = torch.zeros(7, 4, dtype=torch.float64, requires_grad=True)
    for a, g in ((zero, torch.ones(7, 4, dtype=torch.float64)), (rows(7, 4).requires_grad_(), closed)):
        loss = hydra(a, LABELS, PARTNERS, g, temperature=1e-3)
        (gradient,) = torch.autograd.grad(loss, a)
        assert bool(loss.isfinite())
        assert float(gradient.abs().sum()) == 0.0
    narrow = hydra(rows(7, 4).float(), LABELS, PARTNERS, torch.ones(7, 4))
    wide = hydra(rows(7, 4), LABELS, PARTNERS, torch.ones(7, 4, dtype=torch.float64))
    torch.testing.assert_close(narrow.double(), wide, rtol=1e-4, atol=1e-5)


def test_messages() -> None:
    z, labels = rows(2, 3), torch.tensor([0, 1])
    with pytest.raises(ValueError, match="key_labels, got None"):
        hydra(z, labels, labels, z, keys=z)
    with pytest.raises(ValueError, match="include_self needs"):
        hydra(z, labels, labels, z, keys=z, key_labels=labels, include_self=True)
    with pytest.raises(ValueError, match="0-dim"):
        hydra(z, labels, labels, z, temperature=torch.ones(2))
