from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from graphcl.functional import alignment, cua, info_nce, tolerance, uniformity


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def unit(x: Tensor) -> Tensor:
    return torch.nn.functional.normalize(x)


def uniformity_by_loops(x: Tensor, y: Tensor, ids: list[int], t: float) -> float:
    pairs = [(i, j) for i in range(len(x)) for j in range(len(y)) if ids[i] != ids[j]]
    mean = sum(math.exp(-t * float(((unit(x)[i] - unit(y)[j]) ** 2).sum())) for i, j in pairs) / len(pairs)
    return math.log(mean)


@pytest.mark.parametrize("ids", [None, [1, 1, 2, 3, 1]])
@pytest.mark.parametrize("across", [False, True])
def test_uniformity_equals_loops(ids: list[int] | None, across: bool) -> None:
    x, y = rows(5, 3), rows(5, 3, seed=1)
    x[2] = 0.0
    other = y if across else x
    expected = uniformity_by_loops(x, other, ids or list(range(5)), 1.5)
    named = None if ids is None else torch.tensor(ids)
    got = uniformity(x, other=y if across else None, ids=named, t=1.5)
    assert float(got) == pytest.approx(expected)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 3.0])
def test_alignment_equals_loops_with_zero_gradient_at_equal_rows(alpha: float) -> None:
    x = rows(3, 4).requires_grad_()
    y = rows(3, 4, seed=1)
    y[1] = x.detach()[1]
    got = alignment(x, y, alpha=alpha, reduction="none")
    expected = (unit(x.detach()) - unit(y)).norm(dim=1) ** alpha
    assert torch.allclose(got, expected, atol=1e-12)
    (gradient,) = torch.autograd.grad(got.sum(), x)
    assert torch.equal(gradient[1], torch.zeros(4, dtype=torch.float64))
    assert bool(gradient.isfinite().all())


def test_cua_is_the_sum_of_its_parts() -> None:
    x, y = rows(5, 3), rows(5, 3, seed=1)
    names = list(range(5))
    expected = {
        "info_nce": float(info_nce(x, y, temperature=0.2, symmetric=True)),
        "uniformity": 0.5 * (uniformity_by_loops(x, x, names, 2.0) + uniformity_by_loops(y, y, names, 2.0)),
        "alignment": float(((unit(x) - unit(y)) ** 2).sum(dim=1).mean()),
        "cross_uniformity": uniformity_by_loops(x, y, names, 2.0),
    }
    loss, parts = cua(
        x,
        y,
        temperature=0.2,
        uniformity_weight=0.5,
        alignment_weight=2.0,
        cross_uniformity_weight=3.0,
        return_components=True,
    )
    assert {name: float(value) for name, value in parts.items()} == pytest.approx(expected)
    weights = {"info_nce": 1.0, "uniformity": 0.5, "alignment": 2.0, "cross_uniformity": 3.0}
    assert float(loss) == pytest.approx(sum(weights[name] * value for name, value in expected.items()))


def test_gradients() -> None:
    ids = torch.tensor([0, 1, 1, 2])

    def gap(x: Tensor, y: Tensor) -> Tensor:
        return cua(x, y, ids=ids, temperature=0.5, cross_uniformity_weight=1.0, return_components=True)[0]

    inputs = rows(4, 3).requires_grad_(), rows(4, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(gap, inputs)
    assert torch.autograd.gradcheck(lambda z: uniformity(z, ids=ids), inputs[:1])


def test_uniformity_without_a_pair_is_zero() -> None:
    for num, ids in ((0, None), (1, None), (3, torch.zeros(3, dtype=torch.int64))):
        x = rows(num, 2).requires_grad_()
        loss = uniformity(x, ids=ids)
        assert loss.item() == 0.0
        assert torch.equal(torch.autograd.grad(loss, x)[0], torch.zeros_like(x))


def test_uniformity_of_duplicates_is_zero_and_of_a_zero_row_is_its_distance() -> None:
    x = rows(1, 3).expand(4, 3)
    assert float(uniformity(x)) == pytest.approx(0.0, abs=1e-12)
    pair = torch.stack([torch.zeros(3, dtype=torch.float64), rows(3)])
    assert float(uniformity(pair, t=2.0)) == pytest.approx(-2.0)


def test_tolerance_equals_loops() -> None:
    z, labels = rows(6, 3), [0, 1, 0, 0, 2, 1]
    pairs = [(i, j) for i in range(6) for j in range(6) if i != j and labels[i] == labels[j]]
    total = sum(float(unit(z)[i] @ unit(z)[j]) for i, j in pairs)
    got = tolerance(z, torch.tensor(labels))
    assert float(got.same_pairs) == pytest.approx(total / len(pairs))
    assert float(got.all_pairs) == pytest.approx(total / 30)
    assert float(tolerance(z[:1], torch.tensor([0])).all_pairs) == 0.0


def test_bad_arguments_are_named() -> None:
    x = torch.ones(2, 2)
    with pytest.raises(ValueError, match="t must be a finite number above 0, got 0"):
        uniformity(x, t=0)
    with pytest.raises(ValueError, match="alpha must be a finite number above 0, got -1"):
        alignment(x, x, alpha=-1)
    with pytest.raises(ValueError, match="z and other must have the same number of rows, got 2 and 3"):
        uniformity(x, other=torch.ones(3, 2))
    with pytest.raises(ValueError, match=r"labels must have shape \(2,\)"):
        tolerance(x, torch.arange(3))
