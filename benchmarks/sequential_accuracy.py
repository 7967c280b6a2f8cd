"""Accuracy of the sequential models over seeds: leave-one-out, full ranking, history kept, best epoch by validation.

    GRAPHCL_DATA=FOLDER python benchmarks/sequential_accuracy.py --model mclrec --seeds 0 1 2 3 4 --runs FOLDER
    ... --model sracl --set semantics=attributes+cooccurrence max_length=20
    ... --model duorec --set contrast_weight=0.2 --seeds 1000 --tuning

Every seed is a run of the public pipeline with its defaults unless --set says otherwise. Results are merged by data
set, model, configuration (the settings given, or --label) and seed into benchmarks/results/sequential_accuracy.json and
.md: a seed that is there is not trained again (--again does), and one that --runs holds in part is continued. Where
SASRec has been measured with the same seeds, each model is compared with it by a paired t-test. With --tuning only the
validation metrics are kept, so that settings can be chosen without a look at the test.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import statistics
import time
from pathlib import Path
from typing import Any

import yaml
from benchmark_machine import machine
from benchmark_results import read_results, write_results

from graphcl.data import load_dataset
from graphcl.metrics import paired_t_test
from graphcl.pipelines import RunFolder, SequentialRecommender

RESULTS = Path(__file__).parent / "results"
SHOWN = ("HR@5", "HR@10", "HR@20", "NDCG@5", "NDCG@10", "NDCG@20")
COMPARED = ("HR@20", "NDCG@20")
MODELS = ("sasrec", "gru4rec", "cl4srec", "duorec", "mclrec", "sracl")
DEFAULTS = "defaults"
# What the mean over the seeds is to reach on Amazon Beauty. The first is ours, the others were published, SRA-CL's
# without semantic vectors at a length of 20.
WANTED: dict[str, dict[str, float]] = {
    "sasrec": {"HR@20": 0.116, "NDCG@20": 0.050},
    "cl4srec": {"HR@20": 0.0974},
    "duorec": {"HR@20": 0.1193},
    "mclrec": {"HR@20": 0.1243, "NDCG@20": 0.0539},
    "sracl": {"HR@20": 0.1265, "NDCG@20": 0.0532},
}
PUBLISHED = {"sasrec": "Published for the encoder with cross-entropy alone: HR@20 0.1206, NDCG@20 0.0518."}
# Settings that do not change what is learned from how many epochs.
FREE = ("seed", "epochs", "patience", "devices", "accelerator", "progress")

Record = dict[str, Any]


def train_once(
    data: str, model: str, seed: int, settings: dict[str, Any], out: Path | None, *, resume: bool, tuning: bool
) -> Record:
    """One seed from data to metrics; a run that ``out`` already holds is continued, or read when complete."""
    recommender = SequentialRecommender(model, **{**settings, "seed": seed})
    if out is not None and resume and RunFolder(out).is_complete:
        recommender = SequentialRecommender.load(out)
        seconds = float(json.loads((out / "manifest.json").read_text(encoding="utf-8"))["wall_seconds"])
    else:
        split = load_dataset(data, features=recommender.takes_item_features).split()
        started = time.perf_counter()
        recommender.fit(split, out, resume=resume and out is not None)
        seconds = time.perf_counter() - started
    history = recommender.training_history
    run: Record = {
        "seed": seed,
        "validation": recommender.evaluate("valid").metrics.to_dict(),
        "epochs": len(history),
        "best_epoch": recommender.best_epoch,
        "fit_seconds": round(seconds, 1),
        "median_epoch_seconds": statistics.median(record["seconds"] for record in history),
    }
    if not tuning:
        test = recommender.evaluate("test")
        run |= {"test": test.metrics.to_dict(), "protocol": dict(test.protocol)}
    return run


def summary(runs: list[Record], part: str) -> dict[str, dict[str, float]]:
    """Mean and standard deviation over the seeds of the metrics that are shown."""
    values = {name: [run[part][name] for run in runs] for name in SHOWN}
    return {
        name: {"mean": statistics.mean(found), "deviation": statistics.stdev(found) if len(found) > 1 else 0.0}
        for name, found in values.items()
    }


def read_records(out: Path) -> dict[str, Record]:
    """Earlier results by ``data/model/configuration``; none where there is no file."""
    records: dict[str, Record] = read_results(out, records={})["records"]
    return records


def record_of(
    records: dict[str, Record], data: str, model: str, configuration: str, settings: dict[str, Any]
) -> Record:
    """The record that a run belongs to, made where there is none.

    Raises:
        SystemExit: results of this name were made with other settings.
    """
    key = f"{data}/{model}/{configuration}"
    config = SequentialRecommender(model, **settings).get_config()
    record = records.setdefault(
        key,
        {
            "data": data,
            "model": model,
            "configuration": configuration,
            "settings": settings,
            "about": machine(),
            "config": config,
            "runs": [],
            "tuning": [],
        },
    )
    earlier = record["config"]
    changed = [name for name in earlier.keys() & config.keys() - {*FREE} if earlier[name] != config[name]]
    if changed:
        raise SystemExit(f"{key} was measured with other values of {', '.join(sorted(changed))}: give --label")
    record["config"] = config  # the newest of the settings that are free
    return record


def baseline_of(records: dict[str, Record], record: Record) -> Record | None:
    """SASRec's results on the same data: with the same length of history where there are such, else by default."""
    found = [
        other
        for other in records.values()
        if other["data"] == record["data"] and other["model"] == "sasrec" and other["runs"] and other is not record
    ]
    length = record["config"].get("max_length")
    return min(
        found,
        key=lambda other: (other["config"].get("max_length") != length, other["configuration"] != DEFAULTS),
        default=None,
    )


def comparison(records: dict[str, Record], record: Record) -> str | None:
    """The paired test against SASRec in words; None where they share fewer than two seeds."""
    base = baseline_of(records, record)
    if record["model"] == "sasrec" or base is None:
        return None
    ours, theirs = ({run["seed"]: run["test"] for run in one["runs"]} for one in (record, base))
    seeds = sorted(ours.keys() & theirs.keys())
    if len(seeds) < 2:
        return None
    parts = []
    for name in COMPARED:
        test = paired_t_test([ours[seed][name] for seed in seeds], [theirs[seed][name] for seed in seeds])
        p = "no p-value" if test.p is None else f"p = {test.p:.2g}"
        parts.append(f"{name} {test.difference:+.4f}, {p}")
    other = f"SASRec ({base['configuration']}, L = {base['config'].get('max_length')})"
    return f"Against {other}, paired t-test over seeds {', '.join(map(str, seeds))}: {'; '.join(parts)}."


def as_markdown(records: dict[str, Record]) -> str:
    """The tables that are committed beside the JSON."""
    lines = [
        "# Accuracy of the sequential models",
        "",
        "Leave-one-out, full ranking, the history stays among the candidates; the best epoch is chosen by validation,",
        "and so are settings that are not defaults. Mean and sample deviation over the seeds.",
    ]
    for data in dict.fromkeys(record["data"] for record in records.values()):
        group = [record for record in records.values() if record["data"] == data]
        measured = [record for record in group if record["runs"]]
        lines += ["", f"## {data}", "", "| model | configuration | part | " + " | ".join(SHOWN) + " | seeds |"]
        lines.append("|---|---|---|" + "---|" * (len(SHOWN) + 1))
        for record in measured:
            for part in ("test", "validation"):
                several = len(record["runs"]) > 1
                cells = (
                    f"{value['mean']:.4f}" + several * f" ± {value['deviation']:.4f}" for value in record[part].values()
                )
                count = len(record["runs"]) if part == "test" else ""
                lines.append(
                    f"| {record['model']} | {record['configuration']} | {part} | " + " | ".join(cells) + f" | {count} |"
                )
        for record in group:
            lines += _of_one(records, record)
    return "\n".join(lines) + "\n"


def _of_one(records: dict[str, Record], record: Record) -> list[str]:
    about, runs, model = record["about"], record["runs"], record["model"]
    lines = ["", f"### {model}, {record['configuration']}", ""]
    lines.append(f"{about['cpu']}, {about['threads']} threads, torch {about['versions']['torch']}.")
    if runs:
        lines[-1] += " Protocol: " + ", ".join(f"{name} {value}" for name, value in runs[0]["protocol"].items()) + "."
    settings = ", ".join(f"{name} {value}" for name, value in record["config"].items() if name != "seed")
    lines += ["", f"Settings: {settings}."]
    if runs:
        lines += ["", "| seed | " + " | ".join(SHOWN) + " | best epoch | epochs | seconds |"]
        lines.append("|---|" + "---|" * (len(SHOWN) + 3))
        lines += [
            f"| {run['seed']} | "
            + " | ".join(f"{run['test'][name]:.4f}" for name in SHOWN)
            + f" | {run['best_epoch']} | {run['epochs']} | {run['fit_seconds']:.0f} |"
            for run in runs
        ]
    if record["tuning"]:
        cells = [
            f"seed {run['seed']}: "
            + ", ".join(f"{name} {run['validation'][name]:.4f}" for name in COMPARED)
            + f" at epoch {run['best_epoch']} of {run['epochs']}"
            for run in record["tuning"]
        ]
        lines += ["", "Tried on validation alone: " + "; ".join(cells) + "."]
    said = [comparison(records, record) if runs else None]
    if record["data"] == "amazon-beauty" and runs and model in WANTED:
        wanted = WANTED[model]
        missed = [name for name, value in wanted.items() if record["test"][name]["mean"] < value]
        text = ", ".join(f"{name} >= {value}" for name, value in wanted.items())
        said.append(f"Wanted of the mean: {text}; {f'below it in {chr(44).join(missed)}' if missed else 'reached'}.")
        said.append(PUBLISHED.get(model))
    said.append(record.get("note"))
    return lines + [line for text in said if text for line in ("", text)]


def folder_of(runs: Path, data: str, model: str, configuration: str, seed: int) -> Path:
    """Where the run of a seed is kept."""
    data = Path(data).stem
    if model == "sasrec" and configuration == DEFAULTS:
        return runs / f"{data}-seed-{seed}"
    mark = "" if configuration == DEFAULTS else "-" + re.sub(r"[^\w.=+-]+", "_", configuration)[:40]
    if mark:
        mark += "-" + hashlib.sha256(configuration.encode()).hexdigest()[:8]
    return runs / f"{data}-{model}{mark}-seed-{seed}"


def main(arguments: list[str] | None = None) -> None:
    """Run the seeds one after the other and write the results after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="amazon-beauty")
    parser.add_argument("--model", default="sasrec", choices=MODELS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", dest="settings", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--label", help="name of the configuration; the settings given when left out")
    parser.add_argument("--out", type=Path, default=RESULTS / "sequential_accuracy")
    parser.add_argument("--runs", type=Path, help="folder that keeps the run of every seed")
    parser.add_argument(
        "--resume", action=argparse.BooleanOptionalAction, default=True,
        help="continue or read the runs that --runs holds (the default), or refuse to touch them",
    )  # fmt: skip
    parser.add_argument("--again", action="store_true", help="train seeds that the results hold already")
    parser.add_argument("--tuning", action="store_true", help="validation metrics only; the test is not looked at")
    parser.add_argument("--table", action="store_true", help="write the table from the JSON and train nothing")
    options = parser.parse_args(arguments)
    if options.table:
        records = read_records(options.out)
        write_results(options.out, {"records": records}, as_markdown(records))
        return
    settings = {name: yaml.safe_load(value) for name, _, value in (pair.partition("=") for pair in options.settings)}
    named = {name: value for name, value in sorted(settings.items()) if name not in FREE}
    configuration = options.label or ", ".join(f"{name} {value}" for name, value in named.items()) or DEFAULTS
    part = "tuning" if options.tuning else "runs"
    for seed in options.seeds:
        # Read again each time: another model may have been measured meanwhile.
        record = record_of(read_records(options.out), options.data, options.model, configuration, settings)
        if any(run["seed"] == seed for run in record[part]) and not options.again:
            print(f"seed {seed} is measured already", flush=True)
            continue
        out = options.runs and folder_of(options.runs, options.data, options.model, configuration, seed)
        run = train_once(options.data, options.model, seed, settings, out, resume=options.resume, tuning=options.tuning)
        records = read_records(options.out)
        record = record_of(records, options.data, options.model, configuration, settings)
        kept = [other for other in record[part] if other["seed"] != seed]
        record[part] = sorted([*kept, run], key=lambda other: int(other["seed"]))
        if record["runs"]:
            record |= {name: summary(record["runs"], name) for name in ("test", "validation")}
        write_results(options.out, {"records": records}, as_markdown(records))
        shown = run["validation" if options.tuning else "test"]
        print(json.dumps({"seed": seed, part: {name: shown[name] for name in SHOWN}}), flush=True)
    text = comparison(records := read_records(options.out), records[f"{options.data}/{options.model}/{configuration}"])
    if text:
        print(text, flush=True)


if __name__ == "__main__":
    main()
