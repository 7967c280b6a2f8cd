"""Next-item recommendation: from interactions to a trained, measured recommender that can be saved and served."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor, nn

from graphcl.data import EvaluationSet, Interactions, Split, leave_one_out
from graphcl.data.splits import TEST, TRAIN, UNUSED, VALID
from graphcl.errors import InputError
from graphcl.metrics import (
    RankingEvaluation,
    evaluate_ranking,
    exposure_metrics,
    project_2d,
    rank_of_targets,
    ranking_metrics,
    recommend_topk,
    sample_for_map,
    score_histograms,
)
from graphcl.models import ModelConfig, build_config, get_model, nearest_names
from graphcl.pipelines.batches import history_batches, training_windows
from graphcl.pipelines.checkpoints import LAST, TrainingState, load_state, load_tensors, save_tensors
from graphcl.pipelines.runs import (
    HISTORY,
    MANIFEST,
    RunFolder,
    describe_data,
    library_versions,
    peak_memory_bytes,
    split_hash,
    write_by_rename,
    write_history,
    write_json,
)

if TYPE_CHECKING:
    import polars

IntArray = npt.NDArray[np.int64]
History = Literal["valid", "test", "all"]
OnUnsupported = Literal["raise", "warn", "ignore"]

CUTOFFS = (5, 10, 20)
_MAP_ITEMS = 3000
# A history is read up to the part that is to be predicted; "all" serves with everything known.
_KNOWN_PARTS: dict[str, tuple[int, ...]] = {"valid": (TRAIN,), "test": (TRAIN, VALID), "all": (TRAIN, VALID, TEST)}


class SequentialSettings(ModelConfig):
    """Settings of :class:`SequentialRecommender` beside those of its model.

    Args:
        seed: decides initial weights, the order of the batches and dropout.
        epochs: most epochs.
        batch_size: supervised targets a step, about; whole windows are never cut.
        learning_rate: of Adam.
        weight_average: decay a step of the moving average of the weights that is validated and kept; 0 switches it off
            and keeps the weights of the best epoch's last step, as the papers do.
        patience: stop after so many epochs without a better validation metric.
        metric: validation metric that chooses the best epoch.
        seen: ``keep`` ranks all items, ``exclude`` removes a user's history from the candidates.
        devices: processes (CPU) or GPUs that share each step.
        accelerator: ``cpu``, ``gpu`` or ``auto``.
        rows: ``causal`` supervises every position in one pass, ``prefix`` one window a target (the reference).
        window_stride: step between the windows of a sequence longer than ``max_length``; half of it when None.
        progress: show progress while training.
    """

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    epochs: Annotated[int, Field(ge=1)] = 200
    batch_size: Annotated[int, Field(ge=1, lt=2**63)] = 1024
    learning_rate: Annotated[float, Field(gt=0.0)] = 2e-3
    weight_average: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.999
    patience: Annotated[int, Field(ge=1)] = 10
    metric: Annotated[str, Field(pattern=r"^(HR|Recall|Precision|NDCG|MRR|MAP)@[1-9][0-9]*$")] = "NDCG@20"
    seen: Literal["keep", "exclude"] = "keep"
    devices: Annotated[int, Field(ge=1)] = 1
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    rows: Literal["causal", "prefix"] = "causal"
    window_stride: Annotated[int, Field(ge=1)] | None = None
    progress: bool = True


# These change how long training takes or when it ends, not what an epoch computes; a resumed run may change them.
_FREE_ON_RESUME = ("epochs", "patience", "devices", "accelerator", "progress")


@dataclass(frozen=True)
class Embeddings:
    """Vectors with the external ids that they belong to.

    Args:
        ids: [n] external ids.
        vectors: [n, d] float32.
    """

    ids: npt.NDArray[Any]
    vectors: npt.NDArray[np.float32]


class SequentialRecommender:
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

    def __init__(self, model: str = "sasrec", **settings: Any) -> None:
        self.model_class = get_model(model, task="sequential")
        self.model_name = model.lower()
        own = {name: value for name, value in settings.items() if name in SequentialSettings.model_fields}
        rest = {name: value for name, value in settings.items() if name not in own}
        known = {*SequentialSettings.model_fields, *self.model_class.config_class.model_fields}
        for name in rest:
            if name not in known:
                raise InputError(f"unknown setting {name!r}", nearest_names(name, known))
        self.settings = build_config(SequentialSettings, own)
        self.model_config: Any = build_config(self.model_class.config_class, rest)
        stride = self.settings.window_stride
        if stride is not None and stride > self.model_config.max_length:
            raise InputError(
                f"window_stride {stride} is above max_length", f"use at most {self.model_config.max_length}"
            )
        self._model: Any = None
        self._split: Split | None = None
        self._state = TrainingState()
        self._seconds = 0.0

    # Configuration

    def get_config(self) -> dict[str, Any]:
        """Every setting by name; :meth:`from_config` makes an equal recommender of it."""
        return {"model": self.model_name, **self.settings.model_dump(), **self.model_config.model_dump()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> SequentialRecommender:
        """A recommender of settings by name, ``model`` among them.

        Raises:
            InputError: as the constructor.
        """
        return cls(**{str(name): value for name, value in config.items()})

    @property
    def training_history(self) -> list[dict[str, float]]:
        """One record an epoch: losses, validation metrics, seconds; empty before :meth:`fit`."""
        return [dict(record) for record in self._state.history]

    @property
    def best_epoch(self) -> int:
        """Epoch whose weights were kept, from 1; 0 before :meth:`fit`."""
        return self._state.best_epoch

    @property
    def num_items(self) -> int:
        """Items of the catalogue.

        Raises:
            InputError: when not fitted.
        """
        return self._fitted()[1].interactions.num_items

    # Training

    def fit(
        self,
        data: Interactions | Split,
        out: str | Path | None = None,
        *,
        resume: bool = False,
        overwrite: bool = False,
    ) -> SequentialRecommender:
        """Train on the training part, choose the best epoch on the validation part, and test that one.

        Args:
            data: interactions, cut by leave-one-out, or a split.
            out: run folder to write; nothing is kept on disk when None.
            resume: continue the run in ``out`` from its last finished epoch, or start it when there is none.
            overwrite: replace a run that ``out`` already holds.

        Returns:
            This recommender, with the weights of the best epoch.

        Raises:
            InputError: when ``out`` already holds a run or cannot be written, when a run to resume was made with other
                settings or data, when there are not so many devices, when nothing can be trained or validated, or when
                training diverges.
        """
        split = _as_split(data)
        if out is None:
            with tempfile.TemporaryDirectory(prefix="graphcl-") as scratch:
                return self._fit(split, RunFolder(Path(scratch) / "run"), resume=False, overwrite=False, keep=False)
        return self._fit(split, RunFolder(Path(out)), resume=resume, overwrite=overwrite, keep=True)

    def _fit(
        self, split: Split, folder: RunFolder, *, resume: bool, overwrite: bool, keep: bool
    ) -> SequentialRecommender:
        from graphcl.pipelines.training import TrainingPlan, require_devices, train

        sequences = split.train_sequences()
        windows = training_windows(
            sequences.items + 1,
            sequences.offsets,
            max_length=self.model_config.max_length,
            stride=self.settings.window_stride,
            rows=self.settings.rows,
        )
        if windows.num_targets == 0:
            raise InputError("no user has two items in the training part", "give longer histories or another split")
        validate = _Validation.of(split, self)
        settings = self.settings
        require_devices(settings.devices, settings.accelerator)
        model = self._new_model(split.interactions.num_items)
        identity = {"settings": self._identity(), "data": split_hash(split)}
        folder.prepare(resume=resume, overwrite=overwrite)
        _require_same_run(folder, identity)
        folder.write_config(self._run_config())
        started = time.perf_counter()
        before = (load_state(folder.checkpoints) or TrainingState()).seconds
        plan = TrainingPlan(
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            weight_average=settings.weight_average,
            patience=settings.patience,
            metric=settings.metric,
            seed=settings.seed,
            devices=settings.devices,
            accelerator=settings.accelerator,
            progress=settings.progress,
        )
        try:
            self._state = train(model, windows, validate, plan, folder.checkpoints, identity)
        except InputError:
            folder.withdraw()
            raise
        self._seconds = before + time.perf_counter() - started
        self._model, self._split = model.to("cpu").eval(), split
        if keep:
            self._write_run(folder)
        return self

    def _new_model(self, num_items: int) -> Any:
        with torch.random.fork_rng():
            torch.manual_seed(self.settings.seed)
            generator = torch.Generator().manual_seed(self.settings.seed)
            return self.model_class(num_items, self.model_config, generator=generator)

    def _identity(self) -> dict[str, Any]:
        return {name: value for name, value in self.get_config().items() if name not in _FREE_ON_RESUME}

    def _run_config(self) -> dict[str, Any]:
        return {"pipeline": "sequential", **self.get_config()}

    # Measuring

    def evaluate(self, split: Literal["valid", "test"] = "test") -> RankingEvaluation:
        """Rank the whole catalogue for every user with a target, streamed, and average.

        Args:
            split: part whose items are to be found.

        Returns:
            Metrics, hot and cold buckets, and the protocol that they were measured under.

        Raises:
            InputError: when the recommender is not fitted, or no user of the part has a history.
            ValueError: for another part.
        """
        model, data = self._fitted()
        return self._evaluate(model, data, split)

    def _evaluate(self, model: Any, data: Split, part: Literal["valid", "test"]) -> RankingEvaluation:
        evaluation = data.evaluation(part)
        histories = _Histories.of(data, part)
        queries, users, targets = _queries_and_targets(model, histories, evaluation)
        measured = evaluate_ranking(
            queries,
            model.item_embeddings().detach(),
            targets,
            seen=self.settings.seen,
            history=histories.select(users).csr,
            ks=_cutoffs(self.settings.metric),
            train_counts=_train_counts(data),
        )
        protocol = {
            "split": data.protocol,
            "part": part,
            "history": f"{' and '.join(_part_names(part))} items, the last {self.model_config.max_length}",
            "users without history": f"{len(evaluation) - users.size:,}",
            **measured.protocol,
        }
        return replace(measured, protocol=protocol)

    # Serving

    def recommend(
        self,
        users: Iterable[Any] | None,
        k: int = 20,
        *,
        exclude_seen: bool | None = None,
        history: History = "test",
        on_unsupported: OnUnsupported = "raise",
    ) -> polars.DataFrame:
        """The ``k`` best items of users, with external ids.

        Args:
            users: external user ids; None means every user with a history, in the order of the ids.
            k: items a user; fewer where the catalogue is smaller.
            exclude_seen: leave out items of the history; None follows the setting ``seen``, as ``evaluate`` does.
            history: what is known of a user: ``test`` hides test items, so the lists are those that ``evaluate``
                ranked; ``all`` uses every known item, which is what serving wants; ``valid`` hides validation too.
            on_unsupported: what to do about users that are unknown or have no history: ``raise``, ``warn`` and leave
                them out, or ``ignore`` and leave them out.

        Returns:
            A polars frame with columns user, item, rank (from 1) and score, best first within a user.

        Raises:
            InputError: when not fitted, or for an unsupported user under ``raise``.
            ValueError: when ``k`` is below 1.

        Complexity: time O(U V d) streamed, memory O(U (d + k)).
        """
        import polars as pl

        model, data = self._fitted()
        _require_positive(k)
        histories = _Histories.of(data, history)
        ids = data.interactions.user_ids
        if users is None:
            chosen = np.flatnonzero(histories.lengths)
        else:
            wanted = list(users)
            chosen = ids.to_internal(wanted, unknown="ignore") if wanted else np.empty(0, dtype=np.int64)
            supported = (chosen >= 0) & (histories.lengths[chosen] > 0)
            if not supported.all():
                first = wanted[int(np.flatnonzero(~supported)[0])]
                _report_unsupported(
                    f"user {first!r} is unknown or has no history", int((~supported).sum()), on_unsupported
                )
            chosen = chosen[supported]
        owner, item, rank, score = self._top(model, histories.select(chosen), k, exclude_seen)
        return pl.DataFrame(
            {
                "user": ids.to_series().gather(chosen[owner]),
                "item": data.interactions.item_ids.to_series().gather(item),
                "rank": rank,
                "score": score,
            }
        )

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
            InputError: when not fitted, or for an unsupported item or history under ``raise``.
            ValueError: when ``k`` is below 1.
        """
        import polars as pl

        model, data = self._fitted()
        _require_positive(k)
        ids = data.interactions.item_ids
        listed = [list(history) for history in histories]
        owner = np.repeat(np.arange(len(listed)), [len(history) for history in listed])
        flat = [item for history in listed for item in history]
        items = ids.to_internal(flat, unknown="ignore") if flat else np.empty(0, dtype=np.int64)
        if (items < 0).any():
            first = flat[int(np.flatnonzero(items < 0)[0])]
            _report_unsupported(f"item {first!r} is unknown", int((items < 0).sum()), on_unsupported)
        known = _Histories(_offsets(np.bincount(owner[items >= 0], minlength=len(listed))), items[items >= 0])
        empty = known.lengths == 0
        if empty.any():
            _report_unsupported(
                f"history {int(np.flatnonzero(empty)[0])} holds no known item", int(empty.sum()), on_unsupported
            )
        chosen = np.flatnonzero(~empty)
        owner, item, rank, score = self._top(model, known.select(chosen), k, exclude_seen)
        return pl.DataFrame(
            {"history": chosen[owner], "item": ids.to_series().gather(item), "rank": rank, "score": score}
        )

    def _top(
        self, model: Any, histories: _Histories, k: int, exclude_seen: bool | None
    ) -> tuple[IntArray, IntArray, IntArray, npt.NDArray[np.float32]]:
        items = model.item_embeddings().detach()
        k = min(k, items.shape[0])
        if exclude_seen is None:
            exclude_seen = self.settings.seen == "exclude"
        queries = encode_histories(model, histories.items, histories.offsets)
        scores, best = recommend_topk(queries, items, k, exclude=histories.csr if exclude_seen else None)
        best_items = best.cpu().numpy()
        owner, place = np.nonzero(best_items >= 0)
        return owner, best_items[owner, place], place + 1, scores.float().cpu().numpy()[owner, place]

    def embed(self, what: Literal["items", "users"] = "items", *, history: History = "test") -> Embeddings:
        """Embeddings whose inner product is the score.

        Args:
            what: ``items``, or ``users`` (every user with a history).
            history: for users, as in :meth:`recommend`.

        Returns:
            External ids and vectors.

        Raises:
            InputError: when not fitted.
            ValueError: for another ``what``.
        """
        model, data = self._fitted()
        if what == "items":
            return Embeddings(data.interactions.item_ids.external, model.item_embeddings().detach().numpy().copy())
        if what != "users":
            raise ValueError(f"what must be 'items' or 'users', got {what!r}")
        histories = _Histories.of(data, history)
        users = np.flatnonzero(histories.lengths)
        chosen = histories.select(users)
        vectors = encode_histories(model, chosen.items, chosen.offsets)
        return Embeddings(data.interactions.user_ids.to_external(users), vectors.numpy())

    # Saving

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write a run folder that :meth:`load` and the command line read.

        Raises:
            InputError: when not fitted, or ``path`` already holds a run and ``overwrite`` is False.
        """
        self._fitted()
        folder = RunFolder(Path(path))
        folder.prepare(resume=False, overwrite=overwrite)
        folder.write_config(self._run_config())
        write_history(folder.path / HISTORY, self._state.history)
        self._write_run(folder)

    @classmethod
    def load(cls, path: str | Path) -> SequentialRecommender:
        """The fitted recommender of a complete run folder.

        Raises:
            InputError: when the folder is incomplete (naming the missing file) or a file is damaged.
        """
        folder = RunFolder(Path(path))
        folder.require_complete()
        config = folder.read_config()
        config.pop("pipeline", None)
        recommender = cls.from_config(config)
        split = folder.read_split()
        model = recommender._new_model(split.interactions.num_items)
        weights, about = load_tensors(folder.path / "model.safetensors")
        try:
            model.load_state_dict(weights)
            recommender._state = TrainingState(**about["training"])
        except (RuntimeError, KeyError, TypeError) as error:
            path = folder.path / "model.safetensors"
            raise InputError("does not fit the run's settings", "restore the file or train again", path=path) from error
        recommender._seconds = recommender._state.seconds
        recommender._model, recommender._split = model.eval(), split
        return recommender

    def _write_run(self, folder: RunFolder) -> None:
        model, split = self._fitted()
        self._state.seconds = self._seconds
        save_tensors(folder.path / "model.safetensors", model.state_dict(), {"training": vars(self._state)})
        folder.write_split(split)
        valid, test = self._evaluate(model, split, "valid"), self._evaluate(model, split, "test")
        self._write_analysis(folder, model, split)
        write_json(
            folder.path / "metrics.json",
            {
                "protocol": dict(test.protocol),
                "validation": valid.metrics.to_dict(),
                "test": test.metrics.to_dict(),
                "buckets": test.to_dict()["buckets"],
                "best_epoch": self._state.best_epoch,
                "epochs": self._state.epoch,
            },
        )
        write_json(
            folder.path / MANIFEST,
            {
                "pipeline": "sequential",
                "model": self.model_name,
                "seed": self.settings.seed,
                "data": describe_data(split),
                "protocol": dict(test.protocol),
                "wall_seconds": round(self._seconds, 3),
                "peak_memory_bytes": peak_memory_bytes(),
                "parameters": sum(parameter.numel() for parameter in model.parameters()),
                "versions": library_versions(),
            },
        )

    def _write_analysis(self, folder: RunFolder, model: Any, split: Split) -> None:
        """What a report shows beside the metrics: score histograms, exposure of the catalogue, a map of the items."""
        import polars as pl

        evaluation = split.evaluation("test")
        histories = _Histories.of(split, "test")
        queries, users, targets = _queries_and_targets(model, histories, evaluation)
        items, counts = model.item_embeddings().detach(), _train_counts(split)
        cutoffs = [k for k in _cutoffs(self.settings.metric) if k <= items.shape[0]] or [items.shape[0]]
        seen = histories.select(users).csr if self.settings.seen == "exclude" else None
        _, lists = recommend_topk(queries, items, max(cutoffs), exclude=seen)
        scores = score_histograms(queries, items, targets, torch.Generator().manual_seed(self.settings.seed))
        coordinates, explained = project_2d(items.numpy())
        shown = sample_for_map(counts, _MAP_ITEMS, np.random.default_rng(self.settings.seed))
        item_map = pl.DataFrame(
            {
                "item": split.interactions.item_ids.to_series().gather(shown),
                "x": coordinates[shown, 0],
                "y": coordinates[shown, 1],
                "train_count": counts[shown],
            }
        )
        write_by_rename(folder.path / "item_map.parquet", item_map.write_parquet)
        write_json(
            folder.path / "analysis.json",
            {
                "score_histograms": scores.to_dict(),
                "exposure": exposure_metrics(lists, counts, ks=cutoffs).to_dict(),
                "item_map": {"explained_variance": list(explained), "items": items.shape[0], "shown": int(shown.size)},
            },
        )

    def _fitted(self) -> tuple[Any, Split]:
        if self._model is None or self._split is None:
            raise InputError("the recommender is not fitted", "call fit first, or load a run folder")
        return self._model, self._split


@dataclass(frozen=True)
class _Histories:
    """What is known of each of N users: ``items[offsets[n]:offsets[n + 1]]``, internal ids in time order."""

    offsets: IntArray
    items: IntArray

    @classmethod
    def of(cls, split: Split, history: str) -> _Histories:
        if history not in _KNOWN_PARTS:
            raise ValueError(f"history must be one of {', '.join(_KNOWN_PARTS)}, got {history!r}")
        rows = split.interactions
        known = np.isin(split.part, _KNOWN_PARTS[history]) & (split.part != UNUSED)
        return cls(_offsets(np.bincount(rows.user[known], minlength=rows.num_users)), rows.item[known])

    @property
    def lengths(self) -> IntArray:
        return np.diff(self.offsets)

    @property
    def csr(self) -> tuple[IntArray, IntArray]:
        return self.offsets, self.items

    def select(self, rows: IntArray) -> _Histories:
        lengths = self.lengths[rows]
        offsets = _offsets(lengths)
        place = np.arange(int(offsets[-1])) - np.repeat(offsets[:-1], lengths)
        return _Histories(offsets, self.items[np.repeat(self.offsets[rows], lengths) + place])


@torch.no_grad()
def encode_histories(model: Any, items: IntArray, offsets: IntArray) -> Tensor:
    """User embeddings of histories, in batches of packed tokens.

    Args:
        model: a sequential model.
        items: [E] internal item ids (from 0), histories one after the other, none empty.
        offsets: [N + 1] start of each history in ``items``.

    Returns:
        [N, d] on the device of the model.
    """
    table: Tensor = model.item_embeddings()
    queries = table.new_empty(offsets.size - 1, table.shape[1])
    was_training = model.training
    model.eval()
    for numbers, packed in history_batches(items + 1, offsets, max_length=model.config.max_length):
        batch = packed.to(table.device)
        queries[torch.from_numpy(numbers).to(table.device)] = model.encode_packed(batch)[batch.last]
    model.train(was_training)
    return queries


def _queries_and_targets(
    model: Any, histories: _Histories, evaluation: EvaluationSet
) -> tuple[Tensor, IntArray, tuple[IntArray, IntArray]]:
    """Queries, user numbers and targets of the users that have both a target and a history.

    Every user with a history is encoded, in the same batches as ``recommend`` does for all users, so that both see the
    same floats to the last bit.
    """
    known = np.flatnonzero(histories.lengths)
    kept = histories.lengths[evaluation.users] > 0
    users = evaluation.users[kept]
    if not users.size:
        raise InputError("no user of this part has an earlier interaction", "use another split")
    chosen = histories.select(known)
    queries = encode_histories(model, chosen.items, chosen.offsets)[np.searchsorted(known, users)]
    targets = _Histories(evaluation.target_offsets, evaluation.target_items).select(np.flatnonzero(kept))
    return queries, users, targets.csr


@dataclass(frozen=True)
class _Validation:
    """Validation metrics of a model; picklable, so that spawned training processes can hold it."""

    histories: _Histories
    targets: tuple[IntArray, IntArray]
    seen: str
    cutoffs: tuple[int, ...]

    @classmethod
    def of(cls, split: Split, recommender: SequentialRecommender) -> _Validation:
        evaluation = split.evaluation("valid")
        histories = _Histories.of(split, "valid")
        kept = np.flatnonzero(histories.lengths[evaluation.users])
        if not kept.size:
            raise InputError("no user of the validation part has a training item", "use another split")
        targets = _Histories(evaluation.target_offsets, evaluation.target_items).select(kept)
        repeated = np.repeat(np.arange(kept.size), targets.lengths)
        pairs = np.unique(np.stack([repeated, targets.items]), axis=1)  # an item counts once a user
        return cls(
            histories.select(evaluation.users[kept]),
            (_offsets(np.bincount(pairs[0], minlength=kept.size)), pairs[1]),
            recommender.settings.seen,
            _cutoffs(recommender.settings.metric),
        )

    def __call__(self, model: nn.Module) -> dict[str, float]:
        sequential: Any = model
        queries = encode_histories(sequential, self.histories.items, self.histories.offsets)
        exclude = self.histories.csr if self.seen == "exclude" else None
        ranks = rank_of_targets(queries, sequential.item_embeddings(), self.targets, exclude=exclude)
        return ranking_metrics(ranks, self.targets[0], ks=self.cutoffs).to_dict()


def _as_split(data: Interactions | Split) -> Split:
    if isinstance(data, Split):
        return data
    if isinstance(data, Interactions):
        return leave_one_out(data)
    raise InputError(
        f"cannot train on {type(data).__name__}", "give graphcl.data.Interactions or Split; read_interactions makes one"
    )


def _require_same_run(folder: RunFolder, identity: Mapping[str, Any]) -> None:
    """Refuse to continue a run with other settings or other data."""
    state = load_state(folder.checkpoints)
    if state is None:
        return
    if state.identity.get("data") != identity["data"]:
        raise InputError(
            "the run was started on other data", "resume with the same data and split, or --overwrite",
            path=folder.path,
        )  # fmt: skip
    earlier = state.identity.get("settings", {})
    for name, value in identity["settings"].items():
        if name not in earlier or earlier[name] != value:
            raise InputError(
                f"the run was started with {name}={earlier.get(name)!r}, not {value!r}",
                "resume with the same settings, or --overwrite",
                path=folder.checkpoints / LAST,
            )


def _train_counts(split: Split) -> IntArray:
    rows = split.interactions
    return np.bincount(rows.item[split.part == TRAIN], minlength=rows.num_items)


def _offsets(lengths: IntArray) -> IntArray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _cutoffs(metric: str) -> tuple[int, ...]:
    return tuple(sorted({*CUTOFFS, int(metric.split("@")[1])}))


def _part_names(part: str) -> list[str]:
    names = {TRAIN: "training", VALID: "validation", TEST: "test"}
    return [names[code] for code in _KNOWN_PARTS[part]]


def _require_positive(k: int) -> None:
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")


def _report_unsupported(problem: str, count: int, policy: OnUnsupported) -> None:
    more = f" ({count} such)" if count > 1 else ""
    if policy == "raise":
        raise InputError(problem + more, "leave it out, or pass on_unsupported='warn' or 'ignore' (--on-unsupported)")
    if policy == "warn":
        warnings.warn(f"{problem}{more}; left out", stacklevel=3)
    elif policy != "ignore":
        raise ValueError(f"on_unsupported must be 'raise', 'warn' or 'ignore', got {policy!r}")
