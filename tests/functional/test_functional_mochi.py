from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from graphcl.functional import HardMixtures, draw_hard_mixtures, hard_negatives, mochi, moco


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def by_loops(
    q: Tensor, k: Tensor, queue: Tensor, allowed: Tensor, num_hard: int, mixtures: HardMixtures, tau: float
) -> Tensor:
    q, k, queue = normalize(q), normalize(k).detach(), normalize(queue)
    losses = []
    for i in range(len(q)):
        usable = [j for j in range(len(queue)) if allowed[i, j]]
        hard = sorted(usable, key=lambda j: -float(q[i] @ queue[j]))[:num_hard]
        candidates = [k[i], *(queue[j] for j in usable)]
        if hard:
            for a, b, w in zip(mixtures.first[i], mixtures.second[i], mixtures.alpha[i], strict=True):
                one, two = queue[hard[int(a) % len(hard)]], queue[hard[int(b) % len(hard)]]
                candidates.append(normalize(w * one + (1 - w) * two, dim=0))
            for c, w in zip(mixtures.partner[i], mixtures.beta[i], strict=True):
                mixed = w * q[i].detach() + (1 - w) * queue[hard[int(c) % len(hard)]]
                candidates.append(normalize(mixed, dim=0))
        logits = torch.stack([q[i] @ v for v in candidates]) / tau
        losses.append(cross_entropy(logits[None], torch.zeros(1, dtype=torch.long)))
    return torch.stack(losses)


def test_equals_loops_in_value_and_gradient() -> None:
    q, k, queue = rows(4, 3).requires_grad_(), rows(4, 3, seed=1), rows(7, 3, seed=2)
    ids, queue_ids = torch.tensor([0, 1, 2, 3]), torch.tensor([0, 0, 1, 9, 9, 9, 0])
    drawn = draw_hard_mixtures(q, 5, 3, 2, generator=generator())
    allowed = ids[:, None] != queue_ids[None, :]
    weight = rows(4, seed=5)
    got = mochi(
        q,
        k,
        queue,
        num_hard=5,
        mixtures=drawn,
        ids=ids,
        queue_ids=queue_ids,
        temperature=0.2,
        reduction="none",
    )
    expected = by_loops(q, k, queue, allowed, 5, drawn, 0.2)
    torch.testing.assert_close(got, expected)
    ours, theirs = (torch.autograd.grad((weight * value).sum(), q)[0] for value in (got, expected))
    torch.testing.assert_close(ours, theirs)


def test_no_mixtures_is_momentum_contrast() -> None:
    q, k, queue = rows(4, 3), rows(4, 3, seed=1), rows(7, 3, seed=2)
    got = mochi(q, k, queue, num_hard=3, num_pair_mixtures=0, num_query_mixtures=0, temperature=0.3)
    torch.testing.assert_close(got, moco(q, k, queue, temperature=0.3))


def test_mixtures_make_it_harder_and_draws_repeat() -> None:
    q, k, queue = rows(4, 3), rows(4, 3, seed=1), rows(7, 3, seed=2)
    first, second = (mochi(q, k, queue, num_hard=3, generator=generator(7)) for _ in range(2))
    assert torch.equal(first, second)
    assert float(first) > float(moco(q, k, queue, temperature=0.2))


def test_hard_negatives_are_sorted_and_end_in_minus_one() -> None:
    queue = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    found = hard_negatives(
        torch.tensor([[1.0, 0.1]]), queue, 3, ids=torch.tensor([4]), queue_ids=torch.tensor([4, 0, 1])
    )
    assert found.tolist() == [[2, 1, -1]]


def test_degenerate_cases_are_finite() -> None:
    q = rows(3, 4).requires_grad_()
    for queue in (rows(0, 4), torch.zeros(2, 4, dtype=torch.float64), q.detach(), -q.detach()):
        loss = mochi(q, q.detach(), queue, num_hard=4, num_pair_mixtures=3, num_query_mixtures=3, temperature=1e-3)
        (gradient,) = torch.autograd.grad(loss, q)
        assert bool(loss.isfinite())
        assert bool(gradient.isfinite().all())
    assert float(mochi(rows(0, 4), rows(0, 4), rows(2, 4), num_hard=2)) == 0.0
    nothing_left = mochi(
        q, q, q.detach(), num_hard=2, ids=torch.zeros(3, dtype=torch.long), queue_ids=torch.zeros(3, dtype=torch.long)
    )
    assert float(nothing_left) == 0.0


def test_types_and_blocks_agree() -> None:
    q, k, queue = rows(6, 5), rows(6, 5, seed=1), rows(20, 5, seed=2)
    drawn = draw_hard_mixtures(q, 8, 4, 4, generator=generator())
    wide = mochi(q, k, queue, num_hard=8, mixtures=drawn)
    torch.testing.assert_close(
        mochi(q, k, queue, num_hard=8, mixtures=drawn, memory_budget=64), wide, rtol=1e-12, atol=0
    )
    narrow = mochi(q.float(), k.float(), queue.float(), num_hard=8, mixtures=drawn)
    torch.testing.assert_close(narrow.double(), wide, rtol=1e-5, atol=1e-5)


def test_messages() -> None:
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        draw_hard_mixtures(rows(2, 3), 2, -1, 0)
    with pytest.raises(ValueError, match="num_hard"):
        draw_hard_mixtures(rows(2, 3), 0, 1, 1)
    with pytest.raises(ValueError, match=r"ranks must have shape \(3, mixtures\)"):
        mochi(rows(3, 2), rows(3, 2), rows(4, 2), num_hard=2, mixtures=draw_hard_mixtures(rows(2, 2), 2, 1, 1))
