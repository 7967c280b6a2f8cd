"""Graphs with types of nodes and edges, brought to one checked form of PyG's `HeteroData`."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphcl.errors import InputError
from graphcl.graphs.conversion import check_features, encode_labels, id_array, is_networkx
from graphcl.graphs.metapath import EdgeType, MetaPathLike, num_nodes_of, parse_metapath, target_type
from graphcl.kernels import SparseMatrix

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData

__all__ = ["as_hetero_data", "there_and_back"]

Chain: TypeAlias = tuple[EdgeType, ...]


def as_hetero_data(
    source: Any,
    *,
    target: str | None = None,
    labels: Any = None,
    metapaths: Iterable[MetaPathLike] | str | None = None,
    type_attribute: str = "type",
) -> HeteroData:
    """Checked ``HeteroData`` with reverse edges, a target type and meta-paths.

    | source | becomes |
    |---|---|
    | PyG ``HeteroData`` | a copy |
    | NetworkX graph or multigraph | a node type for every value of the node attribute ``type``, an edge type for every triple of ends' types and the edge attribute ``type`` (without it: ``to``); node ids in ``node_ids`` of each type; node attributes ``x`` and ``y`` or ``label`` where every node of a type has them |

    Every edge type without a partner in the other direction gets one, ``rev_`` before its name, unless it joins a type
    with itself and holds both directions already.

    Args:
        source: see above.
        target: node type that is embedded; by default ``source.target``, else the one with labels.
        labels: one a target node, see `graphcl.graphs.encode_labels`.
        metapaths: as `graphcl.graphs.metapath.parse_metapath` takes them, or texts joined by commas; by default those
            of the source, else `there_and_back`.
        type_attribute: name of the attribute of NetworkX nodes and edges.

    Returns:
        ``HeteroData`` with ``target`` and ``metapaths``, a tuple of chains of edge types, set.

    Raises:
        InputError: no node or edge, a node without a type, edges or labels that do not fit, NaN or infinite features,
            an unknown type or meta-path (the schema is listed).
        TypeError: a source that is none of the above.

    Complexity:
        O(N f + E).

    Example:
        >>> import networkx
        >>> graph = networkx.MultiGraph([("p1", "a1"), ("p2", "a1")])
        >>> networkx.set_node_attributes(graph, {"p1": "paper", "p2": "paper", "a1": "author"}, "type")
        >>> as_hetero_data(graph, target="paper").metapaths
        ((('paper', 'to', 'author'), ('author', 'rev_to', 'paper')),)
    """  # noqa: E501 (a table row is one line)
    from torch_geometric.data import HeteroData

    if isinstance(source, HeteroData):
        graph = copy.copy(source)
    elif is_networkx(source):
        graph = _of_networkx(source, type_attribute)
    else:
        raise TypeError(f"source must be a HeteroData or a NetworkX graph, got {type(source).__name__}")
    if not graph.node_types or not graph.edge_types:
        raise InputError("the graph has no node or no edge", "give at least one edge between typed nodes")
    for name in graph.node_types:
        _check_nodes(graph, name)
    for kind in graph.edge_types:
        _check_edges(graph, kind)
    _add_reverse(graph)
    graph.target = target_type(graph, target)
    store = graph[graph.target]
    given = labels if labels is not None else store.get("y")
    if given is not None:
        store.y, names = encode_labels(given, num_nodes=num_nodes_of(graph, graph.target))
        if labels is not None or graph.get("label_names") is None:
            graph.label_names = names
    chosen = metapaths if metapaths is not None else graph.get("metapaths")
    paths = [part.strip() for part in chosen.split(",")] if isinstance(chosen, str) else chosen
    if paths:
        parsed = (parse_metapath(graph, path, target=graph.target) for path in paths)
        graph.metapaths = tuple(tuple(hop.edge_type for hop in path.hops) for path in parsed)
    else:
        graph.metapaths = there_and_back(graph, graph.target)
    return graph


def there_and_back(graph: HeteroData, target: str) -> tuple[Chain, ...]:
    """The shortest meta-path from the target type to every other type that edges lead to, and back the same way.

    Args:
        graph: every edge type with its reverse, as `as_hetero_data` makes it.
        target: where the paths begin and end.

    Returns:
        One chain of edge types a type, nearer types first.

    Raises:
        InputError: no edge leads away from the target.

    Complexity:
        O(node types x edge types).
    """
    ways: dict[str, list[EdgeType]] = {target: []}
    queue = [target]
    for name in queue:
        for kind in graph.edge_types:
            if kind[0] == name and kind[2] not in ways:
                ways[kind[2]] = [*ways[name], kind]
                queue.append(kind[2])
    chains = tuple((*way, *_way_back(graph, way)) for way in ways.values() if way)
    if not chains:
        own = tuple((kind, kind) for kind in graph.edge_types if kind[0] == kind[2] == target)
        if not own:
            raise InputError(f"no edge joins the target type {target!r}", "name another target, or add its edges")
        return own
    return chains


def _way_back(graph: HeteroData, way: Sequence[EdgeType]) -> list[EdgeType]:
    """Each step reversed, by the edge type that belongs to it where there are several."""
    back = []
    for first, relation, second in reversed(way):
        partners = [kind for kind in graph.edge_types if (kind[0], kind[2]) == (second, first)]
        named = [kind for kind in partners if kind[1] in (_reverse_name(relation), relation)]
        back.append((named or partners)[0])
    return back


def _reverse_name(relation: str) -> str:
    return relation.removeprefix("rev_") if relation.startswith("rev_") else f"rev_{relation}"


def _add_reverse(graph: HeteroData) -> None:
    for first, relation, second in list(graph.edge_types):
        edges = graph[first, relation, second].edge_index
        if first == second and _holds_both_directions(edges):
            continue
        opposite = [kind for kind in graph.edge_types if (kind[0], kind[2]) == (second, first)]
        names = (relation, _reverse_name(relation)) if first != second else (_reverse_name(relation),)
        only = first != second and len(opposite) == 1
        if not only and not any(kind[1] in names for kind in opposite):
            graph[second, _reverse_name(relation), first].edge_index = edges.flip(0).contiguous()


def _holds_both_directions(edges: Tensor) -> bool:
    if edges.shape[1] == 0:
        return True
    size = int(edges.max()) + 1
    return torch.equal(torch.unique(edges[0] * size + edges[1]), torch.unique(edges[1] * size + edges[0]))


def _check_nodes(graph: HeteroData, name: str) -> None:
    store = graph[name]
    count = num_nodes_of(graph, name)
    if store.get("x") is not None:
        try:
            store.x = (
                _checked_sparse(store.x, count) if _is_sparse(store.x) else check_features(store.x, num_nodes=count)
            )
        except InputError as error:
            raise InputError(f"nodes of type {name!r}: {error}", "mend the features") from error


def _is_sparse(x: Any) -> bool:
    return isinstance(x, SparseMatrix) or (isinstance(x, Tensor) and x.layout in (torch.sparse_coo, torch.sparse_csr))


def _checked_sparse(x: SparseMatrix | Tensor, count: int) -> SparseMatrix:
    """Sparse features stay sparse; what is wrong is named by its row, as of dense ones."""
    matrix = SparseMatrix.from_torch(x) if isinstance(x, Tensor) else x
    if matrix.shape[0] != count:
        raise InputError(f"there are {matrix.shape[0]} rows of features for {count} nodes", "give one row a node")
    broken = (~torch.isfinite(matrix.entry_values())).nonzero()
    if broken.numel():
        place = int(broken[0])
        row, column = int(matrix.pattern.rows[place]), int(matrix.columns[place])
        raise InputError(
            f"the feature is {float(matrix.entry_values()[place])} ({broken.shape[0]} features are NaN or infinite)",
            "fill missing features in, or drop the node or the column",
            row=row + 1,
            column=str(column),
        )
    return matrix


def _check_edges(graph: HeteroData, kind: EdgeType) -> None:
    store = graph[kind]
    if store.get("edge_index") is None:
        raise InputError(f"edge type {kind} has no edge_index", "give its edges as (2, edges) node numbers")
    edges = store.edge_index
    if edges.dim() != 2 or edges.shape[0] != 2 or edges.is_floating_point():
        raise InputError(
            f"the edge_index of {kind} has shape {tuple(edges.shape)}", "give integers of shape (2, edges)"
        )
    for side, name in enumerate((kind[0], kind[2])):
        count = num_nodes_of(graph, name)
        if edges.numel() and (int(edges[side].min()) < 0 or int(edges[side].max()) >= count):
            worst = int(edges[side].min()) if int(edges[side].min()) < 0 else int(edges[side].max())
            raise InputError(
                f"edges of {kind} name node {worst} of type {name!r}, which has {count} nodes",
                "number the nodes of every type from 0, or raise num_nodes",
            )
    store.edge_index = edges.to(torch.int64)


def _of_networkx(source: Any, attribute: str) -> HeteroData:
    from torch_geometric.data import HeteroData

    groups: dict[str, list[Any]] = {}
    position: dict[Any, tuple[str, int]] = {}
    for node, attributes in source.nodes(data=True):
        name = attributes.get(attribute)
        if name is None:
            raise InputError(f"node {node!r} has no attribute {attribute!r}", "set the type of every node")
        members = groups.setdefault(str(name), [])
        position[node] = (str(name), len(members))
        members.append(node)
    graph = HeteroData()
    for name in sorted(groups):
        graph[name].num_nodes = len(groups[name])
        graph[name].node_ids = id_array(groups[name])
        _node_attributes(graph[name], source, groups[name])
    for kind, ends in _typed_edges(source, position, attribute).items():
        graph[kind].edge_index = torch.from_numpy(ends)
    return graph


def _typed_edges(
    source: Any, position: Mapping[Any, tuple[str, int]], attribute: str
) -> dict[EdgeType, NDArray[np.int64]]:
    """Edges by type. Undirected edges between two types run one way; within a type both ways."""
    found: dict[EdgeType, tuple[list[int], list[int]]] = {}
    for start, end, attributes in source.edges(data=True):
        (first, row), (second, column) = position[start], position[end]
        relation = str(attributes.get(attribute, "to"))
        undirected = not source.is_directed()
        if undirected and (second, relation, first) in found and first != second:
            first, row, second, column = second, column, first, row
        rows, columns = found.setdefault((first, relation, second), ([], []))
        rows.append(row)
        columns.append(column)
        if undirected and first == second and row != column:
            rows.append(column)
            columns.append(row)
    return {kind: np.array(ends, dtype=np.int64).reshape(2, -1) for kind, ends in found.items()}


def _node_attributes(store: Any, source: Any, nodes: Sequence[Any]) -> None:
    for name, key in (("x", "x"), ("y", "y"), ("label", "y")):
        values = [source.nodes[node].get(name) for node in nodes]
        if all(value is not None for value in values) and key not in store:
            store[key] = check_features(values, num_nodes=len(nodes)) if key == "x" else encode_labels(values)[0]
