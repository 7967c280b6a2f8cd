"""Forgetting beside removal alone and training from scratch: LightGCN on MovieLens-100k, GRACE on Cora.

    OMP_NUM_THREADS=1 python benchmarks/unlearning.py [--tasks lightgcn grace] [--seeds 0 1 2]

LightGCN: ratings of ml-100k as interactions, cut by shares of 80, 10 and 10 percent in time; 50 epochs, the best by
validation Recall@20; one percent of the users and one percent of the items are forgotten. GRACE: cora, widths 128 and
64, 60 epochs; one percent of the nodes. Every seed draws other entities, other weights and other batches. The settings
of forgetting are the package's defaults, which were chosen on other draws (seeds 100 and above) of the same data and on
a generated shop. Beside it: removal with the same epochs of repair and no forgetting, forgetting without repair, and
training from scratch without the data, which is what the others are compared with. Times are those of one process, in
one run. Runs are kept by task and seed in benchmarks/results/unlearning.json and .md; a run that is there is not
repeated without --again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from benchmark_machine import machine
from benchmark_results import put_run, read_results, write_results

from graphcl.data import load_dataset, load_graph, split_by_ratio
from graphcl.pipelines import CollaborativeRecommender, NodeEmbedder, Unlearner
from graphcl.pipelines.unlearning import retrain
from graphcl.pipelines.unlearning_data import plan_removal
from graphcl.pipelines.unlearning_report import check_what_is_left

RESULTS = Path(__file__).parent / "results" / "unlearning"
METHODS: dict[str, dict[str, Any]] = {
    "removal and repair": {"steps": 0},
    "LAF without repair": {"repair_epochs": 0},
    "LAF and repair": {},
}
COLUMNS = {
    "lightgcn": {
        "users": "users, AUC",
        "users_held_out": "users against held-out",
        "items": "items, AUC",
        "items_held_out": "items against held-out",
        "Recall@20": "Recall@20 of the rest",
        "NDCG@20": "NDCG@20",
        "lists_with_forgotten": "lists with a forgotten item",
        "overlap_with_retrained": "top 20 shared with scratch",
    },
    "grace": {
        "edges": "edges, AUC",
        "logistic_accuracy": "accuracy of the rest",
        "knn_accuracy": "accuracy, k-NN",
        "overlap_with_retrained": "20 neighbours shared with scratch",
    },
}


def trained(task: str, seed: int) -> tuple[Any, dict[str, list[Any]]]:
    """A trained pipeline, and the ids of what it is to forget."""
    generator = np.random.default_rng(seed)
    pipeline: Any
    if task == "lightgcn":
        split = split_by_ratio(load_dataset("ml-100k").interactions)
        settings = {"epochs": 50, "learning_rate": 5e-3, "patience": 50, "progress": False}
        pipeline = CollaborativeRecommender("lightgcn", seed=seed, **settings).fit(split)
        ids = {"users": split.interactions.user_ids.external, "items": split.interactions.item_ids.external}
        gone = {name: generator.choice(known, round(len(known) / 100), replace=False) for name, known in ids.items()}
    else:
        probes = {"probe_repeats": 1, "clusterings": 1, "random_splits": 5}
        widths = {"widths": (128, 64), "projection": 64, "learning_rate": 1e-3, "epochs": 60}
        pipeline = NodeEmbedder("grace", seed=seed, progress=False, **widths, **probes).fit(load_graph("cora"))
        nodes = pipeline.embed().ids
        gone = {"nodes": generator.choice(nodes, round(len(nodes) / 100), replace=False)}
    return pipeline, {name: ids.tolist() for name, ids in gone.items()}


def one_run(task: str, seed: int) -> dict[str, Any]:
    """Train, forget in every way, train from scratch, and measure all in the same way."""
    pipeline, gone = trained(task, seed)
    removal = plan_removal(pipeline, **{name: gone.get(name, []) for name in ("users", "items", "nodes")})
    started = time.perf_counter()
    scratch = retrain(removal)
    found: dict[str, Any] = {}
    seconds = time.perf_counter() - started
    for method, settings in METHODS.items():
        unlearner = Unlearner(seed=seed, **settings)
        after, report = unlearner.forget(pipeline, **gone)
        spent = {name: report.cost[f"{name}_seconds"] for name in ("forgetting", "repair")}
        report = check_what_is_left(removal, after, scratch, unlearner.settings, spent)
        cost = {"seconds": report.cost["seconds"], "epochs": unlearner.settings.repair_epochs}
        for name in ("before", "after", "retrained"):
            measured = {**report.membership[name], **report.retained[name], **report.lists[name]}
            kept = {column: measured.get(column) for column in COLUMNS[task]}
            if name == "after":
                found[method] = {**kept, **cost}
            elif name == "before":
                found.setdefault(name, kept)
            else:
                found.setdefault("from scratch", {**kept, "seconds": seconds, "epochs": scratch._state.epoch})
    return {"seed": seed, "forgotten": removal.describe(), "methods": found}


def as_markdown(record: dict[str, Any]) -> str:
    """The committed tables."""
    about = record["about"]
    lines = [
        "# Forgetting beside training from scratch",
        "",
        f"{about['cpu']}, {about['threads']} thread(s), torch {about['versions']['torch']}. See "
        "benchmarks/unlearning.py. Mean and deviation over the seeds. The AUC of an attack is to be read against "
        "`from scratch`, not against one half; |gap| is the mean over the seeds of its distance from there.",
    ]
    for task, runs in record["runs"].items():
        columns = COLUMNS[task]
        forgotten = ", ".join(f"{count:,} {what.replace('_', ' ')}" for what, count in runs[0]["forgotten"].items())
        attacks = [name for name in ("users", "items", "edges") if name in columns]
        lines += ["", f"## {task}", "", f"Seed {runs[0]['seed']} forgets {forgotten}.", ""]
        head = ["method", *columns.values(), *(f"|gap| {name}" for name in attacks), "seconds", "epochs", "seeds"]
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in head) + " |", "|---" * len(head) + "|"]
        for method in ("before", *METHODS, "from scratch"):
            rows = [run["methods"][method] for run in runs]
            cells = [_spread([row[name] for row in rows]) for name in columns]
            for name in attacks:
                gaps = [abs(run["methods"][method][name] - run["methods"]["from scratch"][name]) for run in runs]
                cells.append(_spread(gaps) if method != "from scratch" else "")
            cells.append(f"{statistics.mean(row['seconds'] for row in rows):.1f}" if "seconds" in rows[0] else "")
            cells.append(str(rows[0].get("epochs", "")))
            lines.append(f"| {method} | " + " | ".join([*cells, str(len(rows))]) + " |")
    return "\n".join(lines) + "\n"


def _spread(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    return f"{statistics.mean(known):.4f} ± {statistics.stdev(known) if len(known) > 1 else 0.0:.4f}"


def main() -> None:
    """Run what is asked for and not there yet, and write the results after each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="*", default=list(COLUMNS), choices=COLUMNS)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--again", action="store_true", help="repeat runs that are there")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    record = read_results(options.out, runs={})
    record["about"] = machine("torch-geometric")
    for task in options.tasks:
        for seed in options.seeds:
            runs = record["runs"].setdefault(task, [])
            if any(run["seed"] == seed for run in runs) and not options.again:
                continue
            run = one_run(task, seed)
            put_run(runs, run, "seed")
            print(task, seed, json.dumps(run), flush=True)
            write_results(options.out, record, as_markdown(record))


if __name__ == "__main__":
    main()
