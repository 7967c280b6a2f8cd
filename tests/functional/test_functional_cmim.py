from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from graphcl.functional import cmim


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def by_loops(x: Tensor, twin: Tensor, keys: Tensor, tau: float, same: list[list[bool]]) -> list[float]:
    losses = []
    for i in range(len(x)):
        potential = [math.exp(float(torch.cosine_similarity(x[i], key, dim=0)) / tau) for key in keys]
        free = [g for j, g in enumerate(potential) if not same[i][j]]
        own = math.exp(float(torch.cosine_similarity(x[i], twin[i], dim=0)) / tau)
        losses.append(-math.log(own / (own + sum(free) / len(free))) if free else 0.0)
    return losses


@pytest.mark.parametrize("ids", [None, [2, 2, 0, 1]])
def test_equals_loops(ids: list[int] | None) -> None:
    z, second = rows(4, 3), rows(4, 3, seed=1)
    names = ids or list(range(4))
    same = [[a == b for b in names] for a in names]
    named = None if ids is None else torch.tensor(ids)
    got = cmim(z, ids=named, temperature=0.4, reduction="none")
    assert got.tolist() == pytest.approx(by_loops(z, z, z, 0.4, same))
    got = cmim(z, second, ids=named, temperature=0.4, reduction="none")
    assert got.tolist() == pytest.approx(by_loops(z, second, z, 0.4, same))


def test_keys_with_and_without_ids() -> None:
    z, keys = rows(3, 3), rows(5, 3, seed=1)
    ids, key_ids = [0, 1, 2], [2, 2, 0, 5, 2]
    same = [[a == b for b in key_ids] for a in ids]
    got = cmim(z, keys=keys, ids=torch.tensor(ids), key_ids=torch.tensor(key_ids), temperature=0.4, reduction="none")
    assert got.tolist() == pytest.approx(by_loops(z, z, keys, 0.4, same))
    got = cmim(z, keys=keys, temperature=0.4, reduction="none")
    assert got.tolist() == pytest.approx(by_loops(z, z, keys, 0.4, [[False] * 5] * 3))


def test_repeating_the_negatives_changes_nothing() -> None:
    z, keys = rows(3, 3), rows(5, 3, seed=1)
    assert torch.allclose(cmim(z, keys=keys), cmim(z, keys=keys.repeat(4, 1)), rtol=1e-12)


def test_gradient() -> None:
    upstream = rows(4, seed=2)

    def value(z: Tensor, second: Tensor, tau: Tensor) -> Tensor:
        return (cmim(z, second, temperature=tau, reduction="none") * upstream).sum()

    tau = torch.tensor(0.5, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(value, (rows(4, 3).requires_grad_(), rows(4, 3, seed=1).requires_grad_(), tau))


def test_without_negatives_the_loss_is_zero() -> None:
    for num in (0, 1):
        z = rows(num, 3).requires_grad_()
        loss = cmim(z)
        assert loss.item() == 0.0
        assert torch.equal(torch.autograd.grad(loss, z)[0], torch.zeros_like(z))


def test_bad_arguments_are_named() -> None:
    z = torch.ones(3, 2)
    with pytest.raises(ValueError, match="z and second_draw must have the same number of rows, got 3 and 2"):
        cmim(z, torch.ones(2, 2))
    with pytest.raises(ValueError, match="key_ids without keys"):
        cmim(z, key_ids=torch.arange(3))
