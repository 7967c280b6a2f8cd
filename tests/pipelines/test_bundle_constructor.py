"""Completion of bundles end to end: learning, serving, missing modalities, saving, the command line, bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from graphcl.cli.app import run
from graphcl.data import Bundles, synthetic_bundles
from graphcl.errors import InputError
from graphcl.pipelines import BundleConstructor, create_pipeline, load_pipeline
from graphcl.pipelines.bundle_baselines import bundle_baselines, by_neighbours, item_neighbours
from graphcl.pipelines.bundle_batches import BundleSampler, bundle_views
from graphcl.pipelines.bundle_data import bundle_inputs, feedback_log, feedback_vectors

QUICK: dict[str, Any] = {
    "epochs": 4, "batch_size": 64, "hidden": 8, "feedback_width": 8, "feedback_epochs": 2, "progress": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def bundles() -> Bundles:
    return synthetic_bundles(120, 60, 60, styles=5)


@pytest.fixture(scope="module")
def fitted(bundles: Bundles, tmp_path_factory: pytest.TempPathFactory) -> tuple[BundleConstructor, Path]:
    out = tmp_path_factory.mktemp("runs") / "run"
    return BundleConstructor("clhe", **QUICK).fit(bundles, out), out


def test_learns_styles_and_beats_popularity(bundles: Bundles) -> None:
    settings = {**QUICK, "epochs": 40, "learning_rate": 0.01, "hidden": 16, "validate_every": 10, "feedback": "none"}
    learned = BundleConstructor("clhe", **settings).fit(bundles).evaluate("test").metrics.to_dict()
    popular = by_neighbours(bundles, bundles.partial("test"), None, [10])
    assert learned["Recall@10"] > 1.5 * popular["Recall@10"]


def test_saved_run_measures_and_serves_alike(fitted: tuple[BundleConstructor, Path]) -> None:
    constructor, out = fitted
    saved = json.loads((out / "metrics.json").read_text())
    loaded = load_pipeline(out)
    assert isinstance(loaded, BundleConstructor)
    assert loaded.evaluate("test").metrics.to_dict() == saved["test"]
    assert loaded.get_config() == constructor.get_config()
    partial = {"mine": [3, 8], "yours": [5]}
    assert loaded.recommend(partial, 4).equals(constructor.recommend(partial, 4))
    names = [entry["name"] for entry in saved["baselines"]]
    assert names[:2] == ["popularity", "item-kNN"]
    assert "mean pooling, both" in names
    items = loaded.embed("items")
    assert items.vectors.shape == (60, 8)
    whole = loaded.embed("bundles")
    assert whole.vectors.shape[0] == 120


def test_recommendations_are_the_best_items_without_those_shown(fitted: tuple[BundleConstructor, Path]) -> None:
    constructor, _ = fitted
    found = constructor.recommend({"mine": [3, 8]}, 58)
    assert found["rank"].to_list() == list(range(1, 59))
    assert sorted([*found["item"], 3, 8]) == list(range(60))
    assert found["score"].is_sorted(descending=True)
    model = constructor._model
    with torch.no_grad():
        scores = model(torch.tensor([3, 8]), torch.tensor([0, 2])) @ model.candidates().T
    np.testing.assert_allclose(found["score"][0], float(scores[0, found["item"][0]]), rtol=1e-5)


def test_recall_of_recommendations_is_that_of_evaluate(fitted: tuple[BundleConstructor, Path]) -> None:
    constructor, _ = fitted
    data = constructor._fitted()[1]
    hidden = data.partial("test")
    lists = constructor.recommend(None, 20)
    recalls = []
    for row, bundle in enumerate(hidden.bundles):
        wanted = hidden.hidden[1][hidden.hidden[0][row] : hidden.hidden[0][row + 1]]
        name = data.table.user_ids.external[bundle]
        listed = lists.filter(pl.col("bundle") == int(name))["item"].to_numpy()
        recalls.append(np.isin(wanted, listed).mean())
    assert np.mean(recalls) == pytest.approx(constructor.evaluate("test").metrics.values["Recall@20"])


def test_unsupported_items_and_bundles(fitted: tuple[BundleConstructor, Path]) -> None:
    constructor, _ = fitted
    with pytest.raises(InputError, match="item 999 of bundle 'a' is unknown"):
        constructor.recommend({"a": [3, 999]}, 2)
    assert constructor.recommend({"a": [3, 999], "b": [999], "c": []}, 2, on_unsupported="ignore")["bundle"].unique(
        maintain_order=True
    ).to_list() == ["a"]
    with pytest.raises(ValueError, match="k must be at least 1"):
        constructor.recommend(None, 0)
    with pytest.raises(InputError, match="is not fitted"):
        BundleConstructor("clhe").recommend(None)


@pytest.mark.parametrize("switch", ["frozen_bundle_attention", "reference_padding_bug"])
def test_compatibility_switches_train(bundles: Bundles, switch: str) -> None:
    given = {**QUICK, "epochs": 1, "feedback": "none", "baselines": False}
    plain = BundleConstructor("clhe", **given).fit(bundles)
    switched = BundleConstructor("clhe", **given, **{switch: True}).fit(bundles)
    assert plain.training_history[0]["loss"] != switched.training_history[0]["loss"]


def test_missing_modalities_and_cold_items(bundles: Bundles) -> None:
    holed = bundles.without_features(0.5, seed=3)
    constructor = BundleConstructor("clhe", **{**QUICK, "epochs": 1}).fit(holed)
    model, data = constructor._fitted()
    cold = np.flatnonzero(~holed.interacted)
    assert cold.size > 5
    tokens = model.encoder.tokens(model.inputs, torch.from_numpy(cold))
    torch.testing.assert_close(tokens[:, 2], tokens[:, 0])
    assert data.vectors is not None
    assert not data.vectors[cold].any()
    assert np.isfinite(list(constructor.evaluate("test").metrics.to_dict().values())).all()


def test_training_bundles_can_count_as_users(bundles: Bundles) -> None:
    holed = bundles.without_features(0.5, seed=3)
    log = feedback_log(holed, with_bundles=True)
    assert holed.log is not None
    offsets, items = bundles.training
    assert log.item[holed.log.num_interactions :].tolist() == items.tolist()
    assert log.num_users == holed.log.num_users + offsets.size - 1
    given = {**QUICK, "epochs": 1, "baselines": False, "weight_average": 0.5}
    constructor = BundleConstructor("clhe", **given, feedback="lightgcn_with_bundles").fit(holed)
    vectors = constructor._fitted()[1].vectors
    assert vectors is not None
    known = np.union1d(items, np.flatnonzero(holed.interacted))
    assert np.flatnonzero(np.abs(vectors).sum(1)).tolist() == known.tolist()


def test_resumed_run_ends_alike(bundles: Bundles, tmp_path: Path) -> None:
    given = {**QUICK, "feedback": "none", "baselines": False, "validate_every": 1}
    whole = BundleConstructor("clhe", **given).fit(bundles, tmp_path / "whole")
    BundleConstructor("clhe", **{**given, "epochs": 2}).fit(bundles, tmp_path / "part")
    resumed = BundleConstructor("clhe", **given).fit(bundles, tmp_path / "part", resume=True)
    for name, weight in whole._model.state_dict().items():
        torch.testing.assert_close(weight, resumed._model.state_dict()[name], rtol=0, atol=0)


def test_views_keep_their_share() -> None:
    draws = np.random.default_rng(0)
    offsets, items = np.array([0, 1, 4, 9]), np.array([7, 0, 1, 2, 3, 4, 5, 6, 8])

    def sizes(ratio: float, *, replace: bool = False) -> list[int]:
        view = bundle_views(offsets, items, ratio, replace=replace, num_items=1000, generator=draws)
        for row in range(3):
            own = view[1][view[0][row] : view[0][row + 1]]
            assert np.unique(own).size == own.size
        return [int(size) for size in np.diff(view[0])]

    assert sizes(0.5) == [0, 2, 3]
    assert sizes(1.0) == [1, 3, 5]
    assert sizes(0.99) == [0, 2, 4]
    assert sizes(0.5, replace=True) == [1, 3, 5]
    assert sizes(2.0) == [2, 6, 10]
    replaced = bundle_views(offsets, items, 0.5, replace=True, num_items=1000, generator=draws)
    assert (replaced[1] > 8).any()  # the published code draws ids below the size of the bundle


def test_sampler_shares_steps_among_processes() -> None:
    offsets, items = np.arange(0, 22, 3), np.arange(21)
    sampler = BundleSampler(offsets, items, 21, batch_size=4, seed=3)
    alone = list(sampler.batches(1))
    assert sorted(torch.cat([batch.items for batch in alone]).tolist()) == list(range(21))
    halves = [list(sampler.batches(1, rank, 2)) for rank in range(2)]
    for whole, one, other in zip(alone, *halves, strict=True):
        assert sorted([*one.items.tolist(), *other.items.tolist()]) == sorted(whole.items.tolist())
        assert sorted([*one.view_items.tolist(), *other.view_items.tolist()]) == sorted(whole.view_items.tolist())
        assert one.total + other.total == whole.total


def test_neighbours_are_those_of_a_dense_product(bundles: Bundles) -> None:
    offsets, items = bundles.training
    held = np.zeros((offsets.size - 1, bundles.num_items))
    held[np.repeat(np.arange(offsets.size - 1), np.diff(offsets)), items] = 1
    length = np.maximum(np.sqrt(held.sum(0)), 1)
    dense = held.T @ held / length[:, None] / length[None, :]
    np.fill_diagonal(dense, 0)
    np.testing.assert_allclose(item_neighbours(bundles).toarray(), dense, atol=1e-12)
    few = item_neighbours(bundles, neighbours=3)
    assert np.diff(few.indptr).max() == 3
    best = [dense[row].max() for row in range(bundles.num_items) if dense[row].any()]
    np.testing.assert_allclose(sorted(few.max(axis=1).toarray().ravel())[-len(best) :], sorted(best))
    records = bundle_baselines(bundles, bundles.partial("test"), [20])
    assert records[1]["metrics"]["Recall@20"] > records[0]["metrics"]["Recall@20"]


def test_wide_features_are_projected_and_feedback_is_zero_where_nobody_came(bundles: Bundles) -> None:
    inputs = bundle_inputs(bundles, widest=4)
    assert inputs.features["content"].shape == (60, 4)
    wide = torch.nn.functional.normalize(torch.from_numpy(bundles.features.vectors["content"]), dim=1)  # type: ignore[union-attr]
    values = torch.linalg.svdvals(wide)
    torch.testing.assert_close(inputs.features["content"].square().sum(), values[:4].square().sum())
    assert bundles.log is not None
    vectors = feedback_vectors(bundles.log, width=4, epochs=1, seed=0, progress=False)
    assert (np.abs(vectors).sum(1) > 0).tolist() == bundles.interacted.tolist()


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "run")
    small = ["--load", "num_bundles=60", "--load", "num_items=60", "--load", "styles=5", "--load", "num_users=40"]
    settings = [part for name, value in QUICK.items() for part in ("--set", f"{name}={value}")]
    assert run(["train", "clhe", "--data", "synthetic-bundles", "--out", out, *small, *settings, "--json"]) == 0
    trained = json.loads(capsys.readouterr().out)
    assert run(["evaluate", out, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == trained["metrics"]
    table = tmp_path / "partial.csv"
    table.write_text("bundle,item\nmine,3\nmine,8\nyours,5\n")
    found = tmp_path / "found.csv"
    assert run(["recommend", out, "--bundles", str(table), "-k", "3", "--out", str(found)]) == 0
    assert "wrote 6 rows for 2 bundles" in capsys.readouterr().out
    assert pl.read_csv(found)["bundle"].to_list() == ["mine"] * 3 + ["yours"] * 3
    assert run(["embed", out, "--what", "bundles", "--out", str(tmp_path / "b.parquet")]) == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Beside methods without training" in page
    assert "Sizes of the bundles" in page
    for arguments, problem in (
        (["--users", "all"], "recommends for bundles"),
        ([], "recommends for bundles"),
        (["--bundles", "all", "--keep-seen"], "the items of a bundle are always left out"),
        (["--bundles", str(tmp_path / "none.csv")], "there is no such file"),
    ):
        capsys.readouterr()
        assert run(["recommend", out, "--out", str(tmp_path / "x.csv"), *arguments]) == 2
        error = capsys.readouterr().err
        assert problem in error
        assert error.count("\n") == 1
        assert not (tmp_path / "x.csv").exists()


def test_bad_input_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "t.csv"
    table.write_text("bundle,item\n1,2\n1,3\n")
    for data, more in ((str(table), []), ("synthetic-bundles", ["--k-core", "5"]), ("synthetic-bundle", [])):
        assert run(["train", "clhe", "--data", data, "--out", str(tmp_path / "run"), *more]) == 2
        assert capsys.readouterr().err.count("\n") == 1
        assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match=r"cannot train on list; give graphcl.data.Bundles"):
        create_pipeline("clhe").fit([1])
