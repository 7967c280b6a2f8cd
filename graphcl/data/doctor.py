"""The data doctor: what is in a log, what was lost in reading it, and what will make trouble later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphcl.data.features import read_item_features
from graphcl.data.ids import IntArray
from graphcl.data.interactions import Interactions
from graphcl.data.read_report import ReadReport
from graphcl.data.readers import read_interactions
from graphcl.data.split_files import find_published_split
from graphcl.data.splits import leave_one_out
from graphcl.errors import InputError

_QUANTILES = {"min": 0.0, "25%": 0.25, "median": 0.5, "75%": 0.75, "95%": 0.95, "max": 1.0}


@dataclass(frozen=True)
class DataWarning:
    """Something that will make trouble, and what to do about it."""

    problem: str
    remedy: str


@dataclass(frozen=True)
class DoctorReport:
    """Findings of `diagnose`.

    Attributes:
        read: what was read and dropped.
        users: users with a row.
        items: items with a row.
        interactions: rows.
        density: rows over users times items.
        user_degrees: quantiles of rows a user; "mean" as well.
        item_degrees: likewise for items.
        time_range: first and last time, None without times.
        tied_rows: rows that share user and time with another row (their order is the order of the source), None
            without times.
        users_not_evaluable: users with fewer than three rows: leave-one-out keeps them in training.
        test_items_absent_from_train: leave-one-out test targets without a training row, None when that split is
            impossible.
        warnings: what to look at.
        item_features: one line a modality, when features were given.
    """

    read: ReadReport
    users: int
    items: int
    interactions: int
    density: float
    user_degrees: dict[str, float]
    item_degrees: dict[str, float]
    time_range: tuple[float, float] | None
    tied_rows: int | None
    users_not_evaluable: int
    test_items_absent_from_train: int | None
    warnings: tuple[DataWarning, ...]
    item_features: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return {**asdict(self), "read": self.read.to_dict(), "warnings": [asdict(entry) for entry in self.warnings]}

    def lines(self) -> list[str]:
        """The report as lines of text for a person."""
        read = self.read
        columns = ", ".join(f"{role} from {name!r}" for role, name in read.columns.items())
        lines = [
            f"source        {read.source} ({read.format})",
            f"columns       {columns}",
            *read.row_lines(),
            f"users         {self.users}, rows each: {degrees_in_words(self.user_degrees)}",
            f"items         {self.items}, rows each: {degrees_in_words(self.item_degrees)}",
            f"density       {self.density:.4%}",
            f"duplicates    {read.identical_rows} identical rows, {read.repeated_pairs} repeated user-item pairs",
        ]
        if self.time_range is None:
            lines.append("times         none: row order is taken as time order")
        else:
            first, last = self.time_range
            lines.append(
                f"times         {first:.15g} to {last:.15g}, {self.tied_rows} rows tie with another of their user"
            )
        lines.append(f"evaluation    {self.users_not_evaluable} users cannot be evaluated (fewer than three rows)")
        if self.test_items_absent_from_train is not None:
            lines.append(
                f"              {self.test_items_absent_from_train} leave-one-out test items have no training row"
            )
        lines += [
            f"features      {count} {role} rows of unknown ids" for role, count in read.unknown_feature_ids.items()
        ]
        lines += [f"features      {line}" for line in self.item_features]
        lines += [f"note          {note}" for note in read.notes]
        lines += [f"warning       {entry.problem}; {entry.remedy}" for entry in self.warnings]
        return lines


def diagnose(
    source: Interactions | str | Path | Any, *, item_features: Mapping[str, Any] | None = None, **options: Any
) -> DoctorReport:
    """Look a log over.

    A file or frame is read with bad rows dropped, so that one report shows all that is wrong with it. A published split
    (see `find_published_split`) is read as such; users and items without a training row are then notes of the report.

    Args:
        source: a log, or what `read_interactions` reads.
        item_features: sources of item features by modality, as `read_item_features` takes them.
        **options: options of `read_interactions`.

    Returns:
        The report.

    Raises:
        InputError: nothing can be read at all (no such file, missing column, no usable row); item features that cannot
            be used.

    Complexity:
        O(E log E) time, O(E) memory.

    Example:
        >>> report = diagnose(Interactions.from_arrays([1, 1, 1, 2], [7, 8, 9, 7]))
        >>> report.users_not_evaluable, report.user_degrees["max"]
        (1, 3.0)
    """
    log = source if isinstance(source, Interactions) else _read(source, options)
    user_count = np.bincount(log.user, minlength=log.num_users)
    item_count = np.bincount(log.item, minlength=log.num_items)
    user_count, item_count = user_count[user_count > 0], item_count[item_count > 0]
    not_evaluable = int((user_count < 3).sum())
    absent = _test_items_absent_from_train(log)
    tied = None if log.time is None else _tied_rows(log, log.time)
    features = () if item_features is None else tuple(read_item_features(item_features, log.item_ids).lines())
    return DoctorReport(
        read=log.report,
        users=int(user_count.size),
        items=int(item_count.size),
        interactions=log.num_interactions,
        density=log.num_interactions / max(1, user_count.size * item_count.size),
        user_degrees=degree_quantiles(user_count),
        item_degrees=degree_quantiles(item_count),
        time_range=None if log.time is None or not log.time.size else (log.time.min().item(), log.time.max().item()),
        tied_rows=tied,
        users_not_evaluable=not_evaluable,
        test_items_absent_from_train=absent,
        warnings=tuple(_warnings(log, user_count, item_count, not_evaluable, absent, tied)),
        item_features=features,
    )


def _read(source: Any, options: dict[str, Any]) -> Interactions:
    chosen = any(value is not None for value in options.values())
    published = find_published_split(source) if isinstance(source, str | Path) and not chosen else None
    if published is not None:
        return published.interactions
    return read_interactions(source, **{"on_bad_rows": "drop", **options})


def degree_quantiles(degree: IntArray) -> dict[str, float]:
    """Quantiles of counts by name, and their "mean"; zeros where nothing was counted."""
    if not degree.size:
        return dict.fromkeys((*_QUANTILES, "mean"), 0.0)
    values = np.quantile(degree, list(_QUANTILES.values()))
    return {**dict(zip(_QUANTILES, values.tolist(), strict=True)), "mean": float(degree.mean())}


def degrees_in_words(degrees: Mapping[str, float]) -> str:
    """What `degree_quantiles` gives, in one line."""
    return ", ".join(f"{name} {value:.4g}" for name, value in degrees.items())


def _tied_rows(log: Interactions, time: NDArray[Any]) -> int:
    order = log.order()
    same = (np.diff(log.user[order]) == 0) & (np.diff(time[order]) == 0)
    tied = np.zeros(order.size, dtype=np.bool_)
    tied[1:] |= same
    tied[:-1] |= same
    return int(tied.sum())


def _test_items_absent_from_train(log: Interactions) -> int | None:
    try:
        split = leave_one_out(log)
    except InputError:
        return None
    return int(np.setdiff1d(split.test.item, split.train.item).size)


def _warnings(
    log: Interactions,
    user_count: IntArray,
    item_count: IntArray,
    not_evaluable: int,
    absent: int | None,
    tied: int | None,
) -> list[DataWarning]:
    report, rows = log.report, max(1, log.num_interactions)
    found = []

    def warn(condition: bool, problem: str, remedy: str) -> None:
        if condition:
            found.append(DataWarning(problem, remedy))

    warn(user_count.size == 1, "there is one user only", "give a log of at least two users, or name the user column")
    warn(item_count.size == 1, "there is one item only", "name the item column")
    warn(
        report.rows_dropped > 0,
        f"{report.rows_dropped} of {report.rows_read} rows were dropped",
        "mend the rows named above, or train with on_bad_rows=drop (--on-bad-rows)",
    )
    warn(
        report.identical_rows > 0,
        f"{report.identical_rows} rows repeat another one in all columns",
        "keep one of each with duplicates=first (--duplicates), unless repeats mean something",
    )
    warn(
        user_count.size > 1 and not_evaluable == user_count.size,
        "no user has three rows, so leave-one-out is impossible",
        "check the user column, or split by time",
    )
    warn(
        0 < not_evaluable < user_count.size,
        f"{not_evaluable} users have fewer than three rows and are not evaluated",
        "keep them for training, or filter with a k-core",
    )
    warn(
        tied is not None and tied > rows // 10,
        f"{tied} rows tie in time with another row of their user; their order is that of the source",
        "give finer times, or make sure that the source is in order",
    )
    warn(
        absent is not None and absent > item_count.size // 100,
        f"{absent} test items have no training row and cannot be learnt",
        "filter with a k-core, or report cold items apart",
    )
    warn(
        bool(user_count.size) and int(user_count.max()) * 10 > rows and user_count.size > 100,
        f"one user has {int(user_count.max())} of {rows} rows",
        "check for a placeholder id such as 0 or 'unknown'",
    )
    return found
