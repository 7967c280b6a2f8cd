"""Layers of heterogeneous graphs against their formulas in loops, and their gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from graphcl.kernels import SparseMatrix
from graphcl.nn import (
    ContextAggregation,
    NodeAttention,
    SchemaEncoder,
    SemanticAttention,
    SharedEncoder,
    TypeFeatures,
    TypeTransform,
)


def double(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()


def random_operator(rows: int, columns: int, seed: int = 0) -> SparseMatrix:
    generator = torch.Generator().manual_seed(seed)
    dense = torch.rand(rows, columns, generator=generator, dtype=torch.float64)
    dense[dense < 0.5] = 0
    return SparseMatrix.from_torch(dense.to_sparse())


def test_node_attention_is_a_softmax_over_the_listed_neighbours() -> None:
    attention = NodeAttention(3).double()
    h, others = double(4, 3), double(5, 3)
    neighbours = torch.tensor([[0, 1, 1], [4, -1, 2], [-1, -1, -1], [3, 3, 3]])
    found = attention(h, others, neighbours)
    for i, listed in enumerate(neighbours.tolist()):
        there = [j for j in listed if j >= 0]
        expected = torch.zeros(3, dtype=torch.float64)
        if there:
            logits = torch.stack([(attention.att[0] * torch.cat([h[i], others[j]])).sum() for j in there])
            weights = torch.where(logits > 0, logits, 0.01 * logits).softmax(0)
            expected = sum((w * others[j] for w, j in zip(weights, there, strict=True)), expected)
        torch.testing.assert_close(found[i], expected)
    weights = double(4, 3, seed=9).detach()
    assert torch.autograd.gradcheck(lambda a, b: (attention(a, b, neighbours) * weights).sum(), (h, others))


def test_semantic_attention_mixes_by_mean_scores() -> None:
    attention = SemanticAttention(3).double()
    views = [double(5, 3, seed=s) for s in range(3)]
    mixed, beta = attention(views)
    scores = torch.stack(
        [
            (attention.att[0] * torch.tanh(view @ attention.fc.weight.T + attention.fc.bias).mean(0)).sum()
            for view in views
        ]
    )
    torch.testing.assert_close(beta, scores.softmax(0))
    torch.testing.assert_close(mixed, sum(b * v for b, v in zip(beta, views, strict=True)))
    weights = double(5, 3, seed=9).detach()
    assert torch.autograd.gradcheck(lambda *given: (attention(given)[0] * weights).sum(), views)


def test_contexts_add_their_means_through_their_own_matrices() -> None:
    aggregation = ContextAggregation(3, 2).double()
    means, rows = [random_operator(4, 5), random_operator(4, 2, seed=1)], [double(5, 3), double(2, 3)]
    h = double(4, 3, seed=3)
    total = h.clone()
    for mean, x, linear in zip(means, rows, aggregation.contexts, strict=True):
        total = total + (mean.to_dense() @ x) @ linear.weight.T  # type: ignore[operator]
    torch.testing.assert_close(aggregation(h, means, rows), torch.nn.functional.elu(total))
    weights = double(4, 3, seed=9).detach()
    assert torch.autograd.gradcheck(lambda a, b, c: (aggregation(a, means, [b, c]) * weights).sum(), (h, *rows))


@pytest.mark.parametrize("norm", ["graph", "row"])
def test_shared_encoder_is_two_convolutions_and_a_layer_norm(norm: str) -> None:
    encoder = SharedEncoder(3, 4, norm=norm).double()  # type: ignore[arg-type]
    h, first, second = double(6, 3), random_operator(5, 6), random_operator(2, 5, seed=1)
    hidden = first.to_dense() @ (h @ encoder.first)
    hidden = torch.where(hidden > 0, hidden, 0.25 * hidden)
    out = second.to_dense() @ (hidden @ encoder.second)
    dim = None if norm == "graph" else 1
    mean, variance = out.mean(dim, keepdim=True), out.var(dim, keepdim=True, unbiased=False)
    torch.testing.assert_close(encoder(h, first, second), (out - mean) / (variance + 1e-5).sqrt())
    weights = double(2, 4, seed=9).detach()
    assert torch.autograd.gradcheck(lambda x: (encoder(x, first, second) * weights).sum(), (h,))
    with pytest.raises(ValueError, match="norm must be 'graph' or 'row', got 'batch'"):
        SharedEncoder(3, 4, norm="batch")  # type: ignore[arg-type]


def test_rows_do_not_depend_on_others_under_the_row_norm() -> None:
    encoder = SharedEncoder(3, 4, norm="row").eval()
    operator = random_operator(6, 6).to(torch.float32)
    h = torch.randn(6, 3)
    hidden = encoder(h, operator)
    fewer = SparseMatrix.from_torch(operator.to_dense()[:2].to_sparse())
    torch.testing.assert_close(encoder(h, operator, fewer), hidden[:2])


def test_transform_takes_sparse_dense_and_no_features() -> None:
    transform = TypeTransform(5, 3, dropout=0.5).double()
    sparse = random_operator(4, 5)
    expected = torch.nn.functional.elu(sparse.to_dense() @ transform.weight + transform.bias)
    transform.eval()
    torch.testing.assert_close(transform(TypeFeatures(sparse)), expected)
    torch.testing.assert_close(transform(TypeFeatures(sparse.to_dense())), expected)
    eye = torch.eye(5, dtype=torch.float64)
    torch.testing.assert_close(transform(TypeFeatures()), transform(TypeFeatures(eye)))
    some = torch.tensor([3, 1])
    keep = torch.tensor([0.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(
        transform(TypeFeatures(None, some, keep)), transform(TypeFeatures(eye[some] * keep[:, None]))
    )
    transform.train()
    torch.testing.assert_close(transform(TypeFeatures(sparse), drop=False), expected)
    dropped = transform(TypeFeatures(torch.ones(200, 5, dtype=torch.float64)))
    assert float((dropped == 0).double().mean()) == pytest.approx(0.5, abs=0.1)
    weights = double(4, 3, seed=9).detach()
    transform.eval()
    assert torch.autograd.gradcheck(
        lambda w: (torch.func.functional_call(transform, {"weight": w}, (TypeFeatures(sparse),)) * weights).sum(),
        (transform.weight.detach().requires_grad_(),),
    )


def test_schema_encoder_attends_to_nodes_and_then_types() -> None:
    encoder = SchemaEncoder(3, 2).double()
    h, types_h = double(4, 3), [double(2, 3), double(5, 3, seed=2)]
    neighbours = [torch.tensor([[0], [1], [0], [-1]]), torch.tensor([[0, 4], [1, 1], [2, 3], [4, 4]])]
    views = [
        torch.nn.functional.elu(attention(h, other, drawn))
        for attention, other, drawn in zip(encoder.node_attention, types_h, neighbours, strict=True)
    ]
    torch.testing.assert_close(encoder(h, types_h, neighbours), encoder.type_attention(views)[0])


def test_initial_weights_follow_the_generator() -> None:
    for layer in (TypeTransform(3, 4), SemanticAttention(4), NodeAttention(4), SharedEncoder(3, 4)):
        states = []
        for _ in range(2):
            layer.reset_parameters(torch.Generator().manual_seed(5))
            states.append([value.clone() for value in layer.parameters()])
        assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))
    bound = 1 / math.sqrt(8)
    encoder = SharedEncoder(100, 8)
    assert float(encoder.first.detach().abs().max()) <= bound
    assert float(encoder.first.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.1)
