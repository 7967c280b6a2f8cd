"""MoCHi as a module that owns its queue."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor

from graphcl.functional.mochi import HardMixtures, draw_hard_mixtures, mochi
from graphcl.functional.moco import moco
from graphcl.losses._base import LossOptions, checked
from graphcl.losses._key_queue import QueueLoss, StepDraws
from graphcl.losses.temperature import Temperature

__all__ = ["MoCHi"]


class MoCHi(QueueLoss):
    """Momentum contrast with mixed hard negatives; see `graphcl.functional.mochi`.

    In training mode the keys of a batch enter the queue after its loss.

    Args:
        size: rows of the queue.
        dim: d.
        temperature: a number or a `Temperature`; with one for every sample, ``forward`` needs ``ids``.
        num_hard: hard negatives of a query that are mixed.
        num_pair_mixtures: mixtures of two negatives.
        num_query_mixtures: mixtures of the query with a negative.
        warmup_steps: so many training steps pass without mixtures.
        seed: of the draws.
        options: ``reduction``, ``memory_budget``, ``backend``.

    Shapes: ``forward(queries (N, d), keys (N, d), *, ids (N,), weight (N,), mixtures)``.

    >>> import torch
    >>> loss = MoCHi(8, 3, 1.0, num_hard=2, num_pair_mixtures=2, num_query_mixtures=2)
    >>> _ = loss(torch.eye(3), torch.eye(3))
    >>> bool(loss(torch.eye(3), torch.eye(3)) > 1.0064)
    True
    """

    def __init__(
        self,
        size: int,
        dim: int,
        temperature: float | Temperature = 0.2,
        *,
        num_hard: int = 1024,
        num_pair_mixtures: int = 1024,
        num_query_mixtures: int = 128,
        warmup_steps: int = 0,
        seed: int = 0,
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(size, dim, temperature)
        self.num_hard = num_hard
        self.num_pair_mixtures = num_pair_mixtures
        self.num_query_mixtures = num_query_mixtures
        self.warmup_steps = warmup_steps
        self.draws = StepDraws(seed)
        self.options = checked(options)

    def forward(
        self,
        queries: Tensor,
        keys: Tensor,
        *,
        ids: Tensor | None = None,
        weight: Tensor | None = None,
        mixtures: HardMixtures | None = None,
    ) -> Tensor:
        warm = int(self.draws.step) >= self.warmup_steps
        generator = self.draws(queries.device)
        queue, queue_ids = self.earlier_keys(queries), self.earlier("ids", ids)
        temperature = self.temperature_of(ids)
        if not warm:
            loss = moco(
                queries,
                keys,
                queue,
                ids=ids,
                queue_ids=queue_ids,
                weight=weight,
                temperature=temperature,
                **self.options,
            )
        else:
            drawn = mixtures or draw_hard_mixtures(
                queries, self.num_hard, self.num_pair_mixtures, self.num_query_mixtures, generator=generator
            )
            loss = mochi(
                queries,
                keys,
                queue,
                num_hard=self.num_hard,
                mixtures=drawn,
                ids=ids,
                queue_ids=queue_ids,
                weight=weight,
                temperature=temperature,
                **self.options,
            )
        self.remember(keys, ids)
        return loss
