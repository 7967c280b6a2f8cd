"""Dual encoder: queries and labels in one space, learned against all labels at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, ClassVar, Literal

import torch
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from graphcl.functional.extreme_multilabel import decoupled_softmax, multi_label_softmax, soft_top_k
from graphcl.kernels import pair_topk
from graphcl.models.settings import ModelConfig, Rate

__all__ = ["Bags", "DualEncoder", "DualEncoderConfig", "FeatureSpace", "RetrievalBatch"]

_UNIT_TEMPERATURE, _RAW_TEMPERATURE = 0.05, 1.0


@dataclass(frozen=True)
class Bags:
    """Sparse rows: words with weights, or ids.

    Args:
        offsets: ``(n + 1,)`` where each row begins.
        columns: ``(E,)``.
        values: ``(E,)`` weights.
    """

    offsets: Tensor
    columns: Tensor
    values: Tensor

    def take(self, rows: Tensor) -> Bags:
        """Some of the rows, in the order asked for."""
        sizes = self.offsets.diff()[rows]
        offsets = functional.pad(sizes.cumsum(0), (1, 0))
        entries = torch.arange(int(offsets[-1]), device=rows.device)
        entries = entries + torch.repeat_interleave(self.offsets[rows] - offsets[:-1], sizes)
        return Bags(offsets, self.columns[entries], self.values[entries])

    def to(self, device: torch.device | str) -> Bags:
        """The same rows on another device."""
        return Bags(self.offsets.to(device), self.columns.to(device), self.values.to(device))


Features = Bags | Tensor


@dataclass(frozen=True)
class FeatureSpace:
    """What one side's features look like; sides of equal spaces can share a tower.

    Args:
        width: number of columns.
        sparse: bags, or dense rows.
    """

    width: int
    sparse: bool


@dataclass(frozen=True)
class RetrievalBatch:
    """One training step.

    Args:
        features: of B queries.
        offsets, columns: ``(B + 1,)`` and ``(E,)``, the labels of each query.
        total: the number of queries of the step, shared out among the processes.
        starts_epoch: whether the index that hard negatives come from is due to be made again.
    """

    features: Features
    offsets: Tensor
    columns: Tensor
    total: float
    starts_epoch: bool = False

    def to(self, device: torch.device | str) -> RetrievalBatch:
        """The same batch on another device."""
        return replace(
            self,
            features=self.features.to(device),
            offsets=self.offsets.to(device),
            columns=self.columns.to(device),
        )


class DualEncoderConfig(ModelConfig):
    """Settings of :class:`DualEncoder`.

    Args:
        dim: width of the embeddings.
        hidden: width of the hidden layer of a tower; 0 for a linear tower.
        labels: what a label is encoded from: its ``features`` (a label that training never saw can be retrieved), its
            number (``ids``, a vector of its own each, as in a classifier), ``both`` added up, or ``auto`` for features
            where there are any.
        towers: ``shared``, one tower for queries and labels; ``two``; or ``auto`` for one where the features of both
            sides have the same width.
        objective: ``decoupled`` (DecoupledSoftmax), ``softmax`` over all labels, or ``soft_top_k``.
        sample_positive: ``softmax`` draws one label of each query a step, as in the paper; False sums over them all.
        k: labels that ``soft_top_k`` admits; 0 for as many as the query has.
        alpha: steepness of ``soft_top_k``.
        similarity: ``cosine`` (rows of length 1) or ``dot`` (raw).
        temperature: None for that of the paper, .05 for cosine and 1 for dot.
        feature_dropout: share of the entries of a query's features that are left out in training.
        negatives: ``all`` labels, exactly; or ``hard``: the labels of the step and, for every query, the highest ones
            of an index of all labels made at the start of the epoch.
        num_negatives: how many of the highest, for ``hard``.
        initial_scale: standard deviation of initial embeddings.

    Example:
        >>> DualEncoderConfig(dim=16).objective
        'decoupled'
    """

    dim: PositiveInt = 128
    hidden: NonNegativeInt = 0
    labels: Literal["auto", "features", "ids", "both"] = "auto"
    towers: Literal["auto", "shared", "two"] = "auto"
    objective: Literal["decoupled", "softmax", "soft_top_k"] = "decoupled"
    sample_positive: bool = True
    k: NonNegativeInt = 5
    alpha: PositiveFloat = 2.0
    similarity: Literal["cosine", "dot"] = "cosine"
    temperature: PositiveFloat | None = None
    feature_dropout: Rate = 0.0
    negatives: Literal["all", "hard"] = "all"
    num_negatives: PositiveInt = 20
    initial_scale: PositiveFloat = 0.1


class DualEncoder(nn.Module):
    r"""Two towers, or one for both sides, whose inner products rank all labels for a query.

    Paper: Nilesh Gupta et al., "Dual-Encoders for Extreme Multi-Label Classification", 2023,
    https://arxiv.org/abs/2310.10636; the objectives are those of `graphcl.functional.decoupled_softmax`,
    `multi_label_softmax` and `soft_top_k`, over all labels in linear memory.

    .. math:: s(q, l) = \langle f(x_q), g(z_l) \rangle / \tau, \qquad f(x) = h + W_2\, \text{relu}(W_1 h + b_1) + b_2,
        \quad h = \sum_j x_j w_j

    Deviation: the paper's towers are a language model that is trained over texts; here they are weighted sums of
    embeddings of words or ids, or a linear map of dense features (such as what a fixed sentence encoder makes of texts,
    `graphcl.data.encode_texts`), with or without one hidden layer. Labels without features have a vector each, the
    classifiers of the paper's comparison.

    A query without features stands at the origin: all labels score 0, and the lowest numbers are retrieved first.

    Args:
        queries: what the queries' features look like.
        num_labels: L.
        config: the defaults when None.
        label_features: of all labels, in their order.
        label_space: what these look like; needed with ``label_features``.
        generator: draws the initial weights.

    Raises:
        ValueError: settings that need features of the labels where there are none, or one tower for features of
            different widths.

    Complexity: O((E_q + E_l) d + B L d) time and O((V + L + B) d) memory a step for V columns and batches of B queries;
    with hard negatives L is the number of labels of the step in place of all.

    Example:
        >>> encoder = DualEncoder(FeatureSpace(4, True), 3, generator=torch.Generator().manual_seed(0))
        >>> bags = Bags(torch.tensor([0, 2]), torch.tensor([1, 3]), torch.ones(2))
        >>> encoder.scores(bags).shape
        torch.Size([1, 3])
    """

    config_class: ClassVar[type[DualEncoderConfig]] = DualEncoderConfig
    recommended: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        queries: FeatureSpace,
        num_labels: int,
        config: DualEncoderConfig | None = None,
        *,
        label_features: Features | None = None,
        label_space: FeatureSpace | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.config = config = config or self.config_class()
        self.num_labels = num_labels
        featured = label_features is not None and label_space is not None
        source = ("features" if featured else "ids") if config.labels == "auto" else config.labels
        shared = config.towers == "shared" or (config.towers == "auto" and label_space == queries)
        if config.towers == "shared" and (source == "ids" or (featured and label_space != queries)):
            raise ValueError("towers='shared' needs labels with features of the queries' width; use towers='two'")
        self.label_source = source
        self.query_tower = _Tower(queries, config, generator)
        self.label_tower: _Tower | None = None
        self.label_table: nn.Parameter | None = None
        if source != "ids":
            if label_features is None or label_space is None:
                raise ValueError(f"labels={source!r} needs features of the labels; give them, or use labels='ids'")
            self.label_tower = self.query_tower if shared else _Tower(label_space, config, generator)
            self._keep(label_features)
        if source != "features":
            table = config.initial_scale * torch.randn(num_labels, config.dim, generator=generator)
            self.label_table = nn.Parameter(table)
        self._index: Tensor | None = None

    def _keep(self, features: Features) -> None:
        """The labels' features move with the model and are no weights."""
        parts = vars(features) if isinstance(features, Bags) else {"dense": features}
        for name, tensor in parts.items():
            self.register_buffer(f"label_{name}", tensor, persistent=False)

    @property
    def shares_towers(self) -> bool:
        """Whether queries and labels go through one tower."""
        return self.label_tower is self.query_tower

    @property
    def temperature(self) -> float:
        """The divisor of the inner products."""
        if self.config.temperature is not None:
            return self.config.temperature
        return _UNIT_TEMPERATURE if self.config.similarity == "cosine" else _RAW_TEMPERATURE

    def forward(self, features: Features) -> Tensor:
        """``(B, d)`` embeddings of queries, of length 1 under ``cosine``."""
        if self.training and self.config.feature_dropout > 0:
            features = _thinned(features, self.config.feature_dropout)
        return self._scaled(self.query_tower(features))

    def encode_labels(self, rows: Tensor | None = None) -> Tensor:
        """``(L, d)`` embeddings of all labels, or of some, of length 1 under ``cosine``."""
        parts: list[Tensor] = []
        if self.label_tower is not None:
            parts.append(self.label_tower(self._label_features(rows)))
        if self.label_table is not None:
            parts.append(self.label_table if rows is None else self.label_table[rows])
        return self._scaled(reduce(torch.add, parts))

    def _label_features(self, rows: Tensor | None) -> Features:
        if hasattr(self, "label_dense"):
            dense = self.get_buffer("label_dense")
            return dense if rows is None else dense[rows]
        bags = Bags(*(self.get_buffer(f"label_{name}") for name in ("offsets", "columns", "values")))
        return bags if rows is None else bags.take(rows)

    def _scaled(self, rows: Tensor) -> Tensor:
        return functional.normalize(rows, dim=1) if self.config.similarity == "cosine" else rows

    @torch.no_grad()
    def scores(self, features: Features) -> Tensor:
        """``(B, L)`` inner products of queries with all labels; for few labels, see `pair_topk` for many."""
        return self.forward(features) @ self.encode_labels().T

    def objective(self, batch: RetrievalBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a step; ``softmax`` draws its labels from torch's default generator.

        Args:
            batch: queries and their labels.

        Returns:
            The scalar and, as its only part, how many labels stood in the denominator.
        """
        queries = self.forward(batch.features)
        columns = batch.columns
        if self.config.negatives == "hard":
            candidates = self._candidates(queries, batch)
            labels, columns = self.encode_labels(candidates), torch.searchsorted(candidates, columns)
        else:
            labels = self.encode_labels()
        loss = self._loss(queries, labels, (batch.offsets, columns))
        share = (batch.offsets.shape[0] - 1) / batch.total
        return loss * share, {"labels": loss.new_tensor(float(labels.shape[0]))}

    def _loss(self, queries: Tensor, labels: Tensor, positives: tuple[Tensor, Tensor]) -> Tensor:
        config = self.config
        if config.objective == "decoupled":
            return decoupled_softmax(queries, labels, positives, temperature=self.temperature)
        if config.objective == "softmax":
            return multi_label_softmax(
                queries, labels, positives, temperature=self.temperature, sample_positive=config.sample_positive
            )
        admitted: int | Literal["positives"] = config.k or "positives"
        return soft_top_k(queries, labels, positives, k=admitted, alpha=config.alpha, temperature=self.temperature)

    @torch.no_grad()
    def _candidates(self, queries: Tensor, batch: RetrievalBatch) -> Tensor:
        """Sorted labels of the step: those of its queries, and the highest others of the epoch's index."""
        if self._index is None or batch.starts_epoch:
            was_training = self.training
            self._index = self.eval().encode_labels().detach()
            self.train(was_training)
        rows = torch.repeat_interleave(torch.arange(queries.shape[0], device=queries.device), batch.offsets.diff())
        ordered = (rows * self.num_labels + batch.columns).sort().values % self.num_labels
        number = min(self.config.num_negatives, self.num_labels)
        hard = pair_topk(
            queries.detach(), self._index.to(queries.device), number, exclude=(batch.offsets, ordered)
        ).indices
        marked = torch.zeros(self.num_labels, dtype=torch.bool, device=queries.device)
        marked[batch.columns] = True
        marked[hard[hard >= 0]] = True
        return marked.nonzero().squeeze(1)


class _Tower(nn.Module):
    """Weighted sum of embeddings (or a linear map), then perhaps a residual hidden layer."""

    def __init__(self, space: FeatureSpace, config: DualEncoderConfig, generator: torch.Generator | None) -> None:
        super().__init__()
        self.sparse = space.sparse
        scale = config.initial_scale if space.sparse else space.width**-0.5
        self.weight = nn.Parameter(scale * torch.randn(space.width, config.dim, generator=generator))
        self.block: nn.Sequential | None = None
        if config.hidden:
            inner, outer = nn.Linear(config.dim, config.hidden), nn.Linear(config.hidden, config.dim)
            for layer in (inner, outer):
                bound = layer.in_features**-0.5
                nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
                nn.init.zeros_(layer.bias)
            self.block = nn.Sequential(inner, nn.ReLU(), outer)

    def forward(self, features: Features) -> Tensor:
        if isinstance(features, Bags):
            rows = functional.embedding_bag(
                features.columns, self.weight, features.offsets, mode="sum", include_last_offset=True,
                per_sample_weights=features.values.to(self.weight.dtype),
            )  # fmt: skip
        else:
            rows = features.to(self.weight.dtype) @ self.weight
        return rows if self.block is None else rows + self.block(rows)


def _thinned(features: Features, rate: float) -> Features:
    if isinstance(features, Bags):
        return replace(features, values=functional.dropout(features.values, rate))
    return functional.dropout(features, rate)
