"""Recommendations for a file of histories of people that were not in the training data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from graphcl.cli.app import run
from graphcl.data import Interactions
from graphcl.pipelines import SequentialRecommender


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("histories") / "run"
    user = np.repeat(np.arange(30), 7)
    log = Interactions.from_arrays(user, [f"i{(u * 5 + t) % 9}" for u in range(30) for t in range(7)])
    SequentialRecommender("cl4srec", epochs=1, hidden=8, layers=1, max_length=5, progress=False).fit(log, out)
    return out


def test_a_file_of_histories_is_served_in_time_order(trained: Path, tmp_path: Path) -> None:
    table = pl.DataFrame(
        {"user": ["new", "other", "new", "new"], "item": ["i3", "i1", "i5", "i4"], "timestamp": [1, 1, 3, 2]}
    )
    path, out = tmp_path / "histories.csv", tmp_path / "recs.csv"
    table.write_csv(path)
    assert run(["recommend", str(trained), "--history", str(path), "-k", "4", "--out", str(out)]) == 0
    written = pl.read_csv(out)
    expected = SequentialRecommender.load(trained).recommend_for_histories([["i3", "i4", "i5"], ["i1"]], 4)
    assert written.columns == ["user", "item", "rank", "score"]
    by_user = {name: written.filter(written["user"] == name)["item"].to_list() for name in ("new", "other")}
    for number, name in enumerate(("new", "other")):
        assert by_user[name] == expected.filter(expected["history"] == number)["item"].to_list()


def test_bad_histories_are_one_line(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "histories.csv"
    path.write_text("user,item\nu,i3\nu,unheard\n")
    command = ["recommend", str(trained), "--out", str(tmp_path / "recs.csv"), "--history"]
    for arguments, words in (
        ([*command, str(path)], "'unheard' is unknown"),
        ([*command, str(tmp_path / "absent.csv")], "absent.csv"),
        ([*command, str(path), "--users", "all"], "the users are those of the file of histories"),
    ):
        assert run(arguments) == 2
        message = capsys.readouterr().err.strip()
        assert len(message.splitlines()) == 1
        assert words in message
    assert not (tmp_path / "recs.csv").exists()
    assert run([*command, str(path), "--on-unsupported", "ignore"]) == 0
