"""Items that nobody has met, over seeds: what HTCL's item vectors give a recommender beside the features themselves.

    python benchmarks/cold_items.py --seeds 0 1 2 3 4

MovieLens 100K with its titles, years and genres. A seed draws items: all interactions of a fifth of them are the test
part, those of another tenth the validation part, the rest is for training, so whatever is to be found in validation and
test has no interaction in training. HTCL is trained on the training part and gives every item a vector; MMHCL reads the
attributes, or these vectors, or both as item features. Metrics are over users with a test item: ranked among all
items but those of training, and among the unmet items of the test part alone. Settings of HTCL were chosen on the
validation part of seed 0. Results of several calls are merged by seed and method into
benchmarks/results/cold_items.json and .md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmark_results import read_results, write_results

from graphcl.data import ItemFeatures, Split, load_dataset, table_features
from graphcl.data.splits import TEST, TRAIN, VALID
from graphcl.metrics import rank_of_targets, ranking_metrics
from graphcl.pipelines import CollaborativeRecommender, ItemAligner
from graphcl.pipelines.runs import library_versions

RESULTS = Path(__file__).parent / "results"
ALIGNER: dict[str, Any] = {
    "item_modalities": ["movie_title", "release_year", "class"],
    "text_modalities": ["movie_title"],
    "liked": 4.0,
    "disliked": 2.0,
    "min_shared": 20,
    "progress": False,
}
MMHCL: dict[str, Any] = {
    "epochs": 40,
    "learning_rate": 5e-3,
    "batch_size": 4096,
    "anchors": 512,
    "patience": 15,
    "progress": False,
}
METHODS = {
    "mmhcl, attributes": ("attributes",),
    "mmhcl, HTCL vectors": ("htcl",),
    "mmhcl, attributes and HTCL vectors": ("attributes", "htcl"),
    "HTCL alone": ("htcl",),
    "HTCL alone, first stage": ("first stage",),
}
METRICS = ("Recall@20", "NDCG@20")


def split_of(seed: int) -> tuple[Split, ItemFeatures]:
    """Whole items for validation and test, and the attributes of all."""
    log = load_dataset("ml-100k", features=True).interactions
    assert log.item_features is not None
    generator = np.random.default_rng(seed)
    part_of_item = np.full(log.num_items, TRAIN, dtype=np.uint8)
    drawn = generator.permutation(log.num_items)
    tenth = log.num_items // 10
    part_of_item[drawn[: 2 * tenth]], part_of_item[drawn[2 * tenth : 3 * tenth]] = TEST, VALID
    part = part_of_item[log.item]
    # A split keeps later parts behind earlier ones; without times the order of the rows is free.
    order = np.lexsort((part, log.user))
    rows = replace(log.take(order), time=None)
    return Split(rows, part[order], "whole items"), table_features(log.item_features, log.item_ids)


def joined(attributes: ItemFeatures, vectors: ItemFeatures, kinds: tuple[str, ...]) -> ItemFeatures:
    """Modalities of the kinds that a method reads."""
    chosen = [source for name, source in (("attributes", attributes), ("htcl", vectors)) if name in kinds]
    tables = {name: table for source in chosen for name, table in source.vectors.items()}
    present = {name: rows for source in chosen for name, rows in source.present.items()}
    return ItemFeatures(attributes.item_ids, tables, present)


def measured(pipeline: Any, split: Split) -> dict[str, Any]:
    """Test metrics among all items, and among the unmet items of the test part."""
    test = pipeline.evaluate("test")
    model, data = pipeline._fitted()
    evaluation = data.evaluation("test")
    histories = pipeline._known(data, "test")
    queries, items, _, targets = pipeline._queries_and_targets(model, histories, evaluation)
    unmet = np.unique(split.interactions.item[split.part == TEST])
    place = np.full(split.interactions.num_items, -1)
    place[unmet] = np.arange(unmet.size)
    ranks = rank_of_targets(queries, items[torch.from_numpy(unmet)], (targets[0], place[targets[1]]), ties="mean")
    return {
        "among all": {name: test.metrics.values[name] for name in METRICS},
        "among unmet": {name: ranking_metrics(ranks, targets[0], ks=(20,)).to_dict()[name] for name in METRICS},
        "validation": pipeline.evaluate("valid").metrics.values["NDCG@20"],
        "best_epoch": pipeline.best_epoch,
    }


def run_seed(seed: int, done: dict[str, Any], wanted: list[str], save: Any) -> None:
    """Every method of one seed that is not there yet."""
    if all(name in done for name in wanted):
        return
    split, attributes = split_of(seed)
    aligner = ItemAligner("htcl", **ALIGNER, seed=seed).fit(split, item_features=attributes)
    vectors = ItemFeatures(
        attributes.item_ids,
        {"htcl": aligner.embed("items").vectors},
        {"htcl": np.ones(len(attributes.item_ids), dtype=np.bool_)},
    )
    for name in (name for name in wanted if name not in done):
        started = time.process_time()
        kinds = METHODS[name]
        pipeline: Any = aligner
        if name == "HTCL alone, first stage":
            settings = {**ALIGNER, "epochs": 20, "semantic_epochs": 20, "seed": seed}
            pipeline = ItemAligner("htcl", **settings).fit(split, item_features=attributes)
        elif name.startswith("mmhcl"):
            pipeline = CollaborativeRecommender("mmhcl", **MMHCL, seed=seed)
            pipeline.fit(split, item_features=joined(attributes, vectors, kinds))
        done[name] = {**measured(pipeline, split), "processor_seconds": round(time.process_time() - started, 1)}
        if pipeline is aligner:
            done[name]["item to text R@10"] = aligner.semantic_recall((10,))[10]
        save()
        print(json.dumps({"seed": seed, "method": name, **done[name]}), flush=True)


def as_markdown(record: dict[str, Any]) -> str:
    """The table that is committed beside the JSON."""
    from scipy.stats import ttest_rel

    lines = [
        "# Items that nobody has met",
        "",
        "MovieLens 100K; a fifth of the items is for test alone, a tenth for validation alone. Mean and deviation over "
        "seeds, each with its own items and weights; the best epoch by validation, on other unmet items. p: paired "
        "t-tests of Recall@20 over the seeds against `mmhcl, attributes`.",
        "",
        "| method | seeds | among all: Recall@20 | p | NDCG@20 | among unmet: Recall@20 | p | NDCG@20 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    runs = record["runs"]
    base = {seed: found["mmhcl, attributes"] for seed, found in runs.items() if "mmhcl, attributes" in found}
    for name in METHODS:
        found = {seed: methods[name] for seed, methods in runs.items() if name in methods}
        if not found:
            continue
        shared = sorted(set(found) & set(base))
        cells = []
        for kind in ("among all", "among unmet"):
            recall, ndcg = ([entry[kind][metric] for entry in found.values()] for metric in METRICS)
            sides = [[side[seed][kind][METRICS[0]] for seed in shared] for side in (found, base)]
            paired = len(shared) > 1 and name != "mmhcl, attributes"
            p = f"{float(ttest_rel(sides[0], sides[1]).pvalue):.2g}" if paired else ""
            cells += [spread(recall), p, spread(ndcg)]
        lines.append(f"| {name} | {len(found)} | " + " | ".join(cells) + " |")
    lines += ["", "HTCL: " + ", ".join(f"{key} {value}" for key, value in record["aligner"].items()) + "."]
    lines += ["", "MMHCL: " + ", ".join(f"{key} {value}" for key, value in record["mmhcl"].items()) + "."]
    return "\n".join(lines) + "\n"


def spread(values: list[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.4f} ± {deviation:.4f}"


def main() -> None:
    """Run the seeds one after the other and write the results after each method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--out", type=Path, default=RESULTS / "cold_items")
    options = parser.parse_args()
    record = read_results(options.out, runs={})
    record |= {"aligner": ALIGNER, "mmhcl": MMHCL, "versions": library_versions(), "threads": torch.get_num_threads()}

    def save() -> None:
        write_results(options.out, record, as_markdown(record))

    for seed in options.seeds:
        run_seed(seed, record["runs"].setdefault(str(seed), {}), options.methods, save)


if __name__ == "__main__":
    main()
