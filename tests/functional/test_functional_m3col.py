from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from graphcl.functional import draw_mixing, info_nce, m3col_mix, mix_batch, soft_clip


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def targets(permutation: Tensor, weights: Tensor) -> Tensor:
    here = torch.arange(len(permutation))
    target = torch.zeros(len(here), len(here), dtype=weights.dtype)
    target.index_put_((here, here), weights, accumulate=True)
    target.index_put_((here, permutation), 1 - weights, accumulate=True)
    return target


def test_mix_equals_dense_form_with_fixed_points() -> None:
    x, y = rows(5, 3).requires_grad_(), rows(5, 3, seed=1).requires_grad_()
    order = torch.tensor([2, 1, 0, 4, 3])
    weights = torch.tensor([0.2, 0.4, 1.0, 0.0, 0.7], dtype=torch.float64)
    target = targets(order, weights)
    logits = normalize(x) @ normalize(y).T / 0.2
    expected = torch.cat(
        [cross_entropy(logits, target, reduction="none"), cross_entropy(logits.T, target.T, reduction="none")]
    )
    got = m3col_mix(x, y, order, weights, temperature=0.2, reduction="none")
    torch.testing.assert_close(got, expected)
    upstream = rows(10, seed=3)
    ours, theirs = (torch.autograd.grad((upstream * value).sum(), (x, y)) for value in (got, expected))
    torch.testing.assert_close(ours, theirs)


def test_mix_without_mixing_is_symmetric_info_nce() -> None:
    x, y = rows(5, 3), rows(5, 3, seed=1)
    got = m3col_mix(x, y, torch.tensor([1, 2, 3, 4, 0]), torch.ones(5), temperature=0.2)
    torch.testing.assert_close(got, info_nce(x, y, temperature=0.2, symmetric=True))


def test_ids_leave_out_rows_like_either_target() -> None:
    x, y = rows(5, 3), rows(5, 3, seed=1)
    order, ids = torch.tensor([1, 2, 0, 3, 4]), torch.tensor([0, 1, 2, 0, 1])
    weights = torch.tensor([0.2, 0.4, 0.9, 0.3, 0.7], dtype=torch.float64)
    target = targets(order, weights)
    got = m3col_mix(x, y, order, weights, ids=ids, temperature=0.2, reduction="none")
    inverse = torch.argsort(order)
    for side, (logits, goal, partner) in enumerate(
        (
            (normalize(x) @ normalize(y).T / 0.2, target, order),
            (normalize(y) @ normalize(x).T / 0.2, target.T, inverse),
        )
    ):
        for i in range(5):
            mine = {i, int(partner[i])}
            names = {int(ids[t]) for t in mine}
            kept = torch.tensor([j in mine or int(ids[j]) not in names for j in range(5)])
            total = torch.logsumexp(logits[i].masked_fill(~kept, -torch.inf), dim=0)
            assert float(got[5 * side + i]) == pytest.approx(float((goal[i] * (total - logits[i])).sum()))


@pytest.mark.parametrize("detach", [False, True])
def test_soft_clip_equals_dense_form(detach: bool) -> None:
    x, y = rows(6, 3).requires_grad_(), rows(6, 3, seed=1).requires_grad_()
    one, two = normalize(x), normalize(y)
    teacher = two.detach() if detach else two
    target = torch.softmax(teacher @ teacher.T / 0.3, dim=1)
    logits = one @ two.T / 0.3
    expected = torch.cat(
        [cross_entropy(logits, target, reduction="none"), cross_entropy(logits.T, target, reduction="none")]
    )
    upstream = rows(12, seed=3)
    for budget in (1, 64 * 2**20):
        got = soft_clip(x, y, detach_targets=detach, temperature=0.3, reduction="none", memory_budget=budget)
        torch.testing.assert_close(got, expected)
        ours, theirs = (
            torch.autograd.grad((upstream * value).sum(), (x, y), retain_graph=True) for value in (got, expected)
        )
        torch.testing.assert_close(ours, theirs)


def test_gradients() -> None:
    x, y = rows(4, 3).requires_grad_(), rows(4, 3, seed=1).requires_grad_()
    tau = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    order, weights = torch.tensor([3, 1, 0, 2]), torch.tensor([0.2, 0.5, 1.0, 0.7], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda a, b, t: m3col_mix(a, b, order, weights, temperature=t), (x, y, tau))
    assert torch.autograd.gradcheck(lambda a, b, t: soft_clip(a, b, detach_targets=False, temperature=t), (x, y, tau))


def test_degenerate_cases() -> None:
    for num in (0, 1):
        x = rows(num, 3).requires_grad_()
        order, weights = torch.arange(num), torch.full((num,), 0.5, dtype=torch.float64)
        for loss in (m3col_mix(x, x, order, weights), soft_clip(x, x)):
            (gradient,) = torch.autograd.grad(loss, x)
            assert float(loss) == pytest.approx(0.0, abs=1e-12)
            assert float(gradient.abs().sum()) < 1e-12
    zero = torch.zeros(3, 2, dtype=torch.float64, requires_grad=True)
    loss = m3col_mix(zero, zero, torch.tensor([1, 2, 0]), torch.full((3,), 0.5), temperature=1e-3)
    (gradient,) = torch.autograd.grad(loss + soft_clip(zero, zero, temperature=1e-3), zero)
    assert bool(loss.isfinite())
    assert float(gradient.abs().sum()) == 0.0


def test_mixing_and_draws() -> None:
    x = rows(400, 2)
    order, weights = draw_mixing(x, generator=torch.Generator().manual_seed(0))
    assert sorted(order.tolist()) == list(range(400))
    assert 0.4 < float((weights == 1).double().mean()) < 0.65
    torch.testing.assert_close(mix_batch(x, order, weights)[7], weights[7] * x[7] + (1 - weights[7]) * x[order[7]])


def test_messages() -> None:
    x = rows(3, 2)
    with pytest.raises(ValueError, match="every row once"):
        m3col_mix(x, x, torch.tensor([0, 0, 1]), torch.ones(3))
    with pytest.raises(ValueError, match="temperature must be a number"):
        soft_clip(x, x, temperature=torch.ones(3))
    with pytest.raises(ValueError, match="probability must lie"):
        draw_mixing(x, probability=2.0)
