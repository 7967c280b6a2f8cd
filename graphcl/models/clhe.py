"""CLHE: bundles built from items that content, text, ids and feedback describe, with contrast at two levels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from graphcl.functional import info_nce
from graphcl.kernels import edge_dot, normalize_rows, pair_logsumexp
from graphcl.models.settings import ModelConfig, Rate
from graphcl.nn.bundle import BundleEncoder, TokenFusion

__all__ = ["CLHE", "BundleBatch", "BundleInputs", "CLHEConfig", "ItemTower", "bundle_loss", "fill_with_first_item"]

_INNER = 256


class CLHEConfig(ModelConfig):
    """Settings of :class:`CLHE`.

    Args:
        hidden: width d of every vector.
        item_augment: two views of an item for the item contrast. ``none``: both equal, which only pushes items apart
            (NA); ``dropout``: features of the fused vector are dropped (FD); ``noise``: normal noise is added to it
            (FN); ``modality``: whole tokens are dropped before the fusion (MD).
        item_dropout: probability of FD and MD.
        item_noise: deviation of the noise of FN.
        item_weight: weight of the item contrast; 0 leaves it out.
        item_temperature: its temperature.
        bundle_augment: second view of a bundle. ``dropout``: some items are left out (ID); ``replacement``: and others
            of the catalogue take their places (IR).
        bundle_ratio: share of the items that stays; 1 changes nothing, above 1 random items join.
        bundle_weight: weight of the bundle contrast; 0 leaves it out.
        bundle_temperature: its temperature.
        construct_from: what the construction loss encodes to find the items of a bundle: the whole ``bundle``, as
            published, or its second ``view``, which lacks items as the partial bundles do that are to be completed.
        max_items: larger bundles are cut to so many items.
        frozen_bundle_attention: never train the attention among the items of a bundle, as in the published code.
        reference_padding_bug: let every item that is missing in the second view of a bundle stand for item 0, as in the
            published code, which masks the view by the sizes of the whole bundles.

    Example:
        >>> CLHEConfig(item_augment="noise").item_noise
        0.02
    """

    hidden: PositiveInt = 64
    item_augment: Literal["none", "dropout", "noise", "modality"] = "modality"
    item_dropout: Rate = 0.2
    item_noise: NonNegativeFloat = 0.02
    item_weight: NonNegativeFloat = 0.1
    item_temperature: PositiveFloat = 0.5
    bundle_augment: Literal["dropout", "replacement"] = "dropout"
    bundle_ratio: PositiveFloat = 0.5
    bundle_weight: NonNegativeFloat = 0.5
    bundle_temperature: PositiveFloat = 0.2
    construct_from: Literal["bundle", "view"] = "bundle"
    max_items: PositiveInt = 200
    frozen_bundle_attention: bool = False
    reference_padding_bug: bool = False


@dataclass(frozen=True)
class BundleInputs:
    """What is known of the items of a catalogue.

    Args:
        num_items: I.
        features: modality to ``(I, D)`` vectors, such as of content and of text.
        missing: modality to ``(I,)`` bool, items without it; modalities that it does not name are complete.
        vectors: ``(I, D)`` vectors learned from user feedback; None where there is no feedback.
        cold: ``(I,)`` bool, items without feedback; none when None.

    Example:
        >>> BundleInputs(2, {"text": torch.eye(2)}).num_items
        2
    """

    num_items: int
    features: Mapping[str, Tensor] = field(default_factory=dict)
    missing: Mapping[str, Tensor] = field(default_factory=dict)
    vectors: Tensor | None = None
    cold: Tensor | None = None

    def __post_init__(self) -> None:
        named = {**self.features, **{f"missing[{name}]": mask for name, mask in self.missing.items()}}
        for name, table in (*named.items(), ("vectors", self.vectors), ("cold", self.cold)):
            if table is not None and table.shape[0] != self.num_items:
                raise ValueError(f"{name} must have {self.num_items} rows, got {table.shape[0]}")
        if unknown := set(self.missing) - set(self.features):
            raise ValueError(f"missing names {sorted(unknown)[0]!r}, which is none of {list(self.features)}")


@dataclass(frozen=True)
class BundleBatch:
    """One training step: whole bundles, and a second view of each.

    Args:
        items: ``(N,)`` item ids of all bundles one after the other, each once in a bundle.
        offsets: ``(b + 1,)`` where each bundle begins; none is empty.
        view_items: ``(M,)`` items of the second views.
        view_offsets: ``(b + 1,)`` where they begin; an empty view takes no part in the bundle contrast.
        total: bundles; less where processes share the step.

    Example:
        >>> pair = torch.tensor([0, 2])
        >>> BundleBatch(torch.tensor([4, 7]), pair, torch.tensor([7]), torch.tensor([0, 1]), total=1).to("cpu").total
        1
    """

    items: Tensor
    offsets: Tensor
    view_items: Tensor
    view_offsets: Tensor
    total: float

    def to(self, device: torch.device | str) -> BundleBatch:
        """The same batch on another device."""
        return replace(
            self,
            items=self.items.to(device),
            offsets=self.offsets.to(device),
            view_items=self.view_items.to(device),
            view_offsets=self.view_offsets.to(device),
        )


class ItemTower(nn.Module):
    r"""Item encoder of CLHE: three tokens an item, fused by attention.

    .. math:: m = \sum_{x \text{ present}} \frac{MLP_x(x)}{|MLP_x(x)|}, \quad v = \text{row of a table}, \quad
        f = W P_i + b \;\; (f = m \text{ for items without feedback}), \quad z = fuse(m, v, f)

    Args:
        widths: modality to the width D of its features; MLP: D to D to 256 to d with ReLU, Xavier normal.
        num_items: I.
        vector_width: width of the feedback vectors; None where there are none, and then f = m for all.
        hidden: d.
        generator: source of the initial weights.

    Complexity: O(n sum of D^2) time for n items.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        num_items: int,
        vector_width: int | None,
        hidden: int,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.hidden = hidden
        self.names = tuple(widths)
        self.feature_mlps = nn.ModuleList(_mlp(width, hidden, generator) for width in widths.values())
        self.item_table = nn.Parameter(nn.init.xavier_uniform_(torch.empty(num_items, hidden), generator=generator))
        self.feedback = None if vector_width is None else nn.Linear(vector_width, hidden)
        self.fusion = TokenFusion(hidden)

    def tokens(self, inputs: BundleInputs, items: Tensor | None = None) -> Tensor:
        """``(n, 3, d)`` tokens of items before normalisation, in the order features, id, feedback; of all when None."""

        def rows(table: Tensor) -> Tensor:
            return table if items is None else table.index_select(0, items)

        ids = rows(self.item_table)
        parts = torch.zeros_like(ids)
        for name, mlp in zip(self.names, self.feature_mlps, strict=True):
            part = normalize_rows(mlp(rows(inputs.features[name])))
            if name in inputs.missing:
                part = part.masked_fill(rows(inputs.missing[name]).unsqueeze(1), 0.0)
            parts = parts + part
        feedback = parts
        if self.feedback is not None and inputs.vectors is not None:
            feedback = self.feedback(rows(inputs.vectors))
            if inputs.cold is not None:
                feedback = torch.where(rows(inputs.cold).unsqueeze(1), parts, feedback)
        return torch.stack([parts, ids, feedback], dim=1)

    def forward(self, inputs: BundleInputs, items: Tensor | None = None) -> Tensor:
        """``(n, d)`` vectors of items."""
        fused: Tensor = self.fusion(self.tokens(inputs, items))
        return fused


class CLHE(nn.Module):
    r"""CLHE: a hierarchical encoder of items and bundles, trained to complete bundles and by contrast at both levels.

    Paper: Ma et al., "Leveraging Multimodal Features and Item-level User Feedback for Bundle Construction", 2024,
    https://arxiv.org/abs/2310.18770.

    .. math:: L = \frac{1}{B} \sum_b \Big( \log \sum_j e^{z_b \cdot w_j} - \frac{1}{|b|} \sum_{i \in b} z_b \cdot w_i
        \Big) + \alpha_1 L_{item} + \alpha_2 L_{bundle}

    with z_b the bundle vector (:class:`graphcl.nn.BundleEncoder` over the item vectors of a first
    :class:`ItemTower`), w_j the vectors of a second tower of the same form, and L_item and L_bundle one-directional
    InfoNCE by cosine: two views of the distinct items of the batch, and the bundle against a thinned one.

    Deviations from the published code, each with its reason: the attention among the items of a bundle is trained
    (there a plain list hides it from the optimiser; ``frozen_bundle_attention``), the second view of a bundle is masked
    by its own size (``reference_padding_bug``), replacements come from the whole catalogue instead of the first item
    ids, bundles of one item take no part in the bundle contrast, and an item may lack some of any number of modalities.

    Args:
        inputs: what is known of the items; kept in the model, not among its weights.
        config: settings; the defaults when None.
        generator: source of the initial weights, but for those that torch's layers draw themselves.

    Raises:
        ValueError: no item, or features that hold NaN.

    Complexity: a step of b bundles with N items, n of them distinct, takes O((n + I) sum of D^2) time for the towers,
    O(b I d) for the construction loss in memory O((b + I) d), and O((n^2 + b^2) d) for the contrasts.

    Example:
        >>> model = CLHE(BundleInputs(5, {"text": torch.eye(5)}), CLHEConfig(hidden=8))
        >>> model(torch.tensor([1, 3]), torch.tensor([0, 2])).shape, model.candidates().shape
        (torch.Size([1, 8]), torch.Size([5, 8]))
    """

    config_class: ClassVar[type[ModelConfig]] = CLHEConfig
    recommended: ClassVar[Mapping[str, Any]] = {}

    def __init__(
        self, inputs: BundleInputs, config: CLHEConfig | None = None, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        if inputs.num_items < 1:
            raise ValueError(f"num_items must be at least 1, got {inputs.num_items}")
        self.config = config or CLHEConfig()
        self.num_items = inputs.num_items
        self._inputs = replace(inputs, features={name: normalize_rows(x) for name, x in inputs.features.items()})
        widths = {name: table.shape[1] for name, table in inputs.features.items()}
        vector_width = None if inputs.vectors is None else inputs.vectors.shape[1]
        for name, table in (*inputs.features.items(), ("vectors", inputs.vectors)):
            if table is not None and bool(table.isnan().any()):
                raise ValueError(f"features must be numbers, {name} holds NaN")
        hidden = self.config.hidden
        self.encoder = ItemTower(widths, inputs.num_items, vector_width, hidden, generator=generator)
        self.decoder = ItemTower(widths, inputs.num_items, vector_width, hidden, generator=generator)
        self.bundle_encoder = BundleEncoder(hidden, frozen=self.config.frozen_bundle_attention)
        self.projector = nn.Linear(hidden, hidden) if self.config.item_augment in ("dropout", "noise") else None
        # Views of items draw from here; the pipeline seeds one for every epoch.
        self.generator: torch.Generator | None = None

    def on_epoch_start(self, epoch: int, generator: torch.Generator) -> None:
        """Called before the batches of an epoch; the generator is a function of (seed, epoch)."""
        self.generator = generator

    @property
    def inputs(self) -> BundleInputs:
        """What is known of the items, on the device and in the type of the weights."""
        like, known = self.encoder.item_table, self._inputs
        tables = [*known.features.values(), *([] if known.vectors is None else [known.vectors])]
        if tables and (tables[0].device != like.device or tables[0].dtype != like.dtype):
            self._inputs = replace(
                known,
                features={name: table.to(like) for name, table in known.features.items()},
                missing={name: mask.to(like.device) for name, mask in known.missing.items()},
                vectors=None if known.vectors is None else known.vectors.to(like),
                cold=None if known.cold is None else known.cold.to(like.device),
            )
        return self._inputs

    def forward(self, items: Tensor, offsets: Tensor) -> Tensor:
        """Vectors of bundles, whole or partial.

        Args:
            items: ``(N,)`` item ids of all bundles one after the other.
            offsets: ``(b + 1,)`` where each begins; none is empty.

        Returns:
            ``(b, d)``.
        """
        items, offsets = self._cut(items, offsets)
        distinct, place = torch.unique(items, return_inverse=True)
        vectors = self.encoder(self.inputs, distinct)
        bundles: Tensor = self.bundle_encoder(vectors.index_select(0, place), offsets)
        return bundles

    def candidates(self) -> Tensor:
        """``(I, d)`` vectors of all items; the score of an item is their inner product with a bundle's vector."""
        vectors: Tensor = self.decoder(self.inputs)
        return vectors

    def objective(self, batch: BundleBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Construction loss and the weighted contrasts.

        Args:
            batch: bundles of one step.

        Returns:
            Their sum, and each part by name.
        """
        config = self.config
        items, offsets = self._cut(batch.items, batch.offsets)
        view_items, view_offsets = self._cut(batch.view_items, batch.view_offsets)
        if config.reference_padding_bug:
            view_items, view_offsets = fill_with_first_item(view_items, view_offsets, offsets)
        distinct, place = torch.unique(torch.cat([items, view_items]), return_inverse=True)
        # One pass of the first tower serves the bundles, their second views and both views of the items.
        tokens = self.encoder.tokens(self.inputs, distinct)
        vectors = self.encoder.fusion(tokens)
        own, other = place[: items.shape[0]], place[items.shape[0] :]
        bundles = self.bundle_encoder(vectors.index_select(0, own), offsets)
        kept = torch.nonzero(view_offsets.diff() > 0).squeeze(1)
        views = bundles.new_zeros(0, bundles.shape[1])
        if kept.shape[0] and (config.bundle_weight or config.construct_from == "view"):
            starts = torch.cat([view_offsets[:1], view_offsets[1:][kept]])
            views = self.bundle_encoder(vectors.index_select(0, other), starts)
        seen = bundles.index_copy(0, kept, views) if config.construct_from == "view" and kept.shape[0] else bundles
        share = bundles.shape[0] / batch.total
        parts = {"construction": share * bundle_loss(seen, self.candidates(), items, offsets)}
        if config.item_weight:
            # Items that only a replacement brought in are no part of the batch's items.
            met = torch.unique(own)
            pair = self.item_views(tokens.index_select(0, met), vectors.index_select(0, met))
            parts["item_contrast"] = config.item_weight * info_nce(*pair, temperature=config.item_temperature)
        if config.bundle_weight:
            contrast = vectors.sum() * 0.0
            if kept.shape[0]:
                contrast = info_nce(bundles[kept], views, temperature=config.bundle_temperature)
            parts["bundle_contrast"] = config.bundle_weight * contrast
        total = torch.stack(list(parts.values())).sum()
        return total, {name: value.detach() for name, value in parts.items()}

    def item_views(
        self, tokens: Tensor, fused: Tensor, draws: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Two views of items, as ``item_augment`` says.

        Args:
            tokens: ``(n, 3, d)``.
            fused: ``(n, d)``, the tokens fused.
            draws: what is random, one a view: dropped tokens ``(n, 3)`` bool for ``modality``, dropped features
                ``(n, d)`` bool for ``dropout``, noise ``(n, d)`` for ``noise``; drawn when None.

        Returns:
            ``(n, d)`` twice.
        """
        kind, config = self.config.item_augment, self.config
        if kind == "none":
            return fused, fused
        shape = tokens.shape[:2] if kind == "modality" else fused.shape
        views = []
        for view in range(2):
            draw = self._draw(shape, kind) if draws is None else draws[view]
            if kind == "modality":
                views.append(self.encoder.fusion(tokens.masked_fill(draw.unsqueeze(2), 0.0)))
                continue
            if kind == "dropout":
                changed = fused.masked_fill(draw, 0.0) / (1.0 - config.item_dropout)
            else:
                changed = fused + config.item_noise * draw
            views.append(changed if self.projector is None else self.projector(changed))
        return views[0], views[1]

    def _draw(self, shape: torch.Size, kind: str) -> Tensor:
        like = self.encoder.item_table
        if kind == "noise":
            return torch.randn(shape, generator=self.generator, dtype=like.dtype).to(like.device)
        return (torch.rand(shape, generator=self.generator) < self.config.item_dropout).to(like.device)

    def _cut(self, items: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """The first ``max_items`` items of every bundle."""
        sizes, most = offsets.diff(), self.config.max_items
        if not sizes.shape[0] or int(sizes.max()) <= most:
            return items, offsets
        place = torch.arange(items.shape[0], device=items.device) - offsets[:-1].repeat_interleave(sizes)
        cut = torch.zeros_like(offsets)
        torch.cumsum(sizes.clamp(max=most), 0, out=cut[1:])
        return items[place < most], cut


def bundle_loss(bundles: Tensor, candidates: Tensor, items: Tensor, offsets: Tensor) -> Tensor:
    r"""Multinomial log-likelihood of bundles, in linear memory: no row of ones and zeros a bundle.

    .. math:: \frac{1}{B} \sum_b \Big( \log \sum_j e^{z_b \cdot w_j} - \frac{1}{|b|} \sum_{i \in b} z_b \cdot w_i \Big)

    Args:
        bundles: ``(B, d)`` z.
        candidates: ``(I, d)`` w.
        items: ``(N,)`` items of all bundles one after the other.
        offsets: ``(B + 1,)`` where each bundle begins; none is empty.

    Returns:
        A scalar.

    Complexity: O(B I d + N d) time, O((B + I) d + N) memory beside the tiles.

    >>> bundle_loss(torch.zeros(1, 2), torch.zeros(4, 2), torch.tensor([1, 3]), torch.tensor([0, 2])).exp().round()
    tensor(4.)
    """
    sizes = offsets.diff()
    total = pair_logsumexp(bundles, candidates, temperature=1.0, similarity="dot").logsumexp
    rows = torch.arange(bundles.shape[0], device=bundles.device).repeat_interleave(sizes)
    scores = edge_dot(bundles, candidates, rows, items)
    return total.mean() - (scores / sizes.to(scores.dtype).repeat_interleave(sizes)).sum() / bundles.shape[0]


def fill_with_first_item(view_items: Tensor, view_offsets: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Views in which item 0 stands for every item of the whole bundle that the view lacks, as in the published code.

    Args:
        view_items: ``(M,)``.
        view_offsets: ``(b + 1,)``.
        offsets: ``(b + 1,)`` of the whole bundles.

    Returns:
        Items and offsets of the filled views; a view that is larger than its bundle stays as it is.

    Complexity: O(b + N).

    >>> fill_with_first_item(torch.tensor([7]), torch.tensor([0, 1]), torch.tensor([0, 3]))[0].tolist()
    [7, 0, 0]
    """
    kept = view_offsets.diff()
    sizes = torch.maximum(kept, offsets.diff())
    filled = torch.zeros_like(view_offsets)
    torch.cumsum(sizes, 0, out=filled[1:])
    out = view_items.new_zeros(int(filled[-1]))
    within = torch.arange(view_items.shape[0], device=view_items.device) - view_offsets[:-1].repeat_interleave(kept)
    out[filled[:-1].repeat_interleave(kept) + within] = view_items
    return out, filled


def _mlp(width: int, hidden: int, generator: torch.Generator | None) -> nn.Sequential:
    layers = [nn.Linear(width, width), nn.Linear(width, _INNER), nn.Linear(_INNER, hidden)]
    for layer in layers:
        nn.init.xavier_normal_(layer.weight, generator=generator)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
