"""Sweeps and comparisons through the command line, on a log made in a moment."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from graphcl.cli.app import run
from graphcl.cli.options import parse_alternatives
from graphcl.errors import InputError

TINY = ["--set", "heads=1", "--set", "inner=8", "--set", "max_length=6", "--set", "progress=false", "--epochs", "1"]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("compare") / "log.csv"
    rows = [f"{user},{(user * 3 + step) % 12},{step}" for user in range(20) for step in range(6)]
    path.write_text("user,item,time\n" + "\n".join(rows) + "\n")
    return path


def test_a_sweep_is_a_grid_that_resumes_and_compares(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "grid"
    command = ["train", "sasrec", "--data", str(log), "--out", str(out), "--set", "hidden=4,8", *TINY]
    assert run([*command, "--seeds", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {group["name"] for group in found["groups"]} == {"sasrec hidden=4", "sasrec hidden=8"}
    assert all(group["seeds"] == [0, 1] for group in found["groups"])
    assert found["groups"][0]["against_reference"] is not None
    assert (out / "comparison.html").is_file()
    kept = out / "hidden=4" / "seed-1" / "metrics.json"
    before = kept.stat().st_mtime_ns
    (out / "hidden=8" / "seed-1" / "manifest.json").unlink()
    assert run([*command, "--seeds", "2"]) == 2
    assert "holds a sweep" in capsys.readouterr().err
    assert run([*command, "--seeds", "2", "--resume"]) == 0
    assert kept.stat().st_mtime_ns == before
    assert (out / "hidden=8" / "seed-1" / "manifest.json").is_file()
    capsys.readouterr()
    assert run(["compare", str(out), "--by", "HR@5", "--best", "--html", str(tmp_path / "page.html")]) == 0
    text = capsys.readouterr().out
    assert "Comparison by HR@5" in text
    assert "one group: nothing to test" in text
    assert (tmp_path / "page.html").is_file()
    (out / "hidden=4" / "seed-0" / "metrics.json").unlink()
    assert run(["compare", str(out)]) == 2
    assert "incomplete run" in capsys.readouterr().err


def test_bad_sweeps_leave_nothing(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", "sasrec", "--data", str(log), "--out", str(tmp_path / "x"), *TINY]
    for more, message in (
        (["--set", "hidden=4,0"], "hidden"),
        (["--set", "hidden=4,4"], "twice"),
        (["--set", "seed=1,2"], "--seeds"),
        (["--set", "hiden=4,8"], "hidden"),
    ):
        assert run([*command, *more]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_commas_in_lists_and_quotes_do_not_make_a_sweep() -> None:
    assert parse_alternatives(["fanout=[5, 5],[10, 10]"]) == {"fanout": [[5, 5], [10, 10]]}
    assert parse_alternatives(["paths={image: 'a,b.npy', text: c.npy}"]) == {
        "paths": [{"image": "a,b.npy", "text": "c.npy"}]
    }
    assert parse_alternatives(['path="a,b"', "rate=1e-3,0.01"]) == {"path": ["a,b"], "rate": ["1e-3", 0.01]}
    assert parse_alternatives(["rate=1e-3,1", "rate=0.01"]) == {"rate": [0.01]}
    with pytest.raises(InputError, match="KEY=VALUE"):
        parse_alternatives(["hidden"])
