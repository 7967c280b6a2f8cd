"""Item vectors from what items are and whom they please; the towers need no interactions of the item itself."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from graphcl.data import Interactions, ItemFeatures, Split, read_item_features, table_features
from graphcl.errors import InputError
from graphcl.metrics import RankingEvaluation
from graphcl.models import AlignmentInputs
from graphcl.pipelines.checkpoints import load_tensors, save_tensors
from graphcl.pipelines.preference_pairs import AlignmentSource, mine_preferences
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

if TYPE_CHECKING:
    from graphcl.pipelines.training import TrainingPlan

__all__ = ["AlignmentSettings", "ItemAligner"]

ITEMS = "item_inputs.safetensors"


class AlignmentSettings(RankingSettings):
    """Settings of :class:`ItemAligner` beside those of its model.

    Args:
        seed: decides initial weights, what is drawn, and dropout.
        epochs: most epochs, those of the first stage included.
        semantic_epochs: epochs of the first stage, which aligns the modalities; as many as ``epochs`` for it alone.
        batch_size: items or pairs a step.
        learning_rate: of Adam.
        weight_decay: L2 penalty that Adam adds to the gradient.
        patience: stop after so many epochs without a better validation metric.
        validate_every: validate after every so many epochs.
        metric: validation metric that chooses the best epoch: users are ranked for by the mean vector of their items.
        seen: ``exclude`` removes what a user has met from the candidates, ``keep`` ranks all items.
        item_modalities: modalities that items will be encoded by; all when empty.
        text_modalities: the other side of the first stage; the last modality of the features when empty.
        neighbours: positives an item, at most.
        liked: least value of a like; every interaction is one when None.
        disliked: values up to this are dislikes, which give explicit negatives; none when None.
        min_shared: a positive of another anchor is no negative where so many users like it and the anchor.
        pairs_per_item: pairs an anchor gives an epoch.
        item_features: files of item features by modality; features given to ``fit`` win.
        devices: processes (CPU) or GPUs that share each step.
        accelerator: ``cpu``, ``gpu`` or ``auto``.
        progress: show progress while training.
    """

    epochs: PositiveInt = 60
    semantic_epochs: NonNegativeInt = 20
    batch_size: Annotated[int, Field(ge=2, lt=2**63)] = 512
    learning_rate: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 1e-5
    patience: PositiveInt = 30
    validate_every: PositiveInt = 2
    metric: RankingMetric = "NDCG@20"
    seen: Seen = "exclude"
    item_modalities: tuple[str, ...] = ()
    text_modalities: tuple[str, ...] = ()
    neighbours: PositiveInt = 20
    liked: float | None = None
    disliked: float | None = None
    min_shared: PositiveInt = 1
    pairs_per_item: PositiveInt = 5
    item_features: dict[str, str] | None = None


class ItemAligner(RankingPipeline):
    """Train item and text towers in two stages; rank by the mean vector of what a user has met; save, load, embed.

    ``embed("items")`` gives vectors that the collaborative pipeline takes as item features, of items that nobody has
    met as well.

    Args:
        model: name of an alignment model, see :func:`graphcl.models.list_models`.
        **settings: settings of :class:`AlignmentSettings` and of the model's own configuration class together.

    Raises:
        InputError: for an unknown model or setting, with the nearest known name, or a value out of range.

    Example:
        >>> users = np.repeat(np.arange(20), 6)
        >>> log = Interactions.from_arrays(users, (users + np.tile(np.arange(6), 20)) % 9)
        >>> media = {"audio": (np.arange(9), np.eye(9)), "text": (np.arange(9), np.eye(9)[::-1])}
        >>> aligner = ItemAligner("htcl", epochs=2, semantic_epochs=1, hidden=4, progress=False)
        >>> aligner.fit(log, item_features=media).embed("items").vectors.shape
        (9, 4)
    """

    task: ClassVar[str] = "alignment"
    settings_class: ClassVar[type[RankingSettings]] = AlignmentSettings
    noun: ClassVar[str] = "aligner"
    takes_item_features: ClassVar[bool] = True
    free_on_resume: ClassVar[tuple[str, ...]] = (*RankingPipeline.free_on_resume, "item_features")
    artefacts: ClassVar[tuple[str, ...]] = (*RankingPipeline.artefacts, ITEMS)

    def __init__(self, model: str = "htcl", **settings: Any) -> None:
        super().__init__(model, **settings)
        self._given_features: Any = None
        self._features: ItemFeatures | None = None
        self._sides: dict[str, tuple[str, ...]] = {}
        if self.settings.semantic_epochs > self.settings.epochs:
            raise InputError(
                f"semantic_epochs {self.settings.semantic_epochs} is above epochs {self.settings.epochs}",
                "lower it, or raise epochs",
            )

    def fit(
        self,
        data: Interactions | Split,
        out: str | Path | None = None,
        *,
        item_features: ItemFeatures | Mapping[str, Any] | None = None,
        resume: bool = False,
        overwrite: bool = False,
    ) -> Self:
        """Align the modalities, then adapt the item tower to the pairs of the training part.

        Args:
            data: interactions, cut by leave-one-out, or a split; only the training part is mined.
            out: run folder to write; nothing is kept on disk when None.
            item_features: features of the items by modality: what `graphcl.data.read_item_features` gives or takes. By
                default the setting ``item_features``, then the side table of the interactions.
            resume: continue the run in ``out`` from its last checkpoint, or start it when there is none.
            overwrite: replace a run that ``out`` already holds.

        Returns:
            This aligner, with the weights of the best epoch.

        Raises:
            InputError: as :meth:`graphcl.pipelines.base.TrainedPipeline.fit`; no or unknown modalities.
        """
        self._given_features = item_features
        return super().fit(data, out, resume=resume, overwrite=overwrite)

    def _accept(self, data: Any) -> Split:
        split = super()._accept(data)
        ids, source = split.interactions.item_ids, self._given_features
        if source is None:
            source = self.settings.item_features or split.interactions.item_features
        if source is None:
            raise InputError("there are no item features", "give item_features, or data that come with an item table")
        if isinstance(source, ItemFeatures):
            features = source.align(ids)
        elif isinstance(source, Mapping):
            features = read_item_features(source, ids)
        else:
            features = table_features(source, ids)
        known = tuple(features.vectors)
        if not known:
            raise InputError("the item features hold no vectors", "give vectors or attributes, not neighbour lists")
        self._features = features
        self._sides = {
            "item_modalities": self.settings.item_modalities or known,
            "text_modalities": self.settings.text_modalities or known[-1:],
        }
        for setting, names in self._sides.items():
            for name in names:
                if name not in known:
                    raise InputError(f"{setting}: there is no modality {name!r}", f"use one of {', '.join(known)}")
        return split

    def _build_model(self, data: Split, generator: torch.Generator) -> Any:
        return self.model_class(self._inputs(), self.model_config, generator=generator)

    def _inputs(self) -> AlignmentInputs:
        features = self._features
        if features is None:
            raise InputError("the aligner has no item features", "call fit first, or load a run folder")
        items, has_items = _side_by_side(features, self._sides["item_modalities"])
        texts, has_texts = _side_by_side(features, self._sides["text_modalities"])
        return AlignmentInputs(items, texts, has_items & has_texts)

    def _training(self, model: Any, data: Split) -> tuple[AlignmentSource, RankingValidation, TrainingPlan]:
        settings = self.settings
        inputs = self._inputs()
        pairs = mine_preferences(
            data.train, neighbours=settings.neighbours, liked=settings.liked, disliked=settings.disliked
        )
        usable = (inputs.items.abs().sum(1) > 0).numpy()
        source = AlignmentSource(
            pairs,
            np.flatnonzero(inputs.has_both.numpy()),
            settings.batch_size,
            settings.seed,
            settings.semantic_epochs,
            settings.pairs_per_item,
            settings.min_shared,
            usable,
        )
        if settings.semantic_epochs and source.both.size < 2:
            raise InputError("fewer than two items have both modalities", "set semantic_epochs=0, or give features")
        if not source._kept[0].size:
            raise InputError("no two items with features please one user", "give more interactions, or lower liked")
        plan = self._plan(settings.metric, "pairs")
        return source, self._validation(data), plan

    def _hash_data(self, data: Split) -> str:
        digest = hashlib.sha256(super()._hash_data(data).encode())
        if self._features is not None:
            digest.update(self._features.content_hash().encode())
        return digest.hexdigest()

    @staticmethod
    @torch.no_grad()
    def encode(model: Any, histories: Histories, users: IntArray) -> tuple[Tensor, Tensor]:
        """The mean item vector of each history, and all item vectors; see :meth:`RankingPipeline.encode`."""
        was_training = model.training
        model.eval()
        items: Tensor = model.item_embeddings()
        model.train(was_training)
        owner = torch.from_numpy(np.repeat(np.arange(users.size), histories.lengths)).to(items.device)
        met = items.index_select(0, torch.from_numpy(histories.items).to(items.device))
        summed = items.new_zeros(users.size, items.shape[1]).index_add_(0, owner, met)
        return torch.nn.functional.normalize(summed, dim=1), items

    def _evaluate(self, model: Any, data: Split, part: Any) -> RankingEvaluation:
        measured = super()._evaluate(model, data, part)
        sides = {name.replace("_", " "): ", ".join(names) for name, names in self._sides.items()}
        return replace(measured, protocol={**measured.protocol, **sides})

    def _write_results(self, folder: RunFolder, model: Any, data: Split) -> dict[str, Any]:
        results = super()._write_results(folder, model, data)
        results["test"] |= {f"item to text R@{k}": value for k, value in self.semantic_recall((1, 10)).items()}
        return results

    @torch.no_grad()
    def semantic_recall(self, ks: Sequence[int] = (1, 5, 10)) -> dict[int, float]:
        """How often the own text of an item is among the k nearest texts: what the second stage left of the first.

        Args:
            ks: cut-offs.

        Returns:
            Share of the items with both modalities, by cut-off; equal texts count by the mean of their ranks.

        Raises:
            InputError: when not fitted.
        """
        from graphcl.metrics import rank_of_targets

        model, _ = self._fitted()
        inputs = model.inputs
        rows = torch.nonzero(inputs.has_both).squeeze(1)
        texts = model.encode_texts(inputs.texts.index_select(0, rows))
        ranks = rank_of_targets(model(rows), texts, torch.arange(rows.shape[0]), ties="mean")
        return {k: float((ranks <= k).double().mean()) for k in ks}

    # Saving

    def _write_data(self, folder: RunFolder, data: Split) -> None:
        super()._write_data(folder, data)
        features = self._features
        tensors: dict[str, Tensor] = {}
        if features is not None:
            for name, table in features.vectors.items():
                tensors[f"features.{name}"] = torch.from_numpy(table)
                tensors[f"present.{name}"] = torch.from_numpy(features.present[name])
        save_tensors(folder.path / ITEMS, tensors, {side: list(names) for side, names in self._sides.items()})

    def _read_data(self, folder: RunFolder) -> Split:
        split = super()._read_data(folder)
        tensors, about = load_tensors(folder.path / ITEMS)
        try:
            self._sides = {side: tuple(names) for side, names in about.items()}
            names = [name.removeprefix("features.") for name in tensors if name.startswith("features.")]
            self._features = ItemFeatures(
                split.interactions.item_ids,
                {name: tensors[f"features.{name}"].numpy() for name in names},
                {name: tensors[f"present.{name}"].numpy() for name in names},
            )
            self._inputs()
        except (KeyError, ValueError) as error:
            raise InputError(
                "does not fit the run", "restore the file or train again", path=folder.path / ITEMS
            ) from error
        return split


def _side_by_side(features: ItemFeatures, names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Unit rows of several modalities side by side, and which items have one of them."""
    tables = [torch.nn.functional.normalize(torch.from_numpy(features.vectors[name]), dim=1) for name in names]
    present = np.any([features.present[name] for name in names], axis=0)
    joined = torch.cat(tables, dim=1)
    # A row of zeros says nothing either.
    return joined, torch.from_numpy(present) & (joined.abs().sum(1) > 0)
