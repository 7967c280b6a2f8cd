"""The recommender end to end on small data: learning, contracts, serving, saving, resuming."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch.multiprocessing.spawn import ProcessRaisedException

from graphcl.data import Interactions, Split, leave_one_out, semantic_vectors, split_by_time
from graphcl.errors import InputError
from graphcl.models import list_models
from graphcl.pipelines import SequentialRecommender, create_pipeline, load_pipeline, sequential
from graphcl.pipelines.batches import make_batch
from graphcl.pipelines.checkpoints import LAST, load_tensors
from graphcl.pipelines.runs import RunFolder
from graphcl.pipelines.training import _errors_of_processes, update_average

ARTEFACTS = SequentialRecommender._folder("run").artefacts
QUICK: dict[str, Any] = {
    "epochs": 3, "batch_size": 64, "hidden": 16, "inner": 16, "layers": 1, "max_length": 8, "progress": False,
}  # fmt: skip


def cyclic_log(users: int = 60, length: int = 9, items: int = 12, *, text: bool = False) -> Interactions:
    """User u walks round a circle of items from a place of their own."""
    start = np.random.default_rng(0).integers(items, size=users)
    user = np.repeat(np.arange(users), length)
    item = (np.repeat(start, length) + np.tile(np.arange(length), users)) % items
    if text:
        return Interactions.from_arrays([f"u{u:03}" for u in user], [f"item {i:02}" for i in item])
    return Interactions.from_arrays(user + 100, item + 5000)


@pytest.fixture(scope="module")
def log() -> Interactions:
    return cyclic_log()


@pytest.fixture(scope="module")
def fitted(log: Interactions, tmp_path_factory: pytest.TempPathFactory) -> tuple[SequentialRecommender, Path]:
    out = tmp_path_factory.mktemp("runs") / "run"
    return SequentialRecommender(**QUICK).fit(log, out), out


def weights_of(recommender: SequentialRecommender) -> dict[str, torch.Tensor]:
    model, _ = recommender._fitted()
    return dict(model.state_dict())


def assert_equal_weights(one: SequentialRecommender, other: SequentialRecommender) -> None:
    first, second = weights_of(one), weights_of(other)
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


def test_a_folder_of_another_program_is_not_overwritten(log: Interactions, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("database: here\n")
    (tmp_path / "main.py").write_text("")
    with pytest.raises(InputError, match=r"holds other files \(main.py\)"):
        SequentialRecommender(**QUICK).fit(log, tmp_path, overwrite=True)
    assert (tmp_path / "config.yaml").read_text() == "database: here\n"


def test_bad_input_in_a_spawned_process_is_bad_input() -> None:
    """A spawned process hands over the text of its traceback only."""
    traceback = "\n-- Process 0 terminated with the following error:\nTraceback (most recent call last):\n"
    with pytest.raises(InputError, match=r"^it diverged; lower it$"), _errors_of_processes():
        raise ProcessRaisedException(f"{traceback}graphcl.errors.InputError: it diverged; lower it\n", 0, 1)
    with pytest.raises(ProcessRaisedException), _errors_of_processes():
        raise ProcessRaisedException(f"{traceback}KeyError: 'a; b'\n", 0, 1)


def test_lists_follow_the_protocol_that_evaluate_used(log: Interactions) -> None:
    recommender = SequentialRecommender(**QUICK, seen="exclude").fit(log)
    lists, excluded = recommender.recommend(None, k=12), recommender.recommend(None, k=12, exclude_seen=True)
    assert lists.equals(excluded)
    assert recommender.recommend(None, k=12, exclude_seen=False).height > lists.height
    history = [5000, 5001, 5002]
    assert set(recommender.recommend_for_histories([history], k=12)["item"]).isdisjoint(history)
    assert set(recommender.recommend_for_histories([history], k=12, exclude_seen=False)["item"]) > set(history)


def test_a_cyclic_pattern_is_learned(log: Interactions) -> None:
    recommender = SequentialRecommender(
        **{**QUICK, "epochs": 25, "learning_rate": 0.02, "dropout": 0.1, "hidden": 32, "patience": 25, "max_length": 4}
    ).fit(log)
    assert recommender.evaluate("test").metrics.to_dict()["HR@5"] == 1.0
    table = recommender.recommend(None, k=1)
    last = {int(user): int(log.item[log.user == row][-1]) for row, user in enumerate(log.user_ids.external)}
    hits = [int(item) - 5000 == last[int(user)] for user, item in table.select("user", "item").iter_rows()]
    assert np.mean(hits) == 1.0  # the withheld item comes first


@pytest.mark.parametrize("name", list_models("sequential"))
def test_every_model_refits_saves_and_loads_equal(name: str, tmp_path: Path) -> None:
    data = cyclic_log(users=20)
    settings = {key: value for key, value in QUICK.items() if key in create_pipeline(name).get_config()}
    one = SequentialRecommender(name, **{**settings, "epochs": 2})
    first = one.fit(data).evaluate().to_dict()
    kept = {key: value.clone() for key, value in weights_of(one).items()}
    random_state = torch.get_rng_state()
    again = one.fit(data)  # refit equals fresh fit
    assert torch.equal(torch.get_rng_state(), random_state)
    assert again.evaluate().to_dict() == first
    for key, value in weights_of(again).items():
        assert torch.equal(value, kept[key])
    one.save(tmp_path / "run")
    loaded = load_pipeline(tmp_path / "run")
    assert isinstance(loaded, SequentialRecommender)
    assert_equal_weights(one, loaded)
    assert loaded.get_config() == one.get_config()
    for part in ("valid", "test"):
        assert loaded.evaluate(part).to_dict() == one.evaluate(part).to_dict()
    assert loaded.recommend(None, 3).equals(one.recommend(None, 3))
    assert SequentialRecommender.from_config(one.get_config()).get_config() == one.get_config()


def test_weight_average_by_hand() -> None:
    average, model = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    expected = 0.75 * average.weight.detach().clone() + 0.25 * model.weight.detach()
    update_average(average, model, 0.75)
    torch.testing.assert_close(average.weight.detach(), expected)


def test_without_average_the_last_step_of_the_best_epoch_is_kept(log: Interactions, tmp_path: Path) -> None:
    settings = {**QUICK, "epochs": 1}
    plain = SequentialRecommender(**settings, weight_average=0.0).fit(log, tmp_path / "plain")
    averaged = SequentialRecommender(**settings).fit(log, tmp_path / "averaged")
    last, _ = load_tensors(tmp_path / "averaged" / "checkpoints" / LAST)
    name = "item_embedding.weight"
    assert torch.equal(last[f"model.{name}"], weights_of(plain)[name])  # averaging does not touch the training
    assert torch.equal(last[f"average.{name}"], weights_of(averaged)[name])
    assert not torch.equal(weights_of(plain)[name], weights_of(averaged)[name])


def test_seed_decides(log: Interactions) -> None:
    one, other = (SequentialRecommender(**{**QUICK, "epochs": 1, "seed": seed}).fit(log) for seed in (0, 1))
    name = "item_embedding.weight"
    assert not torch.equal(weights_of(one)[name], weights_of(other)[name])


def test_prefix_rows_and_causal_rows_take_equal_steps(log: Interactions) -> None:
    """Without dropout and with one step an epoch the two modes have the same loss and gradient."""
    undropped = {**QUICK, "dropout": 0.0, "attention_dropout": 0.0}
    settings = {**undropped, "batch_size": 10**6, "window_stride": 1, "max_length": 4}
    histories = []
    for rows in ("causal", "prefix"):
        recommender = SequentialRecommender(**settings, rows=rows).fit(log)
        histories.append([record["loss"] for record in recommender.training_history])
    assert histories[0] == pytest.approx(histories[1], rel=1e-5)


def test_recommendations_are_what_evaluate_ranked(fitted: tuple[SequentialRecommender, Path]) -> None:
    recommender, _ = fitted
    evaluation = recommender.evaluate("test")
    _, split = recommender._fitted()
    lists = recommender.recommend(None, k=12)
    assert lists.columns == ["user", "item", "rank", "score"]
    target = split.test
    wanted = pl.DataFrame(
        {
            "user": split.interactions.user_ids.to_external(target.user),
            "item": split.interactions.item_ids.to_external(target.item),
        }
    )
    ranks = wanted.join(lists, on=["user", "item"], how="left").sort("user")["rank"]
    assert ranks.to_list() == evaluation.ranks.int().tolist()
    assert lists.group_by("user").len()["len"].unique().to_list() == [12]


def test_recommend_takes_and_gives_external_ids(log: Interactions) -> None:
    recommender = SequentialRecommender(**{**QUICK, "epochs": 1}).fit(cyclic_log(users=10, text=True))
    table = recommender.recommend(["u007", "u003"], k=2)
    assert table["user"].to_list() == ["u007", "u007", "u003", "u003"]
    assert table["rank"].to_list() == [1, 2, 1, 2]
    assert all(str(item).startswith("item ") for item in table["item"])
    single = recommender.recommend(["u003"], k=2)
    assert single["item"].to_list() == table["item"].to_list()[2:]
    np.testing.assert_allclose(single["score"].to_numpy(), table["score"].to_numpy()[2:], rtol=1e-4)


def test_text_names_integer_ids(fitted: tuple[SequentialRecommender, Path]) -> None:
    recommender, _ = fitted
    assert recommender.recommend(["103"], k=1)["user"].to_list() == [103]


def test_history_and_exclusion(fitted: tuple[SequentialRecommender, Path], log: Interactions) -> None:
    recommender, _ = fitted
    user = 100
    sequence = (log.item[log.user == 0] + 5000).tolist()
    for history, known in (("valid", 7), ("test", 8), ("all", 9)):
        listed = recommender.recommend([user], k=50, exclude_seen=True, history=history)["item"].to_list()  # type: ignore[arg-type]
        assert set(listed) == set(range(5000, 5012)) - set(sequence[:known])
        anew = recommender.recommend_for_histories([sequence[:known]], k=50, exclude_seen=True)
        assert anew["item"].to_list() == listed


def test_unsupported_users_and_items(fitted: tuple[SequentialRecommender, Path]) -> None:
    recommender, _ = fitted
    with pytest.raises(InputError, match=r"user 7 is unknown or has no history \(2 such\)"):
        recommender.recommend([100, 7, 8])
    with pytest.warns(UserWarning, match="user 7 is unknown"):
        table = recommender.recommend([100, 7], k=1, on_unsupported="warn")
    assert table["user"].to_list() == [100]
    assert recommender.recommend([7], on_unsupported="ignore").height == 0
    with pytest.raises(InputError, match="item 1 is unknown"):
        recommender.recommend_for_histories([[1]])
    table = recommender.recommend_for_histories([[1], [5000, 1]], k=1, on_unsupported="ignore")
    assert table["history"].to_list() == [1]
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        recommender.recommend(None, k=0)


def test_embeddings_score_as_recommend_does(fitted: tuple[SequentialRecommender, Path]) -> None:
    recommender, _ = fitted
    items, users = recommender.embed("items"), recommender.embed("users")
    scores = users.vectors @ items.vectors.T
    table = recommender.recommend(None, k=1)
    assert items.ids[scores.argmax(1)].tolist() == table["item"].to_list()
    with pytest.raises(ValueError, match="what must be 'items' or 'users', got 'edges'"):
        recommender.embed("edges")  # type: ignore[arg-type]


def test_no_held_out_item_is_reachable_from_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Items that occur in validation and test only stand in no training tensor, and stored rows stay as they are."""
    users, length = 12, 6
    user = np.repeat(np.arange(users), length)
    item = np.tile(np.arange(length), users)
    item[length - 2 :: length] = 70 + np.arange(users)  # every user's validation item is their own
    item[length - 1 :: length] = 90 + np.arange(users)
    data = leave_one_out(Interactions.from_arrays(user, item))
    held_out = set((np.flatnonzero(data.interactions.item_ids.external >= 70) + 1).tolist())
    seen: set[int] = set()

    def spying(*arguments: Any, **named: Any) -> Any:
        batch = make_batch(*arguments, **named)
        seen.update(batch.sequences.items.flatten().tolist(), batch.targets.tolist(), arguments[0].items.tolist())
        return batch

    monkeypatch.setattr("graphcl.pipelines.batches.make_batch", spying)
    before = data.interactions.item.copy()
    SequentialRecommender(**{**QUICK, "epochs": 1}).fit(data)
    assert len(held_out) == 2 * users
    assert seen
    assert not seen & held_out
    assert np.array_equal(data.interactions.item, before)


def test_run_folder_holds_everything(fitted: tuple[SequentialRecommender, Path]) -> None:
    recommender, out = fitted
    assert {path.name for path in out.iterdir()} == {*ARTEFACTS, "test_ranks.parquet", "checkpoints"}
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["test"] == recommender.evaluate("test").metrics.to_dict()
    assert metrics["validation"] == recommender.evaluate("valid").metrics.to_dict()
    assert metrics["protocol"]["seen items"] == "kept as candidates"
    assert metrics["epochs"] == 3
    history = pl.read_csv(out / "history.csv")
    assert {"epoch", "loss", "cross_entropy", "valid_NDCG@20", "seconds", "tokens_per_second"} <= set(history.columns)
    assert history["epoch"].to_list() == [1, 2, 3]
    best = history["valid_NDCG@20"].arg_max()
    assert best is not None
    assert metrics["best_epoch"] == best + 1
    assert metrics["validation"]["NDCG@20"] == pytest.approx(history["valid_NDCG@20"][best], abs=1e-12)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["data"]["interactions"] == 540
    assert manifest["seed"] == 0
    assert manifest["wall_seconds"] > 0
    for path in out.rglob("*.*"):
        assert path.suffix in (".yaml", ".json", ".csv", ".parquet", ".safetensors")  # no pickle


def test_an_existing_run_is_not_touched(fitted: tuple[SequentialRecommender, Path], log: Interactions) -> None:
    _, out = fitted
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="holds a complete run"):
        SequentialRecommender(**QUICK).fit(log, out)
    with pytest.raises(InputError, match="the run was started with hidden=16, not 8"):
        SequentialRecommender(**{**QUICK, "hidden": 8}).fit(log, out, resume=True)
    with pytest.raises(InputError, match="the run was started on other data"):
        SequentialRecommender(**QUICK).fit(cyclic_log(users=30), out, resume=True)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_overwrite_replaces_and_a_strangers_folder_is_refused(tmp_path: Path) -> None:
    data = cyclic_log(users=20)
    out = tmp_path / "run"
    SequentialRecommender(**{**QUICK, "epochs": 2}).fit(data, out)
    SequentialRecommender(**{**QUICK, "epochs": 1}).fit(data, out, overwrite=True)
    assert json.loads((out / "metrics.json").read_text())["epochs"] == 1
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(InputError, match=r"holds other files \(thesis.txt\) and no run"):
            SequentialRecommender(**QUICK).fit(data, tmp_path / "home", overwrite=overwrite)
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("missing", ARTEFACTS)
def test_an_incomplete_run_names_what_is_missing(
    missing: str, fitted: tuple[SequentialRecommender, Path], tmp_path: Path
) -> None:
    _, out = fitted
    for name in ARTEFACTS:
        if name != missing:
            (tmp_path / name).write_bytes((out / name).read_bytes())
    with pytest.raises(InputError, match=f"incomplete run folder: {missing} is missing"):
        load_pipeline(tmp_path)


def test_damaged_artefacts_are_named(fitted: tuple[SequentialRecommender, Path], tmp_path: Path) -> None:
    _, out = fitted
    for damaged, problem in (
        ("config.yaml", "is not a mapping"),
        ("model.safetensors", "cannot be read as safetensors"),
        ("interactions.parquet", "cannot be read as Parquet"),
        ("manifest.json", "is not valid JSON"),
    ):
        for name in ARTEFACTS:
            (tmp_path / name).write_bytes(b"garbage" if name == damaged else (out / name).read_bytes())
        with pytest.raises(InputError, match=f"{damaged}: {problem}"):
            load_pipeline(tmp_path)
    with pytest.raises(InputError, match="no such run folder"):
        load_pipeline(tmp_path / "nowhere")


def test_more_epochs_continue_a_finished_run(log: Interactions, tmp_path: Path) -> None:
    whole = SequentialRecommender(**{**QUICK, "epochs": 4}).fit(log)
    SequentialRecommender(**{**QUICK, "epochs": 2}).fit(log, tmp_path / "run")
    parts = SequentialRecommender(**{**QUICK, "epochs": 4}).fit(log, tmp_path / "run", resume=True)
    assert_equal_weights(whole, parts)
    assert [record["loss"] for record in parts.training_history] == [
        record["loss"] for record in whole.training_history
    ]


SCRIPT = """
import sys
from test_sequential_recommender import QUICK, cyclic_log
from graphcl.pipelines import SequentialRecommender
SequentialRecommender(**{**QUICK, "epochs": 20, "patience": 20}).fit(cyclic_log(), sys.argv[1], resume=True)
"""


def test_a_killed_run_resumes_to_the_same_metrics(log: Interactions, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(out)], env=environment)
    deadline = time.monotonic() + 120
    while not (out / "history.csv").exists() or len((out / "history.csv").read_text().splitlines()) < 4:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not RunFolder(out).is_complete
    with pytest.raises(InputError, match="incomplete run folder"):
        load_pipeline(out)
    with pytest.raises(InputError, match="holds an unfinished run"):
        SequentialRecommender(**QUICK).fit(log, out)
    settings = {**QUICK, "epochs": 20, "patience": 20}
    resumed = SequentialRecommender(**settings).fit(log, out, resume=True)
    whole = SequentialRecommender(**settings).fit(log)
    assert_equal_weights(whole, resumed)
    assert resumed.evaluate().to_dict() == whole.evaluate().to_dict()
    assert not list(out.rglob(".writing-*"))


def test_early_stopping_keeps_the_best_epoch(log: Interactions) -> None:
    recommender = SequentialRecommender(
        **{**QUICK, "epochs": 30, "patience": 2, "learning_rate": 0.1, "metric": "HR@1"}
    ).fit(log)
    values = [record["valid_HR@1"] for record in recommender.training_history]
    best = int(np.argmax(values))
    assert len(values) == best + 3 < 30
    assert recommender.evaluate("valid").metrics.to_dict()["HR@1"] == pytest.approx(values[best])


@pytest.mark.parametrize(
    ("model", "own"),
    [
        ("sasrec", {}),
        ("duorec", {"mode": "us"}),
        ("sracl", {"semantics": "cooccurrence", "item_weight": 0.0, "synthesizer_dropout": 0.0}),
    ],
)
def test_two_processes_take_the_steps_of_one(log: Interactions, model: str, own: dict[str, Any]) -> None:
    settings = {**QUICK, **own, "epochs": 2, "dropout": 0.0, "attention_dropout": 0.0, "accelerator": "cpu"}
    one = SequentialRecommender(model, **settings).fit(log)
    two = SequentialRecommender(model, **settings, devices=2).fit(log)
    for name, value in weights_of(one).items():
        torch.testing.assert_close(weights_of(two)[name], value, rtol=1e-3, atol=1e-4)
    first, second = (recommender.training_history[0]["loss"] for recommender in (one, two))
    assert second == pytest.approx(first, rel=1e-5)


VECTORS = np.random.default_rng(1).standard_normal((14, 4))


@pytest.mark.parametrize("weights", [{}, {"user_weight": 0.0, "item_weight": 0.0}])
def test_given_vectors_bring_items_without_interactions(log: Interactions, weights: dict[str, float]) -> None:
    settings = {**QUICK, **weights, "epochs": 1, "semantics": "features"}
    given = {"text": (5000 + np.arange(14), VECTORS)}
    recommender = SequentialRecommender("sracl", **settings).fit(log, item_features=given)
    assert recommender.num_items == 14
    near = recommender.recommend_for_histories([[5013]], 14)
    assert set(near["item"]) == set(range(5000, 5014))
    model, _ = recommender._fitted()
    table, similar = model.encoder.item_embeddings(), model.trained_neighbours[14]
    torch.testing.assert_close(model.item_embeddings()[13], table[similar - 1].mean(0))
    closed = SequentialRecommender("sracl", **settings, catalogue="interactions").fit(log, item_features=given)
    assert closed.num_items == 12
    by_row = SequentialRecommender("sracl", **settings).fit(log, item_features={"text": np.resize(VECTORS, (5020, 4))})
    assert by_row.num_items == 12  # a row number names no item
    as_text = {"text": ([str(5000 + number) for number in range(14)], VECTORS)}
    assert SequentialRecommender("sracl", **settings).fit(log, item_features=as_text).num_items == 14
    with pytest.raises(InputError, match="keyed by String ids, the interactions by Int64"):
        SequentialRecommender("sracl", **settings).fit(log, item_features={"text": (["a", "b"], np.eye(2))})
    with pytest.raises(InputError, match="column 'text': no row of the 14 belongs to an item of the interactions"):
        SequentialRecommender("sracl", **settings).fit(log, item_features={"text": (np.arange(14), VECTORS)})


def test_a_run_resumes_where_vectors_differ_in_their_last_bits(
    log: Interactions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**QUICK, "semantics": "cooccurrence"}
    SequentialRecommender("sracl", **{**settings, "epochs": 1}).fit(log, tmp_path / "run")
    made = semantic_vectors

    def on_another_processor(*arguments: Any, **options: Any) -> Any:
        vectors = made(*arguments, **options)
        return replace(vectors, vectors=vectors.vectors * np.float32(1 + 1e-6))

    monkeypatch.setattr(sequential, "semantic_vectors", on_another_processor)
    resumed = SequentialRecommender("sracl", **settings).fit(log, tmp_path / "run", resume=True)
    assert len(resumed.training_history) == QUICK["epochs"]
    given = {"text": (5000 + np.arange(12), VECTORS[:12])}
    with pytest.raises(InputError, match="other data"):
        SequentialRecommender("sracl", **settings).fit(log, tmp_path / "run", item_features=given, resume=True)


def test_a_folder_serves_again_after_a_run_that_diverged(log: Interactions, tmp_path: Path) -> None:
    settings = {**QUICK, "epochs": 1}
    SequentialRecommender(**settings).fit(log, tmp_path / "run")
    with pytest.raises(InputError, match="diverged"):
        SequentialRecommender(**settings, learning_rate=1e30).fit(log, tmp_path / "run", overwrite=True)
    SequentialRecommender(**settings).fit(log, tmp_path / "run", overwrite=True)
    assert SequentialRecommender.load(tmp_path / "run").best_epoch == 1


@pytest.mark.parametrize("histories", [[1, 2], ["12"]])
def test_a_history_is_a_list(fitted: tuple[SequentialRecommender, Path], histories: list[Any]) -> None:
    with pytest.raises(InputError, match=r"history 0 is .*, not a list of items; give a list"):
        fitted[0].recommend_for_histories(histories)


def test_settings_by_the_symbols_of_the_paper() -> None:
    config = SequentialRecommender("mclrec", **{"lambda": 0.3, "beta": 0.2}).get_config()
    assert (config["contrast_weight"], config["meta_weight"]) == (0.3, 0.2)
    assert SequentialRecommender("sracl", alpha=0.3, k=4).model_config.neighbours == 4
    with pytest.raises(InputError, match="contrast_weight is given twice, also by its symbol lambda"):
        SequentialRecommender("duorec", **{"lambda": 0.3, "contrast_weight": 0.3})
    with pytest.raises(InputError, match="unknown setting 'lambda'"):
        SequentialRecommender("sasrec", **{"lambda": 0.3})


def test_time_split_leaves_out_users_without_history() -> None:
    rng = np.random.default_rng(1)
    user = np.concatenate([np.repeat(np.arange(30), 10), [77]])  # user 77 appears at the very end only
    item = rng.integers(9, size=user.size)
    moment = np.concatenate([rng.integers(1000, size=300), [2000]])
    data = split_by_time(Interactions.from_arrays(user, item, time=moment), cold_users="keep")
    recommender = SequentialRecommender(**{**QUICK, "epochs": 1}).fit(data)
    evaluation = recommender.evaluate("test")
    assert evaluation.protocol["users without history"] != "0"
    assert evaluation.protocol["split"] == data.protocol
    with pytest.raises(InputError, match="user 77 is unknown or has no history"):
        recommender.recommend([77])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hiden": 3}, r"unknown setting 'hiden'; did you mean 'hidden'\?"),
        ({"learning_rat": 3}, r"unknown setting 'learning_rat'; did you mean 'learning_rate'\?"),
        ({"epochs": 0}, "setting 'epochs' does not accept 0"),
        ({"metric": "accuracy"}, "setting 'metric' does not accept 'accuracy'"),
        ({"window_stride": 51}, "window_stride 51 is above max_length; use at most 50"),
        ({"model": "sasrek"}, r"unknown model 'sasrek'; did you mean 'sasrec'\?"),
    ],
)
def test_bad_settings_name_the_nearest(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SequentialRecommender(**settings)
    name = settings.pop("model", "sasrec")
    with pytest.raises(InputError, match=message):
        create_pipeline(name, settings)


def test_what_cannot_be_trained_is_refused(log: Interactions) -> None:
    with pytest.raises(InputError, match="the recommender is not fitted"):
        SequentialRecommender().evaluate()
    with pytest.raises(InputError, match="cannot train on list"):
        SequentialRecommender().fit([1, 2])  # type: ignore[arg-type]
    split = leave_one_out(Interactions.from_arrays([1, 1, 1, 2, 2, 2], [1, 2, 3, 1, 2, 3]))
    with pytest.raises(InputError, match="no user has two items in the training part"):
        SequentialRecommender().fit(split)
    unused = Split(split.interactions, np.where(split.part == 1, 3, split.part).astype(np.uint8), "no validation")
    with pytest.raises(InputError):
        SequentialRecommender().fit(unused)


@pytest.mark.parametrize("name", ["duorec", "mclrec"])
def test_a_contrastive_run_in_two_parts_equals_one(name: str, log: Interactions, tmp_path: Path) -> None:
    """Views, partners, dropout and both optimisers of MCLRec go on as if the run had never stopped."""
    settings = {**QUICK, "weight_average": 0.9}
    whole = SequentialRecommender(name, **settings).fit(log, tmp_path / "whole")
    SequentialRecommender(name, **{**settings, "epochs": 1}).fit(log, tmp_path / "parts")
    parts = SequentialRecommender(name, **settings).fit(log, tmp_path / "parts", resume=True)
    assert_equal_weights(whole, parts)
    assert [r["loss"] for r in whole.training_history] == [r["loss"] for r in parts.training_history]
    assert whole.training_history[-1]["contrast" if name == "duorec" else "augmenter_loss"] > 0


def test_mclrec_trains_in_two_processes(log: Interactions) -> None:
    recommender = SequentialRecommender("mclrec", **{**QUICK, "epochs": 1, "devices": 2, "accelerator": "cpu"}).fit(log)
    assert recommender.training_history[-1]["loss"] > 0
