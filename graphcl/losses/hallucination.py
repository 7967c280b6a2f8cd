"""Contrast with a generated second positive as a module that owns its queue."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor

from graphcl.functional.hallucination import hallucination
from graphcl.losses._base import LossOptions, checked
from graphcl.losses._key_queue import QueueLoss
from graphcl.losses.protocol import LossOutput
from graphcl.losses.temperature import Temperature

__all__ = ["Hallucination"]


class Hallucination(QueueLoss):
    """Contrast with the key and with a generated positive; see `graphcl.functional.hallucination`.

    In training mode the keys of a batch enter the queue after its loss. `graphcl.views.mixing.Hallucinator` makes the
    generated positives.

    Args:
        size: rows of the queue.
        dim: d.
        temperature: a number or a `Temperature`; with one for every sample, ``forward`` needs ``ids``.
        options: ``reduction``, ``memory_budget``, ``backend``.

    Shapes: ``forward(queries (N, d), keys (N, d), hallucinated (N, d), *, ids (N,), weight (N,),
    return_components=False)``.

    >>> import torch
    >>> Hallucination(8, 3)(torch.eye(3), torch.eye(3), torch.eye(3))
    tensor(0.)
    """

    def __init__(
        self, size: int, dim: int, temperature: float | Temperature = 0.1, **options: Unpack[LossOptions]
    ) -> None:
        super().__init__(size, dim, temperature)
        self.options = checked(options)

    def forward(
        self,
        queries: Tensor,
        keys: Tensor,
        hallucinated: Tensor,
        *,
        ids: Tensor | None = None,
        weight: Tensor | None = None,
        return_components: bool = False,
    ) -> LossOutput:
        output = hallucination(
            queries,
            keys,
            hallucinated,
            self.earlier_keys(queries),
            ids=ids,
            queue_ids=self.earlier("ids", ids),
            weight=weight,
            temperature=self.temperature_of(ids),
            return_components=return_components,
            **self.options,
        )
        self.remember(keys, ids)
        return output
