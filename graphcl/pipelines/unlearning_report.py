"""What is left of forgotten data in a model: membership tests, rankings beside a retrained model, and the cost."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import normalize

from graphcl.data.splits import TEST, TRAIN, VALID
from graphcl.graphs.conversion import adjacency
from graphcl.kernels import knn
from graphcl.metrics import evaluate_ranking, recommend_topk
from graphcl.pipelines.embedding import NodeEmbedder, _embed_all
from graphcl.pipelines.ranking import Histories, IntArray, RankingPipeline, _cutoffs
from graphcl.pipelines.sequential import SequentialRecommender
from graphcl.pipelines.unlearning_data import NodeRemoval, RankingRemoval, Removal

__all__ = ["UnlearningReport", "check_what_is_left", "win_rate"]

Scores = npt.NDArray[np.float64]
_BLOCK = 1000


@dataclass(frozen=True)
class UnlearningReport:
    """What was forgotten, what is left of it, what became of the rest, and what it cost.

    ``before``, ``after`` and, where it was asked for, ``retrained`` are measured in the same way on the same draws.

    Attributes:
        forgotten: how much of what kind, ``interactions`` or ``edges`` among it.
        settings: of the unlearning.
        membership: by model the attack's AUC: the probability that something that was trained on scores higher than a
            random other (``users``, ``items``, ``edges``) or than held-out interactions (``users_held_out``,
            ``items_held_out``). What forgetting is good for is the distance to ``retrained``, not to one half.
        lists: by model, recommendation lists (or nearest neighbours): ``lists_with_forgotten``, the share of lists in
            which something forgotten stands, and ``overlap_with_retrained``, the mean share of each list that the
            retrained model lists too.
        retained: by model the test metrics of what stays.
        cost: ``seconds`` of forgetting, repair and both, ``epochs`` of repair, and for retraining the same.
        losses: of each step of forgetting.
    """

    forgotten: Mapping[str, int]
    settings: Mapping[str, Any]
    membership: Mapping[str, Mapping[str, float | None]]
    lists: Mapping[str, Mapping[str, float | None]]
    retained: Mapping[str, Mapping[str, float | None]]
    cost: Mapping[str, float]
    losses: Sequence[Mapping[str, float]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The report, ready for JSON."""
        return asdict(self)


def check_what_is_left(
    removal: Removal,
    after: Any,
    retrained: Any | None,
    settings: Any,
    seconds: Mapping[str, float],
    losses: Sequence[Mapping[str, float]] = (),
) -> UnlearningReport:
    """Measure a model that has forgotten beside the one before and, where there is one, one trained from scratch.

    Args:
        removal: what was forgotten.
        after: the pipeline that has forgotten.
        retrained: one trained without the data, or None.
        settings: of the unlearning.
        seconds: that forgetting and repair took.
        losses: of the steps.

    Complexity: an evaluation of each model, and O((n m + r) d) for n forgotten interactions, m negatives each and r
    interactions of what is forgotten.
    """
    models = {"before": removal.before, "after": after} | ({} if retrained is None else {"retrained": retrained})
    if isinstance(removal, RankingRemoval):
        checks: _RankingChecks | _NodeChecks = _RankingChecks(removal, settings)
    elif isinstance(removal, NodeRemoval):
        checks = _NodeChecks(removal, settings)
    else:
        raise TypeError(f"no checks for {type(removal).__name__}")
    membership = {name: checks.membership(model) for name, model in models.items()}
    measured = {name: checks.rank(model) for name, model in models.items()}
    wanted = None if retrained is None else measured["retrained"][1]
    lists = {
        name: {
            "lists_with_forgotten": checks.lists_with_forgotten(models[name]),
            "overlap_with_retrained": None if wanted is None or name == "retrained" else overlap(own, wanted),
        }
        for name, (_, own) in measured.items()
    }
    cost: dict[str, float] = {f"{name}_seconds": value for name, value in seconds.items()}
    cost |= {"seconds": sum(seconds.values()), "epochs": settings.repair_epochs, "steps": len(losses)}
    if retrained is not None:
        cost |= {"retraining_seconds": retrained._seconds, "retraining_epochs": retrained._state.epoch}
    return UnlearningReport(
        forgotten=removal.describe(),
        settings=settings.model_dump(),
        membership=membership,
        lists=lists,
        retained={name: metrics for name, (metrics, _) in measured.items()},
        cost=cost,
        losses=[dict(record) for record in losses],
    )


def win_rate(members: Scores, others: Scores) -> float:
    """Probability that a member scores higher than another: the area under the ROC curve, ties half.

    Args:
        members: ``(n,)``.
        others: ``(m,)``, or ``(n, m)`` for others of each member's own.

    Complexity: O(n m).

    Example:
        >>> win_rate(np.array([2.0, 1.0]), np.array([[1.0, 0.0], [1.0, 3.0]]))
        0.625
    """
    left, right = members[:, None], others if others.ndim == 2 else others[None, :]
    return float((left > right).mean() + 0.5 * (left == right).mean())


def overlap(lists: IntArray, others: IntArray) -> float:
    """Mean share of a list's entries that the other model's list of the same row holds too; -1 is no entry.

    Example:
        >>> overlap(np.array([[1, 2], [3, 4]]), np.array([[2, 1], [4, 5]]))
        0.75
    """
    shares = [
        np.isin(own[own >= 0], other).mean() for own, other in zip(lists, others, strict=True) if (own >= 0).any()
    ]
    return float(np.mean(shares)) if shares else 0.0


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


@dataclass(frozen=True)
class _RankingChecks:
    """Checks of recommenders. Whatever is forgotten has no vector of its own afterwards, so the attacker makes one.

    A forgotten user: of the interactions that the attacker knows all but one are folded in (the mean of their items'
    vectors, or for a sequential model the history before it), and the vector scores the one that is left out. A
    forgotten item likewise, from the vectors of the other users that met it.
    """

    removal: RankingRemoval
    settings: Any

    def _vectors(self, pipeline: RankingPipeline, histories: Histories, users: IntArray) -> tuple[Tensor, Tensor]:
        """Vectors of users that stay and of all items that stay, by their new numbers, under any of the models."""
        removal, (model, _) = self.removal, pipeline._fitted()
        if pipeline is not removal.before:
            return pipeline.encode(model, histories, users)
        known = Histories(histories.offsets, removal.items[histories.items])
        queries, items = pipeline.encode(model, known, removal.users[users])
        return queries, items[torch.from_numpy(removal.items)]

    # Rankings of the users that stay

    def rank(self, pipeline: RankingPipeline) -> tuple[dict[str, float | None], IntArray]:
        """Test metrics over the items that stay, and the best of them for every user with a test item."""
        data, settings = self.removal.data, self.removal.before.settings
        evaluation = data.evaluation("test")
        known = self.removal.before._known(data, "test")
        kept = self.removal.before._has_vector(known)[evaluation.users]
        users = evaluation.users[kept]
        if not users.size:
            return {}, np.empty((0, 0), dtype=np.int64)
        histories = known.select(users)
        queries, items = self._vectors(pipeline, histories, users)
        targets = Histories(evaluation.target_offsets, evaluation.target_items).select(np.flatnonzero(kept))
        cutoffs = _cutoffs(settings.metric)
        measured = evaluate_ranking(queries, items, targets.csr, seen=settings.seen, history=histories.csr, ks=cutoffs)
        exclude = histories.csr if settings.seen == "exclude" else None
        _, lists = recommend_topk(queries, items, min(self.settings.top, items.shape[0]), exclude=exclude)
        return dict(measured.metrics.to_dict()), lists.numpy()

    def lists_with_forgotten(self, pipeline: RankingPipeline) -> float | None:
        """Share of the lists of all users that hold a forgotten item."""
        if not self.removal.gone_items.size:
            return None
        gone = self.removal.whole.interactions.item_ids.to_external(self.removal.gone_items)
        lists = pipeline.recommend(None, k=self.settings.top)
        held = lists.filter(lists["item"].is_in(gone.tolist()))
        return held["user"].n_unique() / max(lists["user"].n_unique(), 1)

    # Membership

    def membership(self, pipeline: RankingPipeline) -> dict[str, float | None]:
        """AUC of the attacks, the mean over what is forgotten; None where there was too little to attack."""
        of_users = [self._attack_user(pipeline, int(user)) for user in self.removal.gone_users]
        of_items = self._attack_items(pipeline)
        found: dict[str, float | None] = {}
        for name, attacks, gone in (
            ("users", of_users, self.removal.gone_users),
            ("items", of_items, self.removal.gone_items),
        ):
            if gone.size:
                found[name] = _mean([attack[0] for attack in attacks if attack is not None])
                against = [attack[1] for attack in attacks if attack is not None and attack[1] is not None]
                found[f"{name}_held_out"] = _mean([value for value in against if value is not None])
        return found

    def _met(self, column: str, gone: int) -> tuple[IntArray, IntArray, IntArray]:
        """What a forgotten user met (or who met a forgotten item): in training, held out, and at all; new numbers.

        In time order for a user. What is forgotten itself is not among it.
        """
        rows, part = self.removal.whole.interactions, self.removal.whole.part
        own = (rows.user if column == "user" else rows.item) == gone
        other, kept = (rows.item, self.removal.items) if column == "user" else (rows.user, self.removal.users)
        own &= np.isin(other, kept)
        numbers = np.searchsorted(kept, other[own])
        train = numbers[part[own] == TRAIN]
        held_out = np.setdiff1d(numbers[np.isin(part[own], (VALID, TEST))], train)
        return train, held_out, np.unique(numbers)

    def _others(self, met: IntArray, size: int, count: int, seed: int) -> IntArray:
        """Random others for each of ``count`` members, the same for every model."""
        unmet = np.setdiff1d(np.arange(size), met)
        return np.random.default_rng([self.settings.seed, seed]).choice(unmet, (count, self.settings.negatives))

    def _attack_user(self, pipeline: RankingPipeline, user: int) -> tuple[float, float | None] | None:
        train, held_out, met = self._met("user", user)
        size = self.removal.data.interactions.num_items
        if train.size < 2 or met.size == size:
            return None
        nobody = Histories(np.zeros(1, dtype=np.int64), np.empty(0, dtype=np.int64))
        if isinstance(pipeline, SequentialRecommender):
            # The history before each item that has one, and at last the whole.
            lengths = np.arange(1, train.size + 1)
            prefixes = np.concatenate([train[:length] for length in lengths])
            offsets = np.concatenate([[0], np.cumsum(lengths)])
            queries, items = self._encode_strangers(pipeline, Histories(offsets, prefixes))
            table, members, own, whole = _double(items), train[1:], _double(queries[:-1]), _double(queries[-1])
        else:
            _, items = self._vectors(pipeline, nobody, np.empty(0, dtype=np.int64))
            table, members = _double(items), np.unique(train)
            if members.size < 2:
                return None
            own, whole = _folded_in(table[members])
        return _attack(table, members, own, whole, held_out, self._others(met, size, members.size, user))

    def _encode_strangers(self, pipeline: RankingPipeline, histories: Histories) -> tuple[Tensor, Tensor]:
        """Vectors of histories of nobody in particular; sequential models read no user."""
        model, _ = pipeline._fitted()
        nobody = np.zeros(histories.lengths.size, dtype=np.int64)
        if pipeline is not self.removal.before:
            return pipeline.encode(model, histories, nobody)
        known = Histories(histories.offsets, self.removal.items[histories.items])
        queries, items = pipeline.encode(model, known, nobody)
        return queries, items[torch.from_numpy(self.removal.items)]

    def _attack_items(self, pipeline: RankingPipeline) -> list[tuple[float, float | None] | None]:
        if not self.removal.gone_items.size:
            return []
        known = Histories.of(self.removal.data, "valid")
        users = np.flatnonzero(known.lengths)
        number = np.full(known.lengths.size, -1)
        number[users] = np.arange(users.size)
        queries, _ = self._vectors(pipeline, known.select(users), users)
        table = _double(queries)
        attacks: list[tuple[float, float | None] | None] = []
        for item in self.removal.gone_items:
            train, held_out, met = (number[part] for part in self._met("item", int(item)))
            members, met = np.unique(train[train >= 0]), met[met >= 0]
            if members.size < 2 or met.size == users.size:
                attacks.append(None)
                continue
            own, whole = _folded_in(table[members])
            others = self._others(met, users.size, members.size, int(item))
            attacks.append(_attack(table, members, own, whole, held_out[held_out >= 0], others))
        return attacks


def _double(vectors: Tensor) -> Scores:
    found: Scores = vectors.detach().double().numpy()
    return found


def _folded_in(vectors: Scores) -> tuple[Scores, Scores]:
    """For each row the mean of all others, and the mean of all."""
    total = vectors.sum(axis=0)
    return (total - vectors) / (len(vectors) - 1), total / len(vectors)


def _attack(
    table: Scores, members: IntArray, own: Scores, whole: Scores, held_out: IntArray, others: IntArray
) -> tuple[float, float | None]:
    """AUC of members against others of their own, and against what was held out from training.

    Args:
        table: ``(N, d)`` vectors of the candidates.
        members: ``(n,)`` candidates that were trained on.
        own: ``(n, d)`` vector that each member is scored by, which does not know it.
        whole: ``(d,)`` vector that held-out candidates are scored by.
        held_out: ``(h,)`` candidates.
        others: ``(n, m)`` random candidates.
    """
    scores = (own * table[members]).sum(axis=1)
    random = np.empty(others.shape)
    for start in range(0, len(members), _BLOCK):  # the candidates of a block at a time
        rows = slice(start, start + _BLOCK)
        random[rows] = np.einsum("nd,nmd->nm", own[rows], table[others[rows]])
    against = win_rate(scores, table[held_out] @ whole) if held_out.size else None
    return win_rate(scores, random), against


@dataclass(frozen=True)
class _NodeChecks:
    """Checks of embedders: whether a forgotten node's features alone still point to the neighbours that it had."""

    removal: NodeRemoval
    settings: Any

    def membership(self, embedder: NodeEmbedder) -> dict[str, float | None]:
        """AUC of a forgotten node's edges by cosine, embedded from its features alone; None in graphs with types."""
        removal = self.removal
        if removal.whole.kind != "graph":
            return {"edges": None}
        z = _double(normalize(_embed_all(embedder._fitted()[0], removal.isolated, embedder.model_config), dim=1))
        matrix = adjacency(removal.whole.graph)
        offsets, columns = matrix.row_offsets.numpy(), matrix.columns.numpy()
        attacks = []
        for node in removal.gone.tolist():
            met = np.intersect1d(columns[offsets[node] : offsets[node + 1]], removal.nodes)
            unmet = np.setdiff1d(removal.nodes, met)
            if met.size and unmet.size:
                draws = np.random.default_rng([self.settings.seed, node])
                others = draws.choice(unmet, (met.size, self.settings.negatives))
                attacks.append(win_rate(z[met] @ z[node], z[others] @ z[node]))
        return {"edges": _mean(attacks)}

    def rank(self, embedder: NodeEmbedder) -> tuple[dict[str, float | None], IntArray]:
        """Probes of the nodes that stay, and their nearest neighbours; the model before sees the graph that is left."""
        if embedder is self.removal.before:
            embedder = self._on_what_stays()
        metrics = embedder.evaluate().metrics.to_dict()
        z = embedder._vectors()
        count = min(self.settings.top, z.shape[0] - 1)
        return metrics, knn(z, count).indices.numpy()

    def _on_what_stays(self) -> NodeEmbedder:
        """The weights of before on the graph without what is forgotten."""
        seen = self.removal.blank()
        seen._model = seen._new_model(self.removal.data).eval()
        self.removal.carry(copy.deepcopy(self.removal.before._fitted()[0]), seen._model)
        seen._data, seen._state = self.removal.data, self.removal.before._state
        return seen

    def lists_with_forgotten(self, embedder: NodeEmbedder) -> float | None:
        """Nothing to count: nearest neighbours are looked for among the nodes that stay."""
        return None
