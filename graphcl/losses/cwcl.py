"""Continuously weighted contrastive loss as a module."""

from __future__ import annotations

from typing import Literal, Unpack

from torch import Tensor

from graphcl.functional.cwcl import cwcl
from graphcl.losses._base import LossOptions, TemperatureLoss, checked
from graphcl.losses.protocol import LossOutput
from graphcl.losses.temperature import Temperature

__all__ = ["CWCL"]


class CWCL(TemperatureLoss):
    """Cross-modal contrast weighted by a teacher; see `graphcl.functional.cwcl`.

    Args:
        temperature: a number or a `Temperature`; with one for every sample, ``forward`` needs ``ids``.
        similarity: ``cosine`` or ``dot``.
        average: halve the sum of the two directions.
        options: ``reduction``, ``memory_budget``, ``backend``.

    Shapes: ``forward(z1 (N, d), z2 (N, d), teacher (N, d_t), *, ids (N,), return_components=False)``.

    >>> import torch
    >>> CWCL(temperature=1.0)(torch.eye(2), torch.eye(2), torch.tensor([[1.0], [-1.0]]))
    tensor(0.6265)
    """

    def __init__(
        self,
        temperature: float | Temperature = 0.1,
        *,
        similarity: Literal["cosine", "dot"] = "cosine",
        average: bool = False,
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(temperature)
        self.similarity: Literal["cosine", "dot"] = similarity
        self.average = average
        self.options = checked(options)

    def forward(
        self,
        z1: Tensor,
        z2: Tensor,
        teacher: Tensor,
        *,
        ids: Tensor | None = None,
        return_components: bool = False,
    ) -> LossOutput:
        return cwcl(
            z1,
            z2,
            teacher,
            ids=ids,
            temperature=self.temperature_of(ids),
            similarity=self.similarity,
            average=self.average,
            return_components=return_components,
            **self.options,
        )
