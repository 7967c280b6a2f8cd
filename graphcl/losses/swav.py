"""SwAV as a module that owns its prototypes and queues."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor, nn

from graphcl.functional.swav import swav
from graphcl.losses._base import LossOptions, TemperatureLoss, checked
from graphcl.losses.state import FeatureQueue, Prototypes
from graphcl.losses.temperature import Temperature

__all__ = ["SwAV"]


class SwAV(TemperatureLoss):
    """Swapped prediction of cluster codes; see `graphcl.functional.swav`.

    Every call in training mode counts a step and pushes the code views into the queues. Call ``prototypes.normalize()``
    after an optimiser step to keep the stored prototypes short.

    Args:
        dim: d.
        num_prototypes: K.
        temperature: a number or a `Temperature`.
        epsilon: entropy of the codes.
        iterations: of Sinkhorn.
        code_views: how many views give codes.
        queue_size: rows kept of each code view, for batches smaller than K; 0 for none.
        queue_start: step from which the queues take part, once they are full.
        frozen_steps: first steps in which prototypes get no gradient.
        generator: draws the first prototypes.
        options: ``reduction``, ``memory_budget``, ``backend``.

    Shapes: ``forward(*views (N, d), weight (N,))``.

    >>> import torch
    >>> loss = SwAV(4, 8, generator=torch.Generator().manual_seed(0))
    >>> loss(torch.eye(4), torch.eye(4)).shape, int(loss.step)
    (torch.Size([]), 1)
    """

    def __init__(
        self,
        dim: int,
        num_prototypes: int = 3000,
        *,
        temperature: float | Temperature = 0.1,
        epsilon: float = 0.05,
        iterations: int = 3,
        code_views: int = 2,
        queue_size: int = 0,
        queue_start: int = 0,
        frozen_steps: int = 313,
        generator: torch.Generator | None = None,
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(temperature)
        self.prototypes = Prototypes(num_prototypes, dim, generator=generator)
        self.epsilon = epsilon
        self.iterations = iterations
        self.code_views = code_views
        self.queue_start = queue_start
        self.frozen_steps = frozen_steps
        self.options = checked(options)
        self.queues = nn.ModuleList(FeatureQueue(queue_size, dim) for _ in range(code_views if queue_size > 0 else 0))
        self.step: Tensor
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, *views: Tensor, weight: Tensor | None = None) -> Tensor:
        queues = [queue for queue in self.queues if isinstance(queue, FeatureQueue)]
        ready = bool(queues) and int(self.step) >= self.queue_start and all(len(q) == q.size for q in queues)
        prototypes = self.prototypes().to(views[0]) if views else self.prototypes()
        loss = swav(
            views,
            prototypes.detach() if int(self.step) < self.frozen_steps else prototypes,
            queues=[queue.rows.to(views[0]) for queue in queues] if ready else None,
            code_views=self.code_views,
            temperature=self.temperature_of(None),
            epsilon=self.epsilon,
            iterations=self.iterations,
            weight=weight,
            **self.options,
        )
        if self.training:
            self.step += 1
            for queue, view in zip(queues, views, strict=False):
                queue.push(view)
        return loss

    def extra_repr(self) -> str:
        return f"epsilon={self.epsilon}, iterations={self.iterations}, code_views={self.code_views}"
