from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from graphcl.functional import bpr, nt_xent, synergistic_contrastive


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("floor", [0.0, 1e-5, 0.3])
def test_logistic_equals_loops(floor: float) -> None:
    positive, negative = rows(6), rows(6, 3, seed=1)
    expected = [
        [-math.log(floor + 1 / (1 + math.exp(-float(positive[b] - negative[b, k])))) for k in range(3)]
        for b in range(6)
    ]
    torch.testing.assert_close(
        bpr(positive, negative, floor=floor, reduction="none"), torch.tensor(expected, dtype=torch.float64)
    )


@pytest.mark.parametrize("apart", [-35.0, -25.0, 25.0])
def test_logistic_keeps_its_digits_far_from_zero(apart: float) -> None:
    positive = torch.tensor([apart], dtype=torch.float64, requires_grad=True)
    loss = bpr(positive, torch.zeros(1, dtype=torch.float64))
    (slope,) = torch.autograd.grad(loss, positive)
    assert loss.item() == pytest.approx(max(-apart, 0.0) + math.log1p(math.exp(-abs(apart))), rel=1e-15)
    assert (1 + slope if apart < 0 else -slope).item() == pytest.approx(math.exp(-abs(apart)), rel=1e-1)


def test_hinge_equals_loops() -> None:
    positive, negative = rows(6), rows(6, seed=1)
    expected = [max(0.0, 0.7 - float(positive[b]) + float(negative[b])) for b in range(6)]
    got = bpr(positive, negative, form="hinge", margin=0.7, reduction="sum")
    assert float(got) == pytest.approx(sum(expected))


@pytest.mark.parametrize("options", [{}, {"floor": 1e-5}, {"form": "hinge"}])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_bpr_gradients(options: dict[str, object], reduction: str) -> None:
    positive, negative = rows(4).requires_grad_(), rows(4, 2, seed=1).requires_grad_()
    weight, upstream = rows(4, seed=2).abs(), rows(4, 2, seed=3)

    def loss(p: Tensor, n: Tensor) -> Tensor:
        out = bpr(p, n, weight=weight, reduction=reduction, **options)  # type: ignore[arg-type]
        return (out * (upstream if out.dim() else 1.7)).sum()

    assert torch.autograd.gradcheck(loss, (positive, negative))


def test_far_scores_stay_finite() -> None:
    positive = torch.tensor([-1e4, 1e4], requires_grad=True)
    loss = bpr(positive, torch.zeros(2), reduction="none")
    assert loss.tolist() == [1e4, 0.0]
    assert torch.autograd.grad(loss.sum(), positive)[0].tolist() == [-1.0, 0.0]
    assert float(bpr(torch.tensor([-1e4]), torch.zeros(1), floor=1e-5)) == pytest.approx(-math.log(1e-5))


def test_no_pair_costs_nothing() -> None:
    assert float(bpr(torch.zeros(0), torch.zeros(0))) == 0.0


def test_bpr_refuses() -> None:
    with pytest.raises(ValueError, match="form must be 'logistic' or 'hinge', got 'max'"):
        bpr(rows(2), rows(2), form="max")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="floor must be at least 0, got -1"):
        bpr(rows(2), rows(2), floor=-1.0)
    with pytest.raises(ValueError, match=r"got shapes \(2,\) and \(3,\)"):
        bpr(rows(2), rows(3))


def synergistic_by_loops(z1: Tensor, z2: Tensor, tau: float) -> list[float]:
    def cosine(x: Tensor, y: Tensor) -> float:
        norms = float(x.norm()) * float(y.norm())
        return float(x @ y) / norms if norms else 0.0

    out = []
    for a in range(len(z1)):
        terms = [math.exp(cosine(z1[a], z2[b]) / tau) for b in range(len(z1))]
        terms += [math.exp(cosine(z1[a], z1[b]) / tau) for b in range(len(z1)) if b != a]
        out.append(-cosine(z1[a], z2[a]) / tau + math.log(sum(terms)))
    return out


def test_synergistic_equals_loops_also_with_zero_rows() -> None:
    z1, z2 = rows(7, 3), rows(7, 3, seed=1)
    z2[2] = 0
    expected = torch.tensor(synergistic_by_loops(z1, z2, 0.4), dtype=torch.float64)
    torch.testing.assert_close(synergistic_contrastive(z1, z2, temperature=0.4, reduction="none"), expected)
    torch.testing.assert_close(synergistic_contrastive(z1, z2, temperature=0.4), expected.mean())
    anchors = torch.tensor([5, 2, 5])
    got = synergistic_contrastive(z1, z2, anchors=anchors, temperature=0.4, reduction="none")
    torch.testing.assert_close(got, expected[anchors])


def test_synergistic_is_nt_xent_in_one_direction() -> None:
    z1, z2 = rows(9, 4), rows(9, 4, seed=1)
    torch.testing.assert_close(
        synergistic_contrastive(z1, z2, temperature=0.2), nt_xent(z1, z2, temperature=0.2, symmetric=False)
    )


@pytest.mark.parametrize("anchors", [None, torch.tensor([0, 3, 3])])
def test_synergistic_gradients(anchors: Tensor | None) -> None:
    z1, z2 = rows(5, 3).requires_grad_(), rows(5, 3, seed=1).requires_grad_()
    upstream = rows(5 if anchors is None else 3, seed=2)

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return (synergistic_contrastive(x, y, anchors=anchors, reduction="none") * upstream).sum()

    assert torch.autograd.gradcheck(loss, (z1, z2))


def test_every_set_of_anchors_together_gives_the_mean() -> None:
    """The estimate is unbiased: its mean over all single anchors is the loss, in value and gradient."""
    z1, z2 = rows(6, 3).requires_grad_(), rows(6, 3, seed=1)
    whole = torch.autograd.grad(synergistic_contrastive(z1, z2), z1)[0]
    single = [torch.autograd.grad(synergistic_contrastive(z1, z2, anchors=torch.tensor([a])), z1)[0] for a in range(6)]
    torch.testing.assert_close(torch.stack(single).mean(0), whole)


def test_one_node_and_no_anchor() -> None:
    assert float(synergistic_contrastive(rows(1, 3), rows(1, 3, seed=1))) == pytest.approx(0.0)
    assert float(synergistic_contrastive(rows(4, 3), rows(4, 3), anchors=torch.zeros(0, dtype=torch.int64))) == 0.0


def test_synergistic_refuses() -> None:
    with pytest.raises(ValueError, match="same number of rows"):
        synergistic_contrastive(rows(2, 3), rows(3, 3))
    with pytest.raises(IndexError, match=r"anchors holds 4, outside 0 \.\. 3"):
        synergistic_contrastive(rows(4, 3), rows(4, 3), anchors=torch.tensor([4]))
    with pytest.raises(ValueError, match="temperature"):
        synergistic_contrastive(rows(2, 3), rows(2, 3), temperature=0.0)
