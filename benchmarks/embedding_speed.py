"""Speed and memory of MEOW and AdaMEOW on ACM beside a plain dense transcription of the authors' code.

    GRAPHCL_DATA=FOLDER python benchmarks/embedding_speed.py [--parts views epoch adameow probe memory]

``views``: coarse views of PAP (110 neighbours) and PSP (700), from edges. ``epoch``: one step of MEOW with its k-means,
loss, gradients and Adam. ``adameow``: forward and backward of AdaMEOW's loss on N = 4,019 rows of width 64; the dense
form at N = 1,000 (4,019 would need some 20 GB). ``probe``: 50 repeats of the linear probe on one split of ACM; the
plain form does one repeat, and its time is multiplied. ``memory``: peak resident size of a whole process that reads the
data and trains 10 epochs.

Every case runs in a process of its own and the two sides take turns: time is the fastest step, wall clock and processor
time, memory the peak resident size (VmHWM) of the process or its growth over what was resident before. The peers are in
benchmarks/peers/dense_meow.py. Writes benchmarks/results/embedding_speed.json and .md; parts that are not asked for
keep their rows.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmark_machine import processor
from benchmark_memory import growth_mib, memory_bytes, reset_peak

RESULTS = Path(__file__).parent / "results" / "embedding_speed"
# What the specification of the protocol gives for the authors' code on another machine of this class.
QUOTED = {
    "views": "14 s",
    "epoch": "1.04 s",
    "adameow": "21 GB at N = 4,019, extrapolated",
    "probe": "more than 5 minutes for 50 repeats",
    "memory": "1.32 GB",
}

Row = dict[str, Any]


def acm_folder() -> Path:
    """Where the files of ACM are."""
    return Path(os.environ["GRAPHCL_DATA"]) / "acm"


def dense() -> Any:
    """The transcription."""
    sys.path.insert(0, str(Path(__file__).parent / "peers"))
    import dense_meow

    return dense_meow


def timed(step: Callable[[], object], *, times: int, seconds: float = 0.0) -> Row:
    """Fastest of some steps after a first one."""
    walls: list[float] = []
    cpus: list[float] = []
    started = time.perf_counter()
    while len(walls) < times or time.perf_counter() - started < seconds:
        wall, cpu = time.perf_counter(), time.process_time()
        step()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return {"seconds": min(walls), "cpu_seconds": min(cpus), "steps": len(walls)}


def views_ours() -> Row:
    """Coarse views from the loaded graph."""
    import torch

    from graphcl.data import load_graph
    from graphcl.graphs import metapath_adjacency

    graph = load_graph("acm").graph

    def step() -> None:
        generator = torch.Generator().manual_seed(0)
        for path, k in (("PAP", 110), ("PSP", 700)):
            metapath_adjacency(graph, path, k=k, generator=generator)

    return timed(step, times=3)


def views_dense() -> Row:
    """The same by loops over dense rows."""
    peer, folder = dense(), acm_folder()
    joins = [peer.incidence(folder / "pa.txt", (4019, 7167)), peer.incidence(folder / "ps.txt", (4019, 60))]

    def step() -> None:
        for join, k in zip(joins, (110, 700), strict=True):
            peer.pathsim_rows((join @ join.T).toarray(), k)

    return timed(step, times=1)


def our_step() -> Callable[[], float]:
    """One epoch of MEOW with its preset for ACM."""
    import torch

    from graphcl.data import load_graph
    from graphcl.models import MEOW
    from graphcl.models.meow import MEOWConfig

    preset = MEOW.presets["acm"]
    config = MEOWConfig(**preset.model)
    generator = torch.Generator().manual_seed(0)
    inputs = MEOW.prepare(load_graph("acm").graph, config, generator=generator)
    model = MEOW.from_inputs(inputs, config, generator=generator)
    optimizer = torch.optim.Adam(model.parameters(), lr=preset.learning_rate, fused=True)
    epoch = iter(range(10**9))

    def step() -> float:
        model.on_epoch_start(next(epoch), generator)
        loss, _ = model.objective(inputs.full())
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        return float(loss.detach())

    return step


def dense_step() -> Callable[[], float]:
    """One epoch of the transcription."""
    import torch

    torch.manual_seed(0)
    model = dense().DenseMEOW(acm_folder())
    optimizer = torch.optim.Adam(model.parameters(), lr=7e-4)

    def step() -> float:
        loss = model.loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def epoch_case(form: str) -> Row:
    """Time of an epoch after two others."""
    step = our_step() if form == "ours" else dense_step()
    losses = [step(), step()]
    return {**timed(step, times=5), "loss": losses[0]}


def memory_case(form: str) -> Row:
    """Peak of a whole process."""
    step = our_step() if form == "ours" else dense_step()
    for _ in range(10):
        step()
    return {"peak_mib": memory_bytes("VmHWM") / 2**20}


def adameow_case(form: str, size: int) -> Row:
    """Forward and backward on rows of a made-up embedding."""
    import torch
    from torch import nn
    from torch.nn import functional

    from graphcl.functional import adameow

    torch.manual_seed(0)
    hidden, out = nn.Linear(64, 16), nn.Linear(16, 1)
    for layer in (hidden, out):
        nn.init.xavier_normal_(layer.weight, gain=1.414)
        nn.init.zeros_(layer.bias)

    def step(rows: int) -> Callable[[], float]:
        x = functional.normalize(torch.randn(rows, 64)).requires_grad_()
        y = functional.normalize(x.detach() + 0.1 * torch.randn(rows, 64)).requires_grad_()
        peer = None if form == "ours" else dense().dense_adameow

        def run() -> float:
            if peer is None:
                loss = adameow(x, y, hidden.weight, hidden.bias, out.weight[0], out.bias, temperature=1.0)
            else:
                loss = peer(x, y, hidden, out)
            torch.autograd.grad(loss, [x, y, *hidden.parameters(), *out.parameters()])
            return float(loss.detach())

        return run

    step(100)()
    run = step(size)
    before = reset_peak()
    value = run()
    extra = growth_mib(before)
    return {**timed(run, times=3 if form == "ours" else 1), "extra_mib": extra, "nodes": size, "loss": value}


def probe_case(form: str) -> Row:
    """50 repeats on one split; the plain form does one."""
    import torch

    from graphcl.data import load_graph
    from graphcl.metrics.probe import linear_probe

    paper = load_graph("acm").graph["paper"]
    labels = paper.y.long()
    # A made-up embedding that a probe gets partly right; the time does not depend on it.
    generator = torch.Generator().manual_seed(0)
    z = torch.nn.functional.one_hot(labels, 64).float() + 0.6 * torch.randn(len(labels), 64, generator=generator)
    masks = [paper[f"{part}_mask"][:, 0] for part in ("train", "val", "test")]
    if form == "ours":
        found = linear_probe(z, labels, *masks, repeats=50, learning_rate=0.03)
        step: Callable[[], object] = lambda: linear_probe(z, labels, *masks, repeats=50, learning_rate=0.03)  # noqa: E731
        return {**timed(step, times=3), "repeats": 50, "macro_f1": found.macro_f1.mean}
    peer, parts = dense(), [mask.nonzero()[:, 0] for mask in masks]
    scores: list[tuple[float, ...]] = []
    row = timed(lambda: scores.append(peer.probe_once(z, labels, *parts, 0.03)), times=1)
    row = {name: 50 * value if "seconds" in name else value for name, value in row.items()}
    return {**row, "repeats": 1, "macro_f1": scores[0][0]}


CASES: dict[str, list[tuple[str, Callable[..., Row], tuple[Any, ...]]]] = {
    "views": [("graphcl", views_ours, ()), ("dense transcription", views_dense, ())],
    "epoch": [("graphcl", epoch_case, ("ours",)), ("dense transcription", epoch_case, ("dense",))],
    "adameow": [
        ("graphcl", adameow_case, ("ours", 4019)),
        ("graphcl", adameow_case, ("ours", 1000)),
        ("dense transcription", adameow_case, ("dense", 1000)),
    ],
    "probe": [("graphcl", probe_case, ("ours",)), ("dense transcription, one repeat x 50", probe_case, ("plain",))],
    "memory": [("graphcl", memory_case, ("ours",)), ("dense transcription", memory_case, ("dense",))],
}
TITLES = {
    "views": "Coarse views of PAP and PSP",
    "epoch": "One epoch of MEOW",
    "adameow": "Forward and backward of AdaMEOW's loss",
    "probe": "50 repeats of the linear probe on one split",
    "memory": "Peak resident size of a process that trains MEOW",
}


def isolated(case: Callable[..., Row], *arguments: Any) -> Row:
    """A case in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(case, arguments)


def report(record: dict[str, Any]) -> str:
    """Markdown of all parts."""
    lines = ["# Speed and memory of node embeddings on ACM", ""]
    lines += [
        "See benchmarks/embedding_speed.py. Quoted: the authors' code on another machine, 2 cores. Other work "
        "shared this machine: ratios are worth more than times."
    ]
    for part, title in TITLES.items():
        found = record["parts"].get(part)
        if not found:
            continue
        about = found["about"]
        lines += ["", f"## {title}", ""]
        lines += [f"{about['cpu']}, {about['threads']} threads, torch {about['torch']}. Quoted: {QUOTED[part]}.", ""]
        lines += ["| form | nodes | seconds | CPU seconds | MiB |", "|---|---|---|---|---|"]
        for row in found["rows"]:
            cells = [f"{row.get(name, 4019):,}" if name == "nodes" else _number(row.get(name)) for name in _COLUMNS]
            memory = row.get("peak_mib", row.get("extra_mib"))
            lines += [f"| {row['form']} | {' | '.join(cells)} | {'' if memory is None else f'{memory:,.0f}'} |"]
        ratio = _ratio(found["rows"])
        if ratio:
            lines += ["", f"Dense over graphcl: {ratio}."]
    return "\n".join([*lines, ""])


_COLUMNS = ("nodes", "seconds", "cpu_seconds")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.3f}"


def _ratio(rows: list[Row]) -> str:
    """Dense over ours, of the rows of equal size."""
    peer = rows[-1]
    ours = next(row for row in rows if row.get("nodes") == peer.get("nodes"))
    names = {"seconds": "time", "cpu_seconds": "CPU time", "peak_mib": "peak", "extra_mib": "extra memory"}
    return ", ".join(f"{text} {peer[name] / ours[name]:.1f} x" for name, text in names.items() if ours.get(name))


def main() -> None:
    """Measure the parts that were asked for and write the results after each."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    path = options.out.with_suffix(".json")
    record = json.loads(path.read_text()) if path.exists() else {"parts": {}}
    for part in options.parts:
        rows = [{"form": form, **isolated(case, *arguments)} for form, case, arguments in CASES[part]]
        about = {"cpu": processor(), "threads": torch.get_num_threads(), "torch": torch.__version__}
        record["parts"][part] = {"about": about, "rows": rows}
        path.write_text(json.dumps(record, indent=1) + "\n")
        options.out.with_suffix(".md").write_text(report(record))
    print(options.out.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
