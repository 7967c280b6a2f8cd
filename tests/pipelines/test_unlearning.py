"""Forgetting users, items and nodes: what is gone, what stays, what attacks still find, and bad input."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch_geometric.data import Data, HeteroData

from graphcl.data import Interactions, Split, leave_one_out, split_by_ratio, synthetic_shop
from graphcl.errors import InputError
from graphcl.pipelines import (
    CollaborativeRecommender,
    NodeEmbedder,
    SequentialRecommender,
    TrainedPipeline,
    Unlearner,
    create_pipeline,
    load_pipeline,
)
from graphcl.pipelines.unlearning import forget_representations
from graphcl.pipelines.unlearning_data import RankingRemoval, plan_removal, split_without
from graphcl.pipelines.unlearning_graphs import graph_with_isolated, graph_without
from graphcl.pipelines.unlearning_report import overlap, win_rate

QUICK: dict[str, Any] = {"epochs": 3, "hidden": 8, "progress": False}
SHORT: dict[str, Any] = {"steps": 3, "autoencoder_steps": 20, "repair_epochs": 1}


@pytest.fixture(scope="module")
def shop() -> Split:
    return leave_one_out(synthetic_shop(num_users=80, num_items=40, num_categories=5, seed=0))


@pytest.fixture(scope="module")
def lightgcn(shop: Split) -> CollaborativeRecommender:
    return CollaborativeRecommender("lightgcn", **QUICK).fit(shop)


@pytest.fixture(scope="module")
def sasrec(shop: Split) -> SequentialRecommender:
    return SequentialRecommender("sasrec", max_length=10, **QUICK).fit(shop)


def blocks(labelled: bool = True) -> Data:
    generator = np.random.default_rng(0)
    group = np.repeat(np.arange(3), 20)
    linked = generator.random((60, 60)) < np.where(group[:, None] == group, 0.3, 0.02)
    edges = np.stack(np.nonzero(np.triu(linked, 1)))
    features = np.eye(3)[group] + 0.5 * generator.random((60, 3))
    graph = Data(
        x=torch.from_numpy(np.concatenate([features, generator.random((60, 5))], axis=1)).float(),
        edge_index=torch.from_numpy(np.concatenate([edges, edges[::-1]], axis=1)),
        num_nodes=60,
    )
    graph.node_ids = [f"n{node}" for node in range(60)]
    if labelled:
        graph.y = torch.from_numpy(group)
    return graph


@pytest.fixture(scope="module")
def grace() -> NodeEmbedder:
    light = {"probe_repeats": 1, "clusterings": 1, "random_splits": 1}
    return NodeEmbedder("grace", widths=(8, 4), projection=8, epochs=5, progress=False, **light).fit(blocks())


def snapshot(pipeline: TrainedPipeline[Any]) -> tuple[dict[str, torch.Tensor], str, dict[str, Any], dict[str, Any]]:
    model, data = pipeline._fitted()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return state, pipeline._hash_data(data), pipeline.get_config(), copy.deepcopy(vars(pipeline._state))


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


# What is gone


def test_split_without_equals_a_filter_by_external_ids(shop: Split) -> None:
    users, items = np.array([0, 17, 79]), np.array([5, 6])
    rest = split_without(shop, users, items)
    log, left = shop.interactions, rest.interactions
    gone_users, gone_items = set(log.user_ids.to_external(users)), set(log.item_ids.to_external(items))
    expected = [
        (user, item, time, part)
        for user, item, time, part in zip(
            log.user_ids.to_external(log.user).tolist(),
            log.item_ids.to_external(log.item).tolist(),
            np.asarray(log.time).tolist(),
            shop.part.tolist(),
            strict=True,
        )
        if user not in gone_users and item not in gone_items
    ]
    found = list(
        zip(
            left.user_ids.to_external(left.user).tolist(),
            left.item_ids.to_external(left.item).tolist(),
            np.asarray(left.time).tolist(),
            rest.part.tolist(),
            strict=True,
        )
    )
    assert found == expected
    assert (left.num_users, left.num_items) == (log.num_users - 3, log.num_items - 2)
    assert left.item_features is not None
    assert not set(left.item_features["item"]) & gone_items
    assert left.report.dropped[-1].count == len(log) - len(left)


@pytest.mark.parametrize("model", ["lightgcn", "lightgcl", "simgcl", "mmhcl", "sasrec", "gru4rec", "cl4srec"])
def test_what_is_forgotten_is_unknown_afterwards(shop: Split, model: str, tmp_path: Path) -> None:
    settings = QUICK if model in ("lightgcn", "lightgcl", "simgcl", "mmhcl") else {**QUICK, "max_length": 10}
    pipeline: Any = create_pipeline(model, settings)
    arguments: dict[str, Any] = {}
    if model == "mmhcl":
        features = np.random.default_rng(0).normal(size=(shop.interactions.num_items, 4)).astype(np.float32)
        arguments["item_features"] = _item_vectors(shop, features)
    pipeline.fit(shop, **arguments)
    ids = shop.interactions
    users, items = ids.user_ids.external[[3, 4]].tolist(), ids.item_ids.external[[7]].tolist()
    after, report = Unlearner(**SHORT).forget(pipeline, users=users, items=items)
    assert report.forgotten["users"] == 2
    assert report.forgotten["items"] == 1
    lists = after.recommend(None, k=ids.num_items)
    assert not set(lists["item"]) & set(items)
    assert not set(lists["user"]) & set(users)
    with pytest.raises(InputError, match="is unknown or has no history"):
        after.recommend(users)
    assert items[0] not in after.embed("items").ids
    after.save(tmp_path / "run")
    table = pl.read_parquet(tmp_path / "run" / "ids.parquet")
    assert not set(table.filter(pl.col("role") == "user")["id"]) & set(map(str, users))
    assert not set(table.filter(pl.col("role") == "item")["id"]) & set(map(str, items))
    for name, tensor in after._fitted()[0].state_dict().items():
        assert torch.isfinite(tensor.float()).all(), name


def _item_vectors(split: Split, vectors: np.ndarray[Any, Any]) -> Any:
    from graphcl.data import read_item_features

    table = pl.DataFrame({"item": split.interactions.item_ids.external, **{f"f{n}": vectors[:, n] for n in range(4)}})
    return read_item_features({"image": table}, split.interactions.item_ids)


def test_nearest_neighbour_hyperedges_of_a_forgotten_item_go(shop: Split) -> None:
    features = _item_vectors(shop, np.random.default_rng(1).normal(size=(shop.interactions.num_items, 4)))
    pipeline = CollaborativeRecommender("mmhcl", **QUICK).fit(shop, item_features=features)
    gone = np.array([2, 11])
    removal = RankingRemoval.of(pipeline, [], shop.interactions.item_ids.to_external(gone).tolist())
    dense = pipeline._blocks["image"].to_dense()
    kept = np.delete(np.arange(dense.shape[0]), gone)
    blank: Any = removal.blank()
    assert torch.equal(blank._blocks["image"].to_dense(), dense[kept][:, kept])


def test_graph_without_nodes_equals_the_induced_subgraph(grace: NodeEmbedder) -> None:
    _, whole = grace._fitted()
    gone = np.array([0, 25, 59])
    rest = graph_without(whole, gone)
    kept = np.delete(np.arange(60), gone)
    dense = torch.zeros(60, 60)
    dense[whole.graph.edge_index[0], whole.graph.edge_index[1]] = 1
    found = torch.zeros(57, 57)
    found[rest.graph.edge_index[0], rest.graph.edge_index[1]] = 1
    assert torch.equal(found, dense[kept][:, kept])
    assert torch.equal(rest.graph.x, whole.graph.x[kept])
    assert rest.ids.to_list() == [f"n{node}" for node in kept]
    assert rest.labels is not None
    assert whole.labels is not None
    assert torch.equal(rest.labels, whole.labels[kept])
    isolated = graph_with_isolated(whole, gone)
    assert isolated.num_nodes == 60
    assert not np.isin(isolated.edge_index.numpy(), gone).any()
    assert whole.graph.edge_index.shape[1] == int(dense.sum())


def test_features_made_from_edges_are_made_again() -> None:
    graph = blocks()
    del graph.x
    light = {"probe_repeats": 1, "clusterings": 1, "random_splits": 1}
    embedder = NodeEmbedder("dgi", widths=(4,), layers=1, epochs=2, progress=False, **light).fit(graph)
    whole = embedder._fitted()[1]
    bare = Data(edge_index=graph_without(whole, np.array([5])).graph.edge_index, num_nodes=59)
    from graphcl.graphs.conversion import adjacency
    from graphcl.pipelines.cluster_graphs import structure_features

    rest = graph_without(whole, np.array([5]))
    made = structure_features(adjacency(bare))
    # 60 nodes have 59 such features, 59 nodes have 58: the old model's first layer cannot read them.
    assert torch.allclose(rest.graph.x, made, atol=1e-5)
    with pytest.raises(InputError, match=r"encoder\..* whose rows cannot be told apart; train again without"):
        Unlearner(**SHORT).forget(embedder, nodes=["n5"])


def test_a_forgotten_node_is_gone(grace: NodeEmbedder, tmp_path: Path) -> None:
    after, report = Unlearner(**SHORT).forget(grace, nodes=["n3", "n40"], compare_retraining=True)
    assert report.forgotten["nodes"] == 2
    assert report.forgotten["edges"] == grace._fitted()[1].num_edges - after._fitted()[1].num_edges
    assert after.embed().ids.tolist() == [f"n{node}" for node in range(60) if node not in (3, 40)]
    assert set(report.membership) == {"before", "after", "retrained"}
    assert report.membership["before"]["edges"] is not None
    after.save(tmp_path / "run")
    loaded: Any = load_pipeline(tmp_path / "run")
    assert np.array_equal(loaded.embed().vectors, after.embed().vectors)
    assert loaded.unlearning == after.unlearning


def test_nodes_of_an_embedder_that_samples(grace: NodeEmbedder) -> None:
    settings = {**grace.get_config(), "batch_size": 16, "epochs": 2}
    sampling = NodeEmbedder.from_config(settings).fit(blocks())
    runs = [Unlearner(**SHORT).forget(sampling, nodes=["n8"])[0] for _ in range(2)]
    assert runs[0].embed().vectors.shape == (59, 4)
    assert same(*(run._fitted()[0].state_dict() for run in runs))
    assert not same(runs[0]._fitted()[0].state_dict(), sampling._fitted()[0].state_dict())


def test_nodes_of_a_graph_with_types() -> None:
    graph = HeteroData(metapaths=["PAP"], target="paper")
    graph["paper"].x, graph["author"].num_nodes = torch.eye(8), 3
    graph["paper", "to", "author"].edge_index = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 7], [0, 0, 1, 1, 2, 2, 0, 1]])
    embedder = NodeEmbedder("heco", hidden=8, num_positives=2, epochs=2, progress=False).fit(graph)
    after, report = Unlearner(**SHORT).forget(embedder, nodes=[6])
    assert after.embed().ids.tolist() == [0, 1, 2, 3, 4, 5, 7]
    assert report.membership["after"] == {"edges": None}
    assert not (after._fitted()[1].graph["paper", "to", "author"].edge_index[0] == 7).any()


# What stays


@pytest.mark.parametrize("name", ["lightgcn", "sasrec", "grace"])
def test_the_original_stays_to_the_bit(name: str, request: pytest.FixtureRequest) -> None:
    pipeline = request.getfixturevalue(name)
    before = snapshot(pipeline)
    what: dict[str, Any] = {"nodes": ["n1"]} if name == "grace" else {"users": [2], "items": [3]}
    Unlearner(**SHORT).forget(pipeline, **what)
    state, data, config, training = snapshot(pipeline)
    assert same(state, before[0])
    assert (data, config, training) == before[1:]
    assert pipeline.unlearning is None


def test_rows_that_stay_are_carried_and_rows_that_nothing_trains_start_afresh() -> None:
    # Item 9 is met by user 0 alone, in training.
    users = [0, 0, 0, 0] + [user for user in range(1, 12) for _ in range(4)]
    items = [9, 1, 2, 3] + [(user + step) % 8 for user in range(1, 12) for step in range(4)]
    split = leave_one_out(Interactions.from_arrays(users, items))
    pipeline = CollaborativeRecommender("lightgcn", **QUICK).fit(split)
    after, _ = Unlearner(steps=0, repair_epochs=0).forget(pipeline, users=[0])
    old, new = pipeline._fitted()[0].embedding, after._fitted()[0].embedding
    assert new.shape[0] == old.shape[0] - 1
    assert torch.equal(new[:11], old[1:12])
    known = split.interactions.item_ids.to_internal([9])[0]
    others = [item for item in range(split.interactions.num_items) if item != known]
    assert torch.equal(new[11:][others], old[12:][others])
    assert not torch.isclose(new[11 + known], old[12 + known]).any()
    sequential = SequentialRecommender("sasrec", max_length=5, **QUICK).fit(split)
    fresh, _ = Unlearner(steps=0, repair_epochs=0).forget(sequential, users=[0])
    table, whole = (one._fitted()[0].item_embedding.weight for one in (fresh, sequential))
    assert torch.equal(table[1:][others], whole[1:][others])
    assert not torch.isclose(table[1 + known], whole[1 + known]).any()


def test_rows_of_what_is_forgotten_stay_zero_while_the_model_forgets(lightgcn: CollaborativeRecommender) -> None:
    removal = plan_removal(lightgcn, users=[1], items=[2], nodes=[])
    student = copy.deepcopy(lightgcn._fitted()[0])
    losses = forget_representations(student, removal, Unlearner(**SHORT).settings)
    rows = removal.own_rows(student)["embedding"]
    assert rows.shape == (2,)
    assert not student.embedding[rows].any()
    assert len(losses) == 3
    assert all(np.isfinite(list(record.values())).all() for record in losses)
    # Two learning rates of .003 of the root mean square, three times: nothing moved further than that.
    rest = np.delete(np.arange(student.embedding.shape[0]), rows.numpy())
    moved = (student.embedding - lightgcn._fitted()[0].embedding)[rest].abs().max()
    size = lightgcn._fitted()[0].embedding.square().mean().sqrt()
    assert 0 < float(moved.detach()) < float(3 * 2 * 0.003 * 3 * size.detach())


def test_seeds_decide_everything(lightgcn: CollaborativeRecommender) -> None:
    runs = [Unlearner(**{**SHORT, "seed": seed}).forget(lightgcn, users=[5], items=[6])[0] for seed in (1, 1, 2)]
    states = [run._fitted()[0].state_dict() for run in runs]
    assert same(states[0], states[1])
    assert not same(states[0], states[2])
    assert runs[0].unlearning["membership"] == runs[1].unlearning["membership"]


def odd_log() -> Interactions:
    """Users keep to one of six groups of eight items, but four odd ones all met the first items of every group."""
    generator = np.random.default_rng(0)
    user, item = [], []
    for number in range(90):
        chosen = generator.permutation(8)[:7] + 8 * (number % 6)
        user += [number] * 7
        item += chosen.tolist()
    for number in range(90, 94):
        met = generator.permutation([8 * group + place for group in range(6) for place in (0, 1)])
        user += [number] * 12
        item += met.tolist()
    return Interactions.from_arrays(user, item)


def test_attacks_come_near_those_on_a_retrained_model_and_the_rest_keeps_its_metrics() -> None:
    split = split_by_ratio(odd_log(), (0.7, 0.15, 0.15))
    settings = {"epochs": 60, "hidden": 16, "layers": 2, "learning_rate": 0.02, "batch_size": 256, "progress": False}
    pipeline = CollaborativeRecommender("lightgcn", **settings).fit(split)
    after, report = Unlearner().forget(pipeline, users=range(90, 94), compare_retraining=True)
    attack = {name: float(found["users"] or 0) for name, found in report.membership.items()}
    assert attack["before"] - attack["retrained"] > 0.1
    assert abs(attack["after"] - attack["retrained"]) < 0.7 * (attack["before"] - attack["retrained"])
    _, removed = Unlearner(steps=0).forget(pipeline, users=range(90, 94))  # repaired alike, without forgetting
    assert attack["after"] < float(removed.membership["after"]["users"] or 0) - 0.02
    recall = {name: float(found["Recall@5"] or 0) for name, found in report.retained.items()}
    assert recall["before"] > 0.5
    assert recall["after"] > recall["before"] - 0.05
    assert recall["after"] == pytest.approx(after.evaluate().metrics.to_dict()["Recall@5"])
    assert report.cost["epochs"] < report.cost["retraining_epochs"]
    assert report.cost["seconds"] == pytest.approx(report.cost["forgetting_seconds"] + report.cost["repair_seconds"])


def test_metrics_of_before_are_those_of_the_users_that_stay(lightgcn: CollaborativeRecommender, shop: Split) -> None:
    whole = lightgcn.evaluate()
    users = shop.evaluation("test").users
    gone = shop.interactions.user_ids.to_internal([10, 20, 30])
    kept = ~np.isin(users, gone)
    assert whole.ranks.shape == users.shape
    _, report = Unlearner(**SHORT).forget(lightgcn, users=[10, 20, 30])
    hits = float((whole.ranks.numpy()[kept] <= 10).mean())
    assert report.retained["before"]["HR@10"] == pytest.approx(hits)


def test_lists_that_hold_a_forgotten_item_are_counted(lightgcn: CollaborativeRecommender) -> None:
    lists = lightgcn.recommend(None, k=20)
    popular = lists.group_by("item").len().sort("len", "item", descending=True)["item"][0]
    _, report = Unlearner(**SHORT).forget(lightgcn, items=[popular])
    share = lists.filter(pl.col("item") == popular)["user"].n_unique() / lists["user"].n_unique()
    assert share > 0
    assert report.lists["before"]["lists_with_forgotten"] == pytest.approx(share)
    assert report.lists["after"]["lists_with_forgotten"] == 0.0


# Saving


@pytest.mark.parametrize("name", ["lightgcn", "sasrec"])
def test_a_saved_run_is_a_run(name: str, request: pytest.FixtureRequest, tmp_path: Path, shop: Split) -> None:
    pipeline = request.getfixturevalue(name)
    after, report = Unlearner(**SHORT).forget(pipeline, users=[7], items=[8])
    after.save(tmp_path / "run")
    loaded: Any = load_pipeline(tmp_path / "run")
    assert loaded.evaluate().metrics.to_dict() == after.evaluate().metrics.to_dict()
    assert loaded.recommend(None, k=5).equals(after.recommend(None, k=5))
    assert loaded.unlearning["membership"] == report.to_dict()["membership"]
    assert [record["epoch"] for record in loaded.training_history] == [1, 2, 3, 4]
    again, _ = Unlearner(**SHORT).forget(loaded, users=[9])
    assert again._fitted()[1].interactions.num_users == shop.interactions.num_users - 2
    # Training anew forgets that something was forgotten.
    loaded.fit(shop, out=tmp_path / "run", overwrite=True)
    assert loaded.unlearning is None
    assert not (tmp_path / "run" / "unlearning.json").exists()


# Small parts


def test_win_rate_and_overlap_equal_counting() -> None:
    generator = np.random.default_rng(0)
    members, others = generator.integers(0, 5, 7).astype(float), generator.integers(0, 5, (7, 4)).astype(float)
    wins = [(m > o) + 0.5 * (m == o) for m, row in zip(members, others, strict=True) for o in row]
    assert win_rate(members, others) == pytest.approx(np.mean(wins))
    flat = others.ravel()
    assert win_rate(members, flat) == pytest.approx(np.mean([(m > o) + 0.5 * (m == o) for m in members for o in flat]))
    assert overlap(np.array([[1, 2, -1], [-1, -1, -1]]), np.array([[2, 5, 6], [1, 2, 3]])) == 0.5
    assert overlap(np.empty((0, 0), dtype=np.int64), np.empty((0, 0), dtype=np.int64)) == 0.0


# Bad input


@pytest.mark.parametrize(
    ("name", "what", "message"),
    [
        ("lightgcn", {}, "there is nothing to forget"),
        ("grace", {}, "there is nothing to forget"),
        ("lightgcn", {"users": ["nobody"]}, "user 'nobody' is unknown; name users"),
        ("lightgcn", {"items": [1, 999, 998]}, r"item 999 is unknown \(2 such\)"),
        ("grace", {"nodes": ["n1", "n60"]}, "node 'n60' is unknown"),
        ("lightgcn", {"users": range(1, 81)}, "every user would be forgotten"),
        ("sasrec", {"items": "ALL"}, "every item would be forgotten"),
        ("grace", {"nodes": [f"n{node}" for node in range(60)]}, "every node would be forgotten"),
        ("lightgcn", {"nodes": [1]}, "knows no nodes"),
        ("grace", {"users": [1]}, "knows no users"),
    ],
)
def test_bad_requests(name: str, what: dict[str, Any], message: str, request: pytest.FixtureRequest) -> None:
    pipeline = request.getfixturevalue(name)
    if what.get("items") == "ALL":
        what = {"items": pipeline._fitted()[1].interactions.item_ids.external.tolist()}
    with pytest.raises(InputError, match=message):
        Unlearner(**SHORT).forget(pipeline, **what)


def test_pipelines_that_cannot_forget(shop: Split) -> None:
    with pytest.raises(InputError, match="the recommender is not fitted"):
        Unlearner().forget(CollaborativeRecommender("lightgcn"), users=[1])
    with pytest.raises(InputError, match="a clustering run cannot forget"):
        Unlearner().forget(create_pipeline("pamc"), nodes=[1])
    sracl = SequentialRecommender("sracl", max_length=10, semantics="cooccurrence", **QUICK).fit(shop)
    with pytest.raises(InputError, match="reads item vectors that may hold the co-occurrences"):
        Unlearner().forget(sracl, users=[1])
    with pytest.raises(InputError, match="did you mean 'repair_epochs'"):
        Unlearner(repair_epoch=3)
    # All but one of the users: nobody is left to validate on.
    lonely = leave_one_out(Interactions.from_arrays([1, 1, 1, 2, 2], [5, 6, 7, 7, 6]))
    pipeline = CollaborativeRecommender("lightgcn", **QUICK).fit(lonely)
    with pytest.raises(InputError, match="no user of the validation part"):
        Unlearner().forget(pipeline, users=[1])
