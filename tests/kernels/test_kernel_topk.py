"""pair_topk and knn against full sorts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from graphcl.kernels import Backend, Similarity, knn, pair_topk

BLOCKS: tuple[int | tuple[int, int] | None, ...] = (None, 1, 3, (2, 5), (100, 100))


def integers(rows: int, columns: int, seed: int = 0, high: int = 3) -> Tensor:
    """Small whole numbers: scores are exact, and ties are common."""
    return torch.randint(-high, high + 1, (rows, columns), generator=torch.Generator().manual_seed(seed)).double()


def loops(scores: Tensor, k: int, excluded: list[set[int]], largest: bool) -> tuple[list[list[float]], list[list[int]]]:
    values, indices = [], []
    for row, out in zip(scores.tolist(), excluded, strict=True):
        order = sorted((j for j in range(len(row)) if j not in out), key=lambda j: (-row[j] if largest else row[j], j))
        missing = k - len(order[:k])
        pad = -torch.inf if largest else torch.inf
        values.append([row[j] for j in order[:k]] + [pad] * missing)
        indices.append(order[:k] + [-1] * missing)
    return values, indices


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("block_size", BLOCKS)
@pytest.mark.parametrize("k", [1, 4, 9, 20])
@pytest.mark.parametrize("largest", [True, False])
def test_equals_loops_with_ties_and_exclusions(
    backend: Backend, block_size: int | tuple[int, int] | None, k: int, largest: bool
) -> None:
    queries, items = integers(6, 3), integers(11, 3, seed=1)
    excluded: list[set[int]] = [{0, 5}, set(), set(range(11)), {10}, {1, 2, 3, 4}, set()]
    offsets = torch.tensor([0, *torch.tensor([len(e) for e in excluded]).cumsum(0).tolist()])
    columns = torch.tensor([j for e in excluded for j in sorted(e)])
    got = pair_topk(
        queries, items, k, exclude=(offsets, columns), largest=largest, block_size=block_size, backend=backend
    )
    values, indices = loops(queries @ items.T, k, excluded, largest)
    assert got.indices.tolist() == indices
    assert got.values.tolist() == values


def test_ties_across_blocks_go_to_the_lower_index() -> None:
    items = torch.ones(10, 2)
    for block_size in BLOCKS:
        assert pair_topk(torch.ones(1, 2), items, 4, block_size=block_size).indices.tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize("similarity", ["dot", "cosine", "sqeuclidean"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_similarities(similarity: Similarity, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(5, 4, generator=generator, dtype=torch.float64).to(dtype)
    items = torch.randn(300, 4, generator=generator, dtype=torch.float64).to(dtype)
    a, b = queries.double(), items.double()
    scores = {
        "dot": a @ b.T,
        "cosine": torch.nn.functional.normalize(a) @ torch.nn.functional.normalize(b).T,
        "sqeuclidean": -torch.cdist(a, b).square(),
    }[similarity]
    got = pair_topk(queries, items, 7, similarity=similarity)
    assert got.values.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(got.values.double(), scores.topk(7).values, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(scores.gather(1, got.indices), scores.topk(7).values, rtol=1e-5, atol=1e-5)


def test_batch_equals_single() -> None:
    queries, items = integers(6, 3), integers(40, 3, seed=1)
    whole = pair_topk(queries, items, 5)
    for i in range(6):
        assert torch.equal(pair_topk(queries[i : i + 1], items, 5).indices[0], whole.indices[i])


def test_results_are_constants() -> None:
    queries = integers(2, 3).requires_grad_()
    assert not pair_topk(queries, integers(4, 3), 2).values.requires_grad


@pytest.mark.parametrize(("queries", "items"), [(0, 3), (3, 0), (0, 0)])
def test_zero_size(queries: int, items: int) -> None:
    got = pair_topk(torch.zeros(queries, 2), torch.zeros(items, 2), 2)
    assert got.values.shape == (queries, 2)
    assert bool((got.indices == (-1 if items == 0 else 0)).all()) or queries > 0
    if items == 0:
        assert got.indices.tolist() == [[-1, -1]] * queries


def test_non_contiguous() -> None:
    wide = integers(8, 6)
    queries, items = wide[::2, ::2], integers(3, 9, seed=1).T
    assert torch.equal(
        pair_topk(queries, items, 4).indices, pair_topk(queries.contiguous(), items.contiguous(), 4).indices
    )


def test_knn_golden() -> None:
    x = torch.tensor([[0.0], [1.0], [3.0], [1.0]])
    got = knn(x, 2, similarity="sqeuclidean")
    assert got.indices.tolist() == [[1, 3], [3, 0], [1, 3], [1, 0]]
    assert got.values.tolist() == [[-1, -1], [0, -1], [-4, -4], [0, -1]]
    assert knn(x, 1, similarity="sqeuclidean", include_self=True).indices.tolist() == [[0], [1], [2], [1]]
    assert knn(x[:2], 3, similarity="sqeuclidean").indices.tolist() == [[1, -1, -1], [0, -1, -1]]
    assert knn(x[:1], 1, y=x[1:], similarity="sqeuclidean").indices.tolist() == [[0]]


def test_messages() -> None:
    x = torch.zeros(3, 2)
    with pytest.raises(ValueError, match=r"k must be an integer of at least 1, got 0"):
        pair_topk(x, x, 0)
    with pytest.raises(IndexError, match=r"exclude columns holds 3, outside 0 .. 2"):
        pair_topk(x, x, 1, exclude=(torch.tensor([0, 1, 1, 1]), torch.tensor([3])))
    with pytest.raises(ValueError, match=r"exclude offsets must have shape \(4,\), got shape \(2,\)"):
        pair_topk(x, x, 1, exclude=(torch.tensor([0, 1]), torch.tensor([0])))
    with pytest.raises(ValueError, match=r"queries and items must have the same number of features, got 2 and 3"):
        pair_topk(x, torch.zeros(3, 3), 1)
    with pytest.raises(ValueError, match=r"items holds NaN, first at position \[0, 0\]"):
        pair_topk(x, torch.full((1, 2), torch.nan), 1)
