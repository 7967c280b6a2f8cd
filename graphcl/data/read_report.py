"""What a reader read, what it dropped and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class DroppedRows:
    """Rows left out for one reason.

    Attributes:
        reason: why, in words.
        count: how many rows.
        rows: one-based row numbers of the first few, as the file counts them (a header line is row 1).
    """

    reason: str
    count: int
    rows: tuple[int, ...] = ()


@dataclass(frozen=True)
class ReadReport:
    """An account of one read: every row of the source is either kept or in `dropped`.

    Attributes:
        source: file name, or what else the rows came from.
        format: name of the format that was read.
        columns: role (user, item, time, value) -> column that was read for it.
        rows_read: rows in the source.
        rows_kept: rows that became interactions.
        dropped: rows left out, by reason.
        identical_rows: rows that repeat an earlier one in user, item, time and value. They are kept unless dropped by
            request.
        repeated_pairs: rows whose user met the same item in an earlier row, identical rows included (also those that
            were dropped by request).
        unknown_feature_ids: "user" and "item" -> feature rows whose id no interaction has.
        notes: remarks, such as a column that was guessed.

    Example:
        >>> ReadReport("log.csv", rows_read=3, rows_kept=2, dropped=(DroppedRows("blank line", 1, (3,)),)).rows_dropped
        1
    """

    source: str = "arrays"
    format: str = "arrays"
    columns: Mapping[str, str] = field(default_factory=dict)
    rows_read: int = 0
    rows_kept: int = 0
    dropped: tuple[DroppedRows, ...] = ()
    identical_rows: int = 0
    repeated_pairs: int = 0
    unknown_feature_ids: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def rows_dropped(self) -> int:
        """Rows left out, for whatever reason."""
        return sum(entry.count for entry in self.dropped)

    def row_lines(self) -> list[str]:
        """How many rows were read, and what was dropped, as lines of text for a person."""
        lines = [f"rows          {self.rows_read} read, {self.rows_kept} kept, {self.rows_dropped} dropped"]
        for entry in self.dropped:
            at = f" (row {', '.join(map(str, entry.rows))}{', ...' if entry.count > len(entry.rows) else ''})"
            lines.append(f"  dropped     {entry.count} x {entry.reason}{at if entry.rows else ''}")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return {
            "source": self.source,
            "format": self.format,
            "columns": dict(self.columns),
            "rows_read": self.rows_read,
            "rows_kept": self.rows_kept,
            "dropped": [{"reason": d.reason, "count": d.count, "rows": list(d.rows)} for d in self.dropped],
            "identical_rows": self.identical_rows,
            "repeated_pairs": self.repeated_pairs,
            "unknown_feature_ids": dict(self.unknown_feature_ids),
            "notes": list(self.notes),
        }
