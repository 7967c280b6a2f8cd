"""The graph that a clusterer works on: checked, with its number of clusters, and kept in a run folder."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

from graphcl.errors import InputError
from graphcl.graphs.conversion import adjacency, as_data, check_features
from graphcl.graphs.knn import SearchBackend, knn_graph
from graphcl.kernels import SparseMatrix, normalize_rows
from graphcl.pipelines.checkpoints import load_tensors, save_tensors
from graphcl.pipelines.cluster_baselines import smoothed_features
from graphcl.pipelines.cluster_number import ClusterNumber, cluster_number_by_eigengap, cluster_number_by_stability
from graphcl.pipelines.runs import write_by_rename

__all__ = ["GRAPH", "NODES", "ClusterGraph", "NumClusters", "cluster_graph", "read_cluster_graph", "structure_features"]

#: A number, how to estimate it, or None: the number of classes where there are labels, else by stability.
NumClusters: TypeAlias = int | Literal["eigengap", "stability"] | None

GRAPH = "graph.safetensors"
NODES = "nodes.parquet"
STRUCTURE_DIMENSIONS = 64


@dataclass(frozen=True, eq=False)
class ClusterGraph:
    """An attributed graph, ready to be clustered.

    Args:
        name: data set or source.
        x: ``[N, f]`` float32 features.
        adjacency: ``[N, N]``, symmetric, each edge once a direction, without self-loops.
        num_clusters: K.
        ids: external ids of the nodes.
        labels: ``[N]`` class numbers, -1 for none; None without labels.
        label_names: classes by number.
        facts: what was read and what was made of it.
        estimate: how K was found where it was not given.
    """

    name: str
    x: Tensor
    adjacency: SparseMatrix
    num_clusters: int
    ids: pl.Series
    labels: Tensor | None = None
    label_names: tuple[Any, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    estimate: ClusterNumber | None = None

    @property
    def num_nodes(self) -> int:
        """N."""
        return self.x.shape[0]

    @property
    def num_edges(self) -> int:
        """Undirected edges."""
        return self.adjacency.num_entries // 2

    def content_hash(self) -> str:
        """SHA-256 of the features, the edges and the number of clusters."""
        digest = hashlib.sha256(f"{self.num_clusters} {tuple(self.x.shape)}".encode())
        parts = [self.x, self.adjacency.row_offsets, self.adjacency.columns]
        if self.adjacency.values is not None:
            parts.append(self.adjacency.values)
        for part in parts:
            digest.update(np.ascontiguousarray(part.numpy()).data)
        return digest.hexdigest()

    def write(self, folder: Path) -> None:
        """Write `GRAPH` and `NODES`."""
        tensors = {"x": self.x, "row_offsets": self.adjacency.row_offsets, "columns": self.adjacency.columns}
        if self.adjacency.values is not None:
            tensors["values"] = self.adjacency.values
        if self.labels is not None:
            tensors["labels"] = self.labels
        about = {
            "name": self.name,
            "num_clusters": self.num_clusters,
            "label_names": list(self.label_names),
            "facts": self.facts,
            "estimate": None if self.estimate is None else self.estimate.to_dict(),
        }
        save_tensors(folder / GRAPH, tensors, about)
        write_by_rename(folder / NODES, pl.DataFrame({"node": self.ids}).write_parquet)


def read_cluster_graph(folder: Path) -> ClusterGraph:
    """The graph that :meth:`ClusterGraph.write` wrote.

    Raises:
        InputError: when a file is damaged or the two do not fit.
    """
    tensors, about = load_tensors(folder / GRAPH)
    remedy = "restore the file or train again"
    try:
        ids = pl.read_parquet(folder / NODES)["node"]
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError("cannot be read as a table of nodes", remedy, path=folder / NODES) from error
    try:
        x, offsets, columns = tensors["x"], tensors["row_offsets"], tensors["columns"]
        matrix = SparseMatrix(offsets, columns, tensors.get("values"), (x.shape[0], x.shape[0]))
        estimate = about["estimate"]
        graph = ClusterGraph(
            name=str(about["name"]),
            x=x,
            adjacency=matrix,
            num_clusters=int(about["num_clusters"]),
            ids=ids,
            labels=tensors.get("labels"),
            label_names=tuple(about["label_names"]),
            facts=dict(about["facts"]),
            estimate=None if estimate is None else _estimate(estimate),
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"holds no graph ({error})", remedy, path=folder / GRAPH) from error
    if ids.len() != graph.num_nodes:
        raise InputError(f"names {ids.len()} nodes, the graph has {graph.num_nodes}", remedy, path=folder / NODES)
    return graph


def _estimate(record: Mapping[str, Any]) -> ClusterNumber:
    scores = {int(count): float(score) for count, score in record["scores"].items()}
    return ClusterNumber(int(record["num_clusters"]), record["method"], scores, int(record["nodes"]))


def cluster_graph(
    source: Any,
    num_clusters: NumClusters = None,
    *,
    max_clusters: int = 20,
    neighbours: int = 5,
    neighbour_search: SearchBackend = "exact",
    seed: int = 0,
) -> ClusterGraph:
    """Check a graph, bring it to one form and settle its number of clusters.

    Repeated edges count once, edges lead both ways, self-loops are dropped; how many there were is noted in ``facts``.
    A graph without features gets the leading eigenvectors of its normalised adjacency as features.

    Args:
        source: ``GraphDataset``, or what :func:`graphcl.graphs.as_data` takes: PyG ``Data``, a NetworkX graph, a SciPy
            matrix, a pair of edges and features, or vectors alone, which are linked to their nearest neighbours.
        num_clusters: see `NumClusters`.
        max_clusters: largest number that an estimate considers.
        neighbours: of each vector, for vectors alone; fewer where there are not so many others.
        neighbour_search: ``exact`` or ``faiss``, for vectors alone.
        seed: of the estimate.

    Returns:
        The graph.

    Raises:
        InputError: for a heterogeneous graph, an empty one, one without edges, features that are not finite, labels of
            another length, or more clusters than nodes.

    Complexity: O(N f + E), and that of the estimate and of the neighbour search where they are needed.

    Example:
        >>> graph = cluster_graph(torch.eye(4).repeat(5, 1), 4)
        >>> graph.num_nodes, graph.num_clusters, graph.facts["features"]
        (20, 4, 'given')
    """
    name, recipe = "a graph in memory", None
    if hasattr(source, "graph") and hasattr(source, "recipe"):
        name, recipe, source = source.name, source.recipe, source.graph
    if hasattr(source, "node_types"):
        raise InputError(
            "the graph is heterogeneous", "train a model for it such as heco, or give a graph of one type of nodes"
        )
    try:
        data = as_data(_linked(source, neighbours, neighbour_search) if _is_vectors(source) else source)
    except TypeError as error:
        raise InputError(f"cannot cluster this: {error}", "give a graph or vectors") from error
    matrix = adjacency(data)
    if matrix.num_entries == 0:
        raise InputError(
            "the graph has no edge between two nodes",
            "give edges, or the vectors alone, which are then linked to their nearest neighbours",
        )
    if matrix.values is not None:
        matrix = matrix.to(torch.float32)
    labels, names = data.get("y"), tuple(data.get("label_names") or ())
    if labels is not None and not bool((labels >= 0).any()):
        labels, names = None, ()
    facts = _facts(data.edge_index, matrix)
    features = data.get("x")
    facts["features"] = "given" if features is not None else "eigenvectors of the graph, as none were given"
    x = structure_features(matrix, seed=seed) if features is None else features.to(torch.float32)
    count, estimate = _number(num_clusters, x, matrix, labels, max_clusters, seed)
    return ClusterGraph(
        name=name,
        x=x.contiguous(),
        adjacency=matrix,
        num_clusters=count,
        ids=_ids(data.get("node_ids"), x.shape[0]),
        labels=labels,
        label_names=names,
        facts={**facts, **({} if recipe is None else {"recipe": recipe.name})},
        estimate=estimate,
    )


def _is_vectors(source: Any) -> bool:
    floating = (isinstance(source, Tensor) and source.is_floating_point()) or (
        isinstance(source, np.ndarray) and source.dtype.kind == "f"
    )
    return floating and source.ndim == 2


def _linked(vectors: Any, neighbours: int, search: SearchBackend) -> tuple[SparseMatrix, Tensor]:
    x = check_features(vectors)
    if x.shape[0] < 3:
        raise InputError(f"{x.shape[0]} vectors are too few to link and to cluster", "give at least 3")
    return knn_graph(x, min(neighbours, x.shape[0] - 1), backend=search), x


def _facts(edge_index: Tensor, matrix: SparseMatrix) -> dict[str, Any]:
    """What the edges were before they lost their directions, their copies and their loops."""
    size = matrix.shape[0]
    loops = int((edge_index[0] == edge_index[1]).sum())
    between = edge_index[:, edge_index[0] != edge_index[1]]
    distinct = torch.unique(between[0] * size + between[1]).shape[0]
    return {
        "edges_given": int(edge_index.shape[1]),
        "self_loops_dropped": loops,
        "repeated_edges_merged": int(between.shape[1]) - distinct,
        "directions_added": matrix.num_entries - distinct,
        "isolated_nodes": int((matrix.row_offsets.diff() == 0).sum()),
        "weighted": matrix.values is not None,
    }


def _number(
    wanted: NumClusters, x: Tensor, matrix: SparseMatrix, labels: Tensor | None, max_clusters: int, seed: int
) -> tuple[int, ClusterNumber | None]:
    size = x.shape[0]
    if isinstance(wanted, int):
        if wanted > size:
            raise InputError(f"{wanted} clusters of {size} nodes", f"give num_clusters of at most {size}")
        return wanted, None
    if wanted is None and labels is not None:
        classes = int(torch.unique(labels[labels >= 0]).shape[0])
        if classes < 2:
            raise InputError("all labels are equal, so they tell no number of clusters", "give num_clusters")
        return classes, None
    if wanted == "eigengap":
        estimate = cluster_number_by_eigengap(matrix, max_clusters=max_clusters, seed=seed)
    else:
        points = normalize_rows(smoothed_features(normalize_rows(x), matrix))
        estimate = cluster_number_by_stability(points.numpy(), max_clusters=max_clusters, seed=seed)
    return estimate.num_clusters, estimate


def _ids(given: Any, size: int) -> pl.Series:
    """External ids: whole numbers or texts; anything else by its text."""
    if given is None:
        return pl.Series("node", np.arange(size, dtype=np.int64))
    values = given.tolist() if isinstance(given, Tensor | np.ndarray) else list(given)
    if all(type(value) is int for value in values):
        return pl.Series("node", values, dtype=pl.Int64)
    return pl.Series("node", [str(value) for value in values], dtype=pl.String)


def structure_features(matrix: SparseMatrix, *, dimensions: int = STRUCTURE_DIMENSIONS, seed: int = 0) -> Tensor:
    r"""Features of a graph that has none: leading eigenvectors of its regularised normalised adjacency.

    T. Qin, K. Rohe, "Regularized Spectral Clustering under the Degree-Corrected Stochastic Blockmodel", 2013,
    https://arxiv.org/abs/1309.4111.

    .. math:: X = U |\Lambda|, \quad D_\tau^{-1/2} A D_\tau^{-1/2} = U \Lambda U^T, \; D_\tau = D + \bar d

    Args:
        matrix: symmetric ``(N, N)``.
        dimensions: most eigenvectors; those of the largest absolute eigenvalues.
        seed: of the start vector of the iteration.

    Returns:
        ``(N, min(dimensions, N - 1))`` float32. The largest entry of each column is positive.

    Complexity: a Lanczos iteration, O((E + N dimensions) iterations) time.

    Example:
        >>> edge = SparseMatrix.from_coo(torch.tensor([0, 1]), torch.tensor([1, 0]), shape=(2, 2))
        >>> structure_features(edge).shape
        torch.Size([2, 1])
    """
    from scipy.sparse import diags_array
    from scipy.sparse.linalg import eigsh

    graph = matrix.to_scipy().astype(np.float64)
    degree = np.asarray(graph.sum(axis=1)).ravel()
    factor = diags_array(1.0 / np.sqrt(degree + degree.mean()))
    operator = (factor @ graph @ factor).tocsr()
    wanted = min(dimensions, matrix.shape[0] - 1)
    if wanted > matrix.shape[0] // 2:
        values, vectors = np.linalg.eigh(operator.toarray())
    else:
        start = np.random.default_rng(seed).standard_normal(matrix.shape[0])
        values, vectors = eigsh(operator, k=wanted, which="LM", v0=start)
    order = np.argsort(-np.abs(values), kind="stable")[:wanted]
    leading: npt.NDArray[np.float64] = vectors[:, order] * np.abs(values[order])
    peak = leading[np.abs(leading).argmax(axis=0), np.arange(order.size)]
    return torch.from_numpy(np.ascontiguousarray(leading * np.where(peak < 0, -1.0, 1.0))).to(torch.float32)
