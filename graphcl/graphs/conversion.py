"""Graphs of PyG, NetworkX and SciPy, edge lists and bare vectors, brought to PyG's `Data` and to `SparseMatrix`."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphcl.errors import InputError
from graphcl.graphs.knn import Metric, Symmetry, knn_graph
from graphcl.kernels import SparseMatrix, add_self_loops

if TYPE_CHECKING:
    from torch_geometric.data import Data

__all__ = ["GraphSource", "adjacency", "as_data", "check_features", "encode_labels", "id_array", "is_networkx"]

#: What `as_data` takes: PyG ``Data``, a NetworkX graph, a SciPy matrix or array, a `SparseMatrix`, an ``edge_index``,
#: a pair of edges and features, or vectors alone.
GraphSource: TypeAlias = Any

_LABEL_NAMES = ("y", "label")
_UNKNOWN = -1


def as_data(
    source: GraphSource,
    features: Any = None,
    labels: Any = None,
    *,
    num_nodes: int | None = None,
    k: int = 5,
    metric: Metric = "cosine",
    symmetric: Symmetry = "union",
) -> Data:
    """PyG ``Data`` of a graph in any of the usual forms, checked.

    | source | becomes |
    |---|---|
    | PyG ``Data`` | the same, with ``features`` and ``labels`` put in where they are given |
    | NetworkX graph | both directions of every undirected edge; node ids in ``node_ids``, in the graph's order; the edge attribute ``weight`` where there is one; node attributes ``x`` and ``y`` or ``label`` where every node has them (other names: give ``features="name"``, ``labels="name"``) |
    | SciPy matrix, `SparseMatrix` | its entries: ``A[i, j]`` is the edge i -> j in SciPy, j -> i in a `SparseMatrix` (row i gathers from its columns) |
    | integer ``(2, E)`` array or tensor | an ``edge_index`` |
    | ``(edges, features)`` | either of the above with its features |
    | ``(N, d)`` floating-point array or tensor, without features | vectors: linked by `knn_graph` |

    Edges stay as they are given: directed, repeated and self-loops included. `adjacency` says what becomes of them.
    Isolated nodes are nodes like any other.

    Args:
        source: see above.
        features: ``(N, f)`` array, tensor or SciPy matrix, or for NetworkX the name of a node attribute.
        labels: N classes, see `encode_labels`, or for NetworkX the name of a node attribute.
        num_nodes: for an ``edge_index`` without features.
        k: neighbours a node, for vectors alone; likewise ``metric`` and ``symmetric``, see `knn_graph`.

    Returns:
        ``Data`` with ``edge_index`` int64 (2, E), and where there are such ``edge_weight`` (E,), ``x`` float (N, f),
        ``y`` int64 (N,) with -1 for a node without a label, ``label_names`` and ``node_ids``.

    Raises:
        InputError: no node, features or labels of another length, NaN or infinite features or weights, edges to
            nodes that do not exist.
        TypeError: a source that is none of the above.

    Complexity:
        O(N f + E); for vectors alone that of `knn_graph`.

    Example:
        >>> import networkx
        >>> graph = as_data(networkx.path_graph(3), features=torch.eye(3))
        >>> graph.num_nodes, graph.num_edges
        (3, 4)
    """  # noqa: E501 (a table row is one line)
    from torch_geometric.data import Data

    if isinstance(source, tuple | list) and len(source) == 2 and features is None and not _is_numeric_row(source):
        source, features = source
    if isinstance(source, Data):
        data = _checked_copy(source, None if features is None else _length(features))
    elif is_networkx(source):
        data, features, labels = _of_networkx(source, features, labels)
    elif isinstance(source, SparseMatrix):
        data = _of_matrix(source)
    elif hasattr(source, "tocoo"):
        data = _of_matrix(_square(SparseMatrix.from_scipy(source)).T)
    elif (edges := _edge_index_of(source)) is not None:
        data = _of_edge_index(edges, num_nodes if features is None else _length(features))
    elif features is None and _is_floating(source):
        vectors = check_features(source)
        graph = knn_graph(vectors, k, metric=metric, symmetric=symmetric)
        # Row i of the graph lists whom i chose; messages then flow from them to i.
        data = _of_matrix(graph.with_values(None))
        features = vectors
    else:
        raise TypeError(
            "source must be a PyG Data, a NetworkX graph, a SciPy matrix, a SparseMatrix, an integer edge_index of "
            "shape (2, E), a pair of edges and features, or a floating-point matrix of vectors, "
            f"got {_describe(source)}"
        )
    size = data.num_nodes
    if not size:
        raise InputError("the graph has no node", "give at least one node")
    if features is not None:
        data.x = check_features(features, num_nodes=size)
    elif data.get("x") is not None:
        data.x = check_features(data.x, num_nodes=size)
    given = labels if labels is not None else data.get("y")
    if given is not None:
        data.y, names = encode_labels(given, num_nodes=size)
        if labels is not None or data.get("label_names") is None:
            data.label_names = names
    return data


def adjacency(
    graph: Data | Tensor,
    num_nodes: int | None = None,
    *,
    edge_weight: Tensor | None = None,
    symmetric: Literal["max"] | None = "max",
    self_loops: bool = False,
) -> SparseMatrix:
    r"""Adjacency matrix with one rule for repeated edges, directions and self-loops.

    Repeated edges count once, with their largest weight. ``symmetric="max"`` gives both directions the larger weight:
    :math:`A_{ij} = A_{ji} = \max(a_{ij}, a_{ji})`. Self-loops of the input are dropped; ``self_loops=True`` then puts
    exactly one of weight 1 on every node.

    Args:
        graph: PyG ``Data`` (its ``edge_weight`` is used) or an ``edge_index`` (2, E).
        num_nodes: needed for an ``edge_index``; for ``Data`` its own number.
        edge_weight: ``(E,)`` for an ``edge_index``.
        symmetric: ``"max"``, or None to keep directions: ``A[target, source]``, so that a product gathers from sources.
        self_loops: whether every node gets a self-loop.

    Returns:
        ``(N, N)``, columns ascending within rows; unweighted where no weights are given.

    Raises:
        InputError: an edge to a node that does not exist, a weight that is no finite number.
        ValueError, TypeError: naming the argument and the value.

    Complexity:
        O(E + N).

    Example:
        >>> adjacency(torch.tensor([[0, 0, 1], [1, 1, 1]]), 2).to_dense()
        tensor([[0., 1.],
                [1., 0.]])
    """
    if symmetric not in ("max", None):
        raise ValueError(f"symmetric must be 'max' or None, got {symmetric!r}")
    if not isinstance(graph, Tensor):
        if num_nodes is not None or edge_weight is not None:
            raise ValueError("num_nodes and edge_weight belong to an edge_index; a Data has its own")
        num_nodes, edge_weight, graph = graph.num_nodes, graph.get("edge_weight"), graph.edge_index
    if num_nodes is None:
        raise ValueError("num_nodes must be given with an edge_index: the last nodes may have no edge")
    edges = _checked_edges(graph, num_nodes)
    weight = None if edge_weight is None else _checked_weight(edge_weight, edges.shape[1])
    between = edges[0] != edges[1]
    if not bool(between.all()):
        edges = edges[:, between]
        weight = None if weight is None else weight[between]
    if symmetric is not None:
        edges = torch.cat([edges, edges.flip(0)], dim=1)
        weight = None if weight is None else torch.cat([weight, weight])
    matrix = SparseMatrix.from_edge_index(edges, weight, num_nodes=num_nodes, duplicates="max", check=False)
    return add_self_loops(matrix) if self_loops else matrix


def check_features(features: Any, *, num_nodes: int | None = None) -> Tensor:
    """Node features as a finite floating-point matrix.

    Args:
        features: ``(N, f)`` array, tensor or SciPy matrix of numbers; float64 stays, whatever else becomes float32.
        num_nodes: rows that there must be.

    Returns:
        ``(N, f)`` dense tensor, on the memory of the input where that is possible.

    Raises:
        InputError: not a matrix of numbers, another number of rows, no rows, NaN or infinity (row and column named).

    Complexity:
        O(N f).

    Example:
        >>> check_features([[1, 2], [3, 4]])
        tensor([[1., 2.],
                [3., 4.]])
    """
    dense = features.toarray() if hasattr(features, "toarray") else features
    try:
        x = dense.to_dense() if isinstance(dense, Tensor) else torch.as_tensor(np.ascontiguousarray(dense))
    except (TypeError, ValueError) as error:
        raise InputError(f"features are no numbers: {error}", "give a matrix of numbers") from error
    if x.dim() != 2:
        raise InputError(f"features have shape {tuple(x.shape)}", "give a matrix with one row a node")
    if x.is_complex():
        raise InputError("features are complex numbers", "give real numbers")
    x = x if x.dtype == torch.float64 else x.to(torch.float32)
    if num_nodes is not None and x.shape[0] != num_nodes:
        raise InputError(
            f"there are {x.shape[0]} rows of features for {num_nodes} nodes",
            "give one row of features a node, in order",
        )
    if x.shape[0] == 0:
        raise InputError("the features have no row", "give at least one node")
    finite = torch.isfinite(x)
    if not bool(finite.all()):
        row, column = torch.nonzero(~finite)[0].tolist()
        raise InputError(
            f"the feature is {float(x[row, column])} ({int((~finite).sum())} features are NaN or infinite)",
            "fill missing features in, or drop the node or the column",
            row=row + 1,
            column=str(column),
        )
    return x


def encode_labels(labels: Any, *, num_nodes: int | None = None) -> tuple[Tensor, tuple[Any, ...]]:
    """Class labels as numbers 0 .. C - 1 in the order of the sorted classes.

    Args:
        labels: N integers, whole floating-point numbers or texts. A negative number, NaN or None marks a node without
            a label.
        num_nodes: how many there must be.

    Returns:
        Codes int64 ``(N,)`` with -1 where there is no label, and the C classes in the order of their codes.

    Raises:
        InputError: another number of labels, or a label that is neither a whole number nor a text.

    Complexity:
        O(N log N).

    Example:
        >>> encode_labels([3, 1, 3, -1])
        (tensor([ 1,  0,  1, -1]), (1, 3))
    """
    array = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise InputError(f"labels have shape {array.shape}", "give one label a node")
    if num_nodes is not None and array.shape[0] != num_nodes:
        raise InputError(f"there are {array.shape[0]} labels for {num_nodes} nodes", "give one label a node, in order")
    known = _has_label(array)
    classes, codes = np.unique(_sortable(array[known]), return_inverse=True)
    encoded = np.full(array.shape[0], _UNKNOWN, dtype=np.int64)
    encoded[known] = codes
    return torch.from_numpy(encoded), tuple(classes.tolist())


def _has_label(array: NDArray[Any]) -> NDArray[np.bool_]:
    if array.dtype.kind in "iub":
        return np.asarray(array.astype(np.int64) >= 0) if array.dtype.kind == "i" else np.ones(array.shape, np.bool_)
    if array.dtype.kind == "f":
        return np.asarray(array >= 0)  # False for NaN
    if array.dtype.kind in "US":
        return np.ones(array.shape, np.bool_)
    return np.array([value is not None and value == value and not _is_negative(value) for value in array.tolist()])


def _is_negative(value: object) -> bool:
    return isinstance(value, int | float) and value < 0


def _sortable(array: NDArray[Any]) -> NDArray[Any]:
    """Labels of one type: integers, or texts where at least one is a text."""
    if array.dtype.kind == "O":
        values = array.tolist()
        if all(isinstance(value, str) for value in values):
            return np.array(values, dtype=np.str_)
        if any(isinstance(value, str) for value in values):
            return np.array([str(value) for value in values], dtype=np.str_)
        try:
            array = np.array(values, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(f"labels are neither numbers nor texts: {error}", "give one class a node") from error
    if array.dtype.kind == "f":
        whole = array.astype(np.int64)
        bad = np.flatnonzero(whole != array)
        if bad.size:
            raise InputError(f"the label {array[bad[0]]} is not a whole number", "give classes, not measurements")
        return whole
    if array.dtype.kind in "iubUS":
        return array
    raise InputError(f"labels have type {array.dtype}", "give whole numbers or texts")


def _checked_copy(data: Data, num_rows: int | None) -> Data:
    """A shallow copy whose edges are in range; the caller's object is not changed."""
    copied = copy.copy(data)
    if num_rows is not None and "num_nodes" not in data and data.get("x") is None:
        copied.num_nodes = num_rows
    if copied.get("edge_index") is None:
        if copied.get("adj_t") is not None:
            raise InputError("the Data holds adj_t and no edge_index", "apply ToEdgeIndex, or set edge_index")
        raise InputError("the Data has no edge_index", "set edge_index; for vectors without a graph give the vectors")
    copied.edge_index = _checked_edges(copied.edge_index, copied.num_nodes or 0)
    if copied.get("edge_weight") is not None:
        copied.edge_weight = _checked_weight(copied.edge_weight, copied.edge_index.shape[1])
    return copied


def _of_matrix(matrix: SparseMatrix) -> Data:
    from torch_geometric.data import Data

    _square(matrix)
    edge_index, weight = matrix.to_edge_index()
    data = Data(edge_index=edge_index, num_nodes=matrix.shape[0])
    if weight is not None:
        weight = _checked_weight(weight, edge_index.shape[1])
        # An explicit zero is no edge.
        present = weight != 0
        data.edge_index = edge_index[:, present]
        if not bool((weight[present] == 1).all()):
            data.edge_weight = weight[present]
    return data


def _of_edge_index(edges: Tensor, num_nodes: int | None) -> Data:
    from torch_geometric.data import Data

    if num_nodes is None:
        raise InputError(
            "the number of nodes is not known", "give features or num_nodes: the last nodes may be isolated"
        )
    return Data(edge_index=_checked_edges(edges, num_nodes), num_nodes=num_nodes)


def _of_networkx(graph: Any, features: Any, labels: Any) -> tuple[Data, Any, Any]:
    """The graph, and features and labels with names of node attributes replaced by their values."""
    from torch_geometric.data import Data

    nodes = list(graph.nodes)
    position = {node: index for index, node in enumerate(nodes)}
    source, target, weight, weighted = [], [], [], False
    for start, end, attributes in graph.edges(data=True):
        source.append(position[start])
        target.append(position[end])
        weighted |= "weight" in attributes
        weight.append(attributes.get("weight", 1.0))
    edges = torch.tensor([source, target], dtype=torch.int64).reshape(2, -1)
    data = Data(num_nodes=len(nodes))
    both = not graph.is_directed()
    # A self-loop is its own other direction.
    back = edges[0] != edges[1] if both else torch.zeros(edges.shape[1], dtype=torch.bool)
    data.edge_index = torch.cat([edges, edges[:, back].flip(0)], dim=1)
    if weighted:
        try:
            values = torch.tensor(weight, dtype=torch.float32)
        except (TypeError, ValueError) as error:
            raise InputError(f"an edge weight is no number: {error}", "give numbers as 'weight'") from error
        data.edge_weight = _checked_weight(torch.cat([values, values[back]]), data.edge_index.shape[1])
    data.node_ids = id_array(nodes)
    if features is None:
        features = _attribute(graph, nodes, "x", required=False)
    elif isinstance(features, str):
        features = _attribute(graph, nodes, features, required=True)
    if labels is None:
        found = (_attribute(graph, nodes, name, required=False) for name in _LABEL_NAMES)
        labels = next((values for values in found if values is not None), None)
    elif isinstance(labels, str):
        labels = _attribute(graph, nodes, labels, required=True)
    return data, features, labels


def _attribute(graph: Any, nodes: Sequence[Any], name: str, *, required: bool) -> list[Any] | None:
    values = [graph.nodes[node].get(name) for node in nodes]
    missing = [node for node, value in zip(nodes, values, strict=True) if value is None]
    if not missing and nodes:
        return values
    if required:
        raise InputError(
            f"{len(missing)} of {len(nodes)} nodes have no attribute {name!r}, the first is {missing[:1]}",
            f"set {name!r} on every node, or give an array",
        )
    return None


def _checked_edges(edge_index: Tensor, num_nodes: int) -> Tensor:
    if edge_index.dim() != 2 or edge_index.shape[0] != 2:
        raise InputError(f"edge_index has shape {tuple(edge_index.shape)}", "give shape (2, edges)")
    if edge_index.dtype not in (torch.int64, torch.int32) and edge_index.numel() > 0:
        raise InputError(f"edge_index has dtype {edge_index.dtype}", "give node numbers as integers")
    edges = edge_index.to(torch.int64)
    if edges.numel() > 0:
        low, high = int(edges.min()), int(edges.max())
        if low < 0 or high >= num_nodes:
            bad = torch.nonzero(((edges < 0) | (edges >= num_nodes)).any(dim=0))[0, 0]
            raise InputError(
                f"edge {int(bad)} joins nodes {edges[:, bad].tolist()}, but the nodes are 0 to {num_nodes - 1}",
                "number the nodes from 0 without gaps, or give more rows of features",
            )
    return edges


def _checked_weight(weight: Tensor, num_edges: int) -> Tensor:
    if weight.dim() == 2 and weight.shape[1] == 1:
        weight = weight[:, 0]
    if weight.shape != (num_edges,):
        raise InputError(
            f"edge weights have shape {tuple(weight.shape)} for {num_edges} edges", "give one weight an edge"
        )
    weight = weight if weight.dtype == torch.float64 else weight.to(torch.float32)
    bad = torch.nonzero(~torch.isfinite(weight) | (weight < 0)).squeeze(1)
    if bad.numel() > 0:
        raise InputError(
            f"the weight of edge {int(bad[0])} is {float(weight[bad[0]])}", "give finite weights of at least 0"
        )
    return weight


def _square(matrix: SparseMatrix) -> SparseMatrix:
    if matrix.shape[0] != matrix.shape[1]:
        raise InputError(f"the adjacency matrix has shape {matrix.shape}", "give a square matrix")
    return matrix


def is_networkx(source: object) -> bool:
    """Whether something is a NetworkX graph of any kind, without importing NetworkX."""
    return any(base.__module__.startswith("networkx.") for base in type(source).__mro__)


def id_array(ids: Sequence[Any]) -> NDArray[Any]:
    """Ids as an array of integers where all are, else of objects (never of tuples torn apart)."""
    if all(isinstance(value, int) and not isinstance(value, bool) for value in ids):
        return np.array(ids, dtype=np.int64)
    array = np.empty(len(ids), dtype=object)
    array[:] = ids
    return array


def _edge_index_of(source: Any) -> Tensor | None:
    """The source as an integer tensor, None when it is not one."""
    if isinstance(source, Tensor):
        return source if not source.is_floating_point() and source.dim() == 2 else None
    if isinstance(source, np.ndarray):
        return (
            torch.from_numpy(np.ascontiguousarray(source)) if source.ndim == 2 and source.dtype.kind in "iu" else None
        )
    if _is_numeric_row(source):
        return torch.as_tensor(np.asarray(source, dtype=np.int64))
    return None


def _is_numeric_row(source: Any) -> bool:
    """Whether a pair is two plain lists of node numbers, not edges and features."""
    return (
        isinstance(source, tuple | list)
        and len(source) == 2
        and all(isinstance(part, list | tuple) and all(isinstance(value, int) for value in part) for part in source)
    )


def _is_floating(source: Any) -> bool:
    return (isinstance(source, Tensor) and source.is_floating_point() and source.dim() == 2) or (
        isinstance(source, np.ndarray) and source.dtype.kind == "f" and source.ndim == 2
    )


def _length(features: Any) -> int:
    shape = getattr(features, "shape", None)
    return int(shape[0]) if shape is not None else len(features)


def _describe(source: Any) -> str:
    shape = getattr(source, "shape", None)
    kind = type(source).__name__
    return kind if shape is None else f"{kind} of type {getattr(source, 'dtype', '?')} and shape {tuple(shape)}"
