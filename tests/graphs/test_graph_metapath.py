"""Meta-paths: their text, their views against loops over instances, bounds, masks, ranking."""

from __future__ import annotations

from collections import Counter
from itertools import product
from typing import Literal

import pytest
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from graphcl.errors import InputError
from graphcl.graphs import (
    AddMetaPathViews,
    MetaPath,
    coarse_adjacency,
    enumerate_metapaths,
    masked_adjacency,
    metapath_adjacency,
    metapath_contexts,
    metapath_positives,
    metapath_views,
    normalize_transposed,
    parse_metapath,
    pathsim_neighbours,
    rank_metapaths,
)
from graphcl.kernels import SparseMatrix

SIZES = {"paper": 9, "author": 6, "venue": 3}
RELATIONS = {("paper", "to", "author"): 14, ("paper", "to", "venue"): 9, ("paper", "cites", "paper"): 7}


def academic(seed: int = 0, *, reverse: bool = False) -> HeteroData:
    """A small random graph with repeated edges; paper 8 stands alone but for its venue."""
    generator = torch.Generator().manual_seed(seed)
    graph = HeteroData(target="paper")
    for kind, size in SIZES.items():
        graph[kind].num_nodes = size
    for (source, relation, destination), count in RELATIONS.items():
        if destination == "venue":
            start = torch.arange(count)
        else:
            start = torch.randint(SIZES[source] - 1, (count,), generator=generator)
        end = torch.randint(SIZES[destination] - (destination == "paper"), (count,), generator=generator)
        graph[source, relation, destination].edge_index = torch.stack([start, end])
        if reverse:
            graph[destination, f"rev_{relation}", source].edge_index = torch.stack([end, start])
    return graph


def links(graph: HeteroData, path: MetaPath) -> list[set[tuple[int, int]]]:
    """The edges of every hop as a set of pairs."""
    found = []
    for hop in path.hops:
        first, second = graph[hop.edge_type].edge_index.tolist()
        found.append(set(zip(second, first, strict=True)) if hop.backwards else set(zip(first, second, strict=True)))
    return found


def instances(graph: HeteroData, path: MetaPath) -> list[tuple[int, ...]]:
    """All walks along a path, by trying every combination of nodes."""
    hops = links(graph, path)
    sizes = [range(SIZES[kind]) for kind in path.node_types]
    return [
        walk for walk in product(*sizes) if all((a, b) in hop for a, b, hop in zip(walk, walk[1:], hops, strict=False))
    ]


def counts_of(graph: HeteroData, text: str) -> Tensor:
    path = parse_metapath(graph, text)
    counts = torch.zeros(9, 9)
    for walk in instances(graph, path):
        counts[walk[0], walk[-1]] += 1
    return counts


# Text and chains


@pytest.mark.parametrize("text", ["PAP", "pap", "paper-author-paper"])
def test_text_and_chains_name_the_same_path(text: str) -> None:
    graph = academic()
    chain = [("paper", "to", "author"), ("paper", "to", "author")]
    assert parse_metapath(graph, text).hops == parse_metapath(graph, chain).hops
    assert parse_metapath(graph, chain).name == "PAP"


def test_reverse_edge_types_give_the_same_view() -> None:
    plain, both = academic(), academic(reverse=True)
    path = parse_metapath(both, "PAP")
    assert path.hops[1].edge_type == ("author", "rev_to", "paper")
    assert torch.equal(metapath_adjacency(plain, "PAP").to_dense(), metapath_adjacency(both, "PAP").to_dense())


def test_a_parsed_path_is_taken_as_it_is() -> None:
    graph = academic()
    path = parse_metapath(graph, "PAP")
    assert parse_metapath(graph, path) == path


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("PXP", "no node type begins with 'X'; the graph has node types paper, author, venue and edge types"),
        ("paper-editor-paper", "names the unknown node type 'editor'; the graph has node types"),
        ([("paper", "writes", "author")], r"no edge type \('paper', 'writes', 'author'\) in the graph; the graph has"),
        ("PAVA", "no edge type joins 'author' and 'venue'"),
        ("PA", "leads from 'paper' to 'author'; give one that begins and ends at the target type 'paper'"),
        ("APA", "leads from 'author' to 'author'"),
        ("P", "has 1 node types; give at least two"),
        ("", "has 0 node types"),
        ([], "the meta-path is empty"),
        ([("paper", "to", "author"), ("paper", "to", "venue")], "stands at 'author', where"),
    ],
)
def test_a_path_that_does_not_fit_the_schema_is_refused(path: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        metapath_views(academic(), [path])


def test_initials_and_edge_types_that_are_ambiguous_are_refused() -> None:
    graph = academic()
    graph["person"].num_nodes = 2
    with pytest.raises(InputError, match="the letter 'P' may stand for paper or person; give names joined"):
        parse_metapath(graph, "PAP")
    graph["paper", "edited_by", "author"].edge_index = torch.tensor([[0], [0]])
    with pytest.raises(InputError, match="several edge types lead from 'paper' to 'author'"):
        parse_metapath(graph, "paper-author-paper")
    chain = [("paper", "edited_by", "author"), ("paper", "to", "author")]
    assert parse_metapath(graph, chain).name == "paper-edited_by-author-to-paper"


def test_the_target_is_known_or_asked_for() -> None:
    graph = academic()
    del graph.target
    with pytest.raises(InputError, match="0 node types carry labels, so the target type is open"):
        metapath_views(graph, ["PAP"])
    with pytest.raises(InputError, match="no node type 'editor' in the graph"):
        metapath_views(graph, ["PAP"], target="editor")
    graph["author"].y = torch.zeros(6)
    assert metapath_views(graph, ["APA"])[0].adjacency.shape == (6, 6)


def test_bad_relations_are_named() -> None:
    graph = academic()
    graph["paper", "to", "author"].edge_index = torch.empty(2, 0, dtype=torch.int64)
    with pytest.raises(InputError, match=r"relation \('paper', 'to', 'author'\) is empty"):
        metapath_adjacency(graph, "PAP")
    graph["paper", "to", "author"].edge_index = torch.tensor([[0], [6]])
    with pytest.raises(InputError, match=r"names node 6 of type 'author', which has nodes 0 \.\. 5"):
        metapath_adjacency(graph, "PAP")
    graph = academic()
    del graph["author"].num_nodes
    with pytest.raises(InputError, match="the number of nodes of type 'author' is not known"):
        metapath_adjacency(graph, "PAP")
    with pytest.raises(InputError, match="no meta-paths are given and the graph names none"):
        metapath_views(academic())
    with pytest.raises(InputError, match="metapaths is one text 'PAP'"):
        metapath_views(academic(), "PAP")


# Coarse views


@pytest.mark.parametrize("text", ["PAP", "PVP", "PP", "PPP", "PAPVP", "PVPAPVP"])
@pytest.mark.parametrize("memory_budget", [1, 2000, 2**27])
def test_counts_are_those_of_the_instances(text: str, memory_budget: int) -> None:
    graph = academic(1)
    view = metapath_adjacency(graph, text, memory_budget=memory_budget)
    assert torch.equal(view.to_dense(), counts_of(graph, text))
    boolean = metapath_adjacency(graph, text, weights="boolean")
    assert boolean.values is None
    assert torch.equal(boolean.to_dense(), (counts_of(graph, text) > 0).float())


def test_pathsim_is_the_formula() -> None:
    graph = academic(2)
    counts = counts_of(graph, "PVPAPVP").double()
    loops = counts.diagonal()
    expected = torch.where(counts > 0, 2 * counts / (loops[:, None] + loops), 0)
    found = metapath_adjacency(graph, "PVPAPVP", weights="pathsim").to_dense()
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-7)


def best_rows(counts: Tensor, k: int) -> list[set[int]]:
    """Columns that must be kept, and may be kept, by score alone."""
    loops = counts.diagonal()
    rows = []
    for i in range(len(counts)):
        scores = {j: float(2 * counts[i, j] / (loops[i] + loops[j])) for j in range(len(counts)) if counts[i, j] > 0}
        ordered = sorted(scores.values(), reverse=True)
        cut = ordered[min(k, len(ordered)) - 1] if ordered else 0.0
        rows.append({j for j, score in scores.items() if score > cut})
        rows.append({j for j, score in scores.items() if score >= cut})
    return rows


@pytest.mark.parametrize("ties", ["random", "column"])
@pytest.mark.parametrize("k", [2, 3, 5])
def test_the_best_are_kept_and_carry_counts(k: int, ties: Literal["random", "column"]) -> None:
    graph = academic(3)
    for text in ("PAP", "PVP", "PAPAP"):
        counts = counts_of(graph, text)
        kept = metapath_adjacency(graph, text, k=k, ties=ties).to_dense()
        rows = best_rows(counts, k)
        for i in range(len(counts)):
            columns = set(kept[i].nonzero()[:, 0].tolist())
            assert rows[2 * i] <= columns <= rows[2 * i + 1]
            assert len(columns) == min(k, int((counts[i] > 0).sum()))
            assert counts[i, i] == 0 or i in columns
            assert torch.equal(kept[i][list(columns)], counts[i][list(columns)])


def test_ties_by_column_take_the_first_and_the_node_itself() -> None:
    graph = HeteroData(target="paper")
    graph["paper"].num_nodes, graph["venue"].num_nodes = 5, 1
    graph["paper", "to", "venue"].edge_index = torch.stack([torch.arange(5), torch.zeros(5, dtype=torch.int64)])
    kept = metapath_adjacency(graph, "PVP", k=3, ties="column").to_dense()
    assert [row.nonzero()[:, 0].tolist() for row in kept] == [[0, 1, 2], [0, 1, 2], [0, 1, 2], [0, 1, 3], [0, 1, 4]]


def test_random_ties_favour_no_column_and_follow_the_seed_alone() -> None:
    size = 400
    graph = HeteroData(target="paper")
    graph["paper"].num_nodes, graph["venue"].num_nodes = size, 1
    graph["paper", "to", "venue"].edge_index = torch.stack([torch.arange(size), torch.zeros(size, dtype=torch.int64)])

    def kept(seed: int, memory_budget: int = 2**27) -> SparseMatrix:
        generator = torch.Generator().manual_seed(seed)
        return metapath_adjacency(graph, "PVP", k=41, generator=generator, memory_budget=memory_budget)

    view = kept(0)
    assert torch.equal(view.columns, kept(0, 10_000).columns)
    assert not torch.equal(view.columns, kept(1).columns)
    others = torch.bincount(view.columns, minlength=size) - 1
    # Binomial with mean 40 and deviation 6: no column is near 0, none gathers what the column order would give.
    assert others.float().mean() == 40.0
    assert int(others.min()) > 10
    assert int(others.max()) < 75
    assert float(others.float().std()) < 8


def test_without_loops_the_rest_moves_up() -> None:
    graph = academic(3)
    kept = metapath_adjacency(graph, "PAP", k=1, self_loops=False)
    assert bool((kept.pattern.rows != kept.columns).all())
    assert int(kept.row_offsets.diff().max()) == 1


def test_paths_that_are_not_walked_back_need_counts() -> None:
    graph = academic(1)
    with pytest.raises(InputError, match="PathSim needs a meta-path that reads the same backwards, and 'PP' does not"):
        metapath_adjacency(graph, "PP", k=2)
    counts = counts_of(graph, "PPP")
    kept = metapath_adjacency(graph, "PPP", k=1, score="count").to_dense()
    assert torch.equal(kept.max(dim=1).values, counts.max(dim=1).values)


@pytest.mark.parametrize("max_edges", [16, 17, 20, 1000])
def test_max_edges_is_never_passed_and_well_used(max_edges: int) -> None:
    graph = academic(4)
    counts = counts_of(graph, "PAPAP")
    kept = metapath_adjacency(graph, "PAPAP", max_edges=max_edges)
    assert kept.num_entries <= max_edges
    limit = int(kept.row_offsets.diff().max())
    one_more = int((counts > 0).sum(dim=1).clamp(max=limit + 1).sum())
    assert kept.num_entries == int((counts > 0).sum()) or one_more > max_edges


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"max_edges": 3}, "max_edges=3 keeps no edge of 'PAP': 8 nodes have some; allow at least that"),
        ({"k": 1}, "k=1, max_edges=None keep no edge of 'PAP' but the nodes themselves"),
        ({"k": 0}, "k must be an integer of at least 1, which keeps an edge, got 0"),
        ({"max_edges": 0}, "max_edges must be an integer of at least 1"),
        ({"weights": "sum"}, "weights must be one of count, boolean, pathsim, got 'sum'"),
        ({"score": "degree"}, "score must be one of pathsim, count, got 'degree'"),
        ({"ties": "first"}, "ties must be 'random' or 'column', got 'first'"),
        ({"memory_budget": 0}, "memory_budget must be at least 1 byte, got 0"),
    ],
)
def test_bounds_that_keep_nothing_and_unknown_options_are_refused(bounds: dict[str, object], message: str) -> None:
    graph = academic(5)
    edges = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 7], [0, 0, 1, 1, 2, 2, 3, 3]])
    graph["paper", "to", "author"].edge_index = edges
    with pytest.raises(ValueError, match=message):
        metapath_adjacency(graph, "PAP", **bounds)  # type: ignore[arg-type]


def test_bounds_are_given_for_all_paths_or_for_each() -> None:
    graph = academic(3)
    both = metapath_views(graph, ["PAP", "PVP"], k={"PVP": 2})
    assert torch.equal(both[0].adjacency.to_dense(), counts_of(graph, "PAP"))
    assert int(both[1].adjacency.row_offsets.diff().max()) == 2
    listed = metapath_views(graph, ["PAP", "PVP"], k=[None, 2])
    assert torch.equal(listed[1].adjacency.columns, both[1].adjacency.columns)
    with pytest.raises(InputError, match=r"k names \['PXP'\]; the meta-paths are PAP, PVP"):
        metapath_views(graph, ["PAP", "PVP"], k={"PXP": 2})
    with pytest.raises(InputError, match="k must hold one number for each of 2 meta-paths, got 1"):
        metapath_views(graph, ["PAP", "PVP"], k=[2])


def test_neighbours_of_given_counts() -> None:
    counts = metapath_adjacency(academic(3), "PAPAP")
    kept = pathsim_neighbours(counts, k=3)
    assert torch.equal(kept.to_dense(), metapath_adjacency(academic(3), "PAPAP", k=3).to_dense())
    with pytest.raises(ValueError, match="counts must be square"):
        pathsim_neighbours(SparseMatrix.from_coo(torch.tensor([0]), torch.tensor([0]), shape=(1, 2)))


# Fine views


def context_of(graph: HeteroData, text: str, place: int) -> list[set[int]]:
    """Distinct nodes at one place of all instances from each node."""
    found: list[set[int]] = [set() for _ in range(9)]
    for walk in instances(graph, parse_metapath(graph, text)):
        found[walk[0]].add(walk[place])
    return found


@pytest.mark.parametrize("text", ["PAP", "PAPVP", "PVPAPVP"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_contexts_average_over_the_nodes_of_all_instances(text: str, seed: int) -> None:
    graph = academic(seed)
    contexts = metapath_contexts(graph, text)
    types = parse_metapath(graph, text).node_types[1:-1]
    assert [context.node_type for context in contexts] == list(types)
    for place, context in enumerate(contexts, start=1):
        features = torch.randn(SIZES[context.node_type], 2)
        expected = torch.stack(
            [
                features[sorted(nodes)].mean(dim=0) if nodes else torch.zeros(2)
                for nodes in context_of(graph, text, place)
            ]
        )
        torch.testing.assert_close(context.mean @ features, expected)


def test_a_context_reached_in_one_way_stays_a_product() -> None:
    graph = academic(0)
    contexts = metapath_contexts(graph, "PAPVP")
    # Of the places author, paper, venue, paper only papers of a venue are reached in one way each.
    assert [len(context.factors) for context in metapath_contexts(graph, "PVP")] == [1]
    assert len(contexts) == 3
    factored = metapath_contexts(graph, "VPV", target="venue")
    assert factored[0].num_entries == 9


def test_contexts_may_be_sampled_or_counted_by_instance() -> None:
    graph = academic(1)
    for k, max_edges in ((2, None), (None, 16)):
        contexts = metapath_contexts(graph, "PAPVP", k=k, max_edges=max_edges)
        for place, context in enumerate(contexts, start=1):
            (sampled,) = context.factors
            whole = context_of(graph, "PAPVP", place)
            assert sampled.num_entries <= 16
            for node in range(9):
                columns = sampled.columns[sampled.row_offsets[node] : sampled.row_offsets[node + 1]].tolist()
                assert set(columns) <= whole[node]
                if k is not None:
                    assert len(columns) == min(2, len(whole[node]))
    by_instance = metapath_contexts(graph, "PAPVP", distinct=False)[1]
    features = torch.randn(9, 1)
    walks = Counter((walk[0], walk[2]) for walk in {w[:3] for w in instances(graph, parse_metapath(graph, "PAPVP"))})
    expected = torch.zeros(9, 1)
    for node in range(9):
        of_node = {pair[1]: count for pair, count in walks.items() if pair[0] == node}
        if of_node:
            total = sum(of_node.values())
            expected[node] = sum(features[end] * count / total for end, count in of_node.items())
    torch.testing.assert_close(by_instance.mean @ features, expected)


# Operators and masks


def test_operators_follow_the_formula() -> None:
    view = metapath_adjacency(academic(6), "PAP", k=3)
    dense = view.to_dense().double()
    roots = dense.sum(dim=1).pow(-0.5)
    roots[roots.isinf()] = 0
    expected = roots[:, None] * dense.T * roots
    operator = normalize_transposed(view)
    torch.testing.assert_close(operator.to_dense().double(), expected, rtol=1e-5, atol=1e-7)
    other = normalize_transposed(metapath_adjacency(academic(6), "PVP"))
    torch.testing.assert_close(
        coarse_adjacency([operator, other]).to_dense(), (operator.to_dense() + other.to_dense()) / 2
    )
    with pytest.raises(ValueError, match="operators must be matrices of one shape"):
        coarse_adjacency([])


@pytest.mark.parametrize("ratio", [0.0, 0.3, 1.0])
def test_masks_drop_their_part_of_the_edges(ratio: float) -> None:
    view = metapath_adjacency(academic(3), "PAPAP")
    edges = int((view.pattern.rows != view.columns).sum())
    masked = masked_adjacency(view, ratio, generator=torch.Generator().manual_seed(1))
    dense = masked.to_dense()
    assert torch.equal(dense.diagonal(), torch.ones(9))
    assert int(dense.sum()) - 9 == edges - int(ratio * edges)
    assert bool((dense - torch.eye(9) <= (view.to_dense() > 0).float()).all())
    again = masked_adjacency(view, ratio, generator=torch.Generator().manual_seed(1))
    assert torch.equal(masked.columns, again.columns)
    with pytest.raises(ValueError, match=r"ratio must lie in 0 .. 1, got 1.5"):
        masked_adjacency(view, 1.5)


def test_the_transform_adds_bounded_edge_types() -> None:
    graph = AddMetaPathViews(["PAP", "PVP"], k=2, weights="pathsim")(academic(3))
    store = graph["paper", "metapath_PVP", "paper"]
    kept = metapath_adjacency(academic(3), "PVP", k=2, weights="pathsim")
    assert int(torch.bincount(store.edge_index[1]).max()) == 2
    assert store.edge_weight.shape == (kept.num_entries,)
    assert ("paper", "metapath_PAP", "paper") in graph.edge_types
    with pytest.raises(ValueError, match="give k or max_edges"):
        AddMetaPathViews(["PAP"])


# Ranking


def test_enumeration_counts_an_edge_type_and_its_reverse_once() -> None:
    expected = ["PAP", "PVP", "PPP", "PPP", "PAPAP", "PAPVP"]
    plain = [path.name for path in enumerate_metapaths(academic())]
    both = [path.name for path in enumerate_metapaths(academic(reverse=True))]
    assert len(plain) == len(both) == len(set(enumerate_metapaths(academic())))
    assert "PAP" in plain
    assert any("cites" in name or name == "PPP" for name in plain)
    assert expected[0] == plain[0]
    for path in enumerate_metapaths(academic(), max_length=3, symmetric=False):
        assert path.node_types[0] == path.node_types[-1] == "paper"
    with pytest.raises(ValueError, match="max_length must be at least 1"):
        enumerate_metapaths(academic(), max_length=0)


def test_ranking_measures_what_a_path_connects() -> None:
    graph = academic(3)
    labels = torch.arange(9) % 2
    ranked = rank_metapaths(graph, ["PAP", "PVP"], labels=labels)
    for one in ranked:
        counts = counts_of(graph, one.path.name)
        others = counts - torch.diag(counts.diagonal())
        assert one.coverage == pytest.approx(float((others.sum(dim=1) > 0).float().mean()))
        assert one.density == pytest.approx(float((others > 0).float().mean(dim=1).mean() * 9 / 8))
        alike = labels[:, None] == labels
        assert one.homophily == pytest.approx(float((others * alike).sum() / others.sum()))
        assert one.score == pytest.approx(one.coverage * (1 - one.density))
    assert ranked[0].score >= ranked[1].score
    assert ranked == rank_metapaths(graph, ["PVP", "PAP"], labels=labels, memory_budget=1)
    assert rank_metapaths(graph)[0].homophily is None
    with pytest.raises(InputError, match="no meta-path of at most 1 hops"):
        rank_metapaths(graph, max_length=1)


def test_positives_add_up_over_the_paths() -> None:
    graph = academic(3)
    total = torch.zeros(9, 9)
    for text in ("PAP", "PVP"):
        connected = (counts_of(graph, text) > 0).float()
        total += connected / connected.sum(dim=1, keepdim=True).clamp(min=1)
    kinds: tuple[Literal["random", "column"], ...] = ("random", "column")
    for ties in kinds:
        found = metapath_positives(graph, ["PAP", "PVP"], num_positives=3, ties=ties)
        assert torch.equal(
            found.to_dense(),
            metapath_positives(
                graph,
                ["PAP", "PVP"],
                num_positives=3,
                ties=ties,
                memory_budget=1,
            ).to_dense(),
        )
        for node in range(9):
            columns = found.columns[found.row_offsets[node] : found.row_offsets[node + 1]]
            reached = total[node].clone()
            reached[node] += 1e-9
            assert columns.shape[0] == min(3, int((reached > 0).sum()))
            cut = total[node][columns].min()
            left_out = torch.tensor([j not in columns.tolist() for j in range(9)])
            assert bool((total[node][left_out] <= cut + 1e-6).all())
            assert node in columns.tolist()
    with pytest.raises(ValueError, match="num_positives must be an integer of at least 1"):
        metapath_positives(graph, ["PAP"], num_positives=0)
