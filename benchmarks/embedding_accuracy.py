"""Accuracy of node embeddings over seeds: probes by the papers' protocols on the embedding that training ends with.

    GRAPHCL_DATA=FOLDER python benchmarks/embedding_accuracy.py --data acm --models meow heco --seeds 0 1 2

Every row is a run of the public pipeline with the model's preset for the data set (``preset``), with the settings that
any unknown data set gets (``default``), or with changes given by ``--set`` under a name given by ``--configuration``.
No epoch and no setting is chosen by a label: training ends by its loss or after a number of epochs that the preset
states. Results are merged, by data set, model, configuration and seed, into benchmarks/results/embedding_accuracy.json
and .md after every run; ``--merge FILE`` adds the rows of another such file instead of training.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from benchmark_machine import processor
from benchmark_results import put_run, read_results, write_results

from graphcl.data import load_graph
from graphcl.pipelines import NodeEmbedder
from graphcl.pipelines.runs import library_versions

RESULTS = Path(__file__).parent / "results" / "embedding_accuracy"
# Shown in percent where a run has them.
SHOWN = {
    "macro_f1": "Macro-F1",
    "micro_f1": "Micro-F1",
    "auc": "AUC",
    "logistic_accuracy": "accuracy, logistic",
    "logistic_accuracy_random": "the same on random splits",
    "nmi": "NMI",
    "ari": "ARI",
}
# What the methods' authors or others report, by data set; Macro-F1 / Micro-F1 / AUC where nothing else is said.
KNOWN = {
    "acm": "20 labels a class. HeCo as published 88.56 / 88.13 / 96.49; the authors' code of HeCo, cut at 126 epochs, "
    "89.41 / 89.12 / 96.45; MEOW, the authors' released embedding, 90.79 / 90.50 / 97.89; the authors' code of MEOW, "
    "two seeds, 91.14 / 91.17 / 97.48 and 89.51 / 89.34 / 97.46; AdaMEOW, the authors' log at epoch 500, "
    "91.69 / 91.69 / 98.57",
    "dblp": "20 labels a class. MEOW, the authors' released embedding: 92.35 / 92.88 / 99.06, NMI 74.3, ARI 80.0",
    "cora": "Accuracy of logistic regression as published: DGI 82.3, MVGRL 86.8 (DGL's run of it 83.5), GRACE 83.3, "
    "which is of random splits of 10, 10 and 80 percent (so is its 86.7 on PubMed, beyond every figure of the public "
    "split); the column of random splits is the mean of 10 such splits. `grace, authors` has widths (256, 128) as "
    "theirs, `grace, preset` (512, 256) for its validation accuracy, .816 against .752 with seed 0",
}


def train_once(data: str, model: str, seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    """One seed from data to metrics."""
    dataset = load_graph(data)
    embedder = NodeEmbedder(model, **{"progress": False, **settings, "seed": seed})
    started, used = time.perf_counter(), time.process_time()
    embedder.fit(dataset)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - used
    evaluation = embedder.evaluate()
    return {
        "seed": seed,
        "metrics": evaluation.metrics.to_dict(),
        "protocol": dict(evaluation.protocol),
        "epochs": len(embedder.training_history),
        "fit_seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "settings": settings,
    }


def merge(record: dict[str, Any], data: str, row: str, run: dict[str, Any]) -> None:
    """Put one run in the place of an earlier one of the same data set, row and seed."""
    runs = record["graphs"].setdefault(data, {}).setdefault(row, [])
    put_run(runs, run, "seed")


def as_markdown(record: dict[str, Any]) -> str:
    """The tables that are committed beside the JSON."""
    about = record["about"]
    lines = [
        "# Node embeddings: accuracy over seeds",
        "",
        f"{about['cpu']}, torch {about['versions']['torch']}. Percent, mean ± deviation over seeds. Labels are "
        "seen by the probes alone, and chose no epoch. Linear probe: 200 steps of Adam, step chosen by the validation "
        "nodes, mean of 50 initial weights, one column a number of training labels a class. NMI and ARI: k-means with "
        "as many clusters as classes. `preset` is the model's own setting for the data set, `default` what a data set "
        "without a preset gets.",
    ]
    for data, rows in sorted(record["graphs"].items()):
        lines += ["", f"## {data}", ""]
        if data in KNOWN:
            lines += [KNOWN[data] + ".", ""]
        shown = _columns(rows)
        lines += ["| model | seeds | epochs | " + " | ".join(_title(name) for name in shown) + " | CPU s |"]
        lines += ["|---|" + "---|" * (len(shown) + 3)]
        for row, runs in sorted(rows.items()):
            epochs = ", ".join(str(run["epochs"]) for run in runs)
            cells = [_cell([run["metrics"].get(name) for run in runs]) for name in shown]
            seconds = f"{statistics.median(run['cpu_seconds'] for run in runs):.0f}"
            lines += [f"| {row} | {len(runs)} | {epochs} | " + " | ".join(cells) + f" | {seconds} |"]
        # The first metric that every row has.
        main = next((name for name in shown if all(_has(runs, name) for runs in rows.values())), shown[0])
        lines += ["", f"{_title(main)} of every seed:", ""]
        lines += [
            f"- {row}: " + ", ".join(f"{100 * (run['metrics'].get(main) or 0.0):.2f}" for run in runs)
            for row, runs in sorted(rows.items())
        ]
    return "\n".join(lines) + "\n"


def _has(runs: list[dict[str, Any]], name: str) -> bool:
    return all(run["metrics"].get(name) is not None for run in runs)


def _columns(rows: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Metrics worth a column, grouped by split."""
    names = {name for runs in rows.values() for run in runs for name, value in run["metrics"].items() if value}
    splits = sorted({name.partition("@")[2] for name in names if name.partition("@")[0] in SHOWN})
    wanted = [f"{base}@{split}" if split else base for split in reversed(splits) for base in SHOWN]
    wanted.sort(key=lambda name: (not name.partition("@")[2], name.partition("@")[2]))
    return [name for name in wanted if name in names]


def _title(name: str) -> str:
    base, _, split = name.partition("@")
    return f"{SHOWN[base]}, {split}" if split else SHOWN[base]


def _cell(values: list[float | None]) -> str:
    found = [100 * value for value in values if value is not None]
    if not found:
        return ""
    spread = f" ± {statistics.stdev(found):.2f}" if len(found) > 1 else ""
    return f"{statistics.mean(found):.2f}{spread}"


def _setting(text: str) -> tuple[str, Any]:
    """``name=value`` with a JSON value, or plain text."""
    name, found, value = text.partition("=")
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def main() -> None:
    """Run what was asked for, one run after the other, and write the results after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["acm"])
    parser.add_argument("--models", nargs="+", default=["meow", "adameow", "heco"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--configuration", default="preset", help="preset, default, or a name for what --set changes")
    parser.add_argument("--set", type=_setting, nargs="*", default=[], metavar="NAME=VALUE", dest="changes")
    parser.add_argument("--skip-done", action="store_true", help="leave out seeds that the results hold already")
    parser.add_argument("--merge", type=Path, nargs="*", default=[], metavar="FILE", help="rows of other result files")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    about = {"cpu": processor(), "cores": os.cpu_count(), "versions": library_versions("scikit-learn", "scipy")}
    for path in options.merge:
        other = read_results(path, graphs={})
        record = {"about": about, **read_results(options.out, graphs={})}
        for data, rows in other["graphs"].items():
            for row, runs in rows.items():
                for run in runs:
                    merge(record, data, row, run)
        write_results(options.out, record, as_markdown(record))
    if options.merge:
        return
    settings = dict(options.changes)
    if options.configuration == "default":
        settings.setdefault("preset", "default")
    for data in options.data:
        for model in options.models:
            for seed in options.seeds:
                row = f"{model}, {options.configuration}"
                record = read_results(options.out, graphs={})
                done = [run["seed"] for run in record["graphs"].get(data, {}).get(row, [])]
                if options.skip_done and seed in done:
                    continue
                run = train_once(data, model, seed, settings)
                # Read again: another process may have added rows while this one trained.
                record = {**read_results(options.out, graphs={}), "about": about}
                merge(record, data, row, run)
                write_results(options.out, record, as_markdown(record))
                metrics = {name: round(value, 4) for name, value in run["metrics"].items() if value is not None}
                print(data, row, "seed", seed, "epochs", run["epochs"], json.dumps(metrics), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    main()
