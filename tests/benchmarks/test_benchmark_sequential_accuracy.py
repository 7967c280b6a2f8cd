"""The accuracy benchmark of the sequential models: merging, continuing, tuning without the test, the paired test."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from graphcl.metrics import paired_t_test
from graphcl.pipelines import SequentialRecommender

FOLDER = Path(__file__).parents[2] / "benchmarks"
QUICK = ["hidden=8", "inner=8", "layers=1", "max_length=5", "epochs=1", "progress=false"]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


ACCURACY, METHODS = load("sequential_accuracy"), load("sequential_methods")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.csv"
    rows = [f"{user},{(user * 5 + step * (1 + user % 2)) % 9},{step}" for user in range(30) for step in range(7)]
    path.write_text("\n".join(["user,item,time", *rows]))
    return path


def call(log: Path, *more: str, settings: list[str] | None = None) -> dict[str, Any]:
    folder = log.parent
    chosen = ["--set", *(settings or QUICK)]
    ACCURACY.main(["--data", str(log), "--out", str(folder / "out"), "--runs", str(folder / "runs"), *more, *chosen])
    records: dict[str, Any] = json.loads((folder / "out.json").read_text())["records"]
    return records


def test_runs_are_merged_and_compared(
    log: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = ["--label", "small"]
    call(log, "--seeds", "0", *plain)
    call(log, "--model", "cl4srec", "--seeds", "0", "1", *plain)
    assert "paired t-test" not in (log.parent / "out.md").read_text()  # one seed in common
    records = call(log, "--seeds", "1", "2", *plain)
    assert [record["model"] for record in records.values()] == ["sasrec", "cl4srec"]
    base, other = records.values()
    assert [run["seed"] for run in base["runs"]] == [0, 1, 2]
    values = [[run["test"]["HR@20"] for run in record["runs"][:2]] for record in (other, base)]
    test = paired_t_test(*values)
    assert test.difference == pytest.approx(values[0][0] / 2 + values[0][1] / 2 - values[1][0] / 2 - values[1][1] / 2)
    text = (log.parent / "out.md").read_text()
    assert f"over seeds 0, 1: HR@20 {test.difference:+.4f}" in text

    # What is there is neither trained again nor lost, and runs that are complete are read.
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("trained again")

    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(SequentialRecommender, "fit", refuse)
        assert call(log, "--seeds", "0", "1", "2", *plain) == records
        assert "seed 0 is measured already" in capsys.readouterr().out
        again = call(log, "--seeds", "0", "--again", *plain)
        key = next(iter(again))
        assert again[key]["runs"][0]["test"] == records[key]["runs"][0]["test"]
    with pytest.raises(SystemExit, match="other values of hidden"):
        call(log, "--seeds", "3", *plain, settings=["hidden=4", *QUICK[1:]])


def test_tuning_keeps_validation_metrics_alone(log: Path) -> None:
    records = call(log, "--model", "duorec", "--seeds", "7", "--tuning")
    (record,) = records.values()
    assert record["configuration"] == "hidden 8, inner 8, layers 1, max_length 5"
    assert record["runs"] == []
    assert "test" not in record["tuning"][0]
    text = (log.parent / "out.md").read_text()
    assert "Tried on validation alone: seed 7: HR@20" in text
    assert METHODS.accuracy_of("duorec", str(log), records) == "not measured | not measured"


def test_a_run_that_stopped_is_continued(log: Path) -> None:
    out = ACCURACY.folder_of(log.parent / "runs", str(log), "sasrec", "small", 0)
    SequentialRecommender(
        "sasrec", seed=0, hidden=8, inner=8, layers=1, max_length=5, epochs=1, progress=False
    ).fit(ACCURACY.load_dataset(str(log)).split(), out)  # fmt: skip
    (out / "manifest.json").unlink()  # written last: this run stopped short of its end
    (record,) = call(
        log, "--seeds", "0", "--label", "small", settings=[*QUICK[:4], "epochs=2", "progress=false"]
    ).values()
    assert record["runs"][0]["epochs"] == 2
    assert (out / "manifest.json").is_file()


def test_the_table_of_methods_shows_measured_accuracy() -> None:
    def record(model: str, configuration: str, settings: dict[str, Any], valid: float, test: float) -> dict[str, Any]:
        return {
            "data": "beauty", "model": model, "configuration": configuration, "settings": settings, "runs": [{}, {}],
            "validation": {"NDCG@20": {"mean": valid}},
            "test": {name: {"mean": test, "deviation": 0.001} for name in ("HR@20", "NDCG@20")},
        }  # fmt: skip

    records = {
        "a": record("sracl", "max_length 20", {"max_length": 20}, 0.2, 0.125),
        "b": record("sracl", "max_length 50", {"max_length": 50, "epochs": 3}, 0.1, 0.115),
    }
    assert (
        METHODS.accuracy_of("sracl,max_length=50", "beauty", records) == "0.1150 ± 0.0010 (2 seeds) | 0.1150 ± 0.0010"
    )
    one_seed = {"a": records["a"] | {"runs": [{}]}}
    assert METHODS.accuracy_of("sracl", "beauty", one_seed) == "0.1250 (max_length 20; 1 seed) | 0.1250"
    assert METHODS.accuracy_of("sracl", "beauty", records).startswith("0.1250 ± 0.0010 (max_length 20; 2 seeds)")
    for contestant in ("sracl,rows=prefix", "mclrec"):
        assert METHODS.accuracy_of(contestant, "beauty", records) == "not measured | not measured"
    row = {"epoch_seconds": 2.0, "share_of_epoch": 0.1, "prepare_seconds": 1.0, "peak_mib": 100, "data": "beauty"}
    table = METHODS.as_markdown({"AVX2": {"sasrec": row, "sracl": row}, "AVX512": {"sasrec": row}}, records)
    assert table.count("| HR@20 | NDCG@20 |") == 2
    assert table.index("## Processor with AVX2") < table.index("## Processor with AVX512")
    assert "not measured" in table


def test_the_committed_table_is_that_of_the_committed_numbers() -> None:
    records = ACCURACY.read_records(FOLDER / "results" / "sequential_accuracy")
    assert (FOLDER / "results" / "sequential_accuracy.md").read_text(encoding="utf-8") == ACCURACY.as_markdown(records)
