"""Kernels on a CUDA device, as shares of what the same device was measured to reach.

    python benchmarks/kernels_gpu.py [--repeats 20] [--sweep]

Segment sums and sparse products are held against a measured copy (bytes that must move, per second), pairs and
cross-entropy against a measured matrix product of the same type (operations that the mathematics needs, per second: one
product forward, two backward; recomputation earns no credit). Beside ours stand torch's own operators, the dense
form, ``torch.compile``, torch-scatter and PyG where installed. Every result is compared with a float64 or dense truth;
a peer that fails, runs out of memory or differs is listed with the reason. ``--sweep`` tries block sizes of our pair
kernel.

Without a CUDA device nothing is measured, and the results file says so. `run_gpu` returns the rows as dictionaries.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from graphcl.kernels import SparseMatrix, linear_cross_entropy, pair_logsumexp, segment_sum, spmm

RESULTS = Path(__file__).parent / "results" / "kernels_gpu.json"
NOT_MEASURED = "no GPU at hand: not measured"

Row = dict[str, Any]


@dataclass(frozen=True)
class Sizes:
    """What is measured; small values make a dry run on any device."""

    copy_floats: int = 2**28
    product_edge: int = 8192
    segments: int = 100_000
    edges: tuple[int, ...] = (1_000_000, 5_000_000)
    segment_width: int = 64
    pair_rows: tuple[int, ...] = (8_192, 65_536)
    pair_widths: tuple[int, ...] = (64, 128)
    tokens: int = 16_384
    classes: int = 50_000
    class_widths: tuple[int, ...] = (64, 256)
    types: tuple[torch.dtype, ...] = (torch.bfloat16, torch.float32)
    repeats: int = 20


@dataclass(frozen=True)
class Case:
    """One workload: leaves, contestants over them, what a result should be, and the work it is credited with.

    A contestant maps the leaves to a result. With ``differentiated`` the gradients of its sum are timed as well.
    """

    about: Row
    leaves: tuple[Tensor, ...]
    contestants: dict[str, Callable[..., Tensor]]
    truth: Tensor
    tolerance: float
    work: float
    limit: float
    unit: str
    differentiated: bool = False


def run_gpu(sizes: Sizes | None = None, *, sweep: bool = False) -> list[Row]:
    """One row per contestant and workload; a single row that says so where there is no CUDA device."""
    if not torch.cuda.is_available():
        return [{"kernel": "all", "status": NOT_MEASURED}]
    return measure(torch.device("cuda"), sizes or Sizes(), sweep=sweep)


def measure(device: torch.device, sizes: Sizes, *, sweep: bool = False) -> list[Row]:
    """Limits first, then every workload as a share of them."""
    copy = copy_bandwidth(device, sizes)
    rows: list[Row] = [{"kernel": "copy", "contestant": "Tensor.copy_", "status": "ok", "GB/s": copy / 1e9}]
    for case in (*segment_cases(device, sizes, copy), *spmm_cases(device, sizes, copy)):
        rows += compete(case, device, sizes.repeats)
    for dtype in sizes.types:
        product = product_throughput(device, dtype, sizes)
        rows.append(
            {"kernel": "product", "contestant": "matmul", "type": str(dtype), "status": "ok", "TFLOP/s": product / 1e12}
        )
        for case in pair_cases(device, dtype, sizes, product, sweep):
            rows += compete(case, device, sizes.repeats)
        for case in cross_entropy_cases(device, dtype, sizes, product):
            rows += compete(case, device, sizes.repeats)
    return rows


def copy_bandwidth(device: torch.device, sizes: Sizes) -> float:
    """Bytes read and written per second by a large copy."""
    source = torch.zeros(sizes.copy_floats, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / quantiles(lambda: target.copy_(source), device, sizes.repeats)[1]


def product_throughput(device: torch.device, dtype: torch.dtype, sizes: Sizes) -> float:
    """Floating-point operations per second of a square matrix product."""
    edge = sizes.product_edge
    a, b = (torch.randn(edge, edge, device=device, dtype=dtype) for _ in range(2))
    return 2 * edge**3 / quantiles(lambda: a @ b, device, sizes.repeats)[1]


def segment_cases(device: torch.device, sizes: Sizes, copy: float) -> Iterator[Case]:
    generator = torch.Generator().manual_seed(0)
    for edges in sizes.edges:
        index = torch.sort(torch.randint(sizes.segments, (edges,), generator=generator)).values.to(device)
        offsets = torch.searchsorted(index, torch.arange(sizes.segments + 1, device=device))
        src = torch.randn(edges, sizes.segment_width, generator=generator).to(device)
        contestants: dict[str, Callable[..., Tensor]] = {
            "graphcl triton": lambda x, o=offsets: segment_sum(x, o, backend="triton", check=False),
            "graphcl torch": lambda x, o=offsets: segment_sum(x, o, backend="torch", check=False),
            "index_add_": lambda x, i=index: x.new_zeros(sizes.segments, x.shape[1]).index_add_(0, i, x),
            "scatter_reduce": lambda x, i=index: x.new_zeros(sizes.segments, x.shape[1]).scatter_reduce(
                0, i[:, None].expand_as(x), x, "sum"
            ),
            "torch-scatter": lambda x, o=offsets: _torch_scatter().segment_csr(x, o, reduce="sum"),
            "PyG scatter": lambda x, i=index: _pyg_utils().scatter(x, i, 0, sizes.segments, "sum"),
        }
        contestants["torch.compile(index_add)"] = torch.compile(contestants["index_add_"])
        truth = torch.zeros(sizes.segments, src.shape[1], dtype=torch.float64, device=device)
        yield Case(
            about={"kernel": "segment sum", "edges": edges, "segments": sizes.segments, "width": src.shape[1]},
            leaves=(src,),
            contestants=contestants,
            truth=truth.index_add_(0, index, src.double()),
            tolerance=1e-5,
            work=float(src.nbytes + 4 * sizes.segments * src.shape[1] + offsets.nbytes),
            limit=copy,
            unit="GB/s",
        )


def spmm_cases(device: torch.device, sizes: Sizes, copy: float) -> Iterator[Case]:
    """Products with a random graph; the credit assumes that every edge reads its row from memory."""
    generator = torch.Generator().manual_seed(1)
    for edges in sizes.edges:
        index = torch.sort(torch.randint(sizes.segments, (edges,), generator=generator)).values.to(device)
        columns = torch.randint(sizes.segments, (edges,), generator=generator).to(device)
        offsets = torch.searchsorted(index, torch.arange(sizes.segments + 1, device=device))
        values = torch.rand(edges, generator=generator).to(device)
        dense = torch.randn(sizes.segments, sizes.segment_width, generator=generator).to(device)
        shape = (sizes.segments, sizes.segments)
        ours = SparseMatrix(offsets, columns, values, shape, check=False)
        csr = torch.sparse_csr_tensor(offsets, columns, values, shape)
        contestants: dict[str, Callable[..., Tensor]] = {
            "graphcl triton": lambda x, a=ours: spmm(a, x, backend="triton"),
            "graphcl torch": lambda x, a=ours: spmm(a, x, backend="torch"),
            "torch.sparse CSR": lambda x, a=csr: a @ x,
            "gather, index_add_": lambda x, i=index, c=columns, v=values: torch.zeros_like(x).index_add_(
                0, i, x[c] * v[:, None]
            ),
            "torch-scatter": lambda x, o=offsets, c=columns, v=values: _torch_scatter().segment_csr(
                x[c] * v[:, None], o, reduce="sum"
            ),
            "PyG scatter": lambda x, i=index, c=columns, v=values: _pyg_utils().scatter(
                x[c] * v[:, None], i, 0, sizes.segments, "sum"
            ),
        }
        contestants["torch.compile(gather, index_add)"] = torch.compile(contestants["gather, index_add_"])
        truth = torch.zeros(sizes.segments, dense.shape[1], dtype=torch.float64, device=device)
        truth.index_add_(0, index, dense.double()[columns] * values.double()[:, None])
        yield Case(
            about={"kernel": "spmm", "edges": edges, "nodes": sizes.segments, "width": dense.shape[1]},
            leaves=(dense,),
            contestants=contestants,
            truth=truth,
            tolerance=1e-5,
            work=float(4 * dense.shape[1] * (edges + sizes.segments) + columns.nbytes + values.nbytes + offsets.nbytes),
            limit=copy,
            unit="GB/s",
        )


def pair_cases(device: torch.device, dtype: torch.dtype, sizes: Sizes, product: float, sweep: bool) -> Iterator[Case]:
    generator = torch.Generator().manual_seed(2)
    for rows in sizes.pair_rows:
        for width in sizes.pair_widths:
            leaves = tuple(
                functional.normalize(torch.randn(rows, width, generator=generator)).to(device, dtype).requires_grad_()
                for _ in range(2)
            )
            contestants: dict[str, Callable[..., Tensor]] = {
                f"graphcl {backend}": lambda x, y, b=backend: (
                    pair_logsumexp(x, y, temperature=0.1, backend=b, check=False).logsumexp
                )
                for backend in ("triton", "torch")
            }
            contestants["dense"] = lambda x, y: torch.logsumexp((x @ y.T) / 0.1, dim=1)
            contestants["torch.compile(dense)"] = torch.compile(contestants["dense"])
            for edges in ((32, 32), (64, 32), (64, 64), (128, 64), (128, 128)) if sweep else ():
                contestants[f"graphcl triton {edges}"] = lambda x, y, e=edges: (
                    pair_logsumexp(x, y, temperature=0.1, backend="triton", check=False, block_size=e).logsumexp
                )
            with torch.no_grad():
                x, y = (leaf.double() for leaf in leaves)
                truth = torch.cat([torch.logsumexp(x[i : i + 1024] @ y.T / 0.1, dim=1) for i in range(0, rows, 1024)])
            yield Case(
                about={"kernel": "pairs", "rows": rows, "width": width, "type": str(dtype)},
                leaves=leaves,
                contestants=contestants,
                truth=truth,
                tolerance=2e-2 if dtype == torch.bfloat16 else 1e-5,
                work=3 * 2.0 * rows * rows * width,
                limit=product,
                unit="TFLOP/s",
                differentiated=True,
            )


def cross_entropy_cases(device: torch.device, dtype: torch.dtype, sizes: Sizes, product: float) -> Iterator[Case]:
    generator = torch.Generator().manual_seed(3)
    for width in sizes.class_widths:
        hidden, weight = (
            (torch.randn(rows, width, generator=generator) / width**0.25).to(device, dtype).requires_grad_()
            for rows in (sizes.tokens, sizes.classes)
        )
        target = torch.randint(sizes.classes, (sizes.tokens,), generator=generator).to(device)
        contestants: dict[str, Callable[..., Tensor]] = {
            f"graphcl {backend}": lambda h, w, b=backend, t=target: linear_cross_entropy(
                h, w, t, backend=b, check=False
            )
            for backend in ("triton", "torch")
        }
        contestants["dense"] = lambda h, w, t=target: functional.cross_entropy(h @ w.T, t)
        contestants["torch.compile(dense)"] = torch.compile(contestants["dense"])
        with torch.no_grad():
            h, w = hidden.double(), weight.double()
            parts = [
                functional.cross_entropy(h[i : i + 1024] @ w.T, target[i : i + 1024], reduction="sum")
                for i in range(0, sizes.tokens, 1024)
            ]
        yield Case(
            about={
                "kernel": "cross-entropy",
                "tokens": sizes.tokens,
                "classes": sizes.classes,
                "width": width,
                "type": str(dtype),
            },
            leaves=(hidden, weight),
            contestants=contestants,
            truth=torch.stack(parts).sum() / sizes.tokens,
            tolerance=2e-2 if dtype == torch.bfloat16 else 1e-5,
            work=3 * 2.0 * sizes.tokens * sizes.classes * width,
            limit=product,
            unit="TFLOP/s",
            differentiated=True,
        )


def compete(case: Case, device: torch.device, repeats: int) -> list[Row]:
    """One row per contestant: time, share of the limit, extra memory; or the reason why there is none."""
    rows: list[Row] = []
    for name, contestant in case.contestants.items():
        row: Row = {**case.about, "contestant": name}
        try:
            row |= _measured(case, contestant, device, repeats)
        except torch.OutOfMemoryError:
            row["status"] = "out of memory"
        except (RuntimeError, ImportError, ValueError, TypeError, NotImplementedError) as error:
            row["status"] = f"failed: {(str(error).strip() or type(error).__name__).splitlines()[0][:200]}"
        rows.append(row)
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return rows


def _measured(case: Case, contestant: Callable[..., Tensor], device: torch.device, repeats: int) -> Row:
    def call() -> object:
        out = contestant(*case.leaves)
        return torch.autograd.grad(out.sum(), case.leaves) if case.differentiated else out

    result = contestant(*case.leaves).detach().double()
    error = float((result - case.truth).abs().max() / case.truth.abs().max().clamp_min(1e-30))
    del result
    if not error <= case.tolerance:
        return {"status": f"wrong answer: relative error {error:.1e}"}
    low, middle, high = quantiles(call, device, repeats)
    scale = 1e12 if case.unit == "TFLOP/s" else 1e9
    return {
        "status": "ok",
        "ms": [round(1e3 * value, 4) for value in (low, middle, high)],
        case.unit: case.work / middle / scale,
        "share": case.work / middle / case.limit,
        "extra MiB": _extra_memory(call, device),
        "relative error": error,
    }


def quantiles(call: Callable[[], object], device: torch.device, repeats: int) -> tuple[float, float, float]:
    """20, 50 and 80 per cent quantiles of the seconds of one call, after a warm-up."""
    for _ in range(3):
        call()
    seconds = []
    for _ in range(max(repeats, 2)):
        if device.type == "cuda":
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            start.record()
            call()
            stop.record()
            torch.cuda.synchronize(device)
            seconds.append(start.elapsed_time(stop) / 1e3)
        else:
            before = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - before)
    fifths = statistics.quantiles(seconds, n=5)
    return fifths[0], statistics.median(seconds), fifths[3]


def _extra_memory(call: Callable[[], object], device: torch.device) -> float | None:
    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    torch.cuda.synchronize(device)
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20


def _torch_scatter() -> Any:
    import torch_scatter

    return torch_scatter


def _pyg_utils() -> Any:
    from torch_geometric import utils

    return utils


def _print(rows: Sequence[Row]) -> None:
    for row in rows:
        about = ", ".join(
            f"{key} {row[key]}"
            for key in ("edges", "segments", "nodes", "rows", "tokens", "classes", "width", "type")
            if key in row
        )
        if row["status"] != "ok":
            print(f"{row['kernel']:14} {row.get('contestant', ''):34} {row['status']}  {about}")
            continue
        speed = next(f"{row[unit]:10.2f} {unit:8}" for unit in ("GB/s", "TFLOP/s") if unit in row)
        share = f"{100 * row['share']:6.1f} %" if "share" in row else " " * 8
        taken = f"{row['ms'][1]:10.3f} ms" if "ms" in row else " " * 13
        print(f"{row['kernel']:14} {row.get('contestant', ''):34} {taken} {speed} {share}  {about}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=Sizes.repeats, help="timed calls of every contestant")
    parser.add_argument("--sweep", action="store_true", help="try block sizes of the pair kernel")
    options = parser.parse_args()
    rows = run_gpu(replace(Sizes(), repeats=options.repeats), sweep=options.sweep)
    _print(rows)
    record = {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else NOT_MEASURED,
        "machine": f"{platform.machine()}, {platform.system()}",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "float32 products": "tf32" if torch.backends.cuda.matmul.allow_tf32 else "ieee",
        "rows": rows,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
