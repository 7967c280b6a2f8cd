"""GroCo against the full matrices of the sorting network in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from graphcl.functional import Reduction, groco


def random_views(num_views: int, rows: int, dim: int = 4, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, dim, generator=generator, dtype=torch.float64) for _ in range(num_views)]


def slow_anchor(negatives: list[Tensor], positives: list[Tensor], steepness: float) -> Tensor:
    """Cross-entropy of one anchor, carrying the whole doubly stochastic matrix through the layers."""
    values = sorted(negatives, key=Tensor.item) + sorted(positives, key=Tensor.item)
    size = len(values)
    matrix = torch.eye(size, dtype=torch.float64)
    for layer in range(size):
        step = torch.eye(size, dtype=torch.float64)
        for a in range(layer % 2, size - 1, 2):
            alpha = 0.5 + torch.atan(steepness * (values[a + 1] - values[a])) / math.pi
            step = step.clone()
            step[a, a] = step[a + 1, a + 1] = alpha
            step[a, a + 1] = step[a + 1, a] = 1 - alpha
        values = list(step @ torch.stack(values))
        matrix = step @ matrix
    top = matrix[-len(positives) :].sum(dim=0).clamp(0, 1)
    target = torch.tensor([0.0] * len(negatives) + [1.0] * len(positives), dtype=torch.float64)
    return torch.nn.functional.binary_cross_entropy(top, target)


def slow_groco(views: list[Tensor], k: int, steepness: float, stop: bool, ids: list[int]) -> Tensor:
    z = [view / view.norm(dim=1, keepdim=True) for view in views]
    fixed = [view.detach() if stop else view for view in z]
    losses = []
    for view in range(len(z)):
        for i in range(z[0].shape[0]):
            negatives = [z[view][i] @ fixed[view][j] for j in range(z[0].shape[0]) if ids[i] != ids[j]]
            negatives = sorted(negatives, key=Tensor.item)[-k:]
            positives = [z[view][i] @ fixed[other][i] for other in range(len(z)) if other != view]
            losses.append(slow_anchor(negatives, positives, steepness) if negatives else z[0].sum() * 0)
    return torch.stack(losses)


@pytest.mark.parametrize("stop", [True, False])
@settings(max_examples=8, deadline=None)
@given(num_views=st.integers(2, 4), rows=st.integers(2, 5), k=st.integers(1, 6), seed=st.integers(0, 500))
def test_equals_the_matrix_network(stop: bool, num_views: int, rows: int, k: int, seed: int) -> None:
    views = [view.requires_grad_() for view in random_views(num_views, rows, seed=seed)]
    got = groco(views, num_negatives=k, steepness=3.0, stop_gradient=stop, reduction="none")
    wanted = slow_groco(views, k, 3.0, stop, list(range(rows)))
    torch.testing.assert_close(got, wanted)
    upstream = torch.linspace(-1.0, 2.0, got.shape[0], dtype=torch.float64)
    slow = torch.autograd.grad((wanted * upstream).sum(), views)
    for fast, want in zip(torch.autograd.grad((got * upstream).sum(), views), slow, strict=True):
        torch.testing.assert_close(fast, want)


def test_ids_give_every_anchor_its_own_number_of_negatives() -> None:
    views = [view.requires_grad_() for view in random_views(3, 6)]
    ids = [0, 0, 0, 0, 1, 1]
    got = groco(views, num_negatives=3, steepness=2.0, ids=torch.tensor(ids), reduction="none")
    wanted = slow_groco(views, 3, 2.0, True, ids)
    torch.testing.assert_close(got, wanted)
    for fast, want in zip(torch.autograd.grad(got.sum(), views), torch.autograd.grad(wanted.sum(), views), strict=True):
        torch.testing.assert_close(fast, want)
    everyone = groco(views, ids=torch.zeros(6).long())
    assert everyone.item() == 0.0


def test_keys_replace_the_own_view_as_candidates() -> None:
    views = random_views(2, 4)
    keys = random_views(1, 5, seed=9)[0]
    got = groco(views, num_negatives=2, keys=keys, reduction="none")
    z, pool = [v / v.norm(dim=1, keepdim=True) for v in views], keys / keys.norm(dim=1, keepdim=True)
    wanted = [
        slow_anchor(sorted((pool @ z[v][i]).unbind(), key=Tensor.item)[-2:], [z[v][i] @ z[1 - v][i]], 1.0)
        for v in range(2)
        for i in range(4)
    ]
    torch.testing.assert_close(got, torch.stack(wanted))
    ids, key_ids = torch.arange(4), torch.tensor([0, 0, 7, 7, 7])
    excluded = groco(views, num_negatives=5, keys=keys, ids=ids, key_ids=key_ids, reduction="none")
    first = slow_anchor(list((pool[2:] @ z[0][0]).unbind()), [z[0][0] @ z[1][0]], 1.0)
    torch.testing.assert_close(excluded[0], first)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_gradients(reduction: Reduction) -> None:
    views = [view.requires_grad_() for view in random_views(2, 4, 3)]
    weights = torch.randn(8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def weighted(*inputs: Tensor) -> Tensor:
        loss = groco(list(inputs), num_negatives=2, stop_gradient=False, reduction=reduction)
        return (loss * weights).sum()

    assert torch.autograd.gradcheck(weighted, tuple(views))


def test_stop_gradient_keeps_positives_and_negatives_constant() -> None:
    views = random_views(2, 5)
    first = views[0].clone().requires_grad_()
    second = views[1]
    moved = torch.autograd.grad(groco([first, second], num_negatives=2, reduction="none")[5:].sum(), [first])[0]
    assert float(moved.abs().max()) == 0.0


def test_degenerate_batches() -> None:
    for rows in (0, 1):
        views = [torch.ones(rows, 3, requires_grad=True) for _ in range(2)]
        loss = groco(views)
        assert loss.item() == 0.0
        assert all(float(grad.abs().sum()) == 0.0 for grad in torch.autograd.grad(loss, views))
    same = [torch.ones(4, 3, requires_grad=True) for _ in range(2)]
    loss = groco(same, steepness=1e4)
    assert torch.isfinite(loss)
    assert all(torch.isfinite(grad).all() for grad in torch.autograd.grad(loss, same))
    zeros = [torch.zeros(4, 3, requires_grad=True) for _ in range(2)]
    assert all(float(grad.abs().max()) == 0.0 for grad in torch.autograd.grad(groco(zeros), zeros))
    assert groco(random_views(2, 3), keys=torch.zeros(0, 4, dtype=torch.float64)).item() == 0.0


def test_types_permutation_scale_and_tiles() -> None:
    views = random_views(3, 20)
    value = groco(views, num_negatives=4)
    torch.testing.assert_close(groco([v.float() for v in views], num_negatives=4).double(), value, rtol=2e-5, atol=1e-6)
    assert torch.isfinite(groco([v.bfloat16() for v in views]))
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(groco([2 * v[order] for v in views[::-1]], num_negatives=4), value)
    torch.testing.assert_close(groco(views, num_negatives=4, memory_budget=512), value, rtol=1e-12, atol=0)


def test_arguments_are_named() -> None:
    views = random_views(2, 4)
    with pytest.raises(ValueError, match="num_negatives must be an integer of at least 1, got 0"):
        groco(views, num_negatives=0)
    with pytest.raises(ValueError, match="steepness must be a finite number above 0"):
        groco(views, steepness=0.0)
    with pytest.raises(ValueError, match="ids and key_ids go together"):
        groco(views, keys=views[0], ids=torch.arange(4))
    with pytest.raises(ValueError, match=r"ids must have shape \(4,\)"):
        groco(views, ids=torch.arange(3))
