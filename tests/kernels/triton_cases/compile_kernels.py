"""Builds the Triton kernels for compute capability 9.0 on any machine and prints registers, stack and shared memory.

The public functions are called on CPU tensors as in a test; instead of being launched, each kernel is compiled for the
arguments it was given. ``python compile_kernels.py --all`` goes through more types and widths.
"""

from __future__ import annotations

import argparse
import itertools
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from graphcl.kernels import (
    CandidateRule,
    EqualIds,
    ExcludePairs,
    ExcludeSameIndex,
    KeepPairs,
    LevelTable,
    ScoreThreshold,
    _triton_launch,
    linear_cross_entropy,
    pair_logsumexp,
    segment_logsumexp,
    segment_max,
    segment_softmax,
    segment_sum,
    triton_pairs,
    triton_segment,
)
from graphcl.kernels._csr import CsrPattern

_POINTERS = {
    torch.float32: "*fp32",
    torch.float64: "*fp64",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.int64: "*i64",
    torch.int32: "*i32",
}


class Compiled:
    """Stands in for a kernel: compiles for the arguments of a launch, writes nothing."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel

    def __getitem__(self, grid: object) -> Any:
        return self.launch

    def launch(self, **arguments: Any) -> None:
        options = {"num_warps": arguments.pop("num_warps"), "num_stages": arguments.pop("num_stages", 3)}
        signature: dict[str, str] = {}
        constants: dict[tuple[int], Any] = {}
        hints: dict[tuple[int], Any] = {}
        for place, name in enumerate(self.kernel.arg_names):
            value = arguments[name]
            if name.isupper() or value is None or isinstance(value, bool | str | tl.dtype):
                signature[name], constants[(place,)] = "constexpr", value
            elif isinstance(value, Tensor):
                signature[name], hints[(place,)] = _POINTERS[value.dtype], [["tt.divisibility", 16]]
            else:
                signature[name] = "i32"
                hints[(place,)] = [["tt.divisibility", 16]] if value % 16 == 0 else []
        built = triton.compile(
            ASTSource(self.kernel, signature, constants, hints), target=GPUTarget("cuda", 90, 32), options=options
        )
        tile = {key: value for key, value in arguments.items() if isinstance(value, int) and key.isupper()}
        print(f"{self.kernel.__name__:22}{_resources(built)} {options} {tile}", flush=True)


def _resources(built: Any) -> str:
    """Registers and spilled bytes, where the toolkit's reader is at hand, and shared memory."""
    shared = f"shared {built.metadata.shared}"
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    if not tool.exists():
        return shared
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(built.asm["cubin"])
        file.flush()
        text = subprocess.run([str(tool), "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", text)
    return shared if found is None else f"registers {found[1]:>3} stack {found[2]:>4} {shared}"


def _rules(rows: int) -> tuple[CandidateRule, ...]:
    ids = torch.arange(rows) % 3
    offsets, columns = torch.arange(rows + 1), torch.arange(rows)
    return (
        ExcludeSameIndex(),
        EqualIds(ids, ids),
        ExcludePairs(offsets, columns),
        KeepPairs(offsets, columns),
        LevelTable(ids, ids, torch.zeros(3, 3)),
        ScoreThreshold(torch.zeros(rows)),
    )


def _compile_pairs(dtype: torch.dtype, width: int, crowded: bool, rows: int = 256) -> None:
    x, y = (torch.ones(rows, width, dtype=dtype, requires_grad=True) for _ in range(2))
    vectors: dict[str, Any] = {}
    if crowded:
        names = ("temperature", "candidate_temperature", "candidate_bias")
        vectors = {name: torch.ones(rows, requires_grad=True) for name in names}
    found = pair_logsumexp(
        x,
        y,
        rules=_rules(rows) if crowded else (),
        moments=2 if crowded else 0,
        backend="triton",
        check=False,
        **vectors,
    )
    torch.stack([value for value in found if value is not None]).sum().backward()  # type: ignore[no-untyped-call]


def _compile_cross_entropy(dtype: torch.dtype, rows: int = 256) -> None:
    hidden, weight = (torch.ones(rows, 64, dtype=dtype, requires_grad=True) for _ in range(2))
    linear_cross_entropy(hidden, weight, torch.arange(rows), backend="triton", check=False).backward()  # type: ignore[no-untyped-call]


def _compile_segments(dtype: torch.dtype, width: int) -> None:
    src, offsets = torch.ones(512, width, dtype=dtype), torch.arange(0, 513, 16)
    for reduce in (segment_sum, segment_max, segment_logsumexp, segment_softmax):
        reduce(src, offsets, backend="triton")
    pattern = CsrPattern(offsets, torch.zeros(512, dtype=torch.int64), 512)
    triton_segment.csr_matmul(offsets, pattern.columns, torch.ones(512, dtype=dtype), src)
    triton_segment.sampled_dot(pattern, src[:32], src)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="more types and widths")
    everything = parser.parse_args().all
    _triton_launch.INTERPRETED = True  # CPU tensors stand in for CUDA tensors
    setattr(_triton_launch, "widen", lambda dtype: False)  # noqa: B010
    for module, names in (
        (triton_pairs, ("_forward_kernel", "_backward_kernel")),
        (triton_segment, ("_reduce_kernel", "_logsumexp_kernel", "_softmax_kernel", "_sampled_dot_kernel")),
    ):
        for name in names:
            setattr(module, name, Compiled(getattr(module, name)))
    types = (torch.bfloat16, torch.float16, torch.float32, torch.float64) if everything else (torch.bfloat16,)
    widths = (16, 64, 128, 768) if everything else (64,)
    for dtype, width, crowded in itertools.product(types, widths, (False, True)):
        print(f"pairs {dtype} {width} {'crowded' if crowded else 'plain'}")
        _compile_pairs(dtype, width, crowded)
    for dtype in types:
        print(f"cross-entropy {dtype}")
        _compile_cross_entropy(dtype)
    for dtype, width in itertools.product(types, (1, 64, 256) if everything else (64,)):
        print(f"segments {dtype} {width}")
        _compile_segments(dtype, width)


if __name__ == "__main__":
    main()
