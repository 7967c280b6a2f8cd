"""The APE model of categorical events as a module that owns embeddings, pair weights and the constant."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphcl.functional.ape import (
    NoiseEvents,
    ape_nce,
    draw_noise_events,
    event_score,
    unigram_log_probabilities,
)
from graphcl.functional.reduction import Reduction, check_reduction
from graphcl.losses._key_queue import StepDraws

__all__ = ["APE"]


class APE(nn.Module):
    """Embeddings of typed entities fitted by noise-contrastive estimation; see `graphcl.functional.ape_nce`.

    Args:
        counts: one vector a type with the occurrences of its entities in the training events; gives the noise.
        dim: d.
        num_noise: draws for every event and type.
        power: of the occurrences in the noise distribution.
        positive_weights: keep the pair weights above 0.
        initial_scale: standard deviation of the initial embeddings.
        seed: of the noise.
        reduction: ``mean``, ``sum`` or ``none``.
        generator: draws the initial embeddings.

    Shapes: ``forward(events (B, m), noise=None)`` gives the loss, ``anomaly_score(events)`` ``(B,)``, high for unusual
    events.

    >>> import torch
    >>> model = APE([torch.tensor([3, 1]), torch.tensor([2, 2])], 4, generator=torch.Generator().manual_seed(0))
    >>> events = torch.tensor([[0, 1], [1, 0]])
    >>> bool(model(events).isfinite()), model.anomaly_score(events).shape
    (True, torch.Size([2]))
    """

    def __init__(
        self,
        counts: Sequence[Tensor],
        dim: int,
        *,
        num_noise: int = 3,
        power: float = 1.0,
        positive_weights: bool = True,
        initial_scale: float = 0.1,
        seed: int = 0,
        reduction: Reduction = "mean",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if len(counts) < 2 or dim < 1 or num_noise < 1:
            raise ValueError(
                f"an event needs at least 2 types, 1 dimension and 1 noise draw, got {len(counts)}, {dim}, {num_noise}"
            )
        check_reduction(reduction)
        self.num_types = len(counts)
        self.num_noise = num_noise
        self.positive_weights = positive_weights
        self.reduction: Reduction = reduction
        self.draws = StepDraws(seed)
        self.tables = nn.ParameterList(
            nn.Parameter(initial_scale * torch.randn(len(count), dim, generator=generator)) for count in counts
        )
        for position, count in enumerate(counts):
            self.register_buffer(f"log_probability_{position}", unigram_log_probabilities(count, power=power))
        # softplus of this is 1.
        start = 0.541324854612918 if positive_weights else 1.0
        self.raw_weights = nn.Parameter(torch.full((self.num_types * (self.num_types - 1) // 2,), start))
        self.constant = nn.Parameter(torch.zeros(()))

    @property
    def pair_weights(self) -> Tensor:
        """``(m (m - 1) / 2,)`` weight of each pair of types, in the order of `graphcl.functional.event_score`."""
        return functional.softplus(self.raw_weights) if self.positive_weights else self.raw_weights

    @property
    def log_probabilities(self) -> list[Tensor]:
        """Log probabilities of the noise, one vector a type."""
        return [self.get_buffer(f"log_probability_{position}") for position in range(self.num_types)]

    def forward(self, events: Tensor, noise: NoiseEvents | None = None) -> Tensor:
        generator = self.draws(events.device)
        if noise is None:
            draws = self.num_noise * self.num_types
            noise = draw_noise_events(events, self.log_probabilities, draws, generator=generator)
        return ape_nce(
            list(self.tables),
            events,
            noise,
            self.log_probabilities,
            pair_weights=self.pair_weights,
            constant=self.constant,
            reduction=self.reduction,
        )

    @torch.no_grad()
    def anomaly_score(self, events: Tensor) -> Tensor:
        """``(B,)`` minus the score of the events."""
        return -event_score(list(self.tables), events, self.pair_weights)
