from __future__ import annotations

import math

import pytest
import torch

from graphcl.metrics import ranking_metrics, retrieved_ndcg


def by_loops(lists: list[list[float]], k: int, depth: int) -> float:
    """The evaluation code of MMHCL on hit lists: DCG at k over the DCG of the sorted list."""
    values = []
    for ranks in lists:
        if not ranks:
            continue
        hits = [float(place + 1 in ranks) for place in range(depth)]

        def dcg(row: list[float]) -> float:
            return sum(hit / math.log2(place + 2) for place, hit in enumerate(row[:k]))

        best = dcg(sorted(hits, reverse=True))
        values.append(dcg(hits) / best if best else 0.0)
    return sum(values) / len(values)


LISTS = [[1.0, 4.0], [], [19.0], [25.0, math.inf], [2.0, 3.0, 11.0, 40.0]]


@pytest.mark.parametrize("k", [1, 10, 20])
def test_equals_loops(k: int) -> None:
    ranks = torch.tensor([rank for row in LISTS for rank in row])
    offsets = torch.tensor([0, *torch.tensor([len(row) for row in LISTS]).cumsum(0)])
    got = retrieved_ndcg(ranks, offsets, ks=[k])
    assert got == {f"NDCG_ref@{k}": pytest.approx(by_loops(LISTS, k, 20))}


def test_equals_ndcg_with_one_target_and_is_never_below() -> None:
    ranks = torch.tensor([1.0, 7.0, 33.0])
    standard = ranking_metrics(ranks, ks=[10]).to_dict()
    assert retrieved_ndcg(ranks, ks=[10])["NDCG_ref@10"] == pytest.approx(standard["NDCG@10"])
    two = torch.tensor([0, 1, 3])
    assert (
        retrieved_ndcg(ranks, two, ks=[10])["NDCG_ref@10"] > ranking_metrics(ranks, two, ks=[10]).to_dict()["NDCG@10"]
    )


def test_no_query() -> None:
    assert math.isnan(retrieved_ndcg(torch.zeros(0), torch.tensor([0, 0]))["NDCG_ref@10"])


def test_cut_offs_beyond_the_list_are_refused() -> None:
    with pytest.raises(ValueError, match=r"ks must be cut-offs in 1\.\.20, got \[50\]"):
        retrieved_ndcg(torch.ones(1), ks=[50])
