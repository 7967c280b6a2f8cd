"""RecBole's training rows as ours, without RecBole: the same prefixes, their partners, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from graphcl.data import IdMap
from graphcl.data import cooccurrence_vectors as of_split
from graphcl.data.interactions import Interactions
from graphcl.data.splits import TRAIN, Split
from graphcl.errors import InputError
from graphcl.integrations.recbole_rows import read_rows
from graphcl.models import DuoRec, DuoRecConfig

HISTORIES = {3: [5, 2, 7, 1, 4], 1: [2, 7], 8: [4, 2, 7, 1]}


def augmented(order: np.ndarray[Any, Any] | None = None, width: int = 3) -> tuple[np.ndarray[Any, Any], ...]:
    """Rows as RecBole makes them: the last `width` items before each target, padded on the right."""
    users, items, lengths, targets = [], [], [], []
    for user, history in HISTORIES.items():
        for end in range(1, len(history)):
            window = history[max(0, end - width) : end]
            users.append(user)
            items.append(window + [0] * (width - len(window)))
            lengths.append(len(window))
            targets.append(history[end])
    rows = (np.array(users), np.array(items), np.array(lengths), np.array(targets))
    return rows if order is None else tuple(part[order] for part in rows)


def test_windows_are_the_rows() -> None:
    users, items, lengths, targets = augmented()
    rows = read_rows(users, items, lengths, targets)
    assert [rows.windows.items[a:b].tolist() for a, b in zip(rows.offsets, rows.offsets[1:], strict=False)] == [
        HISTORIES[user] for user in sorted(HISTORIES)
    ]
    model = DuoRec(7, DuoRecConfig(hidden=8, inner=8, layers=1, max_length=3))
    make = rows.batches(model, 0, None)
    for chosen in (np.arange(users.size), np.array([6, 0, 3])):
        batch = make(chosen)
        contrast = batch.contrast
        assert contrast is not None
        assert batch.targets.tolist() == targets[chosen].tolist()
        assert contrast.rows.items.tolist() == items[chosen][:, : contrast.rows.items.shape[1]].tolist()
        assert contrast.same_target is not None
        for row, partner in enumerate(contrast.same_target.items):
            found = partner[partner > 0].tolist()
            own = items[chosen][row][: lengths[chosen][row]].tolist()
            allowed = [items[n][: lengths[n]].tolist() for n in np.flatnonzero(targets == targets[chosen][row])]
            assert found in allowed
            assert found != own or len(allowed) == 1 or allowed.count(own) > 1
        assert torch.isfinite(model.objective(batch)[0])


def test_vectors_are_those_of_the_training_sequences() -> None:
    rows = read_rows(*augmented())
    external = np.array([f"i{n}" for n in (9, 3, 5, 1, 7, 2, 8)])  # the order of RecBole's ids is its own
    made = rows.vectors("cooccurrence", external, 3)
    ids = IdMap(external)
    place = ids.to_internal(external)
    flat = [(user, place[item - 1]) for user in sorted(HISTORIES) for item in HISTORIES[user]]
    log = Interactions(np.array([u for u, _ in flat]), np.array([i for _, i in flat]), IdMap(np.arange(9)), ids)
    split = Split(log, np.full(len(flat), TRAIN, dtype=np.uint8), "all")
    np.testing.assert_allclose(made, of_split(split, width=3).vectors[place], atol=1e-6)
    with pytest.raises(InputError, match="no table of items"):
        rows.vectors("attributes", external, 3)


def test_rows_that_are_no_prefixes_in_time_order_are_refused() -> None:
    users, items, lengths, targets = augmented()
    swapped = np.arange(users.size)
    swapped[[1, 2]] = 2, 1
    for rows in (
        augmented(swapped),
        (users[1:], items[1:], lengths[1:], targets[1:]),
        (users, items, lengths, targets[::-1]),
    ):
        with pytest.raises(InputError, match="not all prefixes of each user's history"):
            read_rows(*rows)
