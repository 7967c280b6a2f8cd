"""``graphcl train``: a table of interactions or a graph in, a run folder out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from graphcl.cli.compare import print_comparison
from graphcl.cli.options import parse_alternatives, parse_assignments, read_settings, refuse_options
from graphcl.cli.output import print_json, print_metrics, print_protocol, print_table
from graphcl.errors import InputError, located

if TYPE_CHECKING:
    from graphcl.data import GraphDataset
    from graphcl.pipelines.sweep import Sweep

# Metrics of a ranking to compare by, where there are too many for one table.
_COMPARED = ("Recall@10", "Recall@20", "Recall@40", "NDCG@10", "NDCG@20", "NDCG@40")


def train(
    model: Annotated[str, typer.Argument(help="Model to train, for example sasrec.")],
    data: Annotated[str, typer.Option(help="Name of a data set, or path of a table of interactions or of a graph.")],
    out: Annotated[Path, typer.Option(help="Run folder to write.")],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting; repeat it for others. To try values: KEY=V1,V2."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings; --set wins over it.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Most epochs; early stopping may end sooner.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of every random draw.")] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="A run for each of so many seeds, below --out; the first is --seed, or 0.")
    ] = None,
    devices: Annotated[int | None, typer.Option(min=1, help="Devices to train on.")] = None,
    load: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="An option of the reader of the data.")
    ] = None,
    split: Annotated[
        Literal["leave-one-out", "time", "ratio"] | None,
        typer.Option(help="Interactions: how to split; by default as the data set says."),
    ] = None,
    k_core: Annotated[int | None, typer.Option(min=1, help="Interactions: drop rarer users and items.")] = None,
    user_column: Annotated[
        str | None,
        typer.Option(help="Interactions: column of the user id; detected if not given."),
    ] = None,
    item_column: Annotated[
        str | None,
        typer.Option(help="Interactions: column of the item id; detected if not given."),
    ] = None,
    time_column: Annotated[
        str | None, typer.Option(help="Interactions: column of the time; detected if not given.")
    ] = None,
    on_bad_rows: Annotated[
        Literal["raise", "drop"] | None,
        typer.Option(
            help="Interactions: stop at the first row that cannot be used (as by default), or drop such rows."
        ),
    ] = None,
    duplicates: Annotated[
        Literal["keep", "first", "last"] | None,
        typer.Option(
            help="Interactions: which rows to keep of those equal in user, item, time and value; all by default."
        ),
    ] = None,
    features: Annotated[Path | None, typer.Option(help="Graphs: table or array of the nodes' features.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Graphs: table or array of the nodes' labels.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a run that was interrupted.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run folder that exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the metrics as JSON.")] = False,
) -> None:
    """Train a model on a table of interactions or on a graph and measure it; the run folder also holds the report."""
    alternatives = parse_alternatives(set_ or [])
    is_sweep = seeds is not None or any(len(values) > 1 for values in alternatives.values())
    settings = read_settings(config) | {name: values[0] for name, values in alternatives.items() if not is_sweep}
    given = {"epochs": epochs, "seed": seed, "devices": devices}
    settings.update({name: value for name, value in given.items() if value is not None})

    from graphcl.pipelines import create_pipeline
    from graphcl.pipelines.runs import METRICS, RunFolder
    from graphcl.pipelines.sweep import plan_sweep
    from graphcl.report import write_report

    plan = None
    with faults_of_file(model, config):
        if is_sweep:
            first = settings.pop("seed", 0)
            if not isinstance(first, int):
                raise InputError(f"the seed {first!r} is no whole number", "give the first seed with --seed")
            plan = plan_sweep(model, out, settings, alternatives, range(first, first + (seeds or 1)))
            pipeline = plan.runs[0].pipeline
        else:
            pipeline = create_pipeline(model, settings)
    of_interactions = {
        "split": split,
        "k_core": k_core,
        "user_column": user_column,
        "item_column": item_column,
        "time_column": time_column,
        "on_bad_rows": on_bad_rows,
        "duplicates": duplicates,
    }
    of_graphs = {"features": features, "labels": labels}
    reading = parse_assignments(load or [], "--load", "format=csv")
    if pipeline.data_kind == "interactions":
        refuse_options(of_graphs, f"{model} trains on interactions, not on a graph")
        of_interactions["catalogue"] = getattr(pipeline, "catalogue", None)
        arguments = load_interactions(data, reading, of_interactions, item_features=pipeline.takes_item_features)
    elif pipeline.data_kind == "bundles":
        from graphcl.data import load_bundles

        refuse_options({**of_interactions, **of_graphs}, f"{model} trains on bundles; their reader has --load")
        arguments = {"data": load_bundles(data, **reading)}
    elif pipeline.data_kind == "events":
        from graphcl.data import load_events

        refuse_options({**of_interactions, **of_graphs}, f"{model} trains on events; their reader has --load")
        arguments = {"data": load_events(data, **reading)}
    elif pipeline.data_kind == "retrieval":
        from graphcl.data import load_retrieval

        refuse_options({**of_interactions, **of_graphs}, f"{model} trains on queries and labels, not on these")
        arguments = {"data": load_retrieval(data, **reading)}
    else:
        refuse_options(of_interactions, f"{model} trains on a graph, not on interactions")
        arguments = {"data": load_graph(data, reading, of_graphs)}
    if plan is not None:
        train_sweep(plan, arguments, resume=resume, overwrite=overwrite, as_json=as_json)
        return
    pipeline.fit(**arguments, out=out, resume=resume, overwrite=overwrite)

    report = write_report(out)
    saved = RunFolder(out).read_json(METRICS)
    if as_json:
        print_json({"run": str(out), "report": str(report), "metrics": saved.pop("test"), **saved})
        return
    print_metrics(f"{model} on {data} (test)", saved["test"])
    print_baselines(model, saved)
    print_protocol(saved["protocol"])
    typer.echo(f"run: {out}\nreport: {report}")


@contextmanager
def faults_of_file(model: str, config: Path | None) -> Iterator[None]:
    """Name the file of settings in an error that these settings give by themselves."""
    from graphcl.pipelines import create_pipeline

    try:
        yield
    except InputError as error:
        if config is not None and error.path is None:
            try:
                create_pipeline(model, read_settings(config))
            except InputError as alone:
                if str(alone) == str(error):
                    raise located(error, config) from error
        raise


def train_sweep(plan: Sweep, arguments: Mapping[str, Any], *, resume: bool, overwrite: bool, as_json: bool) -> None:
    """Train the runs of a sweep one after the other and print them side by side, best first.

    Args:
        plan: the runs.
        arguments: of each pipeline's ``fit``.
        resume, overwrite: as for one run; complete runs are kept under ``resume``.
        as_json: print JSON instead of a table.
    """
    from graphcl.report import compare_runs, write_comparison

    plan.prepare(resume=resume, overwrite=overwrite)
    for number, run in enumerate(plan.pending(resume=resume), start=1):
        if not as_json:
            typer.echo(f"[{number} of at most {len(plan.runs)}] {run.folder}")
        run.pipeline.fit(**arguments, out=run.folder, resume=resume, overwrite=overwrite)
    comparison = compare_runs([run.folder for run in plan.runs])
    page = write_comparison(comparison, plan.out / "comparison.html")
    if as_json:
        print_json({"sweep": str(plan.out), "comparison": str(page), **comparison.to_dict()})
        return
    print_comparison(comparison)
    typer.echo(f"sweep: {plan.out}\ncomparison: {page}")


def load_interactions(
    data: str, reading: Mapping[str, Any], options: Mapping[str, Any], *, item_features: bool
) -> dict[str, Any]:
    """Load a log by name or path, drop rare users and items if asked to, and split it.

    Args:
        data: name or path.
        reading: options of the reader.
        options: those of the command line that concern interactions, None where they are not given, and the
            ``catalogue`` that the pipeline wants.
        item_features: whether the pipeline takes features of items.

    Returns:
        Arguments of the pipeline's ``fit``.
    """
    from graphcl.data import k_core, leave_one_out, load_dataset, split_by_ratio, split_by_time

    columns = {name: options[f"{name}_column"] for name in ("user", "item", "time")}
    choices = {**columns, "on_bad_rows": options["on_bad_rows"], "duplicates": options["duplicates"]}
    given = {name: choice for name, choice in choices.items() if choice is not None}
    if options.get("catalogue") == "features" and reading.get("item_features", _table_of_items_beside(Path(data))):
        given["catalogue"] = reading.get("catalogue", "features")  # the table may name items that nobody met
    dataset = load_dataset(data, features=item_features, **{**reading, **given})
    minimum, method = options["k_core"], options["split"]
    if minimum is not None:
        kept = k_core(dataset.interactions, minimum, minimum)
        dataset = replace(dataset, interactions=kept, published_split=None)
    methods = {"leave-one-out": leave_one_out, "time": split_by_time, "ratio": split_by_ratio}
    split = dataset.split() if method is None else methods[method](dataset.interactions)
    return {"data": split, **({"item_features": dataset.item_features} if item_features else {})}


def _table_of_items_beside(path: Path) -> bool:
    """Whether a RecBole file has one, which is read with it."""
    return path.suffix == ".inter" and path.with_suffix(".item").is_file()


def load_graph(data: str, reading: Mapping[str, Any], options: Mapping[str, Any]) -> GraphDataset:
    """Load a graph by name or path.

    Args:
        data: name or path.
        reading: options of the reader.
        options: those of the command line that concern graphs, None where they are not given.
    """
    from graphcl.data import load_graph as load

    return load(data, **{**reading, **{name: value for name, value in options.items() if value is not None}})


def print_baselines(model: str, saved: Mapping[str, Any]) -> None:
    """Print the baselines that a run measured beside its model, where it did."""
    baselines = [entry for entry in saved.get("baselines") or [] if "metrics" in entry]
    if not baselines:
        return
    names = [name for name in saved["test"] if any(entry["metrics"].get(name) is not None for entry in baselines)]
    if len(names) > len(_COMPARED) * 2:
        names = [name for name in names if name in _COMPARED] or names
    compared = [(model, saved["test"]), *((entry["name"], entry["metrics"]) for entry in baselines)]
    print_table(
        "Beside methods without training",
        ["", *names],
        [[label, *(found.get(name) for name in names)] for label, found in compared],
    )
