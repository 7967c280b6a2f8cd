"""What graph recommenders share: tables of users and items, training batches of pairs, objectives and regularisers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from graphcl.functional import bpr
from graphcl.graphs import BipartiteGraph, PropagationOperator
from graphcl.kernels import SparseMatrix, linear_cross_entropy, sddmm
from graphcl.models.settings import ModelConfig

__all__ = [
    "CollaborativeConfig",
    "CollaborativeModel",
    "GraphModelConfig",
    "PairBatch",
    "Rankings",
    "Regularizer",
]

Rankings = Literal["bpr", "sampled_softmax", "full_softmax"]
Regularizer = Literal["ego_rows", "final_rows", "row_norms", "all_tables"]
# The assembled adjacency is faster, the factored one holds half as much.
_ASSEMBLED_EDGES = 5_000_000
# Rows of a batch are gathered up to this size; beyond it, sampled products of sorted pairs are faster and smaller.
_GATHERED_PAIRS = 65_536


@dataclass(frozen=True)
class PairBatch:
    """One training step of a recommender from pairs: who met what, and what they did not meet.

    Args:
        users: ``(B,)`` internal user ids.
        positives: ``(B,)`` item that each of them met.
        negatives: ``(B,)`` item that each has not met in training; for BPR.
        candidates: ``(S,)`` items shared by the step; for the sampled softmax.
        total: the number that sums over the batch are divided by; B unless processes share the step.

    Example:
        >>> batch = PairBatch(torch.tensor([0]), torch.tensor([2]), torch.tensor([1]), None, total=1)
        >>> batch.to("cpu").negatives
        tensor([1])
    """

    users: Tensor
    positives: Tensor
    negatives: Tensor | None
    candidates: Tensor | None
    total: float

    def to(self, device: torch.device | str) -> PairBatch:
        """The same batch on another device."""
        return replace(
            self,
            users=self.users.to(device),
            positives=self.positives.to(device),
            negatives=None if self.negatives is None else self.negatives.to(device),
            candidates=None if self.candidates is None else self.candidates.to(device),
        )


class CollaborativeConfig(ModelConfig):
    """Settings that every collaborative model has.

    Args:
        hidden: embedding width d.
        objective: ``bpr`` (one sampled negative a pair), ``sampled_softmax`` (a shared sample of items) or
            ``full_softmax`` (all items).
        num_candidates: items of the sampled softmax.
        score_temperature: divides the scores of the softmax objectives.
        bpr_floor: added to the sigmoid of BPR; SELFRec has 1e-5.
        regularizer: what is kept small. ``ego_rows``: half the squared rows of the tables that the batch touches, a
            pair (LightGCN); ``final_rows``: the same of the propagated rows (MMHCL); ``row_norms``: norms, not squared,
            of the batch's propagated rows, a row (SELFRec); ``all_tables``: the squared norm of every table (SSLRec).
        regularization: its weight.

    Example:
        >>> CollaborativeConfig(hidden=32).objective
        'bpr'
    """

    hidden: PositiveInt = 64
    objective: Rankings = "bpr"
    num_candidates: PositiveInt = 1024
    score_temperature: PositiveFloat = 1.0
    bpr_floor: NonNegativeFloat = 0.0
    regularizer: Regularizer = "ego_rows"
    regularization: NonNegativeFloat = 1e-4


class GraphModelConfig(CollaborativeConfig):
    """Settings of models that propagate along the user-item graph.

    Args:
        layers: propagation layers L.
        reduce: ``mean`` or ``sum`` (SSLRec) of the layers.
        include_ego: whether layer 0 takes part.

    Example:
        >>> GraphModelConfig(layers=2).include_ego
        True
    """

    layers: PositiveInt = 3
    reduce: Literal["mean", "sum"] = "mean"
    include_ego: bool = True


class CollaborativeModel(nn.Module):
    """Base of models that score a user and an item by the inner product of their embeddings.

    A subclass gives :meth:`forward`, the embeddings to rank with, and :meth:`training_embeddings`, those to train with
    and the contrastive parts of the loss. Both tables live in one parameter, users first, as the graph stacks them.

    Args:
        graph: training interactions.
        config: settings; the defaults of ``config_class`` when None.
        generator: source of the initial weights (Xavier uniform, a table each); torch's own when None.

    Raises:
        ValueError: a graph without users or items.

    Example:
        >>> from graphcl.models import LightGCN
        >>> graph = BipartiteGraph.from_arrays([0, 1], [0, 1])
        >>> users, items = LightGCN(graph)()
        >>> users.shape, items.shape
        (torch.Size([2, 64]), torch.Size([2, 64]))
    """

    config_class: ClassVar[type[CollaborativeConfig]] = CollaborativeConfig
    # Training settings of the method's paper or code that differ from the pipeline's defaults.
    recommended: ClassVar[Mapping[str, Any]] = {}
    uses_item_hypergraph: ClassVar[bool] = False

    def __init__(self, graph: BipartiteGraph, config: Any = None, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        if graph.num_users < 1 or graph.num_items < 1:
            raise ValueError(f"graph must have users and items, got {graph.num_users} and {graph.num_items}")
        self.config: Any = config or self.config_class()
        self.graph = graph
        self.num_users, self.num_items = graph.num_users, graph.num_items
        self.embedding = nn.Parameter(self._xavier((self.num_users, self.num_items), generator))
        # Noise and dropout of training draw from here; the pipeline seeds one for every epoch.
        self.generator: torch.Generator | None = None
        self._operators: dict[str, PropagationOperator] = {}

    def _xavier(self, heights: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
        tables = [torch.empty(height, self.config.hidden) for height in heights]
        for table in tables:
            nn.init.xavier_uniform_(table, generator=generator)
        return torch.cat(tables)

    # What a subclass defines

    def forward(self) -> tuple[Tensor, Tensor]:
        """User embeddings ``(U, d)`` and item embeddings ``(I, d)`` that recommendations are ranked with."""
        raise NotImplementedError

    def training_embeddings(self, batch: PairBatch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """User and item embeddings of a training step and further, weighted parts of the loss by name."""
        return *self(), {}

    def on_epoch_start(self, epoch: int, generator: torch.Generator) -> None:
        """Called before the batches of an epoch; the generator is a function of (seed, epoch)."""
        self.generator = generator

    # What all share

    def objective(self, batch: PairBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Ranking loss, regulariser and the model's contrastive parts.

        Args:
            batch: pairs of one step.

        Returns:
            Their sum, and each part by name.

        Raises:
            ValueError: the batch lacks what the objective needs.
        """
        users, items, parts = self.training_embeddings(batch)
        parts = {self.config.objective: self._ranking(users, items, batch), **parts}
        if self.config.regularization:
            parts["regularization"] = self.config.regularization * self._regularization(users, items, batch)
        total = torch.stack(list(parts.values())).sum()
        return total, {name: value.detach() for name, value in parts.items()}

    def _ranking(self, users: Tensor, items: Tensor, batch: PairBatch) -> Tensor:
        config = self.config
        if config.objective == "bpr":
            if batch.negatives is None:
                raise ValueError("negatives are needed for the objective bpr, got None")
            gaps = score_gaps(users, items, batch.users, batch.positives, batch.negatives)
            return bpr(gaps, torch.zeros_like(gaps), floor=config.bpr_floor, reduction="sum") / batch.total
        if config.objective == "sampled_softmax" and batch.candidates is None:
            raise ValueError("candidates are needed for the objective sampled_softmax, got None")
        hidden = users.index_select(0, batch.users) / config.score_temperature
        candidates = batch.candidates if config.objective == "sampled_softmax" else None
        loss = linear_cross_entropy(hidden, items, batch.positives, candidates=candidates, reduction="sum", check=False)
        return loss / batch.total

    def _regularization(self, users: Tensor, items: Tensor, batch: PairBatch) -> Tensor:
        kind = self.config.regularizer
        if kind == "all_tables":
            return torch.stack([table.square().sum() for table in self.tables()]).sum()
        others = batch.negatives if batch.negatives is not None else batch.candidates
        of_items = [batch.positives] if others is None else [batch.positives, others]
        if kind == "row_norms":
            chosen = [(users, batch.users), *((items, ids) for ids in of_items)]
            roots = [weighted_squares(table, counts_of(table, ids)).sqrt() / max(len(ids), 1) for table, ids in chosen]
            return torch.stack(roots).sum()
        if kind == "ego_rows":  # both tables lie in one
            ids = torch.cat([batch.users, *(ids + self.num_users for ids in of_items)])
            return 0.5 / batch.total * weighted_squares(self.embedding, counts_of(self.embedding, ids))
        squares = weighted_squares(users, counts_of(users, batch.users))
        return 0.5 / batch.total * (squares + weighted_squares(items, counts_of(items, torch.cat(of_items))))

    def tables(self) -> list[Tensor]:
        """Every embedding table that is trained."""
        return [self.embedding]

    def operator(self, name: str = "adjacency") -> PropagationOperator:
        """A fixed propagation operator, made when first asked for and again when the model has moved."""
        key = f"{name} {self.embedding.device} {self.embedding.dtype}"
        if key not in self._operators:
            self._operators = {other: kept for other, kept in self._operators.items() if not other.startswith(name)}
            self._operators[key] = self.make_operator(name)
        return self._operators[key]

    def make_operator(self, name: str) -> PropagationOperator:
        """Build the operator of a name for the device and type of the tables; ``adjacency`` is that of LightGCN."""
        if name != "adjacency":
            raise ValueError(f"there is no operator {name!r}")
        return normalized_adjacency(self.graph.to(self.embedding.device), self.embedding.dtype)

    def split(self, stacked: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of users and of items of a stacked ``(U + I, d)`` tensor."""
        # One operation with two results: the gradient is put together once, instead of padded twice and added.
        users, items = torch.split(stacked, [self.num_users, self.num_items])
        return users, items


def score_gaps(users: Tensor, items: Tensor, user: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """How far the score of a positive item is above that of a negative one, ``u . (p - n)``, in any order of the pairs.

    Args:
        users: ``(U, d)``.
        items: ``(I, d)``.
        user: ``(B,)`` user ids.
        positive: ``(B,)`` item ids.
        negative: ``(B,)`` item ids.

    Returns:
        ``(B,)``, in the given order for small batches and sorted by user for large ones.

    Complexity: O(B d) time; O(U + I + B) memory beside the gathered rows of small batches.

    >>> score_gaps(torch.eye(2), torch.eye(2), torch.tensor([1]), torch.tensor([1]), torch.tensor([0]))
    tensor([1.])
    """
    if user.shape[0] <= _GATHERED_PAIRS:
        gaps: Tensor = _GatheredGaps.apply(users, items, user, positive, negative)  # type: ignore[no-untyped-call]
        return gaps
    ordered, order = torch.sort(user)
    offsets = torch.zeros(users.shape[0] + 1, dtype=torch.int64, device=user.device)
    torch.cumsum(torch.bincount(ordered, minlength=users.shape[0]), 0, out=offsets[1:])
    shape = users.shape[0], items.shape[0]
    scores = [
        sddmm(SparseMatrix(offsets, column[order], None, shape, check=False), users, items)
        for column in (positive, negative)
    ]
    return scores[0] - scores[1]


class _GatheredGaps(torch.autograd.Function):
    """Gaps from gathered rows, which backward finds again; in few passes, because small batches wait for calls."""

    @staticmethod
    def forward(ctx: Any, users: Tensor, items: Tensor, user: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        rows = users.index_select(0, user)
        apart = items.index_select(0, positive).sub_(items.index_select(0, negative))
        ctx.save_for_backward(rows, apart, user, positive, negative)
        ctx.heights = users.shape[0], items.shape[0]
        return (rows * apart).sum(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        rows, apart, user, positive, negative = ctx.saved_tensors
        column = upstream.unsqueeze(1)
        of_users = rows.new_zeros(ctx.heights[0], rows.shape[1]).index_add_(0, user, apart * column)
        share = rows * column
        of_items = rows.new_zeros(ctx.heights[1], rows.shape[1]).index_add_(0, positive, share)
        return of_users, of_items.index_add_(0, negative, share, alpha=-1), None, None, None


def counts_of(table: Tensor, ids: Tensor) -> Tensor:
    """How often each row of the table is named, in its dtype.

    >>> counts_of(torch.zeros(3, 1), torch.tensor([2, 0, 2]))
    tensor([1., 0., 2.])
    """
    return torch.bincount(ids, minlength=table.shape[0]).to(table.dtype)


def weighted_squares(table: Tensor, weight: Tensor) -> Tensor:
    """``sum_i w_i |t_i|^2``, by which no row is gathered; the weights are constants.

    >>> weighted_squares(torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([1.0, 2.0]))
    tensor(23.)
    """
    total: Tensor = _WeightedSquares.apply(table, weight)  # type: ignore[no-untyped-call]
    return total


class _WeightedSquares(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(table, weight)
        return torch.dot(torch.linalg.vecdot(table, table), weight)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        table, weight = ctx.saved_tensors
        return table * (2.0 * upstream * weight).unsqueeze(1), None


def normalized_adjacency(graph: BipartiteGraph, dtype: torch.dtype | None = None) -> PropagationOperator:
    """LightGCN's operator: assembled, which is faster, or by factors where the graph is large.

    >>> normalized_adjacency(BipartiteGraph.from_arrays([0], [0])).shape
    (2, 2)
    """
    return graph.normalized(dtype) if graph.num_edges <= _ASSEMBLED_EDGES else graph.normalized_operator(dtype)
