"""ICNN as a module."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor, nn

from graphcl.functional.icnn import icnn
from graphcl.losses._base import EngineOptions
from graphcl.losses.protocol import LossOutput

__all__ = ["ICNN"]


class ICNN(nn.Module):
    """Score of nearest neighbours as a loss; see `graphcl.functional.icnn`.

    Args:
        k: neighbours.
        options: ``memory_budget``, ``backend``.

    Shapes: ``forward(embeddings (N, d), labels (N,), *, keys (M, d), key_labels (M,), return_components=False)``.

    >>> import torch
    >>> x = torch.tensor([[0.0], [0.1], [0.2], [5.0], [5.1], [5.2]])
    >>> ICNN(k=2)(x, torch.tensor([0, 0, 0, 1, 1, 1])).shape
    torch.Size([])
    """

    def __init__(self, k: int = 4, **options: Unpack[EngineOptions]) -> None:
        super().__init__()
        self.k = k
        self.options = options

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        *,
        keys: Tensor | None = None,
        key_labels: Tensor | None = None,
        return_components: bool = False,
    ) -> LossOutput:
        return icnn(
            embeddings,
            labels,
            keys=keys,
            key_labels=key_labels,
            k=self.k,
            return_components=return_components,
            **self.options,
        )

    def extra_repr(self) -> str:
        return f"k={self.k}"
