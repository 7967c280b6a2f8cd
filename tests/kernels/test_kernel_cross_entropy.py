"""linear_cross_entropy against torch's cross_entropy on the dense logits."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from graphcl.kernels import Backend, linear_cross_entropy

Reduction = Literal["none", "sum", "mean"]
REDUCTIONS: tuple[Reduction, ...] = ("none", "sum", "mean")
BACKENDS: tuple[Backend, ...] = ("reference", "torch")
TARGET = torch.tensor([3, -100, 0, 6, 3])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("block_size", [None, 1, (2, 3)])
def test_equals_torch(
    backend: Backend, reduction: Reduction, with_bias: bool, block_size: int | tuple[int, int] | None
) -> None:
    hidden, items = normal(5, 3).requires_grad_(), normal(7, 3, seed=1).requires_grad_()
    bias = normal(7, seed=2).requires_grad_() if with_bias else None
    leaves = [hidden, items] if bias is None else [hidden, items, bias]
    upstream = normal(5, seed=3) if reduction == "none" else torch.tensor(1.7, dtype=torch.float64)
    logits = hidden @ items.T + (0.0 if bias is None else bias)
    expected = functional.cross_entropy(logits, TARGET, reduction=reduction)
    got = linear_cross_entropy(
        hidden, items, TARGET, bias=bias, reduction=reduction, block_size=block_size, backend=backend
    )
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    wanted = torch.autograd.grad((expected * upstream).sum(), leaves)
    actual = torch.autograd.grad((got * upstream).sum(), leaves)
    for a, w in zip(actual, wanted, strict=True):
        torch.testing.assert_close(a, w, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("alone", range(3))
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("memory_budget", [2**20, 64])
def test_gradcheck_of_each_input_alone(alone: int, reduction: Reduction, memory_budget: int) -> None:
    inputs = [normal(5, 3), normal(7, 3, seed=1), normal(7, seed=2)]
    inputs[alone].requires_grad_()
    weight = torch.rand(5, generator=torch.Generator().manual_seed(3)).double()

    def loss(hidden: Tensor, items: Tensor, bias: Tensor) -> Tensor:
        return linear_cross_entropy(
            hidden,
            items,
            TARGET,
            bias=bias,
            token_weight=weight,
            reduction=reduction,
            memory_budget=memory_budget,
            backend="torch",
        )

    upstream = normal(5, seed=4)
    assert torch.autograd.gradcheck(lambda *v: (loss(*v) * (upstream if reduction == "none" else 1.3)).sum(), inputs)


@pytest.mark.parametrize("backend", BACKENDS)
def test_token_weights(backend: Backend) -> None:
    hidden, items, weight = normal(5, 3), normal(7, 3, seed=1), torch.tensor([1.0, 9.0, 0.0, 2.0, 0.5]).double()
    each = functional.cross_entropy(hidden @ items.T, TARGET, reduction="none") * weight
    none = linear_cross_entropy(hidden, items, TARGET, token_weight=weight, reduction="none", backend=backend)
    torch.testing.assert_close(none, each)
    total = linear_cross_entropy(hidden, items, TARGET, token_weight=weight, reduction="sum", backend=backend)
    torch.testing.assert_close(total, each.sum())
    mean = linear_cross_entropy(hidden, items, TARGET, token_weight=weight, backend=backend)
    torch.testing.assert_close(mean, each.sum() / 3.5)  # the weight of the ignored token does not count


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("tokens", [0, 3])
def test_everything_ignored(backend: Backend, reduction: Reduction, tokens: int) -> None:
    hidden, items = normal(tokens, 3).requires_grad_(), normal(7, 3, seed=1).requires_grad_()
    target = torch.full((tokens,), -100)
    loss = linear_cross_entropy(hidden, items, target, reduction=reduction, backend=backend)
    assert loss.shape == ((tokens,) if reduction == "none" else ())
    assert float(loss.detach().sum()) == 0.0
    loss.sum().backward()  # type: ignore[no-untyped-call]
    for grad in (hidden.grad, items.grad):
        assert grad is not None
        assert float(grad.abs().sum()) == 0.0


def test_all_weights_zero_gives_zero() -> None:
    hidden = normal(2, 3).requires_grad_()
    loss = linear_cross_entropy(hidden, normal(4, 3), torch.tensor([0, 1]), token_weight=torch.zeros(2).double())
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 0.0
    assert hidden.grad is not None
    assert float(hidden.grad.abs().sum()) == 0.0


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_candidates_equal_loops(backend: Backend, reduction: Reduction) -> None:
    """The target once, accidental hits out, other duplicates as often as they are listed, log q off every logit."""
    hidden, items, bias = normal(5, 3), normal(7, 3, seed=1), normal(7, seed=2)
    log_q = torch.log_softmax(normal(7, seed=3), 0)
    pool = [3, 1, 1, 5]
    logits = (hidden @ items.T + bias - log_q).tolist()
    losses = []
    for row, label in zip(logits, TARGET.tolist(), strict=True):
        if label == -100:
            losses.append(0.0)
            continue
        members = [label] + [v for v in pool if v != label]
        losses.append(math.log(sum(math.exp(row[v]) for v in members)) - row[label])
    expected = {"none": losses, "sum": sum(losses), "mean": sum(losses) / 4}[reduction]
    got = linear_cross_entropy(
        hidden,
        items,
        TARGET,
        bias=bias,
        candidates=torch.tensor(pool),
        log_q=log_q,
        reduction=reduction,
        backend=backend,
    )
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


def test_all_classes_as_candidates_equal_the_whole_catalogue() -> None:
    hidden, items = normal(5, 3), normal(7, 3, seed=1)
    whole = linear_cross_entropy(hidden, items, TARGET)
    torch.testing.assert_close(linear_cross_entropy(hidden, items, TARGET, candidates=torch.arange(7)), whole)


@pytest.mark.parametrize("pool", [[], [3], [2, 2, 5, 3]])
def test_candidates_gradcheck(pool: list[int]) -> None:
    inputs = (normal(5, 3).requires_grad_(), normal(7, 3, seed=1).requires_grad_(), normal(7, seed=2).requires_grad_())
    upstream = normal(5, seed=3)
    chosen = torch.tensor(pool, dtype=torch.int64)

    def loss(hidden: Tensor, items: Tensor, bias: Tensor) -> Tensor:
        each = linear_cross_entropy(hidden, items, TARGET, bias=bias, candidates=chosen, reduction="none")
        return (each * upstream).sum()

    assert torch.autograd.gradcheck(loss, inputs)


def test_log_q_over_the_whole_catalogue_adjusts_logits() -> None:
    hidden, items, log_q = normal(5, 3), normal(7, 3, seed=1), normal(7, seed=2)
    expected = functional.cross_entropy(hidden @ items.T - log_q, TARGET)
    torch.testing.assert_close(linear_cross_entropy(hidden, items, TARGET, log_q=log_q), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_error_rule(dtype: torch.dtype, reduction: Reduction) -> None:
    """Not further from the float64 truth than torch on the same numbers in float32."""
    hidden, items = normal(200, 16).to(dtype), (normal(900, 16, seed=1) * 0.5).to(dtype)
    target = torch.arange(200) * 4
    upstream = normal(200, seed=2) if reduction == "none" else torch.tensor(1.0)

    def dense(wide: torch.dtype) -> tuple[Tensor, ...]:
        a, b = hidden.to(wide).requires_grad_(), items.to(wide).requires_grad_()
        loss = functional.cross_entropy(a @ b.T, target, reduction=reduction)
        return loss.detach(), *torch.autograd.grad((loss * upstream).sum(), (a, b))

    a, b = hidden.clone().requires_grad_(), items.clone().requires_grad_()
    loss = linear_cross_entropy(a, b, target, reduction=reduction, block_size=(64, 256))
    assert loss.dtype == torch.float32
    got = loss.detach(), *torch.autograd.grad((loss * upstream).sum(), (a, b))
    rounding = 0.0 if dtype == torch.float32 else float(torch.finfo(dtype).eps)
    for t, r, f in zip(dense(torch.float64), dense(torch.float32), got, strict=True):
        allowed = 1.5 * float((r.double() - t).abs().max()) + (2e-6 + rounding) * float(t.abs().max())
        assert float((f.double() - t).abs().max()) <= allowed


def test_results_do_not_depend_on_the_block_size() -> None:
    hidden, items = normal(33, 5) * 30, normal(71, 5, seed=1)
    target = torch.arange(33)
    whole = linear_cross_entropy(hidden, items, target)
    for block_size in (1, 7, (5, 71), (33, 2)):
        part = linear_cross_entropy(hidden, items, target, block_size=block_size)
        torch.testing.assert_close(part, whole, rtol=1e-12, atol=0)


def test_other_ignore_index_and_non_contiguous_inputs() -> None:
    hidden, items = normal(6, 10)[::2, ::2], normal(5, 7, seed=1).T
    target = torch.tensor([0, 6, 2], dtype=torch.int32)
    expected = functional.cross_entropy(hidden @ items.T, target.long(), ignore_index=0)
    torch.testing.assert_close(linear_cross_entropy(hidden, items, target, ignore_index=0), expected)


def test_single_class() -> None:
    loss = linear_cross_entropy(normal(3, 2), normal(1, 2), torch.zeros(3, dtype=torch.int64))
    assert float(loss) == pytest.approx(0.0, abs=1e-15)


def test_messages() -> None:
    hidden, items = normal(2, 3), normal(4, 3)
    good = torch.tensor([0, 1])
    with pytest.raises(IndexError, match=r"target holds 4, outside 0 .. 3"):
        linear_cross_entropy(hidden, items, torch.tensor([0, 4]))
    with pytest.raises(IndexError, match=r"target holds -1, outside 0 .. 3"):
        linear_cross_entropy(hidden, items, torch.tensor([0, -1]))
    with pytest.raises(TypeError, match=r"target must be an integer tensor, got dtype torch.float64"):
        linear_cross_entropy(hidden, items, good.double())
    with pytest.raises(ValueError, match=r"target must have shape \(2,\), got shape \(1,\)"):
        linear_cross_entropy(hidden, items, good[:1])
    with pytest.raises(ValueError, match=r"reduction must be one of none, sum, mean, got 'max'"):
        linear_cross_entropy(hidden, items, good, reduction="max")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"token_weight must have shape \(2,\), got shape \(4,\)"):
        linear_cross_entropy(hidden, items, good, token_weight=torch.ones(4))
    with pytest.raises(IndexError, match=r"candidates holds 9, outside 0 .. 3"):
        linear_cross_entropy(hidden, items, good, candidates=torch.tensor([9]))
    with pytest.raises(ValueError, match=r"log_q must have shape \(4,\), got shape \(2,\)"):
        linear_cross_entropy(hidden, items, good, log_q=torch.zeros(2))
    with pytest.raises(ValueError, match=r"hidden and weight must have the same number of features, got 3 and 2"):
        linear_cross_entropy(hidden, items[:, :2], good)
    with pytest.raises(ValueError, match=r"bias holds NaN"):
        linear_cross_entropy(hidden, items, good, bias=torch.full((4,), math.nan))
    with pytest.raises(ValueError, match=r"token_weight must not be negative, got -1"):
        linear_cross_entropy(hidden, items, good, token_weight=-torch.ones(good.shape[0]).double())
