"""Quality-weighted InfoNCE as a module."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor

from graphcl.functional.genview import genview, quality_weights
from graphcl.losses._base import LossOptions, TemperatureLoss, checked
from graphcl.losses.temperature import Temperature

__all__ = ["GenView"]


class GenView(TemperatureLoss):
    """InfoNCE weighted by the quality of the views; see `graphcl.functional.genview`.

    Args:
        temperature: a number or a `Temperature`; with one for every sample, ``forward`` needs ``ids``.
        gamma: sharpness of the weights.
        options: ``reduction``, ``memory_budget``, ``backend``.

    Shapes: ``forward(z1 (N, d), z2 (N, d), foreground1, foreground2, background1, background2 (N, f), *, ids (N,))``.

    >>> import torch
    >>> GenView()(*[torch.eye(3)] * 6)
    tensor(0.5514)
    """

    def __init__(
        self, temperature: float | Temperature = 1.0, *, gamma: float = 1.0, **options: Unpack[LossOptions]
    ) -> None:
        super().__init__(temperature)
        self.gamma = gamma
        self.options = checked(options)

    def forward(
        self,
        z1: Tensor,
        z2: Tensor,
        foreground1: Tensor,
        foreground2: Tensor,
        background1: Tensor,
        background2: Tensor,
        *,
        ids: Tensor | None = None,
    ) -> Tensor:
        weight = quality_weights(foreground1, foreground2, background1, background2, gamma=self.gamma)
        return genview(z1, z2, weight, ids=ids, temperature=self.temperature_of(ids), **self.options)
