"""Two-dimensional maps of embeddings for looking at them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["project_2d", "sample_for_map"]


def project_2d(
    embeddings: npt.NDArray[np.floating[Any]], *, normalize: bool = False
) -> tuple[npt.NDArray[np.float32], tuple[float, float]]:
    """Coordinates of embeddings on their first two principal components.

    The signs are fixed (the largest loading of each component is positive), so equal input gives an equal map.

    Args:
        embeddings: ``[V, d]`` finite.
        normalize: scale rows to unit length first, which suits embeddings compared by cosine.

    Returns:
        ``[V, 2]`` coordinates and the shares of the variance that the two components explain. A missing second
        component (``d`` or ``V`` below 2) is 0.

    Raises:
        ValueError: not a matrix, or values that are not finite.

    Complexity:
        Time O(V d^2 + d^3), memory O(V d).

    Example:
        >>> coordinates, shares = project_2d(np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 1.0], [2.0, 0.0, 1.0]]))
        >>> coordinates[:, 0].tolist(), [round(share, 6) for share in shares]
        ([-1.0, 0.0, 1.0], [1.0, 0.0])
    """
    points = np.asarray(embeddings, dtype=np.float64)
    if points.ndim != 2:
        raise ValueError(f"embeddings must be [V, d], got shape {points.shape}")
    if not np.isfinite(points).all():
        raise ValueError("embeddings hold a value that is not finite")
    coordinates = np.zeros((points.shape[0], 2), dtype=np.float32)
    if points.shape[0] < 2:
        return coordinates, (0.0, 0.0)
    if normalize:
        norms = np.linalg.norm(points, axis=1, keepdims=True)
        points = np.divide(points, norms, out=np.zeros_like(points), where=norms > 0)
    points = points - points.mean(0)
    variance, axes = np.linalg.eigh(points.T @ points)
    leading = axes[:, ::-1][:, :2]
    leading = leading * np.sign(leading[np.abs(leading).argmax(0), np.arange(leading.shape[1])])
    coordinates[:, : leading.shape[1]] = points @ leading
    total = float(variance.clip(min=0).sum())
    shares = [float(max(value, 0.0)) / total if total > 0 else 0.0 for value in variance[::-1][:2]]
    return coordinates, (shares[0], shares[1] if len(shares) > 1 else 0.0)


def sample_for_map(
    weights: npt.NDArray[np.number[Any]], size: int, generator: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Rows to draw on a map: all of them, or a random ``size`` with popular rows likelier.

    Rows are drawn without replacement with chance proportional to ``1 + log(1 + weight)``, so the head of the
    catalogue is recognisable while the tail is still there.

    Args:
        weights: ``[V]`` popularity, not negative.
        size: most rows to return.
        generator: source of the draws.

    Returns:
        At most ``size`` rising row numbers.

    Raises:
        ValueError: negative or non-finite weights, or ``size < 1``.

    Complexity:
        Time O(V log V), memory O(V).

    Example:
        >>> sample_for_map(np.array([5, 0, 2]), 10, np.random.default_rng(0)).tolist()
        [0, 1, 2]
    """
    values = np.asarray(weights, dtype=np.float64)
    if size < 1:
        raise ValueError(f"size must be positive, got {size}")
    if values.ndim != 1 or not np.isfinite(values).all() or (values < 0).any():
        raise ValueError("weights must be [V], finite and not negative")
    if values.shape[0] <= size:
        return np.arange(values.shape[0], dtype=np.int64)
    # Exponential keys scaled by the weight: the smallest ones are a weighted sample without replacement.
    keys = generator.exponential(size=values.shape[0]) / (1 + np.log1p(values))
    return np.sort(np.argpartition(keys, size)[:size]).astype(np.int64)
