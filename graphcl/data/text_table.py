"""The shape of a delimited text file, byte by byte in arrays: its rows, their fields, its quotes, its encoding.

A table reader that only wants some columns does not notice rows that are too long or too short. One vectorised pass
over the bytes does, and knows the row numbers that a person sees in an editor.
"""

from __future__ import annotations

import codecs
import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphcl.errors import InputError

_NEWLINE, _RETURN, _QUOTE = 10, 13, 34
_CHUNK = 1 << 24


@dataclass(frozen=True)
class TextShape:
    """Records of a delimited text file, header included.

    Attributes:
        fields: int64[R], fields of each record.
        blank: bool[R], empty lines.
        quoted: whether double quotes enclose fields (otherwise they are letters).
    """

    fields: NDArray[np.int64]
    blank: NDArray[np.bool_]
    quoted: bool


def check_utf8(path: Path) -> None:
    """Make sure that a file is UTF-8 text.

    Args:
        path: the file.

    Raises:
        InputError: it is not, with the row and the byte offset of the first bad byte.

    Complexity:
        O(bytes) time, one chunk of memory.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    done = rows = 0
    with path.open("rb") as file:
        while True:
            chunk = file.read(_CHUNK)
            pending = len(decoder.getstate()[0])
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                at = done - pending + error.start
                row = rows + chunk[: max(0, error.start - pending)].count(b"\n") + 1
                raise InputError(
                    f"byte {at} (0x{error.object[error.start]:02x}) is not UTF-8 text",
                    "save the file as UTF-8 (iconv -f latin1 -t utf-8, say)",
                    path=path,
                    row=row,
                ) from error
            if not chunk:
                return
            done += len(chunk)
            rows += chunk.count(b"\n")


def text_shape(path: Path, delimiter: str, *, quotes: bool = True) -> TextShape:
    """Count the fields of every record in one pass over the bytes.

    Quotes enclose fields only if all of them stand at the edges of fields; otherwise (5" pipe) they are letters.

    Args:
        path: a file that is not empty.
        delimiter: one ASCII character.
        quotes: False when the format has no quoting, so that quotes are letters everywhere.

    Returns:
        The shape.

    Complexity:
        O(bytes) time; O(records) memory and one chunk.
    """
    data = np.memmap(path, dtype=np.uint8, mode="r")
    mark = ord(delimiter)
    quoted = quotes and _quotes_enclose(data, mark)
    ends, delimiters = [], []
    seen = parity = 0
    for start in range(0, data.size, _CHUNK):
        block = np.asarray(data[start : start + _CHUNK])
        newline, separator = block == _NEWLINE, block == mark
        if quoted:
            # A wrapped 8-bit count keeps its parity, and parity says whether we are between quotes.
            inside = ((np.cumsum(block == _QUOTE, dtype=np.uint8) + np.uint8(parity)) & 1).astype(np.bool_)
            parity = int(inside[-1])
            newline &= ~inside
            separator &= ~inside
        # Delimiters before a line end: the marks before it that are not line ends themselves.
        marks = np.flatnonzero(newline | separator)
        at = np.flatnonzero(newline[marks])
        ends.append(marks[at] + start)
        delimiters.append(at - np.arange(at.size) + seen)
        seen += marks.size - at.size
    if data[-1] != _NEWLINE:
        ends.append(np.array([data.size]))
        delimiters.append(np.array([seen]))
    end = np.concatenate(ends)
    length = np.diff(end, prepend=-1) - 1
    single = np.flatnonzero(length == 1)
    blank = length == 0
    blank[single] = data[end[single] - 1] == _RETURN
    fields = np.diff(np.concatenate(delimiters), prepend=0) + 1
    return TextShape(fields.astype(np.int64, copy=False), blank, quoted)


def _quotes_enclose(data: NDArray[np.uint8], delimiter: int) -> bool:
    at = np.concatenate(
        [np.flatnonzero(data[start : start + _CHUNK] == _QUOTE) + start for start in range(0, data.size, _CHUNK)]
    )
    if not at.size or at.size % 2:
        return False
    edge = np.array([delimiter, _NEWLINE, _RETURN], dtype=np.uint8)
    opening, closing = at[::2], at[1::2]
    first = len(codecs.BOM_UTF8) if data[:3].tobytes() == codecs.BOM_UTF8 else 0
    opens = np.isin(data[np.maximum(opening - 1, 0)], edge) | (opening == first)
    closes = np.isin(data[np.minimum(closing + 1, data.size - 1)], edge) | (closing == data.size - 1)
    # A doubled quote inside a field closes and opens again at once.
    doubled = opening[1:] == closing[:-1] + 1
    opens[1:] |= doubled
    closes[:-1] |= doubled
    return bool(opens.all() and closes.all())


def line_of_record(path: Path, record: int, *, delimiter: str, quoted: bool) -> int:
    """The line (one-based) on which a record starts; records span lines when quoted fields hold line breaks.

    Args:
        path: the file.
        record: record number, 0-based, header and blank lines included.
        delimiter: one character.
        quoted: as in `TextShape`.

    Returns:
        Line number.

    Complexity:
        O(1) without quotes, O(bytes) with.
    """
    if not quoted:
        return record + 1
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter)
        for _ in range(record):
            next(reader)
        return reader.line_num + 1


def first_line(path: Path) -> tuple[int, str]:
    """The first line that is not blank.

    Args:
        path: a UTF-8 text file.

    Returns:
        Its 0-based number and its text without the line end.

    Raises:
        InputError: there is no such line.

    Complexity:
        O(blank lines before it).
    """
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file):
            if line.strip():
                return number, line.rstrip("\r\n")
    raise InputError("the file is empty", "give a file with at least one row", path=path)


def split_header(line: str, delimiter: str, *, quoted: bool) -> list[str]:
    """Field names of a header line.

    Args:
        line: the line.
        delimiter: one character.
        quoted: whether double quotes enclose fields.

    Returns:
        Names without surrounding blanks.

    Complexity:
        O(len(line)).

    Example:
        >>> split_header('user, "item"', ",", quoted=True)
        ['user', 'item']
    """
    options: dict[str, Any] = {"skipinitialspace": True} if quoted else {"quoting": csv.QUOTE_NONE}
    return [name.strip() for name in next(csv.reader([line], delimiter=delimiter, **options))]


def find_delimiter(line: str) -> str | None:
    """The delimiter that cuts a header line into most fields: tab, comma, semicolon or bar; None when none occurs.

    Args:
        line: the first line.

    Returns:
        One character or None.

    Complexity:
        O(len(line)).

    Example:
        >>> find_delimiter("user;item;price, EUR")
        ';'
    """
    best = max("\t,;|", key=line.count)
    return best if best in line else None
