from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from graphcl.functional import info_nce, moco
from graphcl.kernels import ExcludePairs


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def cosine(x: Tensor, y: Tensor) -> float:
    length = float(x.norm()) * float(y.norm())
    return float(x @ y) / length if length > 0 else 0.0


def by_loops(q: Tensor, k: Tensor, negatives: list[list[Tensor]], tau: float) -> list[float]:
    losses = []
    for i in range(len(q)):
        positive = cosine(q[i], k[i]) / tau
        others = [cosine(q[i], n) / tau for n in negatives[i]]
        losses.append(math.log(sum(math.exp(v) for v in [positive, *others])) - positive)
    return losses


def test_equals_loops_with_ids_groups_and_batch() -> None:
    q, k, queue = rows(4, 3), rows(4, 3, seed=1), rows(6, 3, seed=2)
    ids, queue_ids = torch.tensor([0, 1, 2, 1]), torch.tensor([1, 5, 0, 2, 7, 1])
    groups, queue_groups = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1, 1, 0])
    negatives = [
        [queue[j] for j in range(6) if queue_ids[j] != ids[i] and queue_groups[j] == groups[i]]
        + [k[j] for j in range(4) if ids[j] != ids[i] and groups[j] == groups[i]]
        for i in range(4)
    ]
    got = moco(
        q,
        k,
        queue,
        in_batch=True,
        ids=ids,
        queue_ids=queue_ids,
        groups=groups,
        queue_groups=queue_groups,
        temperature=0.3,
        reduction="none",
    )
    assert got.tolist() == pytest.approx(by_loops(q, k, negatives, 0.3))


def test_without_queue_in_batch_is_info_nce() -> None:
    q, k = rows(5, 3), rows(5, 3, seed=1)
    got = moco(q, k, rows(0, 3), in_batch=True, temperature=0.2)
    torch.testing.assert_close(got, info_nce(q, k, temperature=0.2))


def test_rules_apply_to_the_queue() -> None:
    q, k, queue = rows(2, 3), rows(2, 3, seed=1), rows(3, 3, seed=2)
    rule = ExcludePairs(torch.tensor([0, 2, 3]), torch.tensor([0, 2, 1]))
    negatives = [[queue[1]], [queue[0], queue[2]]]
    got = moco(q, k, queue, rules=rule, temperature=0.5, reduction="none")
    assert got.tolist() == pytest.approx(by_loops(q, k, negatives, 0.5))


def test_gradient_and_constants() -> None:
    q, k, queue = rows(3, 4).requires_grad_(), rows(3, 4, seed=1).requires_grad_(), rows(5, 4, seed=2)
    weight = rows(3, seed=3)
    assert torch.autograd.gradcheck(
        lambda a, b: (
            weight * moco(a, b, queue, in_batch=True, detach_keys=False, temperature=0.4, reduction="none")
        ).sum(),
        (q, k),
    )
    torch.autograd.backward(moco(q, k, queue, in_batch=True))
    assert k.grad is None
    assert q.grad is not None


def test_degenerate_cases() -> None:
    empty = rows(0, 3).requires_grad_()
    loss = moco(empty, rows(0, 3), rows(4, 3))
    torch.autograd.backward(loss)
    assert float(loss.detach()) == 0.0
    assert empty.grad is not None
    q = rows(2, 3).requires_grad_()
    alone = moco(q, q, rows(0, 3))
    torch.autograd.backward(alone)
    assert float(alone.detach()) == 0.0
    assert q.grad is not None
    assert float(q.grad.abs().sum()) == 0.0
    same = torch.ones(3, 2, dtype=torch.float64, requires_grad=True)
    cold = moco(same, same, torch.ones(2, 2, dtype=torch.float64), temperature=1e-3)
    assert float(cold) == pytest.approx(math.log(3.0))
    zero = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    torch.autograd.backward(moco(zero, rows(2, 3), rows(4, 3), temperature=1e-3))
    assert zero.grad is not None
    assert float(zero.grad.abs().sum()) == 0.0


def test_types_and_blocks_agree() -> None:
    q, k, queue = rows(9, 5), rows(9, 5, seed=1), rows(30, 5, seed=2)
    wide = moco(q, k, queue)
    torch.testing.assert_close(moco(q, k, queue, memory_budget=64), wide, rtol=1e-12, atol=0.0)
    torch.testing.assert_close(moco(q.float(), k.float(), queue.float()).double(), wide, rtol=1e-5, atol=1e-6)
    half = moco(q.bfloat16(), k.bfloat16(), queue.bfloat16())
    torch.testing.assert_close(half.double(), wide, rtol=5e-2, atol=5e-2)


def test_messages() -> None:
    q = rows(2, 3)
    with pytest.raises(ValueError, match="only groups"):
        moco(q, q, q, groups=torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="only ids"):
        moco(q, q, q, ids=torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="number of features"):
        moco(q, q, rows(2, 4))
