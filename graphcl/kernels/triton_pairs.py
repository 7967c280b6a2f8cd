"""Triton backend of the pair kernels: one fused sweep forward, one recomputing sweep per side backward.

A program owns a block of one side (``fixed``) and walks along the other (``moving``). The side whose rows get one sum
each is the *softmax side*: it is fixed in forward and for its own gradient, and moving for the gradient of the other
side. So one backward kernel serves both, nothing is ever added atomically, and a result has the same bits on every run.

Supported rules: `ExcludeSameIndex`, `EqualIds`, `ExcludePairs`, one `KeepPairs`, `LevelTable`, `ScoreThreshold`, and
`AllOf` of these. `AnyOf`, `LabelDistanceWeight` and rules of your own call Python per tile, which a compiled kernel
cannot: ``auto`` leaves them to the ``torch`` backend. float64 serves verification and is left to ``torch``, too.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators
# Triton ships no types; its kernels cannot be annotated either, so the allowances above are for them alone.

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from graphcl.kernels import _triton_launch as launch
from graphcl.kernels._arguments import compute_dtype
from graphcl.kernels._product import ScaledProduct, with_row_bias
from graphcl.kernels._triton_launch import tile_product
from graphcl.kernels.rules import (
    AllOf,
    CandidateRule,
    EqualIds,
    ExcludePairs,
    ExcludeSameIndex,
    KeepPairs,
    LevelTable,
    ScoreThreshold,
)

__all__ = ["logsumexp", "logsumexp_both", "supports"]

Blocks = tuple[int, int] | None
_END = 2**62  # past every entry of a pair list


@triton.jit
def _load_tile(ptr, stride, rows, num_rows, first, dim, WIDTH: tl.constexpr):
    features = first + tl.arange(0, WIDTH)
    inside = (rows < num_rows)[:, None] & (features < dim)[None, :]
    return tl.load(ptr + rows[:, None] * stride + features[None, :], mask=inside, other=0.0)


@triton.jit
def _load_vector(ptr, index, length):
    return tl.load(ptr + index, mask=index < length, other=0)


@triton.jit
def _similarity(
    fixed_ptr, fixed_stride, fixed, num_fixed, moving_ptr, moving_stride, moving, num_moving, dim,
    CHUNK: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr, WIDEN: tl.constexpr,
    FIXED: tl.constexpr, MOVING: tl.constexpr,
):  # fmt: skip
    """Products of a tile whose rows are wider than one load."""
    similarity = tl.zeros((FIXED, MOVING), dtype=ACC)
    for first in range(0, dim, CHUNK):
        left = _load_tile(fixed_ptr, fixed_stride, fixed, num_fixed, first, dim, CHUNK)
        right = _load_tile(moving_ptr, moving_stride, moving, num_moving, first, dim, CHUNK)
        similarity += tile_product(left, tl.trans(right), PRECISION, ACC, WIDEN)
    return similarity


@triton.jit
def _list_start(offsets, entries, fixed, num_fixed, first, search_steps):
    """Per fixed row: position of its first listed partner that is at least ``first``, and the end of its list."""
    low = _load_vector(offsets, fixed, num_fixed)
    end = _load_vector(offsets + 1, fixed, num_fixed)
    if first > 0:
        high = end
        for _ in range(search_steps):
            middle = (low + high) // 2
            open_ = low < high
            entry = tl.load(entries + middle, mask=open_, other=0)
            low = tl.where(open_ & (entry < first), middle + 1, low)
            high = tl.where(open_ & (entry >= first), middle, high)
    return low, end


@triton.jit
def _listed(position, end, entries, moving, stop, END: tl.constexpr, FIXED: tl.constexpr, MOVING: tl.constexpr):
    """Which pairs of the tile are listed, and the positions from which the next tile goes on.

    Lists are sorted, so a tile looks only at the entries inside it: one load a row where there are none.
    """
    hit = tl.zeros((FIXED, MOVING), dtype=tl.int1)
    entry = tl.load(entries + position, mask=position < end, other=END)
    while tl.min(entry, axis=0) < stop:
        hit = hit | (entry[:, None] == moving[None, :])
        position += tl.where(entry < stop, 1, 0)
        entry = tl.load(entries + position, mask=position < end, other=END)
    return hit, position


@triton.jit
def _logits(
    similarity, fixed, moving, num_fixed, num_moving,
    fixed_scale, moving_scale, fixed_bias, moving_bias, fixed_ids, moving_ids, fixed_levels, moving_levels, table,
    lower, upper,
    DIAGONAL: tl.constexpr, NUM_IDS: tl.constexpr, KEEP_BITS: tl.constexpr, NUM_LEVELS: tl.constexpr,
    THRESHOLD_FIXED: tl.constexpr,
):  # fmt: skip
    """Scaled, biased logits of a tile, -inf where a rule without a list forbids the pair."""
    logits = similarity * _load_vector(fixed_scale, fixed, num_fixed)[:, None]
    if moving_scale is not None:
        logits *= _load_vector(moving_scale, moving, num_moving)[None, :]
    if fixed_bias is not None:
        logits += _load_vector(fixed_bias, fixed, num_fixed)[:, None]
    if moving_bias is not None:
        logits += _load_vector(moving_bias, moving, num_moving)[None, :]
    allowed = (moving < num_moving)[None, :]
    if DIAGONAL:
        allowed = allowed & (fixed[:, None] != moving[None, :])
    for k in tl.static_range(NUM_IDS):
        own = _load_vector(fixed_ids + k * num_fixed, fixed, num_fixed)[:, None]
        other = _load_vector(moving_ids + k * num_moving, moving, num_moving)[None, :]
        allowed = allowed & ((own == other) if (KEEP_BITS >> k) & 1 else (own != other))
    for k in tl.static_range(NUM_LEVELS):
        cell = (
            _load_vector(fixed_levels + k * num_fixed, fixed, num_fixed)[:, None]
            + _load_vector(moving_levels + k * num_moving, moving, num_moving)[None, :]
        )
        logits += tl.load(table + cell)
    if lower is not None:
        if THRESHOLD_FIXED:
            allowed = allowed & (similarity >= _load_vector(lower, fixed, num_fixed)[:, None])
        else:
            allowed = allowed & (similarity >= _load_vector(lower, moving, num_moving)[None, :])
    if upper is not None:
        if THRESHOLD_FIXED:
            allowed = allowed & (similarity <= _load_vector(upper, fixed, num_fixed)[:, None])
        else:
            allowed = allowed & (similarity <= _load_vector(upper, moving, num_moving)[None, :])
    return tl.where(allowed, logits, float("-inf"))


@triton.jit
def _forward_kernel(
    fixed_ptr, moving_ptr, fixed_stride, moving_stride, num_fixed, num_moving, dim,
    fixed_scale, moving_scale, fixed_bias, moving_bias, fixed_ids, moving_ids, fixed_levels, moving_levels, table,
    lower, upper, exclude_offsets, exclude_entries, keep_offsets, keep_entries, target,
    steps_per_split, search_steps,
    lse_out, mean_out, variance_out, target_out,
    MOMENTS: tl.constexpr, DIAGONAL: tl.constexpr, NUM_IDS: tl.constexpr, KEEP_BITS: tl.constexpr,
    NUM_LEVELS: tl.constexpr, THRESHOLD_FIXED: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
    WIDEN: tl.constexpr, FIXED: tl.constexpr, MOVING: tl.constexpr, CHUNK: tl.constexpr, WHOLE: tl.constexpr,
    END: tl.constexpr,
):  # fmt: skip
    """Log-sum-exp, mean and variance of one block of rows over one range of the moving side."""
    split = tl.program_id(1).to(tl.int64)
    fixed = tl.program_id(0).to(tl.int64) * FIXED + tl.arange(0, FIXED)
    first = split * steps_per_split * MOVING
    last = tl.minimum(first + steps_per_split * MOVING, num_moving)
    highest = tl.full((FIXED,), float("-inf"), dtype=ACC)
    total = tl.zeros((FIXED,), dtype=ACC)
    mean = tl.zeros((FIXED,), dtype=ACC)
    squares = tl.zeros((FIXED,), dtype=ACC)
    target_logit = tl.zeros((FIXED,), dtype=ACC)
    if WHOLE:
        left = _load_tile(fixed_ptr, fixed_stride, fixed, num_fixed, 0, dim, CHUNK)
    if target is not None:
        wanted = tl.load(target + fixed, mask=fixed < num_fixed, other=-1)
    if exclude_offsets is not None:
        exclude, exclude_end = _list_start(exclude_offsets, exclude_entries, fixed, num_fixed, first, search_steps)
    if keep_offsets is not None:
        keep, keep_end = _list_start(keep_offsets, keep_entries, fixed, num_fixed, first, search_steps)
    for start in range(first, last, MOVING):
        moving = start + tl.arange(0, MOVING).to(tl.int64)
        if WHOLE:
            right = _load_tile(moving_ptr, moving_stride, moving, num_moving, 0, dim, CHUNK)
            similarity = tile_product(left, tl.trans(right), PRECISION, ACC, WIDEN)
        else:
            similarity = _similarity(
                fixed_ptr, fixed_stride, fixed, num_fixed, moving_ptr, moving_stride, moving, num_moving, dim,
                CHUNK, PRECISION, ACC, WIDEN, FIXED, MOVING,
            )  # fmt: skip
        logits = _logits(
            similarity, fixed, moving, num_fixed, num_moving,
            fixed_scale, moving_scale, fixed_bias, moving_bias, fixed_ids, moving_ids, fixed_levels, moving_levels,
            table, lower, upper, DIAGONAL, NUM_IDS, KEEP_BITS, NUM_LEVELS, THRESHOLD_FIXED,
        )  # fmt: skip
        if exclude_offsets is not None:
            hit, exclude = _listed(exclude, exclude_end, exclude_entries, moving, start + MOVING, END, FIXED, MOVING)
            logits = tl.where(hit, float("-inf"), logits)
        if keep_offsets is not None:
            hit, keep = _listed(keep, keep_end, keep_entries, moving, start + MOVING, END, FIXED, MOVING)
            logits = tl.where(hit, logits, float("-inf"))
        if target is not None:
            target_logit += tl.sum(tl.where(moving[None, :] == wanted[:, None], logits, 0.0), axis=1)
        new_highest = tl.maximum(highest, tl.max(logits, axis=1))
        shift = tl.where(new_highest == float("-inf"), 0.0, new_highest)
        fade = tl.exp(highest - shift)
        share = tl.exp(logits - shift[:, None])
        tile_total = tl.sum(share, axis=1)
        new_total = total * fade + tile_total
        if MOMENTS > 0:
            # Merging means and centred squares keeps the digits that E[s^2] - E[s]^2 would cancel.
            tile_mean = tl.sum(share * similarity, axis=1) / tl.where(tile_total > 0, tile_total, 1.0)
            part = tile_total / tl.where(new_total > 0, new_total, 1.0)
            step = tile_mean - mean
            if MOMENTS > 1:
                away = similarity - tile_mean[:, None]
                squares = squares * fade + tl.sum(share * away * away, axis=1) + step * step * total * fade * part
            mean += step * part
        total = new_total
        highest = new_highest
    out = split * num_fixed + fixed
    inside = fixed < num_fixed
    safe = tl.where(total > 0, total, 1.0)
    tl.store(lse_out + out, tl.where(total > 0, highest + tl.log(safe), float("-inf")), mask=inside)
    if MOMENTS > 0:
        tl.store(mean_out + out, mean, mask=inside)
    if MOMENTS > 1:
        tl.store(variance_out + out, squares / safe, mask=inside)
    if target is not None:
        tl.store(target_out + out, target_logit, mask=inside)


@triton.jit
def _backward_kernel(
    fixed_ptr, moving_ptr, fixed_stride, moving_stride, num_fixed, num_moving, dim,
    fixed_scale, moving_scale, fixed_bias, moving_bias, fixed_ids, moving_ids, fixed_levels, moving_levels, table,
    lower, upper, exclude_offsets, exclude_entries, keep_offsets, keep_entries, target,
    steps_per_split, search_steps,
    lse, mean, variance, grad_lse, grad_mean, grad_variance,
    fixed_grad, scale_grad, bias_grad,
    MOMENTS: tl.constexpr, DIAGONAL: tl.constexpr, NUM_IDS: tl.constexpr, KEEP_BITS: tl.constexpr,
    NUM_LEVELS: tl.constexpr, THRESHOLD_FIXED: tl.constexpr, SOFTMAX_FIXED: tl.constexpr, PRECISION: tl.constexpr,
    GRAD_PRECISION: tl.constexpr, ACC: tl.constexpr, GRAD_TYPE: tl.constexpr, WIDEN: tl.constexpr,
    FIXED: tl.constexpr, MOVING: tl.constexpr, FEATURES: tl.constexpr, CHUNK: tl.constexpr, WHOLE: tl.constexpr,
    END: tl.constexpr,
):  # fmt: skip
    """Gradients of one block of the fixed side, from one range of the moving side."""
    split = tl.program_id(1).to(tl.int64)
    piece = tl.program_id(2).to(tl.int64) * FEATURES
    fixed = tl.program_id(0).to(tl.int64) * FIXED + tl.arange(0, FIXED)
    inside = fixed < num_fixed
    first = split * steps_per_split * MOVING
    last = tl.minimum(first + steps_per_split * MOVING, num_moving)
    gradient = tl.zeros((FIXED, FEATURES), dtype=ACC)
    scale_total = tl.zeros((FIXED,), dtype=ACC)
    bias_total = tl.zeros((FIXED,), dtype=ACC)
    if WHOLE:
        left = _load_tile(fixed_ptr, fixed_stride, fixed, num_fixed, 0, dim, FEATURES)
    if exclude_offsets is not None:
        exclude, exclude_end = _list_start(exclude_offsets, exclude_entries, fixed, num_fixed, first, search_steps)
    if keep_offsets is not None:
        keep, keep_end = _list_start(keep_offsets, keep_entries, fixed, num_fixed, first, search_steps)
    for start in range(first, last, MOVING):
        moving = start + tl.arange(0, MOVING).to(tl.int64)
        right = _load_tile(moving_ptr, moving_stride, moving, num_moving, piece, dim, FEATURES)
        if WHOLE:
            similarity = tile_product(left, tl.trans(right), PRECISION, ACC, WIDEN)
        else:
            similarity = _similarity(
                fixed_ptr, fixed_stride, fixed, num_fixed, moving_ptr, moving_stride, moving, num_moving, dim,
                CHUNK, PRECISION, ACC, WIDEN, FIXED, MOVING,
            )  # fmt: skip
        logits = _logits(
            similarity, fixed, moving, num_fixed, num_moving,
            fixed_scale, moving_scale, fixed_bias, moving_bias, fixed_ids, moving_ids, fixed_levels, moving_levels,
            table, lower, upper, DIAGONAL, NUM_IDS, KEEP_BITS, NUM_LEVELS, THRESHOLD_FIXED,
        )  # fmt: skip
        if exclude_offsets is not None:
            hit, exclude = _listed(exclude, exclude_end, exclude_entries, moving, start + MOVING, END, FIXED, MOVING)
            logits = tl.where(hit, float("-inf"), logits)
        if keep_offsets is not None:
            hit, keep = _listed(keep, keep_end, keep_entries, moving, start + MOVING, END, FIXED, MOVING)
            logits = tl.where(hit, logits, float("-inf"))
        # Per-row statistics lie along the softmax side; an empty row has lse = +inf here, so that its shares are 0.
        if SOFTMAX_FIXED:
            row, num_rows = fixed, num_fixed
        else:
            row, num_rows = moving, num_moving
        row_lse = tl.load(lse + row, mask=row < num_rows, other=float("inf"))
        row_grad = _load_vector(grad_lse, row, num_rows)
        if SOFTMAX_FIXED:
            share = tl.exp(logits - row_lse[:, None])
            logit_grad = row_grad[:, None] + tl.zeros((FIXED, MOVING), dtype=ACC)
        else:
            share = tl.exp(logits - row_lse[None, :])
            logit_grad = row_grad[None, :] + tl.zeros((FIXED, MOVING), dtype=ACC)
        if MOMENTS > 0:
            row_mean = _load_vector(mean, row, num_rows)
            row_grad_mean = _load_vector(grad_mean, row, num_rows)
            if SOFTMAX_FIXED:
                away = similarity - row_mean[:, None]
                direct = row_grad_mean[:, None] + tl.zeros((FIXED, MOVING), dtype=ACC)
            else:
                away = similarity - row_mean[None, :]
                direct = row_grad_mean[None, :] + tl.zeros((FIXED, MOVING), dtype=ACC)
            logit_grad += direct * away
            if MOMENTS > 1:
                row_variance = _load_vector(variance, row, num_rows)
                row_grad_variance = _load_vector(grad_variance, row, num_rows)
                if SOFTMAX_FIXED:
                    logit_grad += row_grad_variance[:, None] * (away * away - row_variance[:, None])
                    direct += 2.0 * row_grad_variance[:, None] * away
                else:
                    logit_grad += row_grad_variance[None, :] * (away * away - row_variance[None, :])
                    direct += 2.0 * row_grad_variance[None, :] * away
        logit_grad *= share
        if target is not None:
            wanted = tl.load(target + row, mask=row < num_rows, other=-1)
            if SOFTMAX_FIXED:
                logit_grad -= tl.where(moving[None, :] == wanted[:, None], row_grad[:, None], 0.0)
            else:
                logit_grad -= tl.where(fixed[:, None] == wanted[None, :], row_grad[None, :], 0.0)
        scaled = logit_grad
        if moving_scale is not None:
            scaled = logit_grad * _load_vector(moving_scale, moving, num_moving)[None, :]
        if scale_grad is not None:
            scale_total += tl.sum(scaled * similarity, axis=1)
        if bias_grad is not None:
            bias_total += tl.sum(logit_grad, axis=1)
        if fixed_grad is not None:
            scaled = scaled * _load_vector(fixed_scale, fixed, num_fixed)[:, None]
            if MOMENTS > 0:
                scaled += share * direct
            gradient += tile_product(scaled.to(GRAD_TYPE), right.to(GRAD_TYPE), GRAD_PRECISION, ACC, WIDEN)
    out = split * num_fixed + fixed
    if fixed_grad is not None:
        features = piece + tl.arange(0, FEATURES)
        cells = inside[:, None] & (features < dim)[None, :]
        tl.store(fixed_grad + out[:, None] * dim + features[None, :], gradient, mask=cells)
    if piece == 0:
        if scale_grad is not None:
            tl.store(scale_grad + out, scale_total, mask=inside)
        if bias_grad is not None:
            tl.store(bias_grad + out, bias_total, mask=inside)


@dataclass(frozen=True)
class _PairList:
    """Sorted partners of every softmax-side row, in both directions."""

    offsets: Tensor
    entries: Tensor
    num_partners: int

    @cached_property
    def transposed(self) -> _PairList:
        row = torch.repeat_interleave(
            torch.arange(self.offsets.shape[0] - 1, device=self.entries.device),
            self.offsets.diff(),
            output_size=self.entries.shape[0],
        )
        partner, order = torch.sort(self.entries, stable=True)
        offsets = torch.searchsorted(partner, torch.arange(self.num_partners + 1, device=self.entries.device))
        return _PairList(offsets, row[order], self.offsets.shape[0] - 1)


@dataclass(frozen=True)
class _Side:
    """Per-row integers of one side: ids ``(K, n)`` of the `EqualIds` rules, ``(L, n)`` addresses into the tables."""

    ids: Tensor | None = None
    levels: Tensor | None = None


@dataclass(frozen=True)
class RuleTensors:
    """Rules as flat tensors. ``own`` is the softmax side, ``other`` the side that is summed over."""

    own: _Side = field(default_factory=_Side)
    other: _Side = field(default_factory=_Side)
    diagonal: bool = False
    keep_bits: int = 0
    table: Tensor | None = None
    lower: Tensor | None = None
    upper: Tensor | None = None
    threshold_own: bool = True
    exclude: _PairList | None = None
    keep: _PairList | None = None

    def swapped(self) -> RuleTensors:
        """The same rules with the sides exchanged."""
        return replace(
            self,
            own=self.other,
            other=self.own,
            threshold_own=not self.threshold_own,
            exclude=None if self.exclude is None else self.exclude.transposed,
            keep=None if self.keep is None else self.keep.transposed,
        )

    def crowded(self, moments: int) -> bool:
        """Whether a tile has more to hold than products and a comparison or two."""
        extra = (self.table, self.lower, self.upper, self.exclude, self.keep)
        many_ids = self.own.ids is not None and self.own.ids.shape[0] > 1
        return moments > 0 or many_ids or any(item is not None for item in extra)

    def arguments(self) -> dict[str, Any]:
        """Kernel arguments for a launch whose fixed side is the softmax side."""
        exclude, keep = self.exclude, self.keep
        return {
            "fixed_ids": self.own.ids,
            "moving_ids": self.other.ids,
            "fixed_levels": self.own.levels,
            "moving_levels": self.other.levels,
            "table": self.table,
            "lower": self.lower,
            "upper": self.upper,
            "exclude_offsets": None if exclude is None else exclude.offsets,
            "exclude_entries": None if exclude is None else exclude.entries,
            "keep_offsets": None if keep is None else keep.offsets,
            "keep_entries": None if keep is None else keep.entries,
            # A list is halved at most as often as its length has bits.
            "search_steps": max(0 if item is None else item.entries.shape[0].bit_length() for item in (exclude, keep)),
            "DIAGONAL": self.diagonal,
            "NUM_IDS": 0 if self.own.ids is None else self.own.ids.shape[0],
            "KEEP_BITS": self.keep_bits,
            "NUM_LEVELS": 0 if self.own.levels is None else self.own.levels.shape[0],
            "THRESHOLD_FIXED": self.threshold_own,
            "END": _END,
        }


def _flatten(rules: Sequence[CandidateRule]) -> Iterator[CandidateRule]:
    for rule in rules:
        if isinstance(rule, AllOf):
            yield from _flatten(rule.rules)
        else:
            yield rule


_SUPPORTED = (ExcludeSameIndex, EqualIds, ExcludePairs, KeepPairs, LevelTable, ScoreThreshold)


def _obstacle(rules: Sequence[CandidateRule]) -> str | None:
    """Why the kernels cannot express these rules; None when they can."""
    flat = list(_flatten(rules))
    for rule in flat:
        if type(rule) not in _SUPPORTED:
            return f"rule {type(rule).__name__}"
    if sum(isinstance(rule, KeepPairs) for rule in flat) > 1:
        return "more than one KeepPairs rule"
    return None


def supports(product: ScaledProduct, moments: int = 0) -> bool:
    """Whether ``auto`` should take these kernels: every rule can be expressed, and the type is one they are fast in."""
    return product.x.dtype != torch.float64 and _obstacle(product.rules) is None


def _stack(pairs: list[tuple[Tensor, Tensor]]) -> tuple[Tensor | None, Tensor | None]:
    """``(K, A)`` and ``(K, C)`` integers of one type, 32 bits wide when every input fits in that."""
    if not pairs:
        return None, None
    narrow = all(value.dtype in (torch.int32, torch.int16, torch.int8, torch.uint8) for pair in pairs for value in pair)
    dtype = torch.int32 if narrow else torch.int64
    return torch.stack([a.to(dtype) for a, _ in pairs]), torch.stack([b.to(dtype) for _, b in pairs])


def _merged(lists: list[ExcludePairs | KeepPairs], num_rows: int, num_partners: int) -> _PairList | None:
    """One list that holds the entries of all."""
    if not lists:
        return None
    offsets, entries = lists[0].offsets.long(), lists[0].columns.long()
    if len(lists) > 1:
        row = torch.arange(num_rows, device=entries.device)
        keys = [
            torch.repeat_interleave(row, item.offsets.long().diff()) * num_partners + item.columns for item in lists
        ]
        key = torch.sort(torch.cat(keys)).values
        entries = key % max(num_partners, 1)
        offsets = torch.searchsorted(key, torch.arange(num_rows + 1, device=key.device) * num_partners)
    return _PairList(offsets.contiguous(), entries.contiguous(), num_partners)


def _compile_rules(product: ScaledProduct) -> RuleTensors:
    """Gather what the rules hold into the few tensors the kernels read."""
    obstacle = _obstacle(product.rules)
    if obstacle is not None:
        raise ValueError(f"backend 'triton' cannot express {obstacle}; pass backend='torch' or 'auto'")
    device, wide = product.x.device, compute_dtype(product.x.dtype)
    ids: list[tuple[Tensor, Tensor]] = []
    levels: list[tuple[Tensor, Tensor]] = []
    tables: list[Tensor] = []
    lists: dict[type, list[ExcludePairs | KeepPairs]] = {ExcludePairs: [], KeepPairs: []}
    bounds: dict[bool, list[Tensor]] = {True: [], False: []}
    diagonal, keep_bits = False, 0
    for rule in _flatten(product.rules):
        if isinstance(rule, ExcludeSameIndex):
            if rule.anchor_index is None and rule.candidate_index is None:
                diagonal = True
                continue
            index = [
                torch.arange(size, device=device) if value is None else value
                for value, size in (
                    (rule.anchor_index, product.num_anchors),
                    (rule.candidate_index, product.num_candidates),
                )
            ]
            ids.append((index[0], index[1]))
        elif isinstance(rule, EqualIds):
            keep_bits |= int(rule.keep) << len(ids)
            ids.append((rule.anchor_ids, rule.candidate_ids))
        elif isinstance(rule, LevelTable):
            before = sum(table.numel() for table in tables)
            levels.append((rule.anchor_levels.long() * rule.table.shape[1] + before, rule.candidate_levels.long()))
            tables.append(rule.table.detach().to(wide).flatten())
        elif isinstance(rule, ScoreThreshold):
            bounds[rule.keep_above].append(rule.threshold.detach().to(wide))
        elif isinstance(rule, ExcludePairs | KeepPairs):
            lists[type(rule)].append(rule)
    (own_ids, other_ids), (own_levels, other_levels) = _stack(ids), _stack(levels)
    return RuleTensors(
        own=_Side(own_ids, own_levels),
        other=_Side(other_ids, other_levels),
        diagonal=diagonal,
        keep_bits=keep_bits,
        table=torch.cat(tables) if tables else None,
        lower=torch.stack(bounds[True]).amax(dim=0) if bounds[True] else None,
        upper=torch.stack(bounds[False]).amin(dim=0) if bounds[False] else None,
        exclude=_merged(lists[ExcludePairs], product.num_anchors, product.num_candidates),
        keep=_merged(lists[KeepPairs], product.num_anchors, product.num_candidates),
    )


class Statistics(torch.autograd.Function):
    """Log-sum-exp (and moments, or the logit of a target) of the softmax side ``x`` over the other side ``y``."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        y: Tensor,
        x_scale: Tensor,
        y_scale: Tensor | None,
        y_bias: Tensor | None,
        target: Tensor | None,
        rules: RuleTensors,
        moments: int,
        blocks: Blocks,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        ctx.rules, ctx.moments, ctx.blocks = rules, moments, blocks
        launch.check_device(x.device)
        with torch.no_grad():
            lse, mean, variance, target_logit = _sweep_forward(
                x, y, x_scale, y_scale, y_bias, target, rules, moments, blocks
            )
        ctx.save_for_backward(x, y, x_scale, y_scale, y_bias, target, lse, mean, variance)
        ctx.set_materialize_grads(False)
        # With a target the one output that carries gradient is its loss, so the two parts never leave separately.
        if target is not None:
            ctx.mark_non_differentiable(mean, variance, target_logit)
            return lse - target_logit, mean, variance, target_logit
        ctx.mark_non_differentiable(target_logit)
        return lse, mean, variance, target_logit

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_lse: Tensor | None, grad_mean: Tensor | None, grad_variance: Tensor | None, _: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        x, y, x_scale, y_scale, y_bias, target, lse, mean, variance = ctx.saved_tensors
        rules, moments, blocks = ctx.rules, ctx.moments, ctx.blocks
        if grad_mean is None and grad_variance is None:
            moments = 0
        grads = [torch.zeros_like(lse) if g is None else g.contiguous() for g in (grad_lse, grad_mean, grad_variance)]
        shared: dict[str, Any] = {
            "target": target,
            "lse": lse.masked_fill(lse == -torch.inf, torch.inf),
            "mean": mean,
            "variance": variance,
            "grad_lse": grads[0],
            "grad_mean": grads[1],
            "grad_variance": grads[2],
            "MOMENTS": moments,
        }
        need_x, need_y, need_x_scale, need_y_scale, need_bias = ctx.needs_input_grad[:5]
        x_grad = y_grad = x_scale_grad = y_scale_grad = bias_grad = None
        if need_x or need_x_scale:
            x_grad, x_scale_grad, _unused = _sweep_backward(
                x, y, x_scale, y_scale, None, y_bias, rules, blocks,
                (need_x, need_x_scale, False), {**shared, "SOFTMAX_FIXED": True},
            )  # fmt: skip
        if need_y or need_y_scale or need_bias:
            y_side_scale = torch.ones(y.shape[0], dtype=lse.dtype, device=y.device) if y_scale is None else y_scale
            y_grad, y_scale_grad, bias_grad = _sweep_backward(
                y, x, y_side_scale, x_scale, y_bias, None, rules.swapped(), _turned(blocks),
                (need_y, need_y_scale, need_bias), {**shared, "SOFTMAX_FIXED": False},
            )  # fmt: skip
        return x_grad, y_grad, x_scale_grad, y_scale_grad, bias_grad, None, None, None, None


def _turned(blocks: Blocks) -> Blocks:
    return None if blocks is None else (blocks[1], blocks[0])


def _sides(
    fixed: Tensor,
    moving: Tensor,
    fixed_scale: Tensor,
    moving_scale: Tensor | None,
    fixed_bias: Tensor | None,
    moving_bias: Tensor | None,
) -> dict[str, Any]:
    fixed, moving = launch.row_major(fixed), launch.row_major(moving)
    return {
        "fixed_ptr": fixed,
        "moving_ptr": moving,
        "fixed_stride": fixed.stride(0),
        "moving_stride": moving.stride(0),
        "num_fixed": fixed.shape[0],
        "num_moving": moving.shape[0],
        "dim": fixed.shape[1],
        "fixed_scale": fixed_scale.contiguous(),
        "moving_scale": None if moving_scale is None else moving_scale.contiguous(),
        "fixed_bias": None if fixed_bias is None else fixed_bias.contiguous(),
        "moving_bias": None if moving_bias is None else moving_bias.contiguous(),
        "PRECISION": launch.float32_precision(),
        "ACC": launch.accumulator(fixed.dtype),
        "WIDEN": launch.widen(fixed.dtype),
    }


def _tile_arguments(shape: launch.TileShape, dim: int) -> dict[str, Any]:
    return {
        "FIXED": shape.fixed,
        "MOVING": shape.moving,
        "CHUNK": shape.chunk,
        "WHOLE": dim <= shape.chunk,
        "num_warps": shape.warps,
        "num_stages": shape.stages,
    }


def _sweep_forward(
    x: Tensor,
    y: Tensor,
    x_scale: Tensor,
    y_scale: Tensor | None,
    y_bias: Tensor | None,
    target: Tensor | None,
    rules: RuleTensors,
    moments: int,
    blocks: Blocks,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Statistics of every row of ``x``: ranges of ``y`` are swept apart and merged."""
    rows, partners, dim = x.shape[0], y.shape[0], x.shape[1]
    shape = launch.tile_shape(
        x.dtype, rows, partners, dim, backward=False, crowded=rules.crowded(moments), blocks=blocks
    )
    row_blocks, steps = -(-rows // shape.fixed), -(-partners // shape.moving)
    parts = launch.splits(row_blocks, steps, x.device)
    steps_per_split = -(-steps // parts)
    wide = compute_dtype(x.dtype)
    lse = torch.full((parts, rows), -torch.inf, dtype=wide, device=x.device)
    mean, variance, target_logit = (
        torch.zeros((parts, rows) if wanted else (parts, 0), dtype=wide, device=x.device)
        for wanted in (moments > 0, moments > 1, target is not None)
    )
    if rows > 0 and partners > 0:
        _forward_kernel[(row_blocks, parts)](
            **_sides(x, y, x_scale, y_scale, None, y_bias),
            **rules.arguments(),
            **_tile_arguments(shape, dim),
            target=target,
            steps_per_split=steps_per_split,
            lse_out=lse,
            mean_out=mean,
            variance_out=variance,
            target_out=target_logit,
            MOMENTS=moments,
        )
    return _merge(lse, mean, variance, target_logit, moments)


def _merge(
    lse: Tensor, mean: Tensor, variance: Tensor, target_logit: Tensor, moments: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Statistics of a row from those of its parts."""
    if lse.shape[0] == 1:
        return lse[0], mean[0], variance[0], target_logit[0]
    total = torch.logsumexp(lse, dim=0)
    share = torch.exp(lse - total.masked_fill(total == -torch.inf, 0.0))
    whole_mean = (share * mean).sum(dim=0) if moments > 0 else mean[0]
    spread = variance
    if moments > 1:
        spread = share * (variance + (mean - whole_mean) ** 2)
    return total, whole_mean, spread.sum(dim=0), target_logit.sum(dim=0)


def _sweep_backward(
    fixed: Tensor,
    moving: Tensor,
    fixed_scale: Tensor,
    moving_scale: Tensor | None,
    fixed_bias: Tensor | None,
    moving_bias: Tensor | None,
    rules: RuleTensors,
    blocks: Blocks,
    needed: tuple[bool, bool, bool],
    arguments: dict[str, Any],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of rows, scale and bias of the fixed side, each None unless needed."""
    rows, partners, dim = fixed.shape[0], moving.shape[0], fixed.shape[1]
    shape = launch.tile_shape(
        fixed.dtype, rows, partners, dim, backward=True, crowded=rules.crowded(arguments["MOMENTS"]), blocks=blocks
    )
    row_blocks, steps = -(-rows // shape.fixed), -(-partners // shape.moving)
    pieces = max(-(-dim // shape.features), 1) if needed[0] else 1
    parts = launch.splits(row_blocks * pieces, steps, fixed.device)
    wide = compute_dtype(fixed.dtype)
    out = [
        torch.zeros((parts, *rest), dtype=wide, device=fixed.device) if wanted else None
        for wanted, rest in zip(needed, ((rows, dim), (rows,), (rows,)), strict=True)
    ]
    half = fixed.dtype == torch.float16
    if rows > 0 and partners > 0:
        _backward_kernel[(row_blocks, parts, pieces)](
            **_sides(fixed, moving, fixed_scale, moving_scale, fixed_bias, moving_bias),
            **_tile_arguments(shape, dim),
            FEATURES=shape.features,
            **rules.arguments(),
            **arguments,
            steps_per_split=-(-steps // parts),
            fixed_grad=out[0],
            scale_grad=out[1],
            bias_grad=out[2],
            # Gradients of logits run far below the range of float16; the 10-bit float32 product keeps its digits.
            GRAD_TYPE=_GRAD_TYPE[fixed.dtype],
            GRAD_PRECISION="tf32" if half else launch.float32_precision(),
        )
    total = [None if part is None else part.sum(dim=0) if part.shape[0] > 1 else part[0] for part in out]
    return None if total[0] is None else total[0].to(fixed.dtype), total[1], total[2]


_GRAD_TYPE = {
    torch.float64: tl.float64,
    torch.float32: tl.float32,
    torch.float16: tl.float32,
    torch.bfloat16: tl.bfloat16,
}


def _full_scale(scale: float | Tensor | None, rows: int, like: Tensor) -> Tensor:
    if isinstance(scale, Tensor):
        return scale
    value = 1.0 if scale is None else scale
    return torch.full((rows,), value, dtype=compute_dtype(like.dtype), device=like.device)


def logsumexp(
    product: ScaledProduct, moments: int, blocks: Blocks = None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Log-sum-exp of every row of ``product``, with mean and variance of the similarity as ``moments`` asks."""
    launch.check_device(product.x.device)
    rules = _compile_rules(product)
    scale = _full_scale(product.row_scale, product.num_anchors, product.x)
    total, mean, variance, _ = Statistics.apply(  # type: ignore[no-untyped-call]
        product.x, product.y, scale, product.column_scale, product.column_bias, None, rules, moments, blocks
    )
    mean, variance = (mean if moments > 0 else None), (variance if moments > 1 else None)
    return with_row_bias(total, mean, variance, product.row_bias)


def logsumexp_both(product: ScaledProduct, blocks: Blocks = None) -> tuple[Tensor, Tensor]:
    """Log-sum-exp of every row and of every column of ``product``: a sweep each way."""
    launch.check_device(product.x.device)
    rules = _compile_rules(product)
    row_scale = _full_scale(product.row_scale, product.num_anchors, product.x)
    column_scale = _full_scale(product.column_scale, product.num_candidates, product.x)
    rows = Statistics.apply(  # type: ignore[no-untyped-call]
        product.x, product.y, row_scale, product.column_scale, product.column_bias, None, rules, 0, blocks
    )[0]
    columns = Statistics.apply(  # type: ignore[no-untyped-call]
        product.y, product.x, column_scale, row_scale, product.row_bias, None, rules.swapped(), 0, _turned(blocks)
    )[0]
    return (
        with_row_bias(rows, None, None, product.row_bias)[0],
        with_row_bias(columns, None, None, product.column_bias)[0],
    )
