"""Supervised contrastive loss as a module."""

from __future__ import annotations

from typing import Literal, Unpack

from torch import Tensor

from graphcl.functional.supcon import sup_con
from graphcl.losses._base import LossOptions, TemperatureLoss, checked
from graphcl.losses.temperature import Temperature

__all__ = ["SupCon"]


class SupCon(TemperatureLoss):
    """Supervised contrastive loss; see `graphcl.functional.sup_con`.

    Args:
        temperature: a number or a `Temperature`; with one for every sample, ``forward`` needs ``ids``.
        form: ``out`` or ``in``.
        base_temperature: scales the loss by ``temperature / base_temperature``.
        similarity: ``cosine`` or ``dot``.
        options: ``reduction``, ``memory_budget``, ``backend``.

    Shapes: ``forward(embeddings (N, d), labels (N,), *, keys (C, d), key_labels (C,), ids (N,), key_ids (C,))``.

    >>> import torch
    >>> SupCon(temperature=1.0)(torch.eye(3)[[0, 0, 1]], torch.tensor([5, 5, 7]))
    tensor(0.3133)
    """

    def __init__(
        self,
        temperature: float | Temperature = 0.1,
        *,
        form: Literal["out", "in"] = "out",
        base_temperature: float | None = None,
        similarity: Literal["cosine", "dot"] = "cosine",
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(temperature)
        self.form: Literal["out", "in"] = form
        self.base_temperature = base_temperature
        self.similarity: Literal["cosine", "dot"] = similarity
        self.options = checked(options)

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        *,
        keys: Tensor | None = None,
        key_labels: Tensor | None = None,
        ids: Tensor | None = None,
        key_ids: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        return sup_con(
            embeddings,
            labels,
            keys=keys,
            key_labels=key_labels,
            ids=ids,
            key_ids=key_ids,
            weight=weight,
            form=self.form,
            temperature=self.temperature_of(ids),
            base_temperature=self.base_temperature,
            similarity=self.similarity,
            **self.options,
        )
