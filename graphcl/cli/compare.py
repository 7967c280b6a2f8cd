"""``graphcl compare``: runs with several seeds, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graphcl.cli.output import print_json, print_table

if TYPE_CHECKING:
    from graphcl.report.comparison import Comparison


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or folders of runs, such as a sweep's.")],
    by: Annotated[
        str | None,
        typer.Option(metavar="METRIC", help="Test metric to order and test by; what chose the epochs if none."),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(metavar="GROUP", help="Group that the others are tested against; the first run's if none."),
    ] = None,
    best: Annotated[
        bool, typer.Option("--best", help="Keep of each model the setting with the best mean validation metric.")
    ] = False,
    html: Annotated[Path | None, typer.Option(help="Also write one self-contained HTML file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a machine.")] = False,
) -> None:
    """Compare runs over seeds: mean, deviation and paired tests by model and setting, on one data set and protocol."""
    from graphcl.report import compare_runs, write_comparison

    comparison = compare_runs(runs, by, reference=reference, best=best)
    if html is not None:
        write_comparison(comparison, html)
    if as_json:
        print_json({**comparison.to_dict(), **({"html": str(html)} if html is not None else {})})
        return
    print_comparison(comparison)
    if html is not None:
        typer.echo(f"html: {html}")


def print_comparison(comparison: Comparison) -> None:
    """Print the table, how it was tested, and the notes."""
    from graphcl.report.comparison_page import HEAD, comparison_rows, how_tested

    print_table(f"Comparison by {comparison.metric}", HEAD, comparison_rows(comparison))
    for line in (how_tested(comparison), *comparison.notes):
        typer.echo(line)
