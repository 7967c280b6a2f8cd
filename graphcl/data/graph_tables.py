"""Graphs from tables: an edge list, a feature table, labels, each node known by its id in the tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from graphcl.data.graph_archives import features_of_npz, labels_of_npz
from graphcl.data.graph_files import in_file, load_array, open_npz, sparse_of_npz
from graphcl.data.ids import IdMap, id_series
from graphcl.data.readers import existing_file
from graphcl.data.text_table import check_utf8, find_delimiter, split_header, text_shape
from graphcl.errors import InputError, located, nearest, plain_name
from graphcl.graphs.conversion import check_features, encode_labels
from graphcl.graphs.knn import Metric, Symmetry

if TYPE_CHECKING:
    import polars as pl
    from torch_geometric.data import Data

__all__ = [
    "EDGE_NAMES",
    "NodeTable",
    "Table",
    "node_labels",
    "read_edge_list",
    "read_node_table",
    "read_table",
    "read_vectors",
]

#: Names that columns of edge lists have in the field, best first, without case and punctuation.
EDGE_NAMES: Final = {
    "source": ("source", "src", "from", "sourceid", "fromnodeid", "fromid", "node1", "id1", "head", "u", "start"),
    "target": (
        "target",
        "dst",
        "to",
        "targetid",
        "tonodeid",
        "toid",
        "node2",
        "id2",
        "tail",
        "v",
        "end",
        "destination",
    ),
    "weight": ("weight", "edgeweight", "w", "value"),
}
_ID_NAMES = ("id", "node", "nodeid", "name", "index", "vertex")
_LABEL_NAMES = ("label", "labels", "y", "class", "target", "category")
_ARRAYS = (".npy", ".npz")
_COMMENTS = ("#", "%")


@dataclass(frozen=True)
class Table:
    """A table as read, and where its rows are in the source.

    Attributes:
        frame: the columns; texts throughout where the source knows no types.
        source: name for messages.
        rows: int64, one-based row (line) of each row.
        text: whether the source knows no types.
        header: whether the columns have names of their own.
    """

    frame: pl.DataFrame
    source: str
    rows: NDArray[np.int64]
    text: bool
    header: bool

    def column(self, role: str, given: str | None, names: Sequence[str], position: int | None) -> str | None:
        """The column of a role: the given one, one with a usual name, or the one at a position; None without any."""
        columns = self.frame.columns
        if given is not None:
            if given not in columns:
                listed = ", ".join(repr(column) for column in columns)
                raise InputError(
                    f"there is no such column; the columns are {listed}",
                    f"{nearest(given, columns)}name the {role} column with {role}=...",
                    path=self.source,
                    column=given,
                )
            return given
        if self.header:
            rank = {known: place for place, known in enumerate(names)}
            found = sorted(
                (column for column in columns if plain_name(column) in rank), key=lambda c: rank[plain_name(c)]
            )
            if found:
                return found[0]
        return columns[position] if position is not None and position < len(columns) else None

    def ids(self, column: str, what: str) -> pl.Series:
        """Ids of a column; a missing one is refused."""
        try:
            series = id_series(self.frame.get_column(column), infer_integers=self.text)
        except InputError as error:
            raise located(error, self.source, column=column) from error
        missing = series.is_null()
        if self.text:
            missing |= (self.frame.get_column(column) == "").fill_null(True)
        if missing.any():
            raise self.fault(
                int(missing.arg_max() or 0), column, f"the {what} is missing", "fill it in or drop the row"
            )
        return series

    def numbers(self, column: str, what: str, remedy: str) -> NDArray[np.float64]:
        """A column of finite numbers; the first value that is none is refused."""
        import polars as pl

        series = self.frame.get_column(column)
        numeric = series.str.strip_chars() if series.dtype == pl.String else series
        if numeric.dtype.is_temporal() or numeric.dtype.is_nested():
            raise InputError(f"{what} of type {numeric.dtype} is no number", remedy, path=self.source, column=column)
        values = numeric.cast(pl.Float64, strict=False)
        array: NDArray[np.float64] = values.fill_null(np.nan).to_numpy()
        bad = np.flatnonzero(~np.isfinite(array))
        if bad.size:
            value = series[int(bad[0])]
            problem = f"{what} is missing" if value is None or value == "" else f"{what} is no finite number: {value!r}"
            raise self.fault(int(bad[0]), column, f"{problem} ({bad.size} such rows)", remedy)
        return array

    def fault(self, index: int, column: str | None, problem: str, remedy: str) -> InputError:
        """An error at a row."""
        return InputError(
            problem, remedy, path=self.source, row=int(self.rows[index]), column=column if self.header else None
        )


@dataclass(frozen=True)
class NodeTable:
    """Features of nodes, with their ids and labels where the source has them.

    Attributes:
        ids: id of each row, None where rows are numbered from 0.
        x: ``(N, f)``.
        labels: N labels, or None.
        source: name for messages.
    """

    ids: pl.Series | None
    x: torch.Tensor
    labels: NDArray[Any] | None
    source: str


def read_edge_list(
    edges: Any,
    features: Any = None,
    labels: Any = None,
    *,
    source: str | None = None,
    target: str | None = None,
    weight: str | None = None,
    id: str | None = None,
) -> Data:
    """A graph from an edge list, and optionally a feature table and labels.

    Edge lists are CSV, TSV or blank-separated text (with or without a header line, ``#`` and ``%`` comments above),
    Parquet, or a frame. Columns are found by their usual names, else the first two are the ends of an edge and a third
    one its weight. Features come in a table with the id first, or in an npy or npz array whose row i is node i.
    Edges stay as listed: directed, repeated and self-loops included; `graphcl.graphs.adjacency` says what becomes of
    them. A node of the feature table without an edge is an isolated node.

    Args:
        edges: path or frame.
        features: path, frame or array; None for a graph without features, whose nodes are those of the edges.
        labels: name of a column of the feature table; or path of an npy file or a text file with one label a row of
            the features; or path or frame of a table with id and label. By default a column called ``label``, ``y``
            or ``class`` of the feature table.
        source: column of an edge's first end.
        target: column of its second end.
        weight: column of its weight.
        id: column of the node id in the feature table.

    Returns:
        ``Data`` with ``node_ids``, the ids in the order of the nodes: sorted, integers by size and texts by letter.

    Raises:
        InputError: no edge, a missing id, an edge to a node without features, an id that occurs twice, a feature or
            weight that is no finite number, labels that do not fit; with file, row and column.

    Complexity:
        O(E + N f).
    """
    from torch_geometric.data import Data

    table = read_table(edges, roles=EDGE_NAMES)
    columns = [
        table.column(role, given, EDGE_NAMES[role], position)
        for position, (role, given) in enumerate({"source": source, "target": target}.items())
    ]
    start, end = columns
    if start is None or end is None or start == end:
        raise InputError("it has no two columns of node ids", "name them with source= and target=", path=table.source)
    third = None if table.header or table.frame.width != 3 else 2
    heavy = table.column("weight", weight, EDGE_NAMES["weight"], third)
    ends = [table.ids(column, "node id") for column in (start, end)]
    if not len(ends[0]):
        raise InputError("it has no edge", "give at least one edge", path=table.source)
    nodes = None if features is None else read_node_table(features, id=id, labels=labels if _is_name(labels) else None)
    ids = _node_ids(ends, nodes)
    edge_index = np.stack(
        [_positions(ids, series, table, column) for series, column in zip(ends, (start, end), strict=True)]
    )
    data = Data(edge_index=torch.from_numpy(edge_index), num_nodes=len(ids))
    if heavy is not None:
        values = table.numbers(heavy, "the weight", "give finite weights of at least 0")
        if (values < 0).any():
            at = int(np.argmax(values < 0))
            raise table.fault(at, heavy, f"the weight {values[at]:g} is negative", "give weights of at least 0")
        data.edge_weight = torch.tensor(values, dtype=torch.float32)
    data.node_ids = ids.external
    if nodes is not None:
        data.x = nodes.x[torch.from_numpy(_row_order(ids, nodes))]
    found = node_labels(labels, nodes, ids)
    if found is not None:
        data.y, data.label_names = found
    return data


def read_vectors(
    source: Any,
    labels: Any = None,
    *,
    id: str | None = None,
    k: int = 5,
    metric: Metric = "cosine",
    symmetric: Symmetry = "union",
) -> Data:
    """Vectors without a graph, linked with their nearest neighbours.

    Args:
        source: path of an npy, npz, CSV or Parquet file, a frame or an array: a row a vector.
        labels: as in `read_edge_list`.
        id: column of the id; by default a column called ``id`` or ``node``, or a first column of texts.
        k: neighbours, see `graphcl.graphs.knn_graph`.
        metric: likewise.
        symmetric: likewise.

    Returns:
        ``Data`` in the order of the source, with ``node_ids`` where there are ids.

    Raises:
        InputError: no vector, a value that is no finite number, an id that is missing or occurs twice, labels that do
            not fit.

    Complexity:
        That of `graphcl.graphs.knn_graph`.
    """
    nodes = read_node_table(source, id=id, labels=labels if _is_name(labels) else None, keyed=False)
    data = in_file(Path(nodes.source), nodes.x, None, None, k=k, metric=metric, symmetric=symmetric)
    ids = _node_ids((), nodes)
    if nodes.ids is not None:
        data.node_ids = nodes.ids.to_numpy()
    found = node_labels(labels, nodes, ids)
    if found is not None:
        codes, data.label_names = found
        data.y = torch.empty_like(codes)
        data.y[torch.from_numpy(_row_order(ids, nodes))] = codes
    return data


def read_node_table(source: Any, *, id: str | None = None, labels: str | None = None, keyed: bool = True) -> NodeTable:
    """Features of nodes from a file, a frame or an array.

    Args:
        source: npy or npz (an array, dense or sparse, row i is node i), CSV or Parquet with a header, a frame, or an
            array.
        id: column of the id; by default one with a usual name, else the first.
        labels: column of the labels; by default one with a usual name, if there is one.
        keyed: whether there must be ids in a table; without, a first column of numbers is a feature.

    Returns:
        The table.

    Raises:
        InputError: see `read_edge_list`.

    Complexity:
        O(N f).
    """
    if _is_array_source(source):
        name = str(source) if isinstance(source, str | Path) else "features"
        content, found = _array_of(source)
        try:
            return NodeTable(None, check_features(content), found, name)
        except InputError as error:
            raise located(error, name) from error
    table = read_table(source, roles={"id": _ID_NAMES, "label": _LABEL_NAMES})
    if table.frame.height == 0:
        raise InputError("it has no row", "give at least one node", path=table.source)
    key = table.column("id", id, _ID_NAMES, 0 if keyed else _texts_first(table))
    ids = None if key is None else table.ids(key, "node id")
    if ids is not None and ids.is_duplicated().any():
        at = int(ids.is_first_distinct().not_().arg_max() or 0)
        raise table.fault(at, key, f"node {ids[at]!r} occurs twice", "give every node one row")
    mark = table.column("labels", labels, _LABEL_NAMES, None)
    names = [column for column in table.frame.columns if column not in (key, mark)]
    if not names:
        raise InputError("it has no column of features", "give at least one column of numbers", path=table.source)
    remedy = "give numbers: encode texts, fill missing values in, or leave the column out"
    x = np.empty((table.frame.height, len(names)), dtype=np.float32)
    for position, column in enumerate(names):
        x[:, position] = table.numbers(column, "the feature", remedy)
    found = None if mark is None else _label_column(table, mark)
    return NodeTable(ids, torch.from_numpy(x), found, table.source)


def read_table(source: Any, *, roles: dict[str, tuple[str, ...]] | None = None, limit: int | None = None) -> Table:
    """A table from a file or a frame, with the row of everything known.

    Args:
        source: path of a Parquet or delimited text file, or a polars or pandas frame.
        roles: usual names by role: a first line that holds one of them is a header.
        limit: look at the first lines only, that many; None for all.

    Returns:
        The table.

    Raises:
        InputError: the file is missing, empty, not UTF-8, or its rows have different numbers of fields.

    Complexity:
        O(bytes).
    """
    import polars as pl

    if not isinstance(source, str | Path):
        frame = _frame_of(source)
        return Table(frame, "the table", np.arange(1, frame.height + 1), text=False, header=True)
    path = existing_file(source)
    if path.suffix.lower() in (".parquet", ".pq"):
        try:
            frame = pl.read_parquet(path, n_rows=limit)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise InputError(f"it is no Parquet file: {str(error)[:80]}", "write it again", path=path) from error
        return Table(frame, str(path), np.arange(1, frame.height + 1), text=False, header=True)
    return _read_text(path, roles or {}, limit)


def _read_text(path: Path, roles: dict[str, tuple[str, ...]], limit: int | None) -> Table:
    import polars as pl

    check_utf8(path)
    lines = _lines(path, limit)
    number = np.arange(1, len(lines) + 1, dtype=np.int64)
    stripped = lines.str.strip_chars()
    kept = (stripped != "") & ~stripped.str.contains(f"^[{''.join(_COMMENTS)}]")
    if not kept.any():
        raise InputError("it holds no row", "give at least one row", path=path)
    lines, number = stripped.filter(kept), number[kept.to_numpy()]
    mark = find_delimiter(lines[0])
    if mark is None:
        lines, mark = lines.str.replace_all(r"\s+", "\t"), "\t"
    elif bool(lines.str.contains('"', literal=True).any()) and text_shape(path, mark).quoted:
        return _read_quoted(path, mark, roles)
    first = split_header(lines[0], mark, quoted=False)
    fields = lines.str.count_matches(re.escape(mark)).to_numpy() + 1
    ragged = np.flatnonzero(fields != len(first))
    if ragged.size:
        raise InputError(
            f"{fields[ragged[0]]} fields where {len(first)} are expected",
            "mend the row (a delimiter inside a field must be quoted)",
            path=path,
            row=int(number[ragged[0]]),
        )
    header = _is_header(first, split_header(lines[1], mark, quoted=False) if len(lines) > 1 else [], roles)
    names = first if header else [f"column {position + 1}" for position in range(len(first))]
    _check_names(names, path, int(number[0]))
    body = lines[1:] if header else lines
    split = body.str.split_exact(mark, len(names) - 1).struct.rename_fields(names)
    frame = split.struct.unnest().with_columns(pl.all().str.strip_chars())
    return Table(frame, str(path), number[1:] if header else number, text=True, header=header)


def _lines(path: Path, limit: int | None) -> pl.Series:
    """Lines with their blank ones, which a reader of tables would drop unseen, and with them the row numbers."""
    import polars as pl

    if limit is not None:
        with path.open(encoding="utf-8-sig") as file:
            return pl.Series(list(islice(file, limit)), dtype=pl.String)
    return pl.Series([path.read_text(encoding="utf-8-sig")]).str.split("\n").explode()


def _read_quoted(path: Path, mark: str, roles: dict[str, tuple[str, ...]]) -> Table:
    """Delimited text with quoted fields, which may hold delimiters and line breaks."""
    import csv

    import polars as pl

    rows, numbers = [], []
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=mark)
        line = 1
        for fields in reader:
            if fields and not fields[0].startswith(_COMMENTS):
                rows.append([field.strip() for field in fields])
                numbers.append(line)
            line = reader.line_num + 1
    header = _is_header(rows[0], rows[1] if len(rows) > 1 else [], roles)
    names = rows[0] if header else [f"column {position + 1}" for position in range(len(rows[0]))]
    _check_names(names, path, numbers[0])
    for fields, number in zip(rows, numbers, strict=True):
        if len(fields) != len(names):
            raise InputError(
                f"{len(fields)} fields where {len(names)} are expected", "mend the row", path=path, row=number
            )
    skip = int(header)
    frame = pl.DataFrame(rows[skip:], schema=dict.fromkeys(names, pl.String), orient="row")
    return Table(frame, str(path), np.array(numbers[skip:], dtype=np.int64), text=True, header=header)


def _is_header(first: Sequence[str], second: Sequence[str], roles: dict[str, tuple[str, ...]]) -> bool:
    """Whether the first line names columns: by a usual name, or by words above numbers."""
    usual = {name for names in roles.values() for name in names if len(name) > 1}
    if any(plain_name(field) in usual for field in first):
        return True
    return not any(map(_is_number, first)) and any(map(_is_number, second))


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _check_names(names: Sequence[str], path: Path, row: int) -> None:
    repeated = next((name for position, name in enumerate(names) if name in names[:position]), None)
    if repeated is not None:
        raise InputError("two columns have this name", "rename one", path=path, row=row, column=repeated)


def _node_ids(ends: Sequence[pl.Series], nodes: NodeTable | None) -> IdMap:
    """Ids of all nodes, sorted."""
    import polars as pl

    if nodes is None:
        first, second = (series.rename("id") for series in ends)
        if first.dtype != second.dtype:
            first, second = first.cast(pl.String), second.cast(pl.String)
        return IdMap(pl.concat([first, second]))
    return IdMap(np.arange(nodes.x.shape[0]) if nodes.ids is None else nodes.ids)


def _row_order(ids: IdMap, nodes: NodeTable | None) -> NDArray[np.int64]:
    """Row of the feature table that each node has."""
    if nodes is None or nodes.ids is None:
        return np.arange(len(ids))
    return np.argsort(ids.to_internal(nodes.ids))


def _positions(ids: IdMap, series: pl.Series, table: Table, column: str) -> NDArray[np.int64]:
    position = ids.to_internal(series, unknown="ignore")
    if (position < 0).any():
        at = int(np.argmax(position < 0))
        count = int(np.unique(series.filter(position < 0).to_numpy()).size)
        raise table.fault(
            at,
            column,
            f"node {series[at]!r} is not in the feature table ({count} nodes are not)",
            "add its features, or drop its edges",
        )
    return position


def _is_name(labels: Any) -> bool:
    """Whether labels are given as the name of a column, not as a file."""
    return isinstance(labels, str) and not Path(labels).suffix and not Path(labels).exists()


def node_labels(labels: Any, nodes: NodeTable | None, ids: IdMap) -> tuple[torch.Tensor, tuple[Any, ...]] | None:
    """Labels of nodes from wherever they are given, in the order of the ids.

    Args:
        labels: see `read_edge_list`.
        nodes: the feature table, whose rows an array of labels follows; None for the order of the ids.
        ids: of the nodes.

    Returns:
        Codes and classes as `graphcl.graphs.encode_labels` gives them; None without labels.

    Raises:
        InputError: they do not fit the nodes.

    Complexity:
        O(N log N).
    """
    order = _row_order(ids, nodes)
    if labels is None or _is_name(labels):
        if labels is not None and (nodes is None or nodes.labels is None):
            raise InputError(
                f"there is no column or file {labels!r} of labels", "give a feature table with that column"
            )
        found = None if nodes is None or nodes.labels is None else nodes.labels[order]
        return None if found is None else _encoded(found, nodes.source if nodes is not None else "labels", len(ids))
    if isinstance(labels, str | Path) and Path(labels).suffix.lower() in _ARRAYS:
        return _encoded(_aligned(load_array(Path(labels)), order, str(labels)), str(labels), len(ids))
    if isinstance(labels, np.ndarray | torch.Tensor | list | tuple):
        return _encoded(_aligned(np.asarray(labels), order, "labels"), "labels", len(ids))
    table = read_table(labels, roles={"id": _ID_NAMES, "label": _LABEL_NAMES})
    if table.frame.width == 1:
        return _encoded(
            _aligned(_label_column(table, table.frame.columns[0]), order, table.source), table.source, len(ids)
        )
    key, mark = table.column("id", None, _ID_NAMES, 0), table.column("labels", None, _LABEL_NAMES, 1)
    if key is None or mark is None or key == mark:
        raise InputError("it has no columns of ids and labels", "give a table with both", path=table.source)
    given = table.ids(key, "node id")
    position = ids.to_internal(given, unknown="ignore")
    if (position < 0).any():
        at = int(np.argmax(position < 0))
        raise table.fault(at, key, f"node {given[at]!r} is not in the graph", "drop the row, or add the node")
    if given.is_duplicated().any():
        at = int(given.is_first_distinct().not_().arg_max() or 0)
        raise table.fault(at, key, f"node {given[at]!r} occurs twice", "give every node one label")
    values = _label_column(table, mark)
    every = np.full(len(ids), None, dtype=object)
    every[position] = values
    return _encoded(every, table.source, len(ids))


def _aligned(values: NDArray[Any], order: NDArray[np.int64], source: str) -> NDArray[Any]:
    if values.ndim != 1 or values.shape[0] != order.size:
        raise InputError(
            f"there are labels of shape {values.shape} for {order.size} nodes",
            "give one label a node, in order",
            path=source,
        )
    return values[order]


def _encoded(values: NDArray[Any], source: str, num_nodes: int) -> tuple[torch.Tensor, tuple[Any, ...]]:
    try:
        return encode_labels(values, num_nodes=num_nodes)
    except InputError as error:
        raise located(error, source) from error


def _label_column(table: Table, column: str) -> NDArray[Any]:
    series = table.frame.get_column(column)
    if table.text:
        series = id_series(series.set(series == "", None), infer_integers=True)
    values = np.empty(len(series), dtype=object)
    values[:] = series.to_list()
    return values


def _texts_first(table: Table) -> int | None:
    """Position 0 when the first column holds texts that are no numbers, so that it can only be ids."""
    import polars as pl

    first = table.frame.to_series(0)
    is_text = first.dtype == pl.String and bool(first.cast(pl.Float64, strict=False).is_null().all())
    return 0 if is_text and table.frame.width > 1 else None


def _is_array_source(source: Any) -> bool:
    if isinstance(source, str | Path):
        return Path(source).suffix.lower() in _ARRAYS
    return isinstance(source, np.ndarray | torch.Tensor) or hasattr(source, "tocoo")


def _array_of(source: Any) -> tuple[Any, NDArray[Any] | None]:
    """The matrix of an array source, and its labels where an npz file holds some."""
    if not isinstance(source, str | Path):
        return source, None
    path = existing_file(source)
    if path.suffix.lower() == ".npy":
        return load_array(path), None
    arrays = open_npz(path)
    if "format" in arrays:
        return sparse_of_npz(path), None
    matrix = features_of_npz(arrays, path)
    if matrix is None:
        raise InputError(f"it holds no features, only {', '.join(sorted(arrays))}", "name the array x", path=path)
    return matrix, labels_of_npz(arrays, path)


def _frame_of(source: Any) -> pl.DataFrame:
    import polars as pl

    if isinstance(source, pl.DataFrame):
        return source
    if isinstance(source, pl.LazyFrame):
        return source.collect()
    if type(source).__module__.split(".")[0] == "pandas":
        return pl.DataFrame({str(name): pl.Series(column.to_numpy()) for name, column in source.items()})
    if hasattr(source, "__arrow_c_stream__"):
        return pl.DataFrame(source)
    raise InputError(f"a table cannot be read from {type(source).__name__}", "give a path, or a polars or pandas frame")
