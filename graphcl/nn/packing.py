"""Many short sequences laid side by side in rows of one width, so that no time goes into padding."""

from __future__ import annotations

from dataclasses import dataclass, replace

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
        hides_zeros: whether tokens may have id 0 (a masked item); no other token sees those.

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
    hides_zeros: bool = False

    @property
    def num_sequences(self) -> int:
        """Number of sequences that were packed."""
        return int(self.last.shape[0])

    def attention_mask(self) -> Tensor:
        """[R, 1, C, C], True where the query (third axis) may see the key: same sequence and not later.

        Unused slots see each other, so no softmax is empty; their output is never read. Where zeros are hidden, a
        token that would see nothing sees itself.
        """
        width = self.items.shape[1]
        causal = torch.ones(width, width, dtype=torch.bool, device=self.items.device).tril_()
        visible = (self.segments[:, None, :, None] == self.segments[:, None, None, :]) & causal
        if self.hides_zeros:
            visible = visible & (self.items != 0)[:, None, None, :]
            itself = torch.eye(width, dtype=torch.bool, device=self.items.device)
            visible = visible | (itself & ~visible.any(-1, keepdim=True))
        return visible

    def with_items(self, items: Tensor) -> PackedSequences:
        """The same layout with other items in its slots, [R, C]."""
        return replace(self, items=items)

    def padded(self, values: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The sequences in a row each, right-padded with 0.

        Args:
            values: [R, C, ...] one value a slot; the items when None.

        Returns:
            [S, L, ...] values and [S] lengths; L is 1 where there is no sequence: some encoders refuse a width of 0.
        """
        values = self.items if values is None else values
        owner = self.segments.flatten()[self.slots]
        place = self.positions.flatten()[self.slots]
        lengths = self.positions.flatten()[self.last] + 1
        rows = values.new_zeros(self.num_sequences, int(lengths.max()) if lengths.numel() else 1, *values.shape[2:])
        return rows.index_put((owner, place), values.flatten(0, 1)[self.slots]), lengths

    def to(self, device: torch.device | str) -> PackedSequences:
        """The same sequences on another device."""
        items, positions, segments, slots, last = (
            tensor.to(device) for tensor in (self.items, self.positions, self.segments, self.slots, self.last)
        )
        return PackedSequences(items, positions, segments, slots, last, self.hides_zeros)


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
    layout = _layout(lengths, width)
    rows = np.zeros(layout.num_rows * layout.width, dtype=np.int64)
    rows[layout.slots] = items[: layout.slots.size]
    return layout.filled(torch.from_numpy(rows))


def pack_padded(
    items: Tensor, lengths: Tensor, width: int | None = None, *, hides_zeros: bool = False
) -> PackedSequences:
    """Pack right-padded sequences, on the device they are on.

    Args:
        items: [S, L] ids.
        lengths: [S] items of each sequence, at least 1.
        width: slots a row; the longest sequence when None.
        hides_zeros: see :class:`PackedSequences`; for sequences whose tokens may have id 0.

    Returns:
        The packed rows.

    Raises:
        ValueError: as :func:`pack_sequences`.

    Complexity: as :func:`pack_sequences`; the lengths are read by the processor, which waits for a device once.

    Example:
        >>> pack_padded(torch.tensor([[1, 2, 0], [3, 4, 5], [6, 0, 0]]), torch.tensor([2, 3, 1])).items.tolist()
        [[3, 4, 5], [1, 2, 6]]
    """
    layout = _layout(lengths.cpu().numpy(), width)
    owner, place = (torch.from_numpy(index).to(items.device) for index in (layout.owner, layout.place))
    rows = items.new_zeros(layout.num_rows * layout.width)
    rows[torch.from_numpy(layout.slots).to(items.device)] = items[owner, place]
    return replace(layout.filled(rows), hides_zeros=hides_zeros)


@dataclass(frozen=True)
class _Layout:
    """Where tokens go: rows and width of the table, and for each token its slot, sequence and place in it."""

    num_rows: int
    width: int
    slots: IntArray
    owner: IntArray
    place: IntArray
    last: IntArray

    def filled(self, items: Tensor) -> PackedSequences:
        """The sequences whose flat slots hold ``items``."""
        rows = np.zeros((2, self.num_rows * self.width), dtype=np.int64)
        rows[1] = -1
        rows[0, self.slots] = self.place
        rows[1, self.slots] = self.owner
        table = torch.from_numpy(rows.reshape(2, self.num_rows, self.width)).to(items.device)
        slots, last = torch.from_numpy(self.slots), torch.from_numpy(self.last)
        return PackedSequences(
            items.view(self.num_rows, self.width), table[0], table[1], slots.to(items.device), last.to(items.device)
        )


def _layout(lengths: IntArray, width: int | None) -> _Layout:
    if lengths.size and lengths.min() < 1:
        raise ValueError("every sequence needs at least one item; got an empty one")
    longest = int(lengths.max(initial=1))
    width = longest if width is None else width
    if longest > width:
        raise ValueError(f"width must hold the longest sequence ({longest}), got {width}")
    start, num_rows = _first_fit_decreasing(lengths, width)
    owner = np.repeat(np.arange(lengths.size), lengths)
    place = np.arange(owner.size) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return _Layout(num_rows, width, np.repeat(start, lengths) + place, owner, place, start + lengths - 1)


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
