"""Multimodal mixup contrast, and its soft successor, as one module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Unpack

import torch
from torch import Tensor

from graphcl.functional.m3col import m3col_mix, soft_clip
from graphcl.losses._base import LossOptions, TemperatureLoss, checked
from graphcl.losses.layout import Layout, RowNumbers
from graphcl.losses.temperature import Temperature, as_temperature

__all__ = ["M3CoL"]


class M3CoL(TemperatureLoss):
    """Mixup contrast first, soft targets later; see `graphcl.functional.m3col_mix` and ``soft_clip``.

    Call `set_epoch` at the start of an epoch, ask `mixes` whether to mix the inputs (`graphcl.functional.draw_mixing`,
    ``mix_batch``), each modality in turn. The published weight beside a task loss is .1.

    Args:
        switch_epoch: first epoch of the soft targets, a third of the training; never by default.
        temperature: of the mixup contrast: a number or a `Temperature`.
        soft_temperature: of the soft targets.
        detach_targets: no gradient through the soft targets.
        options: ``reduction``, ``memory_budget``, ``backend``.

    Shapes: ``forward(first (N, d), second (N, d), permutation (N,), weights (N,), *, ids (N,))``; without a permutation
    or after the switch the soft targets are used.

    >>> import torch
    >>> loss = M3CoL(switch_epoch=3, temperature=1.0, soft_temperature=1.0)
    >>> loss.mixes, loss(torch.eye(2), torch.eye(2), torch.tensor([1, 0]), torch.tensor([0.5, 0.5]))
    (True, tensor(0.8133))
    >>> loss.set_epoch(3)
    >>> loss.mixes, loss(torch.eye(2), torch.eye(2))
    (False, tensor(0.5822))
    """

    argument_layout: ClassVar[Mapping[str, Layout]] = {"permutation": RowNumbers("first")}

    def __init__(
        self,
        switch_epoch: int | None = None,
        *,
        temperature: float | Temperature = 0.1,
        soft_temperature: float | Temperature = 0.125,
        detach_targets: bool = True,
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(temperature)
        self.soft_temperature = as_temperature(soft_temperature)
        self.switch_epoch = switch_epoch
        self.detach_targets = detach_targets
        self.options = checked(options)
        self.epoch: Tensor
        self.register_buffer("epoch", torch.zeros((), dtype=torch.int64))

    @property
    def mixes(self) -> bool:
        """Whether this epoch contrasts mixed samples."""
        return self.switch_epoch is None or int(self.epoch) < self.switch_epoch

    def set_epoch(self, epoch: int) -> None:
        """Tell which epoch (from 0) begins."""
        self.epoch.fill_(epoch)

    def forward(
        self,
        first: Tensor,
        second: Tensor,
        permutation: Tensor | None = None,
        weights: Tensor | None = None,
        *,
        ids: Tensor | None = None,
    ) -> Tensor:
        if (permutation is None) != (weights is None):
            raise ValueError("permutation and weights belong together, got only one of them")
        if permutation is None or weights is None or not self.mixes:
            return soft_clip(
                first,
                second,
                detach_targets=self.detach_targets,
                temperature=self.soft_temperature(),
                **self.options,
            )
        return m3col_mix(
            first, second, permutation, weights, ids=ids, temperature=self.temperature_of(ids), **self.options
        )
