"""DuoRec: contrast by dropout and by sequences that share their next item."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from graphcl.functional import nt_xent
from graphcl.models.base import Objective, PaddedSequences, SequenceBatch
from graphcl.models.base_contrastive import ContrastiveConfig, ContrastiveModel, ContrastNeeds, split_views
from graphcl.models.settings import ModelConfig


class DuoRecConfig(ContrastiveConfig):
    """Settings of :class:`DuoRec`: those of its encoder, and these.

    Args:
        mode: which outputs are contrasted: ``un`` two passes of a row, ``su`` a row and one with the same target,
            ``us`` both, ``us_x`` the second pass and the row with the same target.
        contrast_weight: weight of the contrast.
        temperature: tau, divides the inner products.

    Example:
        >>> DuoRecConfig().mode
        'us_x'
    """

    symbols: ClassVar[Mapping[str, str]] = {"lambda": "contrast_weight", "tau": "temperature"}

    mode: Literal["un", "su", "us", "us_x"] = "us_x"
    contrast_weight: NonNegativeFloat = 0.1
    temperature: PositiveFloat = 1.0


class DuoRec(ContrastiveModel):
    r"""Contrast without augmented data: another dropout mask, and another row with the same next item.

    Paper: Qiu et al., "Contrastive Learning for Representation Degeneration Problem in Sequential Recommendation",
    2022, https://arxiv.org/abs/2110.05730.

    .. math:: L = L_{rec} + \lambda \begin{cases} \ell(h, h') & un \\ \ell(h, h^s) & su \\ \ell(h, h') + \ell(h, h^s)
        & us \\ \ell(h', h^s) & us\_x \end{cases}, \qquad \ell = \operatorname{NTXent}

    with inner products, h the pass of :math:`L_{rec}`, h' a second one with another dropout mask and :math:`h^s` that
    of a row with the same target, drawn uniformly (the row itself where there is none).

    Deviations: in causal training one row a user and step carries the contrast (``rows="prefix"``: every row).

    Args:
        num_items: V; ids run from 1 to V and 0 is padding.
        config: settings; the defaults when None.
        encoder: any module of your own that encodes, see :class:`ContrastiveModel`.
        generator: source of the initial weights.

    Raises:
        ValueError: when ``num_items`` is below 1.

    Complexity: one encoding of the histories and one or two of one prefix a user; O(B^2 d) for the contrast.

    Example:
        >>> model = DuoRec(num_items=9, config=DuoRecConfig(hidden=8, max_length=4)).eval()
        >>> model(torch.tensor([[3, 1, 0, 0]]), torch.tensor([2])).shape
        torch.Size([1, 8])
    """

    config_class: ClassVar[type[ModelConfig]] = DuoRecConfig

    @property
    def contrast(self) -> ContrastNeeds:
        """One row a window, with a partner of the same target unless only dropout is contrasted."""
        return ContrastNeeds(rows=self.config.contrast_weight > 0, same_target=self.config.mode != "un")

    def objective(self, batch: SequenceBatch) -> Objective:
        """Cross-entropy and contrast.

        Args:
            batch: packed histories with targets and contrast rows.

        Returns:
            ``L``, and its parts ``cross_entropy`` and ``contrast``.

        Raises:
            ValueError: when the mode needs rows with the same target and the batch has none.
        """
        if not self.contrast.rows:
            loss, _, _ = self.next_item_loss(batch)
            return loss, {"cross_entropy": loss.detach()}
        mode, contrast = self.config.mode, self.rows_of(batch)
        again = () if mode == "su" else (contrast.rows,)
        partners = () if mode == "un" else (self._partners(contrast.same_target),)
        packed = self.pack_views(*again, *partners)
        entropy, causal, (encoded,) = self.next_item_loss(batch, packed)
        first, *parts = self.rows_of_all_processes(
            causal[contrast.slots], *split_views(encoded, len(again) + len(partners))
        )
        if mode == "us_x":
            value = self._contrast(parts[0], parts[1])
        else:
            value = torch.stack([self._contrast(first, part) for part in parts]).sum()
        loss = entropy + self.config.contrast_weight * value
        return loss, {"cross_entropy": entropy.detach(), "contrast": value.detach()}

    def _contrast(self, first: Tensor, second: Tensor) -> Tensor:
        return nt_xent(first, second, temperature=self.config.temperature, similarity="dot")

    @staticmethod
    def _partners(given: PaddedSequences | None) -> PaddedSequences:
        if given is None:
            raise ValueError("this mode of DuoRec needs batches with rows of the same target")
        return given
