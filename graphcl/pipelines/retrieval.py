"""Retrieval of labels: a dual encoder trained against all of them, measured, searched and exported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt

from graphcl.data import LabelledQueries, RetrievalData, SparseRows, encode_texts, load_retrieval
from graphcl.data.retrieval import Features, kind_of, num_rows
from graphcl.errors import InputError
from graphcl.kernels import pair_topk
from graphcl.metrics import RetrievalMetrics, inverse_propensities, retrieval_metrics
from graphcl.pipelines.base import DataKind, Embeddings, PipelineSettings, TrainedPipeline
from graphcl.pipelines.retrieval_baselines import BASELINES, baseline_retrieval
from graphcl.pipelines.retrieval_data import (
    LABELS,
    QUERIES,
    QueryBatches,
    RetrievalParts,
    chunks_of,
    space_of,
    tensors_of,
    unit_rows,
)
from graphcl.pipelines.retrieval_index import INDEX, RetrievalIndex
from graphcl.pipelines.runs import ANALYSIS, MANIFEST, RunFolder, write_by_rename, write_json

if TYPE_CHECKING:
    import polars

    from graphcl.pipelines.training import TrainingPlan

__all__ = ["RetrievalEvaluation", "Retriever", "RetrieverSettings"]

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float32]

RETRIEVED = "test_retrieved.parquet"
_KS = (1, 3, 5, 10, 20)
_ROWS = 4096
_SHOWN_QUERIES, _SHOWN_LABELS = 20, 5
_FEWEST_POINTS = 3
_FREQUENCIES = (0, 1, 3, 10, 30, 100)


class RetrieverSettings(PipelineSettings):
    """Settings of :class:`Retriever` beside those of its model.

    Args:
        epochs: most epochs.
        batch_size: queries a step; each meets all labels.
        learning_rate: of Adam.
        unit_features: scale the features of queries and labels to length 1.
        valid_share, test_share: shares of the training queries, at random, that are set aside for validation and for
            the test where the data have none.
        watch: the metric of the validation queries that decides which epoch is kept.
        patience: stop after so many validations without a better one.
        validate_every: validate after every so many epochs.
        propensity_a, propensity_b: A and B of the propensities of PSP@k, see `graphcl.metrics.inverse_propensities`.
        baselines: also measure methods that learn nothing.
    """

    epochs: PositiveInt = 60
    batch_size: PositiveInt = 256
    learning_rate: PositiveFloat = 5e-3
    unit_features: bool = True
    valid_share: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.1
    test_share: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.2
    watch: Literal["P@1", "P@5", "R@5", "R@20", "nDCG@5"] = "nDCG@5"
    patience: PositiveInt = 5
    validate_every: PositiveInt = 1
    propensity_a: PositiveFloat = 0.55
    propensity_b: PositiveFloat = 1.5
    baselines: bool = True


@dataclass(frozen=True)
class RetrievalEvaluation:
    """How well labels are retrieved, and how that was measured.

    Attributes:
        metrics: `graphcl.metrics.RetrievalMetrics`.
        protocol: the choices that make the numbers comparable.
    """

    metrics: RetrievalMetrics
    protocol: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """``{"protocol": ..., "metrics": ...}``, ready for JSON."""
        return {"protocol": dict(self.protocol), "metrics": self.metrics.to_dict()}


class Retriever(TrainedPipeline[RetrievalParts]):
    """Learn to find the labels of queries among very many: tags of texts, attributes of items, items of users.

    Args:
        model: name of a model of retrieval, see :func:`graphcl.models.list_models`.
        **settings: settings of :class:`RetrieverSettings` and of the model's configuration class together.

    Raises:
        InputError: for an unknown model or setting, with the nearest known name, or a value out of range.

    Example:
        >>> from graphcl.data import synthetic_tags
        >>> data = synthetic_tags(300, num_labels=40, num_words=200)
        >>> retriever = Retriever(epochs=1, dim=8, progress=False).fit(data)
        >>> retriever.retrieve(data.test.features, k=3).columns
        ['query', 'rank', 'label', 'score']
    """

    task: ClassVar[str] = "retrieval"
    data_kind: ClassVar[DataKind] = "retrieval"
    embeds: ClassVar[tuple[str, ...]] = ("labels", "queries")
    noun: ClassVar[str] = "retriever"
    settings_class: ClassVar[type[PipelineSettings]] = RetrieverSettings
    free_on_resume: ClassVar[tuple[str, ...]] = (*TrainedPipeline.free_on_resume, "patience", "baselines")
    artefacts: ClassVar[tuple[str, ...]] = (QUERIES, LABELS, INDEX, RETRIEVED)

    def __init__(self, model: str = "dual_encoder", **settings: Any) -> None:
        super().__init__(model, **settings)

    # What the data are

    def _accept(self, data: Any) -> RetrievalParts:
        if isinstance(data, str | Path):
            data = load_retrieval(data)
        if not isinstance(data, RetrievalData):
            raise InputError(
                f"a retriever trains on queries and labels, not on {type(data).__name__}",
                "give a RetrievalData, a name or a folder",
            )
        settings = self.settings
        parts = RetrievalParts.of(
            data, settings.valid_share, settings.test_share, settings.seed, settings.unit_features
        )
        if self.model_config.labels in ("features", "both") and data.label_features is None:
            raise InputError(
                f"labels={self.model_config.labels!r} needs features of the labels",
                "give label features (lbl_X_Xf.txt), or labels=ids", path=data.source,
            )  # fmt: skip
        if self.model_config.towers == "shared" and (
            self.model_config.labels == "ids"
            or data.label_features is None
            or kind_of(data.label_features) != kind_of(data.train.features)
        ):
            raise InputError(
                "one tower needs labels with features of the queries' kind", "use towers=two or towers=auto",
                path=data.source,
            )  # fmt: skip
        return parts

    def _hash_data(self, data: RetrievalParts) -> str:
        return data.data.content_hash()

    def _describe_data(self, data: RetrievalParts) -> dict[str, Any]:
        whole = data.data
        return {
            "source": whole.source,
            "hash": self._hash_data(data),
            "queries": {name: data.part(name).num_queries for name in ("train", "valid", "test")},
            "labels": whole.num_labels,
            "labels_in_training": int((data.label_counts > 0).sum()),
            "labels_a_query": round(float(whole.train.labels.sizes.mean()), 3),
            "features": kind_of(whole.train.features),
            "label_features": None if whole.label_features is None else kind_of(whole.label_features),
            "text_model": whole.text_model,
            "split": data.split,
        }

    def _write_data(self, folder: RunFolder, data: RetrievalParts) -> None:
        data.write(folder)

    def _read_data(self, folder: RunFolder) -> RetrievalParts:
        about = folder.read_json(MANIFEST).get("data", {})
        return RetrievalParts.read(folder, str(about.get("source", "")))

    # Training

    def _build_model(self, data: RetrievalParts, generator: torch.Generator) -> Any:
        whole = data.data
        labels: dict[str, Any] = {}
        if whole.label_features is not None:
            labels = {
                "label_features": tensors_of(whole.label_features),
                "label_space": space_of(whole.label_features),
            }
        space = space_of(whole.train.features)
        return self.model_class(space, whole.num_labels, self.model_config, generator=generator, **labels)

    def _training(self, model: Any, data: RetrievalParts) -> tuple[QueryBatches, _Measured, TrainingPlan]:
        settings = self.settings
        watched = int(settings.watch.rpartition("@")[2])
        if watched > data.data.num_labels:
            raise InputError(
                f"{settings.watch} needs {watched} labels and there are {data.data.num_labels}", "watch P@1 instead",
                path=data.data.source,
            )  # fmt: skip
        plan = self._plan(settings.watch, "queries")
        return QueryBatches(data.part("train"), settings.batch_size, settings.seed), _Measured(data.part("valid")), plan

    # Results

    def evaluate(self, split: Literal["valid", "test"] = "test") -> RetrievalEvaluation:
        """Rank all labels for the queries of a part.

        Args:
            split: the part.

        Raises:
            InputError: when not fitted.
            ValueError: for another part.
        """
        if split not in ("valid", "test"):
            raise ValueError(f"split must be 'valid' or 'test', got {split!r}")
        model, data = self._fitted()
        part = data.part(split)
        metrics = self._measure(data, part, _best_labels(model, part, _depth(data.data.num_labels)))
        return RetrievalEvaluation(metrics, self._protocol(data, split, metrics))

    def _measure(self, data: RetrievalParts, part: LabelledQueries, retrieved: IntArray) -> RetrievalMetrics:
        weights = None
        if data.part("train").num_queries >= _FEWEST_POINTS:
            weights = inverse_propensities(
                data.label_counts,
                data.part("train").num_queries,
                a=self.settings.propensity_a,
                b=self.settings.propensity_b,
            )
        return _metrics(part, retrieved, weights)

    def _protocol(self, data: RetrievalParts, split: str, metrics: RetrievalMetrics) -> dict[str, str]:
        settings = self.settings
        return {
            "part": f"{split}, {metrics.queries:,} queries; {metrics.without_labels:,} without labels are left out",
            "candidates": f"all {data.data.num_labels:,} labels",
            "split": data.split,
            "propensities": f"of the training part, A = {settings.propensity_a:g}, B = {settings.propensity_b:g}",
            "selection": f"the epoch with the best {settings.watch} of the validation queries",
        }

    def retrieve(self, queries: Features | Sequence[str], k: int = 10) -> polars.DataFrame:
        """The best labels of new queries.

        Args:
            queries: features as in training, sparse or dense, scaled as those were; or texts, where training read such.
            k: labels a query.

        Returns:
            ``query`` (row number from 0), ``rank`` from 1, ``label`` and ``score``, the inner product.

        Raises:
            InputError: when not fitted, for features of another kind, or k outside ``1..L``.
            MissingPackageError: texts without the extra ``[text]``.
        """
        import polars as pl

        index, vectors = self.index(), self.encode(queries)
        if not 1 <= k <= index.labels.size:
            raise InputError(f"k must lie in 1..{index.labels.size}, got {k}", "give another k")
        names, scores = index.search(vectors, k)
        rows = vectors.shape[0]
        return pl.DataFrame(
            {
                "query": np.repeat(np.arange(rows), k),
                "rank": np.tile(np.arange(1, k + 1), rows),
                "label": pl.Series(names.ravel().tolist(), dtype=_type_of(index.labels)),
                "score": scores.ravel(),
            }
        )

    @property
    def num_labels(self) -> int:
        """L, also the most labels that can be retrieved for a query."""
        return self._fitted()[1].data.num_labels

    def encode(self, queries: Features | Sequence[str]) -> FloatArray:
        """``(Q, d)`` embeddings of new queries; texts go through the sentence encoder of training.

        Raises:
            InputError: when not fitted, or for features of another kind.
            MissingPackageError: texts without the extra ``[text]``.
        """
        model, data = self._fitted()
        if not isinstance(queries, SparseRows | np.ndarray):
            if data.data.text_model is None:
                raise InputError(
                    "training read no texts by a sentence encoder of a name", "give features as in training"
                )
            queries = encode_texts(list(queries), model=data.data.text_model)
        known = kind_of(data.data.train.features)
        if kind_of(queries) != known:
            raise InputError(
                f"the queries have {kind_of(queries)}, training had {known}", "number the features as in training"
            )
        return _encoded(model, unit_rows(queries) if self.settings.unit_features else queries)

    def index(self) -> RetrievalIndex:
        """The vectors and names of all labels; ``save`` it to search elsewhere.

        Raises:
            InputError: when not fitted.
        """
        model, data = self._fitted()
        with torch.no_grad():
            vectors = model.encode_labels().float().numpy()
        return RetrievalIndex(vectors, data.data.names(), self.model_config.similarity)

    def embed(self, what: Literal["labels", "queries"] = "labels") -> Embeddings:
        """Embeddings of the labels with their names, or of the test queries with their row numbers.

        Raises:
            InputError: when not fitted.
            ValueError: for another ``what``.
        """
        model, data = self._fitted()
        if what == "labels":
            index = self.index()
            return Embeddings(index.labels, index.vectors)
        if what != "queries":
            raise ValueError(f"what must be 'labels' or 'queries', got {what!r}")
        part = data.part("test")
        return Embeddings(np.arange(part.num_queries), _encoded(model, part.features))

    def _write_results(self, folder: RunFolder, model: Any, data: RetrievalParts) -> dict[str, Any]:
        self.index().save(folder.path)
        test, valid = self.evaluate("test"), self.evaluate("valid")
        part = data.part("test")
        depth = _depth(data.data.num_labels)
        retrieved = _best_labels(model, part, depth)
        self._write_retrieved(folder, data, part, retrieved)
        write_json(folder.path / ANALYSIS, _by_frequency(data, part, retrieved))
        records = []
        for name in BASELINES if self.settings.baselines else ():
            found = baseline_retrieval(name, data.data, part, depth)
            if found is not None:
                records.append({"name": name, "metrics": self._measure(data, part, found).to_dict()})
        return {
            "protocol": dict(test.protocol),
            "validation": valid.metrics.to_dict(),
            "test": test.metrics.to_dict(),
            "baselines": records,
        }

    def _write_retrieved(
        self, folder: RunFolder, data: RetrievalParts, part: LabelledQueries, retrieved: IntArray
    ) -> None:
        """The first labels of the first test queries, beside the true ones."""
        import polars as pl

        names = data.data.names()
        rows = []
        for query in range(min(_SHOWN_QUERIES, part.num_queries)):
            true = part.labels.columns[part.labels.offsets[query] : part.labels.offsets[query + 1]]
            best = retrieved[query, :_SHOWN_LABELS]
            rows.append(
                {
                    "query": query,
                    "retrieved": [str(name) for name in names[best]],
                    "hit": np.isin(best, true).tolist(),
                    "labels": [str(name) for name in names[true]],
                }
            )
        words = pl.List(pl.String)
        schema: dict[str, Any] = {"query": pl.Int64, "retrieved": words, "hit": pl.List(pl.Boolean), "labels": words}
        table = pl.DataFrame(rows, schema=schema)
        write_by_rename(folder.path / RETRIEVED, table.write_parquet)


@dataclass(frozen=True)
class _Measured:
    """Validation: the metrics of a part."""

    part: LabelledQueries

    def __call__(self, model: Any) -> dict[str, float]:
        retrieved = _best_labels(model, self.part, _depth(self.part.labels.width))
        return {name: float(value or 0.0) for name, value in _metrics(self.part, retrieved, None).values.items()}


def _depth(num_labels: int) -> int:
    return min(max(_KS), num_labels)


def _metrics(part: LabelledQueries, retrieved: IntArray, weights: Any) -> RetrievalMetrics:
    ks = [k for k in _KS if k <= retrieved.shape[1]]
    return retrieval_metrics(retrieved, part.labels.offsets, part.labels.columns, ks=ks, weights=weights)


@torch.no_grad()
def _best_labels(model: Any, part: LabelledQueries, depth: int) -> IntArray:
    """``(Q, depth)`` labels of a part, best first."""
    labels = model.encode_labels()
    parts = [
        pair_topk(model(chunk.to(labels.device)), labels, depth).indices.cpu()
        for chunk in chunks_of(part.features, part.num_queries, _ROWS)
    ]
    found: IntArray = torch.cat(parts).numpy() if parts else np.empty((0, depth), dtype=np.int64)
    return found


@torch.no_grad()
def _encoded(model: Any, features: Features) -> FloatArray:
    parts = [model(chunk) for chunk in chunks_of(features, num_rows(features), _ROWS)]
    found: FloatArray = torch.cat(parts).float().numpy() if parts else np.empty((0, model.config.dim), dtype=np.float32)
    return found


def _by_frequency(data: RetrievalParts, part: LabelledQueries, retrieved: IntArray) -> dict[str, Any]:
    """How many of the test's labels are among the retrieved, by how many training queries have the label."""
    rows = np.repeat(np.arange(part.num_queries), part.labels.sizes)
    hit = (retrieved[rows] == part.labels.columns[:, None]).any(axis=1)
    bucket = np.searchsorted(_FREQUENCIES, data.label_counts[part.labels.columns], side="right") - 1
    labels = np.searchsorted(_FREQUENCIES, data.label_counts, side="right") - 1
    ends = (*(end - 1 for end in _FREQUENCIES[1:]), None)
    return {
        "depth": retrieved.shape[1],
        "by_frequency": [
            {
                "from": start,
                "to": end,
                "labels": int((labels == place).sum()),
                "targets": int((bucket == place).sum()),
                "found": int(hit[bucket == place].sum()),
            }
            for place, (start, end) in enumerate(zip(_FREQUENCIES, ends, strict=True))
        ],
    }


def _type_of(names: NDArray[Any]) -> Any:
    import polars as pl

    return pl.Int64 if np.issubdtype(names.dtype, np.integer) else pl.String
