"""Packing keeps every token once, in place, and attention inside each sequence."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from graphcl.nn import pack_sequences


def offsets_of(lengths: list[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


@pytest.mark.parametrize(
    "lengths", [[1], [3, 1, 2], [5, 5, 5], [1] * 12, [2, 7, 1, 1, 4, 3], list(range(1, 20)), [4, 4, 3, 3, 2, 2, 1, 1]]
)
@pytest.mark.parametrize("extra", [0, 3])
def test_every_token_stands_once_and_in_order(lengths: list[int], extra: int) -> None:
    offsets = offsets_of(lengths)
    items = np.arange(1, offsets[-1] + 1)
    packed = pack_sequences(items, offsets, width=max(lengths) + extra)
    flat = packed.items.flatten()
    assert torch.equal(flat[packed.slots], torch.from_numpy(items))
    assert int((flat != 0).sum()) == items.size
    for number, (start, stop) in enumerate(itertools.pairwise(offsets.tolist())):
        slots = packed.slots[start:stop]
        assert torch.equal(slots, torch.arange(int(slots[0]), int(slots[0]) + len(slots)))  # neighbours, in order
        assert int(slots[0]) // packed.items.shape[1] == int(slots[-1]) // packed.items.shape[1]  # one row
        assert packed.segments.flatten()[slots].tolist() == [number] * len(slots)
        assert packed.positions.flatten()[slots].tolist() == list(range(len(slots)))
        assert int(packed.last[number]) == int(slots[-1])
    assert (packed.segments.flatten()[flat == 0] == -1).all()


def test_first_fit_decreasing_leaves_little_room() -> None:
    lengths = np.random.default_rng(0).geometric(0.15, size=500).clip(max=50).tolist()
    packed = pack_sequences(np.ones(sum(lengths), dtype=np.int64), offsets_of(lengths), width=50)
    assert packed.items.numel() <= 1.03 * sum(lengths) + 50


def test_attention_mask_is_causal_and_stays_inside_a_sequence() -> None:
    packed = pack_sequences(np.array([1, 2, 3, 4, 5]), offsets_of([2, 3]), width=6)
    mask = packed.attention_mask()[0, 0]
    segments = packed.segments[0].tolist()
    for query in range(6):
        for key in range(6):
            assert bool(mask[query, key]) == (segments[query] == segments[key] and key <= query)


def test_nothing_to_pack_gives_one_empty_row() -> None:
    packed = pack_sequences(np.empty(0, dtype=np.int64), np.zeros(1, dtype=np.int64))
    assert packed.items.tolist() == [[0]]
    assert packed.num_sequences == 0


def test_bad_sequences_are_refused() -> None:
    with pytest.raises(ValueError, match="got an empty one"):
        pack_sequences(np.array([1]), np.array([0, 1, 1]))
    with pytest.raises(ValueError, match=r"width must hold the longest sequence \(3\), got 2"):
        pack_sequences(np.array([1, 2, 3]), np.array([0, 3]), width=2)
