"""Losses over very many labels as modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, Unpack

import torch
from torch import Tensor

from graphcl.functional.extreme_multilabel import decoupled_softmax, multi_label_softmax, soft_top_k
from graphcl.losses._base import LossOptions, TemperatureLoss, checked
from graphcl.losses.layout import SHARED, Layout, Pairs
from graphcl.losses.temperature import Temperature

__all__ = ["DecoupledSoftmax", "MultiLabelSoftmax", "SoftTopK"]


class MultiLabelSoftmax(TemperatureLoss):
    """Softmax over all labels; see `graphcl.functional.multi_label_softmax`.

    Args:
        temperature: a number or a `Temperature`.
        similarity: ``dot`` or ``cosine``.
        sample_positive: one drawn positive a query instead of all.
        options: ``reduction``, ``memory_budget``, ``backend``.

    Shapes: ``forward(queries (B, d), labels (C, d), positives (2, E) or compressed rows, *, generator)``.

    >>> import torch
    >>> MultiLabelSoftmax()(torch.zeros(1, 2), torch.zeros(4, 2), torch.tensor([[0], [2]]))
    tensor(1.3863)
    """

    argument_layout: ClassVar[Mapping[str, Layout]] = {"labels": SHARED, "positives": Pairs("queries", None)}

    def __init__(
        self,
        temperature: float | Temperature = 1.0,
        *,
        similarity: Literal["dot", "cosine"] = "dot",
        sample_positive: bool = False,
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(temperature)
        self.similarity: Literal["dot", "cosine"] = similarity
        self.sample_positive = sample_positive
        self.options = checked(options)

    def forward(
        self,
        queries: Tensor,
        labels: Tensor,
        positives: Tensor | tuple[Tensor, Tensor],
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        return multi_label_softmax(
            queries,
            labels,
            positives,
            temperature=self.temperature_of(None),
            similarity=self.similarity,
            sample_positive=self.sample_positive,
            generator=generator,
            **self.options,
        )


class DecoupledSoftmax(TemperatureLoss):
    """Every positive against the negatives alone; see `graphcl.functional.decoupled_softmax`.

    Args:
        temperature: a number or a `Temperature`.
        similarity: ``dot`` or ``cosine``.
        options: ``reduction``, ``memory_budget``, ``backend``.

    Shapes: ``forward(queries (B, d), labels (C, d), positives (2, E) or compressed rows)``.

    >>> import torch
    >>> DecoupledSoftmax()(torch.zeros(1, 2), torch.zeros(4, 2), torch.tensor([[0, 0], [0, 2]]))
    tensor(1.0986)
    """

    argument_layout: ClassVar[Mapping[str, Layout]] = {"labels": SHARED, "positives": Pairs("queries", None)}

    def __init__(
        self,
        temperature: float | Temperature = 1.0,
        *,
        similarity: Literal["dot", "cosine"] = "dot",
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(temperature)
        self.similarity: Literal["dot", "cosine"] = similarity
        self.options = checked(options)

    def forward(self, queries: Tensor, labels: Tensor, positives: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        return decoupled_softmax(
            queries,
            labels,
            positives,
            temperature=self.temperature_of(None),
            similarity=self.similarity,
            **self.options,
        )


class SoftTopK(TemperatureLoss):
    """Positives among the k labels of a smooth threshold; see `graphcl.functional.soft_top_k`.

    Args:
        k: how many labels are admitted, or ``positives`` for as many as the row has.
        alpha: steepness of the threshold.
        temperature: a number or a `Temperature`.
        similarity: ``dot`` or ``cosine``.
        options: ``reduction``, ``memory_budget``, ``backend``.

    Shapes: ``forward(queries (B, d), labels (C, d), positives (2, E) or compressed rows)``.

    >>> import torch
    >>> SoftTopK(k=1)(torch.zeros(1, 2), torch.zeros(4, 2), torch.tensor([[0], [2]]))
    tensor(1.3863)
    """

    argument_layout: ClassVar[Mapping[str, Layout]] = {"labels": SHARED, "positives": Pairs("queries", None)}

    def __init__(
        self,
        k: int | Literal["positives"] = 5,
        *,
        alpha: float = 2.0,
        temperature: float | Temperature = 1.0,
        similarity: Literal["dot", "cosine"] = "dot",
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(temperature)
        self.k: int | Literal["positives"] = k
        self.alpha = alpha
        self.similarity: Literal["dot", "cosine"] = similarity
        self.options = checked(options)

    def forward(self, queries: Tensor, labels: Tensor, positives: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        return soft_top_k(
            queries,
            labels,
            positives,
            k=self.k,
            alpha=self.alpha,
            temperature=self.temperature_of(None),
            similarity=self.similarity,
            **self.options,
        )
