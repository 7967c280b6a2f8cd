"""The data of a recommender in its run folder: id maps, interactions, and the part that each belongs to."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphcl.data import IdMap, Interactions, Split
from graphcl.errors import InputError
from graphcl.pipelines.runs import MANIFEST, RunFolder, write_by_rename

if TYPE_CHECKING:
    import polars

IDS = "ids.parquet"
INTERACTIONS = "interactions.parquet"


def write_split(folder: RunFolder, split: Split) -> None:
    """Write the id maps and the interactions with the part that each belongs to."""
    import polars as pl

    rows = split.interactions
    ids = pl.concat([id_table("user", rows.user_ids), id_table("item", rows.item_ids)])
    write_by_rename(folder.path / IDS, ids.write_parquet)
    columns = {"user": rows.user, "item": rows.item, "part": split.part, "time": rows.time, "value": rows.value}
    table = pl.DataFrame({name: column for name, column in columns.items() if column is not None})
    write_by_rename(folder.path / INTERACTIONS, table.write_parquet)


def read_split(folder: RunFolder) -> Split:
    """The split that the run was trained on, as :func:`write_split` wrote it.

    Raises:
        InputError: when a file is damaged.
    """
    ids = read_table(folder.path / IDS, ("role", "id", "kind"))
    table = read_table(folder.path / INTERACTIONS, ("user", "item", "part"))
    protocol = folder.read_json(MANIFEST).get("data", {}).get("split", "")
    optional: dict[str, Any] = {name: table[name].to_numpy() for name in ("time", "value") if name in table.columns}
    try:
        interactions = Interactions(
            user=table["user"].to_numpy().astype(np.int64),
            item=table["item"].to_numpy().astype(np.int64),
            user_ids=id_map_of(ids, "user"),
            item_ids=id_map_of(ids, "item"),
            **optional,
        )
        return Split(interactions, table["part"].to_numpy().astype(np.uint8), str(protocol))
    except (ValueError, IndexError) as error:
        raise InputError(
            f"the saved interactions do not fit the saved ids ({error})", "train again", path=folder.path
        ) from error


def split_hash(split: Split) -> str:
    """SHA-256 of the interactions and the part that each row belongs to."""
    digest = hashlib.sha256(split.interactions.content_hash().encode())
    digest.update(np.ascontiguousarray(split.part).tobytes())
    return digest.hexdigest()


def describe_split(split: Split) -> dict[str, Any]:
    """What the manifest says about the data of a run."""
    rows = split.interactions
    return {
        "source": rows.report.source,
        "hash": split_hash(split),
        "users": rows.num_users,
        "items": rows.num_items,
        "interactions": rows.num_interactions,
        "split": split.protocol,
        "counts": split.counts,
    }


def id_table(role: str, ids: IdMap) -> polars.DataFrame:
    import polars as pl

    series = ids.to_series()
    return pl.DataFrame({"id": series.cast(pl.String)}).select(
        role=pl.lit(role), index=pl.int_range(pl.len(), dtype=pl.Int64), id="id", kind=pl.lit(str(series.dtype))
    )


def id_map_of(table: polars.DataFrame, role: str) -> IdMap:
    import polars as pl

    rows = table.filter(pl.col("role") == role)
    kind = rows["kind"][0] if rows.height else "String"
    types = {"Int64": pl.Int64, "UInt64": pl.UInt64, "String": pl.String}
    if kind not in types:
        raise InputError(f"unknown id type {kind!r}", "train again")
    return IdMap(rows["id"].cast(types[kind]))


def read_table(path: Path, columns: Sequence[str]) -> polars.DataFrame:
    import polars as pl

    try:
        table = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError("cannot be read as Parquet", "restore the file or train again", path=path) from error
    for column in columns:
        if column not in table.columns:
            raise InputError("column is missing", "restore the file or train again", path=path, column=column)
    return table
