"""A made-up shop: a log with structure to learn, for tests and for machines without data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from graphcl.data.interactions import Interactions
from graphcl.data.ranges import offsets_of

_START = 1_600_000_000
_DAY = 86_400
_CATEGORY_NAMES = ("books", "garden", "games", "kitchen", "music", "office", "outdoor", "toys")


def synthetic_shop(
    num_users: int = 1000,
    num_items: int = 300,
    *,
    mean_length: float = 12.0,
    num_categories: int = 8,
    follow: float = 0.6,
    exponent: float = 1.0,
    seed: int = 0,
) -> Interactions:
    """Draw the log of a shop.

    Items have a category and a popularity that falls as a power of their rank. Each user has tastes (a Dirichlet draw
    over categories), comes in sessions and starts each with an item of a liked category. From then on the next item
    is, with probability `follow`, one of the three accessories of the last item (of its category, mostly popular
    ones), else a fresh draw by taste. So the last item says far more about the next one than popularity does.

    Args:
        num_users: users, at least 1.
        num_items: items on sale, at least 2. Rarely sold ones may not occur in the log.
        mean_length: mean interactions a user, at least 5; every user has at least 5.
        num_categories: categories, at least 1.
        follow: probability in [0, 1] that an item is followed by one of its accessories.
        exponent: power of the popularity law, at least 0.
        seed: of all draws; the same arguments give the same log.

    Returns:
        A log in time order with times (seconds), integer ids, session numbers as values, and item features (category,
        price, popularity rank of the shop).

    Raises:
        ValueError: an argument is out of range.

    Complexity:
        O(E log V) time for E interactions, O(E) memory; the loop goes over positions in a history, not over users.

    Example:
        >>> log = synthetic_shop(num_users=50, num_items=40)
        >>> log.num_users, log.item_features.columns
        (50, ['item', 'category', 'price', 'popularity_rank'])
    """
    import polars as pl

    _check(num_users, num_items, mean_length, num_categories, follow, exponent)
    generator = np.random.default_rng(seed)
    category = generator.integers(0, num_categories, num_items)
    category[:num_categories] = np.arange(num_categories)[:num_items]
    rank = generator.permutation(num_items)
    weight: NDArray[np.float64] = np.power(rank + 1.0, -exponent)
    shelves = _Shelves(category, weight, num_categories)
    accessories = shelves.draw(generator, np.repeat(category, 3)).reshape(num_items, 3)

    length = 5 + generator.poisson(mean_length - 5, num_users)
    # Longest histories first: the users still active at a position are then a prefix.
    length = -np.sort(-length)
    active = np.searchsorted(-length, -np.arange(length[0]), side="left")
    taste = np.cumsum(generator.dirichlet(np.full(num_categories, 0.3), num_users), axis=1)
    offsets = offsets_of(length)
    item = np.empty(offsets[-1], dtype=np.int64)
    session_start = np.empty(offsets[-1], dtype=np.bool_)
    last = np.zeros(num_users, dtype=np.int64)
    for position, count in enumerate(active):
        liked = (generator.random((count, 1)) > taste[:count]).sum(axis=1).clip(max=num_categories - 1)
        fresh = shelves.draw(generator, liked)
        starts = generator.random(count) < 0.2 if position else np.ones(count, dtype=np.bool_)
        following = accessories[last[:count], generator.integers(0, 3, count)]
        follows = ~starts & (generator.random(count) < follow)
        last[:count] = np.where(follows, following, fresh)
        at = offsets[:count] + position
        item[at] = last[:count]
        session_start[at] = starts
    user = np.repeat(generator.permutation(num_users), length)
    time, session = _clock(generator, session_start, offsets)
    order = np.argsort(time, kind="stable")
    price = np.round(np.exp(generator.normal(2.5, 0.8, num_items)), 2)
    features = pl.DataFrame(
        {
            "item": np.arange(1, num_items + 1),
            "category": [_category_name(index) for index in category.tolist()],
            "price": price,
            "popularity_rank": rank + 1,
        }
    )
    log = Interactions.from_arrays(
        user[order] + 1,
        item[order] + 1,
        time=time[order],
        value=session[order],
        item_features=features,
        source="synthetic-shop",
    )
    return replace(log, report=replace(log.report, format="synthetic"))


class _Shelves:
    """Weighted draws of items within categories by one binary search in a shared cumulative sum."""

    def __init__(self, category: NDArray[np.int64], weight: NDArray[np.float64], num_categories: int) -> None:
        self.order = np.argsort(category, kind="stable")
        self.total = np.cumsum(weight[self.order])
        end = np.cumsum(np.bincount(category, minlength=num_categories))
        self.last = end - 1
        self.high = self.total[self.last]
        self.low = np.concatenate([[0.0], self.high[:-1]])

    def draw(self, generator: np.random.Generator, category: NDArray[np.int64]) -> NDArray[np.int64]:
        low, high = self.low[category], self.high[category]
        point = low + generator.random(category.size) * (high - low)
        place = np.searchsorted(self.total, point, side="right")
        drawn: NDArray[np.int64] = self.order[np.minimum(place, self.last[category])]
        return drawn


def _clock(
    generator: np.random.Generator, session_start: NDArray[np.bool_], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Times that grow within each user (minutes in a session, days between sessions), and session numbers from 1."""
    size = session_start.size
    gap = (generator.exponential(1.0, size) * np.where(session_start, 20 * _DAY, 300)).astype(np.int64)
    elapsed = np.cumsum(gap + 1)
    sessions = np.cumsum(session_start)
    length = np.diff(offsets)
    first = offsets[:-1]
    time = _START + elapsed - np.repeat(elapsed[first] - gap[first], length)
    return time, (sessions - np.repeat(sessions[first] - 1, length)).astype(np.float64)


def _category_name(index: int) -> str:
    name = _CATEGORY_NAMES[index % len(_CATEGORY_NAMES)]
    return name if index < len(_CATEGORY_NAMES) else f"{name}-{index // len(_CATEGORY_NAMES) + 1}"


def _check(
    num_users: int, num_items: int, mean_length: float, num_categories: int, follow: float, exponent: float
) -> None:
    for name, given, least in (
        ("num_users", num_users, 1),
        ("num_items", num_items, 2),
        ("mean_length", mean_length, 5),
        ("num_categories", num_categories, 1),
        ("exponent", exponent, 0),
    ):
        if not given >= least:
            raise ValueError(f"{name} must be at least {least}, got {given}")
    if num_categories > num_items:
        raise ValueError(f"num_categories must be at most num_items ({num_items}), got {num_categories}")
    if not 0 <= follow <= 1:
        raise ValueError(f"follow must be in [0, 1], got {follow}")
