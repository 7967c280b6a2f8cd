"""Weighted sums of tanh(a + b) over all pairs of a and b as one matrix product."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["separable", "separated_sums"]

# Most Chebyshev polynomials a unit; beyond, products cost more than the function itself.
_MOST_POLYNOMIALS = 40
# tanh is analytic up to pi / 2 off the real axis; within this distance it is at most tan 1.4.
_DISTANCE = 1.4


def separable(b: Tensor) -> bool:
    """Whether `separated_sums` takes these second summands: there are some, and their range is not too large.

    Args:
        b: ``(M, h)``.

    Complexity: O(M h).

    >>> separable(torch.tensor([[0.1], [-0.3]])), separable(torch.tensor([[100.0], [-0.3]]))
    (True, False)
    """
    return b.numel() > 0 and _polynomials(_half_range(b), torch.finfo(b.dtype).eps) <= _MOST_POLYNOMIALS


def separated_sums(a: Tensor, b: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    r"""Matrices whose product holds the sums of a network with one hidden layer on all pairs, to rounding error.

    .. math:: \sum_h w_h \tanh(a_{ih} + b_{jh}) = \sum_h \sum_{k < r} c_k(a_{ih})\, w_h T_k(b_{jh} / s)

    with Chebyshev polynomials T of b over its range, and c from the values at r Chebyshev nodes. The error falls as
    :math:`\rho^{-r}` with :math:`\rho = v + \sqrt{v^2 + 1}`, v the distance of the poles over half the range of b
    (L. N. Trefethen, "Approximation Theory and Approximation Practice", 2019,
    https://epubs.siam.org/doi/book/10.1137/1.9781611975949), which decides r: some 10 for float32 and a range of 1.

    Args:
        a: ``(N, h)``.
        b: ``(M, h)``, `separable`.
        weight: ``(h,)``.

    Returns:
        ``(N, 1 + h (r - 1))`` and ``(M, 1 + h (r - 1))``, differentiable.

    Complexity: O((N r + M) h r) time.

    >>> left, right = separated_sums(torch.tensor([[0.2]]), torch.tensor([[0.1], [-0.3]]), torch.ones(1))
    >>> torch.allclose(left @ right.T, torch.tensor([[0.3, -0.1]]).tanh(), atol=1e-6)
    True
    """
    low, high = b.detach().amin(dim=0), b.detach().amax(dim=0)
    half = _half_range(b)
    number = int(_polynomials(half, torch.finfo(b.dtype).eps))
    centre = (low + high) / 2
    angles = (torch.arange(number, dtype=torch.float64) + 0.5) * (math.pi / number)
    degrees = torch.arange(number, dtype=torch.float64)
    # From values at the nodes to coefficients of the polynomials.
    transform = torch.cos(angles[:, None] * degrees) * (2.0 / number)
    transform[:, 0] /= 2
    nodes = (half * torch.cos(angles)).to(a)
    left = torch.tanh((a + centre)[:, :, None] + nodes) @ transform.to(a)
    t = (b - centre) / half
    polynomials = [torch.ones_like(t), t]
    while len(polynomials) < number:
        polynomials.append(2 * t * polynomials[-1] - polynomials[-2])
    right = torch.stack([polynomial * weight for polynomial in polynomials[1:]], dim=2)
    # The constants of all units are one column.
    constant = (left[:, :, 0] @ weight)[:, None]
    return torch.cat([constant, left[:, :, 1:].flatten(1)], 1), torch.cat(
        [b.new_ones(b.shape[0], 1), right.flatten(1)], 1
    )


def _half_range(b: Tensor) -> float:
    low, high = b.detach().amin(dim=0), b.detach().amax(dim=0)
    return max(float((high - low).max()) / 2, 1e-3)


def _polynomials(half: float, precision: float) -> float:
    """How many polynomials keep the error below the precision, infinitely many for a range that is not finite."""
    if not half < 1e3:
        return math.inf
    distance = _DISTANCE / half
    rho = distance + math.hypot(distance, 1.0)
    number = math.log(2 * math.tan(_DISTANCE) / ((rho - 1.0) * precision)) / math.log(rho)
    return max(2, math.ceil(number) + 1)
