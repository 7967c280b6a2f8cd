"""The report of a clusterer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from graphcl.report import figures_clustering as figures
from graphcl.report.html import cards, columns, duration, figure_element, note, section, table
from graphcl.report.record import RunRecord
from graphcl.report.sections import protocol_facts, run_and_settings

__all__ = ["FILES", "sections"]

NODE_MAP = "node_map.parquet"
FILES = (NODE_MAP,)

# Metric -> its name for people, those that need labels first.
WITH_LABELS = {"accuracy": "ACC", "nmi": "NMI", "ari": "ARI", "macro_f1": "macro-F1"}
WITHOUT_LABELS = {"modularity": "modularity", "conductance": "conductance", "silhouette": "silhouette"}
_EPOCH_COLUMNS = ("epoch", "seconds", "nodes_per_second", "changed", "clusters_used", *WITHOUT_LABELS)


def sections(record: RunRecord) -> Iterator[str]:
    """The sections of the report, in order."""
    yield _headline(record)
    yield _metrics(record)
    yield _maps(record)
    yield _confusion(record.analysis.get("confusion"))
    yield _sizes(record)
    yield _blocks(record)
    yield _training(record)
    yield _estimate(record.metrics.get("estimate"))
    yield from run_and_settings(record)


def _headline(record: RunRecord) -> str:
    test = record.metrics["test"]
    names = WITH_LABELS if test.get("accuracy") is not None else WITHOUT_LABELS
    shown = [(f"{float(test[name]):.4f}", label) for name, label in names.items() if test.get(name) is not None]
    shown.append((str(test["num_clusters"]), "clusters"))
    seconds = record.manifest.get("wall_seconds")
    if isinstance(seconds, int | float):
        shown.append((duration(seconds), "wall time"))
    return cards(shown)


def _metrics(record: RunRecord) -> str:
    test, baselines = record.metrics["test"], record.metrics.get("baselines") or []
    model = str(record.config.get("model", "model"))
    measured = [(model, test), *((entry["name"], entry.get("metrics") or {}) for entry in baselines)]
    known = {**WITH_LABELS, **WITHOUT_LABELS}
    shown = [name for name in known if any(values.get(name) is not None for _, values in measured)]
    rows = [(name, [values.get(metric) for metric in shown]) for name, values in measured]
    parts = [table(["method", *(known[name] for name in shown)], rows)]
    about = "Higher is better, except for conductance: the share of edge ends that leave a cluster."
    if baselines:
        about += (
            " The methods below the first know the same features and the same graph and train nothing; they have no "
            "silhouette here, since that depends on the space it is measured in."
        )
    parts.insert(0, note(about))
    parts += [note(f"{entry['name']}: {entry['skipped']}.") for entry in baselines if entry.get("skipped")]
    parts.append(_oracle(record.metrics.get("oracle")))
    return section("Metrics", *parts, protocol_facts(record.metrics))


def _oracle(oracle: Mapping[str, Any] | None) -> str:
    if not oracle:
        return ""
    rows = [(WITH_LABELS.get(name, name), [entry["value"], int(entry["epoch"])]) for name, entry in oracle.items()]
    about = (
        "Best value over the epochs of each metric, found by looking at the labels. It is no result of the method: "
        "nobody without labels could have stopped there. Some papers report it."
    )
    return "<h3>Oracle</h3>" + note(about) + table(["metric", "best value", "at epoch"], rows)


def _maps(record: RunRecord) -> str:
    about = record.analysis.get("node_map") or {}
    nodes = record.table(NODE_MAP, ("node", "x", "y", "cluster"))
    explained = about.get("explained_variance")
    # A cluster has the colour of the class that it is matched with.
    matching = record.analysis.get("confusion") or {"clusters": [], "classes": []}
    clusters = figures.group_map(nodes, "cluster", explained, order=matching["clusters"], prefix="cluster ")
    drawn = [("By cluster", clusters)]
    if "label" in nodes.columns and nodes["label"].null_count() < nodes.height:
        drawn.append(("By label", figures.group_map(nodes, "label", explained, order=matching["classes"])))
    text = (
        f"{nodes.height:,} of {int(about.get('nodes', nodes.height)):,} nodes on the first two principal components of "
        "their embeddings (rows of unit length). Distances on such a map are shadows of those in the embedding space: "
        "groups that overlap here may still be apart. Point at a node to see its id."
    )
    return section("Embeddings", note(text), columns(f"<h3>{name}</h3>{figure_element(map_)}" for name, map_ in drawn))


def _confusion(confusion: Mapping[str, Any] | None) -> str:
    if not confusion:
        return ""
    counts = np.asarray(confusion["counts"], dtype=np.int64).reshape(len(confusion["classes"]), -1)
    share = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    figure = figures.matrix_map(
        share, confusion["classes"], [f"cluster {cluster}" for cluster in confusion["clusters"]], x_title="",
        y_title="class", counts=counts, what="share of the class",
    )  # fmt: skip
    text = (
        "Where the nodes of each class went. Clusters are in the order of the classes they were matched with, so what "
        "is on the diagonal counts as correct; clusters without a class stand at the right."
    )
    return section("Classes and clusters", note(text), figure_element(figure))


def _sizes(record: RunRecord) -> str:
    sizes = {f"cluster {number}": int(size) for number, size in enumerate(record.analysis.get("sizes") or [])}
    if not sizes:
        return ""
    partitions = {"clusters": sizes}
    confusion = record.analysis.get("confusion")
    if confusion:
        totals = np.asarray(confusion["counts"], dtype=np.int64).sum(axis=1).tolist()
        partitions["classes"] = {
            str(name): int(total) for name, total in zip(confusion["classes"], totals, strict=True)
        }
    empty = sum(size == 0 for size in sizes.values())
    text = "Nodes a cluster" + (", and labelled nodes a class, each from the largest down." if confusion else ".")
    if empty:
        text += f" {empty} of {len(sizes)} clusters hold no node."
    return section("Cluster sizes", note(text), figure_element(figures.size_bars(partitions)))


def _blocks(record: RunRecord) -> str:
    blocks = record.analysis.get("blocks")
    if not blocks:
        return ""
    weight = np.asarray(blocks, dtype=np.float64)
    # In the order of the confusion above, empty clusters last.
    matched = [int(cluster) for cluster in (record.analysis.get("confusion") or {}).get("clusters", [])]
    order = [*matched, *(cluster for cluster in range(weight.shape[0]) if cluster not in matched)]
    weight = weight[np.ix_(order, order)]
    ends = weight.sum(axis=1, keepdims=True)
    share = np.divide(weight, ends, out=np.zeros_like(weight), where=ends > 0)
    names = [f"cluster {number}" for number in order]
    figure = figures.matrix_map(share, names, names, x_title="", y_title="", counts=weight, what="share of the row")
    inside = float(np.trace(weight) / weight.sum()) if weight.sum() else 0.0
    text = (
        "Where the edges of each cluster lead: a row sums to 1. A strong diagonal says that the graph agrees with the "
        f"clusters: {inside:.1%} of all edge weight stays inside one; if ends met at random it would be "
        f"{float(((ends / max(weight.sum(), 1e-300)) ** 2).sum()):.1%}."
    )
    return section("The graph between the clusters", note(text), figure_element(figure))


def _training(record: RunRecord) -> str:
    history = record.history
    warmup = int(record.metrics.get("warmup_epochs") or 0)
    losses = [
        name
        for name in history
        if name not in _EPOCH_COLUMNS and not name.startswith("oracle_") and _drawn(history, name)
    ]
    drawn = []
    for heading, phase in (("Loss in the warm-up", _epochs(history, 0, warmup)), ("Loss", _epochs(history, warmup))):
        # A loss with a single part equals it: one line is enough.
        shown = [name for name in losses if _drawn(phase, name) and (name == "loss" or phase[name] != phase["loss"])]
        if shown:
            drawn.append((heading, figures.curves(phase, shown, y_title="loss")))
    quality = [name for name in WITHOUT_LABELS if _drawn(history, name)]
    if quality:
        drawn.append(("Quality without labels", figures.curves(history, quality, y_title="value")))
    if _drawn(history, "changed"):
        moved = figures.curves(
            history, ["changed"], y_title="share of the nodes", labels={"changed": "changed cluster in the epoch"}
        )
        drawn.append(("Nodes that change their cluster", moved))
    oracle = [f"oracle_{name}" for name in WITH_LABELS if _drawn(history, f"oracle_{name}")]
    if oracle:
        names = {f"oracle_{name}": label for name, label in WITH_LABELS.items()}
        curve = figures.curves(history, oracle, y_title="value", labels=names)
        drawn.append(("With labels, for the oracle only", curve))
    text = (
        f"The warm-up of {warmup} epochs contrasts neighbours with all nodes; then k-means sets the clusters and the "
        "whole loss takes over. Its KL part measures the assignment against a sharpened copy of itself and rises while "
        "nodes leave the middle between clusters. The last epoch is the result."
        if warmup
        else "The last epoch is the result."
    )
    return section(
        "Training", note(text), columns(f"<h3>{name}</h3>{figure_element(figure)}" for name, figure in drawn)
    )


def _epochs(
    history: Mapping[str, Sequence[float | None]], start: int, stop: int | None = None
) -> dict[str, Sequence[float | None]]:
    return {name: column[start:stop] for name, column in history.items()}


def _drawn(history: Mapping[str, Sequence[float | None]], name: str) -> bool:
    return name in history and any(value is not None for value in history[name])


def _estimate(estimate: Mapping[str, Any] | None) -> str:
    if not estimate:
        return ""
    scores = {int(count): float(score) for count, score in estimate["scores"].items()}
    chosen = int(estimate["num_clusters"])
    if estimate["method"] == "eigengap":
        title = "gap"
        text = (
            f"Gap between neighbouring eigenvalues of the graph on {int(estimate['nodes']):,} nodes: the largest "
            f"stands at {chosen}. It speaks of the graph alone, not of the features."
        )
    else:
        title = "agreement (ARI)"
        text = (
            f"Agreement of k-means on pairs of samples of {int(estimate['nodes']):,} nodes (smoothed features): "
            f"{chosen} is the largest number within one standard error of the best."
        )
    figure = figures.score_bars(scores, chosen, y_title=title)
    return section("Number of clusters", note(text), figure_element(figure))
