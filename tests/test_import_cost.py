"""`import graphcl` is cheap: nothing heavy is loaded until it is asked for."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "torch_geometric", "pytorch_lightning", "polars", "pandas", "sklearn", "plotly", "triton", "networkx")

SCRIPT = """
import json, sys, time
start = time.perf_counter()
import graphcl
{then}
seconds = time.perf_counter() - start
print(json.dumps({{"seconds": seconds, "loaded": [name for name in {heavy!r} if name in sys.modules]}}))
"""


def fresh_import(then: str = "") -> dict[str, object]:
    script = SCRIPT.format(then=then, heavy=HEAVY)
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    result: dict[str, object] = json.loads(output)
    return result


def test_import_takes_less_than_a_second_and_loads_nothing_heavy() -> None:
    # The best of three: a busy machine may delay one start, it cannot speed one up.
    results = [fresh_import() for _ in range(3)]
    seconds = [result["seconds"] for result in results]
    assert min(float(str(value)) for value in seconds) < 1.0
    assert all(result["loaded"] == [] for result in results)


def test_the_command_line_starts_without_the_heavy_packages() -> None:
    assert fresh_import("import graphcl.cli")["loaded"] == []


@pytest.mark.parametrize(
    ("room", "allowed"),
    [
        ("kernels", {"torch"}),
        ("functional", {"torch"}),
        ("losses", {"torch"}),
        ("nn", {"torch"}),
    ],
)
def test_a_room_loads_only_what_it_needs(room: str, allowed: set[str]) -> None:
    loaded = fresh_import(f"import graphcl.{room}")["loaded"]
    assert isinstance(loaded, list)
    assert set(loaded) <= allowed


def test_unknown_names_are_refused() -> None:
    import graphcl

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = graphcl.nothing
    assert "Interactions" in dir(graphcl)
