"""What pipelines have in common: settings by name, fitting into a run folder, resuming, saving and loading."""

from __future__ import annotations

import json
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, Literal, Protocol, Self, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, PositiveFloat, PositiveInt

from graphcl.errors import InputError
from graphcl.models import ModelConfig, build_config, get_model, nearest_names
from graphcl.models.settings import named_settings
from graphcl.pipelines.checkpoints import LAST, TrainingState, load_state, load_tensors, save_tensors
from graphcl.pipelines.runs import (
    HISTORY,
    MANIFEST,
    METRICS,
    MODEL,
    UNLEARNING,
    RunFolder,
    library_versions,
    peak_memory_bytes,
    write_history,
    write_json,
)

if TYPE_CHECKING:
    import polars

    from graphcl.pipelines.training import EpochSource, TrainingPlan, Validate

DataKind = Literal["interactions", "graph", "heterogeneous", "bundles", "events", "retrieval"]
DataT = TypeVar("DataT")


class PipelineSettings(ModelConfig):
    """Settings that every pipeline has beside those of its model; a pipeline derives its own and may change defaults.

    Args:
        seed: decides initial weights, the order of the batches and every other random draw.
        epochs: most epochs.
        learning_rate: of Adam.
        devices: processes (CPU) or GPUs that share each step.
        accelerator: ``cpu``, ``gpu`` or ``auto``.
        progress: show progress while training.
    """

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    epochs: PositiveInt = 200
    learning_rate: PositiveFloat = 1e-3
    devices: PositiveInt = 1
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    progress: bool = True


@dataclass(frozen=True)
class Embeddings:
    """Vectors with the external ids that they belong to.

    Args:
        ids: [n] external ids.
        vectors: [n, d] float32.
    """

    ids: npt.NDArray[Any]
    vectors: npt.NDArray[np.float32]


class Metrics(Protocol):
    """Numbers by name."""

    def to_dict(self) -> Mapping[str, float | None]:
        """The metrics, ready for JSON; None for what is not defined."""


class Evaluation(Protocol):
    """What one evaluation measured, and how."""

    @property
    def metrics(self) -> Metrics:
        """The numbers."""

    @property
    def protocol(self) -> Mapping[str, str]:
        """The choices that make the numbers comparable."""

    def to_dict(self) -> dict[str, Any]:
        """``{"protocol": {...}, "metrics": {...}, ...}``, ready for JSON."""


class Pipeline(Protocol):
    """What the command line needs of every pipeline; the properties are class attributes where they are made."""

    @property
    def task(self) -> str:
        """Name of the pipeline, and the task of the models that it trains."""

    @property
    def data_kind(self) -> DataKind:
        """What ``fit`` takes: interactions (or a split), a graph of either kind, bundles, events, or queries."""

    @property
    def embeds(self) -> tuple[str, ...]:
        """What ``embed`` gives vectors of, the default first."""

    @property
    def takes_item_features(self) -> bool:
        """Whether ``fit`` has the argument ``item_features``."""

    def get_config(self) -> dict[str, Any]:
        """Every setting by name."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The pipeline of settings by name, ``model`` among them."""

    def fit(self, data: Any, out: str | Path | None = None, *, resume: bool = False, overwrite: bool = False) -> Self:
        """Train, and leave a run folder when ``out`` is given."""

    def evaluate(self, split: Literal["valid", "test"] = "test") -> Evaluation:
        """Measure a part of the data."""

    def embed(self, what: Any = ...) -> Embeddings:
        """Vectors of one of ``embeds`` with external ids."""

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write a run folder."""

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The fitted pipeline of a run folder."""


@runtime_checkable
class Clusterer(Protocol):
    """A pipeline that divides the nodes of a graph."""

    def predict(self) -> polars.DataFrame:
        """Columns node (external id), cluster (from 0) and confidence, one row a node in the order of the graph."""


class TrainedPipeline(ABC, Generic[DataT]):
    """A :class:`Pipeline` around one model that :func:`graphcl.pipelines.training.train` trains.

    It reads settings, fits into a run folder, resumes, saves and loads. A pipeline derives from it, names itself by
    the class attributes and says with the abstract methods what is its own. A model's class may change defaults of the
    pipeline's settings by a class attribute ``recommended``, a mapping of names to values.

    Attributes:
        task, data_kind, embeds, takes_item_features: see :class:`Pipeline`.
        noun: what messages call it, such as ``recommender``.
        settings_class: its settings.
        free_on_resume: settings that a resumed run may change: they tell how long training takes or when it ends,
            not what an epoch computes.
        artefacts: files of its run folder beside those of every run.
        optional_artefacts: files that it may leave beside them.
        packages: packages beside the common ones that its numbers depend on.

    Args:
        model: name of a model of the task, see :func:`graphcl.models.list_models`.
        **settings: settings of the settings class and of the model's own configuration class together.

    Raises:
        InputError: for an unknown model or setting, with the nearest known name, or a value out of range.
    """

    task: ClassVar[str]
    data_kind: ClassVar[DataKind]
    embeds: ClassVar[tuple[str, ...]]
    takes_item_features: ClassVar[bool] = False
    noun: ClassVar[str] = "pipeline"
    settings_class: ClassVar[type[PipelineSettings]]
    free_on_resume: ClassVar[tuple[str, ...]] = ("epochs", "devices", "accelerator", "progress")
    artefacts: ClassVar[tuple[str, ...]] = ()
    optional_artefacts: ClassVar[tuple[str, ...]] = ()
    packages: ClassVar[tuple[str, ...]] = ()

    def __init__(self, model: str, **settings: Any) -> None:
        self.model_class = get_model(model, task=self.task)
        self.model_name = model.lower()
        settings = named_settings(self.model_class.config_class, settings)
        own = {name: value for name, value in settings.items() if name in self.settings_class.model_fields}
        rest = {name: value for name, value in settings.items() if name not in own}
        known = {*self.settings_class.model_fields, *self.model_class.config_class.model_fields}
        for name in rest:
            if name not in known:
                raise InputError(f"unknown setting {name!r}", nearest_names(name, known))
        recommended = getattr(self.model_class, "recommended", {})
        self.settings: Any = build_config(self.settings_class, {**recommended, **own})
        self.model_config: Any = build_config(self.model_class.config_class, rest)
        self._model: Any = None
        self._data: DataT | None = None
        self._state = TrainingState()
        self._seconds = 0.0
        self._unlearning: dict[str, Any] | None = None

    # What a pipeline says about itself

    @abstractmethod
    def _accept(self, data: Any) -> DataT:
        """Check and convert what :meth:`fit` was given; raise InputError for what cannot be trained on."""

    @abstractmethod
    def _build_model(self, data: DataT, generator: torch.Generator) -> torch.nn.Module:
        """The model with its initial weights; torch's own random state is seeded as well."""

    @abstractmethod
    def _training(self, model: Any, data: DataT) -> tuple[EpochSource, Validate | None, TrainingPlan]:
        """What :func:`graphcl.pipelines.training.train` takes beside the model.

        Called before a file is written: raise InputError here for data that cannot be trained on with these settings.
        """

    def _plan(self, metric: str, unit: str, **others: Any) -> TrainingPlan:
        """Train as the settings say until the metric no longer rises, and keep the best epoch.

        Args:
            metric: of the validation part.
            unit: see :class:`TrainingPlan`.
            **others: fields of the plan. Settings that have the name of a field (``patience``, ``weight_decay``, ...)
                are taken over without being told.
        """
        from graphcl.pipelines.training import TrainingPlan

        usual = {"stop": "metric", "keep": "best", "checkpoint_seconds": 30.0}
        names = [field.name for field in fields(TrainingPlan) if field.name in type(self.settings).model_fields]
        taken = {name: getattr(self.settings, name) for name in names}
        return TrainingPlan(**{**usual, **taken, "metric": metric, "unit": unit, **others})

    @abstractmethod
    def _hash_data(self, data: DataT) -> str:
        """A hash of everything in the data that training depends on."""

    @abstractmethod
    def _describe_data(self, data: DataT) -> dict[str, Any]:
        """What the manifest says about the data: at least ``source`` and ``hash``."""

    @abstractmethod
    def _write_data(self, folder: RunFolder, data: DataT) -> None:
        """Write what :meth:`_read_data` needs."""

    @abstractmethod
    def _read_data(self, folder: RunFolder) -> DataT:
        """The data of a run folder; raise InputError when they are damaged."""

    @abstractmethod
    def _write_results(self, folder: RunFolder, model: Any, data: DataT) -> dict[str, Any]:
        """Measure the model and write ``analysis.json`` and other artefacts of the pipeline.

        Returns:
            The content of ``metrics.json``: ``protocol``, ``validation`` and ``test`` (each a mapping, perhaps empty),
            and more if there is more; epochs are added.
        """

    @abstractmethod
    def evaluate(self, split: Literal["valid", "test"] = "test") -> Evaluation:
        """Measure a part of the data."""

    @abstractmethod
    def embed(self, what: Any = ...) -> Embeddings:
        """Vectors of one of ``embeds`` with external ids."""

    # Configuration

    def get_config(self) -> dict[str, Any]:
        """Every setting by name; :meth:`from_config` makes an equal pipeline of it."""
        return {"model": self.model_name, **self.settings.model_dump(), **self.model_config.model_dump()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """A pipeline of settings by name, ``model`` among them.

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
    def unlearning(self) -> dict[str, Any] | None:
        """What :class:`graphcl.pipelines.unlearning.Unlearner` took out of the model and measured; None for none."""
        return None if self._unlearning is None else dict(self._unlearning)

    # Training

    def fit(self, data: Any, out: str | Path | None = None, *, resume: bool = False, overwrite: bool = False) -> Self:
        """Train, measure, and leave a run folder when ``out`` is given.

        Args:
            data: what the pipeline trains on.
            out: run folder to write; nothing is kept on disk when None.
            resume: continue the run in ``out`` from its last checkpoint, or start it when there is none.
            overwrite: replace a run that ``out`` already holds.

        Returns:
            This pipeline, fitted.

        Raises:
            InputError: when ``out`` already holds a run or cannot be written, when a run to resume was made with other
                settings or data, when there are not so many devices, when the data cannot be trained on, or when
                training diverges.
        """
        accepted = self._accept(data)
        if out is None:
            with tempfile.TemporaryDirectory(prefix="graphcl-") as scratch:
                return self._fit(accepted, self._folder(Path(scratch) / "run"), resume=False, overwrite=False)
        self._fit(accepted, self._folder(out), resume=resume, overwrite=overwrite)
        self._write_run(self._folder(out))
        return self

    def _fit(self, data: DataT, folder: RunFolder, *, resume: bool, overwrite: bool) -> Self:
        from graphcl.pipelines.training import require_devices, train

        require_devices(self.settings.devices, self.settings.accelerator)
        model = self._new_model(data)
        source, validate, plan = self._training(model, data)
        identity = {"settings": self._identity(), "data": self._hash_data(data)}
        folder.prepare(resume=resume, overwrite=overwrite)
        _require_same_run(folder, identity)
        folder.write_config(self._run_config())
        started = time.perf_counter()
        before = (load_state(folder.checkpoints) or TrainingState()).seconds
        try:
            self._state = train(model, source, validate, plan, folder.checkpoints, identity)
        except InputError:
            folder.withdraw()
            raise
        self._seconds = before + time.perf_counter() - started
        self._model, self._data, self._unlearning = model.to("cpu").eval(), data, None
        return self

    def _new_model(self, data: DataT) -> Any:
        with torch.random.fork_rng():
            torch.manual_seed(self.settings.seed)
            return self._build_model(data, torch.Generator().manual_seed(self.settings.seed))

    def _identity(self) -> dict[str, Any]:
        kept = {name: value for name, value in self.get_config().items() if name not in self.free_on_resume}
        identity: dict[str, Any] = json.loads(json.dumps(kept))  # as it comes back from the checkpoint
        return identity

    def _run_config(self) -> dict[str, Any]:
        return {"pipeline": self.task, **self.get_config()}

    # Saving

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write a run folder that :meth:`load` and the command line read.

        Raises:
            InputError: when not fitted, or ``path`` already holds a run and ``overwrite`` is False.
        """
        self._fitted()
        folder = self._folder(path)
        folder.prepare(resume=False, overwrite=overwrite)
        folder.write_config(self._run_config())
        write_history(folder.path / HISTORY, self._state.history)
        self._write_run(folder)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The fitted pipeline of a complete run folder.

        Raises:
            InputError: when the folder is incomplete (naming the missing file) or a file is damaged.
        """
        folder = cls._folder(path)
        folder.require_complete()
        config = folder.read_config()
        config.pop("pipeline", None)
        pipeline = cls.from_config(config)
        data = pipeline._read_data(folder)
        model = pipeline._new_model(data)
        weights, about = load_tensors(folder.path / MODEL)
        try:
            model.load_state_dict(weights)
            pipeline._state = TrainingState(**about["training"])
        except (RuntimeError, KeyError, TypeError) as error:
            raise InputError(
                "does not fit the run's settings", "restore the file or train again", path=folder.path / MODEL
            ) from error
        pipeline._seconds = pipeline._state.seconds
        pipeline._model, pipeline._data = model.eval(), data
        if (folder.path / UNLEARNING).is_file():
            pipeline._unlearning = folder.read_json(UNLEARNING)
        return pipeline

    @classmethod
    def _folder(cls, path: str | Path) -> RunFolder:
        return RunFolder(Path(path), cls.task, cls.artefacts, cls.optional_artefacts)

    def _write_run(self, folder: RunFolder) -> None:
        model, data = self._fitted()
        self._state.seconds = self._seconds
        save_tensors(folder.path / MODEL, model.state_dict(), {"training": vars(self._state)})
        self._write_data(folder, data)
        results = self._write_results(folder, model, data)
        epochs = {"best_epoch": self._state.best_epoch, "epochs": self._state.epoch}
        write_json(folder.path / METRICS, {**results, **epochs})
        if self._unlearning is None:
            (folder.path / UNLEARNING).unlink(missing_ok=True)
        else:
            write_json(folder.path / UNLEARNING, self._unlearning)
        write_json(
            folder.path / MANIFEST,
            {
                "pipeline": self.task,
                "model": self.model_name,
                "seed": self.settings.seed,
                "data": self._describe_data(data),
                "protocol": dict(results["protocol"]),
                "wall_seconds": round(self._seconds, 3),
                "peak_memory_bytes": peak_memory_bytes(),
                "parameters": sum(parameter.numel() for parameter in model.parameters()),
                "versions": library_versions(*self.packages),
            },
        )

    def _fitted(self) -> tuple[Any, DataT]:
        if self._model is None or self._data is None:
            raise InputError(f"the {self.noun} is not fitted", "call fit first, or load a run folder")
        return self._model, self._data


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
