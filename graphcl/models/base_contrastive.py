"""What contrastive sequential methods share: an encoder of any kind, and rows whose views it encodes in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pydantic import Field, ValidationError, field_validator, model_validator
from torch import Tensor, nn

from graphcl.kernels import linear_cross_entropy
from graphcl.losses.distributed import gather_rows
from graphcl.models.base import ContrastRows, Objective, PaddedSequences, SequenceBatch
from graphcl.models.registry import get_model, list_models
from graphcl.models.sasrec import SASRecConfig
from graphcl.models.settings import ModelConfig, Rate, nearest_names
from graphcl.nn import PackedSequences, pack_padded

__all__ = ["ContrastNeeds", "ContrastiveConfig", "ContrastiveModel"]


@dataclass(frozen=True)
class ContrastNeeds:
    """What a model wants in the `ContrastRows` of its batches.

    Args:
        rows: any rows at all.
        same_target: another row with the same target for each.
        retrieved: semantically similar sequences for each.
    """

    rows: bool = True
    same_target: bool = False
    retrieved: bool = False


class ContrastiveConfig(SASRecConfig):
    """Settings of every contrastive method: those of its encoder, beside its own.

    What is not given takes the default of the encoder (``inner``, ``layers``); settings that an encoder does not have
    (``heads`` of gru4rec) change nothing.

    Args:
        encoder: name of a sequential model that encodes: ``sasrec``, ``gru4rec`` or a registered one of your own.
        encoder_settings: settings that this encoder alone has, by name.
        dropout, attention_dropout: of the encoder. With a contrast beside it SASRec is better with the 0.5 of the
            papers throughout (docs/sequential.md); another encoder keeps its own rate.

    Example:
        >>> ContrastiveConfig(encoder="gru4rec").layers, ContrastiveConfig().layers
        (1, 2)
    """

    encoder: str = "sasrec"
    encoder_settings: dict[str, Any] = Field(default_factory=dict)
    dropout: Rate = 0.5
    attention_dropout: Rate | None = None

    @model_validator(mode="before")
    @classmethod
    def _take_defaults_of_encoder(cls, values: Any) -> Any:
        name = values.get("encoder", cls.model_fields["encoder"].default) if isinstance(values, Mapping) else None
        if not isinstance(name, str) or name.lower() not in _encoders():
            return values  # the field's own check names what is wrong
        values = {**values, "encoder": name.lower()}
        if name.lower() == "sasrec":
            return values
        own = get_model(name, task="sequential").config_class.model_fields
        shared = {
            field: own[field].default
            for field in own
            if field in SASRecConfig.model_fields
            and cls.model_fields[field].default == ContrastiveConfig.model_fields[field].default
        }
        return {**shared, **values}

    @field_validator("encoder")
    @classmethod
    def _encoder_is_known_and_no_method(cls, name: str) -> str:
        known = list_models("sequential")
        if name in known and name not in _encoders():
            raise ValueError(f"a contrastive method cannot encode for another; use one of: {', '.join(_encoders())}")
        if name not in known:
            raise ValueError(f"no such encoder; {nearest_names(name, _encoders())}")
        return name

    @model_validator(mode="after")
    def _heads_divide_hidden(self) -> ContrastiveConfig:
        """What `SASRecConfig` asks of its settings holds for an encoder that has them."""
        try:
            self.encoder_config()
        except ValidationError as error:
            fault = error.errors()[0]
            name = ".".join(str(part) for part in fault["loc"])
            reason = str(fault["msg"]).removeprefix("Value error, ")
            raise ValueError(f"{name}: {reason}" if name else reason) from error
        return self

    def encoder_config(self) -> Any:
        """The settings of the encoder, an instance of its own settings class.

        Raises:
            ValidationError, ValueError: settings that the encoder does not take.
        """
        kind = get_model(self.encoder, task="sequential").config_class
        shared = {name: getattr(self, name) for name in kind.model_fields if name in SASRecConfig.model_fields}
        for name in self.encoder_settings:
            if name in shared:
                raise ValueError(f"{name} in encoder_settings is no setting of the encoder alone; set {name} itself")
            if name not in kind.model_fields:
                own = [field for field in kind.model_fields if field not in shared]
                raise ValueError(
                    f"{self.encoder} has no setting {name!r} of its own; "
                    + (nearest_names(name, own) if own else "leave encoder_settings out")
                )
        return kind(**shared, **self.encoder_settings)


def _encoders() -> list[str]:
    """Names of the sequential models that can encode for a contrastive method."""
    return [
        name
        for name in list_models("sequential")
        if not issubclass(get_model(name, task="sequential"), ContrastiveModel)
    ]


class ContrastiveModel(nn.Module):
    """A sequential encoder that is trained with contrastive terms beside next-item cross-entropy.

    An encoder is a module with ``forward(item_seq [B, L], lengths [B]) -> [B, d]`` and ``item_embeddings() -> [V, d]``.
    That is enough. One that also has ``encode_last`` and ``next_item_loss`` as `graphcl.models.SASRec` does is trained
    with one causal pass a user; any other is called once for every prefix.

    A method derives from it, says in ``contrast`` what its batches must hold, and adds ``objective``.

    Args:
        num_items: V.
        config: settings; the defaults when None.
        encoder: a module of your own instead of the one that ``config.encoder`` names.
        generator: source of the initial weights.

    Raises:
        ValueError: when ``num_items`` is below 1.

    Complexity: that of the encoder; without a causal pass it reads every prefix, O(L) times as many items.

    Example:
        >>> class WithoutContrast(ContrastiveModel):
        ...     def objective(self, batch):
        ...         loss, _, _ = self.next_item_loss(batch)
        ...         return loss, {"cross_entropy": loss.detach()}
        >>> model = WithoutContrast(num_items=9, config=ContrastiveConfig(hidden=8, max_length=4)).eval()
        >>> model(torch.tensor([[3, 1, 0, 0]]), torch.tensor([2])).shape
        torch.Size([1, 8])
    """

    config_class: ClassVar[type[ModelConfig]] = ContrastiveConfig

    def __init__(
        self,
        num_items: int,
        config: Any = None,
        *,
        encoder: nn.Module | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if num_items < 1:
            raise ValueError(f"num_items must be at least 1, got {num_items}")
        settings: Any = config or self.config_class()
        self.config = settings
        self.num_items = num_items
        if encoder is None:
            kind: Any = get_model(self.config.encoder, task="sequential")
            encoder = kind(num_items, self.config.encoder_config(), generator=generator)
        self.encoder: Any = encoder

    @property
    def contrast(self) -> ContrastNeeds:
        """What the batches must hold beside the histories."""
        return ContrastNeeds()

    @property
    def mask_id(self) -> int:
        """Id that masked items take: V + 1 where the encoder has that row (its ``config.mask_row``), else 0."""
        has_row = getattr(getattr(self.encoder, "config", None), "mask_row", False)
        return self.num_items + 1 if has_row else 0

    def forward(self, item_seq: Tensor, lengths: Tensor) -> Tensor:
        """[B, L] right-padded ids and [B] lengths to [B, d] user embeddings."""
        embedded: Tensor = self.encoder(item_seq, lengths)
        return embedded

    def item_embeddings(self) -> Tensor:
        """[V, d] embeddings of ids 1..V; the score of item i for a user is the inner product with row i - 1."""
        table: Tensor = self.encoder.item_embeddings()
        return table

    def encode_last(self, sequences: PackedSequences) -> Tensor:
        """[S, d] encoder output at the last item of every packed history."""
        if hasattr(self.encoder, "encode_last"):
            encoded: Tensor = self.encoder.encode_last(sequences)
            return encoded
        items, lengths = sequences.padded()
        last: Tensor = self(items, lengths)
        return last

    def objective(self, batch: SequenceBatch) -> Objective:
        """The scalar to minimise and its parts by name."""
        raise NotImplementedError

    def pack_views(self, *views: PaddedSequences | tuple[Tensor, Tensor]) -> PackedSequences:
        """Several views of the same B rows as one packed set, the first view's rows first."""
        pairs = [(view.items, view.lengths) if isinstance(view, PaddedSequences) else view for view in views]
        width = max(items.shape[1] for items, _ in pairs)
        items = torch.cat([nn.functional.pad(items, (0, width - items.shape[1])) for items, _ in pairs])
        return pack_padded(items, torch.cat([lengths for _, lengths in pairs]), hides_zeros=True)

    def next_item_loss(self, batch: SequenceBatch, *others: PackedSequences) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Cross-entropy of a step beside the encoding of further sequences.

        Args:
            batch: packed histories with targets.
            *others: packed views.

        Returns:
            The sum over the targets divided by ``batch.total``, the [R * C, d] output at the batch's slots (of an
            encoder without causal pass: at the supervised ones), and [S, d] output at the last item of each sequence
            of every other packed set.
        """
        if hasattr(self.encoder, "next_item_loss"):
            result: tuple[Tensor, Tensor, list[Tensor]] = self.encoder.next_item_loss(batch, *others)
            return result
        encoded = self._encode_slots(batch.sequences, batch.supervised)
        hidden = encoded[batch.supervised]
        loss = linear_cross_entropy(hidden, self.item_embeddings(), batch.targets - 1, reduction="sum") / batch.total
        return loss, encoded, [self.encode_last(packed) for packed in others]

    def rows_of(self, batch: SequenceBatch) -> ContrastRows:
        """The rows that the contrastive terms use.

        Raises:
            ValueError: when the batch was made without.
        """
        if batch.contrast is None:
            raise ValueError(f"{type(self).__name__} needs batches with contrast rows; see ContrastSource")
        return batch.contrast

    @staticmethod
    def rows_of_all_processes(*encoded: Tensor) -> tuple[Tensor, ...]:
        """Encoded rows of the whole step, for terms that compare rows with each other.

        Where processes share a step, each compares the rows of all of them: with gradients that are averaged over the
        processes the step is then that of one process.

        Args:
            *encoded: [B, d] rows of this process; B may be 0 and differ between processes.

        Returns:
            The rows of all processes in the order of the ranks; the rows themselves where there is one process.
        """
        return tuple(gather_rows(rows) for rows in encoded)

    def _encode_slots(self, sequences: PackedSequences, slots: Tensor) -> Tensor:
        """Output at some slots by calling the encoder on every prefix; zeros elsewhere."""
        items, _ = sequences.padded()
        owner, place = sequences.segments.flatten()[slots], sequences.positions.flatten()[slots]
        later = torch.arange(items.shape[1], device=items.device) > place[:, None]
        hidden: Tensor = self(items[owner].masked_fill(later, 0), place + 1)
        return hidden.new_zeros(sequences.items.numel(), hidden.shape[1]).index_copy(0, slots, hidden)


def split_views(encoded: Tensor, num_views: int) -> Sequence[Tensor]:
    """The [B, d] outputs of each of several views that were packed as one set."""
    return encoded.chunk(num_views)
