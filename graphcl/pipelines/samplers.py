"""Training pairs of recommenders: positives by edge or by user, negatives outside the user's training items.

What an epoch draws is a function of (seed, epoch) alone, so a resumed run repeats it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from graphcl.models.base_collaborative import PairBatch, Rankings

IntArray = npt.NDArray[np.int64]
Sampling = Literal["edge", "user"]

__all__ = ["PairSampler", "Sampling", "TrainingPairs"]


@dataclass(frozen=True)
class TrainingPairs:
    """Distinct training pairs, sorted by user and item, and what each user has not met.

    Args:
        offsets: [U + 1] start of each user's items.
        items: [E] item ids, ascending and without repeats within a user.
        num_items: I.

    Example:
        >>> pairs = TrainingPairs.from_arrays(np.array([1, 0, 1]), np.array([2, 0, 1]), num_users=2, num_items=3)
        >>> pairs.items.tolist(), pairs.draw_negatives(np.array([1, 1]), np.random.default_rng(0)).tolist()
        ([0, 1, 2], [0, 0])
    """

    offsets: IntArray
    items: IntArray
    num_items: int

    @classmethod
    def from_arrays(cls, user: IntArray, item: IntArray, *, num_users: int, num_items: int) -> TrainingPairs:
        """Pairs in any order, repeats allowed. Complexity: O(E log E)."""
        keys = np.unique(user * np.int64(num_items) + item)
        counts = np.bincount(keys // num_items, minlength=num_users)
        return cls(np.concatenate([[0], np.cumsum(counts)]), keys % num_items, num_items)

    @property
    def num_pairs(self) -> int:
        """E."""
        return int(self.items.size)

    @cached_property
    def users(self) -> IntArray:
        """[E] user of each pair."""
        return np.repeat(np.arange(self.offsets.size - 1), np.diff(self.offsets))

    @cached_property
    def _missing_before(self) -> IntArray:
        """[E] ascending keys: user * I + how many items below this one the user has not met."""
        place = np.arange(self.num_pairs) - self.offsets[:-1][self.users]
        return self.users * np.int64(self.num_items) + self.items - place

    def draw_negatives(self, users: IntArray, generator: np.random.Generator) -> IntArray:
        """One uniform item outside the training items of each user, exactly and without rejection.

        The r-th item that a user has not met is r + k, where k of the user's items have at most r unmet ones before
        them: one binary search finds k.

        Args:
            users: [B] user ids; each must lack at least one item.
            generator: source of the draws.

        Returns:
            [B] item ids.

        Raises:
            ValueError: a user has met every item.

        Complexity: O(B log E) time, O(B) memory beside one array of E keys made at the first call.
        """
        count = np.diff(self.offsets)[users]
        unmet = self.num_items - count
        if users.size and unmet.min() < 1:
            raise ValueError(f"user {int(users[unmet.argmin()])} has met every item, so there is no negative")
        rank = generator.integers(0, unmet)
        found = np.searchsorted(self._missing_before, users * np.int64(self.num_items) + rank, side="right")
        return rank + found - self.offsets[:-1][users]


@dataclass(frozen=True)
class PairSampler:
    """Batches of training pairs, as an epoch source of :func:`graphcl.pipelines.training.train`.

    ``edge``: every pair once an epoch in random order (LightGCN and its descendants). ``user``: each step draws
    ``batch_size`` different users uniformly (repeats only where there are fewer) and one of the items of each; an epoch
    has floor(E / batch_size) + 1 steps (MMHCL). Users without training items, and users that met every item where
    negatives are drawn, are never drawn.

    Args:
        pairs: training pairs.
        batch_size: pairs a step.
        seed: of the run.
        sampling: ``edge`` or ``user``.
        objective: ``bpr`` adds a negative a pair, ``sampled_softmax`` a shared sample of items, ``full_softmax``
            neither.
        num_candidates: items of that sample, drawn uniformly with replacement.

    Example:
        >>> pairs = TrainingPairs.from_arrays(np.array([0, 1, 1]), np.array([2, 0, 1]), num_users=2, num_items=3)
        >>> [batch.users.tolist() for batch in PairSampler(pairs, 2, seed=0).batches(epoch=0)]
        [[1, 1], [0]]
    """

    pairs: TrainingPairs
    batch_size: int
    seed: int
    sampling: Sampling = "edge"
    objective: Rankings = "bpr"
    num_candidates: int = 1024

    @cached_property
    def _drawn_users(self) -> npt.NDArray[np.bool_]:
        met = np.diff(self.pairs.offsets)
        return (met > 0) & ((met < self.pairs.num_items) | (self.objective != "bpr"))

    @cached_property
    def _edges(self) -> IntArray:
        drawn = self._drawn_users
        return np.arange(self.pairs.num_pairs) if drawn.all() else np.flatnonzero(drawn[self.pairs.users])

    @property
    def can_draw(self) -> bool:
        """Whether there is a user to draw."""
        return bool(self._drawn_users.any())

    @property
    def num_steps(self) -> int:
        """Steps an epoch."""
        if self.sampling == "user":
            return self.pairs.num_pairs // self.batch_size + 1
        return -(-self._edges.size // self.batch_size)

    @property
    def num_targets(self) -> int:
        """Pairs an epoch."""
        return self.num_steps * self.batch_size if self.sampling == "user" else int(self._edges.size)

    def batches(self, epoch: int, rank: int = 0, world: int = 1) -> Iterator[PairBatch]:
        """The steps of an epoch; of each, the share of one of several processes.

        Complexity: O(B log E) a step; O(E) an epoch for the order of the edges.
        """
        generator = np.random.default_rng([self.seed, epoch])
        order = generator.permutation(self._edges) if self.sampling == "edge" else np.empty(0, dtype=np.int64)
        known = np.flatnonzero(self._drawn_users)
        for step in range(self.num_steps):
            if self.sampling == "edge":
                edges = order[step * self.batch_size : (step + 1) * self.batch_size]
                users = self.pairs.users[edges]
            else:
                users = generator.choice(known, self.batch_size, replace=self.batch_size > known.size)
                edges = self.pairs.offsets[users] + generator.integers(0, np.diff(self.pairs.offsets)[users])
            negatives = self.pairs.draw_negatives(users, generator) if self.objective == "bpr" else None
            candidates = None
            if self.objective == "sampled_softmax":
                candidates = torch.from_numpy(generator.integers(0, self.pairs.num_items, self.num_candidates))
            share = slice(rank, None, world)
            yield PairBatch(
                torch.from_numpy(users[share]),
                torch.from_numpy(self.pairs.items[edges][share]),
                None if negatives is None else torch.from_numpy(negatives[share]),
                candidates,
                total=users.size / world,
            )
