"""COMET as a module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from torch import Tensor

from graphcl.functional.comet import comet
from graphcl.losses._base import EngineOptions, TemperatureLoss
from graphcl.losses.protocol import LossOutput
from graphcl.losses.temperature import Temperature

__all__ = ["COMET"]


class COMET(TemperatureLoss):
    """Contrast at four levels; see `graphcl.functional.comet`.

    Args:
        temperature: of the trial and patient levels: a number or a `Temperature`.
        weights: of observation, sample, trial and patient level.
        pyramid: averages the first two over max-pooled halvings of time.
        options: ``memory_budget``, ``backend``.

    Shapes: ``forward(h1 (B, T, C), h2 (B, T, C), trials (B,), patients (B,), *, return_components=False)``.

    >>> import torch
    >>> h = torch.eye(2)[:, None, :]
    >>> COMET()(h, h, torch.tensor([0, 1]), torch.tensor([0, 1]))
    tensor(0.1379)
    """

    def __init__(
        self,
        temperature: float | Temperature = 0.1,
        *,
        weights: Sequence[float] = (0.25, 0.25, 0.25, 0.25),
        pyramid: bool = True,
        **options: Unpack[EngineOptions],
    ) -> None:
        super().__init__(temperature)
        self.weights = tuple(weights)
        self.pyramid = pyramid
        self.options = options

    def forward(
        self, h1: Tensor, h2: Tensor, trials: Tensor, patients: Tensor, *, return_components: bool = False
    ) -> LossOutput:
        return comet(
            h1,
            h2,
            trials,
            patients,
            weights=self.weights,
            id_temperature=self.temperature_of(None),
            pyramid=self.pyramid,
            return_components=return_components,
            **self.options,
        )

    def extra_repr(self) -> str:
        return f"weights={self.weights}, pyramid={self.pyramid}"
