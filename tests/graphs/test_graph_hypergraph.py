"""Hypergraphs: degrees, expansions and conversions against loops and dense formulas; counts of the real data sets."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import networkx
import numpy as np
import pytest
import scipy.sparse
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.data.hypergraph_data import HyperGraphData

from graphcl.graphs import hypergraph as module
from graphcl.graphs.bipartite import BipartiteGraph
from graphcl.graphs.hypergraph import Hypergraph, concatenate_hypergraphs
from graphcl.kernels import SparseMatrix, normalize_by_row

DATA = os.environ.get("GRAPHCL_DATA")
HYPEREDGES = [[0, 1, 2], [2, 3], [1, 3, 4, 2], [0], []]
WEIGHT = torch.tensor([1.0, 2.0, 0.5, 3.0, 1.5], dtype=torch.float64)
NODE_WEIGHT = torch.tensor([2.0, 1.0, 0.5, 3.0, 1.0, 4.0], dtype=torch.float64)


def example(*, node_weight: Tensor | None = None, hyperedge_weight: Tensor | None = WEIGHT) -> Hypergraph:
    incidence = Hypergraph.from_hyperedges(HYPEREDGES, num_nodes=6).incidence
    values = torch.arange(1, incidence.num_entries + 1, dtype=torch.float64) / 4
    return Hypergraph(incidence.with_values(values), node_weight, hyperedge_weight)


def plain() -> Hypergraph:
    return Hypergraph.from_hyperedges(HYPEREDGES, num_nodes=6)


def same(one: Hypergraph, other: Hypergraph) -> None:
    torch.testing.assert_close(one.incidence.to_dense(), other.incidence.to_dense(), check_dtype=False)
    for left, right in ((one.node_weight, other.node_weight), (one.hyperedge_weight, other.hyperedge_weight)):
        assert (left is None) == (right is None)
        if left is not None and right is not None:
            torch.testing.assert_close(left, right, check_dtype=False)


def test_degrees_by_loops() -> None:
    hypergraph = example(node_weight=NODE_WEIGHT)
    dense = hypergraph.incidence.to_dense()
    for node in range(6):
        want = sum(float(WEIGHT[e] * dense[node, e]) for e in range(5))
        assert hypergraph.node_degrees()[node] == pytest.approx(want)
    for edge in range(5):
        want = sum(float(NODE_WEIGHT[v] * dense[v, edge]) for v in range(6))
        assert hypergraph.hyperedge_degrees()[edge] == pytest.approx(want)
    assert hypergraph.hyperedge_sizes().tolist() == [3, 2, 4, 1, 0]
    assert plain().node_degrees().tolist() == [2, 2, 3, 2, 1, 0]
    assert plain().hyperedge_degrees().tolist() == [3, 2, 4, 1, 0]


def test_neighbours_are_counted_without_the_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    shared: list[set[int]] = [set() for _ in range(6)]
    for members in HYPEREDGES:
        for one, other in itertools.permutations(members, 2):
            shared[one].add(other)
    want = [len(nodes) for nodes in shared]
    assert plain().count_neighbours().tolist() == want
    monkeypatch.setattr(module, "_BLOCK_PAIRS", 3)
    assert plain().count_neighbours().tolist() == want
    assert example().count_neighbours().tolist() == want


def test_row_normalised_propagation_is_a_random_walk_and_the_symmetric_one_is_similar_to_it() -> None:
    hypergraph = example(node_weight=NODE_WEIGHT)
    dense = hypergraph.incidence.to_dense()
    inner = dense @ torch.diag(WEIGHT / (NODE_WEIGHT @ dense).clamp_min(1e-12)) @ dense.T
    degrees = dense @ WEIGHT
    inverse = torch.where(degrees > 0, 1 / degrees.clamp_min(1e-12), 0.0)
    walk = inverse[:, None] * inner * NODE_WEIGHT[None, :]
    torch.testing.assert_close(hypergraph.propagation("row").to_dense(), walk)
    torch.testing.assert_close(walk.sum(1), torch.tensor([1.0, 1, 1, 1, 1, 0]).double())
    root = (inverse * NODE_WEIGHT).sqrt()
    torch.testing.assert_close(hypergraph.propagation().to_dense(), root[:, None] * inner * root[None, :])
    own, other = (
        torch.linalg.eigvals(matrix).real.sort().values for matrix in (walk, hypergraph.propagation().to_dense())
    )
    torch.testing.assert_close(own, other)


def test_unit_node_weights_change_nothing() -> None:
    ones = torch.ones(6, dtype=torch.float64)
    for normalization in ("symmetric", "row"):
        torch.testing.assert_close(
            example(node_weight=ones).propagation(normalization).to_dense(),
            example().propagation(normalization).to_dense(),
        )


@pytest.mark.parametrize("keep_diagonal", [True, False])
@pytest.mark.parametrize("block", [1, 5, 10**6])
def test_clique_expansion_factored_formed_and_dense(
    monkeypatch: pytest.MonkeyPatch, keep_diagonal: bool, block: int
) -> None:
    monkeypatch.setattr(module, "_BLOCK_PAIRS", block)
    for hypergraph in (example(), example(hyperedge_weight=None)):
        dense = hypergraph.incidence.to_dense()
        weight = torch.ones(5).double() if hypergraph.hyperedge_weight is None else hypergraph.hyperedge_weight
        want = dense @ torch.diag(weight) @ dense.T
        if not keep_diagonal:
            want = want - torch.diag(want.diag())
        torch.testing.assert_close(hypergraph.clique_expansion(keep_diagonal=keep_diagonal).to_dense(), want)
        formed = hypergraph.clique_matrix(keep_diagonal=keep_diagonal)
        torch.testing.assert_close(formed.to_dense(), want)
        assert formed.num_entries == int((want != 0).sum())
        assert torch.equal(formed.coalesce().columns, formed.columns)


def test_the_bound_on_formed_entries_is_honoured() -> None:
    entries = plain().clique_matrix().num_entries
    assert plain().clique_matrix(max_entries=entries).num_entries == entries
    with pytest.raises(ValueError, match=rf"more than max_entries={entries - 1} entries"):
        plain().clique_matrix(max_entries=entries - 1)
    with pytest.raises(ValueError, match="max_entries must be at least 0, got -1"):
        plain().clique_matrix(max_entries=-1)


def test_shared_propagation_is_the_normalised_clique_matrix() -> None:
    hypergraph = example()
    torch.testing.assert_close(
        hypergraph.shared_propagation("row").to_dense(), normalize_by_row(hypergraph.clique_matrix()).to_dense()
    )
    with pytest.raises(ValueError, match="node_weight has no place"):
        example(node_weight=NODE_WEIGHT).shared_propagation()


def test_star_expansion_and_dual() -> None:
    hypergraph = example()
    star = hypergraph.star_expansion().to_dense()
    torch.testing.assert_close(star[:6, 6:], hypergraph.incidence.to_dense() * WEIGHT)
    torch.testing.assert_close(star, star.T)
    assert star[:6, :6].abs().sum() == 0
    dual = example(node_weight=NODE_WEIGHT).dual()
    assert dual.incidence.shape == (5, 6)
    assert dual.hyperedge_weight is NODE_WEIGHT


def test_conversions_both_ways() -> None:
    for hypergraph in (plain(), example(), example(node_weight=NODE_WEIGHT)):
        same(Hypergraph.from_pyg(hypergraph.to_pyg()), hypergraph)
        same(Hypergraph.from_networkx(hypergraph.to_networkx()), hypergraph)
        torch.testing.assert_close(
            Hypergraph.from_scipy(hypergraph.to_scipy()).incidence.to_dense(), hypergraph.incidence.to_dense()
        )
        index = hypergraph.hyperedge_index
        again = Hypergraph.from_incidences(
            index[0], index[1], hypergraph.incidence.values, num_nodes=6, num_hyperedges=5
        )
        assert torch.equal(again.incidence.columns, hypergraph.incidence.columns)


def test_scipy_values() -> None:
    assert Hypergraph.from_scipy(scipy.sparse.csr_array(np.eye(2))).incidence.values is None
    counts = Hypergraph.from_scipy(scipy.sparse.csr_array(np.array([[2, 0], [1, 1]]))).incidence.values
    assert counts is not None
    assert counts.dtype == torch.float32


def test_pyg_without_sizes() -> None:
    data = HyperGraphData(x=torch.zeros(4, 1), edge_index=torch.tensor([[0, 1, 3], [0, 0, 2]]))
    hypergraph = Hypergraph.from_pyg(data)
    assert (hypergraph.num_nodes, hypergraph.num_hyperedges) == (4, 3)
    assert Hypergraph.from_pyg(data, num_hyperedges=7).num_hyperedges == 7
    empty = Hypergraph.from_pyg(Data(hyperedge_index=torch.zeros(2, 0, dtype=torch.long), num_nodes=2))
    assert empty.num_hyperedges == 0
    with pytest.raises(ValueError, match=r"data must have hyperedge_index, got \['edge_index'\]"):
        Hypergraph.from_pyg(Data(edge_index=torch.zeros(2, 0, dtype=torch.long)))
    with pytest.raises(ValueError, match="must have bipartite"):
        Hypergraph.from_networkx(networkx.path_graph(2))


def test_listed_again_counts_once_but_a_given_incidence_must_be_merged() -> None:
    node, edge = torch.tensor([1, 0, 1]), torch.tensor([0, 0, 0])
    merged = Hypergraph.from_incidences(node, edge, torch.tensor([3.0, 1.0, 9.0]), num_nodes=2, num_hyperedges=1)
    assert merged.incidence.entry_values().tolist() == [1.0, 3.0]
    with pytest.raises(ValueError, match="incidence lists node 1 in hyperedge 0 more than once"):
        Hypergraph(SparseMatrix.from_coo(node, edge, shape=(2, 1)))
    unsorted = SparseMatrix(torch.tensor([0, 2]), torch.tensor([1, 0]), torch.tensor([5.0, 6.0]), (1, 2))
    assert Hypergraph(unsorted).incidence.columns.tolist() == [0, 1]
    assert Hypergraph(unsorted).incidence.entry_values().tolist() == [6.0, 5.0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Hypergraph(plain().incidence, NODE_WEIGHT[:2]), r"node_weight must be floats of shape \(6,\)"),
        (lambda: Hypergraph(plain().incidence, None, -WEIGHT), "hyperedge_weight must be finite and not negative"),
        (lambda: Hypergraph(plain().incidence.with_values(-torch.ones(10))), "values of incidence must be finite and"),
        (lambda: Hypergraph(plain().incidence, None, WEIGHT / 0), "not negative, got inf"),
        (lambda: plain().propagation("column"), "normalization must be 'symmetric' or 'row', got 'column'"),  # type: ignore[arg-type]
        (lambda: plain().propagation("row", WEIGHT[:3]), r"hyperedge_weight must have shape \(5,\), got shape \(3,\)"),
        (lambda: concatenate_hypergraphs([]), "hypergraphs must hold at least one, got none"),
        (
            lambda: concatenate_hypergraphs([plain(), Hypergraph.from_hyperedges([[0]], 2)]),
            r"hypergraphs\[1\] must have 6 nodes, got 2",
        ),
        (
            lambda: concatenate_hypergraphs([plain(), example(node_weight=NODE_WEIGHT)]),
            r"hypergraphs\[1\] must have the node weights of hypergraphs\[0\]",
        ),
    ],
)
def test_bad_arguments_are_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_concatenation_puts_hyperedges_side_by_side() -> None:
    other = Hypergraph.from_hyperedges([[5], [0, 5], [2]], num_nodes=6)
    joined = concatenate_hypergraphs([example(), other, plain()])
    want = torch.cat([example().incidence.to_dense(), other.incidence.to_dense(), plain().incidence.to_dense()], dim=1)
    torch.testing.assert_close(joined.incidence.to_dense(), want.double())
    assert torch.equal(joined.incidence.coalesce().columns, joined.incidence.columns)
    assert joined.hyperedge_weight is not None
    assert joined.hyperedge_weight.tolist() == [*WEIGHT.tolist(), *[1.0] * 8]
    assert concatenate_hypergraphs([plain(), other]).incidence.values is None
    alone = concatenate_hypergraphs([plain()])
    assert alone.hyperedge_weight is None
    assert torch.equal(alone.incidence.columns, plain().incidence.columns)


def test_gradient_reaches_concatenated_values() -> None:
    values = example().incidence.entry_values().clone().requires_grad_()
    upstream = torch.randn(20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def loss(entries: Tensor) -> Tensor:
        one = Hypergraph(plain().incidence.with_values(entries), check=False)
        return (concatenate_hypergraphs([one, plain()]).incidence.entry_values() * upstream).sum()

    assert torch.autograd.gradcheck(loss, (values,))


def test_no_nodes_and_no_hyperedges() -> None:
    for nodes in (0, 3):
        empty = Hypergraph.from_hyperedges([], num_nodes=nodes)
        assert empty.clique_matrix().shape == (nodes, nodes)
        assert empty.count_neighbours().tolist() == [0] * nodes
        assert (empty.propagation() @ torch.ones(nodes, 2)).abs().sum() == 0
        assert (empty.shared_propagation() @ torch.ones(nodes, 2)).abs().sum() == 0
        assert empty.star_expansion().shape == (nodes, nodes)


def test_moves_to_another_dtype() -> None:
    assert example().to(torch.float32).propagation().row_sums().dtype == torch.float32
    assert example().to("cpu").device.type == "cpu"


if DATA:

    def table(rows: int, columns: int, shift: float) -> Tensor:
        return torch.sin(0.1 * torch.arange(rows * columns, dtype=torch.float64).reshape(rows, columns) + shift)

    def users_of(name: str) -> BipartiteGraph:
        if name == "tiktok":
            rows = np.loadtxt(Path(str(DATA), "tiktok/tiktok.inter"), skiprows=1, dtype=np.int64)
            user, item = rows[rows[:, 2] == 0, :2].T
            return BipartiteGraph.from_arrays(user, item, num_users=9308, num_items=6710)
        lists = json.loads(Path(str(DATA), "amazon-baby/train.json").read_text())
        user = np.repeat([int(key) for key in lists], [len(items) for items in lists.values()])
        item = np.concatenate([np.asarray(items, dtype=np.int64) for items in lists.values()])
        return BipartiteGraph.from_arrays(user, item, num_users=19445, num_items=7050)

    @pytest.mark.parametrize(
        ("name", "entries", "largest", "isolated", "checksum", "row_100"),
        [
            ("tiktok", 1_357_514, 4_343, 122, 976.76869, [-0.0020844863, -0.005299756, -0.0084620723, -0.011539838]),
            ("baby", 6_976_330, 5_688, 0, 1017.3384, [0.00084033357, 0.0013456652, 0.0018375515, 0.0023110775]),
        ],
    )
    def test_user_graphs_of_mmhcl(
        name: str, entries: int, largest: int, isolated: int, checksum: float, row_100: list[float]
    ) -> None:
        graph = users_of(name)
        counts = Hypergraph(graph.ratings).count_neighbours()
        assert (int(counts.sum()), int(counts.max()), int((counts == 0).sum())) == (entries, largest, isolated)
        wide = Hypergraph(graph.ratings.with_values(torch.ones(graph.num_edges, dtype=torch.float64)))
        operator, start = wide.shared_propagation("row"), table(graph.num_users, 4, 1)
        twice = operator @ (operator @ start)
        assert float(twice.abs().sum()) == pytest.approx(checksum, rel=1e-7)
        torch.testing.assert_close(twice[100], torch.tensor(row_100, dtype=torch.float64), rtol=1e-7, atol=0)

    @pytest.mark.parametrize(
        ("name", "users", "items"), [("tiktok", 8746.9568, 6508.2939), ("baby", 17749.333, 7218.891)]
    )
    def test_two_layers_of_lightgcn(name: str, users: float, items: float) -> None:
        graph = users_of(name)
        operator, start = graph.normalized_operator(torch.float64), table(graph.num_nodes, 4, 0)
        once = operator @ start
        mean = (start + once + operator @ once) / 3
        assert float(mean[: graph.num_users].abs().sum()) == pytest.approx(users, rel=1e-7)
        assert float(mean[graph.num_users :].abs().sum()) == pytest.approx(items, rel=1e-7)

    def test_the_formed_user_graph_of_tiktok_equals_the_factored_one_and_is_fast() -> None:
        graph = users_of("tiktok")
        Hypergraph.from_hyperedges([[0]], 1).clique_matrix()
        started = time.process_time()
        formed = normalize_by_row(Hypergraph(graph.ratings).clique_matrix())
        seconds = time.process_time() - started
        assert formed.num_entries == 1_357_514
        factored = Hypergraph(graph.ratings).shared_propagation("row")
        start = table(graph.num_users, 4, 1).float()
        torch.testing.assert_close(formed @ start, factored @ start, atol=2e-6, rtol=1e-5)
        # 0.2 s on a quiet machine; processor time, and room for a busy one.
        assert seconds < 2.0

    def test_item_graph_of_baby() -> None:
        stored = np.load(Path(str(DATA), "amazon-baby/i2i_incidence_topk5.npz"))
        shape = tuple(stored["shape"])
        ones = np.ones(len(stored["indices"]))
        hypergraph = Hypergraph.from_scipy(
            scipy.sparse.csr_array((ones, stored["indices"], stored["indptr"]), shape=shape)
        )
        assert (hypergraph.num_nodes, hypergraph.num_hyperedges, hypergraph.num_incidences) == (7_050, 14_100, 70_435)
        neighbours = hypergraph.count_neighbours() + (hypergraph.incidence.row_offsets.diff() > 0)
        assert int(neighbours.sum()) == 328_026
        wide = hypergraph.incidence.with_values(torch.ones(70_435, dtype=torch.float64))
        operator = Hypergraph(wide).shared_propagation("symmetric", keep_diagonal=True)
        twice = operator @ (operator @ table(7_050, 4, 2))
        assert float(twice.abs().sum()) == pytest.approx(2113.0998, rel=1e-7)
        want = torch.tensor([0.016658979, 0.015783424, 0.014750167, 0.013569531], dtype=torch.float64)
        torch.testing.assert_close(twice[200], want, rtol=1e-6, atol=0)
