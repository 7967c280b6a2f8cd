"""What the heap of the C library keeps of the blocks that a step asks for and gives back.

glibc maps large blocks one by one and cuts small ones from a heap that grows and shrinks at its end only. "Large" is
what no freed block has reached yet: after a mapped block of up to 32 MiB is freed, blocks up to its size come from the
heap. There a freed block leaves a hole, and torch asks for aligned blocks, which takes a little more than the block: a
hole never holds a block of its own size again unless its neighbours are free as well. So a step that holds 190 MiB in
tensors can keep 300 MiB of pages. `Heap` follows these rules block by block.
"""

from __future__ import annotations

import bisect
import os
import platform
from typing import TypeAlias

__all__ = ["Events", "Heap", "live_peak", "resident_peak"]

#: Blocks in the order they were asked for and given back: their address, and their bytes, negative when given back.
Events: TypeAlias = list[tuple[int, int]]

_PAGE = 4096
_FIRST_THRESHOLD, _LARGEST_THRESHOLD = 2**17, 2**25
_TOP_PAD = 2**17
_SMALLEST = 32
_ALIGNMENT = 64
_CONSOLIDATED = 2**16
# Smaller blocks come from what importing the libraries has left in the heap.
_SMALL = 4096
# An aligned block leaves a piece of its surplus at either end. The first seven of each of the two sizes are kept for
# small objects (tcache_count of the thread cache), stay in use and hold the blocks beside them apart; later ones merge.
_KEPT_PIECES = 2 * 7


class Heap:
    """glibc's main arena, for aligned blocks of a single thread.

    Attributes:
        resident: bytes of pages that have been touched and not been returned.
        peak: most of them so far.
    """

    def __init__(self, fixed_threshold: int | None = None) -> None:
        self.peak = 0
        self._fixed = fixed_threshold is not None
        self._threshold = _FIRST_THRESHOLD if fixed_threshold is None else fixed_threshold
        self._trim = _FIRST_THRESHOLD
        self._top = self._end = self._touched = self._mapped = 0
        self._blocks: dict[int, tuple[int, int]] = {}
        self._maps: dict[int, int] = {}
        self._by_size: list[tuple[int, int]] = []
        self._size_at: dict[int, int] = {}
        self._start_before: dict[int, int] = {}
        self._pieces = _KEPT_PIECES

    @property
    def resident(self) -> int:
        return self._touched + self._mapped

    def allocate(self, key: int, size: int) -> None:
        """Place a block; ``key`` gives it back."""
        if size < _SMALL:
            return
        block = _aligned(size + 8)
        asked = _aligned(size + 8 + _ALIGNMENT + _SMALLEST + 8)
        place = bisect.bisect_left(self._by_size, (asked, -1))
        if place < len(self._by_size):
            hole, start = self._by_size[place]
            self._unlist(start, hole)
            self._blocks[key] = start, block
            self._cut(start + block, start + hole, asked - block)
        elif self._end - self._top < asked + _SMALLEST and asked >= self._threshold:
            mapped = (asked // _PAGE + 2) * _PAGE
            self._maps[key] = mapped
            self._mapped += mapped
        else:
            if self._end - self._top < asked + _SMALLEST:
                self._end += -(-(asked + _TOP_PAD + _SMALLEST - (self._end - self._top)) // _PAGE) * _PAGE
            start = self._top
            self._top += asked
            self._touched = max(self._touched, self._top)
            self._blocks[key] = start, block
            self._cut(start + block, start + asked, asked - block)
        self.peak = max(self.peak, self.resident)

    def give_back(self, key: int) -> None:
        if key in self._maps:
            mapped = self._maps.pop(key)
            self._mapped -= mapped
            if not self._fixed and self._threshold < mapped <= _LARGEST_THRESHOLD:
                self._threshold, self._trim = mapped, 2 * mapped
        elif key in self._blocks:
            self._release(*self._blocks.pop(key))

    def _cut(self, start: int, stop: int, piece: int) -> None:
        """Give back what lies behind a block, but for the piece that stays with small objects."""
        kept = piece if self._pieces > 0 else 0
        self._pieces -= 1
        if stop - start - kept >= _SMALLEST:
            self._release(start + kept, stop - start - kept)

    def _release(self, start: int, size: int) -> None:
        if start in self._start_before:
            before = self._start_before[start]
            size += self._size_at[before]
            self._unlist(before, self._size_at[before])
            start = before
        if start + size in self._size_at:
            behind = self._size_at[start + size]
            self._unlist(start + size, behind)
            size += behind
        if start + size == self._top:
            self._top = start
        else:
            self._size_at[start] = size
            self._start_before[start + size] = start
            bisect.insort(self._by_size, (size, start))
        if size >= _CONSOLIDATED and self._end - self._top >= self._trim:
            self._end -= max((self._end - self._top - _SMALLEST - _TOP_PAD - 1) // _PAGE, 0) * _PAGE
            self._touched = min(self._touched, self._end)

    def _unlist(self, start: int, size: int) -> None:
        del self._size_at[start], self._start_before[start + size]
        del self._by_size[bisect.bisect_left(self._by_size, (size, start))]


def _aligned(size: int) -> int:
    return max(_SMALLEST, -(-size // 16) * 16)


def resident_peak(events: Events) -> int:
    """Most bytes resident at once in a process like this one, beyond what it held before."""
    if platform.libc_ver()[0] != "glibc":
        return live_peak(events)
    given = os.environ.get("MALLOC_MMAP_THRESHOLD_", "")
    heap = Heap(int(given) if given.isdecimal() else None)
    for key, size in events:
        if size > 0:
            heap.allocate(key, size)
        else:
            heap.give_back(key)
    return heap.peak


def live_peak(events: Events) -> int:
    """Most bytes in blocks at once."""
    held = peak = 0
    for _, size in events:
        held += size
        peak = max(peak, held)
    return peak
