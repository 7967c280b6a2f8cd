"""Readers: CSV, TSV, JSON lines, Parquet, frames, RecBole atomic files and plain sequence files."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from graphcl.data.columns import (
    BadRows,
    Catalogue,
    Duplicates,
    RawColumns,
    build_interactions,
    column_of_role,
    find_columns,
    has_known_name,
)
from graphcl.data.ids import id_series
from graphcl.data.interactions import Interactions
from graphcl.data.read_report import DroppedRows
from graphcl.data.text_table import (
    TextShape,
    check_utf8,
    find_delimiter,
    first_line,
    line_of_record,
    split_header,
    text_shape,
)
from graphcl.errors import InputError, MissingPackageError, nearest

if TYPE_CHECKING:
    import polars as pl

Format: TypeAlias = Literal["csv", "jsonl", "parquet", "atomic", "sequences", "pairs"]
FORMATS: tuple[Format, ...] = ("csv", "jsonl", "parquet", "atomic", "sequences", "pairs")
_SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_SNIFFED = ("", ".txt", ".dat", ".data", ".inter", ".item", ".user", ".json")
_SNIFFED_LINES = 10_000
_EXAMPLES = 5
_Given: TypeAlias = dict[str, str | None]


def read_interactions(
    source: Any,
    *,
    format: Format | None = None,
    user: str | None = None,
    item: str | None = None,
    time: str | None = None,
    value: str | None = None,
    delimiter: str | None = None,
    column_names: Sequence[str] | None = None,
    on_bad_rows: BadRows = "raise",
    duplicates: Duplicates = "keep",
    min_value: float | None = None,
    user_features: Any = None,
    item_features: Any = None,
    catalogue: Catalogue = "interactions",
) -> Interactions:
    """Read a log from a file or a frame.

    | format | file |
    |---|---|
    | csv | delimited text with a header; tab, comma, semicolon or bar is detected |
    | jsonl | one JSON object a line |
    | parquet | Parquet |
    | atomic | RecBole: tab-delimited with typed names (`user_id:token`); `.item`, `.user` beside it become features |
    | sequences | a line a user: `uid item item ...` in time order |
    | pairs | a line an interaction: `uid item` in time order |

    Without times, row order is time order. Times are numbers or ISO dates (seconds since 1970, UTC unless they name a
    zone). In text files, ids that are all canonical integers become integers; typed sources keep their types.

    Args:
        source: path, or a polars or pandas frame (or anything with the Arrow stream interface).
        format: the format, found from the name and the first line when None.
        user: name of the user column, detected when None; likewise item, time and value.
        item: see user.
        time: see user.
        value: see user.
        delimiter: of delimited text, detected when None.
        column_names: names for delimited text that has no header line.
        on_bad_rows: "raise" at the first row that cannot be used, or "drop" such rows and report them.
        duplicates: what becomes of rows equal in user, item, time and value: "keep", or only the "first" or "last".
        min_value: drop rows with a smaller value.
        user_features: path or frame with a row a user, see `read_features`. False ignores a `.user` file beside an
            atomic one.
        item_features: path or frame with a row an item, likewise.
        catalogue: "interactions": rows of features of other items than those of the log are left out and counted;
            "features": their items join the catalogue, as items without interactions.

    Returns:
        Interactions in source order, with a report of what was read and dropped.

    Raises:
        InputError: bad input; names file, row or column, and the remedy.

    Complexity:
        O(rows) time and memory; text is scanned twice.

    Example:
        >>> import polars as pl
        >>> read_interactions(pl.DataFrame({"userId": [1, 1, 2], "asin": ["x", "y", "x"]})).num_items
        2
    """
    given: _Given = {"user": user, "item": item, "time": time, "value": value}
    drop = on_bad_rows == "drop"
    features = {"user": user_features, "item": item_features}
    if isinstance(source, str | Path):
        path = existing_file(source)
        chosen = (
            format if format is not None else detect_format(path, named=column_names is not None or any(given.values()))
        )
        if chosen not in FORMATS:
            raise InputError(
                f"format {chosen!r} is unknown", f"{nearest(chosen, FORMATS)}use one of {FORMATS}", path=path
            )
        if chosen == "csv":
            raw = _read_delimited(path, given, delimiter, column_names, drop=drop)
        elif chosen == "atomic":
            raw = _read_atomic(path, given, drop=drop)
            for role in features:
                beside = path.with_suffix(f".{role}")
                if features[role] is None and path.suffix == ".inter" and beside.exists():
                    features[role] = beside
        elif chosen == "jsonl":
            raw = _read_json_lines(path, given, drop=drop)
        elif chosen == "parquet":
            raw = _read_parquet(path, given)
        else:
            raw = _read_sequences(path, chosen, drop=drop)
    else:
        raw = _read_frame(source, given)
    return build_interactions(
        raw,
        on_bad_rows=on_bad_rows,
        duplicates=duplicates,
        min_value=min_value,
        user_features=_features_or_none(features["user"], "user"),
        item_features=_features_or_none(features["item"], "item"),
        catalogue=catalogue,
    )


def _features_or_none(source: Any, role: Literal["user", "item"]) -> pl.DataFrame | None:
    return None if source is None or source is False else read_features(source, role)


def read_features(source: Any, role: Literal["user", "item"], *, key: str | None = None) -> pl.DataFrame:
    """Read side features: one row a user or item, its id in the first column of the result.

    Args:
        source: a frame; or the path of a CSV, JSON-lines, Parquet or RecBole `.user`/`.item` file; or of a JSON file
            that maps an id to a list of attribute ids.
        role: whose features these are, "user" or "item".
        key: name of the id column, detected when None.

    Returns:
        Frame with the id column first. RecBole sequence columns become lists.

    Raises:
        InputError: bad input.

    Complexity:
        O(cells).

    Example:
        >>> import polars as pl
        >>> read_features(pl.DataFrame({"price": [3.5], "itemId": [7]}), "item").rows()
        [(7, 3.5)]
    """
    import polars as pl

    name = "table"
    text = False
    if isinstance(source, str | Path):
        path = existing_file(source)
        name = str(path)
        if path.suffix == ".json":
            return _read_attribute_lists(path, key or role)
        kind = detect_format(path)
        text = kind in ("csv", "atomic")
        try:
            if kind == "atomic":
                frame = _atomic_frame(path)
            elif kind == "csv":
                check_utf8(path)
                mark = find_delimiter(first_line(path)[1]) or ","
                key = column_of_role(pl.read_csv(path, separator=mark, n_rows=0).columns, role, key, source=name)
                # Ids are read as text, so that 007 does not become 7 here and stay 007 in the log.
                as_text = {key: pl.String}
                frame = pl.read_csv(path, separator=mark, infer_schema_length=None, schema_overrides=as_text)
            elif kind == "jsonl":
                frame = pl.read_ndjson(path, infer_schema_length=None)
            elif kind == "parquet":
                frame = pl.read_parquet(path)
            else:
                raise InputError(
                    "this is no feature table", "give CSV, JSON lines, Parquet or a RecBole file", path=path
                )
        except pl.exceptions.PolarsError as error:
            if kind == "csv":
                _refuse_uneven_rows(path, mark)
            raise InputError(_brief(error), "mend the feature file", path=path) from error
    else:
        frame = _as_polars(source)
    column = column_of_role(frame.columns, role, key, source=name)
    ids = id_series(frame.get_column(column), infer_integers=text)
    if ids.null_count():
        row = int(np.argmax(ids.is_null().to_numpy())) + (2 if text else 1)
        raise InputError(f"{role} id is missing", "fill it in or drop the row", path=name, row=row, column=column)
    return frame.with_columns(ids.alias(column)).select(column, pl.exclude(column))


def existing_file(source: str | Path) -> Path:
    """The path of a file that exists and is not empty.

    Args:
        source: a path; `~` is expanded.

    Returns:
        The path.

    Raises:
        InputError: there is no such file, it is a folder, it cannot be read, or it is empty.

    Complexity:
        O(1); O(files in the folder) when it is missing.
    """
    path = Path(source).expanduser()
    try:
        if not path.exists():
            beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
            raise InputError("there is no such file", f"{nearest(path.name, beside)}check the path", path=path)
        if path.is_dir():
            raise InputError("this is a folder", "give the file inside it", path=path)
        with path.open("rb") as file:
            if not file.read(1):
                raise InputError("the file is empty", "give a file with at least one row", path=path)
    except OSError as error:
        raise InputError(
            f"it cannot be read: {error.strerror}", "check the path and its permissions", path=path
        ) from error
    return path


def detect_format(path: Path, *, named: bool = False) -> Format:
    """The format of a file, from its suffix and, where that leaves it open, its first line.

    Args:
        path: an existing file.
        named: whether the caller names columns, so that it must be a table.

    Returns:
        One of `FORMATS`.

    Raises:
        InputError: the suffix is unknown, or the content fits no format.

    Complexity:
        O(1), but O(bytes) for text without a telling suffix (its encoding is checked).
    """
    suffix = path.suffix.lower()
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    if suffix not in _SNIFFED:
        known = sorted({*_SUFFIXES, *filter(None, _SNIFFED)})
        raise InputError(
            f"the format of a {suffix} file is unknown",
            f"use one of the suffixes {', '.join(known)} (unpacked), or give format=, one of {', '.join(FORMATS)}",
            path=path,
        )
    with path.open("rb") as file:
        if file.read(4) == b"PAR1":
            return "parquet"
    check_utf8(path)
    line = first_line(path)[1]
    if line.lstrip().startswith("{"):
        return "jsonl"
    if suffix == ".json":
        raise InputError(
            "this is JSON, but not one object a line", "write one object a line (jq -c '.[]' does)", path=path
        )
    delimiter = find_delimiter(line)
    fields = split_header(line, delimiter, quoted=False) if delimiter else line.split()
    if all(":" in field for field in fields):
        return "atomic"
    if named or delimiter in (",", ";", "|") or has_known_name(fields):
        return "csv"
    return _sequence_format(path)


def _sequence_format(path: Path) -> Format:
    with path.open(encoding="utf-8-sig") as file:
        lines = (line.split() for line in islice(file, _SNIFFED_LINES) if line.strip())
        first, second = next(lines), next(lines, [])
        widths = {len(first), len(second) or len(first), *map(len, lines)}
    if len(widths) == 1 and not any(map(str.isdecimal, first)) and any(map(str.isdecimal, second)):
        return "csv"  # a line of words above numbers is a header
    if widths == {2}:
        return "pairs"
    if len(widths) == 1:
        raise InputError(
            f"its lines have {widths.pop()} fields each: a table without a header, or sequences of equal length",
            "give column_names= for a table, or format='sequences'",
            path=path,
        )
    return "sequences"


def _read_delimited(
    path: Path, given: _Given, delimiter: str | None, column_names: Sequence[str] | None, *, drop: bool
) -> RawColumns:

    check_utf8(path)
    header_record, line = first_line(path)
    mark = delimiter or find_delimiter(line)
    if mark is None:
        # Blanks separate a table only when nothing else does.
        mark = " " if " " in line.strip() else ","
    if len(mark) != 1 or not mark.isascii():
        raise InputError(f"delimiter {mark!r} is not one ASCII character", "give one character", path=path)
    shape = text_shape(path, mark)
    if column_names is not None:
        return _delimited_columns(path, given, mark, list(column_names), shape, header_record, "csv", drop=drop)
    found = split_header(line, mark, quoted=shape.quoted)
    try:
        return _delimited_columns(path, given, mark, found, shape, header_record + 1, "csv", drop=drop)
    except InputError as error:
        if error.row is None and any(field.isdecimal() for field in found):
            raise InputError(
                f"the first line looks like data, not like column names: {line[:60]!r}",
                "add a header line, or give column_names=",
                path=path,
                row=header_record + 1,
            ) from error
        raise


def _read_atomic(path: Path, given: _Given, *, drop: bool) -> RawColumns:
    check_utf8(path)
    header_record, line = first_line(path)
    found = [field.split(":")[0].strip() for field in line.split("\t")]
    # Atomic files have no quoting: a quote is a letter of a title.
    shape = text_shape(path, "\t", quotes=False)
    return _delimited_columns(path, given, "\t", found, shape, header_record + 1, "atomic", drop=drop)


def _delimited_columns(
    path: Path,
    given: _Given,
    delimiter: str,
    found: list[str],
    shape: TextShape,
    first: int,
    format: Format,
    *,
    drop: bool,
) -> RawColumns:
    """The columns that play a role; `first` is the record number of the first row of data."""
    chosen, notes = find_columns(found, given, source=str(path))
    fields, blank = shape.fields[first:], shape.blank[first:]
    if blank.all():
        raise InputError("the file holds a header and no row", "give at least one row", path=path)
    ragged = ~blank & (fields != len(found))
    if ragged.any() and not drop:
        record = int(np.argmax(ragged))
        raise InputError(
            f"{fields[record]} fields where {len(found)} are expected",
            "mend the row (a delimiter inside a field must be quoted)",
            path=path,
            row=line_of_record(path, first + record, delimiter=delimiter, quoted=shape.quoted),
        )
    frame = _text_columns(path, delimiter, found, list(chosen.values()), first, shape.quoted)
    if frame.height != fields.size:
        raise InputError(
            f"{frame.height} rows were parsed where the file has {fields.size}: its quotes do not pair up",
            "double the quotes inside quoted fields",
            path=path,
        )
    keep = ~(blank | ragged)
    records = np.flatnonzero(keep)

    def row_number(index: int) -> int:
        return line_of_record(path, first + int(records[index]), delimiter=delimiter, quoted=shape.quoted)

    def line_number(index: int) -> int:
        return line_of_record(path, first + index, delimiter=delimiter, quoted=shape.quoted)

    if records.size < fields.size:
        frame = frame.filter(keep)
    return RawColumns(
        series={role: frame.get_column(name) for role, name in chosen.items()},
        names=chosen,
        source=str(path),
        format=format,
        row_number=row_number,
        text=True,
        rows_read=int(fields.size),
        dropped=(*_dropped(blank, "blank line", line_number), *_dropped(ragged, "wrong number of fields", line_number)),
        notes=notes,
    )


def _text_columns(
    path: Path, delimiter: str, found: list[str], wanted: list[str], first: int, quoted: bool
) -> pl.DataFrame:
    import polars as pl

    try:
        return pl.read_csv(
            path,
            separator=delimiter,
            has_header=False,
            skip_rows=first,
            schema={f"{position}": pl.String for position in range(len(found))},
            columns=[found.index(name) for name in wanted],
            quote_char='"' if quoted else None,
            truncate_ragged_lines=True,
        ).rename({f"{found.index(name)}": name for name in wanted})
    except pl.exceptions.PolarsError as error:
        raise InputError(_brief(error), "mend the file", path=path) from error


def _dropped(mask: NDArray[np.bool_], reason: str, row_number: Callable[[int], int]) -> tuple[DroppedRows, ...]:
    rows = np.flatnonzero(mask)
    if not rows.size:
        return ()
    return (DroppedRows(reason, int(rows.size), tuple(row_number(int(row)) for row in rows[:_EXAMPLES])),)


def _read_json_lines(path: Path, given: _Given, *, drop: bool) -> RawColumns:
    import polars as pl

    check_utf8(path)
    dropped: tuple[DroppedRows, ...] = ()
    lines: NDArray[np.int64] | None = None
    try:
        table = pl.scan_ndjson(path, infer_schema_length=None)
        found = table.collect_schema().names()
        chosen, notes = find_columns(found, given, source=str(path))
        frame = table.select(list(chosen.values())).collect()
    except pl.exceptions.PolarsError as error:
        good, lines, malformed = _json_objects(path)
        if not malformed:
            raise InputError(_brief(error), "give every key one type in all rows", path=path) from error
        if not drop:
            row, problem = malformed[0]
            raise InputError(f"malformed JSON: {problem}", "mend or drop the row", path=path, row=row) from error
        if not good:
            raise InputError("no line holds a JSON object", "give one JSON object a line", path=path) from error
        table = pl.scan_ndjson("\n".join(good).encode(), infer_schema_length=None)
        chosen, notes = find_columns(table.collect_schema().names(), given, source=str(path))
        frame = table.select(list(chosen.values())).collect()
        rows = tuple(row for row, _ in malformed[:_EXAMPLES])
        dropped = (DroppedRows("malformed JSON", len(malformed), rows),)

    def row_number(index: int) -> int:
        # Blank lines hold no record, so record and line numbers differ only when there are some.
        records = _json_objects(path)[1] if lines is None else lines
        return int(records[index])

    return RawColumns(
        series={role: frame.get_column(name) for role, name in chosen.items()},
        names=chosen,
        source=str(path),
        format="jsonl",
        row_number=row_number,
        text=False,
        rows_read=frame.height + sum(entry.count for entry in dropped),
        dropped=dropped,
        notes=notes,
    )


def _json_objects(path: Path) -> tuple[list[str], NDArray[np.int64], list[tuple[int, str]]]:
    """Lines that hold an object, their line numbers, and (line number, problem) of the others. Only for messages."""
    good, lines, malformed = [], [], []
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                parsed = json.loads(line)
            except json.JSONDecodeError as error:
                malformed.append((number, f"{error.msg} at character {error.pos + 1}"))
                continue
            if isinstance(parsed, dict):
                good.append(line.strip())
                lines.append(number)
            else:
                malformed.append((number, f"{type(parsed).__name__} where an object is expected"))
    return good, np.array(lines, dtype=np.int64), malformed


def _read_parquet(path: Path, given: _Given) -> RawColumns:
    import polars as pl

    try:
        chosen, notes = find_columns(list(pl.read_parquet_schema(path)), given, source=str(path))
        frame = pl.read_parquet(path, columns=list(chosen.values()))
    except pl.exceptions.PolarsError as error:
        raise InputError(f"this is no readable Parquet file: {_brief(error)}", "write it again", path=path) from error
    return _frame_columns(frame, chosen, notes, str(path), "parquet")


def _read_frame(source: Any, given: _Given) -> RawColumns:
    frame = _as_polars(source)
    chosen, notes = find_columns(frame.columns, given, source="table")
    return _frame_columns(frame, chosen, notes, "table", "frame")


def _frame_columns(
    frame: pl.DataFrame, chosen: dict[str, str], notes: tuple[str, ...], source: str, format: str
) -> RawColumns:
    return RawColumns(
        series={role: frame.get_column(chosen[role]) for role in chosen},
        names=chosen,
        source=source,
        format=format,
        row_number=lambda index: index + 1,
        text=False,
        rows_read=frame.height,
        notes=notes,
    )


def _as_polars(source: Any) -> pl.DataFrame:
    import polars as pl

    if isinstance(source, pl.DataFrame):
        return source
    if isinstance(source, pl.LazyFrame):
        return source.collect()
    if type(source).__module__.split(".")[0] == "pandas":
        try:
            return pl.DataFrame(pl.from_pandas(source))
        except ModuleNotFoundError as error:
            raise MissingPackageError("pyarrow", "test", "reading this pandas frame") from error
    if hasattr(source, "__arrow_c_stream__"):
        return pl.DataFrame(source)
    raise InputError(
        f"interactions cannot be read from {type(source).__name__}", "give a path, or a polars or pandas frame"
    )


def _read_sequences(path: Path, format: Format, *, drop: bool) -> RawColumns:
    """`uid item item ...` a line. A file of pairs is the case of one item a line, with users on many lines."""
    import polars as pl

    check_utf8(path)
    # Split at line feeds only: str.splitlines would also cut at characters such as U+2028 inside an id.
    lines = pl.Series("line", path.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n"))
    tokens = lines.str.extract_all(r"\S+")
    width = tokens.list.len().to_numpy().astype(np.int64)
    blank = width == 0
    if blank.all():
        raise InputError("the file is empty", "give a file with at least one row", path=path)
    short = (width == 1) if format == "sequences" else ~blank & (width != 2)
    problem = "a user without an item" if format == "sequences" else "not a pair of user and item"
    if short.any() and not drop:
        row = int(np.argmax(short))
        remedy = (
            "write 'user item item ...'" if format == "sequences" else "write 'user item', or give format='sequences'"
        )
        raise InputError(
            f"{problem}: {str(lines[row]).strip()[:60]!r}", f"{remedy}, or drop the row", path=path, row=row + 1
        )
    keep = ~(blank | short)
    rows = np.flatnonzero(keep)
    tokens, count = tokens.filter(keep), width[keep] - 1
    row_of = np.repeat(rows, count)
    users = tokens.list.first()
    notes: tuple[str, ...] = ()
    if format == "sequences" and (repeated := len(users) - users.n_unique()):
        notes = (f"{repeated} lines continue a user of an earlier line",)
    return RawColumns(
        series={
            "user": users.gather(np.repeat(np.arange(rows.size), count)),
            "item": tokens.list.slice(1).explode(),
        },
        names={"user": "user", "item": "item"},
        source=str(path),
        format=format,
        row_number=lambda index: int(row_of[index]) + 1,
        text=True,
        rows_read=int(row_of.size + blank.sum() + short.sum()),
        dropped=(
            *_dropped(blank, "blank line", lambda row: row + 1),
            *_dropped(short, problem, lambda row: row + 1),
        ),
        notes=notes,
    )


def _atomic_frame(path: Path) -> pl.DataFrame:
    """A RecBole atomic file with its types: tokens as text, floats as numbers, sequences as lists."""
    import polars as pl

    check_utf8(path)
    record, line = first_line(path)
    typed = [field.strip().partition(":")[::2] for field in line.split("\t")]
    names = [name for name, _ in typed]
    shape = text_shape(path, "\t", quotes=False)
    bad = ~shape.blank & (shape.fields != len(names))
    if bad.any():
        row = int(np.argmax(bad))
        raise InputError(
            f"{shape.fields[row]} fields where {len(names)} are expected", "mend the row", path=path, row=row + 1
        )
    if shape.blank[record + 1 :].all():
        raise InputError("the file holds a header and no row", "give at least one row", path=path)
    frame = _text_columns(path, "\t", names, names, record + 1, False).filter(~shape.blank[record + 1 :])
    columns = []
    for name, kind in typed:
        column = pl.col(name)
        if kind.endswith("_seq"):
            column = column.str.split(" ")
        if kind == "float":
            column = column.cast(pl.Float64, strict=False)
        elif kind == "float_seq":
            column = column.cast(pl.List(pl.Float64), strict=False)
        columns.append(column)
    return frame.select(columns)


def _read_attribute_lists(path: Path, key: str) -> pl.DataFrame:
    """A JSON object from id to a list of attribute ids."""
    import polars as pl

    check_utf8(path)
    try:
        lists = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise InputError(f"malformed JSON: {error.msg}", "mend the file", path=path, row=error.lineno) from error
    if not isinstance(lists, dict) or not all(isinstance(entry, list) for entry in lists.values()):
        raise InputError("this is no JSON object from ids to lists", 'write {"id": [attribute, ...], ...}', path=path)
    ids = id_series(list(lists), infer_integers=True)
    return pl.DataFrame({key: ids, "attributes": list(lists.values())})


def _refuse_uneven_rows(path: Path, delimiter: str) -> None:
    """Name the first row with more or fewer fields than the header, if there is one."""
    shape = text_shape(path, delimiter)
    uneven = ~shape.blank & (shape.fields != shape.fields[int(np.argmin(shape.blank))])
    if uneven.any():
        record = int(np.argmax(uneven))
        raise InputError(
            f"rows have different widths: {shape.fields[record]} fields where the header has "
            f"{shape.fields[int(np.argmin(shape.blank))]}",
            "give every row the same number of fields",
            path=path,
            row=line_of_record(path, record, delimiter=delimiter, quoted=shape.quoted),
        )


def _brief(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
