from __future__ import annotations

import random
from collections import Counter
from typing import Any

import numpy as np
import polars as pl
import pytest

from graphcl.data import IdMap, Interactions, Sequences, k_core
from graphcl.errors import InputError


def test_integers_sort_numerically_and_text_by_code_point() -> None:
    assert IdMap([10, 9, 100, 9]).external.tolist() == [9, 10, 100]
    assert IdMap(["10", "9", "100", "é", "Z", "a"]).external.tolist() == ["10", "100", "9", "Z", "a", "é"]
    assert (IdMap([1]).kind, IdMap(["1"]).kind, len(IdMap([3, 3]))) == ("integer", "text", 1)


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([2**63, 5], [5, 2**63]),
        ([2**64, 5], ["18446744073709551616", "5"]),
        (np.array([3, 1], dtype=np.int8), [1, 3]),
        (np.array([2**64 - 1], dtype=np.uint64), [2**64 - 1]),
        (np.array([3.0, 1.0]), [1, 3]),
        (np.array(["b", "a"]), ["a", "b"]),
        (np.array(["b", "a"], dtype=object), ["a", "b"]),
        ([1, "a"], ["1", "a"]),
        (pl.Series(["b", "a"], dtype=pl.Categorical), ["a", "b"]),
        (pl.Series([3, 1], dtype=pl.UInt64), [1, 3]),
        (np.array([3, 1], dtype=">i4"), [1, 3]),
        ([], []),
    ],
)
def test_ids_of_any_size_and_type(ids: Any, expected: list[Any]) -> None:
    ids_map, codes = IdMap.factorize(ids)
    assert ids_map.external.tolist() == expected
    assert [str(v) for v in ids_map.to_external(codes).tolist()] == [
        str(int(v) if expected == [1, 3] else v) for v in ids
    ]


def test_factorize_equals_a_dictionary() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(-50, 50, 1000)
    ids, codes = IdMap.factorize(values)
    lookup = {value: position for position, value in enumerate(sorted(set(values.tolist())))}
    assert codes.tolist() == [lookup[value] for value in values.tolist()]
    assert ids.to_external(codes).tolist() == values.tolist()


def test_unknown_ids() -> None:
    ids = IdMap([5, 7])
    assert ids.to_internal([7, 6, 5], unknown="ignore").tolist() == [1, -1, 0]
    with pytest.raises(InputError, match=r"id 6 is unknown \(2 of 3 ids are\)"):
        ids.to_internal([7, 6, 8])
    with pytest.raises(ValueError, match="unknown must be"):
        ids.to_internal([7], unknown="drop")  # type: ignore[arg-type]
    with pytest.raises(IndexError, match=r"outside 0\.\.1"):
        ids.to_external([2])
    with pytest.raises(InputError, match="an id is missing"):
        IdMap([1, None])
    with pytest.raises(InputError, match="ids of type Boolean are not supported"):
        IdMap(np.array([True]))


def test_text_finds_integers_only_in_canonical_form() -> None:
    assert IdMap([5, 7]).to_internal(["7", "007", "x", "7.0"], unknown="ignore").tolist() == [1, -1, -1, -1]
    assert IdMap(["5", "07"]).to_internal([5, 7], unknown="ignore").tolist() == [1, -1]
    assert IdMap([2**63]).to_internal([-1, 2**63], unknown="ignore").tolist() == [-1, 0]


def test_id_maps_compare_by_content() -> None:
    assert IdMap([2, 1]) == IdMap([1, 2])
    assert IdMap([1]) != IdMap(["1"])
    assert IdMap([1]) != 1


def test_sequences_sort_by_time_and_keep_ties_in_order() -> None:
    log = Interactions.from_arrays([2, 1, 2, 2, 1], [10, 11, 12, 13, 14], time=[5, 3, 5, 1, 3])
    sequences = log.sequences()
    assert sequences.offsets.tolist() == [0, 2, 5]
    assert log.item_ids.to_external(sequences.items).tolist() == [11, 14, 13, 10, 12]
    assert sequences.times is not None
    assert sequences.times.tolist() == [3, 3, 1, 5, 5]
    assert [len(sequences), sequences.lengths.tolist(), sequences[1].tolist()] == [2, [2, 3], [3, 0, 2]]
    with pytest.raises(IndexError, match=r"user must be in 0\.\.1, got 2"):
        sequences[2]


def test_sequences_without_times_keep_row_order() -> None:
    rng = np.random.default_rng(1)
    user, item = rng.integers(0, 20, 500), rng.integers(0, 30, 500)
    log = Interactions.from_arrays(user, item)
    expected: dict[int, list[int]] = {}
    for u, i in zip(log.user.tolist(), log.item.tolist(), strict=True):
        expected.setdefault(u, []).append(i)
    assert [log.sequences()[u].tolist() for u in range(log.num_users)] == [expected[u] for u in range(log.num_users)]


def test_take_keeps_id_spaces_and_compact_shrinks_them() -> None:
    features = pl.DataFrame({"item": [7, 8, 9], "name": ["a", "b", "c"]})
    log = Interactions.from_arrays([1, 2, 3], [7, 8, 9], time=[1, 2, 3], value=[1, 2, 3], item_features=features)
    part = log.take(np.array([2, 0]))
    assert (part.num_users, part.num_items, len(part)) == (3, 3, 2)
    assert part.sequences().lengths.tolist() == [1, 0, 1]
    small = part.compact()
    assert (small.num_users, small.user.tolist(), small.item_ids.external.tolist()) == (2, [1, 0], [7, 9])
    assert small.item_features is not None
    assert small.item_features["name"].to_list() == ["a", "c"]
    assert repr(small) == "Interactions(2 users, 2 items, 2 interactions)"


def test_content_hash_depends_on_content_alone() -> None:
    base: dict[str, Any] = {"user": [1, 2], "item": ["a", "b"], "time": [3, 4], "value": [1.0, 2.0]}
    log = Interactions.from_arrays(**base)
    assert log.content_hash() == Interactions.from_arrays(**base, source="elsewhere").content_hash()
    assert len(log.content_hash()) == 64
    changes: list[dict[str, Any]] = [
        {"user": [1, 3]},
        {"item": ["ab", "c"]},
        {"time": [3, 5]},
        {"time": None},
        {"value": [1.0, 2.5]},
        {"item": ["b", "a"]},
        {"item_features": pl.DataFrame({"item": ["a"], "x": [1]})},
    ]
    hashes = {Interactions.from_arrays(**{**base, **change}).content_hash() for change in changes}
    assert len(hashes - {log.content_hash()}) == len(changes)
    assert (
        Interactions.from_arrays([1, 2], ["ab", "c"]).content_hash()
        != Interactions.from_arrays([1, 2], ["a", "bc"]).content_hash()
    )


def test_bad_arrays() -> None:
    with pytest.raises(ValueError, match=r"item must have the length of user \(2\), got 1"):
        Interactions.from_arrays([1, 2], [1])
    with pytest.raises(InputError, match="there is no interaction in it"):
        Interactions.from_arrays([], [])
    with pytest.raises(InputError, match=r"shop, row 2, column 'time': time nan is not a number"):
        Interactions.from_arrays([1, 2], [1, 2], time=[0.0, float("nan")], source="shop")
    with pytest.raises(InputError, match="a column of type Array"):
        Interactions.from_arrays([1], [1], time=np.array([[1, 2]]))
    ids = IdMap([1])
    with pytest.raises(IndexError, match="item holds internal ids outside"):
        Interactions(np.array([0]), np.array([1]), ids, ids)
    with pytest.raises(ValueError, match="time must have the shape of user"):
        Interactions(np.array([0]), np.array([0]), ids, ids, time=np.array([1, 2]))


def slow_k_core(rows: list[tuple[int, int]], k_user: int, k_item: int) -> list[tuple[int, int]]:
    while True:
        users, items = Counter(u for u, _ in rows), Counter(i for _, i in rows)
        kept = [(u, i) for u, i in rows if users[u] >= k_user and items[i] >= k_item]
        if len(kept) == len(rows):
            return rows
        rows = kept


@pytest.mark.parametrize(("k_user", "k_item"), [(3, 4), (4, 2), (0, 5), (1, 1)])
def test_k_core_equals_removal_one_by_one(k_user: int, k_item: int) -> None:
    draw = random.Random(2)
    rows = [(draw.randrange(60), int(draw.paretovariate(0.7)) % 90) for _ in range(250)]
    log = Interactions.from_arrays([u for u, _ in rows], [i for _, i in rows])
    core = k_core(log, k_user, k_item)
    users, items = core.user_ids.to_external(core.user), core.item_ids.to_external(core.item)
    expected = slow_k_core(rows, k_user, k_item)
    assert expected
    assert list(zip(users.tolist(), items.tolist(), strict=True)) == expected
    assert core.report.rows_read == core.report.rows_kept + core.report.rows_dropped == 250


def test_k_core_limits() -> None:
    log = Interactions.from_arrays([1, 1, 2], [1, 2, 1])
    with pytest.raises(InputError, match="no interaction is left in the 3-3-core; lower k_user and k_item"):
        k_core(log, 3, 3)
    with pytest.raises(ValueError, match="k_item must be at least 0, got -1"):
        k_core(log, 0, -1)


def test_sequences_of_no_rows() -> None:
    empty = Interactions.from_arrays([1, 2], [3, 4]).take(np.zeros(0, dtype=np.int64))
    assert empty.sequences().offsets.tolist() == [0, 0, 0]
    assert isinstance(empty.sequences(), Sequences)
