"""Which formats the recipes of a kind may name, and what reads them; a reader is imported when it is first needed."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Literal

from graphcl.data.readers import FORMATS
from graphcl.errors import InputError

Kind = Literal["interactions", "graph", "heterogeneous", "bundles", "events", "retrieval"]

# Kind -> format -> "module:function", called with the recipe and the paths of its files by role. A reader of
# interactions gives a Dataset, one of graphs a GraphDataset. Formats of `read_interactions` need no entry.
READERS: dict[Kind, dict[str, str]] = {
    "interactions": {
        "json-split": "graphcl.data.split_files:load_json",
        "labelled": "graphcl.data.split_files:load_labelled",
        "text-split": "graphcl.data.split_files:load_text",
    },
    "graph": {
        "npz": "graphcl.data.graphs:read_recipe_npz",
        "planetoid": "graphcl.data.graphs:read_recipe_planetoid",
        "zipped-arrays": "graphcl.data.graphs:read_recipe_zip",
    },
    "heterogeneous": {
        "heco": "graphcl.data.graphs:read_recipe_heco",
    },
    "bundles": {
        "sessions": "graphcl.data.bundle_sources:session_bundles",
    },
    "events": {},
    "retrieval": {},
}


def formats_of(kind: Kind) -> tuple[str, ...]:
    """The formats that recipes of a kind may name.

    Example:
        >>> "atomic" in formats_of("interactions")
        True
    """
    own = tuple(FORMATS) if kind == "interactions" else ()
    return (*own, "generator", *READERS[kind])


def reader_of(kind: Kind, name: str) -> Callable[..., Any]:
    """The reader of a format.

    Args:
        kind: of the data.
        name: of the format.

    Returns:
        A function of the recipe and the paths of its files by role.

    Raises:
        InputError: the format is unknown.

    Complexity:
        O(1), beside the import.

    Example:
        >>> reader_of("graph", "crystal")
        Traceback (most recent call last):
        graphcl.errors.InputError: no reader of the format 'crystal'; mend the recipe
    """
    if name not in READERS[kind]:
        raise InputError(f"no reader of the format {name!r}", "mend the recipe")
    module, function = READERS[kind][name].split(":")
    reader: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return reader
