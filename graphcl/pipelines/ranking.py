"""What recommenders have in common: they rank a catalogue by the inner products of user and item vectors."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from graphcl.data import EvaluationSet, Interactions, Split, leave_one_out
from graphcl.data.ranges import offsets_of, places_of
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
from graphcl.pipelines.base import DataKind, Embeddings, PipelineSettings, TrainedPipeline
from graphcl.pipelines.runs import ANALYSIS, TEST_RANKS, RunFolder, write_by_rename, write_json
from graphcl.pipelines.saved_splits import IDS, INTERACTIONS, describe_split, read_split, split_hash, write_split

if TYPE_CHECKING:
    import polars

IntArray = npt.NDArray[np.int64]
History = Literal["valid", "test", "all"]
OnUnsupported = Literal["raise", "warn", "ignore"]
Seen = Literal["keep", "exclude"]
RankingMetric = Annotated[str, Field(pattern=r"^(HR|Recall|Precision|NDCG|MRR|MAP)@[1-9][0-9]*$")]

CUTOFFS = (5, 10, 20)
ITEM_MAP = "item_map.parquet"
_MAP_ITEMS = 3000
# A history is read up to the part that is to be predicted; "all" serves with everything known.
_KNOWN_PARTS: dict[str, tuple[int, ...]] = {"valid": (TRAIN,), "test": (TRAIN, VALID), "all": (TRAIN, VALID, TEST)}


class RankingSettings(PipelineSettings):
    """Settings of every recommender beside those of its model.

    Args:
        patience: stop after so many epochs without a better validation metric.
        metric: validation metric that chooses the best epoch.
        seen: ``keep`` ranks all items, ``exclude`` removes a user's history from the candidates.
    """

    patience: PositiveInt = 10
    metric: RankingMetric = "NDCG@20"
    seen: Seen = "keep"


@dataclass(frozen=True)
class Histories:
    """What is known of each of N users: ``items[offsets[n]:offsets[n + 1]]``, internal ids in time order."""

    offsets: IntArray
    items: IntArray

    @classmethod
    def of(cls, split: Split, history: str) -> Histories:
        """The histories of all users, by :data:`History`."""
        if history not in _KNOWN_PARTS:
            raise ValueError(f"history must be one of {', '.join(_KNOWN_PARTS)}, got {history!r}")
        rows = split.interactions
        known = np.isin(split.part, _KNOWN_PARTS[history]) & (split.part != UNUSED)
        return cls(offsets_of(np.bincount(rows.user[known], minlength=rows.num_users)), rows.item[known])

    @property
    def lengths(self) -> IntArray:
        """[N] items of each history."""
        return np.diff(self.offsets)

    @property
    def csr(self) -> tuple[IntArray, IntArray]:
        """Offsets and items."""
        return self.offsets, self.items

    def select(self, rows: IntArray) -> Histories:
        """The histories of some users, in their order."""
        lengths = self.lengths[rows]
        return Histories(offsets_of(lengths), self.items[places_of(self.offsets[rows], lengths)])


# (model, histories, users) -> (user vectors, item vectors), see RankingPipeline.encode
Encode = Callable[[Any, Histories, IntArray], tuple[Tensor, Tensor]]


class RankingPipeline(TrainedPipeline[Split]):
    """A recommender: evaluates by ranking the whole catalogue, recommends, embeds, and draws its items.

    A pipeline derives from it and adds :meth:`encode`, ``_build_model`` and ``_training``, which takes its validation
    from :meth:`_validation`.
    """

    data_kind: ClassVar[DataKind] = "interactions"
    embeds: ClassVar[tuple[str, ...]] = ("items", "users")
    noun: ClassVar[str] = "recommender"
    needs_history: ClassVar[bool] = True  # whether users of whom nothing is known have no vector
    free_on_resume: ClassVar[tuple[str, ...]] = ("epochs", "patience", "devices", "accelerator", "progress")
    artefacts: ClassVar[tuple[str, ...]] = (IDS, INTERACTIONS, ITEM_MAP)
    optional_artefacts: ClassVar[tuple[str, ...]] = (TEST_RANKS,)

    @staticmethod
    @abstractmethod
    def encode(model: Any, histories: Histories, users: IntArray) -> tuple[Tensor, Tensor]:
        """Vectors whose inner products are the scores, without gradients.

        Args:
            model: the model, in any mode; it is left in that mode.
            histories: [n] what is known of the users; none is empty.
            users: [n] their internal numbers.

        Returns:
            [n, d] user vectors and [V, d] item vectors, both on the device of the model.
        """

    def _known(self, data: Split, history: str) -> Histories:
        """What is known of all users, by :data:`History`; also what ``seen="exclude"`` takes out of the candidates."""
        return Histories.of(data, history)

    def _history_note(self, part: str) -> str:
        """What the protocol says about the histories that a part is predicted from."""
        names = {TRAIN: "training", VALID: "validation", TEST: "test"}
        return f"{' and '.join(names[code] for code in _KNOWN_PARTS[part])} items"

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
    ) -> Self:
        """Train on the training part, choose the best epoch on the validation part, and test that one.

        Args:
            data: interactions, cut by leave-one-out, or a split.
            out: run folder to write; nothing is kept on disk when None.
            resume: continue the run in ``out`` from its last checkpoint, or start it when there is none.
            overwrite: replace a run that ``out`` already holds.

        Returns:
            This recommender, with the weights of the best epoch.

        Raises:
            InputError: when ``out`` already holds a run or cannot be written, when a run to resume was made with other
                settings or data, when there are not so many devices, when nothing can be trained or validated, or when
                training diverges.
        """
        return super().fit(data, out, resume=resume, overwrite=overwrite)

    def _accept(self, data: Any) -> Split:
        if isinstance(data, Split):
            return data
        if isinstance(data, Interactions):
            return leave_one_out(data)
        raise InputError(
            f"cannot train on {type(data).__name__}",
            "give graphcl.data.Interactions or Split; read_interactions makes one",
        )

    def _hash_data(self, data: Split) -> str:
        return split_hash(data)

    def _describe_data(self, data: Split) -> dict[str, Any]:
        return describe_split(data)

    def _write_data(self, folder: RunFolder, data: Split) -> None:
        write_split(folder, data)

    def _read_data(self, folder: RunFolder) -> Split:
        return read_split(folder)

    def _validation(self, data: Split) -> RankingValidation:
        """The validation part, ready to measure a model after each epoch.

        Raises:
            InputError: when no user of the part has a training item.
        """
        evaluation = data.evaluation("valid")
        histories = self._known(data, "valid")
        kept = np.flatnonzero(self._has_vector(histories)[evaluation.users])
        if not kept.size:
            raise InputError("no user of the validation part has a training item", "use another split")
        targets = Histories(evaluation.target_offsets, evaluation.target_items).select(kept)
        repeated = np.repeat(np.arange(kept.size), targets.lengths)
        pairs = np.unique(np.stack([repeated, targets.items]), axis=1)  # an item counts once a user
        users = evaluation.users[kept]
        return RankingValidation(
            type(self).encode,
            histories.select(users),
            users,
            (offsets_of(np.bincount(pairs[0], minlength=kept.size)), pairs[1]),
            self.settings.seen,
            _cutoffs(self.settings.metric),
        )

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
        histories = self._known(data, part)
        queries, items, users, targets = self._queries_and_targets(model, histories, evaluation)
        measured = evaluate_ranking(
            queries,
            items,
            targets,
            seen=self.settings.seen,
            history=histories.select(users).csr,
            ks=_cutoffs(self.settings.metric),
            train_counts=_train_counts(data),
        )
        protocol = {
            "split": data.protocol,
            "part": part,
            "history": self._history_note(part),
            "users without history": f"{int((histories.lengths[evaluation.users] == 0).sum()):,}"
            + ("" if self.needs_history else " (evaluated)"),
            **measured.protocol,
        }
        return replace(measured, protocol=protocol)

    def _queries_and_targets(
        self, model: Any, histories: Histories, evaluation: EvaluationSet
    ) -> tuple[Tensor, Tensor, IntArray, tuple[IntArray, IntArray]]:
        """Queries, item vectors, user numbers and targets of the users that have both a target and a history.

        Every user with a history is encoded, in the same batches as ``recommend`` does for all users, so that both see
        the same floats to the last bit.
        """
        has_vector = self._has_vector(histories)
        known = np.flatnonzero(has_vector)
        kept = has_vector[evaluation.users]
        users = evaluation.users[kept]
        if not users.size:
            raise InputError("no user of this part has an earlier interaction", "use another split")
        queries, items = self.encode(model, histories.select(known), known)
        targets = Histories(evaluation.target_offsets, evaluation.target_items).select(np.flatnonzero(kept))
        return queries[np.searchsorted(known, users)], items, users, targets.csr

    def _has_vector(self, histories: Histories) -> npt.NDArray[np.bool_]:
        return histories.lengths >= int(self.needs_history)

    def _write_results(self, folder: RunFolder, model: Any, data: Split) -> dict[str, Any]:
        valid, test = self._evaluate(model, data, "valid"), self._evaluate(model, data, "test")
        self._write_analysis(folder, model, data)
        self._write_ranks(folder, data, test)
        return {
            "protocol": dict(test.protocol),
            "validation": valid.metrics.to_dict(),
            "test": test.metrics.to_dict(),
            "buckets": test.to_dict()["buckets"],
        }

    def _write_ranks(self, folder: RunFolder, data: Split, test: RankingEvaluation) -> None:
        """The rank of every test target by user, for comparisons that are paired over users."""
        import polars as pl

        evaluation = data.evaluation("test")
        users = evaluation.users[self._has_vector(self._known(data, "test"))[evaluation.users]]
        owner = np.repeat(users, test.targets[0].diff().numpy())
        rank = pl.Series(test.ranks.numpy(), dtype=pl.Float32)
        table = pl.DataFrame({"user": owner, "rank": rank.replace(float("inf"), None)})
        write_by_rename(folder.path / TEST_RANKS, table.write_parquet)

    def _write_analysis(self, folder: RunFolder, model: Any, split: Split) -> None:
        """What a report shows beside the metrics: score histograms, exposure of the catalogue, a map of the items."""
        import polars as pl

        histories, counts = self._known(split, "test"), _train_counts(split)
        queries, items, users, targets = self._queries_and_targets(model, histories, split.evaluation("test"))
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
        write_by_rename(folder.path / ITEM_MAP, item_map.write_parquet)
        write_json(
            folder.path / ANALYSIS,
            {
                "score_histograms": scores.to_dict(),
                "exposure": exposure_metrics(lists, counts, ks=cutoffs).to_dict(),
                "item_map": {"explained_variance": list(explained), "items": items.shape[0], "shown": int(shown.size)},
            },
        )

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
        require_positive(k)
        histories = self._known(data, history)
        ids = data.interactions.user_ids
        if users is None:
            chosen = np.flatnonzero(histories.lengths)
        else:
            wanted = list(users)
            chosen = ids.to_internal(wanted, unknown="ignore") if wanted else np.empty(0, dtype=np.int64)
            supported = (chosen >= 0) & (histories.lengths[chosen] > 0)
            if not supported.all():
                first = wanted[int(np.flatnonzero(~supported)[0])]
                report_unsupported(
                    f"user {first!r} is unknown or has no history", int((~supported).sum()), on_unsupported
                )
            chosen = chosen[supported]
        known = histories.select(chosen)
        vectors = self.encode(model, known, chosen)
        owner, item, rank, score = self._top(vectors, known, k, exclude_seen)
        return pl.DataFrame(
            {
                "user": ids.to_series().gather(chosen[owner]),
                "item": data.interactions.item_ids.to_series().gather(item),
                "rank": rank,
                "score": score,
            }
        )

    def _top(
        self, vectors: tuple[Tensor, Tensor], histories: Histories, k: int, exclude_seen: bool | None
    ) -> tuple[IntArray, IntArray, IntArray, npt.NDArray[np.float32]]:
        """Number of the history, internal item, rank and score of the ``k`` best items of each history."""
        queries, items = vectors
        if exclude_seen is None:
            exclude_seen = self.settings.seen == "exclude"
        exclude = histories.csr if exclude_seen else None
        scores, best = recommend_topk(queries, items, min(k, items.shape[0]), exclude=exclude)
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
        if what not in ("items", "users"):
            raise ValueError(f"what must be 'items' or 'users', got {what!r}")
        histories = self._known(data, history)
        users = np.flatnonzero(histories.lengths) if what == "users" else np.empty(0, dtype=np.int64)
        queries, items = self.encode(model, histories.select(users), users)
        if what == "items":
            return Embeddings(data.interactions.item_ids.external, items.numpy().copy())
        return Embeddings(data.interactions.user_ids.to_external(users), queries.numpy())


@dataclass(frozen=True)
class RankingValidation:
    """Validation metrics of a model; picklable, so that spawned training processes can hold it.

    Args:
        encode: :meth:`RankingPipeline.encode` of the pipeline.
        histories, users: the users to rank for.
        targets: offsets and items to be found.
        seen: see :class:`RankingSettings`.
        cutoffs: of the metrics.
    """

    encode: Encode
    histories: Histories
    users: IntArray
    targets: tuple[IntArray, IntArray]
    seen: Seen
    cutoffs: tuple[int, ...]

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Metrics by name."""
        queries, items = self.encode(model, self.histories, self.users)
        exclude = self.histories.csr if self.seen == "exclude" else None
        ranks = rank_of_targets(queries, items, self.targets, exclude=exclude, depth=max(self.cutoffs))
        return ranking_metrics(ranks, self.targets[0], ks=self.cutoffs).to_dict()


def require_positive(k: int) -> None:
    """Refuse a number of recommendations below 1."""
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")


def report_unsupported(problem: str, count: int, policy: OnUnsupported) -> None:
    """Raise, warn about or ignore what cannot be recommended for.

    Args:
        problem: the first case.
        count: how many there are.
        policy: what to do.

    Raises:
        InputError: under ``raise``.
        ValueError: for an unknown policy.
    """
    more = f" ({count} such)" if count > 1 else ""
    if policy == "raise":
        raise InputError(problem + more, "leave it out, or pass on_unsupported='warn' or 'ignore' (--on-unsupported)")
    if policy == "warn":
        warnings.warn(f"{problem}{more}; left out", stacklevel=3)
    elif policy != "ignore":
        raise ValueError(f"on_unsupported must be 'raise', 'warn' or 'ignore', got {policy!r}")


def _train_counts(split: Split) -> IntArray:
    rows = split.interactions
    return np.bincount(rows.item[split.part == TRAIN], minlength=rows.num_items)


def _cutoffs(metric: str) -> tuple[int, ...]:
    return tuple(sorted({*CUTOFFS, int(metric.split("@")[1])}))
