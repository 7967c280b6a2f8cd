"""Checks and preparation of embeddings that several objectives share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from graphcl.kernels import normalize_rows
from graphcl.kernels._arguments import check_matrix, check_same_space, compute_dtype

__all__ = ["check_labels", "check_temperature", "logits_of", "unit_rows", "unit_views"]


def unit_rows(name: str, z: Tensor) -> Tensor:
    """Rows of unit length in the accumulation type: float64 for float64 embeddings, float32 for narrower ones."""
    check_matrix(name, z)
    return normalize_rows(z.to(compute_dtype(z.dtype)))


def unit_views(views: Sequence[Tensor] | Tensor, *, at_least: int = 2) -> Tensor:
    """``(V, N, d)`` of unit rows from a sequence of ``(N, d)`` views or one ``(V, N, d)`` tensor."""
    parts = list(views)
    if len(parts) < at_least:
        raise ValueError(f"views must hold at least {at_least} views, got {len(parts)}")
    for position, part in enumerate(parts):
        check_same_space("views[0]", parts[0], f"views[{position}]", part)
        if part.shape[0] != parts[0].shape[0]:
            raise ValueError(
                f"views[{position}] must have as many rows as views[0], got {part.shape[0]} and {parts[0].shape[0]}"
            )
    # Stacked first: the stack is not needed any more once it is normalised, single unit views would be.
    return unit_rows("views", torch.cat(parts)).view(len(parts), *parts[0].shape)


def check_temperature(temperature: float | Tensor) -> None:
    """One positive number for all pairs, as a float or as a 0-dim tensor."""
    if isinstance(temperature, Tensor) and temperature.dim() != 0:
        raise ValueError(f"temperature must be a number or a 0-dim tensor, got shape {tuple(temperature.shape)}")
    value = float(temperature.detach()) if isinstance(temperature, Tensor) else float(temperature)
    if not value > 0:
        raise ValueError(f"temperature must be above 0, got {value}")


def check_labels(name: str, labels: Tensor, rows: int, *, integer: bool) -> None:
    """A vector with one label a row."""
    if labels.shape != (rows,):
        raise ValueError(f"{name} must have shape ({rows},), got shape {tuple(labels.shape)}")
    if integer and (labels.dtype.is_floating_point or labels.dtype == torch.bool):
        raise TypeError(f"{name} must be an integer tensor, got dtype {labels.dtype}")


def logits_of(similarity: Tensor, temperature: float | Tensor) -> Tensor:
    """``similarity / temperature`` in the type of ``similarity``, also for a wider learnable temperature."""
    return similarity / (temperature.to(similarity.dtype) if isinstance(temperature, Tensor) else temperature)
