"""Events of typed entities: learn which entities go together, and score combinations that do not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt

from graphcl.data import Events, load_events, stream_events
from graphcl.data.events import codes_of
from graphcl.errors import InputError
from graphcl.metrics import detection_metrics
from graphcl.pipelines.base import DataKind, Embeddings, PipelineSettings, TrainedPipeline
from graphcl.pipelines.event_baselines import BASELINES, baseline_scores
from graphcl.pipelines.event_data import ENTITIES, EVENTS, EventBatches, EventParts, inject_anomalies
from graphcl.pipelines.runs import ANALYSIS, MANIFEST, RunFolder, write_by_rename, write_json

if TYPE_CHECKING:
    import polars

    from graphcl.pipelines.training import TrainingPlan

__all__ = ["EventEvaluation", "EventScorer", "EventSettings"]

FloatArray = NDArray[np.float64]

SCORES = "test_scores.parquet"
_SCORED_ROWS = 65_536
_SHOWN = 50
_CURVE_POINTS = 400


class EventSettings(PipelineSettings):
    """Settings of :class:`EventScorer` beside those of its model.

    Args:
        epochs: most epochs.
        batch_size: events a step.
        learning_rate: of Adam.
        learning_rate_decay: factor of the learning rate after each epoch; below 1 helps logs of a million events, whose
            epochs are long, and starves short ones.
        valid_share, test_share: shares of the log, at its end, that are kept for validation and for the test.
        injected_share: share of the events of a part that get one entity replaced to measure the scores where nobody
            marked anomalies, and in validation always.
        patience: stop after so many validations without a better average precision on injected anomalies.
        validate_every: validate after every so many epochs.
        baselines: also score the test part by methods without embeddings.
    """

    epochs: PositiveInt = 30
    batch_size: PositiveInt = 8192
    learning_rate: PositiveFloat = 0.02
    learning_rate_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    valid_share: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.1
    test_share: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.1
    injected_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.01
    patience: PositiveInt = 3
    validate_every: PositiveInt = 1
    baselines: bool = True


@dataclass(frozen=True)
class _Values:
    values: Mapping[str, float | None]

    def to_dict(self) -> dict[str, float | None]:
        """The metrics, ready for JSON."""
        return dict(self.values)


@dataclass(frozen=True)
class EventEvaluation:
    """How well the scores find anomalies, and how that was measured.

    Attributes:
        metrics: ``AP``, ``ROC_AUC`` and ``R_precision`` on known anomalies where there are any, and the same names
            ending in ``_injected`` on injected ones.
        protocol: the choices that make the numbers comparable.
    """

    metrics: _Values
    protocol: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """``{"protocol": ..., "metrics": ...}``, ready for JSON."""
        return {"protocol": dict(self.protocol), "metrics": self.metrics.to_dict()}


class EventScorer(TrainedPipeline[EventParts]):
    """Learn from a log of events which entities go together; score events, known combinations or not.

    Training sees no label. The best epoch is the one that finds most of the anomalies that were put into the
    validation part; known anomalies, where there are any, are read by the test alone.

    Args:
        model: name of a model of events, see :func:`graphcl.models.list_models`.
        **settings: settings of :class:`EventSettings` and of the model's configuration class together.

    Raises:
        InputError: for an unknown model or setting, with the nearest known name, or a value out of range.

    Example:
        >>> from graphcl.data import load_events
        >>> log = load_events("enterprise-log", num_events=2000, scale=0.02)
        >>> scorer = EventScorer(epochs=1, progress=False).fit(log)
        >>> scorer.score(log.to_table([0, 1]))["unseen"].to_list()
        [0, 0]
    """

    task: ClassVar[str] = "events"
    data_kind: ClassVar[DataKind] = "events"
    embeds: ClassVar[tuple[str, ...]] = ("entities",)
    noun: ClassVar[str] = "scorer"
    settings_class: ClassVar[type[PipelineSettings]] = EventSettings
    free_on_resume: ClassVar[tuple[str, ...]] = (*TrainedPipeline.free_on_resume, "patience", "baselines")
    artefacts: ClassVar[tuple[str, ...]] = (ENTITIES, EVENTS, SCORES)
    packages: ClassVar[tuple[str, ...]] = ("scikit-learn",)

    def __init__(self, model: str = "ape", **settings: Any) -> None:
        super().__init__(model, **settings)

    # What the data are

    def _accept(self, data: Any) -> EventParts:
        events = data if isinstance(data, Events) else load_events(data) if isinstance(data, str | Path) else None
        events = Events.from_table(data) if events is None else events
        return EventParts.of(events, self.settings.valid_share, self.settings.test_share)

    def _hash_data(self, data: EventParts) -> str:
        return data.content_hash()

    def _describe_data(self, data: EventParts) -> dict[str, Any]:
        return {
            "source": data.source,
            "hash": self._hash_data(data),
            "events": data.codes.shape[0],
            "training_events": data.training.shape[0],
            "entities": {name: len(ids) for name, ids in zip(data.columns, data.ids, strict=True)},
            "known_anomalies": None if data.label is None else int(data.label.sum()),
        }

    def _write_data(self, folder: RunFolder, data: EventParts) -> None:
        data.write(folder)

    def _read_data(self, folder: RunFolder) -> EventParts:
        about = folder.read_json(MANIFEST).get("data", {})
        return EventParts.read(folder, str(about.get("source", "")))

    # Training

    def _build_model(self, data: EventParts, generator: torch.Generator) -> Any:
        counts = [torch.from_numpy(count) for count in data.counts()]
        return self.model_class(counts, self.model_config, generator=generator)

    def _training(self, model: Any, data: EventParts) -> tuple[EventBatches, _InjectedAnomalies, TrainingPlan]:
        settings = self.settings
        codes, label = self._injected(data, "valid")
        if not label.any():
            raise InputError("every type has a single entity", "give a log whose entities differ", path=data.source)
        plan = self._plan("AP_injected", "events", lr_decay=settings.learning_rate_decay)
        source = EventBatches(data.training, settings.batch_size, settings.seed)
        return source, _InjectedAnomalies(torch.from_numpy(codes), label), plan

    def _injected(self, data: EventParts, split: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The events of a part with anomalies put in; known ones are left out, so that the rest is normal."""
        rows = data.rows(split)
        if data.label is not None and split == "test":
            rows = rows[~data.label[rows]]
        shares = [count / count.sum() for count in data.counts()]
        return inject_anomalies(data.codes[rows], shares, self.settings.injected_share, self.settings.seed)

    # Results

    def evaluate(self, split: Literal["valid", "test"] = "test") -> EventEvaluation:
        """Measure the scores of a part against known anomalies, and against injected ones.

        Args:
            split: the part.

        Raises:
            InputError: when not fitted.
            ValueError: for another part.
        """
        if split not in ("valid", "test"):
            raise ValueError(f"split must be 'valid' or 'test', got {split!r}")
        model, data = self._fitted()
        codes, label = self._injected(data, split)
        measured = {f"{name}_injected": value for name, value in self._measure(_scores(model, codes), label).items()}
        rows = data.rows(split)
        if data.label is not None:
            measured = {**self._measure(_scores(model, data.codes[rows]), data.label[rows]), **measured}
        return EventEvaluation(_Values(measured), self._protocol(data, split, label))

    @staticmethod
    def _measure(scores: FloatArray, label: NDArray[np.bool_]) -> dict[str, float | None]:
        return detection_metrics(scores, label)

    def _protocol(self, data: EventParts, split: str, injected: NDArray[np.bool_]) -> dict[str, str]:
        rows = data.rows(split)
        known = "none marked" if data.label is None else f"{int(data.label[rows].sum()):,} known"
        return {
            "part": f"{split}, {rows.size:,} events, the {'last' if split == 'test' else 'next to last'} in time",
            "anomalies": known,
            "injected": f"{int(injected.sum()):,}, one entity replaced by frequency",
            "events with unseen entities": f"{int((data.codes[rows] < 0).any(axis=1).sum()):,}",
            "selection": "the epoch that finds most injected anomalies in validation; no label is read",
        }

    def score(self, table: Any) -> polars.DataFrame:
        """Anomaly scores of events, also of combinations that never happened.

        Args:
            table: frame with the entity columns of training, in any order; other columns are kept.

        Returns:
            The table with ``score`` (high for unusual combinations) and ``unseen`` (how many of the entities training
            did not know; they count as compatible with nothing).

        Raises:
            InputError: when not fitted, or a column is missing.
        """
        import polars as pl

        model, data = self._fitted()
        frame = table if isinstance(table, pl.DataFrame) else pl.from_dataframe(table)
        for name in data.columns:
            if name not in frame.columns:
                raise InputError("there is no such column", f"give the columns {', '.join(data.columns)}", column=name)
        codes = codes_of({name: frame[name] for name in data.columns}, data.columns, data.ids)
        return frame.with_columns(
            score=pl.Series(_scores(model, codes)), unseen=pl.Series((codes < 0).sum(axis=1), dtype=pl.Int64)
        )

    def score_file(self, source: str | Path, out: str | Path, *, chunk: int = 100_000) -> int:
        """Score a CSV of any size, a chunk of rows at a time.

        Args:
            source: CSV or TSV with the entity columns.
            out: CSV to write: the entity columns, ``score`` and ``unseen``, a row a row of the source. It appears when
                all rows are scored.
            chunk: rows at a time.

        Returns:
            The number of events.

        Raises:
            InputError: when not fitted, or a row cannot be read; nothing is left behind.

        Complexity: O(rows m^2 d) time, O(chunk (m + d)) memory.
        """
        import polars as pl

        model, data = self._fitted()
        total = 0

        def write(path: Path) -> None:
            nonlocal total
            with path.open("wb") as file:
                for _, columns in stream_events(Path(source), data.columns, chunk):
                    table = dict(zip(data.columns, columns, strict=True))
                    codes = codes_of(table, data.columns, data.ids)
                    scored = pl.DataFrame({**table, "score": _scores(model, codes), "unseen": (codes < 0).sum(axis=1)})
                    scored.write_csv(file, include_header=total == 0)
                    total += scored.height
            if total == 0:
                raise InputError("holds no event", "give at least one row below the header", path=source)

        write_by_rename(Path(out), write)
        return total

    def embed(self, what: Literal["entities"] = "entities") -> Embeddings:
        """Embeddings of the training entities; ids are texts ``type=id``.

        Raises:
            InputError: when not fitted.
            ValueError: for another ``what``.
        """
        model, data = self._fitted()
        if what != "entities":
            raise ValueError(f"what must be 'entities', got {what!r}")
        ids = [
            f"{name}={entity}" for name, known in zip(data.columns, data.ids, strict=True) for entity in known.external
        ]
        return Embeddings(np.asarray(ids), torch.cat([table.detach() for table in model.tables]).numpy())

    def _write_results(self, folder: RunFolder, model: Any, data: EventParts) -> dict[str, Any]:
        test, valid = self.evaluate("test"), self.evaluate("valid")
        rows = data.rows("test")
        scores = _scores(model, data.codes[rows])
        self._write_scores(folder, data, rows, scores)
        write_json(folder.path / ANALYSIS, self._analysis(model, data, rows, scores))
        return {
            "protocol": dict(test.protocol),
            "validation": valid.metrics.to_dict(),
            "test": test.metrics.to_dict(),
            "baselines": self._baselines(data) if self.settings.baselines else [],
        }

    def _write_scores(self, folder: RunFolder, data: EventParts, rows: NDArray[np.int64], scores: FloatArray) -> None:
        """The most suspicious test events, by external ids where training knows them."""
        import polars as pl

        top = np.argsort(-scores, kind="stable")[:_SHOWN]
        table: dict[str, Any] = {"row": rows[top] + 1, "score": scores[top]}
        for position, (name, ids) in enumerate(zip(data.columns, data.ids, strict=True)):
            codes = data.codes[rows[top], position]
            table[f"entity: {name}"] = [str(ids.external[code]) if code >= 0 else "(unseen)" for code in codes.tolist()]
        if data.label is not None:
            table["label"] = data.label[rows[top]]
        write_by_rename(folder.path / SCORES, pl.DataFrame(table).write_parquet)

    def _analysis(self, model: Any, data: EventParts, rows: NDArray[np.int64], scores: FloatArray) -> dict[str, Any]:
        codes, label = self._injected(data, "test")
        injected = _scores(model, codes)
        edges = np.histogram_bin_edges(np.concatenate([injected, scores]), bins=60)
        names = [(a, b) for i, a in enumerate(data.columns) for b in data.columns[i + 1 :]]
        return {
            "pair_weights": [
                {"types": list(pair), "weight": float(weight)}
                for pair, weight in zip(names, model.pair_weights.detach().tolist(), strict=True)
            ],
            "histograms": {
                "edges": edges.tolist(),
                "normal": np.histogram(injected[~label], edges)[0].tolist(),
                "injected": np.histogram(injected[label], edges)[0].tolist(),
                **(
                    {"known": np.histogram(scores[data.label[rows]], edges)[0].tolist()}
                    if data.label is not None
                    else {}
                ),
            },
            "curves": {
                "injected": _curve(injected, label),
                **({"known": _curve(scores, data.label[rows])} if data.label is not None else {}),
            },
        }

    def _baselines(self, data: EventParts) -> list[dict[str, Any]]:
        sizes, rows = [len(ids) for ids in data.ids], data.rows("test")
        codes, label = self._injected(data, "test")
        records = []
        for name in BASELINES:
            seed = self.settings.seed
            injected = baseline_scores(name, data.training, sizes, codes, seed=seed)
            measured = {f"{key}_injected": value for key, value in self._measure(injected, label).items()}
            if data.label is not None:
                known = baseline_scores(name, data.training, sizes, data.codes[rows], seed=seed)
                measured = {**self._measure(known, data.label[rows]), **measured}
            records.append({"name": name, "metrics": measured})
        return records


@dataclass(frozen=True)
class _InjectedAnomalies:
    """Validation: average precision on events of which some were changed."""

    codes: torch.Tensor
    label: NDArray[np.bool_]

    def __call__(self, model: Any) -> dict[str, float]:
        measured = detection_metrics(_scores(model, self.codes.numpy()), self.label)
        return {f"{name}_injected": float(value or 0.0) for name, value in measured.items()}


@torch.no_grad()
def _scores(model: Any, codes: NDArray[np.int64]) -> FloatArray:
    device = model.constant.device
    parts = [
        model.anomaly_score(torch.from_numpy(codes[start : start + _SCORED_ROWS]).to(device)).cpu()
        for start in range(0, codes.shape[0], _SCORED_ROWS)
    ]
    found: FloatArray = torch.cat(parts).double().numpy() if parts else np.empty(0)
    return found


def _curve(scores: FloatArray, label: NDArray[np.bool_]) -> dict[str, list[float]]:
    """Precision against recall at a few hundred thresholds."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(label[order])
    if not hits.size or hits[-1] == 0:
        return {"recall": [], "precision": []}
    at = np.unique(np.linspace(0, hits.size - 1, _CURVE_POINTS).astype(np.int64))
    first = np.flatnonzero(label[order])[:_CURVE_POINTS]
    at = np.union1d(at, first)
    return {"recall": (hits[at] / hits[-1]).tolist(), "precision": (hits[at] / (at + 1)).tolist()}
