"""Dual encoders on attributes and items of Amazon Beauty: DecoupledSoftmax and SoftTop-k beside plain softmax.

    GRAPHCL_DATA=FOLDER OMP_NUM_THREADS=1 python benchmarks/retrieval_accuracy.py \
        [--seeds 0 1 2 3 4] [--tasks ...] [--configurations ...] [--temperatures ...]

Two data sets made of the published sequences and attributes:

``attributes``: a query is an item, described by the items that stand within two places of it in the histories of
users (a bag of items, counted); its labels are its attributes. Items without such a neighbour are left out.

``next items``: a query is a user, described by the items of the history before its last five (before the last half,
where that is shorter); its labels are the items that follow and are not among the earlier ones. Labels have a vector of
their own (``ids``), or are encoded from their attributes (``features``), or from both added up.

A fifth of the queries, drawn by the seed, is the test, a tenth of the others chooses the epoch and, for every
configuration alike, the temperature out of a grid by the mean nDCG@5 of validation over the seeds. Everything else is
the same for all: width 64, 512 queries a step, Adam at .005, at most 40 epochs (``--epochs``), patience 4. Rows are
merged by task, configuration, temperature and seed into benchmarks/results/retrieval_accuracy.json and .md;
differences to plain softmax are paired by seed.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from benchmark_machine import machine
from benchmark_results import put_run, read_results, write_results

from graphcl.data import LabelledQueries, RetrievalData, SparseRows, dataset_info, load_dataset
from graphcl.data.registry import recipe_files
from graphcl.pipelines import Retriever
from graphcl.pipelines.runs import peak_memory_bytes

RESULTS = Path(__file__).parent / "results" / "retrieval_accuracy"
BASE = "softmax"
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    BASE: {"objective": "softmax"},
    "softmax, all positives summed": {"objective": "softmax", "sample_positive": False},
    "DecoupledSoftmax": {"objective": "decoupled"},
    "SoftTop-k, k = 5": {"objective": "soft_top_k", "k": 5},
    "DecoupledSoftmax, labels from features": {"objective": "decoupled", "labels": "features"},
    "DecoupledSoftmax, features and ids": {"objective": "decoupled", "labels": "both"},
    "DecoupledSoftmax, hard negatives": {"objective": "decoupled", "negatives": "hard"},
}
TASKS = ("attributes", "next items")
SHARED: dict[str, Any] = {"dim": 64, "batch_size": 512, "learning_rate": 5e-3, "patience": 4, "progress": False}
SHOWN = ("P@1", "P@5", "R@5", "R@20", "nDCG@5", "PSP@5")
WINDOW, TARGETS = 2, 5


def histories() -> tuple[list[list[int]], list[list[int]], int]:
    """Items of every user in order, attributes of every item (internal numbers), and the number of attributes."""
    log = load_dataset("amazon-beauty").interactions
    rows: list[list[int]] = [[] for _ in range(log.num_users)]
    for user, item in zip(log.user.tolist(), log.item.tolist(), strict=True):
        rows[user].append(item)
    attributes: list[list[int]] = [[] for _ in range(log.num_items)]
    known = {str(name): number for number, name in enumerate(log.item_ids.external.tolist())}
    files = recipe_files(dataset_info("amazon-beauty"), ["item_features"])
    table = json.loads(files["item_features"].read_text())
    for name, values in table.items():
        if name in known:
            attributes[known[name]] = sorted(set(values))
    numbers = {value: number for number, value in enumerate(sorted({v for values in attributes for v in values}))}
    return rows, [[numbers[value] for value in values] for values in attributes], len(numbers)


def attribute_queries(rows: list[list[int]], attributes: list[list[int]], count: int) -> LabelledQueries:
    """Items by the items around them; labels are attributes."""
    neighbours: list[list[int]] = [[] for _ in attributes]
    for history in rows:
        for place, item in enumerate(history):
            around = history[max(0, place - WINDOW) : place] + history[place + 1 : place + 1 + WINDOW]
            neighbours[item] += [other for other in around if other != item]
    kept = [item for item, values in enumerate(attributes) if values and neighbours[item]]
    return LabelledQueries(
        SparseRows.from_lists([neighbours[item] for item in kept], len(attributes)),
        SparseRows.from_lists([attributes[item] for item in kept], count),
    )


def next_item_queries(rows: list[list[int]], num_items: int) -> LabelledQueries:
    """Users by their earlier items; labels are the items that follow."""
    early, late = [], []
    for history in rows:
        cut = len(history) - min(TARGETS, len(history) // 2)
        targets = sorted(set(history[cut:]) - set(history[:cut]))
        if targets:
            early.append(history[:cut])
            late.append(targets)
    return LabelledQueries(SparseRows.from_lists(early, num_items), SparseRows.from_lists(late, num_items))


def data_of(task: str, seed: int) -> RetrievalData:
    """A task with the test of a seed."""
    rows, attributes, count = histories()
    features = None
    if task == "attributes":
        queries = attribute_queries(rows, attributes, count)
    else:
        queries = next_item_queries(rows, len(attributes))
        features = SparseRows.from_lists(attributes, count)
    order = np.random.default_rng([seed, 17]).permutation(queries.num_queries)
    cut = queries.num_queries // 5
    test, train = queries.take(np.sort(order[:cut])), queries.take(np.sort(order[cut:]))
    return RetrievalData(train, test, label_features=features, source=f"amazon-beauty, {task}")


def one_run(task: str, name: str, temperature: float, seed: int, epochs: int) -> dict[str, Any]:
    """Train and measure once."""
    data = data_of(task, seed)
    chosen = {"labels": "ids", **CONFIGURATIONS[name], **SHARED}
    retriever = Retriever(seed=seed, epochs=epochs, temperature=temperature, baselines=name == BASE, **chosen)
    retriever.fit(data)
    history = retriever.training_history
    return {
        "temperature": temperature,
        "seed": seed,
        "valid": retriever.evaluate("valid").metrics.to_dict(),
        "test": retriever.evaluate("test").metrics.to_dict(),
        "epochs": len(history),
        "best_epoch": retriever.best_epoch,
        "epoch_seconds": statistics.median(record["seconds"] for record in history),
        "peak_mib": (peak_memory_bytes() or 0) / 2**20,
    }


def chosen_runs(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The runs at the temperature with the best mean validation nDCG@5 over the seeds that all temperatures share."""
    by_temperature: dict[float, list[dict[str, Any]]] = {}
    for run in runs:
        by_temperature.setdefault(run["temperature"], []).append(run)
    shared = set.intersection(*({run["seed"] for run in group} for group in by_temperature.values()))

    def validated(group: list[dict[str, Any]]) -> float:
        return statistics.mean(run["valid"]["nDCG@5"] for run in group if run["seed"] in shared)

    return max(by_temperature.values(), key=validated)


def as_markdown(record: dict[str, Any]) -> str:
    """The committed tables."""
    about = record["about"]
    lines = [
        "# Dual encoders on Amazon Beauty",
        "",
        f"{about['cpu']}, {about['threads']} thread(s), torch {about['versions']['torch']}. See "
        "benchmarks/retrieval_accuracy.py. Test queries, mean and deviation over the seeds; the temperature is that "
        "with the best validation nDCG@5 of those tried.",
    ]
    for task in (task for task in TASKS if task in record["runs"]):
        lines += ["", f"## {task}", ""]
        lines += [f"| method | seeds | temperature (tried) | {' | '.join(SHOWN)} | epochs | epoch s |"]
        lines += ["|" + "---|" * (len(SHOWN) + 5)]
        best = {name: chosen_runs(runs) for name, runs in record["runs"][task].items()}
        for name, runs in best.items():
            tried = sorted({run["temperature"] for run in record["runs"][task][name]})
            cells = [_spread([run["test"][metric] for run in runs]) for metric in SHOWN]
            seconds = statistics.median(run["epoch_seconds"] for run in runs)
            grid = ", ".join(f"{value:g}" for value in tried)
            epochs = ", ".join(str(run["epochs"]) for run in runs)
            lines.append(
                f"| {name} | {len(runs)} | {runs[0]['temperature']:g} ({grid}) | {' | '.join(cells)} | "
                f"{epochs} | {seconds:.1f} |"
            )
        lines += ["", *_differences(best)]
    return "\n".join(lines) + "\n"


def _differences(best: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Differences to plain softmax, paired by seed."""
    base = {run["seed"]: run["test"] for run in best.get(BASE, [])}
    lines = []
    for name, metrics in (("DecoupledSoftmax", ("P@1", "R@20")), ("SoftTop-k, k = 5", ("P@5", "R@5"))):
        runs = [run for run in best.get(name, []) if run["seed"] in base]
        for metric in metrics if runs else ():
            gaps = [run["test"][metric] - base[run["seed"]][metric] for run in runs]
            wins = sum(gap > 0 for gap in gaps)
            lines.append(f"- {name} minus {BASE}, {metric}: {_spread(gaps)}, above 0 in {wins} of {len(gaps)} seeds.")
    return lines


def _spread(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{spread}"


def main() -> None:
    """Run what was asked for and write the results after each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), choices=TASKS)
    parser.add_argument("--configurations", nargs="*", default=list(CONFIGURATIONS), choices=CONFIGURATIONS)
    parser.add_argument("--temperatures", type=float, nargs="*", default=[0.05, 0.1, 0.2])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2, 3, 4])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    record = read_results(options.out, runs={})
    record["about"] = machine()
    wanted = [
        (seed, task, temperature, name)
        for seed in options.seeds
        for task in options.tasks
        for temperature in options.temperatures
        for name in options.configurations
    ]
    for seed, task, temperature, name in wanted:
        if task == "attributes" and CONFIGURATIONS[name].get("labels", "ids") != "ids":
            continue  # attributes have no features of their own
        runs = record["runs"].setdefault(task, {}).setdefault(name, [])
        if any((run["seed"], run["temperature"]) == (seed, temperature) for run in runs):
            continue
        run = one_run(task, name, temperature, seed, options.epochs)
        put_run(runs, run, "temperature", "seed")
        print(task, name, json.dumps(run), flush=True)
        write_results(options.out, record, as_markdown(record))


if __name__ == "__main__":
    main()
