"""What a sequential model takes and gives, so that one pipeline trains them all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from graphcl.models.settings import ModelConfig
from graphcl.nn import PackedSequences


@dataclass(frozen=True)
class SequenceBatch:
    """One training step of next-item prediction: packed histories and the positions that are supervised.

    Args:
        sequences: histories, ids 1..V.
        supervised: [N] flat slots (row * C + column) whose next item is a target.
        targets: [N] id 1..V of the next item at each of them.
        total: the number that the summed loss is divided by; N unless processes share the step.
    """

    sequences: PackedSequences
    supervised: Tensor
    targets: Tensor
    total: float

    def to(self, device: torch.device | str) -> SequenceBatch:
        """The same batch on another device."""
        return SequenceBatch(self.sequences.to(device), self.supervised.to(device), self.targets.to(device), self.total)


@runtime_checkable
class SequentialModel(Protocol):
    """What :class:`graphcl.pipelines.SequentialRecommender` needs of a model (an ``nn.Module`` as well)."""

    config_class: ClassVar[type[ModelConfig]]

    def forward(self, item_seq: Tensor, lengths: Tensor) -> Tensor:
        """[B, L] right-padded ids and [B] lengths to [B, d] user embeddings."""

    def encode_packed(self, sequences: PackedSequences) -> Tensor:
        """[R * C, d] encoder output at every slot of packed histories."""

    def item_embeddings(self) -> Tensor:
        """[V, d] embeddings of ids 1..V that user embeddings are scored against by inner product."""

    def objective(self, batch: SequenceBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The scalar to minimise and its parts by name."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run :meth:`forward`."""
