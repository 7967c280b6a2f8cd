"""The command tree and the one place where errors become exit statuses."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import Any

import typer

from graphcl import __version__
from graphcl.cli import compare, datasets, runs, train, unlearn
from graphcl.errors import InputError, MissingPackageError

# Typer carries its own copy of click since 0.2x, so its usage errors are reached through a name that typer exports.
_UsageError: Any = typer.BadParameter.__mro__[1]

app = typer.Typer(
    name="graphcl",
    help="Contrastive learning on graphs and recommenders.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(datasets.app, name="datasets")
app.command("train")(train.train)
app.command("evaluate")(runs.evaluate)
app.command("recommend")(runs.recommend)
app.command("embed")(runs.embed)
app.command("score")(runs.score)
app.command("retrieve")(runs.retrieve)
app.command("unlearn")(unlearn.unlearn)
app.command("compare")(compare.compare)
app.command("report")(runs.report)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
) -> None:
    """Contrastive learning on graphs and recommenders."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 on success, 2 with one line on bad input, 1 when the fault is ours."""
    sys.exit(run(sys.argv[1:] if arguments is None else list(arguments)))


def run(arguments: Sequence[str]) -> int:
    """Run the command line on ``arguments`` and return the exit status."""
    try:
        status = app(args=list(arguments), prog_name="graphcl", standalone_mode=False)
    except (InputError, MissingPackageError) as error:
        return _bad_input(str(error))
    except _UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            typer.echo(error.format_message(), err=True)
            return 2
        command = error.ctx.command_path if error.ctx is not None else "graphcl"
        return _bad_input(f"{error.format_message()} (see {command} --help)")
    except typer.Exit as leave:
        return leave.exit_code
    except (typer.Abort, KeyboardInterrupt):
        typer.echo("graphcl: interrupted; continue with --resume", err=True)
        return 130
    except BrokenPipeError:
        return 0  # the reader of our output went away, as `| head` does
    except Exception as error:  # the boundary of the program: everything unforeseen is our own fault
        traceback.print_exc()
        typer.echo(f"graphcl: internal error ({type(error).__name__}); this is a bug, please report it", err=True)
        return 1
    return status if isinstance(status, int) else 0


def _bad_input(message: str) -> int:
    typer.echo("graphcl: error: " + " ".join(message.split()), err=True)
    return 2
