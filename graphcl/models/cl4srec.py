"""CL4SRec: next-item cross-entropy with a contrast of two augmented versions of each sequence."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from graphcl.functional import nt_xent
from graphcl.models.base import ContrastRows, Objective, SequenceBatch
from graphcl.models.base_contrastive import ContrastiveConfig, ContrastiveModel, ContrastNeeds, split_views
from graphcl.models.settings import ModelConfig, Rate
from graphcl.nn import PackedSequences
from graphcl.views import crop_items, mask_items, reorder_items, two_views


class CL4SRecConfig(ContrastiveConfig):
    """Settings of :class:`CL4SRec`: those of its encoder, and these.

    Args:
        contrast_weight: lambda, weight of the contrast.
        temperature: tau, divides the inner products.
        crop_ratio: share of a sequence that crop cuts away.
        mask_ratio: share that mask replaces.
        reorder_ratio: share that reorder shuffles.
        mask_row: mask with a token of its own; otherwise with id 0, which is hidden.

    Example:
        >>> CL4SRecConfig().mask_row
        True
    """

    symbols: ClassVar[Mapping[str, str]] = {"lambda": "contrast_weight", "tau": "temperature"}

    contrast_weight: NonNegativeFloat = 0.1
    temperature: PositiveFloat = 1.0
    crop_ratio: Rate = 0.4
    mask_ratio: Rate = 0.3
    reorder_ratio: Rate = 0.6
    mask_row: bool = True


class AugmentedContrast(ContrastiveModel):
    """What methods with cropped, masked and reordered views share: how those are made, packed and encoded."""

    def draw_views(self, contrast: ContrastRows) -> PackedSequences:
        """Two augmented versions of every row, by two different operators, packed as one set."""
        config, rows = self.config, contrast.rows
        operators = (
            partial(crop_items, ratio=config.crop_ratio),
            partial(mask_items, ratio=config.mask_ratio, mask_id=self.mask_id),
            partial(reorder_items, ratio=config.reorder_ratio),
        )
        return self.pack_views(*two_views(rows.items, rows.lengths, operators))


class CL4SRec(AugmentedContrast):
    r"""Contrast of two augmented versions of each sequence beside next-item cross-entropy.

    Paper: Xie et al., "Contrastive Learning for Sequential Recommendation", 2022, https://arxiv.org/abs/2010.14395.

    .. math:: L = L_{rec} + \lambda \operatorname{NTXent}(h_1, h_2)

    with inner products, h_1 and h_2 the encodings of two versions by two different operators of crop, mask, reorder.

    Deviations: full-softmax cross-entropy instead of sampled negatives, as in the code of its successors; the ratios
    are those of that code, which writes the masks into its stored data while this works on copies. In causal training
    one row a user and step carries the contrast (``rows="prefix"``: every row).

    Args:
        num_items: V; ids run from 1 to V and 0 is padding.
        config: settings; the defaults when None.
        encoder: any module of your own that encodes, see :class:`ContrastiveModel`.
        generator: source of the initial weights.

    Raises:
        ValueError: when ``num_items`` is below 1.

    Complexity: one encoding of the histories and two of one prefix a user; O(B^2 d) for the contrast of B users.

    Example:
        >>> import torch
        >>> model = CL4SRec(num_items=9, config=CL4SRecConfig(hidden=8, max_length=4)).eval()
        >>> model(torch.tensor([[3, 1, 0, 0]]), torch.tensor([2])).shape
        torch.Size([1, 8])
    """

    config_class: ClassVar[type[ModelConfig]] = CL4SRecConfig

    @property
    def contrast(self) -> ContrastNeeds:
        """One row a window, unless the contrast has no weight."""
        return ContrastNeeds(rows=self.config.contrast_weight > 0)

    def objective(self, batch: SequenceBatch) -> Objective:
        """Cross-entropy and contrast.

        Args:
            batch: packed histories with targets and contrast rows.

        Returns:
            ``L``, and its parts ``cross_entropy`` and ``contrast``.
        """
        if not self.contrast.rows:
            loss, _, _ = self.next_item_loss(batch)
            return loss, {"cross_entropy": loss.detach()}
        return self.objective_of_views(batch, self.draw_views(self.rows_of(batch)))

    def objective_of_views(self, batch: SequenceBatch, views: PackedSequences) -> Objective:
        """The objective with views that are given: first versions of all rows, then the second ones."""
        entropy, _, (encoded,) = self.next_item_loss(batch, views)
        contrast = self._contrast(*self.rows_of_all_processes(*split_views(encoded, 2)))
        loss = entropy + self.config.contrast_weight * contrast
        return loss, {"cross_entropy": entropy.detach(), "contrast": contrast.detach()}

    def _contrast(self, first: Tensor, second: Tensor) -> Tensor:
        return nt_xent(first, second, temperature=self.config.temperature, similarity="dot")
