"""The network that MEOW and AdaMEOW share: coarse and fine views of the target nodes, encoded and projected."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, TypeVar

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from graphcl.graphs.metapath_products import Ties
from graphcl.kernels import normalize_rows
from graphcl.models.base_embedding import Preset
from graphcl.models.metapath_inputs import MetaPathBatch, MetaPathInputs
from graphcl.models.settings import ModelConfig, Rate, Share
from graphcl.nn.heterogeneous import ContextAggregation, SemanticAttention, SharedEncoder, TypeTransform
from graphcl.nn.linear import Linear, uniform_by_inputs_

__all__ = ["MetaPathConfig", "MetaPathNetwork"]

# Entries of a view whose bound is not given.
_VIEW_ENTRIES = 20_000_000
Network = TypeVar("Network", bound="MetaPathNetwork")


class MetaPathConfig(ModelConfig):
    """Settings that MEOW and AdaMEOW share.

    Args:
        metapaths: text such as "PAP" or chains of edge types; those that the graph names when None.
        target: node type that gets embeddings; the graph's own when None.
        k: neighbours kept a node and meta-path, by PathSim: one number, or one a meta-path. The default of 5% of the
            target nodes bounds the work on meta-paths that connect nearly everybody; 20 at least, and at most so many
            that a view holds 20 million entries.
        max_edges: bound on the entries of every coarse view.
        context_k: most nodes of a context, drawn from it; all when None.
        ties: order of equal PathSim, see `graphcl.graphs.metapath_adjacency`.
        hidden: width of embeddings.
        projection: width of the rows that are contrasted; that of the embeddings when None.
        dropout: rate everywhere.
        masked_dropout: whether the masked copy of the target's features has dropout.
        edge_mask: part of the edges that the masked views lose; one, or one a meta-path.
        feature_mask: part of the target's feature entries that the masked copy loses.
        normalize_features: ``auto`` divides rows by their sum unless some entries are negative; ``l1``, ``none``.
        identity: node types without features learn a row a node; False refuses them.
        norm: ``graph`` (layer norm over all entries together, as the authors) or ``row``.
        batch_size: target nodes a step; all of them when None.
        fanout: neighbours a node and meta-path that a mini-batch samples, in the last and the first convolution.

    Example:
        >>> MetaPathConfig(metapaths=("PAP", "PSP"), k=(110, 700)).hidden
        64
    """

    metapaths: tuple[str | tuple[tuple[str, str, str], ...], ...] | None = None
    target: str | None = None
    k: PositiveInt | tuple[PositiveInt | None, ...] | None = None
    max_edges: PositiveInt | None = None
    context_k: PositiveInt | None = None
    ties: Ties = "random"
    hidden: PositiveInt = 64
    projection: PositiveInt | None = None
    dropout: Rate = 0.2
    masked_dropout: bool = True
    edge_mask: Share | tuple[Share, ...] = 0.3
    feature_mask: Share = 0.3
    normalize_features: Literal["auto", "l1", "none"] = "auto"
    identity: bool = True
    norm: Literal["graph", "row"] = "graph"
    batch_size: PositiveInt | None = None
    fanout: tuple[PositiveInt | None, PositiveInt | None] = (10, 10)


class MetaPathNetwork(nn.Module):
    """Encodes target nodes along meta-paths; the parts of MEOW and AdaMEOW that are the same.

    Paper: Yu and Li, "Heterogeneous Graph Contrastive Learning with Meta-path Contexts and Adaptively Weighted Negative
    Samples", 2022, https://arxiv.org/abs/2212.13847.

    The features of each type go to one width (`TypeTransform`). The coarse view passes them along the mean of all
    meta-path graphs. The fine view adds the contexts of each meta-path first, with and without masks, and mixes the
    results by semantic attention into the embedding z. Both sides are projected to unit rows for the contrast.

    Args:
        inputs: what the model will be given; decides widths.
        config: settings.
        generator: source of the initial weights; torch's own when None.

    Complexity: a step is O(sum of E_p d + N d^2) beside the contrast.
    """

    config_class: ClassVar[type[ModelConfig]] = MetaPathConfig
    data_kind: ClassVar[Literal["graph", "heterogeneous"]] = "heterogeneous"
    presets: ClassVar[Mapping[str, Preset]] = {}

    def __init__(
        self, inputs: MetaPathInputs, config: MetaPathConfig, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.settings = config
        self.target = inputs.target
        width, rate = config.hidden, config.dropout
        self.types = list(inputs.widths)
        self.transforms = nn.ModuleList(TypeTransform(inputs.widths[kind], width, dropout=rate) for kind in self.types)
        self.contexts = nn.ModuleList(
            ContextAggregation(width, len(view.contexts), dropout=rate) for view in inputs.views
        )
        self.encoder = SharedEncoder(width, width, dropout=rate, norm=config.norm)
        self.attention = SemanticAttention(width, dropout=rate)
        self.project = Linear(width, config.projection or width)
        self.reset_parameters(generator)

    @classmethod
    def prepare(cls, graph: Any, config: MetaPathConfig, *, generator: torch.Generator | None = None) -> MetaPathInputs:
        """Views, masks and features of a PyG ``HeteroData``; see `MetaPathInputs.prepare`."""
        from graphcl.graphs.metapath import num_nodes_of, target_type

        target = target_type(graph, config.target)
        k = config.k
        if k is None:
            nodes = max(1, num_nodes_of(graph, target))
            k = max(20, min(nodes // 20, _VIEW_ENTRIES // nodes))
        return MetaPathInputs.prepare(
            graph,
            metapaths=config.metapaths,
            target=target,
            k=k,
            max_edges=config.max_edges,
            context_k=config.context_k,
            edge_mask=config.edge_mask,
            feature_mask=config.feature_mask,
            normalization=config.normalize_features,
            identity=config.identity,
            ties=config.ties,
            generator=generator,
        )

    @classmethod
    def from_inputs(
        cls: type[Network], inputs: MetaPathInputs, config: Any = None, *, generator: torch.Generator | None = None
    ) -> Network:
        """A model for these inputs."""
        settings: Any = cls.config_class() if config is None else config
        return cls(inputs, settings, generator=generator)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all weights anew, as the authors do: attention as it draws itself, linear maps as torch draws them.

        Uniform within 1 / sqrt(inputs), that is: some three times smaller than what HeCo starts its transforms with.
        """
        self.encoder.reset_parameters(generator)
        self.attention.reset_parameters(generator)
        for transform in self.transforms:
            if isinstance(transform, TypeTransform):
                uniform_by_inputs_([transform.weight, transform.bias], transform.weight.shape[0], generator)
        for linear in (self.project, *(one for part in self.contexts for one in part.modules())):
            if isinstance(linear, Linear):
                uniform_by_inputs_([linear.weight, linear.bias], linear.in_features, generator)

    def forward(self, batch: MetaPathBatch) -> tuple[Tensor, Tensor]:
        """Coarse encoding and embedding z, (B, d) each, of ``batch.nodes``."""
        transforms = dict(zip(self.types, self.transforms, strict=True))
        own = transforms[self.target](batch.target)
        masked = transforms[self.target](batch.masked, drop=self.settings.masked_dropout)
        rows = {kind: transforms[kind](features) for kind, features in batch.features.items()}
        rows.setdefault(self.target, own)
        views = []
        for contexts, aggregation, layers, masked_layers, reached in zip(
            batch.contexts, self.contexts, batch.layers, batch.masked_layers, batch.reached, strict=True
        ):
            term = 0.0
            if contexts:
                means, types_h = [mean for _, mean in contexts], [rows[kind] for kind, _ in contexts]
                term = aggregation.term(means, types_h)  # type: ignore[operator]
            for h, (first, second) in ((own, layers), (masked, masked_layers)):
                near = h if reached is None else h[reached]
                encoded = self.encoder(nn.functional.elu(near + term), first, second)
                views.append(normalize_rows(encoded))
        mixed, _ = self.attention(views)
        return self.encoder(own, *batch.coarse), mixed

    def projected(self, rows: Tensor) -> Tensor:
        """Unit rows for the contrast."""
        return normalize_rows(torch.tanh(self.project(rows)))

    def embed(self, batch: MetaPathBatch) -> Tensor:
        """(B, d) embeddings z of ``batch.nodes``; call it in evaluation mode."""
        embedding: Tensor = self(batch)[1]
        return embedding

    def on_epoch_start(self, epoch: int, generator: torch.Generator | None = None) -> None:
        """Nothing to do before an epoch."""
