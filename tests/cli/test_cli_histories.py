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


def test_histories_with_columns_of_any_name(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "histories.csv", tmp_path / "recs.csv"
    path.write_text("buyer,sku,when\nnew,i3,2\nnew,i5,1\n")
    command = ["recommend", str(trained), "--out", str(out), "-k", "3"]
    columns = ["--user-column", "buyer", "--item-column", "sku", "--time-column", "when"]
    assert run([*command, "--history", str(path)]) == 2
    assert "--user-column" in capsys.readouterr().err
    assert run([*command, "--history", str(path), *columns]) == 0
    expected = SequentialRecommender.load(trained).recommend_for_histories([["i5", "i3"]], 3)
    assert pl.read_csv(out)["item"].to_list() == expected["item"].to_list()
    capsys.readouterr()
    assert run([*command, "--users", "all", "--item-column", "sku"]) == 2
    assert "--item-column does not apply" in capsys.readouterr().err


@pytest.mark.parametrize(
    "source", [["--load=item_features=items.csv"], ["--set=semantics=vectors.csv"],
               ["--load=item_features=vectors.csv", "--set=semantics=features"]],
)  # fmt: skip
def test_items_that_only_features_name_are_ranked_and_read(
    source: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [f"{user},{(user * 5 + step) % 9},{step}" for user in range(30) for step in range(7)]
    Path("log.csv").write_text("\n".join(["user,item,time", *rows]))
    Path("items.csv").write_text("\n".join(["item,kind,size", *(f"{n},k{n % 3} l{n % 4},s{n % 2}" for n in range(10))]))
    Path("vectors.csv").write_text("\n".join(["item,a,b,c", *(f"{n},{n % 3},{n % 4},{n % 2 + 1}" for n in range(10))]))
    Path("histories.csv").write_text("user,item,time\nnew,9,1\n")
    small = [f"--set={pair}" for pair in ("hidden=8", "layers=1", "max_length=5", "progress=false")]
    train = ["train", "sracl", "--data", "log.csv", "--epochs=1", *small, *source]
    assert run([*train, "--out", "run"]) == 0
    assert run(["recommend", "run", "--history", "histories.csv", "-k", "10", "--out", "recs.csv"]) == 0
    assert sorted(pl.read_csv("recs.csv")["item"].to_list()) == list(range(10))
    assert run([*train, "--set", "catalogue=interactions", "--out", "closed"]) == 0
    capsys.readouterr()
    command = ["recommend", "closed", "--history", "histories.csv", "--out", "none.csv"]
    assert run(command) == 2
    assert "item 9 is unknown" in capsys.readouterr().err
    assert run([*command, "--on-unsupported", "warn"]) == 0
    assert capsys.readouterr().err.splitlines()[0] == "graphcl: warning: item 9 is unknown; left out"


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
