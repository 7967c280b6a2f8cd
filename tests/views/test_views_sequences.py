"""Sequence views: what each operator keeps, slow oracles, and that stored sequences never change."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from graphcl.views import (
    SequenceView,
    crop_items,
    draw_operators,
    insert_items,
    mask_items,
    reorder_items,
    repeat_items,
    substitute_items,
    two_views,
)

WIDTH, ITEMS = 12, 40


def batch(rows: int = 200, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, WIDTH + 1, (rows,), generator=generator)
    items = torch.stack([torch.randperm(ITEMS, generator=generator)[:WIDTH] + 1 for _ in range(rows)])
    return items.masked_fill(torch.arange(WIDTH) >= lengths[:, None], 0), lengths


def rows_of(items: Tensor, lengths: Tensor) -> list[list[int]]:
    return [row[:length] for row, length in zip(items.tolist(), lengths.tolist(), strict=True)]


def neighbour_table() -> Tensor:
    """Item i is followed by i + 100 and i + 200; every fifth item has no neighbour, every third only one."""
    ids = torch.arange(ITEMS + 1)
    table = torch.stack([ids + 100, torch.where(ids % 3 == 0, 0, ids + 200)], 1)
    return table.masked_fill(((ids % 5 == 0) | (ids == 0))[:, None], 0)


OPERATORS: dict[str, Callable[..., SequenceView]] = {
    "crop": partial(crop_items, ratio=0.5),
    "mask": partial(mask_items, ratio=0.4, mask_id=ITEMS + 1),
    "reorder": partial(reorder_items, ratio=0.8),
    "substitute": partial(substitute_items, neighbours=neighbour_table(), rate=0.5),
    "substitute exact": partial(substitute_items, neighbours=neighbour_table(), rate=0.5, exact=True),
    "insert": partial(insert_items, neighbours=neighbour_table(), ratio=0.5),
    "repeat": partial(repeat_items, ratio=0.5),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator_is_seeded_right_padded_and_leaves_its_arguments(name: str) -> None:
    items, lengths = batch()
    stored = items.clone(), lengths.clone()
    one, same, other = (
        OPERATORS[name](items, lengths, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(items, stored[0])
    assert torch.equal(lengths, stored[1])
    assert torch.equal(one.items, same.items)
    assert not torch.equal(one.items, other.items)
    assert one.items.data_ptr() != items.data_ptr()
    assert not one.items[torch.arange(one.items.shape[1]) >= one.lengths[:, None]].any()
    assert (one.lengths >= 1).all()


def test_crop_keeps_a_contiguous_window_and_every_start_is_drawn() -> None:
    items, lengths = batch(400)
    view = crop_items(items, lengths, 0.5)
    starts: Counter[tuple[int, int]] = Counter()
    for row, kept in zip(rows_of(items, lengths), rows_of(*view), strict=True):
        assert len(kept) == max(1, math.floor(len(row) * 0.5))
        start = row.index(kept[0])
        assert row[start : start + len(kept)] == kept
        starts[len(row), start] += 1
    assert {start for length, start in starts if length == 6} == {0, 1, 2, 3}


def test_mask_changes_exactly_k_places() -> None:
    items, lengths = batch()
    view = mask_items(items, lengths, 0.4, ITEMS + 1)
    assert torch.equal(view.lengths, lengths)
    for row, masked in zip(rows_of(items, lengths), rows_of(*view), strict=True):
        changed = [place for place, (a, b) in enumerate(zip(row, masked, strict=True)) if a != b]
        assert len(changed) == math.floor(len(row) * 0.4)
        assert all(masked[place] == ITEMS + 1 for place in changed)
    hidden = mask_items(items, lengths, 1.0)
    assert not hidden.items.any()
    assert torch.equal(hidden.lengths, lengths)  # although every id is 0


def test_reorder_keeps_the_multiset_and_all_outside_the_window() -> None:
    items, lengths = batch(2000)
    view = reorder_items(items, lengths, 0.6, generator=torch.Generator().manual_seed(0))
    orders = set()
    for row, moved in zip(rows_of(items, lengths), rows_of(*view), strict=True):
        assert sorted(row) == sorted(moved)
        changed = [place for place, (a, b) in enumerate(zip(row, moved, strict=True)) if a != b]
        if changed:
            assert changed[-1] - changed[0] < math.floor(len(row) * 0.6)
        if len(row) == 5:
            orders.add(tuple(row.index(item) for item in moved))
    assert len(orders) > 10  # windows of 3 of 5: 3 starts, 6 orders, some alike


def test_substitution_takes_neighbours_only() -> None:
    items, lengths = batch(500)
    view = substitute_items(items, lengths, neighbour_table(), 0.2)
    replaced = total = 0
    for row, new in zip(rows_of(items, lengths), rows_of(*view), strict=True):
        for before, after in zip(row, new, strict=True):
            allowed = {before} if before % 5 == 0 else {before, before + 100, before + 200 * (before % 3 != 0)}
            assert after in allowed
            total += before % 5 != 0
            replaced += before != after
    assert replaced / total == pytest.approx(0.2, abs=0.03)
    exact = substitute_items(items, lengths, neighbour_table(), 0.5, exact=True)
    for row, new in zip(rows_of(items, lengths), rows_of(*exact), strict=True):
        assert sum(a != b for a, b in zip(row, new, strict=True)) <= math.floor(len(row) * 0.5)
    assert torch.equal(substitute_items(items + 100, lengths, neighbour_table(), 1.0).items, items + 100)


def test_insertions_stand_before_their_item_and_the_last_items_are_kept() -> None:
    items, lengths = batch()
    view = insert_items(items, lengths, neighbour_table(), 0.5, max_length=2 * WIDTH)
    for row, longer in zip(rows_of(items, lengths), rows_of(*view), strict=True):
        assert [item for item in longer if item <= ITEMS] == row
        for place, item in enumerate(longer):
            if item > ITEMS:
                assert item % 100 == longer[place + 1] % 100
        assert len(longer) - len(row) <= math.floor(len(row) * 0.5)
    assert int((view.lengths - lengths).sum()) > 0
    generator = [torch.Generator().manual_seed(3) for _ in range(2)]
    full = insert_items(items, lengths, neighbour_table(), 0.5, max_length=2 * WIDTH, generator=generator[0])
    short = insert_items(items, lengths, neighbour_table(), 0.5, max_length=4, generator=generator[1])
    assert rows_of(*short) == [row[-4:] for row in rows_of(*full)]


def test_repetition_doubles_exactly_k_items() -> None:
    items, lengths = batch()
    view = repeat_items(items, lengths, 0.3, max_length=2 * WIDTH)
    for row, longer in zip(rows_of(items, lengths), rows_of(*view), strict=True):
        assert len(longer) - len(row) == math.floor(len(row) * 0.3)
        assert [item for place, item in enumerate(longer) if place == 0 or longer[place - 1] != item] == row


def gap_variance(times: list[float]) -> float:
    gaps = [after - before for before, after in pairwise(times)]
    mean = sum(gaps) / len(gaps) if gaps else 0.0
    return sum((gap - mean) ** 2 for gap in gaps) / len(gaps) if gaps else 0.0


def test_time_aware_crop_and_reorder_take_the_evenest_window() -> None:
    items, lengths = batch()
    times = torch.rand(items.shape, generator=torch.Generator().manual_seed(5)).cumsum(1) + 1.6e9 / 1e6
    times = times.double().masked_fill(items == 0, 0.0)
    crops, moves = crop_items(items, lengths, 0.4, times=times), reorder_items(items, lengths, 0.6, times=times)
    for row, when, kept, moved in zip(
        rows_of(items, lengths), rows_of(times, lengths), rows_of(*crops), rows_of(*moves), strict=True
    ):
        size = len(kept)
        start = row.index(kept[0])
        best = min(gap_variance(list(when[first : first + size])) for first in range(len(row) - size + 1))
        assert gap_variance(list(when[start : start + size])) == pytest.approx(best, abs=1e-9)
        changed = [place for place, (a, b) in enumerate(zip(row, moved, strict=True)) if a != b]
        size = math.floor(len(row) * 0.6)
        if changed and size > 2:
            variances = [gap_variance(list(when[first : first + size])) for first in range(len(row) - size + 1)]
            lowest = variances.index(min(variances))
            assert lowest <= changed[0]
            assert changed[-1] < lowest + size


def test_time_aware_places_follow_the_longest_gaps() -> None:
    items, lengths = torch.tensor([[1, 2, 3, 4, 0]]), torch.tensor([4])
    times = torch.tensor([[10, 11, 20, 25, 0]])  # gaps 0, 1, 9, 5
    assert mask_items(items, lengths, 0.5, 9, times=times).items.tolist() == [[1, 2, 9, 9, 0]]
    table = neighbour_table()
    new = substitute_items(items, lengths, table, 0.25, exact=True, times=times).items.tolist()
    assert new == [[1, 2, 103, 4, 0]]
    assert insert_items(items, lengths, table, 0.25, times=times).items.tolist() == [[1, 2, 103, 3, 4]]
    assert repeat_items(items, lengths, 0.25, times=times).items.tolist() == [[1, 2, 3, 3, 4]]
    with pytest.raises(ValueError, match="give exact=True"):
        substitute_items(items, lengths, table, 0.25, times=times)


def test_two_views_use_two_operators_and_short_rows_stay() -> None:
    pairs = draw_operators(3000, 3, generator=torch.Generator().manual_seed(0))
    counts = Counter(map(tuple, pairs.tolist()))
    assert len(counts) == 6
    assert min(counts.values()) > 400
    assert len(Counter(map(tuple, draw_operators(500, 2, distinct=False).tolist()))) == 4
    items, lengths = batch()
    operators = [OPERATORS["crop"], OPERATORS["mask"], OPERATORS["reorder"]]
    one, other = two_views(items, lengths, operators, chosen=torch.tensor([[0, 1]]).expand(200, 2))
    assert (one.lengths < lengths)[lengths > 1].all()
    assert ((one.lengths == lengths) & (other.lengths == lengths))[lengths == 1].all()
    assert torch.equal(other.lengths, lengths)
    assert int((other.items == ITEMS + 1).sum()) == int((lengths * 0.4).long().sum())
    single = lengths == 1
    assert torch.equal(one.items[single], items[single])
    assert torch.equal(other.items[single], items[single])


DRAWN: dict[str, Callable[..., SequenceView]] = {
    **OPERATORS,
    "crop by time": lambda items, lengths, **rest: crop_items(items, lengths, 0.5, times=items, **rest),
    "reorder by time": lambda items, lengths, **rest: reorder_items(items, lengths, 0.8, times=items, **rest),
    "mask by time": lambda items, lengths, **rest: mask_items(items, lengths, 0.4, times=items, **rest),
    "two views": lambda items, lengths, generator: two_views(
        items, lengths, [partial(OPERATORS[name], generator=generator) for name in OPERATORS], generator=generator
    )[0],
}


@pytest.mark.parametrize("name", DRAWN)
def test_short_integers_and_strides_change_no_value(name: str) -> None:
    items, lengths = batch()
    lengths[::7] = 0
    items.masked_fill_(lengths[:, None] == 0, 0)

    def seeded(ids: Tensor, counts: Tensor) -> SequenceView:
        return DRAWN[name](ids, counts, generator=torch.Generator().manual_seed(1))

    expected = seeded(items, lengths)
    assert (expected.lengths[::7] == 0).all()
    assert not expected.items[::7].any()
    short = seeded(items.int(), lengths.int())
    assert short.items.dtype == short.lengths.dtype == torch.int32
    strided = seeded(items.t().contiguous().t(), lengths.repeat_interleave(2)[::2])
    for made in (short, strided):
        assert torch.equal(made.items.long(), expected.items)
        assert torch.equal(made.lengths.long(), expected.lengths)


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize(("rows", "width"), [(0, 4), (3, 0), (0, 0)])
def test_empty_batches_and_empty_rows_stay_empty(name: str, rows: int, width: int) -> None:
    items, lengths = torch.zeros(rows, width, dtype=torch.int64), torch.zeros(rows, dtype=torch.int64)
    view = DRAWN[name](items, lengths, generator=torch.Generator())
    assert view.items.shape == (rows, width)
    assert view.lengths.tolist() == [0] * rows


def test_a_short_table_of_neighbours_serves_long_ids() -> None:
    items, lengths = batch(5)
    table = neighbour_table().int()
    assert substitute_items(items, lengths, table, 1.0).items.dtype == torch.int64
    assert insert_items(items, lengths, table, 1.0).items.dtype == torch.int64


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize("length", [-1, WIDTH + 1])
def test_lengths_that_the_table_cannot_have_are_refused(name: str, length: int) -> None:
    items, lengths = batch(3)
    lengths[1] = length
    with pytest.raises(ValueError, match=rf"lengths must be in 0 \.\. {WIDTH}, .* got {length}"):
        DRAWN[name](items, lengths, generator=torch.Generator())


@pytest.mark.parametrize("name", DRAWN)
def test_ids_and_lengths_that_are_no_integers_are_refused(name: str) -> None:
    items, lengths = batch(3)
    with pytest.raises(TypeError, match=r"items must be int64 or int32, got dtype torch\.float32"):
        DRAWN[name](items.float(), lengths, generator=torch.Generator())
    with pytest.raises(TypeError, match=r"lengths must be int64 or int32, got dtype torch\.float32"):
        DRAWN[name](items, lengths.float(), generator=torch.Generator())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda i, n: crop_items(i, n[:2], 0.5), r"items must be \(B, L\) and lengths \(B,\), got"),
        (lambda i, n: crop_items(i[0], n, 0.5), r"items must be \(B, L\) and lengths \(B,\), got"),
        (lambda i, n: reorder_items(i, n, 0.5, times=i[:, :3]), r"times must have shape \(3, 12\), got shape \(3, 3\)"),
        (lambda i, n: two_views(i, n, []), "at least one operator"),
        (lambda i, n: crop_items(i, n, 1.0), r"ratio must be in \[0, 1\), got 1.0"),
        (lambda i, n: mask_items(i, n, 1.5), r"ratio must be in \[0, 1\], got 1.5"),
        (lambda i, n: reorder_items(i, n, float("nan")), r"ratio must be in \[0, 1\], got nan"),
        (lambda i, n: repeat_items(i, n, -0.1), r"ratio must be in \[0, 1\], got -0.1"),
        (lambda i, n: insert_items(i, n, neighbour_table(), 1.1), r"ratio must be in \[0, 1\], got 1.1"),
        (lambda i, n: substitute_items(i, n, neighbour_table(), 1.1), r"rate must be in \[0, 1\], got 1.1"),
        (lambda i, n: insert_items(i, n, neighbour_table(), 0.5, max_length=0), "max_length must be at least 1, got 0"),
        (lambda i, n: repeat_items(i, n, 0.5, max_length=0), "max_length must be at least 1, got 0"),
        (lambda i, n: repeat_items(i, n, 0.5, max_length=-1), "max_length must be at least 1, got -1"),
        (lambda i, n: crop_items(i, n, 0.5, start=n), r"start must be in 0 \.\. .*first place of a window"),
        (lambda i, n: reorder_items(i, n, 0.5, start=n), r"start must be in 0 \.\. .*first place of a window"),
        (lambda i, n: crop_items(i, n, 0.5, start=n[:1]), r"start must have shape \(3,\), got shape \(1,\)"),
        (
            lambda i, n: mask_items(i, n, 0.5, chosen=i[:1] > 0),
            r"chosen must have shape \(3, 12\), got shape \(1, 12\)",
        ),
        (lambda i, n: reorder_items(i, n, 1.0, permutation=i), "permutation must hold 0 .. k - 1 once each"),
        (
            lambda i, n: two_views(i, n, [OPERATORS["repeat"]], chosen=i[:, :2]),
            r"chosen must be in 0 \.\. 0, .* operators",
        ),
        (
            lambda i, n: two_views(i, n, [OPERATORS["repeat"]], chosen=n),
            r"chosen must have shape \(3, 2\), got shape \(3,\)",
        ),
        (lambda i, n: two_views(i, n, [], chosen=i[:, :2]), "at least one operator"),
        (lambda i, n: draw_operators(-1, 3), "num_rows must be at least 0, got -1"),
    ],
)
def test_arguments_outside_their_documented_range_are_refused(
    call: Callable[[Tensor, Tensor], object], message: str
) -> None:
    items, lengths = batch(3)
    with pytest.raises(ValueError, match=message):
        call(items, lengths)


@pytest.mark.parametrize("shape", [(ITEMS + 1,), (ITEMS + 1, 0), (0, 2), (ITEMS + 1, 2, 1)])
def test_neighbours_that_are_no_table_are_refused(shape: tuple[int, ...]) -> None:
    items, lengths = batch(3)
    for operator in (insert_items, substitute_items):
        with pytest.raises(ValueError, match=r"neighbours must be \(V \+ 1, K\) with K at least 1, got"):
            operator(items, lengths, torch.zeros(shape, dtype=torch.int64), 0.5)
        with pytest.raises(TypeError, match=r"neighbours must be int64 or int32, got dtype torch\.float32"):
            operator(items, lengths, neighbour_table().float(), 0.5)


def test_padding_is_never_masked() -> None:
    items, lengths = batch()
    view = mask_items(items, lengths, 0.5, ITEMS + 1, chosen=torch.ones_like(items, dtype=torch.bool))
    assert rows_of(*view) == [[ITEMS + 1] * length for length in lengths.tolist()]
    assert not view.items[torch.arange(WIDTH) >= lengths[:, None]].any()
    with pytest.raises(TypeError, match="chosen must be bool"):
        mask_items(items, lengths, 0.5, chosen=items)
