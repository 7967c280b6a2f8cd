"""Candidate rules: golden tables, tiles against the whole matrix, and messages."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from graphcl.kernels import (
    AllOf,
    AnyOf,
    CandidateRule,
    EqualIds,
    ExcludePairs,
    ExcludeSameIndex,
    KeepPairs,
    LabelDistanceWeight,
    LevelTable,
    PairTile,
    ScoreThreshold,
    pair_logsumexp,
)

CPU = torch.device("cpu")
NINF = -math.inf


def tile(
    rows: tuple[int, int], columns: tuple[int, int], candidates: int, similarity: Tensor | None = None
) -> PairTile:
    def look_up(r: slice, c: slice) -> Tensor:
        assert similarity is not None
        return similarity[r, c]

    return PairTile(slice(*rows), slice(*columns), candidates, CPU, look_up)


def as_weight(answer: Tensor | bool, shape: tuple[int, int]) -> list[list[float]]:
    if isinstance(answer, bool):
        answer = torch.tensor(answer)
    if answer.dtype == torch.bool:
        answer = torch.where(answer, 0.0, NINF)
    rows: list[list[float]] = answer.expand(shape).tolist()
    return rows


IDS = torch.tensor([0, 1, 1])
OFFSETS, COLUMNS = torch.tensor([0, 2, 2, 3]), torch.tensor([0, 3, 1])
GOLDEN: dict[str, tuple[CandidateRule, list[list[float]]]] = {
    "same index": (ExcludeSameIndex(), [[NINF, 0, 0, 0], [0, NINF, 0, 0], [0, 0, NINF, 0]]),
    "given index": (
        ExcludeSameIndex(torch.tensor([2, 0, 9]), torch.tensor([0, 2, 2, 5])),
        [[0, NINF, NINF, 0], [NINF, 0, 0, 0], [0, 0, 0, 0]],
    ),
    "anchor index": (
        ExcludeSameIndex(anchor_index=torch.tensor([3, 3, 0])),
        [[0, 0, 0, NINF], [0, 0, 0, NINF], [NINF, 0, 0, 0]],
    ),
    "equal": (
        EqualIds(IDS, torch.tensor([1, 0, 1, 2])),
        [[NINF, 0, NINF, NINF], [0, NINF, 0, NINF], [0, NINF, 0, NINF]],
    ),
    "different": (
        EqualIds(IDS, torch.tensor([1, 0, 1, 2]), keep=False),
        [[0, NINF, 0, 0], [NINF, 0, NINF, 0], [NINF, 0, NINF, 0]],
    ),
    "exclude": (ExcludePairs(OFFSETS, COLUMNS), [[NINF, 0, 0, NINF], [0, 0, 0, 0], [0, NINF, 0, 0]]),
    "keep": (KeepPairs(OFFSETS, COLUMNS), [[0, NINF, NINF, 0], [NINF] * 4, [NINF, 0, NINF, NINF]]),
    "distance": (
        LabelDistanceWeight(torch.tensor([0.0, 1.0, 3.0]), torch.tensor([0.0, 1.0, 1.0, 4.0]), torch.log2),
        [[NINF, 0, 0, 2], [0, NINF, NINF, math.log2(3)], [math.log2(3), 1, 1, 0]],
    ),
    "table": (
        LevelTable(IDS, torch.tensor([0, 1, 2, 0]), torch.tensor([[1.0, 2.0, 3.0], [4.0, NINF, 6.0]])),
        [[1, 2, 3, 1], [4, NINF, 6, 4], [4, NINF, 6, 4]],
    ),
    "any": (
        AnyOf([ExcludeSameIndex(), KeepPairs(torch.tensor([0, 1, 1, 1]), torch.tensor([0]))]),
        [[0, 0, 0, 0], [0, NINF, 0, 0], [0, 0, NINF, 0]],
    ),
    "any of weights": (
        AnyOf(
            [EqualIds(IDS, torch.tensor([1, 0, 1, 2])), LevelTable(IDS, torch.tensor([0, 1, 1, 0]), torch.eye(2) - 2)]
        ),
        [[-1, 0, -2, -1], [0, -1, 0, -2], [0, -1, 0, -2]],
    ),
    "all": (
        AllOf([EqualIds(IDS, torch.tensor([1, 0, 1, 2]), keep=False), ExcludePairs(OFFSETS, COLUMNS)]),
        [[NINF, NINF, 0, NINF], [NINF, 0, NINF, 0], [NINF, NINF, NINF, 0]],
    ),
    "all of weights": (
        AllOf([ExcludeSameIndex(), LevelTable(IDS, torch.tensor([0, 1, 1, 0]), torch.eye(2))]),
        [[NINF, 0, 0, 1], [0, NINF, 1, 0], [0, 1, NINF, 0]],
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_table(name: str) -> None:
    rule, expected = GOLDEN[name]
    answer = rule.log_weight_tile(tile((0, 3), (0, 4), 4))
    torch.testing.assert_close(torch.tensor(as_weight(answer, (3, 4))), torch.tensor(expected, dtype=torch.float32))


@pytest.mark.parametrize("name", GOLDEN)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (3, 2)])
def test_every_tile_is_its_part_of_the_whole(name: str, height: int, width: int) -> None:
    rule, expected = GOLDEN[name]
    for r in range(0, 3, height):
        for c in range(0, 4, width):
            rows, columns = (r, min(r + height, 3)), (c, min(c + width, 4))
            part = tile(rows, columns, 4)
            want = torch.tensor(expected, dtype=torch.float32)[slice(*rows), slice(*columns)]
            torch.testing.assert_close(torch.tensor(as_weight(rule.log_weight_tile(part), part.shape)), want)


@pytest.mark.parametrize("name", GOLDEN)
@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_the_engine_applies_the_table(name: str, backend: str) -> None:
    rule, expected = GOLDEN[name]
    x, y = torch.zeros(3, 2, dtype=torch.float64), torch.zeros(4, 2, dtype=torch.float64)
    total = pair_logsumexp(x, y, rules=rule, backend=backend).logsumexp  # type: ignore[arg-type]
    torch.testing.assert_close(total, torch.logsumexp(torch.tensor(expected, dtype=torch.float64), dim=1))


@pytest.mark.parametrize(("keep_above", "expected"), [(True, [[1.0, 1], [0, 1]]), (False, [[1, 0], [1, 0]])])
def test_score_threshold_looks_at_the_similarity(keep_above: bool, expected: list[list[float]]) -> None:
    similarity = torch.tensor([[0.5, 2.0], [-1.0, 3.0]])
    rule = ScoreThreshold(torch.tensor([0.5, 0.0]), keep_above=keep_above)
    answer = rule.log_weight_tile(tile((0, 2), (0, 2), 2, similarity))
    assert isinstance(answer, Tensor)
    assert answer.float().tolist() == expected


def test_tiles_without_a_listed_pair_are_skipped() -> None:
    rule = KeepPairs(OFFSETS, COLUMNS)
    assert rule.log_weight_tile(tile((1, 2), (0, 4), 4)) is False
    assert rule.log_weight_tile(tile((0, 1), (1, 3), 4)) is False


def test_off_diagonal_tiles_are_all_true() -> None:
    assert ExcludeSameIndex().log_weight_tile(tile((0, 2), (2, 4), 4)) is True
    assert ExcludePairs(OFFSETS, COLUMNS).log_weight_tile(tile((1, 2), (0, 4), 4)) is True


def test_any_of_short_cuts() -> None:
    part = tile((0, 2), (2, 4), 4)
    nothing = KeepPairs(torch.zeros(4, dtype=torch.int64), torch.empty(0, dtype=torch.int64))
    assert AnyOf([nothing, ExcludeSameIndex()]).log_weight_tile(part) is True
    assert AnyOf([nothing, nothing]).log_weight_tile(part) is False
    assert AllOf([nothing, ExcludeSameIndex()]).log_weight_tile(part) is False


def test_weights_carry_no_gradient() -> None:
    labels = torch.tensor([0.5, 1.0, 3.0], requires_grad=True)
    rule = LabelDistanceWeight(labels, labels, lambda distance: -distance)
    x = torch.ones(3, 2, requires_grad=True)
    pair_logsumexp(x, x, rules=rule).logsumexp.sum().backward()  # type: ignore[no-untyped-call]
    assert labels.grad is None


def test_a_mask_may_be_broadcast() -> None:
    class FirstTwo:
        mask_only = True

        def log_weight_tile(self, part: PairTile) -> Tensor | bool:
            return torch.arange(part.columns.start, part.columns.stop)[None, :] < 2

    x = torch.zeros(5, 2, dtype=torch.float64)
    total = pair_logsumexp(x, x, rules=FirstTwo(), block_size=3).logsumexp
    torch.testing.assert_close(total, torch.full((5,), math.log(2), dtype=torch.float64))


def test_bad_rules_are_named() -> None:
    x, y = torch.zeros(3, 2), torch.zeros(4, 2)
    with pytest.raises(ValueError, match=r"EqualIds.anchor_ids must have shape \(3,\), got shape \(2,\)"):
        pair_logsumexp(x, y, rules=EqualIds(IDS[:2], torch.zeros(4, dtype=torch.int64)))
    with pytest.raises(TypeError, match=r"EqualIds.candidate_ids must be an integer tensor, got dtype torch.float32"):
        pair_logsumexp(x, y, rules=EqualIds(IDS, torch.zeros(4)))
    with pytest.raises(ValueError, match=r"ExcludePairs.offsets must not decrease, got 2 then 1"):
        pair_logsumexp(x, y, rules=ExcludePairs(torch.tensor([0, 2, 1, 3]), COLUMNS))
    with pytest.raises(ValueError, match=r"KeepPairs.offsets must run from 0 to 3 .* got 0 to 2"):
        pair_logsumexp(x, y, rules=KeepPairs(torch.tensor([0, 2, 2, 2]), COLUMNS))
    with pytest.raises(IndexError, match=r"ExcludePairs.columns holds 4, outside 0 .. 3"):
        pair_logsumexp(x, y, rules=ExcludePairs(OFFSETS, torch.tensor([0, 4, 1])))
    with pytest.raises(ValueError, match=r"ExcludePairs.columns must be sorted within each row, got 3 before 0"):
        pair_logsumexp(x, y, rules=ExcludePairs(OFFSETS, torch.tensor([3, 0, 1])))
    with pytest.raises(ValueError, match=r"ExcludePairs.offsets must have shape \(4,\), got shape \(3,\)"):
        pair_logsumexp(x, y, rules=ExcludePairs(OFFSETS[:3], COLUMNS))
    with pytest.raises(IndexError, match=r"LevelTable.anchor_levels holds 1, outside 0 .. 0"):
        pair_logsumexp(x, y, rules=LevelTable(IDS, torch.zeros(4, dtype=torch.int64), torch.zeros(1, 1)))
    with pytest.raises(ValueError, match=r"LevelTable.table must be a float matrix, got shape \(2,\)"):
        pair_logsumexp(x, y, rules=LevelTable(IDS, torch.zeros(4, dtype=torch.int64), torch.zeros(2)))
    with pytest.raises(
        ValueError, match=r"LabelDistanceWeight.candidate_labels must have shape \(4,\), got shape \(3,\)"
    ):
        pair_logsumexp(x, y, rules=LabelDistanceWeight(torch.zeros(3), torch.zeros(3), torch.log))
    with pytest.raises(ValueError, match=r"ScoreThreshold.threshold must have shape \(3,\), got shape \(4,\)"):
        pair_logsumexp(x, y, rules=ScoreThreshold(torch.zeros(4)))
    with pytest.raises(ValueError, match=r"EqualIds.anchor_ids must have shape \(3,\), got shape \(4,\)"):
        pair_logsumexp(x, y, rules=AnyOf([EqualIds(torch.zeros(4, dtype=torch.int64), IDS)]))
    with pytest.raises(ValueError, match=r"AnyOf needs at least one rule, got an empty sequence"):
        AnyOf([])
    with pytest.raises(ValueError, match=r"ExcludeSameIndex.anchor_index must have shape \(3,\), got shape \(1,\)"):
        pair_logsumexp(x, y, rules=ExcludeSameIndex(IDS[:1]))


def test_index_checks_can_be_switched_off() -> None:
    unsorted = ExcludePairs(torch.tensor([0, 2, 2, 2]), torch.tensor([3, 0]))
    x, y = torch.zeros(3, 2), torch.zeros(4, 2)
    assert float(pair_logsumexp(x, y, rules=unsorted, check=False).logsumexp[0]) == pytest.approx(math.log(2))


def test_repr_names_the_parts() -> None:
    assert repr(AnyOf([ExcludeSameIndex()])) == "AnyOf([ExcludeSameIndex(anchor_index=None, candidate_index=None)])"


def test_any_of_keeps_the_precision_of_weights_behind_a_mask() -> None:
    label = torch.tensor([0.0, 0.1], dtype=torch.float64)
    weight = LabelDistanceWeight(label, label, lambda distance: distance / 3)
    answer = AnyOf([EqualIds(torch.tensor([0, 1]), torch.tensor([5, 6])), weight]).log_weight_tile(
        tile((0, 2), (0, 2), 2)
    )
    assert as_weight(answer, (2, 2)) == [[0.0, 0.1 / 3], [0.1 / 3, 0.0]]
