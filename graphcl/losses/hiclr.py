"""HiCLR as a module that owns its queue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from torch import Tensor

from graphcl.functional.hiclr import hiclr
from graphcl.losses._base import LossOptions, TemperatureLoss, checked
from graphcl.losses.protocol import LossOutput
from graphcl.losses.state import FeatureQueue
from graphcl.losses.temperature import Temperature

__all__ = ["HiCLR"]


class HiCLR(TemperatureLoss):
    """Consistency from weak to strong views over a queue; see `graphcl.functional.hiclr`.

    Every call in training mode pushes the positives into the queue after the loss. Keep the key encoder in an
    `EMAEncoder` (momentum .999).

    Args:
        dim: d.
        queue_size: rows of the queue.
        temperature: a number or a `Temperature`.
        directional_weight: of every consistency term.
        options: ``reduction``, ``memory_budget``, ``backend``.

    Shapes: ``forward(views [(N, d)], positives (N, d), *, ids (N,), neighbors=0, weight (N,),
    return_components=False)``; with ids, rows of the same sample in the queue are left out.

    >>> import torch
    >>> loss = HiCLR(3, queue_size=8, temperature=1.0)
    >>> z = torch.eye(3)
    >>> float(loss([z, z], z)), len(loss.queue)
    (0.0, 3)
    """

    def __init__(
        self,
        dim: int,
        queue_size: int = 32768,
        *,
        temperature: float | Temperature = 0.07,
        directional_weight: float = 0.5,
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(temperature)
        self.directional_weight = directional_weight
        self.options = checked(options)
        self.queue = FeatureQueue(queue_size, dim, integers=("ids",))

    def forward(
        self,
        views: Sequence[Tensor],
        positives: Tensor,
        *,
        ids: Tensor | None = None,
        neighbors: int = 0,
        weight: Tensor | None = None,
        return_components: bool = False,
    ) -> LossOutput:
        output = hiclr(
            views,
            positives,
            self.queue.rows.to(positives),
            ids=ids,
            queue_ids=None if ids is None else self.queue.integers("ids").to(ids.device),
            neighbors=neighbors,
            directional_weight=self.directional_weight,
            temperature=self.temperature_of(None),
            weight=weight,
            return_components=return_components,
            **self.options,
        )
        if self.training:
            # Without ids every row gets an id that no sample has.
            own = ids if ids is not None else positives.new_full(positives.shape[:1], -1).long()
            self.queue.push(positives, ids=own)
        return output

    def extra_repr(self) -> str:
        return f"directional_weight={self.directional_weight}"
