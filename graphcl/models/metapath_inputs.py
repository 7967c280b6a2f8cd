"""A heterogeneous graph as the meta-path models take it: operators, contexts and features, whole or sampled."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from graphcl.errors import InputError
from graphcl.graphs.metapath import MetaPathLike, num_nodes_of, target_type
from graphcl.graphs.metapath_construction import (
    Context,
    MetaPathView,
    masked_adjacency,
    metapath_views,
    normalize_transposed,
)
from graphcl.graphs.metapath_products import Ties
from graphcl.graphs.operators import PropagationOperator
from graphcl.graphs.sampling import draw_places, take_rows
from graphcl.kernels import FactoredMatrix, SparseMatrix
from graphcl.nn.heterogeneous import TypeFeatures

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData

__all__ = ["MetaPathBatch", "MetaPathInputs", "MixedOperator", "rows_of", "type_features"]

Normalization = Literal["auto", "l1", "none"]
Layers = tuple[SparseMatrix, SparseMatrix]
# Dense features with fewer non-zero entries than this part are kept sparse.
_SPARSE_BELOW = 0.25


class MixedOperator:
    r"""Mean of the operators of several meta-paths, :math:`\frac{1}{P} \sum_p A^p`, applied one by one.

    >>> eye = SparseMatrix(torch.tensor([0, 1]), torch.tensor([0]), None, (1, 1))
    >>> MixedOperator([eye, eye]) @ torch.ones(1, 2)
    tensor([[1., 1.]])
    """

    def __init__(self, operators: Sequence[SparseMatrix]) -> None:
        self.operators = tuple(operators)
        self.shape = self.operators[0].shape

    def __matmul__(self, dense: Tensor) -> Tensor:
        total = self.operators[0] @ dense
        for operator in self.operators[1:]:
            total = total + operator @ dense
        return total / len(self.operators)


@dataclass(frozen=True, eq=False)
class MetaPathBatch:
    """One step of a meta-path model; see `graphcl.models.base_embedding.NodeBatch`.

    Attributes:
        nodes: (B,) target nodes that get an embedding.
        inputs: (n,) target nodes that are looked at, all of them in a full batch.
        target: features of ``inputs``.
        masked: the same with some of them masked.
        features: features of the nodes of every type that the contexts pass.
        contexts: a meta-path each, its contexts: (node type, averaging operator (n, nodes of the type)).
        layers: a meta-path each, the operators of both convolutions.
        masked_layers: the same with edges masked.
        num_nodes: target nodes of the graph.
        reached: a meta-path each, the places among ``inputs`` of the nodes that its contexts and its first convolution
            are about; None for all of them.
        coarse_layers: as ``layers``, for the coarse view; None for the same ones.
    """

    nodes: Tensor
    inputs: Tensor
    target: TypeFeatures
    masked: TypeFeatures
    features: Mapping[str, TypeFeatures]
    contexts: tuple[tuple[tuple[str, FactoredMatrix], ...], ...]
    layers: tuple[Layers, ...]
    masked_layers: tuple[Layers, ...]
    num_nodes: int
    reached: tuple[Tensor | None, ...]
    coarse_layers: tuple[Layers, ...] | None = None

    @property
    def total(self) -> float:
        return float(self.nodes.shape[0])

    @property
    def is_full(self) -> bool:
        return self.nodes.shape[0] == self.num_nodes

    @cached_property
    def coarse(self) -> tuple[PropagationOperator, PropagationOperator]:
        """Operators of both convolutions of the coarse view."""
        layers = self.layers if self.coarse_layers is None else self.coarse_layers
        return MixedOperator([first for first, _ in layers]), MixedOperator([second for _, second in layers])

    def to(self, device: torch.device | str) -> MetaPathBatch:
        """The same batch on another device; itself where it is there already."""
        if self.nodes.device == torch.device(device):
            return self
        moved = _Mover(device)
        return MetaPathBatch(
            self.nodes.to(device),
            self.inputs.to(device),
            self.target.to(device),
            self.masked.to(device),
            {kind: features.to(device) for kind, features in self.features.items()},
            tuple(tuple((kind, mean.to(device)) for kind, mean in one) for one in self.contexts),
            tuple(moved.layers(one) for one in self.layers),
            tuple(moved.layers(one) for one in self.masked_layers),
            self.num_nodes,
            tuple(None if one is None else one.to(device) for one in self.reached),
            None if self.coarse_layers is None else tuple(moved.layers(one) for one in self.coarse_layers),
        )


@dataclass(frozen=True, eq=False)
class MetaPathInputs:
    """All of a graph that a meta-path model needs; see `graphcl.models.base_embedding.EmbeddingInputs`.

    Attributes:
        target: node type that gets embeddings.
        views: meta-paths with coarse and fine views.
        operators: normalised coarse views.
        masked_operators: the same with edges masked.
        features: of every type in use, the target included.
        masked: features of the target, partly masked.
        num_nodes: target nodes.
        widths: a type each, the width of its features, or its number of nodes where it has none.
    """

    target: str
    views: tuple[MetaPathView, ...]
    operators: tuple[SparseMatrix, ...]
    masked_operators: tuple[SparseMatrix, ...]
    features: Mapping[str, TypeFeatures]
    masked: TypeFeatures
    num_nodes: int
    widths: Mapping[str, int]

    @classmethod
    def prepare(
        cls,
        graph: HeteroData,
        *,
        metapaths: Sequence[MetaPathLike] | None,
        target: str | None,
        k: Any,
        max_edges: int | None,
        context_k: int | None,
        edge_mask: float | Sequence[float],
        feature_mask: float,
        normalization: Normalization = "auto",
        identity: bool = True,
        ties: Ties = "random",
        generator: torch.Generator | None = None,
    ) -> MetaPathInputs:
        """Views, masks and features of a graph.

        Args:
            graph: PyG ``HeteroData``.
            metapaths, target, k, max_edges, context_k, ties: see `graphcl.graphs.metapath_views`.
            edge_mask: part of the edges that the masked views lose; one, or one a meta-path.
            feature_mask: part of the target's feature entries that the masked copy loses.
            normalization, identity: see `type_features`.
            generator: draws masks and orders.

        Raises:
            InputError, ValueError: what does not fit, named.
        """
        target = target_type(graph, target)
        views = tuple(
            metapath_views(
                graph,
                metapaths,
                target=target,
                k=k,
                max_edges=max_edges,
                context_k=context_k,
                ties=ties,
                generator=generator,
            )
        )
        ratios = [edge_mask] * len(views) if isinstance(edge_mask, float | int) else list(edge_mask)
        if len(ratios) != len(views):
            raise InputError(
                f"edge_mask must hold one ratio for each of {len(views)} meta-paths, got {len(ratios)}", "give as many"
            )
        types = dict.fromkeys([target, *(context.node_type for view in views for context in view.contexts)])
        features, widths = {}, {}
        for kind in types:
            features[kind], widths[kind] = type_features(graph, kind, normalization, identity=identity)
        masked = [
            normalize_transposed(masked_adjacency(view.adjacency, ratio, generator=generator))
            for view, ratio in zip(views, ratios, strict=True)
        ]
        num_nodes = num_nodes_of(graph, target)
        return cls(
            target,
            views,
            tuple(normalize_transposed(view.adjacency) for view in views),
            tuple(masked),
            features,
            _masked(features[target], num_nodes, feature_mask, generator),
            num_nodes,
            widths,
        )

    def full(self) -> MetaPathBatch:
        """All target nodes and all neighbours."""
        return self._full

    @cached_property
    def _full(self) -> MetaPathBatch:
        nodes = torch.arange(self.num_nodes)
        return MetaPathBatch(
            nodes,
            nodes,
            self.features[self.target],
            self.masked,
            {kind: features for kind, features in self.features.items() if kind != self.target},
            tuple(tuple((one.node_type, one.mean) for one in view.contexts) for view in self.views),
            tuple((operator, operator) for operator in self.operators),
            tuple((operator, operator) for operator in self.masked_operators),
            self.num_nodes,
            (None,) * len(self.views),
        )

    @cached_property
    def _pairs(self) -> tuple[_Pair, ...]:
        return tuple(_Pair(*both) for both in zip(self.operators, self.masked_operators, strict=True))

    def batch(
        self, nodes: Tensor, *, fanout: Sequence[int | None] = (None, None), generator: torch.Generator | None = None
    ) -> MetaPathBatch:
        """Some target nodes with sampled neighbours, two steps out, and their contexts.

        A node always keeps itself; its sampled neighbours are scaled up, so that their sum keeps its mean, and the
        masked views keep of them what their masks leave. With all neighbours (fanout None) the embeddings are those of
        the full batch wherever nothing depends on all nodes together (``norm="row"``).

        Args:
            nodes: (B,) distinct target nodes.
            fanout: most neighbours a node in the last and in the first convolution, a meta-path.
            generator: draws.

        Raises:
            ValueError: a fanout that is not two numbers.
        """
        if len(fanout) != 2:
            raise ValueError(f"fanout must hold two numbers, for the two convolutions, got {tuple(fanout)}")
        own: list[_Neighbourhood] = []
        for pair in self._pairs:
            second = pair.sampled(nodes, fanout[0], generator)
            middle = torch.unique(torch.cat([nodes, second[0].columns]))
            first = pair.sampled(middle, fanout[1], generator)
            reached = torch.unique(torch.cat([middle, first[0].columns]))
            own.append(_Neighbourhood(first, second, middle, reached))
        # The coarse view goes along all meta-paths in both steps: it sees more nodes, but of them the features alone.
        middle = torch.unique(torch.cat([one.middle for one in own]))
        coarse = [pair.sampled(middle, fanout[1], generator, masked=False)[0] for pair in self._pairs]
        inputs = torch.unique(torch.cat([middle, *(one.reached for one in own), *(block.columns for block in coarse)]))
        contexts, used = _contexts_of(self.views, [one.reached for one in own])
        return MetaPathBatch(
            nodes,
            inputs,
            rows_of(self.features[self.target], inputs),
            rows_of(self.masked, inputs),
            {kind: rows_of(self.features[kind], rows) for kind, rows in used.items()},
            contexts,
            tuple(one.layers(0) for one in own),
            tuple(one.layers(1) for one in own),
            self.num_nodes,
            tuple(torch.searchsorted(inputs, one.reached) for one in own),
            tuple(
                (_relabelled(block, inputs), _relabelled(one.second[0], middle))
                for block, one in zip(coarse, own, strict=True)
            ),
        )


def type_features(
    graph: HeteroData, node_type: str, normalization: Normalization = "auto", *, identity: bool = True
) -> tuple[TypeFeatures, int]:
    """Features of a node type, and their width (its number of nodes where it has none).

    Args:
        graph: PyG ``HeteroData``; ``x`` dense, ``torch.sparse`` or `SparseMatrix`.
        node_type: which.
        normalization: ``l1`` divides rows by their sum of sizes, ``none`` leaves them, ``auto`` leaves features with
            negative entries (embeddings) and divides others (counts, bags of words).
        identity: whether a type without features may take the number of the node for one.

    Raises:
        InputError: missing features without ``identity``; another number of rows than nodes; NaN or infinite values.
    """
    num_nodes, x = num_nodes_of(graph, node_type), graph[node_type].get("x")
    if x is None:
        if not identity:
            raise InputError(f"node type {node_type!r} has no features", "give x, or allow identity=True")
        return TypeFeatures(), num_nodes
    if isinstance(x, Tensor) and x.layout in (torch.sparse_coo, torch.sparse_csr):
        x = SparseMatrix.from_torch(x)
    if len(x.shape) != 2 or x.shape[0] != num_nodes or x.shape[1] == 0:
        raise InputError(
            f"features of node type {node_type!r} have shape {tuple(x.shape)}", f"give one row for each of {num_nodes}"
        )
    values = x.entry_values() if isinstance(x, SparseMatrix) else x
    if not bool(torch.isfinite(values).all()):
        raise InputError(f"features of node type {node_type!r} hold NaN or infinite values", "fix or drop them")
    values = values.to(torch.get_default_dtype())
    if isinstance(x, SparseMatrix):
        matrix: SparseMatrix | Tensor = x.with_values(values)
    elif float((values != 0).sum()) < _SPARSE_BELOW * values.numel():
        rows, columns = values.nonzero(as_tuple=True)
        shape = int(x.shape[0]), int(x.shape[1])
        matrix = SparseMatrix.from_coo(rows, columns, values[rows, columns], shape=shape, check=False)
    else:
        matrix = values
    if normalization == "l1" or (normalization == "auto" and not bool((values < 0).any())):
        matrix = _divided_by_row(matrix)
    return TypeFeatures(matrix), int(x.shape[1])


def _divided_by_row(matrix: SparseMatrix | Tensor) -> SparseMatrix | Tensor:
    """Rows of absolute sum 1; zero rows stay zero."""
    if isinstance(matrix, SparseMatrix):
        sums = matrix.with_values(matrix.entry_values().abs()).row_sums()
        return matrix.scale(rows=torch.where(sums > 0, 1 / sums, torch.zeros_like(sums)))
    sums = matrix.abs().sum(dim=1, keepdim=True)
    return torch.where(sums > 0, matrix / sums, torch.zeros_like(matrix))


def _masked(features: TypeFeatures, num_nodes: int, ratio: float, generator: torch.Generator | None) -> TypeFeatures:
    """Features without a random part of their non-zero entries; of identities, without a part of the nodes."""
    if not 0.0 <= ratio <= 1.0:
        raise ValueError(f"feature_mask must lie in 0 .. 1, got {ratio}")
    matrix = features.matrix
    if matrix is None:
        return TypeFeatures(features.matrix, features.nodes, _keep(num_nodes, ratio, generator))
    if isinstance(matrix, SparseMatrix):
        values = matrix.entry_values()
        return TypeFeatures(matrix.with_values(values * _keep(values.shape[0], ratio, generator)))
    present = matrix.nonzero(as_tuple=True)
    kept = matrix.clone()
    kept[present] *= _keep(present[0].shape[0], ratio, generator)
    return TypeFeatures(kept)


def _keep(count: int, ratio: float, generator: torch.Generator | None) -> Tensor:
    """(count,) ones but for ``floor(ratio count)`` zeros at random places."""
    keep = torch.ones(count)
    # One part in 10^9 guards against 0.3 * 10 falling below 3.
    keep[torch.randperm(count, generator=generator)[: int(ratio * count + 1e-9)]] = 0.0
    return keep


@dataclass(frozen=True)
class _Neighbourhood:
    """What a meta-path leads to from the nodes of a batch: operators, plain and masked, with columns of the graph.

    Attributes:
        first, second: of both convolutions.
        middle, reached: sorted nodes between them and in front of the first.
    """

    first: list[SparseMatrix]
    second: list[SparseMatrix]
    middle: Tensor
    reached: Tensor

    def layers(self, form: int) -> Layers:
        """Both convolutions, plain (0) or masked (1), each numbered by the nodes in front of it."""
        return _relabelled(self.first[form], self.reached), _relabelled(self.second[form], self.middle)


class _Pair:
    """An operator and the same with edges masked, from which rows are drawn together: the node itself and k others.

    Where the entries of one lie in the other is found once, so that a draw looks at the drawn entries alone.
    """

    def __init__(self, plain: SparseMatrix, masked: SparseMatrix) -> None:
        self.plain, self.masked = plain, masked
        size, device = plain.shape[0], plain.device
        rows, hidden_rows = plain.pattern.rows, masked.pattern.rows
        # Places of the diagonal, -1 where a row has none.
        self.own, self.hidden_own = (torch.full((size,), -1, dtype=torch.int64, device=device) for _ in range(2))
        for own, matrix, row in ((self.own, plain, rows), (self.hidden_own, masked, hidden_rows)):
            diagonal = (matrix.columns == row).nonzero()[:, 0]
            own[row[diagonal]] = diagonal
        keys, order = (hidden_rows * plain.shape[1] + masked.columns).sort()
        if keys.shape[0] == 0:
            self.hidden = torch.full((plain.num_entries,), -1, dtype=torch.int64, device=device)
            return
        wanted = rows * plain.shape[1] + plain.columns
        place = torch.searchsorted(keys, wanted).clamp_(max=keys.shape[0] - 1)
        self.hidden = torch.where(keys[place] == wanted, order[place], -1)

    def sampled(
        self, nodes: Tensor, k: int | None, generator: torch.Generator | None, *, masked: bool = True
    ) -> list[SparseMatrix]:
        """Rows of some nodes: the node itself and at most k others, scaled so that their sum keeps its mean."""
        if k is None:
            return [take_rows(matrix, nodes) for matrix in (self.plain, self.masked)[: 1 + masked]]
        start, own, hidden_own = self.plain.row_offsets[nodes], self.own[nodes], self.hidden_own[nodes]
        present = own >= 0
        others = self.plain.row_offsets[nodes + 1] - start - present.long()
        places, drawn = draw_places(others, k, generator=generator)
        places += start[:, None]
        # The diagonal is no other: what lies behind it moves on by one.
        places += (present[:, None] & (places >= own[:, None])).long()
        scale = (others / others.clamp(min=1, max=k)).to(self.plain.entry_values().dtype)[:, None].expand(-1, k)
        found = [_block(self.plain, places, drawn, own, scale)]
        if masked:
            hidden = self.hidden[torch.where(drawn, places, 0)] if self.hidden.shape[0] else places
            found.append(_block(self.masked, hidden, drawn & (hidden >= 0), hidden_own, scale))
        return found


def _block(matrix: SparseMatrix, places: Tensor, drawn: Tensor, own: Tensor, scale: Tensor) -> SparseMatrix:
    """Rows of scaled entries at some places, and behind them an entry as it is, where there is one."""
    places = torch.cat([places, own[:, None]], dim=1)
    drawn = torch.cat([drawn, own[:, None] >= 0], dim=1)
    scale = torch.cat([scale, scale.new_ones(scale.shape[0], 1)], dim=1)
    entries, sizes = places[drawn], drawn.sum(dim=1)
    offsets = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    values = matrix.entry_values()[entries] * scale[drawn]
    return SparseMatrix(offsets, matrix.columns[entries], values, (places.shape[0], matrix.shape[1]), check=False)


def _relabelled(block: SparseMatrix, nodes: Tensor) -> SparseMatrix:
    """The same entries with columns numbered by their place in sorted ``nodes``."""
    columns = torch.searchsorted(nodes, block.columns)
    return SparseMatrix(block.row_offsets, columns, block.values, (block.shape[0], nodes.shape[0]), check=False)


def rows_of(features: TypeFeatures, nodes: Tensor) -> TypeFeatures:
    """Features of some nodes."""
    matrix = features.matrix
    if matrix is None:
        return TypeFeatures(None, nodes, None if features.keep is None else features.keep[nodes])
    return TypeFeatures(take_rows(matrix, nodes) if isinstance(matrix, SparseMatrix) else matrix[nodes])


def _contexts_of(
    views: Iterable[MetaPathView], nodes: Iterable[Tensor]
) -> tuple[tuple[tuple[tuple[str, FactoredMatrix], ...], ...], dict[str, Tensor]]:
    """Averaging operators for some nodes a meta-path, on the context nodes they reach, and which these are by type."""
    found: list[list[tuple[str, list[SparseMatrix]]]] = []
    reached: dict[str, list[Tensor]] = {}
    for view, starts in zip(views, nodes, strict=True):
        chains = []
        for context in view.contexts:
            chain, rows = [], starts
            for position, factor in enumerate(context.factors):
                block = take_rows(factor, rows)
                if position + 1 < len(context.factors):
                    rows = torch.unique(block.columns)
                    block = _relabelled(block, rows)
                chain.append(block)
            reached.setdefault(context.node_type, []).append(chain[-1].columns)
            chains.append((context.node_type, chain))
        found.append(chains)
    used = {kind: torch.unique(torch.cat(columns)) for kind, columns in reached.items()}
    means = tuple(
        tuple((kind, Context(kind, (*chain[:-1], _relabelled(chain[-1], used[kind]))).mean) for kind, chain in chains)
        for chains in found
    )
    return means, used


class _Mover:
    """Moves operators, each object once."""

    def __init__(self, device: torch.device | str) -> None:
        self.device = device
        self.moved: dict[int, SparseMatrix] = {}

    def layers(self, pair: Layers) -> Layers:
        first, second = (self.moved.setdefault(id(one), one.to(self.device)) for one in pair)
        return first, second
