"""Meta-nodes: cluster sums, means, second moments and pooled graphs against dense formulas, hard and soft."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from graphcl.kernels import (
    SparseMatrix,
    cluster_mean,
    cluster_second_moment,
    cluster_sum,
    pooled_graph,
    pooled_product,
)

# Cluster 0 has three members (1 is apart), cluster 1 one, cluster 2 none, cluster 3 two.
IDS = torch.tensor([0, 3, 0, 1, 0, 3])
ONE_HOT = torch.nn.functional.one_hot(IDS, 4).double()


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def graph(rows: int = 6, columns: int = 6) -> SparseMatrix:
    generator = torch.Generator().manual_seed(3)
    row = torch.randint(0, rows, (15,), generator=generator)
    column = torch.randint(0, columns, (15,), generator=generator)
    return SparseMatrix.from_coo(row, column, randn(15, seed=4), shape=(rows, columns))


def test_golden_table() -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0], [0.0, 1.0], [3.0, 4.0]])
    assert cluster_sum(x, IDS, 4).tolist() == [[6.0, 9.0], [7.0, 8.0], [0.0, 0.0], [6.0, 8.0]]
    assert cluster_mean(x, IDS, 4).tolist() == [[2.0, 3.0], [7.0, 8.0], [0.0, 0.0], [3.0, 4.0]]
    moments = cluster_second_moment(x, IDS, 4)
    assert moments.tolist() == [
        [[26.0, 32.0], [32.0, 41.0]],
        [[49.0, 56.0], [56.0, 64.0]],
        [[0.0, 0.0], [0.0, 0.0]],
        [[18.0, 24.0], [24.0, 32.0]],
    ]
    mean = cluster_second_moment(x, IDS, 4, reduce="mean")
    assert mean[3].tolist() == [[9.0, 12.0], [12.0, 16.0]]
    assert mean[2].abs().sum().item() == 0.0


def loop(name: str, x: Tensor, weights: Tensor) -> Tensor:
    """The definitions, entry by entry."""
    clusters = weights.shape[1]
    width = x.shape[1]
    shape = (clusters, width, width) if name.startswith("second") else (clusters, width)
    out = torch.zeros(shape, dtype=torch.float64)
    for k in range(clusters):
        for i in range(x.shape[0]):
            term = torch.outer(x[i], x[i]) if name.startswith("second") else x[i]
            out[k] += weights[i, k] * term
        mass = weights[:, k].sum()
        if name.endswith("mean") and mass != 0:
            out[k] /= mass
    return out


def pool(name: str, x: Tensor, assignment: Tensor, clusters: int) -> Tensor:
    if name == "sum":
        return cluster_sum(x, assignment, clusters)
    if name == "mean":
        return cluster_mean(x, assignment, clusters)
    return cluster_second_moment(x, assignment, clusters, reduce="sum" if name == "second_sum" else "mean")


NAMES = ["sum", "mean", "second_sum", "second_mean"]


@pytest.mark.parametrize("name", NAMES)
def test_hard_and_soft_clusters_equal_the_definition(name: str) -> None:
    x = randn(6, 3)
    expected = loop(name, x, ONE_HOT)
    torch.testing.assert_close(pool(name, x, IDS, 4), expected)
    torch.testing.assert_close(pool(name, x, IDS.int(), 4), expected)
    torch.testing.assert_close(pool(name, x, ONE_HOT, 4), expected)
    soft = torch.softmax(randn(6, 4, seed=1), dim=1)
    torch.testing.assert_close(pool(name, x, soft, 4), loop(name, x, soft))


@pytest.mark.parametrize("name", NAMES)
def test_gradients_with_random_upstream(name: str) -> None:
    """Embeddings under hard ids; embeddings alone, weights alone and both under soft ones."""
    x = randn(6, 3)
    upstream = randn(*pool(name, x, IDS, 4).shape, seed=2)
    leaf = x.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda y: (pool(name, y, IDS, 4) * upstream).sum(), (leaf,))
    for needs_x, needs_weights in ((True, False), (False, True), (True, True)):
        leaf = x.clone().requires_grad_(needs_x)
        soft = torch.softmax(randn(6, 4, seed=1), dim=1).requires_grad_(needs_weights)
        assert torch.autograd.gradcheck(lambda y, s: (pool(name, y, s, 4) * upstream).sum(), (leaf, soft))


@pytest.mark.parametrize("name", NAMES)
def test_empty_clusters_and_sizes(name: str) -> None:
    x = randn(6, 3).requires_grad_()
    nothing = torch.zeros(6, 4, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(pool(name, x, nothing, 4).sum(), x)
    assert torch.equal(gradient, torch.zeros_like(x))
    no_nodes = torch.zeros(0, 3, dtype=torch.float64)
    none = torch.zeros(0, dtype=torch.int64)
    assert pool(name, no_nodes, none, 2).abs().sum().item() == 0.0
    assert pool(name, no_nodes, none, 2).shape[0] == 2
    assert pool(name, no_nodes, none, 0).shape[0] == 0


@pytest.mark.parametrize("name", NAMES)
def test_order_of_nodes_and_strides_do_not_matter(name: str) -> None:
    x = randn(6, 3)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(pool(name, x[order], IDS[order], 4), pool(name, x, IDS, 4))
    strided = x.T.contiguous().T
    torch.testing.assert_close(pool(name, strided, IDS, 4), pool(name, x, IDS, 4))


@pytest.mark.parametrize("weighted", [True, False])
def test_pooled_product_equals_the_dense_formula(weighted: bool) -> None:
    matrix = graph() if weighted else graph().with_values(None)
    dense = matrix.to_dense().double()
    expected = ONE_HOT.T @ dense @ ONE_HOT
    torch.testing.assert_close(pooled_product(matrix, IDS, 4).double(), expected)
    torch.testing.assert_close(pooled_product(matrix, ONE_HOT, 4), expected)
    torch.testing.assert_close(pooled_graph(matrix, IDS, 4).to_dense().double(), expected)
    soft = torch.softmax(randn(6, 4, seed=1), dim=1)
    torch.testing.assert_close(pooled_product(matrix, soft, 4), soft.T @ dense @ soft)


def test_pooled_product_of_two_kinds_of_nodes() -> None:
    matrix = graph(6, 5)
    columns = torch.tensor([1, 0, 1, 2, 2])
    other = torch.nn.functional.one_hot(columns, 3).double()
    expected = ONE_HOT.T @ matrix.to_dense() @ other
    out = pooled_product(matrix, IDS, 4, column_assignment=columns, num_column_clusters=3)
    torch.testing.assert_close(out, expected)
    soft = pooled_product(matrix, ONE_HOT, 4, column_assignment=other, num_column_clusters=3)
    torch.testing.assert_close(soft, expected)
    sparse = pooled_graph(matrix, IDS, 4, column_assignment=columns, num_column_clusters=3)
    torch.testing.assert_close(sparse.to_dense(), expected)


def test_pooled_product_gradients() -> None:
    matrix = graph()
    values = matrix.entry_values().clone()
    upstream = randn(4, 4, seed=5)
    leaf = values.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: (pooled_product(matrix.with_values(v), IDS, 4) * upstream).sum(), (leaf,))
    assert torch.autograd.gradcheck(
        lambda v: (pooled_graph(matrix.with_values(v), IDS, 4).to_dense() * upstream).sum(), (leaf,)
    )
    for needs_values, needs_weights in ((True, False), (False, True), (True, True)):
        leaf = values.clone().requires_grad_(needs_values)
        soft = torch.softmax(randn(6, 4, seed=1), dim=1).requires_grad_(needs_weights)
        assert torch.autograd.gradcheck(
            lambda v, s: (pooled_product(matrix.with_values(v), s, 4) * upstream).sum(), (leaf, soft)
        )


def test_bad_arguments_are_named() -> None:
    x = randn(6, 3)
    with pytest.raises(IndexError, match=r"assignment holds 3, outside 0 .. 2"):
        cluster_sum(x, IDS, 3)
    with pytest.raises(ValueError, match=r"assignment must have shape \(6,\) as hard ids, got \(5,\)"):
        cluster_mean(x, IDS[:5], 4)
    with pytest.raises(ValueError, match=r"assignment must have shape \(6, 4\) as soft weights, got \(6, 3\)"):
        cluster_second_moment(x, ONE_HOT[:, :3], 4)
    with pytest.raises(TypeError, match=r"assignment has dtype torch.float32 but x has torch.float64"):
        cluster_sum(x, ONE_HOT.float(), 4)
    with pytest.raises(TypeError, match=r"assignment must be int64 or int32 ids .* got dtype torch.bool"):
        cluster_sum(x, IDS.bool(), 4)
    with pytest.raises(ValueError, match=r"x must be a float matrix \(nodes, d\), got torch.int64 of shape \(6,\)"):
        cluster_sum(IDS, IDS, 4)
    with pytest.raises(ValueError, match="reduce must be 'sum' or 'mean', got 'max'"):
        cluster_second_moment(x, IDS, 4, reduce="max")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"column_assignment is needed for a matrix of shape \(6, 5\)"):
        pooled_product(graph(6, 5), IDS, 4)
    with pytest.raises(ValueError, match="must both be hard ids or both soft weights"):
        pooled_product(graph(), IDS, 4, column_assignment=ONE_HOT)
    with pytest.raises(ValueError, match=r"assignment must be hard ids of shape \(6,\), got shape \(6, 4\)"):
        pooled_graph(graph(), ONE_HOT, 4)
    with pytest.raises(IndexError, match=r"column_assignment holds 3, outside 0 .. 1"):
        pooled_product(graph(), IDS, 4, column_assignment=IDS, num_column_clusters=2)
