"""EventScorer: parts without leaks, injected anomalies, measurement, saving, resuming, scoring."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from graphcl.data import EnterpriseLog, Events, enterprise_log
from graphcl.errors import InputError
from graphcl.pipelines import EventScorer, load_pipeline
from graphcl.pipelines.event_baselines import BASELINES, baseline_scores
from graphcl.pipelines.event_data import EventParts, inject_anomalies

SMALL: dict[str, Any] = {"dim": 16, "batch_size": 512, "progress": False}


@pytest.fixture(scope="module")
def log() -> EnterpriseLog:
    return enterprise_log(6000, scale=0.03, num_teams=6, anomaly_rate=0.03, seed=0)


@pytest.fixture(scope="module")
def run(log: EnterpriseLog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("events") / "run"
    EventScorer(epochs=6, **SMALL).fit(log.events, out=out)
    return out


def test_parts_follow_time_and_know_only_training_entities() -> None:
    table = pl.DataFrame({"user": [f"u{n}" for n in range(10)], "host": [n % 2 for n in range(10)]})
    parts = EventParts.of(Events.from_table(table), 0.2, 0.1)
    assert parts.part.tolist() == [0] * 7 + [1] * 2 + [2]
    assert parts.ids[0].external.tolist() == [f"u{n}" for n in range(7)]
    assert (parts.codes[7:, 0] == -1).all()
    assert (parts.codes[:, 1] >= 0).all()
    with pytest.raises(InputError, match="2 events cannot be cut into three parts"):
        EventParts.of(Events.from_table(table[:2]), 0.1, 0.1)


def test_injected_anomalies_change_one_entity() -> None:
    codes = np.stack([np.arange(400) % 5, np.arange(400) % 3, np.zeros(400, dtype=np.int64)], axis=1)
    shares = [np.full(5, 0.2), np.array([0.98, 0.01, 0.01]), np.ones(1)]
    changed, label = inject_anomalies(codes, shares, 0.1, seed=3)
    assert label.sum() == 40
    assert ((changed != codes).sum(axis=1) == label).all()
    assert (changed[:, 2] == 0).all()
    assert np.array_equal(changed, inject_anomalies(codes, shares, 0.1, seed=3)[0])


def test_metrics_are_recomputed_from_the_run_and_beat_the_baselines(run: Path, log: EnterpriseLog) -> None:
    loaded = load_pipeline(run)
    assert isinstance(loaded, EventScorer)
    fresh, saved = loaded.evaluate("test").metrics.to_dict(), pl.read_json(run / "metrics.json")
    assert saved["test"].struct.field("AP")[0] == pytest.approx(fresh["AP"])
    baselines = {entry["name"]: entry["metrics"] for entry in saved["baselines"][0].to_list()}
    assert fresh["AP"] is not None
    assert fresh["AP"] > max(baselines[name]["AP"] for name in ("rare entities", "one-class SVM"))
    oracle = log.oracle_scores(slice(5400, None))
    assert np.corrcoef(oracle, loaded.score(log.events.to_table(range(5400, 6000)))["score"])[0, 1] > 0.6


def test_labels_take_no_part_in_training(log: EnterpriseLog) -> None:
    rows = log.events
    flipped = Events(rows.columns, rows.ids, rows.codes, np.roll(rows.label, 1) if rows.label is not None else None)
    first, second = (EventScorer(epochs=2, baselines=False, **SMALL).fit(data) for data in (rows, flipped))
    assert np.array_equal(first.embed().vectors, second.embed().vectors)
    assert first.training_history[-1]["valid_AP_injected"] == second.training_history[-1]["valid_AP_injected"]


def test_a_resumed_run_ends_with_the_same_weights(log: EnterpriseLog, tmp_path: Path) -> None:
    settings = {**SMALL, "baselines": False}
    whole = EventScorer(epochs=3, **settings).fit(log.events, out=tmp_path / "whole")
    EventScorer(epochs=1, **settings).fit(log.events, out=tmp_path / "parts")
    resumed = EventScorer(epochs=3, **settings).fit(log.events, out=tmp_path / "parts", resume=True)
    assert np.array_equal(whole.embed().vectors, resumed.embed().vectors)


def test_scores_of_a_file_equal_those_of_a_frame_whatever_the_chunk(
    run: Path, log: EnterpriseLog, tmp_path: Path
) -> None:
    scorer = EventScorer.load(run)
    table = log.events.to_table(range(50)).drop("label")
    table = pl.concat([table, table[:1].with_columns(user=pl.lit("nobody-knows"))])
    table.write_csv(tmp_path / "log.csv")
    expected = scorer.score(table)
    for chunk in (7, 1000):
        assert scorer.score_file(tmp_path / "log.csv", tmp_path / "out.csv", chunk=chunk) == 51
        found = pl.read_csv(tmp_path / "out.csv")
        np.testing.assert_allclose(found["score"], expected["score"], rtol=1e-6)
        assert found["unseen"].to_list() == [0] * 50 + [1]
    with pytest.raises(InputError, match=r"column 'host': there is no such column"):
        scorer.score(table.drop("host"))


def test_nothing_is_left_of_a_file_that_cannot_be_scored(run: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text("user,host,process,destination,hour\nuser-00001,host-00001,process-00001,destination-00001,1\na,b\n")
    with pytest.raises(InputError, match=r"row 3: has 2 fields and the header 5"):
        EventScorer.load(run).score_file(bad, tmp_path / "out.csv", chunk=1)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.csv"]


def test_rare_pairs_by_hand() -> None:
    training = np.array([[0, 0], [0, 0], [1, 1], [1, 0]])
    scores = baseline_scores("rare pairs", training, [2, 2], np.array([[0, 0], [0, 1], [-1, 0]]))

    def share(count: float, types: int) -> float:
        return float(np.log((count + 0.5) / (4 + 0.5 * (types + 1))))

    joint = [np.log((count + 0.5) / 4.5) for count in (2, 0, 0)]
    apart = [share(2, 2) + share(3, 2), share(2, 2) + share(1, 2), share(0, 2) + share(3, 2)]
    np.testing.assert_allclose(scores, np.array(apart) - joint)
    with pytest.raises(ValueError, match="name must be one of"):
        baseline_scores("common", training, [2, 2], training)
    assert set(BASELINES) > {"rare entities"}


def test_a_log_of_one_entity_is_refused() -> None:
    table = pl.DataFrame({"user": ["ann"] * 30, "host": [1] * 30})
    with pytest.raises(InputError, match="every type has a single entity"):
        EventScorer(**SMALL).fit(table)
