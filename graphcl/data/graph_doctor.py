"""The data doctor for graphs: what a graph holds, and what will make trouble later."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphcl.data.doctor import DataWarning, degree_quantiles, degrees_in_words
from graphcl.data.graphs import load_graph

if TYPE_CHECKING:
    from torch_geometric.data import Data, HeteroData

__all__ = ["EdgeReport", "GraphReport", "NodeReport", "diagnose_graph"]


@dataclass(frozen=True)
class NodeReport:
    """Nodes of one type (of the only one, in a graph without types).

    Attributes:
        nodes: how many.
        isolated: nodes without an edge to another node.
        features: columns of features, None without any.
        zero_rows: nodes whose features are all zero.
        constant_columns: features that are the same for every node.
        classes: nodes a class, in the order of the classes; empty without labels.
        unlabelled: nodes without a label, where others have one.
        degrees: quantiles of neighbours a node, "mean" as well.
    """

    nodes: int
    isolated: int
    features: int | None
    zero_rows: int
    constant_columns: int
    classes: tuple[int, ...]
    unlabelled: int
    degrees: dict[str, float]


@dataclass(frozen=True)
class EdgeReport:
    """Edges of one type.

    Attributes:
        edges: as listed.
        self_loops: edges from a node to itself.
        repeated: edges that repeat an earlier one.
        one_way: edges without their opposite, None between nodes of different types.
        weighted: whether edges have weights.
    """

    edges: int
    self_loops: int
    repeated: int
    one_way: int | None
    weighted: bool


@dataclass(frozen=True)
class GraphReport:
    """Findings of `diagnose_graph`.

    Attributes:
        source: path or name.
        kind: "graph" or "heterogeneous".
        nodes: by type; the type of a graph without types is "node".
        edges: by type, "paper to author"; "edge" in a graph without types. Reverse edge types are left out.
        components: connected parts, isolated nodes included.
        largest_component: nodes of the largest part.
        same_label_edges: share of edges between labelled nodes that join two of one class, None without labels.
        warnings: what to look at.
    """

    source: str
    kind: str
    nodes: dict[str, NodeReport]
    edges: dict[str, EdgeReport]
    components: int
    largest_component: int
    same_label_edges: float | None
    warnings: tuple[DataWarning, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The report as lines of text for a person."""
        lines = [f"source        {self.source} ({self.kind})"]
        for name, node in self.nodes.items():
            features = "no features" if node.features is None else f"{node.features} features"
            lines.append(f"nodes         {node.nodes} of type {name}, {features}, {node.isolated} isolated")
            lines.append(f"  neighbours  {degrees_in_words(node.degrees)}")
            if node.features is not None:
                lines.append(
                    f"  features    {node.zero_rows} nodes with zeros alone, {node.constant_columns} constant columns"
                )
            if node.classes:
                sizes = ", ".join(map(str, node.classes))
                lines.append(f"  classes     {len(node.classes)} of {sizes} nodes, {node.unlabelled} without a label")
        for name, edge in self.edges.items():
            one_way = "" if edge.one_way is None else f", {edge.one_way} one-way"
            weights = ", weighted" if edge.weighted else ""
            lines.append(
                f"edges         {edge.edges} of type {name}: {edge.self_loops} self-loops, {edge.repeated} repeated"
                f"{one_way}{weights}"
            )
        lines.append(f"components    {self.components}, the largest with {self.largest_component} nodes")
        if self.same_label_edges is not None:
            lines.append(f"homophily     {self.same_label_edges:.1%} of edges join nodes of one class")
        lines += [f"warning       {entry.problem}; {entry.remedy}" for entry in self.warnings]
        return lines


def diagnose_graph(source: Data | HeteroData | str | Path, **options: Any) -> GraphReport:
    """Look a graph over.

    Args:
        source: a graph, or what `load_graph` reads.
        **options: options of `load_graph`.

    Returns:
        The report.

    Raises:
        InputError: the graph cannot be read.

    Complexity:
        O(N f + E log E).

    Example:
        >>> report = diagnose_graph("digits")
        >>> report.nodes["node"].nodes, report.edges["edge"].one_way
        (1797, 0)
    """
    name = "memory"
    if isinstance(source, str | Path):
        loaded = load_graph(source, **options)
        source, name = loaded.graph, loaded.name
    typed = hasattr(source, "node_types")
    stores = {kind: source[kind] for kind in source.node_types} if typed else {"node": source}
    kept = [kind for kind in source.edge_types if not kind[1].startswith("rev_")] if typed else []
    links = {f"{a} {relation} {b}": ((a, b), source[a, relation, b]) for a, relation, b in kept}
    links = links if typed else {"edge": (("node", "node"), source)}
    start = dict(zip(stores, np.cumsum([0, *(int(store.num_nodes) for store in stores.values())]), strict=False))
    total = sum(int(store.num_nodes) for store in stores.values())
    ends = [
        edges.edge_index.cpu().numpy() + np.array([[start[first]], [start[second]]])
        for (first, second), edges in links.values()
    ]
    joined = np.concatenate(ends, axis=1) if ends else np.empty((2, 0), dtype=np.int64)
    degree = _neighbours(joined, total)
    nodes = {
        kind: _node_report(store, degree[start[kind] : start[kind] + int(store.num_nodes)])
        for kind, store in stores.items()
    }
    edges = {
        label: _edge_report(store, first == second, int(stores[second].num_nodes))
        for label, ((first, second), store) in links.items()
    }
    parts = _component_sizes(joined, total)
    same = None if typed else _same_label_share(source)
    return GraphReport(
        source=name,
        kind="heterogeneous" if typed else "graph",
        nodes=nodes,
        edges=edges,
        components=parts.size,
        largest_component=int(parts.max()),
        same_label_edges=same,
        warnings=tuple(_warnings(nodes, edges, parts)),
    )


def _neighbours(edges: NDArray[np.int64], num_nodes: int) -> NDArray[np.int64]:
    """Different neighbours of every node, in either direction, itself left out."""
    low, high = edges.min(axis=0), edges.max(axis=0)
    keys = np.unique((low * num_nodes + high)[low < high])
    return np.bincount(keys // num_nodes, minlength=num_nodes) + np.bincount(keys % num_nodes, minlength=num_nodes)


def _node_report(store: Any, degree: NDArray[np.int64]) -> NodeReport:
    x: Tensor | None = store.get("x")
    y: Tensor | None = store.get("y")
    known = None if y is None or y.dim() != 1 else y[y >= 0]
    return NodeReport(
        nodes=int(store.num_nodes),
        isolated=int((degree == 0).sum()),
        features=None if x is None else int(x.shape[1]),
        zero_rows=0 if x is None else int((x == 0).all(dim=1).sum()),
        constant_columns=0 if x is None else int((x == x[:1]).all(dim=0).sum()),
        classes=() if known is None else tuple(torch.bincount(known).tolist()),
        unlabelled=0 if known is None or y is None else int(y.shape[0] - known.shape[0]),
        degrees=degree_quantiles(degree),
    )


def _edge_report(store: Any, one_type: bool, num_targets: int) -> EdgeReport:
    edges: Tensor = store.edge_index
    keys = torch.unique(edges[0] * num_targets + edges[1])
    one_way = None
    if one_type:
        between = edges[:, edges[0] != edges[1]]
        there = torch.unique(between[0] * num_targets + between[1])
        back = torch.unique(between[1] * num_targets + between[0])
        one_way = int((~torch.isin(there, back)).sum())
    return EdgeReport(
        edges=int(edges.shape[1]),
        self_loops=int((edges[0] == edges[1]).sum()) if one_type else 0,
        repeated=int(edges.shape[1] - keys.shape[0]),
        one_way=one_way,
        weighted=store.get("edge_weight") is not None,
    )


def _component_sizes(edges: NDArray[np.int64], num_nodes: int) -> NDArray[np.int64]:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ones = np.ones(edges.shape[1], dtype=np.int8)
    matrix = coo_array((ones, (edges[0], edges[1])), shape=(num_nodes, num_nodes)).tocsr()
    _, part = connected_components(matrix, directed=False)
    return np.bincount(part)


def _same_label_share(graph: Any) -> float | None:
    y = graph.get("y")
    if y is None or y.dim() != 1:
        return None
    first, second = y[graph.edge_index[0]], y[graph.edge_index[1]]
    known = (first >= 0) & (second >= 0) & (graph.edge_index[0] != graph.edge_index[1])
    return float((first == second)[known].double().mean()) if bool(known.any()) else None


def _warnings(
    nodes: dict[str, NodeReport], edges: dict[str, EdgeReport], parts: NDArray[np.int64]
) -> list[DataWarning]:
    found = []

    def warn(condition: bool, problem: str, remedy: str) -> None:
        if condition:
            found.append(DataWarning(problem, remedy))

    for name, node in nodes.items():
        alone = len(nodes) == 1
        warn(
            node.isolated > 0,
            f"{node.isolated} nodes of type {name} have no edge",
            "a graph encoder sees nothing but their own features: drop them, or link them (knn_graph)",
        )
        warn(alone and node.features is None, "there are no features", "give a feature table (features=)")
        warn(
            node.zero_rows > 0,
            f"{node.zero_rows} nodes of type {name} have zeros for features",
            "a cosine with them is 0: fill their features in, or drop them",
        )
        warn(
            node.constant_columns > 0,
            f"{node.constant_columns} features of type {name} are the same for every node",
            "leave them out, they say nothing",
        )
        warn(
            bool(node.classes) and min(node.classes) < 5,
            f"the smallest class of type {name} has {min(node.classes, default=0)} nodes",
            "scores of this class will be noise: join it with another one",
        )
    for name, edge in edges.items():
        warn(edge.edges == 0, f"there are no edges of type {name}", "give at least one, or leave the type out")
        warn(
            edge.self_loops > 0,
            f"{edge.self_loops} edges of type {name} are self-loops",
            "they are dropped where a model adds its own",
        )
        warn(
            edge.repeated > 0,
            f"{edge.repeated} edges of type {name} repeat another one",
            "they count once, with the largest weight: add weights up beforehand if that is what they mean",
        )
        warn(
            bool(edge.one_way),
            f"{edge.one_way} edges of type {name} run one way",
            "models take the graph as undirected; a citation then counts for both papers",
        )
    warn(
        parts.size > 1 and int(parts.max()) * 2 < int(parts.sum()),
        f"the graph falls into {parts.size} parts, the largest with {int(parts.max())} of {int(parts.sum())} nodes",
        "use features too, or keep the largest part",
    )
    return found
