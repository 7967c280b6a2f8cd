"""The data doctor for bundles: what they hold, what is known of their items, and what will make trouble later."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphcl.data.bundle_sources import load_bundles, undivided_bundles
from graphcl.data.bundles import Bundles, split_bundles
from graphcl.data.doctor import DataWarning, degree_quantiles, degrees_in_words
from graphcl.data.ids import IntArray
from graphcl.data.read_report import ReadReport
from graphcl.data.registry import list_datasets
from graphcl.data.splits import TRAIN
from graphcl.errors import InputError

__all__ = ["BundleReport", "diagnose_bundles"]


@dataclass(frozen=True)
class BundleReport:
    """Findings of `diagnose_bundles`.

    Attributes:
        read: what was read and dropped.
        bundles: how many, empty ones included.
        items: size of the catalogue.
        affiliations: different items of each bundle, summed.
        bundle_sizes: quantiles of the items of a bundle, "mean" as well.
        item_bundles: quantiles of the bundles of an item that is in one, "mean" as well.
        empty: bundles without an item.
        of_one_item: bundles of one item, which can hide nothing.
        repeated_rows: rows that name an item which their bundle already holds.
        repeated_bundles: bundles with exactly the items of an earlier one.
        items_without_bundle: items of the catalogue that no bundle holds.
        interactions: rows of the log, None without one.
        items_without_feedback: items of bundles that no user of the log has met, None without a log.
        items_without_features: items of bundles without a row in any modality, None without features.
        unknown_feature_rows: rows of features whose item is not in the catalogue.
        features: one line a modality.
        not_evaluable: validation and test bundles that show or hide nothing, None without parts.
        warnings: what to look at.
    """

    read: ReadReport
    bundles: int
    items: int
    affiliations: int
    bundle_sizes: dict[str, float]
    item_bundles: dict[str, float]
    empty: int
    of_one_item: int
    repeated_rows: int
    repeated_bundles: int
    items_without_bundle: int
    interactions: int | None
    items_without_feedback: int | None
    items_without_features: int | None
    unknown_feature_rows: int
    features: tuple[str, ...]
    not_evaluable: int | None
    warnings: tuple[DataWarning, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return {**asdict(self), "read": self.read.to_dict()}

    def lines(self) -> list[str]:
        """The report as lines of text for a person."""
        read = self.read
        lines = [f"source        {read.source} ({read.format})"]
        if read.rows_read:
            lines += read.row_lines()
        lines += [
            f"bundles       {self.bundles}, items each: {degrees_in_words(self.bundle_sizes)}",
            f"              {self.empty} without an item, {self.of_one_item} of one item",
            f"items         {self.items}, bundles each: {degrees_in_words(self.item_bundles)}",
            f"              {self.items_without_bundle} in no bundle",
            f"duplicates    {self.repeated_rows} repeated rows, {self.repeated_bundles} repeated bundles",
        ]
        if self.interactions is None:
            lines.append("feedback      none")
        else:
            lines.append(
                f"feedback      {self.interactions} interactions; {self.items_without_feedback} items of bundles have "
                "none"
            )
        lines += [f"features      {line}" for line in self.features or ("none",)]
        if self.items_without_features is not None:
            lines.append(f"              {self.items_without_features} items of bundles have none")
        if self.not_evaluable is not None:
            lines.append(f"evaluation    {self.not_evaluable} held-out bundles show or hide nothing")
        lines += [f"note          {note}" for note in read.notes]
        lines += [f"warning       {entry.problem}; {entry.remedy}" for entry in self.warnings]
        return lines


def diagnose_bundles(source: Bundles | str | Path | Any, **options: Any) -> BundleReport:
    """Look bundles over.

    Tables are read with bad rows dropped, so that one report shows all that is wrong with them.

    Args:
        source: bundles; or what `load_bundles` or `read_bundles` reads.
        **options: options of these.

    Returns:
        The report.

    Raises:
        InputError: nothing can be read at all (no such file, missing column, no usable row).

    Complexity:
        O(N log N) time for N rows, O(N) memory.

    Example:
        >>> import polars as pl
        >>> table = pl.DataFrame({"bundle": ["a", "a", "a", "b"], "item": [1, 2, 2, 1]})
        >>> report = diagnose_bundles(table)
        >>> report.of_one_item, report.repeated_rows, report.bundle_sizes["max"]
        (1, 1, 2.0)
    """
    impossible = None
    dividing = {
        name: options.pop(name) for name in ("ratios", "shown", "seed") if _is_table(source) and name in options
    }
    bundles = source if isinstance(source, Bundles) else _read(source, options)
    if not isinstance(source, Bundles) and (bundles.part == TRAIN).all():
        try:
            bundles = split_bundles(bundles, **dividing)
        except InputError as error:
            impossible = str(error).partition(";")[0]
    table, sizes = bundles.table, bundles.sizes
    of_item = np.bincount(table.item, minlength=bundles.num_items)
    held = of_item > 0
    featured = _featured(bundles)
    features = bundles.features
    held_out = int((bundles.part != TRAIN).sum())
    found: dict[str, Any] = {
        "empty": int((sizes == 0).sum()),
        "of_one_item": int((sizes == 1).sum()),
        "repeated_rows": table.report.repeated_pairs,
        "repeated_bundles": _repeated_bundles(table.item, sizes),
        "items_without_feedback": None if bundles.log is None else int((held & ~bundles.interacted).sum()),
        "items_without_features": None if featured is None else int((held & ~featured).sum()),
        "unknown_feature_rows": 0 if features is None else sum(features.unknown.values()),
        "not_evaluable": held_out - sum(bundles.partial(part).bundles.size for part in ("valid", "test"))
        if held_out
        else None,
    }
    return BundleReport(
        read=table.report,
        bundles=bundles.num_bundles,
        items=bundles.num_items,
        affiliations=table.num_interactions,
        bundle_sizes=degree_quantiles(sizes),
        item_bundles=degree_quantiles(of_item[held]),
        items_without_bundle=int((~held).sum()),
        interactions=None if bundles.log is None else bundles.log.num_interactions,
        features=() if features is None else tuple(features.lines()),
        warnings=tuple(_warnings(bundles, found, impossible)),
        **found,
    )


def _is_table(source: Any) -> bool:
    if not isinstance(source, str | Path):
        return not isinstance(source, Bundles)
    names = {recipe.name for recipe in list_datasets() if recipe.kind == "bundles"}
    return str(source) not in names and not Path(source).is_dir()


def _read(source: Any, options: dict[str, Any]) -> Bundles:
    if not _is_table(source):
        return load_bundles(source, **options)
    known = ("interactions", "features", "vectors", "bundle", "item")
    for name in options:
        if name not in known:
            raise InputError(f"unknown option {name!r}", f"use one of: {', '.join(known)}")
    return undivided_bundles(source, on_bad_rows="drop", **options)


def _featured(bundles: Bundles) -> NDArray[np.bool_] | None:
    """Items with a row in a modality; None without features."""
    if bundles.features is None:
        return None
    found = np.zeros(bundles.num_items, dtype=np.bool_)
    for present in bundles.features.present.values():
        found |= present
    for lists in bundles.features.incidence.values():
        found[lists.node] = True
    return found


def _repeated_bundles(items: IntArray, sizes: IntArray) -> int:
    pieces = np.split(items, np.cumsum(sizes)[:-1])
    counts = Counter(np.sort(piece).tobytes() for piece in pieces if piece.size)
    return sum(count - 1 for count in counts.values())


def _warnings(bundles: Bundles, found: dict[str, Any], impossible: str | None) -> list[DataWarning]:
    report = bundles.table.report
    without_feedback, without_features = found["items_without_feedback"], found["items_without_features"]
    told = [
        (report.rows_dropped, f"{report.rows_dropped} of {report.rows_read} rows cannot be used", "mend these rows"),
        (found["empty"], f"{found['empty']} bundles hold no item", "give them items, or leave them out"),
        (
            found["of_one_item"],
            f"{found['of_one_item']} bundles hold one item, hide nothing and are never tested",
            "leave them out, or keep them for training",
        ),
        (
            found["repeated_rows"],
            f"{found['repeated_rows']} rows name an item that their bundle already holds, and count once",
            "drop them, unless the number of an item matters to you",
        ),
        (
            found["repeated_bundles"],
            f"{found['repeated_bundles']} bundles have exactly the items of an earlier one, and may stand in training "
            "and test at once",
            "keep one of each",
        ),
        (
            without_feedback,
            f"{without_feedback} items of bundles are unknown to the interactions",
            "check that both name items alike, or give features, by which such items are placed",
        ),
        (
            without_features,
            f"{without_features} items of bundles have no features",
            "give them a row; a model knows them by their bundles and interactions alone",
        ),
        (
            found["unknown_feature_rows"],
            f"{found['unknown_feature_rows']} rows of features are of unknown items and were left out",
            "check that features and bundles name items alike",
        ),
        (
            found["not_evaluable"],
            f"{found['not_evaluable']} held-out bundles show or hide nothing and are not measured",
            "give each at least one item in both files",
        ),
        (impossible, f"the bundles cannot be divided: {impossible}", "give more bundles of two items"),
    ]
    return [DataWarning(problem, remedy) for there, problem, remedy in told if there]
