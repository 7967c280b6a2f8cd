"""Queries and labels as texts: tables of your own, or the raw texts of the extreme classification repository."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graphcl.data.ids import id_series
from graphcl.data.readers import existing_file
from graphcl.data.retrieval import LabelledQueries, RetrievalData, SparseRows
from graphcl.data.sentence_encoder import OFFLINE_MODEL, Encoder, encode_texts
from graphcl.data.text_table import check_utf8, find_delimiter, first_line
from graphcl.errors import InputError, nearest

if TYPE_CHECKING:
    import polars as pl

__all__ = ["find_text_table", "read_label_texts", "read_query_texts", "read_text_retrieval"]

_PLAIN = (".csv", ".tsv", ".parquet", ".pq", ".jsonl", ".ndjson", ".jsonl.gz")
_RAW = (".json", ".json.gz", ".jsonl", ".jsonl.gz")
_STEMS = {"train": "trn", "valid": "val", "test": "tst", "labels": "lbl"}
_TEXTS = ("text", "query", "title", "content")
_LABELS = ("labels", "label", "target_ind", "tags", "tag")
_NAMES = ("label", "labels", "uid", "id", "label_id", "name")
# Columns of label numbers, as the repository has them: places in the table of labels, from 0.
_NUMBERS = "target_ind"


@dataclass(frozen=True)
class _Part:
    """Rows of one table of queries: their texts and, one list a row, the names of their labels."""

    path: Path
    texts: list[str]
    labels: list[list[str]]
    numbered: bool


def read_text_retrieval(
    path: str | Path,
    *,
    text: str | Sequence[str] | None = None,
    label: str | None = None,
    separator: str = ";",
    model: str = OFFLINE_MODEL,
    batch_size: int = 64,
    encode: Encoder | None = None,
    cache: str | Path | None = None,
) -> RetrievalData:
    """Read queries that are texts, and labels that are texts or mere names, and encode them once.

    A folder holds tables ``train``, and perhaps ``test``, ``valid`` and ``labels`` (CSV, TSV, Parquet or JSON lines),
    or the repository's raw texts ``trn.json.gz``, ``tst.json.gz``, ``lbl.json.gz`` (``title``, ``content``,
    ``target_ind``). A table of queries has columns of text and one of labels: a list, or text cut at ``separator``. A
    table of labels has a column of names and perhaps of text; without it the labels are those that the queries name.

    Args:
        path: the folder, or a single table of training queries.
        text: column or columns of text, joined in this order; ``text``, ``query``, ``title`` and ``content`` by
            default, as far as there are such.
        label: column of the labels of a query; detected when None.
        separator: stands between labels where they are text.
        model: sentence encoder, see `encode_texts`; queries and labels go through the same one.
        batch_size: texts a step.
        encode: your own encoder instead.
        cache: folder that keeps the vectors, see `encode_texts`.

    Returns:
        The data with dense features; ``text_model`` names the model.

    Raises:
        InputError: no training queries, no such column, a label that the table of labels does not hold, or as
            `encode_texts`.
        MissingPackageError: without the extra ``[text]`` and without ``encode``.

    Complexity:
        One pass of the encoder over every distinct text.
    """
    place = Path(path)
    if not place.exists():
        raise InputError("there is no such file or folder", "check the path", path=place)
    files = {"train": place} if place.is_file() else _tables_of(place)
    if "train" not in files:
        raise InputError("holds no table of training queries", "give train.csv, or trn.json.gz", path=place)
    listed = None if "labels" not in files else _read_labels(files["labels"], text)
    parts = {
        name: _read_queries(file, text, label, separator)
        for name, file in files.items()
        if name in ("train", "valid", "test")
    }
    if listed is None and any(part.numbered for part in parts.values()):
        raise InputError(f"{_NUMBERS} numbers labels and there is no table of them", "give lbl.json.gz", path=place)
    names = listed[0] if listed is not None else _names_of(parts)
    position = {name: number for number, name in enumerate(names)}
    encoded = partial(encode_texts, model=model, batch_size=batch_size, encode=encode, cache=cache)
    queries = {
        name: LabelledQueries(encoded(part.texts), _label_rows(part, position, len(names)))
        for name, part in parts.items()
    }
    label_texts = None if listed is None else listed[1]
    return RetrievalData(
        queries["train"],
        queries.get("test"),
        queries.get("valid"),
        None if label_texts is None else encoded(label_texts),
        _external(names),
        str(place),
        text_model=model if encode is None else None,
    )


def read_query_texts(path: str | Path, *, text: str | Sequence[str] | None = None) -> list[str]:
    """Read the texts of new queries.

    Args:
        path: CSV, TSV, Parquet or JSON lines; labels are left aside.
        text: as in `read_text_retrieval`.

    Returns:
        A text a row.

    Raises:
        InputError: the file cannot be read, or holds no column of text.

    Complexity:
        O(bytes).
    """
    file = existing_file(path)
    return _texts_of(_read_table(file), text, file)


def read_label_texts(path: str | Path, *, text: str | Sequence[str] | None = None) -> tuple[NDArray[Any], list[str]]:
    """Read names and texts of labels, in the order of the file.

    Args:
        path: a table with a column of names (``label``, ``uid``, ``id``) and of text.
        text: as in `read_text_retrieval`.

    Returns:
        Names, integers or text, and as many texts.

    Raises:
        InputError: the file cannot be read, or a column is missing.

    Complexity:
        O(bytes).
    """
    file = existing_file(path)
    names, texts = _read_labels(file, text)
    if texts is None:
        raise InputError("the labels have no column of text", "name the column 'text'", path=file)
    return _external(names), texts


def find_text_table(folder: Path, part: str) -> Path | None:
    """The table of ``train``, ``valid``, ``test`` or ``labels`` in a folder, under our name or the repository's."""
    return _tables_of(folder).get(part)


def is_text_table(path: Path) -> bool:
    """Whether a file is a table by its name, not rows of sparse features."""
    return path.name.lower().endswith((*_PLAIN, *_RAW))


def _tables_of(folder: Path) -> dict[str, Path]:
    found = {}
    for part, stem in _STEMS.items():
        wanted = [f"{part}{suffix}" for suffix in _PLAIN] + [f"{stem}{suffix}" for suffix in _RAW]
        there = [folder / name for name in wanted if (folder / name).is_file()]
        if len(there) > 1:
            raise InputError(f"there are {len(there)} tables of {part}", "leave one", path=folder)
        if there:
            found[part] = there[0]
    return found


def _read_table(path: Path) -> pl.DataFrame:
    import polars as pl

    suffix = path.suffix.lower()
    try:
        if suffix in (".parquet", ".pq"):
            frame = pl.read_parquet(path)
        elif suffix in (".csv", ".tsv"):
            check_utf8(path)
            mark = "\t" if suffix == ".tsv" else find_delimiter(first_line(path)[1]) or ","
            frame = pl.read_csv(path, separator=mark, infer_schema=False)
        else:
            content = path.read_bytes()
            content = gzip.decompress(content) if suffix == ".gz" else content
            frame = pl.read_ndjson(io.BytesIO(content), infer_schema_length=None)
    except (pl.exceptions.PolarsError, OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"cannot be read as a table: {str(error).strip().splitlines()[0]}", "mend the file", path=path
        ) from error
    if not frame.height:
        raise InputError("the table has no row", "give at least one", path=path)
    return frame


def _read_queries(path: Path, text: str | Sequence[str] | None, label: str | None, separator: str) -> _Part:
    import polars as pl

    frame = _read_table(path)
    texts = _texts_of(frame, text, path)
    name = label if label is not None else next((name for name in _LABELS if name in frame.columns), None)
    if name is None or name not in frame.columns:
        raise InputError(
            f"no column of labels {'was recognised' if label is None else repr(label)} among {_listed(frame)}",
            "name the column 'labels', or give label=NAME (--load label=NAME)", path=path,
        )  # fmt: skip
    column = frame.get_column(name)
    if not isinstance(column.dtype, pl.List):
        column = column.cast(pl.String).str.split(separator)
    rows = column.cast(pl.List(pl.String)).to_list()
    labels = [
        list(dict.fromkeys(cell.strip() for cell in row or [] if cell is not None and cell.strip())) for row in rows
    ]
    return _Part(path, texts, labels, name == _NUMBERS)


def _read_labels(path: Path, text: str | Sequence[str] | None) -> tuple[list[str], list[str] | None]:
    import polars as pl

    frame = _read_table(path)
    column = next((name for name in _NAMES if name in frame.columns), None)
    if column is None:
        raise InputError(
            f"no column of label names was recognised among {_listed(frame)}", "name the column 'label'", path=path
        )
    names = frame.get_column(column).cast(pl.String)
    if names.null_count():
        row = int(np.argmax(names.is_null().to_numpy())) + 1
        raise InputError("the name of a label is missing", "fill it in", path=path, row=row, column=column)
    # A column that is named for the queries need not be here: labels without a text are mere names.
    known = [text] if isinstance(text, str) else list(text or ())
    chosen = [name for name in known if name in frame.columns] or _text_columns(frame, None, path)
    chosen = [name for name in chosen if name != column]
    return [name.strip() for name in names.to_list()], _texts_of(frame, chosen, path) if chosen else None


def _texts_of(frame: pl.DataFrame, text: str | Sequence[str] | None, path: Path) -> list[str]:
    columns = _text_columns(frame, text, path)
    if not columns:
        raise InputError(
            f"no column of text was recognised among {_listed(frame)}",
            "name the column 'text', or say which it is (text=NAME)", path=path,
        )  # fmt: skip
    texts = _joined(frame, columns)
    if not any(texts):
        raise InputError("all texts are empty", "give at least one", path=path, column=columns[0])
    return texts


def _text_columns(frame: pl.DataFrame, text: str | Sequence[str] | None, path: Path) -> list[str]:
    if text is None:
        return [name for name in _TEXTS if name in frame.columns]
    wanted = [text] if isinstance(text, str) else list(text)
    for name in wanted:
        if name not in frame.columns:
            raise InputError(
                f"there is no column {name!r}", f"{nearest(name, frame.columns)}the columns are {_listed(frame)}",
                path=path,
            )  # fmt: skip
    return wanted


def _joined(frame: pl.DataFrame, columns: list[str]) -> list[str]:
    import polars as pl

    parts = [frame.get_column(name).cast(pl.String).fill_null("").str.strip_chars().to_list() for name in columns]
    return [". ".join(cell for cell in row if cell) for row in zip(*parts, strict=True)]


def _listed(frame: pl.DataFrame) -> str:
    return ", ".join(map(repr, frame.columns))


def _names_of(parts: Mapping[str, _Part]) -> list[str]:
    import polars as pl

    names = pl.Series([name for part in parts.values() for row in part.labels for name in row], dtype=pl.String)
    if not len(names):
        raise InputError("no query has a label", "give queries with labels", path=parts["train"].path)
    found: list[str] = id_series(names, infer_integers=True).unique().sort().cast(pl.String).to_list()
    return found


def _label_rows(part: _Part, position: Mapping[str, int], num_labels: int) -> SparseRows:
    rows = []
    for number, names in enumerate(part.labels, start=1):
        columns = [_place(part, name, position, num_labels, number) for name in names]
        rows.append(sorted(set(columns)))
    return SparseRows.from_lists(rows, num_labels)


def _place(part: _Part, name: str, position: Mapping[str, int], num_labels: int, row: int) -> int:
    if part.numbered:
        found = int(name) if name.isascii() and name.isdigit() else -1
        if not 0 <= found < num_labels:
            raise InputError(
                f"label number {name} is outside 0..{num_labels - 1}", "mend the row or the table of labels",
                path=part.path, row=row,
            )  # fmt: skip
        return found
    if name not in position:
        raise InputError(
            f"label {name!r} is not in the table of labels", f"{nearest(name, position)}add it there",
            path=part.path, row=row,
        )  # fmt: skip
    return position[name]


def _external(names: list[str]) -> NDArray[Any]:
    import polars as pl

    found = id_series(pl.Series(names, dtype=pl.String), infer_integers=True)
    external: NDArray[Any] = found.to_numpy() if found.dtype.is_integer() else np.array(names, dtype=object)
    return external
