"""Layers for heterogeneous graphs: attention over views and over sampled neighbours, contexts, a shared encoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graphcl.graphs.operators import PropagationOperator
from graphcl.kernels import SparseMatrix, spmm
from graphcl.nn.dropout import dropout
from graphcl.nn.linear import Linear

__all__ = [
    "ContextAggregation",
    "NodeAttention",
    "SchemaEncoder",
    "SemanticAttention",
    "SharedEncoder",
    "TypeFeatures",
    "TypeTransform",
]

_GAIN = 1.414


@dataclass(frozen=True)
class TypeFeatures:
    """Features of the nodes of one type, or their identity where they have none.

    Attributes:
        matrix: (n, f), sparse or dense; None for nodes without features.
        nodes: (n,) numbers of nodes without features, all of them in order when None.
        keep: (n,) 0 where a node without features is masked, 1 elsewhere; None for no mask.
    """

    matrix: SparseMatrix | Tensor | None = None
    nodes: Tensor | None = None
    keep: Tensor | None = None

    def to(self, device: torch.device | str) -> TypeFeatures:
        """The same on another device."""
        matrix, nodes, keep = self.matrix, self.nodes, self.keep
        return TypeFeatures(
            None if matrix is None else matrix.to(device),
            None if nodes is None else nodes.to(device),
            None if keep is None else keep.to(device),
        )


class TypeTransform(nn.Module):
    r"""Brings the features of one node type to the common width; nodes without features get a row of a table.

    .. math:: H = \operatorname{ELU}(\operatorname{Dropout}(X W + b))

    One-hot features are the table itself and never formed.

    Args:
        in_features: width of the features, or number of nodes of a type without any.
        out_features: common width.
        dropout: rate.

    Complexity: O(nnz d) for sparse features.

    >>> transform = TypeTransform(3, 2)
    >>> transform(TypeFeatures(torch.eye(3))).shape, transform(TypeFeatures(nodes=torch.tensor([1]))).shape
    (torch.Size([3, 2]), torch.Size([1, 2]))
    """

    def __init__(self, in_features: int, out_features: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        # Input-major, as a sparse product and a look-up want it; torch.nn.Linear holds the transpose.
        self.weight = nn.Parameter(torch.empty(in_features, out_features))
        self.bias = nn.Parameter(torch.zeros(out_features))
        self.dropout = dropout
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Xavier-normal weights with gain 1.414, zero bias."""
        nn.init.xavier_normal_(self.weight, gain=_GAIN, generator=generator)
        nn.init.zeros_(self.bias)

    def forward(self, features: TypeFeatures, *, drop: bool = True) -> Tensor:
        """(n, d) for n nodes; ``drop=False`` leaves out the dropout."""
        matrix = features.matrix
        if isinstance(matrix, SparseMatrix):
            product = spmm(matrix, self.weight)
        elif matrix is not None:
            product = matrix @ self.weight
        else:
            product = self.weight if features.nodes is None else self.weight[features.nodes]
            if features.keep is not None:
                product = product * features.keep[:, None]
        return F.elu(dropout(product + self.bias, self.dropout, self.training and drop))


class SemanticAttention(nn.Module):
    r"""Mixes views of all nodes by one weight a view (meta-path attention, and HeCo's attention over node types).

    X. Wang et al., "Heterogeneous Graph Attention Network", 2019, https://arxiv.org/abs/1903.07293.

    .. math:: w_m = a \cdot \frac{1}{N} \sum_i \tanh(W e_i^m + b), \quad \beta = \operatorname{softmax}_m(w), \quad
        z_i = \sum_m \beta_m e_i^m

    Args:
        dim: d.
        dropout: rate on a.

    Shapes: ``forward(views)`` takes M of (N, d) and gives (N, d) and (M,).

    Complexity: O(M N d^2) time.

    >>> attention = SemanticAttention(2)
    >>> mixed, beta = attention([torch.ones(3, 2), torch.ones(3, 2)])
    >>> mixed.shape, beta.detach()
    (torch.Size([3, 2]), tensor([0.5000, 0.5000]))
    """

    def __init__(self, dim: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc = Linear(dim, dim)
        self.att = nn.Parameter(torch.empty(1, dim))
        self.dropout = dropout
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Xavier-normal weights with gain 1.414, zero bias."""
        nn.init.xavier_normal_(self.fc.weight, gain=_GAIN, generator=generator)
        nn.init.zeros_(self.fc.bias)
        nn.init.xavier_normal_(self.att, gain=_GAIN, generator=generator)

    def forward(self, views: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        att = dropout(self.att, self.dropout, self.training)
        scores = torch.stack([(att * torch.tanh(self.fc(view)).mean(dim=0)).sum() for view in views])
        beta = scores.softmax(dim=0)
        mixed = views[0] * beta[0]
        for position in range(1, len(views)):
            mixed = torch.addcmul(mixed, views[position], beta[position])
        return mixed, beta


class NodeAttention(nn.Module):
    r"""Attention of nodes over sampled neighbours of one other type.

    HeCo (Wang et al., 2021, https://arxiv.org/abs/2105.09111), after GAT.

    .. math:: \alpha_{ij} = \operatorname{softmax}_j \operatorname{LeakyReLU}_{0.01}(a \cdot [h_i \| h_j]), \quad
        y_i = \sum_j \alpha_{ij} h_j

    Args:
        dim: d.
        dropout: rate on a.

    Shapes: ``forward(h (N, d), neighbours_h (M, d), neighbours (N, k))`` gives (N, d). Repeated neighbours count as
    often as they stand there; -1 is no neighbour, and a node without any gets 0.

    Complexity: O((N + M) d + N k d) time, O(N (k + d)) memory: no N k d gather.

    >>> attention = NodeAttention(2)
    >>> attention(torch.ones(1, 2), torch.eye(2), torch.tensor([[1, 1]])).detach()
    tensor([[0., 1.]])
    """

    def __init__(self, dim: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.att = nn.Parameter(torch.empty(1, 2 * dim))
        self.dropout = dropout
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Xavier-normal weights with gain 1.414."""
        nn.init.xavier_normal_(self.att, gain=_GAIN, generator=generator)

    def forward(self, h: Tensor, neighbours_h: Tensor, neighbours: Tensor) -> Tensor:
        num, k = neighbours.shape
        own, other = dropout(self.att, self.dropout, self.training)[0].chunk(2)
        missing = neighbours < 0
        columns = neighbours.clamp(min=0)
        scores = F.leaky_relu((h @ own)[:, None] + (neighbours_h @ other)[columns], 0.01)
        alone = missing.all(dim=1, keepdim=True)
        weights = scores.masked_fill(missing & ~alone, -torch.inf).softmax(dim=1).masked_fill(missing, 0.0)
        offsets = torch.arange(0, num * k + 1, k, device=h.device)
        shape = num, neighbours_h.shape[0]
        return spmm(SparseMatrix(offsets, columns.reshape(-1), weights.reshape(-1), shape, check=False), neighbours_h)


class SchemaEncoder(nn.Module):
    """HeCo's view of the network schema: attention over sampled neighbours of each type, then over the types.

    Wang et al., 2021, https://arxiv.org/abs/2105.09111.

    Args:
        dim: d.
        num_types: neighbour types.
        dropout: rate on the attention vectors.

    Shapes: ``forward(h (N, d), types_h T of (M_t, d), neighbours T of (N, k_t))`` gives (N, d).

    >>> encoder = SchemaEncoder(2, 1)
    >>> encoder(torch.ones(3, 2), [torch.eye(2)], [torch.zeros(3, 1, dtype=torch.int64)]).shape
    torch.Size([3, 2])
    """

    def __init__(self, dim: int, num_types: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.node_attention = nn.ModuleList(NodeAttention(dim, dropout=dropout) for _ in range(num_types))
        self.type_attention = SemanticAttention(dim, dropout=dropout)

    def forward(self, h: Tensor, types_h: Sequence[Tensor], neighbours: Sequence[Tensor]) -> Tensor:
        views = [
            F.elu(attention(h, other, drawn))
            for attention, other, drawn in zip(self.node_attention, types_h, neighbours, strict=True)
        ]
        mixed: Tensor = self.type_attention(views)[0]
        return mixed


class ContextAggregation(nn.Module):
    r"""Adds to a node what a meta-path passes on its way: the mean over each context, through a matrix of its own.

    MEOW (Yu and Li, 2022, https://arxiv.org/abs/2212.13847).

    .. math:: \operatorname{ELU}\Bigl(h_i + \sum_s \operatorname{Dropout}\bigl(\operatorname{mean}_{j \in N_s(i)} h_j\,
        W_s\bigr)\Bigr)

    Args:
        dim: d.
        num_contexts: contexts s of the meta-path.
        dropout: rate.

    Complexity: O(entries d + N d^2).

    >>> aggregation = ContextAggregation(2, 1)
    >>> aggregation.term([torch.eye(3)], [torch.ones(3, 2)]).shape
    torch.Size([3, 2])
    """

    def __init__(self, dim: int, num_contexts: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.contexts = nn.ModuleList(Linear(dim, dim, bias=False) for _ in range(num_contexts))
        self.dropout = dropout
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Xavier-normal weights with gain 1.414."""
        for linear in self.contexts:
            if isinstance(linear, Linear):
                nn.init.xavier_normal_(linear.weight, gain=_GAIN, generator=generator)

    def term(self, means: Sequence[PropagationOperator | Tensor], types_h: Sequence[Tensor]) -> Tensor:
        """(N, d) what the contexts add, for one averaging operator and the rows of its node type each."""
        terms = [
            dropout(linear(mean @ rows), self.dropout, self.training)
            for linear, mean, rows in zip(self.contexts, means, types_h, strict=True)
        ]
        return torch.stack(terms).sum(dim=0) if len(terms) > 1 else terms[0]

    def forward(self, h: Tensor, means: Sequence[PropagationOperator | Tensor], types_h: Sequence[Tensor]) -> Tensor:
        return F.elu(h + self.term(means, types_h))


class SharedEncoder(nn.Module):
    r"""Two graph convolutions, shared by all views, and a layer norm without parameters.

    MEOW (Yu and Li, 2022, https://arxiv.org/abs/2212.13847).

    .. math:: U = \operatorname{PReLU}(A \operatorname{Dropout}(H W_1)), \quad
        V = A \operatorname{Dropout}(U W_2), \quad \frac{V - \mu}{\sqrt{\sigma^2 + \epsilon}}

    With ``norm="graph"`` mean and variance are those of all N d entries together, as in the authors' code; so every row
    depends on all others. ``"row"`` takes them row by row, which a mini-batch needs to agree with the full batch.

    Args:
        in_features, out_features: widths; the hidden one is ``out_features``.
        dropout: rate.
        norm: ``graph`` or ``row``.

    Raises:
        ValueError: an unknown norm.

    Shapes: ``forward(h (N0, d), first (N1, N0), second (N, N1))`` gives (N, d); one operator serves both layers of a
    full graph.

    Complexity: O(E d + N d^2).

    >>> encoder = SharedEncoder(2, 4)
    >>> encoder(torch.ones(3, 2), torch.eye(3)).shape
    torch.Size([3, 4])
    """

    def __init__(
        self, in_features: int, out_features: int, *, dropout: float = 0.0, norm: Literal["graph", "row"] = "graph"
    ) -> None:
        super().__init__()
        if norm not in ("graph", "row"):
            raise ValueError(f"norm must be 'graph' or 'row', got {norm!r}")
        self.first = nn.Parameter(torch.empty(in_features, out_features))
        self.second = nn.Parameter(torch.empty(out_features, out_features))
        self.slope = nn.Parameter(torch.tensor([0.25]))
        self.dropout, self.norm = dropout, norm
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Uniform weights within 1 / sqrt(out_features), slope 0.25."""
        bound = 1.0 / math.sqrt(self.first.shape[1])
        nn.init.uniform_(self.first, -bound, bound, generator=generator)
        nn.init.uniform_(self.second, -bound, bound, generator=generator)
        nn.init.constant_(self.slope, 0.25)

    def forward(
        self, h: Tensor, first: PropagationOperator | Tensor, second: PropagationOperator | Tensor | None = None
    ) -> Tensor:
        second = first if second is None else second
        hidden = first @ dropout(h @ self.first, self.dropout, self.training)
        hidden = second @ dropout(F.prelu(hidden, self.slope) @ self.second, self.dropout, self.training)
        shape = hidden.shape if self.norm == "graph" else hidden.shape[1:]
        return F.layer_norm(hidden, shape)
