"""Steps over training bundles, each with a second view of every bundle: some items left out, or replaced."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from graphcl.data.ranges import offsets_of, places_of
from graphcl.models import BundleBatch

IntArray = npt.NDArray[np.int64]

__all__ = ["BundleSampler", "bundle_views"]


def bundle_views(
    offsets: IntArray, items: IntArray, ratio: float, *, replace: bool, num_items: int, generator: np.random.Generator
) -> tuple[IntArray, IntArray]:
    """A second view of every bundle: item dropout (ID) or item replacement (IR) of CLHE.

    Of n items, min(round(ratio n + 1/2), n - 1) stay for a ratio below 1, all for 1; above 1 random items join until
    there are round(ratio n). A replaced bundle is filled with random items of the catalogue up to n. Items that are
    already in the view do not join it twice.

    Args:
        offsets, items: the bundles.
        ratio: share of the items that stays.
        replace: IR instead of ID.
        num_items: size of the catalogue.
        generator: of the draws.

    Returns:
        Offsets and items of the views; that of a bundle of one item is empty under ID with a ratio below 1.

    Complexity: O(N log N).

    Example:
        >>> draws = np.random.default_rng(0)
        >>> views = bundle_views(np.array([0, 4]), np.arange(4), 0.5, replace=False, num_items=9, generator=draws)
        >>> views[0].tolist()
        [0, 2]
    """
    sizes = np.diff(offsets)
    owner = np.repeat(np.arange(sizes.size), sizes)
    order = np.lexsort((generator.random(items.size), owner))
    place = places_of(np.zeros(sizes.size, dtype=np.int64), sizes)
    # Halves go up: 0.5 of 3 items keeps 2. `rint` would round them to even numbers.
    kept = np.minimum(np.floor(ratio * sizes + 0.5).astype(np.int64), sizes - 1) if ratio < 1 else sizes
    view_owner, view_items = owner[order][place < kept[owner]], items[order][place < kept[owner]]
    wanted = np.maximum(np.floor(ratio * sizes + 0.5).astype(np.int64) if ratio > 1 else kept, sizes if replace else 0)
    more = wanted - kept
    if more.any():
        new_owner = np.repeat(np.arange(sizes.size), more)
        drawn = generator.integers(0, num_items, new_owner.size)
        view_owner, view_items = np.concatenate([view_owner, new_owner]), np.concatenate([view_items, drawn])
        keys = np.unique(view_owner * np.int64(num_items) + view_items)
        view_owner, view_items = keys // num_items, keys % num_items
    return offsets_of(np.bincount(view_owner, minlength=sizes.size)), view_items


@dataclass(frozen=True)
class BundleSampler:
    """Batches of training bundles, as an epoch source of :func:`graphcl.pipelines.training.train`.

    Args:
        offsets, items: the training bundles.
        num_items: size of the catalogue.
        batch_size: bundles a step.
        seed: of the run.
        ratio, replace: of the second views, see :func:`bundle_views`.

    Example:
        >>> sampler = BundleSampler(np.array([0, 2, 4]), np.array([0, 1, 1, 2]), 3, batch_size=1, seed=0)
        >>> [batch.items.shape[0] for batch in sampler.batches(epoch=0)]
        [2, 2]
    """

    offsets: IntArray
    items: IntArray
    num_items: int
    batch_size: int
    seed: int
    ratio: float = 0.5
    replace: bool = False

    @property
    def num_targets(self) -> int:
        """Bundles an epoch."""
        return int(self.offsets.size - 1)

    def batches(self, epoch: int, rank: int = 0, world: int = 1) -> Iterator[BundleBatch]:
        """The steps of an epoch; of each, the share of one of several processes.

        Complexity: O(N log N) an epoch.
        """
        generator = np.random.default_rng([self.seed, epoch])
        order = generator.permutation(self.num_targets)
        sizes = np.diff(self.offsets)
        for start in range(0, self.num_targets, self.batch_size):
            step = order[start : start + self.batch_size]
            # Processes draw alike and then take their rows, so that each has the same number of steps.
            offsets = offsets_of(sizes[step])
            items = self.items[places_of(self.offsets[step], sizes[step])]
            view_offsets, view_items = bundle_views(
                offsets, items, self.ratio, replace=self.replace, num_items=self.num_items, generator=generator
            )
            if world > 1:
                rows = np.arange(step.size)[rank::world]
                offsets, items = _select(offsets, items, rows)
                view_offsets, view_items = _select(view_offsets, view_items, rows)
            yield BundleBatch(
                torch.from_numpy(items),
                torch.from_numpy(offsets),
                torch.from_numpy(view_items),
                torch.from_numpy(view_offsets),
                total=step.size / world,
            )


def _select(offsets: IntArray, items: IntArray, rows: IntArray) -> tuple[IntArray, IntArray]:
    sizes = np.diff(offsets)[rows]
    return offsets_of(sizes), items[places_of(offsets[rows], sizes)]
