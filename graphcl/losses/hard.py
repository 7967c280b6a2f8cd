"""Contrastive loss on hard negatives as a module."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor

from graphcl.functional.hard import hard_contrastive
from graphcl.losses._base import LossOptions, TemperatureLoss, checked
from graphcl.losses.temperature import Temperature

__all__ = ["HardContrastive"]


class HardContrastive(TemperatureLoss):
    """InfoNCE over the most similar negatives; see `graphcl.functional.hard_contrastive`.

    Args:
        temperature: a number or a `Temperature`; with one for every sample, ``forward`` needs ``ids``.
        num_negatives: how many negatives an anchor keeps, or
        fraction: which part of them.
        options: ``reduction``, ``memory_budget``, ``backend``.

    Shapes: ``forward(z1 (N, d), z2 (N, d), *, keys (C, d), ids (N,), key_ids (C,), weight (N,))``.

    >>> import torch
    >>> HardContrastive(temperature=1.0, num_negatives=1)(torch.eye(4), torch.eye(4))
    tensor(0.3133)
    """

    def __init__(
        self,
        temperature: float | Temperature = 0.2,
        *,
        num_negatives: int | None = None,
        fraction: float | None = None,
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(temperature)
        if (num_negatives is None) == (fraction is None):
            raise ValueError(f"give one of num_negatives and fraction, got {num_negatives} and {fraction}")
        self.num_negatives = num_negatives
        self.fraction = fraction
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
        return hard_contrastive(
            z1,
            z2,
            keys=keys,
            ids=ids,
            key_ids=key_ids,
            weight=weight,
            num_negatives=self.num_negatives,
            fraction=self.fraction,
            temperature=self.temperature_of(ids),
            **self.options,
        )
