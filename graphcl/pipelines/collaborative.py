"""Recommendation from who met what: graph and hypergraph models, trained on pairs, ranked over all items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from graphcl.data import IdMap, Interactions, ItemFeatures, Split, read_item_features, table_features
from graphcl.data.ranges import offsets_of
from graphcl.data.splits import TRAIN
from graphcl.errors import InputError
from graphcl.graphs import BipartiteGraph, mmhcl_item_hypergraph
from graphcl.kernels import SparseMatrix
from graphcl.metrics import RankingEvaluation, retrieved_ndcg
from graphcl.pipelines.catalogue import with_items
from graphcl.pipelines.checkpoints import load_tensors, save_tensors
from graphcl.pipelines.ranking import (
    Histories,
    IntArray,
    RankingMetric,
    RankingPipeline,
    RankingSettings,
    RankingValidation,
    Seen,
)
from graphcl.pipelines.runs import RunFolder
from graphcl.pipelines.samplers import PairSampler, Sampling, TrainingPairs

if TYPE_CHECKING:
    from graphcl.pipelines.training import TrainingPlan

__all__ = ["CollaborativeRecommender", "CollaborativeSettings"]

HYPERGRAPH = "item_hypergraph.safetensors"
_DEPTH = 20


class CollaborativeSettings(RankingSettings):
    """Settings of :class:`CollaborativeRecommender` beside those of its model.

    Args:
        seed: decides initial weights, sampling, noise and dropout.
        epochs: most epochs.
        batch_size: pairs a step.
        learning_rate: of Adam.
        learning_rate_decay: factor of the learning rate after each epoch.
        sampling: ``edge`` takes every training pair once an epoch; ``user`` draws different users, then an item each.
        patience: stop after so many epochs without a better validation metric.
        validate_every: validate after every so many epochs.
        metric: validation metric that chooses the best epoch.
        seen: ``exclude`` removes what a user has met from the candidates, ``keep`` ranks all items.
        mask: what counts as met when test items are ranked: items of ``training``, as published numbers have it, or of
            training and validation (``all_known``).
        item_features: files of item features by modality, for models that read them; features given to ``fit`` win.
            ``none`` leaves out what came with the data.
        catalogue: ``interactions``: items are those of the interactions; ``features``: also those that only the item
            features name, which are then ranked through their hyperedges.
        devices: processes (CPU) or GPUs that share each step.
        accelerator: ``cpu``, ``gpu`` or ``auto``.
        progress: show progress while training.
    """

    epochs: PositiveInt = 1000
    batch_size: Annotated[int, Field(ge=1, lt=2**63)] = 2048
    learning_rate: PositiveFloat = 1e-3
    learning_rate_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    sampling: Sampling = "edge"
    patience: PositiveInt = 30
    validate_every: PositiveInt = 5
    metric: RankingMetric = "Recall@20"
    seen: Seen = "exclude"
    mask: Literal["training", "all_known"] = "training"
    item_features: dict[str, str] | Literal["none"] | None = None
    catalogue: Literal["interactions", "features"] = "interactions"


class CollaborativeRecommender(RankingPipeline):
    """Train a recommender on user-item pairs, rank the whole catalogue, save, load and recommend.

    A user or item that training never met still has a vector: users are evaluated all the same and counted in the
    protocol; items are ranked, under MMHCL through the hyperedges of their features.

    Args:
        model: name of a collaborative model, see :func:`graphcl.models.list_models`.
        **settings: settings of :class:`CollaborativeSettings` and of the model's own configuration class together,
            e.g. ``epochs``, ``batch_size``, ``layers``, ``hidden``. A model may recommend its own training settings.

    Raises:
        InputError: for an unknown model or setting, with the nearest known name, or a value out of range.

    Example:
        >>> import numpy as np
        >>> from graphcl.data import Interactions
        >>> users = np.repeat(np.arange(20), 6)
        >>> log = Interactions.from_arrays(users, (users + np.tile(np.arange(6), 20)) % 9)
        >>> recommender = CollaborativeRecommender("lightgcn", epochs=2, hidden=8, progress=False).fit(log)
        >>> recommender.recommend([3], k=2).columns
        ['user', 'item', 'rank', 'score']
    """

    task: ClassVar[str] = "collaborative"
    settings_class: ClassVar[type[RankingSettings]] = CollaborativeSettings
    needs_history: ClassVar[bool] = False
    free_on_resume: ClassVar[tuple[str, ...]] = (*RankingPipeline.free_on_resume, "item_features")
    optional_artefacts: ClassVar[tuple[str, ...]] = (*RankingPipeline.optional_artefacts, HYPERGRAPH)

    def __init__(self, model: str = "lightgcn", **settings: Any) -> None:
        super().__init__(model, **settings)
        self._given_features: Any = None
        self._blocks: dict[str, SparseMatrix] = {}
        self._unknown_rows: dict[str, int] = {}

    @property
    def takes_item_features(self) -> bool:  # type: ignore[override]
        """Whether the model reads features of items."""
        return bool(self.model_class.uses_item_hypergraph)

    # Training

    def fit(
        self,
        data: Interactions | Split,
        out: str | Path | None = None,
        *,
        item_features: ItemFeatures | Mapping[str, Any] | None = None,
        resume: bool = False,
        overwrite: bool = False,
    ) -> Self:
        """Train on the training part, choose the best epoch on the validation part, and test that one.

        Args:
            data: interactions, cut by leave-one-out, or a split, such as a published one.
            out: run folder to write; nothing is kept on disk when None.
            item_features: features of the items by modality: what `graphcl.data.read_item_features` gives or takes.
                By default the setting ``item_features``, then the side table of the interactions.
            resume: continue the run in ``out`` from its last checkpoint, or start it when there is none.
            overwrite: replace a run that ``out`` already holds.

        Returns:
            This recommender, with the weights of the best epoch.

        Raises:
            InputError: as :meth:`graphcl.pipelines.base.TrainedPipeline.fit`; item features that cannot be used, or
                that are given to a model that does not read any.
        """
        self._given_features = item_features
        return super().fit(data, out, resume=resume, overwrite=overwrite)

    def _accept(self, data: Any) -> Split:
        split = super()._accept(data)
        source = self._given_features if self._given_features is not None else self.settings.item_features
        reads = self.model_class.uses_item_hypergraph
        if source == "none":
            source = None
        elif source is None and reads:
            source = split.interactions.item_features
        elif source is not None and not reads:
            raise InputError(f"{self.model_name} does not read item features", "leave them out, or train mmhcl")
        self._blocks, self._unknown_rows = {}, {}
        if source is not None:
            features = self._read_features(source, split.interactions.item_ids)
            if self.settings.catalogue == "features":
                split = with_items(split, features.item_ids)
            features = features.align(split.interactions.item_ids)
            self._blocks = item_hypergraph_blocks(features, self.model_config.neighbours)
            self._unknown_rows = dict(features.unknown)
        return split

    def _read_features(self, source: Any, item_ids: IdMap) -> ItemFeatures:
        if isinstance(source, ItemFeatures):
            return source
        if self.settings.catalogue == "features":
            raise InputError(
                "catalogue=features needs features that are already read",
                "give fit the result of read_item_features with the item ids of the whole catalogue",
            )
        return read_item_features(source, item_ids) if isinstance(source, Mapping) else table_features(source, item_ids)

    def _build_model(self, data: Split, generator: torch.Generator) -> Any:
        graph = BipartiteGraph.from_interactions(data.train)
        if not self.model_class.uses_item_hypergraph:
            return self.model_class(graph, self.model_config, generator=generator)
        incidence = join_blocks(list(self._blocks.values())) if self._blocks else None
        return self.model_class(graph, self.model_config, item_incidence=incidence, generator=generator)

    def _training(self, model: Any, data: Split) -> tuple[PairSampler, RankingValidation, TrainingPlan]:
        settings, train = self.settings, data.train
        pairs = TrainingPairs.from_arrays(train.user, train.item, num_users=train.num_users, num_items=train.num_items)
        sampler = PairSampler(
            pairs,
            settings.batch_size,
            settings.seed,
            settings.sampling,
            self.model_config.objective,
            self.model_config.num_candidates,
        )
        if not sampler.can_draw:
            raise InputError(
                "no user has a training item and an item left to compare it with", "give more interactions"
            )
        plan = self._plan(settings.metric, "pairs", lr_decay=settings.learning_rate_decay)
        return sampler, self._validation(data), plan

    def _hash_data(self, data: Split) -> str:
        import hashlib

        digest = hashlib.sha256(super()._hash_data(data).encode())
        for name, block in self._blocks.items():
            digest.update(name.encode() + block.row_offsets.numpy().tobytes() + block.columns.numpy().tobytes())
        return digest.hexdigest()

    # Ranking

    @staticmethod
    @torch.no_grad()
    def encode(model: Any, histories: Histories, users: IntArray) -> tuple[Tensor, Tensor]:
        """Vectors of users by number, and of all items; what the histories hold is in the trained graph already."""
        was_training = model.training
        model.eval()
        user_table, items = model()
        model.train(was_training)
        return user_table[torch.from_numpy(users).to(user_table.device)], items

    def _known(self, data: Split, history: str) -> Histories:
        known = super()._known(data, history)
        if history != "test" or self.settings.mask == "all_known":
            return known
        rows, train = data.interactions, data.part == TRAIN
        return Histories(offsets_of(np.bincount(rows.user[train], minlength=rows.num_users)), rows.item[train])

    def _history_note(self, part: str) -> str:
        return "training items" if self.settings.mask == "training" else super()._history_note(part)

    def _evaluate(self, model: Any, data: Split, part: Literal["valid", "test"]) -> RankingEvaluation:
        measured = super()._evaluate(model, data, part)
        cutoffs = sorted(int(name[3:]) for name in measured.metrics.values if name.startswith("HR@"))
        reference = retrieved_ndcg(
            measured.ranks, measured.targets[0], ks=[k for k in cutoffs if k <= _DEPTH], depth=_DEPTH
        )
        cold = np.bincount(data.train.item, minlength=data.interactions.num_items) == 0
        protocol = dict(measured.protocol)
        if self.model_class.uses_item_hypergraph:
            protocol["modalities"] = ", ".join(map(self._describe_modality, self._blocks)) or "none"
        protocol["items without training rows"] = f"{int(cold.sum()):,}"
        metrics = replace(measured.metrics, values={**measured.metrics.values, **reference})
        return replace(measured, metrics=metrics, protocol=protocol)

    def _describe_modality(self, name: str) -> str:
        """Its name, how many items it reaches, and how many rows of features named no item."""
        block = self._blocks[name]
        reached = int((block.row_offsets.diff() > 0).sum())
        unknown = self._unknown_rows.get(name, 0)
        note = f"; {unknown:,} rows of unknown items left out" if unknown else ""
        return f"{name} ({reached:,} of {block.shape[0]:,} items{note})"

    def ablate(self) -> list[dict[str, Any]]:
        """Test metrics of the trained model when a modality's hyperedges, or all of them, are taken away.

        The weights stay as they are: this tells what the model draws from a modality, not how well it would train
        without it.

        Returns:
            One record each: ``modalities`` that are left, ``without``, and ``metrics``; the whole model first.

        Raises:
            InputError: when not fitted, or trained without modalities.
        """
        model, data = self._fitted()
        if not self._blocks:
            raise InputError("the model was trained without modalities", "train mmhcl with item features")
        names = list(self._blocks)
        left = [names, *([other for other in names if other != name] for name in names if len(names) > 1), []]
        records = []
        for kept in left:
            incidence = join_blocks([self._blocks[name] for name in kept]) if kept else None
            measured = self._evaluate(model.rewired(incidence), data, "test")
            records.append(
                {
                    "modalities": kept,
                    "without": [name for name in names if name not in kept],
                    "metrics": measured.metrics.to_dict(),
                    "buckets": [bucket.to_dict() for bucket in measured.buckets],
                }
            )
        return records

    # Saving

    def _write_results(self, folder: RunFolder, model: Any, data: Split) -> dict[str, Any]:
        results = super()._write_results(folder, model, data)
        if self._blocks:
            results["ablation"] = self.ablate()
        return results

    def _write_data(self, folder: RunFolder, data: Split) -> None:
        super()._write_data(folder, data)
        if self._blocks:
            tensors: dict[str, Tensor] = {}
            for name, block in self._blocks.items():
                tensors |= {f"{name}.offsets": block.row_offsets, f"{name}.columns": block.columns}
            sizes = {name: block.shape[1] for name, block in self._blocks.items()}
            save_tensors(folder.path / HYPERGRAPH, tensors, {"modalities": sizes, "unknown": self._unknown_rows})

    def _read_data(self, folder: RunFolder) -> Split:
        split = super()._read_data(folder)
        self._blocks, self._unknown_rows = {}, {}
        path = folder.path / HYPERGRAPH
        if path.is_file():
            tensors, about = load_tensors(path)
            items = split.interactions.num_items
            try:
                self._blocks = {
                    name: SparseMatrix(
                        tensors[f"{name}.offsets"], tensors[f"{name}.columns"], None, (items, int(width))
                    )
                    for name, width in about["modalities"].items()
                }
                self._unknown_rows = {name: int(rows) for name, rows in about.get("unknown", {}).items()}
            except (KeyError, ValueError, IndexError, AttributeError, TypeError) as error:
                raise InputError("does not fit the run", "restore the file or train again", path=path) from error
        return split


def item_hypergraph_blocks(features: ItemFeatures, neighbours: int) -> dict[str, SparseMatrix]:
    """Incidence of the item hypergraph, one block a modality: ready-made lists, or nearest neighbours of vectors.

    Args:
        features: aligned with the catalogue.
        neighbours: k of the nearest-neighbour lists, the item itself included.

    Returns:
        Modality to ``(items, hyperedges)``, unweighted.

    Complexity: as `graphcl.graphs.mmhcl_item_hypergraph`.
    """
    blocks = {}
    for name, table in features.vectors.items():
        missing = {name: torch.from_numpy(~features.present[name])}
        k = min(neighbours, max(int(features.present[name].sum()), 1))
        blocks[name] = mmhcl_item_hypergraph({name: torch.from_numpy(table)}, k, missing=missing).incidence
    for name, lists in features.incidence.items():
        blocks[name] = SparseMatrix.from_coo(
            torch.from_numpy(lists.node),
            torch.from_numpy(lists.hyperedge),
            shape=(len(features.item_ids), lists.num_hyperedges),
            duplicates="first",
        )
    return blocks


def join_blocks(blocks: list[SparseMatrix]) -> SparseMatrix:
    """Blocks side by side, ``[B_1 | B_2 | ...]``; all unweighted and of equal height."""
    rows = torch.cat([block.pattern.rows for block in blocks])
    before = np.cumsum([0, *(block.shape[1] for block in blocks)]).tolist()
    columns = torch.cat([block.columns + start for block, start in zip(blocks, before[:-1], strict=True)])
    return SparseMatrix.from_coo(rows, columns, shape=(blocks[0].shape[0], before[-1]), check=False)
