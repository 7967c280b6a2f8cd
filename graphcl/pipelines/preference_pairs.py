"""Pairs of items that please the same people, mined from interactions; what displeased them; and who is no negative."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from graphcl.data import Interactions
from graphcl.data.ranges import offsets_of
from graphcl.models import AlignmentBatch

if TYPE_CHECKING:
    from scipy.sparse import csr_array

IntArray = npt.NDArray[np.int64]

__all__ = ["AlignmentSource", "PreferencePairs", "mine_preferences"]


@dataclass(frozen=True)
class PreferencePairs:
    """What interactions say about pairs of items.

    Attributes:
        offsets: int64[I + 1], of the neighbours of each item.
        neighbours: int64[N], the items that please most alike.
        similarity: float64[N], cosine of the two items' admirers, above 0.
        admirers: (I, I) numbers of users who like both items.
        disliked: (I, I) numbers of users who like the row's item and dislike the column's; None without dislikes.
    """

    offsets: IntArray
    neighbours: IntArray
    similarity: npt.NDArray[np.float64]
    admirers: csr_array
    disliked: csr_array | None

    @property
    def num_pairs(self) -> int:
        """N."""
        return int(self.neighbours.size)


def mine_preferences(
    log: Interactions, *, neighbours: int = 20, liked: float | None = None, disliked: float | None = None
) -> PreferencePairs:
    r"""Mine pairs of items from what users like.

    .. math:: s_{ij} = \frac{|A_i \cap A_j|}{\sqrt{|A_i| |A_j|}}

    with A_i the users who like item i. The ``neighbours`` most similar items of each item are its positives.

    Args:
        log: interactions, with values where likes are told apart.
        neighbours: positives an item, at most.
        liked: least value of a like; every interaction is one when None, or without values.
        disliked: values up to this are dislikes; none when None, or without values.

    Returns:
        The pairs.

    Complexity:
        O(sum over users of n^2) time; memory of the pairs that share a user.

    Example:
        >>> mine_preferences(Interactions.from_arrays([0, 0, 1, 1], [0, 1, 0, 1])).neighbours.tolist()
        [1, 0]
    """
    from scipy.sparse import csr_array

    shape = (log.num_users, log.num_items)

    def incidence(rows: npt.NDArray[np.bool_]) -> csr_array:
        held = csr_array((np.ones(int(rows.sum())), (log.user[rows], log.item[rows])), shape=shape)
        held.data[:] = 1.0
        return held

    everything = np.ones(log.num_interactions, dtype=np.bool_)
    likes = incidence(everything if liked is None or log.value is None else log.value >= liked)
    both = csr_array(likes.T @ likes)
    count = np.asarray(likes.sum(axis=0)).ravel()
    both.setdiag(0.0)
    both.eliminate_zeros()
    rows = np.repeat(np.arange(both.shape[0]), np.diff(both.indptr))
    similarity = both.data / np.sqrt(count[rows] * count[both.indices])
    order = np.lexsort((both.indices, -similarity, rows))
    place = np.arange(rows.size) - np.repeat(both.indptr[:-1], np.diff(both.indptr))
    kept = order[place < neighbours]
    worse = None
    if disliked is not None and log.value is not None:
        worse = csr_array(likes.T @ incidence(log.value <= disliked))
    offsets = offsets_of(np.bincount(rows[kept], minlength=both.shape[0]))
    return PreferencePairs(offsets, both.indices[kept].astype(np.int64), similarity[kept], both, worse)


@dataclass(frozen=True)
class AlignmentSource:
    """Steps of both stages, as an epoch source of :func:`graphcl.pipelines.training.train`.

    An epoch of the first stage takes every item with both modalities once. One of the second takes every anchor
    ``pairs_per_item`` times; its positive is drawn by similarity, its negative by how many admirers of the anchor
    dislike it, and the semantic loss is computed on the distinct anchors of the step.

    Args:
        pairs: what was mined.
        both: int64[n], items that have both modalities.
        batch_size: pairs or items a step.
        seed: of the run.
        semantic_epochs: epochs of the first stage.
        pairs_per_item: see above.
        min_shared: a positive of another anchor is no negative when so many users like it and the anchor.
        usable: bool[I], items that have features; others are neither anchor nor positive nor negative.
    """

    pairs: PreferencePairs
    both: IntArray
    batch_size: int
    seed: int
    semantic_epochs: int
    pairs_per_item: int
    min_shared: int
    usable: npt.NDArray[np.bool_]

    @cached_property
    def _kept(self) -> tuple[IntArray, IntArray, npt.NDArray[np.float64]]:
        """Anchor, positive and similarity of the mined pairs of usable items."""
        anchor = np.repeat(np.arange(self.pairs.offsets.size - 1), np.diff(self.pairs.offsets))
        kept = self.usable[anchor] & self.usable[self.pairs.neighbours]
        return anchor[kept], self.pairs.neighbours[kept], self.pairs.similarity[kept]

    @property
    def num_targets(self) -> int:
        """Weight of an epoch; both stages are given that of the second."""
        return max(np.unique(self._kept[0]).size * self.pairs_per_item, 1)

    def batches(self, epoch: int, rank: int = 0, world: int = 1) -> Iterator[AlignmentBatch]:
        """The steps of an epoch; of each, the share of one of several processes.

        Complexity: O(N + pairs of the epoch) beside the look-up of shared admirers, O(batch^2) a step at worst.
        """
        generator = np.random.default_rng([self.seed, epoch])
        if epoch < self.semantic_epochs:
            order = generator.permutation(self.both)
            for start in range(0, order.size, self.batch_size):
                items = order[start : start + self.batch_size]
                # The epoch's mean divides by its targets; every item counts for its share of them.
                total = self.num_targets * items.size / order.size / world
                yield AlignmentBatch(torch.from_numpy(items[rank::world].copy()), total=total)
            return
        anchor, positive = self._draw(generator)
        order = generator.permutation(anchor.size)
        semantic = np.zeros(self.usable.size, dtype=np.bool_)
        semantic[self.both] = True
        for start in range(0, order.size, self.batch_size):
            step = order[start : start + self.batch_size]
            # Draws are for the whole step, so that processes see the same ones.
            negative = self._draw_negatives(anchor[step], generator)
            own = step[rank::world]
            items = np.unique(anchor[own])
            yield AlignmentBatch(
                torch.from_numpy(items[semantic[items]]),
                torch.from_numpy(anchor[own]),
                torch.from_numpy(positive[own]),
                None if negative is None else torch.from_numpy(negative[rank::world].copy()),
                self.shared(anchor[own], positive[own]),
                total=step.size / world,
            )

    def _draw(self, generator: np.random.Generator) -> tuple[IntArray, IntArray]:
        """Anchors, each so often, and a positive drawn by similarity: a search in running sums."""
        anchor, positive, similarity = self._kept
        total = np.cumsum(similarity)
        anchors, first = np.unique(anchor, return_index=True)
        last = np.append(first[1:], anchor.size) - 1
        low = np.where(first > 0, total[first - 1], 0.0)
        drawn = np.repeat(np.arange(anchors.size), self.pairs_per_item)
        point = low[drawn] + generator.random(drawn.size) * (total[last] - low)[drawn]
        place = np.clip(np.searchsorted(total, point, side="right"), first[drawn], last[drawn])
        return anchors[drawn], positive[place]

    def _draw_negatives(self, anchors: IntArray, generator: np.random.Generator) -> IntArray | None:
        worse = self.pairs.disliked
        if worse is None:
            return None
        out = np.full(anchors.size, -1, dtype=np.int64)
        for row, anchor in enumerate(anchors):
            span = slice(worse.indptr[anchor], worse.indptr[anchor + 1])
            weight = worse.data[span] * self.usable[worse.indices[span]] * (worse.indices[span] != anchor)
            if weight.sum() > 0:
                total = np.cumsum(weight)
                out[row] = worse.indices[span][np.searchsorted(total, generator.random() * total[-1], side="right")]
        return out

    def shared(self, anchors: IntArray, positives: IntArray) -> tuple[torch.Tensor, torch.Tensor]:
        """Positives of others that are no negatives of an anchor: its own one, itself, or liked along with it.

        Returns:
            Offsets and sorted columns.
        """
        table = self.pairs.admirers[anchors][:, positives].toarray() >= self.min_shared
        table |= (positives[None, :] == anchors[:, None]) | (positives[None, :] == positives[:, None])
        np.fill_diagonal(table, False)
        rows, columns = np.nonzero(table)
        counts = np.bincount(rows, minlength=anchors.size)
        return torch.from_numpy(offsets_of(counts)), torch.from_numpy(columns.astype(np.int64))
