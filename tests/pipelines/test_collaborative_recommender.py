"""Graph recommenders end to end on small data: learning, protocols, features, cold items, saving, resuming."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from graphcl.cli.app import run
from graphcl.data import IdMap, Interactions, Split, leave_one_out, read_item_features
from graphcl.errors import InputError
from graphcl.models import list_models
from graphcl.pipelines import CollaborativeRecommender, create_pipeline, load_pipeline
from graphcl.pipelines.collaborative import HYPERGRAPH
from graphcl.pipelines.ranking import Histories

QUICK: dict[str, Any] = {
    "epochs": 3, "batch_size": 64, "hidden": 8, "layers": 2, "validate_every": 1, "progress": False,
}  # fmt: skip
GROUPS, PER_GROUP = 4, 8


def grouped_log(users: int = 60, length: int = 6) -> Interactions:
    """Users of a group meet items of the group: item ids 100 g + 0..7."""
    generator = np.random.default_rng(0)
    group = np.arange(users) % GROUPS
    items = np.stack([generator.permutation(PER_GROUP)[:length] for _ in range(users)])
    user = np.repeat(np.arange(users), length)
    return Interactions.from_arrays(user + 7, (100 * group[:, None] + items).ravel())


def group_features(ids: IdMap, extra: tuple[int, ...] = ()) -> dict[str, Any]:
    """Items of a group look alike in one modality; the other is noise."""
    keys = np.array([*ids.external.tolist(), *extra])
    image = np.eye(GROUPS)[keys // 100] + 0.01 * np.random.default_rng(1).random((keys.size, GROUPS))
    return {"image": (keys, image), "noise": (keys, np.random.default_rng(2).random((keys.size, 3)))}


@pytest.fixture(scope="module")
def log() -> Interactions:
    return grouped_log()


@pytest.fixture(scope="module")
def fitted(log: Interactions, tmp_path_factory: pytest.TempPathFactory) -> tuple[CollaborativeRecommender, Path]:
    out = tmp_path_factory.mktemp("runs") / "run"
    recommender = CollaborativeRecommender("mmhcl", **{**QUICK, "neighbours": 3})
    return recommender.fit(log, out, item_features=group_features(log.item_ids)), out


@pytest.mark.parametrize("name", list_models("collaborative"))
def test_every_model_learns_groups(name: str, log: Interactions) -> None:
    settings = {**QUICK, "epochs": 20, "learning_rate": 0.04, "validate_every": 10, "metric": "NDCG@5"}
    if name in ("sgl", "simgcl", "xsimgcl"):
        settings["contrast_weight"] = 0.02  # the published weights spread 8 dimensions over too few nodes here
    recommender = CollaborativeRecommender(name, **settings).fit(log)
    lists = recommender.recommend(None, k=2)
    same = lists.select(((pl.col("user") - 7) % GROUPS == pl.col("item") // 100).mean()).item()
    assert same > 0.8  # a quarter would be chance
    assert recommender.evaluate().metrics.to_dict()["Recall@10"] > 0.8
    assert recommender.get_config()["model"] == name


def test_recommended_settings_of_a_model_can_be_overruled() -> None:
    config = CollaborativeRecommender("mmhcl").get_config()
    assert (config["sampling"], config["batch_size"], config["learning_rate"]) == ("user", 1024, 1e-4)
    assert CollaborativeRecommender("mmhcl", batch_size=9).get_config()["batch_size"] == 9
    assert CollaborativeRecommender("lightgcn").get_config()["sampling"] == "edge"
    config = CollaborativeRecommender("sgl", drop_rate=0.2).get_config()
    assert CollaborativeRecommender.from_config(config).get_config() == config


@pytest.mark.parametrize("objective", ["sampled_softmax", "full_softmax"])
def test_softmax_objectives_train(objective: str, log: Interactions) -> None:
    recommender = CollaborativeRecommender("lightgcn", **QUICK, objective=objective).fit(log)
    losses = [record[objective] for record in recommender.training_history]
    assert losses[-1] < losses[0]


def test_saved_and_loaded_recommenders_agree(fitted: tuple[CollaborativeRecommender, Path], tmp_path: Path) -> None:
    recommender, out = fitted
    for path in (out, tmp_path / "saved"):
        if path != out:
            recommender.save(path)
        loaded = load_pipeline(path)
        assert isinstance(loaded, CollaborativeRecommender)
        assert loaded.evaluate().to_dict() == recommender.evaluate().to_dict()
        assert loaded.recommend(None, 3).equals(recommender.recommend(None, 3))
        assert loaded.ablate() == recommender.ablate()
    (tmp_path / "saved" / HYPERGRAPH).write_bytes((out / "model.safetensors").read_bytes())
    with pytest.raises(InputError, match="does not fit the run"):
        CollaborativeRecommender.load(tmp_path / "saved")


def test_lists_are_what_evaluate_ranked(fitted: tuple[CollaborativeRecommender, Path], log: Interactions) -> None:
    recommender, _ = fitted
    split = leave_one_out(log)
    lists = recommender.recommend(None, k=5)
    users, items = log.user_ids.to_external(split.test.user), log.item_ids.to_external(split.test.item)
    target = dict(zip(users.tolist(), items.tolist(), strict=True))
    hits = sum(target[user] == item for user, item in lists.select("user", "item").iter_rows())
    assert recommender.evaluate().metrics.to_dict()["HR@5"] == pytest.approx(hits / len(target))


def test_validation_items_stay_candidates_unless_asked(log: Interactions) -> None:
    split = leave_one_out(log)
    valid = {(int(u), int(i)) for u, i in zip(split.valid.user, split.valid.item, strict=True)}
    for mask, allowed in (("training", True), ("all_known", False)):
        recommender = CollaborativeRecommender("lightgcn", **QUICK, mask=mask).fit(split)
        lists = recommender.recommend(None, k=len(log.item_ids))
        users = log.user_ids.to_internal(lists["user"])
        items = log.item_ids.to_internal(lists["item"])
        listed = {(int(u), int(i)) for u, i in zip(users, items, strict=True)}
        assert (valid <= listed) is allowed
        assert not listed & {(int(u), int(i)) for u, i in zip(split.train.user, split.train.item, strict=True)}
        assert recommender.evaluate().protocol["history"].startswith("training items" if allowed else "training and")


def test_reference_ndcg_is_reported(fitted: tuple[CollaborativeRecommender, Path]) -> None:
    metrics = fitted[0].evaluate().metrics.to_dict()
    assert metrics["NDCG_ref@20"] == pytest.approx(metrics["NDCG@20"])  # one target a user
    saved = json.loads((fitted[1] / "metrics.json").read_text())
    assert saved["test"]["NDCG_ref@20"] == metrics["NDCG_ref@20"]


def test_ablation_takes_modalities_away(fitted: tuple[CollaborativeRecommender, Path], log: Interactions) -> None:
    recommender, out = fitted
    records = recommender.ablate()
    assert [record["without"] for record in records] == [[], ["image"], ["noise"], ["image", "noise"]]
    assert records[0]["metrics"] == recommender.evaluate().metrics.to_dict()
    assert json.loads((out / "metrics.json").read_text())["ablation"] == records
    plain = CollaborativeRecommender("lightgcn", **QUICK).fit(log)
    with pytest.raises(InputError, match="trained without modalities"):
        plain.ablate()


def test_users_without_training_items_are_evaluated_and_counted() -> None:
    log = grouped_log()
    split = leave_one_out(log)
    part = split.part.copy()
    lonely = split.interactions.user == 3
    part[lonely] = np.where(part[lonely] == 0, 3, part[lonely])
    measured = CollaborativeRecommender("lightgcn", **QUICK).fit(Split(split.interactions, part, "given")).evaluate()
    assert measured.protocol["users without history"] == "1 (evaluated)"
    assert measured.metrics.users == 60


def test_cold_items_come_to_their_group_through_features() -> None:
    log = grouped_log(users=120)
    cold = 105
    rows = log.take(log.item_ids.to_external(log.item) != cold)  # in the catalogue, never met
    settings = {**QUICK, "epochs": 12, "learning_rate": 0.04, "batch_size": 128, "neighbours": 6, "item_weight": 0.3}
    recommender = CollaborativeRecommender("mmhcl", **settings)
    recommender.fit(rows, item_features={"image": group_features(log.item_ids)["image"]})
    # A user has at most three items of the group left to recommend, the cold one among them.
    lists = recommender.recommend(None, k=3).filter(pl.col("item") == cold)
    assert lists.height > 15
    assert lists.select(((pl.col("user") - 7) % GROUPS == 1).mean()).item() == 1.0
    assert recommender.evaluate().protocol["items without training rows"] == "1"


def test_items_that_only_features_name_join_the_catalogue(log: Interactions) -> None:
    new = 350
    every = IdMap([*log.item_ids.external.tolist(), new])
    features = read_item_features(group_features(log.item_ids, (new,)), every)
    settings = {**QUICK, "epochs": 20, "learning_rate": 0.02, "neighbours": 4, "catalogue": "features"}
    recommender = CollaborativeRecommender("mmhcl", **settings).fit(log, item_features=features)
    assert recommender.num_items == len(log.item_ids) + 1
    assert new in recommender.recommend(None, k=12)["item"].to_list()
    ignored = CollaborativeRecommender("mmhcl", **QUICK).fit(log, item_features=features)
    assert ignored.num_items == len(log.item_ids)


def test_a_resumed_run_equals_one_that_was_not_interrupted(log: Interactions, tmp_path: Path) -> None:
    settings = {**QUICK, "anchors": 16, "batch_size": 32}
    features = group_features(log.item_ids)
    whole = CollaborativeRecommender("mmhcl", **{**settings, "epochs": 4}).fit(log, item_features=features)
    CollaborativeRecommender("mmhcl", **{**settings, "epochs": 2}).fit(log, tmp_path / "run", item_features=features)
    resumed = CollaborativeRecommender("mmhcl", **{**settings, "epochs": 4})
    resumed.fit(log, tmp_path / "run", item_features=features, resume=True)
    for one, two in zip(whole._fitted()[0].parameters(), resumed._fitted()[0].parameters(), strict=True):
        assert torch.equal(one, two)
    with pytest.raises(InputError, match="the run was started on other data"):
        resumed.fit(log, tmp_path / "run", item_features={"image": features["image"]}, resume=True)


def test_item_ids_unknown_to_the_features_lack_the_modality(log: Interactions, tmp_path: Path) -> None:
    keys = [*log.item_ids.external[:5], "nobody's"]
    rows = np.eye(6) + 1
    recommender = CollaborativeRecommender("mmhcl", **QUICK)
    recommender.fit(log, tmp_path / "run", item_features={"image": (keys, rows)})
    told = f"image (5 of {log.num_items} items; 1 rows of unknown items left out)"
    assert recommender.evaluate().protocol["modalities"] == told
    assert CollaborativeRecommender.load(tmp_path / "run").evaluate().protocol["modalities"] == told


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"image": ([100, 101], [[1.0, 2.0], [3.0]])}, "different widths"),
        ({"image": ([100, 100], np.ones((2, 2)))}, "item id 100 has two rows"),
        ({"image": ([100, 101], np.array([[1.0], [np.nan]]))}, "features of item 101 hold a value that is missing"),
        ({"image": ([9000], np.ones((1, 2)))}, "belongs to an item of the interactions"),
    ],
)
def test_bad_features_are_refused_before_a_file_is_written(
    features: Any, message: str, log: Interactions, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        CollaborativeRecommender("mmhcl", **QUICK).fit(log, tmp_path / "run", item_features=features)
    assert not (tmp_path / "run").exists()


def test_other_bad_input(log: Interactions) -> None:
    with pytest.raises(InputError, match="lightgcn does not read item features"):
        CollaborativeRecommender("lightgcn", **QUICK).fit(log, item_features=group_features(log.item_ids))
    with pytest.raises(InputError, match="unknown setting 'layer'; did you mean 'layers'"):
        CollaborativeRecommender("lightgcn", layer=2)
    with pytest.raises(InputError, match="unknown model 'lightgnc'"):
        CollaborativeRecommender("lightgnc")
    everyone = Interactions.from_arrays([0, 0, 0, 1, 1, 1], [1, 2, 3, 2, 3, 1])
    part = np.array([0, 0, 0, 0, 1, 2], dtype=np.uint8)
    all_met = Split(everyone.take(np.array([0, 1, 2, 3, 4, 5])), part, "given")
    one_item = Interactions.from_arrays([0, 0, 0, 1, 1, 1], [1] * 6)
    with pytest.raises(InputError, match="no user has a training item and an item left"):
        CollaborativeRecommender("lightgcn", **QUICK).fit(leave_one_out(one_item))
    assert CollaborativeRecommender("lightgcn", **QUICK).fit(all_met).evaluate().metrics.users == 1


def test_unsupported_users(fitted: tuple[CollaborativeRecommender, Path]) -> None:
    with pytest.raises(InputError, match="user 1 is unknown or has no history"):
        fitted[0].recommend([1], 2)
    assert fitted[0].recommend([1, 8], 2, on_unsupported="ignore")["user"].to_list() == [8, 8]
    assert fitted[0].embed("users").vectors.shape == (60, 8)
    assert fitted[0].embed("items").vectors.shape == (32, 8)


def test_encode_leaves_the_mode_alone(fitted: tuple[CollaborativeRecommender, Path]) -> None:
    model, split = fitted[0]._fitted()
    model.train()
    users = np.array([3, 1])
    queries, _ = CollaborativeRecommender.encode(model, Histories.of(split, "test").select(users), users)
    assert model.training
    assert queries.shape == (2, 8)
    model.eval()


def test_command_line(tmp_path: Path, log: Interactions, capsys: pytest.CaptureFixture[str]) -> None:
    table = pl.DataFrame({"user": log.user_ids.to_external(log.user), "item": log.item_ids.to_external(log.item)})
    table.write_csv(tmp_path / "log.csv")
    keys, image = group_features(log.item_ids)["image"]
    np.savez(tmp_path / "image.npz", ids=keys, image=image)
    sets = ["epochs=2", "hidden=8", "progress=no", f"item_features={{image: {tmp_path / 'image.npz'}}}"]
    command = ["train", "mmhcl", "--data", str(tmp_path / "log.csv"), "--out", str(tmp_path / "run")]
    for assignment in sets:
        command += ["--set", assignment]
    assert run(command) == 0
    report = (tmp_path / "run" / "report.html").read_text()
    assert "Hot and cold items" in report
    assert "without all modalities" in report
    np.savez(tmp_path / "image.npz", ids=np.zeros(keys.size, dtype=np.int64), image=image)
    capsys.readouterr()
    assert run([*command, "--overwrite"]) == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    assert "item id 0 has two rows of features" in error


def test_a_pipeline_by_name() -> None:
    assert isinstance(create_pipeline("simgcl", {"noise": 0.2}), CollaborativeRecommender)
