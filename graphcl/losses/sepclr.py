"""SepCLR as a module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from torch import Tensor, nn

from graphcl.functional.sepclr import sepclr
from graphcl.losses._base import EngineOptions
from graphcl.losses.protocol import LossOutput

__all__ = ["SepCLR"]


class SepCLR(nn.Module):
    """Common and salient embeddings of two groups; see `graphcl.functional.sepclr`.

    Args:
        temperature: tau.
        salient_weight: beta_s.
        background_weight: beta_r.
        entropy_weight: lambda.
        options: ``memory_budget``, ``backend``.

    Shapes: ``forward(common [(N, d_c)] * 2, salient [(N, d_s)] * 2, is_target (N,) bool, *, return_components=False)``.

    >>> import torch
    >>> c, s = torch.eye(2), torch.tensor([[1.0], [0.0]])
    >>> SepCLR(salient_weight=0.0, background_weight=0.0)([c, c], [s, s], torch.tensor([True, False]))
    tensor(-10.4456)
    """

    def __init__(
        self,
        temperature: float = 0.5,
        *,
        salient_weight: float = 1000.0,
        background_weight: float = 1000.0,
        entropy_weight: float = 10.0,
        **options: Unpack[EngineOptions],
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.salient_weight = salient_weight
        self.background_weight = background_weight
        self.entropy_weight = entropy_weight
        self.options = options

    def forward(
        self,
        common: Sequence[Tensor],
        salient: Sequence[Tensor],
        is_target: Tensor,
        *,
        return_components: bool = False,
    ) -> LossOutput:
        return sepclr(
            common,
            salient,
            is_target,
            temperature=self.temperature,
            salient_weight=self.salient_weight,
            background_weight=self.background_weight,
            entropy_weight=self.entropy_weight,
            return_components=return_components,
            **self.options,
        )

    def extra_repr(self) -> str:
        return (
            f"temperature={self.temperature}, salient_weight={self.salient_weight}, "
            f"background_weight={self.background_weight}, entropy_weight={self.entropy_weight}"
        )
