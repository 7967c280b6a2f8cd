"""InfoNCE with sparse weighted positives as a module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, Unpack

from torch import Tensor

from graphcl.functional.sparse_positives import multi_positive_info_nce
from graphcl.kernels import Similarity
from graphcl.losses._base import LossOptions, TemperatureLoss, checked
from graphcl.losses.layout import Layout, Pairs
from graphcl.losses.temperature import Temperature

__all__ = ["MultiPositiveInfoNCE"]


class MultiPositiveInfoNCE(TemperatureLoss):
    """InfoNCE with any number of weighted positives; see `graphcl.functional.multi_positive_info_nce`.

    Args:
        temperature: a number or a `Temperature`; with one for every anchor, ``forward`` needs ``ids``.
        denominator: ``shared`` or ``own``.
        similarity: ``cosine``, ``dot`` or ``sqeuclidean``.
        options: ``reduction``, ``memory_budget``, ``backend``.

    Shapes: ``forward(anchors (A, d), keys (C, d), positives (2, E), positive_weights (E,), *, ids (A,), key_ids (C,),
    weight (A,))``.

    >>> import torch
    >>> pairs = torch.tensor([[0, 0, 1], [0, 1, 2]])
    >>> MultiPositiveInfoNCE(temperature=1.0)(torch.eye(3)[:2], torch.eye(3), pairs)
    tensor(1.3014)
    """

    argument_layout: ClassVar[Mapping[str, Layout]] = {"positives": Pairs("anchors", "keys")}

    def __init__(
        self,
        temperature: float | Temperature = 0.1,
        *,
        denominator: Literal["shared", "own"] = "shared",
        similarity: Similarity = "cosine",
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(temperature)
        self.denominator: Literal["shared", "own"] = denominator
        self.similarity: Similarity = similarity
        self.options = checked(options)

    def forward(
        self,
        anchors: Tensor,
        keys: Tensor,
        positives: Tensor | tuple[Tensor, Tensor],
        positive_weights: Tensor | None = None,
        *,
        ids: Tensor | None = None,
        key_ids: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        temperature = self.temperature_of(ids)
        if key_ids is None and self.temperature.num_samples is not None:
            ids = None  # they only named the temperatures
        return multi_positive_info_nce(
            anchors,
            keys,
            positives,
            positive_weights,
            ids=ids,
            key_ids=key_ids,
            weight=weight,
            denominator=self.denominator,
            temperature=temperature,
            similarity=self.similarity,
            **self.options,
        )
