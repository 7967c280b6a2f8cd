from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from graphcl.functional import hard_contrastive, info_nce, simple_contrastive


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def cosine(x: Tensor, y: Tensor) -> float:
    return float(x @ y) / float(x.norm() * y.norm())


def by_loops(x: Tensor, y: Tensor, keys: Tensor, tau: float, counts: list[int], same: list[list[bool]]) -> list[float]:
    losses = []
    for i in range(len(x)):
        pool = sorted((cosine(x[i], keys[j]) / tau for j in range(len(keys)) if not same[i][j]), reverse=True)
        positive = cosine(x[i], y[i]) / tau
        losses.append(math.log(sum(math.exp(v - positive) for v in [positive, *pool[: counts[i]]])))
    return losses


@pytest.mark.parametrize("num_negatives", [1, 3, 5, 50])
def test_count_of_negatives(num_negatives: int) -> None:
    x, y = rows(6, 3), rows(6, 3, seed=1)
    own = [[i == j for j in range(6)] for i in range(6)]
    expected = by_loops(x, y, y, 0.3, [num_negatives] * 6, own)
    got = hard_contrastive(x, y, num_negatives=num_negatives, temperature=0.3, reduction="none")
    assert got.tolist() == pytest.approx(expected)


@pytest.mark.parametrize(("fraction", "kept"), [(0.01, 1), (0.4, 2), (0.6, 3), (1.0, 5)])
def test_fraction_of_negatives(fraction: float, kept: int) -> None:
    x, y = rows(6, 3), rows(6, 3, seed=1)
    by_count = hard_contrastive(x, y, num_negatives=kept)
    assert torch.equal(hard_contrastive(x, y, fraction=fraction), by_count)


def test_ids_and_keys() -> None:
    x, y, keys = rows(4, 3), rows(4, 3, seed=1), rows(7, 3, seed=2)
    ids, key_ids = [0, 1, 1, 9], [1, 0, 1, 9, 9, 9, 1]
    same = [[a == b for b in key_ids] for a in ids]
    free = [row.count(False) for row in same]
    counts = [max(1, math.floor(0.5 * n)) for n in free]
    got = hard_contrastive(
        x,
        y,
        keys=keys,
        ids=torch.tensor(ids),
        key_ids=torch.tensor(key_ids),
        fraction=0.5,
        temperature=0.4,
        reduction="none",
    )
    assert got.tolist() == pytest.approx(by_loops(x, y, keys, 0.4, counts, same))
    free_of_ids = hard_contrastive(x, y, keys=keys, num_negatives=2, temperature=0.4, reduction="none")
    assert free_of_ids.tolist() == pytest.approx(by_loops(x, y, keys, 0.4, [2] * 4, [[False] * 7] * 4))


def test_all_negatives_give_info_nce() -> None:
    x, y = rows(6, 3), rows(6, 3, seed=1)
    each = torch.linspace(0.1, 1, 6, dtype=torch.float64)
    got = hard_contrastive(x, y, fraction=1.0, temperature=each, reduction="none")
    assert torch.allclose(got, info_nce(x, y, temperature=each, reduction="none"), rtol=1e-12)


def test_gradient() -> None:
    upstream = rows(5, seed=3)

    def value(x: Tensor, y: Tensor, tau: Tensor) -> Tensor:
        return (hard_contrastive(x, y, num_negatives=2, temperature=tau, reduction="none") * upstream).sum()

    tau = torch.tensor(0.5, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(value, (rows(5, 3).requires_grad_(), rows(5, 3, seed=1).requires_grad_(), tau))


def test_without_negatives_the_loss_is_zero() -> None:
    for num, ids in ((0, None), (1, None), (3, torch.zeros(3, dtype=torch.int64))):
        x = rows(num, 2).requires_grad_()
        loss = hard_contrastive(x, x, ids=ids, num_negatives=2)
        assert loss.item() == 0.0
        assert torch.equal(torch.autograd.grad(loss, x)[0], torch.zeros_like(x))


def test_simple_contrastive_equals_loops_and_has_a_gradient() -> None:
    x, y = rows(4, 3).requires_grad_(), rows(4, 3, seed=1).requires_grad_()
    expected = [
        -cosine(x[i].detach(), y[i].detach())
        + 0.3 * sum(cosine(x[i].detach(), y[j].detach()) for j in range(4) if j != i)
        for i in range(4)
    ]
    got = simple_contrastive(x, y, negative_weight=0.3, reduction="none")
    assert got.tolist() == pytest.approx(expected)
    assert torch.autograd.gradcheck(simple_contrastive, (x, y))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give one of num_negatives and fraction, got None and None"),
        ({"num_negatives": 2, "fraction": 0.5}, "give one of num_negatives and fraction, got 2 and 0.5"),
        ({"num_negatives": 0}, "num_negatives must be an integer of at least 1, got 0"),
        ({"fraction": 1.5}, "fraction must be above 0 and at most 1, got 1.5"),
        ({"fraction": 0.5, "key_ids": torch.arange(2)}, "key_ids without keys"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hard_contrastive(torch.ones(2, 2), torch.ones(2, 2), **arguments)  # type: ignore[arg-type]
