"""DGI: nodes against a summary of their graph and of a shuffled one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from graphcl.models.base_embedding import Preset
from graphcl.models.homogeneous import (
    GraphBatch,
    GraphContrastConfig,
    GraphInputs,
    HomogeneousModel,
    make_encoder,
    rows_of_features,
)
from graphcl.models.settings import ModelConfig
from graphcl.nn.encoders import Activation, initialize_linear
from graphcl.nn.linear import Linear

__all__ = ["DGI", "DGIConfig", "summary_contrast"]


class DGIConfig(GraphContrastConfig):
    """Settings of :class:`DGI`: those of `GraphContrastConfig`, with PReLU as activation.

    Example:
        >>> DGIConfig().sizes
        (512, 512)
    """

    activation: Activation = "prelu"


def summary_contrast(rows: Tensor, corrupted: Tensor, summary: Tensor) -> Tensor:
    r"""Mean binary cross-entropy of telling rows of a graph from corrupted ones by their product with a summary.

    P. Velickovic et al., "Deep Graph Infomax", 2019, https://arxiv.org/abs/1809.10341. The Jensen-Shannon form of the
    same objective is :math:`2 L - 2 \ln 2`.

    .. math:: L = \frac{1}{2N} \sum_i \bigl(\log(1 + e^{-h_i \cdot g}) + \log(1 + e^{\tilde h_i \cdot g})\bigr)

    Args:
        rows: ``(N, d)``.
        corrupted: ``(M, d)``.
        summary: ``(d,)``.

    Returns:
        A scalar.

    Raises:
        ValueError: no row, or widths that differ.

    Complexity: O((N + M) d).

    Example:
        >>> summary_contrast(torch.zeros(2, 3), torch.zeros(2, 3), torch.ones(3))
        tensor(0.6931)
    """
    width = summary.shape[-1]
    for name, part in (("rows", rows), ("corrupted", corrupted)):
        if part.dim() != 2 or part.shape[0] == 0 or part.shape[1] != width:
            raise ValueError(f"{name} must have shape (N, {width}) with at least one row, got {tuple(part.shape)}")
    scores = F.softplus(-(rows @ summary)).sum() + F.softplus(corrupted @ summary).sum()
    return scores / (rows.shape[0] + corrupted.shape[0])


class DGI(HomogeneousModel):
    r"""Deep Graph Infomax: every node tells the summary of its graph from that of shuffled features.

    Paper: P. Velickovic et al., "Deep Graph Infomax", 2019, https://arxiv.org/abs/1809.10341.

    .. math:: g = W \sigma\Bigl(\frac{1}{N} \sum_i h_i\Bigr), \quad \tilde H = f(\text{rows of } X \text{ shuffled}, A)

    with the loss of `summary_contrast`; W makes the score bilinear. Mini-batches take summary and shuffle from the
    nodes of the batch.

    Args:
        inputs: of `DGI.prepare`.
        config: settings; the defaults when None.
        generator: source of the initial weights; torch's own when None.

    Complexity: twice the encoder, O(N d).

    Example:
        >>> from torch_geometric.data import Data
        >>> graph = Data(x=torch.eye(4), edge_index=torch.tensor([[0, 1, 2], [1, 2, 3]]))
        >>> config = DGIConfig(hidden=8)
        >>> inputs = DGI.prepare(graph, config)
        >>> model = DGI.from_inputs(inputs, config)
        >>> model.eval().embed(inputs.full()).shape
        torch.Size([4, 8])
    """

    config_class: ClassVar[type[ModelConfig]] = DGIConfig
    presets: ClassVar[Mapping[str, Preset]] = {
        "default": Preset(1e-2, 300, stop="never"),
        "cora": Preset(1e-3, 10000, {"layers": 1}, patience=20, keep="best"),
        "citeseer": Preset(1e-3, 10000, {"layers": 1}, patience=20, keep="best"),
    }

    def __init__(
        self, inputs: GraphInputs, config: DGIConfig | None = None, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.config = config = config or DGIConfig()
        self.encoder = make_encoder(inputs, config, generator)
        self.bilinear = Linear(config.sizes[-1], config.sizes[-1], bias=False)
        if generator is not None:
            initialize_linear(self.bilinear, generator)

    def objective(self, batch: GraphBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and its one part, ``contrast``. The shuffle follows torch's default generator."""
        count = batch.nodes.shape[0]
        shuffled = rows_of_features(batch.x, torch.randperm(batch.x.shape[0]).to(batch.x.device))
        graph = self.encoder.operator(batch.edge_index, batch.x)
        rows = self.encoder(batch.x, graph)[:count]
        corrupted = self.encoder(shuffled, graph)[:count]
        loss = summary_contrast(rows, corrupted, self.bilinear(torch.sigmoid(rows.mean(dim=0))))
        return loss, {"contrast": loss.detach()}

    def embed(self, batch: GraphBatch) -> Tensor:
        """(B, d) embeddings of ``batch.nodes``; call it in evaluation mode."""
        z: Tensor = self.encoder(batch.x, batch.edge_index)
        return z[: batch.nodes.shape[0]]
