"""The benchmark of hypergraph building: its cases run, its forms agree, its page says what was measured."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from graphcl.graphs import Hypergraph

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "hypergraph_build.py"


def load() -> ModuleType:
    specification = importlib.util.spec_from_file_location("benchmark_hypergraph_build", SCRIPT)
    if specification is None or specification.loader is None:
        raise ImportError(SCRIPT)
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPT.parent))
        specification.loader.exec_module(module)
    return module


BENCHMARK = load()


def test_every_case_runs_and_the_forms_of_one_hypergraph_agree() -> None:
    results = {name: run() for name, run in BENCHMARK.cases(1_000).items()}
    members = results["membership"]
    assert isinstance(members, Hypergraph)
    assert members.num_incidences == results["membership, SciPy"].nnz
    assert results["user-item graph"].num_edges == members.num_incidences
    assert results["one hop"].num_incidences == 1_000
    tuples = BENCHMARK.python_tuples(1_000)()
    assert sum(len(one) for one in tuples) <= members.num_incidences


def test_page_and_exponents() -> None:
    rows = [
        {
            "case": "linear",
            "incidences": size,
            "peak_extra_mib": size / 1000,
            "seconds": {"p20": 0.0, "median": size / 1e6, "p80": 1.0},
        }
        for size in (10_000, 100_000)
    ]
    assert BENCHMARK.exponents(rows)["linear"] == pytest.approx((1.0, 1.0))
    text = BENCHMARK.page(rows, {"threads": 1, "processor": "p", "torch": "2"})
    assert "| linear | 100,000 | 0.1000 (0.0000, 1.0000) | 100 MiB |" in text
    assert "| linear | 1.00 | 1.00 |" in text


def test_measure_reports_quantiles() -> None:
    calls: list[int] = []
    row = BENCHMARK.measure("append", lambda: calls.append(1), 5, 4)
    assert len(calls) == 5
    assert row["seconds"]["p20"] <= row["seconds"]["median"] <= row["seconds"]["p80"]
