"""Windows supervise every target exactly once, batches copy nothing back, and the order is a function of the seed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from graphcl.pipelines.batches import TrainingWindows, epoch_order, history_batches, make_batch, training_windows

GOLDEN = Path(__file__).parents[1] / "golden" / "sequential-recommendation.json"
LENGTHS = [0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 40]


def sequences_of(lengths: list[int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """All items differ, so a window can be told from its items."""
    return np.arange(1, sum(lengths) + 1), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def supervised_pairs(windows: TrainingWindows) -> list[tuple[tuple[int, ...], int]]:
    """(visible items, target) of every supervised position, by loops."""
    pairs = []
    for start, length, count in zip(windows.start, windows.length, windows.supervised, strict=True):
        for place in range(length - count, length):
            visible = tuple(windows.items[start : start + place + 1].tolist())
            pairs.append((visible, int(windows.items[start + place + 1])))
    return pairs


@pytest.mark.parametrize("rows", ["causal", "prefix"])
@pytest.mark.parametrize(("max_length", "stride"), [(8, None), (8, 1), (8, 3), (8, 8), (1, 1), (50, None)])
def test_every_target_is_supervised_once_with_its_own_past(rows: Any, max_length: int, stride: int | None) -> None:
    items, offsets = sequences_of(LENGTHS)
    windows = training_windows(items, offsets, max_length=max_length, stride=stride, rows=rows)
    pairs = supervised_pairs(windows)
    step = 1 if rows == "prefix" else stride or -(-max_length // 2)
    expected = 0
    by_target = {target: visible for visible, target in pairs}
    for first, last in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        for place in range(first + 1, last):
            expected += 1
            visible = by_target[int(items[place])]
            past = items[first:place].tolist()
            assert list(visible) == past[-len(visible) :]  # contiguous, ends just before the target, own user only
            assert min(len(past), max_length - step + 1) <= len(visible) <= max_length
    assert len(pairs) == len(by_target) == expected == windows.num_targets


def test_prefix_windows_equal_the_published_rows() -> None:
    case = next(
        entry
        for entry in json.loads(GOLDEN.read_text(encoding="utf-8"))["cases"]
        if entry["id"] == "split_and_prefix_rows"
    )
    sequences = [sequence[:-2] for sequence in case["inputs"]["sequences"].values()]  # without validation and test
    items = np.array([item for sequence in sequences for item in sequence])
    offsets = np.concatenate([[0], np.cumsum([len(sequence) for sequence in sequences])])
    for rows, stride in (("prefix", None), ("causal", 1)):
        windows = training_windows(items, offsets, max_length=case["inputs"]["max_len"], stride=stride, rows=rows)  # type: ignore[arg-type]
        pairs = [[list(visible), target] for visible, target in supervised_pairs(windows)]
        assert pairs == [row[1:] for row in case["expected"]["train_rows"]]


def test_batches_of_an_epoch_hold_every_target_once() -> None:
    items, offsets = sequences_of(LENGTHS)
    stored = items.copy()
    windows = training_windows(items, offsets, max_length=8)
    targets: list[int] = []
    for step in epoch_order(windows, 16, seed=3, epoch=5):
        batch = make_batch(windows, step)
        tokens = batch.sequences.items.flatten()[batch.supervised]
        assert (batch.targets - tokens == 1).all()  # items count up: the target follows its token
        assert batch.total == batch.targets.shape[0]
        targets += batch.targets.tolist()
    assert sorted(targets) == sorted(target for _, target in supervised_pairs(windows))
    assert np.array_equal(items, stored)


def test_epoch_order_is_a_function_of_seed_and_epoch() -> None:
    items, offsets = sequences_of([9] * 40)
    windows = training_windows(items, offsets, max_length=8)

    def order(seed: int, epoch: int) -> list[int]:
        return [number for step in epoch_order(windows, 32, seed=seed, epoch=epoch) for number in step.tolist()]

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)
    sizes = [int(windows.supervised[step].sum()) for step in epoch_order(windows, 32, seed=0, epoch=0)]
    assert max(sizes) <= 32 + 8
    assert sum(sizes) == windows.num_targets


def test_history_batches_keep_the_last_items() -> None:
    items, offsets = sequences_of([3, 1, 12, 5])
    seen = {}
    for numbers, packed in history_batches(items, offsets, max_length=4, tokens_per_batch=6):
        flat = packed.items.flatten()
        for place, number in enumerate(numbers.tolist()):
            seen[number] = flat[packed.segments.flatten() == place].tolist()
    assert seen == {row: items[offsets[row] : offsets[row + 1]][-4:].tolist() for row in range(4)}


def test_stride_must_lie_within_the_window() -> None:
    with pytest.raises(ValueError, match=r"stride must be between 1 and max_length \(4\), got 5"):
        training_windows(*sequences_of([9]), max_length=4, stride=5)


def test_nothing_to_train_on_gives_no_step() -> None:
    windows = training_windows(*sequences_of([1, 0, 1]), max_length=4)
    assert windows.num_targets == 0
    assert epoch_order(windows, 8, seed=0, epoch=0) == []
