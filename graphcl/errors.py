"""Errors that a person can act on: what is wrong, where, and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
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


def located(error: InputError, path: str | Path, *, row: int | None = None, column: str | None = None) -> InputError:
    """The same error with the file it is about.

    Args:
        error: an error that names no file.
        path: the file.
        row: row there; None for that of the error.
        column: column there; None for that of the error.

    Returns:
        A new error.

    Complexity:
        O(1).

    Example:
        >>> str(located(InputError("it is empty", "give a row"), "a.csv", row=3))
        'a.csv, row 3: it is empty; give a row'
    """
    text = str(error).removesuffix(f"; {error.remedy}")
    place = [f"row {error.row}"] * (error.row is not None) + [f"column {error.column!r}"] * (error.column is not None)
    problem = text.removeprefix(", ".join(place) + ": ") if place else text
    return InputError(problem, error.remedy, path=path, row=row or error.row, column=column or error.column)


class MissingPackageError(ImportError):
    """An optional package is needed; the message holds the command that installs it."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the package {package}: pip install 'graphcl[{extra}]'")
        self.package = package
        self.extra = extra


def nearest(name: str, known: Iterable[str]) -> str:
    """ "did you mean 'x'? " for the nearest known name, or nothing when none is near.

    Args:
        name: what was given.
        known: what exists.

    Returns:
        Text to put before a remedy.

    Complexity:
        O(number of known names).

    Example:
        >>> nearest("amazon-beuty", ["amazon-beauty", "yelp"])
        "did you mean 'amazon-beauty'? "
    """
    plain = {plain_name(other): other for other in known}
    given = plain_name(name)
    close = difflib.get_close_matches(given, plain, n=1, cutoff=0.6)
    if not close and len(given) > 2:
        # A short name inside a longer one ("item" in "my_item_nr") is near as well.
        close = [other for other in plain if given in other][:1]
    return f"did you mean {plain[close[0]]!r}? " if close else ""


def plain_name(name: str) -> str:
    """A name without case, spaces and punctuation.

    Example:
        >>> plain_name("User_ID")
        'userid'
    """
    return "".join(letter for letter in name.lower() if letter.isalnum())
