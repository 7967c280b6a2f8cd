from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric.data import Data

from graphcl.data.graph_generators import stochastic_block_model
from graphcl.errors import InputError
from graphcl.kernels import SparseMatrix
from graphcl.models import get_model
from graphcl.models.bgrl import BGRL, BGRLConfig, bootstrap_distance
from graphcl.models.dgi import DGI, DGIConfig, summary_contrast
from graphcl.models.grace import GRACE, GRACEConfig
from graphcl.models.mvgrl import MVGRL, MVGRLConfig
from graphcl.pipelines import NodeEmbedder

NAMES = ("bgrl", "dgi", "grace", "mvgrl")
NODES = 36


def blocks() -> Data:
    return stochastic_block_model(NODES, 3, num_features=6, separation=1.5, mixing=0.1, average_degree=4, seed=0)


def words() -> Data:
    """The same graph with bags of words: few of many features are not 0."""
    graph = blocks()
    graph.x = (torch.rand(NODES, 50, generator=torch.Generator().manual_seed(3)) < 0.06).float()
    return graph


def small(name: str, graph: Data | None = None, **settings: Any) -> tuple[Any, Any]:
    """Model and inputs with few weights."""
    kind = get_model(name)
    config = kind.config_class(**{"widths": (8, 4), **settings})
    generator = torch.Generator().manual_seed(0)
    inputs = kind.prepare(blocks() if graph is None else graph, config, generator=generator)
    return kind.from_inputs(inputs, config, generator=generator), inputs


@pytest.mark.parametrize("name", NAMES)
def test_a_step_reaches_every_trained_weight_and_lowers_the_loss(name: str) -> None:
    model, inputs = small(name)
    assert issubclass(type(model), torch.nn.Module)
    assert "default" in type(model).presets
    assert inputs.full() is inputs.full()
    optimizer = torch.optim.Adam([weight for weight in model.parameters() if weight.requires_grad], lr=0.01)
    losses = []
    for epoch in range(40):
        torch.manual_seed(epoch % 2)
        model.on_epoch_start(epoch)
        loss, parts = model.objective(inputs.full())
        assert next(iter(parts.values())) == loss.detach()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    for weight_name, weight in model.named_parameters():
        if weight.requires_grad:
            assert weight.grad is not None, weight_name
            assert bool(weight.grad.isfinite().all()), weight_name
    assert sum(losses[-4:]) < sum(losses[:4])
    z = model.eval().embed(inputs.full())
    assert z.shape == (NODES, 4)
    assert model.state_dict().keys() == small(name)[0].state_dict().keys()


@pytest.mark.parametrize("name", NAMES)
def test_weights_and_views_follow_their_seeds(name: str) -> None:
    losses = []
    for _ in range(2):
        model, inputs = small(name)
        torch.manual_seed(3)
        losses.append(float(model.objective(inputs.full())[0].detach()))
    assert losses[0] == losses[1]


@pytest.mark.parametrize("name", ["grace", "dgi", "mvgrl"])
def test_any_convolution_encodes(name: str) -> None:
    model, inputs = small(name, conv="SAGEConv")
    assert bool(model.objective(inputs.full())[0].isfinite())


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_with_all_neighbours_embeds_as_the_full_form(name: str) -> None:
    model, inputs = small(name)
    model.eval()
    nodes = torch.tensor([5, 0, 17])
    # One step more than there are convolutions, for the degrees of the outermost nodes.
    part = model.embed(inputs.batch(nodes, fanout=(None, None, None)))
    torch.testing.assert_close(part, model.embed(inputs.full())[nodes])
    sampled = inputs.batch(nodes, fanout=(2, 2), generator=torch.Generator().manual_seed(0))
    assert sampled.x.shape[0] <= (3 + 6 + 12) * (4 if name == "mvgrl" else 1)
    assert sampled.total == 3.0


@pytest.mark.parametrize("features", ["dense", "sparse"])
@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_all_nodes_is_the_full_form(name: str, features: str) -> None:
    model, inputs = small(name, words() if features == "sparse" else None)
    assert isinstance(inputs.x, SparseMatrix) == (features == "sparse")

    def loss_and_gradient(batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        model.zero_grad()
        torch.manual_seed(7)
        loss, _ = model.objective(batch)
        loss.backward()
        return loss.detach(), {key: w.grad.clone() for key, w in model.named_parameters() if w.grad is not None}

    expected, gradient = loss_and_gradient(inputs.full())
    found, same = loss_and_gradient(inputs.batch(torch.arange(NODES), fanout=(None, None)))
    torch.testing.assert_close(found, expected)
    assert gradient.keys() == same.keys() != set()
    for key, value in gradient.items():
        torch.testing.assert_close(same[key], value, atol=1e-6, rtol=1e-4, msg=key)


@pytest.mark.parametrize("conv", ["gcn", "SAGEConv"])
@pytest.mark.parametrize("name", NAMES)
def test_sparse_features_give_what_dense_ones_do(name: str, conv: str) -> None:
    model, inputs = small(name, words(), conv=conv)
    assert isinstance(inputs.x, SparseMatrix)
    dense = replace(inputs, x=inputs.x.to_dense())
    losses = []
    for form in (inputs, dense):
        torch.manual_seed(2)
        losses.append(model.objective(form.full())[0].detach())
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(model.embed(inputs.full()), model.embed(dense.full()))


def test_grace_is_its_formula() -> None:
    model, inputs = small("grace", edge_drop=(0.0, 0.0), feature_mask=(0.0, 0.0), temperature=0.5)
    batch = inputs.full()
    rows = torch.nn.functional.normalize(model.project(model.encoder(batch.x, batch.edge_index))).double()
    similar = (rows @ rows.T / 0.5).exp()
    # Both views are equal here: the twin has similarity 1 and every other node counts twice.
    denominator = 2 * similar.sum(dim=1) - similar.diagonal()
    expected = -(similar.diagonal() / denominator).log().mean()
    assert float(model.objective(batch)[0].detach()) == pytest.approx(float(expected), rel=1e-5)


def test_the_losses_are_their_formulas_and_differentiable() -> None:
    generator = torch.Generator().manual_seed(1)
    rows, other = (torch.randn(4, 3, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(2))
    summary = torch.randn(3, generator=generator, dtype=torch.float64, requires_grad=True)
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    scores = torch.cat([rows @ summary, other @ summary])
    expected = bce(scores, torch.cat([torch.ones(4), torch.zeros(4)]).double())
    torch.testing.assert_close(summary_contrast(rows, other, summary), expected)
    assert torch.autograd.gradcheck(summary_contrast, (rows, other, summary))
    cosine = torch.nn.functional.cosine_similarity(rows, other).mean()
    torch.testing.assert_close(bootstrap_distance(rows, other), 1 - cosine)
    assert torch.autograd.gradcheck(lambda part: bootstrap_distance(part, other.detach()), (rows,))
    bootstrap_distance(rows, other).backward()  # type: ignore[no-untyped-call]
    assert other.grad is None
    with pytest.raises(ValueError, match=r"corrupted must have shape \(N, 3\)"):
        summary_contrast(rows, torch.zeros(2, 2), summary)
    with pytest.raises(ValueError, match="one shape"):
        bootstrap_distance(rows, other[:2])


def test_the_target_of_bgrl_moves_slowly_towards_the_encoder() -> None:
    model, _ = small("bgrl", momentum=0.75)
    with torch.no_grad():
        for weight in model.encoder.parameters():
            weight.add_(1.0)
    before = [weight.clone() for weight in model.target.parameters()]
    model.on_epoch_start(0)
    model.on_epoch_start(1)
    for old, new in zip(before, model.target.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.25)
        assert not new.requires_grad


def test_mvgrl_has_a_bounded_diffusion_that_is_sampled_without_bias() -> None:
    _, inputs = small("mvgrl", diffusion_k=12)
    assert inputs.diffusion.num_entries <= 12 * NODES
    nodes, ones = torch.arange(6), 0.0
    generator = torch.Generator().manual_seed(0)
    for _ in range(400):
        ones = ones + inputs.batch(nodes, fanout=(4,), generator=generator).diffusion.row_sums()[:6]
    torch.testing.assert_close(torch.as_tensor(ones) / 400, inputs.diffusion.row_sums()[:6], atol=0.04, rtol=0)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="the graph has no features"):
        GRACE.prepare(Data(edge_index=torch.tensor([[0], [1]]), num_nodes=2), GRACEConfig())
    assert (BGRL.config_class, DGI.config_class, MVGRL.config_class) == (BGRLConfig, DGIConfig, MVGRLConfig)


@pytest.mark.parametrize("name", NAMES)
def test_the_pipeline_trains_them_by_name(name: str) -> None:
    graph = blocks()
    assert graph.y is not None
    part = torch.arange(NODES) % 3
    graph.train_mask, graph.val_mask, graph.test_mask = part == 0, part == 1, part == 2
    embedder = NodeEmbedder(name, widths=(8, 4), epochs=2, progress=False, probe_repeats=2, clusterings=1).fit(graph)
    metrics = embedder.evaluate().metrics.to_dict()
    for measure in ("macro_f1", "auc", "logistic_accuracy", "knn_accuracy", "nmi", "link_auc"):
        value = metrics[measure]
        assert value is not None
        assert math.isfinite(value)
    assert embedder.embed().vectors.shape == (NODES, 4)
