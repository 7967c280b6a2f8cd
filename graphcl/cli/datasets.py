"""``graphcl datasets``: what there is, and a doctor for your own table or graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from graphcl.cli.options import parse_assignments, refuse_options
from graphcl.cli.output import print_json, print_table
from graphcl.errors import InputError

if TYPE_CHECKING:
    from graphcl.data import BundleReport, DoctorReport, GraphReport

_GRAPH_SUFFIXES = (".npz", ".npy", ".zip")

app = typer.Typer(
    help="List data sets, describe one, or check your own table, bundles or graph.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for a machine.")]
UserColumn = Annotated[str | None, typer.Option(help="Column that holds the user id; detected when not given.")]
ItemColumn = Annotated[str | None, typer.Option(help="Column that holds the item id; detected when not given.")]
TimeColumn = Annotated[str | None, typer.Option(help="Column that holds the time; detected when not given.")]


@app.command("list")
def list_datasets(as_json: Json = False) -> None:
    """List the data sets that have a recipe."""
    from graphcl.data import list_datasets as all_recipes

    recipes = all_recipes()
    if as_json:
        print_json([recipe.model_dump(mode="json") for recipe in recipes])
        return
    rows: list[list[object]] = [[r.name, r.kind, _size(r.counts), r.description] for r in recipes]
    print_table("Data sets", ["name", "kind", "size", "what"], rows)


def _size(counts: Mapping[str, int]) -> str:
    """The counts of a recipe in words; those of single types are left to `info`."""
    return ", ".join(f"{count:,} {name}" for name, count in counts.items() if "." not in name)


@app.command("info")
def info(name: Annotated[str, typer.Argument(help="Name of a data set.")], as_json: Json = False) -> None:
    """Describe one data set: kind, source, licence, format, expected counts, default split."""
    from graphcl.data import dataset_info

    recipe: dict[str, Any] = dataset_info(name).model_dump(mode="json")
    if as_json:
        print_json(recipe)
        return
    print_table(name, ["field", "value"], [[field, value] for field, value in _leaves("", recipe)])


def _leaves(prefix: str, value: object) -> Iterator[tuple[str, object]]:
    """Every plain value of a nested recipe with its dotted name; empty ones are left out."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _leaves(f"{prefix}.{key}" if prefix else str(key), part)
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from _leaves(f"{prefix}[{index}]", part)
    elif value is not None:
        yield prefix, str(value)


@app.command("check")
def check(
    path: Annotated[
        str, typer.Argument(help="Table of interactions or bundles, graph, or name of a data set to examine.")
    ],
    kind: Annotated[
        Literal["interactions", "graph", "bundles"] | None, typer.Option(help="What it is; guessed if not given.")
    ] = None,
    load: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="An option of the reader of the data.")
    ] = None,
    user_column: UserColumn = None,
    item_column: ItemColumn = None,
    time_column: TimeColumn = None,
    item_features: Annotated[
        list[str] | None, typer.Option(metavar="NAME=FILE", help="Features of the items, a modality each.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Examine a table, bundles or a graph before training on it.

    A table: what was read, what was dropped and why, degrees, duplicates, ties, users without evaluation, items that
    have features. A graph: isolated nodes, self-loops, repeated and one-way edges, features, classes, connected parts.
    Bundles: empty ones and those of one item, duplicates, items without features or feedback.
    """
    reading = parse_assignments(load or [], "--load", "format=csv")
    columns = {"user": user_column, "item": item_column, "time": time_column}
    given = {name: column for name, column in columns.items() if column is not None}
    features = parse_assignments(item_features or [], "--item-features", "image=image.npy") or None
    report = examine(path, kind or guess_kind(path), reading, given, features)
    if as_json:
        print_json(report.to_dict())
        return
    for line in report.lines():
        typer.echo(line)


def guess_kind(name_or_path: str) -> str:
    """What a name or path stands for: that of the recipe, or what its ending and content look like."""
    from graphcl.data import dataset_info, find_published_split, list_datasets
    from graphcl.data.bundle_sources import names_bundles
    from graphcl.data.graphs import names_edges

    path = Path(name_or_path)
    if not path.is_file() and name_or_path in {recipe.name for recipe in list_datasets()}:
        return dataset_info(name_or_path).kind
    if names_bundles(path):
        return "bundles"
    if path.suffix in _GRAPH_SUFFIXES or (path.is_dir() and find_published_split(path) is None) or names_edges(path):
        return "graph"
    return "interactions"


def examine(
    name_or_path: str,
    kind: str,
    reading: dict[str, Any],
    columns: dict[str, Any],
    item_features: dict[str, Any] | None = None,
) -> BundleReport | DoctorReport | GraphReport:
    """Read the data and look them over.

    Args:
        name_or_path: what to examine.
        kind: what it is.
        reading: options of the reader.
        columns: names of columns that concern interactions.
        item_features: files of item features by modality, likewise.
    """
    from graphcl.data import (
        diagnose,
        diagnose_bundles,
        diagnose_graph,
        find_published_split,
        list_datasets,
        load_dataset,
    )

    if kind in ("events", "retrieval"):
        raise InputError(f"there is no doctor for {kind}", "train on it: the reader says what is wrong")
    if kind == "bundles":
        unfit = {f"{name}_column": column for name, column in columns.items() if name != "item"}
        refuse_options(unfit, "these are bundles; name their column with --load bundle=NAME")
        given = {"item": columns.get("item"), "features": item_features}
        return diagnose_bundles(
            name_or_path, **reading, **{name: value for name, value in given.items() if value is not None}
        )
    if kind != "interactions":
        unfit = {f"{name}_column": column for name, column in columns.items()}
        refuse_options({**unfit, "item_features": item_features}, "this is a graph")
        return diagnose_graph(name_or_path, **reading)
    known = name_or_path in {recipe.name for recipe in list_datasets()} and not Path(name_or_path).is_file()
    if known or (not columns and not reading and find_published_split(name_or_path) is not None):
        log = load_dataset(name_or_path, **reading, **columns).interactions
        return diagnose(log, item_features=item_features)
    return diagnose(name_or_path, item_features=item_features, **reading, **columns)
