"""Multi-similarity and its hierarchical form against loops in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from graphcl.functional import Reduction, hierarchical_multi_similarity, multi_similarity


def problem(rows: int, seed: int = 0, classes: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(rows, 4, generator=generator, dtype=torch.float64)
    return z, torch.randint(0, classes, (rows,), generator=generator)


def slow(
    z: Tensor, positive: list[list[int]], negative: list[list[int]], a: float, b: float, base: float
) -> list[float]:
    unit = z / z.norm(dim=1, keepdim=True)
    s = (unit @ unit.T).tolist()
    return [
        math.log(1 + sum(math.exp(-a * (s[i][j] - base)) for j in positive[i])) / a
        + math.log(1 + sum(math.exp(b * (s[i][j] - base)) for j in negative[i])) / b
        for i in range(len(s))
    ]


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 8), st.integers(0, 1000))
def test_equals_loops(rows: int, seed: int) -> None:
    z, labels = problem(rows, seed)
    y = labels.tolist()
    positive = [[j for j in range(rows) if j != i and y[i] == y[j]] for i in range(rows)]
    negative = [[j for j in range(rows) if y[i] != y[j]] for i in range(rows)]
    wanted = slow(z, positive, negative, 2.0, 10.0, 0.4)
    got = multi_similarity(z, labels, alpha=2.0, beta=10.0, base=0.4, reduction="none")
    torch.testing.assert_close(got, torch.tensor(wanted, dtype=torch.float64))
    assert float(multi_similarity(z, labels, alpha=2.0, beta=10.0, base=0.4)) == pytest.approx(sum(wanted) / rows)


def test_cuts_of_the_tree_equal_loops() -> None:
    z, labels = problem(8, classes=5)
    distance = torch.tensor([[0, 1, 2, 3, 3], [1, 0, 2, 3, 3], [2, 2, 0, 3, 3], [3, 3, 3, 0, 1], [3, 3, 3, 1, 0]])
    y = labels.tolist()
    total = [0.0] * 8
    for cut, base in enumerate((0.8, 0.5, 0.2)):
        near = [[j for j in range(8) if j != i and int(distance[y[i], y[j]]) <= cut] for i in range(8)]
        far = [[j for j in range(8) if int(distance[y[i], y[j]]) > cut] for i in range(8)]
        total = [t + v / 3 for t, v in zip(total, slow(z, near, far, 2.0, 50.0, base), strict=True)]
    got = hierarchical_multi_similarity(z, labels, distance, reduction="none")
    torch.testing.assert_close(got, torch.tensor(total, dtype=torch.float64))


def test_one_cut_is_the_base_loss() -> None:
    z, labels = problem(7)
    distance = 1 - torch.eye(3, dtype=torch.int64)
    one = hierarchical_multi_similarity(z, labels, distance, bases=[0.5])
    torch.testing.assert_close(one, multi_similarity(z, labels))
    assert float(hierarchical_multi_similarity(z, labels, torch.zeros(3, 3).long())) == 0.0


def test_keys_replace_the_batch_as_candidates() -> None:
    z, labels = problem(5)
    keys, key_labels = problem(6, seed=1)
    joined = torch.cat([z, keys])
    y, ky = labels.tolist(), key_labels.tolist()
    positive = [[5 + j for j in range(6) if y[i] == ky[j]] for i in range(5)] + [[]] * 6
    negative = [[5 + j for j in range(6) if y[i] != ky[j]] for i in range(5)] + [[]] * 6
    wanted = slow(joined, positive, negative, 2.0, 50.0, 0.5)[:5]
    got = multi_similarity(z, labels, keys=keys, key_labels=key_labels, reduction="none")
    torch.testing.assert_close(got, torch.tensor(wanted, dtype=torch.float64))
    distance = 1 - torch.eye(3, dtype=torch.int64)
    tree = hierarchical_multi_similarity(z, labels, distance, bases=[0.5], keys=keys, key_labels=key_labels)
    torch.testing.assert_close(tree, got.mean())


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_gradients(reduction: Reduction) -> None:
    z, labels = problem(5)
    weights = torch.randn(5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    distance = torch.tensor([[0, 1, 2], [1, 0, 2], [2, 2, 0]])

    def weighted(rows: Tensor) -> Tensor:
        flat = multi_similarity(rows, labels, beta=5.0, reduction=reduction)
        tree = hierarchical_multi_similarity(rows, labels, distance, beta=5.0, reduction=reduction)
        return ((flat + tree) * weights).sum()

    assert torch.autograd.gradcheck(weighted, (z.requires_grad_(),))


def test_degenerate_batches() -> None:
    for rows in (0, 1):
        z = torch.ones(rows, 3, requires_grad=True)
        loss = multi_similarity(z, torch.zeros(rows).long())
        assert loss.item() == 0.0
        assert float(torch.autograd.grad(loss, [z])[0].abs().sum()) == 0.0
    same = torch.ones(4, 3, requires_grad=True)
    for labels in (torch.zeros(4).long(), torch.arange(4)):
        loss = multi_similarity(same, labels, beta=1e4)
        assert torch.isfinite(loss)
        assert torch.isfinite(torch.autograd.grad(loss, [same])[0]).all()
    zero = torch.zeros(4, 3, requires_grad=True)
    grad = torch.autograd.grad(multi_similarity(zero, torch.tensor([0, 0, 1, 1])), [zero])[0]
    assert float(grad.abs().max()) == 0.0


def test_types_permutation_scale_and_tiles() -> None:
    z, labels = problem(20)
    value = multi_similarity(z, labels)
    torch.testing.assert_close(multi_similarity(z.float(), labels).double(), value, rtol=2e-5, atol=1e-6)
    assert multi_similarity(z.bfloat16(), labels).dtype == torch.float32
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(multi_similarity(4.0 * z[order], labels[order]), value)
    torch.testing.assert_close(multi_similarity(z, labels, memory_budget=512), value, rtol=1e-12, atol=0)


def test_arguments_are_named() -> None:
    z, labels = problem(4)
    with pytest.raises(ValueError, match="keys and key_labels go together"):
        multi_similarity(z, labels, keys=z)
    with pytest.raises(TypeError, match="labels must be an integer tensor"):
        multi_similarity(z, labels.double())
    with pytest.raises(ValueError, match="beta must be a finite number above 0"):
        multi_similarity(z, labels, beta=-1.0)
    with pytest.raises(ValueError, match="distances must be an integer matrix"):
        hierarchical_multi_similarity(z, labels, torch.zeros(3, 3))
    with pytest.raises(ValueError, match="bases must hold one number a cut, 1, got 2"):
        hierarchical_multi_similarity(z, labels, 1 - torch.eye(3).long(), bases=[0.1, 0.2])
