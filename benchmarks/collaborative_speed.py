"""Time and memory of the graph recommenders, every measurement in a process of its own, one after the other.

    python benchmarks/collaborative_speed.py --parts dense recbole synthetic --recbole-python ENV/bin/python

``dense``: an MMHCL epoch on tiktok (user branch), exact and with sampled anchors, beside a plain dense transcription of
its loss (`peers/dense_mmhcl.py`); and building the user-user structure. ``recbole``: a LightGCN epoch and a
full-ranking evaluation on ml-100k beside RecBole 1.2.1, on one split with one batch size. ``synthetic``: an epoch of
LightGCN and of MMHCL's user branch on generated graphs up to 1 M users, 200 k items and 20 M interactions, with the
exponent of growth.
Results are merged into benchmarks/results/collaborative_speed.json and .md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmark_machine import processor
from benchmark_results import read_results, write_results

HERE = Path(__file__).parent
PEERS = HERE / "peers"
RESULTS = HERE / "results"
SIZES = (1_250_000, 2_500_000, 5_000_000, 10_000_000, 20_000_000)


def run(python: str, arguments: list[str]) -> dict[str, Any]:
    """One measurement in its own process; its last line of output is the result."""
    with tempfile.TemporaryDirectory() as folder:  # RecBole leaves logs where it runs
        finished = subprocess.run([python, *arguments], capture_output=True, text=True, check=False, cwd=folder)
    lines = finished.stdout.strip().splitlines()
    if finished.returncode != 0 or not lines or not lines[-1].startswith("{"):
        return {"failed": (finished.stderr.strip().splitlines() or ["no output"])[-1]}
    result: dict[str, Any] = json.loads(lines[-1])
    return result


def worker(name: str, **options: Any) -> dict[str, Any]:
    """A measurement of this file."""
    return run(sys.executable, [str(Path(__file__).resolve()), "--worker", name, json.dumps(options)])


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# Workers


def training_pairs(data: str) -> Any:
    from graphcl.data import load_dataset

    return load_dataset(data).split().train


def dense_epoch(data: str, steps: int) -> dict[str, Any]:
    """Steps of the dense transcription; its loop needs nothing of ours but the sampler's batches."""
    import torch

    sys.path.insert(0, str(PEERS))
    from dense_mmhcl import DenseMMHCL

    train = training_pairs(data)
    sampler = sampler_of(train, batch_size=1024, sampling="user")
    started = time.perf_counter()
    pairs = torch.from_numpy(train.user), torch.from_numpy(train.item)
    model = DenseMMHCL(*pairs, train.num_users, train.num_items)
    built = time.perf_counter() - started
    timed = timed_steps(model, sampler, steps, lambda one: model.loss(one.users, one.positives, one.negatives))
    return {**timed, "build_seconds": built}


def our_steps(data: str, steps: int, anchors: int | None) -> dict[str, Any]:
    """Steps of MMHCL, with its exact loss or sampled anchors, timed as those of the transcription are."""
    from graphcl.graphs import BipartiteGraph
    from graphcl.models import MMHCL, MMHCLConfig

    train = training_pairs(data)
    sampler = sampler_of(train, batch_size=1024, sampling="user")
    started = time.perf_counter()
    model = MMHCL(BipartiteGraph.from_interactions(train), MMHCLConfig(anchors=anchors))
    built = time.perf_counter() - started
    return {**timed_steps(model, sampler, steps, lambda batch: model.objective(batch)[0]), "build_seconds": built}


def timed_steps(model: Any, sampler: Any, steps: int, loss_of: Callable[[Any], Any]) -> dict[str, Any]:
    """The seconds of an epoch from the median of some of its steps, which are equal."""
    import torch

    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    seconds, processor, losses = [], [], []
    for batch in itertools.islice(sampler.batches(0), steps + 1):
        started, busy = time.perf_counter(), time.process_time()
        optimizer.zero_grad()
        loss = loss_of(batch)
        loss.backward()
        optimizer.step()
        seconds.append(time.perf_counter() - started)
        processor.append(time.process_time() - busy)
        losses.append(float(loss.detach()))
    return {
        "steps_timed": len(seconds) - 1,
        "steps": sampler.num_steps,
        "epoch_seconds": statistics.median(seconds[1:]) * sampler.num_steps,
        "epoch_processor_seconds": statistics.median(processor[1:]) * sampler.num_steps,
        "peak_mib": peak_mib(),
        "loss": losses[0],
    }


def fit_timed(recommender: Any, split: Any) -> list[float]:
    """Train without writing results; processor seconds of every epoch but the last, sampling and loop included."""
    marks: list[float] = []
    kind = recommender.model_class
    start = kind.on_epoch_start

    def marked(model: Any, epoch: int, generator: Any) -> None:
        marks.append(time.process_time())
        start(model, epoch, generator)

    kind.on_epoch_start = marked
    recommender._fit(split, recommender._folder(Path.cwd() / "run"), resume=False, overwrite=False)
    return [after - before for before, after in itertools.pairwise(marks)]


def build_structure(data: str) -> dict[str, Any]:
    """The user-user operator of MMHCL from arrays of interactions."""
    from graphcl.graphs import BipartiteGraph
    from graphcl.models.mmhcl import user_operator

    train = training_pairs(data)
    seconds = []
    for _ in range(6):
        started = time.perf_counter()
        user_operator(BipartiteGraph.from_interactions(train))
        seconds.append(time.perf_counter() - started)
    return {"seconds": statistics.median(seconds[1:]), "first_seconds": seconds[0]}


def our_lightgcn(data: str, batch_size: int, layers: int, epochs: int) -> dict[str, Any]:
    """Epochs and full-ranking evaluations of LightGCN through the public pipeline.

    Timed is the evaluation that training calls: six metrics at three cut-offs over the validation part, propagation
    included; `evaluate`, which also ranks every target exactly and splits by popularity, beside it.
    """
    from graphcl.pipelines import CollaborativeRecommender

    split = ratio_split(data)
    recommender = CollaborativeRecommender(
        "lightgcn",
        batch_size=batch_size,
        layers=layers,
        epochs=epochs,
        validate_every=1000,
        regularization=1e-5,
        progress=False,
        accelerator="cpu",
    )
    processor = fit_timed(recommender, split)
    model, validate = recommender._fitted()[0], recommender._validation(split)
    evaluations, busy_evaluations, full = [], [], []
    for _ in range(12):
        started, busy = time.perf_counter(), time.process_time()
        metrics = validate(model)
        evaluations.append(time.perf_counter() - started)
        busy_evaluations.append(time.process_time() - busy)
        started = time.perf_counter()
        recommender.evaluate("valid")
        full.append(time.perf_counter() - started)
    return {
        "system": "graphcl",
        "pairs": int((split.part == 0).sum()),
        "epoch_seconds": [record["seconds"] for record in recommender.training_history],
        "epoch_processor_seconds": processor,
        "evaluation_seconds": evaluations,
        "evaluation_processor_seconds": busy_evaluations,
        "evaluation_with_buckets_seconds": full,
        "metrics": metrics,
        "peak_mib": peak_mib(),
    }


def synthetic_epoch(model: str, interactions: int, steps: int, anchors: int) -> dict[str, Any]:
    """A whole epoch on a generated graph with ``steps`` steps, by the model and Adam alone."""
    import numpy as np
    import torch

    from graphcl.graphs import BipartiteGraph
    from graphcl.models import MMHCL, LightGCN, LightGCNConfig, MMHCLConfig
    from graphcl.pipelines.samplers import PairSampler, TrainingPairs

    users, items = interactions // 20, interactions // 100
    started = time.perf_counter()
    generator = np.random.default_rng(0)
    drawn = int(interactions * 1.06)
    # Activity and popularity follow power laws; repeats are merged, so a few more pairs are drawn.
    user = (users * generator.random(drawn) ** 1.5).astype(np.int64)
    item = (items * generator.random(drawn) ** 2.0).astype(np.int64)
    pairs = TrainingPairs.from_arrays(user, item, num_users=users, num_items=items)
    del user, item
    graph = BipartiteGraph.from_arrays(pairs.users, pairs.items, num_users=users, num_items=items)
    seeded = torch.Generator().manual_seed(0)
    if model == "lightgcn":
        network: Any = LightGCN(graph, LightGCNConfig(layers=2), generator=seeded)
        batch, sampling = math.ceil(pairs.num_pairs / steps), "edge"
    else:
        network = MMHCL(graph, MMHCLConfig(anchors=anchors), generator=seeded)
        batch, sampling = pairs.num_pairs // (steps - 1), "user"
    sampler = PairSampler(pairs, batch, seed=0, sampling=sampling)  # type: ignore[arg-type]
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    built = time.perf_counter() - started
    started, busy = time.perf_counter(), time.process_time()
    network.on_epoch_start(0, torch.Generator().manual_seed(1))
    losses = []
    for step in sampler.batches(0):
        optimizer.zero_grad()
        loss = network.objective(step)[0]
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return {
        "model": model,
        "interactions": pairs.num_pairs,
        "users": users,
        "items": items,
        "steps": len(losses),
        "batch": batch,
        "epoch_seconds": time.perf_counter() - started,
        "epoch_processor_seconds": time.process_time() - busy,
        "build_seconds": built,
        "peak_mib": peak_mib(),
        "first_loss": losses[0],
        "last_loss": losses[-1],
    }


def sampler_of(train: Any, **options: Any) -> Any:
    from graphcl.pipelines.samplers import PairSampler, TrainingPairs

    pairs = TrainingPairs.from_arrays(train.user, train.item, num_users=train.num_users, num_items=train.num_items)
    return PairSampler(pairs, seed=0, **options)


def ratio_split(data: str) -> Any:
    from graphcl.data import load_dataset, split_by_ratio

    return split_by_ratio(load_dataset(data).interactions)


WORKERS = {
    "dense_epoch": dense_epoch,
    "our_steps": our_steps,
    "build_structure": build_structure,
    "our_lightgcn": our_lightgcn,
    "synthetic_epoch": synthetic_epoch,
}


# Parts


def part_dense(options: argparse.Namespace) -> dict[str, Any]:
    few = {"data": "tiktok", "steps": options.dense_steps}
    more = {**few, "steps": 4 * options.dense_steps}
    rows: dict[str, tuple[str, dict[str, Any]]] = {
        "dense transcription": ("dense_epoch", few),
        "graphcl, exact": ("our_steps", {**few, "anchors": None}),
        "graphcl, 1024 anchors": ("our_steps", {**more, "anchors": 1024}),
        "graphcl, 256 anchors": ("our_steps", {**more, "anchors": 256}),
        "user-user structure": ("build_structure", {"data": "tiktok"}),
    }
    found: dict[str, Any] = {"data": "tiktok"}
    # Rows take turns; of several measurements the one with the least processor time counts.
    for _ in range(options.rounds):
        for name, (task, arguments) in rows.items():
            now, key = worker(task, **arguments), "seconds" if task == "build_structure" else "epoch_processor_seconds"
            found[name] = min(found.get(name, now), now, key=lambda one, key=key: one.get(key, math.inf))
    return found


def part_recbole(options: argparse.Namespace) -> dict[str, Any]:
    data, batch, layers = "ml-100k", 2048, 2
    found: dict[str, Any] = {"data": data, "batch": batch, "layers": layers}
    split = ratio_split(data)
    with tempfile.TemporaryDirectory() as folder:
        for name, part in (("train", split.train), ("valid", split.valid), ("test", split.test)):
            rows = "".join(f"{user}\t{item}\n" for user, item in zip(part.user, part.item, strict=True))
            (Path(folder) / f"{name}.tsv").write_text(rows)
        script = str((PEERS / "recbole_lightgcn.py").resolve())
        # The two take turns, so that a slower moment of the machine meets both.
        for _ in range(options.rounds):
            one = worker("our_lightgcn", data=data, batch_size=batch, layers=layers, epochs=6)
            found["graphcl"] = pooled(found.get("graphcl"), one)
            if options.recbole_python:
                python = str(Path(options.recbole_python).absolute())
                one = run(python, [script, folder, str(batch), str(layers), "4"])
                found["RecBole 1.2.1"] = pooled(found.get("RecBole 1.2.1"), one)
    return found


def pooled(before: dict[str, Any] | None, now: dict[str, Any]) -> dict[str, Any]:
    """Timings of several rounds in one list, each without its first, which warms up."""
    if "failed" in now:
        return now
    now = {key: value[1:] if key.endswith("seconds") else value for key, value in now.items()}
    if before is None or "failed" in before:
        return now
    return {key: before[key] + value if key.endswith("seconds") else value for key, value in now.items()}


def part_synthetic(options: argparse.Namespace) -> dict[str, Any]:
    """Sizes that are in the results already, with as many steps, are kept: large ones can be measured apart."""
    before = read_results(options.out).get("synthetic", {})
    runs = {(one["model"], one["asked"]): one for one in before.get("runs", []) if before.get("steps") == options.steps}
    for model in options.models:
        for size in options.sizes:
            if (model, size) in runs:
                continue
            one = worker("synthetic_epoch", model=model, interactions=size, steps=options.steps, anchors=256)
            print(json.dumps(one), flush=True)
            if "failed" not in one:
                runs[model, size] = {**one, "asked": size}
                record("synthetic", of_sizes(runs, options.steps), options.out)  # the next one may run out of memory
    return of_sizes(runs, options.steps)


def of_sizes(runs: dict[tuple[str, int], dict[str, Any]], steps: int) -> dict[str, Any]:
    done = [runs[key] for key in sorted(runs)]
    models = dict.fromkeys(one["model"] for one in done)
    exponents = {model: growth([one for one in done if one["model"] == model]) for model in models}
    return {"runs": done, "exponent": exponents, "steps": steps}


def record(part: str, found: dict[str, Any], out: Path) -> str:
    """Merge a part into the results and write them; returns the tables."""
    parts = read_results(out)
    parts[part] = {**found, "machine": machine(), "date": time.strftime("%Y-%m-%d")}
    text = as_markdown(parts)
    write_results(out, parts, text)
    return text


def growth(runs: list[dict[str, Any]]) -> float:
    """Exponent of the epoch's processor time in the interactions, by least squares of the logarithms."""
    x = [math.log(one["interactions"]) for one in runs]
    y = [math.log(one["epoch_processor_seconds"]) for one in runs]
    return statistics.linear_regression(x, y).slope if len(runs) > 1 else math.nan


def as_markdown(parts: dict[str, Any]) -> str:
    """The tables that are committed beside the JSON."""
    lines = ["# Speed of the graph recommenders", ""]
    if "dense" in parts:
        part = parts["dense"]
        lines += [
            "## MMHCL (user branch) on tiktok, one epoch",
            "",
            machine_line(part),
            "",
            "| | epoch (s) | of processor | peak of the process (MiB) | time of the transcription, processor "
            "| memory of the transcription |",
            "|---|---|---|---|---|---|",
        ]
        base = part["dense transcription"]
        for name, one in part.items():
            if isinstance(one, dict) and "epoch_seconds" in one:
                shares = [one[key] / base[key] for key in ("epoch_processor_seconds", "peak_mib")]
                lines.append(
                    f"| {name} | {one['epoch_seconds']:.1f} | {one['epoch_processor_seconds']:.1f} "
                    f"| {one['peak_mib']:,.0f} "
                    f"| {shares[0]:.3f} | {shares[1]:.2f} |"
                )
        structure = part["user-user structure"]
        lines += [
            "",
            f"Timed are {base['steps_timed']} or more of the {base['steps']} equal steps (the median step times "
            f"{base['steps']}), sampling of the pairs apart. Building the user-user "
            f"structure from arrays: {structure['seconds']:.3f} s (first call {structure['first_seconds']:.3f} s); the "
            f"transcription's matrices: {base['build_seconds']:.1f} s.",
            "",
        ]
    if "recbole" in parts:
        part = parts["recbole"]
        lines += [
            f"## LightGCN on {part['data']}, {part['layers']} layers, d = 64, {part['batch']} pairs a step",
            "",
            machine_line(part),
            "",
            "| | epoch (s) | of processor | full-ranking evaluation (s) | of processor | peak (MiB) |",
            "|---|---|---|---|---|---|",
        ]
        keys = [f"{what}_{kind}" for what in ("epoch", "evaluation") for kind in ("seconds", "processor_seconds")]
        times: dict[str, dict[str, float]] = {}
        for name in ("graphcl", "RecBole 1.2.1"):
            one = part.get(name)
            if one is None or "failed" in one:
                lines.append(f"| {name} | failed: {(one or {}).get('failed', 'not run')} | | | | |")
                continue
            times[name] = {key: min(one[key]) for key in keys}
            cells = " | ".join(f"{value:.3f}" for value in times[name].values())
            lines.append(f"| {name} | {cells} | {one['peak_mib']:,.0f} |")
        if len(times) == 2:
            ratio = {key: times["RecBole 1.2.1"][key] / times["graphcl"][key] for key in keys}
            measured = min(part["graphcl"]["evaluation_with_buckets_seconds"])
            lines += [
                "",
                "The evaluation ranks all items for every user with a validation item, six metrics at three cut-offs. "
                f"The epoch is {ratio['epoch_seconds']:.1f} times as fast by the clock and "
                f"{ratio['epoch_processor_seconds']:.1f} times by processor time, the evaluation "
                f"{ratio['evaluation_seconds']:.1f} and {ratio['evaluation_processor_seconds']:.1f} times (the "
                "fastest over rounds that took turns, beside other work). `evaluate`, with exact ranks of all targets "
                f"and buckets by popularity, takes {measured:.3f} s.",
            ]
        lines.append("")
    if "synthetic" in parts:
        part = parts["synthetic"]
        lines += [
            f"## One epoch of {part['steps']} steps on generated graphs",
            "",
            machine_line(part),
            "",
            "An epoch sees every interaction once (LightGCN), or as many draws of a user and one of its items (MMHCL's "
            "user branch, 256 anchors a step); each step propagates over the whole graph.",
            "",
            "| model | users | items | interactions | pairs a step | epoch (s) | of processor | peak (MiB) |",
            "|---|---|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {one['model']} | {one['users']:,} | {one['items']:,} | {one['interactions']:,} | {one['batch']:,} "
            f"| {one['epoch_seconds']:.1f} | {one['epoch_processor_seconds']:.1f} | {one['peak_mib']:,.0f} |"
            for one in part["runs"]
        ]
        exponents = ", ".join(f"{model} {value:.2f}" for model, value in sorted(part["exponent"].items()))
        lines += ["", f"Exponent of processor time in interactions (least squares of logarithms): {exponents}.", ""]
    return "\n".join(lines)


def machine_line(part: dict[str, Any]) -> str:
    about = part["machine"]
    return (
        f"{about['cpu']}, {about['cores']} cores, {about['threads']} threads, torch {about['torch']}, {part['date']}."
    )


def machine() -> dict[str, Any]:
    """What the numbers were taken on."""
    import torch

    return {"cpu": processor(), "cores": os.cpu_count(), "threads": torch.get_num_threads(), "torch": torch.__version__}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=["dense", "recbole", "synthetic"])
    parser.add_argument("--recbole-python", help="interpreter of RecBole's environment")
    parser.add_argument("--rounds", type=int, default=2, help="times that the contestants take turns")
    parser.add_argument("--dense-steps", type=int, default=4, help="timed steps of the dense transcription")
    parser.add_argument("--steps", type=int, default=4, help="steps of an epoch on generated graphs")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="interactions of the generated graphs")
    parser.add_argument("--models", nargs="+", default=["lightgcn", "mmhcl"], help="models on generated graphs")
    parser.add_argument("--out", type=Path, default=RESULTS / "collaborative_speed")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(WORKERS[options.worker[0]](**json.loads(options.worker[1]))))
        return
    parts = {"dense": part_dense, "recbole": part_recbole, "synthetic": part_synthetic}
    text = ""
    for name in options.parts:
        text = record(name, parts[name](options), options.out)
    print(text)


if __name__ == "__main__":
    main()
