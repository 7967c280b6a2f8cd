"""SPACE-2 as a module: the projections into sub-spaces and the contrast in each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor, nn

from graphcl.functional.space2 import space2
from graphcl.losses._base import LossOptions, TemperatureLoss, checked
from graphcl.losses.temperature import Temperature

__all__ = ["SPACE2"]


class SPACE2(TemperatureLoss):
    r"""Soft-mask contrast in one projected sub-space an order; see `graphcl.functional.space2`.

    .. math:: h_n = \tanh(W_n z + b_n)

    Args:
        dim: d of the embeddings.
        subspace_dim: width of every sub-space.
        orders: length of the runs of ancestors compared in each sub-space.
        temperature: a number or a `Temperature`.
        generator: draws the initial weights.
        options: ``reduction``, ``memory_budget``, ``backend``.

    Shapes: ``forward(embeddings (N, dim), paths (N, H))``.

    >>> import torch
    >>> loss = SPACE2(4, 2, generator=torch.Generator().manual_seed(0))
    >>> loss(torch.eye(4), torch.tensor([[0, 1], [0, 1], [2, 3], [2, 4]])).shape
    torch.Size([])
    """

    def __init__(
        self,
        dim: int,
        subspace_dim: int = 64,
        *,
        orders: Sequence[int] = (1, 2, 3, 4),
        temperature: float | Temperature = 0.07,
        generator: torch.Generator | None = None,
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(temperature)
        self.orders = tuple(orders)
        bound = 1.0 / math.sqrt(dim)
        shape = (len(self.orders), subspace_dim, dim)
        self.weight = nn.Parameter(torch.empty(shape).uniform_(-bound, bound, generator=generator))
        self.bias = nn.Parameter(torch.empty(shape[:2]).uniform_(-bound, bound, generator=generator))
        self.options = checked(options)

    def forward(self, embeddings: Tensor, paths: Tensor) -> Tensor:
        subspaces = torch.tanh(torch.einsum("nd,osd->ons", embeddings, self.weight) + self.bias[:, None, :])
        return space2(list(subspaces), paths, orders=self.orders, temperature=self.temperature_of(None), **self.options)
