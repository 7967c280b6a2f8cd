"""Ranks of queries with many targets: sorted rows, and ranks that are told apart only up to a depth."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from graphcl.metrics import per_query_metrics, rank_of_targets, ranking_metrics


def case(
    num_queries: int, num_items: int, seed: int, *, rounded: bool
) -> tuple[Tensor, Tensor, list[list[int]], list[list[int]]]:
    generator = torch.Generator().manual_seed(seed)
    queries, items = (torch.randn(size, 4, generator=generator) for size in (num_queries, num_items))
    if rounded:  # many ties
        queries, items = queries.round(), items.round()
    shuffled = [torch.randperm(num_items, generator=generator).tolist() for _ in range(num_queries)]
    counts = torch.randint(0, num_items // 2, (num_queries,), generator=generator).tolist()
    targets = [row[:count] for row, count in zip(shuffled, counts, strict=True)]
    excluded = [row[count // 2 : count // 2 + 5] for row, count in zip(shuffled, counts, strict=True)]
    return queries, items, targets, excluded


def csr(lists: list[list[int]]) -> tuple[Tensor, Tensor]:
    sizes = torch.tensor([len(row) for row in lists])
    return torch.cat([sizes.new_zeros(1), sizes.cumsum(0)]), torch.tensor([x for row in lists for x in row])


def by_loops(queries: Tensor, items: Tensor, targets: list[list[int]], excluded: list[list[int]]) -> list[float]:
    """Optimistic ranks; tied targets of a query in the order of their index."""
    out = []
    for query, wanted, hidden in zip(queries, targets, excluded, strict=True):
        scores = (items @ query).tolist()
        for target in wanted:
            above = sum(scores[j] > scores[target] for j in range(len(scores)) if j not in hidden)
            before = sum(scores[t] == scores[target] and t < target for t in wanted if t not in hidden)
            out.append(math.inf if target in hidden else 1 + above + before)
    return out


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("block_size", [None, (3, 7), (96, 11)])
def test_many_targets_a_query(rounded: bool, block_size: tuple[int, int] | None) -> None:
    queries, items, targets, excluded = case(9, 40, 1, rounded=rounded)
    expected = by_loops(queries, items, targets, excluded)
    got = rank_of_targets(queries, items, csr(targets), exclude=csr(excluded), block_size=block_size)
    assert got.tolist() == expected


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("depth", [1, 5, 39, 400])
@pytest.mark.parametrize("block_size", [None, (4, 9)])
def test_depth_cuts_ranks_and_no_metric(rounded: bool, depth: int, block_size: tuple[int, int] | None) -> None:
    queries, items, targets, excluded = case(9, 40, 2, rounded=rounded)
    pair, hidden = csr(targets), csr(excluded)
    whole = rank_of_targets(queries, items, pair, exclude=hidden)
    cut = rank_of_targets(queries, items, pair, exclude=hidden, depth=depth, block_size=block_size)
    expected = torch.where(whole.isinf(), whole, whole.clamp(max=depth + 1))
    assert cut.tolist() == expected.tolist()
    ks = [k for k in (1, 3, 5, 20) if k <= depth]
    assert ranking_metrics(cut, pair[0], ks=ks).to_dict() == ranking_metrics(whole, pair[0], ks=ks).to_dict()


def test_depth_with_one_target_a_query_and_none_excluded() -> None:
    queries, items, _, _ = case(6, 12, 3, rounded=True)
    targets = torch.tensor([0, 3, 3, 11, 5, 2])
    whole = rank_of_targets(queries, items, targets)
    assert rank_of_targets(queries, items, targets, depth=4).tolist() == whole.clamp(max=5).tolist()


def test_targets_beyond_the_cut_off_do_not_change_metrics() -> None:
    values = per_query_metrics(torch.tensor([9.0, 2.0, math.inf, 30.0, 4.0]), torch.tensor([0, 3, 4, 4, 5]), ks=[5])
    assert values["MAP@5"].tolist()[:2] == [0.5 / 3, 0.0]
    assert values["MRR@5"].tolist()[:2] == [0.5, 0.0]
    assert math.isnan(values["HR@5"][2])
    assert float(values["MAP@5"][3]) == 0.25


def test_depth_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="depth must be at least 1 and needs ties='optimistic', got 3 with 'mean'"):
        rank_of_targets(torch.ones(1, 1), torch.ones(2, 1), torch.tensor([0]), ties="mean", depth=3)
    with pytest.raises(ValueError, match="got 0 with 'optimistic'"):
        rank_of_targets(torch.ones(1, 1), torch.ones(2, 1), torch.tensor([0]), depth=0)
