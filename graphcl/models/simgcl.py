"""SimGCL: LightGCN whose two views differ by noise on the embeddings alone."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from graphcl.models.base_collaborative import CollaborativeConfig, PairBatch
from graphcl.models.lightgcn import LightGCN, LightGCNConfig
from graphcl.models.sgl import Negatives, batch_contrast
from graphcl.views.graphs import embedding_noise

__all__ = ["SimGCL", "SimGCLConfig"]


class SimGCLConfig(LightGCNConfig):
    """Settings of :class:`SimGCL`.

    Args:
        include_ego: layer 0 takes part; off, as in the authors' code.
        noise: length eps of the noise.
        contrast_weight: weight of the contrast.
        temperature: of the contrast.
        negatives: see :class:`graphcl.models.SGLConfig`.

    Example:
        >>> SimGCLConfig().include_ego
        False
    """

    include_ego: bool = False
    noise: NonNegativeFloat = 0.1
    contrast_weight: NonNegativeFloat = 0.5
    temperature: PositiveFloat = 0.2
    negatives: Negatives = "separate"


class SimGCL(LightGCN):
    r"""SimGCL: every propagated layer of a view gets a random push of fixed length into its own orthant.

    Paper: Yu et al., "Are Graph Augmentations Necessary? Simple Graph Contrastive Learning for Recommendation", 2022,
    https://arxiv.org/abs/2112.08679.

    .. math:: e \leftarrow e + \epsilon\, \mathrm{sign}(e) \odot \frac{u}{|u|}, \quad u \sim U[0, 1)^d

    Ranking uses a clean pass. Layer 0 is left out of the average in all three passes.

    Args:
        graph: training interactions.
        config: settings; the defaults when None.
        generator: source of the initial weights.

    Complexity: the three passes share the first layer and then travel side by side as one (U + I, 3 d) product.

    Example:
        >>> from graphcl.graphs import BipartiteGraph
        >>> model = SimGCL(BipartiteGraph.from_arrays([0, 0, 1], [0, 1, 1]), SimGCLConfig(hidden=4))
        >>> batch = PairBatch(torch.tensor([0]), torch.tensor([1]), torch.tensor([0]), None, total=1)
        >>> sorted(model.objective(batch)[1])
        ['bpr', 'contrast', 'regularization']
    """

    config_class: ClassVar[type[CollaborativeConfig]] = SimGCLConfig

    def perturb(self, layer: Tensor) -> Tensor:
        """One layer with fresh noise."""
        return embedding_noise(layer, self.config.noise, self.generator or torch.default_generator)

    def three_passes(self) -> tuple[Tensor, Tensor, Tensor]:
        """Stacked ``(U + I, d)`` embeddings of the clean pass and of two noisy ones."""
        operator = self.operator()
        clean = operator @ self.embedding
        layers = [self.embedding.repeat(1, 3), torch.cat([clean, self.perturb(clean), self.perturb(clean)], dim=1)]
        for _ in range(self.config.layers - 1):
            clean, first, second = (operator @ layers[-1]).chunk(3, dim=1)
            layers.append(torch.cat([clean, self.perturb(first), self.perturb(second)], dim=1))
        clean, first, second = self.convolution.combine(layers).chunk(3, dim=1)
        return clean, first, second

    def training_embeddings(self, batch: PairBatch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        if not self.config.contrast_weight:
            return *self(), {}
        clean, first, second = self.three_passes()
        contrast = batch_contrast(
            self.split(first),
            self.split(second),
            batch,
            temperature=self.config.temperature,
            negatives=self.config.negatives,
        )
        return *self.split(clean), {"contrast": self.config.contrast_weight * contrast}
