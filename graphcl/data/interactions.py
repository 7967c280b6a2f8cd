"""Interaction logs as arrays: who met what, and when."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from graphcl.data.ids import IdMap, Ids, IntArray, id_series
from graphcl.data.ranges import offsets_of
from graphcl.data.read_report import DroppedRows, ReadReport
from graphcl.errors import InputError

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, eq=False)
class Sequences:
    """One item sequence a user, as offsets into one array.

    Attributes:
        offsets: int64[U + 1]; the sequence of user u is ``items[offsets[u]:offsets[u + 1]]``.
        items: int64[E], internal item ids (0-based) in time order.
        times: int64[E] or float64[E] beside the items, or None.

    Example:
        >>> s = Sequences(np.array([0, 2, 3]), np.array([4, 1, 0]))
        >>> s[0].tolist(), s.lengths.tolist(), len(s)
        ([4, 1], [2, 1], 2)
    """

    offsets: IntArray
    items: IntArray
    times: NDArray[Any] | None = None

    @property
    def lengths(self) -> IntArray:
        """int64[U]: items of each user."""
        lengths: IntArray = np.diff(self.offsets)
        return lengths

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, user: int) -> IntArray:
        """The items of one user, a view."""
        if not 0 <= user < len(self):
            raise IndexError(f"user must be in 0..{len(self) - 1}, got {user}")
        return self.items[self.offsets[user] : self.offsets[user + 1]]


@dataclass(frozen=True, eq=False)
class Interactions:
    """A log of E interactions between users and items, in arrays.

    Row order is the order of the source. Make one with `read_interactions`, `from_frame` or `from_arrays`.

    Attributes:
        user: int64[E], internal user ids.
        item: int64[E], internal item ids.
        user_ids: external ids of the users.
        item_ids: external ids of the items.
        time: int64[E] or float64[E], or None when the source has no time: then row order is time order.
        value: float64[E] (rating, count), or None.
        user_features: polars frame with one row a user id in its first column, or None.
        item_features: polars frame with one row an item id in its first column, or None.
        report: what was read and what was dropped.

    Example:
        >>> log = Interactions.from_arrays(["ann", "bob", "ann"], [7, 7, 9])
        >>> log.num_users, log.num_items, log.sequences()[0].tolist()
        (2, 2, [0, 1])
    """

    user: IntArray
    item: IntArray
    user_ids: IdMap
    item_ids: IdMap
    time: NDArray[Any] | None = None
    value: NDArray[np.float64] | None = None
    user_features: pl.DataFrame | None = None
    item_features: pl.DataFrame | None = None
    report: ReadReport = field(default_factory=ReadReport)

    def __post_init__(self) -> None:
        columns = {"item": self.item, "time": self.time, "value": self.value}
        for name, array in columns.items():
            if array is not None and array.shape != self.user.shape:
                raise ValueError(f"{name} must have the shape of user {self.user.shape}, got {array.shape}")
        for name, index, size in (("user", self.user, len(self.user_ids)), ("item", self.item, len(self.item_ids))):
            if index.size and not (index.min() >= 0 and index.max() < size):
                raise IndexError(f"{name} holds internal ids outside 0..{size - 1}")

    @property
    def num_users(self) -> int:
        """Size of the user id space (users without a row in this part count too)."""
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        """Size of the item id space, V."""
        return len(self.item_ids)

    @property
    def num_interactions(self) -> int:
        """Rows, E."""
        return int(self.user.size)

    def __len__(self) -> int:
        return self.num_interactions

    def __repr__(self) -> str:
        return f"Interactions({self.num_users} users, {self.num_items} items, {self.num_interactions} interactions)"

    @classmethod
    def from_arrays(
        cls,
        user: Ids,
        item: Ids,
        time: ArrayLike | None = None,
        value: ArrayLike | None = None,
        *,
        user_features: pl.DataFrame | None = None,
        item_features: pl.DataFrame | None = None,
        source: str = "arrays",
    ) -> Interactions:
        """Interactions from columns of external ids.

        Args:
            user: external user ids, length E.
            item: external item ids, length E.
            time: numbers or datetime64, length E. Datetimes become seconds since 1970 (UTC).
            value: numbers, length E.
            user_features: frame whose first column holds user ids.
            item_features: frame whose first column holds item ids.
            source: name for messages.

        Returns:
            The log, rows in the given order.

        Raises:
            InputError: no row, a missing id, a negative integer id, a time or value that is not finite.
            ValueError: lengths differ.

        Complexity:
            O(E) time and memory.

        Example:
            >>> Interactions.from_arrays([5, 5], ["x", "y"], time=[2, 1]).sequences().items.tolist()
            [1, 0]
        """
        from graphcl.data.columns import interactions_of_columns

        return interactions_of_columns(
            user, item, time, value, user_features=user_features, item_features=item_features, source=source
        )

    @classmethod
    def from_frame(cls, frame: Any, **columns: Any) -> Interactions:
        """Interactions from a polars or pandas frame; the keywords are those of `read_interactions`.

        Args:
            frame: polars or pandas frame.
            **columns: see `read_interactions`.

        Returns:
            The log, rows in the order of the frame.

        Raises:
            InputError: as `read_interactions`.

        Complexity:
            O(E) time and memory.

        Example:
            >>> import polars as pl
            >>> len(Interactions.from_frame(pl.DataFrame({"user": [1, 2], "item": ["a", "b"]})))
            2
        """
        from graphcl.data.readers import read_interactions

        return read_interactions(frame, **columns)

    def order(self) -> IntArray:
        """Row numbers sorted by user, then time; rows that tie keep the order of the source.

        Returns:
            int64[E].

        Complexity:
            O(E log E) time, O(E) memory.
        """
        order = np.argsort(self.user, kind="stable") if self.time is None else np.lexsort((self.time, self.user))
        return order.astype(np.int64, copy=False)

    def sequences(self) -> Sequences:
        """One time-ordered item sequence a user (empty for a user without rows).

        Returns:
            Sequences over all `num_users` users. The sort is stable: ties, and a log without times, keep source order.

        Complexity:
            O(E log E) time, O(E) memory.

        Example:
            >>> Interactions.from_arrays([1, 0, 1], [3, 3, 2]).sequences().offsets.tolist()
            [0, 1, 3]
        """
        order = self.order()
        times = None if self.time is None else self.time[order]
        return Sequences(row_offsets(self.user, self.num_users), self.item[order], times)

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Interactions:
        """Some rows, by number or mask, with the same id maps and features.

        Args:
            rows: int64[n] row numbers or bool[E].

        Returns:
            Interactions of n rows; `num_users` and `num_items` stay.

        Complexity:
            O(n).
        """
        return replace(
            self,
            user=self.user[rows],
            item=self.item[rows],
            time=None if self.time is None else self.time[rows],
            value=None if self.value is None else self.value[rows],
        )

    def compact(self) -> Interactions:
        """The same rows with id maps, and side features, of only the users and items that still occur.

        Returns:
            Interactions whose every user and item has at least one row.

        Complexity:
            O(E + U + V).
        """
        users, user = _renumber(self.user, self.num_users)
        items, item = _renumber(self.item, self.num_items)
        user_ids = IdMap(self.user_ids.to_external(users))
        item_ids = IdMap(self.item_ids.to_external(items))
        return replace(
            self,
            user=user,
            item=item,
            user_ids=user_ids,
            item_ids=item_ids,
            user_features=known_features(self.user_features, user_ids),
            item_features=known_features(self.item_features, item_ids),
        )

    def content_hash(self) -> str:
        """SHA-256 of ids, rows (in order), times, values and side features, as 64 hexadecimal digits.

        It does not depend on the file format the log came from, nor on the report.

        Complexity:
            O(E) time.
        """
        digest = hashlib.sha256()
        for ids in (self.user_ids, self.item_ids):
            series = ids.to_series()
            digest.update(f"{series.dtype} {len(series)};".encode())
            if ids.kind == "text":
                digest.update(series.str.len_bytes().to_numpy().astype("<i8").tobytes())
                digest.update("".join(series.to_list()).encode())
            else:
                digest.update(_little_endian(series.to_numpy()).tobytes())
        for name in ("user", "item", "time", "value"):
            array = getattr(self, name)
            digest.update(f"{name} {None if array is None else array.dtype.str.lstrip('<>=|')};".encode())
            if array is not None:
                digest.update(_little_endian(array).tobytes())
        for frame in (self.user_features, self.item_features):
            digest.update(b"features;" if frame is None else frame.write_ndjson().encode())
        return digest.hexdigest()


def row_offsets(user: IntArray, num_users: int) -> IntArray:
    """Offsets of each user's rows once rows are sorted by user.

    Args:
        user: int64[E], internal user ids in any order.
        num_users: U.

    Returns:
        int64[U + 1].

    Complexity:
        O(E + U).

    Example:
        >>> row_offsets(np.array([2, 0, 2]), 3).tolist()
        [0, 1, 1, 3]
    """
    return offsets_of(np.bincount(user, minlength=num_users))


def known_features(frame: pl.DataFrame | None, ids: IdMap) -> pl.DataFrame | None:
    """The feature rows whose id (first column) the map holds.

    Args:
        frame: side features keyed by external id in the first column, or None.
        ids: the ids to keep.

    Returns:
        The filtered frame, None for None.

    Raises:
        InputError: an id occurs twice.

    Complexity:
        O(rows).
    """
    if frame is None:
        return None
    key = frame.get_column(frame.columns[0])
    kept = frame.filter(ids.to_internal(key, unknown="ignore") >= 0)
    repeated = kept.get_column(frame.columns[0]).is_duplicated()
    if repeated.any():
        value = kept.get_column(frame.columns[0]).filter(repeated)[0]
        raise InputError(f"feature id {value!r} occurs twice", "give one feature row an id", column=frame.columns[0])
    return kept


def k_core(interactions: Interactions, k_user: int = 5, k_item: int = 5) -> Interactions:
    """The largest part of a log in which every user has k_user rows and every item k_item.

    Rows of users and items below their bound are removed again and again until nothing changes (the fixed point is
    unique). Repeated user-item rows count each.

    Args:
        interactions: the log.
        k_user: least rows a user, at least 0.
        k_item: least rows an item, at least 0.

    Returns:
        A log with compact id maps, and a line in its report on what was dropped.

    Raises:
        ValueError: k_user or k_item is negative.
        InputError: nothing is left.

    Complexity:
        O(E) time a pass; the number of passes is rarely above 20. O(E) memory.

    Example:
        >>> log = Interactions.from_arrays([1, 1, 2, 2, 3], [7, 8, 7, 8, 9])
        >>> k_core(log, 2, 2).num_users
        2
    """
    for name, bound in (("k_user", k_user), ("k_item", k_item)):
        if bound < 0:
            raise ValueError(f"{name} must be at least 0, got {bound}")
    rows = np.arange(interactions.num_interactions)
    while True:
        user, item = interactions.user[rows], interactions.item[rows]
        enough = np.bincount(user, minlength=1)[user] >= k_user
        enough &= np.bincount(item, minlength=1)[item] >= k_item
        if enough.all():
            break
        rows = rows[enough]
    if not rows.size:
        raise InputError(
            f"no interaction is left in the {k_user}-{k_item}-core",
            "lower k_user and k_item (--k-core)",
            path=interactions.report.source,
        )
    dropped = interactions.num_interactions - rows.size
    core = interactions.take(rows).compact()
    if not dropped:
        return core
    reason = DroppedRows(f"outside the core (users with {k_user} rows, items with {k_item})", int(dropped))
    report = replace(
        interactions.report,
        rows_kept=core.num_interactions,
        dropped=(*interactions.report.dropped, reason),
    )
    return replace(core, report=report)


def _renumber(index: IntArray, size: int) -> tuple[IntArray, IntArray]:
    """The ids below `size` that occur, ascending, and each id's place among them."""
    occurs = np.bincount(index, minlength=size) > 0
    place: IntArray = np.cumsum(occurs, dtype=np.int64) - 1
    return np.flatnonzero(occurs).astype(np.int64, copy=False), place[index]


def _little_endian(array: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))


def items_with(item_ids: IdMap, named: Ids) -> IdMap:
    """The items of interactions and those that their features name beside them.

    Args:
        item_ids: the items of the interactions.
        named: external ids that the features are keyed by, known ones among them; missing ones are left out.

    Returns:
        The map of all.

    Raises:
        InputError: ids of a type that these items cannot have, or not one of a known item.

    Complexity:
        O(n log n) for n ids.

    Example:
        >>> items_with(IdMap([5, 9]), [7, 9]).external.tolist()
        [5, 7, 9]
    """
    import polars as pl

    given, known = id_series(named).drop_nulls(), item_ids.to_series()
    ids = item_ids.in_own_type(given)
    if ids.null_count():
        raise InputError(
            f"the features are keyed by {given.dtype} ids, the interactions by {known.dtype}",
            "key both by the same ids",
        )
    if not ids.is_in(known.implode()).any():
        raise InputError(
            f"no row of the {len(ids)} belongs to an item of the interactions",
            f"key them by item ids such as {known[0]!r}",
        )
    return IdMap(pl.concat([known, ids.rename(known.name)]))
