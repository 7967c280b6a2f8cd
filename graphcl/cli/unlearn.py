"""``graphcl unlearn``: a trained run in, a run that has forgotten users, items or nodes out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from graphcl.cli.options import parse_assignments
from graphcl.cli.output import print_json, print_table
from graphcl.errors import InputError

_IDS = "Comma-separated ids, or a file with one a line; may be given again."


def unlearn(
    run: Annotated[Path, typer.Argument(help="Run folder that `graphcl train` wrote; it stays as it is.")],
    out: Annotated[Path, typer.Option(help="Run folder to write.")],
    users: Annotated[list[str] | None, typer.Option(help=f"Recommenders: users to forget. {_IDS}")] = None,
    items: Annotated[list[str] | None, typer.Option(help=f"Recommenders: items to forget. {_IDS}")] = None,
    nodes: Annotated[list[str] | None, typer.Option(help=f"Embedders: nodes to forget. {_IDS}")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting, as repair_epochs=5."),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of every random draw.")] = None,
    compare_retraining: Annotated[
        bool, typer.Option("--compare-retraining", help="Also train from scratch without the data, and compare.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run folder that exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report of forgetting as JSON.")] = False,
) -> None:
    """Make a run forget users, items or nodes without training from scratch, and measure what is left of them."""
    from graphcl.pipelines import Unlearner, load_pipeline
    from graphcl.pipelines.runs import CONFIG, RunFolder
    from graphcl.report import write_report

    wanted = {"users": read_ids(users), "items": read_ids(items), "nodes": read_ids(nodes)}
    settings = parse_assignments(set_ or [], example="repair_epochs=5") | ({} if seed is None else {"seed": seed})
    unlearner = Unlearner(**settings)
    pipeline = load_pipeline(run)
    if out.resolve() == run.resolve():
        raise InputError("is the run that is to stay as it is", "give another folder", path=out)
    if (out / CONFIG).is_file() and not overwrite:
        raise InputError("holds a run", "give another folder, or --overwrite to replace it", path=out)
    RunFolder(out, pipeline.task).require_free(overwrite=overwrite)
    after, report = unlearner.forget(pipeline, **wanted, compare_retraining=compare_retraining)
    after.save(out, overwrite=overwrite)
    page = write_report(out)
    if as_json:
        print_json({"run": str(out), "report": str(page), **report.to_dict()})
        return
    print_unlearning(report.to_dict())
    typer.echo(f"run: {out}\nreport: {page}")


def read_ids(given: list[str] | None) -> list[str]:
    """External ids of an option: of each value the ids between commas, or those of the file that it names."""
    ids: list[str] = []
    for value in given or []:
        path = Path(value)
        if path.is_file():
            from graphcl.data.text_table import check_utf8

            check_utf8(path)
            found = path.read_text(encoding="utf-8-sig").splitlines()
        else:
            found = value.split(",")
        named = [identity.strip() for identity in found if identity.strip()]
        if not named:
            raise InputError(f"{value!r} holds no id", "write ids between commas, or one a line into a file")
        ids += named
    return ids


def print_unlearning(report: dict[str, Any]) -> None:
    """Print what is left, what became of the rest, and the cost."""
    from graphcl.report.sections_unlearning import MODELS, membership_rows, shown_metrics

    names = [name for name in MODELS if name in report["membership"]]
    forgotten = ", ".join(f"{count:,} {what.replace('_', ' ')}" for what, count in report["forgotten"].items())
    rows = [[label, *values] for label, values in membership_rows(report, names)]
    print_table(f"What is left of {forgotten}", ["", *(MODELS[name] for name in names)], rows)
    retained = report["retained"]
    shown = shown_metrics(retained)
    rows = [[metric, *(retained[name].get(metric) for name in names)] for metric in shown]
    print_table("What stays (test)", ["", *(MODELS[name] for name in names)], rows)
    cost = report["cost"]
    line = f"cost: {cost['seconds']:.1f} s, {cost['epochs']} epochs of repair"
    if "retraining_seconds" in cost:
        line += f"; from scratch {cost['retraining_seconds']:.1f} s, {cost['retraining_epochs']} epochs"
    typer.echo(line)
