"""SupReMix as a module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Unpack

import torch
from torch import Tensor

from graphcl.functional.supremix import supremix
from graphcl.losses._base import LossOptions, TemperatureLoss, checked
from graphcl.losses.layout import VIEWS, Layout, ViewMajor
from graphcl.losses.temperature import Temperature

__all__ = ["SupReMix"]


class SupReMix(TemperatureLoss):
    """Supervised contrast for regression with mixtures; see `graphcl.functional.supremix`.

    Args:
        temperature: a number or a `Temperature`.
        share_distribution: (a, b) of the Beta distribution of the anchors' shares in mixed negatives.
        window: bound of both label gaps of a mixed positive.
        max_mixtures: mixed positives sampled an anchor; None takes all.
        options: ``reduction``, ``memory_budget``, ``backend``.

    Shapes: ``forward(views V x (N, d), labels (N,), *, anchor_share (V N,), generator)``.

    >>> import torch
    >>> z = torch.eye(3)
    >>> SupReMix(1.0)([z, z], torch.tensor([1.0, 2.0, 3.0]), anchor_share=0.2).round(decimals=4)
    tensor(2.4229)
    """

    argument_layout: ClassVar[Mapping[str, Layout]] = {"views": VIEWS, "anchor_share": ViewMajor("views")}

    def __init__(
        self,
        temperature: float | Temperature = 0.3,
        *,
        share_distribution: tuple[int, int] = (2, 8),
        window: float = 5.0,
        max_mixtures: int | None = None,
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(temperature)
        self.share_distribution = share_distribution
        self.window = window
        self.max_mixtures = max_mixtures
        self.options = checked(options)

    def forward(
        self,
        views: Sequence[Tensor] | Tensor,
        labels: Tensor,
        *,
        anchor_share: float | Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        return supremix(
            views,
            labels,
            temperature=self.temperature_of(None),
            anchor_share=anchor_share,
            share_distribution=self.share_distribution,
            window=self.window,
            max_mixtures=self.max_mixtures,
            generator=generator,
            **self.options,
        )
