"""``graphcl train``: a table of interactions in, a run folder out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from graphcl.cli.output import print_json, print_metrics
from graphcl.errors import InputError

if TYPE_CHECKING:
    from graphcl.data import Split


def train(
    model: Annotated[str, typer.Argument(help="Model to train, for example sasrec.")],
    data: Annotated[str, typer.Option(help="Name of a data set, or path of a table of interactions.")],
    out: Annotated[Path, typer.Option(help="Run folder to write.")],
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings; --set wins over it.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Most epochs; early stopping may end sooner.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of every random draw.")] = None,
    devices: Annotated[int | None, typer.Option(min=1, help="Devices to train on.")] = None,
    split: Annotated[
        Literal["leave-one-out", "time", "ratio"] | None,
        typer.Option(help="How to split; by default as the data set says."),
    ] = None,
    k_core: Annotated[int | None, typer.Option(min=1, help="Drop rarer users and items.")] = None,
    user_column: Annotated[str | None, typer.Option(help="Column of the user id; detected if not given.")] = None,
    item_column: Annotated[str | None, typer.Option(help="Column of the item id; detected if not given.")] = None,
    time_column: Annotated[str | None, typer.Option(help="Column of the time; detected if not given.")] = None,
    on_bad_rows: Annotated[
        Literal["raise", "drop"] | None,
        typer.Option(help="Stop at the first row that cannot be used (as by default), or drop such rows."),
    ] = None,
    duplicates: Annotated[
        Literal["keep", "first", "last"] | None,
        typer.Option(help="Which rows to keep of those equal in user, item, time and value; all of them by default."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a run that was interrupted.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run folder that exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the metrics as JSON.")] = False,
) -> None:
    """Train a model on a table of interactions and measure it; the run folder also holds the report."""
    settings = {**read_settings(config), **parse_assignments(set_ or [])}
    given = {"epochs": epochs, "seed": seed, "devices": devices}
    settings.update({name: value for name, value in given.items() if value is not None})

    from graphcl.pipelines import create_pipeline

    pipeline = create_pipeline(model, settings)
    reading = {
        "user": user_column,
        "item": item_column,
        "time": time_column,
        "on_bad_rows": on_bad_rows,
        "duplicates": duplicates,
    }
    parts = load_split(data, {name: choice for name, choice in reading.items() if choice is not None}, split, k_core)
    pipeline.fit(parts, out=out, resume=resume, overwrite=overwrite)

    from graphcl.report import write_report

    report = write_report(out)
    result = pipeline.evaluate("test")
    if as_json:
        print_json({"run": str(out), "report": str(report), **result.to_dict()})
        return
    print_metrics(f"{model} on {data} (test)", result.metrics.to_dict())
    typer.echo("protocol: " + ", ".join(f"{name} {value}" for name, value in result.protocol.items()))
    typer.echo(f"run: {out}\nreport: {report}")


def load_split(data: str, reading: dict[str, Any], method: str | None, minimum: int | None) -> Split:
    """Load a data set by name or path, drop rare users and items if asked to, and split it."""
    from graphcl.data import k_core, leave_one_out, load_dataset, split_by_ratio, split_by_time

    dataset = load_dataset(data, **reading)
    if minimum is not None:
        dataset = replace(dataset, interactions=k_core(dataset.interactions, minimum, minimum))
    if method is None:
        return dataset.split()
    methods = {"leave-one-out": leave_one_out, "time": split_by_time, "ratio": split_by_ratio}
    return methods[method](dataset.interactions)


def read_settings(path: Path | None) -> dict[str, Any]:
    """Read a YAML file of settings; nothing but plain values can come out of it."""
    if path is None:
        return {}
    import yaml

    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", "give an existing YAML file", path=path) from error
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 at byte {error.start}", "save the file as UTF-8", path=path) from error
    except yaml.YAMLError as error:
        row = error.problem_mark.line + 1 if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark else None
        raise InputError("not valid YAML", "write one 'key: value' a line", path=path, row=row) from error
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise InputError("not a mapping of settings", "write one 'key: value' a line", path=path)
    return {str(key): value for key, value in settings.items()}


def parse_assignments(assignments: list[str]) -> dict[str, Any]:
    """Turn ``["learning_rate=0.001", ...]`` into settings; values are read as YAML scalars or lists."""
    import yaml

    settings: dict[str, Any] = {}
    for assignment in assignments:
        key, separator, value = assignment.partition("=")
        if not separator or not key.strip():
            raise InputError(f"--set {assignment!r} is not KEY=VALUE", "write for example --set learning_rate=0.001")
        try:
            settings[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InputError(f"--set {key}: {value!r} is not a value", "quote text that holds : or [") from error
    return settings
