"""What the modules share that contrast queries with a queue of keys, and those that draw random numbers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphcl.losses._base import TemperatureLoss
from graphcl.losses.state import FeatureQueue
from graphcl.losses.temperature import Temperature


class QueueLoss(TemperatureLoss):
    """A loss that owns a temperature and a queue of the keys of earlier batches.

    Args:
        size: rows of the queue.
        dim: d.
        temperature: a number, or a `Temperature`.
    """

    def __init__(self, size: int, dim: int, temperature: float | Temperature) -> None:
        super().__init__(temperature)
        self.queue = FeatureQueue(size, dim, integers=("ids", "groups"))

    def earlier_keys(self, like: Tensor) -> Tensor:
        """``(Q, d)`` rows of the queue, in the type of the queries."""
        return self.queue.rows.to(like)

    def earlier(self, name: str, given: Tensor | None) -> Tensor | None:
        """Integers of the rows of the queue, where the batch has them too."""
        return None if given is None else self.queue.integers(name).to(given)

    def remember(self, keys: Tensor, ids: Tensor | None = None, groups: Tensor | None = None) -> None:
        """Push the keys of this batch, in training mode; integers that are not given are -1."""
        if not self.training:
            return
        unknown = torch.full(keys.shape[:1], -1, dtype=torch.int64, device=keys.device)
        self.queue.push(keys, ids=unknown if ids is None else ids, groups=unknown if groups is None else groups)


class StepDraws(nn.Module):
    """Generators that depend on a seed and on the number of steps so far only, so that a resumed run draws the same.

    Args:
        seed: of all draws.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        if not 0 <= seed < 2**31:
            raise ValueError(f"seed must lie in 0 .. {2**31 - 1}, got {seed}")
        self.seed = seed
        self.step: Tensor
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, device: torch.device) -> torch.Generator:
        """The generator of this step; training mode counts on."""
        generator = torch.Generator(device).manual_seed((self.seed << 32) + int(self.step))
        if self.training:
            self.step += 1
        return generator

    def extra_repr(self) -> str:
        return f"seed={self.seed}"
