"""MCLRec: learnable augmentation of encodings, updated in turn with the encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import ClassVar, Literal

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor, nn

from graphcl.functional import contrastive_regularizer, nt_xent
from graphcl.models.base import Objective, SequenceBatch
from graphcl.models.base_contrastive import ContrastiveConfig, ContrastNeeds, split_views
from graphcl.models.cl4srec import AugmentedContrast
from graphcl.models.settings import ModelConfig, Rate
from graphcl.nn import PackedSequences
from graphcl.nn.augmenter import EmbeddingAugmenter


class MCLRecConfig(ContrastiveConfig):
    """Settings of :class:`MCLRec`: those of its encoder, and these.

    Args:
        contrast_weight: lambda, weight of the contrast of the two augmented versions; the published model for Amazon
            Beauty has 0.
        meta_weight: beta, weight of the contrast with the learned views.
        regularizer_weight: gamma, weight of the regulariser beside the contrast with the learned views.
        regularizer: ``code``: margins a row, over three pairs of views; ``paper``: margins of the batch, learned views.
        schedule: ``three_step``: encoder, augmenters, encoder again (as released); ``two_stage``: encoder, augmenters
            (as in the paper); ``joint``: one step over all parameters (MCLRec-J).
        shared_augmenter: one augmenter for both views (an ablation of the paper).
        temperature: tau, divides every inner product.
        crop_ratio, mask_ratio, reorder_ratio: shares of a sequence that are cut away, replaced, shuffled.
        mask_row: mask with a token of its own; otherwise with id 0, which is hidden, as released.

    Example:
        >>> MCLRecConfig(schedule="two_stage").meta_weight
        0.05
    """

    symbols: ClassVar[Mapping[str, str]] = {
        "lambda": "contrast_weight",
        "beta": "meta_weight",
        "gamma": "regularizer_weight",
        "tau": "temperature",
    }

    contrast_weight: NonNegativeFloat = 0.0
    meta_weight: NonNegativeFloat = 0.05
    regularizer_weight: NonNegativeFloat = 0.1
    regularizer: Literal["code", "paper"] = "code"
    schedule: Literal["three_step", "two_stage", "joint"] = "three_step"
    shared_augmenter: bool = False
    temperature: PositiveFloat = 1.0
    crop_ratio: Rate = 0.5
    mask_ratio: Rate = 0.5
    reorder_ratio: Rate = 0.8


class MCLRec(AugmentedContrast):
    r"""Contrast of augmented sequences with learned augmentations of their encodings.

    Paper: Qin et al., "Meta-optimized Contrastive Learning for Sequential Recommendation", 2023,
    https://arxiv.org/abs/2304.07763.

    .. math:: L_0 = L_{rec} + \lambda \ell(h_1, h_2) + \beta (L_2 + \gamma R), \qquad L_1 = L_2 + \gamma R

    .. math:: L_2 = \ell(z_1, z_2) + \ell(h_1, z_2) + \ell(h_2, z_1), \qquad z_i = w_i(h_i), \quad
        \ell = \operatorname{NTXent}

    with inner products, h_1 and h_2 the encodings of two augmented versions, w_i a bottleneck network
    (:class:`graphcl.nn.EmbeddingAugmenter`) and R of `graphcl.functional.contrastive_regularizer`. A batch takes a step
    of the encoder on L_0, one of the augmenters on L_1 with h_1 and h_2 encoded anew as constants, and one of the
    encoder on L_0 with the new augmenters; no gradient goes through an update.

    Deviations: where paper and released code differ the code is followed (three steps, margins a row, weight of R in
    the second step); the augmenters are sized by d and saved with the model. In causal training one row a user and step
    carries the contrast (``rows="prefix"``: every row).

    Args:
        num_items: V; ids run from 1 to V and 0 is padding.
        config: settings; the defaults when None.
        encoder: any module of your own that encodes, see :class:`ContrastiveModel`.
        generator: source of the initial weights.

    Raises:
        ValueError: when ``num_items`` is below 1.

    Complexity: two causal passes with cross-entropy a step; three encodings of two prefixes a user, one of them without
    gradient; O(B^2 d) for each of the pairs of views.

    Example:
        >>> model = MCLRec(num_items=9, config=MCLRecConfig(hidden=8, max_length=4)).eval()
        >>> model(torch.tensor([[3, 1, 0, 0]]), torch.tensor([2])).shape, list(model.parameter_groups())
        (torch.Size([1, 8]), ['encoder', 'augmenters'])
    """

    config_class: ClassVar[type[ModelConfig]] = MCLRecConfig

    def __init__(
        self,
        num_items: int,
        config: MCLRecConfig | None = None,
        *,
        encoder: nn.Module | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(num_items, config, encoder=encoder, generator=generator)
        dim = self.item_embeddings().shape[1]
        count = 1 if self.config.shared_augmenter else 2
        self.augmenters = nn.ModuleList(EmbeddingAugmenter(dim, generator=generator) for _ in range(count))

    @property
    def contrast(self) -> ContrastNeeds:
        """One row a window."""
        return ContrastNeeds()

    def objective(self, batch: SequenceBatch) -> Objective:
        """L_0, the loss of the encoder (and of the joint schedule).

        Args:
            batch: packed histories with targets and contrast rows.

        Returns:
            ``L_0``, and its parts ``cross_entropy``, ``contrast``, ``meta_contrast`` and ``regularizer``.
        """
        return self.encoder_objective(batch, self.draw_views(self.rows_of(batch)))

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """``encoder`` and ``augmenters``, which are updated in turn; ``all`` of them in the joint schedule."""
        if self.config.schedule == "joint":
            return {"all": list(self.parameters())}
        return {"encoder": list(self.encoder.parameters()), "augmenters": list(self.augmenters.parameters())}

    def training_steps(
        self, batch: SequenceBatch, views: PackedSequences | None = None
    ) -> Iterator[tuple[str, Callable[[], Objective]]]:
        """The optimiser steps of one batch, all on the same two augmented versions.

        Args:
            batch: packed histories with targets and contrast rows.
            views: first versions of all rows, then the second ones; drawn when None.

        Yields:
            The group to update and its objective.
        """
        packed = self.draw_views(self.rows_of(batch)) if views is None else views
        of_encoder = partial(self.encoder_objective, batch, packed)
        if self.config.schedule == "joint":
            yield "all", of_encoder
            return
        yield "encoder", of_encoder
        yield "augmenters", partial(self.augmenter_objective, packed)
        if self.config.schedule == "three_step":
            yield "encoder", of_encoder

    def encoder_objective(self, batch: SequenceBatch, views: PackedSequences) -> Objective:
        """L_0 with views that are given."""
        config = self.config
        entropy, _, (encoded,) = self.next_item_loss(batch, views)
        first, second = self.rows_of_all_processes(*split_views(encoded, 2))
        parts = {"cross_entropy": entropy.detach()}
        loss = entropy
        if config.contrast_weight:
            contrast = self._contrast(first, second)
            loss = loss + config.contrast_weight * contrast
            parts["contrast"] = contrast.detach()
        meta, regularizer = self._meta_terms(first, second)
        parts |= {"meta_contrast": meta.detach(), "regularizer": regularizer.detach()}
        return loss + config.meta_weight * (meta + config.regularizer_weight * regularizer), parts

    def augmenter_objective(self, views: PackedSequences) -> Objective:
        """L_1 with views that are given; the encodings are constants.

        The value also holds ``contrast_weight`` times their contrast, as released; it has no gradient here.
        """
        with torch.no_grad():
            first, second = self.rows_of_all_processes(*split_views(self.encode_last(views), 2))
        meta, regularizer = self._meta_terms(first, second)
        loss = meta + self.config.regularizer_weight * regularizer
        if self.config.contrast_weight:
            loss = loss + self.config.contrast_weight * self._contrast(first, second)
        return loss, {"augmenter_loss": loss.detach()}

    def augment(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """z_1 and z_2, the learned views of the two encodings."""
        one, other = self.augmenters[0](first), self.augmenters[-1](second)
        return one, other

    def _meta_terms(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """L_2 and R."""
        config = self.config
        one, other = self.augment(first, second)
        pairs = [(one, other), (first, other), (second, one)]
        meta = torch.stack([self._contrast(*pair) for pair in pairs]).sum()
        margins = [
            contrastive_regularizer(*pair, temperature=config.temperature, form=config.regularizer)
            for pair in (pairs if config.regularizer == "code" else pairs[:1])
        ]
        return meta, torch.stack(margins).sum()

    def _contrast(self, first: Tensor, second: Tensor) -> Tensor:
        return nt_xent(first, second, temperature=self.config.temperature, similarity="dot")
