"""What the Triton kernels share: where they may run, how large their tiles are, and the tile product."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators
# Triton ships no types; its kernels cannot be annotated either, so the allowances above are for them alone.

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def tile_product(a, b, PRECISION: tl.constexpr, ACC: tl.constexpr, WIDEN: tl.constexpr):
    """``a @ b`` accumulated in ``ACC``. ``WIDEN`` spells a narrow product in float32, for the interpreter."""
    if ACC == tl.float64:  # noqa: SIM300
        # Matrix units for float64 are not on every device; this type serves verification, not speed.
        product = tl.sum(a[:, :, None] * b[None, :, :], axis=1)
    elif WIDEN:
        product = tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision=PRECISION)
    else:
        product = tl.dot(a, b, input_precision=PRECISION)
    return product


# Triton decides when a kernel is defined, not when it is launched, whether it compiles or interprets.
INTERPRETED = not isinstance(tile_product, triton.runtime.JITFunction)


def check_device(device: torch.device) -> None:
    """Compiled kernels run on CUDA tensors, interpreted ones on CPU tensors."""
    if device.type == "cuda" or (device.type == "cpu" and INTERPRETED):
        return
    raise ValueError(
        f"backend 'triton' runs on CUDA tensors, got tensors on {device}; pass backend='torch', or set "
        "TRITON_INTERPRET=1 before triton is first imported to run the kernels slowly on the CPU"
    )


def multiprocessors(device: torch.device) -> int:
    """Processors that programs spread over; 1 where the kernels are interpreted."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def accumulator(dtype: torch.dtype) -> tl.dtype:
    return tl.float64 if dtype == torch.float64 else tl.float32


def float32_precision() -> str:
    """Exact float32 products unless torch's own switch asks for the 10-bit form."""
    return "tf32" if torch.backends.cuda.matmul.allow_tf32 else "ieee"


def widen(dtype: torch.dtype) -> bool:
    """The interpreter stores bfloat16 as raw 16-bit integers and would multiply those."""
    return INTERPRETED and dtype == torch.bfloat16


class TileShape(NamedTuple):
    """Launch constants of a pair kernel.

    Attributes:
        fixed: rows of the side a program owns.
        moving: rows of the side it walks along, per step.
        features: width of the gradient slice a program adds up.
        chunk: features per load of a similarity; a row no wider than this is loaded once.
        warps: warps per program.
        stages: depth of the software pipeline.
    """

    fixed: int
    moving: int
    features: int
    chunk: int
    warps: int
    stages: int


# Largest tile by (bytes per number, backward, crowded), chosen so that a build for compute capability 9.0 keeps its
# tile in registers. `crowded` is a call with lists, tables, thresholds, several ids or moments, which has more to hold;
# float64 spells the product out and keeps its cube of operands small.
_WIDEST = {
    (2, False, False): TileShape(128, 128, 128, 128, 8, 3),
    (2, False, True): TileShape(64, 64, 128, 128, 8, 3),
    (2, True, False): TileShape(64, 64, 128, 128, 4, 2),
    (2, True, True): TileShape(64, 64, 128, 128, 8, 2),
    (4, False, False): TileShape(64, 32, 64, 64, 8, 2),
    (4, False, True): TileShape(64, 32, 64, 32, 8, 2),
    (4, True, False): TileShape(64, 32, 64, 64, 8, 2),
    (4, True, True): TileShape(64, 32, 64, 32, 8, 2),
    (8, False, False): TileShape(16, 16, 16, 16, 4, 1),
    (8, False, True): TileShape(16, 16, 16, 16, 4, 1),
    (8, True, False): TileShape(16, 16, 16, 16, 4, 1),
    (8, True, True): TileShape(16, 16, 16, 16, 4, 1),
}


def power_of_two(value: int, low: int, high: int) -> int:
    """Smallest power of two that is at least ``value``, inside ``low .. high``."""
    return min(max(1 << max(value - 1, 0).bit_length(), low), high)


def tile_shape(
    dtype: torch.dtype,
    fixed: int,
    moving: int,
    dim: int,
    *,
    backward: bool,
    crowded: bool,
    blocks: tuple[int, int] | None = None,
) -> TileShape:
    """Tile of a pair kernel over ``fixed`` x ``moving`` pairs of width ``dim``; ``blocks`` may narrow its edges.

    A tile product needs at least 16 rows, columns and features.
    """
    widest = _WIDEST[dtype.itemsize, backward, crowded]
    edges = blocks if blocks is not None else (widest.fixed, widest.moving)
    chunk = power_of_two(dim, 16, widest.chunk)
    return TileShape(
        power_of_two(min(edges[0], fixed), 16, widest.fixed),
        power_of_two(min(edges[1], moving), 16, widest.moving),
        chunk if dim <= chunk else power_of_two(dim, 16, widest.features),
        chunk,
        widest.warps,
        widest.stages,
    )


def splits(blocks: int, steps: int, device: torch.device) -> int:
    """Programs that share one block, so that few blocks still fill the device; their results are added afterwards."""
    wanted = -(-2 * multiprocessors(device) // max(blocks, 1))
    return max(1, min(wanted, steps))


def row_major(x: Tensor) -> Tensor:
    """``x`` itself when its rows are dense, however far apart they lie; a copy otherwise."""
    return x if x.stride(-1) == 1 or x.shape[-1] <= 1 else x.contiguous()
