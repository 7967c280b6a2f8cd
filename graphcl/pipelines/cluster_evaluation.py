"""What is said about a clustering: metrics and their protocol, tables for the report's figures, baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from graphcl.errors import InputError
from graphcl.graphs.conversion import encode_labels
from graphcl.kernels import pooled_product
from graphcl.metrics.clustering import ClusteringMetrics, clustering_metrics, confusion_after_matching
from graphcl.pipelines.cluster_baselines import BASELINES, SPECTRAL_ROWS, cluster_baseline
from graphcl.pipelines.cluster_graphs import ClusterGraph

__all__ = [
    "ClusteringEvaluation",
    "baseline_table",
    "cluster_tables",
    "compared_metrics",
    "evaluate_clusters",
    "read_labels",
]

IntArray = npt.NDArray[np.int64]
# Silhouettes take all pairs of nodes: exact up to so many, on a sample beyond.
SILHOUETTE_NODES = 5000
# A silhouette depends on the space it is measured in, so methods are not compared by it.
_COMPARED = ("accuracy", "nmi", "ari", "macro_f1", "modularity", "conductance")


@dataclass(frozen=True)
class ClusteringEvaluation:
    """Metrics of a clustering and the choices that make them comparable.

    Args:
        metrics: against the labels where there are any, and against graph and embeddings always.
        protocol: what was clustered, how the number of clusters was set, which epoch, how clusters meet labels.
    """

    metrics: ClusteringMetrics
    protocol: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """``{"protocol": ..., "metrics": ...}``, ready for JSON."""
        return {"protocol": dict(self.protocol), "metrics": self.metrics.to_dict()}


def evaluate_clusters(
    clusters: IntArray, graph: ClusterGraph, z: Tensor | None, *, labels: Tensor | None, protocol: Mapping[str, str]
) -> ClusteringEvaluation:
    """Metrics of some clusters of a graph.

    Args:
        clusters: ``[N]``.
        graph: what was clustered.
        z: ``[N, d]`` where the silhouette is measured; None leaves it out.
        labels: ``[N]`` class numbers, -1 for none; None leaves out what needs them.
        protocol: goes into the result.

    Returns:
        The evaluation.
    """
    found = clustering_metrics(clusters, labels=labels, graph=graph.adjacency, x=z, sample=SILHOUETTE_NODES)
    return ClusteringEvaluation(found, protocol)


def read_labels(labels: Any, num_nodes: int) -> Tensor:
    """Class numbers of labels of any kind; see :func:`graphcl.graphs.encode_labels`.

    Raises:
        InputError: when there is not one a node, or no node has one.
    """
    codes, _ = encode_labels(labels, num_nodes=num_nodes)
    if not bool((codes >= 0).any()):
        raise InputError("no node has a label", "give a class of 0 or above to some nodes, or evaluate without labels")
    return codes


def baseline_table(graph: ClusterGraph, *, seed: int, names: Sequence[str] = BASELINES) -> list[dict[str, Any]]:
    """Metrics of the methods without training, one record a method.

    Args:
        graph: what to cluster.
        seed: of every method.
        names: of methods, see :data:`graphcl.pipelines.cluster_baselines.BASELINES`.

    Returns:
        ``{"name", "metrics"}`` or ``{"name", "skipped"}``.
    """
    table: list[dict[str, Any]] = []
    for name in names:
        clusters = cluster_baseline(name, graph.x, graph.adjacency, graph.num_clusters, seed=seed)
        if clusters is None:
            reason = f"not run on more than {SPECTRAL_ROWS:,} nodes or with a cluster a node"
            table.append({"name": name, "skipped": reason})
            continue
        table.append({"name": name, "metrics": compared_metrics(clusters, graph)})
    return table


def compared_metrics(clusters: IntArray, graph: ClusterGraph) -> dict[str, float | int]:
    """The metrics that methods are compared by, those that are defined; the silhouette is none of them.

    Args:
        clusters: ``[N]``.
        graph: what was clustered.

    Returns:
        Metric to value.
    """
    found = clustering_metrics(clusters, labels=graph.labels, graph=graph.adjacency).to_dict()
    return {name: value for name in _COMPARED if (value := found[name]) is not None}


def cluster_tables(clusters: IntArray, graph: ClusterGraph, z: Tensor) -> dict[str, Any]:
    """Sizes, the graph between the clusters, and the confusion with the labels: what the report draws.

    Args:
        clusters: ``[N]``.
        graph: what was clustered.
        z: ``[N, d]`` embeddings.

    Returns:
        ``sizes`` (nodes by cluster), ``blocks`` (edge weight from row to column cluster, both ways), ``mean_distance``
        (of members from the cluster's mean), and with labels ``confusion``: ``classes``, ``clusters``, ``counts``,
        matched clusters on the diagonal, and ``classes`` sizes.
    """
    count = graph.num_clusters
    assignment = torch.from_numpy(clusters)
    blocks = pooled_product(graph.adjacency, assignment, count)
    means = torch.zeros(count, z.shape[1]).index_add_(0, assignment, z)
    sizes = torch.bincount(assignment, minlength=count)
    means = means / sizes.clamp(min=1)[:, None]
    spread = torch.zeros(count).index_add_(0, assignment, (z - means[assignment]).norm(dim=1)) / sizes.clamp(min=1)
    tables: dict[str, Any] = {
        "sizes": sizes.tolist(),
        "blocks": [[round(float(value), 6) for value in row] for row in blocks.tolist()],
        "mean_distance": [round(value, 6) for value in spread.tolist()],
    }
    if graph.labels is not None:
        counts, order = confusion_after_matching(graph.labels, clusters)
        classes = torch.unique(graph.labels[graph.labels >= 0]).tolist()
        names = [str(graph.label_names[code]) if code < len(graph.label_names) else str(code) for code in classes]
        tables["confusion"] = {"classes": names, "clusters": order.tolist(), "counts": counts.tolist()}
    return tables
