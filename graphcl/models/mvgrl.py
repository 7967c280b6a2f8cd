"""MVGRL: the graph and its diffusion, nodes of one view against the summary of the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from graphcl.graphs.diffusion import ppr_topk
from graphcl.models.base_embedding import Preset
from graphcl.models.dgi import summary_contrast
from graphcl.models.homogeneous import (
    GraphBatch,
    GraphContrastConfig,
    GraphInputs,
    HomogeneousModel,
    make_encoder,
    rows_of_features,
)
from graphcl.models.settings import ModelConfig
from graphcl.nn.encoders import Activation, Features, initialize_linear
from graphcl.nn.linear import Linear

__all__ = ["MVGRL", "MVGRLConfig"]


class MVGRLConfig(GraphContrastConfig):
    """Settings of :class:`MVGRL`: those of `GraphContrastConfig` and these.

    Args:
        restart: probability alpha of the personalised PageRank.
        diffusion_k: entries a row that the diffusion keeps.

    Example:
        >>> MVGRLConfig().restart
        0.2
    """

    layers: PositiveInt = 1
    activation: Activation = "prelu"
    restart: Annotated[float, Field(gt=0.0, le=1.0)] = 0.2
    diffusion_k: PositiveInt = 128


class MVGRL(HomogeneousModel):
    r"""MVGRL: an encoder a view, adjacency and personalised PageRank; each view's summary scores the other's nodes.

    Paper: K. Hassani, A. H. Khasahmadi, "Contrastive Multi-View Representation Learning on Graphs", 2020,
    https://arxiv.org/abs/2006.05582.

    .. math:: L = \tfrac12 \bigl(L_{DGI}(H^1, g^2) + L_{DGI}(H^2, g^1)\bigr), \quad z = h^1 + h^2

    with g = W sigmoid(mean of a view's nodes), corrupted nodes by one shuffle of the features for both views; see
    `graphcl.models.dgi.summary_contrast`. Deviation: the diffusion keeps the ``diffusion_k`` largest entries of each
    row (`graphcl.graphs.ppr_topk`), so memory grows with N and not with its square; the whole graph is one step
    instead of samples of 2000 nodes.

    Args:
        inputs: of `MVGRL.prepare`.
        config: settings; the defaults when None.
        generator: source of the initial weights; torch's own when None.

    Complexity: four encodings; O(N diffusion_k d) for the diffusion.

    Example:
        >>> from torch_geometric.data import Data
        >>> graph = Data(x=torch.eye(4), edge_index=torch.tensor([[0, 1, 2], [1, 2, 3]]))
        >>> config = MVGRLConfig(hidden=8)
        >>> inputs = MVGRL.prepare(graph, config)
        >>> model = MVGRL.from_inputs(inputs, config)
        >>> model.eval().embed(inputs.full()).shape
        torch.Size([4, 8])
    """

    config_class: ClassVar[type[ModelConfig]] = MVGRLConfig
    presets: ClassVar[Mapping[str, Preset]] = {
        "default": Preset(1e-3, 3000, patience=20, keep="best"),
        # The authors leave Cora's features as they are, 0 and 1.
        "cora": Preset(1e-3, 3000, {"normalize_features": "none"}, patience=20, keep="best"),
    }

    def __init__(
        self, inputs: GraphInputs, config: MVGRLConfig | None = None, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.config = config = config or MVGRLConfig()
        self.encoder = make_encoder(inputs, config, generator)
        self.diffusion_encoder = make_encoder(inputs, config, generator)
        self.bilinear = Linear(config.sizes[-1], config.sizes[-1], bias=False)
        if generator is not None:
            initialize_linear(self.bilinear, generator)

    @classmethod
    def prepare(cls, graph: Any, config: Any, *, generator: torch.Generator | None = None) -> GraphInputs:
        """Features, adjacency and diffusion of a PyG ``Data``.

        Raises:
            InputError: no features, or features that are no finite numbers.
        """
        inputs = super().prepare(graph, config, generator=generator)
        diffusion = ppr_topk(inputs.matrix, config.diffusion_k, config.restart, self_loops=1.0)
        return replace(inputs, diffusion=diffusion.to(torch.get_default_dtype()))

    def encode(self, batch: GraphBatch, *features: Features) -> list[tuple[Tensor, Tensor]]:
        """(B, d) rows of ``batch.nodes`` in both views, for each of the features of all nodes that are looked at."""
        count = batch.nodes.shape[0]
        graph = self.encoder.operator(batch.edge_index, batch.x)
        diffusion = graph if batch.diffusion is None else batch.diffusion
        return [(self.encoder(x, graph)[:count], self.diffusion_encoder(x, diffusion)[:count]) for x in features]

    def objective(self, batch: GraphBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and its one part, ``contrast``. The shuffle follows torch's default generator."""
        shuffled = rows_of_features(batch.x, torch.randperm(batch.x.shape[0]).to(batch.x.device))
        (first, second), (first_corrupted, second_corrupted) = self.encode(batch, batch.x, shuffled)
        of_first, of_second = (self.bilinear(torch.sigmoid(rows.mean(dim=0))) for rows in (first, second))
        loss = summary_contrast(first, first_corrupted, of_second) / 2
        loss = loss + summary_contrast(second, second_corrupted, of_first) / 2
        return loss, {"contrast": loss.detach()}

    def embed(self, batch: GraphBatch) -> Tensor:
        """(B, d) embeddings of ``batch.nodes``, the sum of both views; call it in evaluation mode."""
        ((first, second),) = self.encode(batch, batch.x)
        return first + second
