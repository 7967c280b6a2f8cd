"""Logs of events: reading, streaming, the generator and its oracle."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from graphcl.data import Events, IdMap, enterprise_log, load_events, read_events, stream_events
from graphcl.errors import InputError
from graphcl.metrics import detection_metrics

ROWS = "user,host,note,label\nann,7,x,0\nbob,8,y,1\nann,8,z,0\n"


def written(folder: Path, text: str, name: str = "log.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_columns_ids_and_labels(tmp_path: Path) -> None:
    log = read_events(written(tmp_path, ROWS), columns=["host", "user"])
    assert log.columns == ("host", "user")
    assert log.codes.tolist() == [[0, 0], [1, 1], [1, 0]]
    assert log.ids[0].external.tolist() == [7, 8]
    assert log.label is not None
    assert log.label.tolist() == [False, True, False]
    assert log.to_table([1]).row(0) == (8, "bob", True)


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "tsv", "csv"])
def test_every_format_reads_the_same(tmp_path: Path, suffix: str) -> None:
    table = pl.DataFrame({"user": ["ann", "bob"], "host": [7, 8], "label": [0, 1]})
    path = tmp_path / f"log.{suffix}"
    if suffix == "parquet":
        table.write_parquet(path)
    elif suffix == "jsonl":
        table.write_ndjson(path)
    else:
        table.write_csv(path, separator="," if suffix == "csv" else "\t")
    log = read_events(path)
    assert log.codes.tolist() == [[0, 0], [1, 1]]
    assert log.label is not None
    assert log.label.tolist() == [False, True]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user,host\nann,\n", r"row 2, column 'host': an entity is missing; fill in or drop the row"),
        ("user,host\nann,1\n ,2\n", r"row 3, column 'user': an entity is missing"),
        ("user,host,label\nann,1,maybe\n", r"row 2, column 'label': the label 'maybe' is neither 0 nor 1"),
        ("user,label\nann,1\n", r"at least 2 types, and the table has 1 entity column;"),
        ("user,host\n", r"holds no event"),
        ("user,host\nann,1,2\n", r"cannot be read as a table"),
    ],
)
def test_bad_files_name_the_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_events(written(tmp_path, text))


def test_unknown_names() -> None:
    with pytest.raises(InputError, match=r"there is no log of events 'enterprise-lag'; did you mean 'enterprise-log'"):
        load_events("enterprise-lag")
    with pytest.raises(InputError, match=r"unknown option 'size'"):
        load_events("enterprise-log", size=3)
    with pytest.raises(InputError, match=r"column 'hots': there is no such column; did you mean 'host'"):
        Events.from_table(pl.DataFrame({"user": [1], "host": [2]}), columns=["user", "hots"])


def test_stream_gives_the_rows_in_chunks(tmp_path: Path) -> None:
    path = written(tmp_path, "a,user,host\n" + "".join(f"{n},u{n},{n % 3}\n" for n in range(7)))
    chunks = list(stream_events(path, ["host", "user"], chunk=3))
    assert [first for first, _ in chunks] == [2, 5, 8]
    assert [value for _, (_, users) in chunks for value in users] == [f"u{n}" for n in range(7)]
    broken = written(tmp_path, "user,host\nann,1\nbob\n", "broken.csv")
    with pytest.raises(InputError, match=r"row 3: has 1 fields and the header 2"):
        list(stream_events(broken, ["user", "host"]))


def test_unknown_entities_are_minus_one() -> None:
    log = Events.from_table(pl.DataFrame({"user": ["ann", "bob"], "host": [1, 2]}))
    assert log.recoded([IdMap(["bob"]), IdMap([2, 3])]).tolist() == [[-1, -1], [0, 0]]


def test_oracle_is_the_log_odds_of_the_law() -> None:
    log = enterprise_log(50, scale=0.02, num_teams=3, seed=1)

    def probability(values: tuple[int, ...], skip: int | None = None) -> float:
        places = enumerate(zip(log.conditionals, values, strict=True))
        kept = [(table, value) for place, (table, value) in places if place != skip]
        teams = range(log.prior.size)
        return sum(float(log.prior[team] * np.prod([table[team, value] for table, value in kept])) for team in teams)

    marginals = [log.prior @ table for table in log.conditionals]
    for event, score in zip(log.events.codes[:5], log.oracle_scores(slice(0, 5)), strict=True):
        values = tuple(event.tolist())
        replaced = np.mean([probability(values, i) * marginals[i][values[i]] for i in range(5)])
        assert score == pytest.approx(np.log(replaced) - np.log(probability(values)), abs=1e-9)
    for table in (*log.conditionals, log.prior[None]):
        np.testing.assert_allclose(table.sum(axis=1), 1.0)


def test_anomalies_look_normal_entity_by_entity_and_the_oracle_finds_them() -> None:
    log = enterprise_log(20_000, scale=0.05, num_teams=10, anomaly_rate=0.05, seed=0)
    label = log.events.label
    assert label is not None
    for codes, table in zip(log.events.codes.T, log.conditionals, strict=True):
        rarity = -np.log(log.prior @ table)[codes]
        assert abs(rarity[label].mean() - rarity[~label].mean()) < 0.15
    found = detection_metrics(log.oracle_scores(), label)["AP"]
    assert found is not None
    assert found > 0.6
    again = enterprise_log(20_000, scale=0.05, num_teams=10, anomaly_rate=0.05, seed=0)
    assert np.array_equal(log.events.codes, again.events.codes)


@pytest.mark.parametrize("argument", ["num_events", "scale", "num_teams", "anomaly_rate"])
def test_generator_refuses_what_is_out_of_range(argument: str) -> None:
    with pytest.raises(ValueError, match=argument):
        enterprise_log(**{"num_events": 10, argument: -1})


def test_average_precision_by_hand() -> None:
    for labels in itertools.product([False, True], repeat=5):
        scores = np.array([0.3, 0.9, 0.1, 0.7, 0.5])
        measured = detection_metrics(scores, labels)
        if not 0 < sum(labels) < 5:
            assert set(measured.values()) == {None}
            continue
        ranked = [labels[i] for i in np.argsort(-scores)]
        precision = [sum(ranked[: k + 1]) / (k + 1) for k in range(5) if ranked[k]]
        pairs = [(scores[i] > scores[j]) for i in range(5) for j in range(5) if labels[i] and not labels[j]]
        assert measured["AP"] == pytest.approx(np.mean(precision))
        assert measured["ROC_AUC"] == pytest.approx(np.mean(pairs))
        assert measured["R_precision"] == pytest.approx(sum(ranked[: sum(labels)]) / sum(labels))
    with pytest.raises(ValueError, match="finite"):
        detection_metrics([np.nan, 1.0], [True, False])
