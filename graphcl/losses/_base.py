"""What the modules of pair objectives share: a temperature and the options of the engine."""

from __future__ import annotations

from typing import TypedDict

from torch import Tensor, nn

from graphcl.functional.reduction import Reduction, check_reduction
from graphcl.kernels import Backend
from graphcl.losses.temperature import Temperature, as_temperature


class EngineOptions(TypedDict, total=False):
    """Where and in how much memory the pairs are computed."""

    memory_budget: int
    backend: Backend


class LossOptions(EngineOptions, total=False):
    """Options of every objective that is a mean over anchors."""

    reduction: Reduction


def checked(options: LossOptions) -> LossOptions:
    """The options, after refusing an unknown reduction at construction."""
    check_reduction(options.get("reduction", "mean"))
    return options


class TemperatureLoss(nn.Module):
    """A loss that owns a temperature.

    Args:
        temperature: a number, or a `Temperature`.
    """

    def __init__(self, temperature: float | Temperature) -> None:
        super().__init__()
        self.temperature = as_temperature(temperature)

    def temperature_of(self, ids: Tensor | None) -> float | Tensor:
        """The temperature of the samples ``ids``, or the one of all."""
        value: float | Tensor = self.temperature(ids)
        return value
