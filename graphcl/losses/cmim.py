"""The contrastive term of cMIM as a module."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor

from graphcl.functional.cmim import cmim
from graphcl.losses._base import LossOptions, TemperatureLoss, checked
from graphcl.losses.temperature import Temperature

__all__ = ["CMIM"]


class CMIM(TemperatureLoss):
    """Contrast of one view with itself; see `graphcl.functional.cmim`.

    Args:
        temperature: a number or a `Temperature`; with one for every sample, ``forward`` needs ``ids``.
        options: ``reduction``, ``memory_budget``, ``backend``.

    Shapes: ``forward(z (N, d), second_draw (N, d), *, keys (C, d), ids (N,), key_ids (C,), weight (N,))``.

    >>> import torch
    >>> CMIM(temperature=1.0)(torch.eye(3))
    tensor(0.3133)
    """

    def __init__(self, temperature: float | Temperature = 0.1, **options: Unpack[LossOptions]) -> None:
        super().__init__(temperature)
        self.options = checked(options)

    def forward(
        self,
        z: Tensor,
        second_draw: Tensor | None = None,
        *,
        keys: Tensor | None = None,
        ids: Tensor | None = None,
        key_ids: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        return cmim(
            z,
            second_draw,
            keys=keys,
            ids=ids,
            key_ids=key_ids,
            weight=weight,
            temperature=self.temperature_of(ids),
            **self.options,
        )
