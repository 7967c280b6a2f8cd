from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from graphcl.errors import InputError
from graphcl.functional import info_nce
from graphcl.graphs import BipartiteGraph
from graphcl.kernels import SparseMatrix, normalize_rows
from graphcl.models import (
    MMHCL,
    SGL,
    LightGCL,
    LightGCN,
    LightGCNConfig,
    MMHCLConfig,
    PairBatch,
    SGLConfig,
    SimGCL,
    SimGCLConfig,
    XSimGCL,
    build_config,
    get_model,
    list_models,
)
from graphcl.models.base_collaborative import CollaborativeModel, normalized_adjacency, score_gaps, weighted_squares
from graphcl.models.mmhcl import user_operator
from graphcl.models.sgl import batch_contrast
from graphcl.views.graphs import embedding_noise

NAMES = list_models("collaborative")
USERS, ITEMS = 9, 7


def toy_graph() -> BipartiteGraph:
    generator = torch.Generator().manual_seed(1)
    edges = torch.rand(USERS, ITEMS, generator=generator) < 0.4
    edges[3] = False  # a user without items
    edges[:, 5] = False  # an item without users
    user, item = edges.nonzero(as_tuple=True)
    return BipartiteGraph(USERS, ITEMS, user, item)


def toy_incidence() -> SparseMatrix:
    rows = torch.tensor([0, 1, 1, 2, 3, 5, 5, 6])
    columns = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    return SparseMatrix.from_coo(rows, columns, shape=(ITEMS, 4))


def toy_model(name: str, **settings: Any) -> CollaborativeModel:
    model_class = get_model(name)
    config = build_config(model_class.config_class, {"hidden": 6, **settings})
    more = {"item_incidence": toy_incidence()} if model_class.uses_item_hypergraph else {}
    model: CollaborativeModel = model_class(toy_graph(), config, generator=torch.Generator().manual_seed(0), **more)
    model.on_epoch_start(0, torch.Generator().manual_seed(5))
    return model


def toy_batch() -> PairBatch:
    return PairBatch(
        torch.tensor([0, 1, 4, 4]), torch.tensor([1, 2, 0, 1]), torch.tensor([5, 0, 3, 6]), torch.tensor([1, 5, 5]), 4
    )


def test_all_methods_are_registered() -> None:
    assert NAMES == ["lightgcl", "lightgcn", "mmhcl", "sgl", "simgcl", "xsimgcl"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("objective", "regularizer"),
    [
        ("bpr", "ego_rows"),
        ("bpr", "all_tables"),
        ("sampled_softmax", "final_rows"),
        ("sampled_softmax", "ego_rows"),
        ("full_softmax", "row_norms"),
    ],
)
def test_every_objective_trains_every_table(name: str, objective: str, regularizer: str) -> None:
    model = toy_model(name, objective=objective, regularizer=regularizer)
    batch = toy_batch()
    if objective != "bpr":
        batch = PairBatch(batch.users, batch.positives, None, batch.candidates, batch.total)
    loss, parts = model.objective(batch)
    torch.testing.assert_close(loss.detach(), torch.stack(list(parts.values())).sum())
    assert {objective, "regularization"} <= parts.keys()
    for table, grad in zip(model.tables(), torch.autograd.grad(loss, model.tables()), strict=True):
        assert grad.shape == table.shape
        assert bool(torch.isfinite(grad).all())
        assert bool(grad.any())


@pytest.mark.parametrize("name", NAMES)
def test_descent_lowers_the_loss_and_ranks_what_was_met(name: str) -> None:
    model = toy_model(name, regularization=0.0)
    graph = model.graph
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(60):
        unmet = torch.ones(USERS, ITEMS)
        unmet[graph.user, graph.item] = 0
        negatives = torch.multinomial(unmet[graph.user], 1, generator=generator)[:, 0]
        loss = model.objective(PairBatch(graph.user, graph.item, negatives, None, graph.num_edges))[0]
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    with torch.no_grad():
        users, items = model()
    scores = users @ items.T
    met = torch.zeros(USERS, ITEMS, dtype=torch.bool)
    met[graph.user, graph.item] = True
    pairs = [scores[user][met[user]][:, None] > scores[user][~met[user]] for user in range(USERS)]
    assert float(torch.cat([above.flatten() for above in pairs]).float().mean()) > 0.9


@pytest.mark.parametrize("name", NAMES)
def test_weights_alone_restore_a_model(name: str) -> None:
    model, other = toy_model(name), toy_model(name)
    with torch.no_grad():
        for table in other.parameters():
            table.add_(1.0)
    other.load_state_dict(model.state_dict())
    for one, two in zip(model(), other(), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_step(name: str) -> None:
    losses = [toy_model(name).objective(toy_batch())[0].detach() for _ in range(2)]
    assert torch.equal(losses[0], losses[1])


def test_a_user_without_items_stays_finite() -> None:
    for name in NAMES:
        users, items = toy_model(name)()
        assert bool(torch.isfinite(users).all())
        assert bool(torch.isfinite(items).all())


def test_regularizers_by_loops() -> None:
    batch = toy_batch()
    assert batch.negatives is not None
    for kind in ("ego_rows", "final_rows", "row_norms", "all_tables"):
        model = toy_model("lightgcn", regularizer=kind, regularization=0.3).double()
        users, items = model()
        if kind == "ego_rows":
            users, items = model.split(model.embedding)
        rows = [users[batch.users], items[batch.positives], items[batch.negatives]]
        expected = {
            "ego_rows": sum(float(r.square().sum()) for r in rows) / 8,
            "final_rows": sum(float(r.square().sum()) for r in rows) / 8,
            "row_norms": sum(float(r.norm()) / 4 for r in rows),
            "all_tables": float(model.embedding.square().sum()),
        }[kind]
        assert float(model.objective(batch)[1]["regularization"]) == pytest.approx(0.3 * expected)


def test_weighted_squares_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(4, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    weight = torch.tensor([2.0, 0.0, 1.0, 3.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda t: weighted_squares(t, weight).sqrt(), (table,))
    assert torch.autograd.gradgradcheck(lambda t: weighted_squares(t, weight).sqrt(), (table,))


@pytest.mark.parametrize("limit", [0, 100])
def test_score_gaps_small_and_large(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphcl.models.base_collaborative._GATHERED_PAIRS", limit)
    generator = torch.Generator().manual_seed(0)
    users = torch.randn(5, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    items = torch.randn(4, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    user, one, two = torch.tensor([4, 0, 4, 2]), torch.tensor([1, 1, 3, 0]), torch.tensor([2, 0, 1, 1])
    expected = (users[user] * (items[one] - items[two])).sum(1)
    torch.testing.assert_close(score_gaps(users, items, user, one, two).sort().values, expected.sort().values)

    def function(u: Tensor, i: Tensor) -> Tensor:
        return score_gaps(u, i, user, one, two).square().sum()

    assert torch.autograd.gradcheck(function, (users, items))


def test_large_graphs_are_not_assembled(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = toy_graph()
    whole = normalized_adjacency(graph)
    monkeypatch.setattr("graphcl.models.base_collaborative._ASSEMBLED_EDGES", 1)
    x = torch.randn(USERS + ITEMS, 2)
    torch.testing.assert_close(normalized_adjacency(graph) @ x, whole @ x)


def test_simgcl_shares_the_propagation_of_its_three_passes() -> None:
    model = toy_model("simgcl", layers=3)
    assert isinstance(model, SimGCL)
    model.generator = torch.Generator().manual_seed(3)
    clean, first, second = model.three_passes()
    torch.testing.assert_close(clean, model.convolution(model.embedding, model.operator()))
    # The draws go layer by layer, view 1 before view 2.
    generator = torch.Generator().manual_seed(3)
    layers: list[list[Tensor]] = [[model.embedding], [model.embedding]]
    for _ in range(3):
        for view in layers:
            view.append(embedding_noise(model.operator() @ view[-1], 0.1, generator))
    for view, got in zip(layers, (first, second), strict=True):
        torch.testing.assert_close(got, torch.stack(view[1:]).mean(0))


def test_xsimgcl_ranks_and_contrasts_one_noisy_pass() -> None:
    model = toy_model("xsimgcl", contrast_layer=2)
    assert isinstance(model, XSimGCL)
    average, layer = model.noisy_pass()
    assert not torch.equal(average, model.convolution(model.embedding, model.operator()))
    assert not torch.equal(average, layer)


def test_sgl_views_keep_their_share_and_change_every_epoch() -> None:
    for augmentation in ("edge_drop", "node_drop", "random_walk"):
        model = toy_model("sgl", augmentation=augmentation, drop_rate=0.3)
        assert isinstance(model, SGL)
        first = [view.detach().clone() for view in model.view_embeddings()]
        assert not torch.equal(first[0], first[1])
        model.on_epoch_start(1, torch.Generator().manual_seed(6))
        assert not torch.equal(first[0], model.view_embeddings()[0])
    whole = toy_model("sgl", drop_rate=0.0)
    assert isinstance(whole, SGL)
    torch.testing.assert_close(whole.view_embeddings()[0], torch.cat(whole()))


def test_sgl_needs_its_views() -> None:
    model = SGL(toy_graph(), SGLConfig(hidden=4))
    with pytest.raises(ValueError, match="call on_epoch_start"):
        model.view_embeddings()


def test_batch_contrast_with_all_nodes_as_negatives() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = ((torch.randn(5, 3, generator=generator), torch.randn(4, 3, generator=generator)) for _ in range(2))
    batch = PairBatch(torch.tensor([4, 0, 4]), torch.tensor([1, 2, 1]), None, None, 3)
    expected = torch.zeros(())
    for one, two, ids in zip(first, second, (batch.users, batch.positives), strict=True):
        logits = normalize_rows(one)[ids] @ normalize_rows(two).T / 0.3
        expected = expected + torch.nn.functional.cross_entropy(logits, ids, reduction="sum")
    torch.testing.assert_close(batch_contrast(first, second, batch, temperature=0.3, negatives="all"), expected)
    separate = info_nce(first[0][[0, 4]], second[0][[0, 4]], temperature=0.3) + info_nce(
        first[1][[1, 2]], second[1][[1, 2]], temperature=0.3
    )
    torch.testing.assert_close(batch_contrast(first, second, batch, temperature=0.3), separate)


def test_user_operator_is_the_dense_formula() -> None:
    graph = toy_graph()
    dense = torch.zeros(USERS, ITEMS)
    dense[graph.user, graph.item] = 1
    product = dense @ dense.T
    product.fill_diagonal_(0)
    sums = product.sum(1, keepdim=True)
    torch.testing.assert_close(user_operator(graph).to_dense(), torch.where(sums > 0, product / sums.clamp(min=1), 0.0))


def test_mmhcl_without_a_branch_is_lightgcn_there() -> None:
    plain = MMHCL(toy_graph(), MMHCLConfig(hidden=6, user_weight=0.0), generator=torch.Generator().manual_seed(0))
    light = LightGCN(toy_graph(), LightGCNConfig(hidden=6, layers=2), generator=torch.Generator().manual_seed(0))
    for one, two in zip(plain(), light(), strict=True):
        torch.testing.assert_close(one, two)
    assert sorted(plain.objective(toy_batch())[1]) == ["bpr", "regularization"]
    assert len(plain.tables()) == 1


def test_mmhcl_reads_the_pair_both_ways() -> None:
    fused, first = (toy_model("mmhcl", contrast=contrast) for contrast in ("fused", "first_order"))
    parts = [model.objective(toy_batch())[1] for model in (fused, first)]
    assert float(parts[0]["bpr"]) == float(parts[1]["bpr"])
    # At the start the fused vector is almost its own hypergraph part, the first-order one is unrelated to it.
    assert float(parts[0]["user_contrast"]) < float(parts[1]["user_contrast"])


def test_mmhcl_anchors_are_drawn_anew() -> None:
    model = toy_model("mmhcl", anchors=3)
    values = {float(model.objective(toy_batch())[1]["user_contrast"]) for _ in range(5)}
    assert len(values) > 1
    exact = float(toy_model("mmhcl").objective(toy_batch())[1]["user_contrast"])
    model.generator = torch.Generator().manual_seed(0)
    mean = sum(float(model.objective(toy_batch())[1]["user_contrast"]) for _ in range(300)) / 300
    assert mean == pytest.approx(exact, rel=0.02)


def test_cold_items_are_ranked_through_their_hyperedges() -> None:
    model = toy_model("mmhcl")
    assert isinstance(model, MMHCL)
    both = model.embeddings()
    assert both.second_items is not None
    items = model()[1]
    cold = model.is_cold.nonzero()[:, 0].tolist()
    assert 5 in cold
    # Item 5 shares hyperedges 2 and 3 with items 3 and 6, and takes the mean of their first-order parts.
    lent = [other for other in (3, 6) if other not in cold]
    expected = both.first_items[lent].mean(0) + normalize_rows(both.second_items)[5]
    torch.testing.assert_close(items[5], expected)
    warm = [item for item in range(ITEMS) if item not in cold]
    torch.testing.assert_close(items[warm], both.items[warm])
    torch.testing.assert_close(toy_model("mmhcl", cold_items="own")()[1], both.items)


def test_rewired_shares_weights_and_leaves_the_model_alone() -> None:
    model = toy_model("mmhcl")
    assert isinstance(model, MMHCL)
    before = model()[1].detach().clone()
    bare = model.rewired(None)
    torch.testing.assert_close(bare()[1], model.embeddings().first_items)
    torch.testing.assert_close(model()[1], before)
    with pytest.raises(ValueError, match="must have 7 rows"):
        model.rewired(SparseMatrix.from_coo(torch.tensor([0]), torch.tensor([0]), shape=(2, 1)))


def test_lightgcl_dropout_is_drawn_by_the_generator() -> None:
    model = toy_model("lightgcl", dropout=0.5)
    assert isinstance(model, LightGCL)
    model.generator = torch.Generator().manual_seed(0)
    one = model.layers(dropout=0.5).users
    assert not torch.equal(one, model.layers(dropout=0.5).users)
    model.generator = torch.Generator().manual_seed(0)
    torch.testing.assert_close(model.layers(dropout=0.5).users, one)
    torch.testing.assert_close(model()[0], model.layers().users)


def test_lightgcl_original_form_trains_its_matrices() -> None:
    model = toy_model("lightgcl", form="original")
    loss, parts = model.objective(toy_batch())
    assert set(parts) == {"bpr", "contrast", "regularization"}
    assert all(bool(grad.any()) for grad in torch.autograd.grad(loss, model.tables()))


def test_moving_the_model_moves_its_operators() -> None:
    model = toy_model("mmhcl")
    model()
    users, items = model.double()()
    assert users.dtype == items.dtype == torch.float64


def test_wrong_input_is_named() -> None:
    with pytest.raises(ValueError, match="negatives are needed for the objective bpr"):
        toy_model("lightgcn").objective(PairBatch(torch.tensor([0]), torch.tensor([1]), None, None, 1))
    with pytest.raises(ValueError, match="candidates are needed"):
        toy_model("lightgcn", objective="sampled_softmax").objective(
            PairBatch(torch.tensor([0]), torch.tensor([1]), None, None, 1)
        )
    with pytest.raises(InputError, match="contrast_layer must be at most layers"):
        toy_model("xsimgcl", layers=2, contrast_layer=3)
    with pytest.raises(InputError, match="did you mean 'temperature'"):
        build_config(SimGCLConfig, {"temprature": 0.2})
    with pytest.raises(ValueError, match="must have users and items"):
        LightGCN(BipartiteGraph.from_arrays([], [], num_users=0, num_items=3))
    with pytest.raises(ValueError, match="item_incidence must have 7 rows, got 2"):
        MMHCL(toy_graph(), item_incidence=SparseMatrix.from_coo(torch.tensor([0]), torch.tensor([0]), shape=(2, 1)))
