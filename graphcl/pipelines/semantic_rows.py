"""Semantic retrieval for sequential models: similar items, and similar training sequences of every prefix row."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from graphcl.data.ranges import offsets_of, places_of
from graphcl.kernels import knn, normalize_rows, pair_topk
from graphcl.pipelines.batches import TrainingWindows
from graphcl.pipelines.contrast_rows import Retrieval

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]


def similar_items(vectors: FloatArray, trained: npt.NDArray[np.bool_], k: int) -> tuple[Tensor, Tensor]:
    """The k most similar items of each by cosine, never itself and never id 0.

    Args:
        vectors: [V, D] semantic vectors of ids 1..V; a zero row has no neighbour and is none.
        trained: [V] whether an item has a training row; only those are neighbours.
        k: how many.

    Returns:
        [V + 1, k] ids 1..V by id, filled up with 0; and the same for items without training rows only.

    Complexity: O(V^2 D) time, O(V k) memory and a block of scores.

    Example:
        >>> near, cold = similar_items(np.eye(3, dtype=np.float32) + 1, np.array([True, True, False]), 1)
        >>> near.tolist(), cold.tolist()
        ([[0], [2], [1], [1]], [[0], [0], [0], [1]])
    """
    num_items = vectors.shape[0]
    usable = np.flatnonzero(trained & (np.abs(vectors).sum(1) > 0))
    known = torch.from_numpy(np.ascontiguousarray(vectors))
    place = np.full(num_items, -1)
    place[usable] = np.arange(usable.size)
    own = np.flatnonzero(place >= 0)
    exclude = torch.from_numpy(offsets_of((place >= 0).astype(np.int64))), torch.from_numpy(place[own])
    found = pair_topk(known, known[usable], k, exclude=exclude, similarity="cosine").indices
    ids = torch.cat([torch.from_numpy(usable + 1), torch.zeros(1, dtype=torch.int64)])[found]
    ids[torch.from_numpy(np.abs(vectors).sum(1) == 0)] = 0
    table = torch.cat([torch.zeros(1, k, dtype=torch.int64), ids])
    cold = torch.from_numpy(np.concatenate([[False], ~trained]))
    return table, torch.where(cold[:, None], table, 0)


def mean_vectors(vectors: FloatArray, items: IntArray, start: IntArray, length: IntArray) -> FloatArray:
    """[N, D] unit mean of the vectors of each range of items (ids 1..V)."""
    running = np.zeros((items.size + 1, vectors.shape[1]))
    np.cumsum(vectors[items - 1], axis=0, dtype=np.float64, out=running[1:])
    means = torch.from_numpy(((running[start + length] - running[start]) / length[:, None]).astype(np.float32))
    unit: FloatArray = normalize_rows(means).numpy()
    return unit


def retrieve_rows(
    rows: TrainingWindows,
    offsets: IntArray,
    vectors: FloatArray,
    *,
    k: int,
    max_length: int,
    pool: str = "users",
    same_user: bool = False,
) -> Retrieval:
    """The k training sequences most similar to every prefix row, by the cosine of their mean item vectors.

    Everything comes from training items: no validation or test item can be reached.

    Args:
        rows: all prefix rows.
        offsets: [U + 1] start of each user's sequence in the rows' items.
        vectors: [V, D] semantic vectors of ids 1..V.
        k: how many.
        max_length: items of a sequence that are read, the last ones.
        pool: ``users`` (whole training sequences) or ``prefixes`` (the inputs of all rows).
        same_user: allow sequences of the row's own user, but never the row itself.

    Returns:
        The retrieval; -1 where there are fewer than k.

    Complexity: O(R P D) time for P sequences in the pool, O((R + P) D + R k) memory and a block of scores.

    Example:
        >>> from graphcl.pipelines.batches import training_windows
        >>> items, offsets = np.array([1, 2, 1, 2, 3, 1]), np.array([0, 2, 4, 6])
        >>> rows = training_windows(items, offsets, max_length=5, rows="prefix")
        >>> retrieve_rows(rows, offsets, np.eye(3, dtype=np.float32), k=1, max_length=5).neighbours.tolist()
        [[1], [0], [0]]
    """
    owner = np.searchsorted(offsets, rows.start, side="right") - 1
    if pool == "users":
        lengths = np.diff(offsets)
        users = np.flatnonzero(lengths)
        length = np.minimum(lengths[users], max_length)
        start = offsets[1:][users] - length
        first, count = np.searchsorted(users, owner), np.ones_like(owner)
    else:
        start, length = rows.start, rows.length
        per_user = np.bincount(owner, minlength=offsets.size - 1)
        first, count = (offsets_of(per_user)[:-1])[owner], per_user[owner]
    own_vectors = mean_vectors(vectors, rows.items, rows.start, rows.length)
    pool_vectors = mean_vectors(vectors, rows.items, start, length)
    if same_user and pool == "prefixes":
        exclude = None
        found = knn(torch.from_numpy(own_vectors), k, similarity="dot").indices
    else:
        columns = places_of(first, count)
        exclude = None if same_user else (torch.from_numpy(offsets_of(count)), torch.from_numpy(columns))
        own, candidates = torch.from_numpy(own_vectors), torch.from_numpy(pool_vectors)
        found = pair_topk(own, candidates, k, exclude=exclude).indices
    return Retrieval(start, length, found.numpy(), pool_vectors, own_vectors)
