"""Convolution over hypergraphs: HGNN's and MMHCL's operators, applied factor by factor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from graphcl.graphs.hypergraph import Hypergraph
from graphcl.graphs.operators import PropagationOperator
from graphcl.kernels import FactoredMatrix

__all__ = ["HypergraphConv", "HypergraphOperator"]

HypergraphOperator: TypeAlias = Literal["hgnn", "hgnn_plus", "mmhcl_user", "mmhcl_item"]


class HypergraphConv(nn.Module):
    r"""Hypergraph convolution with a choice of operator, by default linear and without parameters.

    .. math:: X' = \sigma(M^L X \Theta + b)

    ============== ===================================================== ===============================================
    ``operator``   M                                                     from
    ============== ===================================================== ===============================================
    ``hgnn``       :math:`D_v^{-1/2} H W D_e^{-1} H^T D_v^{-1/2}`        HGNN, Feng et al., 2019,
                                                                         https://arxiv.org/abs/1809.09401
    ``hgnn_plus``  :math:`D_v^{-1} H W D_e^{-1} H^T`                     HGNN+, Gao et al., 2022
    ``mmhcl_user`` :math:`D^{-1} C`, C = :math:`H W H^T` without its     MMHCL, Guo et al., 2025,
                   diagonal, D = its row sums                            https://arxiv.org/abs/2504.16576
    ``mmhcl_item`` :math:`D^{-1/2} C D^{-1/2}`, C = :math:`H W H^T`      the same
    ============== ===================================================== ===============================================

    W enters both the product and the degrees. torch-geometric 2.8.1 leaves it out of the product: its
    ``HypergraphConv`` divides by weighted degrees but sums unweighted hyperedges, so its rows do not sum to 1 once
    weights differ from 1 (`tests/nn/test_nn_hypergraph.py` shows it). With unit weights and without bias,
    ``operator="hgnn_plus"`` equals it.

    Args:
        operator: one of the table.
        num_layers: L, how often M is applied; MMHCL keeps only the last layer.
        in_channels, out_channels: widths of Θ; both None for none (as MMHCL).
        bias: add b; only with Θ.
        activation: σ, applied once at the end; None for the identity.
        num_hyperedges: with it every hyperedge gets a learnable weight ``exp(a_e)``, 1 at the start, that multiplies
            the weights of the hypergraph. The layer then fits hypergraphs of this size only.

    Raises:
        ValueError: an argument out of range.

    Complexity: O(L incidences d) time, no nodes x nodes matrix.

    >>> hypergraph = Hypergraph.from_hyperedges([[0, 1], [1, 2]], num_nodes=3)
    >>> HypergraphConv("mmhcl_user")(torch.tensor([[1.0], [10.0], [100.0]]), hypergraph)
    tensor([[10.0000],
            [50.5000],
            [10.0000]])
    """

    def __init__(
        self,
        operator: HypergraphOperator = "hgnn",
        *,
        num_layers: int = 1,
        in_channels: int | None = None,
        out_channels: int | None = None,
        bias: bool = True,
        activation: Callable[[Tensor], Tensor] | None = None,
        num_hyperedges: int | None = None,
    ) -> None:
        super().__init__()
        if operator not in get_args(HypergraphOperator):
            raise ValueError(f"operator must be one of {', '.join(get_args(HypergraphOperator))}, got {operator!r}")
        if isinstance(num_layers, bool) or not isinstance(num_layers, int) or num_layers < 1:
            raise ValueError(f"num_layers must be an integer of at least 1, got {num_layers!r}")
        if (in_channels is None) != (out_channels is None):
            raise ValueError(
                f"in_channels and out_channels must be given together, got {in_channels!r} and {out_channels!r}"
            )
        self.operator: HypergraphOperator = operator
        self.num_layers = num_layers
        self.activation = activation
        linear = in_channels is not None and out_channels is not None
        self.lin = nn.Linear(in_channels or 0, out_channels or 0, bias=False) if linear else None
        self.bias = nn.Parameter(torch.empty(out_channels or 0)) if linear and bias else None
        self.log_weight = None if num_hyperedges is None else nn.Parameter(torch.empty(num_hyperedges))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier uniform Θ, zero bias, unit hyperedge weights."""
        if self.lin is not None:
            nn.init.xavier_uniform_(self.lin.weight)
        for zero in (self.bias, self.log_weight):
            if zero is not None:
                nn.init.zeros_(zero)

    def build(self, hypergraph: Hypergraph) -> FactoredMatrix:
        """M of a hypergraph. Without learnable weights build it once and hand it to every `forward`.

        Args:
            hypergraph: of ``num_hyperedges`` hyperedges where the layer learns their weights.

        Raises:
            ValueError: another number of hyperedges; node weights with an operator of MMHCL.

        Complexity: O(incidences).
        """
        weight = hypergraph.hyperedge_weight
        if self.log_weight is not None:
            if self.log_weight.shape[0] != hypergraph.num_hyperedges:
                raise ValueError(
                    f"the layer has weights for {self.log_weight.shape[0]} hyperedges, "
                    f"got a hypergraph of {hypergraph.num_hyperedges}"
                )
            learned = self.log_weight.exp()
            weight = learned if weight is None else weight * learned
        if self.operator == "mmhcl_user":
            return hypergraph.shared_propagation("row", keep_diagonal=False, hyperedge_weight=weight)
        if self.operator == "mmhcl_item":
            return hypergraph.shared_propagation("symmetric", keep_diagonal=True, hyperedge_weight=weight)
        return hypergraph.propagation("symmetric" if self.operator == "hgnn" else "row", weight)

    def forward(self, x: Tensor, hypergraph: Hypergraph | PropagationOperator) -> Tensor:
        """Convolved rows.

        Args:
            x: ``(V, in_channels)``.
            hypergraph: a hypergraph of V nodes, or M as `build` returns it.

        Returns:
            ``(V, out_channels)``, or the shape of ``x`` without Θ. A node in no hyperedge gives 0 (plus bias).

        Raises:
            ValueError: an operator for another number of nodes.
        """
        operator = self.build(hypergraph) if isinstance(hypergraph, Hypergraph) else hypergraph
        if operator.shape != (x.shape[0], x.shape[0]):
            raise ValueError(f"hypergraph must have {x.shape[0]} nodes to fit x, got {operator.shape[0]}")
        out = x if self.lin is None else self.lin(x)
        for _ in range(self.num_layers):
            out = operator @ out
        if self.bias is not None:
            out = out + self.bias
        return out if self.activation is None else self.activation(out)

    def extra_repr(self) -> str:
        return f"operator={self.operator!r}, num_layers={self.num_layers}"
