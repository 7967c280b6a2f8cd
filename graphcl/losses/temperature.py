"""Temperatures: fixed, learned with bounds, learned for every sample, or computed for every pair."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["PairTemperature", "Temperature"]


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

    Shapes: ``(b, d)`` and ``(C, d)`` to ``(b, C)``. Complexity: O(b C hidden) time and memory.

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
        score = torch.relu(left[:, None, :] + right[None, :, :]) @ self.output_weight + self.output_bias
        return self.low + (self.high - self.low) * torch.sigmoid(score)

    def extra_repr(self) -> str:
        return f"dim={self.anchor_weight.shape[1]}, hidden={self.hidden}, low={self.low}, high={self.high}"
