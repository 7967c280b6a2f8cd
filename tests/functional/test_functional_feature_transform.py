from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from graphcl.functional import extrapolate_positives, feature_transform, interpolate_negatives, moco


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("renormalize", [False, True])
def test_equals_dense_form(renormalize: bool) -> None:
    q, k, queue = rows(4, 3).requires_grad_(), rows(4, 3, seed=1), rows(5, 3, seed=2)
    harder = 1.0 + torch.rand(4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    mask = torch.rand(1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    order = torch.tensor([1, 0, 4, 3, 2])
    got = feature_transform(
        q,
        k,
        queue,
        positive_weight=harder,
        negative_weight=mask,
        permutation=order,
        renormalize=renormalize,
        temperature=0.2,
        reduction="none",
    )
    x, y, n = normalize(q), normalize(k), normalize(queue)
    one, two = harder[:, None] * x + (1 - harder[:, None]) * y, harder[:, None] * y + (1 - harder[:, None]) * x
    mixed = mask * n + (1 - mask) * n[order]
    if renormalize:
        one, two, mixed = normalize(one), normalize(two), normalize(mixed)
    logits = torch.cat([(one * two).sum(dim=1, keepdim=True), one @ mixed.T], dim=1) / 0.2
    expected = cross_entropy(logits, torch.zeros(4, dtype=torch.long), reduction="none")
    torch.testing.assert_close(got, expected)
    weight = rows(4, seed=5)
    ours, theirs = (torch.autograd.grad((weight * value).sum(), q)[0] for value in (got, expected))
    torch.testing.assert_close(ours, theirs)


def test_neutral_weights_are_momentum_contrast() -> None:
    q, k, queue = rows(4, 3), rows(4, 3, seed=1), rows(5, 3, seed=2)
    got = feature_transform(q, k, queue, positive_weight=1.0, negative_weight=1.0)
    torch.testing.assert_close(got, moco(q, k, queue, temperature=0.07))


def test_extrapolation_changes_the_score_as_stated() -> None:
    q, k = normalize(rows(6, 4)), normalize(rows(6, 4, seed=1))
    one, two = extrapolate_positives(q, k, 1.4)
    before = (q * k).sum(dim=1)
    slope = 2 * 1.4 * (1 - 1.4)
    torch.testing.assert_close((one * two).sum(dim=1), slope + (1 - slope) * before)
    drawn = extrapolate_positives(q, k, generator=torch.Generator().manual_seed(0))
    assert bool(((drawn[0] * drawn[1]).sum(dim=1) <= before + 1e-12).all())


def test_mixtures_of_the_own_sample_are_no_negatives() -> None:
    q, queue = rows(1, 3), rows(3, 3, seed=1)
    order = torch.tensor([1, 2, 0])
    got = feature_transform(
        q,
        q,
        queue,
        positive_weight=1.0,
        negative_weight=0.5,
        permutation=order,
        ids=torch.tensor([5]),
        queue_ids=torch.tensor([5, 6, 7]),
        temperature=1.0,
    )
    kept = 0.5 * normalize(queue)[1] + 0.5 * normalize(queue)[2]
    assert float(got) == pytest.approx(float(torch.log1p(torch.exp(normalize(q)[0] @ kept - 1.0))))


def test_degenerate_cases_and_messages() -> None:
    q = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    loss = feature_transform(q, rows(2, 3), rows(4, 3), positive_weight=1.5, negative_weight=0.5, temperature=1e-3)
    torch.autograd.backward(loss)
    assert bool(loss.isfinite())
    assert q.grad is not None
    assert float(q.grad.abs().sum()) == 0.0
    assert float(feature_transform(rows(0, 3), rows(0, 3), rows(4, 3))) == 0.0
    assert float(feature_transform(rows(2, 3), rows(2, 3), rows(0, 3))) == 0.0
    mixed = interpolate_negatives(rows(4, 3), generator=torch.Generator().manual_seed(0))
    assert mixed.shape == (4, 3)
    with pytest.raises(IndexError, match="permutation holds 4"):
        interpolate_negatives(rows(4, 3), torch.tensor([4, 0, 1, 2]))
    with pytest.raises(ValueError, match="Beta"):
        extrapolate_positives(rows(2, 3), rows(2, 3), concentration=0.0)
