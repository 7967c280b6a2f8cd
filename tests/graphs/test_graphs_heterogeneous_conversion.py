"""HeteroData and NetworkX multigraphs in one checked form."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from torch_geometric.data import HeteroData

from graphcl.errors import InputError
from graphcl.graphs import as_hetero_data, there_and_back


def academic() -> HeteroData:
    graph = HeteroData()
    graph["paper"].x = torch.ones(3, 2)
    graph["paper"].y = torch.tensor([5, 7, 5])
    graph["author"].num_nodes = 2
    graph["venue"].num_nodes = 1
    graph["author", "writes", "paper"].edge_index = torch.tensor([[0, 1, 1], [0, 1, 2]])
    graph["paper", "in", "venue"].edge_index = torch.tensor([[0, 1, 2], [0, 0, 0]])
    graph["venue", "holds", "paper"].edge_index = torch.tensor([[0, 0, 0], [0, 1, 2]])
    graph["paper", "cites", "paper"].edge_index = torch.tensor([[0], [1]])
    return graph


def test_reverse_edges_are_added_where_there_are_none() -> None:
    given = academic()
    graph = as_hetero_data(given)
    added = set(graph.edge_types) - set(given.edge_types)
    assert added == {("paper", "rev_writes", "author"), ("paper", "rev_cites", "paper")}
    assert graph["paper", "rev_writes", "author"].edge_index.tolist() == [[0, 1, 2], [0, 1, 1]]
    assert graph["paper"].y.tolist() == [0, 1, 0]
    assert graph.label_names == (5, 7)
    assert given["paper"].y.tolist() == [5, 7, 5]
    assert as_hetero_data(graph).edge_types == graph.edge_types


def test_edges_that_hold_both_directions_get_no_partner() -> None:
    graph = academic()
    graph["paper", "cites", "paper"].edge_index = torch.tensor([[0, 1, 2], [1, 0, 2]])
    assert ("paper", "rev_cites", "paper") not in as_hetero_data(graph).edge_types
    graph["paper", "cites", "paper"].edge_index = torch.empty(2, 0, dtype=torch.int64)
    assert ("paper", "rev_cites", "paper") not in as_hetero_data(graph).edge_types


def test_target_and_metapaths() -> None:
    graph = as_hetero_data(academic())
    assert graph.target == "paper"
    assert graph.metapaths == (
        (("paper", "in", "venue"), ("venue", "holds", "paper")),
        (("paper", "rev_writes", "author"), ("author", "writes", "paper")),
    )
    chosen = as_hetero_data(academic(), target="author", labels=["b", "a"], metapaths="author-paper-author, APVPA")
    assert chosen["author"].y.tolist() == [1, 0]
    assert [len(path) for path in chosen.metapaths] == [2, 4]
    assert as_hetero_data(chosen).metapaths == chosen.metapaths
    assert there_and_back(chosen, "venue")[1][1] == ("paper", "rev_writes", "author")


def test_one_type_alone_has_paths_over_its_own_edges() -> None:
    graph = HeteroData()
    graph["user"].num_nodes = 3
    graph["user", "follows", "user"].edge_index = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    assert as_hetero_data(graph, target="user").metapaths == ((("user", "follows", "user"),) * 2,)


@pytest.mark.parametrize("directed", [False, True])
def test_networkx_multigraphs_with_types(directed: bool) -> None:
    source: Any = nx.MultiDiGraph() if directed else nx.MultiGraph()
    source.add_node("p1", type="paper", x=[1.0, 2.0], label="new")
    source.add_node(7, type="author")
    source.add_node("p2", type="paper", x=[3.0, 4.0], label="old")
    source.add_edge(7, "p1", type="writes")
    source.add_edge(7, "p1", type="reviews")
    source.add_edge(7, "p2", type="writes")
    source.add_edge("p1", "p2", type="cites")
    graph = as_hetero_data(source)
    assert graph["paper"].node_ids.tolist() == ["p1", "p2"]
    assert graph["author"].node_ids.dtype == np.int64
    assert graph["paper"].x.tolist() == [[1, 2], [3, 4]]
    assert graph["paper"].y.tolist() == [0, 1]
    ends = "author", "writes", "paper"
    forward = ends if ends in graph.edge_types and directed else ("paper", "writes", "author")
    assert forward in graph.edge_types
    pairs = graph[forward].edge_index if directed else graph[forward].edge_index.flip(0)
    assert sorted(map(tuple, pairs.T.tolist())) == [(0, 0), (0, 1)]
    within = graph["paper", "cites", "paper"].edge_index
    assert within.tolist() == ([[0], [1]] if directed else [[0, 1], [1, 0]])
    assert graph.target == "paper"


def broken(change: str) -> Any:
    graph = academic()
    if change == "range":
        graph["author"].num_nodes = 1
    elif change == "negative":
        graph["paper", "in", "venue"].edge_index = torch.tensor([[-1], [0]])
    elif change == "features":
        graph["paper"].x = torch.tensor([[1.0], [torch.nan], [1.0]])
    elif change == "labels":
        graph["paper"].y = torch.tensor([0, 1])
    elif change == "shape":
        graph["paper", "in", "venue"].edge_index = torch.ones(3, 2, dtype=torch.int64)
    elif change == "no edges":
        graph = HeteroData()
        graph["paper"].num_nodes = 3
    elif change == "no index":
        graph["paper", "in", "venue"].edge_index = None
    elif change == "size":
        del graph["venue"]
    elif change == "untyped":
        graph = nx.Graph([(0, 1)])
    elif change == "alone":
        graph["topic"].num_nodes = 2
        graph.target = "topic"
    return graph


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("range", r"edges of \('author', 'writes', 'paper'\) name node 1 of type 'author', which has 1 nodes"),
        ("negative", "name node -1 of type 'paper', which has 3 nodes"),
        ("features", "nodes of type 'paper': row 2, column '0': the feature is nan"),
        ("labels", "there are 2 labels for 3 nodes"),
        ("shape", r"the edge_index of \('paper', 'in', 'venue'\) has shape \(3, 2\)"),
        ("no edges", "the graph has no node or no edge"),
        ("no index", r"edge type \('paper', 'in', 'venue'\) has no edge_index"),
        ("untyped", "node 0 has no attribute 'type'; set the type of every node"),
        ("alone", "no edge joins the target type 'topic'"),
    ],
)
def test_bad_graphs_are_named(change: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        as_hetero_data(broken(change))


def test_other_refusals() -> None:
    with pytest.raises(InputError, match="'movie'"):
        as_hetero_data(academic(), target="movie")
    with pytest.raises(InputError, match="the graph has node types paper, author, venue"):
        as_hetero_data(academic(), metapaths="paper-movie-paper")
    with pytest.raises(TypeError, match="source must be a HeteroData or a NetworkX graph, got list"):
        as_hetero_data([])
