"""Queries and the labels that belong to them, with sparse or dense features on both sides."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphcl.errors import InputError, nearest

__all__ = ["Features", "LabelledQueries", "RetrievalData", "SparseRows", "load_retrieval"]

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class SparseRows:
    """Rows of few entries each, such as bags of words, histories of ids, or the labels of queries (CSR).

    Attributes:
        offsets: ``(n + 1,)`` where each row begins.
        columns: ``(E,)`` columns of the entries, in ``0 .. width - 1``.
        values: ``(E,)`` float32.
        width: number of columns.

    Raises:
        ValueError: shapes that do not fit, a column outside, or a value that is not finite.

    Example:
        >>> SparseRows.from_lists([[2, 0], []], 3).num_rows
        2
    """

    offsets: IntArray
    columns: IntArray
    values: FloatArray
    width: int

    def __post_init__(self) -> None:
        if self.offsets.ndim != 1 or self.offsets.size < 1 or self.columns.shape != self.values.shape:
            raise ValueError("offsets, columns and values must be vectors, the last two of one length")
        if self.offsets[0] != 0 or self.offsets[-1] != self.columns.size or (np.diff(self.offsets) < 0).any():
            raise ValueError(f"offsets must rise from 0 to the {self.columns.size} entries")
        if self.columns.size and not 0 <= self.columns.min() <= self.columns.max() < self.width:
            raise ValueError(f"columns must lie in 0..{self.width - 1}")
        if not np.isfinite(self.values).all():
            raise ValueError("values must be finite")

    @classmethod
    def from_lists(cls, rows: Sequence[Sequence[int]], width: int | None = None) -> SparseRows:
        """Rows of ids, each with the value 1.

        Args:
            rows: lists of columns.
            width: number of columns; one above the largest when None.
        """
        columns = np.fromiter((column for row in rows for column in row), dtype=np.int64)
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)]).astype(np.int64)
        size = int(columns.max(initial=-1)) + 1 if width is None else width
        return cls(offsets, columns, np.ones(columns.size, dtype=np.float32), size)

    @property
    def num_rows(self) -> int:
        """n."""
        return int(self.offsets.size - 1)

    @property
    def sizes(self) -> IntArray:
        """``(n,)`` entries of every row."""
        found: IntArray = np.diff(self.offsets)
        return found

    def take(self, rows: IntArray) -> SparseRows:
        """Some of the rows, in the order asked for.

        Complexity: O(entries of these rows).
        """
        sizes = self.sizes[rows]
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        entries = np.arange(offsets[-1]) + np.repeat(self.offsets[rows] - offsets[:-1], sizes)
        return SparseRows(offsets, self.columns[entries], self.values[entries], self.width)

    def unit_rows(self) -> SparseRows:
        """The same rows at Euclidean length 1; rows of zeros stay zero.

        Complexity: O(E).
        """
        rows = np.repeat(np.arange(self.num_rows), self.sizes)
        square = np.bincount(rows, weights=self.values.astype(np.float64) ** 2, minlength=self.num_rows)
        length = np.sqrt(square)
        scale = np.divide(1.0, length, out=np.zeros_like(length), where=length > 0)
        return SparseRows(self.offsets, self.columns, (self.values * scale[rows]).astype(np.float32), self.width)


Features = SparseRows | FloatArray


@dataclass(frozen=True, eq=False)
class LabelledQueries:
    """Queries with their labels.

    Attributes:
        features: sparse rows or ``(n, D)`` dense ones.
        labels: the labels of every query, none twice; ``labels.width`` is the number of all labels.

    Raises:
        ValueError: numbers of rows that differ, a label twice, or dense features that are not a finite matrix.
    """

    features: Features
    labels: SparseRows

    def __post_init__(self) -> None:
        if not isinstance(self.features, SparseRows) and (
            self.features.ndim != 2 or not np.isfinite(self.features).all()
        ):
            raise ValueError("dense features must be a matrix of finite numbers")
        if num_rows(self.features) != self.labels.num_rows:
            raise ValueError(f"{num_rows(self.features)} rows of features and {self.labels.num_rows} of labels")
        rows = np.repeat(np.arange(self.num_queries), self.labels.sizes)
        pairs = np.sort(rows * max(self.labels.width, 1) + self.labels.columns)
        if (pairs[1:] == pairs[:-1]).any():
            raise ValueError("a query has a label twice")

    @property
    def num_queries(self) -> int:
        """n."""
        return self.labels.num_rows

    def take(self, rows: IntArray) -> LabelledQueries:
        """Some of the queries."""
        return LabelledQueries(take_rows(self.features, rows), self.labels.take(rows))


@dataclass(frozen=True, eq=False)
class RetrievalData:
    """What a retriever is trained and measured on.

    Attributes:
        train: queries to learn from.
        test: queries to measure on; None leaves it to the pipeline to set some aside.
        valid: queries to choose the epoch by; None likewise.
        label_features: features of the labels, where they have any.
        label_ids: ``(L,)`` external names of the labels, integers or text; their numbers when None.
        source: where the data came from.
        text_model: the sentence encoder that made the queries' features of texts; None where they are anything else.

    Raises:
        InputError: parts that do not fit each other, names of labels that are not distinct, or no query at all.

    Example:
        >>> queries = LabelledQueries(SparseRows.from_lists([[0, 1], [2]]), SparseRows.from_lists([[0], [1]]))
        >>> RetrievalData(queries).num_labels
        2
    """

    train: LabelledQueries
    test: LabelledQueries | None = None
    valid: LabelledQueries | None = None
    label_features: Features | None = None
    label_ids: NDArray[Any] | None = None
    source: str = "table"
    text_model: str | None = None

    def __post_init__(self) -> None:
        if self.train.num_queries == 0:
            raise InputError("holds no training query", "give at least one", path=self.source)
        for name, part in (("test", self.test), ("valid", self.valid)):
            if part is None:
                continue
            if kind_of(part.features) != kind_of(self.train.features):
                raise InputError(
                    f"the {name} queries have {kind_of(part.features)}, the training queries "
                    f"{kind_of(self.train.features)}", "give all queries the same features", path=self.source,
                )  # fmt: skip
            if part.labels.width != self.num_labels:
                raise InputError(
                    f"there are {part.labels.width} labels in {name} and {self.num_labels} in training",
                    "number the labels alike", path=self.source,
                )  # fmt: skip
        given = {"features": self.label_features, "names": self.label_ids}
        for name, rows in given.items():
            if rows is not None and num_rows(rows) != self.num_labels:
                raise InputError(
                    f"there are {num_rows(rows)} rows of label {name} and {self.num_labels} labels",
                    "give every label a row", path=self.source,
                )  # fmt: skip
        if self.label_ids is not None and len(set(self.label_ids.tolist())) < self.num_labels:
            raise InputError("two labels have the same name", "give labels distinct names", path=self.source)

    @property
    def num_labels(self) -> int:
        """L."""
        return self.train.labels.width

    def names(self) -> NDArray[Any]:
        """``(L,)`` external names of the labels."""
        return np.arange(self.num_labels) if self.label_ids is None else self.label_ids

    def content_hash(self) -> str:
        """SHA-256 of all features, labels and names."""
        digest = hashlib.sha256()
        for part in (self.train, self.valid, self.test):
            for rows in (None, None) if part is None else (part.features, part.labels):
                _feed(digest, rows)
        _feed(digest, self.label_features)
        digest.update("\n".join(map(str, self.names().tolist())).encode())
        return digest.hexdigest()


def num_rows(features: Features | NDArray[Any]) -> int:
    """Rows of sparse or dense features."""
    return features.num_rows if isinstance(features, SparseRows) else int(features.shape[0])


def take_rows(features: Features, rows: IntArray) -> Features:
    """Some rows of sparse or dense features."""
    return features.take(rows) if isinstance(features, SparseRows) else features[rows]


def kind_of(features: Features) -> str:
    """Sparse or dense, and how wide: features of one kind can go through one tower."""
    if isinstance(features, SparseRows):
        return f"{features.width} sparse features"
    return f"{features.shape[1]} dense features"


def _feed(digest: Any, rows: Features | None) -> None:
    parts = (rows.offsets, rows.columns, rows.values) if isinstance(rows, SparseRows) else (rows,)
    for part in parts:
        digest.update(b"none" if part is None else f"{part.shape}{part.dtype}".encode() + part.tobytes())
    if isinstance(rows, SparseRows):
        digest.update(str(rows.width).encode())


def load_retrieval(name_or_path: str | Path, **options: Any) -> RetrievalData:
    """Load queries and labels: a registered data set, or files of your own.

    Args:
        name_or_path: registered name; or a folder or file of texts that `read_text_retrieval` reads, or of features
            that `read_extreme_folder` reads. In a folder of features a table ``labels`` of texts gives the labels
            theirs, where no other features of labels are there.
        **options: for a recipe arguments of its generator; for texts those of `read_text_retrieval`.

    Returns:
        The data.

    Raises:
        InputError: an unknown name or option, a missing file, bad input.
        MissingPackageError: texts without the extra ``[text]``.

    Complexity: as the reader or the generator.

    Example:
        >>> load_retrieval("synthetic-tags", num_queries=200).train.num_queries
        160
    """
    from graphcl.data.registry import RetrievalRecipe, list_datasets, recipe_of_kind
    from graphcl.data.retrieval_generator import synthetic_tags

    names = [recipe.name for recipe in list_datasets() if recipe.kind == "retrieval"]
    name = str(name_or_path)
    if name not in names:
        if not Path(name).exists() and "/" not in name and "." not in name:
            known = f"{nearest(name, names)}the data sets are {', '.join(names)}; or give a folder"
            raise InputError(f"there is no data set of queries and labels {name!r}", known)
        return _read_files(Path(name), options)
    recipe = recipe_of_kind(name, RetrievalRecipe)
    allowed = ("num_queries", "num_labels", "num_words", "words_per_query", "seed")
    for option in options:
        if option not in allowed:
            raise InputError(f"unknown option {option!r}", f"use one of: {', '.join(allowed)}")
    try:
        return synthetic_tags(**{**recipe.generator, **options})
    except (TypeError, ValueError) as error:
        raise InputError(f"an option of {name} does not fit: {error}", "give another number") from error


def _read_files(path: Path, options: dict[str, Any]) -> RetrievalData:
    from graphcl.data.extreme_text import read_extreme_folder
    from graphcl.data.retrieval_texts import find_text_table, is_text_table, read_label_texts, read_text_retrieval
    from graphcl.data.sentence_encoder import encode_texts

    of_texts = ("text", "label", "separator", "model", "batch_size", "cache", "encode")
    texts = is_text_table(path) if path.is_file() else path.is_dir() and find_text_table(path, "train") is not None
    labels = find_text_table(path, "labels") if path.is_dir() and not texts else None
    for option in options:
        if not texts and labels is None:
            raise InputError(f"unknown option {option!r}", "files of queries and labels have no options")
        if option not in of_texts:
            known = f"{nearest(option, of_texts)}options of texts are {', '.join(of_texts[:-1])}"
            raise InputError(f"unknown option {option!r}", known, path=path)
    if texts:
        return read_text_retrieval(path, **options)
    data = read_extreme_folder(path)
    if labels is None or data.label_features is not None:
        return data
    names, lines = read_label_texts(labels, text=options.get("text"))
    of_encoder = {name: options[name] for name in ("model", "batch_size", "cache", "encode") if name in options}
    return replace(data, label_features=encode_texts(lines, **of_encoder), label_ids=names)
