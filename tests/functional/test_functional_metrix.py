from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from graphcl.functional import (
    draw_mixed_pairs,
    metrix_contrastive,
    metrix_multi_similarity,
    mix_rows,
    multi_similarity,
)


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("average", ["all", "nonzero"])
def test_contrastive_equals_loops(average: Literal["all", "nonzero"]) -> None:
    a, p, n = (rows(6, 4, seed=seed) for seed in range(3))
    mixed = mix_rows(p, n, 0.3)
    pulls, pushes = [], []
    for i in range(6):
        v = normalize(0.3 * normalize(p[i], dim=0) + 0.7 * normalize(n[i], dim=0), dim=0)
        distance = float((normalize(a[i], dim=0) - v).norm())
        pulls.append(distance)
        pushes.append(max(1.2 - distance, 0.0))
    divide = [len([v for v in part if average == "all" or v > 0]) for part in (pulls, pushes)]
    loss, parts = metrix_contrastive(a, mixed, 0.3, margin=1.2, average=average, return_components=True)
    assert float(parts["pull"]) == pytest.approx(0.3 * sum(pulls) / max(divide[0], 1))
    assert float(parts["push"]) == pytest.approx(0.7 * sum(pushes) / max(divide[1], 1))
    torch.testing.assert_close(loss, parts["pull"] + parts["push"])


def test_multi_similarity_equals_loops() -> None:
    a, v = rows(3, 4), rows(5, 4, seed=1)
    target, owner = torch.tensor([1.0, 0.3, 0.0, 0.6, 0.5], dtype=torch.float64), torch.tensor([0, 0, 2, 2, 2])
    expected = [0.0] * 3
    for i in range(3):
        s = [float(normalize(a[i], dim=0) @ normalize(v[e], dim=0)) for e in range(5)]
        mine = [e for e in range(5) if owner[e] == i]
        pull = sum(float(target[e]) * math.exp(-2.0 * (s[e] - 0.5)) for e in mine)
        push = sum(float(1 - target[e]) * math.exp(10.0 * (s[e] - 0.5)) for e in mine)
        expected[i] = math.log(1 + pull) / 2.0 + math.log(1 + push) / 10.0
    got = metrix_multi_similarity(a, v, target, owner, beta=10.0, reduction="none")
    assert got.tolist() == pytest.approx(expected)
    assert float(metrix_multi_similarity(a, v, target, owner, beta=10.0)) == pytest.approx(sum(expected) / 2)


def test_pure_targets_are_multi_similarity() -> None:
    z, labels = rows(5, 3), torch.tensor([0, 0, 1, 1, 2])
    anchor, other = (~torch.eye(5, dtype=torch.bool)).nonzero(as_tuple=True)
    target = (labels[anchor] == labels[other]).double()
    got = metrix_multi_similarity(z, z[other], target, anchor)
    torch.testing.assert_close(got, multi_similarity(z, labels))


def test_gradients() -> None:
    a, p, n = (rows(4, 3, seed=seed).requires_grad_() for seed in range(3))
    target, weight = torch.rand(4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), rows(4, seed=7)

    def contrastive(a: Tensor, p: Tensor, n: Tensor) -> Tensor:
        loss = metrix_contrastive(a, mix_rows(p, n, target), target, margin=2.5, reduction="none")
        assert isinstance(loss, Tensor)
        return (weight * loss).sum()

    def soft(a: Tensor, p: Tensor, n: Tensor) -> Tensor:
        owner = torch.tensor([0, 0, 1, 3])
        loss = metrix_multi_similarity(a, mix_rows(p, n, target), target, owner, beta=5.0, reduction="none")
        return (weight * loss).sum()

    assert torch.autograd.gradcheck(contrastive, (a, p, n))
    assert torch.autograd.gradcheck(soft, (a, p, n))


def test_drawn_pairs_respect_labels() -> None:
    labels = torch.tensor([3, 1, 3, 2, 3, 1])
    generator = torch.Generator().manual_seed(0)
    pairs = draw_mixed_pairs(labels, "positive_negative", num_per_anchor=50, generator=generator)
    assert torch.unique(pairs.anchor).tolist() == [0, 1, 2, 4, 5]
    assert bool((labels[pairs.first] == labels[pairs.anchor]).all())
    assert bool((pairs.first != pairs.anchor).all())
    assert bool((labels[pairs.second] != labels[pairs.anchor]).all())
    assert {(int(a), int(f)) for a, f in zip(pairs.anchor, pairs.first, strict=True)} == {
        (a, f) for a in range(6) for f in range(6) if a != f and labels[a] == labels[f]
    }
    assert {(int(a), int(s)) for a, s in zip(pairs.anchor, pairs.second, strict=True)} == {
        (a, s) for a in (0, 1, 2, 4, 5) for s in range(6) if labels[a] != labels[s]
    }
    alone = draw_mixed_pairs(labels, "anchor_negative", generator=generator)
    assert alone.anchor.tolist() == alone.first.tolist() == [3]
    every = draw_mixed_pairs(labels, "anchor_negative", only_without_positives=False, generator=generator)
    assert every.anchor.tolist() == list(range(6))
    assert draw_mixed_pairs(torch.zeros(4, dtype=torch.long), "positive_negative").anchor.numel() == 0
    assert draw_mixed_pairs(torch.zeros(0, dtype=torch.long), "anchor_negative").anchor.numel() == 0


def test_degenerate_cases_and_messages() -> None:
    empty = rows(0, 3).requires_grad_()
    loss = metrix_contrastive(empty, rows(0, 3), 0.5)
    assert isinstance(loss, Tensor)
    assert float(loss) == 0.0
    zero = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    total = metrix_contrastive(zero, mix_rows(zero, zero, 0.5), 0.5)
    assert isinstance(total, Tensor)
    torch.autograd.backward(total)
    assert zero.grad is not None
    assert float(zero.grad.abs().sum()) == 0.0
    none = metrix_multi_similarity(rows(3, 2), rows(0, 2), 1.0, torch.zeros(0, dtype=torch.long))
    assert float(none) == 0.0
    with pytest.raises(ValueError, match="average must be"):
        metrix_contrastive(rows(2, 3), rows(2, 3), 0.5, average="most")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="mode must be"):
        draw_mixed_pairs(torch.tensor([0]), "both")  # type: ignore[arg-type]
    with pytest.raises(IndexError, match="rows holds 3"):
        metrix_multi_similarity(rows(3, 2), rows(1, 2), 1.0, torch.tensor([3]))
