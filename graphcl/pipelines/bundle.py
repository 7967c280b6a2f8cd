"""Completion of bundles: items that belong together, from content, text, ids and the feedback of users."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from graphcl.data import Bundles, PartialBundles
from graphcl.data.ranges import offsets_of
from graphcl.data.splits import TRAIN
from graphcl.errors import InputError
from graphcl.metrics import (
    RankingEvaluation,
    evaluate_ranking,
    project_2d,
    rank_of_targets,
    ranking_metrics,
    recommend_topk,
    sample_for_map,
)
from graphcl.models.settings import Rate
from graphcl.pipelines.base import DataKind, Embeddings, PipelineSettings, TrainedPipeline
from graphcl.pipelines.bundle_baselines import bundle_baselines
from graphcl.pipelines.bundle_batches import BundleSampler
from graphcl.pipelines.bundle_data import (
    BUNDLES,
    ITEMS,
    bundle_inputs,
    feedback_log,
    feedback_vectors,
    read_saved_bundles,
    write_bundles,
)
from graphcl.pipelines.ranking import ITEM_MAP, OnUnsupported, RankingMetric, report_unsupported, require_positive
from graphcl.pipelines.runs import ANALYSIS, RunFolder, write_by_rename, write_json
from graphcl.pipelines.saved_splits import IDS

if TYPE_CHECKING:
    import polars

    from graphcl.pipelines.training import TrainingPlan

__all__ = ["BundleConstructor", "BundleSettings"]

IntArray = npt.NDArray[np.int64]
_MAP_ITEMS = 3000
_ENCODED = 1024


class BundleSettings(PipelineSettings):
    """Settings of :class:`BundleConstructor` beside those of its model.

    Args:
        seed: decides initial weights, the order of the bundles, their second views, noise and dropout.
        epochs: most epochs.
        batch_size: bundles a step.
        learning_rate: of Adam.
        weight_decay: L2 penalty that Adam adds to the gradient.
        weight_average: decay a step of a moving average of the weights, which is then what is measured and kept; 0 for
            none.
        patience: stop after so many validations' worth of epochs without a better metric.
        validate_every: validate after every so many epochs.
        metric: validation metric that chooses the best epoch. The published code asks for a better Recall@20 and a
            better NDCG@20 at once.
        cutoffs: where lists are cut for the metrics.
        feedback: where the item vectors that tell how users like items come from, unless the data bring some:
            ``lightgcn`` trains one on the interactions, as published; ``lightgcn_with_bundles`` counts the training
            bundles as further users; ``none`` does without.
        feedback_width, feedback_epochs: of that LightGCN.
        max_feature_width: features of more columns are projected onto so many principal directions.
        baselines: measure methods without training beside the model.
        devices: processes (CPU) or GPUs that share each step.
        accelerator: ``cpu``, ``gpu`` or ``auto``.
        progress: show progress while training.
    """

    epochs: PositiveInt = 50
    batch_size: Annotated[int, Field(ge=1, lt=2**63)] = 256
    learning_rate: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 1e-5
    weight_average: Rate = 0.0
    patience: PositiveInt = 20
    validate_every: PositiveInt = 2
    metric: RankingMetric = "Recall@20"
    cutoffs: tuple[PositiveInt, ...] = (5, 10, 20, 40, 80)
    feedback: Literal["lightgcn", "lightgcn_with_bundles", "none"] = "lightgcn"
    feedback_width: PositiveInt = 64
    feedback_epochs: PositiveInt = 40
    max_feature_width: PositiveInt = 1024
    baselines: bool = True


class BundleConstructor(TrainedPipeline[Bundles]):
    """Train a model on whole bundles, complete partial ones, save, load and recommend.

    Where the data have interactions of users and no item vectors, a LightGCN is trained on them first and its item
    vectors are given to the model; an item without interaction is cold and is described by its features alone.

    Args:
        model: name of a bundle model, see :func:`graphcl.models.list_models`.
        **settings: settings of :class:`BundleSettings` and of the model's own configuration class together.

    Raises:
        InputError: for an unknown model or setting, with the nearest known name, or a value out of range.

    Example:
        >>> from graphcl.data import synthetic_bundles
        >>> made = synthetic_bundles(50, 60, 20, styles=5)
        >>> constructor = BundleConstructor("clhe", epochs=2, feedback="none", progress=False).fit(made)
        >>> constructor.recommend({"mine": [3, 8]}, k=2).columns
        ['bundle', 'item', 'rank', 'score']
    """

    task: ClassVar[str] = "bundle"
    data_kind: ClassVar[DataKind] = "bundles"
    embeds: ClassVar[tuple[str, ...]] = ("items", "bundles")
    noun: ClassVar[str] = "bundle constructor"
    settings_class: ClassVar[type[PipelineSettings]] = BundleSettings
    free_on_resume: ClassVar[tuple[str, ...]] = (
        "epochs", "patience", "devices", "accelerator", "progress", "baselines",
    )  # fmt: skip
    artefacts: ClassVar[tuple[str, ...]] = (IDS, BUNDLES, ITEMS, ITEM_MAP)

    def __init__(self, model: str = "clhe", **settings: Any) -> None:
        super().__init__(model, **settings)

    @property
    def num_items(self) -> int:
        """Items of the catalogue.

        Raises:
            InputError: when not fitted.
        """
        return self._fitted()[1].num_items

    # Training

    def fit(
        self, data: Bundles, out: str | Path | None = None, *, resume: bool = False, overwrite: bool = False
    ) -> Self:
        """Train on the training bundles, choose the best epoch on the validation part, and test that one.

        Args:
            data: bundles with parts; `graphcl.data.load_bundles` gives some.
            out: run folder to write; nothing is kept on disk when None.
            resume: continue the run in ``out`` from its last checkpoint, or start it when there is none.
            overwrite: replace a run that ``out`` already holds.

        Returns:
            This constructor, with the weights of the best epoch.

        Raises:
            InputError: as :meth:`graphcl.pipelines.base.TrainedPipeline.fit`; a part without bundles to complete.
        """
        return super().fit(data, out, resume=resume, overwrite=overwrite)

    def _accept(self, data: Any) -> Bundles:
        if not isinstance(data, Bundles):
            raise InputError(
                f"cannot train on {type(data).__name__}", "give graphcl.data.Bundles; load_bundles makes some"
            )
        for part, name in (("valid", "validation"), ("test", "test")):
            if not data.partial(part).bundles.size:  # type: ignore[arg-type]
                raise InputError(
                    f"no {name} bundle shows an item and hides one", "divide the bundles with split_bundles"
                )
        if not (data.part == TRAIN).any():
            raise InputError("there is no training bundle", "divide the bundles with split_bundles")
        settings = self.settings
        log = feedback_log(data, with_bundles=settings.feedback == "lightgcn_with_bundles")
        if data.vectors is None and settings.feedback != "none" and log.num_interactions:
            vectors = feedback_vectors(
                log, width=settings.feedback_width, epochs=settings.feedback_epochs, seed=settings.seed,
                progress=settings.progress,
            )  # fmt: skip
            return replace(data, vectors=vectors)
        return data

    def _build_model(self, data: Bundles, generator: torch.Generator) -> Any:
        inputs = bundle_inputs(data, widest=self.settings.max_feature_width)
        return self.model_class(inputs, self.model_config, generator=generator)

    def _training(self, model: Any, data: Bundles) -> tuple[BundleSampler, BundleValidation, TrainingPlan]:
        settings, config = self.settings, self.model_config
        sampler = BundleSampler(
            *data.training,
            data.num_items,
            settings.batch_size,
            settings.seed,
            ratio=config.bundle_ratio,
            replace=config.bundle_augment == "replacement",
        )
        plan = self._plan(settings.metric, "bundles")
        return sampler, BundleValidation(data.partial("valid"), self._cutoffs), plan

    @property
    def _cutoffs(self) -> tuple[int, ...]:
        return tuple(sorted({*self.settings.cutoffs, int(self.settings.metric.split("@")[1])}))

    def _hash_data(self, data: Bundles) -> str:
        return data.content_hash()

    def _describe_data(self, data: Bundles) -> dict[str, Any]:
        features = [] if data.features is None else data.features.lines()
        cold = data.num_items if data.vectors is None else int((np.abs(data.vectors).sum(1) == 0).sum())
        return {
            "source": data.table.report.source,
            "hash": self._hash_data(data),
            **data.counts(),
            "features": "; ".join(features) or "none",
            "items without feedback": cold,
            "split": data.protocol,
        }

    def _write_data(self, folder: RunFolder, data: Bundles) -> None:
        write_bundles(folder, data)

    def _read_data(self, folder: RunFolder) -> Bundles:
        return read_saved_bundles(folder)

    # Measuring

    def evaluate(self, split: Literal["valid", "test"] = "test") -> RankingEvaluation:
        """Rank the whole catalogue for every partial bundle; the shown items are no candidates.

        Args:
            split: part whose hidden items are to be found.

        Returns:
            Metrics, buckets by the number of training bundles that hold the item, and the protocol.

        Raises:
            InputError: when the constructor is not fitted.
            ValueError: for another part.
        """
        if split not in ("valid", "test"):
            raise ValueError(f"split must be 'valid' or 'test', got {split!r}")
        model, data = self._fitted()
        partial = data.partial(split)
        queries, items = encode(model, *partial.shown)
        measured = evaluate_ranking(
            queries, items, partial.hidden, seen="exclude", history=partial.shown, ks=self._cutoffs,
            train_counts=_held(data),
        )  # fmt: skip
        renamed = {name.replace("users", "bundles"): text for name, text in measured.protocol.items()}
        protocol = {
            "split": data.protocol,
            "part": split,
            **renamed,
            "seen items": "shown items are no candidates",
            "modalities": ", ".join(data.features.modalities) if data.features is not None else "none",
            "feedback": "none" if data.vectors is None else "item vectors",
        }
        return replace(measured, protocol=protocol)

    def _write_results(self, folder: RunFolder, model: Any, data: Bundles) -> dict[str, Any]:
        import polars as pl

        valid, test = self.evaluate("valid"), self.evaluate("test")
        counts = _held(data)
        coordinates, explained = project_2d(encode(model, *data.partial("valid").shown)[1].numpy())
        shown = sample_for_map(counts, _MAP_ITEMS, np.random.default_rng(self.settings.seed))
        item_map = pl.DataFrame(
            {
                "item": data.item_ids.to_series().gather(shown),
                "x": coordinates[shown, 0],
                "y": coordinates[shown, 1],
                "train_count": counts[shown],
            }
        )
        write_by_rename(folder.path / ITEM_MAP, item_map.write_parquet)
        about = {"explained_variance": list(explained), "items": data.num_items, "shown": int(shown.size)}
        sizes = {int(size): int(count) for size, count in enumerate(np.bincount(data.sizes)) if count}
        write_json(folder.path / ANALYSIS, {"item_map": about, "bundle_sizes": sizes})
        baselines = bundle_baselines(data, data.partial("test"), self._cutoffs) if self.settings.baselines else []
        return {
            "protocol": dict(test.protocol),
            "validation": valid.metrics.to_dict(),
            "test": test.metrics.to_dict(),
            "buckets": test.to_dict()["buckets"],
            "baselines": baselines,
        }

    # Serving

    def recommend(
        self,
        partial: Mapping[Any, Iterable[Any]] | None,
        k: int = 20,
        *,
        on_unsupported: OnUnsupported = "raise",
    ) -> polars.DataFrame:
        """The ``k`` items that best complete partial bundles, with external ids; items of a bundle are left out.

        Args:
            partial: name of a bundle -> external ids of its items; None for the test bundles, as in ``evaluate``.
            k: items a bundle; fewer where the catalogue is smaller.
            on_unsupported: what to do about items that are unknown and bundles without a known item: ``raise``,
                ``warn`` and leave them out, or ``ignore`` and leave them out.

        Returns:
            A polars frame with columns bundle, item, rank (from 1) and score, best first within a bundle.

        Raises:
            InputError: when not fitted, or for an unsupported item or bundle under ``raise``.
            ValueError: when ``k`` is below 1.

        Complexity: time O(B I d) streamed, memory O(B (d + k)).
        """
        import polars as pl

        model, data = self._fitted()
        require_positive(k)
        if partial is None:
            shown = data.partial("test")
            names, (offsets, items) = data.table.user_ids.to_series().gather(shown.bundles), shown.shown
        else:
            kept, offsets, items = self._known_items(data, partial, on_unsupported)
            names = pl.Series("bundle", kept, strict=False)
        if not offsets[-1]:
            types = {"rank": pl.Int64, "score": pl.Float32}
            empty = {name: pl.Series([], dtype=kind) for name, kind in types.items()}
            return pl.DataFrame({"bundle": names.clear(), "item": data.item_ids.to_series().clear(), **empty})
        queries, table = encode(model, offsets, items)
        scores, best = recommend_topk(queries, table, min(k, data.num_items), exclude=(offsets, items))
        found = best.numpy()
        owner, place = np.nonzero(found >= 0)
        return pl.DataFrame(
            {
                "bundle": names.gather(owner),
                "item": data.item_ids.to_series().gather(found[owner, place]),
                "rank": place + 1,
                "score": scores.float().numpy()[owner, place],
            }
        )

    def _known_items(
        self, data: Bundles, partial: Mapping[Any, Iterable[Any]], policy: OnUnsupported
    ) -> tuple[list[Any], IntArray, IntArray]:
        kept, sizes, items = [], [], []
        unknown: list[str] = []
        for name, members in partial.items():
            wanted = list(dict.fromkeys(members))
            found = data.item_ids.to_internal(wanted, unknown="ignore") if wanted else np.empty(0, dtype=np.int64)
            unknown += [f"item {wanted[n]!r} of bundle {name!r} is unknown" for n in np.flatnonzero(found < 0)]
            found = found[found >= 0]
            if not found.size:
                unknown.append(f"bundle {name!r} holds no known item")
                continue
            kept.append(name)
            sizes.append(found.size)
            items.append(found)
        if unknown:
            report_unsupported(unknown[0], len(unknown), policy)
        flat = np.concatenate(items) if items else np.empty(0, dtype=np.int64)
        return kept, offsets_of(np.array(sizes, dtype=np.int64)), flat

    def embed(self, what: Literal["items", "bundles"] = "items") -> Embeddings:
        """Vectors whose inner product is the score.

        Args:
            what: ``items``, or ``bundles`` (all of the data, whole).

        Returns:
            External ids and vectors.

        Raises:
            InputError: when not fitted.
            ValueError: for another ``what``.
        """
        model, data = self._fitted()
        if what not in self.embeds:
            raise ValueError(f"what must be 'items' or 'bundles', got {what!r}")
        queries, items = encode(model, offsets_of(data.sizes), data.table.item)
        if what == "items":
            return Embeddings(data.item_ids.external, items.numpy().copy())
        return Embeddings(data.table.user_ids.external, queries.numpy())


@dataclass(frozen=True)
class BundleValidation:
    """Validation metrics of a model; picklable, so that spawned training processes can hold it.

    Args:
        partial: bundles to complete.
        cutoffs: of the metrics.
    """

    partial: PartialBundles
    cutoffs: tuple[int, ...]

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Metrics by name."""
        queries, items = encode(model, *self.partial.shown)
        ranks = rank_of_targets(
            queries, items, self.partial.hidden, exclude=self.partial.shown, depth=max(self.cutoffs)
        )
        return ranking_metrics(ranks, self.partial.hidden[0], ks=self.cutoffs).to_dict()


@torch.no_grad()
def encode(model: Any, offsets: IntArray, items: IntArray) -> tuple[Tensor, Tensor]:
    """Vectors of bundles and of all items on the CPU, in evaluation mode.

    Bundles of like size are encoded together, so that one large bundle does not stretch all others.
    """
    was_training = model.training
    model.eval()
    table = model.candidates()
    order = np.argsort(np.diff(offsets), kind="stable")
    out = table.new_zeros(offsets.size - 1, table.shape[1])
    for start in range(0, order.size, _ENCODED):
        rows = order[start : start + _ENCODED]
        sizes = np.diff(offsets)[rows]
        places = np.concatenate([np.arange(offsets[row], offsets[row + 1]) for row in rows])
        given = torch.from_numpy(items[places]).to(table.device), torch.from_numpy(offsets_of(sizes)).to(table.device)
        out[torch.from_numpy(rows).to(table.device)] = model(*given)
    model.train(was_training)
    return out.cpu(), table.cpu()


def _held(data: Bundles) -> IntArray:
    """How many training bundles hold each item."""
    return np.bincount(data.training[1], minlength=data.num_items)
