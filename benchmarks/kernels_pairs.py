"""Pairs and cross-entropy: time and peak extra memory of the blocked kernels beside their dense forms.

    python benchmarks/kernels_pairs.py              every case, with fitted growth exponents
    python benchmarks/kernels_pairs.py --quick      small cases only, nothing written unless --out is given

Time is the wall time of forward and backward together, the median of several repetitions after one warm-up, with the
dense and the blocked form taking turns in one process. Memory is the peak resident size (VmHWM) of a process of its own
that runs the case once, minus its peak after the inputs were made and a small call had loaded every library. Both forms
are warmed by the same small call, so what a fresh process pays for its first products counts in neither.

A form that fails, most often the dense one for want of memory, is listed with the reason. Rows are written to
benchmarks/results/kernels_pairs.json.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from benchmark_machine import processor
from benchmark_memory import limit_memory, memory_bytes
from torch import Tensor
from torch.nn import functional

from graphcl.kernels import linear_cross_entropy, pair_logsumexp

WIDTH = 64
RESULTS = Path(__file__).parent / "results"
Step = Callable[[], None]


def _unit_rows(count: int, seed: int) -> Tensor:
    rows = torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed))
    return functional.normalize(rows).requires_grad_()


def pair_step(form: str, n: int) -> Step:
    """Forward and backward of the row log-sum-exp of an n x n matrix of dots."""
    z1, z2 = _unit_rows(n, 0), _unit_rows(n, 1)

    def step() -> None:
        z1.grad = z2.grad = None
        total = torch.logsumexp(z1 @ z2.T, 1) if form == "dense" else pair_logsumexp(z1, z2).logsumexp
        total.mean().backward()  # type: ignore[no-untyped-call]

    return step


def cross_entropy_step(form: str, tokens: int, items: int) -> Step:
    """Forward and backward of the mean cross-entropy of tokens against a catalogue."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, WIDTH, generator=generator).requires_grad_()
    weight = (0.1 * torch.randn(items, WIDTH, generator=generator)).requires_grad_()
    target = torch.randint(items, (tokens,), generator=generator)

    def step() -> None:
        hidden.grad = weight.grad = None
        if form == "dense":
            loss = functional.cross_entropy(hidden @ weight.T, target)
        else:
            loss = linear_cross_entropy(hidden, weight, target)
        loss.backward()  # type: ignore[no-untyped-call]

    return step


def make_step(case: str, form: str, sizes: list[int]) -> Step:
    return pair_step(form, *sizes) if case == "pairs" else cross_entropy_step(form, *sizes)


def seconds(steps: dict[str, Step], repeats: int) -> dict[str, list[float] | str]:
    """Wall times by form, or how that form failed; the forms take turns so that a busy moment hits both."""
    times: dict[str, list[float]] = {form: [] for form in steps}
    failures: dict[str, str] = {}
    for repeat in range(repeats + 1):
        for form, step in steps.items():
            if form in failures:
                continue
            start = time.perf_counter()
            try:
                step()
            except (RuntimeError, MemoryError) as problem:
                failures[form] = f"failed ({_first_line(problem)})"
                continue
            if repeat > 0:
                times[form].append(time.perf_counter() - start)
    return {form: failures.get(form, times[form]) for form in steps}


def _first_line(problem: Exception) -> str:
    lines = str(problem).splitlines()
    return lines[0][:120] if lines else type(problem).__name__


def _memory_child(case: str, form: str, sizes: list[int]) -> None:
    limit_memory()
    for other in ("dense", "graphcl"):
        make_step(case, other, [300] * len(sizes))()
    step = make_step(case, form, sizes)
    before = memory_bytes("VmHWM")
    step()
    print(json.dumps(memory_bytes("VmHWM") - before))


def extra_bytes(case: str, form: str, sizes: list[int]) -> int | str:
    """Peak extra memory of one step in a fresh process, or how that process failed."""
    command = [sys.executable, str(Path(__file__)), "--memory-child", case, form, *map(str, sizes)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()
        return (
            f"failed ({'killed, out of memory' if done.returncode < 0 else last[-1][:120] if last else 'no message'})"
        )
    return int(json.loads(done.stdout))


def _rows(case: str, sizes: list[int], forms: tuple[str, ...], repeats: int) -> list[dict[str, Any]]:
    """One row a form; memory comes first, because a form that fails alone in a process cannot be timed either."""
    memory = {form: extra_bytes(case, form, sizes) for form in forms}
    times = seconds(
        {form: make_step(case, form, sizes) for form in forms if not isinstance(memory[form], str)}, repeats
    )
    rows = []
    for form in forms:
        row: dict[str, Any] = {"case": case, "sizes": sizes, "form": form, "extra_bytes": memory[form]}
        taken = times.get(form, memory[form])
        if isinstance(taken, list):
            row |= {"seconds": statistics.median(taken), "seconds_min": min(taken)}
        else:
            row["failed"] = taken
        rows.append(row)
    return rows


def run_pairs(
    sizes: tuple[int, ...] = (4096, 8192, 16384, 32768, 65536), dense_up_to: int = 16384, repeats: int = 5
) -> list[dict[str, Any]]:
    """Rows for the pair log-sum-exp; the dense form only while its matrices fit comfortably."""
    rows: list[dict[str, Any]] = []
    for n in sizes:
        forms = ("dense", "graphcl") if n <= dense_up_to else ("graphcl",)
        rows += _rows("pairs", [n], forms, repeats if n <= 16384 else 1)
    return rows


def run_cross_entropy(
    sizes: tuple[tuple[int, int], ...] = ((8192, 50_000), (16_384, 50_000)), repeats: int = 3
) -> list[dict[str, Any]]:
    """Rows for the cross-entropy over a catalogue."""
    rows: list[dict[str, Any]] = []
    for tokens, items in sizes:
        rows += _rows("cross-entropy", [tokens, items], ("dense", "graphcl"), repeats)
    return rows


def exponent(rows: list[dict[str, Any]], quantity: str) -> float:
    """Slope of log quantity over log n for our rows: 2 is quadratic, 1 linear; NaN below two measured sizes."""
    points = [
        (math.log(row["sizes"][0]), math.log(row[quantity]))
        for row in rows
        if row["form"] == "graphcl" and isinstance(row.get(quantity), int | float) and row[quantity] > 0
    ]
    if len(points) < 2:
        return math.nan
    x_mean = statistics.fmean(x for x, _ in points)
    y_mean = statistics.fmean(y for _, y in points)
    return sum((x - x_mean) * (y - y_mean) for x, y in points) / sum((x - x_mean) ** 2 for x, _ in points)


def add_ratios(rows: list[dict[str, Any]]) -> None:
    """Write into our rows what share of the dense form's time and memory they took, where that form ran."""
    dense = {(row["case"], tuple(row["sizes"])): row for row in rows if row["form"] == "dense"}
    for row in rows:
        peer = dense.get((row["case"], tuple(row["sizes"])))
        if row["form"] == "dense" or peer is None or "failed" in peer or "failed" in row:
            continue
        row["time_ratio"] = row["seconds"] / peer["seconds"]
        if peer["extra_bytes"] > 0:
            row["memory_ratio"] = row["extra_bytes"] / peer["extra_bytes"]


def print_table(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        line = f"{row['case']:14s} {'x'.join(map(str, row['sizes'])):12s} {row['form']:8s} "
        if "failed" in row:
            line += row["failed"]
        else:
            line += f"{row['seconds']:8.3f} s {row['extra_bytes'] / 2**20:9.1f} MiB"
        if "time_ratio" in row:
            line += f"   time x {row['time_ratio']:.3f}"
        if "memory_ratio" in row:
            line += f"   memory x {row['memory_ratio']:.4f}"
        print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small cases only")
    parser.add_argument("--out", type=Path, help="where the rows go; default benchmarks/results/kernels_pairs.json")
    parser.add_argument("--memory-child", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_child:
        case, form, *sizes = arguments.memory_child
        _memory_child(case, form, [int(size) for size in sizes])
        return
    limit_memory()
    about = {
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "device": "cpu",
        "width": WIDTH,
    }
    print(f"torch {about['torch']}, {about['threads']} threads")
    pairs = run_pairs((1024, 2048, 4096)) if arguments.quick else run_pairs()
    add_ratios(pairs)
    print_table(pairs)
    growth = {"seconds": exponent(pairs, "seconds"), "extra_bytes": exponent(pairs, "extra_bytes")}
    print(f"pairs: time grows as N^{growth['seconds']:.2f}, memory as N^{growth['extra_bytes']:.2f}")
    losses = run_cross_entropy(((1024, 10_000),)) if arguments.quick else run_cross_entropy()
    add_ratios(losses)
    print_table(losses)
    out = arguments.out or (None if arguments.quick else RESULTS / "kernels_pairs.json")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        content = {"about": about, "pairs_grow_as": growth, "rows": pairs + losses}
        out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
