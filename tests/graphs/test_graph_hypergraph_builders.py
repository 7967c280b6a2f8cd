"""Hypergraph builders against loops over sets; bounds, missing modalities, draws."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Literal

import networkx
import pytest
import torch
from torch import Tensor

from graphcl.errors import MissingPackageError
from graphcl.graphs import hypergraph_builders as module
from graphcl.graphs.bipartite import BipartiteGraph
from graphcl.graphs.hypergraph import Hypergraph
from graphcl.graphs.hypergraph_builders import (
    attribute_hypergraph,
    community_hypergraph,
    items_sharing_users,
    khop_hypergraph,
    knn_hypergraph,
    membership_hypergraph,
    mmhcl_item_hypergraph,
    session_hypergraph,
    users_sharing_items,
)
from graphcl.graphs.operators import keep_entries
from graphcl.kernels import SparseMatrix


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def members(hypergraph: Hypergraph) -> list[set[int]]:
    out: list[set[int]] = [set() for _ in range(hypergraph.num_hyperedges)]
    for node, edge in hypergraph.hyperedge_index.T.tolist():
        out[edge].add(node)
    assert sum(len(one) for one in out) == hypergraph.num_incidences
    return out


def pairs(count: int = 300, nodes: int = 20, edges: int = 30) -> tuple[Tensor, Tensor]:
    return torch.randint(nodes, (count,), generator=seeded(1)), torch.randint(edges, (count,), generator=seeded(2))


def expected(node: Tensor, edge: Tensor, edges: int) -> list[set[int]]:
    out: list[set[int]] = [set() for _ in range(edges)]
    for one, other in zip(node.tolist(), edge.tolist(), strict=True):
        out[other].add(one)
    return out


def test_memberships_count_once() -> None:
    node, edge = pairs()
    assert members(membership_hypergraph(node, edge, num_nodes=20, num_hyperedges=30)) == expected(node, edge, 30)


def test_sizes_are_limited() -> None:
    node, edge = pairs()
    whole = expected(node, edge, 30)
    small = members(membership_hypergraph(node, edge, num_nodes=20, num_hyperedges=30, min_size=9))
    assert small == [one if len(one) >= 9 else set() for one in whole]
    assert any(len(one) < 9 for one in whole)
    draw = [
        members(membership_hypergraph(node, edge, num_nodes=20, num_hyperedges=30, max_size=5, generator=seeded(seed)))
        for seed in (0, 0, 1)
    ]
    assert draw[0] == draw[1] != draw[2]
    for kept, before in zip(draw[0], whole, strict=True):
        assert kept <= before
        assert len(kept) == min(5, len(before))


def test_members_of_large_hyperedges_are_drawn_uniformly() -> None:
    node, edge = torch.arange(10), torch.zeros(10, dtype=torch.long)
    generator, counts = seeded(), torch.zeros(10)
    for _ in range(600):
        drawn = membership_hypergraph(node, edge, num_nodes=10, num_hyperedges=1, max_size=3, generator=generator)
        counts += drawn.node_degrees()
    assert float((counts - 180).abs().max()) < 5 * (600 * 0.3 * 0.7) ** 0.5


def test_users_that_share_items_and_items_that_share_users() -> None:
    node, edge = pairs()
    graph = BipartiteGraph(20, 30, node, edge, torch.ones(300))
    assert members(users_sharing_items(graph)) == expected(node, edge, 30)
    assert members(items_sharing_users(graph)) == expected(edge, node, 20)
    assert users_sharing_items(graph).incidence.values is None
    limited = members(items_sharing_users(graph, min_size=2, max_size=4, generator=seeded()))
    assert {len(one) for one in limited} <= {0, 2, 3, 4}
    unique = BipartiteGraph.from_arrays(node, edge, num_users=20, num_items=30)
    # Nothing to merge, nothing to copy.
    assert users_sharing_items(unique).incidence.pattern is unique.ratings.pattern


@pytest.mark.parametrize("metric", ["cosine", "dot", "euclidean"])
@pytest.mark.parametrize("include_self", [True, False])
def test_nearest_neighbours_by_loops(metric: str, include_self: bool) -> None:
    x, k = randn(25, 4), 4
    scores = x @ x.T
    if metric == "cosine":
        scores = scores / x.norm(dim=1)[:, None] / x.norm(dim=1)[None, :]
    if metric == "euclidean":
        scores = -torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    nearest = []
    for row in range(25):
        order = sorted(range(25), key=lambda other: -float(scores[row, other]))
        nearest.append([other for other in order if include_self or other != row][:k])
    build = [
        members(
            knn_hypergraph(x, k, metric=metric, include_self=include_self, members=kind)  # type: ignore[arg-type]
        )
        for kind in ("neighbours", "choosers")
    ]
    assert build[0] == [set(one) for one in nearest]
    assert build[1] == [{row for row in range(25) if column in nearest[row]} for column in range(25)]


def test_missing_and_zero_rows_get_no_incidence() -> None:
    x = randn(10, 3)
    x[2], x[5] = torch.nan, 0.0
    missing = torch.zeros(10, dtype=torch.bool)
    missing[2] = True
    there = [row for row in range(10) if row not in (2, 5)]
    kinds: tuple[Literal["neighbours", "choosers"], ...] = ("neighbours", "choosers")
    for kind in kinds:
        built = members(knn_hypergraph(x, 3, members=kind, missing=missing))
        clean = members(knn_hypergraph(x[there], 3, members=kind))
        assert built[2] == built[5] == set()
        assert [built[row] for row in there] == [{there[node] for node in one} for one in clean]
    near = members(knn_hypergraph(x, 3, metric="euclidean", missing=missing))
    assert 5 in near[5]
    with pytest.raises(ValueError, match="x must be finite, got nan at row 2, column 0"):
        knn_hypergraph(x, 3)


def test_only_positive_neighbours() -> None:
    x = torch.tensor([[1.0, 0.0], [-1.0, 0.1], [0.0, 1.0]])
    assert members(knn_hypergraph(x, 3, positive_only=True)) == [{0}, {1, 2}, {1, 2}]
    assert members(knn_hypergraph(x, 3)) == [{0, 1, 2}] * 3


def test_more_neighbours_than_rows_and_one_row() -> None:
    assert members(knn_hypergraph(randn(3, 2), 10)) == [{0, 1, 2}] * 3
    assert members(knn_hypergraph(randn(1, 2), 2)) == [{0}]
    assert members(knn_hypergraph(randn(1, 2), 2, include_self=False)) == [set()]
    assert knn_hypergraph(randn(0, 2), 2).num_nodes == 0


def test_item_hypergraph_of_mmhcl_by_loops() -> None:
    features = {"image": randn(12, 4), "text": randn(12, 3, seed=1)}
    features["text"][7] = 0
    missing = {"image": torch.zeros(12, dtype=torch.bool)}
    missing["image"][3] = True
    features["image"][3] = torch.nan
    want = torch.zeros(12, 24)
    for block, (name, table) in enumerate(features.items()):
        gone = 3 if name == "image" else 7
        for row in range(12):
            if row == gone:
                continue
            cosine = {
                other: float(table[row] @ table[other] / (table[row].norm() * table[other].norm()))
                for other in range(12)
                if other != gone
            }
            for other in sorted(cosine, key=lambda one: -cosine[one])[:5]:
                if cosine[other] > 0:
                    want[row, block * 12 + other] = 1
    built = mmhcl_item_hypergraph(features, 5, missing=missing)
    assert torch.equal(built.incidence.to_dense(), want)
    assert float(want[3, :12].sum() + want[:, 3].sum() + want[7, 12:].sum() + want[:, 19].sum()) == 0
    operator = built.shared_propagation("symmetric", keep_diagonal=True)
    assert bool(torch.isfinite(operator.to_dense()).all())


def test_sessions() -> None:
    session, item = torch.tensor([9, 9, -4, 9, 5, 5]), torch.tensor([0, 2, 1, 2, 1, 0])
    assert members(session_hypergraph(session, item, num_items=3)) == [set(), {0, 1}, {0, 2}]
    assert members(session_hypergraph(session, item, num_items=3, min_size=1))[0] == {1}


def test_attributes() -> None:
    codes = torch.tensor([[3, 0], [3, -1], [1, 0], [-1, 2]])
    assert members(attribute_hypergraph(codes)) == [{2}, {0, 1}, {0, 2}, {3}]
    assert members(attribute_hypergraph(codes[:, 0])) == [{2}, {0, 1}]
    assert members(attribute_hypergraph(codes, min_size=2)) == [set(), {0, 1}, {0, 2}, set()]
    assert attribute_hypergraph(torch.zeros(0, 2, dtype=torch.long)).num_hyperedges == 0
    assert attribute_hypergraph(torch.full((3,), -1)).num_hyperedges == 0


@pytest.mark.parametrize("hops", [1, 2, 3])
@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("places", [1, 10**6])
def test_neighbourhoods_by_breadth_first_search(
    monkeypatch: pytest.MonkeyPatch, hops: int, include_self: bool, places: int
) -> None:
    monkeypatch.setattr(module, "_BLOCK_PLACES", places)
    drawn = networkx.gnp_random_graph(25, 0.08, seed=3, directed=True)
    rows, columns = torch.tensor(list(drawn.edges)).T
    adjacency = SparseMatrix.from_coo(rows, columns, -torch.ones(rows.shape[0]), shape=(25, 25))
    want = []
    for node in range(25):
        reach = set(networkx.single_source_shortest_path_length(drawn, node, cutoff=hops))
        want.append(reach if include_self else reach - {node})
    assert members(khop_hypergraph(adjacency, hops, include_self=include_self)) == want


@pytest.mark.parametrize("method", ["louvain", "label_propagation"])
def test_communities_are_found(method: str) -> None:
    cliques = networkx.connected_caveman_graph(4, 6)
    cliques.add_node(24)
    ends = torch.tensor(list(cliques.edges)).T
    adjacency = SparseMatrix.from_edge_index(torch.cat([ends, ends.flip(0)], dim=1), num_nodes=25)
    state = torch.get_rng_state()
    built = [members(community_hypergraph(adjacency, seeded(), method=method)) for _ in range(2)]  # type: ignore[arg-type]
    assert torch.equal(torch.get_rng_state(), state)
    assert built[0] == built[1]
    assert set().union(*built[0]) == set(range(25))
    assert [min(one) for one in built[0]] == sorted(min(one) for one in built[0])
    assert {24} in built[0]
    assert sum(len(one) for one in built[0]) == 25
    assert len(built[0]) == 5
    few = community_hypergraph(adjacency, seeded(), method=method, min_size=2)  # type: ignore[arg-type]
    assert few.num_incidences == 24


def test_communities_of_an_empty_graph() -> None:
    nothing = SparseMatrix(torch.zeros(1, dtype=torch.long), torch.zeros(0, dtype=torch.long), None, (0, 0))
    assert community_hypergraph(nothing, seeded()).num_hyperedges == 0
    assert khop_hypergraph(nothing, 2).num_hyperedges == 0


PATH = SparseMatrix.from_edge_index(torch.tensor([[0, 1, 2, 1, 2, 3], [1, 2, 3, 0, 1, 2]]), num_nodes=4)


@pytest.mark.parametrize(
    ("build", "needed"),
    [
        (lambda bound: membership_hypergraph(*pairs(50), num_nodes=20, num_hyperedges=30, max_incidences=bound), 50),
        (lambda bound: users_sharing_items(BipartiteGraph(20, 30, *pairs(50)), max_incidences=bound), 50),
        (lambda bound: items_sharing_users(BipartiteGraph(20, 30, *pairs(50)), max_incidences=bound), 50),
        (lambda bound: knn_hypergraph(randn(9, 2), 4, max_incidences=bound), 36),
        (lambda bound: mmhcl_item_hypergraph({"a": randn(9, 2), "b": randn(9, 3)}, 4, max_incidences=bound), 72),
        (lambda bound: session_hypergraph(*pairs(50), num_items=30, max_incidences=bound), 50),
        (lambda bound: attribute_hypergraph(torch.zeros(7, 3, dtype=torch.long), max_incidences=bound), 21),
        (lambda bound: khop_hypergraph(PATH, 2, max_incidences=bound), 14),
        (lambda bound: community_hypergraph(PATH, seeded(), max_incidences=bound), 4),
    ],
)
def test_every_builder_honours_its_bound(build: Callable[[int], Hypergraph], needed: int) -> None:
    assert build(needed).num_incidences <= needed
    with pytest.raises(ValueError, match=rf"make {needed} incidences, more than max_incidences={needed - 1}"):
        build(needed - 1)
    with pytest.raises(ValueError, match="max_incidences must be at least 0, got -1"):
        build(-1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: knn_hypergraph(randn(3, 2), 2, members="all"),  # type: ignore[arg-type]
            "members must be 'neighbours' or 'choosers', got 'all'",
        ),
        (lambda: knn_hypergraph(randn(3, 2), 2, metric="euclidean", positive_only=True), "positive_only needs scores"),
        (lambda: knn_hypergraph(randn(3, 2), 2, missing=torch.zeros(2, dtype=torch.bool)), r"missing must be bool of"),
        (lambda: knn_hypergraph(randn(3, 2), 0), "k must be an integer of at least 1, got 0"),
        (lambda: mmhcl_item_hypergraph({}, 2), "features must hold at least one modality, got none"),
        (lambda: mmhcl_item_hypergraph({"a": randn(3, 2), "b": randn(2, 2)}, 2), "the same number of items"),
        (
            lambda: mmhcl_item_hypergraph({"a": randn(3, 2)}, 2, missing={"b": torch.zeros(3, dtype=torch.bool)}),
            r"missing names 'b', which is not one of the modalities \['a'\]",
        ),
        (lambda: khop_hypergraph(PATH, 0), "hops must be an integer of at least 1, got 0"),
        (lambda: khop_hypergraph(BipartiteGraph(2, 3, *pairs(2, 2, 3)).ratings, 1), "adjacency must be square"),
        (
            lambda: community_hypergraph(BipartiteGraph(2, 3, *pairs(2, 2, 3)).ratings, seeded()),
            "adjacency must be square",
        ),
        (lambda: community_hypergraph(PATH, seeded(), method="cut"), "method must be 'louvain' or 'label_propagation'"),  # type: ignore[arg-type]
        (
            lambda: membership_hypergraph(*pairs(), num_nodes=20, num_hyperedges=30, min_size=0),
            "min_size must be at least 1, got 0",
        ),
        (
            lambda: membership_hypergraph(*pairs(), num_nodes=20, num_hyperedges=30, max_size=2),
            "generator is needed to draw max_size members",
        ),
        (
            lambda: session_hypergraph(*pairs(), num_items=30, max_size=1, generator=seeded()),
            "max_size must be at least min_size = 2, got 1",
        ),
        (lambda: keep_entries(PATH, torch.ones(2, dtype=torch.bool)), r"kept must be bool of shape \(6,\)"),
    ],
)
def test_bad_arguments_are_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_other_bad_arguments() -> None:
    with pytest.raises(TypeError, match="codes must be integers of shape"):
        attribute_hypergraph(torch.zeros(3))
    with pytest.raises(IndexError, match="rows holds 19, outside 0"):
        membership_hypergraph(*pairs(), num_nodes=19, num_hyperedges=30)


if importlib.util.find_spec("faiss") is None:

    def test_faiss_is_named_where_it_is_missing() -> None:
        with pytest.raises(MissingPackageError, match="faiss"):
            knn_hypergraph(randn(9, 2), 2, backend="faiss")

else:

    def test_faiss_finds_nearly_the_same_neighbours() -> None:
        x = randn(400, 8).float()
        exact, found = knn_hypergraph(x, 5), knn_hypergraph(x, 5, backend="faiss")
        common = sum(len(a & b) for a, b in zip(members(exact), members(found), strict=True))
        assert common > 0.9 * exact.num_incidences
