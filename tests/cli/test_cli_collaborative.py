"""The command line on graph recommenders: item features in the doctor and in training, bad ones of every kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from graphcl.cli.app import run

USERS, ITEMS = 20, 15
QUICK = ["--epochs", "1", "--set", "hidden=4", "--set", "batch_size=64"]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A published split in which user 3 has no training row."""
    rows = ["userID\titemID\tx_label"]
    for user in range(USERS):
        parts = [2] * 6 if user == 3 else [0, 0, 0, 0, 1, 2]
        rows += [f"{user}\t{(user + 2 * step) % ITEMS}\t{part}" for step, part in enumerate(parts)]
    path = tmp_path / "log.inter"
    path.write_text("\n".join(rows) + "\n")
    return path


def write_good(folder: Path) -> Path:
    path = folder / "good.parquet"
    ids = [*range(ITEMS - 2), 901, 902]
    pl.DataFrame({"item": ids, "x": np.linspace(-1, 1, ITEMS), "y": np.cos(np.arange(ITEMS))}).write_parquet(path)
    return path


def write_ragged(folder: Path) -> Path:
    path = folder / "ragged.jsonl"
    path.write_text("".join(json.dumps({"item": i, "v": [1.0] * (3 if i == 4 else 2)}) + "\n" for i in range(ITEMS)))
    return path


def write_ragged_csv(folder: Path) -> Path:
    path = folder / "ragged.csv"
    path.write_text("item,x,y\n" + "".join(f"{i},{i},1{',9' if i == 4 else ''}\n" for i in range(ITEMS)))
    return path


def write_duplicate(folder: Path) -> Path:
    path = folder / "twice.parquet"
    pl.DataFrame({"item": [0, 1, 1], "x": [1.0, 2.0, 3.0]}).write_parquet(path)
    return path


def write_not_finite(folder: Path) -> Path:
    rows = np.ones((ITEMS, 3))
    rows[7, 1] = np.nan
    np.save(folder / "nan.npy", rows)
    return folder / "nan.npy"


def write_unknown(folder: Path) -> Path:
    path = folder / "unknown.parquet"
    pl.DataFrame({"item": [901, 902], "x": [1.0, 2.0]}).write_parquet(path)
    return path


BAD: list[tuple[Callable[[Path], Path], str]] = [
    (write_ragged, "row 5, column 'v': feature rows have different widths: 2 in row 1, 3 in row 5"),
    (write_ragged_csv, "row 6: rows have different widths: 4 fields where the header has 3"),
    (write_duplicate, "item id 1 has two rows of features; give an item one row"),
    (write_not_finite, "features of item 7 hold a value that is missing or not finite"),
    (write_unknown, "no row of the 2 belongs to an item of the interactions; key them by item ids such as 0"),
]


def one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.strip().split("\n")
    return line


@pytest.mark.parametrize(("write", "message"), BAD, ids=lambda value: getattr(value, "__name__", ""))
def test_bad_features_are_one_line_and_leave_nothing(
    write: Callable[[Path], Path], message: str, log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = write(tmp_path), tmp_path / "run"
    train = ["train", "mmhcl", "--data", str(log), "--out", str(out), *QUICK]
    line = one_line([*train, "--set", f"item_features={{image: {path}}}"], capsys)
    assert message in line
    assert path.name in line
    assert not out.exists()
    assert message in one_line(["datasets", "check", str(log), "--item-features", f"image={path}"], capsys)


def test_the_doctor_and_the_run_tell_what_features_reach(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = write_good(tmp_path), tmp_path / "run"
    assert run(["datasets", "check", str(log), "--item-features", f"image={path}"]) == 0
    text = capsys.readouterr().out
    assert f"image: width 2, {ITEMS - 2} of {ITEMS} items have a row; 2 rows of unknown items left out" in text
    assert "1 users have no training row, 1 of them have test rows" in text
    train = ["train", "mmhcl", "--data", str(log), "--out", str(out), *QUICK]
    assert run([*train, "--set", f"item_features={{image: {path}}}", "--json"]) == 0
    protocol = json.loads(capsys.readouterr().out)["protocol"]
    assert protocol["modalities"] == f"image ({ITEMS - 2} of {ITEMS} items; 2 rows of unknown items left out)"
    assert protocol["users without history"] == "1 (evaluated)"
    assert "without all modalities" in (out / "report.html").read_text()
