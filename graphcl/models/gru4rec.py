"""GRU4Rec: a recurrent sequential recommender with full-softmax cross-entropy."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from graphcl.kernels import linear_cross_entropy
from graphcl.models.base import Objective, SequenceBatch
from graphcl.models.settings import ModelConfig, Rate
from graphcl.nn import PackedSequences
from graphcl.nn.dropout import dropout
from graphcl.nn.linear import Linear
from graphcl.nn.tied_embedding import tied_packed_embedding


class GRU4RecConfig(ModelConfig):
    """Settings of :class:`GRU4Rec`.

    Args:
        hidden: embedding width d.
        inner: width of the recurrent state.
        layers: recurrent layers.
        max_length: longest history that is read; older items are dropped.
        dropout: rate on the embedded items.
        padding_class: let the padding row compete in the softmax (ids 0..V instead of 1..V).
        mask_row: keep one more, never scored item row V+1 (a mask token).

    Example:
        >>> GRU4RecConfig(hidden=32).inner
        128
    """

    hidden: PositiveInt = 64
    inner: PositiveInt = 128
    layers: PositiveInt = 1
    max_length: PositiveInt = 50
    dropout: Rate = 0.3
    padding_class: bool = False
    mask_row: bool = False


class GRU4Rec(nn.Module):
    """Gated recurrent network over item ids; a user is the projected state after the last item.

    Paper: Tan, Xu and Liu, "Improved Recurrent Neural Networks for Session-based Recommendations", 2016,
    https://arxiv.org/abs/1606.08117. Deviation, shared with RecBole: full-softmax cross-entropy

    ``L = mean_t -log softmax((W g_t) E^T)[s_{t+1}]``

    over every position t instead of sampled ranking losses, with g_t the state of a GRU without biases.

    Args:
        num_items: V; ids run from 1 to V and 0 is padding.
        config: sizes and rates; the defaults when None.
        generator: source of the initial weights; torch's own when None.

    Raises:
        ValueError: when ``num_items`` is below 1.

    Complexity: time O(S L (d + inner) inner) for S sequences of at most L items and O(T V d) for the loss; memory
    O(S L inner).

    Example:
        >>> model = GRU4Rec(num_items=9, config=GRU4RecConfig(hidden=8, inner=6)).eval()
        >>> model(torch.tensor([[3, 1, 0, 0]]), torch.tensor([2])).shape, model.item_embeddings().shape
        (torch.Size([1, 8]), torch.Size([9, 8]))
    """

    config_class: ClassVar[type[ModelConfig]] = GRU4RecConfig

    def __init__(
        self, num_items: int, config: GRU4RecConfig | None = None, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        if num_items < 1:
            raise ValueError(f"num_items must be at least 1, got {num_items}")
        config = config or GRU4RecConfig()
        self.config = config
        self.num_items = num_items
        self.item_embedding = nn.Embedding(num_items + 1 + config.mask_row, config.hidden, padding_idx=0)
        self.recurrent = nn.GRU(config.hidden, config.inner, config.layers, bias=False, batch_first=True)
        self.project = Linear(config.inner, config.hidden)
        nn.init.xavier_normal_(self.item_embedding.weight, generator=generator)
        for weight in (*self.recurrent.parameters(), self.project.weight):
            nn.init.xavier_uniform_(weight, generator=generator)
        nn.init.zeros_(self.project.bias)

    def forward(self, item_seq: Tensor, lengths: Tensor) -> Tensor:
        """User embeddings of right-padded histories.

        Args:
            item_seq: [B, L] ids, 0 where padded.
            lengths: [B] number of items of each history, at least 1.

        Returns:
            [B, d] projected state after item ``lengths - 1``.
        """
        return self._encode_last(self.item_embedding(item_seq), lengths)

    def encode_packed(self, sequences: PackedSequences) -> Tensor:
        """Projected state at every slot of packed histories.

        Args:
            sequences: histories.

        Returns:
            [R * C, d]; zero rows in unused slots.
        """
        return self._encode_embedded(self.item_embedding(sequences.items), sequences)

    def encode_last(self, sequences: PackedSequences) -> Tensor:
        """[S, d] projected state at the last item of packed histories."""
        return self._encode_last(*sequences.padded(self.item_embedding(sequences.items)))

    def item_embeddings(self) -> Tensor:
        """[V, d] embeddings of ids 1..V; the score of item i for a user is the inner product with row i - 1."""
        return self.item_embedding.weight[1 : self.num_items + 1]

    def objective(self, batch: SequenceBatch) -> Objective:
        """Full-softmax cross-entropy of the next item at every supervised slot.

        Args:
            batch: packed histories with targets.

        Returns:
            The sum over the targets divided by ``batch.total``, and ``{"cross_entropy": same value}``.
        """
        loss, _, _ = self.next_item_loss(batch)
        return loss, {"cross_entropy": loss.detach()}

    def next_item_loss(self, batch: SequenceBatch, *others: PackedSequences) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Cross-entropy of a step beside the encoding of further sequences, as :meth:`SASRec.next_item_loss`."""
        packed = (batch.sequences, *others)
        first = 0 if self.config.padding_class else 1
        (own, *rest), classes = tied_packed_embedding(self.item_embedding.weight, packed, first, self.num_items + 1)
        causal = self._encode_embedded(own, batch.sequences)
        last = [self._encode_last(*other.padded(part)) for part, other in zip(rest, others, strict=True)]
        hidden = causal[batch.supervised]
        loss = linear_cross_entropy(hidden, classes, batch.targets - first, reduction="sum") / batch.total
        return loss, causal, last

    def _encode_last(self, embedded: Tensor, lengths: Tensor) -> Tensor:
        states = self._states(embedded)
        last: Tensor = self.project(states[torch.arange(states.shape[0], device=states.device), lengths - 1])
        return last

    def _encode_embedded(self, embedded: Tensor, sequences: PackedSequences) -> Tensor:
        padded, _ = sequences.padded(embedded)
        states = self._states(padded)
        owner = sequences.segments.flatten()[sequences.slots]
        place = sequences.positions.flatten()[sequences.slots]
        used: Tensor = self.project(states[owner, place])
        return used.new_zeros(sequences.items.numel(), used.shape[1]).index_copy(0, sequences.slots, used)

    def _states(self, embedded: Tensor) -> Tensor:
        """[B, L, inner]; causal, so right padding changes no state that is read."""
        states: Tensor = self.recurrent(dropout(embedded, self.config.dropout, self.training))[0]
        return states
