"""SASRec: self-attentive sequential recommendation with full-softmax cross-entropy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from graphcl.kernels import linear_cross_entropy
from graphcl.models.base import SequenceBatch
from graphcl.models.settings import ModelConfig, Rate
from graphcl.nn import PackedSequences, SequenceTransformer
from graphcl.nn.tied_embedding import tied_packed_embedding
from graphcl.nn.transformer import initialize_normal


class SASRecConfig(ModelConfig):
    """Settings of :class:`SASRec`.

    Args:
        hidden: embedding width d.
        layers, heads, inner: transformer blocks, attention heads a block, width of the feed-forward network.
        max_length: longest history that is read; older items are dropped.
        dropout: rate on the input and on the residual branches. The papers use 0.5; 0.6 is better on validation where a
            user's positions share their masks, see docs/sequential.md.
        attention_dropout: rate on the attention weights, chosen on validation as well; the same as ``dropout`` when
            None, as in the papers.
        layer_norm_eps: epsilon of every layer norm.
        init_std: deviation of the normal draw of weights.
        padding_class: let the padding row compete in the softmax (ids 0..V instead of 1..V).
        mask_row: keep one more, never scored item row V+1 (a mask token).

    Example:
        >>> SASRecConfig(hidden=32, heads=4).model_dump()["inner"]
        256
    """

    hidden: PositiveInt = 64
    layers: NonNegativeInt = 2
    heads: PositiveInt = 2
    inner: PositiveInt = 256
    max_length: PositiveInt = 50
    dropout: Rate = 0.6
    attention_dropout: Rate | None = 0.2
    layer_norm_eps: PositiveFloat = 1e-12
    init_std: PositiveFloat = 0.02
    padding_class: bool = False
    mask_row: bool = False

    @model_validator(mode="after")
    def _heads_divide_hidden(self) -> SASRecConfig:
        if self.hidden % self.heads:
            raise ValueError(f"hidden must be a multiple of heads, got {self.hidden} and {self.heads}")
        return self


class SASRec(nn.Module):
    """Causal transformer over item ids; a user is the output at the last item, an item its embedding row.

    Paper: Kang and McAuley, "Self-Attentive Sequential Recommendation", 2018, https://arxiv.org/abs/1808.09781.
    Deviations, shared with RecBole and the contrastive methods built on it: post-norm blocks, exact GELU, no
    sqrt(d) scaling, and full-softmax cross-entropy

    ``L = mean_t -log softmax(h_t E^T)[s_{t+1}]``

    over every position t of every training sequence instead of one sampled negative.

    Args:
        num_items: V; ids run from 1 to V and 0 is padding.
        config: sizes and rates; the defaults when None.
        generator: source of the initial weights; torch's own when None.

    Raises:
        ValueError: when ``num_items`` is below 1.

    Complexity: for T tokens packed in rows of C slots, time O(T d (d + inner) + T C d) for the encoder and O(T V d)
    for the loss; memory O(T (d + inner)) and the block of scores that the loss keeps.

    Example:
        >>> model = SASRec(num_items=9, config=SASRecConfig(hidden=8, max_length=4)).eval()
        >>> model(torch.tensor([[3, 1, 0, 0]]), torch.tensor([2])).shape, model.item_embeddings().shape
        (torch.Size([1, 8]), torch.Size([9, 8]))
    """

    config_class: ClassVar[type[ModelConfig]] = SASRecConfig

    def __init__(
        self, num_items: int, config: SASRecConfig | None = None, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        if num_items < 1:
            raise ValueError(f"num_items must be at least 1, got {num_items}")
        config = config or SASRecConfig()
        self.config = config
        self.num_items = num_items
        self.item_embedding = nn.Embedding(num_items + 1 + config.mask_row, config.hidden, padding_idx=0)
        self.encoder = SequenceTransformer(
            hidden=config.hidden,
            layers=config.layers,
            heads=config.heads,
            inner=config.inner,
            max_length=config.max_length,
            dropout=config.dropout,
            attention_dropout=config.dropout if config.attention_dropout is None else config.attention_dropout,
            layer_norm_eps=config.layer_norm_eps,
        )
        initialize_normal(self, config.init_std, generator)

    def forward(self, item_seq: Tensor, lengths: Tensor) -> Tensor:
        """User embeddings of right-padded histories.

        Args:
            item_seq: [B, L] ids, 0 where padded, L at most ``max_length``.
            lengths: [B] number of items of each history, at least 1.

        Returns:
            [B, d] encoder output at position ``lengths - 1``.

        Raises:
            ValueError: when L is above ``max_length``.
        """
        rows = torch.arange(item_seq.shape[0], device=item_seq.device)
        return self._encode_padded(item_seq, wanted=rows * item_seq.shape[1] + lengths - 1)

    def encode_positions(self, item_seq: Tensor) -> Tensor:
        """Encoder output at every position, causal: position t knows items 0..t only.

        A key with id 0 is hidden wherever it stands, also in front (left padding) or amid a history. A query that
        would see nothing sees itself; no output of its own history depends on it.

        Args:
            item_seq: [B, L] ids, 0 is hidden, L at most ``max_length``.

        Returns:
            [B, L, d].

        Raises:
            ValueError: when L is above ``max_length``.
        """
        return self._encode_padded(item_seq)

    def _encode_padded(self, item_seq: Tensor, wanted: Tensor | None = None) -> Tensor:
        length = item_seq.shape[1]
        if length > self.config.max_length:
            raise ValueError(f"item_seq is longer ({length}) than max_length ({self.config.max_length})")
        positions = torch.arange(length, device=item_seq.device)
        visible = (positions[:, None] >= positions) & (item_seq != 0)[:, None, :]
        itself = torch.eye(length, dtype=torch.bool, device=item_seq.device)
        visible = visible | (itself & ~visible.any(-1, keepdim=True))
        encoded: Tensor = self.encoder(self.item_embedding(item_seq), positions, visible[:, None], wanted)
        return encoded

    def encode_packed(self, sequences: PackedSequences) -> Tensor:
        """Encoder output at every slot of packed histories, the same numbers as :meth:`encode_positions`.

        Args:
            sequences: histories of at most ``max_length`` items.

        Returns:
            [R * C, d]; rows of unused slots mean nothing.
        """
        return self._encode_embedded(self.item_embedding(sequences.items), sequences).flatten(0, 1)

    def encode_last(self, sequences: PackedSequences) -> Tensor:
        """[S, d] encoder output at the last item of packed histories, the rows of :meth:`encode_packed` for less."""
        return self._encode_embedded(self.item_embedding(sequences.items), sequences, sequences.last)

    def _encode_embedded(self, embedded: Tensor, sequences: PackedSequences, wanted: Tensor | None = None) -> Tensor:
        encoded: Tensor = self.encoder(embedded, sequences.positions, sequences.attention_mask(), wanted)
        return encoded

    def item_embeddings(self) -> Tensor:
        """[V, d] embeddings of ids 1..V; the score of item i for a user is the inner product with row i - 1."""
        return self.item_embedding.weight[1 : self.num_items + 1]

    def objective(self, batch: SequenceBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Full-softmax cross-entropy of the next item at every supervised slot.

        Args:
            batch: packed histories with targets.

        Returns:
            The sum over the targets divided by ``batch.total``, and ``{"cross_entropy": same value}``.
        """
        loss, _, _ = self.next_item_loss(batch)
        return loss, {"cross_entropy": loss.detach()}

    def next_item_loss(self, batch: SequenceBatch, *others: PackedSequences) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Cross-entropy of a step beside the encoding of further sequences, with one gradient buffer for the table.

        Args:
            batch: packed histories with targets.
            *others: more sequences, such as views.

        Returns:
            The loss of :meth:`objective`, the encoder's output [R * C, d] at the slots of the batch, and [S, d] at the
            last item of every sequence of each further set.
        """
        packed = (batch.sequences, *others)
        (first, *rest), classes = tied_packed_embedding(
            self.item_embedding.weight, packed, self._first_class, self.num_items + 1
        )
        causal = self._encode_embedded(first, batch.sequences).flatten(0, 1)
        last = [self._encode_embedded(part, other, other.last) for part, other in zip(rest, others, strict=True)]
        hidden = causal[batch.supervised]
        loss = linear_cross_entropy(hidden, classes, batch.targets - self._first_class, reduction="sum") / batch.total
        return loss, causal, last

    def cross_entropy(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Mean softmax cross-entropy over the whole catalogue, never as a matrix of tokens by items.

        Args:
            hidden: [N, d] user embeddings.
            targets: [N] ids 1..V.

        Returns:
            Scalar.
        """
        classes = self.item_embedding.weight[self._first_class : self.num_items + 1]
        loss: Tensor = linear_cross_entropy(hidden, classes, targets - self._first_class)
        return loss

    @property
    def _first_class(self) -> int:
        """Lowest id that competes in the softmax."""
        return 0 if self.config.padding_class else 1

    @classmethod
    def from_recbole_state(
        cls, state: Mapping[str, Tensor], *, heads: int, mask_row: bool = False, dropout: float = 0.5
    ) -> SASRec:
        """Build a model from RecBole-style weights (also those that MCLRec and DuoRec publish).

        Args:
            state: tensors by RecBole's names, e.g. ``trm_encoder.layer.0.feed_forward.dense_1.weight``.
            heads: attention heads; the weights do not tell.
            mask_row: whether the last item row is a mask token that is not scored.
            dropout: rate for further training.

        Returns:
            The model, in the dtype of the weights.

        Raises:
            KeyError: when a tensor is missing.
        """
        item = state["item_embedding.weight"]
        layers = len({name.split(".")[2] for name in state if name.startswith("trm_encoder.layer.")})
        config = SASRecConfig(
            hidden=item.shape[1],
            layers=layers,
            heads=heads,
            inner=state["trm_encoder.layer.0.feed_forward.dense_1.weight"].shape[0] if layers else 1,
            max_length=state["position_embedding.weight"].shape[0],
            dropout=dropout,
            attention_dropout=None,
            mask_row=mask_row,
        )
        model = cls(item.shape[0] - 1 - mask_row, config).to(item.dtype)
        own = {"item_embedding.weight": item, "encoder.position_embedding.weight": state["position_embedding.weight"]}
        for kind in ("weight", "bias"):
            own[f"encoder.input_norm.{kind}"] = state[f"LayerNorm.{kind}"]
            for number in range(layers):
                theirs, ours = f"trm_encoder.layer.{number}", f"encoder.layers.{number}"
                attention, feed_forward = f"{theirs}.multi_head_attention", f"{theirs}.feed_forward"
                own[f"{ours}.query_key_value.{kind}"] = torch.cat(
                    [state[f"{attention}.{part}.{kind}"] for part in ("query", "key", "value")]
                )
                own[f"{ours}.attention_out.{kind}"] = state[f"{attention}.dense.{kind}"]
                own[f"{ours}.attention_norm.{kind}"] = state[f"{attention}.LayerNorm.{kind}"]
                own[f"{ours}.inner.{kind}"] = state[f"{feed_forward}.dense_1.{kind}"]
                own[f"{ours}.outer.{kind}"] = state[f"{feed_forward}.dense_2.{kind}"]
                own[f"{ours}.outer_norm.{kind}"] = state[f"{feed_forward}.LayerNorm.{kind}"]
        model.load_state_dict(own)
        return model
