"""The text format of the extreme classification repository: sparse rows of features, and the labels of each."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphcl.data.readers import existing_file
from graphcl.data.retrieval import Features, LabelledQueries, RetrievalData, SparseRows
from graphcl.data.text_table import check_utf8
from graphcl.errors import InputError

__all__ = ["read_extreme_folder", "read_extreme_text", "read_query_features", "read_sparse_rows"]

_PREFIXES = {"train": "trn", "valid": "val", "test": "tst"}
_LABELS = ("lbl_X_Xf", "label_features")
_NAMES = ("labels.txt", "Yf.txt")


def read_extreme_text(path: str | Path) -> LabelledQueries:
    """Read queries with labels: a header ``N D L``, then N rows ``label,label feature:value feature:value``.

    Labels and features count from 0. A row without labels begins with a space or with its first feature; an empty row
    has neither. A label that a row repeats counts once; the values of a repeated feature add up.

    Args:
        path: text file.

    Returns:
        The queries.

    Raises:
        InputError: the header is not three numbers, a number is malformed or outside its range, or there are more or
            fewer rows than the header says; names the row of the file.

    Complexity: O(entries).

    Example:
        >>> read_extreme_text("no-such.txt")
        Traceback (most recent call last):
        graphcl.errors.InputError: no-such.txt: there is no such file; check the path
    """
    path = existing_file(path)
    lines = _lines(path)
    count, width, num_labels = _header(path, lines, "N D L: queries, features and labels", 3)
    features, labels = _Rows(width, "feature"), _Rows(num_labels, "label")
    for number, line in _body(path, lines, count):
        head, _, rest = line.partition(" ")
        if ":" in head:
            head, rest = "", line
        labels.add_ids(path, number, [cell for cell in head.split(",") if cell])
        features.add_pairs(path, number, rest.split())
    return LabelledQueries(features.finish(), labels.finish())


def read_sparse_rows(path: str | Path) -> SparseRows:
    """Read a sparse matrix: a header ``rows columns``, then rows ``column:value column:value``.

    Args:
        path: text file; columns count from 0.

    Returns:
        The matrix.

    Raises:
        InputError: as `read_extreme_text`.

    Complexity: O(entries).
    """
    path = existing_file(path)
    lines = _lines(path)
    count, width = _header(path, lines, "of the numbers of rows and columns", 2)
    rows = _Rows(width, "column")
    for number, line in _body(path, lines, count):
        rows.add_pairs(path, number, line.split())
    return rows.finish()


def read_extreme_folder(path: str | Path) -> RetrievalData:
    """Read a data set of the extreme classification repository.

    Either layout is read: one file a part (``train.txt``, ``test.txt`` and, if there, ``valid.txt``; a prefix such as
    ``eurlex_train.txt`` may stand before) in the form of `read_extreme_text`, or a matrix of features and one of labels
    a part (``trn_X_Xf.txt`` and ``trn_X_Y.txt``, ``tst_...``, ``val_...``) in the form of `read_sparse_rows`. Features
    of the labels are ``lbl_X_Xf.txt`` or ``label_features.txt``, their names ``labels.txt`` or ``Yf.txt``, one a line.
    Features may also be dense: ``trn_X_Xf.npy`` and so on.

    Args:
        path: the folder, or a single file of training queries.

    Returns:
        The data.

    Raises:
        InputError: no training queries, a file that cannot be read, or files that do not fit each other.

    Complexity: O(entries).
    """
    folder = Path(path)
    if folder.is_file():
        return RetrievalData(read_extreme_text(folder), source=str(folder))
    if not folder.is_dir():
        raise InputError("there is no such file or folder", "check the path", path=folder)
    parts = {name: _part(folder, name) for name in _PREFIXES}
    train = parts["train"]
    if train is None:
        raise InputError("holds no training queries", "give train.txt, or trn_X_Xf.txt and trn_X_Y.txt", path=folder)
    return RetrievalData(
        train,
        parts["test"],
        parts["valid"],
        next((found for stem in _LABELS if (found := _features(folder, stem)) is not None), None),
        _label_names(folder),
        str(folder),
    )


def read_query_features(path: str | Path) -> Features:
    """Read features alone: a ``.npy`` matrix, sparse rows, or queries whose labels are left aside.

    Args:
        path: file of `read_sparse_rows` or `read_extreme_text`, told apart by the header, or a NumPy array.

    Returns:
        The features.

    Raises:
        InputError: as these.

    Complexity: O(entries).
    """
    path = existing_file(path)
    if path.suffix == ".npy":
        return _dense(path)
    _, header = next(_lines(path), (1, ""))
    return read_sparse_rows(path) if len(header.split()) == 2 else read_extreme_text(path).features


class _Rows:
    """Sparse rows that grow."""

    def __init__(self, width: int, noun: str) -> None:
        self.width, self.noun = width, noun
        self.sizes: list[int] = []
        self.columns: list[int] = []
        self.values: list[float] = []

    def add_ids(self, path: Path, row: int, cells: list[str]) -> None:
        ids = dict.fromkeys(self._number(path, row, cell) for cell in cells)
        self.columns += ids
        self.values += [1.0] * len(ids)
        self.sizes.append(len(ids))

    def add_pairs(self, path: Path, row: int, cells: list[str]) -> None:
        for cell in cells:
            column, _, text = cell.partition(":")
            try:
                value = float(text)
            except ValueError:
                value = math.nan
            if not math.isfinite(value):
                raise InputError(
                    f"{cell!r} is not a {self.noun} and a finite value", f"write {self.noun}:value, such as 7:0.5",
                    path=path, row=row,
                )  # fmt: skip
            self.columns.append(self._number(path, row, column))
            self.values.append(value)
        self.sizes.append(len(cells))

    def _number(self, path: Path, row: int, text: str) -> int:
        if not (text.isascii() and text.isdigit()):
            raise InputError(f"{text!r} is not a {self.noun}", "write whole numbers from 0 up", path=path, row=row)
        number = int(text)
        if number >= self.width:
            raise InputError(
                f"{self.noun} {number} is beyond the {self.width} of the header",
                f"number {self.noun}s from 0, or mend the header", path=path, row=row,
            )  # fmt: skip
        return number

    def finish(self) -> SparseRows:
        offsets = np.concatenate([[0], np.cumsum(self.sizes, dtype=np.int64)]).astype(np.int64)
        return SparseRows(offsets, np.array(self.columns, np.int64), np.array(self.values, np.float32), self.width)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    check_utf8(path)
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            yield number, line.rstrip("\r\n")


def _header(path: Path, lines: Iterator[tuple[int, str]], what: str, size: int) -> list[int]:
    _, line = next(lines, (1, ""))
    cells = line.split()
    if len(cells) != size or not all(cell.isascii() and cell.isdigit() for cell in cells):
        raise InputError(f"the first row is not a header {what}", "begin with it", path=path, row=1)
    return [int(cell) for cell in cells]


def _body(path: Path, lines: Iterator[tuple[int, str]], count: int) -> Iterator[tuple[int, str]]:
    found = 0
    for number, line in lines:
        if found == count:
            if line.strip():
                raise InputError(
                    f"there are more rows than the {count} of the header", "mend it", path=path, row=number
                )
            continue
        found += 1
        yield number, line
    if found < count:
        raise InputError(f"there are {found} rows and the header says {count}", "mend the header", path=path)


def _part(folder: Path, name: str) -> LabelledQueries | None:
    prefix = _PREFIXES[name]
    features = _features(folder, f"{prefix}_X_Xf")
    if features is not None:
        labels = read_sparse_rows(folder / f"{prefix}_X_Y.txt")
        try:
            return LabelledQueries(features, _distinct(labels))
        except ValueError as error:
            raise InputError(str(error), f"give every query of {name} both", path=folder) from error
    files = sorted(folder.glob(f"*{name}.txt"))
    if len(files) > 1:
        raise InputError(f"there are {len(files)} files of {name} queries", "leave one", path=folder)
    return read_extreme_text(files[0]) if files else None


def _distinct(labels: SparseRows) -> SparseRows:
    """Labels once each; entries of value 0 are none."""
    rows = np.repeat(np.arange(labels.num_rows), labels.sizes)[labels.values != 0]
    pairs = np.unique(rows * max(labels.width, 1) + labels.columns[labels.values != 0])
    row, column = np.divmod(pairs, max(labels.width, 1))
    offsets = np.searchsorted(row, np.arange(labels.num_rows + 1))
    return SparseRows(offsets, column, np.ones(column.size, dtype=np.float32), labels.width)


def _features(folder: Path, stem: str) -> Features | None:
    if (folder / f"{stem}.txt").is_file():
        return read_sparse_rows(folder / f"{stem}.txt")
    path = folder / f"{stem}.npy"
    return _dense(path) if path.is_file() else None


def _dense(path: Path) -> NDArray[np.float32]:
    try:
        table = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError("cannot be read as a NumPy array", "write it again", path=path) from error
    if table.ndim != 2 or not np.issubdtype(table.dtype, np.number) or not np.isfinite(table).all():
        raise InputError("is not a matrix of finite numbers", "give a row for every query or label", path=path)
    dense: NDArray[np.float32] = table.astype(np.float32)
    return dense


def _label_names(folder: Path) -> NDArray[Any] | None:
    for name in _NAMES:
        if (folder / name).is_file():
            return np.array([line.strip() for _, line in _lines(folder / name)], dtype=object)
    return None
