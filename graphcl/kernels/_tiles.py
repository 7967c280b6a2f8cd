"""Tiles of the pair matrix: how large they are, and the exponentials of their logits under candidate rules.

Everything here counts in powers of two: operands arrive multiplied by log2(e), because ``exp2`` is several times faster
than ``exp`` on a CPU, above all for arguments that underflow. Masks are written as 0/1 floats and multiplied, because
comparisons into a float buffer and products are vectorised where bool tensors and ``masked_fill`` are not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor

from graphcl.kernels._arguments import check_block_size, compute_dtype
from graphcl.kernels._matmul import matmul_nt
from graphcl.kernels._product import ScaledProduct
from graphcl.kernels.rules import CandidateRule, EqualIds, ExcludePairs, ExcludeSameIndex, PairTile

LOG2E = math.log2(math.e)
LN2 = math.log(2.0)

# Wide tiles on a CPU: within the last-level cache time hardly depends on the width, and every further tile is a handful
# of parallel calls that wait for the slowest core. Moments keep several tiles at once and want the second-level cache.
_CPU_ROWS, _CPU_COLUMNS, _CPU_MOMENT_COLUMNS = 256, 8192, 1024
_GPU_ROWS, _GPU_COLUMNS = 4096, 16384
_FEWEST_STORED_ROWS = 64

#: Rows and columns of tiles are divided by these while a plan rehearses an objective on fewer rows.
MINIATURE: ContextVar[tuple[float, float]] = ContextVar("miniature", default=(1, 1))


@dataclass(frozen=True)
class Blocks:
    """Tile edges, and whether a block of rows keeps its exponentials over all columns until its row sums are known.

    ``stored`` lets the forward sweep find both gradients, for rows x C values of memory.
    """

    rows: int
    columns: int
    stored: bool


def choose_blocks(
    num_anchors: int,
    num_candidates: int,
    itemsize: int,
    memory_budget: int,
    block_size: tuple[int, int] | None,
    device: torch.device,
    moments: int = 0,
) -> Blocks:
    """Cache-sized tiles within the budget; a given ``block_size`` counts before both."""
    budget = max(memory_budget // itemsize, 1)
    if block_size is not None:
        rows, columns = block_size
        return Blocks(rows, columns, min(rows, num_anchors) * num_candidates <= budget)
    most_rows, most_columns = _GPU_ROWS, _GPU_COLUMNS
    if device.type == "cpu":
        most_rows, most_columns = _CPU_ROWS, _CPU_COLUMNS if moments == 0 else _CPU_MOMENT_COLUMNS
    shrink, shrink_columns = MINIATURE.get()
    most_rows, most_columns = max(int(most_rows / shrink), 1), max(int(most_columns / shrink_columns), 1)
    columns = max(min(most_columns, num_candidates, budget), 1)
    rows = max(min(most_rows, num_anchors, budget // max(num_candidates, 1)), 1)
    if rows >= min(max(int(_FEWEST_STORED_ROWS / shrink), 1), num_anchors):
        return Blocks(rows, columns, True)
    return Blocks(max(min(most_rows, num_anchors, budget // columns), 1), columns, False)


def split(total: int, size: int) -> Iterator[slice]:
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))


class _EqualCodes:
    """`EqualIds` over codes that fit a float exactly."""

    def __init__(self, anchors: Tensor, candidates: Tensor, keep: bool) -> None:
        codes = torch.unique(torch.cat([anchors.long(), candidates.long()]), return_inverse=True)[1]
        # 2^24 distinct ids is where float32 stops counting one by one.
        wide = torch.float32 if codes.numel() <= 2**24 else torch.float64
        self.anchors, self.candidates = codes.to(wide).split([anchors.shape[0], candidates.shape[0]])
        self.keep = keep

    def write(self, tile: PairTile, out: Tensor) -> None:
        compare = torch.eq if self.keep else torch.ne
        compare(self.anchors[tile.rows, None], self.candidates[None, tile.columns], out=out)


def _compile_rule(rule: CandidateRule, num_anchors: int, num_candidates: int) -> CandidateRule | _EqualCodes:
    if isinstance(rule, EqualIds):
        return _EqualCodes(rule.anchor_ids, rule.candidate_ids, rule.keep)
    if isinstance(rule, ExcludeSameIndex) and (rule.anchor_index is not None or rule.candidate_index is not None):
        given = rule.anchor_index if rule.anchor_index is not None else rule.candidate_index
        device = None if given is None else given.device
        anchors = torch.arange(num_anchors, device=device) if rule.anchor_index is None else rule.anchor_index
        candidates = (
            torch.arange(num_candidates, device=device) if rule.candidate_index is None else rule.candidate_index
        )
        return _EqualCodes(anchors, candidates, keep=False)
    return rule


class TileSource:
    """Computes one tile of logits at a time into buffers that are reused.

    Args:
        product: source of the rules and of similarities for rules that look at them.
        x: ``(A, p)`` rows times row scale times log2(e), accumulation dtype.
        y: ``(C, p)`` rows times column scale.
        column_bias: ``(C,)`` times log2(e), or None.
        row_bias: ``(A,)`` times log2(e), or None.

    Attributes:
        bounded: every rule is a mask and no logit can leave the range in which ``2^l`` and its sums need no shift.
    """

    def __init__(
        self, product: ScaledProduct, x: Tensor, y: Tensor, column_bias: Tensor | None, row_bias: Tensor | None = None
    ) -> None:
        self.product = product
        self.x, self.y, self.column_bias, self.row_bias = x, y, column_bias, row_bias
        self.rules = [_compile_rule(rule, x.shape[0], y.shape[0]) for rule in product.rules]
        self.bounded = product.masks_only and self._within_range()
        self._multiplier = x.new_empty(0)

    def _within_range(self) -> bool:
        """By Cauchy and Schwarz |l_ij| <= |x_i| |y_j| + |biases|; a bias of -inf leaves its candidate out.

        The gradients sum ``2^l`` times rows, so the rows themselves have to leave room for 2^24 terms as well.
        """
        if self.x.shape[0] == 0 or self.y.shape[0] == 0:
            return True
        longest = [torch.linalg.vector_norm(side, dim=1).max() for side in (self.x, self.y)]
        if not bool(torch.maximum(*longest) <= 2.0**20):
            return False
        bound = longest[0] * longest[1]
        for bias in (self.column_bias, self.row_bias):
            if bias is not None:
                bound = bound + bias.masked_fill(bias == -torch.inf, 0.0).abs().max()
        return bool(bound <= (800.0 if self.x.dtype == torch.float64 else 80.0))

    def exponentials(self, rows: slice, columns: slice, flat: Tensor) -> Tensor | None:
        """``2^l`` of a tile in ``flat``, 0 at forbidden pairs; only where `bounded`. None if all are forbidden."""
        tile = self.product.tile(rows, columns)
        answers = self._answers(tile)
        if answers is None:
            return None
        logits = matmul_nt(self.x[rows], self.y[columns])
        self._add_biases(tile, logits)
        out = torch.exp2(logits, out=flat[: logits.numel()].view(logits.shape))
        for answer in answers:
            self._apply(answer, tile, out, multiply=True)
        return out

    def logits(self, rows: slice, columns: slice) -> Tensor | None:
        """Base-2 logits of a tile, -inf at forbidden pairs. None if all are forbidden."""
        tile = self.product.tile(rows, columns)
        answers = self._answers(tile)
        if answers is None:
            return None
        out = matmul_nt(self.x[rows], self.y[columns])
        self._add_biases(tile, out)
        for answer in answers:
            self._apply(answer, tile, out, multiply=False)
        return out

    def similarity_and_logits(
        self, rows: slice, columns: slice, row_scale: Tensor, column_scale: Tensor | None
    ) -> tuple[Tensor, Tensor] | None:
        """As `logits`, of operands that arrived unscaled, together with the similarities."""
        tile = self.product.tile(rows, columns)
        answers = self._answers(tile)
        if answers is None:
            return None
        similarity = matmul_nt(self.x[rows], self.y[columns])
        out = similarity * row_scale[rows, None]
        if column_scale is not None:
            out.mul_(column_scale[columns])
        self._add_biases(tile, out)
        for answer in answers:
            self._apply(answer, tile, out, multiply=False)
        return similarity, out

    def _add_biases(self, tile: PairTile, out: Tensor) -> None:
        if self.column_bias is not None:
            out.add_(self.column_bias[tile.columns])
        if self.row_bias is not None:
            out.add_(self.row_bias[tile.rows, None])

    def _answers(self, tile: PairTile) -> list[Tensor | _EqualCodes | ExcludeSameIndex | ExcludePairs] | None:
        found: list[Tensor | _EqualCodes | ExcludeSameIndex | ExcludePairs] = []
        for rule in self.rules:
            if isinstance(rule, _EqualCodes | ExcludeSameIndex | ExcludePairs):
                found.append(rule)
                continue
            answer = rule.log_weight_tile(tile)
            if isinstance(answer, Tensor):
                found.append(answer)
            elif not answer:
                return None
        return found

    def _apply(
        self,
        answer: Tensor | _EqualCodes | ExcludeSameIndex | ExcludePairs,
        tile: PairTile,
        out: Tensor,
        *,
        multiply: bool,
    ) -> None:
        if isinstance(answer, ExcludeSameIndex | ExcludePairs):
            positions = answer.excluded_positions(tile)
            if positions is not None and positions.numel() > 0:
                out.view(-1)[positions] = 0.0 if multiply else -torch.inf
            return
        if isinstance(answer, Tensor) and answer.dtype != torch.bool:
            out.add_(answer.detach().to(out.dtype) * LOG2E)
            return
        multiplier = self._buffer(out)
        if isinstance(answer, Tensor):
            multiplier.copy_(answer)
        else:
            answer.write(tile, multiplier)
        if multiply:
            out.mul_(multiplier)
        else:
            out.add_(multiplier.log2_())

    def _buffer(self, like: Tensor) -> Tensor:
        if self._multiplier.numel() < like.numel():
            self._multiplier = like.new_empty(like.numel())
        return self._multiplier[: like.numel()].view(like.shape)


def scaled_operands(product: ScaledProduct) -> tuple[Tensor, Tensor]:
    """``x`` with row scale and log2(e), ``y`` with column scale, in the accumulation type; differentiable."""
    wide = compute_dtype(product.x.dtype)
    scale = product.row_scale
    x = product.x.to(wide) * (scale[:, None] * LOG2E if isinstance(scale, Tensor) else scale * LOG2E)
    y = product.y.to(wide)
    y = y if product.column_scale is None else y * product.column_scale[:, None]
    return x.contiguous(), y.contiguous()


def blocks_for(
    product: ScaledProduct, memory_budget: int, block_size: tuple[int, int] | None, moments: int = 0
) -> Blocks:
    itemsize = compute_dtype(product.x.dtype).itemsize
    return choose_blocks(
        product.num_anchors, product.num_candidates, itemsize, memory_budget, block_size, product.x.device, moments
    )


def check_blocks(memory_budget: int, block_size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    check_block_size("memory_budget", memory_budget)
    if block_size is None:
        return None
    edges = block_size if isinstance(block_size, tuple) else (block_size, block_size)
    if len(edges) != 2:
        raise ValueError(f"block_size must be an integer or a pair, got {block_size!r}")
    return check_block_size("block_size", edges[0]), check_block_size("block_size", edges[1])
