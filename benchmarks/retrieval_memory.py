"""Memory of one training step of a dual encoder with all of 100,000 labels in the denominator.

    OMP_NUM_THREADS=1 python benchmarks/retrieval_memory.py [--labels 100000] [--batches 512 2048]

Queries are bags of 20 of 50,000 words, with 5 labels each; labels have a vector of their own (``ids``) or are encoded
from 8 words each (``features``); width 128. Every case runs in a process of its own: a step of a small model loads the
libraries, then the model, its optimiser and the batch are made, and what is measured is the peak resident size of a
step (loss, gradients, and Adam with its state) beyond what the process held before it. Beside it stands the size of one
matrix of logits, which a dense loss holds several times over. Rows are merged into
benchmarks/results/retrieval_memory.json and .md.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from benchmark_machine import processor
from benchmark_memory import growth_mib, reset_peak
from benchmark_results import put_run, read_results, write_results

from graphcl.models import Bags, DualEncoder, DualEncoderConfig, FeatureSpace, RetrievalBatch
from graphcl.pipelines.runs import library_versions

RESULTS = Path(__file__).parent / "results" / "retrieval_memory"
OBJECTIVES = ("softmax", "decoupled", "soft_top_k")
WORDS, QUERY_WORDS, LABEL_WORDS, POSITIVES, DIM = 50_000, 20, 8, 5, 128
MIB = 2**20


def step(objective: str, source: str, batch: int, num_labels: int, words: int) -> tuple[float | None, float, float]:
    """Peak MiB beyond what was held, seconds of the process, and the loss."""
    generator = torch.Generator().manual_seed(0)

    def bags(rows: int, size: int) -> Bags:
        columns = torch.randint(words, (rows * size,), generator=generator)
        return Bags(torch.arange(rows + 1) * size, columns, torch.full((rows * size,), size**-0.5))

    space = FeatureSpace(words, True)
    config = DualEncoderConfig.model_validate({"dim": DIM, "objective": objective, "labels": source})
    features: dict[str, Any] = {"label_features": bags(num_labels, LABEL_WORDS), "label_space": space}
    model = DualEncoder(space, num_labels, config, generator=generator, **(features if source == "features" else {}))
    optimizer = torch.optim.Adam(model.parameters())
    # Labels in arithmetic progression, so that none comes twice in a query.
    first = torch.randint(num_labels, (batch, 1), generator=generator)
    columns = (first + torch.arange(POSITIVES) * (num_labels // (2 * POSITIVES))) % num_labels
    data = RetrievalBatch(bags(batch, QUERY_WORDS), torch.arange(batch + 1) * POSITIVES, columns.ravel(), batch)
    held, started = reset_peak(trim=False), time.process_time()
    loss, _ = model.objective(data)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    seconds = time.process_time() - started
    return growth_mib(held), seconds, float(loss.detach())


def _measure(pipe: Connection, objective: str, source: str, batch: int, num_labels: int) -> None:
    torch.set_num_threads(1)
    step(objective, source, 8, 100, 100)
    pipe.send(step(objective, source, batch, num_labels, WORDS))


def measure(objective: str, source: str, batch: int, num_labels: int) -> dict[str, Any]:
    """One case in a process of its own."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(send, objective, source, batch, num_labels))
    process.start()
    send.close()
    extra, seconds, loss = receive.recv()
    process.join()
    return {
        "objective": objective,
        "labels_from": source,
        "batch": batch,
        "labels": num_labels,
        "extra_mib": extra,
        "logits_mib": 4 * batch * num_labels / MIB,
        "seconds": seconds,
        "loss": loss,
    }


def as_markdown(record: dict[str, Any]) -> str:
    """The committed table."""
    about = record["about"]
    lines = [
        "# Memory of a training step of a dual encoder",
        "",
        f"{about['cpu']}, 1 thread, torch {about['versions']['torch']}. See benchmarks/retrieval_memory.py. Extra "
        "memory is the peak of loss, gradients and Adam with its state; the seconds are those of the process.",
        "",
        "| objective | labels from | labels | queries | extra MiB | one matrix of logits, MiB | s |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['objective']} | {row['labels_from']} | {row['labels']:,} | {row['batch']:,} | "
        f"{row['extra_mib']:.0f} | {row['logits_mib']:.0f} | {row['seconds']:.1f} |"
        for row in record["rows"]
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure what was asked for and write the results after each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=int, default=100_000)
    parser.add_argument("--batches", type=int, nargs="*", default=[512, 2048])
    parser.add_argument("--objectives", nargs="*", default=list(OBJECTIVES), choices=OBJECTIVES)
    parser.add_argument("--sources", nargs="*", default=["ids", "features"], choices=["ids", "features"])
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    record = read_results(options.out, rows=[])
    record["about"] = {"cpu": processor(), "cores": os.cpu_count(), "versions": library_versions()}
    for batch in options.batches:
        for source in options.sources:
            for objective in options.objectives:
                row = measure(objective, source, batch, options.labels)
                put_run(record["rows"], row, "labels", "batch", "labels_from", "objective")
                print(json.dumps(row), flush=True)
                write_results(options.out, record, as_markdown(record))


if __name__ == "__main__":
    main()
