from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from torch import Tensor

from graphcl.functional import info_nce, multi_positive_info_nce

EDGES = [(3, 4), (0, 1), (0, 0), (1, 3), (3, 0), (0, 4)]
WEIGHTS = [1.0, 0.5, 2.0, 0.0, 0.3, 1.5]


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def by_loops(x: Tensor, y: Tensor, tau: list[float], form: str, same: list[list[bool]]) -> list[float]:
    losses = []
    for i in range(len(x)):
        logits = [float(x[i] @ b) / float(x[i].norm() * b.norm()) / tau[i] for b in y]
        own = [(j, w) for (a, j), w in zip(EDGES, WEIGHTS, strict=True) if a == i]
        total = sum(w for _, w in own)
        if total == 0:
            losses.append(0.0)
            continue
        listed = [j for j, _ in own]
        free = [j for j in range(len(y)) if j not in listed and not same[i][j]]
        loss = 0.0
        for p, w in own:
            rivals = free + (listed if form == "shared" else [p])
            loss += w / total * (math.log(sum(math.exp(logits[j]) for j in rivals)) - logits[p])
        losses.append(loss)
    return losses


@pytest.mark.parametrize("form", ["shared", "own"])
@pytest.mark.parametrize("with_ids", [False, True])
def test_equals_loops(form: Literal["shared", "own"], with_ids: bool) -> None:
    x, y = rows(4, 3), rows(5, 3, seed=1)
    tau = [0.3, 0.4, 0.5, 0.6]
    ids, key_ids = [2, 3, 4, 5], [2, 0, 2, 5, 9]
    same = [[with_ids and a == b for b in key_ids] for a in ids]
    got = multi_positive_info_nce(
        x,
        y,
        torch.tensor(EDGES).T,
        torch.tensor(WEIGHTS),
        denominator=form,
        temperature=torch.tensor(tau, dtype=torch.float64),
        reduction="none",
        ids=torch.tensor(ids) if with_ids else None,
        key_ids=torch.tensor(key_ids) if with_ids else None,
    )
    expected = by_loops(x, y, tau, form, same)
    assert got.tolist() == pytest.approx(expected, rel=1e-6)
    assert expected[1] == expected[2] == 0.0


def test_compressed_rows_and_pairs_are_the_same() -> None:
    x, y = rows(3, 2), rows(4, 2, seed=1)
    compressed = (torch.tensor([0, 2, 2, 3]), torch.tensor([3, 1, 0]))
    pairs = torch.tensor([[0, 0, 2], [3, 1, 0]])
    assert torch.equal(multi_positive_info_nce(x, y, compressed), multi_positive_info_nce(x, y, pairs))


def test_own_equals_shared_and_info_nce_with_one_positive() -> None:
    x, y = rows(5, 3), rows(5, 3, seed=1)
    diagonal = torch.arange(5).repeat(2, 1)
    shared = multi_positive_info_nce(x, y, diagonal, temperature=0.2)
    own = multi_positive_info_nce(x, y, diagonal, denominator="own", temperature=0.2)
    assert torch.allclose(shared, info_nce(x, y, temperature=0.2), rtol=1e-12)
    assert torch.allclose(own, shared, rtol=1e-12)


@pytest.mark.parametrize("form", ["shared", "own"])
def test_gradient(form: Literal["shared", "own"]) -> None:
    pairs, upstream = torch.tensor([[0, 0, 2], [1, 3, 0]]), rows(3, seed=4)

    def value(x: Tensor, y: Tensor, tau: Tensor) -> Tensor:
        loss = multi_positive_info_nce(x, y, pairs, denominator=form, temperature=tau, reduction="none")
        return (loss * upstream).sum()

    tau = torch.tensor([0.5, 0.6, 0.7], dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(value, (rows(3, 2).requires_grad_(), rows(4, 2, seed=1).requires_grad_(), tau))


@pytest.mark.parametrize("form", ["shared", "own"])
def test_no_positives_is_zero_with_zero_gradient(form: Literal["shared", "own"]) -> None:
    x = rows(3, 2).requires_grad_()
    none = torch.zeros(2, 0, dtype=torch.int64)
    loss = multi_positive_info_nce(x, rows(4, 2), none, denominator=form)
    assert loss.item() == 0.0
    assert torch.equal(torch.autograd.grad(loss, x)[0], torch.zeros_like(x))


def test_every_key_positive_and_own_denominator_is_zero() -> None:
    pairs = torch.cartesian_prod(torch.arange(2), torch.arange(3)).T
    loss = multi_positive_info_nce(rows(2, 2), rows(3, 2), pairs, denominator="own")
    assert float(loss) == 0.0


@pytest.mark.parametrize(
    ("positives", "weights", "error", "message"),
    [
        (torch.zeros(3, 1, dtype=torch.int64), None, ValueError, r"positives must have shape \(2, pairs\)"),
        (torch.tensor([[0], [9]]), None, IndexError, "positives key positions holds 9, outside 0 .. 3"),
        (torch.tensor([[-1], [0]]), None, IndexError, "positives anchor positions holds -1"),
        (torch.tensor([[0], [0]]), torch.tensor([-1.0]), ValueError, "must not be negative, got -1.0"),
        (torch.tensor([[0], [0]]), torch.ones(2), ValueError, r"positive_weights must have shape \(1,\)"),
        ((torch.tensor([0, 2, 1, 1]), torch.tensor([0])), None, ValueError, "offsets must rise from 0"),
    ],
)
def test_bad_positives_are_named(
    positives: Tensor | tuple[Tensor, Tensor], weights: Tensor | None, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        multi_positive_info_nce(rows(3, 2), rows(4, 2), positives, weights)


def test_unknown_denominator_is_named() -> None:
    with pytest.raises(ValueError, match="denominator must be 'shared' or 'own', got 'all'"):
        multi_positive_info_nce(rows(1, 2), rows(1, 2), torch.tensor([[0], [0]]), denominator="all")  # type: ignore[arg-type]
