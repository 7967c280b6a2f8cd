"""Train, validation and test parts of a log, without leaks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from graphcl.data.ids import IntArray
from graphcl.data.interactions import Interactions, Sequences, row_offsets
from graphcl.data.ranges import offsets_of, places_of
from graphcl.errors import InputError

TRAIN, VALID, TEST, UNUSED = 0, 1, 2, 3
Part: TypeAlias = Literal["valid", "test"]
ColdRule: TypeAlias = Literal["drop", "keep"]


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """The users of one evaluation: what the model may see of each, and what it has to find.

    History and targets are ranges of one shared array; nothing is copied a user. The ``*_offsets``/``*_items``
    properties give the same as compact CSR arrays.

    Attributes:
        users: int64[N], internal user ids, ascending.
        items: int64[M], internal item ids that the ranges below point into.
        history_start: int64[N]; the history of row n is ``items[history_start[n]:history_end[n]]``, in time order.
        history_end: int64[N].
        target_start: int64[N]; likewise the targets, at least one.
        target_end: int64[N].

    Example:
        >>> log = Interactions.from_arrays([1, 1, 1, 2, 2, 2], [5, 6, 7, 7, 6, 5])
        >>> test = leave_one_out(log).evaluation("test")
        >>> test.history_items.tolist(), test.history_offsets.tolist(), test.target_items.tolist()
        ([0, 1, 2, 1], [0, 2, 4], [2, 0])
    """

    users: IntArray
    items: IntArray
    history_start: IntArray
    history_end: IntArray
    target_start: IntArray
    target_end: IntArray

    def __len__(self) -> int:
        return int(self.users.size)

    @cached_property
    def history_offsets(self) -> IntArray:
        """int64[N + 1] into `history_items`."""
        return offsets_of(self.history_end - self.history_start)

    @cached_property
    def history_items(self) -> IntArray:
        """Internal item ids of all histories, one after the other."""
        return self.items[places_of(self.history_start, self.history_end - self.history_start)]

    @cached_property
    def target_offsets(self) -> IntArray:
        """int64[N + 1] into `target_items`."""
        return offsets_of(self.target_end - self.target_start)

    @cached_property
    def target_items(self) -> IntArray:
        """Internal item ids of all targets, one user after the other."""
        return self.items[places_of(self.target_start, self.target_end - self.target_start)]

    @property
    def history(self) -> Sequences:
        """The histories as `Sequences` of N rows."""
        return Sequences(self.history_offsets, self.history_items)


@dataclass(frozen=True, eq=False)
class Split:
    """A log cut into three parts.

    Attributes:
        interactions: the log with rows sorted by user, then part, then time.
        part: uint8[E]: 0 train, 1 validation, 2 test, 3 unused. Without the unused rows it never falls inside a user:
            nothing that a user did later can be in an earlier part.
        protocol: how the cut was made, in words that go into result files.

    Raises:
        ValueError: the rows are not sorted by user, or the parts of a user are out of order.

    Example:
        >>> split = leave_one_out(Interactions.from_arrays([1, 1, 1, 2, 2, 2], [5, 6, 7, 7, 6, 5]))
        >>> split.part.tolist()
        [0, 1, 2, 0, 1, 2]
    """

    interactions: Interactions
    part: NDArray[np.uint8]
    protocol: str

    def __post_init__(self) -> None:
        user = self.interactions.user
        if self.part.shape != user.shape:
            raise ValueError(f"part must have the shape of the rows {user.shape}, got {self.part.shape}")
        if self.part.size and self.part.max() > UNUSED:
            raise ValueError(f"part must hold 0, 1, 2 or 3, got {self.part.max()}")
        if (np.diff(user) < 0).any():
            raise ValueError("interactions must be sorted by user")
        used = self.part != UNUSED
        same_user = np.diff(user[used]) == 0
        if (np.diff(self.part[used].astype(np.int64))[same_user] < 0).any():
            raise ValueError("part must not fall inside a user: a later row is in an earlier part")

    @property
    def train(self) -> Interactions:
        """The training rows, with the id maps of the whole log."""
        return self.interactions.take(self.part == TRAIN)

    @property
    def valid(self) -> Interactions:
        """The validation rows, with the id maps of the whole log."""
        return self.interactions.take(self.part == VALID)

    @property
    def test(self) -> Interactions:
        """The test rows, with the id maps of the whole log."""
        return self.interactions.take(self.part == TEST)

    @cached_property
    def counts(self) -> dict[str, int]:
        """Rows in each part, and users that have rows but no test target (not evaluable)."""
        rows = np.bincount(self.part, minlength=4)
        present = np.unique(self.interactions.user).size
        return {
            "train": int(rows[TRAIN]),
            "valid": int(rows[VALID]),
            "test": int(rows[TEST]),
            "unused": int(rows[UNUSED]),
            "users_not_evaluable": int(present - len(self.evaluation("test"))),
        }

    def train_sequences(self) -> Sequences:
        """One sequence a user of training items only, in time order.

        Returns:
            Sequences over all users; empty for a user without training rows.

        Complexity:
            O(E).
        """
        train = self.part == TRAIN
        rows = self.interactions
        times = None if rows.time is None else rows.time[train]
        return Sequences(row_offsets(rows.user[train], rows.num_users), rows.item[train], times)

    def evaluation(self, part: Part) -> EvaluationSet:
        """Users with a target in the part, with their histories.

        The history of a validation target is the user's training items; that of a test target holds the validation
        items too.

        Args:
            part: "valid" or "test".

        Returns:
            The evaluation set, users ascending.

        Raises:
            ValueError: another part is named.

        Complexity:
            O(E) time and memory.
        """
        if part not in ("valid", "test"):
            raise ValueError(f"part must be 'valid' or 'test', got {part!r}")
        code = VALID if part == "valid" else TEST
        used = self.part != UNUSED
        user, label = self.interactions.user[used], self.part[used]
        items = self.interactions.item[used]
        num_users = self.interactions.num_users
        start = row_offsets(user, num_users)[:-1]
        before = np.bincount(user[label < code], minlength=num_users)
        targets = np.bincount(user[label == code], minlength=num_users)
        users = np.flatnonzero(targets).astype(np.int64, copy=False)
        cut = (start + before)[users]
        return EvaluationSet(users, items, start[users], cut, cut, cut + targets[users])


def leave_one_out(interactions: Interactions) -> Split:
    """The last item of a user is the test target, the one before the validation target, the rest is for training.

    A user with fewer than three rows stays in training as a whole and counts as not evaluable (`Split.counts`).

    Args:
        interactions: the log; times decide the order, or row order when there are none.

    Returns:
        The split, protocol "leave-one-out".

    Raises:
        InputError: the log has one user only, or no user with three rows.

    Complexity:
        O(E log E) time, O(E) memory.

    Example:
        >>> leave_one_out(Interactions.from_arrays([1, 1, 1, 2], [5, 6, 7, 5])).counts["users_not_evaluable"]
        1
    """
    _refuse_single_user(interactions)
    rows = interactions.take(interactions.order())
    left = row_offsets(rows.user, rows.num_users)[rows.user + 1] - np.arange(rows.num_interactions)
    long = np.bincount(rows.user, minlength=rows.num_users)[rows.user] >= 3
    part = np.where(long & (left == 1), TEST, np.where(long & (left == 2), VALID, TRAIN)).astype(np.uint8)
    _require_parts(rows, part, "no user has three interactions", "give longer histories, or split by time")
    return Split(rows, part, "leave-one-out")


def split_by_ratio(interactions: Interactions, ratios: Sequence[float] = (0.8, 0.1, 0.1)) -> Split:
    """Cut each user's history, in time order, by shares.

    Of n rows, max(1, floor(n * share)) of the last go to test and as many before to validation. A user with fewer than
    three rows stays in training as a whole and counts as not evaluable.

    Args:
        interactions: the log.
        ratios: shares of train, validation and test; positive, with sum 1.

    Returns:
        The split, protocol "by-ratio(...)".

    Raises:
        ValueError: ratios are not three positive shares with sum 1.
        InputError: the log has one user only, or no user with three rows.

    Complexity:
        O(E log E) time, O(E) memory.

    Example:
        >>> log = Interactions.from_arrays([1] * 10 + [2] * 3, list(range(13)))
        >>> split_by_ratio(log).part.tolist()
        [0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 1, 2]
    """
    shares = tuple(float(ratio) for ratio in ratios)
    if len(shares) != 3 or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
        raise ValueError(f"ratios must be three positive shares with sum 1, got {shares}")
    _refuse_single_user(interactions)
    rows = interactions.take(interactions.order())
    count = np.bincount(rows.user, minlength=rows.num_users)
    # The small term undoes rounding such as 0.1 * 30 = 2.9999999999999996.
    valid = np.maximum(1, np.floor(count * shares[1] + 1e-9)).astype(np.int64)
    test = np.maximum(1, np.floor(count * shares[2] + 1e-9)).astype(np.int64)
    left = row_offsets(rows.user, rows.num_users)[rows.user + 1] - np.arange(rows.num_interactions)
    long = count[rows.user] >= 3
    in_test = long & (left <= test[rows.user])
    in_valid = long & ~in_test & (left <= (test + valid)[rows.user])
    part = np.where(in_test, TEST, np.where(in_valid, VALID, TRAIN)).astype(np.uint8)
    _require_parts(rows, part, "no user has three interactions", "give longer histories, or split by time")
    return Split(rows, part, "by-ratio({:g},{:g},{:g})".format(*shares))


def split_by_time(
    interactions: Interactions,
    valid: float = 0.1,
    test: float = 0.1,
    *,
    cut_points: tuple[float, float] | tuple[str, str] | None = None,
    cold_users: ColdRule = "drop",
    cold_items: ColdRule = "drop",
) -> Split:
    """Cut the whole log at two moments: what comes later is never in an earlier part.

    A row belongs to validation from the first moment on, and to test from the second, so rows of one moment stay
    together. With shares, the moments are quantiles of all times.

    Args:
        interactions: the log, with times.
        valid: share of rows for validation, in (0, 1). Ties can make it differ a little.
        test: share of rows for test, in (0, 1).
        cut_points: the two moments instead of shares: numbers in the unit of the times, or ISO dates.
        cold_users: what becomes of validation and test rows whose user has no training row: "drop" (unused) or "keep".
        cold_items: likewise for items without a training row.

    Returns:
        The split; its protocol names the moments and the rules.

    Raises:
        InputError: the log has no times or one user only, or a part would be empty.
        ValueError: shares, moments or rules are out of range.

    Complexity:
        O(E log E) time, O(E) memory.

    Example:
        >>> log = Interactions.from_arrays([1, 2] * 5, [3, 4] * 5, time=list(range(10)))
        >>> split_by_time(log, 0.2, 0.2).counts["test"]
        2
    """
    for name, rule in (("cold_users", cold_users), ("cold_items", cold_items)):
        if rule not in ("drop", "keep"):
            raise ValueError(f"{name} must be 'drop' or 'keep', got {rule!r}")
    if interactions.time is None:
        raise InputError(
            "the log has no times, so it cannot be split by time",
            "name the time column, or use leave_one_out or split_by_ratio",
            path=interactions.report.source,
        )
    _refuse_single_user(interactions)
    rows = interactions.take(interactions.order())
    time = cast("NDArray[Any]", rows.time)
    first, second = _quantile_cuts(time, valid, test) if cut_points is None else _given_cuts(cut_points)
    part = (TRAIN + (time >= first).astype(np.uint8) + (time >= second)).astype(np.uint8)
    train = part == TRAIN
    if cold_users == "drop":
        part[~train & (np.bincount(rows.user[train], minlength=rows.num_users)[rows.user] == 0)] = UNUSED
    if cold_items == "drop":
        part[~train & (np.bincount(rows.item[train], minlength=rows.num_items)[rows.item] == 0)] = UNUSED
    _require_parts(
        rows,
        part,
        f"a part of the split at times {first} and {second} is empty",
        "choose other shares or cut_points, or keep cold users and items",
    )
    protocol = f"by-time(valid from {first}, test from {second}, cold users {cold_users}, cold items {cold_items})"
    return Split(rows, part, protocol)


def _quantile_cuts(time: NDArray[Any], valid: float, test: float) -> tuple[Any, Any]:
    for name, share in (("valid", valid), ("test", test)):
        if not 0 < share < 1:
            raise ValueError(f"{name} must be a share in (0, 1), got {share}")
    if valid + test >= 1:
        raise ValueError(f"valid + test must be below 1, got {valid + test}")
    size = time.size
    at = [min(size - 1, max(0, round(size * share))) for share in (1 - valid - test, 1 - test)]
    cuts = np.partition(time, at)[at]
    return cuts[0].item(), cuts[1].item()


def _given_cuts(cut_points: tuple[float, float] | tuple[str, str]) -> tuple[float, float]:
    moments = [_moment(point) for point in cut_points]
    if len(moments) != 2 or not moments[0] < moments[1]:
        raise ValueError(f"cut_points must be two moments in ascending order, got {cut_points}")
    return moments[0], moments[1]


def _moment(point: float | str) -> float:
    if isinstance(point, str):
        return float(np.datetime64(point, "us").astype(np.int64)) / 1e6
    return point


def _refuse_single_user(interactions: Interactions) -> None:
    if (interactions.user == interactions.user[:1]).all():
        raise InputError(
            "the log holds one user only, so there is nothing to compare and no split",
            "give a log of at least two users, or name the right user column",
            path=interactions.report.source,
            column=interactions.report.columns.get("user"),
        )


def _require_parts(rows: Interactions, part: NDArray[np.uint8], problem: str, remedy: str) -> None:
    if not all((part == code).any() for code in (TRAIN, VALID, TEST)):
        raise InputError(problem, remedy, path=rows.report.source)
