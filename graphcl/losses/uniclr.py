"""UniCLR as a module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Unpack

from torch import Tensor

from graphcl.functional.uniclr import uniclr
from graphcl.losses._base import LossOptions, TemperatureLoss, checked
from graphcl.losses.layout import Layout, ViewMajor
from graphcl.losses.temperature import Temperature

__all__ = ["UniCLR"]


class UniCLR(TemperatureLoss):
    """Inliers attract each other, virtual outliers only their own views; see `graphcl.functional.uniclr`.

    Args:
        temperature: a number or a `Temperature`.
        soft_temperature: weighs inliers by how typical they are; off by default.
        options: ``reduction``, ``memory_budget``, ``backend``.

    Shapes: ``forward(inliers [(N, d)], outliers [(M, d)], *, outlier_ids (M,), weight)``.

    >>> import torch
    >>> UniCLR(temperature=1.0)([torch.eye(3), torch.eye(3)], [-torch.eye(3), -torch.eye(3)])
    tensor(1.8383)
    """

    argument_layout: ClassVar[Mapping[str, Layout]] = {"weight": ViewMajor("inliers", "outliers")}

    def __init__(
        self,
        temperature: float | Temperature = 0.5,
        *,
        soft_temperature: float | None = None,
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(temperature)
        self.soft_temperature = soft_temperature
        self.options = checked(options)

    def forward(
        self,
        inliers: Sequence[Tensor],
        outliers: Sequence[Tensor] = (),
        *,
        outlier_ids: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        return uniclr(
            inliers,
            outliers,
            outlier_ids=outlier_ids,
            soft_temperature=self.soft_temperature,
            temperature=self.temperature_of(None),
            weight=weight,
            **self.options,
        )

    def extra_repr(self) -> str:
        return f"soft_temperature={self.soft_temperature}"
