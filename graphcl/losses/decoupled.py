"""Decoupled contrastive losses as modules."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor

from graphcl.functional.decoupled import dcl, dclw
from graphcl.kernels import Similarity
from graphcl.losses._base import LossOptions, TemperatureLoss, checked
from graphcl.losses.temperature import Temperature

__all__ = ["DCL", "DCLW"]


class DCL(TemperatureLoss):
    """Decoupled contrastive loss; see `graphcl.functional.dcl`.

    Args:
        temperature: a number or a `Temperature`; with one for every sample, ``forward`` needs ``ids``.
        similarity: ``cosine``, ``dot`` or ``sqeuclidean``.
        symmetric: average both view orders.
        options: ``reduction``, ``memory_budget``, ``backend``.

    Shapes: ``forward(z1 (N, d), z2 (N, d), *, keys (C, d), ids (N,), key_ids (C,), positive_weight (N,))``.

    >>> import torch
    >>> DCL(temperature=1.0)(torch.eye(3), torch.eye(3))
    tensor(0.3863)
    """

    def __init__(
        self,
        temperature: float | Temperature = 0.1,
        *,
        similarity: Similarity = "cosine",
        symmetric: bool = True,
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(temperature)
        self.similarity: Similarity = similarity
        self.symmetric = symmetric
        self.options = checked(options)

    def forward(
        self,
        z1: Tensor,
        z2: Tensor,
        *,
        keys: Tensor | None = None,
        ids: Tensor | None = None,
        key_ids: Tensor | None = None,
        positive_weight: Tensor | None = None,
    ) -> Tensor:
        return dcl(
            z1,
            z2,
            keys=keys,
            ids=ids,
            key_ids=key_ids,
            positive_weight=positive_weight,
            temperature=self.temperature_of(ids),
            similarity=self.similarity,
            symmetric=self.symmetric,
            **self.options,
        )


class DCLW(TemperatureLoss):
    """Decoupled contrastive loss with weighted positives; see `graphcl.functional.dclw`.

    Args:
        temperature: a number or a `Temperature`; with one for every sample, ``forward`` needs ``ids``.
        sigma: temperature of the weights.
        detach_weight: False also differentiates the weights.
        symmetric: average both view orders.
        options: ``reduction``, ``memory_budget``, ``backend``.

    Shapes: ``forward(z1 (N, d), z2 (N, d), *, keys (C, d), ids (N,), key_ids (C,))``.

    >>> import torch
    >>> DCLW(temperature=1.0)(torch.eye(3), torch.eye(3))
    tensor(0.3863)
    """

    def __init__(
        self,
        temperature: float | Temperature = 0.1,
        *,
        sigma: float = 0.5,
        detach_weight: bool = True,
        symmetric: bool = True,
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(temperature)
        self.sigma = sigma
        self.detach_weight = detach_weight
        self.symmetric = symmetric
        self.options = checked(options)

    def forward(
        self,
        z1: Tensor,
        z2: Tensor,
        *,
        keys: Tensor | None = None,
        ids: Tensor | None = None,
        key_ids: Tensor | None = None,
    ) -> Tensor:
        return dclw(
            z1,
            z2,
            keys=keys,
            ids=ids,
            key_ids=key_ids,
            temperature=self.temperature_of(ids),
            sigma=self.sigma,
            detach_weight=self.detach_weight,
            symmetric=self.symmetric,
            **self.options,
        )
