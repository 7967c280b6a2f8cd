"""User-item graphs against the dense formula, their conversions, and the sizes of the real data sets."""

from __future__ import annotations

from types import SimpleNamespace

import networkx
import numpy as np
import pytest
import scipy.sparse
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from graphcl.data import Interactions
from graphcl.graphs.bipartite import BipartiteGraph, stack_bipartite
from graphcl.graphs.operators import BipartiteOperator
from graphcl.kernels import SparseMatrix

# Three users, four items; user 1 and item 3 have no edge; rows out of order.
USER = torch.tensor([2, 0, 2, 0])
ITEM = torch.tensor([1, 2, 0, 1])
WEIGHT = torch.tensor([0.5, 2.0, 1.5, 3.0], dtype=torch.float64)


def example(weight: Tensor | None = WEIGHT) -> BipartiteGraph:
    return BipartiteGraph(3, 4, USER, ITEM, weight)


def dense_normalized(ratings: Tensor) -> Tensor:
    users, items = ratings.shape
    full = ratings.new_zeros(users + items, users + items)
    full[:users, users:], full[users:, :users] = ratings, ratings.T
    degree = full.sum(1)
    root = torch.where(degree > 0, degree.clamp_min(1e-300) ** -0.5, 0.0)
    return root[:, None] * full * root[None, :]


def dense_ratings(weight: Tensor | None = WEIGHT) -> Tensor:
    out = torch.zeros(3, 4, dtype=torch.float64)
    out[USER, ITEM] = torch.ones(4, dtype=torch.float64) if weight is None else weight
    return out


@pytest.mark.parametrize("weight", [WEIGHT, None])
def test_normalized_adjacency_is_the_dense_formula(weight: Tensor | None) -> None:
    graph = example(weight)
    want = dense_normalized(dense_ratings(weight))
    torch.testing.assert_close(graph.normalized(torch.float64).to_dense(), want)
    torch.testing.assert_close(graph.normalized_operator(torch.float64).to_dense(), want)
    torch.testing.assert_close(graph.normalized_ratings(torch.float64).to_dense(), want[:3, 3:])
    assert want[1].abs().sum() == 0


def test_dtypes() -> None:
    assert example().normalized().entry_values().dtype == torch.float64
    assert example(None).normalized().entry_values().dtype == torch.float32
    assert example(None).normalized(torch.float64).entry_values().dtype == torch.float64
    assert example(None).adjacency().values is None
    torch.testing.assert_close(example(None).adjacency(torch.float64).to_dense()[:3, 3:], dense_ratings(None))


def test_operator_multiplies_like_the_matrix_and_is_differentiable() -> None:
    graph = example()
    dense = torch.randn(7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    torch.testing.assert_close(graph.normalized_operator() @ dense, graph.normalized() @ dense)
    torch.testing.assert_close(graph.normalized_operator().row_sums(), graph.normalized().row_sums())
    assert graph.normalized_operator().T.shape == (7, 7)
    block, upstream = graph.ratings, torch.randn(7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def applied(values: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        matrix = block.with_values(values)
        return (BipartiteOperator(matrix) @ x * upstream).sum(), (stack_bipartite(matrix) @ x * upstream).sum()

    values = WEIGHT.clone().requires_grad_()
    assert torch.autograd.gradcheck(applied, (values, dense))
    with pytest.raises(ValueError, match=r"dense must have shape \(7, ...\), got shape \(6, 1\)"):
        graph.normalized_operator() @ torch.zeros(6, 1)


def test_edges_keep_their_order_and_the_matrix_is_sorted() -> None:
    graph = example()
    assert graph.user.tolist() == USER.tolist()
    assert graph.ratings.columns.tolist() == [1, 2, 0, 1]
    assert graph.ratings.entry_values().tolist() == [3.0, 2.0, 1.5, 0.5]
    torch.testing.assert_close(graph.user_degrees(), dense_ratings().sum(1))
    torch.testing.assert_close(graph.item_degrees(), dense_ratings().sum(0))
    assert graph.num_nodes == 7
    assert repr(graph) == "BipartiteGraph(3 users, 4 items, 4 edges, weighted)"


def test_sorted_and_unsorted_edges_give_one_matrix() -> None:
    order = torch.argsort(USER * 4 + ITEM)
    ordered = BipartiteGraph(3, 4, USER[order], ITEM[order], WEIGHT[order])
    for name in ("row_offsets", "columns", "values"):
        assert torch.equal(getattr(ordered.ratings, name), getattr(example().ratings, name))


def test_parallel_edges_are_added_here_and_merged_by_from_arrays() -> None:
    user, item = torch.tensor([0, 0]), torch.tensor([0, 0])
    assert BipartiteGraph(1, 1, user, item).user_degrees().tolist() == [2.0]
    assert BipartiteGraph.from_arrays(user, item).num_edges == 1
    assert BipartiteGraph.from_arrays([0, 0], [0, 0], [2, 5]).weight == torch.tensor([2.0])
    assert BipartiteGraph.from_arrays([0, 0], [0, 0], [2, 5], duplicates="sum").weight == torch.tensor([7.0])


def test_empty_graph() -> None:
    graph = BipartiteGraph.from_arrays([], [])
    assert (graph.num_users, graph.num_items, graph.num_edges) == (0, 0, 0)
    none = BipartiteGraph(2, 3, USER[:0], ITEM[:0])
    assert (none.normalized() @ torch.ones(5, 2)).abs().sum() == 0
    assert (none.normalized_operator() @ torch.ones(5, 2)).abs().sum() == 0


def test_from_interactions() -> None:
    log = Interactions.from_arrays(["b", "a", "b", "b"], [7, 7, 9, 9], value=[1.0, 2.0, 3.0, 4.0])
    graph = BipartiteGraph.from_interactions(log)
    assert graph.ratings.to_dense().tolist() == [[1.0, 0.0], [1.0, 1.0]]
    weighted = BipartiteGraph.from_interactions(log, weight="value", duplicates="sum")
    assert weighted.ratings.to_dense().tolist() == [[2.0, 0.0], [1.0, 7.0]]
    with pytest.raises(TypeError, match="interactions must have item, num_users, num_items, got SimpleNamespace"):
        BipartiteGraph.from_interactions(SimpleNamespace(user=[0]))
    with pytest.raises(ValueError, match="weight is 'value' but the interactions have no values"):
        BipartiteGraph.from_interactions(Interactions.from_arrays([1], [1]), weight="value")


def test_scipy_both_ways() -> None:
    matrix = scipy.sparse.coo_array(dense_ratings().numpy())
    graph = BipartiteGraph.from_scipy(matrix)
    assert np.array_equal(graph.to_scipy().toarray(), matrix.toarray())
    counts = BipartiteGraph.from_scipy(scipy.sparse.csr_array([[0, 2]]))
    assert counts.weight is not None
    assert counts.weight.dtype == torch.float32


def test_networkx_both_ways() -> None:
    for weight in (WEIGHT, None):
        drawn = example(weight).to_networkx()
        assert drawn.number_of_nodes() == 7
        back = BipartiteGraph.from_networkx(drawn)
        torch.testing.assert_close(back.ratings.to_dense().double(), dense_ratings(weight))
    with pytest.raises(ValueError, match="node 0 must have bipartite=0 or 1, got None"):
        BipartiteGraph.from_networkx(networkx.path_graph(2))
    wrong = networkx.Graph([(0, 1)])
    networkx.set_node_attributes(wrong, 0, "bipartite")
    with pytest.raises(ValueError, match=r"edge \(0, 1\) must join a user and an item"):
        BipartiteGraph.from_networkx(wrong)


def test_pyg_both_ways() -> None:
    for weight in (WEIGHT, None):
        data = example(weight).to_pyg()
        data.validate()
        assert data["item", "rev_interacts", "user"].edge_index.tolist() == [ITEM.tolist(), USER.tolist()]
        back = BipartiteGraph.from_pyg(data)
        torch.testing.assert_close(back.ratings.to_dense().double(), dense_ratings(weight))
    named = BipartiteGraph.from_pyg(data, ("item", "rev_interacts", "user"))
    assert (named.num_users, named.num_items) == (4, 3)
    with pytest.raises(ValueError, match=r"edge_type must be one of .*got"):
        BipartiteGraph.from_pyg(data, ("user", "likes", "item"))
    with pytest.raises(ValueError, match="edge_type must name one of"):
        BipartiteGraph.from_pyg(HeteroData())


def test_select_returns_a_new_graph() -> None:
    graph = example()
    kept = graph.select(torch.tensor([True, False, True, False]))
    assert (kept.user.tolist(), kept.item.tolist()) == ([2, 2], [1, 0])
    assert kept.weight is not None
    assert kept.weight.tolist() == [0.5, 1.5]
    assert graph.num_edges == 4
    assert kept.to("cpu") is kept


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((2, 4, USER, ITEM), IndexError, r"user holds 2, outside 0 \.\. 1"),
        ((3, 4, USER, -ITEM), IndexError, r"item holds -2, outside 0 \.\. 3"),
        ((3, 4, USER.double(), ITEM), TypeError, "user must be integers of shape"),
        ((3, 4, USER, ITEM[:3]), ValueError, r"item must have the shape of user \(4,\), got \(3,\)"),
        ((3, 4, USER, ITEM, WEIGHT[:3]), ValueError, "weight must be floats of shape"),
        ((3, 4, USER, ITEM, WEIGHT / 0), ValueError, "weight must be finite, got inf"),
    ],
)
def test_bad_arguments_are_named(arguments: tuple[object, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        BipartiteGraph(*arguments)  # type: ignore[arg-type]


def test_the_values_of_the_block_may_share_one_pattern() -> None:
    block = SparseMatrix.from_coo(USER, ITEM, None, shape=(3, 4))
    assert stack_bipartite(block).values is None
    assert stack_bipartite(block).num_entries == 8
