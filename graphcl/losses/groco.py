"""GroCo as a module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Unpack

from torch import Tensor, nn

from graphcl.functional.groco import groco
from graphcl.losses._base import LossOptions, checked
from graphcl.losses.layout import VIEWS, Layout

__all__ = ["GroCo"]


class GroCo(nn.Module):
    """Contrast by differentiable sorting; see `graphcl.functional.groco`.

    Args:
        num_negatives: nearest negatives of each anchor.
        steepness: of the comparators.
        stop_gradient: whether gradients reach the anchors only.
        options: ``reduction``, ``memory_budget``, ``backend``.

    Shapes: ``forward(views V x (N, d), *, keys (M, d), ids (N,), key_ids (M,))``.

    >>> import torch
    >>> GroCo(num_negatives=1)([torch.eye(3), torch.eye(3)]).round(decimals=4)
    tensor(0.2877)
    """

    argument_layout: ClassVar[Mapping[str, Layout]] = {"views": VIEWS}

    def __init__(
        self,
        num_negatives: int = 10,
        *,
        steepness: float = 1.0,
        stop_gradient: bool = True,
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__()
        self.num_negatives = num_negatives
        self.steepness = steepness
        self.stop_gradient = stop_gradient
        self.options = checked(options)

    def forward(
        self,
        views: Sequence[Tensor] | Tensor,
        *,
        keys: Tensor | None = None,
        ids: Tensor | None = None,
        key_ids: Tensor | None = None,
    ) -> Tensor:
        return groco(
            views,
            num_negatives=self.num_negatives,
            steepness=self.steepness,
            stop_gradient=self.stop_gradient,
            keys=keys,
            ids=ids,
            key_ids=key_ids,
            **self.options,
        )
