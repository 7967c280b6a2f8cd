"""Diffusion against its series, and the sparse approximation against its stated error."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import get_args

import pytest
import torch
from torch import Tensor
from torch_geometric.transforms import GDC

from graphcl.graphs.diffusion import DiffusionNormalization, heat_diffusion, ppr_diffusion, ppr_topk
from graphcl.kernels import SparseMatrix

NORMALIZATIONS: tuple[DiffusionNormalization, ...] = get_args(DiffusionNormalization)


def graph(nodes: int = 30, edges: int = 60, *, weighted: bool = False, isolated: int = 2) -> SparseMatrix:
    """Random undirected graph without self loops; the last nodes are isolated."""
    generator = torch.Generator().manual_seed(0)
    pairs = torch.randint(nodes - isolated, (2, edges), generator=generator)
    pairs = pairs[:, pairs[0] != pairs[1]]
    values = torch.rand(pairs.shape[1], generator=generator, dtype=torch.float64) + 0.5 if weighted else None
    both = torch.cat([pairs, pairs.flip(0)], dim=1)
    matrix = SparseMatrix.from_coo(
        both[0], both[1], None if values is None else values.repeat(2), shape=(nodes, nodes), duplicates="max"
    )
    return matrix.with_values(matrix.entry_values().to(torch.float64))


def transition(adjacency: SparseMatrix, self_loops: float, normalization: str) -> Tensor:
    dense = adjacency.to_dense() + self_loops * torch.eye(adjacency.shape[0], dtype=torch.float64)
    degree = dense.sum(1)
    power = -1.0 if normalization == "row" else -0.5
    scale = torch.tensor([0.0 if value == 0 else value**power for value in degree.tolist()], dtype=torch.float64)
    return scale[:, None] * dense if normalization == "row" else scale[:, None] * dense * scale[None, :]


def series(step: Tensor, weight: Callable[[int], float], terms: int) -> Tensor:
    total, power = torch.zeros_like(step), torch.eye(step.shape[0], dtype=step.dtype)
    for number in range(terms):
        total = total + weight(number) * power
        power = power @ step
    return total


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("self_loops", [0.0, 1.0])
def test_exact_diffusions_are_their_series(normalization: DiffusionNormalization, self_loops: float) -> None:
    adjacency = graph(weighted=True)
    step = transition(adjacency, self_loops, normalization)
    pagerank = ppr_diffusion(adjacency, 0.3, self_loops=self_loops, normalization=normalization)
    torch.testing.assert_close(pagerank, series(step, lambda number: 0.3 * 0.7**number, 120))
    heat = heat_diffusion(adjacency, 2.0, self_loops=self_loops, normalization=normalization)
    torch.testing.assert_close(heat, series(step, lambda number: math.exp(-2) * 2**number / math.factorial(number), 40))


def test_equals_the_public_transform() -> None:
    adjacency = graph(isolated=0)
    edge_index, _ = adjacency.to_edge_index()
    public = GDC().diffusion_matrix_exact(*gdc_normalized(edge_index), num_nodes=30, method="ppr", alpha=0.2)
    torch.testing.assert_close(ppr_diffusion(adjacency).float(), public)


def gdc_normalized(edge_index: Tensor) -> tuple[Tensor, Tensor]:
    loops = torch.arange(30).repeat(2, 1)
    with_loops = torch.cat([edge_index, loops], dim=1)
    index, weight = GDC().transition_matrix(with_loops, torch.ones(with_loops.shape[1]), 30, "sym")
    return index, weight


def test_rows_of_a_row_diffusion_sum_to_one_and_an_isolated_node_keeps_alpha() -> None:
    adjacency = graph()
    torch.testing.assert_close(ppr_diffusion(adjacency, normalization="row").sum(1), torch.ones(30).double())
    bare = ppr_diffusion(adjacency, 0.3, self_loops=0.0)
    assert bare[29, 29] == pytest.approx(0.3)
    assert float(bare[29, :29].abs().sum()) == 0
    torch.testing.assert_close(ppr_diffusion(adjacency, 1.0), torch.eye(30).double())
    assert heat_diffusion(adjacency, 0.0).diag().tolist() == [1.0] * 30


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("self_loops", [0.0, 1.0])
@pytest.mark.parametrize("tolerance", [1e-2, 1e-4])
def test_push_keeps_its_error_bound(normalization: DiffusionNormalization, self_loops: float, tolerance: float) -> None:
    adjacency = graph(weighted=True)
    exact = ppr_diffusion(adjacency, 0.2, self_loops=self_loops, normalization=normalization)
    found = ppr_topk(
        adjacency, 30, 0.2, tolerance=tolerance, self_loops=self_loops, normalization=normalization
    ).to_dense()
    degree = adjacency.row_sums() + self_loops
    bound = degree[None, :].expand(30, 30) if normalization == "row" else (degree[:, None] * degree[None, :]).sqrt()
    error = exact - found
    assert float(error.min()) >= -1e-12
    assert bool((error <= tolerance * bound + 1e-12).all())
    if tolerance < 1e-3:
        assert float(found.sum()) > 0.95 * float(exact.sum())


def test_the_k_largest_entries_are_kept() -> None:
    adjacency = graph()
    exact, k = ppr_diffusion(adjacency), 5
    found = ppr_topk(adjacency, k, tolerance=1e-9)
    assert int(found.row_offsets.diff().max()) <= k
    want = torch.zeros_like(exact)
    for row in range(30):
        best = sorted(range(30), key=lambda column: (-round(float(exact[row, column]), 7), column))
        for column in best[:k]:
            if exact[row, column] > 1e-9:
                want[row, column] = exact[row, column]
    torch.testing.assert_close(found.to_dense(), want, atol=1e-6, rtol=1e-5)
    assert torch.equal(found.coalesce().columns, found.columns)
    sums = ppr_topk(adjacency, k, renormalize=True).row_sums()
    torch.testing.assert_close(sums, torch.ones(30).double())


def test_the_memory_budget_changes_nothing_but_the_blocks() -> None:
    adjacency = graph()
    whole, narrow = ppr_topk(adjacency, 4), ppr_topk(adjacency, 4, memory_budget=1)
    assert torch.equal(whole.columns, narrow.columns)
    torch.testing.assert_close(whole.values, narrow.values)


def test_float32_in_float32_out_and_gradient_of_the_exact_form() -> None:
    adjacency = graph()
    assert ppr_diffusion(adjacency.with_values(None)).dtype == torch.float32
    small = graph(5, 6, weighted=True, isolated=1)
    upstream = torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    values = small.entry_values().clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda entries: (ppr_diffusion(small.with_values(entries)) * upstream).sum(), (values,)
    )


def test_empty_graph() -> None:
    nothing = SparseMatrix(torch.zeros(1, dtype=torch.long), torch.zeros(0, dtype=torch.long), None, (0, 0))
    assert ppr_diffusion(nothing).shape == (0, 0)
    assert ppr_topk(nothing, 3).shape == (0, 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ppr_diffusion(graph(), 0.0), r"alpha must be in \(0, 1\], got 0.0"),
        (lambda: ppr_topk(graph(), 3, 1.5), r"alpha must be in \(0, 1\], got 1.5"),
        (lambda: ppr_diffusion(graph(), max_nodes=29), "adjacency has 30 nodes, more than max_nodes=29"),
        (lambda: heat_diffusion(graph(), max_nodes=29), "adjacency has 30 nodes, more than max_nodes=29"),
        (lambda: heat_diffusion(graph(), -1.0), "time must be finite and at least 0, got -1.0"),
        (lambda: ppr_diffusion(graph(), normalization="column"), "normalization must be 'symmetric' or 'row'"),  # type: ignore[arg-type]
        (lambda: ppr_topk(graph(), 3, normalization="column"), "normalization must be 'symmetric' or 'row'"),  # type: ignore[arg-type]
        (lambda: ppr_topk(graph(), 0), "k must be an integer of at least 1, got 0"),
        (lambda: ppr_topk(graph(), 1, tolerance=0), "tolerance must be above 0, got 0"),
        (lambda: ppr_topk(graph(), 1, memory_budget=0), "memory_budget must be at least 1 byte, got 0"),
        (
            lambda: ppr_topk(graph().with_values(-graph().entry_values()), 1),
            "adjacency must not hold negative values",
        ),
        (
            lambda: ppr_diffusion(SparseMatrix(torch.zeros(2, dtype=torch.long), torch.zeros(0).long(), None, (1, 2))),
            r"adjacency must be square, got shape \(1, 2\)",
        ),
    ],
)
def test_bad_arguments_are_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
