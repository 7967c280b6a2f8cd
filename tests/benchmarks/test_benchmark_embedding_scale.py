from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "embedding_scale.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("embedding_scale", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_graph_has_the_sizes_it_is_said_to_have(script: ModuleType) -> None:
    graph = script.academic_graph(2000)
    assert {kind: graph[kind].num_nodes for kind in graph.node_types} == {
        "paper": 2000, "author": 4000, "venue": 4, "term": 40,
    }  # fmt: skip
    assert graph.num_edges == 20_000
    for kind in ("author", "term", "venue"):
        paper, other = graph["paper", "to", kind].edge_index
        assert int(other.max()) < graph[kind].num_nodes
        assert int(paper.max()) == 1999


def test_both_parts_are_measured_and_tabulated(script: ModuleType, tmp_path: Path) -> None:
    for part, measure in (("views", script.measure_views), ("training", script.measure_training)):
        for papers in (600, 1200) if part == "views" else (1200,):
            phases = script.Phases()
            found: dict[str, Any] = measure(papers, phases)
            assert tuple(phases.found) == script.PARTS[part]
            script.add({"papers": papers, "part": part, **found, "phases": phases.found}, tmp_path)
    text = (tmp_path / "embedding_scale.md").read_text(encoding="utf-8")
    for words in ("| view PTP |", "12,000 entries", "## Training", "| epoch |"):
        assert words in text


def test_an_exponent_is_the_slope_of_logarithms(script: ModuleType) -> None:
    sizes = [{"papers": n, "phases": {"epoch": {"seconds": 3.0 * n**1.5}}} for n in (10, 20, 40)]
    assert script.exponents(sizes, "epoch", "seconds") == 1.5
    assert script.exponents(sizes[:2], "epoch", "seconds") is None
