"""Accuracy of SASRec over seeds: leave-one-out, full ranking, history kept, best epoch by validation.

    GRAPHCL_DATA=FOLDER python benchmarks/sequential_accuracy.py --data amazon-beauty --seeds 0 1 2 --set key=value ...

Every seed is a run of the public pipeline with its defaults unless --set says otherwise. Results go to
benchmarks/results/sequential_accuracy.json and .md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import torch
import yaml

from graphcl.data import load_dataset
from graphcl.pipelines import RunFolder, SequentialRecommender
from graphcl.pipelines.runs import library_versions, write_by_rename, write_json

RESULTS = Path(__file__).parent / "results"
SHOWN = ("HR@5", "HR@10", "HR@20", "NDCG@5", "NDCG@10", "NDCG@20")
# Mean of 3 seeds that the model must reach on Amazon Beauty, and the encoder-only column of the published table.
WANTED = {"HR@20": 0.116, "NDCG@20": 0.050}
PUBLISHED = {"HR@20": 0.1206, "NDCG@20": 0.0518}


def train_once(data: str, seed: int, settings: dict[str, Any], folder: Path | None) -> dict[str, Any]:
    """One seed from data to test metrics; a run that ``folder`` already holds is continued, or read when complete."""
    split = load_dataset(data).split()
    recommender = SequentialRecommender(**{**settings, "seed": seed})
    out = None if folder is None else folder / f"{data}-seed-{seed}"
    if out is not None and RunFolder(out).is_complete:
        recommender = SequentialRecommender.load(out)
        seconds = float(json.loads((out / "manifest.json").read_text(encoding="utf-8"))["wall_seconds"])
    else:
        started = time.perf_counter()
        recommender.fit(split, out, resume=out is not None)
        seconds = time.perf_counter() - started
    test, valid = recommender.evaluate("test"), recommender.evaluate("valid")
    history = recommender.training_history
    return {
        "seed": seed,
        "test": test.metrics.to_dict(),
        "validation": valid.metrics.to_dict(),
        "protocol": dict(test.protocol),
        "epochs": len(history),
        "best_epoch": recommender.best_epoch,
        "fit_seconds": round(seconds, 1),
        "median_epoch_seconds": statistics.median(record["seconds"] for record in history),
    }


def summary(runs: list[dict[str, Any]], part: str) -> dict[str, dict[str, float]]:
    """Mean and standard deviation over the seeds of the metrics that are shown."""
    values = {name: [run[part][name] for run in runs] for name in SHOWN}
    return {
        name: {"mean": statistics.mean(found), "deviation": statistics.stdev(found) if len(found) > 1 else 0.0}
        for name, found in values.items()
    }


def as_markdown(record: dict[str, Any]) -> str:
    """The table that is committed beside the JSON."""
    about, runs = record["about"], record["runs"]
    lines = [
        f"# SASRec on {about['data']}: accuracy over {len(runs)} seeds",
        "",
        f"{about['cpu']}, {about['threads']} threads, torch {about['versions']['torch']}. Protocol: "
        + ", ".join(f"{name} {value}" for name, value in runs[0]["protocol"].items())
        + ".",
        "",
        "Settings: " + ", ".join(f"{name} {value}" for name, value in record["config"].items()) + ".",
        "",
        "| seed | " + " | ".join(SHOWN) + " | best epoch | epochs | seconds |",
        "|---|" + "---|" * (len(SHOWN) + 3),
    ]
    lines += [
        f"| {run['seed']} | "
        + " | ".join(f"{run['test'][name]:.4f}" for name in SHOWN)
        + f" | {run['best_epoch']} | {run['epochs']} | {run['fit_seconds']:.0f} |"
        for run in runs
    ]
    for part in ("test", "validation"):
        cells = (f"{value['mean']:.4f} ± {value['deviation']:.4f}" for value in record[part].values())
        lines.append(f"| mean, {part} | " + " | ".join(cells) + " | | | |")
    if about["data"] == "amazon-beauty":
        wanted = ", ".join(f"{name} >= {value}" for name, value in WANTED.items())
        published = ", ".join(f"{name} {value}" for name, value in PUBLISHED.items())
        lines += ["", f"Wanted of the mean: {wanted}. Published for the encoder with cross-entropy alone: {published}."]
    return "\n".join(lines) + "\n"


def processor() -> str:
    """Model name of the processor."""
    information = Path("/proc/cpuinfo")
    names = information.read_text().splitlines() if information.exists() else []
    return next((line.split(":")[1].strip() for line in names if line.startswith("model name")), platform.processor())


def main() -> None:
    """Run the seeds one after the other and write the results after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="amazon-beauty")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", dest="settings", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, default=RESULTS / "sequential_accuracy")
    parser.add_argument("--runs", type=Path, help="folder that keeps the run of every seed; complete ones are reused")
    options = parser.parse_args()
    settings = {name: yaml.safe_load(value) for name, _, value in (pair.partition("=") for pair in options.settings)}
    record: dict[str, Any] = {
        "about": {
            "data": options.data,
            "cpu": processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "versions": library_versions(),
        },
        "config": SequentialRecommender(**settings).get_config(),
        "runs": [],
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for seed in options.seeds:
        record["runs"].append(train_once(options.data, seed, settings, options.runs))
        record |= {part: summary(record["runs"], part) for part in ("test", "validation")}
        write_json(options.out.with_suffix(".json"), record)
        text = as_markdown(record)
        write_by_rename(options.out.with_suffix(".md"), lambda path, text=text: path.write_text(text, encoding="utf-8"))  # type: ignore[misc]
        print(json.dumps({name: value["mean"] for name, value in record["test"].items()}), flush=True)
    if options.data == "amazon-beauty":
        missed = [name for name, value in WANTED.items() if record["test"][name]["mean"] < value]
        print(f"below what is wanted: {', '.join(missed)}" if missed else "reaches what is wanted", flush=True)


if __name__ == "__main__":
    main()
