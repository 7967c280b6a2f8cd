"""The heap in miniature, and allocations carried over from few rows to many."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import pytest
import torch

from graphcl.kernels._tiles import choose_blocks
from graphcl.losses._heap import Heap, live_peak, resident_peak
from graphcl.losses._rehearsal import recorded, rehearsed
from graphcl.losses.planning import _named

MIB = 2**20


def test_large_blocks_are_mapped_until_one_of_their_size_has_been_freed() -> None:
    heap = Heap()
    heap.allocate(1, 4 * MIB)
    assert heap.resident == pytest.approx(4 * MIB, rel=0.01)
    heap.give_back(1)
    assert heap.resident == 0
    # From here on blocks of 4 MiB come from the heap: the hole of the first of two stays.
    heap.allocate(2, 4 * MIB - 8192)
    heap.allocate(3, 4 * MIB - 8192)
    heap.give_back(2)
    assert heap.resident == pytest.approx(8 * MIB, rel=0.01)
    # It does not take a block of its own size again, but a smaller one.
    heap.allocate(4, 4 * MIB - 8192)
    assert heap.resident == pytest.approx(12 * MIB, rel=0.01)
    heap.allocate(5, 3 * MIB)
    assert heap.resident == pytest.approx(12 * MIB, rel=0.01)
    # Beyond 32 MiB every block is mapped.
    heap.allocate(6, 40 * MIB)
    heap.give_back(6)
    heap.allocate(7, 40 * MIB)
    assert heap.resident == pytest.approx(52 * MIB, rel=0.01)
    assert heap.peak == pytest.approx(52 * MIB, rel=0.01)


def test_neighbours_that_are_free_are_one_hole() -> None:
    heap = Heap(fixed_threshold=2**40)
    for key in range(40):  # the first pieces between blocks stay
        heap.allocate(key, MIB)
    top = heap.resident
    heap.give_back(30)
    heap.give_back(31)
    heap.allocate(50, 2 * MIB - 4096)
    assert heap.resident == top


def test_the_end_of_the_heap_goes_back() -> None:
    heap = Heap(fixed_threshold=2**40)
    for key in range(20):
        heap.allocate(key, MIB)
    for key in range(19, 14, -1):
        heap.give_back(key)
    assert heap.resident < 16 * MIB
    assert heap.peak == pytest.approx(20 * MIB, rel=0.01)


def test_a_fixed_threshold_returns_every_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")
    events = [(1, MIB), (2, MIB), (1, -MIB), (3, MIB), (2, -MIB), (4, MIB), (3, -MIB), (4, -MIB)]
    assert live_peak(events) == 2 * MIB
    assert resident_peak(events) == pytest.approx(live_peak(events), rel=0.02)
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_")
    assert resident_peak(events) >= live_peak(events)


@pytest.mark.parametrize(
    ("name", "columns"), [("info_nce", "rows"), ("nt_xent", "rows"), ("moco", "fixed"), ("alignment", "fixed")]
)
def test_a_rehearsal_finds_the_blocks_of_the_real_run(name: str, columns: Literal["rows", "fixed"]) -> None:
    def prepare(size: int, budget: int) -> Callable[[], None]:
        return _named(name)(size, 32, budget)

    real = recorded(prepare(8192, 2**26))
    found = rehearsed(prepare, 8192, 2**26, columns)
    assert found is not None
    assert live_peak(found) == pytest.approx(live_peak(real), rel=0.05)
    assert resident_peak(found) == pytest.approx(resident_peak(real), rel=0.15)


def test_a_rehearsal_leaves_tiles_as_they_were() -> None:
    def blocks() -> object:
        return choose_blocks(2**16, 2**16, 4, 2**26, None, torch.device("cpu"))

    before = blocks()
    rehearsed(lambda size, budget: _named("info_nce")(size, 8, budget), 8192, 2**26, "rows")
    assert blocks() == before
