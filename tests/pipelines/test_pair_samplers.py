from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from graphcl.pipelines.samplers import PairSampler, TrainingPairs


def pairs_of(lists: list[list[int]], num_items: int) -> TrainingPairs:
    user = np.array([user for user, items in enumerate(lists) for _ in items], dtype=np.int64)
    item = np.array([item for items in lists for item in items], dtype=np.int64)
    order = np.random.default_rng(0).permutation(user.size)
    return TrainingPairs.from_arrays(user[order], item[order], num_users=len(lists), num_items=num_items)


LISTS = [[0, 3, 4], [], [5], [0, 1, 2, 3, 4, 5], [1, 5]]


def test_pairs_are_sorted_and_distinct() -> None:
    pairs = TrainingPairs.from_arrays(np.array([1, 0, 1, 1]), np.array([2, 0, 1, 2]), num_users=3, num_items=3)
    assert (pairs.offsets.tolist(), pairs.items.tolist()) == ([0, 1, 3, 3], [0, 1, 2])
    assert pairs.users.tolist() == [0, 1, 1]


def test_negatives_are_uniform_over_what_a_user_has_not_met() -> None:
    pairs = pairs_of(LISTS, num_items=6)
    users = np.repeat(np.array([0, 1, 2, 4]), 6000)
    drawn = pairs.draw_negatives(users, np.random.default_rng(1))
    for user in (0, 1, 2, 4):
        counts = Counter(drawn[users == user].tolist())
        unmet = sorted(set(range(6)) - set(LISTS[user]))
        assert sorted(counts) == unmet
        expected = 6000 / len(unmet)
        assert all(abs(count - expected) < 5 * expected**0.5 for count in counts.values())


def test_a_user_who_met_everything_has_no_negative() -> None:
    with pytest.raises(ValueError, match="user 3 has met every item"):
        pairs_of(LISTS, 6).draw_negatives(np.array([0, 3]), np.random.default_rng(0))


def test_edge_sampling_takes_every_pair_once() -> None:
    pairs = pairs_of(LISTS, num_items=6)
    sampler = PairSampler(pairs, 2, seed=3)
    batches = list(sampler.batches(0))
    seen = sorted((int(u), int(p)) for batch in batches for u, p in zip(batch.users, batch.positives, strict=True))
    # User 3 has met every item, so there is nothing to compare its items with.
    assert seen == sorted((user, item) for user in (0, 2, 4) for item in LISTS[user])
    assert len(batches) == sampler.num_steps == 3
    assert sum(batch.total for batch in batches) == sampler.num_targets == 6
    for batch in batches:
        assert batch.negatives is not None
        assert all(int(n) not in LISTS[int(u)] for u, n in zip(batch.users, batch.negatives, strict=True))


def test_user_sampling_draws_different_users_uniformly() -> None:
    lists = [[user % 7, 7] for user in range(40)] + [[]]
    sampler = PairSampler(pairs_of(lists, 9), 16, seed=0, sampling="user")
    assert sampler.num_steps == 80 // 16 + 1
    counts: Counter[int] = Counter()
    sevens = 0
    for epoch in range(60):
        for batch in sampler.batches(epoch):
            users = batch.users.tolist()
            assert len(set(users)) == 16
            assert all(int(p) in lists[u] for u, p in zip(users, batch.positives, strict=True))
            counts.update(users)
            sevens += int((batch.positives == 7).sum())
    assert sorted(counts) == list(range(40))
    steps = 60 * 6
    assert max(abs(count - steps * 0.4) for count in counts.values()) < 5 * (steps * 0.4 * 0.6) ** 0.5
    assert abs(sevens / (steps * 16) - 0.5) < 0.03


def test_more_users_asked_for_than_there_are() -> None:
    batch = next(iter(PairSampler(pairs_of(LISTS, 6), 10, seed=0, sampling="user").batches(0)))
    assert batch.users.shape[0] == 10
    assert set(batch.users.tolist()) <= {0, 2, 4}


def test_other_objectives_draw_what_they_need() -> None:
    pairs = pairs_of(LISTS, 6)
    sampled = next(iter(PairSampler(pairs, 4, seed=0, objective="sampled_softmax", num_candidates=5).batches(0)))
    assert sampled.negatives is None
    assert sampled.candidates is not None
    assert sampled.candidates.shape == (5,)
    full = PairSampler(pairs, 4, seed=0, objective="full_softmax")
    assert full.num_targets == 12  # a user who met every item counts here
    assert next(iter(full.batches(0))).candidates is None


@pytest.mark.parametrize("sampling", ["edge", "user"])
def test_an_epoch_is_a_function_of_seed_and_epoch(sampling: str) -> None:
    def drawn(seed: int, epoch: int) -> list[list[int]]:
        sampler = PairSampler(pairs_of(LISTS, 6), 3, seed=seed, sampling=sampling)  # type: ignore[arg-type]
        return [[*b.users.tolist(), *b.positives.tolist(), *b.negatives.tolist()] for b in sampler.batches(epoch)]  # type: ignore[union-attr]

    assert drawn(1, 2) == drawn(1, 2)
    assert drawn(1, 2) != drawn(1, 3)
    assert drawn(1, 2) != drawn(2, 2)


@pytest.mark.parametrize("sampling", ["edge", "user"])
def test_processes_share_a_step(sampling: str) -> None:
    sampler = PairSampler(pairs_of(LISTS, 6), 4, seed=0, sampling=sampling)  # type: ignore[arg-type]
    whole, first, second = (list(sampler.batches(5, rank, world)) for rank, world in ((0, 1), (0, 2), (1, 2)))
    for one, left, right in zip(whole, first, second, strict=True):
        assert sorted(one.users.tolist()) == sorted(left.users.tolist() + right.users.tolist())
        assert left.total + right.total == one.total


def test_nothing_to_draw() -> None:
    sampler = PairSampler(pairs_of([[0, 1], []], 2), 4, seed=0)
    assert not sampler.can_draw
    assert list(sampler.batches(0)) == []
