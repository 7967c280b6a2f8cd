"""SCGC, SCGC* and PamC: objectives against their parts, mini-batches, known clusters found, nothing ever NaN."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from graphcl.functional import assignment_divergence, pamc, scgc, target_distribution
from graphcl.graphs import influence_matrix, link_sparse_nodes
from graphcl.kernels import SparseMatrix
from graphcl.models import SCGC, ClusteringBatch, ClusteringModel, PamC, SCGCStar, get_model, list_models
from graphcl.models.base_clustering import (
    ClusteringConfig,
    ContrastiveClustering,
    Phase,
    is_bag_of_words,
    kmeans_centers,
)

NAMES = ("pamc", "scgc", "scgc_star")


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def two_blocks(num: int = 60, seed: int = 0) -> tuple[Tensor, SparseMatrix, Tensor]:
    """Features, graph and labels of two blocks; the last node is isolated and has no features."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num) % 2
    chance = torch.where(labels[:, None] == labels, 0.2, 0.02)
    upper = (torch.rand(num, num, generator=generator) < chance).triu(1)
    upper[-1], upper[:, -1] = False, False
    rows, columns = (upper | upper.T).nonzero(as_tuple=True)
    x = torch.rand(num, 12, generator=generator)
    x[:, :3] += labels[:, None]
    x[-1] = 0
    return x, SparseMatrix.from_coo(rows, columns, shape=(num, num)), labels


def full_batch(model: ContrastiveClustering, x: Tensor, graph: SparseMatrix, phase: Phase) -> ClusteringBatch:
    graph = model.prepare_graph(x, graph)
    return ClusteringBatch(
        x=model.prepare_features(x, graph),
        influence=model.influence(graph),
        graph=model.propagation(graph),
        num_anchors=x.shape[0],
        phase=phase,
        cluster_mass=None,
        total=x.shape[0],
    )


def build(name: str, num_features: int, num_clusters: int, seed: int = 0, **settings: Any) -> ContrastiveClustering:
    kind = get_model(name, "clustering")
    config = kind.config_class(**{"widths": (16, 8), **settings})
    model = kind(num_features, num_clusters, config, generator=torch.Generator().manual_seed(seed))
    assert isinstance(model, ContrastiveClustering)
    return model


def fit(model: ContrastiveClustering, x: Tensor, graph: SparseMatrix, *, warmup: int, epochs: int) -> list[float]:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    phases: tuple[tuple[Phase, int], ...] = (("warmup", warmup), ("cluster", epochs))
    for phase, steps in phases:
        batch = full_batch(model, x, graph, phase)
        if phase == "cluster":
            with torch.no_grad():
                model.initialize_clusters(model.encode(batch.x, batch.graph), seed=0)
        for _ in range(steps):
            loss, _ = model.objective(batch)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            losses.append(float(loss.detach()))
    return losses


def accuracy(found: Tensor, labels: Tensor) -> float:
    agreement = float((found == labels).float().mean())
    return max(agreement, 1 - agreement)


def test_all_are_registered() -> None:
    assert set(NAMES) <= set(list_models("clustering"))
    for name in NAMES:
        assert isinstance(build(name, 3, 2), ClusteringModel)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("assignment", ["student_t", "sinkhorn"])
def test_objective_is_the_sum_of_its_parts(name: str, assignment: str) -> None:
    x, graph, _ = two_blocks()
    model = build(name, 12, 3, assignment=assignment, contrast_weight=2.0, kl_weight=0.5, temperature=0.7)
    batch = full_batch(model, x, graph, "cluster")
    loss, parts = model.objective(batch)
    z, q = model(batch.x)
    if name == "pamc":
        contrast = pamc(z, q.argmax(1), batch.influence, num_clusters=3, temperature=0.7)
    else:
        contrast = scgc(z, batch.influence, temperature=0.7)
    assert isinstance(contrast, Tensor)
    divergence = assignment_divergence(model.clusters.target(z, q), q)
    expected = 2.0 * contrast + 0.5 * divergence
    if name == "scgc":
        assert model.decoder is not None
        rebuilt = ((model.decoder(z) - batch.x) ** 2).mean()
        torch.testing.assert_close(parts["reconstruction"], rebuilt.detach())
        expected = expected + rebuilt
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(parts["contrast"], contrast.detach())
    torch.testing.assert_close(parts["kl"], divergence.detach())
    assert not any(part.requires_grad for part in parts.values())


@pytest.mark.parametrize("name", NAMES)
def test_positives_are_those_of_the_paper(name: str) -> None:
    _, graph, _ = two_blocks()
    found = build(name, 12, 2, order=3, max_entries=None).influence(graph)
    torch.testing.assert_close(found.to_dense(), influence_matrix(graph, 3, accumulate=name != "scgc").to_dense())
    assert int(build(name, 12, 2, order=3, max_entries=4).influence(graph).row_offsets.diff().max()) == 4


@pytest.mark.parametrize("phase", ["warmup", "cluster"])
@pytest.mark.parametrize("encoder", ["mlp", "sgc", "appnp", "gcn", "SAGEConv"])
def test_every_encoder_trains(encoder: str, phase: Phase) -> None:
    x, graph, _ = two_blocks()
    model = build("pamc", 12, 2, encoder=encoder, steps=3)
    batch = full_batch(model, x, graph, phase)
    assert model.needs_graph == (batch.graph is not None) == (encoder not in ("mlp", "sgc"))
    assert model.num_hops == {"mlp": 0, "sgc": 0, "appnp": 3}.get(encoder, 2)
    loss, _ = model.objective(batch)
    slopes = torch.autograd.grad(loss, list(model.encoder.parameters()))
    assert all(bool((slope != 0).any()) for slope in slopes)
    z, q = model(batch.x, batch.graph)
    assert z.shape == (60, 8)
    torch.testing.assert_close(q.sum(1), torch.ones(60))
    assert bool((model.assignments(batch.x, batch.graph) == q.argmax(1)).all())


@pytest.mark.parametrize("name", NAMES)
def test_known_blocks_are_found(name: str) -> None:
    x, graph, labels = two_blocks(120)
    model = build(name, 12, 2)
    losses = fit(model, x, graph, warmup=20, epochs=30)
    assert losses[49] < losses[20] < losses[0] or name == "scgc"
    found = model.assignments(model.prepare_features(x, model.prepare_graph(x, graph)))
    assert accuracy(found[:-1], labels[:-1]) > 0.95


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("settings", [{}, {"radius": None}, {"assignment": "sinkhorn"}, {"warmup": "autoencoder"}])
def test_never_nan(name: str, settings: dict[str, Any]) -> None:
    """More clusters than the rows can fill, zero rows, isolated nodes, a large learning rate."""
    x, graph, _ = two_blocks(20)
    for rows in (x, torch.zeros_like(x), torch.ones_like(x)):
        model = build(name, 12, 9, **settings)
        losses = fit(model, rows, graph, warmup=5, epochs=15)
        assert bool(torch.tensor(losses).isfinite().all())
        assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())


def test_a_graph_without_edges_is_clustered_by_features() -> None:
    x, graph, labels = two_blocks(40)
    none = torch.zeros(0, dtype=torch.int64)
    empty = SparseMatrix.from_coo(none, none, shape=graph.shape)
    x = x + 2 * labels[:, None] * torch.eye(12)[0]
    model = build("pamc", 12, 2)
    fit(model, x[:-1], SparseMatrix.from_coo(none, none, shape=(39, 39)), warmup=10, epochs=20)
    alone = SparseMatrix.from_coo(none, none, shape=(39, 39))
    prepared = model.prepare_features(x[:-1], model.prepare_graph(x[:-1], alone))
    assert accuracy(model.assignments(prepared), labels[:-1]) > 0.9
    torch.testing.assert_close(model.influence(empty).to_dense(), 2 * torch.eye(40))


@pytest.mark.parametrize("name", NAMES)
def test_mini_batches_add_up_to_the_full_batch(name: str) -> None:
    """The attraction, and with the masses of all rows the divergence, of disjoint batches average to those of all."""
    x, graph, _ = two_blocks(12)
    model = build(name, 12, 3)
    whole = full_batch(model, x, graph, "cluster")
    _, q = model(whole.x)
    _, parts = model.objective(whole)
    influence = whole.influence.to_dense()
    divergences = []
    for anchors in (torch.arange(0, 6), torch.arange(6, 12)):
        order = torch.cat([anchors, torch.tensor([i for i in range(12) if i not in anchors.tolist()])])
        rows = influence[anchors][:, order]
        at = rows.nonzero(as_tuple=True)
        batch = ClusteringBatch(
            x=whole.x[order],
            influence=SparseMatrix.from_coo(at[0], at[1], rows[at], shape=(6, 12)),
            graph=None,
            num_anchors=6,
            phase="cluster",
            cluster_mass=q.sum(0).detach(),
            total=6,
        )
        loss, own = model.objective(batch)
        assert bool(loss.isfinite())
        divergences.append(own["kl"])
        half = ClusteringBatch(**{**vars(batch), "total": 3.0})
        torch.testing.assert_close(model.objective(half)[0], 2 * loss)
    torch.testing.assert_close(torch.stack(divergences).mean(), parts["kl"])
    torch.testing.assert_close(target_distribution(q)[:6], target_distribution(q[:6], q.sum(0)))


def test_drawn_negatives_follow_the_seed_and_estimate_the_sum() -> None:
    x, graph, _ = two_blocks(100)
    exact = build("scgc_star", 12, 2)
    sampled = build("scgc_star", 12, 2, negatives=32)
    batch = full_batch(exact, x, graph, "warmup")
    losses = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        losses.append(float(sampled.objective(batch)[0].detach()))
    assert losses[0] == losses[1] != losses[2]
    assert losses[0] == pytest.approx(float(exact.objective(batch)[0].detach()), abs=0.1)


def test_seeds_and_soft_or_detached_meta_nodes() -> None:
    x, graph, _ = two_blocks()
    first, second = build("pamc", 12, 2, seed=3), build("pamc", 12, 2, seed=3)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert bool((one == other).all())
    soft = build("pamc", 12, 2, seed=3, meta_nodes="soft")
    batch = full_batch(first, x, graph, "cluster")
    z, q = soft(batch.x)
    expected = pamc(z, q, batch.influence)
    assert isinstance(expected, Tensor)
    torch.testing.assert_close(soft.objective(batch)[1]["contrast"], expected.detach())
    detached = build("pamc", 12, 2, seed=3, detach_meta_nodes=True, kl_weight=0.0)
    kept = build("pamc", 12, 2, seed=3, kl_weight=0.0)
    slopes = []
    for model in (detached, kept):
        model.initialize_clusters(model.encode(batch.x), seed=0)
        slopes.append(torch.autograd.grad(model.objective(batch)[0], next(model.encoder.parameters()))[0])
    assert not torch.allclose(slopes[0], slopes[1])


@pytest.mark.parametrize(("features", "power"), [("l2", 2), ("l1", 1)])
def test_prepared_rows(features: str, power: int) -> None:
    x, graph, _ = two_blocks()
    rows = build("pamc", 12, 2, features=features).prepare_features(x, graph)
    expected = torch.ones(60)
    expected[-1] = 0
    torch.testing.assert_close(rows.norm(p=power, dim=1), expected)
    same = build("pamc", 12, 2, features="none", encoder="mlp").prepare_features(x, graph)
    assert same is x


def test_kmeans_centers() -> None:
    points = torch.cat([drawn(0, 50, 2), drawn(1, 50, 2) + 20])
    centers = kmeans_centers(points, 2, seed=0)
    expected = torch.stack([points[:50].mean(0), points[50:].mean(0)])
    torch.testing.assert_close(centers[centers[:, 0].argsort()], expected)
    torch.testing.assert_close(kmeans_centers(points, 2, seed=0), centers)
    # Fewer distinct rows than clusters: finite centres, no warning.
    assert bool(kmeans_centers(torch.ones(5, 2), 3, seed=0).isfinite().all())
    with pytest.raises(ValueError, match="n_samples=2 should be >= n_clusters=3"):
        kmeans_centers(points[:2], 3, seed=0)


def test_batches_move() -> None:
    x, graph, _ = two_blocks()
    batch = full_batch(build("pamc", 12, 2, encoder="gcn"), x, graph, "warmup").to("meta")
    assert batch.graph is not None
    assert {batch.x.device.type, batch.influence.device.type, batch.graph.device.type} == {"meta"}


def test_settings_are_checked() -> None:
    with pytest.raises(ValidationError, match="extra"):
        ClusteringConfig(nonsense=1)  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="conv must be 'gcn'"):
        ClusteringConfig(encoder="nonsense")
    with pytest.raises(ValidationError, match="widths"):
        ClusteringConfig(widths=())
    with pytest.raises(ValueError, match="num_features and num_clusters must be at least 1, got 3, 0"):
        PamC(3, 0)
    for kind in (PamC, SCGC, SCGCStar):
        config = kind.config_class(widths=(9, 4))
        assert kind.config_class.model_validate_json(config.model_dump_json()) == config


def test_bags_of_words_get_inverse_document_frequencies() -> None:
    words = (torch.rand(40, 30, generator=torch.Generator().manual_seed(0)) < 0.1).float()
    words[0] = 0
    none = torch.zeros(0, dtype=torch.int64)
    graph = SparseMatrix.from_coo(none, none, shape=(40, 40))
    weighed = words * (40 / (words != 0).sum(0).clamp(min=1)).log()
    for scaled in (words, 3 * words, words / words.sum(1, keepdim=True).clamp(min=1)):
        assert is_bag_of_words(scaled)
    for features in ("auto", "idf"):
        found = build("pamc", 30, 2, features=features).prepare_features(words, graph)
        torch.testing.assert_close(found, torch.nn.functional.normalize(weighed, dim=1))
    dense = drawn(0, 40, 30).abs()
    assert not any(is_bag_of_words(other) for other in (dense, words - 0.5, words * dense, words + 1, 0 * words))
    found = build("pamc", 30, 2).prepare_features(dense, graph)
    torch.testing.assert_close(found, torch.nn.functional.normalize(dense, dim=1))


def test_the_graph_is_completed_from_smoothed_rows() -> None:
    x, graph, _ = two_blocks(30)
    model = build("pamc", 12, 2, min_neighbors=4)
    completed = model.prepare_graph(x, graph)
    smooth = model.prepare_features(x, graph)
    torch.testing.assert_close(completed.to_dense(), link_sparse_nodes(graph, smooth, 4).to_dense())
    assert int(completed.row_offsets.diff()[:-1].min()) >= 4
    assert build("pamc", 12, 2, min_neighbors=0).prepare_graph(x, graph) is graph
