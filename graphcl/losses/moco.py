"""Momentum contrast as a module that owns its queue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from torch import Tensor

from graphcl.functional.moco import moco
from graphcl.kernels import CandidateRule
from graphcl.losses._base import LossOptions, checked
from graphcl.losses._key_queue import QueueLoss
from graphcl.losses.temperature import Temperature

__all__ = ["MoCo"]


class MoCo(QueueLoss):
    """Contrast with a queue of keys; see `graphcl.functional.moco`.

    In training mode the keys of a batch enter the queue after its loss. Keys come from an `EMAEncoder`.

    Args:
        size: rows of the queue.
        dim: d.
        temperature: a number or a `Temperature`; with one for every sample, ``forward`` needs ``ids``.
        in_batch: the other keys of the batch are negatives too.
        detach_keys: the keys carry no gradient.
        options: ``reduction``, ``memory_budget``, ``backend``.

    Shapes: ``forward(queries (N, d), keys (N, d), *, ids (N,), groups (N,), rules, weight (N,))``. With ``groups``
    anchors only meet rows of the queue of their own group; ``rules`` apply to the rows of ``queue`` in its order.

    >>> import torch
    >>> loss = MoCo(8, 3, temperature=1.0)
    >>> loss(torch.eye(3), torch.eye(3))
    tensor(0.)
    >>> loss(torch.eye(3), torch.eye(3))
    tensor(1.0064)
    """

    def __init__(
        self,
        size: int,
        dim: int,
        temperature: float | Temperature = 0.07,
        *,
        in_batch: bool = False,
        detach_keys: bool = True,
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(size, dim, temperature)
        self.in_batch = in_batch
        self.detach_keys = detach_keys
        self.options = checked(options)

    def forward(
        self,
        queries: Tensor,
        keys: Tensor,
        *,
        ids: Tensor | None = None,
        groups: Tensor | None = None,
        rules: CandidateRule | Sequence[CandidateRule] = (),
        weight: Tensor | None = None,
    ) -> Tensor:
        loss = moco(
            queries,
            keys,
            self.earlier_keys(queries),
            in_batch=self.in_batch,
            detach_keys=self.detach_keys,
            ids=ids,
            queue_ids=self.earlier("ids", ids),
            groups=groups,
            queue_groups=self.earlier("groups", groups),
            rules=rules,
            weight=weight,
            temperature=self.temperature_of(ids),
            **self.options,
        )
        self.remember(keys, ids, groups)
        return loss
