"""Sparse products and segment sums: ours beside torch.sparse, PyG and torch-scatter, same data, one run.

    python benchmarks/kernels_sparse.py [--quick] [--repeats 7]

Contestants take turns within every repeat, so that noise of the machine falls on all of them alike. Reported are the
20, 50 and 80 per cent quantiles of the time, forward and forward + backward, and the peak extra memory of one call.
Every result is compared with ours; a peer that fails, runs out of memory or differs is listed with the reason.

`run_spmm` and `run_segment` return one dictionary per contestant and size; `main` prints them and the fitted exponents.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from benchmark_machine import processor
from benchmark_memory import growth_mib, limit_memory, reset_peak
from torch import Tensor
from torch_geometric.edge_index import EdgeIndex
from torch_geometric.nn import SimpleConv

from graphcl.kernels import SparseMatrix, scatter_sum, segment_sum, spmm

EDGES = (100_000, 1_000_000, 5_000_000)
WIDTHS = (16, 64, 128)
NUM_NODES = 100_000
RESULTS = Path(__file__).parent / "results"

Row = dict[str, Any]
# Takes leaves that carry gradients (dense operand), returns the result.
Contestant = Callable[[Tensor], Tensor]


def run_spmm(
    edges: Sequence[int] = EDGES,
    widths: Sequence[int] = WIDTHS,
    *,
    num_nodes: int | None = NUM_NODES,
    repeats: int = 7,
    peers: bool = True,
) -> list[Row]:
    """Weighted sum aggregation over a random graph; ``num_nodes=None`` lets the nodes grow as edges / 10."""
    rows: list[Row] = []
    for num_edges in edges:
        nodes = num_nodes or num_edges // 10
        generator = torch.Generator().manual_seed(0)
        edge_index = torch.randint(nodes, (2, num_edges), generator=generator)
        weight = torch.rand(num_edges, generator=generator)
        contestants = _spmm_contestants(edge_index, weight, nodes, peers)
        for width in widths:
            dense = torch.randn(nodes, width, generator=generator)
            about = {"kernel": "spmm", "edges": num_edges, "nodes": nodes, "width": width}
            rows += _compare(contestants, dense, about, repeats)
    return rows


def run_segment(
    rows_per_size: Sequence[int] = EDGES,
    widths: Sequence[int] = WIDTHS,
    *,
    num_segments: int = NUM_NODES,
    repeats: int = 7,
) -> list[Row]:
    """Sums of sorted segments (offsets known) and of unsorted rows (an index, sorted within the call or not at all)."""
    rows: list[Row] = []
    for num_rows in rows_per_size:
        generator = torch.Generator().manual_seed(0)
        index = torch.randint(num_segments, (num_rows,), generator=generator)
        for width in widths:
            src = torch.randn(num_rows, width, generator=generator)
            about = {"edges": num_rows, "nodes": num_segments, "width": width}
            sorted_index = index.sort().values
            kinds = {
                "segment_sum": _sorted_contestants(sorted_index, num_segments),
                "scatter_sum": _unsorted_contestants(index, num_segments),
            }
            for kernel, contestants in kinds.items():
                rows += _compare(contestants, src, {"kernel": kernel, **about}, repeats)
    return rows


def _spmm_contestants(edge_index: Tensor, weight: Tensor, nodes: int, peers: bool) -> dict[str, Contestant]:
    ours = SparseMatrix.from_edge_index(edge_index, weight, num_nodes=nodes)
    if not peers:
        return {"graphcl": lambda dense: spmm(ours, dense)}
    csr = ours.to_torch()
    conv = SimpleConv(aggr="sum")
    sorted_index, sorted_weight = ours.to_edge_index()
    typed = EdgeIndex(sorted_index, sparse_size=(nodes, nodes), sort_order="col")
    typed.fill_cache_()
    contestants: dict[str, Contestant] = {
        "graphcl": lambda dense: spmm(ours, dense),
        "torch.sparse CSR": lambda dense: csr @ dense,
        "PyG message passing, unsorted": lambda dense: conv(dense, edge_index, weight),
        "PyG EdgeIndex": lambda dense: typed.matmul(dense, sorted_weight, transpose=True),
    }
    if importlib.util.find_spec("torch_scatter") is not None:
        import torch_scatter

        columns, weights, offsets = ours.columns, ours.entry_values().unsqueeze(1), ours.row_offsets
        contestants["torch-scatter segment_csr"] = lambda dense: torch_scatter.segment_csr(
            dense[columns] * weights, offsets, reduce="sum"
        )
    else:
        contestants["torch-scatter segment_csr"] = _missing
    return contestants


def _sorted_contestants(index: Tensor, size: int) -> dict[str, Contestant]:
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), torch.bincount(index, minlength=size).cumsum(0)])
    contestants: dict[str, Contestant] = {
        "graphcl": lambda src: segment_sum(src, offsets),
        "torch.segment_reduce": lambda src: torch.segment_reduce(src, "sum", offsets=offsets, initial=0),
        **_plain_torch(index, size),
    }
    if importlib.util.find_spec("torch_scatter") is not None:
        import torch_scatter

        contestants["torch-scatter segment_csr"] = lambda src: torch_scatter.segment_csr(src, offsets, reduce="sum")
    else:
        contestants["torch-scatter segment_csr"] = _missing
    return contestants


def _unsorted_contestants(index: Tensor, size: int) -> dict[str, Contestant]:
    contestants: dict[str, Contestant] = {
        "graphcl": lambda src: scatter_sum(src, index, size),
        **_plain_torch(index, size),
    }
    if importlib.util.find_spec("torch_scatter") is not None:
        import torch_scatter

        contestants["torch-scatter scatter"] = lambda src: torch_scatter.scatter(src, index, 0, dim_size=size)
    else:
        contestants["torch-scatter scatter"] = _missing
    return contestants


def _plain_torch(index: Tensor, size: int) -> dict[str, Contestant]:
    def index_add(src: Tensor) -> Tensor:
        return src.new_zeros(size, src.shape[1]).index_add(0, index, src)

    def scatter_reduce(src: Tensor) -> Tensor:
        spread = index.unsqueeze(1).expand_as(src)
        return src.new_zeros(size, src.shape[1]).scatter_reduce(0, spread, src, "sum")

    return {"index_add": index_add, "scatter_reduce": scatter_reduce}


def _missing(_: Tensor) -> Tensor:
    raise ImportError("torch-scatter is not installed")


def _compare(contestants: dict[str, Contestant], operand: Tensor, about: Row, repeats: int) -> list[Row]:
    """Time all contestants in turns on one operand, after one call each that warms up and is checked."""
    rows: dict[str, Row] = {}
    expected = contestants["graphcl"](operand)
    scale = float(expected.abs().max())
    leaf = operand.detach().requires_grad_()
    upstream = torch.ones_like(expected)

    def forward(contestant: Contestant) -> None:
        contestant(operand)

    def both(contestant: Contestant) -> None:
        torch.autograd.grad(contestant(leaf), leaf, upstream)

    for name, contestant in contestants.items():
        row = rows[name] = {**about, "contestant": name}
        try:
            error = float((contestant(operand) - expected).abs().max()) / scale
            if not error < 1e-4:
                row["failed"] = f"differs from ours by {error:.1e} of the largest entry"
                continue
            row["forward_extra_mib"] = _peak_extra(partial(forward, contestant))
        except (RuntimeError, MemoryError, ImportError, NotImplementedError) as problem:
            row["failed"] = str(problem).splitlines()[0][:120]
            continue
        try:
            row["both_extra_mib"] = _peak_extra(partial(both, contestant))
        except (RuntimeError, MemoryError, NotImplementedError) as problem:
            row["backward_failed"] = str(problem).splitlines()[0][:120]
    del expected
    done = {name: row for name, row in rows.items() if "failed" not in row}
    _take_turns(done, "forward_ms", {name: partial(forward, contestants[name]) for name in done}, repeats)
    done = {name: row for name, row in done.items() if "backward_failed" not in row}
    _take_turns(done, "both_ms", {name: partial(both, contestants[name]) for name in done}, repeats)
    return list(rows.values())


def _take_turns(rows: dict[str, Row], key: str, runs: dict[str, Callable[[], None]], repeats: int) -> None:
    times: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(repeats):
        for name, record in times.items():
            start = time.perf_counter()
            runs[name]()
            record.append((time.perf_counter() - start) * 1e3)
    for name, record in times.items():
        cuts = statistics.quantiles(record, n=5, method="inclusive")
        rows[name][key] = {"p20": cuts[0], "median": statistics.median(record), "p80": cuts[3]}


def _peak_extra(run: Callable[[], None]) -> float | None:
    """MiB that one call needs beyond what was resident before it (Linux), result included; None elsewhere."""
    before = reset_peak()
    run()
    return growth_mib(before)


def exponent(rows: Iterable[Row], key: str = "forward_ms") -> float:
    """Least-squares slope of log time over log edges."""
    points = [(math.log(row["edges"]), math.log(row[key]["median"])) for row in rows if key in row]
    mean_x, mean_y = (statistics.fmean(part) for part in zip(*points, strict=True))
    above = sum((x - mean_x) * (y - mean_y) for x, y in points)
    return above / sum((x - mean_x) ** 2 for x, _ in points)


def summary(rows: list[Row]) -> list[str]:
    """One line per contestant and size, with the ratio to ours (above 1: slower than ours)."""
    ours = {_place(row): row for row in rows if row["contestant"] == "graphcl"}
    lines = []
    for row in rows:
        head = f"{row['kernel']:12s} E {row['edges']:>9,} d {row['width']:>3} {row['contestant']:30s}"
        if "failed" in row:
            lines.append(f"{head} failed: {row['failed']}")
            continue
        mine = ours[_place(row)]
        parts = []
        for label, time_key, memory_key in (
            ("forward", "forward_ms", "forward_extra_mib"),
            ("both", "both_ms", "both_extra_mib"),
        ):
            if time_key in row:
                ratio = row[time_key]["median"] / mine[time_key]["median"]
                memory = "" if row[memory_key] is None else f" {row[memory_key]:7.0f} MiB"
                parts.append(f"{label} {row[time_key]['median']:8.2f} ms ({ratio:5.2f} x ours){memory}")
            else:
                parts.append(f"{label} failed: {row['backward_failed']}")
        lines.append(f"{head} {'; '.join(parts)}")
    return lines


def _place(row: Row) -> tuple[str, int, int]:
    return row["kernel"], row["edges"], row["width"]


def exponents(rows: list[Row]) -> list[str]:
    """Fitted exponent in E of our time, for every kernel and width measured at more than one size."""
    lines = []
    for kernel in sorted({row["kernel"] for row in rows}):
        for width in sorted({row["width"] for row in rows}):
            series = [
                row for row in rows if (row["kernel"], row["width"], row["contestant"]) == (kernel, width, "graphcl")
            ]
            if len(series) > 1:
                lines.append(f"{kernel:12s} d {width:>3}: time ~ E^{exponent(series):.2f}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the two smaller sizes and widths 16 and 64 only")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULTS / "kernels_sparse.json")
    arguments = parser.parse_args()
    edges, widths = (EDGES[:2], WIDTHS[:2]) if arguments.quick else (EDGES, WIDTHS)
    limit_memory()
    rows = run_spmm(edges, widths, repeats=arguments.repeats)
    rows += run_segment(edges, widths, repeats=arguments.repeats)
    growing = run_spmm(edges, (64,), num_nodes=None, repeats=arguments.repeats, peers=False)
    lines = [*summary(rows), f"at {NUM_NODES:,} nodes:", *exponents(rows)]
    lines += ["with nodes = edges / 10, so that the dense operand outgrows the caches:", *exponents(growing)]
    print("\n".join(lines))
    about = {
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "device": "cpu",
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps({"about": about, "rows": rows, "growing": growing}, indent=1) + "\n")


if __name__ == "__main__":
    main()
