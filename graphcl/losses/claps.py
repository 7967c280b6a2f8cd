"""Contrast with perturbed targets as a module."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor

from graphcl.functional.claps import claps
from graphcl.losses._base import LossOptions, TemperatureLoss, checked
from graphcl.losses.protocol import LossOutput
from graphcl.losses.temperature import Temperature

__all__ = ["CLAPS"]


class CLAPS(TemperatureLoss):
    """InfoNCE with adversarial positives and negatives; see `graphcl.functional.claps`.

    Args:
        temperature: a number or a `Temperature`; with one for every sample, ``forward`` needs ``ids``.
        released_scaling: leave the temperature out of the second term, as the released code does.
        options: ``reduction``, ``memory_budget``, ``backend``.

    Shapes: ``forward(x, y, positive, negative (N, d), *, ids (N,), return_components=False)``; the perturbed rows come
    from `graphcl.losses.pairs.adversarial_pairs`.

    >>> import torch
    >>> CLAPS(1.0)(torch.eye(2), torch.eye(2), torch.eye(2), -torch.eye(2))
    tensor(0.4076)
    """

    def __init__(
        self,
        temperature: float | Temperature = 0.1,
        *,
        released_scaling: bool = False,
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(temperature)
        self.released_scaling = released_scaling
        self.options = checked(options)

    def forward(
        self,
        x: Tensor,
        y: Tensor,
        positive: Tensor,
        negative: Tensor,
        *,
        ids: Tensor | None = None,
        return_components: bool = False,
    ) -> LossOutput:
        return claps(
            x,
            y,
            positive,
            negative,
            released_scaling=self.released_scaling,
            ids=ids,
            temperature=self.temperature_of(ids),
            return_components=return_components,
            **self.options,
        )
