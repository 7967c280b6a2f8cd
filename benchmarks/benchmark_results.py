"""Result files of the benchmarks: JSON for what was measured, and a table beside it that is made from the JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from graphcl.pipelines.runs import write_by_rename, write_json

__all__ = ["put_run", "read_results", "write_results"]


def read_results(out: Path, **empty: Any) -> dict[str, Any]:
    """What ``out`` with the suffix ``.json`` holds, or ``empty`` where there is no such file."""
    path = out.with_suffix(".json")
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else empty


def write_results(out: Path, record: Any, table: str) -> None:
    """Write ``out`` with the suffixes ``.json`` and ``.md``, each by rename."""
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out.with_suffix(".json"), record)
    write_by_rename(out.with_suffix(".md"), lambda path: path.write_text(table, encoding="utf-8"))


def put_run(runs: list[dict[str, Any]], run: dict[str, Any], *keys: str) -> None:
    """Put a run in the place of the one with the same values of ``keys``; they are sorted by these."""
    kept = [other for other in runs if any(other[key] != run[key] for key in keys)]
    runs[:] = sorted([*kept, run], key=lambda each: [each[key] for key in keys])
