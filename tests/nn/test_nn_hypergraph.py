"""Hypergraph convolution against the dense matrices of the papers, weights included."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import pytest
import torch
from torch import Tensor
from torch_geometric.nn import HypergraphConv as PygHypergraphConv

from graphcl.graphs.hypergraph import Hypergraph
from graphcl.nn.hypergraph import HypergraphConv, HypergraphOperator

OPERATORS: tuple[HypergraphOperator, ...] = get_args(HypergraphOperator)
# Six nodes, node 5 in no hyperedge; the last hyperedge is empty, the one before has a single member.
HYPEREDGES = [[0, 1, 2], [2, 3], [1, 3, 4, 2], [0], []]
WEIGHT = torch.tensor([1.0, 2.0, 0.5, 3.0, 1.5], dtype=torch.float64)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def example(weight: Tensor | None = WEIGHT, *, valued: bool = False) -> Hypergraph:
    plain = Hypergraph.from_hyperedges(HYPEREDGES, num_nodes=6)
    values = torch.rand(plain.num_incidences, dtype=torch.float64, generator=torch.Generator().manual_seed(5)) + 0.1
    incidence = plain.incidence.with_values(values if valued else torch.ones_like(values))
    return Hypergraph(incidence, hyperedge_weight=weight)


def inverse(degrees: Tensor, power: float = 1.0) -> Tensor:
    return torch.tensor([0.0 if degree <= 1e-12 else degree ** (-power) for degree in degrees.tolist()]).double()


def dense_operator(kind: HypergraphOperator, hypergraph: Hypergraph) -> Tensor:
    """The formula with full matrices."""
    incidence = hypergraph.incidence.to_dense()
    weight = hypergraph.hyperedge_weight
    diagonal = torch.eye(incidence.shape[1]).double() if weight is None else torch.diag(weight)
    if kind.startswith("hgnn"):
        node_degree = (incidence @ diagonal).sum(1)
        inner = incidence @ diagonal @ torch.diag(inverse(incidence.sum(0))) @ incidence.T
        if kind == "hgnn_plus":
            return torch.diag(inverse(node_degree)) @ inner
        return torch.diag(inverse(node_degree, 0.5)) @ inner @ torch.diag(inverse(node_degree, 0.5))
    shared = incidence @ diagonal @ incidence.T
    if kind == "mmhcl_user":
        shared = shared - torch.diag(shared.diag())
        return torch.diag(inverse(shared.sum(1))) @ shared
    return torch.diag(inverse(shared.sum(1), 0.5)) @ shared @ torch.diag(inverse(shared.sum(1), 0.5))


@pytest.mark.parametrize("kind", OPERATORS)
@pytest.mark.parametrize("weight", [WEIGHT, None])
@pytest.mark.parametrize("valued", [True, False])
def test_operator_is_the_dense_formula(kind: HypergraphOperator, weight: Tensor | None, valued: bool) -> None:
    hypergraph, conv = example(weight, valued=valued), HypergraphConv(kind, num_layers=2)
    want = dense_operator(kind, hypergraph)
    torch.testing.assert_close(conv.build(hypergraph).to_dense(), want)
    x = randn(6, 3)
    torch.testing.assert_close(conv(x, hypergraph), want @ want @ x)
    torch.testing.assert_close(conv(x, conv.build(hypergraph)), want @ want @ x)


def test_unit_weights_change_nothing_and_others_do() -> None:
    for kind in OPERATORS:
        conv, x = HypergraphConv(kind), randn(6, 3)
        torch.testing.assert_close(conv(x, example(torch.ones(5).double())), conv(x, example(None)))
        assert float((conv(x, example()) - conv(x, example(None))).abs().max()) > 0.01


def test_weight_of_the_public_layer_is_missing_from_its_product() -> None:
    hypergraph, x = example(), randn(6, 3)
    public = PygHypergraphConv(3, 3, bias=False).double()
    with torch.no_grad():
        public.lin.weight.copy_(torch.eye(3))
    ours = HypergraphConv("hgnn_plus")
    torch.testing.assert_close(
        public(x, hypergraph.hyperedge_index, torch.ones(5).double(), num_edges=5), ours(x, example(None))
    )
    weighted = public(x, hypergraph.hyperedge_index, WEIGHT, num_edges=5)
    incidence = hypergraph.incidence.to_dense()
    without = torch.diag(inverse((incidence * WEIGHT).sum(1))) @ incidence
    torch.testing.assert_close(weighted, without @ torch.diag(inverse(incidence.sum(0))) @ incidence.T @ x)
    assert float((weighted - ours(x, hypergraph)).detach().abs().max()) > 0.1
    rows = ours(torch.ones(6, 1).double(), hypergraph)
    torch.testing.assert_close(rows, torch.tensor([1.0, 1, 1, 1, 1, 0]).double().unsqueeze(1))


@pytest.mark.parametrize("kind", OPERATORS)
def test_gradients_of_features_weights_and_incidence_values(kind: HypergraphOperator) -> None:
    conv, upstream = HypergraphConv(kind, num_layers=2, num_hyperedges=5).double(), randn(6, 2, seed=1)
    hypergraph = example(valued=True)
    values = hypergraph.incidence.entry_values().clone().requires_grad_()
    log_weight = (0.3 * randn(5, seed=2)).requires_grad_()

    def loss(x: Tensor, logs: Tensor, entries: Tensor) -> Tensor:
        conv._parameters["log_weight"] = logs  # type: ignore[assignment]
        moved = Hypergraph(hypergraph.incidence.with_values(entries), hyperedge_weight=WEIGHT, check=False)
        out: Tensor = (conv(x, moved) * upstream).sum()
        return out

    assert torch.autograd.gradcheck(loss, (randn(6, 2).requires_grad_(), log_weight, values))


def test_linear_map_bias_and_activation() -> None:
    torch.manual_seed(0)
    conv = HypergraphConv("hgnn", in_channels=3, out_channels=2, activation=torch.relu).double()
    assert conv.lin is not None
    assert conv.bias is not None
    with torch.no_grad():
        conv.bias.copy_(torch.tensor([0.5, -0.5]))
    x = randn(6, 3)
    want = torch.relu(dense_operator("hgnn", example()) @ x @ conv.lin.weight.T + conv.bias)
    torch.testing.assert_close(conv(x, example()), want)
    assert conv(x, example())[5].tolist() == [0.5, 0.0]
    assert HypergraphConv(in_channels=3, out_channels=2, bias=False).bias is None
    assert not list(HypergraphConv().parameters())


def test_learnable_weights_start_at_one_and_multiply_the_given() -> None:
    conv, x = HypergraphConv("mmhcl_item", num_hyperedges=5).double(), randn(6, 3)
    torch.testing.assert_close(conv(x, example()), HypergraphConv("mmhcl_item")(x, example()))
    assert conv.log_weight is not None
    with torch.no_grad():
        conv.log_weight.copy_(WEIGHT.log())
    torch.testing.assert_close(conv(x, example(None)), HypergraphConv("mmhcl_item")(x, example()))
    (gradient,) = torch.autograd.grad(conv(x, example()).square().sum(), conv.log_weight)
    assert float(gradient[:3].abs().min()) > 0
    # The empty hyperedge reaches nobody.
    assert float(gradient[4]) == 0


@pytest.mark.parametrize("kind", OPERATORS)
def test_permuting_nodes_and_adding_an_isolated_one(kind: HypergraphOperator) -> None:
    order = torch.tensor([3, 5, 0, 1, 4, 2])
    moved = Hypergraph.from_hyperedges([[int(order[node]) for node in members] for members in HYPEREDGES], 7, WEIGHT)
    x = randn(6, 3)
    shuffled = torch.cat([torch.empty_like(x).index_copy(0, order, x), torch.full((1, 3), 9.0).double()])
    conv = HypergraphConv(kind)
    got = conv(shuffled, moved.to(torch.float64))
    torch.testing.assert_close(got[order], conv(x, example()))
    assert float(got[6].abs().max()) == 0


def test_a_node_that_shares_nothing_stays_zero_despite_rounding() -> None:
    count = 50
    values = torch.rand(count + 2, generator=torch.Generator().manual_seed(0)) * 3
    hyperedges = [[0] for _ in range(count)] + [[1, 2]]
    incidence = Hypergraph.from_hyperedges(hyperedges, num_nodes=3).incidence.with_values(values)
    out = HypergraphConv("mmhcl_user")(torch.ones(3, 1), Hypergraph(incidence))
    assert out[0] == 0
    torch.testing.assert_close(out[1:], torch.ones(2, 1))


def test_bad_arguments_are_named() -> None:
    checks: list[tuple[Callable[[], object], str]] = [
        (lambda: HypergraphConv("gcn"), "operator must be one of hgnn, hgnn_plus, mmhcl_user, mmhcl_item, got 'gcn'"),  # type: ignore[arg-type]
        (lambda: HypergraphConv(num_layers=0), "num_layers must be an integer of at least 1, got 0"),
        (lambda: HypergraphConv(in_channels=3), "in_channels and out_channels must be given together, got 3 and None"),
        (lambda: HypergraphConv(num_hyperedges=2)(randn(6, 1), example()), "weights for 2 hyperedges, got .* of 5"),
        (lambda: HypergraphConv()(randn(5, 1), example()), "hypergraph must have 5 nodes to fit x, got 6"),
    ]
    for call, message in checks:
        with pytest.raises(ValueError, match=message):
            call()
