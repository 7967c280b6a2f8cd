from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from graphcl.functional import cacr, cacr_rbf, info_nce


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def views(count: int = 3, num: int = 4) -> list[Tensor]:
    return [rows(num, 3, seed=seed) for seed in range(count)]


def unit(x: Tensor) -> Tensor:
    return torch.nn.functional.normalize(x, dim=-1)


def expected_cost(costs: list[float], sharpness: float) -> float:
    weights = [math.exp(sharpness * cost) for cost in costs]
    return sum(w * c for w, c in zip(weights, costs, strict=True)) / sum(weights) if costs else 0.0


def cost(x: Tensor, y: Tensor) -> float:
    return float(((unit(x) - unit(y)) ** 2).sum())


def by_loops(z: list[Tensor], plus: float, minus: float, ids: list[int]) -> tuple[list[float], list[float]]:
    num, count = len(z[0]), len(z)
    attraction = [
        sum(expected_cost([cost(z[x][i], z[k][i]) for k in range(count) if k != x], plus) for x in range(count)) / count
        for i in range(num)
    ]
    pairs = [(x, y) for x in range(count) for y in range(x + 1, count)]
    repulsion = [
        -sum(expected_cost([cost(z[x][i], z[y][j]) for j in range(num) if ids[j] != ids[i]], -minus) for x, y in pairs)
        / len(pairs)
        for i in range(num)
    ]
    return attraction, repulsion


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("ids", [None, [5, 5, 1, 1]])
def test_equals_loops(detach: bool, ids: list[int] | None) -> None:
    z = views()
    z[1][2] = 0.0
    attraction, repulsion = by_loops(z, 1.3, 0.8, ids or list(range(4)))
    loss, parts = cacr(
        z,
        ids=None if ids is None else torch.tensor(ids),
        attraction_weight=2.0,
        repulsion_weight=0.5,
        positive_sharpness=1.3,
        negative_sharpness=0.8,
        detach_weights=detach,
        return_components=True,
        reduction="none",
    )
    assert parts["attraction"].tolist() == pytest.approx([2.0 * value for value in attraction])
    assert parts["repulsion"].tolist() == pytest.approx([0.5 * value for value in repulsion])
    assert torch.allclose(loss, parts["attraction"] + parts["repulsion"])


def test_keys_replace_the_other_views_as_negatives() -> None:
    z, keys = views(2, 3), rows(5, 3, seed=9)
    ids, key_ids = [0, 1, 2], [2, 0, 0, 7, 8]
    expected = [
        -sum(expected_cost([cost(view[i], keys[j]) for j in range(5) if key_ids[j] != ids[i]], -1.0) for view in z) / 2
        for i in range(3)
    ]
    _, parts = cacr(
        z, keys=keys, ids=torch.tensor(ids), key_ids=torch.tensor(key_ids), return_components=True, reduction="none"
    )
    assert parts["repulsion"].tolist() == pytest.approx(expected)


def test_gradient() -> None:
    upstream = rows(4, seed=8)

    def value(*z: Tensor) -> Tensor:
        loss = cacr(z, positive_sharpness=1.5, negative_sharpness=0.7, reduction="none")
        return (torch.as_tensor(loss) * upstream).sum()

    assert torch.autograd.gradcheck(value, tuple(view.requires_grad_() for view in views()))


def test_detached_weights_are_constants_of_differentiation() -> None:
    z = [view.requires_grad_() for view in views(2)]
    loss = torch.as_tensor(cacr(z, negative_sharpness=0.7, detach_weights=True))
    costs = ((unit(z[0])[:, None] - unit(z[1])[None]) ** 2).sum(dim=-1)
    logits = (-0.7 * costs.detach()).masked_fill(torch.eye(4, dtype=torch.bool), -torch.inf)
    dense = costs.diagonal().mean() - (torch.softmax(logits, dim=1) * costs).sum(dim=1).mean()
    assert loss.item() == pytest.approx(dense.item())
    for got, expected in zip(torch.autograd.grad(loss, z), torch.autograd.grad(dense, z), strict=True):
        assert torch.allclose(got, expected, rtol=1e-9, atol=1e-12)


def test_zero_positive_sharpness_weighs_positives_alike() -> None:
    z = views()
    _, parts = cacr(z, positive_sharpness=0.0, return_components=True)
    pairs = [cost(z[x][i], z[y][i]) for x in range(3) for y in range(3) if x != y for i in range(4)]
    assert parts["attraction"].item() == pytest.approx(sum(pairs) / len(pairs))


@pytest.mark.parametrize("detach", [False, True])
def test_without_negatives_only_attraction_is_left(detach: bool) -> None:
    z = [view.requires_grad_() for view in views(2, 1)]
    loss, parts = cacr(z, detach_weights=detach, return_components=True)
    assert parts["repulsion"].item() == 0.0
    assert loss.item() == pytest.approx(cost(z[0][0].detach(), z[1][0].detach()))
    assert all(bool(gradient.isfinite().all()) for gradient in torch.autograd.grad(loss, z))


def test_rbf_form_weighs_the_farthest_query_most() -> None:
    queries, key, keys = views(2), rows(4, 3, seed=5), rows(6, 3, seed=6)
    losses = [info_nce(query, key, keys=keys, temperature=0.5, reduction="none").tolist() for query in queries]
    expected = []
    for i in range(4):
        weights = [math.exp(cost(query[i], key[i]) / 0.5) for query in queries]
        expected.append(sum(w * loss[i] for w, loss in zip(weights, losses, strict=True)) / sum(weights))
    got = cacr_rbf(queries, key, keys, temperature=0.5, reduction="none")
    assert got.tolist() == pytest.approx(expected)


def test_bad_arguments_are_named() -> None:
    x = torch.ones(2, 2)
    with pytest.raises(ValueError, match="views must hold at least two matrices, got 1"):
        cacr([x])
    with pytest.raises(ValueError, match=r"views\[0\] and views\[1\] must have the same number of rows"):
        cacr([x, torch.ones(3, 2)])
    with pytest.raises(ValueError, match="negative_sharpness must be a finite number above 0"):
        cacr([x, x], negative_sharpness=0.0)
    with pytest.raises(ValueError, match="positive_sharpness must be at least 0, got -1"):
        cacr([x, x], positive_sharpness=-1.0)
    with pytest.raises(ValueError, match="queries must hold at least one matrix"):
        cacr_rbf([], x, x)
