from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pytest

from graphcl.data import (
    Interactions,
    PrefixRows,
    Split,
    leave_one_out,
    prefix_rows,
    same_target_rows,
    split_by_ratio,
    split_by_time,
    synthetic_shop,
)
from graphcl.errors import InputError

# Case split_and_prefix_rows of the reference numbers: external ids, windows of at most three items.
GOLDEN = {1: [5, 3, 8, 1, 9, 2, 7], 2: [3, 8, 2, 4, 1], 3: [8, 1, 6, 2, 7, 4, 3, 5]}


def log_of(sequences: dict[int, list[int]]) -> Interactions:
    user = [u for u, items in sequences.items() for _ in items]
    return Interactions.from_arrays(user, [i for items in sequences.values() for i in items])


def random_log(seed: int, *, times: bool = True) -> Interactions:
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, 30, 300), rng.integers(0, 40, 300)
    user[user == 7] = 8
    user[0] = 7  # a user with one row
    return Interactions.from_arrays(user, item, time=rng.integers(0, 90, 300) if times else None)


def triples(log: Interactions, rows: PrefixRows) -> list[list[Any]]:
    item = log.item_ids.external
    users = log.user_ids.to_external(rows.users).tolist()
    windows = [item[rows.window(r)].tolist() for r in range(len(rows))]
    return [list(row) for row in zip(users, windows, item[rows.targets].tolist(), strict=True)]


def test_prefix_rows_of_the_reference() -> None:
    log = log_of(GOLDEN)
    rows = prefix_rows(leave_one_out(log), 3)
    assert triples(log, rows) == [
        [1, [5], 3],
        [1, [5, 3], 8],
        [1, [5, 3, 8], 1],
        [1, [3, 8, 1], 9],
        [2, [3], 8],
        [2, [3, 8], 2],
        [3, [8], 1],
        [3, [8, 1], 6],
        [3, [8, 1, 6], 2],
        [3, [1, 6, 2], 7],
        [3, [6, 2, 7], 4],
    ]
    groups = same_target_rows(rows.targets, log.num_items)
    others = [groups.others(r, target=int(rows.targets[r])).tolist() for r in range(len(rows))]
    assert others == [[], [4], [6], [], [1], [8], [2], [], [5], [], []]


@pytest.mark.parametrize("part", ["valid", "test"])
def test_leave_one_out_of_the_reference(part: str) -> None:
    expected = {
        "valid": [[1, [8, 1, 9], 2], [2, [3, 8, 2], 4], [3, [2, 7, 4], 3]],
        "test": [[1, [1, 9, 2], 7], [2, [8, 2, 4], 1], [3, [7, 4, 3], 5]],
    }
    log = log_of(GOLDEN)
    evaluation = leave_one_out(log).evaluation(part)  # type: ignore[arg-type]
    item = log.item_ids.external
    found = [
        [log.user_ids.external[u], item[evaluation.history[n]].tolist()[-3:], item[evaluation.target_items[n]]]
        for n, u in enumerate(evaluation.users)
    ]
    assert found == expected[part]
    assert evaluation.target_offsets.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("max_length", [1, 2, 50])
def test_prefix_rows_equal_loops(max_length: int) -> None:
    split = leave_one_out(random_log(0))
    expected = []
    for user, items in enumerate(split.train_sequences()[u].tolist() for u in range(split.interactions.num_users)):
        expected += [[user, items[max(0, t - max_length) : t], items[t]] for t in range(1, len(items))]
    rows = prefix_rows(split, max_length)
    found = [[int(rows.users[r]), rows.window(r).tolist(), int(rows.targets[r])] for r in range(len(rows))]
    assert found == expected
    with pytest.raises(ValueError, match="max_length must be at least 1, got 0"):
        prefix_rows(split, 0)


def test_same_target_draws_are_uniform_over_the_others() -> None:
    targets = np.array([4, 1, 4, 4, 2])
    groups = same_target_rows(targets, 6)
    batch = np.repeat(np.arange(5), 3000)
    drawn = groups.draw(batch, targets[batch], np.random.default_rng(0)).reshape(5, 3000)
    assert (drawn[[1, 4]] == np.array([[1], [4]])).all()
    for row, others in ((0, [2, 3]), (2, [0, 3]), (3, [0, 2])):
        values, counts = np.unique(drawn[row], return_counts=True)
        assert values.tolist() == others
        assert abs(counts[0] - 1500) < 150
    with pytest.raises(IndexError, match=r"targets hold ids from 1 to 4, outside 0\.\.3"):
        same_target_rows(targets, 4)
    assert same_target_rows(np.zeros(0, dtype=np.int64), 2).offsets.tolist() == [0, 0, 0]


def test_leave_one_out_keeps_short_users_in_training() -> None:
    split = leave_one_out(log_of({1: [1, 2, 3], 2: [1, 2], 3: [3], 4: [4, 3, 2, 1]}))
    assert split.part.tolist() == [0, 1, 2, 0, 0, 0, 0, 0, 1, 2]
    assert split.counts == {"train": 6, "valid": 2, "test": 2, "unused": 0, "users_not_evaluable": 2}
    assert split.protocol == "leave-one-out"


def assert_no_leak(split: Split) -> None:
    """Recomputes what evaluation may see with dictionaries."""
    rows = split.interactions
    by_part: dict[int, dict[int, list[int]]] = {part: defaultdict(list) for part in range(4)}
    for user, item, part in zip(rows.user.tolist(), rows.item.tolist(), split.part.tolist(), strict=True):
        by_part[part][user].append(item)
    train = split.train_sequences()
    assert [train[u].tolist() for u in range(rows.num_users)] == [by_part[0][u] for u in range(rows.num_users)]
    for name, code in (("valid", 1), ("test", 2)):
        evaluation = split.evaluation(name)  # type: ignore[arg-type]
        assert evaluation.users.tolist() == sorted(user for user, items in by_part[code].items() if items)
        for n, user in enumerate(evaluation.users.tolist()):
            history = by_part[0][user] + (by_part[1][user] if code == 2 else [])
            assert evaluation.history[n].tolist() == history
            start, end = evaluation.target_offsets[n : n + 2]
            assert evaluation.target_items[start:end].tolist() == by_part[code][user]
    assert len(split.train) + len(split.valid) + len(split.test) == int((split.part != 3).sum())
    assert split.train.num_items == rows.num_items


@pytest.mark.parametrize("seed", range(3))
def test_no_split_leaks(seed: int) -> None:
    log = random_log(seed)
    for split in (
        leave_one_out(log),
        split_by_ratio(log, (0.6, 0.2, 0.2)),
        split_by_time(log, 0.2, 0.2),
        split_by_time(log, 0.2, 0.2, cold_users="keep", cold_items="keep"),
    ):
        assert_no_leak(split)


def test_split_by_time_never_cuts_a_tie() -> None:
    log = random_log(3)
    split = split_by_time(log, 0.15, 0.25, cold_users="keep", cold_items="keep")
    time = split.interactions.time
    assert time is not None
    last = [time[split.part == part] for part in range(3)]
    assert last[0].max() < last[1].min()
    assert last[1].max() < last[2].min()
    assert abs(len(last[2]) - 75) < 10
    assert split.protocol.startswith("by-time(valid from ")


def test_split_by_time_drops_cold_users_and_items_on_request() -> None:
    user = [1, 1, 2, 2, 1, 3, 2, 3, 1, 2]
    item = [1, 2, 1, 2, 1, 1, 9, 2, 2, 1]
    log = Interactions.from_arrays(user, item, time=list(range(10)))
    split = split_by_time(log, cut_points=(4, 7))
    unused = split.interactions.take(split.part == 3)
    pairs = zip(unused.user_ids.to_external(unused.user), unused.item_ids.to_external(unused.item), strict=True)
    assert sorted((int(u), int(i)) for u, i in pairs) == [(2, 9), (3, 1), (3, 2)]
    assert split_by_time(log, cut_points=(4, 7), cold_items="keep").counts["unused"] == 2
    assert split_by_time(log, cut_points=(4, 7), cold_users="keep", cold_items="keep").counts["unused"] == 0


def test_cut_points_may_be_dates() -> None:
    days = np.array(["2020-01-01", "2020-01-02", "2020-01-03", "2020-01-04"], dtype="datetime64[us]")
    log = Interactions.from_arrays([1, 2, 1, 2], [1, 1, 1, 1], time=days)
    split = split_by_time(log, cut_points=("2020-01-03", "2020-01-04"))
    assert split.part.tolist() == [0, 1, 0, 2]


def test_split_by_ratio_counts() -> None:
    log = log_of({1: list(range(30)), 2: list(range(10)), 3: [1, 2, 3], 4: [1, 2]})
    split = split_by_ratio(log)
    counts = [np.bincount(split.part[split.interactions.user == u], minlength=3).tolist() for u in range(4)]
    assert counts == [[24, 3, 3], [8, 1, 1], [1, 1, 1], [2, 0, 0]]
    assert split.protocol == "by-ratio(0.8,0.1,0.1)"


@pytest.mark.parametrize("ratios", [(0.8, 0.2), (0.8, 0.2, 0.0), (0.5, 0.2, 0.2)])
def test_bad_ratios(ratios: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="three positive shares with sum 1"):
        split_by_ratio(random_log(0), ratios)


def test_one_user_only_is_refused() -> None:
    log = Interactions.from_arrays([4] * 5, [1, 2, 3, 4, 5], time=[1, 2, 3, 4, 5], source="log.csv")
    for split in (leave_one_out, split_by_ratio, split_by_time):
        with pytest.raises(
            InputError, match=r"log.csv, column 'user': the log holds one user only.*at least two users"
        ):
            split(log)


def test_logs_that_cannot_be_split() -> None:
    short = log_of({1: [1, 2], 2: [2]})
    for split in (leave_one_out, split_by_ratio):
        with pytest.raises(InputError, match="no user has three interactions"):
            split(short)
    with pytest.raises(InputError, match=r"the log has no times.*name the time column"):
        split_by_time(short)
    one_moment = Interactions.from_arrays([1, 2, 1], [1, 2, 1], time=[5, 5, 5])
    with pytest.raises(InputError, match="a part of the split at times 5 and 5 is empty"):
        split_by_time(one_moment)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"valid": 0.0}, r"valid must be a share in \(0, 1\), got 0.0"),
        ({"valid": 0.5, "test": 0.5}, "valid \\+ test must be below 1"),
        ({"cut_points": (7, 3)}, "ascending order"),
        ({"cold_users": "ignore"}, "cold_users must be 'drop' or 'keep', got 'ignore'"),
    ],
)
def test_bad_time_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split_by_time(random_log(0), **options)


def test_a_split_that_leaks_cannot_be_made() -> None:
    log = log_of({1: [1, 2, 3]})
    with pytest.raises(ValueError, match="part must not fall inside a user"):
        Split(log, np.array([0, 2, 1], dtype=np.uint8), "mine")
    with pytest.raises(ValueError, match="sorted by user"):
        Split(log_of({2: [1], 1: [1]}), np.zeros(2, dtype=np.uint8), "mine")
    with pytest.raises(ValueError, match="part must have the shape"):
        Split(log, np.zeros(2, dtype=np.uint8), "mine")
    with pytest.raises(ValueError, match="part must hold 0, 1, 2 or 3, got 4"):
        Split(log, np.array([0, 2, 4], dtype=np.uint8), "mine")
    unused_inside = Split(log, np.array([0, 3, 2], dtype=np.uint8), "mine")
    assert unused_inside.evaluation("test").history_items.tolist() == [0]
    with pytest.raises(ValueError, match="part must be 'valid' or 'test', got 'train'"):
        unused_inside.evaluation("train")  # type: ignore[arg-type]


def test_synthetic_shop_is_seeded_and_has_structure() -> None:
    log = synthetic_shop(num_users=1500, num_items=300, seed=1)
    assert log.content_hash() == synthetic_shop(num_users=1500, num_items=300, seed=1).content_hash()
    assert log.content_hash() != synthetic_shop(num_users=1500, num_items=300, seed=2).content_hash()
    assert log.num_users == 1500
    assert log.sequences().lengths.min() >= 5
    assert log.time is not None
    assert (np.diff(log.time) >= 0).all()
    assert log.item_features is not None
    assert log.item_features.height == log.num_items
    sold = np.sort(np.bincount(log.item))[::-1]
    assert sold[: log.num_items // 5].sum() > 0.5 * sold.sum()
    # The last item says more about the next one than popularity does.
    split = leave_one_out(log)
    test = split.evaluation("test")
    popular = np.argsort(-np.bincount(split.train.item, minlength=log.num_items))[:10]
    rows = prefix_rows(split, 1)
    follows = np.zeros((log.num_items, log.num_items))
    np.add.at(follows, (rows.items[rows.start], rows.targets), 1)
    likely = np.argsort(-follows[test.items[test.history_end - 1]], axis=1)[:, :10]
    by_last = (likely == test.target_items[:, None]).any(axis=1).mean()
    assert by_last > 1.5 * np.isin(test.target_items, popular).mean()


def test_synthetic_shop_sessions_and_arguments() -> None:
    log = synthetic_shop(num_users=40, num_items=20, mean_length=5, num_categories=20)
    assert log.value is not None
    for user in range(log.num_users):
        sessions = log.value[log.user == user]
        assert sessions[0] == 1
        assert set(np.diff(sessions).tolist()) <= {0.0, 1.0}
    for options, message in (
        ({"num_users": 0}, "num_users must be at least 1, got 0"),
        ({"mean_length": 4}, "mean_length must be at least 5, got 4"),
        ({"num_items": 3}, r"num_categories must be at most num_items \(3\), got 8"),
        ({"follow": 1.5}, r"follow must be in \[0, 1\], got 1.5"),
    ):
        with pytest.raises(ValueError, match=message):
            synthetic_shop(**options)
