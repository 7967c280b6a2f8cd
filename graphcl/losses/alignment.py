"""Contrast with uniformity and alignment as a module."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor

from graphcl.functional.alignment import cua
from graphcl.losses._base import EngineOptions, TemperatureLoss
from graphcl.losses.protocol import LossOutput
from graphcl.losses.temperature import Temperature

__all__ = ["CUA"]


class CUA(TemperatureLoss):
    """Symmetric InfoNCE with uniformity and alignment (CUA, CUAXU); see `graphcl.functional.cua`.

    Args:
        temperature: a number or a `Temperature`; with one for every sample, ``forward`` needs ``ids``.
        t: width of the uniformity terms.
        uniformity_weight: of the mean of the two uniformities.
        alignment_weight: of the alignment.
        cross_uniformity_weight: 1 gives CUAXU.
        options: ``memory_budget``, ``backend``.

    Shapes: ``forward(z1 (N, d), z2 (N, d), *, ids (N,), return_components=False)``.

    >>> import torch
    >>> CUA(temperature=1.0)(torch.eye(3), torch.eye(3))
    tensor(-3.4486)
    """

    def __init__(
        self,
        temperature: float | Temperature = 0.07,
        *,
        t: float = 2.0,
        uniformity_weight: float = 1.0,
        alignment_weight: float = 1.0,
        cross_uniformity_weight: float = 0.0,
        **options: Unpack[EngineOptions],
    ) -> None:
        super().__init__(temperature)
        self.t = t
        self.uniformity_weight = uniformity_weight
        self.alignment_weight = alignment_weight
        self.cross_uniformity_weight = cross_uniformity_weight
        self.options = options

    def forward(
        self, z1: Tensor, z2: Tensor, *, ids: Tensor | None = None, return_components: bool = False
    ) -> LossOutput:
        return cua(
            z1,
            z2,
            ids=ids,
            temperature=self.temperature_of(ids),
            t=self.t,
            uniformity_weight=self.uniformity_weight,
            alignment_weight=self.alignment_weight,
            cross_uniformity_weight=self.cross_uniformity_weight,
            return_components=return_components,
            **self.options,
        )
