"""Ranges of one shared array: where each begins, and the places that they cover."""

from __future__ import annotations

import numpy as np

from graphcl.data.ids import IntArray


def offsets_of(lengths: IntArray) -> IntArray:
    """Where ranges of these lengths begin when they stand one after the other, and where the last ends.

    Args:
        lengths: int64[n].

    Returns:
        int64[n + 1], from 0.

    Complexity:
        O(n).

    Example:
        >>> offsets_of(np.array([2, 0, 3])).tolist()
        [0, 2, 2, 5]
    """
    offsets = np.zeros(lengths.size + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def places_of(start: IntArray, lengths: IntArray) -> IntArray:
    """The places ``start[0] .. start[0] + lengths[0] - 1``, those from ``start[1]``, and so on in one array.

    Args:
        start: int64[n], first place of each range.
        lengths: int64[n].

    Returns:
        int64[sum of lengths].

    Complexity:
        O(n + sum of lengths).

    Example:
        >>> places_of(np.array([5, 0]), np.array([2, 3])).tolist()
        [5, 6, 0, 1, 2]
    """
    offsets = offsets_of(lengths)
    return np.arange(offsets[-1], dtype=np.int64) + np.repeat(start - offsets[:-1], lengths)
