"""Training windows over stored sequences: offsets into one array, seeded shuffling, packing a step at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from graphcl.data.ranges import offsets_of, places_of
from graphcl.models.base import SequenceBatch
from graphcl.nn import PackedSequences, pack_sequences

IntArray = npt.NDArray[np.int64]
Rows = Literal["causal", "prefix"]


@dataclass(frozen=True)
class TrainingWindows:
    """Windows into one array of items; together they supervise every next-item target exactly once.

    Args:
        items: [E] item ids 1..V of all training sequences, one after the other.
        start: [W] first item of each window in ``items``.
        length: [W] items that the window reads.
        supervised: [W] how many of its last positions have a target (the item that follows each of them).
    """

    items: IntArray
    start: IntArray
    length: IntArray
    supervised: IntArray

    @property
    def num_windows(self) -> int:
        """Number of windows."""
        return int(self.start.size)

    @property
    def num_targets(self) -> int:
        """Number of supervised targets, one for each prefix of each sequence."""
        return int(self.supervised.sum())


def training_windows(
    items: IntArray, offsets: IntArray, *, max_length: int, stride: int | None = None, rows: Rows = "causal"
) -> TrainingWindows:
    """Cut training sequences s_1..s_m into windows whose targets are s_2..s_m, each exactly once.

    ``causal``: a sequence with at most L = ``max_length`` inputs is one window and every position is supervised; the
    output at position t equals that of the prefix row s_1..s_t. A longer one has a first window of L supervised
    positions, then windows that move on by ``stride`` and supervise only the positions that are new, so those targets
    see between L - stride + 1 and L items; ``stride=1`` gives the prefix rows' windows exactly (the last L items).
    ``prefix``: one window a target, the last L items before it: the reference mode, slower by the mean length.

    Args:
        items: [E] item ids.
        offsets: [U + 1] start of each user's sequence in ``items``; sequences shorter than 2 give no window.
        max_length: longest window L.
        stride: step between windows of a long sequence; half of L, rounded up, when None.
        rows: ``causal`` or ``prefix``.

    Returns:
        The windows, in the order of users and time.

    Raises:
        ValueError: when ``stride`` is not between 1 and ``max_length``.

    Complexity: time and memory O(E).

    Example:
        >>> windows = training_windows(np.arange(1, 8), np.array([0, 7]), max_length=4, stride=1)
        >>> windows.start.tolist(), windows.length.tolist(), windows.supervised.tolist()
        ([0, 1, 2], [4, 4, 4], [4, 1, 1])
    """
    stride = -(-max_length // 2) if stride is None else stride
    if not 1 <= stride <= max_length:
        raise ValueError(f"stride must be between 1 and max_length ({max_length}), got {stride}")
    inputs = np.maximum(np.diff(offsets) - 1, 0)
    if rows == "prefix":
        count = inputs
    else:
        count = np.where(inputs > 0, 1 + -(-np.maximum(inputs - max_length, 0) // stride), 0)
    number = places_of(np.zeros_like(count), count)  # of the window in its sequence
    if rows == "prefix":
        end = number + 1  # the window of number t ends after t + 1 items
        new = np.ones_like(end)
    else:
        end = np.minimum(max_length + number * stride, np.repeat(inputs, count))
        new = np.where(number == 0, end, end - (max_length + (number - 1) * stride))
    length = np.minimum(end, max_length)
    start = np.repeat(offsets[:-1], count) + end - length
    return TrainingWindows(items, start, length, new)


def epoch_order(windows: TrainingWindows, batch_size: int, *, seed: int, epoch: int) -> list[IntArray]:
    """Window numbers of each step of one epoch: a function of (seed, epoch) alone, so a resumed run repeats it.

    Windows are shuffled and cut where the supervised targets pass a multiple of ``batch_size``, so steps hold about
    as many targets whatever the lengths are. Every window is in exactly one step.

    Args:
        windows: what to shuffle.
        batch_size: supervised targets a step, about.
        seed: the run's seed.
        epoch: number of the epoch.

    Example:
        >>> windows = training_windows(np.arange(1, 8), np.array([0, 3, 7]), max_length=4)
        >>> sorted(np.concatenate(epoch_order(windows, 2, seed=0, epoch=0)).tolist())
        [0, 1]
    """
    order = np.random.default_rng([seed, epoch]).permutation(windows.num_windows)
    before = np.cumsum(windows.supervised[order]) - windows.supervised[order]
    cuts = np.flatnonzero(np.diff(before // batch_size)) + 1
    return np.split(order, cuts) if order.size else []


def make_batch(windows: TrainingWindows, chosen: IntArray, *, total: float | None = None) -> SequenceBatch:
    """Gather some windows, pack them and find their targets.

    Args:
        windows: all windows.
        chosen: numbers of the windows of this step.
        total: divisor of the summed loss; the number of targets of this step when None.

    Returns:
        The batch, on the CPU.

    Complexity: time and memory O(tokens of the step).

    Example:
        >>> windows = training_windows(np.array([4, 5, 6]), np.array([0, 3]), max_length=4)
        >>> batch = make_batch(windows, np.array([0]))
        >>> batch.sequences.items.tolist(), batch.targets.tolist()
        ([[4, 5]], [5, 6])
    """
    start, length, supervised = windows.start[chosen], windows.length[chosen], windows.supervised[chosen]
    offsets = offsets_of(length)
    packed = pack_sequences(windows.items[places_of(start, length)], offsets)
    tokens = places_of(offsets[1:] - supervised, supervised)  # the last `supervised` tokens of each window
    targets = windows.items[places_of(start + length - supervised + 1, supervised)]
    count = int(supervised.sum())
    return SequenceBatch(
        packed,
        packed.slots[torch.from_numpy(tokens)],
        torch.from_numpy(targets),
        total=count if total is None else total,
    )


@dataclass(frozen=True)
class WindowSource:
    """The steps of sequential training, see :class:`graphcl.pipelines.training.EpochSource`.

    Args:
        windows: what to train on.
        batch_size: supervised targets a step, about.
        seed: the run's seed.
    """

    windows: TrainingWindows
    batch_size: int
    seed: int

    @property
    def num_targets(self) -> int:
        """Supervised targets of an epoch."""
        return self.windows.num_targets

    def batches(self, epoch: int, rank: int, world: int) -> Iterator[SequenceBatch]:
        """The share of process ``rank`` of each step."""
        for step in epoch_order(self.windows, self.batch_size, seed=self.seed, epoch=epoch):
            # Gradients are averaged over the processes, so each divides by its share of the step's targets.
            total = int(self.windows.supervised[step].sum()) / world
            yield make_batch(self.windows, step[rank::world], total=total)


def history_batches(
    items: IntArray, offsets: IntArray, *, max_length: int, tokens_per_batch: int = 8192
) -> Iterator[tuple[IntArray, PackedSequences]]:
    """Pack the last ``max_length`` items of each history, users of about equal length together.

    Args:
        items: [E] item ids 1..V.
        offsets: [N + 1] start of each history; none is empty.
        max_length: items that are read.
        tokens_per_batch: size of a batch, about.

    Yields:
        Numbers of the histories and their packed items.

    Example:
        >>> for numbers, packed in history_batches(np.array([1, 2, 3]), np.array([0, 2, 3]), max_length=5):
        ...     print(numbers.tolist(), packed.items.tolist())
        [1, 0] [[1, 2], [3, 0]]
    """
    length = np.minimum(np.diff(offsets), max_length)
    order = np.argsort(length, kind="stable")
    before = np.cumsum(length[order]) - length[order]
    for numbers in np.split(order, np.flatnonzero(np.diff(before // tokens_per_batch)) + 1):
        if numbers.size:
            kept = length[numbers]
            picked = items[places_of(offsets[1:][numbers] - kept, kept)]
            yield numbers, pack_sequences(picked, offsets_of(kept))
