"""``graphcl datasets``: what there is, and a doctor for your own table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from graphcl.cli.output import print_json, print_table

app = typer.Typer(
    help="List data sets, describe one, or check your own table.", no_args_is_help=True, rich_markup_mode=None
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
    path: Annotated[Path, typer.Argument(help="Table of interactions to examine.")],
    user_column: UserColumn = None,
    item_column: ItemColumn = None,
    time_column: TimeColumn = None,
    as_json: Json = False,
) -> None:
    """Examine a table: what was read, what was dropped and why, degrees, duplicates, ties, users without evaluation."""
    from graphcl.data import diagnose

    report = diagnose(path, user=user_column, item=item_column, time=time_column)
    if as_json:
        print_json(report.to_dict())
        return
    for line in report.lines():
        typer.echo(line)
