"""The items that are ranked: those of the interactions, and others that only features name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from graphcl.data import IdMap, Split
from graphcl.errors import InputError

if TYPE_CHECKING:
    import polars


def with_items(split: Split, named: Iterable[polars.Series | None]) -> Split:
    """The split over a catalogue that holds further items, which have no interactions.

    Args:
        split: its items stay, under new internal ids.
        named: external ids of items, known ones among them; None names none.

    Returns:
        The same rows and parts; the split itself where nothing new is named.

    Raises:
        InputError: ids of another type than those of the interactions.

    Complexity:
        O(E + V log V).
    """
    import polars as pl

    rows = split.interactions
    known = rows.item_ids.to_series()
    ids = [known, *(series.rename(known.name) for series in named if series is not None)]
    for series in ids:
        if series.dtype != known.dtype:
            raise InputError(
                f"the features are keyed by {series.dtype} ids, the interactions by {known.dtype}",
                "key both by the same ids",
            )
    every = IdMap(pl.concat(ids))
    if len(every) == len(known):
        return split
    item = every.to_internal(known)[rows.item]
    return Split(replace(rows, item=item, item_ids=every), split.part, split.protocol)
