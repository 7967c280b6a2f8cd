"""Node embeddings: from a graph to vectors of its nodes that are probed, saved and can be looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from graphcl.errors import InputError
from graphcl.graphs.metapath import parse_metapath
from graphcl.graphs.metapath_construction import named_metapaths
from graphcl.metrics import project_2d, sample_for_map
from graphcl.models import build_config, get_model, nearest_names
from graphcl.models.base_embedding import EmbeddingInputs, NodeBatch, Preset
from graphcl.nn.heterogeneous import SemanticAttention
from graphcl.pipelines.base import Embeddings, PipelineSettings, TrainedPipeline
from graphcl.pipelines.embedding_evaluation import (
    EmbeddingEvaluation,
    ProbePlan,
    evaluate_embeddings,
    validation_scores,
)
from graphcl.pipelines.embedding_graphs import GRAPH, NODES, EmbeddingGraph, embedding_graph, read_embedding_graph
from graphcl.pipelines.runs import ANALYSIS, RunFolder, write_by_rename, write_json

if TYPE_CHECKING:
    from graphcl.pipelines.training import EpochSource, TrainingPlan, Validate

NODE_MAP = "node_map.parquet"
_MAP_NODES = 3000
_CHECKPOINT_SECONDS = 60.0
# Repeats of the probe while training; the result is measured with all of them.
_VALIDATION_REPEATS = 5
# Fields of a preset that are settings of the pipeline.
_OF_PRESET = (
    "learning_rate", "weight_decay", "epochs", "min_epochs", "stop", "patience", "keep", "probe_learning_rate",
    "probe_weight_decay",
)  # fmt: skip


class EmbeddingSettings(PipelineSettings):
    """Settings of :class:`NodeEmbedder` beside those of its model.

    What is not given comes from the model's preset for the data set, or from its default preset.

    Args:
        preset: name of a preset of the model, such as ``acm``; None for the one with the name of the data set, or
            ``default``.
        weight_decay: L2 penalty of Adam.
        stop: end after ``patience`` epochs without a lower training loss (``loss``, as most papers' code) or without a
            better linear probe on the validation nodes (``validation``), or go through all epochs (``never``).
        patience: see ``stop``.
        min_epochs: patience ends nothing before so many epochs.
        keep: weights to end with: those of the ``last`` epoch, or of the ``best`` one by what ``stop`` watches; for
            ``validation`` the best by default.
        validate_every: epochs between validations.
        probe_learning_rate, probe_weight_decay: of the linear probe.
        probe_repeats: initial weights of the linear probe.
        clusterings: repeats of k-means on the embeddings.
        random_splits: random splits of 10, 10 and 80 percent that logistic regression is measured on (GRACE); when
            None, 5 where the graph has labels and no masks, else none.
    """

    preset: str | None = None
    epochs: PositiveInt = 1000
    min_epochs: NonNegativeInt = 0
    weight_decay: NonNegativeFloat = 0.0
    stop: Literal["loss", "validation", "never"] = "loss"
    patience: PositiveInt = 20
    keep: Literal["last", "best"] = "last"
    validate_every: PositiveInt = 10
    probe_learning_rate: PositiveFloat = 0.01
    probe_weight_decay: NonNegativeFloat = 0.0
    probe_repeats: PositiveInt = 50
    clusterings: PositiveInt = 10
    random_splits: NonNegativeInt | None = None


class NodeEmbedder(TrainedPipeline[EmbeddingGraph]):
    """Embed the nodes of a graph, with or without types, by a contrastive model; measure, save, load.

    Labels are never seen in training. By default they choose nothing either: training ends as in the paper's code.

    Args:
        model: name of an embedding model, see :func:`graphcl.models.list_models`.
        **settings: settings of :class:`EmbeddingSettings` and of the model's configuration class together.

    Raises:
        InputError: for an unknown model, preset or setting, with the nearest known name, or a value out of range.

    Example:
        >>> from torch_geometric.data import HeteroData
        >>> graph = HeteroData(metapaths=["PAP"], target="paper")
        >>> graph["paper"].x, graph["author"].num_nodes = torch.eye(6), 3
        >>> graph["paper", "to", "author"].edge_index = torch.tensor([[0, 1, 2, 3, 4, 5], [0, 0, 1, 1, 2, 2]])
        >>> embedder = NodeEmbedder("heco", hidden=8, num_positives=2, epochs=2, progress=False).fit(graph)
        >>> embedder.embed().vectors.shape
        (6, 8)
    """

    task: ClassVar[str] = "embedding"
    data_kind: ClassVar[Literal["graph"]] = "graph"
    embeds: ClassVar[tuple[str, ...]] = ("nodes",)
    noun: ClassVar[str] = "embedder"
    settings_class: ClassVar[type[PipelineSettings]] = EmbeddingSettings
    free_on_resume: ClassVar[tuple[str, ...]] = (
        "epochs", "min_epochs", "patience", "probe_repeats", "clusterings", "random_splits", "devices", "accelerator",
        "progress",
    )  # fmt: skip
    artefacts: ClassVar[tuple[str, ...]] = (GRAPH, NODES, NODE_MAP)
    packages: ClassVar[tuple[str, ...]] = ("torch-geometric", "scikit-learn", "scipy")

    def __init__(self, model: str, **settings: Any) -> None:
        self._given = dict(settings)
        self._resolved = False
        self._inputs: EmbeddingInputs | None = None
        self._embedded: Tensor | None = None
        name = settings.get("preset")
        super().__init__(model, **_with_preset(get_model(model, task=self.task), name, self._given))

    def get_config(self) -> dict[str, Any]:
        """Every setting by name once it is fitted; before that those that were given, as the data set decides others.

        Returns:
            What :meth:`from_config` makes an equal pipeline of.
        """
        config = super().get_config()
        if not self._resolved:
            return {name: value for name, value in config.items() if name == "model" or name in self._given}
        return config

    # What the data are

    def _accept(self, data: Any) -> EmbeddingGraph:
        wanted = self.model_class.data_kind
        accepted = embedding_graph(data, self._given.get("target"), kind=wanted)
        if accepted.kind != wanted:
            other = "a heterogeneous graph" if wanted == "heterogeneous" else "a graph of one type of nodes"
            raise InputError(
                f"{self.model_name} trains on {other}, and {accepted.name} is none", "give another graph or model"
            )
        self._resolve(accepted.name)
        self._inputs = self._embedded = None
        return accepted

    def _resolve(self, data_name: str) -> None:
        """Settle what was not given by the preset for a data set."""
        name = self._given.get("preset") or (data_name if data_name in self.model_class.presets else "default")
        values = {**_with_preset(self.model_class, name, self._given), "preset": name}
        own = {key: value for key, value in values.items() if key in self.settings_class.model_fields}
        self.settings = build_config(self.settings_class, own)
        rest = {key: value for key, value in values.items() if key not in own}
        self.model_config = build_config(self.model_class.config_class, rest)
        self._resolved = True

    def _hash_data(self, data: EmbeddingGraph) -> str:
        return data.content_hash()

    def _describe_data(self, data: EmbeddingGraph) -> dict[str, Any]:
        about: dict[str, Any] = {
            "source": data.name,
            "hash": data.content_hash(),
            "nodes": data.num_nodes,
            "edges": data.num_edges,
            "labelled_nodes": 0 if data.labels is None else int((data.labels >= 0).sum()),
            "splits": len(data.splits),
        }
        if data.kind == "heterogeneous":
            about["target"] = data.target
            about["node_types"] = list(data.graph.node_types)
            about["edge_types"] = ["-".join(kind) for kind in data.graph.edge_types]
        return about

    def _write_data(self, folder: RunFolder, data: EmbeddingGraph) -> None:
        data.write(folder.path)

    def _read_data(self, folder: RunFolder) -> EmbeddingGraph:
        data = read_embedding_graph(folder.path)
        self._resolve(data.name)
        return data

    # Training

    def _build_model(self, data: EmbeddingGraph, generator: torch.Generator) -> nn.Module:
        # Masks and orders come from the generator: a loaded run prepares the same inputs again.
        self._inputs = self.model_class.prepare(data.graph, self.model_config, generator=generator)
        model: nn.Module = self.model_class.from_inputs(self._inputs, self.model_config, generator=generator)
        return model

    def _training(self, model: Any, data: EmbeddingGraph) -> tuple[EpochSource, Validate | None, TrainingPlan]:
        from graphcl.pipelines.training import TrainingPlan

        settings, inputs = self.settings, self._prepared()
        if settings.devices > 1:
            raise InputError(f"{settings.devices} devices were asked for, and embeddings train on one", "use devices=1")
        batch_size = getattr(self.model_config, "batch_size", None)
        source: _FullSteps | _SampledSteps
        if batch_size is None:
            source = _FullSteps(model, inputs)
        else:
            source = _SampledSteps(inputs, batch_size, tuple(self.model_config.fanout), settings.seed)
        validate, metric = None, None
        if settings.stop == "validation":
            validation = _Validation(data, inputs, self._probe_plan(_VALIDATION_REPEATS), self.model_config)
            validation.require()
            validate, metric = validation, "macro_f1"
        plan = TrainingPlan(
            epochs=settings.epochs,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            metric=metric,
            stop="metric" if settings.stop == "validation" else settings.stop,
            keep=settings.keep,
            patience=settings.patience,
            min_epochs=settings.min_epochs,
            validate_every=settings.validate_every,
            checkpoint_seconds=_CHECKPOINT_SECONDS,
            seed=settings.seed,
            unit="nodes",
            accelerator=settings.accelerator,
            progress=settings.progress,
        )
        return source, validate, plan

    def _prepared(self) -> EmbeddingInputs:
        if self._inputs is None:
            raise InputError("the embedder is not fitted", "call fit first, or load a run folder")
        return self._inputs

    def _probe_plan(self, repeats: int | None = None) -> ProbePlan:
        settings = self.settings
        return ProbePlan(
            settings.probe_learning_rate,
            settings.probe_weight_decay,
            repeats or settings.probe_repeats,
            settings.clusterings,
            settings.seed,
            settings.random_splits,
        )

    # Results

    def embed(self, what: Literal["nodes"] = "nodes") -> Embeddings:
        """Embeddings of the (target) nodes with their external ids.

        Args:
            what: ``nodes``, the only kind there is.

        Raises:
            InputError: when not fitted.
            ValueError: for another ``what``.
        """
        _, data = self._fitted()
        if what != "nodes":
            raise ValueError(f"what must be 'nodes', got {what!r}")
        return Embeddings(data.ids.to_numpy(), self._vectors().numpy())

    def evaluate(self, split: Literal["valid", "test"] = "test") -> EmbeddingEvaluation:
        """Probe the embeddings on the splits of the graph.

        Args:
            split: ``test``: the papers' protocols on every split of the masks, k-means against the labels, and measures
                that need no label, which are all that is left for a graph without any. ``valid``: the linear probe
                scored on the validation nodes.

        Returns:
            Metrics, protocol and one record a split; metrics of a split among several are named ``macro_f1@20``.

        Raises:
            InputError: when not fitted, or for ``valid`` where the graph has no labels or no masks.
        """
        _, data = self._fitted()
        found = evaluate_embeddings(self._vectors(), data, self._probe_plan(), part=split)
        return EmbeddingEvaluation(found.metrics, {**self._protocol(), **found.protocol}, found.probes)

    def _protocol(self) -> dict[str, str]:
        settings, state = self.settings, self._state
        if settings.stop == "validation":
            result = f"epoch {state.best_epoch}, chosen by the linear probe on the validation nodes"
        else:
            kept = "lowest training loss" if settings.keep == "best" else "last"
            result = f"epoch {state.best_epoch} ({kept}); no label was seen in training or selection"
        return {"result": result, "preset": str(settings.preset)}

    def _vectors(self) -> Tensor:
        """Embeddings of the fitted model, computed once."""
        model, _ = self._fitted()
        if self._embedded is None:
            self._embedded = _embed_all(model, self._prepared(), self.model_config)
        return self._embedded

    def _fit(self, data: EmbeddingGraph, folder: RunFolder, *, resume: bool, overwrite: bool) -> NodeEmbedder:
        fitted = super()._fit(data, folder, resume=resume, overwrite=overwrite)
        self._embedded = None
        return fitted

    def _write_results(self, folder: RunFolder, model: Any, data: EmbeddingGraph) -> dict[str, Any]:
        import polars as pl

        z = self._vectors()
        coordinates, explained = project_2d(z.numpy(), normalize=True)
        shown = sample_for_map(np.ones(data.num_nodes), _MAP_NODES, np.random.default_rng(self.settings.seed))
        table = pl.DataFrame({"node": data.ids[shown], "x": coordinates[shown, 0], "y": coordinates[shown, 1]})
        if data.labels is not None:
            names = [str(name) for name in data.label_names]
            codes = data.labels.numpy()[shown].tolist()
            label = [None if code < 0 else names[code] if code < len(names) else str(code) for code in codes]
            table = table.with_columns(label=pl.Series(label, dtype=pl.String))
        write_by_rename(folder.path / NODE_MAP, table.write_parquet)
        about = {"explained_variance": list(explained), "nodes": data.num_nodes, "shown": int(shown.size)}
        attention = _attention(model, self._prepared(), self.model_config, data)
        write_json(folder.path / ANALYSIS, {"node_map": about, "attention": attention})
        evaluation = self.evaluate()
        validation = validation_scores(z, data, self._probe_plan(_VALIDATION_REPEATS)) if data.splits else {}
        return {
            "protocol": dict(evaluation.protocol),
            "validation": validation,
            "test": evaluation.metrics.to_dict(),
            "probes": [dict(probe) for probe in evaluation.probes],
        }


def _with_preset(model_class: Any, name: str | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a preset, with those that were given over them."""
    presets: Mapping[str, Preset] = model_class.presets
    key = name or "default"
    if key not in presets:
        raise InputError(f"unknown preset {name!r}", nearest_names(str(key), presets))
    preset = presets[key]
    values = {**{field: getattr(preset, field) for field in _OF_PRESET}, **preset.model}
    if given.get("stop") == "validation":
        values["keep"] = "best"
    return {**values, **given}


@dataclass
class _FullSteps:
    """An epoch of one step over all nodes; the batch is moved to the model's device once and kept there."""

    model: Any
    inputs: EmbeddingInputs
    _batch: NodeBatch | None = field(default=None, init=False)

    @property
    def num_targets(self) -> int:
        """Nodes that get an embedding."""
        return self.inputs.num_nodes

    def batches(self, epoch: int, rank: int, world: int) -> Iterator[NodeBatch]:
        """The one step."""
        if self._batch is None:
            self._batch = self.inputs.full().to(_device(self.model))
        yield self._batch


@dataclass(frozen=True)
class _SampledSteps:
    """Epochs that visit every node once, in a new order, with sampled neighbours: a function of (seed, epoch)."""

    inputs: EmbeddingInputs
    batch_size: int
    fanout: tuple[int | None, ...]
    seed: int

    @property
    def num_targets(self) -> int:
        """Nodes that get an embedding."""
        return self.inputs.num_nodes

    def batches(self, epoch: int, rank: int, world: int) -> Iterator[NodeBatch]:
        """The steps of an epoch."""
        seed = int(np.random.SeedSequence([self.seed, epoch]).generate_state(1)[0])
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(self.num_targets, generator=generator)
        for start in range(0, self.num_targets, self.batch_size):
            nodes = order[start : start + self.batch_size]
            yield self.inputs.batch(nodes, fanout=self.fanout, generator=generator)


@dataclass(frozen=True)
class _Validation:
    """The linear probe on the validation nodes of the first split; no test node is looked at."""

    data: EmbeddingGraph
    inputs: EmbeddingInputs
    plan: ProbePlan
    config: Any

    def require(self) -> None:
        """Refuse a graph that has nothing to validate on, before training."""
        if self.data.labels is None or not self.data.splits:
            missing = "labels" if self.data.labels is None else "masks"
            raise InputError(
                f"stop=validation needs labelled nodes, and {self.data.name} has no {missing}",
                "give y, train_mask, val_mask and test_mask on the nodes, or use stop=loss",
            )

    def __call__(self, model: nn.Module) -> dict[str, float]:
        z = _embed_all(model, self.inputs, self.config)
        scores = validation_scores(z, self.data, self.plan, splits=self.data.splits[:1])
        return {name.partition("@")[0]: value for name, value in scores.items() if value is not None}


def _device(model: Any) -> torch.device:
    device: torch.device = next(model.parameters()).device
    return device


@torch.no_grad()
def _embed_all(model: Any, inputs: EmbeddingInputs, config: Any) -> Tensor:
    """[N, d] embeddings in evaluation mode, on the CPU; by batches with sampled neighbours where it trains so."""
    device, was_training = _device(model), model.training
    model.eval()
    size = getattr(config, "batch_size", None)
    if size is None:
        z: Tensor = model.embed(inputs.full().to(device)).cpu()
    else:
        # In random order, since attention over meta-paths depends on the nodes of a batch together.
        generator = torch.Generator().manual_seed(0)
        order = torch.randperm(inputs.num_nodes, generator=generator)
        z = torch.empty(0)
        for nodes in torch.split(order, size):
            batch = inputs.batch(nodes, fanout=tuple(config.fanout), generator=generator)
            part = model.embed(batch.to(device)).cpu()
            if z.numel() == 0:
                z = part.new_empty(inputs.num_nodes, part.shape[1])
            z[nodes] = part
    model.train(was_training)
    return z.contiguous()


def _attention(model: Any, inputs: EmbeddingInputs, config: Any, data: EmbeddingGraph) -> dict[str, float]:
    """Weights of the meta-paths in the embedding, by name; empty for a model without such attention."""
    mixers = [part for part in model.modules() if isinstance(part, SemanticAttention)]
    if not mixers or data.kind != "heterogeneous":
        return {}
    paths = named_metapaths(data.graph, config.metapaths)
    names = [parse_metapath(data.graph, path, target=data.target).name for path in paths]
    found: list[Tensor] = []
    hooks = [part.register_forward_hook(lambda *call: found.append(call[2][1].detach().cpu())) for part in mixers]
    try:
        _embed_all(model, inputs, config)
    finally:
        for hook in hooks:
            hook.remove()
    for weights in found:
        if weights.shape[0] == len(names):
            return dict(zip(names, weights.tolist(), strict=True))
        if weights.shape[0] == 2 * len(names):
            # Each meta-path is seen twice: as it is, and with edges and features masked.
            doubled = [each for name in names for each in (name, f"{name}, masked")]
            return dict(zip(doubled, weights.tolist(), strict=True))
    return {}
