"""LightGCN propagation against powers of the dense operator."""

from __future__ import annotations

import itertools
from typing import Literal

import pytest
import torch
from torch import Tensor

from graphcl.graphs.bipartite import BipartiteGraph
from graphcl.nn.lightgcn import LightGCNConv

GRAPH = BipartiteGraph(3, 4, torch.tensor([2, 0, 2, 0]), torch.tensor([1, 2, 0, 1]))


def table() -> Tensor:
    return torch.randn(7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()


@pytest.mark.parametrize(
    ("num_layers", "reduce", "include_ego"),
    [case for case in itertools.product([0, 1, 3], ["mean", "sum"], [True, False]) if case[0] or case[2]],
)
def test_layers_are_powers_of_the_operator(num_layers: int, reduce: Literal["mean", "sum"], include_ego: bool) -> None:
    x, operator = table(), GRAPH.normalized(torch.float64)
    dense = operator.to_dense()
    powers = [torch.linalg.matrix_power(dense, layer) @ x for layer in range(num_layers + 1)]
    want = torch.stack(powers if include_ego else powers[1:])
    conv = LightGCNConv(num_layers, reduce=reduce, include_ego=include_ego)
    got = conv(x, operator)
    torch.testing.assert_close(got, want.mean(0) if reduce == "mean" else want.sum(0))
    torch.testing.assert_close(conv(x, GRAPH.normalized_operator(torch.float64)), got)


def test_gradient() -> None:
    conv, upstream = LightGCNConv(2), torch.randn(7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for operator in (GRAPH.normalized(torch.float64), GRAPH.normalized_operator(torch.float64)):
        assert torch.autograd.gradcheck(lambda x, operator=operator: (conv(x, operator) * upstream).sum(), (table(),))
        assert torch.autograd.gradgradcheck(lambda x, operator=operator: conv(x, operator).square().sum(), (table(),))


def test_gradient_of_an_operator_that_is_not_symmetric_and_of_its_values() -> None:
    upstream = torch.randn(7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    symmetric = GRAPH.normalized(torch.float64)
    values = torch.rand(symmetric.num_entries, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    operator, x = symmetric.with_values(values), table()
    for ego in (True, False):
        conv = LightGCNConv(3, include_ego=ego)
        (found,) = torch.autograd.grad(conv(x, operator), x, upstream)
        dense = operator.to_dense()
        powers = [torch.linalg.matrix_power(dense, layer) for layer in range(0 if ego else 1, 4)]
        torch.testing.assert_close(found, torch.stack(powers).mean(0).T @ upstream)
    learned = values.clone().requires_grad_()

    def of_values(v: Tensor) -> Tensor:
        out: Tensor = LightGCNConv(2)(x, symmetric.with_values(v))
        return (out * upstream).sum()

    assert torch.autograd.gradcheck(of_values, (learned,))


def test_an_operator_a_layer_and_noise_that_is_propagated() -> None:
    x, first = table(), GRAPH.normalized(torch.float64)
    second = GRAPH.select(torch.tensor([0, 2])).normalized(torch.float64)
    conv = LightGCNConv(2, reduce="sum", include_ego=False)
    torch.testing.assert_close(conv(x, [first, second]), first @ x + second @ (first @ x))
    noisy = conv.layers(x, first, lambda layer: layer + 1)
    torch.testing.assert_close(noisy[2], first @ (first @ x + 1) + 1)
    torch.testing.assert_close(noisy[0], x)
    assert not list(conv.parameters())
    assert repr(conv) == "LightGCNConv(num_layers=2, reduce='sum', include_ego=False)"


def test_permuting_the_nodes_permutes_the_result() -> None:
    users, items = torch.tensor([1, 2, 0]), torch.tensor([3, 0, 2, 1])
    moved = BipartiteGraph(3, 4, users[GRAPH.user], items[GRAPH.item])
    order = torch.cat([users, items + 3])
    x = table()
    shuffled = torch.empty_like(x).index_copy(0, order, x)
    conv = LightGCNConv(2)
    torch.testing.assert_close(
        conv(shuffled, moved.normalized(torch.float64))[order], conv(x, GRAPH.normalized(torch.float64))
    )


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="num_layers must be an integer of at least 0, got -1"):
        LightGCNConv(-1)
    with pytest.raises(ValueError, match="reduce must be 'mean' or 'sum', got 'max'"):
        LightGCNConv(1, reduce="max")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_layers must be at least 1 where include_ego is False, got 0"):
        LightGCNConv(0, include_ego=False)
    with pytest.raises(ValueError, match="operator must be one, or one for each of 2 layers, got 1"):
        LightGCNConv(2)(table(), [GRAPH.normalized(torch.float64)])
    with pytest.raises(ValueError, match=r"operator must have shape \(6, 6\) to fit x, got \(7, 7\)"):
        LightGCNConv(2)(table()[:6], GRAPH.normalized(torch.float64))
