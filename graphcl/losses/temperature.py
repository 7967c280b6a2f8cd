"""Temperatures: fixed, learned with bounds, learned for every sample, or computed for every pair."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = ["PairTemperature", "Temperature"]

_TILE_ROWS, _TILE_ELEMENTS = 64, 2**17


class Temperature(nn.Module):
    r"""A fixed or learned temperature, one for all samples or one each.

    A learned temperature is kept as :math:`\log \tau` and moved back between its bounds before it is used, so that it
    cannot reach 0 and its gradient never dies at a bound.

    Args:
        initial: first (or fixed) value.
        learnable: whether it is a parameter.
        minimum: lower bound of a learned temperature.
        maximum: upper bound of a learned temperature; none by default.
        num_samples: one learned temperature for each of so many samples, addressed by their ids.

    Raises:
        ValueError: a value out of range, or ``num_samples`` without ``learnable``.

    Shapes: ``forward()`` gives a number (fixed) or a 0-dim tensor; ``forward(ids)`` with per-sample temperatures gives
    ``(N,)`` for ids ``(N,)``.

    >>> Temperature(0.2)()
    0.2
    >>> Temperature(0.5, learnable=True)().requires_grad
    True
    """

    def __init__(
        self,
        initial: float = 0.1,
        *,
        learnable: bool = False,
        minimum: float = 1e-3,
        maximum: float = math.inf,
        num_samples: int | None = None,
    ) -> None:
        super().__init__()
        if not (initial > 0 and math.isfinite(initial)):
            raise ValueError(f"initial must be a finite number above 0, got {initial}")
        if learnable and not 0 < minimum <= initial <= maximum:
            raise ValueError(
                f"initial must lie between minimum and maximum, got {initial} outside {minimum} .. {maximum}"
            )
        if num_samples is not None and not learnable:
            raise ValueError("num_samples needs learnable=True, a fixed temperature is one number")
        self.initial = initial
        self.minimum = minimum
        self.maximum = maximum
        self.num_samples = num_samples
        self.log_temperature: nn.Parameter | None
        if learnable:
            start = torch.full(() if num_samples is None else (num_samples,), math.log(initial))
            self.log_temperature = nn.Parameter(start)
        else:
            self.register_parameter("log_temperature", None)

    def forward(self, ids: Tensor | None = None) -> float | Tensor:
        if self.log_temperature is None:
            return self.initial
        with torch.no_grad():
            self.log_temperature.clamp_(math.log(self.minimum), math.log(self.maximum))
        if self.num_samples is None:
            return torch.exp(self.log_temperature)
        if ids is None:
            raise ValueError(f"temperatures of {self.num_samples} samples need ids, got None")
        return torch.exp(self.log_temperature[ids])

    def extra_repr(self) -> str:
        return f"{self.initial}, learnable={self.log_temperature is not None}, num_samples={self.num_samples}"


def as_temperature(temperature: float | Temperature) -> Temperature:
    """A `Temperature` as it is, a number as a fixed one."""
    return temperature if isinstance(temperature, Temperature) else Temperature(temperature)


class PairTemperature(nn.Module):
    r"""A temperature for every pair from a small network on both embeddings.

    .. math:: \tau_{ij} = lo + (hi - lo)\, \sigma\bigl(w \cdot \operatorname{relu}(W_a a_i + W_b b_j + v) + c \bigr)

    The first layer is split, so its products are taken once a row and not once a pair. "Adaptive Multi-head Contrastive
    Learning". Confidence: U.

    Args:
        dim: d of the embeddings.
        hidden: width of the hidden layer.
        low: lower bound.
        high: upper bound.
        generator: draws the initial weights.

    Raises:
        ValueError: bounds out of order.

    Shapes: ``(b, d)`` and ``(C, d)`` to ``(b, C)``. Complexity: O(b C hidden) time, O(b C + (b + C) hidden) memory: the
    hidden layer of the pairs is gone through one unit at a time, in backward again. Differentiable once.

    >>> import torch
    >>> network = PairTemperature(4)
    >>> network(torch.zeros(2, 4), torch.zeros(3, 4)).shape
    torch.Size([2, 3])
    """

    def __init__(
        self,
        dim: int,
        hidden: int = 128,
        *,
        low: float = 1e-2,
        high: float = 2.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if not 0 < low < high:
            raise ValueError(f"low must be above 0 and below high, got {low} and {high}")
        self.low = low
        self.high = high
        self.hidden = hidden
        inner, outer = 1.0 / math.sqrt(2 * dim), 1.0 / math.sqrt(hidden)

        def drawn(*shape: int, bound: float) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape).uniform_(-bound, bound, generator=generator))

        self.anchor_weight = drawn(hidden, dim, bound=inner)
        self.candidate_weight = drawn(hidden, dim, bound=inner)
        self.bias = drawn(hidden, bound=inner)
        self.output_weight = drawn(hidden, bound=outer)
        self.output_bias = drawn(1, bound=outer)

    def forward(self, anchors: Tensor, candidates: Tensor) -> Tensor:
        left = anchors @ self.anchor_weight.T + self.bias
        right = candidates @ self.candidate_weight.T
        score: Tensor = _HiddenLayer.apply(left, right, self.output_weight)  # type: ignore[no-untyped-call]
        score = score + self.output_bias
        return self.low + (self.high - self.low) * torch.sigmoid(score)

    def extra_repr(self) -> str:
        return f"dim={self.anchor_weight.shape[1]}, hidden={self.hidden}, low={self.low}, high={self.high}"


class _HiddenLayer(torch.autograd.Function):
    r"""``sum_k w_k relu(l_ik + r_jk)``, tile by tile and one k at a time, so that no tile leaves the cache.

    With upstream g, ``m_k = g [l_k + r_k > 0]`` gives everything: its row sums times w_k are the gradient of l_k, its
    column sums times w_k that of r_k, and ``sum_i l_ik (row sum) + sum_j r_jk (column sum)`` that of w_k.
    """

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(left, right, weight)
        columns, unit = left.T.contiguous()[:, :, None], right.T.contiguous()[:, None, :]
        out = left.new_zeros(left.shape[0], right.shape[0])
        for rows, across, buffer in _tiles(out):
            tile = out[rows, across]
            for k in range(weight.shape[0]):
                hidden = torch.add(columns[k, rows], unit[k, :, across], out=buffer)
                tile.addcmul_(hidden.relu_(), weight[k])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        left, right, weight = ctx.saved_tensors
        columns, unit = left.T.contiguous()[:, :, None], right.T.contiguous()[:, None, :]
        to_left, to_right = torch.zeros_like(columns)[:, :, 0], torch.zeros_like(unit)[:, 0]
        for rows, across, buffer in _tiles(upstream):
            tile = upstream[rows, across]
            ones = upstream.new_ones(tile.shape[1]), upstream.new_ones(tile.shape[0])
            for k in range(weight.shape[0]):
                hidden = torch.add(columns[k, rows], unit[k, :, across], out=buffer)
                # Into a float buffer: comparisons to bool and masks are several times slower on a CPU.
                active = torch.gt(hidden, 0.0, out=hidden).mul_(tile)
                to_left[k, rows] += active @ ones[0]
                to_right[k, across] += ones[1] @ active
        to_weight = (to_left * columns[:, :, 0]).sum(dim=1) + (to_right * unit[:, 0]).sum(dim=1)
        return to_left.T * weight, to_right.T * weight, to_weight


def _tiles(matrix: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    """Tiles that fit the second-level cache, each with a buffer of its shape."""
    height = max(1, min(matrix.shape[0], _TILE_ROWS))
    width = max(1, min(matrix.shape[1], _TILE_ELEMENTS // height))
    flat = matrix.new_empty(height * width)
    for top in range(0, matrix.shape[0], height):
        for start in range(0, matrix.shape[1], width):
            rows, across = (
                slice(top, min(top + height, matrix.shape[0])),
                slice(start, min(start + width, matrix.shape[1])),
            )
            shape = rows.stop - rows.start, across.stop - across.start
            yield rows, across, flat[: shape[0] * shape[1]].view(shape)
