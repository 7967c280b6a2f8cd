"""Time and memory of a training epoch of every contrastive sequential method, beside SASRec and prefix-row mode.

    GRAPHCL_DATA=FOLDER python benchmarks/sequential_methods.py --steps 40 --contestants sasrec cl4srec mclrec ...

Each contestant runs in a process of its own, one after the other, with one thread; seconds are those of the processor.
An epoch is extrapolated from the steps after the first few, by targets: what share of an epoch they are is in the
results. Preparing (retrieval, vectors) is told apart. HR@20 and NDCG@20 are those that sequential_accuracy.py has
measured: of the same settings, or else of the configuration of the model that is best on validation, which is then
named; --table writes the table anew from both. A contestant is a model's name, with settings after commas, e.g.
``mclrec,rows=prefix,batch_size=256``; ``padded=true`` takes packing away. Results are merged by the processor's widest
vector unit (which decides the matrix library) and contestant into benchmarks/results/sequential_methods.json and .md.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from benchmark_machine import processor
from benchmark_results import read_results, write_results
from torch import Tensor, nn

RESULTS = Path(__file__).parent / "results" / "sequential_methods"
ACCURACY = RESULTS.with_name("sequential_accuracy")
# Contestants with these settings are there for their speed.
FOR_SPEED = ("rows", "padded", "batch_size")
WARM_UP = 3
CONTESTANTS = [
    "sasrec",
    "gru4rec",
    "cl4srec",
    "duorec",
    "mclrec",
    "mclrec,schedule=joint",
    "sracl,max_length=50",
    "mclrec,rows=prefix,batch_size=256",
    "mclrec,rows=prefix,batch_size=256,padded=true",
]


class PaddedOnly(nn.Module):
    """An encoder stripped to rows padded to the longest of the batch, as the published code runs it."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.inside: Any = encoder

    def forward(self, item_seq: Tensor, lengths: Tensor) -> Tensor:
        """[B, L] ids and [B] lengths to [B, d]."""
        encoded: Tensor = self.inside(item_seq, lengths)
        return encoded

    def item_embeddings(self) -> Tensor:
        """[V, d]."""
        table: Tensor = self.inside.item_embeddings()
        return table


def measure(contestant: str, data: str, steps: int) -> dict[str, Any]:
    """Take some steps of the first epoch as training does."""
    from graphcl.data import load_dataset
    from graphcl.pipelines import SequentialRecommender
    from graphcl.pipelines.freed_memory import keep_freed_memory

    torch.set_num_threads(1)
    keep_freed_memory()  # as training does
    name, settings = settings_of(contestant)
    padded = settings.pop("padded", False)
    recommender = SequentialRecommender(name, progress=False, **settings)
    split = load_dataset(data, features=recommender.takes_item_features).split()
    started = time.process_time()
    accepted = recommender._accept(split)
    torch.manual_seed(0)
    model = recommender._build_model(accepted, torch.Generator().manual_seed(0)).train()
    if padded:
        model.encoder = PaddedOnly(model.encoder)
    source, _, plan = recommender._training(model, accepted)
    prepared = time.process_time() - started
    groups = model.parameter_groups() if hasattr(model, "parameter_groups") else {"all": list(model.parameters())}
    optimizers = {key: torch.optim.Adam(group, lr=plan.learning_rate, fused=True) for key, group in groups.items()}
    counted, started = 0.0, time.process_time()
    for number, batch in enumerate(source.batches(0, 0, 1)):
        if number == steps + WARM_UP:
            break
        if number == WARM_UP:
            counted, started = 0.0, time.process_time()
        whole = [("all", partial(model.objective, batch))]
        for group, objective in model.training_steps(batch) if hasattr(model, "training_steps") else whole:
            for key, parameters in groups.items():
                for parameter in parameters:
                    parameter.requires_grad_(key == group)
            loss, _ = objective()
            optimizers[group].zero_grad()
            loss.backward()
            optimizers[group].step()
        counted += batch.total
    seconds = time.process_time() - started
    return {
        "contestant": contestant,
        "data": data,
        "epoch_seconds": round(seconds / counted * source.num_targets, 2),
        "share_of_epoch": round(counted / source.num_targets, 4),
        "prepare_seconds": round(prepared, 1),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "batch_size": recommender.settings.batch_size,
        "cpu": processor(),
        "torch": torch.__version__,
    }


def settings_of(contestant: str) -> tuple[str, dict[str, Any]]:
    """Model and settings of a contestant."""
    name, *pairs = contestant.split(",")
    return name, {key: yaml.safe_load(value) for key, _, value in (pair.partition("=") for pair in pairs)}


def accuracy_of(contestant: str, data: str, records: dict[str, dict[str, Any]]) -> str:
    """Two cells, HR@20 and NDCG@20 over the seeds, with the configuration where it is another one."""
    name, settings = settings_of(contestant)
    measured = [r for r in records.values() if (r["data"], r["model"]) == (data, name) and r["runs"]]
    if not measured or any(key in FOR_SPEED for key in settings):
        return "not measured | not measured"
    exact = [r for r in measured if {k: v for k, v in r["settings"].items() if k not in ("epochs", "seed")} == settings]
    best = max(exact or measured, key=lambda r: float(r["validation"]["NDCG@20"]["mean"]))
    several = len(best["runs"]) > 1
    cells = [
        f"{best['test'][metric]['mean']:.4f}" + several * f" ± {best['test'][metric]['deviation']:.4f}"
        for metric in ("HR@20", "NDCG@20")
    ]
    told = f"{len(best['runs'])} seeds" if several else "1 seed"
    if not exact:
        told = f"{best['configuration']}; {told}"
    return f"{cells[0]} ({told}) | {cells[1]}"


def as_markdown(units: dict[str, dict[str, dict[str, Any]]], records: dict[str, dict[str, Any]]) -> str:
    """The tables that are committed beside the JSON, one for each vector unit."""
    lines = [
        "# Training epoch of the sequential methods, Amazon Beauty",
        "",
        "One thread, processor seconds, each contestant in its own process; extrapolated from the stated share of an",
        "epoch. The machine may run other work, so ratios are what counts. Accuracy on the test items is that of",
        "`sequential_accuracy.md`, where it has been measured.",
    ]
    for unit, rows in units.items():
        lines += ["", f"## Processor with {unit}", "", *table_of(rows, records)]
    return "\n".join(lines) + "\n"


def table_of(rows: dict[str, dict[str, Any]], records: dict[str, dict[str, Any]]) -> list[str]:
    """The lines of one table."""
    base = rows.get("sasrec", {}).get("epoch_seconds")
    lines = [
        "| contestant | epoch (s) | x SASRec | share measured | prepare (s) | peak memory (MiB) | HR@20 | NDCG@20 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        ratio = f"{row['epoch_seconds'] / base:.1f}" if base else ""
        lines.append(
            f"| {name} | {row['epoch_seconds']:.1f} | {ratio} | {row['share_of_epoch']:.1%} "
            f"| {row['prepare_seconds']:.1f} | {row['peak_mib']:,} | {accuracy_of(name, row['data'], records)} |"
        )
    return lines


def main() -> None:
    """Run the contestants and merge their rows into the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="amazon-beauty")
    parser.add_argument("--steps", type=int, default=40, help="steps that count, after the first few")
    parser.add_argument("--contestants", nargs="+", default=CONTESTANTS)
    parser.add_argument("--one", help="measure this contestant in this process and print its row")
    parser.add_argument("--table", action="store_true", help="write the table from earlier results and measure nothing")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.data, options.steps)))
        return
    units: dict[str, dict[str, dict[str, Any]]] = read_results(RESULTS, units={})["units"]
    records = read_results(ACCURACY, records={})["records"]
    if options.table:
        write_results(RESULTS, {"units": units}, as_markdown(units, records))
        return
    rows = units.setdefault(torch.backends.cpu.get_cpu_capability(), {})
    for contestant in options.contestants:
        command = [sys.executable, __file__, "--one", contestant, "--data", options.data, "--steps", str(options.steps)]
        finished = subprocess.run(command, capture_output=True, text=True, check=True)
        rows[contestant] = json.loads(finished.stdout.strip().splitlines()[-1])
        print(rows[contestant], flush=True)
        write_results(RESULTS, {"units": units}, as_markdown(units, records))


if __name__ == "__main__":
    main()
