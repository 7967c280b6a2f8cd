"""Many short sequences laid side by side in rows of one width, so that no time goes into padding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PackedSequences:
    """Sequences packed into rows; attention stays inside a sequence.

    Args:
        items: [R, C] item ids, 0 in unused slots.
        positions: [R, C] place of each slot inside its own sequence, from 0.
        segments: [R, C] number of the sequence that owns the slot, -1 in unused slots.
        slots: [T] flat slot (row * C + column) of every token, sequence by sequence in the order given.
        last: [S] flat slot of the last token of every sequence.

    Example:
        >>> packed = pack_sequences(np.array([5, 6, 7, 8]), np.array([0, 3, 4]))
        >>> packed.items.tolist(), packed.positions.tolist(), packed.last.tolist()
        ([[5, 6, 7], [8, 0, 0]], [[0, 1, 2], [0, 0, 0]], [2, 3])
    """

    items: Tensor
    positions: Tensor
    segments: Tensor
    slots: Tensor
    last: Tensor

    @property
    def num_sequences(self) -> int:
        """Number of sequences that were packed."""
        return int(self.last.shape[0])

    def attention_mask(self) -> Tensor:
        """[R, 1, C, C], True where the query (third axis) may see the key: same sequence and not later.

        Unused slots see each other, so no softmax is empty; their output is never read.
        """
        width = self.items.shape[1]
        causal = torch.ones(width, width, dtype=torch.bool, device=self.items.device).tril_()
        return (self.segments[:, None, :, None] == self.segments[:, None, None, :]) & causal

    def to(self, device: torch.device | str) -> PackedSequences:
        """The same sequences on another device."""
        return PackedSequences(
            *(getattr(self, name).to(device) for name in ("items", "positions", "segments", "slots", "last"))
        )


def pack_sequences(items: IntArray, offsets: IntArray, width: int | None = None) -> PackedSequences:
    """Pack sequences into as few rows of one width as first-fit decreasing finds.

    First-fit decreasing needs at most 11/9 of the best number of rows (Johnson, 1973). Equal lengths are placed
    together, so the work in Python is one pass over the distinct lengths, not over the sequences.

    Args:
        items: [T] ids of all sequences, one after the other.
        offsets: [S + 1] start of each sequence in ``items``; every sequence holds at least one id.
        width: slots a row; the longest sequence when None.

    Returns:
        The packed rows, on the CPU.

    Raises:
        ValueError: when a sequence is empty or longer than ``width``.

    Complexity: time O(T + S log S + lengths * rows), memory O(R * C).

    Example:
        >>> pack_sequences(np.arange(1, 7), np.array([0, 1, 4, 6]), width=3).items.tolist()
        [[2, 3, 4], [5, 6, 1]]
    """
    lengths = np.diff(offsets)
    if lengths.size and lengths.min() < 1:
        raise ValueError("every sequence needs at least one item; got an empty one")
    longest = int(lengths.max(initial=1))
    width = longest if width is None else width
    if longest > width:
        raise ValueError(f"width must hold the longest sequence ({longest}), got {width}")
    start, num_rows = _first_fit_decreasing(lengths, width)

    num_tokens = int(offsets[-1]) if lengths.size else 0
    position = np.arange(num_tokens) - np.repeat(offsets[:-1], lengths)
    slots = np.repeat(start, lengths) + position
    rows = np.zeros((3, num_rows * width), dtype=np.int64)
    rows[2] = -1
    rows[0, slots] = items[:num_tokens]
    rows[1, slots] = position
    rows[2, slots] = np.repeat(np.arange(lengths.size), lengths)
    packed = torch.from_numpy(rows.reshape(3, num_rows, width))
    return PackedSequences(
        packed[0], packed[1], packed[2], torch.from_numpy(slots), torch.from_numpy(start + lengths - 1)
    )


def _first_fit_decreasing(lengths: IntArray, width: int) -> tuple[IntArray, int]:
    """Flat start slot of each sequence and the number of rows."""
    start = np.empty(lengths.size, dtype=np.int64)
    order = np.argsort(-lengths, kind="stable")
    distinct, counts = np.unique(-lengths, return_counts=True)
    free = np.empty(0, dtype=np.int64)  # free slots of each open row
    done = 0
    for length, count in zip((-distinct).tolist(), counts.tolist(), strict=True):
        fits = np.cumsum(free // length)  # sequences of this length that rows 0..r can take
        room = int(fits[-1]) if fits.size else 0
        if room < count:
            per_row = width // length
            free = np.concatenate([free, np.full(-(-(count - room) // per_row), width)])
            fits = np.cumsum(free // length)
        copy = np.arange(count)
        row = np.searchsorted(fits, copy, side="right")
        place = copy - np.where(row > 0, fits[row - 1], 0)  # how many of this length stand before it in its row
        start[order[done : done + count]] = row * width + (width - free[row]) + place * length
        free -= np.bincount(row, minlength=free.size) * length
        done += count
    return start, max(int(free.size), 1)
