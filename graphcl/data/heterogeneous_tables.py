"""Heterogeneous graphs from one table of typed edges, with a feature table a node type."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from graphcl.data.graph_tables import EDGE_NAMES, NodeTable, Table, node_labels, read_node_table, read_table
from graphcl.data.ids import IdMap
from graphcl.errors import InputError, located
from graphcl.graphs.heterogeneous_conversion import as_hetero_data
from graphcl.graphs.metapath import MetaPathLike

if TYPE_CHECKING:
    import polars as pl
    from torch_geometric.data import HeteroData

__all__ = ["TYPE_NAMES", "read_typed_edges"]

#: Names of the columns of types, without case and punctuation.
TYPE_NAMES: Final = {
    "source_type": ("sourcetype", "srctype", "fromtype", "headtype", "utype"),
    "target_type": ("targettype", "dsttype", "totype", "tailtype", "vtype"),
    "edge_type": ("edgetype", "relation", "relationtype", "predicate", "etype"),
}
_FEATURE_FILES = (".npy", ".npz", ".parquet", ".pq", ".csv", ".tsv", ".txt")


def read_typed_edges(
    edges: Any,
    features: Mapping[str, Any] | str | Path | None = None,
    labels: Any = None,
    *,
    target: str | None = None,
    metapaths: Iterable[MetaPathLike] | str | None = None,
) -> HeteroData:
    """A heterogeneous graph from a table with a source, a target and the type of each, an edge a row.

    Columns: ``source``, ``source_type``, ``target``, ``target_type`` and optionally ``edge_type`` (else every relation
    is called ``to``), found by these and other usual names. Ids are known within their type: author 7 is not paper 7.

    Args:
        edges: path of a CSV, TSV or Parquet file, or a frame.
        features: node type -> feature table or array, see `graphcl.data.graph_tables.read_node_table`; or a folder
            that holds ``<type>.csv``, ``.parquet``, ``.npy`` or ``.npz``. Types without features have a number of
            nodes only; a type with an array has its ids 0 to N - 1.
        labels: of the target nodes, as in `graphcl.data.graph_tables.read_edge_list`.
        target: node type that is embedded; by default the only one with labels in its feature table.
        metapaths: see `graphcl.graphs.as_hetero_data`.

    Returns:
        ``HeteroData`` as `graphcl.graphs.as_hetero_data` makes it, with ``node_ids`` of every type.

    Raises:
        InputError: a missing column, id or type, an edge to a node without features, features of an unknown type, and
            as `graphcl.data.graph_tables.read_edge_list`; with file, row and column.

    Complexity:
        O(E + N f).
    """
    from torch_geometric.data import HeteroData

    table = read_table(edges, roles={**EDGE_NAMES, **TYPE_NAMES})
    ends = [_column(table, role, EDGE_NAMES[role]) for role in ("source", "target")]
    kinds = [_column(table, role, TYPE_NAMES[role]) for role in ("source_type", "target_type")]
    relation = table.column("edge_type", None, TYPE_NAMES["edge_type"], None)
    ids = [table.ids(column, "node id") for column in ends]
    names = [table.ids(column, "type").cast(str) for column in kinds]
    if not len(ids[0]):
        raise InputError("it has no edge", "give at least one edge", path=table.source)
    relations = None if relation is None else table.ids(relation, "type").cast(str)
    types = sorted({*names[0].unique().to_list(), *names[1].unique().to_list()})
    nodes = _node_tables(features, types, table)
    graph = HeteroData()
    maps: dict[str, IdMap] = {}
    for name in types:
        maps[name] = _ids_of(name, nodes.get(name), ids, names)
        _fill(graph[name], maps[name], nodes.get(name))
    for kind, rows in _groups(names, relations):
        columns = [
            _known(maps[name], series.gather(rows), table, rows, column)
            for name, series, column in zip((kind[0], kind[2]), ids, ends, strict=True)
        ]
        graph[kind].edge_index = torch.from_numpy(np.stack(columns))
    if target is not None and target not in types:
        raise InputError(f"there is no node type {target!r}", f"use one of {', '.join(types)}", path=table.source)
    if labels is not None:
        goal = target if target is not None else _only_type(types, table)
        _put_labels(graph[goal], labels, nodes.get(goal), maps[goal])
    try:
        return as_hetero_data(graph, target=target, metapaths=metapaths)
    except InputError as error:
        raise located(error, table.source) from error


def _column(table: Table, role: str, names: tuple[str, ...]) -> str:
    column = table.column(role, None, names, None)
    if column is None:
        listed = ", ".join(repr(name) for name in table.frame.columns)
        raise InputError(
            f"there is no column {role!r}; the columns are {listed}", "add or rename it", path=table.source
        )
    return column


def _node_tables(features: Any, types: list[str], table: Table) -> dict[str, NodeTable]:
    if features is None:
        return {}
    if not isinstance(features, Mapping):
        features = _files_of(Path(features), types)
    unknown = [name for name in features if name not in types]
    if unknown:
        raise InputError(
            f"features are given for the type {unknown[0]!r}, which no edge has",
            f"use the types {', '.join(types)}",
            path=table.source,
        )
    return {name: read_node_table(source) for name, source in features.items()}


def _files_of(folder: Path, types: list[str]) -> dict[str, Path]:
    if not folder.is_dir():
        raise InputError("there is no such folder of features", "give a folder with a file a node type", path=folder)
    found = {
        name: folder / f"{name}{end}" for name in types for end in _FEATURE_FILES if (folder / f"{name}{end}").is_file()
    }
    if not found:
        raise InputError(
            f"it holds no features of {', '.join(types)}", f"name files such as {types[0]}.csv", path=folder
        )
    return found


def _ids_of(name: str, nodes: NodeTable | None, ids: list[pl.Series], names: list[pl.Series]) -> IdMap:
    import polars as pl

    if nodes is None:
        parts = [series.filter(kind == name) for series, kind in zip(ids, names, strict=True)]
        if parts[0].dtype != parts[1].dtype:
            parts = [part.cast(pl.String) for part in parts]
        return IdMap(pl.concat([part.rename("id") for part in parts]))
    return IdMap(np.arange(nodes.x.shape[0]) if nodes.ids is None else nodes.ids)


def _fill(store: Any, ids: IdMap, nodes: NodeTable | None) -> None:
    store.num_nodes = len(ids)
    store.node_ids = ids.external
    if nodes is None:
        return
    store.x = nodes.x if nodes.ids is None else nodes.x[torch.from_numpy(np.argsort(ids.to_internal(nodes.ids)))]
    if nodes.labels is not None:
        found = node_labels(None, nodes, ids)
        if found is not None:
            store.y = found[0]


def _put_labels(store: Any, labels: Any, nodes: NodeTable | None, ids: IdMap) -> None:
    found = node_labels(labels, nodes, ids)
    if found is not None:
        store.y = found[0]


def _only_type(types: list[str], table: Table) -> str:
    if len(types) == 1:
        return types[0]
    raise InputError(
        "labels are given, but not of which node type", f"name it with target=: {', '.join(types)}", path=table.source
    )


def _groups(names: list[pl.Series], relations: pl.Series | None) -> list[tuple[tuple[str, str, str], Any]]:
    """Row numbers of every edge type, in the order of first appearance."""
    import polars as pl

    frame = pl.DataFrame({"first": names[0], "second": names[1]}).with_row_index("row")
    frame = frame.with_columns(pl.lit("to").alias("relation") if relations is None else relations.alias("relation"))
    grouped = frame.group_by("first", "relation", "second", maintain_order=True).agg("row")
    return [((first, relation, second), np.array(rows)) for first, relation, second, rows in grouped.iter_rows()]


def _known(ids: IdMap, series: pl.Series, table: Table, rows: Any, column: str) -> Any:
    position = ids.to_internal(series, unknown="ignore")
    if (position < 0).any():
        at = int(np.argmax(position < 0))
        raise table.fault(
            int(rows[at]),
            column,
            f"node {series[at]!r} is not in the feature table of its type",
            "add its features, or drop its edges",
        )
    return position
