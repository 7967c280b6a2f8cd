"""The benchmark of objectives: which cases it runs, how it reports those that fail, what it writes."""

from __future__ import annotations

import importlib.util
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from graphcl.losses.catalogue import CATALOGUE

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "losses.py"


def load() -> ModuleType:
    specification = importlib.util.spec_from_file_location("benchmark_losses", SCRIPT)
    if specification is None or specification.loader is None:
        raise ImportError(SCRIPT)
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


BENCHMARK = load()


@pytest.fixture
def _one_thread() -> Iterator[None]:
    """Children are forked, and threads that earlier tests started in this process do not live on in them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def row(form: str, size: int, seconds: float | None, name: str = "nt_xent") -> dict[str, object]:
    about: dict[str, object] = {"objective": name, "form": form, "size": size, "dim": 64}
    measured = {"seconds": seconds, "steps": 1, "extra_mib": 3.0, "value": 1.0}
    return {**about, **(measured if seconds is not None else {"failed": "out of memory"})}


def test_every_objective_has_its_own_form_and_the_engine_ones_a_dense_one() -> None:
    assert all(BENCHMARK.forms_of(name)[0] == "graphcl" for name in CATALOGUE)
    assert BENCHMARK.forms_of("nt_xent") == ["graphcl", "dense", "PML NTXentLoss", "PML SupConLoss"]
    assert BENCHMARK.forms_of("alignment") == ["graphcl"]


@pytest.mark.usefixtures("_one_thread")
def test_forms_agree_in_a_process_of_their_own() -> None:
    # Long enough for clocks that tick every few milliseconds.
    ours, dense = (BENCHMARK.measure(form, "nt_xent", 1500, 16, 120, once=True) for form in ("graphcl", "dense"))
    assert ours["value"] == pytest.approx(dense["value"], rel=1e-5)
    assert ours["seconds"] > 0
    assert ours["steps"] == 1
    assert BENCHMARK.describe(ours).endswith("MiB") or ours["extra_mib"] is None


def test_a_case_that_takes_too_long_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def run_on(*_: object) -> dict[str, object]:
        while True:
            pass

    monkeypatch.setattr(BENCHMARK, "run_case", run_on)
    slow = BENCHMARK.measure("graphcl", "nt_xent", 40, 8, 0.01)
    assert slow["failed"] == "more than 0 s"


def test_a_case_that_fails_tells_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> dict[str, object]:
        raise ValueError("no such thing\nand more")

    monkeypatch.setattr(BENCHMARK, "run_case", refuse)
    assert BENCHMARK.measure("graphcl", "nt_xent", 40, 8, 120)["failed"] == "ValueError: no such thing"

    def ask_too_much(*_: object) -> dict[str, object]:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 549 bytes")

    monkeypatch.setattr(BENCHMARK, "run_case", ask_too_much)
    assert BENCHMARK.measure("graphcl", "nt_xent", 40, 8, 120)["failed"] == "out of memory"


def test_a_form_that_fails_is_not_tried_at_larger_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def fail(form: str, name: str, size: int, dim: int, timeout: float) -> dict[str, object]:
        tried.append(size)
        return row(form, size, None if size > 1 else 0.5)

    monkeypatch.setattr(BENCHMARK, "measure", fail)
    rows = list(BENCHMARK.run(["nt_xent"], [1, 2, 3], 64, 1.0, ["dense"]))
    assert tried == [1, 2]
    assert [entry.get("failed") for entry in rows] == [None, "out of memory", "not tried after out of memory at 2"]
    again = list(BENCHMARK.run(["nt_xent"], [4], 64, 1.0, ["dense"], known=rows))
    assert tried == [1, 2]
    assert again[0]["failed"] == "not tried after out of memory at 2"


def test_results_merge_and_are_drawn(tmp_path: Path) -> None:
    rows = [row("graphcl", 1024, 0.1), row("graphcl", 2048, 0.4), row("dense", 1024, 0.2), row("dense", 2048, None)]
    peer = [row("PML NTXentLoss", 1024, 0.3), row("PML NTXentLoss", 2048, None)]
    BENCHMARK.write(tmp_path, "losses", rows + peer)
    merged = BENCHMARK.merge(tmp_path / "losses.json", [row("graphcl", 2048, 0.3), row("graphcl", 1024, 1, "dcl")])
    assert len(merged) == 7
    assert [entry["seconds"] for entry in merged if (entry["form"], entry["size"]) == ("graphcl", 2048)] == [0.3]
    table = (tmp_path / "losses.md").read_text()
    assert "| nt_xent | S | dense | 200 ms, 3 MiB | out of memory |" in table
    assert "| nt_xent | NTXentLoss | 1,024 | 100 ms, 3 MiB | 300 ms, 3 MiB | 3.0x | 1.0x |" in table
    assert "| 1,024 | 1 | 0 | 2.0x | 2.0x to 2.0x | 1.0x | 1.0x to 1.0x |" in table
    assert "| 2,048 | 1 | 1 | failed | none | failed | none |" in table
    drawing = ElementTree.parse(tmp_path / "losses.svg")
    lines = drawing.findall(".//{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 10  # time and memory: two medians, three forms of the named loss


def test_quartiles_count_failures_as_infinite() -> None:
    assert BENCHMARK._quartiles([3.0, 1.0, float("inf"), 2.0, float("inf")]) == (2.0, 3.0, float("inf"))


def test_memory_check_counts_failures_as_above(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"nt_xent": 100.0, "dcl": 2000.0, "info_nce": None}

    def measured(form: str, name: str, *rest: object, **options: object) -> dict[str, object]:
        return {**row(form, 65_536, 1.0, name), "extra_mib": found[name]}

    monkeypatch.setattr(BENCHMARK, "measure", measured)
    rows, above = BENCHMARK.check_memory(["nt_xent", "dcl", "info_nce", "alignment"], 1.0)
    assert [entry["within_limit"] for entry in rows] == [True, False, False]
    assert above == ["dcl", "info_nce"]


def test_memory_table_starts_with_what_was_not_measured(tmp_path: Path) -> None:
    rows = [{**row("graphcl", 65_536, 1.0), "within_limit": True}]
    rows += [{**row("graphcl", 65_536, None, "dcl"), "within_limit": False}]
    BENCHMARK.write(tmp_path, "losses_memory", rows)
    lines = (tmp_path / "losses_memory.md").read_text().splitlines()[-2:]
    assert lines == ["| dcl | S | out of memory | no |  |", "| nt_xent | S | 3 | yes | 1.0 s |"]
