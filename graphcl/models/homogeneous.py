"""What the models for graphs of one node type share: features and edges, whole or sampled, and their settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn

from graphcl.errors import InputError
from graphcl.graphs.conversion import adjacency, check_features
from graphcl.graphs.sampling import sampled_rows, take_rows
from graphcl.kernels import SparseMatrix
from graphcl.models.base_embedding import Preset
from graphcl.models.settings import ModelConfig
from graphcl.nn.encoders import Activation, GCNConv, GraphEncoder
from graphcl.views.graphs import edge_drop, feature_mask

__all__ = ["GraphBatch", "GraphContrastConfig", "GraphInputs", "HomogeneousModel", "make_encoder", "view_of"]

Size = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Model = TypeVar("Model", bound="HomogeneousModel")


class GraphContrastConfig(ModelConfig):
    """Settings that GRACE, DGI, BGRL and MVGRL share.

    Args:
        hidden: width of the embeddings, and of hidden layers where ``widths`` does not say.
        widths: of all layers, the last that of the embeddings; ``layers`` times ``hidden`` when None.
        layers: graph convolutions.
        conv: ``gcn`` or the name of a convolution of PyG such as ``SAGEConv``; see `graphcl.nn.GraphEncoder`.
        activation: after every layer.
        normalize_features: ``l1`` divides rows by their sum, ``auto`` does where no entry is negative; ``none``.
        batch_size: nodes a step; all of them when None.
        fanout: most neighbours a node that a mini-batch samples, nearest layer first; None for all of them.

    Example:
        >>> GraphContrastConfig(hidden=16).sizes
        (16, 16)
    """

    hidden: Size = 512
    widths: tuple[Size, ...] | None = None
    layers: Size = 2
    conv: str = "gcn"
    activation: Activation = "relu"
    normalize_features: Literal["auto", "l1", "none"] = "auto"
    batch_size: Size | None = None
    fanout: tuple[Size | None, ...] = (10, 10)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Widths of the layers."""
        return (self.hidden,) * self.layers if self.widths is None else self.widths


@dataclass(frozen=True, eq=False)
class GraphBatch:
    """One step on a graph of one node type; see `graphcl.models.base_embedding.NodeBatch`.

    Attributes:
        nodes: (B,) nodes that carry the loss; they are the first B rows of ``x``.
        x: (n, f) features of the nodes that are looked at.
        edge_index: (2, E) edges between them, source first.
        diffusion: (n, n) operator of the second view, where the model has one.
    """

    nodes: Tensor
    x: Tensor
    edge_index: Tensor
    diffusion: SparseMatrix | None = None

    @property
    def total(self) -> float:
        return float(self.nodes.shape[0])

    def to(self, device: torch.device | str) -> GraphBatch:
        """The same batch on another device; itself where it is there already."""
        if self.nodes.device == torch.device(device):
            return self
        return GraphBatch(
            self.nodes.to(device),
            self.x.to(device),
            self.edge_index.to(device),
            None if self.diffusion is None else self.diffusion.to(device),
        )


@dataclass(frozen=True, eq=False)
class GraphInputs:
    """Features and edges of a graph; see `graphcl.models.base_embedding.EmbeddingInputs`.

    Attributes:
        x: (N, f).
        matrix: (N, N) adjacency, symmetric, without self-loops.
        diffusion: (N, N) operator of the second view, where the model has one.
    """

    x: Tensor
    matrix: SparseMatrix
    diffusion: SparseMatrix | None = None

    @property
    def num_nodes(self) -> int:
        return self.x.shape[0]

    def full(self) -> GraphBatch:
        """All nodes and all edges."""
        return self._full

    @cached_property
    def _full(self) -> GraphBatch:
        return GraphBatch(
            torch.arange(self.num_nodes), self.x, self.matrix.to_edge_index()[0].contiguous(), self.diffusion
        )

    def batch(
        self, nodes: Tensor, *, fanout: Sequence[int | None] = (None, None), generator: torch.Generator | None = None
    ) -> GraphBatch:
        """Some nodes, their neighbours as many steps out as ``fanout`` has numbers, and the edges that were drawn.

        With all neighbours the encodings of ``nodes`` are those of the full batch, except at normalised convolutions:
        the outermost nodes have fewer edges than in the whole graph, unless one step more is followed.

        Args:
            nodes: (B,) distinct nodes.
            fanout: most neighbours a node, nearest layer first; None for all.
            generator: draws them.

        Raises:
            InputError: the model has a diffusion view, which is of the whole graph.
        """
        if self.diffusion is not None:
            raise InputError("the diffusion view is of the whole graph", "leave batch_size out")
        known, frontier, edges = nodes, nodes, []
        for bound in fanout:
            rows = sampled_rows(take_rows(self.matrix, frontier), bound, generator=generator)
            edges.append(torch.stack([rows.columns, frontier[rows.pattern.rows]]))
            fresh = torch.unique(rows.columns)
            frontier = fresh[~torch.isin(fresh, known)]
            known = torch.cat([known, frontier])
        place = torch.full((self.num_nodes,), -1, dtype=torch.int64)
        place[known] = torch.arange(known.shape[0])
        drawn = torch.cat(edges, dim=1) if edges else nodes.new_zeros(2, 0)
        # Messages go both ways, each edge once.
        both = torch.cat([drawn, drawn.flip(0)], dim=1)
        return GraphBatch(nodes, self.x[known], place[torch.unique(both, dim=1)])


class HomogeneousModel(nn.Module):
    """What GRACE, DGI, BGRL and MVGRL have in common: inputs, and views drawn from torch's default generator."""

    config_class: ClassVar[type[ModelConfig]] = GraphContrastConfig
    data_kind: ClassVar[Literal["graph", "heterogeneous"]] = "graph"
    presets: ClassVar[Mapping[str, Preset]] = {}

    @classmethod
    def prepare(cls, graph: Any, config: Any, *, generator: torch.Generator | None = None) -> GraphInputs:
        """Features and adjacency of a PyG ``Data``; its edges lead both ways, once.

        Raises:
            InputError: no features, or features that are no finite numbers.
        """
        if graph.get("x") is None:
            raise InputError("the graph has no features", "give x, one row a node")
        x = check_features(graph.x, num_nodes=graph.num_nodes).to(torch.get_default_dtype())
        if config.normalize_features == "l1" or (config.normalize_features == "auto" and not bool((x < 0).any())):
            x = x / x.abs().sum(dim=1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
        return GraphInputs(x.contiguous(), adjacency(graph))

    @classmethod
    def from_inputs(
        cls: type[Model], inputs: GraphInputs, config: Any = None, *, generator: torch.Generator | None = None
    ) -> Model:
        """A model for these inputs."""
        make: Any = cls
        model: Model = make(inputs, cls.config_class() if config is None else config, generator=generator)
        return model

    def on_epoch_start(self, epoch: int, generator: torch.Generator | None = None) -> None:
        """Nothing to do before an epoch."""


def make_encoder(inputs: GraphInputs, config: GraphContrastConfig, generator: torch.Generator | None) -> GraphEncoder:
    """The encoder of a configuration, every layer activated; ``gcn`` layers start Xavier-uniform, as all the authors'.

    Rows of bag-of-words features are small, and torch's own start would make the first epochs several times slower.
    """
    encoder = GraphEncoder(
        (inputs.x.shape[1], *config.sizes),
        conv=config.conv,
        activation=config.activation,
        activate_last=True,
        generator=generator,
    )
    for layer in encoder.layers:
        if isinstance(layer, GCNConv):
            nn.init.xavier_uniform_(layer.linear.weight, generator=generator)
    return encoder


def view_of(batch: GraphBatch, edges: float, features: float) -> GraphBatch:
    """A random view: edges removed (both directions together), columns of the features masked."""
    seed = int(torch.randint(2**62, (1,)))
    generator = torch.Generator().manual_seed(seed)
    return replace(
        batch,
        edge_index=edge_drop(batch.edge_index, edges, generator, symmetric=True),
        x=feature_mask(batch.x, features, generator),
    )
