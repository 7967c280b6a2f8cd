"""Every objective: time and peak memory of forward and backward, beside its dense form and pytorch-metric-learning.

    python benchmarks/losses.py                                          all objectives at 1,024 to 65,536 rows: hours
    python benchmarks/losses.py --sizes 1024 4096 --objectives nt_xent sup_con
    python benchmarks/losses.py --memory-check                           one step at 65,536 rows against 1 GiB

Inputs are the random rows of `graphcl.losses.catalogue`, float32, on the CPU. Every case runs in a process of its own
with a time limit and with no more memory than is free. Time is the wall time of a step, the median of as many as fit
two seconds (one at least) after a small one that loads libraries. Memory is the peak resident size of the first such
step beyond what the process held before it. The dense form is the ``reference`` backend, where the objective runs on
the engine. A case that fails or runs out of time or memory is listed with the reason.

Rows are merged into benchmarks/results/losses.json, so that the sizes can be run one after the other; the table
losses.md and the plot losses.svg are written from all of them.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from graphcl.losses.catalogue import CATALOGUE, Call

SIZES = (1_024, 2_048, 4_096, 8_192, 16_384, 32_768, 65_536)
FORMS = ("graphcl", "dense", "pytorch-metric-learning")
RESULTS = Path(__file__).parent / "results"
MEMORY_CHECK = {"size": 65_536, "dim": 64, "limit_mib": 1024}

Row = dict[str, Any]


def _two_views_as_pairs(call: Call) -> tuple[Tensor, Tensor]:
    first, second = call.arguments
    return torch.cat([first, second]), torch.arange(first.shape[0]).repeat(2)


def _peer(name: str) -> Callable[[Call], Tensor] | None:
    """The same loss of pytorch-metric-learning, where it has it."""
    if importlib.util.find_spec("pytorch_metric_learning") is None:
        raise ImportError("not installed")
    from pytorch_metric_learning import losses

    if name == "nt_xent":
        nt_xent = losses.NTXentLoss(temperature=0.5)
        return lambda call: nt_xent(*_two_views_as_pairs(call))
    if name == "sup_con":
        sup_con = losses.SupConLoss(temperature=0.1)
        return lambda call: sup_con(*call.arguments)
    if name == "multi_similarity":
        multi_similarity = losses.MultiSimilarityLoss(alpha=2, beta=50, base=0.5)
        return lambda call: multi_similarity(*call.arguments)
    return None


PEERS = ("nt_xent", "sup_con", "multi_similarity")


def forms_of(name: str) -> list[str]:
    """Which forms of an objective there are to run."""
    forms = ["graphcl"]
    if CATALOGUE[name].accepts("backend"):
        forms.append("dense")
    if name in PEERS:
        forms.append("pytorch-metric-learning")
    return forms


def step_of(form: str, name: str, size: int, dim: int) -> Callable[[], float]:
    """One forward and backward; returns the value."""
    entry = CATALOGUE[name]
    call = entry.call(size, dim)
    leaves = call.leaves()
    peer = _peer(name) if form == "pytorch-metric-learning" else None
    engine = {"backend": "reference"} if form == "dense" else {}

    def step() -> float:
        loss = entry.evaluate(call, **engine) if peer is None else peer(call)
        gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
        del gradients
        return float(loss.detach())

    return step


def run_case(form: str, name: str, size: int, dim: int, once: bool) -> Row:
    """Measure one case in this process."""
    limit_memory()
    step_of(form, name, min(size, 128), dim)()
    step = step_of(form, name, size, dim)
    before = reset_peak()
    start = time.perf_counter()
    value = step()
    seconds = [time.perf_counter() - start]
    extra = None if before is None else (_status("VmHWM") - before) / 2**20
    while not once and sum(seconds) < 2.0:
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return {"seconds": statistics.median(seconds), "steps": len(seconds), "extra_mib": extra, "value": value}


def reset_peak() -> int | None:
    """Forget the peak resident size so far; what is resident now, or None where the system does not tell."""
    if not Path("/proc/self/clear_refs").exists():
        return None
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


def limit_memory() -> None:
    """What asks for more than is free gets an error to report, instead of ending other processes."""
    info = Path("/proc/meminfo")
    if info.exists():
        free = next(int(line.split()[1]) for line in info.read_text().splitlines() if line.startswith("MemAvailable"))
        limit = 1024 * free + _status("VmSize")
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


def measure(form: str, name: str, size: int, dim: int, timeout: float, *, once: bool = False) -> Row:
    """One case in a process of its own."""
    row: Row = {"objective": name, "form": form, "size": size, "dim": dim}
    command = [sys.executable, __file__, "--case", form, name, str(size), str(dim), *(["--once"] if once else [])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return {**row, "failed": f"more than {timeout:.0f} s"}
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        return {**row, "failed": _reason(lines[-1] if lines else f"exit status {done.returncode}")}
    found: Row = json.loads(done.stdout.splitlines()[-1])
    return {**row, **found}


def _reason(line: str) -> str:
    if "can't allocate memory" in line or "MemoryError" in line or "Cannot allocate" in line:
        return "out of memory"
    return line[:120]


def run(
    objectives: Sequence[str], sizes: Sequence[int], dim: int, timeout: float, forms: Sequence[str] = FORMS
) -> list[Row]:
    """Every case; a form that has failed at one size is not tried at larger ones."""
    rows: list[Row] = []
    for name in objectives:
        for form in forms_of(name):
            if form not in forms:
                continue
            failed: str | None = None
            for size in sorted(sizes):
                if failed is not None:
                    row: Row = {"objective": name, "form": form, "size": size, "dim": dim, "failed": failed}
                else:
                    row = measure(form, name, size, dim, timeout)
                    failed = row.get("failed")
                    if failed is not None and failed != "ImportError: not installed":
                        failed = f"not tried after {failed} at {size:,}" if "not tried" not in failed else failed
                rows.append(row)
                print(describe(row), flush=True)
    return rows


def describe(row: Row) -> str:
    head = f"{row['objective']:32s} {row['form']:24s} N {row['size']:>6,} d {row['dim']:>3}"
    if "failed" in row:
        return f"{head} {row['failed']}"
    memory = "" if row["extra_mib"] is None else f" {row['extra_mib']:8.1f} MiB"
    return f"{head} {1e3 * row['seconds']:10.1f} ms{memory}"


def check_memory(objectives: Iterable[str], timeout: float) -> tuple[list[Row], list[str]]:
    """One step of every streaming objective at the largest size; names of those above the limit."""
    rows, above = [], []
    for name in objectives:
        if CATALOGUE[name].tag not in ("S", "S2"):
            continue
        row = measure("graphcl", name, MEMORY_CHECK["size"], MEMORY_CHECK["dim"], timeout, once=True)
        extra = row.get("extra_mib")
        within = extra is not None and extra <= MEMORY_CHECK["limit_mib"]
        if not within:
            above.append(name)
        rows.append({**row, "within_limit": within})
        print(f"{describe(row)} {'' if within else ' ABOVE OR NOT MEASURED'}", flush=True)
    return rows, above


def merge(path: Path, rows: list[Row]) -> list[Row]:
    """The rows of a file with these in place of older ones."""
    old: list[Row] = json.loads(path.read_text())["rows"] if path.exists() else []
    table = {(row["objective"], row["form"], row["size"], row["dim"]): row for row in [*old, *rows]}
    return [table[key] for key in sorted(table, key=lambda key: (key[0], FORMS.index(key[1]), key[2], key[3]))]


def table_of(rows: list[Row]) -> str:
    """Markdown: one line an objective and form, one column a size; milliseconds and MiB of a step."""
    sizes = sorted({row["size"] for row in rows})
    lines = [
        "# Objectives: time and memory of a step",
        "",
        f"{describe_machine()}. Milliseconds and peak extra MiB of forward and backward; see benchmarks/losses.py.",
        "",
        f"| objective | form | {' | '.join(f'{size:,}' for size in sizes)} |",
        f"|---|---|{'---|' * len(sizes)}",
    ]
    cases = {(row["objective"], row["form"]) for row in rows}
    found = {(row["objective"], row["form"], row["size"]): row for row in rows}
    for name, form in sorted(cases, key=lambda case: (case[0], FORMS.index(case[1]))):
        cells = [_cell(found.get((name, form, size))) for size in sizes]
        lines.append(f"| {name} | {form} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    if "failed" in row:
        return str(row["failed"]).replace("|", "\\|")
    memory = "" if row["extra_mib"] is None else f", {row['extra_mib']:,.0f} MiB"
    return f"{1e3 * row['seconds']:,.0f} ms{memory}"


def describe_machine() -> str:
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"


COLOURS = {"graphcl": "#1f77b4", "dense": "#d62728", "pytorch-metric-learning": "#2ca02c"}


def plot_of(rows: list[Row]) -> str:
    """SVG of two panels over N, logarithmic: seconds and MiB of a step, one line an objective and form."""
    width, height, margin = 460, 360, 60
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{2 * (width + margin) + 20}" height="{height + 110}" '
        'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
    ]
    done = [row for row in rows if "failed" not in row]
    for panel, (field, title) in enumerate((("seconds", "seconds a step"), ("extra_mib", "peak extra MiB"))):
        points = [(row["size"], row[field]) for row in done if row[field] is not None and row[field] > 0]
        if not points:
            continue
        left, top = margin + panel * (width + margin), 40
        low, high = (math.log10(bound([value for _, value in points])) for bound in (min, max))
        first, last = (math.log2(bound([size for size, _ in points])) for bound in (min, max))

        def x_of(size: float, left: int = left, first: float = first, last: float = last) -> float:
            return left + (math.log2(size) - first) / max(last - first, 1e-9) * width

        def y_of(value: float, top: int = top, low: float = low, high: float = high) -> float:
            return top + height - (math.log10(value) - low) / max(high - low, 1e-9) * height

        parts.append(f'<text x="{left}" y="{top - 12}" font-weight="bold">{title}</text>')
        parts.append(f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="none" stroke="#999"/>')
        for power in range(math.ceil(low), math.floor(high) + 1):
            y = y_of(10.0**power)
            parts.append(f'<line x1="{left}" x2="{left + width}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
            parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:g}</text>')
        parts += [
            f'<text x="{x_of(size):.1f}" y="{top + height + 16}" text-anchor="middle">{size:,}</text>'
            for size in sorted({size for size, _ in points})
        ]
        for name, form in sorted({(row["objective"], row["form"]) for row in done}):
            line = sorted(
                (row["size"], row[field])
                for row in done
                if (row["objective"], row["form"]) == (name, form) and row[field] is not None and row[field] > 0
            )
            path = " ".join(f"{x_of(size):.1f},{y_of(value):.1f}" for size, value in line)
            parts.append(
                f'<g stroke="{COLOURS[form]}" fill="none" opacity="0.6"><title>{name}, {form}</title>'
                f'<polyline points="{path}" stroke-width="1.5"/>'
                + "".join(f'<circle cx="{x_of(s):.1f}" cy="{y_of(v):.1f}" r="2.5"/>' for s, v in line)
                + "</g>"
            )
    for place, (form, colour) in enumerate(COLOURS.items()):
        x = margin + 170 * place
        parts.append(f'<rect x="{x}" y="{height + 80}" width="14" height="4" fill="{colour}"/>')
        parts.append(f'<text x="{x + 20}" y="{height + 86}">{form}</text>')
    parts.append(f'<text x="{margin + 540}" y="{height + 86}">rows N; {describe_machine()}</text></svg>')
    return "\n".join(parts) + "\n"


def write(folder: Path, stem: str, rows: list[Row]) -> None:
    """The file of rows, and for the main one also table and plot."""
    folder.mkdir(parents=True, exist_ok=True)
    about = {"machine": describe_machine(), "threads": os.environ.get("OMP_NUM_THREADS")}
    (folder / f"{stem}.json").write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n")
    if stem == "losses":
        (folder / "losses.md").write_text(table_of(rows))
        (folder / "losses.svg").write_text(plot_of(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--objectives", nargs="+", default=sorted(CATALOGUE), choices=sorted(CATALOGUE), metavar="NAME")
    parser.add_argument("--forms", nargs="+", default=FORMS, choices=FORMS)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds for one case")
    parser.add_argument("--memory-check", action="store_true", help="only whether S and S2 objectives stay below 1 GiB")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--case", nargs=4, metavar=("FORM", "NAME", "N", "D"), help=argparse.SUPPRESS)
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        form, name, size, dim = arguments.case
        print(json.dumps(run_case(form, name, int(size), int(dim), arguments.once)))
        return
    if arguments.memory_check:
        rows, above = check_memory(arguments.objectives, arguments.timeout)
        write(arguments.out, "losses_memory", merge(arguments.out / "losses_memory.json", rows))
        sys.exit(f"above {MEMORY_CHECK['limit_mib']} MiB or not measured: {', '.join(above)}" if above else 0)
    rows = run(arguments.objectives, arguments.sizes, arguments.dim, arguments.timeout, arguments.forms)
    write(arguments.out, "losses", merge(arguments.out / "losses.json", rows))


if __name__ == "__main__":
    main()
