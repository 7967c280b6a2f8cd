"""Triton backend of the segment reductions and sparse products: forward kernels over compressed rows.

A program owns a few segments and a slice of the features, and walks along the rows of its segments, however long: no
atomics, so a result has the same bits on every run. Gradients are composed from the same kernels in
`graphcl.kernels.segment` and `graphcl.kernels.sparse`. Float types only; halves are accumulated in float32.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators
# Triton ships no types; its kernels cannot be annotated either, so the allowances above are for them alone.

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from graphcl.kernels import _triton_launch as launch
from graphcl.kernels._csr import CsrPattern
from graphcl.kernels._segments import Segments

__all__ = [
    "csr_matmul",
    "sampled_dot",
    "segment_extreme",
    "segment_logsumexp",
    "segment_softmax",
    "segment_sum",
]

_CELLS = 2048  # numbers in the tile of one program
_FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@triton.jit
def _bounds(offsets, num_segments, SEGMENTS: tl.constexpr):
    """Segments of this program and where their rows begin and end."""
    segment = tl.program_id(0).to(tl.int64) * SEGMENTS + tl.arange(0, SEGMENTS)
    inside = segment < num_segments
    start = tl.load(offsets + segment, mask=inside, other=0)
    stop = tl.load(offsets + segment + 1, mask=inside, other=0)
    return segment, inside, start, stop


@triton.jit
def _rows(start, stop, first, order, ROWS: tl.constexpr):
    """Positions in the sorted order, whether they belong to the segment, and the rows of the source they stand for."""
    position = start[:, None] + first + tl.arange(0, ROWS)[None, :]
    live = position < stop[:, None]
    row = position
    if order is not None:
        row = tl.load(order + position, mask=live, other=0).to(tl.int64)
    return position, live, row


@triton.jit
def _reduce_kernel(
    src, stride, offsets, order, values, out, num_segments, width,
    EXTREME: tl.constexpr, LARGEST: tl.constexpr, ACC: tl.constexpr,
    SEGMENTS: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Sum (weighted by ``values``), maximum or minimum of every segment."""
    segment, inside, start, stop = _bounds(offsets, num_segments, SEGMENTS)
    feature = tl.program_id(1).to(tl.int64) * WIDTH + tl.arange(0, WIDTH)
    identity = 0.0
    if EXTREME:
        identity = float("-inf") if LARGEST else float("inf")
    result = tl.full((SEGMENTS, WIDTH), identity, dtype=ACC)
    not_a_number = tl.zeros((SEGMENTS, WIDTH), dtype=tl.int32)
    for first in range(0, tl.max(stop - start, axis=0), ROWS):
        position, live, row = _rows(start, stop, first, order, ROWS)
        cells = live[:, :, None] & (feature < width)[None, None, :]
        tile = tl.load(src + row[:, :, None] * stride + feature[None, None, :], mask=cells, other=identity).to(ACC)
        if EXTREME:
            not_a_number = tl.maximum(not_a_number, tl.max(tl.where(tile == tile, 0, 1), axis=1))
            tile_result = tl.max(tile, axis=1) if LARGEST else tl.min(tile, axis=1)
            result = tl.maximum(result, tile_result) if LARGEST else tl.minimum(result, tile_result)
        else:
            if values is not None:
                tile *= tl.load(values + position, mask=live, other=0.0).to(ACC)[:, :, None]
            result += tl.sum(tile, axis=1)
    if EXTREME:
        result = tl.where(not_a_number > 0, float("nan"), result)
    cells = inside[:, None] & (feature < width)[None, :]
    tl.store(out + segment[:, None] * width + feature[None, :], result.to(out.dtype.element_ty), mask=cells)


@triton.jit
def _mass(
    src, stride, order, start, stop, feature, width,
    ACC: tl.constexpr, SEGMENTS: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Shift (the peak, 0 where that is infinite) and sum of exponentials below it, of every segment."""
    peak = tl.full((SEGMENTS, WIDTH), float("-inf"), dtype=ACC)
    shift = tl.zeros((SEGMENTS, WIDTH), dtype=ACC)
    total = tl.zeros((SEGMENTS, WIDTH), dtype=ACC)
    for first in range(0, tl.max(stop - start, axis=0), ROWS):
        _position, live, row = _rows(start, stop, first, order, ROWS)
        cells = live[:, :, None] & (feature < width)[None, None, :]
        tile = tl.load(src + row[:, :, None] * stride + feature[None, None, :], mask=cells, other=float("-inf")).to(ACC)
        new_peak = tl.maximum(peak, tl.max(tile, axis=1))
        shift = tl.where(tl.abs(new_peak) == float("inf"), 0.0, new_peak)
        total = total * tl.exp(peak - shift) + tl.sum(tl.exp(tile - shift[:, None, :]), axis=1)
        peak = new_peak
    return shift, total


@triton.jit
def _logsumexp_kernel(
    src, stride, offsets, order, out, num_segments, width,
    ACC: tl.constexpr, SEGMENTS: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    segment, inside, start, stop = _bounds(offsets, num_segments, SEGMENTS)
    feature = tl.program_id(1).to(tl.int64) * WIDTH + tl.arange(0, WIDTH)
    shift, total = _mass(src, stride, order, start, stop, feature, width, ACC, SEGMENTS, ROWS, WIDTH)
    empty = total == 0
    result = tl.where(empty, float("-inf"), shift + tl.log(tl.where(empty, 1.0, total)))
    cells = inside[:, None] & (feature < width)[None, :]
    tl.store(out + segment[:, None] * width + feature[None, :], result.to(out.dtype.element_ty), mask=cells)


@triton.jit
def _softmax_kernel(
    src, stride, offsets, order, out, num_segments, width,
    ACC: tl.constexpr, SEGMENTS: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    _segment, _inside, start, stop = _bounds(offsets, num_segments, SEGMENTS)
    feature = tl.program_id(1).to(tl.int64) * WIDTH + tl.arange(0, WIDTH)
    shift, total = _mass(src, stride, order, start, stop, feature, width, ACC, SEGMENTS, ROWS, WIDTH)
    total = tl.where(total == 0, 1.0, total)
    for first in range(0, tl.max(stop - start, axis=0), ROWS):
        _position, live, row = _rows(start, stop, first, order, ROWS)
        cells = live[:, :, None] & (feature < width)[None, None, :]
        tile = tl.load(src + row[:, :, None] * stride + feature[None, None, :], mask=cells, other=float("-inf")).to(ACC)
        share = tl.exp(tile - shift[:, None, :]) / total[:, None, :]
        tl.store(out + row[:, :, None] * width + feature[None, None, :], share.to(out.dtype.element_ty), mask=cells)


@triton.jit
def _sampled_dot_kernel(
    x, y, x_stride, y_stride, rows, columns, out, num_entries, width,
    ACC: tl.constexpr, ENTRIES: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    entry = tl.program_id(0).to(tl.int64) * ENTRIES + tl.arange(0, ENTRIES)
    inside = entry < num_entries
    row = tl.load(rows + entry, mask=inside, other=0).to(tl.int64)
    column = tl.load(columns + entry, mask=inside, other=0).to(tl.int64)
    total = tl.zeros((ENTRIES,), dtype=ACC)
    for first in range(0, width, WIDTH):
        feature = first + tl.arange(0, WIDTH)
        cells = inside[:, None] & (feature < width)[None, :]
        left = tl.load(x + row[:, None] * x_stride + feature[None, :], mask=cells, other=0.0).to(ACC)
        right = tl.load(y + column[:, None] * y_stride + feature[None, :], mask=cells, other=0.0).to(ACC)
        total += tl.sum(left * right, axis=1)
    tl.store(out + entry, total.to(out.dtype.element_ty), mask=inside)


def _check(name: str, value: Tensor) -> None:
    launch.check_device(value.device)
    if value.dtype not in _FLOATS:
        raise TypeError(
            f"backend 'triton' takes float tensors, got {name} of dtype {value.dtype}; pass backend='torch'"
        )


def _tile(num_segments: int, num_rows: int, width: int) -> tuple[tuple[int, int], dict[str, Any]]:
    """Grid and tile: as wide as the features, as long as a mean segment, and several segments where that is short."""
    features = launch.power_of_two(width, 1, 128)
    rows = launch.power_of_two(-(-num_rows // max(num_segments, 1)), 1, _CELLS // features)
    segments = launch.power_of_two(num_segments, 1, min(_CELLS // features // rows, 64))
    grid = -(-num_segments // segments), -(-width // features)
    return grid, {"SEGMENTS": segments, "ROWS": rows, "WIDTH": features, "num_warps": 4}


def _reduced(
    src: Tensor, offsets: Tensor, order: Tensor | None, values: Tensor | None, *, extreme: bool, largest: bool
) -> Tensor:
    _check("src", src)
    src = launch.row_major(src.detach())
    num_segments, width = offsets.shape[0] - 1, src.shape[1]
    out = src.new_empty(num_segments, width)
    if out.numel() > 0:
        grid, tile = _tile(num_segments, src.shape[0] if order is None else order.shape[0], width)
        _reduce_kernel[grid](
            src=src, stride=src.stride(0), offsets=offsets.contiguous(), order=order, values=values, out=out,
            num_segments=num_segments, width=width,
            EXTREME=extreme, LARGEST=largest, ACC=launch.accumulator(src.dtype), **tile,
        )  # fmt: skip
    return out


def segment_sum(src: Tensor, segments: Segments) -> Tensor:
    """Sum of the rows of every segment, ``(S, F)``."""
    return _reduced(src, segments.offsets, segments.order, None, extreme=False, largest=False)


def segment_extreme(src: Tensor, segments: Segments, largest: bool) -> Tensor:
    """Largest or smallest entry of every segment, ``(S, F)``; an empty segment holds an infinity for the caller."""
    return _reduced(src, segments.offsets, segments.order, None, extreme=True, largest=largest)


def segment_logsumexp(src: Tensor, segments: Segments) -> Tensor:
    """Log-sum-exp of every segment, ``(S, F)``, in one pass over the rows."""
    return _exponential(_logsumexp_kernel, src, segments, segments.size)


def segment_softmax(src: Tensor, segments: Segments) -> Tensor:
    """Softmax within every segment, ``(E, F)``: one pass for the mass, one to write."""
    return _exponential(_softmax_kernel, src, segments, src.shape[0])


def _exponential(kernel: Any, src: Tensor, segments: Segments, num_out: int) -> Tensor:
    _check("src", src)
    src = launch.row_major(src.detach())
    out = src.new_empty(num_out, src.shape[1])
    if out.numel() > 0:
        # Unsorted rows are sorted first; that sets the offsets as well.
        order = segments.order
        grid, tile = _tile(segments.size, src.shape[0], src.shape[1])
        kernel[grid](
            src=src, stride=src.stride(0), offsets=segments.offsets.contiguous(), order=order, out=out,
            num_segments=segments.size, width=src.shape[1], ACC=launch.accumulator(src.dtype), **tile,
        )  # fmt: skip
    return out


def csr_matmul(offsets: Tensor, columns: Tensor | None, values: Tensor | None, dense: Tensor) -> Tensor:
    """``out_i = sum over entries e of row i of values_e * dense[columns_e]``; None means ``0 .. E - 1``, or ones."""
    weights = None if values is None else values.detach().contiguous()
    order = None if columns is None else columns.contiguous()
    return _reduced(dense, offsets, order, weights, extreme=False, largest=False)


def sampled_dot(pattern: CsrPattern, x: Tensor, y: Tensor) -> Tensor:
    """``<x[row_e], y[column_e]>`` for every entry of the pattern, ``(E,)``; nothing of size E x d is formed."""
    _check("x", x)
    x, y = launch.row_major(x.detach()), launch.row_major(y.detach())
    num_entries, width = pattern.columns.shape[0], x.shape[1]
    out = x.new_empty(num_entries)
    if num_entries > 0:
        features = launch.power_of_two(width, 1, 128)
        entries = max(_CELLS // features // 2, 1)
        _sampled_dot_kernel[(-(-num_entries // entries),)](
            x=x, y=y, x_stride=x.stride(0), y_stride=y.stride(0),
            rows=pattern.rows.contiguous(), columns=pattern.columns.contiguous(), out=out,
            num_entries=num_entries, width=width,
            ACC=launch.accumulator(x.dtype), ENTRIES=entries, WIDTH=features, num_warps=4,
        )  # fmt: skip
    return out
