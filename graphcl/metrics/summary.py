"""Mean and deviation over repeats or seeds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

__all__ = ["MeanStd", "mean_and_deviation"]


class MeanStd(NamedTuple):
    """Mean and population standard deviation."""

    mean: float
    std: float


def mean_and_deviation(values: Iterable[float]) -> MeanStd:
    """Mean and population standard deviation (divisor: the number of values).

    Args:
        values: at least one number.

    Returns:
        Both.

    Raises:
        ValueError: there is no value.

    Complexity:
        O(n).

    Example:
        >>> mean_and_deviation([1.0, 3.0])
        MeanStd(mean=2.0, std=1.0)
    """
    array = np.fromiter(values, dtype=np.float64)
    if not array.size:
        raise ValueError("values must hold at least one number, got none")
    return MeanStd(float(array.mean()), float(array.std()))
