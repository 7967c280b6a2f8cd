"""One SASRec epoch, ours beside RecBole's and RecTools': same machine, same data, same supervision, one run.

Every system runs in a process of its own and in an environment of its own (RecBole 1.2.1 needs numpy<2, pandas<3 and
setuptools<81), one after the other, never side by side. Time is the training of one epoch without evaluation, as each
system's own loop does it; memory is the peak resident set of the process.

    python benchmarks/sequential_training.py --data amazon-beauty \
        --recbole-python ENV/bin/python --rectools-python ENV/bin/python

Results go to benchmarks/results/sequential_training.json and .md. A peer that fails is listed with its last line.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmark_machine import processor

PEERS = Path(__file__).parent / "peers"
RESULTS = Path(__file__).parent / "results"


def measure(python: str, script: str, *arguments: str) -> dict[str, Any]:
    """Run one system in its own process; its last line of output is the result."""
    command = [str(Path(python).absolute()), str((PEERS / script).resolve()), *arguments]
    with tempfile.TemporaryDirectory() as folder:  # RecBole leaves logs where it runs
        finished = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    lines = finished.stdout.strip().splitlines()
    if finished.returncode != 0 or not lines or not lines[-1].startswith("{"):
        reason = (finished.stderr.strip().splitlines() or ["no output"])[-1]
        return {"system": script, "batch": " ".join(arguments[1:]), "failed": reason}
    result: dict[str, Any] = json.loads(lines[-1])
    # The first epoch pays for warm-up (allocator, thread pools, library plans); it counts only when it is the only one.
    counted = result["epoch_seconds"][1:] or result["epoch_seconds"]
    result["median_epoch_seconds"] = statistics.median(counted)
    result["targets_per_second"] = result["targets"] / result["median_epoch_seconds"]
    return result


def machine() -> dict[str, Any]:
    """What the numbers were taken on."""
    return {
        "cpu": processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": platform.system(),
    }


def as_markdown(results: list[dict[str, Any]], about: dict[str, Any]) -> str:
    """Render the table that is committed beside the JSON."""
    ours = next(result for result in results if result["system"] == "graphcl")
    lines = [
        f"# SASRec training epoch on {about['data']}",
        "",
        f"{about['cpu']}, {about['cores']} cores, Python {about['python']}, one run, one process a system.",
        "Full-softmax cross-entropy, d = 64, two layers, two heads, window 50, dropout as each system's default.",
        "",
        "| system | batch | targets an epoch | epoch (s) | targets / s | peak memory (MiB) | ours is faster by |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        if "failed" in result:
            lines.append(f"| {result['system']} | {result['batch']} | failed: {result['failed']} | | | | |")
            continue
        ratio = result["median_epoch_seconds"] / ours["median_epoch_seconds"] if "failed" not in ours else float("nan")
        lines.append(
            f"| {result['system']} | {result['batch']} | {result['targets']:,} | {result['median_epoch_seconds']:.2f} "
            f"| {result['targets_per_second']:,.0f} | {result['peak_mib']:,.0f} | {ratio:.1f} x |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="amazon-beauty", help="data set whose file is in the sequences format")
    parser.add_argument("--recbole-python", help="interpreter of RecBole's environment")
    parser.add_argument("--rectools-python", help="interpreter of RecTools' environment")
    parser.add_argument("--epochs", type=int, default=4, help="epochs of ours; the first is warm-up")
    parser.add_argument("--peer-epochs", type=int, default=2, help="epochs of each peer; the first is warm-up")
    parser.add_argument(
        "--recbole-batches", nargs="+", default=["2048", "256"], help="rows a step: RecBole's default, and the papers'"
    )
    options = parser.parse_args()

    from graphcl.data import dataset_info, find_dataset_file

    recipe = dataset_info(options.data)
    file = recipe.file("interactions")
    found = find_dataset_file(recipe, file) if file is not None and recipe.format == "sequences" else None
    if found is None:
        parser.error(f"{options.data} has no file of sequences here; set GRAPHCL_DATA to the folder that holds it")
    sequences = str(found.resolve())
    results = [measure(sys.executable, "graphcl_sasrec.py", sequences, str(options.epochs))]
    if options.rectools_python:
        results.append(
            measure(options.rectools_python, "rectools_sasrec.py", sequences, "128", str(options.peer_epochs))
        )
    if options.recbole_python:
        results.extend(
            measure(options.recbole_python, "recbole_sasrec.py", sequences, batch, str(options.peer_epochs))
            for batch in options.recbole_batches
        )
    about = {"data": options.data, **machine()}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "sequential_training.json").write_text(
        json.dumps({"machine": about, "results": results}, indent=2) + "\n"
    )
    table = as_markdown(results, about)
    (RESULTS / "sequential_training.md").write_text(table)
    print(table)


if __name__ == "__main__":
    main()
