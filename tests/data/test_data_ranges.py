from __future__ import annotations

import numpy as np
import pytest

from graphcl.data.ranges import offsets_of, places_of


@pytest.mark.parametrize("lengths", [[], [0], [3], [2, 0, 0, 4, 1], [0, 0]])
def test_ranges_by_loops(lengths: list[int]) -> None:
    count = np.array(lengths, dtype=np.int64)
    start = np.random.default_rng(0).integers(50, size=count.size)
    offsets = offsets_of(count)
    assert offsets.tolist() == [sum(lengths[:place]) for place in range(len(lengths) + 1)]
    places = places_of(start, count)
    assert places.tolist() == [
        first + step for first, n in zip(start.tolist(), lengths, strict=True) for step in range(n)
    ]
    assert offsets.dtype == places.dtype == np.int64
