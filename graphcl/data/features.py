"""Features of items by modality: vectors or neighbour lists, keyed by item id, with what is missing marked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from graphcl.data.ids import IdMap, IntArray, id_series
from graphcl.data.interactions import items_with
from graphcl.data.readers import existing_file, read_features
from graphcl.errors import InputError, located, nearest

if TYPE_CHECKING:
    import polars as pl

FloatArray = NDArray[np.float32]
Unknown = Literal["ignore", "raise", "join"]

__all__ = [
    "Incidence",
    "ItemFeatures",
    "read_item_features",
    "read_item_incidence",
    "table_features",
]

_FORMATS = (".npy", ".npz", ".parquet", ".safetensors", ".csv", ".tsv", ".jsonl")
_KEY_NAMES = ("ids", "item_ids", "item", "keys")
_MAX_TOKENS = 4096
_KNOTS = 16


class Incidence(NamedTuple):
    """Neighbour lists of one modality: item ``node`` belongs to hyperedge ``hyperedge``.

    Attributes:
        node: int64[N], internal item ids.
        hyperedge: int64[N], in ``0 .. num_hyperedges - 1``.
        num_hyperedges: how many there are.
    """

    node: IntArray
    hyperedge: IntArray
    num_hyperedges: int


@dataclass(frozen=True, eq=False)
class ItemFeatures:
    """What is known of the items of a catalogue, by modality.

    Attributes:
        item_ids: the catalogue; row i of every table belongs to internal id i.
        vectors: modality -> float32[I, D], rows of missing items are zero.
        present: modality -> bool[I], which items have a row.
        incidence: modality -> ready-made neighbour lists, instead of vectors.
        unknown: modality -> rows whose id is not in the catalogue; they were left out.

    Example:
        >>> ids = IdMap([3, 7])
        >>> features = read_item_features({"image": (np.array([7]), np.ones((1, 4)))}, ids)
        >>> features.present["image"].tolist(), features.vectors["image"].shape
        ([False, True], (2, 4))
    """

    item_ids: IdMap
    vectors: Mapping[str, FloatArray] = field(default_factory=dict)
    present: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    incidence: Mapping[str, Incidence] = field(default_factory=dict)
    unknown: Mapping[str, int] = field(default_factory=dict)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities, vectors first."""
        return (*self.vectors, *self.incidence)

    def without(self, modality: str) -> ItemFeatures:
        """The features without one modality.

        Raises:
            InputError: there is no such modality.
        """
        if modality not in self.modalities:
            raise InputError(f"there is no modality {modality!r}", f"use one of {', '.join(self.modalities)}")

        def rest(table: Mapping[str, Any]) -> dict[str, Any]:
            return {name: value for name, value in table.items() if name != modality}

        return ItemFeatures(self.item_ids, rest(self.vectors), rest(self.present), rest(self.incidence), self.unknown)

    def align(self, item_ids: IdMap) -> ItemFeatures:
        """The same features for another catalogue: known rows move, items that are new to it are missing.

        Raises:
            InputError: the catalogues have no item in common.

        Complexity:
            O(I D).
        """
        if item_ids == self.item_ids:
            return self
        place = item_ids.to_internal(self.item_ids.to_series(), unknown="ignore")
        known = place >= 0
        if not known.any():
            raise InputError(
                "no item of the features is in the catalogue", "key them by the item ids of the interactions"
            )
        vectors, present = {}, {}
        for name, table in self.vectors.items():
            vectors[name] = np.zeros((len(item_ids), table.shape[1]), dtype=np.float32)
            vectors[name][place[known]] = table[known]
            present[name] = np.zeros(len(item_ids), dtype=np.bool_)
            present[name][place[known]] = self.present[name][known]
        incidence = {}
        for name, lists in self.incidence.items():
            kept = known[lists.node]
            incidence[name] = Incidence(place[lists.node[kept]], lists.hyperedge[kept], lists.num_hyperedges)
        unknown = {name: self.unknown.get(name, 0) + int((~known).sum()) for name in self.modalities}
        return ItemFeatures(item_ids, vectors, present, incidence, unknown)

    def content_hash(self) -> str:
        """SHA-256 of all tables and lists, as 64 hexadecimal digits."""
        digest = hashlib.sha256()
        for name, table in self.vectors.items():
            digest.update(f"{name} {table.shape};".encode())
            digest.update(np.ascontiguousarray(table).tobytes() + self.present[name].tobytes())
        for name, lists in self.incidence.items():
            digest.update(f"{name} {lists.num_hyperedges};".encode())
            digest.update(lists.node.tobytes() + lists.hyperedge.tobytes())
        return digest.hexdigest()

    def lines(self) -> list[str]:
        """One line a modality for a person: its width, and how many items have it."""
        out = []
        for name, table in self.vectors.items():
            have = int(self.present[name].sum())
            out.append(f"{name}: width {table.shape[1]}, {have} of {len(self.item_ids)} items have a row")
        for name, lists in self.incidence.items():
            have = np.unique(lists.node).size
            out.append(f"{name}: {lists.node.size} neighbours, {have} of {len(self.item_ids)} items have some")
        return [
            f"{line}; {self.unknown[name]} rows of unknown items left out" if self.unknown.get(name) else line
            for name, line in zip(self.modalities, out, strict=True)
        ]


def read_item_features(
    sources: Mapping[str, Any] | str | Path | pl.DataFrame, item_ids: IdMap, *, on_unknown: Unknown = "ignore"
) -> ItemFeatures:
    """Read features of items, several modalities at once.

    | format | rows belong to |
    |---|---|
    | npy | item id = row number |
    | npz | the array ``ids``, else item id = row number; every other array is a modality |
    | parquet, CSV, JSON lines, frame | the item column; a list column is a modality, number columns together are one |
    | safetensors | the tensor ``ids`` or a JSON list ``ids`` in the metadata, else item id = row number |
    | ``(ids, rows)`` | arrays in memory |

    An item without a row lacks the modality; a row of zeros says nothing either.

    Args:
        sources: modality -> source; or one source that names its modalities itself.
        item_ids: the catalogue.
        on_unknown: what becomes of rows of items that are not in it: "ignore" leaves them out and counts them; with
            "join" their items join the catalogue, but for rows that have no id but their number (row 0 may be padding).

    Returns:
        The features, aligned with the catalogue, which under "join" may be a larger one than was given.

    Raises:
        InputError: no such file or format; rows of different widths; an id twice; NaN or infinite features; rows
            without ids where ids are text; no row of a known item; an unknown id under "raise".

    Complexity:
        O(rows x width).

    Example:
        >>> rows = np.array([[1.0, 0.0], [0.0, 1.0]])
        >>> read_item_features({"text": ([5, 9], rows)}, IdMap([5, 6])).lines()
        ['text: width 2, 1 of 2 items have a row; 1 rows of unknown items left out']
    """
    named = sources if isinstance(sources, Mapping) else {"": sources}
    tables: dict[str, _Table] = {}
    for name, source in named.items():
        for part, table in _read_tables(source).items():
            # One source that holds one modality takes the given name; several are told apart by their own.
            label = part if not name else name if len(table.siblings) == 1 else f"{name}.{part}"
            if label in tables:
                raise InputError(f"two sources name the modality {label!r}", "give each modality its own name")
            tables[label] = table
    if not tables:
        raise InputError("there is no modality in the item features", "give at least one file of features")
    if on_unknown == "join":
        item_ids = _with_items_of(tables, item_ids)
    vectors, present, unknown = {}, {}, {}
    for name, table in tables.items():
        vectors[name], present[name], unknown[name] = _aligned(name, table, item_ids, on_unknown)
    return ItemFeatures(item_ids, vectors, present, unknown=unknown)


def read_item_incidence(source: str | Path, item_ids: IdMap, modalities: Iterable[str]) -> ItemFeatures:
    """Read published neighbour lists: a SciPy sparse npz whose row r is item id r, modality blocks side by side.

    Args:
        source: ``.npz`` written by ``scipy.sparse.save_npz``, ``items x (modalities items)``, entries above 0 count.
        item_ids: the catalogue, integer ids.
        modalities: names of the column blocks, which are equally wide.

    Returns:
        Features with incidence instead of vectors.

    Raises:
        InputError: no such file, no sparse matrix, columns that do not divide into the modalities, or text ids.

    Complexity:
        O(entries).
    """
    from scipy.sparse import coo_array, load_npz

    path, names = existing_file(source), list(modalities)
    try:
        matrix = coo_array(load_npz(path))
    except (ValueError, KeyError, OSError) as error:
        raise InputError("this is no SciPy sparse matrix", "write it with scipy.sparse.save_npz", path=path) from error
    width, rest = divmod(matrix.shape[1], max(len(names), 1))
    if rest or not names:
        raise InputError(
            f"{matrix.shape[1]} columns do not divide into {len(names)} modalities", "name every block", path=path
        )
    place, known = _places_of_rows(np.arange(matrix.shape[0]), item_ids, path)
    entry = (matrix.data > 0) & known[matrix.row]
    node, column = place[matrix.row[entry]], matrix.col[entry].astype(np.int64)
    incidence = {}
    for number, name in enumerate(names):
        inside = column // width == number
        incidence[name] = Incidence(node[inside], column[inside] - number * width, width)
    return ItemFeatures(item_ids, incidence=incidence, unknown=dict.fromkeys(names, int((~known).sum())))


def table_features(frame: pl.DataFrame, item_ids: IdMap) -> ItemFeatures:
    """Turn a table of attributes into modalities, a column each: genres, year, title.

    Text (split into words) and lists of tokens become TF-IDF vectors over the tokens that at least two items share, at
    most 4096 of them; numbers become bumps around quantiles, so that near values are alike. The first column is the id.

    Args:
        frame: as `read_features` returns it.
        item_ids: the catalogue.

    Returns:
        One modality a column.

    Raises:
        InputError: an id twice, no column beside the id, or no known item.

    Complexity:
        O(rows x vocabulary) a column.

    Example:
        >>> import polars as pl
        >>> frame = pl.DataFrame({"item": [1, 2], "genre": [["war", "drama"], ["drama"]], "year": [1990, 1991]})
        >>> table_features(frame, IdMap([1, 2])).modalities
        ('genre', 'year')
    """
    key, *columns = frame.columns
    if not columns:
        raise InputError("there is no column beside the item id", "give a table with attributes")
    ids = frame.get_column(key)
    vectors, present, unknown = {}, {}, {}
    for name in columns:
        rows, filled = _column_vectors(frame.get_column(name))
        table = _Table(ids.filter(filled), rows[filled], "table", (name,))
        vectors[name], present[name], unknown[name] = _aligned(name, table, item_ids, "ignore")
    return ItemFeatures(item_ids, vectors, present, unknown=unknown)


class _Table(NamedTuple):
    """Rows of one modality with their ids (None: the row number), where they came from, and what came with them."""

    ids: Any
    rows: NDArray[Any]
    source: str | Path
    siblings: tuple[str, ...]


def _read_tables(source: Any) -> dict[str, _Table]:
    if isinstance(source, str | Path):
        path = existing_file(source)
        suffix = path.suffix.lower()
        if suffix == ".npy":
            return {path.stem: _Table(None, _load_numpy(path), path, (path.stem,))}
        if suffix == ".npz":
            return _split_ids(dict(_load_numpy(path)), None, path)
        if suffix == ".safetensors":
            return _read_safetensors(path)
        if suffix in _FORMATS:
            return _frame_tables(read_features(path, "item"), path)
        near = nearest(suffix, _FORMATS)
        raise InputError(f"features cannot be read from {suffix} files", f"{near}use one of {_FORMATS}", path=path)
    if isinstance(source, tuple) and len(source) == 2:
        return {"features": _Table(source[0], _matrix(source[1], "arrays", "features"), "arrays", ("features",))}
    if isinstance(source, np.ndarray):
        return {"features": _Table(None, _matrix(source, "array", "features"), "array", ("features",))}
    return _frame_tables(read_features(source, "item"), "table")


def _load_numpy(path: Path) -> Any:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return _matrix(loaded, path, path.stem)
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except (ValueError, OSError, EOFError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"this is no readable NumPy file: {error}", "write it with numpy.save", path=path) from error


def _read_safetensors(path: Path) -> dict[str, _Table]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
        listed = json.loads(metadata["ids"]) if "ids" in metadata else None
    except (OSError, SafetensorError, ValueError) as error:
        raise InputError("this is no readable safetensors file", "write it again", path=path) from error
    return _split_ids(arrays, listed, path)


def _split_ids(arrays: dict[str, NDArray[Any]], ids: Any, path: Path) -> dict[str, _Table]:
    if "indptr" in arrays:
        raise InputError(
            "this is a sparse matrix, not a table of features",
            "read neighbour lists with read_item_incidence, or save the features dense",
            path=path,
        )
    for name in _KEY_NAMES:
        if ids is None and name in arrays and arrays[name].ndim == 1:
            ids = arrays.pop(name)
    names = tuple(arrays)
    return {name: _Table(ids, _matrix(rows, path, name), path, names) for name, rows in arrays.items()}


def _frame_tables(frame: pl.DataFrame, source: str | Path) -> dict[str, _Table]:
    import polars as pl

    key, *columns = frame.columns
    ids = frame.get_column(key)
    lists = [name for name in columns if isinstance(frame.schema[name], pl.List | pl.Array)]
    numbers = [name for name in columns if frame.schema[name].is_numeric()]
    others = [name for name in columns if name not in lists and name not in numbers]
    if others or not (lists or numbers):
        what = f"column {others[0]!r} holds {frame.schema[others[0]]}" if others else "there is no feature column"
        raise InputError(
            what, "give numbers or lists of numbers; table_features turns text and tokens into vectors", path=source
        )
    names = tuple(lists) if lists else ("features",)
    tables = {}
    for name in lists:
        column = frame.get_column(name)
        widths = column.list.len() if isinstance(column.dtype, pl.List) else column.arr.len()
        if column.null_count() or widths.n_unique() > 1:
            row = int(np.argmax((widths != widths[0]).fill_null(True).to_numpy()))
            raise InputError(
                f"feature rows have different widths: {widths[0]} in row 1, {widths[row] or 0} in row {row + 1}",
                "give every row the same number of features; leave rows without features out",
                path=source,
                row=row + 1,
                column=name,
            )
        tables[name] = _Table(ids, np.array(column.to_list(), dtype=np.float64), source, names)
    if numbers and not lists:
        rows = frame.select(pl.col(numbers).cast(pl.Float64)).fill_null(float("nan")).to_numpy()
        tables["features"] = _Table(ids, rows, source, names)
    elif numbers:
        raise InputError(
            "it has both number columns and list columns", "keep either numbers, or one list a modality", path=source
        )
    return tables


def _matrix(rows: Any, source: str | Path, name: str) -> NDArray[Any]:
    try:
        array = np.asarray(rows)
        ragged = array.dtype == object
    except ValueError:
        ragged = True
    if ragged:
        widths = [len(row) if hasattr(row, "__len__") else 1 for row in rows]
        row = next((number for number, width in enumerate(widths) if width != widths[0]), 0)
        raise InputError(
            f"feature rows have different widths: {widths[0]} in row 1, {widths[row]} in row {row + 1}",
            "give every row the same number of features",
            path=source,
            column=name,
        )
    if array.ndim != 2 or array.dtype.kind not in "fiub" or not array.shape[1]:
        raise InputError(
            f"features must be numbers of shape (items, width), got {array.dtype} of shape {array.shape}",
            "save a matrix with a row an item",
            path=source,
            column=name,
        )
    return array


def _with_items_of(tables: Mapping[str, _Table], item_ids: IdMap) -> IdMap:
    """A catalogue and the items that tables of features name, each table with a known one among them."""
    every = item_ids
    for name, table in tables.items():
        if table.ids is not None:
            try:
                every = items_with(every, items_with(item_ids, table.ids).to_series())
            except InputError as error:
                raise located(error, table.source, column=name) from error
    return every


def _aligned(
    name: str, table: _Table, item_ids: IdMap, on_unknown: Unknown
) -> tuple[FloatArray, NDArray[np.bool_], int]:
    """Rows in the order of the catalogue, which items have one, and how many rows name no item of it."""
    if on_unknown not in get_args(Unknown):
        raise ValueError(f"on_unknown must be 'ignore', 'raise' or 'join', got {on_unknown!r}")
    rows, path = table.rows, table.source
    ids = np.arange(rows.shape[0]) if table.ids is None else table.ids
    series = id_series(ids)
    if len(series) != rows.shape[0]:
        raise InputError(
            f"{len(series)} ids for {rows.shape[0]} rows of features", "give every row one id", path=path, column=name
        )
    repeated = series.is_duplicated()
    if repeated.any():
        raise InputError(
            f"item id {series.filter(repeated)[0]!r} has two rows of features", "give an item one row", path=path,
            column=name,
        )  # fmt: skip
    place, known = _places_of_rows(ids, item_ids, path, by_row=table.ids is None)
    if not known.all() and on_unknown == "raise":
        raise InputError(
            f"features name the unknown item {series[int(np.argmin(known))]!r}", "leave the row out", path=path,
            column=name,
        )  # fmt: skip
    if not known.any():
        raise InputError(
            f"no row of the {len(series)} belongs to an item of the interactions",
            f"key them by item ids such as {item_ids.to_series()[0]!r}",
            path=path,
            column=name,
        )
    kept = rows[known].astype(np.float32)
    bad = ~np.isfinite(kept).all(axis=1)
    if bad.any():
        wrong = series.filter(known)[int(np.argmax(bad))]
        raise InputError(
            f"features of item {wrong!r} hold a value that is missing or not finite",
            "fill it in, or leave the row out (an item without a row lacks the modality)",
            path=path,
            column=name,
        )
    out = np.zeros((len(item_ids), rows.shape[1]), dtype=np.float32)
    out[place[known]] = kept
    present = np.zeros(len(item_ids), dtype=np.bool_)
    present[place[known]] = True
    return out, present, int((~known).sum())


def _places_of_rows(
    ids: Any, item_ids: IdMap, path: str | Path, *, by_row: bool = True
) -> tuple[IntArray, NDArray[np.bool_]]:
    if by_row and item_ids.kind != "integer":
        raise InputError(
            "rows without ids belong to integer item ids, and the ids of the interactions are text",
            "store the ids beside the features (the array 'ids' of an npz file, or a parquet table)",
            path=path,
        )
    place = item_ids.to_internal(ids, unknown="ignore")
    return place, place >= 0


def _column_vectors(column: pl.Series) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Vectors of an attribute, and which rows have it."""
    import polars as pl

    if isinstance(column.dtype, pl.List):
        return _tfidf(column.cast(pl.List(pl.String)))
    numbers = column.cast(pl.Float64, strict=False) if not column.dtype.is_nested() else column
    text = column.cast(pl.String).fill_null("").str.strip_chars() if column.dtype == pl.String else None
    if text is None or numbers.null_count() <= (text == "").sum():
        return _bumps(numbers)
    return _tfidf(text.str.to_lowercase().str.extract_all(r"\w+"))


def _tfidf(tokens: pl.Series) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    import polars as pl

    frame = pl.DataFrame({"row": np.arange(len(tokens)), "token": tokens}).explode("token").drop_nulls()
    frame = frame.filter(pl.col("token") != "").group_by("row", "token").len()
    shared = frame.group_by("token").agg(pl.col("row").count().alias("rows")).filter(pl.col("rows") > 1)
    shared = shared.sort(["rows", "token"], descending=[True, False]).head(_MAX_TOKENS).with_row_index("place")
    joined = frame.join(shared, on="token").sort("row", "place")
    out = np.zeros((len(tokens), max(shared.height, 1)))
    weight = 1 + np.log((1 + len(tokens)) / (1 + joined["rows"].to_numpy()))
    out[joined["row"].to_numpy(), joined["place"].to_numpy()] = joined["len"].to_numpy() * weight
    filled = np.asarray(out.any(axis=1), dtype=np.bool_)
    return out, filled


def _bumps(numbers: pl.Series) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    values = numbers.to_numpy().astype(np.float64)
    filled = np.isfinite(values)
    out = np.zeros((values.size, _KNOTS))
    if filled.any():
        known = values[filled]
        knots = np.quantile(known, np.linspace(0, 1, _KNOTS))
        spread = max(float(known.std()) / 4, 1e-9)
        out[filled] = np.exp(-0.5 * ((known[:, None] - knots) / spread) ** 2)
    return out, filled
