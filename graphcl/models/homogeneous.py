"""What the models for graphs of one node type share: features and edges, whole or sampled, and their settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Literal, TypeVar

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from graphcl.errors import InputError
from graphcl.graphs.conversion import adjacency, check_features
from graphcl.graphs.sampling import sampled_rows, scaled_rows, take_rows
from graphcl.kernels import SparseMatrix
from graphcl.models.base_embedding import Preset
from graphcl.models.settings import ModelConfig
from graphcl.nn.encoders import Activation, Features, GCNConv, GraphEncoder
from graphcl.views.graphs import draw_mask, edge_drop, feature_mask

__all__ = [
    "GraphBatch",
    "GraphContrastConfig",
    "GraphInputs",
    "HomogeneousModel",
    "make_encoder",
    "rows_of_features",
    "view_of",
]

Model = TypeVar("Model", bound="HomogeneousModel")
# Features with fewer non-zero entries than this part are kept sparse: measured on one thread, the product of
# 2708 x 1433 with 1433 x 512 and its gradient take 20 ms at a density of 0.013 and 51 ms at 0.1, dense 54 to 65 ms.
_SPARSE_BELOW = 0.1


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

    hidden: PositiveInt = 512
    widths: tuple[PositiveInt, ...] | None = None
    layers: PositiveInt = 2
    conv: str = "gcn"
    activation: Activation = "relu"
    normalize_features: Literal["auto", "l1", "none"] = "auto"
    batch_size: PositiveInt | None = None
    fanout: tuple[PositiveInt | None, ...] = (10, 10)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Widths of the layers."""
        return (self.hidden,) * self.layers if self.widths is None else self.widths


@dataclass(frozen=True, eq=False)
class GraphBatch:
    """One step on a graph of one node type; see `graphcl.models.base_embedding.NodeBatch`.

    Attributes:
        nodes: (B,) nodes that carry the loss; they are the first B rows of ``x``.
        x: (n, f) features of the nodes that are looked at, sparse where most entries are 0.
        edge_index: (2, E) edges between them, source first.
        diffusion: (n, n) operator of the second view, where the model has one.
    """

    nodes: Tensor
    x: Features
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
        x: (N, f), sparse where most entries are 0.
        matrix: (N, N) adjacency, symmetric, without self-loops.
        diffusion: (N, N) operator of the second view, where the model has one.
    """

    x: Features
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

        With all neighbours the encodings of ``nodes`` are those of the full batch, except at convolutions that
        normalise by degree: the outermost nodes have fewer edges than in the whole graph, unless one step more is
        followed.
        Where there is a diffusion view, its neighbours are followed as well; drawn entries of a row are scaled up, so
        that their sum keeps its mean.

        Args:
            nodes: (B,) distinct nodes.
            fanout: most neighbours a node, nearest layer first; None for all.
            generator: draws them.

        Complexity: O(n f + E log E) for the n nodes and E edges of the batch, whatever the size of the graph.
        """
        known, frontier = nodes, nodes
        edges, diffused = [], []
        for bound in fanout:
            rows = sampled_rows(take_rows(self.matrix, frontier), bound, generator=generator)
            edges.append((rows.columns, frontier[rows.pattern.rows]))
            reached = rows.columns
            if self.diffusion is not None:
                spread = scaled_rows(self.diffusion, frontier, bound, generator)
                diffused.append((frontier[spread.pattern.rows], spread.columns, spread.entry_values()))
                reached = torch.cat([reached, spread.columns])
            fresh = torch.unique(reached)
            frontier = fresh[~torch.isin(fresh, known)]
            known = torch.cat([known, frontier])
        place = _Places(known)
        count = known.shape[0]
        source, target = (place(torch.cat(ends)) for ends in zip(*edges, strict=True)) if edges else (known[:0],) * 2
        # Messages go both ways, each edge once.
        pairs = torch.unique(torch.cat([source * count + target, target * count + source]))
        edge_index = torch.stack([pairs // count, pairs % count])
        diffusion = None
        if self.diffusion is not None:
            parts = [torch.cat(part) for part in zip(*diffused, strict=True)] if diffused else [known[:0]] * 3
            shape = count, count
            diffusion = SparseMatrix.from_coo(place(parts[0]), place(parts[1]), parts[2], shape=shape, check=False)
        return GraphBatch(nodes, rows_of_features(self.x, known), edge_index, diffusion)


class _Places:
    """Positions of nodes in a list of distinct nodes, without a table of all nodes of the graph."""

    def __init__(self, known: Tensor) -> None:
        self.sorted, self.order = known.sort()

    def __call__(self, nodes: Tensor) -> Tensor:
        return self.order[torch.searchsorted(self.sorted, nodes)]


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
        return GraphInputs(_sparse_where_few(x), adjacency(graph))

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
    edge_index = edge_drop(batch.edge_index, edges, generator, symmetric=True)
    if isinstance(batch.x, SparseMatrix):
        kept = draw_mask(batch.x.shape[1], features, generator).to(batch.x.device)
        return replace(batch, edge_index=edge_index, x=batch.x.scale(columns=kept.to(batch.x.entry_values().dtype)))
    return replace(batch, edge_index=edge_index, x=feature_mask(batch.x, features, generator))


def rows_of_features(x: Features, nodes: Tensor) -> Features:
    """Features of some nodes, sparse or dense as they were; also in another order, as a corruption shuffles them."""
    return take_rows(x, nodes) if isinstance(x, SparseMatrix) else x[nodes]


def _sparse_where_few(x: Tensor) -> Features:
    """The features as they are worked on: bags of words as a sparse matrix, others dense."""
    if float((x != 0).sum()) >= _SPARSE_BELOW * x.numel():
        return x.contiguous()
    rows, columns = x.nonzero(as_tuple=True)
    shape = int(x.shape[0]), int(x.shape[1])
    return SparseMatrix.from_coo(rows, columns, x[rows, columns], shape=shape, check=False)
