"""PyG transforms equal the functions they wrap and leave the data they are given alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric.data import Data, HeteroData
from torch_geometric.data.hypergraph_data import HyperGraphData
from torch_geometric.transforms import Compose

from graphcl.graphs.bipartite import BipartiteGraph
from graphcl.graphs.diffusion import ppr_diffusion, ppr_topk
from graphcl.graphs.hypergraph import Hypergraph
from graphcl.kernels import SparseMatrix, normalize_symmetric
from graphcl.views import graphs as views
from graphcl.views.graph_transforms import (
    EdgeDrop,
    EmbeddingNoise,
    FeatureMask,
    HyperedgeDrop,
    NodeDrop,
    PPRDiffusion,
    RandomWalkSubgraph,
    SVDView,
)

NODES = 20


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def data() -> Data:
    """Undirected graph whose last node is isolated, with edge attributes that name their edge."""
    pairs = torch.randint(NODES - 1, (2, 40), generator=seeded())
    both = torch.cat([pairs, pairs.flip(0)], dim=1)
    return Data(
        x=torch.rand(NODES, 4, generator=seeded(1)) + 1,
        edge_index=both,
        edge_attr=torch.stack([both[0] * 100 + both[1], both[1]], dim=1),
        edge_weight=(both[0] + both[1] + 1).float(),
        y=torch.arange(NODES),
    )


def users_and_items() -> HeteroData:
    generator = seeded()
    user, item = torch.randint(8, (30,), generator=generator), torch.randint(9, (30,), generator=generator)
    hetero = BipartiteGraph(8, 9, user, item, torch.rand(30, generator=generator)).to_pyg()
    hetero["user"].x = torch.ones(8, 3)
    assert isinstance(hetero, HeteroData)
    return hetero


def consistent(one: Data) -> None:
    """Attributes still belong to their edges."""
    assert one.edge_index is not None
    source, target = one.edge_index
    assert torch.equal(one.edge_attr[:, 0], source * 100 + target)
    assert torch.equal(one.edge_weight, (source + target + 1).float())


TRANSFORMS: list[Callable[[torch.Generator], Any]] = [
    lambda generator: EdgeDrop(0.4, generator),
    lambda generator: EdgeDrop(0.4, generator, symmetric=True),
    lambda generator: NodeDrop(0.4, generator),
    lambda generator: NodeDrop(0.4, generator, relabel=True),
    lambda generator: FeatureMask(0.4, generator),
    lambda generator: FeatureMask(0.4, generator, per="entry"),
    lambda generator: EmbeddingNoise(0.4, generator),
    lambda generator: RandomWalkSubgraph(3, 4, generator),
    lambda generator: RandomWalkSubgraph(3, 4, generator, relabel=True),
    lambda generator: PPRDiffusion(k=3),
    lambda generator: PPRDiffusion(),
    lambda generator: SVDView(3, generator),
]


@pytest.mark.parametrize("make", TRANSFORMS)
def test_input_untouched_and_reproducible_without_global_state(make: Callable[[torch.Generator], Any]) -> None:
    given, before, state = data(), data(), torch.get_rng_state()
    one, two = make(seeded(3))(given), make(seeded(3))(given)
    assert torch.equal(torch.get_rng_state(), state)
    assert sorted(given.keys()) == sorted(before.keys())
    for key in before.keys():  # noqa: SIM118 - Data is no mapping
        assert torch.equal(given[key], before[key])
    for key in one.keys():  # noqa: SIM118
        if isinstance(one[key], Tensor):
            assert torch.equal(one[key], two[key])
    shared = [key for key in before.keys() if key in one]  # noqa: SIM118
    assert "svd_left" in one or not all(torch.equal(one[key], given[key]) for key in shared)
    assert repr(make(seeded())).endswith(")")


def test_edge_drop_takes_attributes_along() -> None:
    for symmetric in (False, True):
        dropped = EdgeDrop(0.5, seeded(), symmetric=symmetric, exact=True)(data())
        consistent(dropped)
        want = views.edge_drop(data().edge_index, 0.5, seeded(), symmetric=symmetric, exact=True)
        assert torch.equal(dropped.edge_index, want)
        assert dropped.num_nodes == NODES
    bare = EdgeDrop(1.0, seeded())(Data(edge_index=torch.tensor([[0, 4], [1, 2]]), num_nodes=5))
    assert (bare.num_nodes, bare.num_edges) == (5, 0)


def test_edge_drop_of_heterogeneous_data() -> None:
    given = users_and_items()
    tied = EdgeDrop(0.5, seeded(), symmetric=True, exact=True)(given)
    forward, back = tied["user", "interacts", "item"], tied["item", "rev_interacts", "user"]
    assert torch.equal(forward.edge_index, back.edge_index.flip(0))
    assert torch.equal(forward.edge_weight, back.edge_weight)
    assert forward.edge_index.shape == (2, 15)
    free = EdgeDrop(0.5, seeded(), exact=True)(given)
    assert not torch.equal(
        free["user", "interacts", "item"].edge_index, free["item", "rev_interacts", "user"].edge_index.flip(0)
    )
    assert given["user", "interacts", "item"].edge_index.shape == (2, 30)
    given["item", "rev_interacts", "user"].edge_index = given["item", "rev_interacts", "user"].edge_index.roll(1, 1)
    with pytest.raises(ValueError, match=r"must be those of .* reversed, in the same order"):
        EdgeDrop(0.5, seeded(), symmetric=True)(given)


def test_node_drop() -> None:
    isolated = NodeDrop(0.5, seeded(), exact=True)(data())
    consistent(isolated)
    assert isolated.num_nodes == NODES
    want = views.node_drop(data().edge_index, 0.5, seeded(), num_nodes=NODES, exact=True)
    assert torch.equal(isolated.edge_index, want)
    smaller = NodeDrop(0.5, seeded(), exact=True, relabel=True)(data())
    assert smaller.num_nodes == NODES // 2
    assert torch.equal(smaller.y[smaller.edge_index], isolated.edge_index)
    hetero = NodeDrop(0.5, seeded(), exact=True)(users_and_items())
    users = views.draw_mask(8, 0.5, seeded(), exact=True)
    assert bool(users[hetero["user", "interacts", "item"].edge_index[0]].all())
    assert hetero["user"].num_nodes == 8
    assert NodeDrop(0.5, seeded(), exact=True, relabel=True)(users_and_items())["user"].num_nodes == 4


def test_features() -> None:
    x = data().x
    assert x is not None
    assert torch.equal(FeatureMask(0.5, seeded())(data()).x, views.feature_mask(x, 0.5, seeded()))
    assert torch.equal(EmbeddingNoise(0.5, seeded())(data()).x, views.embedding_noise(x, 0.5, seeded()))
    hetero = FeatureMask(1.0, seeded())(users_and_items())
    assert float(hetero["user"].x.abs().sum()) == 0
    for transform in (FeatureMask(0.5, seeded(), attribute="z"), EmbeddingNoise(0.5, seeded(), attribute="z")):
        with pytest.raises(ValueError, match="no node of the data has 'z'"):
            transform(data())


def test_random_walk_subgraph() -> None:
    part = RandomWalkSubgraph(3, 4, seeded(), restart=0.2)(data())
    consistent(part)
    index = data().edge_index
    assert index is not None
    want = views.subgraph_random_walk(index, 3, 4, seeded(), restart=0.2, num_nodes=NODES)
    assert torch.equal(part.edge_index, want)
    small = RandomWalkSubgraph(3, 4, seeded(), restart=0.2, relabel=True)(data())
    assert small.num_nodes <= 15
    assert torch.equal(small.y[small.edge_index], part.edge_index)


def matrix() -> SparseMatrix:
    index = data().edge_index
    assert index is not None
    return SparseMatrix.from_edge_index(index, data().edge_weight, num_nodes=NODES)


def test_diffusion() -> None:
    exact = PPRDiffusion(0.3, normalization="row")(data())
    assert "edge_attr" not in exact
    found = SparseMatrix.from_edge_index(exact.edge_index, exact.edge_weight, num_nodes=NODES).to_dense()
    torch.testing.assert_close(found, ppr_diffusion(matrix(), 0.3, normalization="row"))
    few = PPRDiffusion(0.3, k=2)(data())
    found = SparseMatrix.from_edge_index(few.edge_index, few.edge_weight, num_nodes=NODES).to_dense()
    torch.testing.assert_close(found, ppr_topk(matrix(), 2, 0.3).to_dense().float())
    assert few.num_nodes == NODES


def test_svd_view() -> None:
    view, transformed = svd(3), SVDView(3, seeded())(data())
    torch.testing.assert_close(transformed.svd_left @ transformed.svd_right.T, view.to_dense())
    assert torch.equal(transformed.edge_index, data().edge_index)
    with pytest.raises(ValueError, match=r"rank must be an integer in 1 \.\. 20, got 21"):
        SVDView(21, seeded())(data())


def svd(rank: int) -> views.LowRankView:
    return views.svd_view(normalize_symmetric(matrix()), rank, seeded())


def test_hyperedge_drop() -> None:
    hypergraph = Hypergraph.from_hyperedges([[0, 1, 2], [2, 3], [4], [0, 4]], num_nodes=6)
    weighted = Hypergraph(hypergraph.incidence.with_values(torch.arange(1.0, 9.0)))
    dropped = Hypergraph.from_pyg(HyperedgeDrop(0.5, seeded(), exact=True)(weighted.to_pyg()))
    want = views.hyperedge_drop(weighted, 0.5, seeded(), exact=True)
    assert torch.equal(dropped.incidence.to_dense(), want.incidence.to_dense())
    plain = HyperGraphData(x=torch.zeros(6, 1), edge_index=hypergraph.hyperedge_index)
    assert torch.equal(
        HyperedgeDrop(0.5, seeded(), exact=True)(plain).edge_index,
        views.hyperedge_drop(hypergraph, 0.5, seeded(), exact=True).hyperedge_index,
    )
    empty = Data(hyperedge_index=torch.zeros(2, 0, dtype=torch.long), num_nodes=3)
    assert HyperedgeDrop(0.5, seeded())(empty).num_nodes == 3


def test_transforms_compose() -> None:
    generator = seeded()
    chain = Compose([EdgeDrop(0.3, generator), FeatureMask(0.3, generator)])
    assert chain(data()).num_edges < 80


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EdgeDrop(1.2, seeded()), r"p must be in \[0, 1\], got 1.2"),
        (lambda: NodeDrop(-1, seeded()), r"p must be in \[0, 1\], got -1"),
        (lambda: FeatureMask(2, seeded()), r"p must be in \[0, 1\], got 2"),
        (lambda: HyperedgeDrop(2, seeded()), r"p must be in \[0, 1\], got 2"),
        (lambda: EmbeddingNoise(-1, seeded()), "eps must be finite and at least 0, got -1"),
        (lambda: RandomWalkSubgraph(0, 1, seeded()), "num_roots must be an integer of at least 1, got 0"),
        (lambda: RandomWalkSubgraph(1, -1, seeded()), "walk_length must be an integer of at least 0, got -1"),
        (lambda: RandomWalkSubgraph(1, 1, seeded(), restart=2), r"restart must be in \[0, 1\], got 2"),
        (lambda: SVDView(0, seeded()), "rank must be an integer of at least 1, got 0"),
        (lambda: PPRDiffusion(0.0)(data()), r"alpha must be in \(0, 1\], got 0.0"),
    ],
)
def test_bad_arguments_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
