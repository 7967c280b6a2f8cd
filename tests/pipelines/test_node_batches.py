from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from graphcl.graphs import influence_matrix
from graphcl.kernels import SparseMatrix, normalize_symmetric
from graphcl.models import get_model
from graphcl.models.base_clustering import ClusteringBatch
from graphcl.pipelines.node_batches import FullGraph, NodeBatches, node_batch


def random_graph(size: int = 40, chance: float = 0.08, seed: int = 0) -> tuple[Tensor, SparseMatrix]:
    generator = torch.Generator().manual_seed(seed)
    upper = (torch.rand(size, size, generator=generator) < chance).float().triu(1)
    upper[:, -1] = 0  # the last node is isolated
    x = torch.randn(size, 6, generator=generator)
    return x, SparseMatrix.from_torch((upper + upper.T).to_sparse())


def test_a_batch_holds_the_whole_influence_rows_of_its_anchors() -> None:
    x, adjacency = random_graph()
    influence = influence_matrix(adjacency, 2)
    anchors = torch.tensor([7, 0, 39, 12])
    batch = node_batch(x, influence, anchors)
    torch.testing.assert_close(batch.x[:4], x[anchors])
    assert batch.num_anchors == 4
    assert batch.total == 4.0
    # Back to global columns by looking the features up: the dense rows are those of the whole matrix.
    place = [int((x == row).all(dim=1).nonzero()) for row in batch.x]
    assert len(set(place)) == len(place)
    dense = torch.zeros(4, 40)
    dense[:, place] = batch.influence.to_dense()
    torch.testing.assert_close(dense, influence.to_dense()[anchors])


def test_the_scratch_space_is_left_as_it_was() -> None:
    x, adjacency = random_graph()
    positions = torch.full((40,), -1)
    influence = influence_matrix(adjacency, 2)
    first = node_batch(x, influence, torch.arange(5), positions=positions)
    assert (positions == -1).all()
    again = node_batch(x, influence, torch.arange(5), positions=positions)
    torch.testing.assert_close(first.x, again.x)
    assert torch.equal(first.influence.columns, again.influence.columns)


@pytest.mark.parametrize("hops", [1, 2, 3])
def test_whole_neighbourhoods_give_the_embeddings_of_the_whole_graph(hops: int) -> None:
    x, adjacency = random_graph()
    operator = normalize_symmetric(adjacency, self_loops=1.0)
    batch = node_batch(
        x, influence_matrix(adjacency, 1), torch.tensor([3, 39, 20]), propagation=operator, fanout=[None] * hops
    )
    assert batch.graph is not None
    whole, local = x, batch.x
    for _ in range(hops):
        whole, local = torch.tanh(operator @ whole), torch.tanh(batch.graph @ local)
    torch.testing.assert_close(local[:3], whole[[3, 39, 20]])
    # The positives of the anchors are encoded as exactly: the attraction compares the two.
    place = [int((x == row).all(dim=1).nonzero()) for row in batch.x]
    used = sorted(set(batch.influence.columns.tolist()))
    torch.testing.assert_close(local[used], whole[[place[row] for row in used]])


def test_drawn_neighbours_keep_the_mean_of_the_sum() -> None:
    x, adjacency = random_graph(chance=0.4)
    operator = normalize_symmetric(adjacency, self_loops=1.0)
    generator = torch.Generator().manual_seed(0)
    anchors = torch.arange(40)
    sums = torch.zeros(40, 6)
    for _ in range(4000):
        batch = node_batch(
            x, influence_matrix(adjacency, 1), anchors, propagation=operator, fanout=[4], generator=generator
        )
        assert batch.graph is not None
        assert int(batch.graph.row_offsets.diff().max()) <= 4
        sums += batch.graph @ batch.x
    torch.testing.assert_close(sums / 4000, operator @ x, atol=0.06, rtol=0)


def test_an_epoch_visits_every_node_once_in_an_order_of_its_own() -> None:
    x, adjacency = random_graph()
    source = NodeBatches(x, influence_matrix(adjacency, 1), None, 12, seed=3)

    def visited(epoch: int) -> list[tuple[float, ...]]:
        return [tuple(row) for batch in source.batches(epoch, 0, 1) for row in batch.x[: batch.num_anchors].tolist()]

    assert source.num_targets == 40
    assert [batch.num_anchors for batch in source.batches(0, 0, 1)] == [12, 12, 12, 4]
    everything = {tuple(row) for row in x.tolist()}
    assert set(visited(0)) == set(visited(1)) == everything
    assert visited(0) == visited(0) != visited(1)


@pytest.mark.parametrize("phase", ["warmup", "cluster"])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("pamc", {}),
        ("pamc", {"meta_nodes": "soft"}),
        ("scgc_star", {}),
        ("pamc", {"encoder": "gcn"}),
        ("pamc", {"encoder": "appnp"}),
        ("pamc", {"encoder": "SAGEConv"}),
    ],
)
def test_one_batch_of_all_nodes_is_the_full_batch(phase: Any, name: str, settings: dict[str, Any]) -> None:
    x, adjacency = random_graph()
    kind = get_model(name, task="clustering")
    model = kind(6, 3, kind.config_class(widths=(8, 4), **settings), generator=torch.Generator().manual_seed(0))
    features, influence, operator = (
        model.prepare_features(x, adjacency), model.influence(adjacency), model.propagation(adjacency),
    )  # fmt: skip
    model.initialize_clusters(model.encode(features, operator), seed=0)
    full = ClusteringBatch(features, influence, operator, 40, phase, None, 40.0)
    mass = model.soft_assignment(model.encode(features, operator)).sum(dim=0).detach()

    def loss_and_gradient(batch: ClusteringBatch) -> tuple[Tensor, list[Tensor]]:
        model.zero_grad()
        loss, _ = model.objective(batch)
        loss.backward()
        return loss.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]

    expected, gradient = loss_and_gradient(next(iter(FullGraph(full).batches(0, 0, 1))))
    fanout = [None] * (model.num_hops if model.needs_graph else 0)
    (batch,) = NodeBatches(features, influence, operator, 40, fanout, seed=1).batches(0, 0, 1)
    found, same = loss_and_gradient(replace(batch, phase=phase, cluster_mass=mass))
    torch.testing.assert_close(found, expected)
    assert len(gradient) == len(same) > 0
    for ours, theirs in zip(same, gradient, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=2e-4)
