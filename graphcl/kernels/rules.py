"""Candidate rules: which pairs (anchor i, candidate j) enter a sum, and with which log weight.

A rule is evaluated one tile at a time from data of size O(A + C) (or a sparse list), so that no A x C mask ever exists.
Several rules passed together must all allow the pair (their log weights add); `AnyOf` takes the largest weight instead.

Write your own rule by giving a class the method of `CandidateRule`:

>>> import torch
>>> class OnlyLater:
...     def __init__(self, anchor_time, candidate_time):
...         self.anchor_time, self.candidate_time = anchor_time, candidate_time
...     def log_weight_tile(self, tile):
...         return self.candidate_time[None, tile.columns] > self.anchor_time[tile.rows, None]
>>> from graphcl.kernels import pair_logsumexp
>>> time = torch.arange(3)
>>> pair_logsumexp(torch.zeros(3, 2), torch.zeros(3, 2), rules=OnlyLater(time, time)).logsumexp.exp().round()
tensor([2., 1., 0.])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from graphcl.kernels._arguments import check_csr, check_indices, check_log_weight, check_no_nan, check_vector

__all__ = [
    "AllOf",
    "AnyOf",
    "CandidateRule",
    "EqualIds",
    "ExcludePairs",
    "ExcludeSameIndex",
    "KeepPairs",
    "LabelDistanceWeight",
    "LevelTable",
    "PairTile",
    "ScoreThreshold",
]


class PairTile:
    """The block of pairs a rule is asked about.

    Attributes:
        rows: slice of anchor positions.
        columns: slice of candidate positions.
        shape: ``(rows, columns)`` of the tile.
        num_candidates: C of the whole matrix.
        device: where the answer is expected.
        similarity: ``(rows, columns)`` similarities s_ij before temperature and biases, without gradient. Computed on
            first use, so a rule that does not look at it costs no extra product.
    """

    def __init__(
        self,
        rows: slice,
        columns: slice,
        num_candidates: int,
        device: torch.device,
        similarity: Callable[[slice, slice], Tensor],
    ) -> None:
        self.rows = rows
        self.columns = columns
        self.num_candidates = num_candidates
        self.device = device
        self._similarity = similarity

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start

    @cached_property
    def similarity(self) -> Tensor:
        return self._similarity(self.rows, self.columns)


@runtime_checkable
class CandidateRule(Protocol):
    """What the engine asks of a rule.

    ``log_weight_tile`` answers for one tile with one of

    * ``True`` (every pair of the tile is allowed) or ``False`` (none is; the tile is then not even multiplied),
    * a bool tensor broadcastable to ``tile.shape``, true where the pair is allowed,
    * a float tensor broadcastable to ``tile.shape``: log w_ij, with -inf where the pair is not allowed.

    The answer may depend on the tile only through the pairs in it, and is treated as a constant by differentiation.

    Two optional attributes make a rule cheaper: ``mask_only = True`` promises that the answer is never a float tensor
    (the engine may then skip the running maximum), and ``check(num_anchors, num_candidates, device, check)`` is called
    once before the sweep to validate what the rule holds.
    """

    def log_weight_tile(self, tile: PairTile) -> Tensor | bool: ...


class TileWeight(NamedTuple):
    """Combined answer of all rules for a tile that has at least one allowed pair."""

    mask: Tensor | None  # bool, true = allowed
    log_weights: tuple[Tensor, ...]  # float, to be added
    excluded: tuple[Tensor, ...]  # flat positions in the tile


def combine_rules(rules: Sequence[CandidateRule], tile: PairTile) -> TileWeight | None:
    """Evaluate every rule on ``tile``; ``None`` when no pair of it can be allowed."""
    mask: Tensor | None = None
    log_weights: list[Tensor] = []
    excluded: list[Tensor] = []
    for rule in rules:
        if isinstance(rule, ExcludeSameIndex | ExcludePairs):
            positions = rule.excluded_positions(tile)
            if positions is not None:
                if positions.numel() > 0:
                    excluded.append(positions)
                continue
        answer = rule.log_weight_tile(tile)
        if isinstance(answer, bool):
            if not answer:
                return None
        elif answer.dtype == torch.bool:
            mask = answer if mask is None else mask & answer
        else:
            log_weights.append(answer)
    return TileWeight(mask, tuple(log_weights), tuple(excluded))


def is_mask_only(rule: CandidateRule) -> bool:
    """Whether a rule only allows or forbids; False when it may add a finite log weight."""
    return bool(getattr(rule, "mask_only", False))


def check_rule(rule: CandidateRule, num_anchors: int, num_candidates: int, device: torch.device, check: bool) -> None:
    """Validate a rule against the matrix it is used on."""
    if not isinstance(rule, CandidateRule):
        raise TypeError(f"rules must have a method log_weight_tile(tile), got {type(rule).__name__}")
    own_check = getattr(rule, "check", None)
    if callable(own_check):
        own_check(num_anchors, num_candidates, device, check)


def _check_device(name: str, value: Tensor, device: torch.device) -> None:
    if value.device != device:
        raise ValueError(f"{name} is on {value.device}, expected {device}")


def _merged_or(answers: Sequence[Tensor | bool], tile: PairTile) -> Tensor | bool:
    """Largest weight of several answers; a mask counts as log weight 0 or -inf."""
    if any(answer is True for answer in answers):
        floats = [a for a in answers if isinstance(a, Tensor) and a.dtype != torch.bool]
        if not floats:
            return True
    kept = [answer for answer in answers if answer is not False]
    if not kept:
        return False
    tensors = [a if isinstance(a, Tensor) else torch.ones((), dtype=torch.bool, device=tile.device) for a in kept]
    if all(t.dtype == torch.bool for t in tensors):
        merged = tensors[0]
        for other in tensors[1:]:
            merged = merged | other
        return merged
    weight = _as_log_weight(tensors[0])
    for other in tensors[1:]:
        # Promoted, never narrowed: what a mask is turned into has the default type, weights may be wider.
        weight = torch.maximum(*_promoted(weight, _as_log_weight(other)))
    return weight


def _promoted(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    wide = torch.promote_types(first.dtype, second.dtype)
    return first.to(wide), second.to(wide)


def _as_log_weight(answer: Tensor) -> Tensor:
    if answer.dtype != torch.bool:
        return answer
    return torch.zeros(answer.shape, device=answer.device).masked_fill_(~answer, -torch.inf)


@dataclass(frozen=True, eq=False)
class ExcludeSameIndex:
    """Leaves out pairs whose anchor and candidate are the same item: ``index(i) == index(j)``.

    Args:
        anchor_index: ``(A,)`` integers, the item behind each anchor; default its position.
        candidate_index: ``(C,)`` integers, the item behind each candidate; default its position.

    Complexity: a few diagonal entries a tile with the defaults, one comparison a pair otherwise.

    >>> import torch
    >>> from graphcl.kernels import pair_logsumexp
    >>> pair_logsumexp(torch.zeros(4, 2), torch.zeros(4, 2), rules=ExcludeSameIndex()).logsumexp.exp().round()
    tensor([3., 3., 3., 3.])
    """

    anchor_index: Tensor | None = None
    candidate_index: Tensor | None = None
    mask_only: bool = field(default=True, init=False, repr=False)

    def check(self, num_anchors: int, num_candidates: int, device: torch.device, check: bool) -> None:
        for name, value, length in (
            ("anchor_index", self.anchor_index, num_anchors),
            ("candidate_index", self.candidate_index, num_candidates),
        ):
            if value is not None:
                check_indices(f"ExcludeSameIndex.{name}", value, length, None, check=check)
                _check_device(f"ExcludeSameIndex.{name}", value, device)

    def excluded_positions(self, tile: PairTile) -> Tensor | None:
        """Flat positions of the diagonal in the tile; None when explicit indices make it a mask."""
        if self.anchor_index is not None or self.candidate_index is not None:
            return None
        first = max(tile.rows.start, tile.columns.start)
        count = max(min(tile.rows.stop, tile.columns.stop) - first, 0)
        width = tile.shape[1]
        start: int = (first - tile.rows.start) * width + first - tile.columns.start
        step: int = width + 1
        diagonal: Tensor = torch.arange(count, device=tile.device) * step + start
        return diagonal

    def log_weight_tile(self, tile: PairTile) -> Tensor | bool:
        if self.anchor_index is None and self.candidate_index is None:
            return _mask_without(self.excluded_positions(tile), tile)
        anchors = _slice_or_range(self.anchor_index, tile.rows, tile.device)
        candidates = _slice_or_range(self.candidate_index, tile.columns, tile.device)
        return torch.ne(anchors[:, None], candidates[None, :])


def _slice_or_range(index: Tensor | None, part: slice, device: torch.device) -> Tensor:
    return torch.arange(part.start, part.stop, device=device) if index is None else index[part]


def _mask_without(positions: Tensor | None, tile: PairTile) -> Tensor | bool:
    if positions is None or positions.numel() == 0:
        return True
    mask = torch.ones(tile.shape, dtype=torch.bool, device=tile.device)
    mask.view(-1)[positions] = False
    return mask


@dataclass(frozen=True, eq=False)
class EqualIds:
    """Keeps (or, with ``keep=False``, leaves out) pairs whose ids are equal: view, class, cluster or group ids.

    Args:
        anchor_ids: ``(A,)`` integers.
        candidate_ids: ``(C,)`` integers.
        keep: True keeps only equal ids, False keeps only different ids.

    Complexity: one integer comparison a pair.

    >>> import torch
    >>> from graphcl.kernels import pair_logsumexp
    >>> label = torch.tensor([0, 0, 1])
    >>> pair_logsumexp(torch.zeros(3, 2), torch.zeros(3, 2), rules=EqualIds(label, label)).logsumexp.exp().round()
    tensor([2., 2., 1.])
    """

    anchor_ids: Tensor
    candidate_ids: Tensor
    keep: bool = True
    mask_only: bool = field(default=True, init=False, repr=False)

    def check(self, num_anchors: int, num_candidates: int, device: torch.device, check: bool) -> None:
        check_indices("EqualIds.anchor_ids", self.anchor_ids, num_anchors, None, check=check)
        check_indices("EqualIds.candidate_ids", self.candidate_ids, num_candidates, None, check=check)
        _check_device("EqualIds.anchor_ids", self.anchor_ids, device)
        _check_device("EqualIds.candidate_ids", self.candidate_ids, device)

    def log_weight_tile(self, tile: PairTile) -> Tensor | bool:
        compare = torch.eq if self.keep else torch.ne
        return compare(self.anchor_ids[tile.rows, None], self.candidate_ids[None, tile.columns])


@dataclass(frozen=True, eq=False)
class _PairList:
    offsets: Tensor
    columns: Tensor
    mask_only: bool = field(default=True, init=False, repr=False)

    def check(self, num_anchors: int, num_candidates: int, device: torch.device, check: bool) -> None:
        name = type(self).__name__
        check_indices(f"{name}.offsets", self.offsets, num_anchors + 1, None, check=False)
        check_indices(f"{name}.columns", self.columns, None, None, check=False)
        _check_device(f"{name}.offsets", self.offsets, device)
        _check_device(f"{name}.columns", self.columns, device)
        if check:
            check_csr(f"{name}.offsets", self.offsets, f"{name}.columns", self.columns, num_anchors, num_candidates)

    def listed_positions(self, tile: PairTile) -> Tensor:
        """Flat tile positions of the listed pairs: two binary searches a row, then only the entries inside the tile."""
        first, last = int(self.offsets[tile.rows.start]), int(self.offsets[tile.rows.stop])
        if first == last:
            return torch.empty(0, dtype=torch.int64, device=tile.device)
        height, width = tile.shape
        local = (self.offsets[tile.rows.start : tile.rows.stop + 1] - first).long()
        row = torch.repeat_interleave(torch.arange(height, device=tile.device), local.diff(), output_size=last - first)
        columns = self.columns[first:last].long()
        if width == tile.num_candidates:
            return row * width + columns
        key = row * tile.num_candidates + columns  # ascending, because rows ascend and columns are sorted in a row
        base = torch.arange(height, device=tile.device) * tile.num_candidates
        begin = torch.searchsorted(key, base + tile.columns.start)
        count = torch.searchsorted(key, base + tile.columns.stop) - begin
        total = int(count.sum())
        if total == 0:
            return torch.empty(0, dtype=torch.int64, device=tile.device)
        rows_hit = torch.repeat_interleave(torch.arange(height, device=tile.device), count, output_size=total)
        within = torch.arange(total, device=tile.device) - (count.cumsum(0) - count)[rows_hit]
        inside: Tensor = columns[begin[rows_hit] + within] - tile.columns.start
        return rows_hit * width + inside


@dataclass(frozen=True, eq=False)
class ExcludePairs(_PairList):
    """Leaves out the listed pairs, for instance the sparse positives of each anchor.

    Args:
        offsets: ``(A + 1,)`` integers, compressed rows: those of anchor i are ``columns[offsets[i]:offsets[i + 1]]``.
        columns: ``(E,)`` candidate positions, sorted within each row.

    Complexity: O(rows log E + listed pairs) a tile.

    >>> import torch
    >>> from graphcl.kernels import pair_logsumexp
    >>> rule = ExcludePairs(torch.tensor([0, 2, 2]), torch.tensor([0, 2]))
    >>> pair_logsumexp(torch.zeros(2, 2), torch.zeros(3, 2), rules=rule).logsumexp.exp().round()
    tensor([1., 3.])
    """

    def excluded_positions(self, tile: PairTile) -> Tensor | None:
        return self.listed_positions(tile)

    def log_weight_tile(self, tile: PairTile) -> Tensor | bool:
        return _mask_without(self.listed_positions(tile), tile)


@dataclass(frozen=True, eq=False)
class KeepPairs(_PairList):
    """Keeps only the listed pairs.

    Args:
        offsets: ``(A + 1,)`` integers, compressed rows.
        columns: ``(E,)`` candidate positions, sorted within each row.

    Complexity: as `ExcludePairs`, plus a mask of one tile; tiles without a listed pair are skipped.

    >>> import torch
    >>> from graphcl.kernels import pair_logsumexp
    >>> rule = KeepPairs(torch.tensor([0, 2, 2]), torch.tensor([0, 2]))
    >>> pair_logsumexp(torch.zeros(2, 2), torch.zeros(3, 2), rules=rule).logsumexp.exp().round()
    tensor([2., 0.])
    """

    def log_weight_tile(self, tile: PairTile) -> Tensor | bool:
        positions = self.listed_positions(tile)
        if positions.numel() == 0:
            return False
        mask = torch.zeros(tile.shape, dtype=torch.bool, device=tile.device)
        mask.view(-1)[positions] = True
        return mask


@dataclass(frozen=True, eq=False)
class LabelDistanceWeight:
    """Adds log w(|y_i - y_j|), a weight by the distance of two labels.

    Args:
        anchor_labels: ``(A,)`` numbers.
        candidate_labels: ``(C,)`` numbers.
        log_weight: elementwise function from distances to log weights (-inf leaves a pair out).

    Complexity: the cost of ``log_weight`` a pair. No gradient flows to labels or weights.

    >>> import torch
    >>> from graphcl.kernels import pair_logsumexp
    >>> y = torch.tensor([0.0, 1.0, 3.0])
    >>> rule = LabelDistanceWeight(y, y, torch.log)
    >>> pair_logsumexp(torch.zeros(3, 2), torch.zeros(3, 2), rules=rule).logsumexp.exp().round()
    tensor([4., 3., 5.])
    """

    anchor_labels: Tensor
    candidate_labels: Tensor
    log_weight: Callable[[Tensor], Tensor]
    mask_only: bool = field(default=False, init=False, repr=False)

    def check(self, num_anchors: int, num_candidates: int, device: torch.device, check: bool) -> None:
        for name, value, length in (
            ("anchor_labels", self.anchor_labels, num_anchors),
            ("candidate_labels", self.candidate_labels, num_candidates),
        ):
            if value.shape != (length,):
                raise ValueError(
                    f"LabelDistanceWeight.{name} must have shape ({length},), got shape {tuple(value.shape)}"
                )
            _check_device(f"LabelDistanceWeight.{name}", value, device)
            if check:
                check_no_nan(f"LabelDistanceWeight.{name}", value)

    def log_weight_tile(self, tile: PairTile) -> Tensor | bool:
        labels = self.anchor_labels.detach()[tile.rows, None], self.candidate_labels.detach()[None, tile.columns]
        return self.log_weight((labels[0] - labels[1]).abs())


@dataclass(frozen=True, eq=False)
class LevelTable:
    """Adds ``table[level(i), level(j)]``, a log weight looked up from two small integers.

    Args:
        anchor_levels: ``(A,)`` integers in ``0 .. L - 1``.
        candidate_levels: ``(C,)`` integers in ``0 .. L' - 1``.
        table: ``(L, L')`` log weights; -inf leaves a pair out. Of 0 and -inf alone it is a mask, which is cheaper.

    Complexity: one gather a pair.

    >>> import torch
    >>> from graphcl.kernels import pair_logsumexp
    >>> level = torch.tensor([0, 1, 1])
    >>> rule = LevelTable(level, level, torch.tensor([[1.0, 2.0], [3.0, 4.0]]).log())
    >>> pair_logsumexp(torch.zeros(3, 2), torch.zeros(3, 2), rules=rule).logsumexp.exp().round()
    tensor([ 5., 11., 11.])
    """

    anchor_levels: Tensor
    candidate_levels: Tensor
    table: Tensor
    mask_only: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        table = self.table.detach()
        object.__setattr__(self, "mask_only", bool(((table == 0.0) | (table == -torch.inf)).all()))

    def check(self, num_anchors: int, num_candidates: int, device: torch.device, check: bool) -> None:
        if self.table.dim() != 2 or not self.table.dtype.is_floating_point:
            raise ValueError(
                f"LevelTable.table must be a float matrix, got shape {tuple(self.table.shape)} of {self.table.dtype}"
            )
        levels, candidate_levels = self.table.shape
        check_indices("LevelTable.anchor_levels", self.anchor_levels, num_anchors, levels, check=check)
        check_indices(
            "LevelTable.candidate_levels", self.candidate_levels, num_candidates, candidate_levels, check=check
        )
        for name in ("anchor_levels", "candidate_levels", "table"):
            _check_device(f"LevelTable.{name}", getattr(self, name), device)
        if check:
            check_log_weight("LevelTable.table", self.table)

    def log_weight_tile(self, tile: PairTile) -> Tensor | bool:
        table = self.table.detach()
        if self.mask_only:
            table = table == 0.0
        rows = table[self.anchor_levels[tile.rows].long()]
        return rows[:, self.candidate_levels[tile.columns].long()]


@dataclass(frozen=True, eq=False)
class ScoreThreshold:
    """Keeps pairs whose similarity is at least (``keep_above``) or at most the anchor's threshold.

    The comparison uses s_ij before temperature and biases; the kept set is a constant of differentiation. Scores that
    equal the threshold up to rounding may fall on either side: for an exact k use `pair_topk` and gather.

    Args:
        threshold: ``(A,)`` floats.
        keep_above: True keeps ``s_ij >= threshold_i``, False keeps ``s_ij <= threshold_i``.

    Complexity: one more tile product and one comparison a pair.

    >>> import torch
    >>> from graphcl.kernels import pair_logsumexp
    >>> x = torch.eye(3)
    >>> pair_logsumexp(x, x, rules=ScoreThreshold(torch.full((3,), 0.5))).logsumexp
    tensor([1., 1., 1.])
    """

    threshold: Tensor
    keep_above: bool = True
    mask_only: bool = field(default=True, init=False, repr=False)

    def check(self, num_anchors: int, num_candidates: int, device: torch.device, check: bool) -> None:
        check_vector("ScoreThreshold.threshold", self.threshold, num_anchors, device=device)
        if check:
            check_no_nan("ScoreThreshold.threshold", self.threshold)

    def log_weight_tile(self, tile: PairTile) -> Tensor | bool:
        threshold = self.threshold.detach()[tile.rows, None]
        return tile.similarity >= threshold if self.keep_above else tile.similarity <= threshold


class _RuleGroup:
    """Rules combined into one."""

    def __init__(self, rules: Sequence[CandidateRule]) -> None:
        self.rules = tuple(rules)
        if not self.rules:
            raise ValueError(f"{type(self).__name__} needs at least one rule, got an empty sequence")
        self.mask_only = all(is_mask_only(rule) for rule in self.rules)

    def check(self, num_anchors: int, num_candidates: int, device: torch.device, check: bool) -> None:
        for rule in self.rules:
            check_rule(rule, num_anchors, num_candidates, device, check)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self.rules)!r})"


class AnyOf(_RuleGroup):
    """A pair is allowed when any of the rules allows it; its log weight is the largest that a rule gives.

    Args:
        rules: at least one rule.

    >>> import torch
    >>> from graphcl.kernels import pair_logsumexp
    >>> a, b = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1])
    >>> rule = AnyOf([EqualIds(a, a), EqualIds(b, b)])
    >>> pair_logsumexp(torch.zeros(3, 2), torch.zeros(3, 2), rules=rule).logsumexp.exp().round()
    tensor([2., 3., 2.])
    """

    def log_weight_tile(self, tile: PairTile) -> Tensor | bool:
        return _merged_or([rule.log_weight_tile(tile) for rule in self.rules], tile)


class AllOf(_RuleGroup):
    """A pair is allowed when all of the rules allow it; log weights add. Useful inside `AnyOf`.

    Args:
        rules: at least one rule.

    >>> import torch
    >>> from graphcl.kernels import pair_logsumexp
    >>> label = torch.tensor([0, 0, 1])
    >>> rule = AllOf([EqualIds(label, label), ExcludeSameIndex()])
    >>> pair_logsumexp(torch.zeros(3, 2), torch.zeros(3, 2), rules=rule).logsumexp.exp().round()
    tensor([1., 1., 0.])
    """

    def log_weight_tile(self, tile: PairTile) -> Tensor | bool:
        weight = combine_rules(self.rules, tile)
        if weight is None:
            return False
        mask = weight.mask
        if weight.excluded:
            hole = _mask_without(torch.cat(weight.excluded), tile)
            if isinstance(hole, Tensor):
                mask = hole if mask is None else mask & hole
        if not weight.log_weights:
            return True if mask is None else mask
        total = weight.log_weights[0]
        for other in weight.log_weights[1:]:
            total = total + other
        return total if mask is None else total + _as_log_weight(mask).to(total.dtype)
