"""Momentum contrast on transformed features as a module that owns its queue."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor

from graphcl.functional._draws import draw_beta, draw_permutation
from graphcl.functional.feature_transform import feature_transform
from graphcl.losses._base import LossOptions, checked
from graphcl.losses._key_queue import QueueLoss, StepDraws
from graphcl.losses.temperature import Temperature

__all__ = ["FeatureTransform"]


class FeatureTransform(QueueLoss):
    """Extrapolated positives and interpolated negatives; see `graphcl.functional.feature_transform`.

    In training mode the original keys of a batch enter the queue after its loss.

    Args:
        size: rows of the queue.
        dim: d.
        temperature: a number or a `Temperature`; with one for every sample, ``forward`` needs ``ids``.
        positive_concentration: of the Beta draws of the extrapolation.
        negative_concentration: of the Beta draws of the interpolation.
        per_dimension: a weight for every dimension of the interpolation instead of one.
        renormalize: bring the transformed rows back to unit length.
        seed: of the draws.
        options: ``reduction``, ``memory_budget``, ``backend``.

    Shapes: ``forward(queries (N, d), keys (N, d), *, ids (N,), weight (N,))``.

    >>> import torch
    >>> loss = FeatureTransform(8, 3, 1.0)
    >>> loss(torch.eye(3), torch.eye(3)), len(loss.queue)
    (tensor(0.), 3)
    """

    def __init__(
        self,
        size: int,
        dim: int,
        temperature: float | Temperature = 0.07,
        *,
        positive_concentration: float = 2.0,
        negative_concentration: float = 1.6,
        per_dimension: bool = False,
        renormalize: bool = False,
        seed: int = 0,
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(size, dim, temperature)
        self.positive_concentration = positive_concentration
        self.negative_concentration = negative_concentration
        self.per_dimension = per_dimension
        self.renormalize = renormalize
        self.draws = StepDraws(seed)
        self.options = checked(options)

    def forward(
        self, queries: Tensor, keys: Tensor, *, ids: Tensor | None = None, weight: Tensor | None = None
    ) -> Tensor:
        generator = self.draws(queries.device)
        queue = self.earlier_keys(queries)
        harder, mixed = self.positive_concentration, self.negative_concentration
        masks = (1, queries.shape[1]) if self.per_dimension else ()
        like = queries.detach()
        loss = feature_transform(
            queries,
            keys,
            queue,
            positive_weight=1.0
            + draw_beta(queries.shape[0], first=harder, second=harder, like=like, generator=generator),
            negative_weight=draw_beta(*masks, first=mixed, second=mixed, like=like, generator=generator),
            permutation=draw_permutation(queue.shape[0], device=queue.device, generator=generator),
            renormalize=self.renormalize,
            ids=ids,
            queue_ids=self.earlier("ids", ids),
            weight=weight,
            temperature=self.temperature_of(ids),
            **self.options,
        )
        self.remember(keys, ids)
        return loss
