"""Rows for the contrastive terms of sequential models: one prefix a window, partners and retrieved sequences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from graphcl.data import SameTarget, same_target_rows
from graphcl.data.ranges import offsets_of, places_of
from graphcl.models.base import ContrastRows, PaddedSequences, RetrievedRows, SequenceBatch
from graphcl.nn import pack_sequences
from graphcl.pipelines.batches import TrainingWindows, WindowSource, epoch_order, make_batch

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Retrieval:
    """Similar sequences of every training row.

    Args:
        start, length: [P] the sequences that can be retrieved, as ranges of the windows' items.
        neighbours: [R, k] their numbers for every prefix row, most similar first, -1 where there are fewer.
        vectors: [P, D] semantic vectors of the sequences.
        own_vectors: [R, D] semantic vectors of the rows.
    """

    start: IntArray
    length: IntArray
    neighbours: IntArray
    vectors: npt.NDArray[np.float32]
    own_vectors: npt.NDArray[np.float32]


@dataclass(frozen=True)
class ContrastSource(WindowSource):
    """The steps of contrastive sequential training: those of `WindowSource`, with `ContrastRows`.

    Every window lends one of its supervised positions, drawn uniformly, as the row of the contrastive terms; a window
    of prefix-row mode has only one. All draws are a function of (seed, epoch, step), whatever processes share the step.

    Args:
        rows: all prefix rows over the same items, in the order of users and time.
        same_target: rows by target, where partners are wanted.
        retrieval: similar sequences, where they are wanted.
    """

    rows: TrainingWindows
    same_target: SameTarget | None = None
    retrieval: Retrieval | None = None

    def batches(self, epoch: int, rank: int, world: int) -> Iterator[SequenceBatch]:
        """The share of process ``rank`` of each step."""
        number_at = row_numbers(self.rows)
        for step, chosen in enumerate(epoch_order(self.windows, self.batch_size, seed=self.seed, epoch=epoch)):
            total = int(self.windows.supervised[chosen].sum()) / world
            own = np.arange(chosen.size)[rank::world]
            generator = np.random.default_rng([self.seed, epoch, step, 0, 1])
            place = generator.integers(0, self.windows.supervised[chosen])
            batch = make_batch(self.windows, chosen[own], total=total)
            yield replace(batch, contrast=self.contrast_of(batch, chosen, place, number_at, generator, own))

    def contrast_of(
        self,
        batch: SequenceBatch,
        chosen: IntArray,
        place: IntArray,
        number_at: IntArray,
        generator: np.random.Generator,
        own: IntArray | None = None,
    ) -> ContrastRows:
        """The contrast rows of a process in a step.

        Args:
            batch: the histories of the process.
            chosen: [S] numbers of the windows of the whole step.
            place: [S] which supervised position of each lends the row, from 0.
            number_at: of `row_numbers`.
            generator: draws the partners of all rows.
            own: [B] which of the windows the process has; all of them when None.
        """
        windows = self.windows
        own = np.arange(chosen.size) if own is None else own
        # Absolute place of the target of each row of the step.
        target = windows.start[chosen] + windows.length[chosen] - windows.supervised[chosen] + 1 + place
        number, partners = number_at[target], None
        if self.same_target is not None:
            drawn = self.same_target.draw(number, windows.items[target] - 1, generator)[own]
            partners = padded_ranges(self.rows.items, self.rows.start[drawn], self.rows.length[drawn])
        supervised, length = windows.supervised[chosen[own]], windows.length[chosen[own]]
        target, number, place = target[own], number[own], place[own]
        # Slot of each row among the supervised ones of the process.
        slot = batch.supervised[torch.from_numpy(np.cumsum(supervised) - supervised + place)]
        length = length - supervised + 1 + place
        rows = padded_ranges(windows.items, target - length, length)
        retrieved = None if self.retrieval is None else retrieved_rows(windows.items, self.retrieval, number)
        return ContrastRows(rows, torch.from_numpy(windows.items[target]), slot, partners, retrieved)


def row_numbers(rows: TrainingWindows) -> IntArray:
    """[E] number of the prefix row whose target stands at each place of the items; -1 where none does."""
    number = np.full(rows.items.size, -1, dtype=np.int64)
    number[rows.start + rows.length] = np.arange(rows.num_windows)
    return number


def rows_by_target(rows: TrainingWindows, num_items: int) -> SameTarget:
    """Prefix rows grouped by the item that follows them."""
    return same_target_rows(rows.items[rows.start + rows.length] - 1, num_items)


def padded_ranges(items: IntArray, start: IntArray, length: IntArray) -> PaddedSequences:
    """Ranges of an array of items as right-padded rows.

    Example:
        >>> padded_ranges(np.arange(1, 6), np.array([0, 3]), np.array([3, 1])).items.tolist()
        [[1, 2, 3], [4, 0, 0]]
    """
    table = np.zeros((start.size, int(length.max(initial=1))), dtype=np.int64)
    owner = np.repeat(np.arange(start.size), length)
    table[owner, places_of(np.zeros_like(length), length)] = items[places_of(start, length)]
    return PaddedSequences(torch.from_numpy(table), torch.from_numpy(length))


def retrieved_rows(items: IntArray, retrieval: Retrieval, rows: IntArray) -> RetrievedRows:
    """The sequences retrieved for some prefix rows, every distinct one once."""
    neighbours = retrieval.neighbours[rows]
    found = neighbours >= 0
    distinct, where = np.unique(neighbours[found], return_inverse=True)
    places = np.full(neighbours.shape, -1, dtype=np.int64)
    places[found] = where
    length = retrieval.length[distinct]
    packed = pack_sequences(items[places_of(retrieval.start[distinct], length)], offsets_of(length))
    return RetrievedRows(
        packed,
        torch.from_numpy(places),
        torch.from_numpy(retrieval.vectors[distinct]),
        torch.from_numpy(retrieval.own_vectors[rows]),
    )
