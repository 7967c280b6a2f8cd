"""HeCo: meta-paths against the network schema, with positives that meta-paths agree on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from graphcl.errors import InputError
from graphcl.functional import heco
from graphcl.graphs.metapath import Hop, incidence, num_nodes_of, target_type
from graphcl.graphs.metapath_construction import metapath_adjacency, named_metapaths
from graphcl.graphs.metapath_positive_pairs import metapath_positives
from graphcl.graphs.metapath_products import Ties
from graphcl.graphs.sampling import draw_neighbours, scaled_rows, take_rows
from graphcl.kernels import SparseMatrix, normalize_symmetric
from graphcl.models.base_embedding import Preset
from graphcl.models.metapath_inputs import rows_of, type_features
from graphcl.models.settings import ModelConfig, Rate, Share
from graphcl.nn.heterogeneous import NodeAttention, SchemaEncoder, SemanticAttention, TypeFeatures, TypeTransform
from graphcl.nn.linear import Linear, uniform_by_inputs_

__all__ = ["HeCo", "HeCoBatch", "HeCoConfig", "HeCoInputs"]


class HeCoConfig(ModelConfig):
    """Settings of :class:`HeCo`.

    Args:
        metapaths: text such as "PAP" or chains of edge types; those that the graph names when None.
        target: node type that gets embeddings; the graph's own when None.
        k: neighbours kept a node and meta-path, by PathSim; all when None, as the authors.
        max_edges: bound on the entries of every meta-path.
        num_positives: positives a node, itself included.
        ties: order of equal values among positives and, with ``k``, of equal PathSim: ``random``, which no numbering of
            the nodes can bias, or ``column``, nearly as the authors' sort.
        neighbours: neighbours of each type that the schema view samples a step: one number, or one a type by name; the
            mean number of neighbours, rounded up, when None.
        hidden: width of embeddings.
        temperature: of the contrast.
        balance: part of the meta-path view as anchor.
        dropout: rate on features.
        attention_dropout: rate on attention vectors.
        normalize_features: ``auto`` divides rows by their sum unless some entries are negative; ``l1``, ``none``.
        batch_size: target nodes a step; all of them when None.
        fanout: neighbours a node and meta-path that a mini-batch samples (the second number is not used).

    Example:
        >>> HeCoConfig(num_positives=5).hidden
        64
    """

    metapaths: tuple[str | tuple[tuple[str, str, str], ...], ...] | None = None
    target: str | None = None
    k: PositiveInt | None = None
    max_edges: PositiveInt | None = None
    num_positives: PositiveInt = 20
    ties: Ties = "random"
    neighbours: PositiveInt | dict[str, PositiveInt] | None = None
    hidden: PositiveInt = 64
    temperature: PositiveFloat = 0.8
    balance: Share = 0.5
    dropout: Rate = 0.3
    attention_dropout: Rate = 0.5
    normalize_features: Literal["auto", "l1", "none"] = "auto"
    batch_size: PositiveInt | None = None
    fanout: tuple[PositiveInt | None, PositiveInt | None] = (10, 10)


@dataclass(frozen=True, eq=False)
class HeCoBatch:
    """One step of HeCo; see `graphcl.models.base_embedding.NodeBatch`.

    Attributes:
        nodes: (B,) target nodes that get an embedding.
        inputs: (n,) target nodes that are looked at.
        own: (B,) places of ``nodes`` among ``inputs``.
        target: features of ``inputs``.
        operators: a meta-path each, (B, n).
        neighbours: a node type each, its incidence (B, nodes of the type in use).
        types: a node type each, which of its nodes are in use; None for all.
        positives: (B, B).
    """

    nodes: Tensor
    inputs: Tensor
    own: Tensor
    target: TypeFeatures
    operators: tuple[SparseMatrix, ...]
    neighbours: tuple[SparseMatrix, ...]
    types: tuple[TypeFeatures, ...]
    positives: SparseMatrix

    @property
    def total(self) -> float:
        return float(self.nodes.shape[0])

    def to(self, device: torch.device | str) -> HeCoBatch:
        """The same batch on another device; itself where it is there already."""
        if self.nodes.device == torch.device(device):
            return self
        return HeCoBatch(
            self.nodes.to(device),
            self.inputs.to(device),
            self.own.to(device),
            self.target.to(device),
            tuple(one.to(device) for one in self.operators),
            tuple(one.to(device) for one in self.neighbours),
            tuple(one.to(device) for one in self.types),
            self.positives.to(device),
        )


@dataclass(frozen=True, eq=False)
class HeCoInputs:
    """All of a graph that HeCo needs; see `graphcl.models.base_embedding.EmbeddingInputs`.

    Attributes:
        target: node type that gets embeddings.
        operators: normalised boolean meta-path graphs.
        features, width: of the target.
        types: neighbour types of the schema.
        neighbours: their incidence (N, nodes of the type).
        samples: neighbours a step, a type each.
        positives: (N, N).
        num_nodes: target nodes.
    """

    target: str
    operators: tuple[SparseMatrix, ...]
    features: TypeFeatures
    width: int
    types: tuple[str, ...]
    neighbours: tuple[SparseMatrix, ...]
    samples: tuple[int, ...]
    positives: SparseMatrix
    num_nodes: int

    def full(self) -> HeCoBatch:
        """All target nodes."""
        return self._full

    @cached_property
    def _full(self) -> HeCoBatch:
        nodes = torch.arange(self.num_nodes)
        types = tuple(TypeFeatures() for _ in self.types)
        return HeCoBatch(nodes, nodes, nodes, self.features, self.operators, self.neighbours, types, self.positives)

    def batch(
        self, nodes: Tensor, *, fanout: Sequence[int | None] = (None, None), generator: torch.Generator | None = None
    ) -> HeCoBatch:
        """Some target nodes with sampled neighbours; positives are those within the batch.

        Args:
            nodes: (B,) distinct target nodes.
            fanout: most neighbours a node and meta-path; the first number counts.
            generator: draws.
        """
        blocks = [scaled_rows(operator, nodes, fanout[0], generator) for operator in self.operators]
        inputs = torch.unique(torch.cat([nodes, *(block.columns for block in blocks)]))
        neighbours, types = [], []
        for incidence_of_type in self.neighbours:
            rows = take_rows(incidence_of_type, nodes)
            used = torch.unique(rows.columns)
            neighbours.append(_in_places(rows, used))
            types.append(TypeFeatures(None, used))
        return HeCoBatch(
            nodes,
            inputs,
            torch.searchsorted(inputs, nodes),
            rows_of(self.features, inputs),
            tuple(_in_places(block, inputs) for block in blocks),
            tuple(neighbours),
            tuple(types),
            _among(take_rows(self.positives, nodes), nodes),
        )


class HeCo(nn.Module):
    r"""HeCo: the meta-path view and the schema view of every node agree, also with the node's positives.

    Paper: Wang, Liu, Han and Shi, "Self-supervised Heterogeneous Graph Neural Network with Co-contrastive Learning",
    2021, https://arxiv.org/abs/2105.09111.

    The meta-path view is a graph convolution a meta-path and semantic attention over them; it is the embedding. The
    schema view is attention over sampled neighbours of each type, then over the types. Both go through one projection
    and `graphcl.functional.heco`. Only the target's features are used: nodes of other types learn a row each.

    Deviation from the authors' code: the neighbours of all nodes are one draw a step instead of a loop over nodes;
    positives are a sparse list; among equal values the node itself comes first.

    Args:
        inputs: of `HeCo.prepare`.
        config: settings; the defaults when None.
        generator: source of the initial weights; torch's own when None.

    Complexity: a full step is O(N^2 d + sum of E_p d) time, O(N d) memory beside the operators.

    Example:
        >>> from torch_geometric.data import HeteroData
        >>> graph = HeteroData(metapaths=["PAP"], target="paper")
        >>> graph["paper"].x, graph["author"].num_nodes = torch.eye(4), 2
        >>> graph["paper", "to", "author"].edge_index = torch.tensor([[0, 1, 2, 3], [0, 0, 1, 1]])
        >>> config = HeCoConfig(hidden=8, num_positives=2)
        >>> inputs = HeCo.prepare(graph, config)
        >>> model = HeCo.from_inputs(inputs, config)
        >>> loss, parts = model.objective(inputs.full())
        >>> model.eval().embed(inputs.full()).shape
        torch.Size([4, 8])
    """

    config_class: ClassVar[type[ModelConfig]] = HeCoConfig
    data_kind: ClassVar[Literal["graph", "heterogeneous"]] = "heterogeneous"
    presets: ClassVar[Mapping[str, Preset]] = {
        "default": Preset(8e-4, 10000, patience=20, keep="best"),
        "acm": Preset(
            8e-4,
            10000,
            {
                "metapaths": ("PAP", "PSP"),
                "num_positives": 5,
                "ties": "column",
                "neighbours": {"author": 7, "subject": 1},
                "temperature": 0.8,
                "dropout": 0.3,
                "attention_dropout": 0.5,
            },
            patience=5,
            # The loss is noisy and flat at first: one start in five met five worse epochs by chance before epoch 60.
            min_epochs=100,
            keep="best",
            probe_learning_rate=0.05,
        ),
        "dblp": Preset(
            8e-4,
            10000,
            {
                "metapaths": ("APA", "APCPA", "APTPA"),
                "num_positives": 1000,
                "ties": "column",
                "neighbours": {"paper": 6},
                "temperature": 0.9,
                "dropout": 0.4,
                "attention_dropout": 0.35,
            },
            patience=30,
            keep="best",
            probe_learning_rate=0.01,
        ),
        "aminer": Preset(
            3e-3,
            10000,
            {
                "metapaths": ("PAP", "PRP"),
                "num_positives": 15,
                "ties": "column",
                "neighbours": {"author": 3, "ref": 8},
                "temperature": 0.5,
                "dropout": 0.5,
                "attention_dropout": 0.5,
            },
            patience=40,
            keep="best",
            probe_learning_rate=0.01,
        ),
        "freebase": Preset(
            1e-3,
            10000,
            {
                "metapaths": ("MDM", "MAM", "MWM"),
                "num_positives": 80,
                "ties": "column",
                "neighbours": {"director": 1, "actor": 18, "writer": 2},
                "temperature": 0.5,
                "dropout": 0.1,
                "attention_dropout": 0.3,
            },
            patience=20,
            keep="best",
            probe_learning_rate=0.01,
        ),
    }

    def __init__(
        self, inputs: HeCoInputs, config: HeCoConfig | None = None, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.config = config = config or HeCoConfig()
        self.samples = inputs.samples
        width, attention = config.hidden, config.attention_dropout
        self.transform = TypeTransform(inputs.width, width, dropout=config.dropout)
        self.type_transforms = nn.ModuleList(
            TypeTransform(neighbours.shape[1], width, dropout=config.dropout) for neighbours in inputs.neighbours
        )
        self.convolutions = nn.ModuleList(_Convolution(width) for _ in inputs.operators)
        self.path_attention = SemanticAttention(width, dropout=attention)
        self.schema = SchemaEncoder(width, len(inputs.types), dropout=attention)
        self.project_in = Linear(width, width)
        self.project_out = Linear(width, width)
        self.reset_parameters(generator)

    @classmethod
    def prepare(cls, graph: Any, config: HeCoConfig, *, generator: torch.Generator | None = None) -> HeCoInputs:
        """Meta-path graphs, schema neighbours and positives of a PyG ``HeteroData``.

        Raises:
            InputError, ValueError: what does not fit, named.
        """
        target = target_type(graph, config.target)
        metapaths = named_metapaths(graph, config.metapaths)
        operators = tuple(
            normalize_symmetric(
                metapath_adjacency(
                    graph,
                    path,
                    target=target,
                    k=config.k,
                    max_edges=config.max_edges,
                    weights="boolean",
                    ties=config.ties,
                    generator=generator,
                )
            )
            for path in metapaths
        )
        neighbours = _schema_neighbours(graph, target)
        features, width = type_features(graph, target, config.normalize_features)
        positives = metapath_positives(
            graph,
            metapaths,
            target=target,
            num_positives=config.num_positives,
            ties=config.ties,
            generator=generator,
        )
        return HeCoInputs(
            target,
            operators,
            features,
            width,
            tuple(neighbours),
            tuple(neighbours.values()),
            _samples(neighbours, config.neighbours),
            positives,
            num_nodes_of(graph, target),
        )

    @classmethod
    def from_inputs(
        cls, inputs: HeCoInputs, config: HeCoConfig | None = None, *, generator: torch.Generator | None = None
    ) -> HeCo:
        """A model for these inputs."""
        return cls(inputs, config, generator=generator)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Xavier-normal weights, gain 1.414; biases uniform in 1 / sqrt(inputs), zero in transforms and convolutions.

        Rows of features that add up to 1 give entries far below a random bias of the transforms, which would leave all
        nodes nearly alike for the first hundred epochs.
        """
        for part in self.modules():
            if isinstance(part, Linear):
                nn.init.xavier_normal_(part.weight, gain=1.414, generator=generator)
            if isinstance(part, TypeTransform | SemanticAttention | NodeAttention):
                part.reset_parameters(generator)
        for part in self.modules():
            if isinstance(part, Linear):
                uniform_by_inputs_([part.bias], part.in_features, generator)

    def embed(self, batch: HeCoBatch) -> Tensor:
        """(B, d) embeddings of ``batch.nodes``, the meta-path view; call it in evaluation mode."""
        return self._paths(batch, self.transform(batch.target))

    def objective(self, batch: HeCoBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and its one part, ``contrast``. Neighbours are drawn from torch's default generator."""
        h = self.transform(batch.target)
        types_h = [transform(nodes) for transform, nodes in zip(self.type_transforms, batch.types, strict=True)]
        drawn = [draw_neighbours(rows, k) for rows, k in zip(batch.neighbours, self.samples, strict=True)]
        own = h if batch.nodes.shape == batch.inputs.shape else h[batch.own]
        schema = self.schema(own, types_h, drawn)
        loss = heco(
            self._project(self._paths(batch, h)),
            self._project(schema),
            batch.positives,
            temperature=self.config.temperature,
            balance=self.config.balance,
        )
        return loss, {"contrast": loss.detach()}

    def on_epoch_start(self, epoch: int, generator: torch.Generator | None = None) -> None:
        """Nothing to do before an epoch."""

    def _paths(self, batch: HeCoBatch, h: Tensor) -> Tensor:
        views = [
            convolution(h, operator) for convolution, operator in zip(self.convolutions, batch.operators, strict=True)
        ]
        mixed: Tensor = self.path_attention(views)[0]
        return mixed

    def _project(self, rows: Tensor) -> Tensor:
        projected: Tensor = self.project_out(nn.functional.elu(self.project_in(rows)))
        return projected


class _Convolution(nn.Module):
    """``PReLU(A (H W) + b)``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = Linear(width, width, bias=False)
        self.bias = nn.Parameter(torch.zeros(width))
        self.slope = nn.Parameter(torch.tensor([0.25]))

    def forward(self, h: Tensor, operator: SparseMatrix) -> Tensor:
        return nn.functional.prelu(operator @ self.linear(h) + self.bias, self.slope)


def _schema_neighbours(graph: Any, target: str) -> dict[str, SparseMatrix]:
    """Incidence of the target with every node type that an edge type joins it to, by type."""
    pairs: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for kind in graph.edge_types:
        for hop in (Hop(kind), Hop(kind, backwards=True)):
            if hop.start == target and hop.end != target and graph[kind].num_edges:
                entries = incidence(graph, hop).tocoo()
                pairs.setdefault(hop.end, []).append((torch.from_numpy(entries.row), torch.from_numpy(entries.col)))
    if not pairs:
        raise InputError(
            f"no edge joins the target type {target!r} with another type", "HeCo needs neighbours of other types"
        )
    size = num_nodes_of(graph, target)
    return {
        kind: SparseMatrix.from_coo(
            torch.cat([rows for rows, _ in parts]).long(),
            torch.cat([columns for _, columns in parts]).long(),
            shape=(size, num_nodes_of(graph, kind)),
            duplicates="first",
        )
        for kind, parts in pairs.items()
    }


def _samples(neighbours: Mapping[str, SparseMatrix], wanted: int | Mapping[str, int] | None) -> tuple[int, ...]:
    if isinstance(wanted, int):
        return (wanted,) * len(neighbours)
    given = {} if wanted is None else wanted
    unknown = set(given) - set(neighbours)
    if unknown:
        raise InputError(f"neighbours names {sorted(unknown)}", f"the target has {', '.join(neighbours)}")
    return tuple(
        given.get(kind, max(1, math.ceil(matrix.num_entries / max(1, matrix.shape[0]))))
        for kind, matrix in neighbours.items()
    )


def _in_places(block: SparseMatrix, nodes: Tensor) -> SparseMatrix:
    """The same entries with columns numbered by their place in sorted ``nodes``."""
    columns = torch.searchsorted(nodes, block.columns)
    return SparseMatrix(block.row_offsets, columns, block.values, (block.shape[0], nodes.shape[0]), check=False)


def _among(rows: SparseMatrix, nodes: Tensor) -> SparseMatrix:
    """The entries whose column is one of ``nodes``, numbered by their place there."""
    ordered, order = torch.sort(nodes)
    place = torch.searchsorted(ordered, rows.columns).clamp(max=nodes.shape[0] - 1)
    inside = ordered[place] == rows.columns
    return SparseMatrix.from_coo(
        rows.pattern.rows[inside], order[place[inside]], shape=(nodes.shape[0], nodes.shape[0]), check=False
    )
