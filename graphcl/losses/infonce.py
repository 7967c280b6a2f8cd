"""InfoNCE and NT-Xent as modules."""

from __future__ import annotations

from typing import ClassVar, Unpack

from torch import Tensor

from graphcl.functional.infonce import info_nce, nt_xent
from graphcl.kernels import Similarity
from graphcl.losses._base import LossOptions, TemperatureLoss, checked
from graphcl.losses.temperature import Temperature

__all__ = ["InfoNCE", "NTXent"]


class InfoNCE(TemperatureLoss):
    """InfoNCE across two views or against keys; see `graphcl.functional.info_nce`.

    Args:
        temperature: a number or a `Temperature`; with one for every sample, ``forward`` needs ``ids``.
        similarity: ``cosine``, ``dot`` or ``sqeuclidean``.
        symmetric: average both directions.
        options: ``reduction``, ``memory_budget``, ``backend``.

    Shapes: ``forward(anchors (N, d), positives (N, d), *, keys (C, d), ids (N,), key_ids (C,), weight (N,))``.

    >>> import torch
    >>> InfoNCE(temperature=1.0)(torch.eye(3), torch.eye(3))
    tensor(0.5514)
    """

    def __init__(
        self,
        temperature: float | Temperature = 0.1,
        *,
        similarity: Similarity = "cosine",
        symmetric: bool = False,
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(temperature)
        self.similarity: Similarity = similarity
        self.symmetric = symmetric
        self.options = checked(options)

    @property
    def candidate_arguments(self) -> tuple[str, ...]:
        """What `Distributed` may gather as keys while the anchors stay where they are."""
        return () if self.symmetric else ("positives",)

    def forward(
        self,
        anchors: Tensor,
        positives: Tensor,
        *,
        keys: Tensor | None = None,
        ids: Tensor | None = None,
        key_ids: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        return info_nce(
            anchors,
            positives,
            keys=keys,
            ids=ids,
            key_ids=key_ids,
            weight=weight,
            temperature=self.temperature_of(ids),
            similarity=self.similarity,
            symmetric=self.symmetric,
            **self.options,
        )


class NTXent(TemperatureLoss):
    """NT-Xent over all rows of two views; see `graphcl.functional.nt_xent`.

    Args:
        temperature: a number or a `Temperature`; with one for every sample, ``forward`` needs ``ids``.
        similarity: ``cosine``, ``dot`` or ``sqeuclidean``.
        symmetric: False takes the first view alone as anchors.
        options: ``reduction``, ``memory_budget``, ``backend``.

    Shapes: ``forward(z1 (N, d), z2 (N, d), *, keys (C, d), ids (N,), key_ids (C,), weight (N,))``.

    >>> import torch
    >>> NTXent(temperature=1.0)(torch.eye(3), torch.eye(3))
    tensor(0.9048)
    """

    #: What `Distributed` may gather as keys while the anchors stay where they are.
    candidate_arguments: ClassVar[tuple[str, ...]] = ("z1", "z2")

    def __init__(
        self,
        temperature: float | Temperature = 0.5,
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
        weight: Tensor | None = None,
    ) -> Tensor:
        return nt_xent(
            z1,
            z2,
            keys=keys,
            ids=ids,
            key_ids=key_ids,
            weight=weight,
            temperature=self.temperature_of(ids),
            similarity=self.similarity,
            symmetric=self.symmetric,
            **self.options,
        )
