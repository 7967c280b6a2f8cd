"""How commands print: tables for people, JSON for machines, files by rename."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def print_json(value: Any) -> None:
    """Print ``value`` as one JSON document on standard output."""
    print(json.dumps(value, indent=2, allow_nan=False, default=str))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table; columns whose cells are numbers are aligned to the right."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title), box=box.SIMPLE_HEAD, title_justify="left")
    for index, column in enumerate(columns):
        numeric = bool(rows) and all(row[index] is None or isinstance(row[index], int | float) for row in rows)
        table.add_column(escape(column), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(escape(format_cell(cell)) for cell in row))
    Console().print(table)


def format_cell(cell: object) -> str:
    """Format a cell: four decimals for fractions, thousands separators for counts."""
    if isinstance(cell, bool) or cell is None:
        return "" if cell is None else str(cell)
    if isinstance(cell, float):
        return f"{cell:.4f}"
    if isinstance(cell, int):
        return f"{cell:,}"
    return str(cell)


def print_metrics(title: str, metrics: Mapping[str, object]) -> None:
    """Print metrics: those named ``NAME@k`` with a row a name and a column a cut-off, others with a row each."""
    cutoffs = sorted({int(name.split("@")[1]) for name in metrics if "@" in name})
    names = list(dict.fromkeys(name.split("@")[0] for name in metrics if "@" in name))
    if names:
        rows: list[list[object]] = [[name, *(metrics.get(f"{name}@{k}") for k in cutoffs)] for name in names]
        print_table(title, ["metric", *(f"@{k}" for k in cutoffs)], rows)
    plain = [[name, value] for name, value in metrics.items() if "@" not in name]
    if plain:
        print_table("" if names else title, ["measure", "value"], plain)


def print_protocol(protocol: Mapping[str, object]) -> None:
    """Print how metrics were measured, on one line."""
    print("protocol: " + ", ".join(f"{name} {value}" for name, value in protocol.items()))


@contextmanager
def printed_warnings() -> Iterator[None]:
    """Print warnings as a line each on standard error, without the place in the code that a program would want."""
    import typer

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        typer.echo("graphcl: warning: " + " ".join(str(message).split()), err=True)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def write_output(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file that is then renamed to ``path``; folders above it are created."""
    from graphcl.pipelines.runs import make_folder, write_by_rename

    make_folder(path.parent)
    write_by_rename(path, write)
