"""The graph that an embedder works on: checked, with its labels and splits, and kept in a run folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
from torch import Tensor

from graphcl.errors import InputError
from graphcl.graphs.conversion import adjacency, as_data, encode_labels, is_networkx
from graphcl.graphs.heterogeneous_conversion import as_hetero_data
from graphcl.graphs.metapath import num_nodes_of, target_type
from graphcl.kernels import SparseMatrix
from graphcl.pipelines.checkpoints import load_tensors, save_tensors
from graphcl.pipelines.cluster_graphs import structure_features
from graphcl.pipelines.runs import write_by_rename

__all__ = ["GRAPH", "NODES", "EmbeddingGraph", "ProbeSplit", "embedding_graph", "read_embedding_graph"]

GRAPH = "graph.safetensors"
NODES = "nodes.parquet"
_PARTS = ("train", "val", "test")
# Features with fewer non-zero entries than this part are written as a sparse matrix.
_SPARSE_BELOW = 0.25
_NODE_TENSORS = ("x", "y", *(f"{part}_mask" for part in _PARTS))
_EDGE_TENSORS = ("edge_index", "edge_weight")


@dataclass(frozen=True)
class ProbeSplit:
    """Labelled nodes of one split.

    Attributes:
        name: of the split; empty where there is only one.
        train, val, test: ``(N,)`` masks.
    """

    name: str
    train: Tensor
    val: Tensor
    test: Tensor


@dataclass(frozen=True, eq=False)
class EmbeddingGraph:
    """A graph with what is measured on it.

    Attributes:
        name: data set or source.
        graph: PyG ``Data`` or ``HeteroData``.
        target: node type that gets embeddings; empty in a graph of one type.
        num_nodes: target nodes.
        ids: their external ids.
        labels: ``(N,)`` class numbers, -1 for none; None without labels.
        label_names: classes by number.
        splits: labelled nodes to train and to measure a probe on; empty without masks.
    """

    name: str
    graph: Any
    target: str
    num_nodes: int
    ids: pl.Series
    labels: Tensor | None = None
    label_names: tuple[Any, ...] = ()
    splits: tuple[ProbeSplit, ...] = ()

    @property
    def kind(self) -> Literal["graph", "heterogeneous"]:
        """Whether nodes and edges have types."""
        return "heterogeneous" if hasattr(self.graph, "node_types") else "graph"

    @property
    def num_edges(self) -> int:
        """Edges as they are stored, both directions."""
        return int(self.graph.num_edges)

    def content_hash(self) -> str:
        """SHA-256 of features, edges, labels and masks."""
        tensors, about = _parts(self)
        about.pop("name")
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
        for name in sorted(tensors):
            digest.update(f"{name} {tuple(tensors[name].shape)} {tensors[name].dtype}".encode())
            digest.update(np.ascontiguousarray(tensors[name].detach().cpu().numpy()).data)
        return digest.hexdigest()

    def write(self, folder: Path) -> None:
        """Write `GRAPH` and `NODES`."""
        tensors, about = _parts(self)
        save_tensors(folder / GRAPH, tensors, about)
        write_by_rename(folder / NODES, pl.DataFrame({"node": self.ids}).write_parquet)


def embedding_graph(
    source: Any,
    target: str | None = None,
    *,
    kind: Literal["graph", "heterogeneous"] | None = None,
    name: str | None = None,
) -> EmbeddingGraph:
    """Check a graph and find its labels and splits.

    Args:
        source: ``GraphDataset``, PyG ``HeteroData``, or what :func:`graphcl.graphs.as_data` takes: ``Data``, a NetworkX
            graph, a SciPy matrix, edges with features, or vectors alone, which are linked to their nearest neighbours.
        target: node type of a heterogeneous graph; the graph's own when None.
        kind: ``heterogeneous`` reads a NetworkX graph with its types, as :func:`graphcl.graphs.as_hetero_data` does.
        name: of the result; that of the data set by default.

    Returns:
        The graph; a ``HeteroData`` with reverse edges, and with meta-paths there and back where it names none; one of a
        single type without features with those of `structure_features`. Masks are ``train_mask``,
        ``val_mask`` and ``test_mask``, ``(N,)`` or a column a split; nodes without label are in none. Splits with an
        empty part are left out.

    Raises:
        InputError: an empty graph, an unknown target type, labels or masks of another length, masks that are not there
            together.

    Complexity: O(N f + E).

    Example:
        >>> graph = embedding_graph(torch.eye(4).repeat(5, 1))
        >>> graph.kind, graph.num_nodes, graph.splits
        ('graph', 20, ())
    """
    if hasattr(source, "graph") and hasattr(source, "recipe"):
        name, source = name or source.name, source.graph
    name = name or "a graph in memory"
    if hasattr(source, "node_types") or (kind == "heterogeneous" and is_networkx(source)):
        graph = as_hetero_data(source, target=target)
        target = target_type(graph, target)
        store, size = graph[target], num_nodes_of(graph, target)
        if not graph.num_edges:
            raise InputError("the graph has no edge", "give edges of at least one type")
    else:
        try:
            graph = as_data(source)
        except TypeError as error:
            raise InputError(f"cannot embed this: {error}", "give a graph or vectors") from error
        target, store, size = "", graph, int(graph.num_nodes or 0)
        if size and graph.get("x") is None:
            graph.x = structure_features(_with_edges(adjacency(graph)))
    if size == 0:
        raise InputError(f"the graph has no node{f' of type {target!r}' if target else ''}", "give at least one")
    labels, names = _labels(store, graph, size)
    return EmbeddingGraph(
        name, graph, target, size, _ids(store.get("node_ids"), size), labels, names, _splits(store, graph, labels, size)
    )


def read_embedding_graph(folder: Path) -> EmbeddingGraph:
    """The graph that :meth:`EmbeddingGraph.write` wrote.

    Raises:
        InputError: a file is damaged or the two do not fit.
    """
    tensors, about = load_tensors(folder / GRAPH)
    remedy = "restore the file or train again"
    try:
        graph = _assembled(tensors, about)
        found = embedding_graph(graph, about["target"] or None, name=str(about["name"]))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"holds no graph ({error})", remedy, path=folder / GRAPH) from error
    try:
        ids = pl.read_parquet(folder / NODES)["node"]
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError("cannot be read as a table of nodes", remedy, path=folder / NODES) from error
    if ids.len() != found.num_nodes:
        raise InputError(f"names {ids.len()} nodes, the graph has {found.num_nodes}", remedy, path=folder / NODES)
    return EmbeddingGraph(
        found.name, graph, found.target, found.num_nodes, ids, found.labels, found.label_names, found.splits
    )


def _with_edges(matrix: SparseMatrix) -> SparseMatrix:
    if matrix.num_entries == 0:
        raise InputError("the graph has neither features nor an edge between two nodes", "give features or edges")
    return matrix


def _labels(store: Any, graph: Any, size: int) -> tuple[Tensor | None, tuple[Any, ...]]:
    given = store.get("y")
    if given is None:
        return None, ()
    names = getattr(graph, "label_names", None)
    codes, found = encode_labels(given, num_nodes=size)
    if names is not None:
        # The graph numbers its classes itself; some of them may have no node.
        codes = given.reshape(-1).to(torch.int64)
    if not bool((codes >= 0).any()):
        return None, ()
    return codes, tuple(found if names is None else names)


def _splits(store: Any, graph: Any, labels: Tensor | None, size: int) -> tuple[ProbeSplit, ...]:
    masks = {part: store.get(f"{part}_mask") for part in _PARTS}
    present = [part for part, mask in masks.items() if mask is not None]
    if labels is None or not present:
        return ()
    if len(present) < len(_PARTS):
        missing = ", ".join(f"{part}_mask" for part in _PARTS if part not in present)
        raise InputError(f"the graph has {present[0]}_mask and lacks {missing}", "give all three masks, or none")
    columns = {}
    for part, mask in masks.items():
        if mask.shape[0] != size or mask.dim() > 2:
            raise InputError(f"{part}_mask has shape {tuple(mask.shape)}", f"give one entry for each of {size} nodes")
        columns[part] = mask.reshape(size, -1).bool() & (labels >= 0)[:, None]
    counts = {mask.shape[1] for mask in columns.values() if mask.shape[1] != 1}
    if len(counts) > 1:
        raise InputError(f"the masks have {sorted(counts)} columns", "give one column a split in each of them")
    count = max(counts, default=1)
    given = [str(name) for name in getattr(graph, "splits", None) or ()]
    names = given if len(given) == count else [str(number + 1) for number in range(count)] if count > 1 else [""]
    # A test mask is often shared by all splits.
    wide = {part: mask.expand(-1, count) for part, mask in columns.items()}
    splits = (ProbeSplit(name, *(wide[part][:, column] for part in _PARTS)) for column, name in enumerate(names))
    return tuple(one for one in splits if one.train.any() and one.val.any() and one.test.any())


def _ids(given: Any, size: int) -> pl.Series:
    """External ids: whole numbers or texts; anything else by its text."""
    if given is None:
        return pl.Series("node", np.arange(size, dtype=np.int64))
    values = given.tolist() if isinstance(given, Tensor | np.ndarray) else list(given)
    if len(values) != size:
        raise InputError(f"there are {len(values)} node ids for {size} nodes", "give one id a node")
    if all(type(value) is int for value in values):
        return pl.Series("node", values, dtype=pl.Int64)
    return pl.Series("node", [str(value) for value in values], dtype=pl.String)


def _stores(graph: Any) -> Iterator[tuple[str, Any, tuple[str, ...]]]:
    """Name, content and tensors of everything that nodes and edges carry; a graph of one type is one of each."""
    if not hasattr(graph, "node_types"):
        yield "node0", graph, _NODE_TENSORS
        yield "edge0", graph, _EDGE_TENSORS
        return
    for number, kind in enumerate(graph.node_types):
        yield f"node{number}", graph[kind], _NODE_TENSORS
    for number, kind in enumerate(graph.edge_types):
        yield f"edge{number}", graph[kind], _EDGE_TENSORS


def _parts(data: EmbeddingGraph) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and plain facts that a graph is made of; the inverse of `_assembled`."""
    graph = data.graph
    types = list(graph.node_types) if data.kind == "heterogeneous" else None
    about: dict[str, Any] = {
        "name": data.name,
        "target": data.target,
        "node_types": types,
        "edge_types": None if types is None else [list(kind) for kind in graph.edge_types],
        "num_nodes": [data.num_nodes] if types is None else [num_nodes_of(graph, kind) for kind in types],
        "label_names": _plain(data.label_names),
        "splits": _plain(getattr(graph, "splits", None) or ()),
        "metapaths": _plain(_paths(graph)),
        "widths": {},
    }
    tensors: dict[str, Tensor] = {}
    for name, store, keys in _stores(graph):
        for key in keys:
            value = store.get(key)
            if value is None:
                continue
            if key == "x":
                value, width = _narrow(value)
                about["widths"][name] = width
                tensors |= {f"{name}.x.{part}": tensor for part, tensor in value.items()}
            else:
                tensors[f"{name}.{key}"] = value
    if data.labels is not None:
        place = 0 if types is None else types.index(data.target)
        tensors[f"node{place}.y"] = data.labels
    return tensors, about


def _paths(graph: Any) -> list[Any]:
    paths = getattr(graph, "metapaths", None) or ()
    return list(paths.values() if isinstance(paths, Mapping) else paths)


def _plain(values: Any) -> list[Any]:
    """Lists of texts and numbers for JSON."""
    return [
        _plain(value) if isinstance(value, tuple | list) else value if isinstance(value, int) else str(value)
        for value in values
    ]


def _narrow(x: Any) -> tuple[dict[str, Tensor], int]:
    """Features as they are written: dense rows, or the entries of a sparse matrix; and their width."""
    if isinstance(x, Tensor) and x.layout in (torch.sparse_coo, torch.sparse_csr):
        x = SparseMatrix.from_torch(x)
    if isinstance(x, Tensor):
        if float((x != 0).sum()) >= _SPARSE_BELOW * max(1, x.numel()):
            return {"dense": x}, int(x.shape[1])
        rows, columns = x.nonzero(as_tuple=True)
        shape = int(x.shape[0]), int(x.shape[1])
        matrix = SparseMatrix.from_coo(rows, columns, x[rows, columns], shape=shape, check=False)
        form = "made_dense"
    else:
        matrix, form = x, "sparse"
    parts = {"offsets": matrix.row_offsets, "columns": matrix.columns.int(), "values": matrix.entry_values()}
    return {f"{form}.{part}": tensor for part, tensor in parts.items()}, int(matrix.shape[1])


def _features(tensors: Mapping[str, Tensor], name: str, rows: int, width: int) -> Any:
    if f"{name}.x.dense" in tensors:
        return tensors[f"{name}.x.dense"]
    for form in ("made_dense", "sparse"):
        parts = [tensors.get(f"{name}.x.{form}.{part}") for part in ("offsets", "columns", "values")]
        offsets, columns, values = parts
        if offsets is not None and columns is not None and values is not None:
            matrix = SparseMatrix(offsets, columns.long(), values, (rows, width))
            return matrix if form == "sparse" else matrix.to_dense()
    return None


def _assembled(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> Any:
    from torch_geometric.data import Data, HeteroData

    if about["node_types"] is None:
        graph: Any = Data()
    else:
        graph = HeteroData()
        for kind, count in zip(about["node_types"], about["num_nodes"], strict=True):
            graph[kind].num_nodes = count
        for kind in about["edge_types"]:
            graph[tuple(kind)].edge_index = torch.zeros(2, 0, dtype=torch.int64)
        graph.target = about["target"]
    if about["metapaths"]:
        graph.metapaths = tuple(
            path if isinstance(path, str) else tuple(tuple(hop) for hop in path) for path in about["metapaths"]
        )
    if about["label_names"]:
        graph.label_names = tuple(about["label_names"])
    if about["splits"]:
        graph.splits = tuple(about["splits"])
    for name, store, keys in _stores(graph):
        for key in keys:
            if f"{name}.{key}" in tensors:
                store[key] = tensors[f"{name}.{key}"]
        if name in about["widths"]:
            rows = about["num_nodes"][int(name.removeprefix("node"))]
            store["x"] = _features(tensors, name, rows, about["widths"][name])
    if about["node_types"] is None:
        graph.num_nodes = about["num_nodes"][0]
    return graph
