"""Node clustering: from a graph, or vectors alone, to clusters that are measured, saved and can be looked at."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from graphcl.errors import InputError
from graphcl.kernels import SparseMatrix
from graphcl.metrics import project_2d, sample_for_map
from graphcl.metrics.clustering import clustering_metrics
from graphcl.models.base_clustering import ClusteringBatch
from graphcl.models.settings import Rate
from graphcl.pipelines.base import Embeddings, PipelineSettings, TrainedPipeline
from graphcl.pipelines.cluster_baselines import kmeans_labels
from graphcl.pipelines.cluster_evaluation import (
    ClusteringEvaluation,
    baseline_table,
    cluster_tables,
    compared_metrics,
    evaluate_clusters,
    read_labels,
)
from graphcl.pipelines.cluster_graphs import GRAPH, NODES, ClusterGraph, NumClusters, cluster_graph, read_cluster_graph
from graphcl.pipelines.node_batches import FullGraph, NodeBatches
from graphcl.pipelines.runs import ANALYSIS, RunFolder, write_by_rename, write_json

if TYPE_CHECKING:
    import polars

    from graphcl.pipelines.training import EpochSource, TrainingPlan, Validate

IntArray = npt.NDArray[np.int64]

CLUSTERS = "clusters.parquet"
NODE_MAP = "node_map.parquet"
_MAP_NODES = 3000
_CHECKPOINT_SECONDS = 60.0
# Nodes at a time where all are encoded and the encoder needs no graph.
_ENCODED_ROWS = 65_536
# Silhouettes for the history are measured on a sample; that of the result on more.
_HISTORY_SILHOUETTE = 1000
_ORACLE = ("accuracy", "nmi", "ari", "macro_f1")


class ClusteringSettings(PipelineSettings):
    """Settings of :class:`NodeClusterer` beside those of its model.

    Args:
        num_clusters: a number; ``eigengap`` or ``stability`` to estimate it; None takes the number of classes where the
            graph has labels and ``stability`` where it has none.
        max_clusters: largest number that an estimate considers.
        epochs: epochs after the warm-up.
        warmup_epochs: epochs of plain contrast before the first centres are set by k-means.
        weight_decay: L2 penalty of Adam.
        batch_size: nodes a step; None takes the whole graph as one step.
        fanout: most neighbours a node and layer in a batch, for encoders that pass messages; None for all.
        stop_share: stop when fewer than this share of the nodes changed their cluster since the last measurement,
            ``patience`` times in a row; 0 goes through all epochs.
        patience: see ``stop_share``.
        measure_every: epochs between measurements of label-free quality for the history.
        oracle: also record the best value over the epochs of each metric that needs labels. It is never used for
            anything and is no result: it looks at what it is measured by.
        baselines: also run k-means and spectral clustering, for the run folder.
        neighbours: of each node in the graph that is built for vectors alone.
        neighbour_search: ``exact``, or ``faiss`` for approximate neighbours of many vectors.
    """

    num_clusters: Annotated[int, Field(ge=2)] | Literal["eigengap", "stability"] | None = None
    max_clusters: Annotated[int, Field(ge=2)] = 20
    epochs: PositiveInt = 200
    warmup_epochs: NonNegativeInt = 40
    weight_decay: NonNegativeFloat = 0.0
    batch_size: Annotated[int, Field(ge=2)] | None = None
    fanout: PositiveInt | None = 10
    stop_share: Rate = 0.0
    patience: PositiveInt = 3
    measure_every: PositiveInt = 10
    oracle: bool = False
    baselines: bool = True
    neighbours: PositiveInt = 5
    neighbour_search: Literal["exact", "faiss"] = "exact"


class NodeClusterer(TrainedPipeline[ClusterGraph]):
    """Cluster the nodes of a graph with a contrastive model; measure, save, load.

    Training knows no labels and picks nothing by them: it runs a fixed number of epochs, or until the clusters settle,
    and the last epoch is the result.

    Args:
        model: name of a clustering model, see :func:`graphcl.models.list_models`.
        num_clusters: see :class:`ClusteringSettings`.
        **settings: settings of :class:`ClusteringSettings` and of the model's configuration class together.

    Raises:
        InputError: for an unknown model or setting, with the nearest known name, or a value out of range.

    Example:
        >>> import networkx
        >>> graph = networkx.planted_partition_graph(2, 20, 0.6, 0.02, seed=0)
        >>> clusterer = NodeClusterer(num_clusters=2, epochs=5, warmup_epochs=5, progress=False).fit(graph)
        >>> clusterer.predict().columns
        ['node', 'cluster', 'confidence']
    """

    task: ClassVar[str] = "clustering"
    data_kind: ClassVar[Literal["graph"]] = "graph"
    embeds: ClassVar[tuple[str, ...]] = ("nodes",)
    noun: ClassVar[str] = "clusterer"
    settings_class: ClassVar[type[PipelineSettings]] = ClusteringSettings
    free_on_resume: ClassVar[tuple[str, ...]] = (
        "epochs", "stop_share", "patience", "baselines", "devices", "accelerator", "progress",
    )  # fmt: skip
    artefacts: ClassVar[tuple[str, ...]] = (GRAPH, NODES, CLUSTERS, NODE_MAP)
    packages: ClassVar[tuple[str, ...]] = ("scikit-learn", "scipy")

    def __init__(self, model: str = "pamc", num_clusters: NumClusters = None, **settings: Any) -> None:
        super().__init__(model, num_clusters=num_clusters, **settings)
        self._inputs: _Inputs | None = None
        self._found: _Found | None = None

    @property
    def num_clusters(self) -> int:
        """Clusters of the fitted model, given or estimated.

        Raises:
            InputError: when not fitted.
        """
        return self._fitted()[1].num_clusters

    # What the data are

    def _accept(self, data: Any) -> ClusterGraph:
        settings = self.settings
        return cluster_graph(
            data,
            settings.num_clusters,
            max_clusters=settings.max_clusters,
            neighbours=settings.neighbours,
            neighbour_search=settings.neighbour_search,
            seed=settings.seed,
        )

    def _hash_data(self, data: ClusterGraph) -> str:
        return data.content_hash()

    def _describe_data(self, data: ClusterGraph) -> dict[str, Any]:
        return {
            "source": data.name,
            "hash": data.content_hash(),
            "nodes": data.num_nodes,
            "edges": data.num_edges,
            "feature_columns": data.x.shape[1],
            "labelled_nodes": 0 if data.labels is None else int((data.labels >= 0).sum()),
            **data.facts,
        }

    def _write_data(self, folder: RunFolder, data: ClusterGraph) -> None:
        data.write(folder.path)

    def _read_data(self, folder: RunFolder) -> ClusterGraph:
        return read_cluster_graph(folder.path)

    # Training

    def _build_model(self, data: ClusterGraph, generator: torch.Generator) -> nn.Module:
        model: nn.Module = self.model_class(data.x.shape[1], data.num_clusters, self.model_config, generator=generator)
        return model

    def _training(self, model: Any, data: ClusterGraph) -> tuple[EpochSource, Validate | None, TrainingPlan]:
        from graphcl.pipelines.training import TrainingPlan

        settings = self.settings
        if settings.devices > 1:
            raise InputError(
                f"{settings.devices} devices were asked for, and clustering trains on one", "use devices=1"
            )
        if settings.oracle and data.labels is None:
            raise InputError("an oracle was asked for and the graph has no labels", "leave oracle out")
        self._found = None
        inputs = self._prepared(model, data)
        steps: FullGraph | NodeBatches
        if settings.batch_size is None:
            steps = FullGraph(inputs.full_batch())
        else:
            fanout = (settings.fanout,) * (model.num_hops if model.needs_graph else 0)
            steps = NodeBatches(
                inputs.x, inputs.influence, inputs.propagation, settings.batch_size, fanout, seed=settings.seed
            )
        every = 1 if settings.oracle else settings.measure_every
        source = _TwoPhases(model, inputs, steps, warmup_epochs=settings.warmup_epochs, seed=settings.seed, every=every)
        plan = TrainingPlan(
            epochs=settings.warmup_epochs + settings.epochs,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            finished=_Settled(settings.stop_share, settings.patience) if settings.stop_share else None,
            validate_every=every,
            checkpoint_seconds=_CHECKPOINT_SECONDS,
            seed=settings.seed,
            unit="nodes",
            accelerator=settings.accelerator,
            progress=settings.progress,
        )
        return source, _Quality(data, source, oracle=settings.oracle), plan

    # Results

    def predict(self) -> polars.DataFrame:
        """The cluster of every node.

        Returns:
            A polars frame with columns node (external id), cluster (0..K-1) and confidence (its share in the soft
            assignment), in the order of the nodes.

        Raises:
            InputError: when not fitted.
        """
        import polars as pl

        found, data = self._results(), self._fitted()[1]
        confidence = found.shares.numpy()[np.arange(data.num_nodes), found.clusters]
        return pl.DataFrame({"node": data.ids, "cluster": found.clusters, "confidence": confidence})

    def predict_proba(self) -> Embeddings:
        """The soft assignment: ``vectors[i, k]`` is the share of cluster k in node i; rows sum to 1.

        Raises:
            InputError: when not fitted.
        """
        return Embeddings(self._fitted()[1].ids.to_numpy(), self._results().shares.numpy())

    def embed(self, what: Literal["nodes"] = "nodes") -> Embeddings:
        """Embeddings of the nodes with their external ids.

        Args:
            what: ``nodes``, the only kind there is.

        Raises:
            InputError: when not fitted.
            ValueError: for another ``what``.
        """
        found = self._results()
        if what != "nodes":
            raise ValueError(f"what must be 'nodes', got {what!r}")
        return Embeddings(self._fitted()[1].ids.to_numpy(), found.z.numpy())

    def evaluate(self, split: Any = "test", *, labels: Any = None) -> ClusteringEvaluation:
        """Measure the clusters: against labels where there are any, and against graph and embeddings always.

        Args:
            split: clustering has no parts; ``test`` stands for all nodes. Anything else is taken for ``labels``.
            labels: a class for each node, in the order of the nodes, -1 or None for a node without one; those of the
                graph by default.

        Returns:
            ACC (after the best matching of clusters with classes), NMI, ARI, macro-F1 with labels; modularity,
            conductance and silhouette (on the embeddings) always.

        Raises:
            InputError: when not fitted, for labels of another number than nodes, or for the part ``valid``.
        """
        _, data = self._fitted()
        if isinstance(split, str):
            if split != "test":
                raise InputError(f"clustering has no {split} part", "evaluate without a split: all nodes are measured")
        else:
            labels = split if labels is None else labels
        codes = data.labels if labels is None else read_labels(labels, data.num_nodes)
        found = self._results()
        return evaluate_clusters(found.clusters, data, found.z, labels=codes, protocol=self._protocol(data, codes))

    def _protocol(self, data: ClusterGraph, labels: Tensor | None) -> dict[str, str]:
        settings = self.settings
        if data.estimate is not None:
            origin = f"estimated by {data.estimate.method}"
        else:
            origin = "given" if settings.num_clusters is not None else "the number of classes"
        protocol = {
            "result": f"last epoch ({self._state.epoch}); no label was seen in training or selection",
            "clusters": f"{data.num_clusters}, {origin}",
            "nodes": f"{data.num_nodes:,}",
            "modularity and conductance": f"on the graph of {data.num_edges:,} undirected edges",
            "silhouette": "Euclidean, on the embeddings",
        }
        if labels is not None:
            known = int((labels >= 0).sum())
            protocol["labels"] = f"{known:,} nodes, matched one to one with clusters (rectangular Hungarian)"
        return protocol

    def _results(self) -> _Found:
        """Embeddings and assignments of the fitted model, computed once."""
        if self._found is None:
            model, data = self._fitted()
            self._found = _found(model, self._prepared(model, data))
        return self._found

    def _prepared(self, model: Any, data: ClusterGraph) -> _Inputs:
        if self._inputs is None or self._inputs.model is not model:
            self._inputs = _Inputs(model, data)
        return self._inputs

    def _write_results(self, folder: RunFolder, model: Any, data: ClusterGraph) -> dict[str, Any]:
        import polars as pl

        found = self._results()
        predicted = self.predict()
        write_by_rename(folder.path / CLUSTERS, predicted.write_parquet)
        coordinates, explained = project_2d(found.z.numpy(), normalize=True)
        degree = data.adjacency.row_offsets.diff().numpy()
        shown = sample_for_map(degree, _MAP_NODES, np.random.default_rng(self.settings.seed))
        table = predicted[shown].with_columns(
            x=pl.Series(coordinates[shown, 0]), y=pl.Series(coordinates[shown, 1]), degree=pl.Series(degree[shown])
        )
        if data.labels is not None:
            names = [str(name) for name in data.label_names]
            codes = data.labels.numpy()[shown].tolist()
            label = [None if code < 0 else names[code] if code < len(names) else str(code) for code in codes]
            table = table.with_columns(label=pl.Series(label, dtype=pl.String))
        write_by_rename(folder.path / NODE_MAP, table.write_parquet)
        about = {"explained_variance": list(explained), "nodes": data.num_nodes, "shown": int(shown.size)}
        write_json(folder.path / ANALYSIS, {**cluster_tables(found.clusters, data, found.z), "node_map": about})
        evaluation = self.evaluate()
        return {
            "protocol": dict(evaluation.protocol),
            "validation": {},
            "test": evaluation.metrics.to_dict(),
            "baselines": self._baselines(model, data) if self.settings.baselines else [],
            "oracle": oracle_values(self._state.history) if self.settings.oracle else None,
            "warmup_epochs": min(self.settings.warmup_epochs, self._state.epoch),
            "estimate": None if data.estimate is None else data.estimate.to_dict(),
        }

    def _baselines(self, model: Any, data: ClusterGraph) -> list[dict[str, Any]]:
        seed = self.settings.seed
        prepared = kmeans_labels(self._prepared(model, data).x, data.num_clusters, seed=seed)
        own = {"name": "k-means, model input", "metrics": compared_metrics(prepared, data)}
        return [*baseline_table(data, seed=seed), own]


@dataclass(frozen=True)
class _Found:
    """Embeddings [N, d], soft assignment [N, K] and clusters [N] of a fitted model."""

    z: Tensor
    shares: Tensor
    clusters: IntArray


class _Inputs:
    """What a model works on, prepared once: features, the operator of its encoder, and positives when asked for."""

    def __init__(self, model: Any, data: ClusterGraph) -> None:
        self.model = model
        self.graph: SparseMatrix = model.prepare_graph(data.x, data.adjacency)
        self.x: Tensor = model.prepare_features(data.x, self.graph)
        self.propagation: SparseMatrix | None = model.propagation(self.graph)

    @cached_property
    def influence(self) -> SparseMatrix:
        """Positives; only training needs them."""
        positives: SparseMatrix = self.model.influence(self.graph)
        return positives

    def full_batch(self) -> ClusteringBatch:
        size = self.x.shape[0]
        return ClusteringBatch(
            x=self.x,
            influence=self.influence,
            graph=self.propagation,
            num_anchors=size,
            phase="cluster",
            cluster_mass=None,
            total=float(size),
        )


def _device(model: Any) -> torch.device:
    device: torch.device = next(model.parameters()).device
    return device


def _split(rows: Tensor) -> Iterator[Tensor]:
    for start in range(0, rows.shape[0], _ENCODED_ROWS):
        yield rows[start : start + _ENCODED_ROWS]


@torch.no_grad()
def _encode(model: Any, inputs: _Inputs) -> Tensor:
    """[N, d] embeddings in evaluation mode, on the CPU."""
    device = _device(model)
    was_training = model.training
    model.eval()
    if inputs.propagation is None:
        parts = [model.encode(rows.to(device), None).cpu() for rows in _split(inputs.x)]
        z = torch.cat(parts)
    else:
        z = model.encode(inputs.x.to(device), inputs.propagation.to(device)).cpu()
    model.train(was_training)
    return z


@torch.no_grad()
def _found(model: Any, inputs: _Inputs) -> _Found:
    z, device = _encode(model, inputs), _device(model)
    shares = torch.cat([model.soft_assignment(rows.to(device)).cpu() for rows in _split(z)])
    return _Found(z, shares, shares.argmax(dim=1).numpy())


class _TwoPhases:
    """The epochs of a training: contrast alone in the warm-up, then first centres by k-means, then all of the loss.

    An epoch of the source begins when its first step is drawn, after the last step of the epoch before.
    """

    def __init__(
        self, model: Any, inputs: _Inputs, steps: FullGraph | NodeBatches, *, warmup_epochs: int, seed: int, every: int
    ) -> None:
        self.model = model
        self.inputs = inputs
        self.steps = steps
        self.warmup_epochs = warmup_epochs
        self.seed = seed
        self.every = every
        self.before: IntArray | None = None
        self.clustering = False

    @property
    def num_targets(self) -> int:
        """Nodes of the graph."""
        return self.steps.num_targets

    def batches(self, epoch: int, rank: int, world: int) -> Iterator[ClusteringBatch]:
        """The steps of an epoch, told which phase it is in."""
        self.before = None
        self.clustering = epoch >= self.warmup_epochs
        if isinstance(self.steps, FullGraph):
            self.steps.keep_on(_device(self.model))
        if epoch < self.warmup_epochs:
            for batch in self.steps.batches(epoch, rank, world):
                yield replace(batch, phase="warmup")
            return
        if epoch == self.warmup_epochs:
            self.model.initialize_clusters(_encode(self.model, self.inputs).to(_device(self.model)), self.seed)
        in_batches = isinstance(self.steps, NodeBatches)
        measured = (epoch + 1) % self.every == 0
        found = _found(self.model, self.inputs) if in_batches or measured else None
        if found is not None and measured:
            self.before = found.clusters
        mass = found.shares.sum(dim=0) if found is not None and in_batches else None
        for batch in self.steps.batches(epoch, rank, world):
            yield replace(batch, phase="cluster", cluster_mass=mass)


class _Quality:
    """What is measured while training: quality without labels, how much the clusters still move, and the oracle."""

    def __init__(self, data: ClusterGraph, source: _TwoPhases, *, oracle: bool) -> None:
        self.data = data
        self.source = source
        self.oracle = oracle

    def __call__(self, model: nn.Module) -> dict[str, float]:
        if not self.source.clustering:
            return {}
        found = _found(model, self.source.inputs)
        labels = self.data.labels if self.oracle else None
        metrics = clustering_metrics(
            found.clusters, labels=labels, graph=self.data.adjacency, x=found.z, sample=_HISTORY_SILHOUETTE
        ).to_dict()
        record = {
            name: float(value)
            for name in ("modularity", "conductance", "silhouette")
            if (value := metrics[name]) is not None and math.isfinite(value)
        }
        if self.source.before is not None:
            record["changed"] = float((self.source.before != found.clusters).mean())
        record["clusters_used"] = float(metrics["num_clusters"] or 0)
        if self.oracle:
            record |= {f"oracle_{name}": float(metrics[name] or 0.0) for name in _ORACLE}
        return record


@dataclass(frozen=True)
class _Settled:
    """Whether fewer than a share of the nodes changed their cluster at each of the last measurements."""

    share: float
    patience: int

    def __call__(self, history: Sequence[Mapping[str, float]]) -> bool:
        moves = [record["changed"] for record in history if "changed" in record]
        return len(moves) >= self.patience and max(moves[-self.patience :]) < self.share


def oracle_values(history: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Best value over the epochs of each metric that needs labels, each at its own epoch, as the reference reports it.

    Args:
        history: one record an epoch with ``oracle_*`` columns.

    Returns:
        Metric to ``value`` and ``epoch``.

    Example:
        >>> oracle_values([{"epoch": 1, "oracle_nmi": 0.2}, {"epoch": 2, "oracle_nmi": 0.1}])
        {'nmi': {'value': 0.2, 'epoch': 1}}
    """
    best: dict[str, dict[str, float]] = {}
    for name in _ORACLE:
        column = [(record[f"oracle_{name}"], record["epoch"]) for record in history if f"oracle_{name}" in record]
        if column:
            value, epoch = max(column, key=lambda entry: entry[0])
            best[name] = {"value": value, "epoch": epoch}
    return best
