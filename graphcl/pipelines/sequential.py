"""Next-item recommendation: from interactions to a trained, measured recommender that can be saved and served."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from graphcl.data import Interactions, ItemFeatures, Split, read_item_features, semantic_vectors
from graphcl.data.ranges import offsets_of
from graphcl.data.semantics import semantic_files
from graphcl.errors import InputError
from graphcl.models.settings import Rate
from graphcl.pipelines.base import Embeddings
from graphcl.pipelines.batches import TrainingWindows, WindowSource, history_batches, training_windows
from graphcl.pipelines.catalogue import with_items
from graphcl.pipelines.checkpoints import load_tensors, save_tensors
from graphcl.pipelines.contrast_rows import ContrastSource, rows_by_target
from graphcl.pipelines.ranking import (
    Histories,
    IntArray,
    OnUnsupported,
    RankingPipeline,
    RankingSettings,
    RankingValidation,
    report_unsupported,
    require_positive,
)
from graphcl.pipelines.runs import RunFolder
from graphcl.pipelines.semantic_rows import FloatArray, retrieve_rows, similar_items

if TYPE_CHECKING:
    import polars

    from graphcl.pipelines.training import TrainingPlan

__all__ = ["Embeddings", "SequentialRecommender", "SequentialSettings", "encode_histories"]


ITEM_VECTORS = "item_vectors.safetensors"


class SequentialSettings(RankingSettings):
    """Settings of :class:`SequentialRecommender` beside those of its model.

    Args:
        seed: decides initial weights, the order of the batches and dropout.
        epochs: most epochs.
        batch_size: supervised targets a step, about; whole windows are never cut.
        learning_rate: of Adam.
        weight_average: decay a step of the moving average of the weights that is validated and kept; 0 switches it off
            and keeps the weights of the best epoch's last step, as the papers do.
        patience: stop after so many epochs without a better validation metric. Epochs hold a quarter of the steps that
            the papers' batches of 256 make, and validation may rest for more than ten of them before it rises again.
        metric: validation metric that chooses the best epoch.
        seen: ``keep`` ranks all items, ``exclude`` removes a user's history from the candidates.
        devices: processes (CPU) or GPUs that share each step.
        accelerator: ``cpu``, ``gpu`` or ``auto``.
        rows: ``causal`` supervises every position in one pass, ``prefix`` one window a target (the reference).
        window_stride: step between the windows of a sequence longer than ``max_length``; half of it when None.
        progress: show progress while training.
    """

    batch_size: Annotated[int, Field(ge=1, lt=2**63)] = 1024
    learning_rate: PositiveFloat = 2e-3
    weight_average: Rate = 0.999
    patience: PositiveInt = 20
    rows: Literal["causal", "prefix"] = "causal"
    window_stride: PositiveInt | None = None


class SequentialRecommender(RankingPipeline):
    """Train a sequential model on interactions, rank the whole catalogue, save, load and recommend.

    Args:
        model: name of a sequential model, see :func:`graphcl.models.list_models`.
        **settings: settings of :class:`SequentialSettings` and of the model's own configuration class together, e.g.
            ``epochs``, ``batch_size``, ``max_length``, ``hidden``.

    Raises:
        InputError: for an unknown model or setting, with the nearest known name, or a value out of range.

    Example:
        >>> import numpy as np
        >>> from graphcl.data import Interactions
        >>> users = np.repeat(np.arange(20), 6)
        >>> log = Interactions.from_arrays(users, (users + np.tile(np.arange(6), 20)) % 7)
        >>> recommender = SequentialRecommender(epochs=2, hidden=8, max_length=5, progress=False).fit(log)
        >>> recommender.recommend([3], k=2).columns
        ['user', 'item', 'rank', 'score']
    """

    task: ClassVar[str] = "sequential"
    settings_class: ClassVar[type[RankingSettings]] = SequentialSettings
    optional_artefacts: ClassVar[tuple[str, ...]] = (*RankingPipeline.optional_artefacts, ITEM_VECTORS)

    def __init__(self, model: str = "sasrec", **settings: Any) -> None:
        super().__init__(model, **settings)
        self._given_features: Any = None
        self._vectors: FloatArray | None = None
        self._sources_of_vectors = ""
        stride = self.settings.window_stride
        if stride is not None and stride > self.model_config.max_length:
            raise InputError(
                f"window_stride {stride} is above max_length", f"use at most {self.model_config.max_length}"
            )

    @property
    def takes_item_features(self) -> bool:  # type: ignore[override]
        """Whether the model reads features of items."""
        return bool(getattr(self.model_class, "uses_item_vectors", False))

    @property
    def catalogue(self) -> Literal["interactions", "features"]:
        """Whether items that only features name are ranked as well; see the setting of the model."""
        return getattr(self.model_config, "catalogue", "interactions")

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
            data: interactions, cut by leave-one-out, or a split.
            out: run folder to write; nothing is kept on disk when None.
            item_features: features of the items, for models that retrieve by them: what
                `graphcl.data.read_item_features` gives or takes, vectors of any origin (of a language model, say) among
                them. Items that only they name join the catalogue, unless the model's setting ``catalogue`` says no.
            resume: continue the run in ``out`` from its last checkpoint, or start it when there is none.
            overwrite: replace a run that ``out`` already holds.

        Returns:
            This recommender, with the weights of the best epoch.

        Raises:
            InputError: as :meth:`RankingPipeline.fit`; features that cannot be used or that the model does not read.
        """
        if item_features is not None and not self.takes_item_features:
            raise InputError(f"{self.model_name} does not read item features", "leave them out, or train sracl")
        self._given_features = item_features
        return super().fit(data, out, resume=resume, overwrite=overwrite)

    def _accept(self, data: Any) -> Split:
        split = super()._accept(data)
        self._vectors = None
        if not self.takes_item_features:
            return split
        given, config = self._given_features, self.model_config
        ids, joins = split.interactions.item_ids, self.catalogue == "features"
        read = partial(read_item_features, item_ids=ids, on_unknown="join" if joins else "ignore")
        features = given if given is None or isinstance(given, ItemFeatures) else read(given)
        sources = [] if features is None else [features]
        sources += [read(file) for file in semantic_files(config.semantics)]
        if joins:
            split = with_items(split, *(source.item_ids for source in sources))
        if features is not None:
            features = features.align(split.interactions.item_ids)
        self._vectors = semantic_vectors(split, config.semantics, features=features, width=config.semantic_dim).vectors
        # What the vectors come from, not their bits: a decomposition has other ones on another processor.
        self._sources_of_vectors = "".join(source.content_hash() for source in sources)
        return split

    def _hash_data(self, data: Split) -> str:
        if self._vectors is None:
            return super()._hash_data(data)
        return hashlib.sha256((super()._hash_data(data) + self._sources_of_vectors).encode()).hexdigest()

    def _write_data(self, folder: RunFolder, data: Split) -> None:
        super()._write_data(folder, data)
        if self._vectors is not None:
            save_tensors(folder.path / ITEM_VECTORS, {"vectors": torch.from_numpy(self._vectors)})

    def _read_data(self, folder: RunFolder) -> Split:
        split = super()._read_data(folder)
        self._vectors = None
        path = folder.path / ITEM_VECTORS
        if self.takes_item_features:
            vectors = load_tensors(path)[0].get("vectors")
            if vectors is None or vectors.shape[0] != split.interactions.num_items:
                raise InputError("does not hold a vector for every item", "restore the file or train again", path=path)
            self._vectors = vectors.numpy()
        return split

    def _build_model(self, data: Split, generator: torch.Generator) -> Any:
        if self._vectors is not None:
            return self.model_class(
                data.interactions.num_items,
                self.model_config,
                semantic_dim=self._vectors.shape[1],
                generator=generator,
            )
        return self.model_class(data.interactions.num_items, self.model_config, generator=generator)

    def _training(self, model: Any, data: Split) -> tuple[WindowSource, RankingValidation, TrainingPlan]:
        settings = self.settings
        sequences = data.train_sequences()
        windows = training_windows(
            sequences.items + 1,
            sequences.offsets,
            max_length=self.model_config.max_length,
            stride=settings.window_stride,
            rows=settings.rows,
        )
        if windows.num_targets == 0:
            raise InputError("no user has two items in the training part", "give longer histories or another split")
        plan = self._plan(settings.metric, "tokens", checkpoint_seconds=0.0, keep_freed_memory=True)
        return self._source(model, windows, sequences.offsets), self._validation(data), plan

    def _source(self, model: Any, windows: TrainingWindows, offsets: IntArray) -> WindowSource:
        """The steps of an epoch, with rows for contrastive terms where the model wants them."""
        settings, config, needs = self.settings, self.model_config, getattr(model, "contrast", None)
        if self._vectors is not None:
            trained = np.bincount(windows.items, minlength=model.num_items + 1)[1:] > 0
            model.set_item_neighbours(*similar_items(self._vectors, trained, config.neighbours))
        if needs is None or not needs.rows:
            return WindowSource(windows, settings.batch_size, settings.seed)
        rows = training_windows(windows.items, offsets, max_length=config.max_length, rows="prefix")
        retrieval = None
        if self._vectors is not None and needs.retrieved:
            retrieval = retrieve_rows(
                rows,
                offsets,
                self._vectors,
                k=config.neighbours,
                max_length=config.max_length,
                pool=config.pool,
                same_user=config.same_user,
            )
        return ContrastSource(
            windows,
            settings.batch_size,
            settings.seed,
            rows,
            rows_by_target(rows, model.num_items) if needs.same_target else None,
            retrieval,
        )

    def _history_note(self, part: str) -> str:
        return f"{super()._history_note(part)}, the last {self.model_config.max_length}"

    @staticmethod
    def encode(model: Any, histories: Histories, users: IntArray) -> tuple[Tensor, Tensor]:
        """User vectors of their histories, and item vectors; see :meth:`RankingPipeline.encode`."""
        return encode_histories(model, histories.items, histories.offsets), model.item_embeddings().detach()

    def recommend_for_histories(
        self,
        histories: Sequence[Iterable[Any]],
        k: int = 20,
        *,
        exclude_seen: bool | None = None,
        on_unsupported: OnUnsupported = "raise",
    ) -> polars.DataFrame:
        """The ``k`` best items for histories of people that were not in the training data.

        Args:
            histories: external item ids of each, oldest first.
            k: items a history.
            exclude_seen: leave out items of the history; None follows the setting ``seen``, as ``evaluate`` does.
            on_unsupported: what to do about items that are unknown and histories in which nothing is known.

        Returns:
            A polars frame with columns history (its place in ``histories``), item, rank and score.

        Raises:
            InputError: when not fitted, for a history that is no list, or for an unsupported item or history under
                ``raise``.
            ValueError: when ``k`` is below 1.
        """
        import polars as pl

        model, data = self._fitted()
        require_positive(k)
        ids = data.interactions.item_ids
        for number, history in enumerate(histories):
            if isinstance(history, str | bytes) or not isinstance(history, Iterable):
                raise InputError(
                    f"history {number} is {history!r}, not a list of items", "give a list of item ids for each person"
                )
        listed = [list(history) for history in histories]
        owner = np.repeat(np.arange(len(listed)), [len(history) for history in listed])
        flat = [item for history in listed for item in history]
        items = ids.to_internal(flat, unknown="ignore") if flat else np.empty(0, dtype=np.int64)
        if (items < 0).any():
            first = flat[int(np.flatnonzero(items < 0)[0])]
            report_unsupported(f"item {first!r} is unknown", int((items < 0).sum()), on_unsupported)
        known = Histories(offsets_of(np.bincount(owner[items >= 0], minlength=len(listed))), items[items >= 0])
        empty = known.lengths == 0
        if empty.any():
            report_unsupported(
                f"history {int(np.flatnonzero(empty)[0])} holds no known item", int(empty.sum()), on_unsupported
            )
        chosen = np.flatnonzero(~empty)
        kept = known.select(chosen)
        owner, item, rank, score = self._top(self.encode(model, kept, chosen), kept, k, exclude_seen)
        return pl.DataFrame(
            {"history": chosen[owner], "item": ids.to_series().gather(item), "rank": rank, "score": score}
        )


@torch.no_grad()
def encode_histories(model: Any, items: IntArray, offsets: IntArray) -> Tensor:
    """User embeddings of histories, in batches of packed tokens, without gradients; see :func:`history_vectors`."""
    return history_vectors(model, items, offsets)


def history_vectors(model: Any, items: IntArray, offsets: IntArray) -> Tensor:
    """User embeddings of histories, in batches of packed tokens; gradients reach the model.

    Args:
        model: a sequential model, in any mode; it is left in that mode.
        items: [E] internal item ids (from 0), histories one after the other, none empty.
        offsets: [N + 1] start of each history in ``items``.

    Returns:
        [N, d] on the device of the model.

    Complexity:
        That of the encoder on the last L items of each history, in batches of about 8,192 items.

    Example:
        >>> from graphcl.models import SASRec, SASRecConfig
        >>> model = SASRec(num_items=9, config=SASRecConfig(hidden=8, max_length=4))
        >>> history_vectors(model, np.array([2, 0, 8]), np.array([0, 2, 3])).shape
        torch.Size([2, 8])
    """
    table: Tensor = model.item_embeddings()
    queries = table.new_empty(offsets.size - 1, table.shape[1])
    was_training = model.training
    model.eval()
    for numbers, packed in history_batches(items + 1, offsets, max_length=model.config.max_length):
        batch = packed.to(table.device)
        queries[torch.from_numpy(numbers).to(table.device)] = model.encode_last(batch)
    model.train(was_training)
    return queries
