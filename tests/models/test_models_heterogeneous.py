"""MEOW, AdaMEOW and HeCo: steps by batches and on the whole graph agree, learn, and refuse what does not fit."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from graphcl.errors import InputError
from graphcl.kernels import SparseMatrix
from graphcl.models import MEOW, AdaMEOW, EmbeddingModel, HeCo, get_model, list_models
from graphcl.models.metapath_inputs import MetaPathInputs, type_features

MODELS = [MEOW, AdaMEOW, HeCo]
PAPERS, AUTHORS, TERMS = 60, 40, 12
SETTINGS: dict[type, dict[str, Any]] = {
    MEOW: {"hidden": 16, "clusters": (4, 8), "k": 20, "dropout": 0.0},
    AdaMEOW: {"hidden": 16, "k": 20, "dropout": 0.0},
    HeCo: {"hidden": 16, "num_positives": 4, "dropout": 0.0, "attention_dropout": 0.0},
}


def communities(seed: int = 0) -> HeteroData:
    """Papers of three fields, whose authors and terms mostly keep to their field; features are noisy."""
    generator = torch.Generator().manual_seed(seed)
    field = torch.arange(PAPERS) % 3
    graph = HeteroData(target="paper", metapaths=["PAP", "PTP"])

    def ends(count: int, degree: int, stray: float) -> Tensor:
        own = torch.randint(count // 3, (PAPERS, degree), generator=generator) * 3 + field[:, None]
        other = torch.randint(count, (PAPERS, degree), generator=generator)
        return torch.where(torch.rand(PAPERS, degree, generator=generator) < stray, other, own).flatten()

    graph["paper"].x = torch.rand(PAPERS, 10, generator=generator) + torch.eye(10)[field] * 0.3
    graph["paper"].y = field
    graph["author"].num_nodes, graph["term"].num_nodes = AUTHORS, TERMS
    graph["term"].x = torch.randn(TERMS, 5, generator=generator)
    rows = torch.arange(PAPERS)
    graph["paper", "to", "author"].edge_index = torch.stack([rows.repeat_interleave(3), ends(AUTHORS, 3, 0.1)])
    graph["paper", "to", "term"].edge_index = torch.stack([rows.repeat_interleave(2), ends(TERMS, 2, 0.2)])
    return graph


def prepared(kind: Any, seed: int = 0, **settings: Any) -> tuple[Any, Any]:
    """Inputs and a model in float64, so that two ways to one number agree closely."""
    config = kind.config_class(**{**SETTINGS[kind], **settings})
    generator = torch.Generator().manual_seed(seed)
    inputs = kind.prepare(communities(), config, generator=generator)
    return inputs, kind.from_inputs(inputs, config, generator=generator)


def train(model: Any, batches: Any, epochs: int, learning_rate: float = 5e-3) -> list[float]:
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    losses = []
    for epoch in range(epochs):
        model.train()
        model.on_epoch_start(epoch, torch.Generator().manual_seed(epoch))
        for batch in batches(epoch):
            loss, _ = model.objective(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    return losses


def nearest_agreement(z: Tensor, labels: Tensor) -> float:
    """Part of the nodes whose nearest other node has their label."""
    distance = torch.cdist(z, z).fill_diagonal_(torch.inf)
    return float((labels[distance.argmin(1)] == labels).float().mean())


@pytest.mark.parametrize("kind", MODELS)
def test_models_keep_the_protocol_and_are_known_by_name(kind: Any) -> None:
    inputs, model = prepared(kind)
    network: Any = model
    assert isinstance(model, EmbeddingModel)
    assert get_model(kind.__name__) is kind
    assert kind.__name__.lower() in list_models("embedding")
    assert "default" in kind.presets
    for preset in kind.presets.values():
        kind.config_class(**preset.model)
    batch = inputs.full()
    assert inputs.full() is batch
    assert batch.to("cpu") is batch
    assert batch.total == inputs.num_nodes == PAPERS
    loss, parts = model.objective(batch)
    assert loss.ndim == 0
    assert parts
    gradients = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
    used = [gradient for gradient in gradients if gradient is not None]
    assert len(used) == len(gradients)
    assert all(bool(torch.isfinite(gradient).all()) for gradient in used)


@pytest.mark.parametrize("kind", MODELS)
def test_training_finds_the_fields(kind: Any) -> None:
    inputs, model = prepared(kind)
    labels = communities()["paper"].y
    losses = train(model, lambda epoch: [inputs.full()], 100, learning_rate=1e-3)
    assert losses[-1] < losses[0]
    model.eval()
    with torch.no_grad():
        z = model.embed(inputs.full())
    assert z.shape == (PAPERS, 16)
    assert nearest_agreement(z, labels) > 0.85
    assert nearest_agreement(communities()["paper"].x, labels) < 0.6


@pytest.mark.parametrize("kind", MODELS)
def test_the_same_seed_gives_the_same_model(kind: Any) -> None:
    first, second = (prepared(kind, seed=3)[1].state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = prepared(kind, seed=4)[1].state_dict()
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("kind", MODELS)
def test_a_batch_of_all_nodes_is_the_full_batch(kind: Any) -> None:
    inputs, model = prepared(kind)
    everything = inputs.batch(torch.arange(PAPERS))
    with torch.no_grad():
        torch.testing.assert_close(model.eval().embed(everything), model.embed(inputs.full()), rtol=1e-4, atol=1e-5)
        losses = []
        for batch in (inputs.full(), everything):
            torch.manual_seed(0)
            losses.append(model.objective(batch)[0])
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-4, atol=1e-5)


def test_a_batch_of_some_nodes_sees_their_whole_neighbourhood() -> None:
    inputs, model = prepared(MEOW, norm="row")
    nodes = torch.tensor([40, 3, 17])
    batch, full = inputs.batch(nodes), inputs.full()
    assert batch.inputs.shape[0] < PAPERS or batch.nodes.shape[0] == 3
    encoder = model.eval().encoder
    transform = dict(zip(model.types, model.transforms, strict=True))["paper"]
    with torch.no_grad():
        part = encoder(transform(batch.target), *batch.coarse)
        whole = encoder(transform(full.target), *full.coarse)
        torch.testing.assert_close(part, whole[nodes], rtol=1e-4, atol=1e-5)
        for position in range(len(model.contexts)):
            found = context_term(model, batch, position)
            expected = context_term(model, full, position)
            reached = batch.reached[position]
            torch.testing.assert_close(found, expected[batch.inputs[reached]], rtol=1e-4, atol=1e-5)
            for form in ("layers", "masked_layers"):
                local, everywhere = getattr(batch, form)[position], getattr(full, form)[position]
                part = encoder(transform(batch.target)[reached] + found, *local)
                whole = encoder(transform(full.target) + expected, *everywhere)
                torch.testing.assert_close(part, whole[nodes], rtol=1e-4, atol=1e-5)


def context_term(model: Any, batch: Any, position: int) -> Tensor:
    transforms = dict(zip(model.types, model.transforms, strict=True))
    contexts = batch.contexts[position]
    rows = [transforms[kind](batch.features[kind]) for kind, _ in contexts]
    term: Tensor = model.contexts[position].term([mean for _, mean in contexts], rows)
    return term


def test_sampled_neighbours_are_right_on_average() -> None:
    inputs, _ = prepared(MEOW)
    nodes = torch.arange(5)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(PAPERS, 1)
    total = torch.zeros(5, 1)
    for _ in range(400):
        batch = inputs.batch(nodes, fanout=(4, None), generator=generator)
        first, second = batch.layers[1]
        assert int(second.row_offsets.diff().max()) <= 5
        assert batch.reached[1] is not None
        total += second @ (first @ x[batch.inputs[batch.reached[1]]])
    operator = inputs.operators[1]
    torch.testing.assert_close(total / 400, (operator @ (operator @ x))[:5], atol=0.1, rtol=0.2)


@pytest.mark.parametrize("kind", MODELS)
def test_mini_batches_train(kind: Any) -> None:
    settings: dict[str, Any] = {"batch_size": 20} | ({} if kind is HeCo else {"norm": "row"})
    inputs, model = prepared(kind, **settings)

    def batches(epoch: int) -> list[Any]:
        generator = torch.Generator().manual_seed(epoch)
        order = torch.randperm(PAPERS, generator=generator)
        return [inputs.batch(part, fanout=(5, 5), generator=generator) for part in torch.split(order, 20)]

    train(model, batches, 30)
    model.eval()
    with torch.no_grad():
        z = torch.cat([model.embed(inputs.batch(part)) for part in torch.split(torch.arange(PAPERS), 30)])
    assert nearest_agreement(z, communities()["paper"].y) > 0.8


def test_clusterings_follow_their_schedule() -> None:
    inputs, model = prepared(MEOW, kmeans_every=3)
    seen = []
    for epoch in range(7):
        model.on_epoch_start(epoch, torch.Generator().manual_seed(epoch))
        model.objective(inputs.full())[0].backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape))
        seen.append(model.centroids.clone())
    changed = [not torch.equal(a, b) for a, b in pairwise(seen)]
    assert changed == [False, False, True, False, False, True]
    assert bool((model.assignments >= 0).all())


def test_density_of_the_prototype_method_is_an_option() -> None:
    inputs, model = prepared(MEOW)
    _, other = prepared(MEOW, density="l2")
    for one in (model, other):
        one.on_epoch_start(0, torch.Generator().manual_seed(0))
        one.objective(inputs.full())
    assert torch.equal(model.assignments, other.assignments)
    assert not torch.allclose(model.densities, other.densities)


# Inputs


def test_features_are_divided_by_row_unless_they_are_embeddings() -> None:
    graph = communities()
    papers, width = type_features(graph, "paper")
    assert isinstance(papers.matrix, Tensor)
    torch.testing.assert_close(papers.matrix.sum(1), torch.ones(PAPERS))
    assert width == 10
    terms, _ = type_features(graph, "term")
    assert torch.equal(terms.matrix, graph["term"].x)  # type: ignore[arg-type]
    forced, _ = type_features(graph, "term", "l1")
    torch.testing.assert_close(forced.matrix.abs().sum(1), torch.ones(TERMS))  # type: ignore[union-attr]
    graph["term"].x = torch.zeros(TERMS, 20)
    graph["term"].x[0, 3] = 4.0
    sparse, _ = type_features(graph, "term")
    assert isinstance(sparse.matrix, SparseMatrix)
    assert sparse.matrix.to_dense()[0, 3] == 1.0
    assert float(sparse.matrix.to_dense()[1:].sum()) == 0.0
    graph["term"].x = graph["term"].x.to_sparse_csr()
    again, _ = type_features(graph, "term")
    assert torch.equal(again.matrix.to_dense(), sparse.matrix.to_dense())  # type: ignore[union-attr]
    assert type_features(graph, "author")[0].matrix is None
    assert type_features(graph, "author")[1] == AUTHORS


def test_masked_features_lose_their_part() -> None:
    inputs, _ = prepared(MEOW, feature_mask=0.3)
    present = int((inputs.features["paper"].matrix != 0).sum())
    assert int((inputs.masked.matrix != 0).sum()) == present - int(0.3 * present)
    graph = communities()
    del graph["paper"].x
    graph["paper"].num_nodes = PAPERS
    config = MEOW.config_class(**{**SETTINGS[MEOW], "feature_mask": 0.25})
    bare = MEOW.prepare(graph, config)  # type: ignore[arg-type]
    assert bare.masked.keep is not None
    assert float(bare.masked.keep.sum()) == 45.0
    model = MEOW.from_inputs(bare, config)
    everything = bare.batch(torch.arange(PAPERS))
    with torch.no_grad():
        torch.testing.assert_close(model.eval().embed(everything), model.embed(bare.full()), rtol=1e-4, atol=1e-5)


def prepare_with(**changes: Any) -> MetaPathInputs:
    graph = communities()
    for name, value in changes.pop("paper", {}).items():
        graph["paper"][name] = value
    config: Any = MEOW.config_class(**{**SETTINGS[MEOW], **changes})
    return MEOW.prepare(graph, config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"identity": False}, "node type 'author' has no features; give x, or allow identity=True"),
        ({"paper": {"x": torch.rand(59, 4), "num_nodes": 60}}, r"features of node type 'paper' have shape \(59, 4\)"),
        ({"paper": {"x": torch.full((60, 2), torch.nan)}}, "features of node type 'paper' hold NaN or infinite"),
        ({"metapaths": ("PXP",)}, "no node type begins with 'X'"),
        ({"metapaths": ("APA",)}, "leads from 'author' to 'author'"),
        ({"target": "editor"}, "no node type 'editor' in the graph"),
        ({"max_edges": 5}, "max_edges=5 keeps no edge of 'PAP'"),
        ({"edge_mask": (0.1,)}, "edge_mask must hold one ratio for each of 2 meta-paths, got 1"),
        ({"k": (3,)}, "k must hold one number for each of 2 meta-paths, got 1"),
    ],
)
def test_graphs_and_settings_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        prepare_with(**changes)


def test_more_clusters_than_nodes_are_refused() -> None:
    with pytest.raises(InputError, match=r"clusters=\(4, 61\) asks for more clusters than the 60 nodes"):
        prepared(MEOW, clusters=(4, 61))
    inputs, model = prepared(MEOW, clusters=None)
    assert model.clusters == (3, 8)
    with pytest.raises(ValueError, match="fanout must hold two numbers"):
        inputs.batch(torch.arange(2), fanout=(3,))


def test_schema_neighbours_of_heco() -> None:
    inputs, _ = prepared(HeCo)
    assert dict(zip(inputs.types, inputs.samples, strict=True)) == {"author": 3, "term": 2}
    inputs, _ = prepared(HeCo, neighbours={"author": 7})
    assert inputs.samples == (7, 2)
    with pytest.raises(InputError, match=r"neighbours names \['venue'\]; the target has author, term"):
        prepared(HeCo, neighbours={"venue": 1})
    alone = HeteroData(target="paper", metapaths=["PP"])
    alone["paper"].x = torch.eye(3)
    alone["paper", "cites", "paper"].edge_index = torch.tensor([[0, 1], [1, 2]])
    with pytest.raises(InputError, match="no edge joins the target type 'paper' with another type"):
        HeCo.prepare(alone, HeCo.config_class())  # type: ignore[arg-type]


def test_both_batches_move_as_a_whole() -> None:
    for kind in MODELS:
        inputs, _ = prepared(kind)
        moved = inputs.batch(torch.arange(7)).to("meta")
        assert moved.nodes.device.type == "meta"
        operators = moved.operators if kind is HeCo else [one for pair in moved.layers for one in pair]
        assert all(operator.device.type == "meta" for operator in operators)


@pytest.mark.parametrize(("nodes", "expected"), [(100, 20), (4000, 200), (100_000, 200), (5_000_000, 20)])
def test_the_default_bound_of_a_view_follows_the_number_of_nodes(
    nodes: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {}
    monkeypatch.setattr(MetaPathInputs, "prepare", lambda graph, **given: seen.update(given))
    MEOW.prepare(HeteroData({"paper": {"num_nodes": nodes}}, target="paper"), MEOW.config_class())  # type: ignore[arg-type]
    assert seen["k"] == expected
