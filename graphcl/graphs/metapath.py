"""Meta-paths of a heterogeneous graph: chains of edge types, read from names or from initials such as "PAP"."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

from graphcl.errors import InputError
from graphcl.kernels import SparseMatrix

if TYPE_CHECKING:
    from scipy.sparse import csr_array
    from torch_geometric.data import HeteroData

__all__ = ["EdgeType", "Hop", "MetaPath", "MetaPathLike", "parse_metapath", "target_type"]

EdgeType: TypeAlias = tuple[str, str, str]
#: A chain of edge types, or text: initials of node types ("PAP"), or their names joined by "-" ("paper-author-paper").
MetaPathLike: TypeAlias = "MetaPath | str | Sequence[EdgeType]"


@dataclass(frozen=True)
class Hop:
    """One step along an edge type, or against it.

    Attributes:
        edge_type: ``(source, relation, destination)`` as the graph holds it.
        backwards: whether the step leads from the destination to the source.

    >>> Hop(("paper", "to", "author"), backwards=True).end
    'paper'
    """

    edge_type: EdgeType
    backwards: bool = False

    @property
    def start(self) -> str:
        return self.edge_type[2 if self.backwards else 0]

    @property
    def end(self) -> str:
        return self.edge_type[0 if self.backwards else 2]


@dataclass(frozen=True)
class MetaPath:
    """A chain of hops that begins and ends at one node type, the target.

    Attributes:
        hops: at least one.
        name: for messages, run folders and tables.

    >>> hop = Hop(("paper", "to", "author"))
    >>> MetaPath((hop, Hop(("paper", "to", "author"), backwards=True)), "PAP").node_types
    ('paper', 'author', 'paper')
    """

    hops: tuple[Hop, ...]
    name: str

    @property
    def target(self) -> str:
        return self.hops[0].start

    @property
    def node_types(self) -> tuple[str, ...]:
        """The node types along the path, both ends included."""
        return (self.hops[0].start, *(hop.end for hop in self.hops))

    def __str__(self) -> str:
        return self.name


def parse_metapath(graph: HeteroData, path: MetaPathLike, *, target: str | None = None) -> MetaPath:
    """Read a meta-path and check it against the schema of a graph.

    An edge type is followed in whichever direction fits the node it is reached at, so the reverse edges that PyG's
    ``ToUndirected`` adds are welcome and not needed. Of two edge types that join the same node types, text cannot say
    which is meant: give the chain.

    Args:
        graph: PyG ``HeteroData``.
        path: a chain of edge types, names of node types joined by "-", or their initials in any case.
        target: node type where the path must begin and end; any when None.

    Returns:
        `MetaPath`.

    Raises:
        InputError: an unknown node or edge type, initials or edge types that are ambiguous, a chain that breaks, or
            ends that are not the target type. The message lists the schema.

    Complexity: O(length x edge types).

    >>> import torch
    >>> from torch_geometric.data import HeteroData
    >>> graph = HeteroData()
    >>> graph["paper"].num_nodes, graph["author"].num_nodes = 2, 1
    >>> graph["paper", "to", "author"].edge_index = torch.tensor([[0, 1], [0, 0]])
    >>> parse_metapath(graph, "PAP").hops == parse_metapath(graph, "paper-author-paper").hops
    True
    >>> [hop.backwards for hop in parse_metapath(graph, "PAP").hops]
    [False, True]
    """
    if isinstance(path, MetaPath):
        _chain(graph, [hop.edge_type for hop in path.hops])
        hops, name = path.hops, path.name
    elif isinstance(path, str):
        node_types = _node_types_of(graph, path)
        hops = tuple(_hop_between(graph, start, end) for start, end in pairwise(node_types))
        name = path
    else:
        hops = _chain(graph, path)
        name = path_name(graph, hops)
    found = MetaPath(hops, name)
    ends = found.node_types[0], found.node_types[-1]
    wanted = ends[0] if target is None else target
    if ends != (wanted, wanted):
        what = "one node type" if target is None else f"the target type {target!r}"
        raise InputError(
            f"meta-path {name!r} leads from {ends[0]!r} to {ends[1]!r}",
            f"give one that begins and ends at {what}. {_schema(graph)}",
        )
    return found


def target_type(graph: HeteroData, target: str | None = None) -> str:
    """The node type that meta-paths begin and end at: the given one, else ``graph.target``, else the one with labels.

    Raises:
        InputError: an unknown type, or none or several with labels where none is given.

    >>> import torch
    >>> from torch_geometric.data import HeteroData
    >>> graph = HeteroData()
    >>> graph["paper"].y, graph["author"].num_nodes = torch.zeros(2), 1
    >>> target_type(graph)
    'paper'
    """
    if target is None:
        target = getattr(graph, "target", None)
    if target is None:
        labelled = [kind for kind in graph.node_types if "y" in graph[kind]]
        if len(labelled) != 1:
            raise InputError(
                f"{len(labelled)} node types carry labels, so the target type is open",
                f"name it: target=one of {', '.join(graph.node_types)}",
            )
        target = labelled[0]
    if target not in graph.node_types:
        raise InputError(f"no node type {target!r} in the graph", _schema(graph))
    return str(target)


def path_name(graph: HeteroData, hops: Sequence[Hop]) -> str:
    """Initials of the node types along a path; names where initials repeat, relations too where one must be told."""
    node_types = (hops[0].start, *(hop.end for hop in hops))
    letters = [kind[:1].upper() for kind in graph.node_types]
    plain = "".join(kind[:1].upper() for kind in node_types)
    if len(set(letters)) < len(letters):
        plain = "-".join(node_types)
    ambiguous = any(len(_options(graph, start, end)) > 1 for start, end in pairwise(node_types))
    return "-".join([hops[0].start, *(f"{hop.edge_type[1]}-{hop.end}" for hop in hops)]) if ambiguous else plain


def num_nodes_of(graph: HeteroData, node_type: str) -> int:
    """Nodes of a type.

    Raises:
        InputError: the graph does not say.
    """
    store = graph[node_type]
    if "num_nodes" not in store and isinstance(store.get("x"), SparseMatrix):
        return int(store.x.shape[0])
    if "num_nodes" not in store and not any(key in store for key in ("x", "y", "pos", "batch")):
        raise InputError(
            f"the number of nodes of type {node_type!r} is not known", f"set graph[{node_type!r}].num_nodes"
        )
    count = store.num_nodes
    if count is None:
        raise InputError(
            f"the number of nodes of type {node_type!r} is not known", f"set graph[{node_type!r}].num_nodes"
        )
    return int(count)


def incidence(graph: HeteroData, hop: Hop) -> csr_array:
    """0/1 matrix of a hop, rows where it starts; repeated edges count once.

    Raises:
        InputError: an empty relation, no ``edge_index``, or node numbers out of range.
    """
    import numpy as np
    from scipy.sparse import csr_array

    store = graph[hop.edge_type]
    if "edge_index" not in store:
        raise InputError(f"edge type {hop.edge_type} has no edge_index", "give its edges as (2, edges) node numbers")
    source, destination = store.edge_index.cpu().numpy()
    if source.size == 0:
        raise InputError(f"relation {hop.edge_type} is empty", "leave out meta-paths that use it")
    shape = num_nodes_of(graph, hop.edge_type[0]), num_nodes_of(graph, hop.edge_type[2])
    for kind, nodes, size in (
        (hop.edge_type[0], source, shape[0]),
        (hop.edge_type[2], destination, shape[1]),
    ):
        low, high = int(nodes.min()), int(nodes.max())
        if low < 0 or high >= size:
            raise InputError(
                f"relation {hop.edge_type} names node {low if low < 0 else high} of type {kind!r}, "
                f"which has nodes 0 .. {size - 1}",
                "number the nodes from 0, or correct num_nodes",
            )
    if hop.backwards:
        source, destination, shape = destination, source, (shape[1], shape[0])
    matrix = csr_array((np.ones(source.size), (source, destination)), shape=shape)
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    return matrix


def _node_types_of(graph: HeteroData, text: str) -> list[str]:
    if "-" in text:
        names = [part.strip() for part in text.split("-")]
        for name in names:
            if name not in graph.node_types:
                raise InputError(f"meta-path {text!r} names the unknown node type {name!r}", _schema(graph))
    else:
        names = [_by_initial(graph, text, letter) for letter in text]
    if len(names) < 2:
        raise InputError(f"meta-path {text!r} has {len(names)} node types", f"give at least two. {_schema(graph)}")
    return names


def _by_initial(graph: HeteroData, text: str, letter: str) -> str:
    known: list[str] = [kind for kind in graph.node_types if kind[:1].lower() == letter.lower()]
    if len(known) > 1:
        raise InputError(
            f"in meta-path {text!r} the letter {letter!r} may stand for {' or '.join(known)}",
            'give names joined by "-", such as "paper-author-paper"',
        )
    if not known:
        raise InputError(f"in meta-path {text!r} no node type begins with {letter!r}", _schema(graph))
    return known[0]


def _hop_between(graph: HeteroData, start: str, end: str) -> Hop:
    options = _options(graph, start, end)
    if len(options) > 1:
        raise InputError(
            f"several edge types lead from {start!r} to {end!r}: {', '.join(str(hop.edge_type) for hop in options)}",
            "give the meta-path as a chain of edge types",
        )
    if not options:
        raise InputError(f"no edge type joins {start!r} and {end!r}", _schema(graph))
    return options[0]


def _options(graph: HeteroData, start: str, end: str) -> list[Hop]:
    """Hops from one node type to another: along the edge types between them, else against those that lead back."""
    along = [Hop(kind) for kind in graph.edge_types if (kind[0], kind[2]) == (start, end)]
    return along or [Hop(kind, True) for kind in graph.edge_types if (kind[2], kind[0]) == (start, end)]


def _chain(graph: HeteroData, edge_types: Iterable[EdgeType]) -> tuple[Hop, ...]:
    hops: list[Hop] = []
    for source, relation, destination in edge_types:
        edge_type = source, relation, destination
        if edge_type not in graph.edge_types:
            raise InputError(f"no edge type {edge_type} in the graph", _schema(graph))
        backwards = bool(hops) and edge_type[0] != hops[-1].end
        if backwards and edge_type[2] != hops[-1].end:
            raise InputError(
                f"the meta-path stands at {hops[-1].end!r}, where {edge_type} does not begin or end", _schema(graph)
            )
        hops.append(Hop(edge_type, backwards))
    if not hops:
        raise InputError("the meta-path is empty", f"give at least one edge type. {_schema(graph)}")
    return tuple(hops)


def _schema(graph: HeteroData) -> str:
    edges = ", ".join(f"({', '.join(kind)})" for kind in graph.edge_types)
    return f"the graph has node types {', '.join(graph.node_types)} and edge types {edges}"
