"""Measures of a clustering: against labels (after matching), against the graph, against the vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphcl.kernels import SparseMatrix, normalize_rows, scatter_sum

__all__ = [
    "ClusteringMetrics",
    "Conductance",
    "Labels",
    "ari",
    "clustering_accuracy",
    "clustering_metrics",
    "conductance",
    "confusion_after_matching",
    "macro_f1",
    "match_clusters",
    "modularity",
    "nmi",
    "silhouette",
]

#: N whole numbers; -1 marks a node without a label (in labels only).
Labels: TypeAlias = "Tensor | NDArray[Any] | Sequence[int]"
_SAMPLE = 10_000
_BLOCK_BYTES = 64 * 2**20


class Conductance(NamedTuple):
    """Conductance of every cluster, NaN where it is not defined, and the mean of the others."""

    per_cluster: Tensor
    mean: float


@dataclass(frozen=True)
class ClusteringMetrics:
    """Figures of one clustering; None where their input was not given or leaves them undefined.

    Attributes:
        num_clusters: clusters that hold a node.
        accuracy: share of labelled nodes in the cluster matched with their class.
        nmi: normalised mutual information, arithmetic mean.
        ari: adjusted Rand index.
        macro_f1: mean over classes after matching.
        modularity: of the graph under the clusters.
        conductance: mean over clusters.
        silhouette: mean over nodes.
        silhouette_nodes: nodes that the silhouette was computed on: all, or the size of the sample.
    """

    num_clusters: int
    accuracy: float | None = None
    nmi: float | None = None
    ari: float | None = None
    macro_f1: float | None = None
    modularity: float | None = None
    conductance: float | None = None
    silhouette: float | None = None
    silhouette_nodes: int | None = None

    def to_dict(self) -> dict[str, float | int | None]:
        """Plain numbers by name, ready for JSON."""
        return asdict(self)


def clustering_metrics(
    clusters: Labels,
    *,
    labels: Labels | None = None,
    graph: SparseMatrix | None = None,
    x: Tensor | None = None,
    sample: int = _SAMPLE,
    seed: int = 0,
) -> ClusteringMetrics:
    """All measures that the given inputs allow.

    Args:
        clusters: cluster of each of N nodes, from 0.
        labels: class of each node, -1 for none; gives accuracy, NMI, ARI and macro-F1.
        graph: ``(N, N)`` adjacency matrix; gives modularity and conductance.
        x: ``(N, d)`` vectors; gives the silhouette (None for a single cluster).
        sample: nodes at most for the silhouette.
        seed: of that sample.

    Returns:
        The figures.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity:
        O(N + E + K^3 + min(N, sample)^2 d).

    Example:
        >>> clustering_metrics([0, 0, 1], labels=[1, 1, 0]).accuracy
        1.0
    """
    found = _codes("clusters", clusters)
    used = int(np.unique(found).size)
    figures: dict[str, Any] = {}
    if labels is not None:
        figures |= {
            "accuracy": clustering_accuracy(labels, found),
            "nmi": nmi(labels, found),
            "ari": ari(labels, found),
            "macro_f1": macro_f1(labels, found),
        }
    if graph is not None:
        mean = conductance(graph, found).mean
        figures |= {"modularity": modularity(graph, found), "conductance": None if math.isnan(mean) else mean}
    if x is not None and used > 1:
        figures |= {
            "silhouette": silhouette(x, found, sample=sample, seed=seed),
            "silhouette_nodes": min(found.size, sample),
        }
    return ClusteringMetrics(num_clusters=used, **figures)


def match_clusters(labels: Labels, clusters: Labels) -> NDArray[np.int64]:
    """The one-to-one matching of clusters with classes that puts most nodes on matched pairs.

    Kuhn 1955, https://doi.org/10.1002/nav.3800020109, on the rectangular table of counts: with more clusters than
    classes the least useful clusters stay unmatched, with fewer some classes do. The input is not changed.

    Args:
        labels: class of each of N nodes, -1 for none (such nodes do not count).
        clusters: cluster of each node, from 0.

    Returns:
        ``(largest cluster + 1,)``: the class of each cluster, -1 for a cluster without one.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity:
        O(N + C K min(C, K)).

    Example:
        >>> match_clusters([5, 5, 7], [1, 1, 0]).tolist()
        [7, 5]
    """
    table = _Table.of(labels, clusters)
    matched = np.full(table.num_clusters, -1, dtype=np.int64)
    classes, columns = table.matching()
    matched[table.clusters[columns]] = table.classes[classes]
    return matched


def clustering_accuracy(labels: Labels, clusters: Labels) -> float:
    """Share of labelled nodes that lie in the cluster matched with their class (ACC).

    Args:
        labels: class of each of N nodes, -1 for none.
        clusters: cluster of each node, from 0.

    Returns:
        A number in [0, 1]; the divisor is the number of labelled nodes.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity:
        O(N + C K min(C, K)).

    Example:
        >>> clustering_accuracy([0, 0, 1, 1], [1, 1, 0, 1])
        0.75
    """
    table = _Table.of(labels, clusters)
    return float(table.counts[table.matching()].sum() / table.counts.sum())


def macro_f1(labels: Labels, clusters: Labels) -> float:
    """Unweighted mean over classes of the F1 of the cluster matched with the class; 0 for a class without a cluster.

    Args:
        labels: class of each of N nodes, -1 for none.
        clusters: cluster of each node, from 0.

    Returns:
        A number in [0, 1]; the divisor is the number of classes that occur.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity:
        O(N + C K min(C, K)).

    Example:
        >>> macro_f1([0, 0, 1, 1], [1, 1, 0, 0])
        1.0
    """
    counts = (table := _Table.of(labels, clusters)).counts
    classes, columns = table.matching()
    scores = np.zeros(counts.shape[0])
    # F1 = 2 TP / (class size + cluster size).
    sizes = counts.sum(axis=1)[classes] + counts.sum(axis=0)[columns]
    scores[classes] = 2 * counts[classes, columns] / sizes
    return float(scores.mean())


def nmi(labels: Labels, clusters: Labels) -> float:
    """Mutual information of classes and clusters over the arithmetic mean of their entropies.

    Args:
        labels: class of each of N nodes, -1 for none.
        clusters: cluster of each node, from 0.

    Returns:
        A number in [0, 1].

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity:
        O(N + C K).

    Example:
        >>> nmi([0, 0, 1, 1], [1, 1, 0, 0])
        1.0
    """
    from sklearn.metrics import normalized_mutual_info_score

    truth, found = _labelled(labels, clusters)
    return float(normalized_mutual_info_score(truth, found, average_method="arithmetic"))


def ari(labels: Labels, clusters: Labels) -> float:
    """Adjusted Rand index of classes and clusters.

    Hubert, Arabie 1985, https://doi.org/10.1007/BF01908075.

    Args:
        labels: class of each of N nodes, -1 for none.
        clusters: cluster of each node, from 0.

    Returns:
        1 for equal partitions, about 0 for random ones.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity:
        O(N + C K).

    Example:
        >>> ari([0, 0, 1, 1], [1, 1, 0, 0])
        1.0
    """
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(*_labelled(labels, clusters)))


def confusion_after_matching(labels: Labels, clusters: Labels) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Counts of class against cluster, with the matched clusters on the diagonal.

    Args:
        labels: class of each of N nodes, -1 for none.
        clusters: cluster of each node, from 0.

    Returns:
        ``(C, K)`` counts, classes ascending; and the K clusters of the columns: those matched in the order of their
        class, then the others.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity:
        O(N + C K min(C, K)).

    Example:
        >>> confusion_after_matching([0, 0, 1], [1, 1, 0])[0].tolist()
        [[2, 0], [0, 1]]
    """
    table = _Table.of(labels, clusters)
    _, columns = table.matching()
    rest = np.setdiff1d(np.arange(table.clusters.size), columns)
    order = np.concatenate([columns, rest])
    return table.counts[:, order], table.clusters[order]


def modularity(graph: SparseMatrix, clusters: Labels, *, resolution: float = 1.0) -> float:
    r"""Modularity of a graph under a clustering.

    Newman 2006, https://doi.org/10.1073/pnas.0601602103; with directions Leicht, Newman 2008,
    https://doi.org/10.1103/PhysRevLett.100.118703:

    .. math:: Q = \sum_c \frac{a_c}{m} - \gamma \frac{r_c\, s_c}{m^2}

    with m the sum of all entries, a_c of those inside cluster c, r_c of its rows and s_c of its columns.

    Args:
        graph: ``(N, N)`` adjacency, values at least 0; an undirected edge is two entries, a self-loop one.
        clusters: cluster of each node, from 0.
        resolution: gamma.

    Returns:
        Q; 0 for a graph without edges.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity:
        O(N + E).

    Example:
        >>> edges = torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2]])
        >>> modularity(SparseMatrix.from_edge_index(edges, num_nodes=4), [0, 0, 1, 1])
        0.5
    """
    flow = _Flow.of(graph, clusters)
    if flow.total == 0:
        return 0.0
    expected = flow.rows * flow.columns / flow.total
    return float((flow.inside - resolution * expected).sum() / flow.total)


def conductance(graph: SparseMatrix, clusters: Labels) -> Conductance:
    r"""Share of a cluster's edge ends that leave it, of every cluster.

    .. math:: \phi_c = \frac{\mathrm{cut}(c)}{\min(\mathrm{vol}(c),\, \mathrm{vol}(V) - \mathrm{vol}(c))}

    Args:
        graph: ``(N, N)`` symmetric adjacency, values at least 0.
        clusters: cluster of each node, from 0.

    Returns:
        `Conductance` of clusters 0 to the largest one; 0 is best. It is not defined (NaN, and left out of the mean)
        for a cluster that has no edge, or all of them.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity:
        O(N + E).

    Example:
        >>> edges = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> conductance(SparseMatrix.from_edge_index(edges, num_nodes=3), [0, 0, 1]).mean
        1.0
    """
    flow = _Flow.of(graph, clusters)
    smaller = torch.minimum(flow.rows, flow.total - flow.rows)
    per_cluster = torch.where(smaller > 0, (flow.rows - flow.inside) / smaller, torch.nan)
    return Conductance(per_cluster, float(torch.nanmean(per_cluster)))


@torch.no_grad()
def silhouette(
    x: Tensor,
    clusters: Labels,
    *,
    metric: Literal["euclidean", "cosine"] = "euclidean",
    sample: int = _SAMPLE,
    seed: int = 0,
) -> float:
    r"""Mean silhouette of the nodes, exact up to `sample` nodes and on a uniform sample of that size beyond.

    Rousseeuw 1987, https://doi.org/10.1016/0377-0427(87)90125-7:

    .. math:: s_i = \frac{b_i - a_i}{\max(a_i, b_i)}

    with a_i the mean distance to the other nodes of the own cluster and b_i the least mean distance to another one.

    Args:
        x: ``(N, d)`` vectors.
        clusters: cluster of each node, from 0.
        metric: distance: ``euclidean``, or ``cosine`` (one minus the cosine).
        sample: nodes at most; distances are taken among them only.
        seed: of the sample.

    Returns:
        The mean, in [-1, 1]; a node alone in its cluster counts as 0.

    Raises:
        ValueError: fewer than two clusters; and naming the argument and the value.

    Complexity:
        O(n^2 d) time for n = min(N, sample), O(n (d + K)) memory and one block of 64 MiB.

    Example:
        >>> silhouette(torch.tensor([[0.0], [0.0], [1.0], [1.0]]), [0, 0, 1, 1])
        1.0
    """
    found = _codes("clusters", clusters)
    if x.dim() != 2 or x.shape[0] != found.size:
        raise ValueError(f"x must have shape ({found.size}, d), got shape {tuple(x.shape)}")
    if metric not in ("euclidean", "cosine"):
        raise ValueError(f"metric must be 'euclidean' or 'cosine', got {metric!r}")
    if sample < 2:
        raise ValueError(f"sample must be at least 2, got {sample}")
    if found.size > sample:
        chosen = np.sort(np.random.default_rng(seed).choice(found.size, sample, replace=False))
        found, x = found[chosen], x[torch.from_numpy(chosen).to(x.device)]
    _, inverse, sizes = np.unique(found, return_inverse=True, return_counts=True)
    if sizes.size < 2:
        raise ValueError(f"clusters must be at least two, got {sizes.size} among {found.size} nodes")
    points = x.double()
    points = normalize_rows(points) if metric == "cosine" else points
    own = torch.from_numpy(inverse.reshape(-1)).to(x.device)
    count = torch.from_numpy(sizes).to(x.device, torch.float64)
    member = torch.nn.functional.one_hot(own, sizes.size).double()
    total = 0.0
    height = max(1, _BLOCK_BYTES // (8 * found.size))
    for start in range(0, found.size, height):
        rows = torch.arange(start, min(start + height, found.size), device=x.device)
        distance = 1 - points[rows] @ points.T if metric == "cosine" else torch.cdist(points[rows], points)
        # The distance of a node to itself is 0 but for rounding.
        distance[torch.arange(rows.shape[0], device=x.device), rows] = 0.0
        sums = distance @ member
        home = own[rows].unsqueeze(1)
        alone = count[own[rows]] == 1
        a = sums.gather(1, home).squeeze(1) / (count[own[rows]] - 1).clamp_min(1)
        b = (sums / count).scatter(1, home, torch.inf).amin(dim=1)
        larger = torch.maximum(a, b)
        score = torch.where(alone | (larger == 0), 0.0, (b - a) / larger)
        total += float(score.sum())
    return total / found.size


class _Table(NamedTuple):
    """Counts of class (row) against cluster (column) that occur, and their numbers."""

    counts: NDArray[np.int64]
    classes: NDArray[np.int64]
    clusters: NDArray[np.int64]
    num_clusters: int

    @classmethod
    def of(cls, labels: Labels, clusters: Labels) -> _Table:
        truth, found = _labelled(labels, clusters)
        classes, row = np.unique(truth, return_inverse=True)
        columns, column = np.unique(found, return_inverse=True)
        flat = np.bincount(row.reshape(-1) * columns.size + column.reshape(-1), minlength=classes.size * columns.size)
        # Clusters without a labelled node still exist, and stay unmatched.
        size = int(_codes("clusters", clusters).max()) + 1
        return cls(flat.reshape(classes.size, columns.size), classes, columns, size)

    def matching(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Matched rows, ascending, and their columns."""
        from scipy.optimize import linear_sum_assignment

        rows, columns = linear_sum_assignment(self.counts, maximize=True)
        return np.asarray(rows, dtype=np.int64), np.asarray(columns, dtype=np.int64)


class _Flow(NamedTuple):
    """Sums of entries by cluster: in its rows, in its columns, in both; and of all entries. float64."""

    rows: Tensor
    columns: Tensor
    inside: Tensor
    total: float

    @classmethod
    def of(cls, graph: SparseMatrix, clusters: Labels) -> _Flow:
        found = torch.from_numpy(_codes("clusters", clusters)).to(graph.device)
        size = found.shape[0]
        if graph.shape != (size, size):
            raise ValueError(f"graph must have shape ({size}, {size}), got shape {graph.shape}")
        values = graph.entry_values().detach().double()
        count = int(found.max()) + 1
        row, column = found[graph.pattern.rows], found[graph.columns]
        kept = torch.where(row == column, values, 0.0)
        return cls(
            rows=scatter_sum(values, row, count),
            columns=scatter_sum(values, column, count),
            inside=scatter_sum(kept, row, count),
            total=float(values.sum()),
        )


def _labelled(labels: Labels, clusters: Labels) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Labels and clusters of the nodes that have a label."""
    truth, found = _codes("labels", labels, unknown=True), _codes("clusters", clusters)
    if truth.shape != found.shape:
        raise ValueError(f"labels must have the length of clusters ({found.size}), got {truth.size}")
    known = truth >= 0
    if not known.any():
        raise ValueError("labels must name at least one class, got -1 for every node")
    return truth[known], found[known]


def _codes(name: str, values: Labels, *, unknown: bool = False) -> NDArray[np.int64]:
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name} must be a vector with at least one entry, got shape {array.shape}")
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, got dtype {array.dtype}")
    low = -1 if unknown else 0
    if int(array.min()) < low:
        raise ValueError(f"{name} must be at least {low}, got {int(array.min())}")
    return array.astype(np.int64, copy=False)
