"""Contrast of shuffled group whitenings as a module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Unpack

from torch import Tensor

from graphcl.functional._draws import draw_permutation
from graphcl.functional.whitening import shuffled_group_whitening
from graphcl.losses._base import LossOptions, TemperatureLoss, checked
from graphcl.losses._key_queue import StepDraws
from graphcl.losses.layout import SHARED, Layout
from graphcl.losses.temperature import Temperature

__all__ = ["ShuffledGroupWhitening"]


class ShuffledGroupWhitening(TemperatureLoss):
    """InfoNCE between three whitenings of a batch; see `graphcl.functional.shuffled_group_whitening`.

    Args:
        groups: G, which divides d; d / G must stay well below the batch size.
        temperature: a number or a `Temperature`; with one for every sample, ``forward`` needs ``ids``.
        stop_gradient: the whitening matrices are constants, as released.
        ridge: added to the covariance, relative to its mean variance.
        seed: of the shuffles.
        options: ``reduction``, ``memory_budget``, ``backend``.

    Shapes: ``forward(views, *, permutations, ids (N,))`` with one ``(N, d)`` or three, and three ``(d,)`` shuffles.

    >>> import torch
    >>> x = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    >>> bool(ShuffledGroupWhitening(2)(x) > 0)
    True
    """

    argument_layout: ClassVar[Mapping[str, Layout]] = {"permutations": SHARED}

    def __init__(
        self,
        groups: int,
        temperature: float | Temperature = 0.05,
        *,
        stop_gradient: bool = True,
        ridge: float = 1e-5,
        seed: int = 0,
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(temperature)
        self.groups = groups
        self.stop_gradient = stop_gradient
        self.ridge = ridge
        self.draws = StepDraws(seed)
        self.options = checked(options)

    def forward(
        self,
        views: Tensor | Sequence[Tensor],
        *,
        permutations: Sequence[Tensor] | None = None,
        ids: Tensor | None = None,
    ) -> Tensor:
        first = views if isinstance(views, Tensor) else views[0]
        generator = self.draws(first.device)
        if permutations is None:
            permutations = [
                draw_permutation(first.shape[1], device=first.device, generator=generator) for _ in range(3)
            ]
        return shuffled_group_whitening(
            views,
            self.groups,
            permutations,
            stop_gradient=self.stop_gradient,
            ridge=self.ridge,
            ids=ids,
            temperature=self.temperature_of(ids),
            **self.options,
        )
