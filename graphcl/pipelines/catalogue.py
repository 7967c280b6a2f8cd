"""The items that are ranked: those of the interactions, and others that only features name."""

from __future__ import annotations

from dataclasses import replace

from graphcl.data import IdMap, Split
from graphcl.data.interactions import items_with


def with_items(split: Split, *catalogues: IdMap) -> Split:
    """The split over a catalogue that holds further items, which have no interactions.

    Args:
        split: its items stay, under new internal ids.
        *catalogues: items of features, known ones among them.

    Returns:
        The same rows and parts; the split itself where nothing new is named.

    Raises:
        InputError: as `items_with`.

    Complexity:
        O(E + V log V).
    """
    rows = split.interactions
    every = rows.item_ids
    for one in catalogues:
        every = items_with(every, one.to_series())
    if len(every) == rows.num_items:
        return split
    item = every.to_internal(rows.item_ids.to_series())[rows.item]
    return Split(replace(rows, item=item, item_ids=every), split.part, split.protocol)
