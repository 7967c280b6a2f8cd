"""Forgetting from the command line: a new run, its report, and bad input of every kind."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from graphcl.cli.app import run
from graphcl.data import synthetic_shop

SMALL = ["--epochs", "2", "--set", "hidden=8", "--set", "progress=false"]
SHORT = ["--set", "steps=2", "--set", "autoencoder_steps=10", "--set", "repair_epochs=1"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unlearn")
    log = synthetic_shop(num_users=60, num_items=30, num_categories=5, seed=0)
    users, items = log.user_ids.to_external(log.user), log.item_ids.to_external(log.item)
    pl.DataFrame({"user": users, "item": items, "time": log.time}).write_csv(folder / "log.csv")
    assert run(["train", "lightgcn", "--data", str(folder / "log.csv"), "--out", str(folder / "run"), *SMALL]) == 0
    ring = [(node, (node + step) % 40) for node in range(40) for step in (1, 2)]
    pl.DataFrame(ring, schema=["source", "target"], orient="row").write_csv(folder / "edges.csv")
    features = pl.DataFrame({"node": list(range(40)), "a": [n % 5 for n in range(40)], "b": [n % 3 for n in range(40)]})
    features.write_csv(folder / "features.csv")
    embed = ["train", "dgi", "--data", str(folder / "edges.csv"), "--features", str(folder / "features.csv")]
    settings = ["--epochs", "2", "--set", "widths=[4]", "--set", "layers=1", "--set", "progress=false"]
    assert run([*embed, "--out", str(folder / "nodes"), *settings]) == 0
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_new_run_without_users_and_items(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(trained / "run")
    (tmp_path / "items.txt").write_text("3\n5\n")
    out = tmp_path / "new"
    command = ["unlearn", str(trained / "run"), "--users", "4, 8", "--users", "9", "--out", str(out), *SHORT]
    assert run([*command, "--items", str(tmp_path / "items.txt"), "--compare-retraining"]) == 0
    printed = capsys.readouterr().out
    assert "3 users, 2 items" in printed
    assert "from scratch" in printed
    assert files(trained / "run") == before
    record = json.loads((out / "unlearning.json").read_text())
    assert set(record["membership"]) == {"before", "after", "retrained"}
    assert record["settings"]["steps"] == 2
    page = (out / "report.html").read_text()
    for words in ("What was forgotten", "users: training against random items", "trained from scratch without"):
        assert words in page
    assert run(["evaluate", str(out), "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)["metrics"]
    assert measured["HR@20"] == pytest.approx(record["retained"]["after"]["HR@20"])
    assert run(["recommend", str(out), "--users", "all", "-k", "20", "--out", str(tmp_path / "l.csv")]) == 0
    lists = pl.read_csv(tmp_path / "l.csv")
    assert not set(lists["item"]) & {3, 5}
    assert not set(lists["user"]) & {4, 8, 9}


def test_nodes_and_json(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["unlearn", str(trained / "nodes"), "--nodes", "7", "--out", str(tmp_path / "new"), *SHORT, "--json"]
    assert run(command) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["forgotten"]["nodes"] == 1
    assert printed["forgotten"]["edges"] == 4
    assert "What was forgotten" in (tmp_path / "new" / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["RUN"], "there is nothing to forget"),
        (["RUN", "--users", "4,nobody"], "user 'nobody' is unknown"),
        (["RUN", "--items", "99"], "item '99' is unknown"),
        (["RUN", "--users", " , "], "holds no id"),
        (["RUN", "--users", ",".join(map(str, range(1, 61)))], "every user would be forgotten"),
        (["RUN", "--nodes", "4"], "knows no nodes"),
        (["NODES", "--users", "4"], "knows no users"),
        (["RUN", "--users", "4", "--set", "step=4"], "did you mean 'steps'?"),
        (["RUN", "--users", "4", "--set", "steps"], "is not KEY=VALUE"),
        (["NO", "--users", "4"], "no such run folder"),
    ],
)
def test_bad_input_is_one_line(
    trained: Path, tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"RUN": trained / "run", "NODES": trained / "nodes", "NO": trained / "no"}
    command = ["unlearn", *(str(places.get(part, part)) for part in arguments), "--out", str(tmp_path / "out")]
    assert run(command) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_taken_is_left_alone(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(trained)
    command = ["unlearn", str(trained / "run"), "--users", "4", *SHORT, "--out"]
    for out, message in (
        ("run", "is the run that is to stay"),
        ("nodes", "holds a run of the embedding pipeline"),
        ("log.csv", "is a file, not a run folder"),
    ):
        assert run([*command, str(trained / out), "--overwrite"]) == 2
        assert message in capsys.readouterr().err
    assert files(trained) == before
    assert run([*command, str(tmp_path / "new")]) == 0
    assert run([*command, str(tmp_path / "new")]) == 2
    assert "holds a run; give another folder, or --overwrite" in capsys.readouterr().err
    assert run([*command, str(tmp_path / "new"), "--overwrite"]) == 0
