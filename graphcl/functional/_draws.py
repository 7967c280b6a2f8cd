"""Random numbers of objectives and views, each from the generator that is given.

They are drawn in float64 and then cast, so that a generator gives the same numbers in every precision.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["draw_beta", "draw_integers", "draw_permutation", "draw_uniform"]


def draw_uniform(*shape: int, like: Tensor, high: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
    """Uniform numbers in ``[0, high)``."""
    return (torch.rand(shape, dtype=torch.float64, device=like.device, generator=generator) * high).to(like.dtype)


def draw_beta(
    *shape: int, first: float, second: float, like: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """Numbers from Beta(first, second)."""
    if not (first > 0 and second > 0):
        raise ValueError(f"parameters of a Beta distribution must be above 0, got {first} and {second}")
    concentration = torch.tensor([first, second], dtype=torch.float64, device=like.device).expand(*shape, 2)
    return torch._sample_dirichlet(concentration.contiguous(), generator=generator)[..., 0].to(like.dtype)


def draw_integers(bound: int, *shape: int, device: torch.device, generator: torch.Generator | None = None) -> Tensor:
    """Integers in ``0 .. bound - 1``."""
    return torch.randint(bound, shape, device=device, generator=generator)


def draw_permutation(length: int, *, device: torch.device, generator: torch.Generator | None = None) -> Tensor:
    """A permutation of ``0 .. length - 1``."""
    return torch.randperm(length, device=device, generator=generator)
