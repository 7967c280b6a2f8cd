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
from graphcl.pipelines.runs import ANALYSIS, CONFIG, HISTORY, MANIFEST, METRICS, RunFolder

FILES = (CONFIG, METRICS, HISTORY, MANIFEST, ANALYSIS)
_REMEDY = "finish the run with `graphcl train ... --resume`, or train again"


@dataclass(frozen=True)
class RunRecord:
    """The files of one run in memory.

    Attributes:
        path: the folder.
        config: settings of the run.
        metrics: ``{"protocol": {...}, "validation": {"HR@20": ...}, "test": {...}, "buckets": [...], ...}``.
        history: column name to one number an epoch (None where a cell is empty).
        manifest: versions, seed, data, times.
        analysis: what the pipeline left for the report, each entry optional.
    """

    path: Path
    config: Mapping[str, Any]
    metrics: Mapping[str, Any]
    history: Mapping[str, Sequence[float | None]]
    manifest: Mapping[str, Any]
    analysis: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.path.resolve().name

    def table(self, file: str, columns: Sequence[str]) -> pl.DataFrame:
        """A Parquet file of the run.

        Args:
            file: its name.
            columns: what it must have.

        Raises:
            InputError: the file cannot be read or lacks a column.
        """
        try:
            table = pl.read_parquet(self.path / file)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise InputError("cannot be read as Parquet", _REMEDY, path=self.path / file) from error
        for column in columns:
            if column not in table.columns:
                raise InputError("column is missing", _REMEDY, path=self.path / file, column=column)
        return table


def require_files(folder: Path, names: Sequence[str]) -> None:
    """Refuse a folder that lacks one of these files.

    Raises:
        InputError: the folder or a file is missing; names it and the remedy.
    """
    if not folder.is_dir():
        raise InputError("no such run folder", "give a folder that `graphcl train` wrote", path=folder)
    for name in names:
        if not (folder / name).is_file():
            raise InputError(f"incomplete run folder: {name} is missing", _REMEDY, path=folder)


def read_run(folder: Path, files: Sequence[str] = ()) -> RunRecord:
    """Read what every report shows.

    Args:
        folder: a run folder.
        files: what must be there beside the files of every run.

    Returns:
        Its record.

    Raises:
        InputError: the folder or one of its files is missing or damaged; names the file and the remedy.

    Complexity:
        Time and memory O(size of the files).
    """
    require_files(folder, (*FILES, *files))
    run = RunFolder(folder)
    metrics = run.read_json("metrics.json")
    for part in ("validation", "test"):
        if not isinstance(metrics.get(part), dict):
            raise InputError(f"has no table of {part} metrics", _REMEDY, path=folder / "metrics.json")
    return RunRecord(
        path=folder,
        config=run.read_config(),
        metrics=metrics,
        history=_read_history(folder / "history.csv"),
        manifest=run.read_json("manifest.json"),
        analysis=run.read_json("analysis.json"),
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
