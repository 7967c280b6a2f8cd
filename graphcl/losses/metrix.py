"""Mixup for metric learning as a module that draws its mixtures."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from graphcl.functional._draws import draw_beta, draw_integers
from graphcl.functional.metrix import draw_mixed_pairs, metrix_contrastive, metrix_multi_similarity, mix_rows
from graphcl.functional.reduction import Reduction, check_reduction
from graphcl.losses._key_queue import StepDraws
from graphcl.losses.protocol import split_output

__all__ = ["Metrix"]


class Metrix(nn.Module):
    """Loss on mixed embeddings of a labelled batch; see `graphcl.functional.metrix_contrastive`.

    Every call draws one weight from Beta(c, c) and, with equal chance, mixes positives with negatives or anchors with
    negatives. The published total adds .4 times this loss to the clean one: use `Sum` with a weight.

    Args:
        form: ``contrastive`` or ``multi_similarity``.
        margin: of the contrastive form.
        average: ``nonzero`` or ``all``, of the contrastive form.
        concentration: c.
        only_without_positives: see `graphcl.functional.draw_mixed_pairs`.
        num_per_anchor: mixtures of an anchor.
        seed: of the draws.
        reduction: ``mean``, ``sum`` or ``none``.

    Shapes: ``forward(embeddings (N, d), labels (N,))``.

    >>> import torch
    >>> bool(Metrix()(torch.eye(4), torch.tensor([0, 0, 1, 1])).isfinite())
    True
    """

    def __init__(
        self,
        form: Literal["contrastive", "multi_similarity"] = "contrastive",
        *,
        margin: float = 0.5,
        average: Literal["nonzero", "all"] = "nonzero",
        concentration: float = 2.0,
        only_without_positives: bool = True,
        num_per_anchor: int = 1,
        seed: int = 0,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        if form not in ("contrastive", "multi_similarity"):
            raise ValueError(f"form must be 'contrastive' or 'multi_similarity', got {form!r}")
        check_reduction(reduction)
        self.form = form
        self.margin = margin
        self.average: Literal["nonzero", "all"] = average
        self.concentration = concentration
        self.only_without_positives = only_without_positives
        self.num_per_anchor = num_per_anchor
        self.draws = StepDraws(seed)
        self.reduction: Reduction = reduction

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        generator = self.draws(embeddings.device)
        weight = draw_beta(
            first=self.concentration, second=self.concentration, like=embeddings.detach(), generator=generator
        )
        of_anchors = bool(draw_integers(2, 1, device=embeddings.device, generator=generator))
        pairs = draw_mixed_pairs(
            labels,
            "anchor_negative" if of_anchors else "positive_negative",
            only_without_positives=self.only_without_positives,
            num_per_anchor=self.num_per_anchor,
            generator=generator,
        )
        mixtures = mix_rows(embeddings[pairs.first], embeddings[pairs.second], weight).to(embeddings.dtype)
        if self.form == "multi_similarity":
            return metrix_multi_similarity(embeddings, mixtures, weight, pairs.anchor, reduction=self.reduction)
        return split_output(
            metrix_contrastive(
                embeddings[pairs.anchor],
                mixtures,
                weight,
                margin=self.margin,
                average=self.average,
                reduction=self.reduction,
            )
        )[0]
