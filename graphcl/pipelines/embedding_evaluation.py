"""What is said about node embeddings: probes by the papers' protocols, clusters, and measures without labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from graphcl.errors import InputError
from graphcl.graphs.conversion import adjacency
from graphcl.metrics import effective_rank, uniformity
from graphcl.metrics.probe import kmeans_probe, knn_probe, linear_probe, link_prediction_probe, logistic_probe
from graphcl.pipelines.embedding_graphs import EmbeddingGraph, ProbeSplit

__all__ = ["EmbeddingEvaluation", "EmbeddingMetrics", "ProbePlan", "evaluate_embeddings", "validation_scores"]

# Uniformity takes all pairs, k-means and random splits all rows many times: they work on a sample beyond so many.
_PAIR_NODES = 5000
_KMEANS_NODES = 50_000
# Random splits of a graph that comes with none, and the fewest labelled nodes that are worth splitting.
_SPLITS_WITHOUT_MASKS = 5
_SPLIT_NODES = 20
_NEIGHBOURS = 10


@dataclass(frozen=True)
class ProbePlan:
    """How embeddings are probed.

    Attributes:
        learning_rate, weight_decay: of the linear probe.
        repeats: initial weights of the linear probe.
        clusterings: repeats of k-means.
        seed: of every draw.
        random_splits: random splits of the labelled nodes that the logistic regression is measured on; None for some
            where the graph has no masks, and none where it has.
    """

    learning_rate: float = 0.01
    weight_decay: float = 0.0
    repeats: int = 50
    clusterings: int = 10
    seed: int = 0
    random_splits: int | None = None


@dataclass(frozen=True)
class EmbeddingMetrics:
    """Numbers by name; those of a split among several are named ``NAME@SPLIT``."""

    values: Mapping[str, float | None]

    def to_dict(self) -> dict[str, float | None]:
        """The metrics, ready for JSON."""
        return dict(self.values)


@dataclass(frozen=True)
class EmbeddingEvaluation:
    """Metrics of embeddings and the choices that make them comparable.

    Attributes:
        metrics: by name.
        protocol: which probes, on what, by which rule.
        probes: one record a split: sizes of its parts, means and deviations of every probe.
    """

    metrics: EmbeddingMetrics
    protocol: Mapping[str, str]
    probes: tuple[Mapping[str, Any], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """``{"protocol": ..., "metrics": ..., "probes": ...}``, ready for JSON."""
        return {
            "protocol": dict(self.protocol),
            "metrics": self.metrics.to_dict(),
            "probes": [dict(probe) for probe in self.probes],
        }


def evaluate_embeddings(z: Tensor, data: EmbeddingGraph, plan: ProbePlan, *, part: str = "test") -> EmbeddingEvaluation:
    """Measure frozen embeddings.

    With labels and splits: the linear probe of HeCo and MEOW and a k-NN probe, and for graphs of one type the logistic
    regression that GRACE and its followers report. With labels: k-means against them. Always: effective rank,
    uniformity, and for graphs of one type how well similarity tells the edges that were trained on.

    Args:
        z: ``(N, d)`` embeddings of the target nodes.
        data: the graph with its labels and splits.
        plan: of the probes.
        part: ``test``, or ``valid`` for the probes' scores on the validation nodes alone.

    Returns:
        The evaluation.

    Raises:
        InputError: for the part ``valid`` of a graph without labelled splits, or another part.

    Complexity: that of the probes.
    """
    if part not in ("test", "valid"):
        raise InputError(f"a graph has no {part} part", "use test or valid")
    if part == "valid":
        scores = validation_scores(z, data, plan)
        protocol = {"probe": _probe_text(plan), "scored on": "validation nodes, which also choose the step"}
        return EmbeddingEvaluation(EmbeddingMetrics(scores), protocol)
    values: dict[str, float | None] = {}
    protocol = {}
    probes = []
    labels = data.labels
    if labels is not None:
        for split in data.splits:
            record = _probed(z, labels, split, data, plan)
            probes.append(record)
            end = f"@{split.name}" if split.name else ""
            values |= {f"{name}{end}": value for name, value in record.items() if isinstance(value, float)}
        if data.splits:
            protocol["probe"] = _probe_text(plan)
            protocol["k-NN"] = f"majority of {_NEIGHBOURS} nearest training nodes, cosine"
            if any(split.name for split in data.splits):
                protocol["splits"] = ", ".join(split.name for split in data.splits)
        repeats = plan.random_splits
        if repeats is None:
            repeats = 0 if data.splits else _SPLITS_WITHOUT_MASKS
        record = _probed_at_random(z, labels, repeats, plan.seed)
        if record:
            probes.append(record)
            values["logistic_accuracy_random"] = record["logistic_accuracy"]
            values["logistic_accuracy_random_std"] = record["logistic_accuracy_std"]
            protocol["random splits"] = (
                f"logistic regression, mean of {repeats}: a tenth to train, a tenth to choose the penalty, rest to test"
            )
        elif not data.splits:
            protocol["probe"] = "none: the graph has no train_mask, val_mask and test_mask"
        if int(labels.max()) > 0:
            values |= _clusters(z, labels, plan)
            protocol["clusters"] = f"k-means with as many clusters as classes, mean of {plan.clusterings}"
    else:
        protocol["labels"] = "none: only measures without labels"
    values |= _without_labels(z, data, plan)
    if data.kind == "graph":
        protocol["link_auc"] = "edges that were trained on against as many other pairs, cosine"
    return EmbeddingEvaluation(EmbeddingMetrics(values), protocol, tuple(probes))


def validation_scores(
    z: Tensor, data: EmbeddingGraph, plan: ProbePlan, *, splits: tuple[ProbeSplit, ...] | None = None
) -> dict[str, float | None]:
    """Scores of the linear probe on the validation nodes; no test node is looked at.

    Args:
        z: ``(N, d)``.
        data: the graph.
        plan: of the probe.
        splits: those to measure; all of the graph by default.

    Raises:
        InputError: the graph has no labelled splits.
    """
    splits = data.splits if splits is None else splits
    if data.labels is None or not splits:
        raise InputError(
            f"{data.name} has no {'masks' if data.labels is not None else 'labels'} to validate on",
            "give y, train_mask, val_mask and test_mask on the nodes",
        )
    values: dict[str, float | None] = {}
    labels = data.labels.to(z.device)
    for split in splits:
        train, val = split.train.to(z.device), split.val.to(z.device)
        found = linear_probe(
            z, labels, train, val, val, repeats=plan.repeats, learning_rate=plan.learning_rate,
            weight_decay=plan.weight_decay, seed=plan.seed,
        )  # fmt: skip
        end = f"@{split.name}" if split.name else ""
        values |= {
            f"{name}{end}": pair.mean for name, pair in (("macro_f1", found.macro_f1), ("micro_f1", found.micro_f1))
        }
    return values


def _probe_text(plan: ProbePlan) -> str:
    rate, decay = f"{plan.learning_rate:g}", f"{plan.weight_decay:g}"
    return f"linear, 200 steps of Adam (lr {rate}, decay {decay}), step chosen by validation, mean of {plan.repeats}"


def _probed(z: Tensor, labels: Tensor, split: ProbeSplit, data: EmbeddingGraph, plan: ProbePlan) -> dict[str, Any]:
    linear = linear_probe(
        z, labels, split.train, split.val, split.test, repeats=plan.repeats, learning_rate=plan.learning_rate,
        weight_decay=plan.weight_decay, seed=plan.seed,
    )  # fmt: skip
    record: dict[str, Any] = {
        "split": split.name,
        **{part: int(getattr(split, part).sum()) for part in ("train", "val", "test")},
        **{name: value for name, value in linear.to_dict().items() if name != "repeats"},
    }
    record["knn_accuracy"] = knn_probe(z, labels, split.train, split.test, k=_NEIGHBOURS).accuracy
    if data.kind == "graph" and torch.unique(labels[split.train]).numel() > 1:
        record["logistic_accuracy"] = logistic_probe(z, labels, split.train, split.test, val=split.val).accuracy
    return record


def _probed_at_random(z: Tensor, labels: Tensor, repeats: int, seed: int) -> dict[str, Any]:
    """Logistic regression on random splits of 10, 10 and 80 percent (GRACE), mean and deviation over them."""
    nodes = (labels >= 0).nonzero()[:, 0]
    if repeats < 1 or nodes.shape[0] < _SPLIT_NODES:
        return {}
    generator = torch.Generator().manual_seed(seed)
    part = min(nodes.shape[0], _KMEANS_NODES) // 10
    found = []
    for _ in range(repeats):
        order = nodes[torch.randperm(nodes.shape[0], generator=generator)][: 10 * part + 9]
        train, val, test = order[:part], order[part : 2 * part], order[2 * part :]
        if torch.unique(labels[train]).numel() < 2:
            return {}
        found.append(logistic_probe(z, labels, train, test, val=val).accuracy)
    scores = torch.tensor(found, dtype=torch.float64)
    return {
        "split": "random",
        "train": part,
        "val": part,
        "test": int(test.shape[0]),
        "logistic_accuracy": float(scores.mean()),
        "logistic_accuracy_std": float(scores.std(correction=0)),
    }


def _clusters(z: Tensor, labels: Tensor, plan: ProbePlan) -> dict[str, float]:
    rows = _sample(z.shape[0], _KMEANS_NODES, plan.seed)
    classes = int(labels.max()) + 1
    if classes > rows.shape[0]:
        return {}
    found = kmeans_probe(z[rows], labels[rows], num_clusters=classes, repeats=plan.clusterings, seed=plan.seed)
    return {
        name: value
        for name, value in found.to_dict().items()
        if name in ("nmi", "nmi_std", "ari", "ari_std") and isinstance(value, float)
    }


def _without_labels(z: Tensor, data: EmbeddingGraph, plan: ProbePlan) -> dict[str, float | None]:
    values: dict[str, float | None] = {"effective_rank": effective_rank(z)}
    if z.shape[0] > 1:
        values["uniformity"] = uniformity(z[_sample(z.shape[0], _PAIR_NODES, plan.seed)])
    if data.kind == "graph":
        matrix = adjacency(data.graph)
        edges = matrix.num_entries // 2
        pairs = data.num_nodes * (data.num_nodes - 1) // 2
        if 0 < min(edges, 100_000) <= pairs - edges:
            values["link_auc"] = link_prediction_probe(z, matrix, seed=plan.seed).auc
    return values


def _sample(size: int, most: int, seed: int) -> Tensor:
    if size <= most:
        return torch.arange(size)
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed))[:most].sort().values
