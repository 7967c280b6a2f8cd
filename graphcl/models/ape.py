"""APE: which entities go together in events, learned from what happened against what might have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from graphcl.functional.ape import (
    NoiseEvents,
    ape_nce,
    draw_noise_events,
    event_score,
    unigram_log_probabilities,
)
from graphcl.losses import MECO
from graphcl.models.settings import ModelConfig

__all__ = ["APE", "APEConfig", "EventBatch"]

# softplus of this is 1.
_START = 0.541324854612918


@dataclass(frozen=True)
class EventBatch:
    """One training step.

    Args:
        events: ``(B, m)`` codes of the training entities.
        total: the number of events of the step, shared out among the processes.
    """

    events: Tensor
    total: float

    def to(self, device: torch.device | str) -> EventBatch:
        """The same batch on another device."""
        return replace(self, events=self.events.to(device))


class APEConfig(ModelConfig):
    """Settings of :class:`APE`.

    Args:
        dim: width of the embeddings; groups of entities that go together need about a dimension each.
        objective: ``nce``, noise-contrastive estimation with one entity replaced (the paper), or ``compositional``,
            maximum likelihood with a moving estimate of the partition function, over noise of independent entities.
        noise_density: what the noise correction takes an event's probability under the noise for: ``independent``, the
            product of the frequencies of its entities, so that the score measures how much more often they meet than
            they would by chance; or ``entity``, the frequency of the replaced entity alone (the paper's correction).
        num_noise: noise events for every event and type.
        power: of the frequencies in the noise.
        positive_weights: keep the weights of the pairs of types above 0.
        gamma: rate of the moving partition function of ``compositional``.
        initial_scale: standard deviation of the initial embeddings.

    Example:
        >>> APEConfig(dim=16).objective
        'nce'
    """

    dim: PositiveInt = 128
    objective: Literal["nce", "compositional"] = "nce"
    noise_density: Literal["independent", "entity"] = "independent"
    num_noise: PositiveInt = 1
    power: NonNegativeFloat = 1.0
    positive_weights: bool = True
    gamma: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    initial_scale: PositiveFloat = 0.1


class APE(nn.Module):
    r"""Compatibility of the entities of an event: weighted inner products of their embeddings, pair by pair.

    Paper: Ting Chen, Lu-An Tang, Yizhou Sun, Zhengzhang Chen, Kai Zhang, "Entity Embedding-based Anomaly Detection for
    Heterogeneous Categorical Events", 2016, https://arxiv.org/abs/1608.07502; the compositional objective is that of
    "Learning Unnormalized Statistical Models via Compositional Optimization", 2023, see `graphcl.functional.meco`.

    .. math:: S(e) = \sum_{i < j} w_{ij} \langle v_{e_i}, v_{e_j} \rangle, \qquad \text{anomaly}(e) = -S(e)

    Deviation: by default the noise correction counts all entities (``noise_density="independent"``); under the paper's
    (``entity``) the score also has to hold how frequent entities are, and finds fewer anomalies at equal training.

    An entity that training has not seen has no embedding: it is compatible with nothing and speaks against nothing, so
    its pairs count 0. An event is thus the more suspicious the fewer of its entities are known to belong together.

    Args:
        counts: for each of the m types ``(A_i,)`` how often its entities occur in training.
        config: the defaults when None.
        generator: draws the initial embeddings.

    Raises:
        ValueError: fewer than two types, or a type without entities.

    Complexity: O(B m (m + k) d) time and O(B m (1 + k) d) memory a step with k noise events a type.

    Example:
        >>> model = APE([torch.tensor([3, 1]), torch.tensor([2, 2])], generator=torch.Generator().manual_seed(0))
        >>> model(torch.tensor([[0, 1], [-1, 1]])).shape
        torch.Size([2])
    """

    config_class: ClassVar[type[APEConfig]] = APEConfig
    recommended: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        counts: Sequence[Tensor],
        config: APEConfig | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if len(counts) < 2 or any(count.numel() == 0 for count in counts):
            raise ValueError("counts must hold at least 2 types with at least 1 entity each")
        self.config = config = config or self.config_class()
        self.num_types = len(counts)
        self.tables = nn.ParameterList(
            nn.Parameter(config.initial_scale * torch.randn(count.numel(), config.dim, generator=generator))
            for count in counts
        )
        for position, count in enumerate(counts):
            log_probability = unigram_log_probabilities(count, power=config.power)
            self.register_buffer(f"log_probability_{position}", log_probability)
        pairs = self.num_types * (self.num_types - 1) // 2
        self.raw_weights = nn.Parameter(torch.full((pairs,), _START if config.positive_weights else 1.0))
        self.constant = nn.Parameter(torch.zeros(()))
        if config.noise_density == "entity":
            # A score of 0 then starts even with the noise, instead of far above it.
            level = sum(float((log.exp() * log.clamp_min(-1e9)).sum()) for log in self.log_probabilities)
            nn.init.constant_(self.constant, level / self.num_types)
        self.partition = MECO(config.gamma)

    @property
    def log_probabilities(self) -> list[Tensor]:
        """Log frequencies of the entities in training (tempered by ``power``), one vector a type."""
        return [self.get_buffer(f"log_probability_{position}") for position in range(self.num_types)]

    @property
    def pair_weights(self) -> Tensor:
        """``(m (m - 1) / 2,)`` weights w in the order (0, 1), (0, 2), ..., (1, 2), ..."""
        return functional.softplus(self.raw_weights) if self.config.positive_weights else self.raw_weights

    def forward(self, events: Tensor) -> Tensor:
        """``(B,)`` compatibility S of events ``(B, m)``; -1 stands for an entity that training has not seen."""
        tables = [torch.cat([table, table.new_zeros(1, table.shape[1])]) for table in self.tables]
        known = torch.stack(
            [torch.where(events[:, i] < 0, table.shape[0] - 1, events[:, i]) for i, table in enumerate(tables)], dim=1
        )
        return event_score(tables, known, self.pair_weights)

    @torch.no_grad()
    def anomaly_score(self, events: Tensor) -> Tensor:
        """``(B,)`` minus the compatibility: high for unusual combinations."""
        return -self.forward(events)

    def objective(self, batch: EventBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a step, with noise from torch's default generator.

        Args:
            batch: training events.

        Returns:
            The scalar and, as its only part, the mean compatibility of the data.
        """
        tables, weights = list(self.tables), self.pair_weights
        if self.config.objective == "nce":
            noise = draw_noise_events(batch.events, self.log_probabilities, self.config.num_noise * self.num_types)
            loss = self.contrast(batch.events, noise)
            score = event_score(tables, batch.events, weights).detach()
        else:
            score = event_score(tables, batch.events, weights)
            drawn = event_score(tables, self._independent_events(batch.events), weights)
            # The model is exp(S) times the product of the frequencies, from which the noise is drawn: they cancel.
            loss = self.partition(score, drawn, torch.zeros_like(drawn))
        share = batch.events.shape[0] / batch.total
        return loss * share, {"compatibility": score.detach().mean()}

    def contrast(self, events: Tensor, noise: NoiseEvents) -> Tensor:
        """`graphcl.functional.ape_nce` of events against given noise, under the model's correction."""
        log_probabilities = self.log_probabilities
        if self.config.noise_density == "independent":
            # The product of all frequencies is part of the score, which then is relative to it.
            log_probabilities = [torch.zeros_like(log) for log in log_probabilities]
        return ape_nce(
            list(self.tables),
            events,
            noise,
            log_probabilities,
            pair_weights=self.pair_weights,
            constant=self.constant,
        )

    def _independent_events(self, events: Tensor) -> Tensor:
        """``(B k, m)`` events whose entities follow their frequencies, each type by itself."""
        size = events.shape[0] * self.config.num_noise
        columns = []
        for log in self.log_probabilities:
            total = log.double().exp().cumsum(0)
            uniform = torch.rand(size, dtype=torch.float64, device=events.device) * total[-1]
            last = int(torch.isfinite(log).nonzero()[-1])
            columns.append(torch.searchsorted(total, uniform, right=True).clamp(max=last))
        return torch.stack(columns, dim=1)
