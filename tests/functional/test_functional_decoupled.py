from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from graphcl.functional import dcl, dclw, nt_xent


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def cosine(x: Tensor, y: Tensor) -> float:
    return float(x @ y) / float(x.norm() * y.norm())


def one_way_by_loops(x: Tensor, y: Tensor, tau: list[float], omega: list[float], ids: list[int]) -> list[float]:
    losses = []
    for i in range(len(x)):
        others = [j for j in range(len(x)) if ids[j] != ids[i]]
        energy = sum(math.exp(cosine(x[i], z[j]) / tau[i]) for j in others for z in (x, y))
        losses.append(-omega[i] * cosine(x[i], y[i]) / tau[i] + math.log(energy) if others else 0.0)
    return losses


@pytest.mark.parametrize("ids", [None, [3, 3, 1, 0]])
def test_dcl_equals_loops(ids: list[int] | None) -> None:
    x, y = rows(4, 3), rows(4, 3, seed=1)
    tau = [0.2, 0.3, 0.4, 0.5]
    omega = [1.0, 0.5, 2.0, 0.0]
    names = ids or list(range(4))
    expected = one_way_by_loops(x, y, tau, omega, names) + one_way_by_loops(y, x, tau, omega, names)
    named = None if ids is None else torch.tensor(ids)
    each, weight = torch.tensor(tau, dtype=torch.float64), torch.tensor(omega, dtype=torch.float64)
    got = dcl(x, y, ids=named, temperature=each, positive_weight=weight, reduction="none")
    assert got.tolist() == pytest.approx(expected)
    one_way = dcl(x, y, ids=named, temperature=each, positive_weight=weight, symmetric=False)
    assert float(one_way) == pytest.approx(sum(expected[:4]) / 4)
    same = one_way_by_loops(x, y, [0.3] * 4, [1.0] * 4, names) + one_way_by_loops(y, x, [0.3] * 4, [1.0] * 4, names)
    assert float(dcl(x, y, ids=named, temperature=0.3)) == pytest.approx(sum(same) / 8)


def test_dclw_weighs_by_the_softmax_over_the_batch() -> None:
    x, y = rows(4, 3), rows(4, 3, seed=1)
    shares = [math.exp(cosine(x[i], y[i]) / 0.4) for i in range(4)]
    omega = [2.0 - 4 * share / sum(shares) for share in shares]
    expected = one_way_by_loops(x, y, [0.3] * 4, omega, list(range(4)))
    got = dclw(x, y, temperature=0.3, sigma=0.4, symmetric=False, reduction="none")
    assert got.tolist() == pytest.approx(expected)


def test_keys_replace_both_views() -> None:
    x, y, keys = rows(2, 3), rows(2, 3, seed=1), rows(3, 3, seed=2)
    ids, key_ids = torch.tensor([0, 1]), torch.tensor([1, 1, 0])
    expected = [
        math.log(sum(math.exp(cosine(z[i], keys[j]) / 0.5) for j in range(3) if key_ids[j] != ids[i]))
        - cosine(x[i], y[i]) / 0.5
        for z in (x, y)
        for i in range(2)
    ]
    got = dcl(x, y, keys=keys, ids=ids, key_ids=key_ids, temperature=0.5, reduction="none")
    assert got.tolist() == pytest.approx(expected)


def test_adding_the_positive_to_the_denominator_gives_nt_xent() -> None:
    x, y = rows(5, 3), rows(5, 3, seed=1)
    positive = torch.nn.functional.cosine_similarity(x, y).repeat(2) / 0.3
    decoupled = dcl(x, y, temperature=0.3, reduction="none")
    coupled = torch.logaddexp(decoupled + positive, positive) - positive
    assert torch.allclose(coupled, nt_xent(x, y, temperature=0.3, reduction="none"), rtol=1e-12)


def test_gradients() -> None:
    upstream = rows(8, seed=2)

    def plain(x: Tensor, y: Tensor, tau: Tensor) -> Tensor:
        return (dcl(x, y, temperature=tau, reduction="none") * upstream).sum()

    def weighted(x: Tensor, y: Tensor) -> Tensor:
        return (dclw(x, y, temperature=0.4, detach_weight=False, reduction="none") * upstream).sum()

    x, y = rows(4, 3).requires_grad_(), rows(4, 3, seed=1).requires_grad_()
    tau = torch.tensor(0.5, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(plain, (x, y, tau))
    assert torch.autograd.gradcheck(weighted, (x, y))


def test_detached_weight_is_a_constant() -> None:
    x, y = rows(4, 3).requires_grad_(), rows(4, 3, seed=1)
    unit = torch.nn.functional.normalize
    omega = 2.0 - 4 * torch.softmax((unit(x) * unit(y)).sum(1) / 0.5, dim=0)
    (expected,) = torch.autograd.grad(dcl(x, y, positive_weight=omega.detach()), x)
    (got,) = torch.autograd.grad(dclw(x, y), x)
    (through,) = torch.autograd.grad(dclw(x, y, detach_weight=False), x)
    assert torch.allclose(got, expected, rtol=1e-10)
    assert not torch.allclose(through, expected, rtol=1e-3)


def test_without_negatives_the_loss_is_zero() -> None:
    for num, ids in ((0, None), (1, None), (3, torch.zeros(3, dtype=torch.int64))):
        x = rows(num, 2).requires_grad_()
        loss = dcl(x, x * 2, ids=ids)
        assert loss.item() == 0.0
        assert torch.equal(torch.autograd.grad(loss, x)[0], torch.zeros_like(x))


def test_the_loss_may_be_negative() -> None:
    x = torch.eye(4, dtype=torch.float64)
    assert float(dcl(x, x, temperature=0.1)) == pytest.approx(math.log(6) - 10)


def test_bad_arguments_are_named() -> None:
    x = torch.ones(2, 2)
    with pytest.raises(ValueError, match="same number of rows"):
        dcl(x, torch.ones(3, 2))
    with pytest.raises(ValueError, match="sigma must be a finite number above 0, got 0"):
        dclw(x, x, sigma=0)
    with pytest.raises(ValueError, match="key_ids without keys"):
        dcl(x, x, key_ids=torch.arange(2))
