"""Bundles (sets of items that belong together), their parts, and what is known of their items."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from graphcl.data.features import ItemFeatures
from graphcl.data.ids import IdMap, IntArray
from graphcl.data.interactions import Interactions
from graphcl.data.ranges import offsets_of, places_of
from graphcl.data.splits import TEST, TRAIN, VALID
from graphcl.errors import InputError

__all__ = ["Bundles", "PartialBundles", "sorted_bundles", "split_bundles"]

FloatArray = NDArray[np.float32]
_CODES = {"train": TRAIN, "valid": VALID, "test": TEST}


class PartialBundles(NamedTuple):
    """Bundles of one part, of each the items that are shown and those to be found.

    Attributes:
        bundles: int64[n], internal bundle ids.
        shown: offsets and items.
        hidden: offsets and items.
    """

    bundles: IntArray
    shown: tuple[IntArray, IntArray]
    hidden: tuple[IntArray, IntArray]


@dataclass(frozen=True, eq=False)
class Bundles:
    """Bundles with a part each, and side information on the items of the catalogue.

    Attributes:
        table: rows (bundle, item), the bundle in the place of the user; sorted by bundle, no row twice.
        part: uint8[B], 0 train, 1 validation, 2 test.
        shown: bool[N], which items of a bundle a model may see when it completes it; all of a training bundle.
        log: interactions of users with the same catalogue, None where there are none.
        features: features of the items by modality, None where there are none.
        vectors: float32[I, D], item vectors learned elsewhere from feedback, None where there are none.
        protocol: how the parts came about, in words.

    Example:
        >>> bundles = sorted_bundles(Interactions.from_arrays(["a", "a", "b", "b", "b"], [5, 7, 7, 8, 9]))
        >>> bundles.num_bundles, bundles.sizes.tolist()
        (2, [2, 3])
    """

    table: Interactions
    part: NDArray[np.uint8]
    shown: NDArray[np.bool_]
    log: Interactions | None = None
    features: ItemFeatures | None = None
    vectors: FloatArray | None = None
    protocol: str = "no split"

    def __post_init__(self) -> None:
        if self.part.shape != (self.num_bundles,) or self.shown.shape != self.table.item.shape:
            raise ValueError("part must have an entry a bundle and shown one a row")
        if self.log is not None and self.log.item_ids != self.item_ids:
            raise ValueError("the log must have the items of the bundles; give it the same item_ids")
        if self.features is not None and self.features.item_ids != self.item_ids:
            raise ValueError("the features must be aligned with the items of the bundles")
        if self.vectors is not None and self.vectors.shape[0] != self.num_items:
            raise ValueError(f"vectors must have {self.num_items} rows, got {self.vectors.shape[0]}")

    @property
    def item_ids(self) -> IdMap:
        """The catalogue."""
        return self.table.item_ids

    @property
    def num_bundles(self) -> int:
        """B."""
        return self.table.num_users

    @property
    def num_items(self) -> int:
        """I."""
        return self.table.num_items

    @property
    def sizes(self) -> IntArray:
        """int64[B], items of each bundle."""
        return np.bincount(self.table.user, minlength=self.num_bundles)

    @property
    def interacted(self) -> NDArray[np.bool_]:
        """bool[I], items that a user of the log has met."""
        met = np.zeros(self.num_items, dtype=np.bool_)
        if self.log is not None:
            met[self.log.item] = True
        return met

    @property
    def training(self) -> tuple[IntArray, IntArray]:
        """Offsets and items of the training bundles."""
        rows = np.flatnonzero(self.part[self.table.user] == TRAIN)
        return offsets_of(self.sizes[self.part == TRAIN]), self.table.item[rows]

    def partial(self, part: Literal["valid", "test"]) -> PartialBundles:
        """The bundles of a part that show an item and hide one."""
        rows = self.table
        wanted = (self.part == _CODES[part])[rows.user]
        counts = [
            np.bincount(rows.user[wanted & chosen], minlength=self.num_bundles) for chosen in (self.shown, ~self.shown)
        ]
        usable = (counts[0] > 0) & (counts[1] > 0)
        ids = np.flatnonzero(usable)
        shown, hidden = (
            (offsets_of(count[ids]), rows.item[wanted & chosen & usable[rows.user]])
            for count, chosen in zip(counts, (self.shown, ~self.shown), strict=True)
        )
        return PartialBundles(ids, shown, hidden)

    def counts(self) -> dict[str, int]:
        """Sizes by name."""
        parts = {name: int((self.part == code).sum()) for name, code in _CODES.items()}
        log = {} if self.log is None else {"users": self.log.num_users, "interactions": self.log.num_interactions}
        return {
            "bundles": self.num_bundles,
            "items": self.num_items,
            "affiliations": self.table.num_interactions,
            **log,
            **parts,
        }

    def content_hash(self) -> str:
        """SHA-256 of everything that training depends on, as 64 hexadecimal digits."""
        digest = hashlib.sha256(self.table.content_hash().encode())
        digest.update(self.part.tobytes() + self.shown.tobytes())
        digest.update(b"" if self.log is None else self.log.content_hash().encode())
        digest.update(b"" if self.features is None else self.features.content_hash().encode())
        digest.update(b"" if self.vectors is None else np.ascontiguousarray(self.vectors).tobytes())
        return digest.hexdigest()

    def without_features(self, share: float, seed: int = 0) -> Bundles:
        """The bundles with random holes in the features: each item loses each modality, and its feedback, so often.

        Args:
            share: probability of a loss, in [0, 1).
            seed: of the draws.

        Returns:
            Features with fewer rows, and a log (or vectors) without the interactions of the items that lost them.

        Raises:
            ValueError: a share out of range.

        Complexity:
            O(I D).
        """
        if not 0 <= share < 1:
            raise ValueError(f"share must be in [0, 1), got {share}")
        generator = np.random.default_rng(seed)
        features, log = self.features, self.log
        if features is not None:
            vectors, present = {}, {}
            for name, table in features.vectors.items():
                present[name] = features.present[name] & (generator.random(self.num_items) >= share)
                vectors[name] = table * present[name][:, None]
            features = replace(features, vectors=vectors, present=present)
        lost = generator.random(self.num_items) < share
        if log is not None:
            log = log.take(np.flatnonzero(~lost[log.item]))
        held = self.vectors if self.vectors is None else self.vectors * ~lost[:, None]
        return replace(self, features=features, log=log, vectors=held)


def sorted_bundles(table: Interactions, **known: Any) -> Bundles:
    """Bundles of a table of rows (bundle, item), all for training; repeated rows count once.

    Args:
        table: the bundle in the place of the user.
        **known: ``log``, ``features``, ``vectors`` as in :class:`Bundles`; their catalogue is that of the table.

    Returns:
        The bundles.

    Raises:
        InputError: there is no row.

    Complexity:
        O(N log N).
    """
    if not table.num_interactions:
        raise InputError("there is no bundle", "give at least one row", path=table.report.source)
    keys = table.user * np.int64(table.num_items) + table.item
    _, first = np.unique(keys, return_index=True)
    # Within a bundle the order of the table stays.
    order = np.sort(first)
    order = order[np.argsort(table.user[order], kind="stable")]
    kept = table.take(order)
    every = np.ones(kept.num_interactions, dtype=np.bool_)
    return Bundles(kept, np.zeros(kept.num_users, dtype=np.uint8), every, **known)


def split_bundles(
    bundles: Bundles, ratios: tuple[float, float, float] = (0.7, 0.1, 0.2), *, shown: float = 0.5, seed: int = 0
) -> Bundles:
    """Divide bundles at random into training, validation and test, and hide a random half of the latter two.

    Bundles of one item can hide nothing and are all for training.

    Args:
        bundles: to be divided anew.
        ratios: shares of the parts; their sum is 1.
        shown: share of the items of a validation or test bundle that stays visible: at least one, and one is hidden.
        seed: of the draws.

    Returns:
        The bundles with parts.

    Raises:
        InputError: ratios that are no shares, or a part without a bundle.

    Complexity:
        O(N log N).

    Example:
        >>> table = Interactions.from_arrays(np.repeat(np.arange(10), 4), np.arange(40) % 7)
        >>> split_bundles(sorted_bundles(table)).counts()["test"]
        2
    """
    if min(ratios) < 0 or abs(sum(ratios) - 1) > 1e-6 or not 0 < shown < 1:
        raise InputError(
            f"ratios {ratios} and shown {shown} are no shares", "give three shares that sum to 1, and shown in (0, 1)"
        )
    generator = np.random.default_rng(seed)
    sizes = bundles.sizes
    drawn = generator.permutation(np.flatnonzero(sizes > 1))
    ends = np.rint(np.cumsum(ratios[1:]) * bundles.num_bundles).astype(np.int64)
    part = np.full(bundles.num_bundles, TRAIN, dtype=np.uint8)
    part[drawn[: ends[0]]], part[drawn[ends[0] : ends[1]]] = VALID, TEST
    for name, code in _CODES.items():
        if not (part == code).any():
            raise InputError(
                f"no bundle is left for the {name} part ({bundles.num_bundles} bundles)", "give more bundles"
            )
    rows = bundles.table
    order = np.lexsort((generator.random(rows.num_interactions), rows.user))
    place = np.empty(order.size, dtype=np.int64)
    place[order] = places_of(np.zeros(sizes.size, dtype=np.int64), sizes)
    keep = np.clip(np.rint(shown * sizes), 1, np.maximum(sizes - 1, 1)).astype(np.int64)
    visible = (place < keep[rows.user]) | (part[rows.user] == TRAIN)
    text = f"{', '.join(f'{ratio:g}' for ratio in ratios)} of the bundles at random, {shown:g} of their items shown"
    return replace(bundles, part=part, shown=visible, protocol=text)
