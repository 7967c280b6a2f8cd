"""Propagation consistency as a module that owns the transform of the values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Unpack

from torch import Tensor, nn

from graphcl.functional.propagation import propagation_consistency
from graphcl.losses._base import LossOptions, checked
from graphcl.losses.layout import Layout, Pairs

__all__ = ["PropagationConsistency"]


class PropagationConsistency(nn.Module):
    """Embeddings smoothed over similar neighbours agree with the targets of the other view, averaged both ways.

    See `graphcl.functional.propagation_consistency`. Take the targets from an `EMAEncoder`.

    Args:
        dim: d.
        gamma: sharpness.
        transform: True gives the values a linear layer of their own; False propagates the embeddings.
        options: ``reduction``, ``memory_budget``, ``backend``.

    Shapes: ``forward(x1 (N, d), x2 (M, d), k1 (N, d), k2 (M, d), edges1=None, edges2=None, *, pairs (2, P))``: edges of
    each view, ``pairs`` the matched rows of view 1 and view 2 (row i and row i by default).

    >>> import torch
    >>> loss = PropagationConsistency(2, transform=False)
    >>> x = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    >>> loss(x, x, x, x, torch.tensor([[0], [1]]), torch.tensor([[0], [1]]))
    tensor(-1.9675)
    """

    argument_layout: ClassVar[Mapping[str, Layout]] = {
        "edges1": Pairs("x1", "x1"),
        "edges2": Pairs("x2", "x2"),
        "pairs": Pairs("x1", "x2"),
    }

    def __init__(self, dim: int, *, gamma: float = 2.0, transform: bool = True, **options: Unpack[LossOptions]) -> None:
        super().__init__()
        self.gamma = gamma
        self.transform: nn.Module = nn.Linear(dim, dim) if transform else nn.Identity()
        self.options = checked(options)

    def forward(
        self,
        x1: Tensor,
        x2: Tensor,
        k1: Tensor,
        k2: Tensor,
        edges1: Tensor | tuple[Tensor, Tensor] | None = None,
        edges2: Tensor | tuple[Tensor, Tensor] | None = None,
        *,
        pairs: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        def one_way(
            x: Tensor, target: Tensor, edges: Tensor | tuple[Tensor, Tensor] | None, matched: Tensor | None
        ) -> Tensor:
            values = self.transform(x)
            return propagation_consistency(
                x, target, edges, values=values, pairs=matched, gamma=self.gamma, weight=weight, **self.options
            )

        backwards = None if pairs is None else pairs.flip(0)
        return 0.5 * (one_way(x1, k2, edges1, pairs) + one_way(x2, k1, edges2, backwards))

    def extra_repr(self) -> str:
        return f"gamma={self.gamma}"
