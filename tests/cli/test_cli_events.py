"""Events from the command line: every command on a run, and bad input of every kind."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from graphcl.cli.app import run
from graphcl.data import enterprise_log

SMALL = ["--epochs", "2", "--set", "dim=8", "--set", "batch_size=256", "--set", "progress=false"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("events")
    log = enterprise_log(1500, scale=0.02, num_teams=4, anomaly_rate=0.05, seed=0)
    log.events.to_table().write_csv(folder / "log.csv")
    assert run(["train", "ape", "--data", str(folder / "log.csv"), "--out", str(folder / "run"), *SMALL]) == 0
    return folder


def test_evaluate_score_embed_and_report(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", str(trained / "run"), "--json"]) == 0
    evaluated = json.loads(capsys.readouterr().out)
    saved = json.loads((trained / "run" / "metrics.json").read_text())
    assert evaluated["metrics"]["AP"] == pytest.approx(saved["test"]["AP"])
    out = tmp_path / "scores.csv"
    command = ["score", str(trained / "run"), "--data", str(trained / "log.csv"), "--out", str(out), "--chunk", "400"]
    assert run(command) == 0
    assert "wrote 1,500 scored events" in capsys.readouterr().out
    assert pl.read_csv(out).columns == ["user", "host", "process", "destination", "hour", "score", "unseen"]
    assert run(["embed", str(trained / "run"), "--out", str(tmp_path / "e.parquet")]) == 0
    assert pl.read_parquet(tmp_path / "e.parquet")["id"][0].startswith("user=user-")
    page = (trained / "run" / "report.html").read_text()
    for words in ("The most unusual test events", "Precision and recall", "one-class SVM", "Pairs of types"):
        assert words in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "ape", "--data", "no.csv", "--out", "OUT"], "no.csv: there is no such file"),
        (["train", "ape", "--data", "LOG", "--out", "OUT", "--set", "dimm=3"], "did you mean 'dim'?"),
        (["train", "ape", "--data", "LOG", "--out", "OUT", "--load", "columns=user"], "at least 2 types"),
        (["train", "ape", "--data", "LOG", "--out", "OUT", "--user-column", "user"], "trains on events"),
        (["score", "RUN", "--data", "LOG", "--out", "OUT.txt"], "unknown file type '.txt'"),
        (["recommend", "RUN", "--users", "all", "--out", "OUT.csv"], "recommends nothing"),
    ],
)
def test_bad_input_is_one_line(
    trained: Path, tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {
        "LOG": trained / "log.csv",
        "RUN": trained / "run",
        "OUT": tmp_path / "out",
        "OUT.txt": tmp_path / "o.txt",
    }
    places["OUT.csv"] = tmp_path / "o.csv"
    assert run([str(places.get(part, part)) for part in arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]
    assert list(tmp_path.iterdir()) == []
