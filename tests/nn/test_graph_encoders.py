"""Encoders against dense formulas; permutations, isolated nodes, any convolution of PyG."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GATConv
from torch_geometric.nn import GCNConv as PyGConv

from graphcl.graphs import smooth_features
from graphcl.kernels import SparseMatrix, normalize_symmetric
from graphcl.nn import MLP, GCNConv, GraphEncoder, SmoothedEncoder, gcn_operator

# Node 5 is isolated.
EDGES = torch.tensor([[0, 1, 1, 2, 2, 3, 3, 4, 0, 4], [1, 0, 2, 1, 3, 2, 4, 3, 4, 0]])
NUM = 6


def drawn(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def dense_operator() -> Tensor:
    loops = torch.eye(NUM, dtype=torch.float64)
    loops[EDGES[1], EDGES[0]] += 1
    roots = loops.sum(1).rsqrt()
    return roots[:, None] * loops * roots


def parameters(module: nn.Module) -> list[Tensor]:
    return [parameter.detach() for parameter in module.parameters()]


def test_mlp_against_the_formula() -> None:
    model = MLP((4, 5, 3), generator=torch.Generator().manual_seed(0)).double()
    first, bias, second, last = parameters(model)
    x = drawn(0, NUM, 4)
    torch.testing.assert_close(model(x), (x @ first.T + bias).relu() @ second.T + last)
    again = MLP((4, 5, 3), generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(again(x), model(x))


@pytest.mark.parametrize("widths", [(4, 3, 2), (2, 5, 6)])  # narrowing and widening layers multiply in other orders
@pytest.mark.parametrize("form", ["edges", "operator"])
def test_gcn_against_dense_matrices(widths: tuple[int, ...], form: str) -> None:
    model = GraphEncoder(widths, activation="elu", activate_last=True).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    x, operator = drawn(0, NUM, widths[0]).requires_grad_(), dense_operator()
    graph: Any = EDGES if form == "edges" else gcn_operator(EDGES, x)
    bias, weight, last_bias, last_weight = parameters(model)
    hidden = nn.functional.elu(operator @ x @ weight.T + bias)
    expected = nn.functional.elu(operator @ hidden @ last_weight.T + last_bias)
    found = model(x, graph)
    torch.testing.assert_close(found, expected)
    upstream = drawn(1, NUM, widths[-1])
    torch.testing.assert_close(
        torch.autograd.grad((found * upstream).sum(), x)[0], torch.autograd.grad((expected * upstream).sum(), x)[0]
    )


def test_own_convolution_equals_that_of_pyg() -> None:
    own, theirs = GCNConv(4, 3), PyGConv(4, 3)
    own.load_state_dict({"linear.weight": theirs.lin.weight, "bias": theirs.bias})
    x = drawn(0, NUM, 4, dtype=torch.float32)
    torch.testing.assert_close(own(x, EDGES), theirs(x, EDGES))


@pytest.mark.parametrize("conv", ["gcn", "SAGEConv", "gat", lambda i, o: GATConv(i, o, heads=2, concat=False)])
def test_any_convolution_is_equivariant(conv: Any) -> None:
    torch.manual_seed(0)
    model = GraphEncoder((4, 8, 3), conv=conv, dropout=0.5).eval()
    x = drawn(0, NUM, 4, dtype=torch.float32)
    order = torch.randperm(NUM, generator=torch.Generator().manual_seed(1))
    place = torch.argsort(order)
    out = model(x, EDGES)
    assert bool(out.isfinite().all())
    torch.testing.assert_close(model(x[order], place[EDGES]), out[order])
    # A sparse matrix of the raw edges is the same graph to a convolution of PyG, an operator to ours.
    if conv != "gcn":
        torch.testing.assert_close(model(x, SparseMatrix.from_edge_index(EDGES, num_nodes=NUM)), out)


def test_weights_reach_convolutions_that_take_them() -> None:
    model = GraphEncoder((4, 3), conv=PyGConv)
    x, weights = drawn(0, NUM, 4, dtype=torch.float32), torch.rand(10, generator=torch.Generator().manual_seed(0))
    graph = SparseMatrix.from_edge_index(EDGES, weights, num_nodes=NUM)
    torch.testing.assert_close(model(x, graph), model.layers[0](x, EDGES, weights))


@pytest.mark.parametrize("restart", [0.0, 0.3, 1.0])
def test_smoothing_against_dense_powers(restart: float) -> None:
    x, operator = drawn(0, NUM, 3), dense_operator()
    expected = x
    for _ in range(3):
        expected = (1 - restart) * operator @ expected + restart * x
    torch.testing.assert_close(smooth_features(x, gcn_operator(EDGES, x), 3, restart=restart), expected)


def test_smoothing_is_differentiable() -> None:
    operator, weights = gcn_operator(EDGES, drawn(0, NUM, 1)), drawn(1, NUM, 2)

    def smoothed(x: Tensor, values: Tensor) -> Tensor:
        return (smooth_features(x, operator.with_values(values), 2, restart=0.2) * weights).sum()

    leaves = drawn(2, NUM, 2).requires_grad_(), operator.entry_values().clone().requires_grad_()
    assert torch.autograd.gradcheck(smoothed, leaves)


def test_smoothed_encoders_against_their_formulas() -> None:
    x, operator = drawn(0, NUM, 4), dense_operator()
    before = SmoothedEncoder((4, 5, 2), steps=2).double()
    torch.testing.assert_close(before(x, EDGES), before.mlp(operator @ operator @ x))
    torch.testing.assert_close(before.encode(before.smooth(x, EDGES)[1:3]), before(x, EDGES)[1:3])
    after = SmoothedEncoder((4, 5, 2), kind="appnp", steps=1, restart=0.2).double()
    z = after.mlp(x)
    torch.testing.assert_close(after(x, EDGES), 0.8 * operator @ z + 0.2 * z)
    assert after.smooth(x, EDGES) is x
    with pytest.raises(ValueError, match="graph is needed by kind='appnp'"):
        after.encode(x)


def test_gradients_through_an_encoder() -> None:
    model = SmoothedEncoder((3, 4, 2), kind="appnp", activation="elu").double()
    weights = drawn(1, NUM, 2)
    assert torch.autograd.gradcheck(lambda x: (model(x, EDGES) * weights).sum(), drawn(0, NUM, 3).requires_grad_())


def test_operator_of_edges_and_of_an_operator() -> None:
    x = drawn(0, NUM, 2)
    adjacency = SparseMatrix.from_edge_index(EDGES, torch.ones(10), num_nodes=NUM)
    torch.testing.assert_close(gcn_operator(EDGES, x).to_dense(), dense_operator())
    as_it_is = gcn_operator(adjacency, x)
    assert as_it_is.values is not None
    assert as_it_is.values.dtype == torch.float64
    torch.testing.assert_close(normalize_symmetric(as_it_is, self_loops=1.0).to_dense(), dense_operator())


def test_dropout_only_in_training() -> None:
    x = drawn(0, 50, 4, dtype=torch.float32)
    for model in (MLP((4, 2), dropout=0.5), GraphEncoder((4, 2), dropout=0.5)):
        graph = gcn_operator(torch.zeros(2, 0, dtype=torch.int64), x)
        model.train()
        assert not bool((model(x, graph) == model(x, graph)).all())
        model.eval()
        torch.testing.assert_close(model(x, graph), model(x, graph))


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"widths must be at least two integers above 0, got \(4,\)"):
        MLP((4,))
    with pytest.raises(ValueError, match="activation must be one of relu, prelu, elu, identity, got 'tanh'"):
        MLP((4, 2), activation="tanh")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"dropout must lie in \[0, 1\), got 1"):
        GraphEncoder((4, 2), dropout=1.0)
    with pytest.raises(ValueError, match=r"conv must be 'gcn', a layer or one of .*SAGEConv.*, got 'nonsense'"):
        GraphEncoder((4, 2), conv="nonsense")
    with pytest.raises(ValueError, match="kind must be one of sgc, appnp, got 'gcn'"):
        SmoothedEncoder((4, 2), kind="gcn")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="steps must be an integer of at least 0, got -1"):
        smooth_features(torch.ones(2, 1), gcn_operator(EDGES[:, :2], torch.ones(2, 1)), -1)
    with pytest.raises(ValueError, match=r"restart must lie in \[0, 1\], got 2"):
        smooth_features(torch.ones(2, 1), gcn_operator(EDGES[:, :2], torch.ones(2, 1)), 1, restart=2)
