"""Completion of bundles over seeds: CLHE beside item-kNN, pooled vectors and popularity, with and without holes.

    python benchmarks/bundle_accuracy.py --seeds 0 1 2 3 4

The bundles are sessions of MovieLens 100K (data set ml-100k-bundles, docs/bundle.md). A seed draws who makes bundles,
which bundles are for validation and test, what of them is shown, the initial weights, and the holes. Baselines are
chosen by validation Recall@20 within their family; a baseline and CLHE are compared by a paired t-test over the seeds.
The settings of CLHE were chosen on the validation bundles of seed 0. Results of several calls are merged by seed and
method into benchmarks/results/bundle_accuracy.json and .md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from benchmark_results import read_results, write_results

from graphcl.data import Bundles, load_bundles
from graphcl.metrics import per_query_metrics
from graphcl.pipelines import BundleConstructor
from graphcl.pipelines.bundle_baselines import POOLED, by_neighbours, by_pooling, item_neighbours, pooled_items
from graphcl.pipelines.bundle_data import feedback_log, feedback_vectors
from graphcl.pipelines.runs import library_versions

RESULTS = Path(__file__).parent / "results"
METRICS = ("Recall@20", "NDCG@20")
KS = (5, 10, 20, 40, 80)
HOLES = 0.3
TUNED: dict[str, Any] = {
    "construct_from": "view",
    "bundle_weight": 0.1,
    "bundle_temperature": 0.5,
    "batch_size": 128,
    "weight_average": 0.98,
    "max_feature_width": 64,
    "epochs": 40,
    "patience": 8,
    "progress": False,
    "baselines": False,
}
# What the published loss, and each of the two defects of the published code, change.
VARIANTS: dict[str, dict[str, Any]] = {
    "clhe": {},
    "clhe, frozen bundle attention": {"frozen_bundle_attention": True},
    "clhe, padding bug": {"reference_padding_bug": True},
    "clhe, both defects": {"frozen_bundle_attention": True, "reference_padding_bug": True},
    "clhe, whole bundles encoded": {"construct_from": "bundle"},
}
IN_HOLES = ("clhe",)


def bundles_of(seed: int, holes: float) -> Bundles:
    """The bundles of a seed with feedback vectors, after the holes were made."""
    bundles = load_bundles("ml-100k-bundles", seed=seed)
    if holes:
        bundles = bundles.without_features(holes, seed=seed)
    log = feedback_log(bundles, with_bundles=True)
    vectors = feedback_vectors(log, width=64, epochs=40, seed=seed, progress=False)
    return replace(bundles, vectors=vectors)


def chosen(entries: dict[str, Callable[[str], Any]]) -> dict[str, Any]:
    """The member of a family that is best on validation, with its test metrics."""
    valid = {name: measure("valid")["Recall@20"] for name, measure in entries.items()}
    best = max(valid, key=lambda name: valid[name])
    return {"chosen": best, "validation": valid[best], "test": dict(entries[best]("test"))}


def baselines(bundles: Bundles) -> dict[str, dict[str, Any]]:
    """Each family of methods without training."""

    def neighbours(feedback: bool, count: int | None) -> Callable[[str], Any]:
        similar = item_neighbours(bundles, feedback=feedback, neighbours=count)
        return lambda part: by_neighbours(bundles, bundles.partial(part), similar, KS)  # type: ignore[arg-type]

    def pooling(kinds: tuple[str, ...]) -> Callable[[str], Any]:
        vectors = pooled_items(bundles, kinds)
        assert vectors is not None
        return lambda part: by_pooling(vectors, bundles.partial(part), KS)  # type: ignore[arg-type]

    kept = (None, 50, 200)
    knn = {
        f"{'bundles and feedback' if fed else 'bundles'}, {count or 'all'} neighbours": neighbours(fed, count)
        for fed in (False, True)
        for count in kept
    }
    pooled = {name: pooling(kinds) for name, kinds in POOLED.items()}
    popular = {"training bundles": lambda part: by_neighbours(bundles, bundles.partial(part), None, KS)}
    return {"item-kNN": chosen(knn), "mean pooling": chosen(pooled), "popularity": chosen(popular)}


def trained(bundles: Bundles, seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    """One run of CLHE."""
    started = time.process_time()
    constructor = BundleConstructor("clhe", **{**TUNED, **settings, "seed": seed}).fit(bundles)
    test, valid = constructor.evaluate("test"), constructor.evaluate("valid")
    rows = per_query_metrics(test.ranks, test.targets[0], ks=(20,))["Recall@20"]
    return {
        "validation": valid.metrics.values["Recall@20"],
        "test": test.metrics.to_dict(),
        "deviation over bundles": float(rows.std()),
        "best_epoch": constructor.best_epoch,
        "processor_seconds": round(time.process_time() - started, 1),
        "cold": [bucket.to_dict() for bucket in test.buckets[:2]],
    }


def compared(runs: dict[str, Any], condition: str) -> list[str]:
    """Table rows of one condition, with a paired test of CLHE against every other method."""
    from scipy.stats import ttest_rel

    methods: dict[str, dict[str, Any]] = {}
    for seed, conditions in sorted(runs.items(), key=lambda entry: int(entry[0])):
        for name, found in conditions.get(condition, {}).items():
            methods.setdefault(name, {})[seed] = found
    lines = ["| method | seeds | Recall@20 | NDCG@20 | Recall@80 | CLHE minus it, Recall@20 | p | NDCG@20 | p |"]
    lines.append("|" + "---|" * 9)
    ours = methods.get("clhe", {})
    for name, found in methods.items():
        shared = sorted(set(found) & set(ours))
        cells = []
        for metric in ("Recall@20", "NDCG@20", "Recall@80"):
            values = [entry["test"][metric] for entry in found.values()]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{statistics.mean(values):.4f} ± {spread:.4f}")
        for metric in METRICS:
            if name == "clhe" or len(shared) < 2:
                cells += ["", ""]
                continue
            one, other = ([side[seed]["test"][metric] for seed in shared] for side in (ours, found))
            difference = statistics.mean(a - b for a, b in zip(one, other, strict=True))
            cells += [f"{difference:+.4f}", f"{float(ttest_rel(one, other).pvalue):.2g}"]
        lines.append(f"| {name} | {len(found)} | " + " | ".join(cells) + " |")
    # A family names the member that was chosen.
    picks = {
        name: sorted({entry["chosen"] for entry in found.values()})
        for name, found in methods.items()
        if "chosen" in next(iter(found.values()))
    }
    lines += [
        "",
        "Chosen by validation: " + "; ".join(f"{name}: {' / '.join(found)}" for name, found in picks.items()) + ".",
    ]
    return lines


def as_markdown(record: dict[str, Any]) -> str:
    """The tables that are committed beside the JSON."""
    lines = [
        "# Completion of bundles",
        "",
        "Sessions of MovieLens 100K as bundles (ml-100k-bundles): 80 % of the users make bundles of the films that "
        "they rated 4 or 5 in one session, the other users are the feedback. 70 / 10 / 20 % of the bundles for "
        "training, validation and test; half of the items shown; the whole catalogue of 1,682 items ranked without the "
        "shown ones. Mean and deviation over seeds, each with its own users, split and weights; paired t-tests over "
        "the seeds. Feedback vectors are those of a LightGCN on the users' interactions and the training bundles "
        "(`feedback=lightgcn_with_bundles`); mean pooling is given the same ones. The best epoch and the member of "
        "each baseline family are chosen by validation Recall@20.",
        "",
        "CLHE: " + ", ".join(f"{name} {value}" for name, value in record["settings"].items()) + ".",
    ]
    titles = {"complete": "All modalities", "holes": f"{HOLES:.0%} of the items lose each modality, and their feedback"}
    for condition, title in titles.items():
        lines += ["", f"## {title}", "", *compared(record["runs"], condition)]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the seeds one after the other and write the results after each method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--conditions", nargs="+", default=["complete", "holes"], choices=["complete", "holes"])
    parser.add_argument("--methods", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--out", type=Path, default=RESULTS / "bundle_accuracy")
    options = parser.parse_args()
    record = read_results(options.out, runs={})
    record |= {"settings": TUNED, "versions": library_versions(), "threads": torch.get_num_threads()}

    def save() -> None:
        write_results(options.out, record, as_markdown(record))

    for seed in options.seeds:
        for condition in options.conditions:
            done = record["runs"].setdefault(str(seed), {}).setdefault(condition, {})
            wanted = [name for name in options.methods if condition == "complete" or name in IN_HOLES]
            if all(name in done for name in wanted):
                continue
            bundles = bundles_of(seed, HOLES if condition == "holes" else 0.0)
            done |= baselines(bundles)
            for name in wanted:
                if name not in done:
                    done[name] = trained(bundles, seed, VARIANTS[name])
                    save()
                    shown = {metric: round(done[name]["test"][metric], 4) for metric in METRICS}
                    print(json.dumps({"seed": seed, "condition": condition, "method": name, **shown}), flush=True)


if __name__ == "__main__":
    main()
