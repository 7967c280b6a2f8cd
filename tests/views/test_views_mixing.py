from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from graphcl.functional import HardMixtures, mochi, moco
from graphcl.views import Hallucinator, draw_hard_mixtures, hallucinate, mix_hard_negatives


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_mixed_rows_give_the_loss_that_mochi_computes_without_them() -> None:
    q, k, queue = rows(3, 4), rows(3, 4, seed=1), rows(6, 4, seed=2)
    drawn = draw_hard_mixtures(q, 4, 3, 2, generator=torch.Generator().manual_seed(0))
    mixed = mix_hard_negatives(q.requires_grad_(), queue, drawn, num_hard=4)
    assert mixed.rows.shape == (3, 5, 4)
    assert bool(mixed.valid.all())
    assert not mixed.rows.requires_grad
    torch.testing.assert_close(mixed.rows.norm(dim=2), torch.ones(3, 5, dtype=torch.float64))
    each = [
        moco(q[i : i + 1], k[i : i + 1], torch.cat([queue, mixed.rows[i]]), temperature=0.2, reduction="sum")
        for i in range(3)
    ]
    got = mochi(q, k, queue, num_hard=4, mixtures=drawn, reduction="none")
    torch.testing.assert_close(got, torch.stack(each))


def test_mixtures_lie_between_their_parents() -> None:
    queue = torch.eye(2, dtype=torch.float64)
    zero, one = torch.zeros(1, 1, dtype=torch.long), torch.ones(1, 1, dtype=torch.long)
    drawn = HardMixtures(zero, one, torch.full((1, 1), 0.25), one, torch.full((1, 1), 0.4))
    q = torch.tensor([[3.0, 1.0]], dtype=torch.float64)
    mixed = mix_hard_negatives(q, queue, drawn, num_hard=2).rows[0]
    torch.testing.assert_close(mixed[0], normalize(torch.tensor([0.25, 0.75], dtype=torch.float64), dim=0))
    torch.testing.assert_close(mixed[1], normalize(0.4 * normalize(q)[0] + 0.6 * queue[1], dim=0))


def test_queries_without_negatives() -> None:
    q = rows(2, 3)
    drawn = draw_hard_mixtures(q, 2, 2, 1, generator=torch.Generator().manual_seed(0))
    own = torch.tensor([0, 1])
    for queue, queue_ids in ((rows(0, 3), own[:0]), (rows(1, 3, seed=1), own[:1])):
        mixed = mix_hard_negatives(q, queue, drawn, num_hard=2, ids=own, queue_ids=queue_ids)
        assert not bool(mixed.valid[0].any())
        assert float(mixed.rows[0].abs().sum()) == 0.0


def test_hallucinator_makes_trainable_unit_rows() -> None:
    make = Hallucinator(4, 6, generator=torch.Generator().manual_seed(0)).double()
    again = Hallucinator(4, 6, generator=torch.Generator().manual_seed(0)).double()
    q, k = rows(5, 4), rows(5, 4, seed=1)
    made = make(q, k, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(made.norm(dim=1), torch.ones(5, dtype=torch.float64))
    torch.testing.assert_close(made, again(q, k, generator=torch.Generator().manual_seed(2)))
    torch.testing.assert_close(make(q, k, 0.5), normalize(make.network(hallucinate(normalize(q), normalize(k), 0.5))))
    torch.autograd.backward((made * rows(5, 4, seed=3)).sum())
    assert all(parameter.grad is not None for parameter in make.parameters())
    with pytest.raises(ValueError, match="dim and hidden"):
        Hallucinator(0)
