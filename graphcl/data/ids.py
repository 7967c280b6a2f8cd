"""External ids (what the user's table holds) and internal ids (0..n-1), with one map between them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from graphcl.errors import InputError

if TYPE_CHECKING:
    import polars as pl

IntArray: TypeAlias = NDArray[np.int64]
Ids: TypeAlias = "ArrayLike | pl.Series | Iterable[object]"


def id_series(values: Ids, *, infer_integers: bool = False) -> pl.Series:
    """Bring ids into one of three column types: Int64, UInt64 or String.

    Integers stay integers when all of them fit into int64, or else all into uint64; larger ones become their decimal
    text. Floating-point ids are accepted when each is a whole number (a column of integers with holes arrives like
    that). A column that mixes text and numbers becomes text.

    Args:
        values: ids of any length n; missing ones are None (or NaN in a floating-point array).
        infer_integers: turn a text column into integers when every value is the canonical decimal form of one
            ("7", not "007" or "+7"), so that no two ids can fall together. For text files, which know no types.

    Returns:
        A polars series of length n with nulls where an id is missing.

    Raises:
        InputError: a floating-point id is not whole, or the type cannot be an id (a date, a list).

    Complexity:
        O(n) time and memory.

    Example:
        >>> id_series(["7", "10"], infer_integers=True).to_list()
        [7, 10]
        >>> id_series(["007", "10"], infer_integers=True).to_list()
        ['007', '10']
    """
    import polars as pl

    series = values if isinstance(values, pl.Series) else _series_of(values)
    if series.dtype in (pl.Categorical, pl.Enum):
        series = series.cast(pl.String)
    if series.dtype == pl.String:
        return _integers_of_text(series) if infer_integers else series
    if series.dtype == pl.UInt64:
        narrow = series.cast(pl.Int64, strict=False)
        return narrow if narrow.null_count() == series.null_count() else series
    if series.dtype.is_integer():
        narrow = series.cast(pl.Int64, strict=False)
        if narrow.null_count() == series.null_count():
            return narrow
        wide = series.cast(pl.UInt64, strict=False)
        return wide if wide.null_count() == series.null_count() else series.cast(pl.String)
    if series.dtype.is_float():
        series = series.fill_nan(None)
        whole = series.cast(pl.Int64, strict=False)
        bad = series.is_not_null() & (whole.is_null() | (whole.cast(series.dtype) != series)).fill_null(True)
        if bad.any():
            value = series.filter(bad)[0]
            raise InputError(f"id {value} is not a whole number", "give ids as integers or as text")
        return whole
    if series.dtype == pl.Null:
        return series.cast(pl.Int64)
    raise InputError(f"ids of type {series.dtype} are not supported", "give ids as integers or as text")


def _series_of(values: Any) -> pl.Series:
    import polars as pl

    array = values if isinstance(values, np.ndarray) else None
    if array is not None and array.dtype.kind in "iuf":
        return pl.Series(array.astype(array.dtype.newbyteorder("="), copy=False))
    listed = list(values) if array is None else array.tolist()
    listed = [None if value is None or value != value else value for value in listed]
    if any(isinstance(value, str) for value in listed):
        return pl.Series([None if value is None else str(value) for value in listed], dtype=pl.String)
    if all(value is None or (isinstance(value, int | np.integer) and not isinstance(value, bool)) for value in listed):
        for dtype in (pl.Int64, pl.UInt64):
            try:
                return pl.Series(listed, dtype=dtype)
            except (OverflowError, TypeError):
                continue  # at least one value is outside this type
        return pl.Series([None if value is None else str(value) for value in listed], dtype=pl.String)
    return pl.Series(listed)


def _integers_of_text(series: pl.Series) -> pl.Series:
    import polars as pl

    for dtype in (pl.Int64, pl.UInt64):
        number = series.cast(dtype, strict=False)
        if number.null_count() == series.null_count() and bool((number.cast(pl.String) == series).all()):
            return number
    return series


class IdMap:
    """External ids <-> 0..n-1, in sorted order: integers numerically, text by code point.

    The order depends on the set of ids alone, so two files with the same ids give the same internal ids.

    Args:
        ids: external ids, in any order; repeated ones count once. Integers or text, of any size: see `id_series`.

    Raises:
        InputError: an id is missing (None or NaN), or its type cannot be an id.

    Complexity:
        O(n log n) time, O(n) memory.

    Example:
        >>> ids = IdMap([30, 10, 20])
        >>> ids.to_internal([20, 30]).tolist(), ids.to_external([0]).tolist()
        ([1, 2], [10])
    """

    def __init__(self, ids: Ids) -> None:
        series = id_series(ids)
        if series.null_count():
            raise InputError("an id is missing", "give every user and item an id")
        self._series = series.unique().sort().rename("id")
        self._external: NDArray[Any] | None = None

    @classmethod
    def factorize(cls, values: Ids) -> tuple[IdMap, IntArray]:
        """The map of the distinct values, and the internal id of each value.

        Args:
            values: external ids, length n, none missing.

        Returns:
            The map and int64[n].

        Raises:
            InputError: as the constructor.

        Complexity:
            O(n + m log m) time for m distinct ids, O(n) memory.

        Example:
            >>> IdMap.factorize(["b", "a", "b"])[1].tolist()
            [1, 0, 1]
        """
        series = id_series(values)
        ids = cls(series)
        return ids, ids._positions(series)

    @property
    def external(self) -> NDArray[Any]:
        """External ids in internal order: int64, uint64 or object (of str), length n."""
        if self._external is None:
            self._external = self._series.to_numpy()
        return self._external

    @property
    def kind(self) -> Literal["integer", "text"]:
        """Whether external ids are integers or text."""
        return "integer" if self._series.dtype.is_integer() else "text"

    def __len__(self) -> int:
        return len(self._series)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, IdMap):
            return NotImplemented
        return self._series.dtype == other._series.dtype and self._series.equals(other._series)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"IdMap({len(self)} {self.kind} ids)"

    def to_series(self) -> pl.Series:
        """External ids in internal order as a polars series named "id"."""
        return self._series

    def to_external(self, index: ArrayLike) -> NDArray[Any]:
        """External ids of internal ones.

        Args:
            index: internal ids, any shape.

        Returns:
            External ids in that shape.

        Raises:
            IndexError: an internal id is outside 0..n-1.

        Complexity:
            O(len(index)).
        """
        position = np.asarray(index, dtype=np.int64)
        if position.size and (position.min() < 0 or position.max() >= len(self)):
            raise IndexError(f"index holds ids from {position.min()} to {position.max()}, outside 0..{len(self) - 1}")
        external: NDArray[Any] = self.external[position]
        return external

    def to_internal(self, ids: Ids, *, unknown: Literal["raise", "ignore"] = "raise") -> IntArray:
        """Internal ids of external ones; text "7" finds the integer 7 and the other way round.

        Args:
            ids: external ids, length n.
            unknown: what to do about an id that the map does not hold: "raise", or "ignore" and return -1 for it.

        Returns:
            int64[n].

        Raises:
            InputError: an id is unknown and `unknown` is "raise".
            ValueError: `unknown` is neither.

        Complexity:
            O(n + m) time and memory for a map of m ids.
        """
        if unknown not in ("raise", "ignore"):
            raise ValueError(f"unknown must be 'raise' or 'ignore', got {unknown!r}")
        series = id_series(ids)
        position = self._positions(series)
        if unknown == "raise" and (position < 0).any():
            missing = np.flatnonzero(position < 0)
            raise InputError(
                f"id {series[int(missing[0])]!r} is unknown ({missing.size} of {position.size} ids are)",
                "give ids that occur in the data the map was made from",
            )
        return position

    def in_own_type(self, ids: Ids) -> pl.Series:
        """External ids in the type of this map's, null for one that this type cannot hold: text "7" is the integer 7.

        Example:
            >>> IdMap([1, 2]).in_own_type(["7", "007"]).to_list()
            [7, None]
        """
        import polars as pl

        series, own = ids if isinstance(ids, pl.Series) else id_series(ids), self._series.dtype
        if series.dtype == own:
            return series
        # Only canonical text can name an integer: "007" must not find 7.
        return (_canonical_or_null(series) if series.dtype == pl.String else series).cast(own, strict=False)

    def _positions(self, series: pl.Series) -> IntArray:
        """Position of each id, -1 where unknown: by a table when integers lie densely, else by one hash join."""
        import polars as pl

        series = self.in_own_type(series)
        if series.dtype == pl.Int64 and len(self) and not series.null_count():
            low, high = int(self._series[0]), int(self._series[-1])
            if high - low < 4 * (len(series) + len(self)):
                return self._table_positions(series.to_numpy(), low, high)
        lookup = pl.DataFrame({"id": self._series, "position": np.arange(len(self), dtype=np.int64)})
        query = pl.DataFrame({"id": series}).with_row_index("row")
        found = query.join(lookup, on="id", how="inner")
        position = np.full(len(series), -1, dtype=np.int64)
        position[found["row"].to_numpy()] = found["position"].to_numpy()
        return position

    def _table_positions(self, values: IntArray, low: int, high: int) -> IntArray:
        table = np.full(high - low + 1, -1, dtype=np.int64)
        table[self._series.to_numpy() - low] = np.arange(len(self))
        inside = (values >= low) & (values <= high)
        if inside.all():
            return table[values - low]
        position = np.full(values.size, -1, dtype=np.int64)
        position[inside] = table[values[inside] - low]
        return position


def _canonical_or_null(series: pl.Series) -> pl.Series:
    return series.set(~series.str.contains(r"^(0|-?[1-9][0-9]*)$").fill_null(True), None)
