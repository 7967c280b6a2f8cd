"""Result files of the benchmarks: runs replace earlier ones, and every committed table says what its JSON holds."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

FILES = importlib.import_module("benchmark_results")
RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
TABLES = [
    "bundle_accuracy",
    "clustering_accuracy",
    "cold_items",
    "collaborative_accuracy",
    "collaborative_speed",
    "embedding_accuracy",
    "event_accuracy",
    "retrieval_accuracy",
    "retrieval_memory",
    "unlearning",
]


@pytest.mark.parametrize("name", TABLES)
def test_the_committed_table_is_that_of_the_json(name: str) -> None:
    script = importlib.import_module(name)
    table = (RESULTS / f"{name}.md").read_text(encoding="utf-8")
    assert table == script.as_markdown(FILES.read_results(RESULTS / name))


def test_a_run_takes_the_place_of_its_like_and_keeps_the_order() -> None:
    runs: list[dict[str, Any]] = [{"t": 0.1, "seed": 0, "value": 1}, {"t": 0.2, "seed": 0, "value": 2}]
    FILES.put_run(runs, {"t": 0.1, "seed": 1, "value": 3}, "t", "seed")
    FILES.put_run(runs, {"t": 0.1, "seed": 0, "value": 4}, "t", "seed")
    assert [run["value"] for run in runs] == [4, 3, 2]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    out = tmp_path / "new" / "results"
    assert FILES.read_results(out, rows=[]) == {"rows": []}
    FILES.write_results(out, {"rows": [float("nan"), 1]}, "# table\n")
    assert FILES.read_results(out, rows=[]) == {"rows": [None, 1]}
    assert json.loads(out.with_suffix(".json").read_text()) == {"rows": [None, 1]}
    assert out.with_suffix(".md").read_text() == "# table\n"
