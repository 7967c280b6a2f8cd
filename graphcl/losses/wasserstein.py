"""The list-wise Wasserstein loss as a module."""

from __future__ import annotations

from torch import Tensor

from graphcl.functional.wasserstein import listwise_wasserstein
from graphcl.losses._base import TemperatureLoss
from graphcl.losses.temperature import Temperature

__all__ = ["ListwiseWasserstein"]


class ListwiseWasserstein(TemperatureLoss):
    """Transport cost between predicted and graded lists; see `graphcl.functional.listwise_wasserstein`.

    Args:
        temperature: a number or a `Temperature`.

    Shapes: ``forward(scores (b, n), relevance (b, n))``.

    >>> import torch
    >>> grades = torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.0, 3.0]])
    >>> ListwiseWasserstein()(grades, grades).abs() < 1e-6
    tensor(True)
    """

    def __init__(self, temperature: float | Temperature = 1.0) -> None:
        super().__init__(temperature)

    def forward(self, scores: Tensor, relevance: Tensor) -> Tensor:
        return listwise_wasserstein(scores, relevance, temperature=self.temperature_of(None))
