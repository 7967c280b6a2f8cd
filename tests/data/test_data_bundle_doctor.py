"""The doctor for bundles: each finding on a table made to have it, and none on clean bundles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from graphcl.cli.app import run
from graphcl.data import diagnose_bundles, synthetic_bundles
from graphcl.errors import InputError


def rows(*bundles: list[int]) -> list[tuple[str, str]]:
    return [(f"b{number}", f"i{item}") for number, items in enumerate(bundles) for item in items]


def write(path: Path, header: str, table: list[tuple[str, str]]) -> Path:
    path.write_text("\n".join([header, *(",".join(row) for row in table)]) + "\n")
    return path


def damaged(folder: Path) -> tuple[Path, dict[str, Any]]:
    """One-item and repeated bundles, a repeated row, an empty id, items that are unknown or lack features."""
    bundles = [[n, n + 1, n + 2] for n in range(20)]
    table = write(folder / "sets.csv", "bundle,item", [*rows(*bundles, [3], [3, 4, 5, 5], [7, 99], [2]), ("b30", "")])
    clicks = [(f"u{n}", f"i{n}") for n in range(22)] + [("u1", "i50")]
    options = {"interactions": write(folder / "clicks.csv", "user,item", clicks)}
    colours = [(f"i{n}", "red") for n in range(21)] + [("x", "red")]
    options["features"] = write(folder / "items.csv", "item,colour", colours)
    return table, options


def test_every_finding_has_a_line(tmp_path: Path) -> None:
    table, options = damaged(tmp_path)
    report = diagnose_bundles(table, **options)
    assert report.bundles == 24
    assert report.affiliations == 60 + 1 + 3 + 2 + 1
    assert (report.empty, report.of_one_item) == (0, 2)
    assert report.repeated_rows == 1
    assert report.repeated_bundles == 1  # [3, 4, 5]; bundles of one item differ
    assert report.items_without_bundle == 1  # i50
    assert report.items_without_feedback == 1  # i99
    assert report.items_without_features == 2  # i21 and i99
    assert report.unknown_feature_rows == 1
    assert report.read.rows_dropped == 1
    warned = "\n".join(entry.problem for entry in report.warnings)
    for words in (
        "1 of 69 rows cannot be used",
        "2 bundles hold one item",
        "1 rows name an item that their bundle already holds",
        "1 bundles have exactly the items of an earlier one",
        "1 items of bundles are unknown to the interactions",
        "2 items of bundles have no features",
        "1 rows of features are of unknown items",
    ):
        assert words in warned
    assert "without an item" not in warned
    assert all(len(line) > 14 for line in report.lines())
    json.dumps(report.to_dict())


def test_clean_bundles_have_no_warning() -> None:
    bundles = synthetic_bundles(80, 60, 200, styles=5)
    report = diagnose_bundles(bundles)
    assert report.not_evaluable == 0
    assert report.of_one_item == 0
    assert [entry.problem for entry in report.warnings if "unknown to the interactions" not in entry.problem] == []
    few = diagnose_bundles(pl.DataFrame({"bundle": ["a", "a", "b"], "item": [1, 2, 1]}))
    assert any("cannot be divided" in entry.problem for entry in few.warnings)
    with pytest.raises(InputError, match="unknown option 'feature'"):
        diagnose_bundles(pl.DataFrame({"bundle": ["a"], "item": [1]}), feature="x.csv")


def test_the_published_layout(tmp_path: Path) -> None:
    (tmp_path / "count.json").write_text('{"#U": 1, "#B": 6, "#I": 5}')
    files = {
        "bi_train": "0, 1, 2\n1, 2\n",
        "bi_valid_input": "2, 0\n",
        "bi_valid_gt": "2, 1\n",
        "bi_test_input": "3, 0, 1\n4, 2\n",
        "bi_test_gt": "3, 1, 4\n",
    }
    for name, text in files.items():
        (tmp_path / f"{name}.txt").write_text(text)
    report = diagnose_bundles(tmp_path)
    assert report.empty == 1  # 5 stands in no file
    assert report.of_one_item == 2
    assert report.repeated_rows == 1  # item 1 of bundle 3 is shown and to be found
    assert report.not_evaluable == 1  # 4 hides nothing
    assert report.items_without_bundle == 1


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, options = damaged(tmp_path)
    load = [f"--load={name}={path}" for name, path in options.items()]
    assert run(["datasets", "check", str(table), *load]) == 0
    printed = capsys.readouterr().out
    assert "24, items each" in printed
    assert "2 bundles hold one item" in printed
    assert run(["datasets", "check", str(table), "--kind", "bundles", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["items_without_features"] is None
    assert run(["datasets", "check", "synthetic-bundles"]) == 0
    assert run(["datasets", "check", str(table), "--load", "shown=0.3"]) == 0
    capsys.readouterr()
    for arguments, message in (
        ([str(table), "--user-column", "bundle"], "--user-column does not apply: these are bundles"),
        ([str(table), "--load", "show=1"], "unknown option 'show'"),
        ([str(options["interactions"]), "--kind", "bundles"], "no bundle column was recognised"),
        (["synthetic-tags"], "there is no doctor for retrieval"),
        (["enterprise-log"], "there is no doctor for events"),
    ):
        assert run(["datasets", "check", *arguments]) == 2
        line = capsys.readouterr().err.splitlines()
        assert len(line) == 1
        assert message in line[0]
