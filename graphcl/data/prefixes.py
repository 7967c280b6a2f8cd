"""Prefix rows: every (window of earlier items, next item) pair of the training part, as offsets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graphcl.data.ids import IntArray
from graphcl.data.ranges import offsets_of
from graphcl.data.splits import Split


@dataclass(frozen=True, eq=False)
class PrefixRows:
    """R training rows; row r has input ``items[start[r]:end[r]]`` and target ``targets[r]``.

    Nothing is copied a row: all windows are ranges of the one array of training items.

    Attributes:
        users: int64[R], internal user ids, ascending; within a user rows go forward in time.
        items: int64[M], internal item ids (0-based) of the training sequences.
        start: int64[R].
        end: int64[R]; ``end - start`` is in 1..max_length.
        targets: int64[R], internal item ids.

    Example:
        >>> rows = PrefixRows(*(np.array(a) for a in ([0], [4, 2], [0], [1], [2])))
        >>> rows.window(0).tolist(), len(rows)
        ([4], 1)
    """

    users: IntArray
    items: IntArray
    start: IntArray
    end: IntArray
    targets: IntArray

    def __len__(self) -> int:
        return int(self.targets.size)

    def window(self, row: int) -> IntArray:
        """Input items of one row, a view."""
        return self.items[self.start[row] : self.end[row]]


@dataclass(frozen=True, eq=False)
class SameTarget:
    """Rows grouped by target: the positives of supervised sequence contrast.

    The rows with target v are ``rows[offsets[v]:offsets[v + 1]]``.

    Attributes:
        offsets: int64[V + 1].
        rows: int64[R], row numbers, ascending within a target.
        position: int64[R], place of each row inside its own group.

    Example:
        >>> groups = same_target_rows(np.array([7, 3, 7, 7]), 8)
        >>> groups.others(2, target=7).tolist()
        [0, 3]
    """

    offsets: IntArray
    rows: IntArray
    position: IntArray

    def others(self, row: int, *, target: int) -> IntArray:
        """The other rows with the target of a row."""
        group = self.rows[self.offsets[target] : self.offsets[target + 1]]
        return np.delete(group, self.position[row])

    def draw(self, batch: NDArray[np.int64], targets: NDArray[np.int64], generator: np.random.Generator) -> IntArray:
        """For each row one other row with the same target, uniformly; the row itself where there is none.

        Args:
            batch: int64[B], row numbers.
            targets: int64[B], their targets.
            generator: source of randomness.

        Returns:
            int64[B].

        Complexity:
            O(B).
        """
        start = self.offsets[targets]
        others = self.offsets[targets + 1] - start - 1
        step = generator.integers(0, np.maximum(others, 1))
        # Skipping over the own place keeps the draw uniform over the others.
        place = step + (step >= self.position[batch])
        return np.where(others > 0, self.rows[start + np.where(others > 0, place, 0)], batch)


def prefix_rows(split: Split, max_length: int) -> PrefixRows:
    """Every pair (last `max_length` items before position t, item at t) of the training sequences, t = 2, 3, ...

    With leave-one-out these are the rows of He and McAuley's protocol as RecBole and its descendants use it: targets
    s_2..s_{n-2} of a user with n items.

    Args:
        split: the split; only its training part is read.
        max_length: longest window L, at least 1.

    Returns:
        R rows. Users with fewer than two training items have none.

    Raises:
        ValueError: max_length is below 1.

    Complexity:
        O(E) time; O(R) memory besides the items, whatever L is.

    Example:
        >>> from graphcl.data import Interactions, leave_one_out
        >>> split = leave_one_out(Interactions.from_arrays([1] * 5 + [2] * 3, [0, 1, 2, 3, 4, 0, 1, 2]))
        >>> rows = prefix_rows(split, 1)
        >>> rows.window(1).tolist(), rows.targets.tolist()
        ([1], [1, 2])
    """
    if max_length < 1:
        raise ValueError(f"max_length must be at least 1, got {max_length}")
    sequences = split.train_sequences()
    first = np.repeat(sequences.offsets[:-1], sequences.lengths)
    position = np.arange(sequences.items.size, dtype=np.int64)
    end = position[position > first]
    start = np.maximum(first[end], end - max_length)
    users = np.repeat(np.arange(len(sequences), dtype=np.int64), sequences.lengths)[end]
    return PrefixRows(users, sequences.items, start, end, sequences.items[end])


def same_target_rows(targets: NDArray[np.int64], num_items: int) -> SameTarget:
    """Group rows by their target with one stable sort.

    Paper: Qiu et al., "Contrastive Learning for Representation Degeneration Problem in Sequential Recommendation",
    2022, https://arxiv.org/abs/2110.05730 (the positives of its supervised part).

    Args:
        targets: int64[R], internal item ids.
        num_items: V.

    Returns:
        The groups.

    Raises:
        IndexError: a target is outside 0..V-1.

    Complexity:
        O(R log R) time, O(R + V) memory.

    Example:
        >>> same_target_rows(np.array([1, 0, 1]), 2).rows.tolist()
        [1, 0, 2]
    """
    if targets.size and (targets.min() < 0 or targets.max() >= num_items):
        raise IndexError(f"targets hold ids from {targets.min()} to {targets.max()}, outside 0..{num_items - 1}")
    rows = np.argsort(targets, kind="stable").astype(np.int64, copy=False)
    offsets = offsets_of(np.bincount(targets, minlength=num_items))
    position = np.empty(targets.size, dtype=np.int64)
    position[rows] = np.arange(targets.size) - offsets[targets[rows]]
    return SameTarget(offsets, rows, position)
