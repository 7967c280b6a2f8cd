"""BGRL: one view predicts what a slow copy of the encoder says of the other; no negatives."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from graphcl.kernels import normalize_rows
from graphcl.models.base_embedding import Preset
from graphcl.models.homogeneous import (
    GraphBatch,
    GraphContrastConfig,
    GraphInputs,
    HomogeneousModel,
    make_encoder,
    view_of,
)
from graphcl.models.settings import ModelConfig, Rate, Share
from graphcl.nn.encoders import Activation, initialize_linear
from graphcl.nn.linear import Linear

__all__ = ["BGRL", "BGRLConfig", "bootstrap_distance"]


class BGRLConfig(GraphContrastConfig):
    """Settings of :class:`BGRL`: those of `GraphContrastConfig` and these.

    Args:
        predictor: width of the hidden layer of the predictor.
        momentum: part of the target that stays in an epoch's step.
        edge_drop: rates of both views.
        feature_mask: rates of both views.

    Example:
        >>> BGRLConfig().momentum
        0.99
    """

    hidden: PositiveInt = 256
    widths: tuple[PositiveInt, ...] | None = (512, 256)
    activation: Activation = "prelu"
    predictor: PositiveInt = 512
    momentum: Share = 0.99
    edge_drop: tuple[Rate, Rate] = (0.3, 0.2)
    feature_mask: tuple[Rate, Rate] = (0.3, 0.4)


def bootstrap_distance(predicted: Tensor, target: Tensor) -> Tensor:
    r"""One minus the mean cosine of rows with their targets; no gradient into the targets.

    S. Thakoor et al., "Large-Scale Representation Learning on Graphs via Bootstrapping", 2022,
    https://arxiv.org/abs/2102.06514.

    .. math:: 1 - \frac{1}{N} \sum_i \cos(p_i, t_i)

    Args:
        predicted: ``(N, d)``.
        target: ``(N, d)``.

    Returns:
        A scalar in [0, 2].

    Raises:
        ValueError: shapes that differ, or no row.

    Complexity: O(N d).

    Example:
        >>> bootstrap_distance(torch.eye(2), torch.eye(2))
        tensor(0.)
    """
    if predicted.shape != target.shape or predicted.dim() != 2 or predicted.shape[0] == 0:
        raise ValueError(
            f"predicted and target must have one shape (N, d) with at least one row, "
            f"got {tuple(predicted.shape)} and {tuple(target.shape)}"
        )
    return 1 - (normalize_rows(predicted) * normalize_rows(target.detach())).sum(dim=1).mean()


class BGRL(HomogeneousModel):
    r"""BGRL: the online encoder with a predictor follows a target that is its own moving average.

    Paper: S. Thakoor et al., "Large-Scale Representation Learning on Graphs via Bootstrapping", 2022,
    https://arxiv.org/abs/2102.06514.

    .. math:: L = 2 - \frac{1}{N} \sum_i \cos(p^1_i, t^2_i) - \frac{1}{N} \sum_i \cos(p^2_i, t^1_i)

    see `bootstrap_distance`. The target moves at the start of an epoch, towards the weights that the last epoch left.
    Deviation: Adam at a constant rate for fewer epochs; the authors warm up and anneal over 10000.

    Args:
        inputs: of `BGRL.prepare`.
        config: settings; the defaults when None.
        generator: source of the initial weights; torch's own when None.

    Complexity: four times the encoder, O(N d).

    Example:
        >>> from torch_geometric.data import Data
        >>> graph = Data(x=torch.eye(4), edge_index=torch.tensor([[0, 1, 2], [1, 2, 3]]))
        >>> config = BGRLConfig(widths=(8, 4))
        >>> inputs = BGRL.prepare(graph, config)
        >>> model = BGRL.from_inputs(inputs, config)
        >>> model.eval().embed(inputs.full()).shape
        torch.Size([4, 4])
    """

    config_class: ClassVar[type[ModelConfig]] = BGRLConfig
    presets: ClassVar[Mapping[str, Preset]] = {"default": Preset(5e-4, 1000, weight_decay=1e-5, stop="never")}

    def __init__(
        self, inputs: GraphInputs, config: BGRLConfig | None = None, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.config = config = config or BGRLConfig()
        self.encoder = make_encoder(inputs, config, generator)
        width = config.sizes[-1]
        self.predictor = nn.Sequential(Linear(width, config.predictor), nn.PReLU(), Linear(config.predictor, width))
        if generator is not None:
            initialize_linear(self.predictor, generator)
        self.target = copy.deepcopy(self.encoder).requires_grad_(False)

    @torch.no_grad()
    def on_epoch_start(self, epoch: int, generator: torch.Generator | None = None) -> None:
        """Move the target towards the encoder."""
        if epoch > 0:
            for slow, fast in zip(self.target.parameters(), self.encoder.parameters(), strict=True):
                slow.lerp_(fast, 1 - self.config.momentum)

    def objective(self, batch: GraphBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and its one part, ``bootstrap``. Views follow torch's default generator."""
        config, count = self.config, batch.nodes.shape[0]
        predicted, targets = [], []
        for edges, features in zip(config.edge_drop, config.feature_mask, strict=True):
            view = view_of(batch, edges, features)
            graph = self.encoder.operator(view.edge_index, view.x)
            predicted.append(self.predictor(self.encoder(view.x, graph)[:count]))
            with torch.no_grad():
                targets.append(self.target(view.x, graph)[:count])
        loss = bootstrap_distance(predicted[0], targets[1]) + bootstrap_distance(predicted[1], targets[0])
        return loss, {"bootstrap": loss.detach()}

    def embed(self, batch: GraphBatch) -> Tensor:
        """(B, d) embeddings of ``batch.nodes``; call it in evaluation mode."""
        z: Tensor = self.encoder(batch.x, batch.edge_index)
        return z[: batch.nodes.shape[0]]
