"""Logs of events: rows that name one entity of each of several types, such as user, host, process and hour."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graphcl.data.ids import IdMap
from graphcl.data.readers import existing_file
from graphcl.data.text_table import check_utf8, find_delimiter, first_line, split_header
from graphcl.errors import InputError, located, nearest

if TYPE_CHECKING:
    import polars as pl

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

_TABLES = (".parquet", ".pq", ".jsonl", ".ndjson")
_FEWEST_TYPES = 2


@dataclass(frozen=True, eq=False)
class Events:
    """Events in the order in which they happened.

    Attributes:
        columns: the entity types, m of them.
        ids: external ids of the entities of each type.
        codes: ``(E, m)`` internal ids.
        label: ``(E,)`` whether an event is a known anomaly; None where nobody said.
        source: where the events came from.

    Example:
        >>> import polars as pl
        >>> log = Events.from_table(pl.DataFrame({"user": ["ann", "bob"], "host": [7, 7]}))
        >>> log.num_events, [len(ids) for ids in log.ids]
        (2, [2, 1])
    """

    columns: tuple[str, ...]
    ids: tuple[IdMap, ...]
    codes: IntArray
    label: BoolArray | None = None
    source: str = "table"

    @property
    def num_events(self) -> int:
        """E."""
        return int(self.codes.shape[0])

    @classmethod
    def from_table(
        cls, table: Any, *, columns: Sequence[str] | None = None, label_column: str | None = None, source: str = "table"
    ) -> Events:
        """Events of a polars or pandas frame.

        Args:
            table: a row an event, in the order in which they happened.
            columns: the entity columns; all but the label when None.
            label_column: column of 0 and 1, or false and true; ``label`` where there is one of that name.
            source: named in messages.

        Raises:
            InputError: fewer than two entity columns, an unknown column, an empty cell, or a label that is neither 0
                nor 1; names the row and the column.

        Complexity: O(E m log E).
        """
        import polars as pl

        frame = table if isinstance(table, pl.DataFrame) else pl.from_dataframe(table)
        if label_column is None and "label" in frame.columns and "label" not in (columns or ()):
            label_column = "label"
        wanted = tuple(columns) if columns is not None else tuple(n for n in frame.columns if n != label_column)
        for name in (*wanted, *([label_column] if label_column is not None else [])):
            if name not in frame.columns:
                raise InputError(
                    "there is no such column",
                    f"{nearest(name, frame.columns)}the columns are {', '.join(frame.columns)}",
                    path=source, column=name,
                )  # fmt: skip
        if len(wanted) < _FEWEST_TYPES:
            raise InputError(
                f"an event needs entities of at least {_FEWEST_TYPES} types, and the table has "
                f"{len(wanted)} entity column{'s' * (len(wanted) != 1)}", "give a table with more columns",
                path=source,
            )  # fmt: skip
        if len(set(wanted)) < len(wanted):
            raise InputError("an entity column is named twice", "name every column once", path=source)
        if frame.height == 0:
            raise InputError("holds no event", "give at least one row", path=source)
        ids, codes = [], np.empty((frame.height, len(wanted)), dtype=np.int64)
        for position, name in enumerate(wanted):
            found, codes[:, position] = _factorize(frame[name], source, name)
            ids.append(found)
        label = None if label_column is None else _labels(frame[label_column], source)
        return cls(wanted, tuple(ids), codes, label, source)

    def to_table(self, rows: Any = None) -> pl.DataFrame:
        """External ids of some events, or of all, with the label where there is one."""
        import polars as pl

        chosen = slice(None) if rows is None else rows
        data: dict[str, Any] = {
            name: ids.to_external(self.codes[chosen, position])
            for position, (name, ids) in enumerate(zip(self.columns, self.ids, strict=True))
        }
        if self.label is not None:
            data["label"] = self.label[chosen]
        return pl.DataFrame(data)

    def recoded(self, ids: Sequence[IdMap]) -> IntArray:
        """Codes under other maps of the same types, -1 for entities that they do not hold.

        Complexity: O(E m).
        """
        moved = [new.to_internal(old.to_series(), unknown="ignore") for old, new in zip(self.ids, ids, strict=True)]
        return np.stack([table[self.codes[:, position]] for position, table in enumerate(moved)], axis=1)


def read_events(
    source: str | Path | Any,
    *,
    columns: Sequence[str] | None = None,
    label_column: str | None = None,
) -> Events:
    """Read a log of events from CSV, TSV, Parquet, JSON lines, or a frame.

    Args:
        source: path or frame; a row an event, in the order in which they happened.
        columns: the entity columns; all but the label when None.
        label_column: column that tells known anomalies; ``label`` where there is one of that name.

    Returns:
        The events.

    Raises:
        InputError: as `Events.from_table`, or a file that cannot be read.

    Complexity: O(E m log E) time, memory of the table.

    Example:
        >>> read_events("no-such.csv")
        Traceback (most recent call last):
        graphcl.errors.InputError: no-such.csv: there is no such file; check the path
    """
    import polars as pl

    if not isinstance(source, str | Path):
        return Events.from_table(source, columns=columns, label_column=label_column)
    path = existing_file(source)
    try:
        if path.suffix in (".parquet", ".pq"):
            table = pl.read_parquet(path)
        elif path.suffix in _TABLES:
            table = pl.read_ndjson(path)
        else:
            check_utf8(path)
            line, header = first_line(path)
            table = pl.read_csv(path, separator=find_delimiter(header) or ",", infer_schema=False, skip_rows=line)
    except pl.exceptions.PolarsError as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"cannot be read as a table: {reason}", "mend the file", path=path) from error
    return Events.from_table(table, columns=columns, label_column=label_column, source=str(path))


def load_events(name_or_path: str | Path, **options: Any) -> Events:
    """Load a registered log of events, or one of your own.

    Args:
        name_or_path: registered name, or path of a table.
        **options: for a path those of `read_events`; for a recipe arguments of `enterprise_log`.

    Returns:
        The events.

    Raises:
        InputError: an unknown name or option, a missing file, bad input.

    Complexity: as `read_events`.

    Example:
        >>> load_events("enterprise-log", num_events=500).num_events
        500
    """
    from graphcl.data.event_generator import enterprise_log
    from graphcl.data.registry import EventRecipe, list_datasets, recipe_of_kind

    names = [recipe.name for recipe in list_datasets() if recipe.kind == "events"]
    name = str(name_or_path)
    if name not in names:
        if not Path(name).exists() and "/" not in name and "." not in name:
            known = f"{nearest(name, names)}the data sets are {', '.join(names)}; or give a file"
            raise InputError(f"there is no log of events {name!r}", known)
        for option in options:
            if option not in ("columns", "label_column"):
                raise InputError(f"unknown option {option!r}", "use one of: columns, label_column")
        if isinstance(options.get("columns"), str):
            options = {**options, "columns": [part.strip() for part in options["columns"].split(",")]}
        return read_events(name_or_path, **options)
    recipe = recipe_of_kind(name, EventRecipe)
    allowed = ("num_events", "scale", "num_teams", "anomaly_rate", "seed")
    for option in options:
        if option not in allowed:
            raise InputError(f"unknown option {option!r}", f"use one of: {', '.join(allowed)}")
    try:
        return enterprise_log(**{**recipe.generator, **options}).events
    except (TypeError, ValueError) as error:
        raise InputError(f"an option of {name} does not fit: {error}", "give another number") from error


def stream_events(path: Path, columns: Sequence[str], chunk: int = 100_000) -> Iterator[tuple[int, list[list[str]]]]:
    """The entity columns of a delimited text file, so many rows at a time, whatever the size of the file.

    Args:
        path: CSV or TSV with a header that names the columns, in any order, beside others.
        columns: the entity columns.
        chunk: rows at a time.

    Returns:
        Number of the first row (the header is row 1), and a list a column, until the file ends.

    Raises:
        InputError: a missing column, a row of another length, or an empty entity; names the row.

    Complexity: O(rows) time, O(chunk) memory.
    """
    path = existing_file(path)
    check_utf8(path)
    skipped, header = first_line(path)
    delimiter = find_delimiter(header) or ","
    names = split_header(header, delimiter, quoted=True)
    for name in columns:
        if name not in names:
            raise InputError(
                "there is no such column", f"{nearest(name, names)}the columns are {', '.join(names)}",
                path=path, column=name,
            )  # fmt: skip
    places = [names.index(name) for name in columns]
    with path.open(encoding="utf-8-sig", newline="") as file:
        for _ in range(skipped + 1):
            next(file)
        reader = csv.reader(file, delimiter=delimiter)
        rows: list[list[str]] = []
        first = skipped + 2
        for cells in reader:
            line = reader.line_num + skipped + 1
            if not cells:
                continue
            if len(cells) != len(names):
                raise InputError(
                    f"has {len(cells)} fields and the header {len(names)}", "mend the row", path=path, row=line
                )
            chosen = [cells[place].strip() for place in places]
            for name, cell in zip(columns, chosen, strict=True):
                if not cell:
                    raise InputError(
                        "an entity is missing", "fill in or drop the row", path=path, row=line, column=name
                    )
            if not rows:
                first = line
            rows.append(chosen)
            if len(rows) == chunk:
                yield first, [list(column) for column in zip(*rows, strict=True)]
                rows = []
        if rows:
            yield first, [list(column) for column in zip(*rows, strict=True)]


def codes_of(table: Mapping[str, Any], columns: Sequence[str], ids: Sequence[IdMap]) -> IntArray:
    """Internal ids of the entities of a table, -1 for those that the maps do not hold.

    Args:
        table: external ids by column.
        columns: the entity types.
        ids: their maps.

    Complexity: O(rows m).
    """
    return np.stack(
        [known.to_internal(table[name], unknown="ignore") for name, known in zip(columns, ids, strict=True)], axis=1
    )


def _factorize(series: pl.Series, source: str, column: str) -> tuple[IdMap, IntArray]:
    import polars as pl

    from graphcl.data.ids import id_series

    text = series.cast(pl.String) if series.dtype == pl.Boolean else series
    if text.dtype == pl.String:
        text = text.str.strip_chars()
        text = text.set(text == "", None)
    missing = text.is_null() | (text.is_nan() if text.dtype.is_float() else False)
    if missing.any():
        at = missing.arg_max()
        row = None if at is None else int(at) + 2
        raise InputError("an entity is missing", "fill in or drop the row", path=source, row=row, column=column)
    try:
        return IdMap.factorize(id_series(text, infer_integers=True))
    except InputError as error:
        raise located(error, source, column=column) from error


def _labels(series: pl.Series, source: str) -> BoolArray:
    import polars as pl

    text = series.cast(pl.String).str.strip_chars().str.to_lowercase()
    known = text.is_in(["0", "1", "0.0", "1.0", "false", "true"]).fill_null(False)
    if not known.all():
        at = int((~known).arg_max() or 0)
        raise InputError(
            f"the label {series[at]!r} is neither 0 nor 1", "write 1 for known anomalies and 0 for other events",
            path=source, row=at + 2, column=series.name,
        )  # fmt: skip
    found: BoolArray = text.is_in(["1", "1.0", "true"]).to_numpy()
    return found
