"""RecBole's training rows as ours, with what contrastive models need beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from graphcl.data import IdMap, Interactions, Split, semantic_vectors
from graphcl.data.ranges import offsets_of
from graphcl.data.splits import TRAIN
from graphcl.errors import InputError
from graphcl.models import SequenceBatch
from graphcl.pipelines.batches import TrainingWindows, make_batch, training_windows
from graphcl.pipelines.contrast_rows import ContrastSource, padded_ranges, row_numbers, rows_by_target
from graphcl.pipelines.semantic_rows import retrieve_rows, similar_items

__all__ = ["ROW", "RecBoleRows", "read_rows"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]
# The field that numbers RecBole's rows, so that a batch tells which ones it holds.
ROW = "graphcl_row"


@dataclass(frozen=True, eq=False)
class RecBoleRows:
    """The prefix rows that RecBole trains on, as windows over the users' training sequences.

    Attributes:
        windows: one a row, in the order of users and time.
        offsets: [U + 1] start of each user's sequence in ``windows.items``.
        number: [R] the window of each row of RecBole.
    """

    windows: TrainingWindows
    offsets: IntArray
    number: IntArray

    def vectors(self, source: Any, external: npt.NDArray[Any], width: int) -> FloatArray:
        """Semantic vectors of ids 1..V from the training sequences, or from a file keyed by the external ids.

        Args:
            source: as `graphcl.data.semantic_vectors` takes it.
            external: [V] external ids in the order of RecBole's.
            width: of reduced parts.

        Raises:
            InputError: as `semantic_vectors`.
        """
        ids = IdMap(external)
        place = ids.to_internal(external)
        owner = np.repeat(np.arange(self.offsets.size - 1), np.diff(self.offsets))
        log = Interactions(owner, place[self.windows.items - 1], IdMap(np.arange(self.offsets.size - 1)), ids)
        split = Split(log, np.full(owner.size, TRAIN, dtype=np.uint8), "RecBole's training rows")
        found: FloatArray = semantic_vectors(split, source, width=width).vectors[place]
        return found

    def batches(self, model: Any, seed: int, vectors: FloatArray | None) -> Callable[[IntArray], SequenceBatch]:
        """What makes a batch with contrast rows of the row numbers of a batch of RecBole's.

        Args:
            model: one of ours; told its neighbours where there are vectors.
            seed: of the draws of partners.
            vectors: semantic vectors of ids 1..V, for models that retrieve.
        """
        windows, config, needs, retrieval = self.windows, model.config, model.contrast, None
        if vectors is not None:
            trained = np.bincount(windows.items, minlength=model.num_items + 1)[1:] > 0
            model.set_item_neighbours(*similar_items(vectors, trained, config.neighbours))
            if needs.retrieved:
                retrieval = retrieve_rows(
                    windows, self.offsets, vectors, k=config.neighbours, max_length=config.max_length,
                    pool=config.pool, same_user=config.same_user,
                )  # fmt: skip
        partners = rows_by_target(windows, model.num_items) if needs.same_target else None
        source = ContrastSource(windows, 1, seed, windows, partners, retrieval)
        number_at, generator = row_numbers(windows), np.random.default_rng([seed, 17])

        def make(rows: IntArray) -> SequenceBatch:
            own = self.number[rows]
            batch = make_batch(windows, own)
            return replace(batch, contrast=source.contrast_of(batch, own, np.zeros_like(own), number_at, generator))

        return make


def read_rows(users: IntArray, items: IntArray, lengths: IntArray, targets: IntArray) -> RecBoleRows:
    """Read RecBole's augmented training rows.

    Args:
        users: [R].
        items: [R, L] right-padded ids 1..V.
        lengths: [R].
        targets: [R].

    Returns:
        The rows; they are checked to be all prefixes of each user's training sequence.

    Raises:
        InputError: they are not, as under random order or without RecBole's augmentation.

    Complexity:
        O(R L).

    Example:
        >>> rows = read_rows(np.array([1, 1]), np.array([[4, 0], [4, 5]]), np.array([1, 2]), np.array([5, 6]))
        >>> rows.windows.items.tolist(), rows.number.tolist()
        ([4, 5, 6], [0, 1])
    """
    order = np.argsort(users, kind="stable").astype(np.int64)
    first = np.flatnonzero(np.diff(users[order], prepend=users[order][:1] - 1))
    counts = np.diff(np.append(first, order.size))
    offsets = offsets_of(counts + 1)
    sequences = np.empty(offsets[-1], dtype=np.int64)
    sequences[offsets[:-1]] = items[order[first], 0]
    is_target = np.ones(sequences.size, dtype=np.bool_)
    is_target[offsets[:-1]] = False
    sequences[is_target] = targets[order]
    windows = training_windows(sequences, offsets, max_length=items.shape[1], rows="prefix")
    made = padded_ranges(windows.items, windows.start, windows.length)
    width = made.items.shape[1]
    if not (
        np.array_equal(made.lengths.numpy(), lengths[order])
        and np.array_equal(made.items.numpy(), items[order][:, :width])
        and not items[:, width:].any()
    ):
        raise InputError(
            "RecBole's training rows are not all prefixes of each user's history in time order, which contrastive "
            "models need", "set eval_args order to TO and leave data_augmentation on",
        )  # fmt: skip
    number = np.empty_like(order)
    number[order] = np.arange(order.size)
    return RecBoleRows(windows, offsets, number)
