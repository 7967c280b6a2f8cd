"""Every objective: time and peak memory of forward and backward, beside its dense form and pytorch-metric-learning.

    OMP_NUM_THREADS=1 python benchmarks/losses.py                        all objectives at 1,024 to 65,536 rows: hours
    OMP_NUM_THREADS=1 python benchmarks/losses.py --sizes 1024 4096 --objectives nt_xent sup_con
    OMP_NUM_THREADS=1 python benchmarks/losses.py --memory-check         one step at 65,536 rows against 1 GiB: hours
    OMP_NUM_THREADS=1 python benchmarks/losses.py --plan-check           the planner's peaks against measured ones

Inputs are the random rows of `graphcl.losses.catalogue`, float32, on the CPU. Every case runs in a process of its own
with a time limit and at most 12 GiB (or what is free). Time is that of a step, the median of as many as fit a second
(one at least) after a small one that loads libraries: with one thread the time of the process, which other work on the
machine disturbs little, with more the wall time. Memory is the peak resident size of the first such step beyond what
the process held before it. The dense form is the ``reference`` backend, where the objective runs on the engine. The
peer, ``pip install pytorch-metric-learning==2.9.0``, runs where it has a loss that gives the same number, which is
checked on a small case first. A case that fails or runs out of time or memory is listed with the reason.

Rows are merged into benchmarks/results/losses.json, so that the sizes can be run one after the other; the table
losses.md and the plot losses.svg are written from all of them.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import json
import math
import multiprocessing
import os
import resource
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from benchmark_machine import processor
from benchmark_memory import growth_mib, limit_memory, reset_peak
from torch import Tensor

from graphcl.losses import plan
from graphcl.losses.catalogue import CATALOGUE, Call

SIZES = (1_024, 2_048, 4_096, 8_192, 16_384, 32_768, 65_536)
OWN_TILES = ("soft_top_k",)  # its backend argument is for the listed positives only
MMAP_THRESHOLD = -3  # of glibc's mallopt: larger blocks are mapped, and unmapped when they are freed
KINDS = ("graphcl", "dense", "PML")
RESULTS = Path(__file__).parent / "results"
MEASURED_SECONDS = 1.0
MOST_MEMORY = 12 * 2**30
PLAN_SIZES = (4_096, 16_384, 65_536)
PLANNED = (
    *("cacr_rbf", "claps", "cmim", "cwcl", "feature_transform", "genview", "hiclr", "info_nce", "moco"),
    *("multi_positive_info_nce", "pmrl", "proto_triplet", "sup_con", "swav", "uniformity"),
    # A sample of the others.
    *("alignment", "bacon_soft", "dcl", "heco", "icnn", "m3col_mix", "meow_info_nce", "multi_label_softmax"),
    *("mv_dhel", "nt_xent", "palm", "sbcl", "scgc", "soft_clip", "z_loss"),
)
MEMORY_CHECK = {"size": 65_536, "dim": 64, "limit_mib": 1024}

Row = dict[str, Any]


Peer = Callable[[Call], Tensor]


def _twins(call: Call) -> tuple[Tensor, Tensor]:
    """Both views below each other, and the same label for a row and its twin."""
    first, second = call.arguments
    return torch.cat([first, second]), torch.arange(first.shape[0]).repeat(2)


def _nt_xent(losses: Any) -> Peer:
    loss: Callable[..., Tensor] = losses.NTXentLoss(temperature=0.5)
    return lambda call: loss(*_twins(call))


def _nt_xent_as_classes(losses: Any) -> Peer:
    loss: Callable[..., Tensor] = losses.SupConLoss(temperature=0.5)
    return lambda call: loss(*_twins(call))


def _info_nce(losses: Any) -> Peer:
    loss: Callable[..., Tensor] = losses.SupConLoss(temperature=0.1)

    def run(call: Call) -> Tensor:
        anchors, positives = call.arguments
        labels = torch.arange(anchors.shape[0])
        # For the same tensor of labels it would leave out the pairs (i, i), which here are the positives.
        return loss(anchors, labels, ref_emb=positives, ref_labels=labels.clone())

    return run


def _moco(losses: Any) -> Peer:
    loss: Callable[..., Tensor] = losses.SupConLoss(temperature=0.07)

    def run(call: Call) -> Tensor:
        queries, keys, queue = call.arguments
        here, there = torch.arange(queries.shape[0]), torch.arange(queue.shape[0]) + keys.shape[0]
        negatives = here.repeat_interleave(there.shape[0]), there.repeat(here.shape[0])
        return loss(queries, indices_tuple=(here, here, *negatives), ref_emb=torch.cat([keys, queue]))

    return run


def _sup_con(losses: Any) -> Peer:
    loss: Callable[..., Tensor] = losses.SupConLoss(temperature=0.1)
    return lambda call: loss(*call.arguments)


def _multi_similarity(losses: Any) -> Peer:
    loss: Callable[..., Tensor] = losses.MultiSimilarityLoss(alpha=2, beta=50, base=0.5)
    return lambda call: loss(*call.arguments)


def _proto_triplet(losses: Any) -> Peer:
    from pytorch_metric_learning.distances import LpDistance
    from pytorch_metric_learning.reducers import MeanReducer

    loss: Callable[..., Tensor] = losses.TripletMarginLoss(
        margin=0.5, distance=LpDistance(normalize_embeddings=False), reducer=MeanReducer(), triplets_per_anchor="all"
    )

    def run(call: Call) -> Tensor:
        embeddings, prototypes, labels = call.arguments
        return loss(embeddings, labels, ref_emb=prototypes, ref_labels=torch.arange(prototypes.shape[0]))

    return run


#: Losses of pytorch-metric-learning that give the number of an objective on the inputs of the catalogue.
PEERS: dict[str, dict[str, Callable[[Any], Peer]]] = {
    "info_nce": {"SupConLoss": _info_nce},
    "moco": {"SupConLoss": _moco},
    "multi_similarity": {"MultiSimilarityLoss": _multi_similarity},
    "nt_xent": {"NTXentLoss": _nt_xent, "SupConLoss": _nt_xent_as_classes},
    "proto_triplet": {"TripletMarginLoss": _proto_triplet},
    "sup_con": {"SupConLoss": _sup_con},
}


def _peer(name: str, loss: str) -> Peer:
    """A loss of pytorch-metric-learning, once it is seen to give the same number."""
    if importlib.util.find_spec("pytorch_metric_learning") is None:
        raise ImportError("not installed")
    from pytorch_metric_learning import losses

    peer = PEERS[name][loss](losses)
    small = CATALOGUE[name].call(128, 16)
    ours, theirs = (float(value.detach()) for value in (CATALOGUE[name].evaluate(small), peer(small)))
    if not math.isclose(ours, theirs, rel_tol=1e-4):
        raise ValueError(f"{loss} gives {theirs}, {name} gives {ours}")
    return peer


def forms_of(name: str) -> list[str]:
    """Which forms of an objective there are to run."""
    forms = ["graphcl"]
    if CATALOGUE[name].tag in ("S", "S2", "X") and CATALOGUE[name].accepts("backend") and name not in OWN_TILES:
        forms.append("dense")
    return forms + [f"PML {loss}" for loss in PEERS.get(name, {})]


def kind_of(form: str) -> str:
    return form.split()[0]


def step_of(form: str, name: str, size: int, dim: int) -> Callable[[], float]:
    """One forward and backward; returns the value."""
    entry = CATALOGUE[name]
    call = entry.call(size, dim)
    leaves = call.leaves()
    peer = _peer(name, form.split()[1]) if kind_of(form) == "PML" else None
    engine = {"backend": "reference"} if form == "dense" else {}

    def step() -> float:
        loss = entry.evaluate(call, **engine) if peer is None else peer(call)
        gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
        del gradients
        return float(loss.detach())

    return step


def run_case(form: str, name: str, size: int, dim: int, once: bool, return_freed: bool = False) -> Row:
    """Measure one case in this process; ``return_freed`` makes the C library give freed blocks back at once."""
    limit_memory(MOST_MEMORY)
    if return_freed:
        ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, 2**16)
    step_of(form, name, min(size, 128), dim)()
    step = step_of(form, name, size, dim)
    # With one thread its own time is what counts, whatever else runs on the machine.
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    before = reset_peak(trim=False)
    start = clock()
    value = step()
    seconds = [clock() - start]
    extra = growth_mib(before)
    while not once and sum(seconds) < MEASURED_SECONDS:
        start = clock()
        step()
        seconds.append(clock() - start)
    return {"seconds": statistics.median(seconds), "steps": len(seconds), "extra_mib": extra, "value": value}


def measure(
    form: str, name: str, size: int, dim: int, timeout: float, *, once: bool = False, return_freed: bool = False
) -> Row:
    """One case in a process of its own."""
    found = in_child(lambda: run_case(form, name, size, dim, once, return_freed), timeout)
    return {"objective": name, "form": form, "size": size, "dim": dim, "machine": describe_machine(), **found}


def in_child(task: Callable[[], Row], timeout: float) -> Row:
    """Run in a process forked from this one, which has loaded the libraries and run nothing."""
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    alone = torch.get_num_threads() == 1
    process = context.Process(target=_report, args=(send, task, timeout if alone else None))
    process.start()
    send.close()
    too_long = {"failed": f"more than {timeout:.0f} s"}
    try:
        # With one thread the limit is on its own time, as the measurement is.
        found: Row = json.loads(receive.recv_bytes()) if alone or receive.poll(timeout) else too_long
    except EOFError:
        process.join()
        ended = -(process.exitcode or 0)
        found = too_long if ended == signal.SIGXCPU else {"failed": f"exit status {process.exitcode}"}
    process.kill()
    process.join()
    return found


def _report(send: Connection, task: Callable[[], Row], seconds: float | None) -> None:
    if seconds is not None:
        limit = math.ceil(time.process_time() + seconds)
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    try:
        found = task()
    except (RuntimeError, MemoryError, ValueError, ImportError) as error:
        found = {"failed": _reason(f"{type(error).__name__}: {error}")}
    send.send_bytes(json.dumps(found).encode())


def _reason(text: str) -> str:
    if any(sign in text for sign in ("can't allocate memory", "MemoryError", "Cannot allocate", "bad_alloc")):
        return "out of memory"
    return text.splitlines()[0][:120]


def run(
    objectives: Sequence[str],
    sizes: Sequence[int],
    dim: int,
    timeout: float,
    kinds: Sequence[str] = KINDS,
    known: Sequence[Row] = (),
) -> Iterator[Row]:
    """Every case; a form that has failed at one size, also in the known rows, is not tried at larger ones."""
    for name in objectives:
        for form in forms_of(name):
            if kind_of(form) not in kinds:
                continue
            failures = {
                row["size"]: row["failed"]
                for row in known
                if (row["objective"], row["form"], row["dim"]) == (name, form, dim)
                if "failed" in row and "not tried" not in row["failed"] and row["size"] not in sizes
            }
            for size in sorted(sizes):
                before = min((other for other in failures if other < size), default=None)
                row: Row = {"objective": name, "form": form, "size": size, "dim": dim}
                if before is None:
                    row = measure(form, name, size, dim, timeout)
                    if "failed" in row:
                        failures[size] = row["failed"]
                else:
                    row["failed"] = f"not tried after {failures[before]} at {before:,}"
                print(describe(row), flush=True)
                yield row


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


def check_plan(objectives: Iterable[str], sizes: Sequence[int], dim: int, timeout: float) -> Iterator[Row]:
    """Planned peak beside the measured one, with an allocator that returns freed blocks and with the usual one."""
    for name in objectives:
        for size in sizes:
            planned = in_child(partial(_planned, name, size, dim), timeout)
            exact, usual = (
                measure("graphcl", name, size, dim, timeout, once=True, return_freed=returned)
                for returned in (True, False)
            )
            row: Row = {"objective": name, "form": "graphcl", "size": size, "dim": dim, **planned}
            row["machine"] = describe_machine()
            row |= {"measured_mib": exact.get("extra_mib"), "usual_mib": usual.get("extra_mib")}
            print(" ".join(str(value) for key, value in row.items() if key != "machine"), flush=True)
            yield row


def _planned(name: str, size: int, dim: int) -> Row:
    found = plan(size, dim, name)
    return {"planned_mib": found.peak / 2**20, "resident_mib": found.resident / 2**20}


def plan_report_of(rows: list[Row]) -> str:
    """Markdown: planned and measured peaks, and their ratios."""
    lines = [
        "# Planned and measured peak memory",
        "",
        f"{describe_machines(rows)}.",
        "`graphcl.losses.plan` beside the peak resident memory of one step, forward and",
        "backward, beyond the inputs, MiB, in a fresh process. Resident: what the plan says the process holds, beside",
        "what it held under glibc's usual allocator, which keeps freed blocks of up to 32 MiB. Tensors: what the plan",
        "says tensors take, beside what the process held with `MALLOC_MMAP_THRESHOLD_=65536`, so that the C library",
        "returns every freed block. The usual peak of one objective differs by some MiB from process to process.",
        "",
        "| objective | N | resident, planned | measured | ratio | tensors, planned | measured | ratio |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    found: dict[str, list[float]] = {"resident": [], "tensors": []}
    for row in rows:
        cells = [row["objective"], f"{row['size']:,}"]
        for kind, planned, measured in (
            ("resident", "resident_mib", "usual_mib"),
            ("tensors", "planned_mib", "measured_mib"),
        ):
            if row.get(planned) is None or row[measured] is None:
                cells += ["not measured", "", ""]
                continue
            found[kind].append(row[planned] / row[measured])
            cells += [f"{row[planned]:,.0f}", f"{row[measured]:,.0f}", f"{found[kind][-1]:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    for kind, ratios in found.items():
        if ratios:
            near = sum(abs(ratio - 1) <= 0.2 for ratio in ratios)
            spread = f"{min(ratios):.2f} to {max(ratios):.2f}, median {statistics.median(ratios):.2f}"
            lines += ["", f"Planned over measured, {kind}: {spread}; within 20 % in {near} of {len(ratios)}."]
    return "\n".join([*lines, ""])


def read(path: Path) -> list[Row]:
    rows: list[Row] = json.loads(path.read_text())["rows"] if path.exists() else []
    return [row for row in rows if row["objective"] in CATALOGUE and row["form"] in forms_of(row["objective"])]


def merge(path: Path, rows: list[Row]) -> list[Row]:
    """The rows of a file with these in place of older ones."""
    table = {(row["objective"], row["form"], row["size"], row["dim"]): row for row in [*read(path), *rows]}
    return [table[key] for key in sorted(table, key=lambda key: (key[0], _place(key[1]), key[2], key[3]))]


def _place(form: str) -> tuple[int, str]:
    return KINDS.index(kind_of(form)), form


class Table:
    """Rows by objective, form and size."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = {(row["objective"], row["form"], row["size"]): row for row in rows}
        self.sizes = sorted({size for _, _, size in self.rows})
        self.cases = sorted({key[:2] for key in self.rows}, key=lambda case: (case[0], _place(case[1])))

    def value(self, name: str, form: str, size: int, field: str) -> float | None:
        """What was measured; None for what was not run, infinity for what failed."""
        row = self.rows.get((name, form, size))
        if row is None:
            return None
        value: float | None = math.inf if "failed" in row else row[field]
        return value

    def ratios(self, form: str, size: int, field: str) -> list[float]:
        """The form over our own, for every objective that has both."""
        found = []
        for name in sorted({name for name, other in self.cases if other == form}):
            ours, theirs = (self.value(name, which, size, field) for which in ("graphcl", form))
            streams = CATALOGUE[name].tag in ("S", "S2")
            if streams and ours is not None and theirs is not None and 0 < ours < math.inf:
                found.append(theirs / ours)
        return found


def report_of(rows: list[Row]) -> str:
    """Markdown: what it comes to, the peer case by case, then everything."""
    table = Table(rows)
    return "\n".join(
        [
            "# Objectives: time and memory of a step",
            "",
            f"{describe_machines(rows)}.",
            "Forward and backward in float32 on N rows of width 64, by `benchmarks/losses.py`:",
            "median time of a step and peak resident memory beyond the inputs. Contestants take turns on a machine",
            "that is used for other work at the same time; with one thread the time is that of the process.",
            "",
            *_against_dense(table),
            *_against_peer(table),
            *_every_case(table),
        ]
    )


def _against_dense(table: Table) -> list[str]:
    lines = [
        "## Against the dense form",
        "",
        "How many times the time and memory of `graphcl` the same objective takes as one N x N matrix (or N x queue):",
        "median over the objectives of class S and S2 on the pair engine, where one that failed counts as infinite,",
        "and from the lowest to the highest of those that finished.",
        "",
        "| N | objectives | dense failed | time, median | time, range | memory, median | memory, range |",
        "|---:|---:|---:|---:|---|---:|---|",
    ]
    for size in table.sizes:
        seconds, memory = (table.ratios("dense", size, field) for field in ("seconds", "extra_mib"))
        if not seconds:
            continue
        failed = sum(ratio == math.inf for ratio in seconds)
        cells = [f"{size:,}", str(len(seconds)), str(failed)]
        for ratios in (seconds, memory):
            finite = [ratio for ratio in ratios if ratio < math.inf]
            between = f"{_times(min(finite))} to {_times(max(finite))}" if finite else "none"
            cells += [_times(statistics.median(ratios)), between]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _times(ratio: float) -> str:
    if ratio == math.inf:
        return "failed"
    return f"{ratio:.1f}x" if ratio < 10 else f"{ratio:,.0f}x"


def _against_peer(table: Table) -> list[str]:
    lines = [
        "## Against pytorch-metric-learning 2.9.0",
        "",
        "Losses that give the same number (checked on a small case). Its `NTXentLoss` compares every positive with",
        "every negative pair, N^3 numbers; its `SupConLoss` on classes of two is the same loss from N^2.",
        "",
        "| objective | its loss | N | graphcl | pytorch-metric-learning | time | memory |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for name, form in table.cases:
        if kind_of(form) != "PML":
            continue
        for size in table.sizes:
            ours, theirs = (table.rows.get((name, which, size)) for which in ("graphcl", form))
            if ours is None or theirs is None or "not tried" in theirs.get("failed", ""):
                continue
            ratios = [
                "" if "failed" in ours or "failed" in theirs else _times(theirs[field] / max(ours[field], 1e-9))
                for field in ("seconds", "extra_mib")
            ]
            cells = [name, form.split()[1], f"{size:,}", _cell(ours), _cell(theirs), *ratios]
            lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _every_case(table: Table) -> list[str]:
    """One line an objective and form, one column a size; what failed is explained once below."""
    lines = [
        "## Every objective",
        "",
        "Memory classes: S one pass over blocks, S2 a few, M moments, L listed pairs, D small dense part, X numbers",
        "for pairs. A dash stands for a larger size of a case that had failed.",
        "",
        f"| objective | class | form | {' | '.join(f'{size:,}' for size in table.sizes)} |",
        f"|---|---|---|{'---:|' * len(table.sizes)}",
    ]
    for name, form in table.cases:
        cells = [_cell(table.rows.get((name, form, size))) for size in table.sizes]
        lines.append(f"| {name} | {CATALOGUE[name].tag} | {form} | {' | '.join(cells)} |")
    return [*lines, ""]


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    if "failed" in row:
        return "-" if "not tried" in row["failed"] else str(row["failed"]).replace("|", "\\|")
    memory = "" if row["extra_mib"] is None else f", {row['extra_mib']:,.0f} MiB"
    return f"{_duration(row['seconds'])}{memory}"


def _duration(seconds: float) -> str:
    if seconds >= 10:
        return f"{seconds:,.0f} s"
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{1e3 * seconds:.1f} ms" if seconds < 0.01 else f"{1e3 * seconds:.0f} ms"


def memory_report_of(rows: list[Row]) -> str:
    """Markdown: the memory check, largest first."""
    lines = [
        "# Objectives that stream: peak memory at 65,536 rows",
        "",
        f"{describe_machines(rows)}.",
        "One step, forward and backward, of every objective of class S (one pass over blocks)",
        f"or S2 (a few), N = {MEMORY_CHECK['size']:,}, d = {MEMORY_CHECK['dim']}, float32, default tiles of 64 MiB:",
        "peak resident memory beyond the inputs. One N x N matrix takes 16,384 MiB; the limit is",
        f"{MEMORY_CHECK['limit_mib']:,} MiB. Times are of single steps on a busy machine.",
        "",
        "| objective | class | MiB | within | time |",
        "|---|---|---:|---|---:|",
    ]
    for row in sorted(rows, key=lambda row: -(row.get("extra_mib") or math.inf)):
        found = row.get("failed") or (f"{row['extra_mib']:,.0f}" if row["extra_mib"] is not None else "not measured")
        seconds = "" if "failed" in row else _duration(row["seconds"])
        within = "yes" if row["within_limit"] else "no"
        tag = CATALOGUE[row["objective"]].tag
        lines.append(f"| {row['objective']} | {tag} | {found} | {within} | {seconds} |")
    return "\n".join([*lines, ""])


def describe_machines(rows: Iterable[Row]) -> str:
    """The machine of most rows, and of every other the objectives measured on it."""
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(row.get("machine", describe_machine()), []).append(row["objective"])
    first, *others = sorted(found, key=lambda machine: -len(found[machine])) or [describe_machine()]
    also = [f"{machine} (latest rows of {', '.join(dict.fromkeys(found[machine]))})" for machine in others]
    return "; ".join([first, *also])


def describe_machine() -> str:
    threads = torch.get_num_threads()
    return f"{processor()}, {threads} thread{'s' if threads > 1 else ''}, torch {torch.__version__}"


COLOURS = {"graphcl": "#1f77b4", "dense": "#d62728", "PML": "#2ca02c"}
NAMED = ("nt_xent", "info_nce", "sup_con", "multi_similarity")


class Panel:
    """Axes of one plot, both logarithmic."""

    def __init__(
        self, box: tuple[float, float, float, float], sizes: Sequence[int], bounds: tuple[float, float]
    ) -> None:
        self.left, self.top, self.width, self.height = box
        self.sizes = sizes
        self.low, self.high = (math.log10(bound) for bound in bounds)

    def x(self, size: float) -> float:
        first, last = math.log2(self.sizes[0]), math.log2(self.sizes[-1])
        return self.left + (math.log2(size) - first) / max(last - first, 1e-9) * self.width

    def y(self, value: float) -> float:
        share = (math.log10(max(value, 1e-9)) - self.low) / (self.high - self.low) if value < math.inf else 2.0
        return self.top + self.height * (1.0 - min(max(share, 0.0), 1.0))

    def frame(self, title: str) -> list[str]:
        right, bottom = self.left + self.width, self.top + self.height
        parts = [
            f'<text x="{self.left}" y="{self.top - 8}" font-weight="bold">{title}</text>',
            f'<rect x="{self.left}" y="{self.top}" width="{self.width}" height="{self.height}" fill="none" '
            'stroke="#999"/>',
        ]
        for power in range(math.ceil(self.low), math.floor(self.high) + 1):
            y = self.y(10.0**power)
            parts.append(f'<line x1="{self.left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e5e5e5"/>')
            parts.append(f'<text x="{self.left - 5}" y="{y + 4:.1f}" text-anchor="end">{10**power:,g}</text>')
        for size in self.sizes[:: 1 if self.width > 300 or len(self.sizes) < 5 else 2]:
            label = f"{size // 1024}k"
            parts.append(f'<text x="{self.x(size):.1f}" y="{bottom + 15}" text-anchor="middle">{label}</text>')
        return parts

    def line(self, points: Sequence[tuple[int, float]], colour: str, title: str, dash: str = "") -> str:
        shown = [(size, value) for size, value in points if 0 < value < math.inf]
        path = " ".join(f"{self.x(size):.1f},{self.y(value):.1f}" for size, value in shown)
        dots = "".join(f'<circle cx="{self.x(s):.1f}" cy="{self.y(v):.1f}" r="2.5" fill="{colour}"/>' for s, v in shown)
        style = f' stroke-dasharray="{dash}"' if dash else ""
        failed = [size for size, value in points if value == math.inf][:1]
        cross = "".join(
            f'<text x="{self.x(size):.1f}" y="{self.top + 13}" text-anchor="middle" fill="{colour}" '
            'font-weight="bold" stroke="none">x</text>'
            for size in failed
        )
        return (
            f'<g stroke="{colour}" fill="none"><title>{title}</title>'
            f'<polyline points="{path}" stroke-width="2"{style}/>{dots}{cross}</g>'
        )

    def band(self, points: Sequence[tuple[int, float, float]], colour: str) -> str:
        up = [f"{self.x(size):.1f},{self.y(high):.1f}" for size, _, high in points]
        down = [f"{self.x(size):.1f},{self.y(low):.1f}" for size, low, _ in reversed(points)]
        return f'<polygon points="{" ".join(up + down)}" fill="{colour}" opacity="0.18"/>'


def plot_of(rows: list[Row]) -> str:
    """SVG: above, median and quartiles over the objectives that have a dense form; below, losses that the peer has."""
    table = Table(rows)
    both = sorted({name for name, form in table.cases if form == "dense" and CATALOGUE[name].tag in ("S", "S2")})
    named = [name for name in NAMED if (name, "graphcl") in table.cases]
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" width="1120" height="960" font-family="sans-serif" font-size="12">'
        '<rect width="100%" height="100%" fill="white"/>'
    ]
    for column, (field, title) in enumerate(
        (("seconds", "seconds a step"), ("extra_mib", "peak MiB beyond the inputs"))
    ):
        values = [row[field] for row in table.rows.values() if "failed" not in row and row[field]]
        if not values:
            continue
        bounds = (10.0 ** math.floor(math.log10(min(values))), 10.0 ** math.ceil(math.log10(max(values) * 1.01)))
        panel = Panel((70 + 550 * column, 40, 460, 330), table.sizes, (max(bounds[0], 1e-3), bounds[1]))
        parts += panel.frame(f"{title}, {len(both)} objectives over all pairs: median, quartiles")
        for form in ("dense", "graphcl"):
            points = [
                (size, *_quartiles(found))
                for size in table.sizes
                if len(found := [v for name in both if (v := table.value(name, form, size, field)) is not None]) > 1
            ]
            parts.append(panel.band([(size, low, high) for size, low, _, high in points], COLOURS[form]))
            parts.append(panel.line([(size, median) for size, _, median, _ in points], COLOURS[form], form))
        for place, name in enumerate(named):
            small = Panel((70 + 272 * place, 440 + 245 * column, 200, 180), table.sizes, panel_bounds(bounds))
            parts += small.frame(f"{name}: {'s' if field == 'seconds' else 'MiB'}")
            for form in (form for other, form in table.cases if other == name):
                line = [(size, v) for size in table.sizes if (v := table.value(name, form, size, field)) is not None]
                dash = "5,3" if form == "PML NTXentLoss" else ""
                parts.append(small.line(line, COLOURS[kind_of(form)], f"{name}, {form}", dash))
    legend = [
        ("graphcl", COLOURS["graphcl"]),
        ("dense form", COLOURS["dense"]),
        ("pytorch-metric-learning", COLOURS["PML"]),
    ]
    for place, (label, colour) in enumerate(legend):
        x = 70 + 130 * place
        parts.append(f'<rect x="{x}" y="914" width="14" height="5" fill="{colour}"/>')
        parts.append(f'<text x="{x + 20}" y="920">{label}</text>')
    about = "x: failed from here on (12 GiB or the time limit); rows N = 1k is 1,024"
    return "\n".join([*parts, f'<text x="500" y="920">{about}</text></svg>', ""])


def panel_bounds(bounds: tuple[float, float]) -> tuple[float, float]:
    return max(bounds[0], 1e-3), bounds[1]


def _quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile, where a failure counts as infinite."""
    ordered = sorted(values)
    low, middle, high = (ordered[round(share * (len(ordered) - 1))] for share in (0.25, 0.5, 0.75))
    return low, middle, high


def write(folder: Path, stem: str, rows: list[Row]) -> None:
    """The rows, and a table and a plot of them."""
    folder.mkdir(parents=True, exist_ok=True)
    about = {"machine": describe_machines(rows), "threads": os.environ.get("OMP_NUM_THREADS")}
    (folder / f"{stem}.json").write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n")
    if stem == "losses":
        (folder / "losses.md").write_text(report_of(rows))
        (folder / "losses.svg").write_text(plot_of(rows))
    else:
        report = memory_report_of if stem == "losses_memory" else plan_report_of
        (folder / f"{stem}.md").write_text(report(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--objectives", nargs="+", default=sorted(CATALOGUE), choices=sorted(CATALOGUE), metavar="NAME")
    parser.add_argument("--forms", nargs="+", default=KINDS, choices=KINDS, help="PML: pytorch-metric-learning")
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds for one case")
    parser.add_argument("--memory-check", action="store_true", help="only whether S and S2 objectives stay below 1 GiB")
    parser.add_argument("--plan-check", action="store_true", help="only planned beside measured memory")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    if arguments.memory_check:
        path = arguments.out / "losses_memory.json"
        rows, above = check_memory(arguments.objectives, arguments.timeout)
        write(arguments.out, path.stem, merge(path, rows))
        # The same step, for the large table.
        table = arguments.out / "losses.json"
        measured = [{key: value for key, value in row.items() if key != "within_limit"} for row in rows]
        write(arguments.out, table.stem, merge(table, measured))
        sys.exit(f"above {MEMORY_CHECK['limit_mib']} MiB or not measured: {', '.join(above)}" if above else 0)
    if arguments.plan_check:
        path = arguments.out / "losses_plan.json"
        names = [name for name in PLANNED if name in arguments.objectives]
        sizes = [size for size in PLAN_SIZES if size in arguments.sizes]
        for row in check_plan(names, sizes, arguments.dim, arguments.timeout):
            write(arguments.out, path.stem, merge(path, [row]))
        return
    path = arguments.out / "losses.json"
    for row in run(
        arguments.objectives, arguments.sizes, arguments.dim, arguments.timeout, arguments.forms, read(path)
    ):
        write(arguments.out, path.stem, merge(path, [row]))


if __name__ == "__main__":
    main()
