"""Linear, dropout, tied embedding and transformer blocks against plain torch."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graphcl.kernels import _matmul
from graphcl.nn import SequenceTransformer, TransformerLayer, linear
from graphcl.nn.dropout import add_dropout, dropout, dropout_mask
from graphcl.nn.linear import Linear
from graphcl.nn.tied_embedding import tied_embedding
from graphcl.nn.transformer import initialize_normal


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(params=[True, False], ids=["avx2", "wider"])
def processor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Either way through `Linear`, whatever this processor has."""
    for module in (linear, _matmul):
        monkeypatch.setattr(module, "widest_unit_is_avx2", lambda: request.param)


@pytest.mark.usefixtures("processor")
@pytest.mark.parametrize(("inputs", "outputs"), [(5, 3), (3, 5), (4, 4), (1, 1), (64, 192), (256, 64)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(7,), (2, 33), (1, 1), (0,)])
def test_linear_equals_torch(
    inputs: int, outputs: int, bias: bool, shape: tuple[int, ...], generator: torch.Generator
) -> None:
    layer = Linear(inputs, outputs, bias=bias)
    x = torch.randn(*shape, inputs, generator=generator, requires_grad=True)
    reference = x.detach().clone().requires_grad_()
    upstream = torch.randn(*shape, outputs, generator=generator)
    result = layer(x)
    expected = F.linear(reference, layer.weight, layer.bias)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)
    wanted = torch.autograd.grad((expected * upstream).sum(), [reference, *layer.parameters()])
    given = torch.autograd.grad((result * upstream).sum(), [x, *layer.parameters()])
    for one, other in zip(given, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("processor")
@pytest.mark.parametrize("trained", ["input", "weight", "bias"])
def test_linear_gives_the_one_gradient_that_is_wanted(trained: str, generator: torch.Generator) -> None:
    layer = Linear(3, 2)
    x = torch.randn(4, 3, generator=generator)
    tensors = {"input": x, "weight": layer.weight, "bias": layer.bias}
    for name, tensor in tensors.items():
        tensor.requires_grad_(name == trained)
    upstream = torch.randn(4, 2, generator=generator)
    (layer(x) * upstream).sum().backward()
    expected = {"input": upstream @ layer.weight, "weight": upstream.T @ x, "bias": upstream.sum(0)}
    for name, tensor in tensors.items():
        if name == trained:
            torch.testing.assert_close(tensor.grad, expected[name].detach())
        else:
            assert tensor.grad is None


@pytest.mark.usefixtures("processor")
def test_linear_takes_non_contiguous_input_and_double() -> None:
    layer = Linear(3, 2)
    x = torch.arange(12.0).view(3, 4).T
    torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))
    double = Linear(3, 2).double()
    assert torch.autograd.gradcheck(double, (torch.randn(4, 3, dtype=torch.float64, requires_grad=True),))


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.93])
def test_dropout_keeps_the_mean_and_the_rate(rate: float) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        mask = dropout_mask(torch.empty(400, 501), rate)
    kept = float((mask > 0).double().mean())
    deviation = math.sqrt(rate * (1 - rate) / mask.numel())
    assert abs(kept - (1 - rate)) < 5 * deviation
    assert mask.max() == pytest.approx(1 / (1 - rate), rel=1e-3)
    neighbours = float(((mask[:, 1:] > 0) & (mask[:, :-1] > 0)).double().mean())
    assert abs(neighbours - (1 - rate) ** 2) < 10 * deviation  # four elements share one draw; they stay independent


def test_dropout_gradient_passes_through_the_same_mask() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        x = torch.ones(50, dtype=torch.float64, requires_grad=True)
        y = dropout(x, 0.5, training=True)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(gradient, y.detach())
    with torch.random.fork_rng():
        torch.manual_seed(2)
        added = add_dropout(torch.ones(50, dtype=torch.float64), x, 0.5, training=True)
    torch.testing.assert_close(added, 1 + y)


def test_dropout_is_the_identity_when_off() -> None:
    x = torch.ones(3)
    assert dropout(x, 0.5, training=False) is x
    assert dropout(x, 0.0, training=True) is x
    assert add_dropout(x, x, 0.9, training=False).tolist() == [2.0] * 3
    with pytest.raises(ValueError, match=r"rate must be in \[0, 1\), got 1.0"):
        dropout_mask(x, 1.0)


@pytest.mark.parametrize("bounds", [(1, 5), (0, 5), (1, 4), (2, 2)])
def test_tied_embedding_equals_lookup_and_slice(bounds: tuple[int, int], generator: torch.Generator) -> None:
    first, last = bounds
    weight = torch.randn(5, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    ids = torch.tensor([[1, 0, 4], [4, 4, 2]])
    rows, block = tied_embedding(weight, ids, first, last)
    up_rows = torch.randn(rows.shape, dtype=torch.float64, generator=generator)
    up_block = torch.randn(block.shape, dtype=torch.float64, generator=generator)

    def loss(rows: Tensor, block: Tensor) -> Tensor:
        return (rows * up_rows).sum() + (block * up_block).sum()

    expected = torch.autograd.grad(loss(F.embedding(ids, weight, padding_idx=0), weight[first:last]), weight)[0]
    torch.testing.assert_close(torch.autograd.grad(loss(rows, block), weight)[0], expected)
    one_rows, _ = tied_embedding(weight, ids, first, last)
    expected = torch.autograd.grad((F.embedding(ids, weight, padding_idx=0) * up_rows).sum(), weight)[0]
    torch.testing.assert_close(torch.autograd.grad((one_rows * up_rows).sum(), weight)[0], expected)
    _, one_block = tied_embedding(weight, ids, first, last)
    expected = torch.autograd.grad((weight[first:last] * up_block).sum(), weight)[0]
    torch.testing.assert_close(torch.autograd.grad((one_block * up_block).sum(), weight)[0], expected)


def by_hand(layer: TransformerLayer, x: Tensor, visible: Tensor) -> Tensor:
    """The block of the paper, one query at a time."""
    hidden, heads = x.shape[-1], layer.heads
    size = hidden // heads
    out = torch.zeros_like(x)
    for row in range(x.shape[0]):
        together = x[row] @ layer.query_key_value.weight.T + layer.query_key_value.bias
        query, key, value = together.view(-1, 3, hidden).unbind(1)
        context = torch.zeros_like(x[row])
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            for place in range(x.shape[1]):
                keys = [other for other in range(x.shape[1]) if bool(visible[row, place, other])]
                scores = torch.stack([query[place, part] @ key[other, part] / math.sqrt(size) for other in keys])
                shares = (scores - scores.logsumexp(0)).exp()
                context[place, part] = torch.stack(
                    [share * value[other, part] for share, other in zip(shares, keys, strict=True)]
                ).sum(0)
        attended = layer.attention_norm(x[row] + context @ layer.attention_out.weight.T + layer.attention_out.bias)
        inner = attended @ layer.inner.weight.T + layer.inner.bias
        inner = 0.5 * inner * (1 + torch.erf(inner / math.sqrt(2)))
        out[row] = layer.outer_norm(attended + inner @ layer.outer.weight.T + layer.outer.bias)
    return out


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("explicit", [True, False])
def test_transformer_layer_equals_the_formula(heads: int, explicit: bool, generator: torch.Generator) -> None:
    layer = TransformerLayer(4, heads, 6).double()
    initialize_normal(layer, 0.5, generator)
    x = torch.randn(2, 5, 4, dtype=torch.float64, generator=generator)
    mask = torch.ones(2, 5, 5, dtype=torch.bool).tril()
    mask[1, :, 0] = False
    mask[1, 0, 0] = True
    given = layer(x, mask[:, None])
    torch.testing.assert_close(given, by_hand(layer, x, mask))
    if explicit:  # the path with dropout, at a rate that drops nothing of 16 bits
        layer.attention_dropout = 1e-9
        torch.testing.assert_close(layer.train()(x, mask[:, None]), given)
        causal = torch.ones(2, 5, 5, dtype=torch.bool).tril()
        torch.testing.assert_close(layer(x), by_hand(layer, x, causal))


def test_transformer_layer_gradients() -> None:
    layer = TransformerLayer(4, 2, 6).double()
    initialize_normal(layer, 0.5, torch.Generator().manual_seed(3))
    x = torch.randn(1, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))


def test_initialize_normal_is_a_function_of_the_generator() -> None:
    layers = [nn.Sequential(nn.Embedding(7, 4), nn.LayerNorm(4), nn.Linear(4, 2)) for _ in range(2)]
    for layer in layers:
        initialize_normal(layer, 0.02, torch.Generator().manual_seed(5))
    for one, other in zip(layers[0].parameters(), layers[1].parameters(), strict=True):
        assert torch.equal(one, other)
    weight = next(layers[0].parameters()).detach()
    assert float(weight.std()) == pytest.approx(0.02, rel=0.5)


def test_heads_must_divide_hidden() -> None:
    with pytest.raises(ValueError, match="hidden=5 and heads=2"):
        TransformerLayer(5, 2, 8)


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_wanted_slots_have_the_outputs_and_gradients_of_all(layers: int) -> None:
    torch.manual_seed(0)
    encoder = SequenceTransformer(hidden=8, layers=layers, heads=2, inner=12, max_length=5).double()
    rows = torch.randn(3, 5, 8, dtype=torch.float64, requires_grad=True)
    wanted = torch.tensor([4, 6, 9, 10])
    upstream = torch.randn(4, 8, dtype=torch.float64)
    leaves = [rows, *encoder.parameters()]
    some = encoder(rows, torch.arange(5), None, wanted)
    every = encoder(rows, torch.arange(5)).flatten(0, 1)[wanted]
    torch.testing.assert_close(some, every)
    found, expected = (torch.autograd.grad(out, leaves, upstream) for out in (some, every))
    torch.testing.assert_close(found, expected)
    torch.autograd.gradcheck(lambda x: encoder(x, torch.arange(5), None, wanted), rows)
