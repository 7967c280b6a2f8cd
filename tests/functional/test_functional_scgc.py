"""SCGC against loops over all pairs; sampled negatives against the exact sum."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from graphcl.functional import scgc
from graphcl.kernels import SparseMatrix, normalize_rows
from graphcl.losses import SCGC

NUM, DIM = 9, 4


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def graph_of(num: int = NUM, columns: int = NUM, *, empty: int | None = 2) -> SparseMatrix:
    dense = drawn(5, num, columns).relu()
    if empty is not None:
        dense[empty] = 0
    rows, at = dense.nonzero(as_tuple=True)
    return SparseMatrix.from_coo(rows, at, dense[rows, at], shape=(num, columns))


def slow(z: Tensor, graph: Tensor, temperature: float, floor: float, negatives: list[int], nodes: int) -> Tensor:
    unit = normalize_rows(z)

    def e(i: int, j: int) -> Tensor:
        return torch.exp(unit[i] @ unit[j] / temperature) if i != j else torch.ones((), dtype=z.dtype)

    losses = []
    for i in range(graph.shape[0]):
        upper = torch.stack([graph[i, j] * e(i, j) for j in range(graph.shape[1])]).sum()
        others = [j for j in negatives if j != i]
        lower = 1 + (nodes - 1) / max(len(others), 1) * sum(e(i, j) for j in others)
        losses.append(-torch.log(upper / lower + floor))
    return torch.stack(losses)


@pytest.mark.parametrize("floor", [1e-8, 0.1])
@pytest.mark.parametrize("form", ["full", "sampled", "batch", "sampled batch"])
@pytest.mark.parametrize("memory_budget", [2**26, 512])
def test_value_and_gradient_against_loops(form: str, floor: float, memory_budget: int) -> None:
    anchors = 5 if "batch" in form else NUM
    z, graph, upstream = drawn(0, NUM, DIM).requires_grad_(), graph_of(anchors), drawn(1, anchors)
    sample = [0, 3, 3, 8, 4] if "sampled" in form else None
    nodes = 20 if "batch" in form else NUM
    found = scgc(
        z,
        graph,
        negatives=None if sample is None else torch.tensor(sample),
        num_nodes=nodes,
        num_anchors=anchors,
        temperature=0.5,
        floor=floor,
        reduction="none",
        memory_budget=memory_budget,
    )
    expected = slow(z, graph.to_dense(), 0.5, floor, sample or list(range(anchors)), nodes)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad((found * upstream).sum(), z)[0], torch.autograd.grad((expected * upstream).sum(), z)[0]
    )


def test_gradcheck() -> None:
    graph, upstream = graph_of(), drawn(1, NUM)

    def loss(z: Tensor, values: Tensor) -> Tensor:
        return (scgc(z, graph.with_values(values), temperature=0.7, reduction="none") * upstream).sum()

    assert torch.autograd.gradcheck(loss, (drawn(0, NUM, DIM).requires_grad_(), graph.entry_values().requires_grad_()))


def test_listed_pairs_module_and_reductions() -> None:
    z, graph = drawn(0, NUM, DIM), graph_of(empty=None)
    edges = torch.stack([graph.pattern.rows, graph.columns])
    losses = scgc(z, edges, edge_weight=graph.entry_values(), reduction="none")
    torch.testing.assert_close(SCGC()(z, edges, graph.entry_values()), losses.mean())
    torch.testing.assert_close(SCGC(reduction="sum")(z, edges, graph.entry_values()), losses.sum())


def test_samples_estimate_the_sum_within_the_stated_error() -> None:
    z, graph = drawn(0, 400, 6), graph_of(400, 400)
    exact = scgc(z, graph, reduction="none", floor=0.0)
    generator = torch.Generator().manual_seed(0)
    errors = []
    for _ in range(50):
        sample = torch.randperm(400, generator=generator)[:64]
        errors.append(scgc(z, graph, negatives=sample, reduction="none", floor=0.0) - exact)
    spread = torch.stack(errors)[:, exact.isfinite() & (exact != 0)]
    assert float(spread.std(0).max()) < (math.e**2 - 1) / math.sqrt(4 * 64)
    assert abs(float(spread.mean())) < 0.02


def test_degenerate_inputs_are_finite() -> None:
    graph = SparseMatrix.from_coo(torch.tensor([0, 1]), torch.tensor([1, 0]), shape=(3, 3))
    for rows in (torch.zeros(3, 2), torch.ones(3, 2), torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])):
        for temperature in (1.0, 1e-3):
            z = rows.clone().requires_grad_()
            losses = scgc(z, graph, temperature=temperature, reduction="none")
            assert bool(losses.isfinite().all())
            assert bool(torch.autograd.grad(losses.sum(), z)[0].isfinite().all())
            assert losses[2].item() == pytest.approx(-math.log(1e-8))
    assert scgc(torch.zeros(0, 2), torch.zeros(2, 0, dtype=torch.int64)).item() == 0
    assert scgc(torch.ones(1, 2), torch.zeros(2, 1, dtype=torch.int64), floor=0.0).item() == 0
    # Without the floor a node without entries has no loss, and does not count.
    assert scgc(torch.ones(3, 2), graph, floor=0.0).item() == pytest.approx(math.log(1 + 2 * math.e) - 1)
    # Every negative is the anchor itself: only the node is left in the lower sum.
    alone = scgc(torch.ones(1, 2), torch.zeros(2, 1, dtype=torch.int64), negatives=torch.zeros(3, dtype=torch.int64))
    assert alone.item() == pytest.approx(0, abs=1e-7)


def test_refusals() -> None:
    z, graph = drawn(0, NUM, DIM), graph_of()
    with pytest.raises(ValueError, match="floor must be finite and at least 0, got -1"):
        scgc(z, graph, floor=-1.0)
    with pytest.raises(ValueError, match="num_nodes must be at least the number of anchors 9, got 3"):
        scgc(z, graph, num_nodes=3)
    with pytest.raises(IndexError, match=r"negatives holds 9, outside 0 \.\. 8"):
        scgc(z, graph, negatives=torch.tensor([9]))
    with pytest.raises(ValueError, match="temperature must be a finite number above 0, got 0"):
        scgc(z, graph, temperature=0.0)
