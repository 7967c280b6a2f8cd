"""The allocations of a step on many rows, from two runs on few rows under tiles that are smaller by as much.

A run on 1,024 rows whose tiles have a 64th of the usual edges goes through the tiles as a run on 65,536 rows does. Its
blocks are smaller, each in its own way: rows of embeddings by 64, tiles by 64 squared, numbers not at all. A second
run on twice the rows, under tiles of twice the edges, tells which is which.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from typing import Any, Literal

import torch

from graphcl.kernels._tiles import MINIATURE
from graphcl.losses._heap import Events

__all__ = ["Prepare", "recorded", "rehearsed"]

#: Prepares an objective on n rows under a memory budget: what it returns runs forward and backward.
Prepare = Callable[[int, int], Callable[[], None]]

_FEW_ROWS = 1024
_ROWS_OF_A_BLOCK = 256
# Blocks of rows repeat each other; so many of them are enough, each standing for several.
_BLOCKS = 16
_LARGEST_SHRINK = 256
_MANY_EVENTS = 5_000


def recorded(run: Callable[[], None]) -> Events:
    """What tensors on the CPU ask for and give back during ``run``."""
    # The profiler's own messages: it reads the variable when it is first used.
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    results: Any = profile.profiler
    found: list[tuple[int, int, int]] = []
    event: Any = None
    waiting: list[Any] = list(results.kineto_results.experimental_event_tree())
    while waiting:
        event = waiting.pop()
        waiting += event.children
        if event.tag.name == "Allocation":
            found.append((event.start_time_ns, event.extra_fields.ptr, event.extra_fields.alloc_size))
    if len(found) > _MANY_EVENTS:
        # The profile is part of a reference cycle, and large.
        del profile, results, waiting, event
        gc.collect()
    found.sort(key=lambda event: event[0])
    # What is given back but was held before is none of the step's.
    held: set[int] = set()
    events: Events = []
    for _, address, size in found:
        if size > 0:
            held.add(address)
        elif address in held:
            held.discard(address)
        else:
            continue
        events.append((address, size))
    return events


def rehearsed(prepare: Prepare, num_rows: int, budget: int, columns: Literal["rows", "fixed"]) -> Events | None:
    """Allocations of a step on ``num_rows`` rows; None where the two small runs do not go the same way.

    Args:
        prepare: the objective.
        num_rows: n.
        budget: its memory budget.
        columns: whether the pair matrix has as many columns as there are rows, or a fixed number: a queue, prototypes.
    """
    num_blocks = -(-num_rows // _ROWS_OF_A_BLOCK)
    merged = 2 ** max(0, (num_blocks // _BLOCKS).bit_length() - 1) if columns == "rows" else 1
    shrink = 2
    while num_rows > _FEW_ROWS * shrink and (columns == "rows" or shrink < _LARGEST_SHRINK):
        shrink *= 2
    few = num_blocks * _ROWS_OF_A_BLOCK // shrink
    runs = []
    for factor in (shrink, shrink // 2):
        size = few * shrink // factor
        across = factor if columns == "rows" else 1
        token = MINIATURE.set((factor / merged, across))
        try:
            runs.append(recorded(prepare(size, max(budget * merged // (factor * across), 1))))
        finally:
            MINIATURE.reset(token)
    return _grown(runs[0], runs[1], few, num_rows, merged)


def _grown(first: Events, second: Events, few: int, wanted: int, merged: int) -> Events | None:
    """The events of a run on ``few`` rows with the sizes they have on ``wanted``, by those on twice as many.

    A block grows as ``a + b n`` where its bytes at most doubled, and as ``b n + c n^2`` beyond. The latter is a tile,
    and stands for ``merged`` times its rows, unless it holds all pairs.
    """
    # Small buffers of the libraries come and go as they like; where they differ, only large blocks are compared and
    # small ones are taken to grow with the rows.
    for least in (0, 16 * few):
        sizes = [size for _, size in second if size > 0 and size >= 2 * least]
        if sum(size > 0 and size >= least for _, size in first) == len(sizes):
            break
    else:
        return None
    others = iter(sizes)
    ratio = wanted / few

    def grown(small: int, large: int) -> int:
        if large <= 2.002 * small:
            return max(int(small + (large - small) * (ratio - 1.0)), 1)
        bend = large / 2 - small
        size = (small + bend * (ratio - 1.0)) * ratio
        return max(int(size if size >= 2 * wanted * wanted else size / merged), 1)

    result: Events = []
    names: dict[int, tuple[int, int]] = {}
    for number, (address, size) in enumerate(first):
        if size > 0:
            names[address] = number, grown(size, next(others) if size >= least else 2 * size)
            result.append(names[address])
        else:
            key, kept = names.pop(address)
            result.append((key, -kept))
    return result
