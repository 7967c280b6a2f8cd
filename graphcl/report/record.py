"""What a report needs from a run folder, read and checked."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from graphcl.errors import InputError
from graphcl.pipelines.runs import RunFolder

FILES = ("config.yaml", "metrics.json", "history.csv", "manifest.json", "analysis.json", "item_map.parquet")
_REMEDY = "finish the run with `graphcl train ... --resume`, or train again"


@dataclass(frozen=True)
class RunRecord:
    """The files of one run in memory.

    Attributes:
        name: name of the folder.
        config: settings of the run.
        metrics: ``{"protocol": {...}, "validation": {"HR@20": ...}, "test": {...}, "buckets": [...], ...}``.
        history: column name to one number an epoch (None where a cell is empty).
        manifest: versions, seed, data, times.
        analysis: ``{"score_histograms": {...}, "exposure": {...}, "item_map": {...}}``, each entry optional.
        item_map: ``item``, ``x``, ``y``, ``train_count`` and perhaps ``category``, one row an item.
    """

    name: str
    config: Mapping[str, Any]
    metrics: Mapping[str, Any]
    history: Mapping[str, Sequence[float | None]]
    manifest: Mapping[str, Any]
    analysis: Mapping[str, Any]
    item_map: pl.DataFrame


def read_run(folder: Path) -> RunRecord:
    """Read what a report shows.

    Args:
        folder: a run folder.

    Returns:
        Its record.

    Raises:
        InputError: the folder or one of its files is missing or damaged; names the file and the remedy.

    Complexity:
        Time and memory O(size of the files).
    """
    if not folder.is_dir():
        raise InputError("no such run folder", "give a folder that `graphcl train` wrote", path=folder)
    for name in FILES:
        if not (folder / name).is_file():
            raise InputError(f"incomplete run folder: {name} is missing", _REMEDY, path=folder)
    run = RunFolder(folder)
    metrics = run.read_json("metrics.json")
    for part in ("validation", "test"):
        if not isinstance(metrics.get(part), dict):
            raise InputError(f"has no table of {part} metrics", _REMEDY, path=folder / "metrics.json")
    return RunRecord(
        name=folder.resolve().name,
        config=run.read_config(),
        metrics=metrics,
        history=_read_history(folder / "history.csv"),
        manifest=run.read_json("manifest.json"),
        analysis=run.read_json("analysis.json"),
        item_map=_read_item_map(folder / "item_map.parquet"),
    )


def _read_history(path: Path) -> dict[str, list[float | None]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError("cannot be read as CSV", _REMEDY, path=path) from error
    if not rows:
        raise InputError("holds no epoch", _REMEDY, path=path)
    if "epoch" not in rows[0]:
        raise InputError("column is missing", _REMEDY, path=path, column="epoch")
    history: dict[str, list[float | None]] = {name: [] for name in rows[0] if name}
    for number, row in enumerate(rows, start=2):
        for name, column in history.items():
            column.append(_number(row.get(name), path, number, name))
    return history


def _number(text: str | None, path: Path, row: int, column: str) -> float | None:
    if text is None or text.strip() == "":
        return None
    try:
        value = float(text)
    except ValueError as error:
        raise InputError(f"is not a number: {text!r}", _REMEDY, path=path, row=row, column=column) from error
    return value if math.isfinite(value) else None


def _read_item_map(path: Path) -> pl.DataFrame:
    try:
        table = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError("cannot be read as Parquet", _REMEDY, path=path) from error
    for column in ("item", "x", "y", "train_count"):
        if column not in table.columns:
            raise InputError("column is missing", _REMEDY, path=path, column=column)
    return table
