"""HTCL: two stages, from what items are to whom they please; an item tower that needs no interactions of its item."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from graphcl.functional import info_nce
from graphcl.kernels import ExcludePairs, normalize_rows, pair_logsumexp
from graphcl.losses.temperature import Temperature
from graphcl.models.settings import ModelConfig, Rate

__all__ = ["HTCL", "AlignmentBatch", "AlignmentInputs", "HTCLConfig", "preference_contrast"]


class HTCLConfig(ModelConfig):
    """Settings of :class:`HTCL`.

    Args:
        hidden: width of the shared space.
        inner: width of the hidden layer of a tower; 0 makes both towers linear.
        dropout: rate on the hidden layer.
        temperature: first value of the learned temperature.
        minimum_temperature: its floor.
        semantic_weight: lambda, weight of the semantic loss beside the preference loss in the second stage.
        freeze: what the second stage leaves as it is: ``none``, the ``text`` tower, or the text tower and the first
            layer of the item tower (``text_and_first_layer``).

    Example:
        >>> HTCLConfig().temperature
        0.07
    """

    hidden: PositiveInt = 64
    inner: NonNegativeInt = 256
    dropout: Rate = 0.1
    temperature: PositiveFloat = 0.07
    minimum_temperature: PositiveFloat = 0.01
    semantic_weight: NonNegativeFloat = 0.5
    freeze: Literal["none", "text", "text_and_first_layer"] = "none"


@dataclass(frozen=True)
class AlignmentInputs:
    """Two modalities of the items of a catalogue, precomputed.

    Args:
        items: ``(I, D)`` features of the modality that items will be encoded by, such as audio.
        texts: ``(I, T)`` features of the other modality.
        has_both: ``(I,)`` bool, items that have a row in both; others take no part in the semantic loss.

    Example:
        >>> AlignmentInputs(torch.eye(3), torch.eye(3)[:, :2], torch.ones(3, dtype=torch.bool)).items.shape
        torch.Size([3, 3])
    """

    items: Tensor
    texts: Tensor
    has_both: Tensor


@dataclass(frozen=True)
class AlignmentBatch:
    """One training step.

    Args:
        items: ``(n,)`` distinct item ids for the semantic loss, all of which have both modalities.
        anchors: ``(b,)`` item ids; None in the first stage.
        positives: ``(b,)`` an item that pleases those whom the anchor pleases.
        negatives: ``(b,)`` an item that displeased one of them, -1 where there is none; None for none at all.
        excluded: offsets ``(b + 1,)`` and columns: positives of others that are no negatives of an anchor.
        total: pairs, or items in the first stage; less where processes share the step.

    Example:
        >>> AlignmentBatch(torch.tensor([0, 1]), total=2).anchors is None
        True
    """

    items: Tensor
    anchors: Tensor | None = None
    positives: Tensor | None = None
    negatives: Tensor | None = None
    excluded: tuple[Tensor, Tensor] | None = None
    total: float = 1.0

    def to(self, device: torch.device | str) -> AlignmentBatch:
        """The same batch on another device."""

        def moved(value: Tensor | None) -> Tensor | None:
            return None if value is None else value.to(device)

        pairs = None if self.excluded is None else (self.excluded[0].to(device), self.excluded[1].to(device))
        return replace(
            self,
            items=self.items.to(device),
            anchors=moved(self.anchors),
            positives=moved(self.positives),
            negatives=moved(self.negatives),
            excluded=pairs,
        )


class HTCL(nn.Module):
    r"""HTCL: contrastive alignment of two modalities, then of items that please the same people.

    Paper: HTCL, 2025, https://arxiv.org/abs/2505.23298, on music by audio and text. Neither its code nor its equations
    could be read: the two stages are the paper's, the losses are of this package's design, and the towers are small
    networks on any precomputed features instead of an audio and a language model.

    .. math:: L_1 = \tfrac12 (CE(z_a z_t^T / \tau) + CE(z_t z_a^T / \tau)), \qquad
        L_2 = L_{pref} + \lambda L_1, \qquad
        L_{pref} = -\frac{1}{B} \sum_i \log \frac{e^{a_i \cdot p_i / \tau}}{\sum_{j \notin F_i} e^{a_i \cdot p_j / \tau}
        + e^{a_i \cdot n_i / \tau}}

    z_a and z_t are the unit vectors of an item by its two towers. a, p, n are item-tower vectors of an anchor, an item
    that pleases those whom the anchor pleases, and one that displeased one of them; F_i are the positives of other
    anchors that the anchor shares admirers with. The temperature is learned. The item tower never reads an id, so an
    item that nobody has met has a vector as good as any.

    Args:
        inputs: both modalities of all items; kept in the model, not among its weights.
        config: settings; the defaults when None.
        generator: source of the initial weights.

    Complexity: a step of b pairs takes O(b (D + T) inner) time for the towers and O(b^2 d) for the losses, in memory
    O(b (D + T + d)).

    Example:
        >>> model = HTCL(AlignmentInputs(torch.eye(4), torch.eye(4)[:, :3], torch.ones(4, dtype=torch.bool)))
        >>> model.item_embeddings().shape
        torch.Size([4, 64])
    """

    config_class: ClassVar[type[ModelConfig]] = HTCLConfig
    recommended: ClassVar[Mapping[str, Any]] = {}

    def __init__(
        self, inputs: AlignmentInputs, config: HTCLConfig | None = None, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.config = config or HTCLConfig()
        if not inputs.items.shape[0] == inputs.texts.shape[0] == inputs.has_both.shape[0]:
            raise ValueError("items, texts and has_both must have as many rows as there are items")
        for name, table in (("items", inputs.items), ("texts", inputs.texts)):
            if bool(table.isnan().any()):
                raise ValueError(f"features must be numbers, {name} holds NaN")
        self._inputs = replace(inputs, items=normalize_rows(inputs.items), texts=normalize_rows(inputs.texts))
        self.item_tower = _tower(inputs.items.shape[1], self.config, generator)
        self.text_tower = _tower(inputs.texts.shape[1], self.config, generator)
        self.temperature = Temperature(self.config.temperature, learnable=True, minimum=self.config.minimum_temperature)
        self._frozen = False

    @property
    def inputs(self) -> AlignmentInputs:
        """Both modalities on the device and in the type of the weights."""
        like = next(self.item_tower.parameters())
        known = self._inputs
        if known.items.device != like.device or known.items.dtype != like.dtype:
            both = known.has_both.to(like.device)
            self._inputs = AlignmentInputs(known.items.to(like), known.texts.to(like), both)
        return self._inputs

    def begin_preferences(self) -> None:
        """Enter the second stage and freeze what ``freeze`` names; further calls do nothing."""
        if self._frozen or self.config.freeze == "none":
            return
        self._frozen = True
        layers = [self.text_tower, *([self.item_tower[0]] if self.config.freeze == "text_and_first_layer" else [])]
        for weight in _weights(layers):
            weight.requires_grad_(False)

    def encode_items(self, features: Tensor) -> Tensor:
        """Unit vectors of items by their features, of the catalogue or not.

        Args:
            features: ``(n, D)``; rows are scaled to unit length.

        Returns:
            ``(n, d)``.
        """
        return normalize_rows(self.item_tower(normalize_rows(features)))

    def encode_texts(self, features: Tensor) -> Tensor:
        """Unit vectors of texts, ``(n, T)`` to ``(n, d)``."""
        return normalize_rows(self.text_tower(normalize_rows(features)))

    def item_embeddings(self) -> Tensor:
        """``(I, d)`` unit vectors of the items of the catalogue; zero for an item without features."""
        items = self.inputs.items
        known = items.abs().sum(1, keepdim=True) > 0
        return self.encode_items(items).masked_fill(~known, 0.0)

    def forward(self, items: Tensor) -> Tensor:
        """``(n, d)`` unit vectors of items by id."""
        return self.encode_items(self.inputs.items.index_select(0, items))

    def objective(self, batch: AlignmentBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of the stage that the batch belongs to.

        Args:
            batch: one step.

        Returns:
            The loss, and its parts by name.
        """
        first_stage = batch.anchors is None
        if not first_stage:
            self.begin_preferences()
        temperature = self.temperature()
        parts: dict[str, Tensor] = {}
        if batch.items.shape[0] > 1 and (first_stage or self.config.semantic_weight):
            texts = self.encode_texts(self.inputs.texts.index_select(0, batch.items))
            loss = info_nce(self(batch.items), texts, temperature=temperature, symmetric=True)
            parts["semantic"] = loss if first_stage else self.config.semantic_weight * loss
        if batch.anchors is not None and batch.positives is not None:
            negatives, known = None, None
            if batch.negatives is not None:
                known = batch.negatives >= 0
                negatives = self(batch.negatives.clamp(min=0))
            share = batch.anchors.shape[0] / batch.total
            parts["preference"] = share * preference_contrast(
                self(batch.anchors), self(batch.positives), negatives, known=known, excluded=batch.excluded,
                temperature=temperature,
            )  # fmt: skip
        if not parts:  # one item alone has nothing to be told apart from
            parts["semantic"] = self(batch.items).sum() * 0.0
        total = torch.stack(list(parts.values())).sum()
        return total, {name: value.detach() for name, value in parts.items()}


def preference_contrast(
    anchors: Tensor,
    positives: Tensor,
    negatives: Tensor | None = None,
    *,
    known: Tensor | None = None,
    excluded: tuple[Tensor, Tensor] | None = None,
    temperature: float | Tensor = 0.07,
) -> Tensor:
    r"""Every anchor finds its positive among all positives of the batch and its own negative.

    .. math:: -\frac{1}{B} \sum_i \log \frac{e^{a_i \cdot p_i / \tau}}
        {\sum_{j \notin F_i} e^{a_i \cdot p_j / \tau} + e^{a_i \cdot n_i / \tau}}

    Args:
        anchors: ``(B, d)``.
        positives: ``(B, d)``.
        negatives: ``(B, d)``, one an anchor; None for none.
        known: ``(B,)`` bool, which anchors have a negative; all when None.
        excluded: offsets ``(B + 1,)`` and sorted columns of the positives F_i that are no negatives of an anchor; the
            own one is not among them.
        temperature: positive number or 0-dim tensor.

    Returns:
        A scalar.

    Complexity: O(B^2 d) time, O(B d) memory beside the tiles.

    >>> preference_contrast(torch.eye(3), torch.eye(3), temperature=1.0)
    tensor(0.5514)
    """
    rules = () if excluded is None else (ExcludePairs(*excluded),)
    total = pair_logsumexp(anchors, positives, temperature=temperature, similarity="dot", rules=rules).logsumexp
    if negatives is not None:
        own = (anchors * negatives).sum(1) / temperature
        own = own if known is None else own.masked_fill(~known, -torch.inf)
        total = torch.logaddexp(total, own)
    return (total - (anchors * positives).sum(1) / temperature).mean()


def _tower(width: int, config: HTCLConfig, generator: torch.Generator | None) -> nn.Sequential:
    if config.inner:
        first, last = nn.Linear(width, config.inner), nn.Linear(config.inner, config.hidden)
        layers: list[nn.Module] = [first, nn.GELU(), nn.Dropout(config.dropout), last]
    else:
        layers = [nn.Linear(width, config.hidden)]
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)


def _weights(layers: list[nn.Module]) -> Iterator[nn.Parameter]:
    for layer in layers:
        yield from layer.parameters()
