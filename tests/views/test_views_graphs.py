"""Views of graphs: rates within bounds, determinism, untouched inputs, and what each must keep."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from graphcl.graphs.bipartite import BipartiteGraph
from graphcl.graphs.hypergraph import Hypergraph
from graphcl.kernels import SparseMatrix
from graphcl.nn.lightgcn import LightGCNConv
from graphcl.views.graphs import (
    LowRankView,
    add_signed_noise,
    draw_mask,
    edge_drop,
    edge_mask,
    embedding_noise,
    feature_mask,
    hyperedge_drop,
    node_drop,
    random_walk,
    subgraph_random_walk,
    svd_view,
)

NODES, EDGES = 60, 4000


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randoms(*shape: int, high: int, seed: int = 0) -> Tensor:
    return torch.randint(high, shape, generator=seeded(seed))


def edge_index() -> Tensor:
    return randoms(2, EDGES, high=NODES)


def matrix() -> SparseMatrix:
    rows, columns = edge_index()
    return SparseMatrix.from_coo(rows, columns, torch.arange(1.0, EDGES + 1), shape=(NODES, NODES))


def bipartite() -> BipartiteGraph:
    users, items = edge_index()
    return BipartiteGraph(NODES, NODES + 5, users, items, torch.arange(1.0, EDGES + 1))


def hypergraph() -> Hypergraph:
    nodes, edges = edge_index()
    return Hypergraph.from_incidences(
        nodes, edges, num_nodes=NODES, num_hyperedges=NODES, hyperedge_weight=torch.arange(1.0, NODES + 1)
    )


def entries(structure: Any) -> list[tuple[float, ...]]:
    """Edges with their values, in order."""
    if isinstance(structure, Tensor):
        return [tuple(edge) for edge in structure.T.tolist()]
    if isinstance(structure, Hypergraph):
        return entries(structure.incidence)
    if isinstance(structure, BipartiteGraph):
        values = structure.weight
        pairs = torch.stack([structure.user, structure.item])
    else:
        values = structure.values
        pairs = torch.stack([structure.pattern.rows, structure.columns])
    weights = [1.0] * pairs.shape[1] if values is None else values.tolist()
    return [(*edge, weight) for edge, weight in zip(pairs.T.tolist(), weights, strict=True)]


def is_subsequence(part: list[tuple[float, ...]], whole: list[tuple[float, ...]]) -> bool:
    rest = iter(whole)
    return all(edge in rest for edge in part)


STRUCTURES: list[Callable[[], Any]] = [edge_index, matrix, bipartite, hypergraph]
VIEWS: dict[str, Callable[[Any, float, torch.Generator], Any]] = {
    "edge_drop": lambda graph, p, generator: edge_drop(graph, p, generator),
    "edge_drop_exact": lambda graph, p, generator: edge_drop(graph, p, generator, exact=True),
    "node_drop": lambda graph, p, generator: node_drop(
        graph, p, generator, num_nodes=NODES if isinstance(graph, Tensor) else None
    ),
}


def within(count: int, total: int, rate: float) -> bool:
    """Five standard deviations of the binomial."""
    return abs(count - rate * total) <= 5 * math.sqrt(rate * (1 - rate) * total) + 1e-9


@pytest.mark.parametrize("make", STRUCTURES)
@pytest.mark.parametrize("name", VIEWS)
def test_views_drop_from_a_copy_by_their_generator_alone(make: Callable[[], Any], name: str) -> None:
    graph, view = make(), VIEWS[name]
    before, state = entries(graph), torch.get_rng_state()
    torch.manual_seed(1)
    one = entries(view(graph, 0.4, seeded(7)))
    torch.manual_seed(2)
    two = entries(view(graph, 0.4, seeded(7)))
    torch.set_rng_state(state)
    assert one == two
    assert one != entries(view(graph, 0.4, seeded(8)))
    assert entries(graph) == before
    assert 0 < len(one) < len(before)
    assert is_subsequence(one, before)
    assert entries(view(graph, 0.0, seeded())) == before
    assert entries(view(graph, 1.0, seeded())) == []


def test_views_leave_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    edge_drop(matrix(), 0.5, seeded(), symmetric=True)
    node_drop(bipartite(), 0.5, seeded())
    hyperedge_drop(hypergraph(), 0.5, seeded())
    feature_mask(torch.ones(3, 4), 0.5, seeded(), per="entry")
    embedding_noise(torch.ones(3, 4), 0.5, seeded())
    subgraph_random_walk(matrix(), 3, 4, seeded(), restart=0.5)
    svd_view(matrix(), 2, seeded())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_rates_of_independent_and_exact_draws(rate: float) -> None:
    mask = draw_mask(20_000, rate, seeded(3))
    assert within(20_000 - int(mask.sum()), 20_000, rate)
    # Neighbouring draws are independent: both dropped about rate^2 of the time.
    assert within(int((~mask[::2] & ~mask[1::2]).sum()), 10_000, rate * rate)
    exact = [draw_mask(1001, rate, seeded(seed), exact=True) for seed in range(200)]
    assert {int(one.sum()) for one in exact} == {1001 - round(1001 * rate)}
    # Every position is dropped equally often.
    dropped = torch.stack([~one for one in exact]).sum(0)
    assert int(dropped.sum()) == 200 * round(1001 * rate)
    assert float((dropped - 200 * rate).abs().max()) <= 6 * math.sqrt(200 * rate * (1 - rate))


@pytest.mark.parametrize("make", STRUCTURES)
def test_edge_drop_keeps_the_rate(make: Callable[[], Any]) -> None:
    total = len(entries(make()))
    assert within(total - len(entries(edge_drop(make(), 0.3, seeded(5)))), total, 0.3)
    assert len(entries(edge_drop(make(), 0.3, seeded(5), exact=True))) == total - round(0.3 * total)


def test_symmetric_edge_drop_keeps_both_directions_together() -> None:
    one_way = edge_index()
    both = torch.cat([one_way, one_way.flip(0)], dim=1)
    kept = edge_mask(both, 0.5, seeded(), symmetric=True)
    assert torch.equal(kept[:EDGES], kept[EDGES:])
    pairs = {tuple(sorted(edge)) for edge in both.T.tolist()}
    left = {tuple(sorted(edge)) for edge in both[:, kept].T.tolist()}
    gone = {tuple(sorted(edge)) for edge in both[:, ~kept].T.tolist()}
    assert not left & gone
    assert within(len(left), len(pairs), 0.5)
    dense = edge_drop(
        SparseMatrix.from_edge_index(both, num_nodes=NODES, duplicates="sum"), 0.5, seeded(), symmetric=True
    ).to_dense()
    assert torch.equal(dense, dense.T)
    assert float(dense.sum()) > 0


def test_rescaled_entries_keep_the_expectation() -> None:
    whole = matrix()
    views = [edge_drop(whole, 0.25, seeded(seed), rescale=True) for seed in range(300)]
    mean = torch.stack([view.row_sums() for view in views]).mean(0)
    torch.testing.assert_close(mean, whole.row_sums(), rtol=0.05, atol=0)
    kept = views[0]
    assert kept.values is not None
    torch.testing.assert_close(kept.values * 0.75, edge_drop(whole, 0.25, seeded(0)).values)
    assert edge_drop(whole, 1.0, seeded(), rescale=True).num_entries == 0


def test_gradient_flows_into_the_kept_values() -> None:
    values = torch.arange(1.0, EDGES + 1).double().requires_grad_()
    view = edge_drop(matrix().with_values(values), 0.5, seeded())
    (gradient,) = torch.autograd.grad(view.row_sums().sum(), values)
    assert int(gradient.sum()) == view.num_entries


def test_an_edge_drop_of_a_user_item_graph_has_the_degrees_of_what_is_left() -> None:
    kept = edge_drop(bipartite(), 0.5, seeded(), exact=True)
    again = BipartiteGraph(kept.num_users, kept.num_items, kept.user.clone(), kept.item.clone(), kept.weight)
    torch.testing.assert_close(kept.normalized().to_dense(), again.normalized().to_dense())
    assert kept.num_edges == EDGES // 2


def test_node_drop_isolates_whole_nodes() -> None:
    kept = node_drop(matrix(), 0.3, seeded(), exact=True)
    rows, columns = kept.row_offsets.diff() > 0, kept.T.row_offsets.diff() > 0
    assert int((~rows).sum()) == round(0.3 * NODES)
    assert torch.equal(rows, columns)
    alive = torch.nonzero(rows).flatten().tolist()
    assert len(entries(kept)) == sum(edge[0] in alive and edge[1] in alive for edge in entries(matrix()))
    sides = node_drop(bipartite(), 0.3, seeded(), exact=True)
    assert int((sides.ratings.row_offsets.diff() == 0).sum()) >= round(0.3 * NODES)
    wide = node_drop(bipartite().ratings, 0.3, seeded(), exact=True)
    assert entries(wide) == entries(BipartiteGraph.from_matrix(sides.ratings))
    left = node_drop(hypergraph(), 0.5, seeded(), exact=True)
    assert int((left.incidence.row_offsets.diff() == 0).sum()) == NODES // 2
    assert left.num_hyperedges == NODES


def test_hyperedge_drop_keeps_numbers_and_weights() -> None:
    whole = hypergraph()
    view = hyperedge_drop(whole, 0.4, seeded(), exact=True)
    sizes, before = view.hyperedge_sizes(), whole.hyperedge_sizes()
    assert int((sizes == 0).sum()) == round(0.4 * (NODES))
    assert torch.equal(sizes[sizes > 0], before[sizes > 0])
    assert view.hyperedge_weight is whole.hyperedge_weight
    assert is_subsequence(entries(view), entries(whole))


def test_feature_mask_by_column_and_by_entry() -> None:
    x = torch.rand(200, 300, generator=seeded()) + 1
    columns = feature_mask(x, 0.3, seeded(1))
    gone = (columns == 0).all(0)
    assert torch.equal((columns == 0).any(0), gone)
    assert within(int(gone.sum()), 300, 0.3)
    single = feature_mask(x, 0.3, seeded(1), per="entry", value=-1.0)
    assert within(int((single == -1).sum()), x.numel(), 0.3)
    assert torch.equal(single[single != -1], x[single != -1])
    assert float(x.min()) >= 1
    leaf = x[:3, :4].double().requires_grad_()
    assert torch.autograd.gradcheck(lambda rows: feature_mask(rows, 0.5, seeded(2), per="entry") * 3, (leaf,))
    assert feature_mask(x[:0], 0.5, seeded()).shape == (0, 300)


def test_embedding_noise_has_length_eps_and_stays_in_the_orthant() -> None:
    x = torch.randn(500, 16, generator=seeded(), dtype=torch.float64)
    x[0] = 0
    moved = embedding_noise(x, 0.2, seeded(1)) - x
    torch.testing.assert_close(moved[1:].norm(dim=1), torch.full((499,), 0.2, dtype=torch.float64))
    assert float(moved[0].abs().max()) == 0
    assert bool((moved * x >= 0).all())
    # E[u / |u|] of positive entries is about 1 / sqrt(d) per dimension.
    assert float(moved[1:].abs().mean()) == pytest.approx(0.2 * 0.866 / 4, rel=0.05)
    assert torch.equal(embedding_noise(x, 0.0, seeded()), x)
    leaf = x[1:4].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda rows: embedding_noise(rows, 0.1, seeded(2)), (leaf,))
    assert embedding_noise(x.bfloat16(), 0.1, seeded()).dtype == torch.bfloat16
    torch.testing.assert_close(
        add_signed_noise(torch.tensor([[2.0, -2.0]]), torch.tensor([[1.0, 0.0]]), 0.5), torch.tensor([[2.5, -2.0]])
    )


def test_random_walks_follow_edges_uniformly() -> None:
    star = SparseMatrix.from_coo(torch.tensor([0, 0, 0, 1, 2, 3]), torch.tensor([1, 2, 3, 0, 0, 0]), shape=(5, 5))
    walks = random_walk(star, torch.zeros(9000, dtype=torch.long), 2, seeded())
    assert walks[:, 2].tolist() == [0] * 9000
    for leaf in (1, 2, 3):
        assert within(int((walks[:, 1] == leaf).sum()), 9000, 1 / 3)
    assert random_walk(star, torch.tensor([4]), 3, seeded()).tolist() == [[4, 4, 4, 4]]
    back = random_walk(star, torch.ones(9000, dtype=torch.long), 1, seeded(), restart=0.25)[:, 1]
    assert within(int((back == 1).sum()), 9000, 0.25)
    nothing = SparseMatrix(torch.zeros(3, dtype=torch.long), torch.zeros(0, dtype=torch.long), None, (2, 2))
    assert random_walk(nothing, torch.tensor([1]), 2, seeded()).tolist() == [[1, 1, 1]]


@pytest.mark.parametrize("make", STRUCTURES[:3])
def test_subgraph_of_random_walks_is_induced_and_bounded(make: Callable[[], Any]) -> None:
    graph = make()
    sizes = {"num_nodes": NODES} if isinstance(graph, Tensor) else {}
    part = entries(subgraph_random_walk(graph, 3, 5, seeded(), **sizes))
    shift = NODES if isinstance(graph, BipartiteGraph) else 0
    visited = {edge[0] for edge in part} | {edge[1] + shift for edge in part}
    assert 0 < len(visited) <= 3 * 6
    assert part == [edge for edge in entries(graph) if edge[0] in visited and edge[1] + shift in visited]
    assert part == entries(subgraph_random_walk(graph, 3, 5, seeded(), **sizes))
    whole = subgraph_random_walk(graph, 10_000, 0, seeded(), **sizes)
    assert entries(whole) == entries(graph)


def test_svd_view_is_the_best_approximation() -> None:
    graph = bipartite()
    dense = graph.normalized_ratings(torch.float64).to_dense()
    left, values, right = torch.linalg.svd(dense, full_matrices=False)
    view = svd_view(graph.normalized_ratings(torch.float64), 5, seeded())
    torch.testing.assert_close(view.singular_values, values[:5], rtol=2e-3, atol=0)
    best = (left[:, :5] * values[:5]) @ right[:5]
    error, least = float((dense - view.to_dense()).norm()), float((dense - best).norm())
    assert least <= error + 1e-12 <= 1.001 * least
    full = svd_view(graph.normalized_ratings(torch.float64), 5, seeded(), oversampling=NODES)
    torch.testing.assert_close(full.to_dense(), best)
    torch.testing.assert_close(full.singular_values, values[:5])


def test_svd_view_multiplies_by_its_factors() -> None:
    view = svd_view(bipartite(), 4, seeded())
    dense = torch.randn(NODES + 5, 3, generator=seeded())
    torch.testing.assert_close(view @ dense, view.to_dense() @ dense)
    torch.testing.assert_close((view.T @ dense[:NODES]), view.to_dense().T @ dense[:NODES])
    assert (view.shape, view.T.shape) == ((NODES, NODES + 5), (NODES + 5, NODES))
    assert view.to(torch.float64).left.dtype == torch.float64
    square = svd_view(matrix(), 2, seeded())
    assert LightGCNConv(1, include_ego=False)(dense[:NODES], square).shape == (NODES, 3)
    upstream = torch.randn(4, 2, dtype=torch.float64, generator=seeded())
    rows = torch.randn(3, 2, dtype=torch.float64, generator=seeded(1)).requires_grad_()
    small = LowRankView(upstream[:, :1], torch.ones(1).double(), upstream[:3, 1:])
    assert torch.autograd.gradcheck(lambda h: (small @ h) * upstream, (rows,))


def test_empty_graphs() -> None:
    none = torch.zeros(2, 0, dtype=torch.long)
    assert edge_drop(none, 0.5, seeded(), symmetric=True).shape == (2, 0)
    assert node_drop(none, 0.5, seeded(), num_nodes=0).shape == (2, 0)
    assert subgraph_random_walk(none, 2, 3, seeded(), num_nodes=4).shape == (2, 0)
    empty = Hypergraph.from_hyperedges([], num_nodes=2)
    assert hyperedge_drop(empty, 0.5, seeded()).num_incidences == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: edge_drop(edge_index(), 1.5, seeded()), r"p must be in \[0, 1\], got 1.5"),
        (lambda: edge_drop(matrix(), -0.1, seeded()), r"p must be in \[0, 1\], got -0.1"),
        (lambda: node_drop(bipartite(), math.nan, seeded()), r"p must be in \[0, 1\], got nan"),
        (lambda: feature_mask(torch.ones(2, 2), 2, seeded()), r"p must be in \[0, 1\], got 2"),
        (lambda: feature_mask(torch.ones(2), 0.5, seeded()), r"x must have shape \(nodes, d\), got shape \(2,\)"),
        (lambda: feature_mask(torch.ones(2, 2), 0.5, seeded(), per="row"), "per must be 'column' or 'entry'"),  # type: ignore[arg-type]
        (lambda: hyperedge_drop(hypergraph(), 7, seeded()), r"p must be in \[0, 1\], got 7"),
        (lambda: draw_mask(-1, 0.5, seeded()), "size must be at least 0, got -1"),
        (lambda: edge_drop(torch.zeros(3, 2), 0.5, seeded()), r"edge_index must have shape \(2, edges\)"),
        (lambda: edge_drop(bipartite(), 0.5, seeded(), rescale=True), "rescale needs a SparseMatrix, got Bipartite"),
        (lambda: edge_drop(hypergraph(), 0.5, seeded(), symmetric=True), "symmetric has no meaning"),
        (lambda: edge_drop(bipartite().ratings, 0.5, seeded(), symmetric=True), "symmetric needs a square matrix"),
        (lambda: node_drop(edge_index(), 0.5, seeded()), "num_nodes goes with an edge_index and with nothing else"),
        (lambda: node_drop(matrix(), 0.5, seeded(), num_nodes=3), "with nothing else, got 3"),
        (lambda: subgraph_random_walk(edge_index(), 1, 1, seeded()), "num_nodes goes with an edge_index"),
        (lambda: subgraph_random_walk(matrix(), 0, 1, seeded()), "num_roots must be an integer of at least 1, got 0"),
        (lambda: subgraph_random_walk(matrix(), 1, -1, seeded()), "length must be an integer of at least 0, got -1"),
        (lambda: random_walk(matrix(), torch.tensor([0]), 1, seeded(), restart=2), r"restart must be in \[0, 1\]"),
        (lambda: random_walk(bipartite().ratings, torch.tensor([0]), 1, seeded()), "matrix must be square"),
        (lambda: embedding_noise(torch.ones(1, 1), -1, seeded()), "eps must be finite and at least 0, got -1"),
        (lambda: svd_view(matrix(), 0, seeded()), r"rank must be an integer in 1 \.\. 60, got 0"),
        (lambda: svd_view(matrix(), 61, seeded()), r"rank must be an integer in 1 \.\. 60, got 61"),
        (lambda: svd_view(matrix(), 2, seeded(), oversampling=-1), "oversampling must be an integer of at least 0"),
    ],
)
def test_bad_arguments_are_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_other_bad_arguments() -> None:
    with pytest.raises(IndexError, match=r"start holds a node outside 0 \.\. 59"):
        random_walk(matrix(), torch.tensor([60]), 1, seeded())
    for view in (edge_drop, node_drop):
        with pytest.raises(TypeError, match=r"graph must be an edge_index, .*, got list"):
            view([[0], [1]], 0.5, seeded())  # type: ignore[type-var]
    with pytest.raises(TypeError, match=r"graph must be an edge_index, .*, got list"):
        subgraph_random_walk([[0], [1]], 1, 1, seeded())  # type: ignore[type-var]
