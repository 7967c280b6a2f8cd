from __future__ import annotations

import math

import ir_measures
import numpy as np
import pytest
import torch
from torch import Tensor

from graphcl.metrics import (
    Ties,
    evaluate_ranking,
    metrics_by_popularity,
    per_query_metrics,
    rank_of_targets,
    rank_of_targets_by_score,
    ranking_metrics,
    recommend_topk,
)

TIES: tuple[Ties, ...] = ("optimistic", "mean", "pessimistic", "index")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def oracle_ranks(
    scores: list[list[float]], targets: list[list[int]], excluded: list[list[int]], ties: str
) -> list[float]:
    """The definition in loops."""
    ranks: list[float] = []
    for row, wanted, gone in zip(scores, targets, excluded, strict=True):
        candidates = [j for j in range(len(row)) if j not in gone]
        for target in wanted:
            if target in gone:
                ranks.append(math.inf)
                continue
            above = sum(row[j] > row[target] for j in candidates)
            tied = [j for j in candidates if row[j] == row[target] and j != target]
            earlier_targets = sum(j in wanted and j < target for j in tied)
            others = sum(j not in wanted for j in tied)
            extra = {
                "optimistic": earlier_targets,
                "mean": earlier_targets + others / 2,
                "pessimistic": earlier_targets + others,
                "index": sum(j < target for j in tied),
            }[ties]
            ranks.append(1 + above + extra)
    return ranks


def ragged(lists: list[list[int]]) -> tuple[Tensor, Tensor]:
    offsets = torch.tensor([0, *np.cumsum([len(row) for row in lists]).tolist()])
    return offsets, torch.tensor([column for row in lists for column in row], dtype=torch.int64)


def random_lists(rows: int, columns: int, most: int, rng: np.random.Generator) -> list[list[int]]:
    return [rng.choice(columns, size=rng.integers(0, most + 1), replace=False).tolist() for _ in range(rows)]


# ---------------------------------------------------------------------------------------------------------- ranks


def test_ranks_golden_table() -> None:
    scores = torch.tensor([[5.0, 4.0, 3.0, 4.0], [1.0, 1.0, 1.0, 1.0], [0.0, 9.0, -2.0, 3.0]])
    targets = ragged([[1, 2], [2], []])
    expected = {"optimistic": [2, 4, 1], "mean": [2.5, 4, 2.5], "pessimistic": [3, 4, 4], "index": [2, 4, 3]}
    for ties in TIES:
        ranks = rank_of_targets_by_score(lambda rows, columns: scores[rows, columns], (3, 4), targets, ties=ties)
        assert ranks.tolist() == expected[ties]


def test_tied_targets_of_one_query_never_share_a_rank() -> None:
    items = torch.ones(4, 2)
    for ties, expected in {"optimistic": [1, 2], "mean": [2, 3], "pessimistic": [3, 4], "index": [2, 4]}.items():
        ranks = rank_of_targets(torch.ones(1, 2), items, ragged([[3, 1]]), ties=ties)  # type: ignore[arg-type]
        assert sorted(ranks.tolist()) == expected
        assert max(per_query_metrics(ranks, torch.tensor([0, 2]), ks=[4])["NDCG@4"].tolist()) <= 1


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("block", [None, (1, 20), (3, 5), (7, 100), (100, 7)])
def test_ranks_equal_the_definition_in_loops(ties: Ties, block: tuple[int, int] | None) -> None:
    rng = np.random.default_rng(3)
    # Small integers make exact ties frequent.
    queries = torch.from_numpy(rng.integers(-2, 3, (23, 3))).double()
    items = torch.from_numpy(rng.integers(-2, 3, (41, 3))).double()
    targets, excluded = random_lists(23, 41, 6, rng), random_lists(23, 41, 12, rng)
    ranks = rank_of_targets(queries, items, ragged(targets), exclude=ragged(excluded), ties=ties, block_size=block)
    assert ranks.tolist() == oracle_ranks((queries @ items.T).tolist(), targets, excluded, ties)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_ranks_do_not_depend_on_blocks_nor_on_the_batch(dtype: torch.dtype) -> None:
    queries = torch.randn(211, 48, generator=generator(1)).to(dtype)
    items = torch.randn(977, 48, generator=generator(2)).to(dtype)
    items[500:900] = items[torch.randint(500, (400,), generator=generator(3))]  # copies: ties to the last bit
    targets = torch.randint(977, (211,), generator=generator(4))
    for ties in TIES:
        whole = rank_of_targets(queries, items, targets, ties=ties)
        for block in [(50, 200), (211, 250), (100, 977)]:
            assert torch.equal(rank_of_targets(queries, items, targets, ties=ties, block_size=block), whole)
        for budget in (1, 10**6):
            assert torch.equal(rank_of_targets(queries, items, targets, ties=ties, memory_budget=budget), whole)
        single = [rank_of_targets(queries[i : i + 1], items, targets[i : i + 1], ties=ties) for i in range(0, 211, 50)]
        assert torch.equal(torch.cat(single), whole[::50])


def test_a_target_among_copies_of_itself_is_first_in_float32() -> None:
    # Every item is the same vector: any rounding difference between the target's score and its rivals' would show.
    queries = torch.randn(301, 64, generator=generator(5))
    items = torch.randn(1, 64, generator=generator(6)).expand(1003, 64)
    targets = torch.randint(1003, (301,), generator=generator(7))
    assert rank_of_targets(queries, items, targets).eq(1).all()
    assert rank_of_targets(queries, items, targets, ties="pessimistic").eq(1003).all()
    assert torch.equal(rank_of_targets(queries, items, targets, ties="index"), targets.double() + 1)


def test_excluded_items_leave_the_candidates_and_an_excluded_target_is_a_miss() -> None:
    queries, items = torch.tensor([[1.0], [1.0]]), torch.tensor([[4.0], [3.0], [2.0], [1.0]])
    ranks = rank_of_targets(queries, items, torch.tensor([2, 1]), exclude=ragged([[0], [1, 3]]))
    assert ranks.tolist() == [2, math.inf]
    metrics = ranking_metrics(ranks, ks=[100])
    assert metrics.to_dict()["HR@100"] == 0.5
    assert metrics.unreachable_targets == 1


def test_exclusion_leaves_the_callers_scores_alone() -> None:
    scores = torch.tensor([[1.0, 2.0, 3.0]])
    rank_of_targets_by_score(
        lambda rows, columns: scores[rows, columns], (1, 3), torch.tensor([0]), exclude=ragged([[2]])
    )
    assert scores.tolist() == [[1.0, 2.0, 3.0]]


def test_no_queries_and_queries_without_targets() -> None:
    items = torch.randn(5, 3, generator=generator())
    assert rank_of_targets(torch.empty(0, 3), items, torch.empty(0, dtype=torch.int64)).shape == (0,)
    empty = torch.zeros(3, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
    assert rank_of_targets(torch.randn(2, 3, generator=generator()), items, empty).shape == (0,)


def test_one_item_and_non_contiguous_inputs() -> None:
    assert rank_of_targets(torch.ones(1, 1), torch.ones(1, 1), torch.tensor([0])).tolist() == [1]
    queries, items = torch.randn(6, 40, generator=generator(1)), torch.randn(6, 50, generator=generator(2))
    targets = torch.arange(40)
    dense = rank_of_targets(queries.T.contiguous(), items.T.contiguous(), targets)
    assert torch.equal(rank_of_targets(queries.T, items.T, targets), dense)


def test_permuting_items_permutes_nothing_but_indices() -> None:
    queries, items = torch.randn(30, 8, generator=generator(1)), torch.randn(70, 8, generator=generator(2))
    order = torch.randperm(70, generator=generator(3))
    targets = torch.randint(70, (30,), generator=generator(4))
    position = torch.empty(70, dtype=torch.int64)
    position[order] = torch.arange(70)
    assert torch.equal(
        rank_of_targets(queries, items, targets), rank_of_targets(queries, items[order], position[targets])
    )


def test_numpy_arrays_are_accepted_for_index_lists() -> None:
    queries, items = torch.randn(2, 4, generator=generator(1)), torch.randn(6, 4, generator=generator(2))
    as_numpy = (np.array([0, 1, 2], dtype=np.int32), np.array([3, 5], dtype=np.int64))
    assert torch.equal(rank_of_targets(queries, items, as_numpy), rank_of_targets(queries, items, torch.tensor([3, 5])))


def test_bad_arguments_are_named() -> None:
    queries, items = torch.ones(2, 3), torch.ones(4, 3)
    targets = torch.tensor([0, 1])
    with pytest.raises(ValueError, match=r"queries must be \[N, d\] and items \[V, d\].*\(2, 3\) and \(4, 2\)"):
        rank_of_targets(queries, torch.ones(4, 2), targets)
    with pytest.raises(ValueError, match="items holds a value that is not finite in row 3"):
        rank_of_targets(queries, torch.tensor([[1.0, 1, 1]] * 3 + [[1, math.nan, 1]]), targets)
    with pytest.raises(ValueError, match="score of a target is not finite"):
        rank_of_targets_by_score(lambda r, c: torch.full((2, 4), math.nan)[r, c], (2, 4), targets)
    with pytest.raises(IndexError, match=r"targets holds item 4, outside 0\.\.3"):
        rank_of_targets(queries, items, torch.tensor([0, 4]))
    with pytest.raises(IndexError, match="exclude holds item -1"):
        rank_of_targets(queries, items, targets, exclude=ragged([[-1], []]))
    with pytest.raises(ValueError, match="exclude must cover 2 queries, got offsets for 1"):
        rank_of_targets(queries, items, targets, exclude=ragged([[1]]))
    with pytest.raises(ValueError, match="offsets of targets must rise from 0"):
        rank_of_targets(queries, items, (torch.tensor([0, 2, 1]), torch.tensor([1])))
    with pytest.raises(ValueError, match="targets of query 1 hold item 2 twice"):
        rank_of_targets(queries, items, ragged([[0], [2, 1, 2]]))
    with pytest.raises(ValueError, match="ties must be one of optimistic, mean, pessimistic, index, got 'best'"):
        rank_of_targets(queries, items, targets, ties="best")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"1-d integers, got torch\.float32"):
        rank_of_targets(queries, items, torch.tensor([0.0, 1.0]))
    with pytest.raises(ValueError, match="block_size must be two positive numbers"):
        rank_of_targets(queries, items, targets, block_size=(0, 1))


def test_no_score_matrix_is_kept() -> None:
    queries, items = torch.randn(3000, 8, generator=generator(1)), torch.randn(4000, 8, generator=generator(2))
    peak = 0

    def score(rows: slice, columns: slice) -> Tensor:
        nonlocal peak
        block = queries[rows] @ items[columns].T
        peak = max(peak, block.numel() * 4)
        return block

    targets = torch.randint(4000, (3000,), generator=generator(3))
    ranks = rank_of_targets_by_score(score, (3000, 4000), targets, memory_budget=2**20)
    assert peak <= 2**20
    assert torch.equal(ranks, rank_of_targets(queries, items, targets))


# -------------------------------------------------------------------------------------------------------- metrics


def test_metrics_golden_values_by_hand() -> None:
    # User 0: relevant at ranks 1 and 4; user 1: nothing relevant; user 2: relevant at rank 3 and out of reach.
    ranks = torch.tensor([4.0, 1.0, math.inf, 3.0])
    values = per_query_metrics(ranks, torch.tensor([0, 2, 2, 4]), ks=[1, 3, 5])
    second, fourth = 1 / math.log2(3), 1 / math.log2(5)
    expected: dict[str, list[float]] = {
        "HR@1": [1, 0], "HR@3": [1, 1], "HR@5": [1, 1],
        "Recall@1": [0.5, 0], "Recall@3": [0.5, 0.5], "Recall@5": [1, 0.5],
        "Precision@1": [1, 0], "Precision@3": [1 / 3, 1 / 3], "Precision@5": [0.4, 0.2],
        "NDCG@1": [1, 0], "NDCG@3": [1 / (1 + second), 0.5 / (1 + second)],
        "NDCG@5": [(1 + fourth) / (1 + second), 0.5 / (1 + second)],
        "MRR@1": [1, 0], "MRR@3": [1, 1 / 3], "MRR@5": [1, 1 / 3],
        "MAP@1": [0.5, 0], "MAP@3": [0.5, 1 / 6], "MAP@5": [0.75, 1 / 6],
    }  # fmt: skip
    assert set(values) == set(expected)
    for name, (first_user, third_user) in expected.items():
        assert values[name][[0, 2]].tolist() == pytest.approx([first_user, third_user], abs=1e-12), name
        assert values[name][1].isnan()
    metrics = ranking_metrics(ranks, torch.tensor([0, 2, 2, 4]), ks=[5])
    assert (metrics.users, metrics.users_without_targets, metrics.targets, metrics.unreachable_targets) == (2, 1, 4, 1)
    assert metrics.to_dict()["Precision@5"] == pytest.approx(0.3)


def test_metrics_equal_ir_measures() -> None:
    rng = np.random.default_rng(11)
    queries = torch.from_numpy(rng.standard_normal((60, 6)))
    items = torch.from_numpy(rng.standard_normal((80, 6)))
    targets = random_lists(60, 80, 12, rng)
    values = per_query_metrics(rank_of_targets(queries, items, ragged(targets)), ragged(targets)[0], ks=[1, 5, 10])
    scores = (queries @ items.T).tolist()
    qrels = [ir_measures.Qrel(str(u), str(i), 1) for u, row in enumerate(targets) for i in row]
    run = [ir_measures.ScoredDoc(str(u), str(i), s) for u, row in enumerate(scores) for i, s in enumerate(row)]
    names = {"Success": "HR", "R": "Recall", "P": "Precision", "nDCG": "NDCG", "RR": "MRR", "AP": "MAP"}
    measures = [ir_measures.parse_measure(f"{name}@{k}") for name in names for k in (1, 5, 10)]
    checked = 0
    for result in ir_measures.iter_calc(measures, qrels, run):
        name, k = str(result.measure).split("@")
        assert float(values[f"{names[name]}@{k}"][int(result.query_id)]) == pytest.approx(result.value, abs=1e-6)
        checked += 1
    assert checked == len(measures) * sum(bool(row) for row in targets)


def test_with_one_target_recall_is_hr_and_map_is_mrr() -> None:
    values = per_query_metrics(torch.tensor([1.0, 4.0, 11.0]), ks=[5, 20])
    for k in (5, 20):
        assert torch.equal(values[f"Recall@{k}"], values[f"HR@{k}"])
        assert torch.equal(values[f"MAP@{k}"], values[f"MRR@{k}"])


def test_every_metric_lies_between_0_and_1_and_a_perfect_list_reaches_1() -> None:
    perfect = per_query_metrics(torch.arange(1.0, 8.0), torch.tensor([0, 7]), ks=[3, 7])
    assert float(perfect["NDCG@3"]) == pytest.approx(1)
    assert float(perfect["MAP@7"]) == pytest.approx(1)
    rng = np.random.default_rng(0)
    lists = random_lists(40, 30, 10, rng)
    for ties in TIES:
        ranks = rank_of_targets(torch.ones(40, 1), torch.ones(30, 1), ragged(lists), ties=ties)
        for name, value in per_query_metrics(ranks, ragged(lists)[0], ks=[1, 5, 30]).items():
            kept = value[~value.isnan()]
            assert bool(((kept >= 0) & (kept <= 1 + 1e-12)).all()), (ties, name)


def test_no_evaluable_user_gives_no_metric() -> None:
    metrics = ranking_metrics(torch.empty(0), torch.tensor([0, 0]), ks=[5])
    assert metrics.to_dict() == {}
    assert (metrics.users, metrics.users_without_targets) == (0, 1)


def test_metric_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match=r"ks must be positive cut-offs, got \[0\]"):
        ranking_metrics(torch.tensor([1.0]), ks=[0])
    with pytest.raises(ValueError, match="ranks start at 1"):
        ranking_metrics(torch.tensor([0.0]))
    with pytest.raises(ValueError, match=r"offsets must rise from 0 to the number of ranks \(2\)"):
        ranking_metrics(torch.tensor([1.0, 2.0]), torch.tensor([0, 1]))


# -------------------------------------------------------------------------------------------------------- buckets


def test_buckets_split_targets_by_training_frequency() -> None:
    ranks = torch.tensor([1.0, 9.0, 2.0, 30.0])
    train_counts = torch.tensor([0, 3, 70, 10])
    buckets = metrics_by_popularity(ranks, ragged([[0, 1], [2], [2]]), train_counts, ks=[5])
    table = {bucket.name: bucket.to_dict() for bucket in buckets}
    assert list(table) == ["0 (unseen)", "1-9", "10-49", "50+"]
    assert table["0 (unseen)"]["HR@5"] == 1
    assert table["1-9"]["HR@5"] == 0
    assert table["10-49"] == {"name": "10-49", "users": 0, "targets": 0, "items": 1}
    assert (table["50+"]["users"], table["50+"]["HR@5"], table["50+"]["items"]) == (2, 0.5, 1)


def test_bucket_hits_add_up_to_all_hits() -> None:
    rng = np.random.default_rng(5)
    ranks = torch.from_numpy(rng.integers(1, 60, 500)).double()
    targets = torch.from_numpy(rng.integers(0, 100, 500))
    counts = torch.from_numpy(rng.integers(0, 80, 100))
    buckets = metrics_by_popularity(ranks, targets, counts, ks=[10], edges=(1, 5, 30))
    hits = sum(bucket.metrics.values["HR@10"] * bucket.metrics.users for bucket in buckets)
    assert hits == pytest.approx(float((ranks <= 10).sum()))
    assert sum(bucket.items for bucket in buckets) == 100


def test_bucket_names_and_bad_edges() -> None:
    buckets = metrics_by_popularity(torch.tensor([1.0]), torch.tensor([0]), torch.tensor([4]), edges=(3, 4, 5))
    assert [bucket.name for bucket in buckets] == ["0-2", "3", "4", "5+"]
    with pytest.raises(ValueError, match=r"edges must rise from at least 1, got \[0, 2\]"):
        metrics_by_popularity(torch.tensor([1.0]), torch.tensor([0]), torch.tensor([4]), edges=(0, 2))
    with pytest.raises(ValueError, match="one rank per target, got 2 for 1"):
        metrics_by_popularity(torch.tensor([1.0, 2.0]), torch.tensor([0]), torch.tensor([4]))


# ------------------------------------------------------------------------------------- evaluation and recommendation


def test_evaluation_states_its_protocol() -> None:
    queries, items = torch.eye(3), torch.eye(3)
    history = ragged([[0], [2], []])
    targets = ragged([[0, 0], [1], []])
    kept = evaluate_ranking(queries, items, targets, seen="keep", history=history, ks=[1])
    assert kept.metrics.to_dict()["HR@1"] == 1
    assert kept.metrics.targets == 2  # the repeated target counts once
    assert kept.protocol["seen items"] == "kept as candidates"
    assert kept.protocol["users without targets"] == "1"
    gone = evaluate_ranking(
        queries, items, targets, seen="exclude", history=history, ks=[1], train_counts=torch.tensor([1, 2, 3])
    )
    assert gone.metrics.to_dict()["HR@1"] == 0.5
    assert gone.protocol["targets excluded by the protocol"] == "1"
    assert gone.to_dict()["buckets"][1]["users"] == 2
    with pytest.raises(ValueError, match="needs the history"):
        evaluate_ranking(queries, items, targets, seen="exclude")
    with pytest.raises(ValueError, match="seen must be 'keep' or 'exclude', got 'mask'"):
        evaluate_ranking(queries, items, targets, seen="mask")  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_recommendations_stand_where_the_ranks_say(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(2)
    queries = torch.randn(90, 32, generator=generator(1), dtype=dtype)
    items = torch.randn(400, 32, generator=generator(2), dtype=dtype)
    if dtype == torch.float32:
        items[200:300] = items[:100]  # ties
    excluded = ragged(random_lists(90, 400, 20, rng))
    scores, best = recommend_topk(queries, items, 15, exclude=excluded)
    assert best.shape == (90, 15)
    targets = torch.arange(91) * 15, best.flatten()
    ranks = rank_of_targets(queries, items, targets, exclude=excluded, ties="index").reshape(90, 15)
    assert torch.equal(ranks, torch.arange(1, 16).double().expand(90, 15))
    assert bool((scores.diff(dim=1) <= 0).all())


def test_recommendations_of_a_single_user_equal_the_batch() -> None:
    queries, items = torch.randn(50, 16, generator=generator(1)), torch.randn(120, 16, generator=generator(2))
    together = recommend_topk(queries, items, 10)[1]
    alone = torch.cat([recommend_topk(queries[i : i + 1], items, 10)[1] for i in range(50)])
    assert torch.equal(together, alone)


def test_fewer_candidates_than_k_leave_empty_places() -> None:
    scores, best = recommend_topk(torch.ones(1, 1), torch.tensor([[1.0], [2.0]]), 3, exclude=ragged([[1]]))
    assert best.tolist() == [[0, -1, -1]]
    assert scores.tolist() == [[1.0, -math.inf, -math.inf]]
    with pytest.raises(IndexError, match="exclude holds item 7"):
        recommend_topk(torch.ones(1, 1), torch.ones(2, 1), 1, exclude=ragged([[7]]))
