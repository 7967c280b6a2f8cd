"""XSimGCL: one noisy pass for ranking and contrast alike."""

from __future__ import annotations

from typing import ClassVar

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from graphcl.models.base_collaborative import CollaborativeConfig, PairBatch
from graphcl.models.sgl import batch_contrast
from graphcl.models.simgcl import SimGCL, SimGCLConfig

__all__ = ["XSimGCL", "XSimGCLConfig"]


class XSimGCLConfig(SimGCLConfig):
    """Settings of :class:`XSimGCL`.

    Args:
        noise: length eps of the noise.
        contrast_weight: weight of the contrast.
        temperature: of the contrast.
        contrast_layer: l*, from 1: the layer that is contrasted with the average.

    Example:
        >>> XSimGCLConfig(contrast_layer=2).noise
        0.2
    """

    noise: NonNegativeFloat = 0.2
    contrast_weight: NonNegativeFloat = 0.2
    temperature: PositiveFloat = 0.15
    contrast_layer: PositiveInt = 1

    @model_validator(mode="after")
    def _layer_exists(self) -> XSimGCLConfig:
        if self.contrast_layer > self.layers:
            raise ValueError(f"contrast_layer must be at most layers ({self.layers}), got {self.contrast_layer}")
        return self


class XSimGCL(SimGCL):
    """XSimGCL: the average of one noisy pass is ranked, and contrasted with one of its own layers.

    Paper: Yu et al., "XSimGCL: Towards Extremely Simple Graph Contrastive Learning for Recommendation", 2023,
    https://arxiv.org/abs/2209.02544. A clean pass is used for recommendation only.

    Args:
        graph: training interactions.
        config: settings; the defaults when None.
        generator: source of the initial weights.

    Complexity: one propagation a step, as LightGCN.

    Example:
        >>> from graphcl.graphs import BipartiteGraph
        >>> model = XSimGCL(BipartiteGraph.from_arrays([0, 0, 1], [0, 1, 1]), XSimGCLConfig(hidden=4))
        >>> [view.shape for view in model.noisy_pass()]
        [torch.Size([4, 4]), torch.Size([4, 4])]
    """

    config_class: ClassVar[type[CollaborativeConfig]] = XSimGCLConfig

    def noisy_pass(self) -> tuple[Tensor, Tensor]:
        """Stacked ``(U + I, d)`` average of a noisy pass, and its layer l*."""
        layers = self.convolution.layers(self.embedding, self.operator(), self.perturb)
        return self.convolution.combine(layers), layers[self.config.contrast_layer]

    def training_embeddings(self, batch: PairBatch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        average, layer = self.noisy_pass()
        users, items = self.split(average)
        if not self.config.contrast_weight:
            return users, items, {}
        contrast = batch_contrast(
            (users, items),
            self.split(layer),
            batch,
            temperature=self.config.temperature,
            negatives=self.config.negatives,
        )
        return users, items, {"contrast": self.config.contrast_weight * contrast}
