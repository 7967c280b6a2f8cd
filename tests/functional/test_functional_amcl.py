from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from graphcl.functional import amcl, info_nce


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Difference(nn.Module):
    """Temperatures from the difference of two projections."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(rows(2, seed=2))

    def forward(self, anchors: Tensor, candidates: Tensor) -> Tensor:
        return 0.3 + torch.sigmoid((anchors @ self.weight)[:, None] - (candidates @ self.weight)[None, :])


class FirstInput(nn.Module):
    """Returns something of a wrong shape."""

    def forward(self, anchors: Tensor, candidates: Tensor) -> Tensor:
        return anchors


def by_loops(x: Tensor, y: Tensor, tau: Tensor, beta: float, ids: list[int]) -> list[tuple[float, float]]:
    losses = []
    for i in range(len(x)):
        used = [j for j in range(len(x)) if j == i or ids[j] != ids[i]]
        cosine = torch.nn.functional.cosine_similarity(x[i : i + 1], y)
        logits = {j: float(cosine[j] / tau[i, j]) for j in used}
        contrast = math.log(sum(math.exp(v) for v in logits.values())) - logits[i]
        energy = [x.shape[1] / 2 * math.log(float(tau[i, j])) + 1 / float(tau[i, j]) for j in used]
        losses.append((contrast, beta * sum(energy) / len(energy)))
    return losses


@pytest.mark.parametrize("ids", [None, [1, 1, 0, 2]])
@pytest.mark.parametrize("memory_budget", [1, 400, 2**26])
def test_equals_loops_for_any_block(ids: list[int] | None, memory_budget: int) -> None:
    first, second = [rows(4, 3, seed=s) for s in (0, 1)], [rows(4, 3, seed=s) for s in (2, 3)]
    temperatures = [0.2 + rows(4, 4, seed=s) ** 2 for s in (4, 5)]
    expected = [
        by_loops(x, y, tau, 0.3, ids or list(range(4))) for x, y, tau in zip(first, second, temperatures, strict=True)
    ]
    loss, parts = amcl(
        first,
        second,
        temperatures,
        ids=None if ids is None else torch.tensor(ids),
        regularization=0.3,
        return_components=True,
        reduction="none",
        memory_budget=memory_budget,
    )
    contrast = [sum(head[i][0] for head in expected) for i in range(4)]
    penalty = [sum(head[i][1] for head in expected) for i in range(4)]
    assert parts["info_nce"].tolist() == pytest.approx(contrast)
    assert parts["regularization"].tolist() == pytest.approx(penalty)
    assert loss.tolist() == pytest.approx([a + b for a, b in zip(contrast, penalty, strict=True)])


def test_constant_temperature_and_one_head_is_info_nce() -> None:
    x, y = rows(5, 3), rows(5, 3, seed=1)
    loss = amcl([x], [y], [torch.full((5, 5), 0.3, dtype=torch.float64)], regularization=0.0)
    assert torch.allclose(torch.as_tensor(loss), info_nce(x, y, temperature=0.3), rtol=1e-12)


@pytest.mark.parametrize("memory_budget", [1, 2**26])
def test_gradient_of_embeddings_and_temperatures(memory_budget: int) -> None:
    upstream = rows(3, seed=6)

    def value(x: Tensor, y: Tensor, given: Tensor) -> Tensor:
        loss = amcl([x, y], [y, x], [network, given], reduction="none", memory_budget=memory_budget)
        return (torch.as_tensor(loss) * upstream).sum()

    network = Difference()
    x, y = rows(3, 2).requires_grad_(), rows(3, 2, seed=1).requires_grad_()
    given = (0.4 + rows(3, 3, seed=2) ** 2).requires_grad_()
    assert torch.autograd.gradcheck(value, (x, y, given))
    (got,) = torch.autograd.grad(value(x, y, given), network.weight)
    for place in range(2):
        with torch.no_grad():
            step = 1e-6 * torch.eye(2, dtype=torch.float64)[place]
            network.weight.add_(step)
            above = value(x, y, given)
            network.weight.sub_(2 * step)
            below = value(x, y, given)
            network.weight.add_(step)
        assert got[place].item() == pytest.approx(((above - below) / 2e-6).item(), rel=1e-6)


def test_no_and_one_sample() -> None:
    for num in (0, 1):
        x = rows(num, 3).requires_grad_()
        loss, parts = amcl([x], [x], [torch.ones(num, num)], return_components=True)
        assert parts["info_nce"].item() == pytest.approx(0.0, abs=1e-12)
        assert loss.item() == pytest.approx(0.1 * num)


def test_bad_arguments_are_named() -> None:
    x = torch.ones(3, 2)
    with pytest.raises(ValueError, match="one entry a head, got 1, 1 and 0"):
        amcl([x], [x], [])
    with pytest.raises(ValueError, match=r"temperatures must have shape \(3, 3\), got shape \(3, 2\)"):
        amcl([x], [x], [torch.ones(3, 2)])
    with pytest.raises(ValueError, match=r"a temperature module must return shape \(3, 3\), got shape \(3, 2\)"):
        amcl([x], [x], [FirstInput()])
    with pytest.raises(TypeError, match="temperatures must be tensors or modules, got float"):
        amcl([x], [x], [0.5])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="memory_budget must be an integer of at least 1"):
        amcl([x], [x], [torch.ones(3, 3)], memory_budget=0)
