"""PMRL as a module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Unpack

from torch import Tensor

from graphcl.functional.pmrl import pmrl
from graphcl.losses._base import LossOptions, TemperatureLoss, checked
from graphcl.losses.layout import VIEWS, Layout
from graphcl.losses.temperature import Temperature, as_temperature

__all__ = ["PMRL"]


class PMRL(TemperatureLoss):
    """Principled multimodal representation learning; see `graphcl.functional.pmrl`. Returns its parts as well.

    Args:
        temperature: of the singular values, a number or a `Temperature`.
        instance_temperature: of the contrast between instances, a number or a `Temperature`.
        instance_weight: weight of that contrast.
        options: ``reduction``, ``memory_budget``, ``backend``.

    Shapes: ``forward(views V x (N, d), *, present (N, V), ids (N,))``.

    >>> import torch
    >>> loss, parts = PMRL()([torch.eye(2), torch.eye(2)])
    >>> sorted(parts)
    ['inter', 'intra']
    """

    argument_layout: ClassVar[Mapping[str, Layout]] = {"views": VIEWS}

    def __init__(
        self,
        temperature: float | Temperature = 0.05,
        instance_temperature: float | Temperature = 0.1,
        *,
        instance_weight: float = 1.0,
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(temperature)
        self.instance_temperature = as_temperature(instance_temperature)
        self.instance_weight = instance_weight
        self.options = checked(options)

    def forward(
        self, views: Sequence[Tensor] | Tensor, *, present: Tensor | None = None, ids: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        return pmrl(
            views,
            temperature=self.temperature_of(None),
            instance_temperature=self.instance_temperature(None),
            instance_weight=self.instance_weight,
            present=present,
            ids=ids,
            return_components=True,
            **self.options,
        )
