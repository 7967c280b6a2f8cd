"""What a sequential model takes and gives, so that one pipeline trains them all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from graphcl.models.settings import ModelConfig
from graphcl.nn import PackedSequences

Record = TypeVar("Record", "RetrievedRows", "ContrastRows", "SequenceBatch")

#: The scalar to minimise and its parts by name.
Objective = tuple[Tensor, dict[str, Tensor]]


@dataclass(frozen=True)
class PaddedSequences:
    """Sequences in a row each: [B, W] ids 1..V, 0 where padded, and their [B] lengths."""

    items: Tensor
    lengths: Tensor

    def to(self, device: torch.device | str) -> PaddedSequences:
        """The same sequences on another device."""
        return PaddedSequences(self.items.to(device), self.lengths.to(device))


@dataclass(frozen=True)
class RetrievedRows:
    """Similar sequences of each row of a step, every distinct one once.

    Args:
        sequences: the U distinct sequences.
        places: [B, k] number of each row's neighbours in ``sequences``, -1 where there are fewer.
        vectors: [U, D] their semantic vectors.
        own_vectors: [B, D] semantic vectors of the rows.
    """

    sequences: PackedSequences
    places: Tensor
    vectors: Tensor
    own_vectors: Tensor

    def to(self, device: torch.device | str) -> RetrievedRows:
        """The same on another device."""
        return _moved(self, device)


@dataclass(frozen=True)
class ContrastRows:
    """The rows of a step that its contrastive terms use: a prefix of a user and the item after it.

    Args:
        rows: the B prefixes.
        targets: [B] id 1..V of the next item of each.
        slots: [B] flat slot of its last item in the step's packed histories, whose output is that of the row.
        same_target: for each row another one with the same target, or itself where there is none; None unless wanted.
        retrieved: similar sequences; None unless wanted.
    """

    rows: PaddedSequences
    targets: Tensor
    slots: Tensor
    same_target: PaddedSequences | None = None
    retrieved: RetrievedRows | None = None

    def to(self, device: torch.device | str) -> ContrastRows:
        """The same rows on another device."""
        return _moved(self, device)


@dataclass(frozen=True)
class SequenceBatch:
    """One training step of next-item prediction: packed histories and the positions that are supervised.

    Args:
        sequences: histories, ids 1..V.
        supervised: [N] flat slots (row * C + column) whose next item is a target.
        targets: [N] id 1..V of the next item at each of them.
        total: the number that the summed loss is divided by; N unless processes share the step.
        contrast: rows for contrastive terms, for models that want them.
    """

    sequences: PackedSequences
    supervised: Tensor
    targets: Tensor
    total: float
    contrast: ContrastRows | None = None

    def to(self, device: torch.device | str) -> SequenceBatch:
        """The same batch on another device."""
        return _moved(self, device)


def _moved(record: Record, device: torch.device | str) -> Record:
    """A record of tensors and records, on another device."""
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    return replace(record, **{name: part.to(device) for name, part in values.items() if hasattr(part, "to")})


@runtime_checkable
class SequentialModel(Protocol):
    """What :class:`graphcl.pipelines.SequentialRecommender` needs of a model (an ``nn.Module`` as well).

    A model that wants `ContrastRows` in its batches says so with the attribute ``contrast``, see
    :class:`graphcl.models.base_contrastive.ContrastiveModel`.
    """

    config_class: ClassVar[type[ModelConfig]]

    def forward(self, item_seq: Tensor, lengths: Tensor) -> Tensor:
        """[B, L] right-padded ids and [B] lengths to [B, d] user embeddings."""

    def encode_last(self, sequences: PackedSequences) -> Tensor:
        """[S, d] encoder output at the last item of every packed history."""

    def item_embeddings(self) -> Tensor:
        """[V, d] embeddings of ids 1..V that user embeddings are scored against by inner product."""

    def objective(self, batch: SequenceBatch) -> Objective:
        """The scalar to minimise and its parts by name."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run :meth:`forward`."""


@runtime_checkable
class SteppedModel(Protocol):
    """A model whose batch takes several optimiser steps, each on a group of its parameters.

    The training loop gives every group an Adam of its own and calls each objective with only that group requiring
    gradients; the weights of a step are updated before the next objective is called.
    """

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Parameters by the name of their group, in an order that does not change; together all of the model's."""

    def training_steps(self, batch: Any) -> Iterator[tuple[str, Callable[[], Objective]]]:
        """The steps of one batch: the group to update, and its objective. The first one's value is the loss shown."""
