"""InfoNCE on rescaled features as a module."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor

from graphcl.functional.rescaling import rescaled_info_nce
from graphcl.losses._base import LossOptions, TemperatureLoss, checked
from graphcl.losses.temperature import Temperature

__all__ = ["RescaledInfoNCE"]


class RescaledInfoNCE(TemperatureLoss):
    """Symmetric InfoNCE on rescaled features; see `graphcl.functional.rescaled_info_nce`.

    Args:
        kappa: feature j counts by kappa to the power -j.
        temperature: a number or a `Temperature`; with one for every sample, ``forward`` needs ``ids``.
        options: ``reduction``, ``memory_budget``, ``backend``.

    Shapes: ``forward(z1 (N, d), z2 (N, d), *, keys (C, d), ids (N,), key_ids (C,), weight (N,))``.

    >>> import torch
    >>> RescaledInfoNCE(temperature=1.0)(torch.eye(3), torch.eye(3))
    tensor(0.5514)
    """

    def __init__(
        self, kappa: float = 1.05, temperature: float | Temperature = 0.2, **options: Unpack[LossOptions]
    ) -> None:
        super().__init__(temperature)
        self.kappa = kappa
        self.options = checked(options)

    def forward(
        self,
        z1: Tensor,
        z2: Tensor,
        *,
        keys: Tensor | None = None,
        ids: Tensor | None = None,
        key_ids: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        return rescaled_info_nce(
            z1,
            z2,
            kappa=self.kappa,
            keys=keys,
            ids=ids,
            key_ids=key_ids,
            weight=weight,
            temperature=self.temperature_of(ids),
            **self.options,
        )
