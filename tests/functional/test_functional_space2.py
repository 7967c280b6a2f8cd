"""Soft-mask contrast over tree paths against sets and loops in float64."""

from __future__ import annotations

import importlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from graphcl.functional import (
    PathJaccard,
    Reduction,
    path_similarity,
    space2,
    sup_con,
    tree_paths,
    tree_soft_contrast,
)
from graphcl.kernels import pair_logsumexp

# The name of the module is also that of a function in it.
space2_module = importlib.import_module("graphcl.functional.space2")

# 0 and 7 are roots; 0 -> 1, 2; 1 -> 3, 4; 3 -> 5; 5 -> 6
PARENTS = torch.tensor([-1, 0, 0, 1, 1, 3, 5, -1])


def random_problem(rows: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(rows, 4, generator=generator, dtype=torch.float64)
    nodes = torch.randint(0, 8, (rows,), generator=generator)
    return z, nodes, tree_paths(PARENTS, nodes)


def runs(node: int, order: int) -> set[tuple[int, ...]]:
    path = [node]
    while int(PARENTS[path[0]]) >= 0:
        path.insert(0, int(PARENTS[path[0]]))
    return {tuple(path[i : i + order]) for i in range(len(path) - order + 1)}


def jaccard(a: int, b: int, order: int) -> float | None:
    first, second = runs(a, order), runs(b, order)
    return len(first & second) / len(first | second) if first | second else None


def slow_contrast(z: Tensor, nodes: Tensor, order: int, tau: float) -> list[Tensor | None]:
    unit = z / z.norm(dim=1, keepdim=True)
    logits = unit @ unit.T / tau
    losses: list[Tensor | None] = []
    for i in range(z.shape[0]):
        others = [j for j in range(z.shape[0]) if j != i]
        weight = {j: jaccard(int(nodes[i]), int(nodes[j]), order) or 0.0 for j in others}
        if sum(weight.values()) == 0:
            losses.append(None)
            continue
        total = torch.logsumexp(logits[i, others], dim=0)
        spread = torch.stack([weight[j] * (total - logits[i, j]) for j in others]).sum()
        losses.append(spread / sum(weight.values()))
    return losses


def test_paths_start_at_the_root() -> None:
    paths = tree_paths(PARENTS, torch.tensor([6, 7, 2]))
    assert paths.tolist() == [[0, 1, 3, 5, 6], [7, -1, -1, -1, -1], [0, 2, -1, -1, -1]]
    assert tree_paths(PARENTS, torch.zeros(0).long()).shape == (0, 0)
    with pytest.raises(ValueError, match="parents run in a circle"):
        tree_paths(torch.tensor([1, 0]), torch.tensor([0]))
    with pytest.raises(IndexError, match=r"parents must lie in -1 \.\. 1"):
        tree_paths(torch.tensor([-1, 2]), torch.tensor([0]))
    with pytest.raises(IndexError, match="nodes holds 8"):
        tree_paths(PARENTS, torch.tensor([8]))


def test_similarity_equals_sets_of_runs() -> None:
    nodes = torch.arange(8)
    got = path_similarity(tree_paths(PARENTS, nodes))
    for a in range(8):
        for b in range(8):
            found = [value for value in (jaccard(a, b, order) for order in (1, 2, 3, 4)) if value is not None]
            assert float(got[a, b]) == pytest.approx(sum(found) / len(found), abs=1e-6)


def test_rule_weighs_pairs_by_the_jaccard_index() -> None:
    paths = tree_paths(PARENTS, torch.arange(8))
    for order in (1, 2, 3):
        rule = PathJaccard(paths, paths, order)
        total = pair_logsumexp(torch.zeros(8, 2), torch.zeros(8, 2), rules=rule).logsumexp.exp()
        wanted = [sum(jaccard(a, b, order) or 0.0 for b in range(8)) for a in range(8)]
        torch.testing.assert_close(total, torch.tensor(wanted))


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 8), st.integers(1, 4), st.integers(0, 500))
def test_equals_loops(rows: int, order: int, seed: int) -> None:
    z, nodes, paths = random_problem(rows, seed)
    z.requires_grad_()
    got = tree_soft_contrast(z, paths, order=order, temperature=0.3, reduction="none")
    wanted = slow_contrast(z, nodes, order, 0.3)
    kept = [loss for loss in wanted if loss is not None]
    torch.testing.assert_close(
        got, torch.stack([z.new_zeros(()) if loss is None else loss for loss in wanted]).detach(), check_dtype=True
    )
    if kept:
        mean = tree_soft_contrast(z, paths, order=order, temperature=0.3)
        torch.testing.assert_close(mean, torch.stack(kept).mean())
        slow = torch.autograd.grad(torch.stack(kept).mean(), [z])[0]
        torch.testing.assert_close(torch.autograd.grad(mean, [z])[0], slow)


def test_flat_labels_are_supervised_contrast() -> None:
    z, _, _ = random_problem(9, 4)
    labels = torch.tensor([0, 0, 1, 1, 1, 2, 2, 0, 1])
    got = tree_soft_contrast(z, labels[:, None], temperature=0.2)
    torch.testing.assert_close(got, sup_con(z, labels, temperature=0.2))


def test_subspaces_are_averaged() -> None:
    z, _, paths = random_problem(7, 1)
    parts = [z[:, :2], z[:, 2:]]
    each = [tree_soft_contrast(part, paths, order=n) for part, n in zip(parts, (1, 2), strict=True)]
    torch.testing.assert_close(space2(parts, paths, orders=(1, 2)), (each[0] + each[1]) / 2)
    with pytest.raises(ValueError, match="subspaces must hold one projection an order, 4, got 2"):
        space2(parts, paths)


def test_keys_replace_the_batch_as_candidates() -> None:
    z, _, paths = random_problem(5)
    joined = torch.cat([z, z])
    doubled = tree_soft_contrast(z, paths, keys=joined, key_paths=paths.repeat(2, 1), reduction="none")
    single = tree_soft_contrast(z, paths, keys=z, key_paths=paths, reduction="none")
    torch.testing.assert_close(doubled, single + torch.log(torch.tensor(2.0)).double(), rtol=1e-6, atol=1e-7)
    with pytest.raises(ValueError, match="keys and key_paths go together"):
        tree_soft_contrast(z, paths, keys=z)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_gradients(reduction: Reduction) -> None:
    z, _, paths = random_problem(5, 2)
    weights = torch.randn(5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tau = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)

    def weighted(rows: Tensor, temperature: Tensor) -> Tensor:
        return (tree_soft_contrast(rows, paths, temperature=temperature, reduction=reduction) * weights).sum()

    assert torch.autograd.gradcheck(weighted, (z.requires_grad_(), tau))


def test_degenerate_batches() -> None:
    for rows in (0, 1):
        z = torch.ones(rows, 3, requires_grad=True)
        loss = tree_soft_contrast(z, torch.zeros(rows, 2).long())
        assert loss.item() == 0.0
        assert float(torch.autograd.grad(loss, [z])[0].abs().sum()) == 0.0
    unrelated = torch.randn(3, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = tree_soft_contrast(unrelated, torch.arange(3)[:, None])
    assert loss.item() == 0.0
    assert float(torch.autograd.grad(loss, [unrelated])[0].abs().max()) == 0.0
    zero = torch.zeros(4, 3, requires_grad=True)
    grad = torch.autograd.grad(tree_soft_contrast(zero, torch.zeros(4, 1).long()), [zero])[0]
    assert float(grad.abs().max()) == 0.0


def test_types_tiles_and_errors() -> None:
    z, _, paths = random_problem(20)
    value = tree_soft_contrast(z, paths)
    torch.testing.assert_close(tree_soft_contrast(z.float(), paths).double(), value, rtol=2e-5, atol=1e-5)
    assert torch.isfinite(tree_soft_contrast(z.float(), paths, temperature=1e-3))
    assert tree_soft_contrast(z.bfloat16(), paths).dtype == torch.float32
    torch.testing.assert_close(tree_soft_contrast(3.0 * z, paths, memory_budget=512), value, rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match=r"paths must have shape \(20, depth\)"):
        tree_soft_contrast(z, paths[:3])
    with pytest.raises(TypeError, match="paths must be an integer tensor"):
        tree_soft_contrast(z, paths.double())
    with pytest.raises(ValueError, match="order must be an integer of at least 1"):
        tree_soft_contrast(z, paths, order=0)
    with pytest.raises(ValueError, match="must have the same depth"):
        tree_soft_contrast(z, paths, keys=z, key_paths=paths[:, :1])


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("with_keys", [False, True])
def test_sums_below_the_nodes_of_a_tree_equal_sums_over_pairs(
    order: int, with_keys: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    z, _, paths = random_problem(30)
    keys, _, key_paths = random_problem(17, seed=1)
    key_paths = torch.nn.functional.pad(key_paths, (0, paths.shape[1] - key_paths.shape[1]), value=-1)
    further = (keys.requires_grad_(), key_paths) if with_keys else (None, None)
    leaves = [z.requires_grad_(), *([keys] if with_keys else [])]
    upstream = torch.randn(30, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    results = []
    for levels in (space2_module._tree_levels, lambda *_: None):
        monkeypatch.setattr(space2_module, "_tree_levels", levels)
        loss = tree_soft_contrast(
            z, paths, order=order, temperature=0.3, keys=further[0], key_paths=further[1], reduction="none"
        )
        results.append([loss.detach(), *torch.autograd.grad(loss @ upstream, leaves)])
    for fast, slow in zip(*results, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-6, atol=1e-7)  # the rule gives its weights in float32
    assert bool(results[0][0].any())


def test_nodes_with_two_parents_are_compared_pair_by_pair() -> None:
    paths = torch.tensor([[0, 2], [1, 2], [0, 3]])
    assert space2_module._tree_levels(paths, paths, 1) is None
    weight = path_similarity(paths, orders=(1,))
    z = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    logits = torch.nn.functional.normalize(z) @ torch.nn.functional.normalize(z).T
    expected = []
    for i in range(3):
        others = [j for j in range(3) if j != i]
        share = weight[i, others].double()
        expected.append(((torch.logsumexp(logits[i, others], 0) - logits[i, others]) * share).sum() / share.sum())
    got = tree_soft_contrast(z, paths, temperature=1.0, reduction="none")
    torch.testing.assert_close(got, torch.stack(expected))
