"""Encoders of nodes: features and a graph in, one embedding a node out.

All have ``forward(x, graph) -> (N, d)``. `GraphEncoder` also takes features as a `SparseMatrix` (bags of words), whose
first product costs what their entries do. A graph is an ``edge_index`` of PyG, raw edges that the encoder normalises in
its own way, or a `SparseMatrix`, an operator that is applied as it is (``A[target, source]``; a diffusion, weighted
edges, rows of a sampled block).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graphcl.graphs.smoothing import smooth_features
from graphcl.kernels import SparseMatrix, normalize_symmetric, spmm
from graphcl.nn.linear import Linear

__all__ = ["MLP", "Activation", "GCNConv", "Graph", "GraphEncoder", "SmoothedEncoder", "Smoothing", "gcn_operator"]

Graph: TypeAlias = SparseMatrix | Tensor
Features: TypeAlias = SparseMatrix | Tensor
Activation: TypeAlias = Literal["relu", "prelu", "elu", "identity"]
Smoothing: TypeAlias = Literal["sgc", "appnp"]
ConvFactory: TypeAlias = Callable[[int, int], nn.Module]

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "prelu": nn.PReLU,
    "elu": nn.ELU,
    "identity": nn.Identity,
}


class MLP(nn.Module):
    """Layers of full connections; it takes a graph for the sake of the common signature and ignores it.

    SCGC and PamC use widths f-500-500-2000-10 (J. Xie, R. Girshick, A. Farhadi, "Unsupervised Deep Embedding for
    Clustering Analysis", 2016, https://arxiv.org/abs/1511.06335).

    Args:
        widths: of the input, the hidden layers and the output; at least two.
        activation: after every layer but the last: ``relu``, ``prelu``, ``elu`` or ``identity``.
        dropout: rate in front of every layer.
        generator: draws the initial weights (of torch's linear layer); torch's own when None.

    Shapes: ``forward(x (N, f), graph=None) -> (N, d)``.

    Complexity: O(N sum of products of neighbouring widths) time, O(N sum of widths) memory.

    Example:
        >>> MLP((4, 8, 2))(torch.zeros(3, 4)).shape
        torch.Size([3, 2])
    """

    def __init__(
        self,
        widths: Sequence[int],
        *,
        activation: Activation = "relu",
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_widths(widths)
        self.layers = nn.ModuleList(Linear(width, wider) for width, wider in pairwise(widths))
        # What a linear layer returns is not needed for its gradient, so that relu may overwrite it.
        self.activation = nn.ReLU(inplace=True) if activation == "relu" else make_activation(activation)
        self.dropout = _rate(dropout)
        if generator is not None:
            initialize_linear(self, generator)

    def forward(self, x: Tensor, graph: Graph | None = None) -> Tensor:
        """Embeddings of the rows of ``x``."""
        for layer in self.layers[:-1]:
            x = self.activation(layer(F.dropout(x, self.dropout, self.training)))
        out: Tensor = self.layers[-1](F.dropout(x, self.dropout, self.training))
        return out


class GCNConv(nn.Module):
    r"""Graph convolution through our sparse product.

    T. N. Kipf, M. Welling, "Semi-Supervised Classification with Graph Convolutional Networks", 2017,
    https://arxiv.org/abs/1609.02907.

    .. math:: Y = S X W + b, \quad S = \tilde D^{-1/2} (A + I) \tilde D^{-1/2}

    The product with the narrower side comes first; that with the weights where x is sparse.

    Args:
        in_features, out_features: widths.

    Shapes: ``forward(x (N, in), graph) -> (M, out)``; M is N, or the rows of the operator.

    Complexity: O(N in out + E min(in, out)) time; O(nnz(x) out + E out) for a sparse x.

    Example:
        >>> GCNConv(2, 3)(torch.ones(2, 2), torch.tensor([[0, 1], [1, 0]])).shape
        torch.Size([2, 3])
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.linear = Linear(in_features, out_features, bias=False)
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x: Features, graph: Graph) -> Tensor:
        """Convolution with an operator as it is, or with raw edges after normalisation."""
        operator = gcn_operator(graph, x)
        if isinstance(x, SparseMatrix):
            out = spmm(operator, spmm(x, self.linear.weight.T))
        elif self.linear.in_features < self.linear.out_features:
            out = self.linear(spmm(operator, x))
        else:
            out = spmm(operator, self.linear(x))
        return out + self.bias


class GraphEncoder(nn.Module):
    """Layers of any graph convolution.

    Args:
        widths: of the input, the hidden layers and the output; at least two.
        conv: ``gcn`` (`GCNConv` here), the name of a convolution of ``torch_geometric.nn`` such as ``SAGEConv``, or
            what makes a layer from two widths: a class, or a function such as ``lambda i, o: GATConv(i, o, heads=2,
            concat=False)``. A convolution of PyG gets ``edge_index``, and the weights of a `SparseMatrix` where it
            takes them; whether it normalises and adds loops is up to it.
        activation: after every layer but the last; see ``activate_last``.
        activate_last: also after the last (GRACE, DGI).
        dropout: rate in front of every layer.
        generator: draws the initial weights of ``gcn`` layers; torch's own when None, and always those of PyG.

    Shapes: ``forward(x (N, f), graph) -> (N, d)``; x may be a `SparseMatrix`, which a convolution of PyG gets dense.

    Raises:
        ValueError: fewer than two widths, or a name that PyG does not have.

    Complexity: that of the convolutions.

    Example:
        >>> edges = torch.tensor([[0, 1], [1, 0]])
        >>> GraphEncoder((4, 8, 2))(torch.zeros(3, 4), edges).shape
        torch.Size([3, 2])
        >>> GraphEncoder((4, 2), conv="SAGEConv")(torch.zeros(3, 4), edges).shape
        torch.Size([3, 2])
    """

    def __init__(
        self,
        widths: Sequence[int],
        *,
        conv: str | ConvFactory = "gcn",
        activation: Activation = "relu",
        activate_last: bool = False,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_widths(widths)
        make = _convolution(conv) if isinstance(conv, str) else conv
        self.layers = nn.ModuleList(make(width, wider) for width, wider in pairwise(widths))
        self.activations = nn.ModuleList(
            make_activation(activation if activate_last or layer < len(self.layers) - 1 else "identity")
            for layer in range(len(self.layers))
        )
        self.dropout = _rate(dropout)
        if generator is not None:
            initialize_linear(self, generator)

    def operator(self, graph: Graph, x: Features) -> Graph:
        """What the layers work on, ready to be used for several x: GCN's operator of raw edges where they need it."""
        return gcn_operator(graph, x) if any(isinstance(layer, GCNConv) for layer in self.layers) else graph

    def forward(self, x: Features, graph: Graph) -> Tensor:
        """Embeddings of all nodes."""
        graph = self.operator(graph, x)
        if isinstance(x, SparseMatrix):
            if isinstance(self.layers[0], GCNConv):
                x = x.with_values(F.dropout(x.entry_values(), self.dropout, self.training))
            else:
                x = F.dropout(x.to_dense(), self.dropout, self.training)
        else:
            x = F.dropout(x, self.dropout, self.training)
        h = self.activations[0](_convolve(self.layers[0], x, graph))
        for layer, activation in zip(self.layers[1:], self.activations[1:], strict=True):
            h = activation(_convolve(layer, F.dropout(h, self.dropout, self.training), graph))
        embedded: Tensor = h
        return embedded


class SmoothedEncoder(nn.Module):
    r"""An MLP with a fixed graph filter in front (SGC) or behind (APPNP).

    F. Wu et al., "Simplifying Graph Convolutional Networks", 2019, https://arxiv.org/abs/1902.07153: f(S^R x).
    J. Klicpera, A. Bojchevski, S. Günnemann, "Predict then Propagate", 2019, https://arxiv.org/abs/1810.05997:
    personalised PageRank of f(x). The filter in front has no parameters: `smooth` applies it once, and training on the
    result needs no graph and any mini-batch of rows.

    Args:
        widths: of the MLP.
        kind: ``sgc`` or ``appnp``.
        steps: of propagation.
        restart: α of ``appnp``.
        activation, dropout, generator: as in `MLP`.

    Shapes: ``forward(x (N, f), graph) -> (N, d)``.

    Complexity: that of the MLP, and O(steps E f) for ``sgc`` or O(steps E d) for ``appnp``.

    Example:
        >>> x, edges = torch.eye(3), torch.tensor([[0, 1], [1, 0]])
        >>> encoder = SmoothedEncoder((3, 2), steps=1)
        >>> bool((encoder(x, edges) == encoder.encode(encoder.smooth(x, edges))).all())
        True
    """

    def __init__(
        self,
        widths: Sequence[int],
        *,
        kind: Smoothing = "sgc",
        steps: int = 2,
        restart: float = 0.1,
        activation: Activation = "relu",
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if kind not in get_args(Smoothing):
            raise ValueError(f"kind must be one of {', '.join(get_args(Smoothing))}, got {kind!r}")
        self.kind: Smoothing = kind
        self.steps = steps
        self.restart = restart
        self.mlp = MLP(widths, activation=activation, dropout=dropout, generator=generator)

    def smooth(self, x: Tensor, graph: Graph) -> Tensor:
        """The fixed part of ``sgc``: features after the filter. ``appnp`` has none in front and returns ``x``."""
        return smooth_features(x, gcn_operator(graph, x), self.steps) if self.kind == "sgc" else x

    def encode(self, smoothed: Tensor, graph: Graph | None = None) -> Tensor:
        """Embeddings of rows that `smooth` returned; ``appnp`` needs the graph."""
        z: Tensor = self.mlp(smoothed)
        if self.kind == "sgc" or self.steps == 0:
            return z
        if graph is None:
            raise ValueError("graph is needed by kind='appnp', whose filter follows the MLP")
        return smooth_features(z, gcn_operator(graph, z), self.steps, restart=self.restart)

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        """Embeddings of all nodes."""
        return self.encode(self.smooth(x, graph), graph)


def gcn_operator(graph: Graph, x: Features) -> SparseMatrix:
    """The operator that a graph stands for: itself if it is one, else GCN's of its edges with self loops.

    Args:
        graph: `SparseMatrix`, or ``(2, E)`` edges between the rows of ``x``; parallel ones add up.
        x: ``(N, f)``, whose dtype the operator gets.

    Raises:
        ValueError: the shape of neither.

    Complexity: O(E + N) for edges.

    Example:
        >>> gcn_operator(torch.tensor([[0, 1], [1, 0]]), torch.zeros(2, 1)).to_dense()
        tensor([[0.5000, 0.5000],
                [0.5000, 0.5000]])
    """
    sample = x.entry_values() if isinstance(x, SparseMatrix) else x
    if isinstance(graph, SparseMatrix):
        return graph if graph.values is None or graph.values.dtype == sample.dtype else graph.to(sample.dtype)
    ones = sample.new_ones(graph.shape[-1])
    adjacency = SparseMatrix.from_edge_index(graph, ones, num_nodes=x.shape[0])
    return normalize_symmetric(adjacency, self_loops=1.0)


def check_widths(widths: Sequence[int]) -> None:
    """At least an input and an output, all of at least one feature."""
    if len(widths) < 2 or any(isinstance(width, bool) or not isinstance(width, int) or width < 1 for width in widths):
        raise ValueError(f"widths must be at least two integers above 0, got {tuple(widths)!r}")


def make_activation(name: Activation) -> nn.Module:
    """The module of an activation's name."""
    if name not in _ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(_ACTIVATIONS)}, got {name!r}")
    return _ACTIVATIONS[name]()


@torch.no_grad()
def initialize_linear(module: nn.Module, generator: torch.Generator) -> None:
    """Draw all linear layers within a module as torch's linear layer does, from a generator."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            bound = layer.in_features**-0.5
            layer.weight.uniform_(-bound, bound, generator=generator)
            if layer.bias is not None:
                layer.bias.uniform_(-bound, bound, generator=generator)


def _rate(dropout: float) -> float:
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must lie in [0, 1), got {dropout}")
    return dropout


def _convolution(name: str) -> ConvFactory:
    if name.lower() in ("gcn", "gcnconv"):
        return GCNConv
    from torch_geometric import nn as pyg
    from torch_geometric.nn import conv

    known = {known.lower(): known for known in conv.__all__}
    wanted = name.lower() if name.lower() in known else f"{name.lower()}conv"
    if wanted not in known:
        raise ValueError(f"conv must be 'gcn', a layer or one of {', '.join(sorted(known.values()))}, got {name!r}")
    layer: ConvFactory = getattr(pyg, known[wanted])
    return layer


def _convolve(layer: nn.Module, x: Features, graph: Graph) -> Tensor:
    if isinstance(layer, GCNConv) or not isinstance(graph, SparseMatrix):
        out: Tensor = layer(x, graph)
        return out
    edge_index, weight = graph.to_edge_index()
    options: dict[str, Any] = {}
    if weight is not None and "edge_weight" in inspect.signature(layer.forward).parameters:
        options["edge_weight"] = weight if isinstance(x, SparseMatrix) else weight.to(x.dtype)
    passed: Tensor = layer(x, edge_index, **options)
    return passed
