"""Propagation without weights and activations, as in LightGCN and its descendants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from graphcl.graphs.operators import BipartiteOperator, PropagationOperator
from graphcl.kernels import SparseMatrix

__all__ = ["LightGCNConv"]


class LightGCNConv(nn.Module):
    r"""Propagation of LightGCN (He et al., 2020, https://arxiv.org/abs/2002.02126); it has no parameters.

    .. math:: E^{(l+1)} = \tilde A E^{(l)}, \qquad
        E = \frac{1}{L+1} \sum_{l=0}^{L} E^{(l)} \;(\text{mean, with ego})

    Args:
        num_layers: L, at least 0.
        reduce: ``mean`` (paper) or ``sum`` (SSLRec) of the layers.
        include_ego: whether layer 0, the table itself, takes part. SimGCL and XSimGCL leave it out.

    Raises:
        ValueError: an argument out of range, or no layer left to reduce.

    Complexity: O(L E d) time; O(n d) memory beside what autograd keeps (nothing: the propagation is linear).

    >>> import torch
    >>> from graphcl.graphs.bipartite import BipartiteGraph
    >>> graph = BipartiteGraph(1, 1, torch.tensor([0]), torch.tensor([0]))
    >>> LightGCNConv(1)(torch.tensor([[1.0], [3.0]]), graph.normalized())
    tensor([[2.],
            [2.]])
    """

    def __init__(self, num_layers: int, *, reduce: Literal["mean", "sum"] = "mean", include_ego: bool = True) -> None:
        super().__init__()
        if isinstance(num_layers, bool) or not isinstance(num_layers, int) or num_layers < 0:
            raise ValueError(f"num_layers must be an integer of at least 0, got {num_layers!r}")
        if reduce not in ("mean", "sum"):
            raise ValueError(f"reduce must be 'mean' or 'sum', got {reduce!r}")
        if num_layers == 0 and not include_ego:
            raise ValueError("num_layers must be at least 1 where include_ego is False, got 0")
        self.num_layers = num_layers
        self.reduce = reduce
        self.include_ego = include_ego

    def layers(
        self,
        x: Tensor,
        operator: PropagationOperator | Sequence[PropagationOperator],
        perturb: Callable[[Tensor], Tensor] | None = None,
    ) -> list[Tensor]:
        """All layers ``[E0, E1, .., EL]``, each ``(n, d)``.

        Args:
            x: ``(n, d)``.
            operator: the normalised adjacency, or one for each layer (the random walk of SGL).
            perturb: applied to every propagated layer before it is propagated further (the noise of SimGCL).

        Raises:
            ValueError: as many operators as layers are needed, and they must fit ``x``.
        """
        out = [x]
        for one in self._operators(x, operator):
            propagated = one @ out[-1]
            out.append(propagated if perturb is None else perturb(propagated))
        return out

    def combine(self, layers: Sequence[Tensor]) -> Tensor:
        """Sum or mean of the layers ``[E0, .., EL]``, without layer 0 where ``include_ego`` is off."""
        chosen = layers if self.include_ego else layers[1:]
        divisor = len(chosen) if self.reduce == "mean" else 1
        combined: Tensor = _SumOverLayers.apply(divisor, *chosen)  # type: ignore[no-untyped-call]
        return combined

    def forward(
        self,
        x: Tensor,
        operator: PropagationOperator | Sequence[PropagationOperator],
        perturb: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """The combined layers, ``(n, d)``; arguments as in `layers`."""
        if perturb is None and self.num_layers > 0 and not isinstance(operator, Sequence) and _is_constant(operator):
            self._operators(x, operator)
            divisor = (self.num_layers + self.include_ego) if self.reduce == "mean" else 1
            arguments = x, operator, self.num_layers, self.include_ego, divisor
            propagated: Tensor = _Propagation.apply(*arguments)  # type: ignore[no-untyped-call]
            return propagated
        return self.combine(self.layers(x, operator, perturb))

    def extra_repr(self) -> str:
        return f"num_layers={self.num_layers}, reduce={self.reduce!r}, include_ego={self.include_ego}"

    def _operators(
        self, x: Tensor, operator: PropagationOperator | Sequence[PropagationOperator]
    ) -> Sequence[PropagationOperator]:
        operators = operator if isinstance(operator, Sequence) else [operator] * self.num_layers
        if len(operators) != self.num_layers:
            raise ValueError(f"operator must be one, or one for each of {self.num_layers} layers, got {len(operators)}")
        for one in operators:
            if one.shape != (x.shape[0], x.shape[0]):
                raise ValueError(f"operator must have shape ({x.shape[0]}, {x.shape[0]}) to fit x, got {one.shape}")
        return operators


def _is_constant(operator: PropagationOperator) -> bool:
    """Whether it is known that no gradient is wanted for the operator."""
    matrix = operator.block if isinstance(operator, BipartiteOperator) else operator
    return isinstance(matrix, SparseMatrix) and not (matrix.values is not None and matrix.values.requires_grad)


class _Propagation(torch.autograd.Function):
    """``(x + A x + .. + A^L x) / divisor`` for a constant A, in two buffers; its gradient is the same of ``A^T``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, operator: Any, num_layers: int, include_ego: bool, divisor: int) -> Tensor:
        ctx.settings = operator, num_layers, include_ego, divisor
        layer: Tensor = operator @ x.detach()
        total = layer.add(x.detach()) if include_ego else layer.clone() if num_layers > 1 else layer
        for _ in range(num_layers - 1):
            layer = operator @ layer
            total.add_(layer)
        return total if divisor == 1 else total.div_(divisor)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        operator, *settings = ctx.settings
        return _Propagation.apply(upstream, operator.T, *settings), None, None, None, None  # type: ignore[no-untyped-call]


class _SumOverLayers(torch.autograd.Function):
    """``(x_1 + .. + x_k) / divisor`` in one buffer."""

    @staticmethod
    def forward(ctx: Any, divisor: int, *layers: Tensor) -> Tensor:
        ctx.divisor, ctx.count = divisor, len(layers)
        total = layers[0].clone() if len(layers) == 1 else layers[0] + layers[1]
        for layer in layers[2:]:
            total.add_(layer)
        return total if divisor == 1 else total.div_(divisor)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        share = upstream if ctx.divisor == 1 else upstream / ctx.divisor
        return None, *[share] * ctx.count
