"""Errors that a person can act on: what is wrong, where, and what to do about it."""

from __future__ import annotations

from pathlib import Path


class InputError(ValueError):
    """Bad input from outside: a file, a table, a configuration or a run folder.

    The message is one line. It names the place (file, row, column or argument) and the remedy, so that the command
    line can print it as it is and exit with status 2.

    Args:
        problem: what is wrong, without a full stop at the end.
        remedy: what to do about it, as an imperative.
        path: the file or folder that is at fault.
        row: one-based row (line) number in that file.
        column: column name.

    Example:
        >>> str(InputError("time is not a number: 'x'", "fix or drop the row", path="log.csv", row=3, column="time"))
        "log.csv, row 3, column 'time': time is not a number: 'x'; fix or drop the row"
    """

    def __init__(
        self,
        problem: str,
        remedy: str,
        *,
        path: str | Path | None = None,
        row: int | None = None,
        column: str | None = None,
    ) -> None:
        place = [str(path)] if path is not None else []
        if row is not None:
            place.append(f"row {row}")
        if column is not None:
            place.append(f"column {column!r}")
        prefix = ", ".join(place) + ": " if place else ""
        super().__init__(" ".join(f"{prefix}{problem}; {remedy}".split()))
        self.path = path
        self.row = row
        self.column = column
        self.remedy = remedy


class MissingPackageError(ImportError):
    """An optional package is needed; the message holds the command that installs it."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the package {package}: pip install 'graphcl[{extra}]'")
        self.package = package
        self.extra = extra
