"""ConR against loops in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from graphcl.functional import conr


def problem(rows: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(rows, 3, generator=generator, dtype=torch.float64)
    # Tenths, so that differences sit on the window's edge up to rounding.
    y = torch.randint(0, 40, (rows,), generator=generator).double() / 10
    predicted = y + torch.randint(-8, 9, (rows,), generator=generator).double() / 10
    weight = torch.rand(rows, generator=generator, dtype=torch.float64) + 0.5
    return z, y, predicted, weight


def slow_conr(
    z: Tensor,
    y: Tensor,
    predicted: Tensor,
    weight: Tensor,
    *,
    window: float,
    tau: float,
    push: float,
    form: str,
    released: bool,
    keys: tuple[Tensor, Tensor, Tensor] | None = None,
    ids: tuple[list[int], list[int]] | None = None,
) -> list[float]:
    """``keys``: embeddings, targets and predictions; ``ids``: of anchors and candidates."""
    far, far_y, far_predicted = (z, y, predicted) if keys is None else keys
    logits = (torch.nn.functional.normalize(z) @ torch.nn.functional.normalize(far).T / tau).tolist()
    targets, guesses = y.tolist(), predicted.tolist()
    key_targets, key_guesses = far_y.tolist(), far_predicted.tolist()
    losses = []
    for i in range(len(targets)):
        positive, negative = [], []
        for j in range(len(key_targets)):
            if (ids[0][i] == ids[1][j]) if ids is not None else (keys is None and i == j):
                continue
            if abs(targets[i] - key_targets[j]) <= window:
                positive.append(j)
            elif abs(guesses[i] - key_guesses[j]) <= window:
                negative.append(j)
        if not positive or not negative:
            losses.append(0.0)
            continue
        total = sum(math.exp(logits[i][j]) for j in positive)
        for j in negative:
            distance = abs(targets[i] - key_targets[j])
            pushed = math.exp(push * distance) if form == "exponential" else push * distance
            total += float(weight[i]) * pushed * math.exp(logits[i][j])
        if released:
            total += len(key_targets) - len(positive)
        terms = [math.log(total) - logits[i][j] for j in positive]
        losses.append(float(weight[i]) * sum(terms) / len(terms))
    return losses


@pytest.mark.parametrize("form", ["exponential", "linear"])
@pytest.mark.parametrize("denominator", ["clean", "released"])
@settings(max_examples=15, deadline=None)
@given(rows=st.integers(2, 14), seed=st.integers(0, 1000), window=st.sampled_from([0.0, 0.2, 0.3, 1.0]))
def test_equals_loops(form: str, denominator: str, rows: int, seed: int, window: float) -> None:
    z, y, predicted, weight = problem(rows, seed)
    expected = slow_conr(
        z, y, predicted, weight, window=window, tau=0.2, push=0.3, form=form, released=denominator == "released"
    )
    got = conr(
        z,
        y,
        predicted,
        sample_weight=weight,
        window=window,
        temperature=0.2,
        push=0.3,
        push_form=form,  # type: ignore[arg-type]
        denominator=denominator,  # type: ignore[arg-type]
        reduction="none",
    )
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-12)
    mean = conr(
        z,
        y,
        predicted,
        sample_weight=weight,
        window=window,
        temperature=0.2,
        push=0.3,
        push_form=form,  # type: ignore[arg-type]
        denominator=denominator,  # type: ignore[arg-type]
    )
    assert float(mean) == pytest.approx(sum(expected) / rows, rel=1e-10, abs=1e-12)


def far_problem(rows: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    return problem(rows, seed + 5000)[:3]


def some_ids(rows: int, seed: int, high: int = 6) -> Tensor:
    return torch.randint(high, (rows,), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("form", ["exponential", "linear"])
@pytest.mark.parametrize("denominator", ["clean", "released"])
@pytest.mark.parametrize(("with_keys", "with_ids"), [(True, False), (True, True), (False, True)])
@settings(max_examples=10, deadline=None)
@given(
    rows=st.integers(0, 10),
    num_keys=st.integers(0, 14),
    seed=st.integers(0, 1000),
    window=st.sampled_from([0.0, 0.2, 0.3, 1.0]),
    memory_budget=st.sampled_from([1 << 20, 500]),
)
def test_keys_and_ids_equal_loops(
    form: str,
    denominator: str,
    with_keys: bool,
    with_ids: bool,
    rows: int,
    num_keys: int,
    seed: int,
    window: float,
    memory_budget: int,
) -> None:
    z, y, predicted, weight = problem(rows, seed)
    keys = far_problem(num_keys, seed) if with_keys else None
    ids, key_ids = some_ids(rows, seed), some_ids(num_keys, seed + 1) if with_keys else None
    given_ids = (ids.tolist(), ids.tolist() if key_ids is None else key_ids.tolist()) if with_ids else None
    expected = slow_conr(
        z,
        y,
        predicted,
        weight,
        window=window,
        tau=0.2,
        push=0.3,
        form=form,
        released=denominator == "released",
        keys=keys,
        ids=given_ids,
    )
    far, far_y, far_predicted = (None, None, None) if keys is None else keys
    got = conr(
        z,
        y,
        predicted,
        keys=far,
        key_targets=far_y,
        key_predictions=far_predicted,
        ids=ids if with_ids else None,
        key_ids=key_ids if with_ids else None,
        sample_weight=weight,
        window=window,
        temperature=0.2,
        push=0.3,
        push_form=form,  # type: ignore[arg-type]
        denominator=denominator,  # type: ignore[arg-type]
        reduction="none",
        memory_budget=memory_budget,
    )
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("denominator", ["clean", "released"])
def test_keys_that_are_the_anchors_change_nothing(denominator: str) -> None:
    z, y, predicted, weight = problem(12, 4)
    z.requires_grad_()
    own = torch.randperm(12, generator=torch.Generator().manual_seed(2))

    def loss(**options: Any) -> Tensor:
        return conr(z, y, predicted, sample_weight=weight, denominator=denominator, **options)  # type: ignore[arg-type]

    plain = loss()
    named = loss(ids=own)
    shuffled = torch.randperm(12, generator=torch.Generator().manual_seed(3))
    keyed = loss(
        keys=z[shuffled],
        key_targets=y[shuffled],
        key_predictions=predicted[shuffled],
        ids=own,
        key_ids=own[shuffled],
    )
    (expected,) = torch.autograd.grad(plain, [z])
    assert float(expected.abs().max()) > 0
    for value in (named, keyed):
        torch.testing.assert_close(value, plain, rtol=1e-12, atol=0)
        torch.testing.assert_close(torch.autograd.grad(value, [z])[0], expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("own_target", [True, False])
def test_a_copy_of_the_anchor_is_neither_positive_nor_negative(own_target: bool) -> None:
    z, y, predicted, _ = problem(9, 6)
    far, far_y, far_predicted = far_problem(11, 6)
    ids, key_ids = torch.arange(9), torch.arange(100, 111)

    def loss(copies: Tensor, named: Tensor) -> Tensor:
        return conr(
            z,
            y,
            predicted,
            keys=torch.cat([far, z[copies]]),
            # A copy that carries another target would be a negative of the anchor.
            key_targets=torch.cat([far_y, y[copies] if own_target else y[copies] + 1.5]),
            key_predictions=torch.cat([far_predicted, predicted[copies]]),
            ids=ids,
            key_ids=torch.cat([key_ids, named]),
            reduction="none",
        )

    without = loss(torch.tensor([], dtype=torch.int64), torch.tensor([], dtype=torch.int64))
    one = without.argmax()[None]
    assert float(without[one]) > 0
    with_copy, unnamed = loss(one, ids[one]), loss(one, torch.tensor([999]))
    torch.testing.assert_close(with_copy[one], without[one], rtol=1e-12, atol=1e-12)
    assert float((unnamed[one] - without[one]).abs()) > 1e-3
    assert float((with_copy - without).abs().max()) > 1e-3  # to the other anchors it is a key like any other


@pytest.mark.parametrize("denominator", ["clean", "released"])
@pytest.mark.parametrize("with_ids", [False, True])
def test_gradients_with_keys(denominator: str, with_ids: bool) -> None:
    z, y, predicted, weight = problem(5, 3)
    far, far_y, far_predicted = far_problem(7, 3)
    upstream = torch.randn(5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    tau = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    named: dict[str, Any] = {"ids": some_ids(5, 0), "key_ids": some_ids(7, 1)} if with_ids else {}

    def weighted(rows: Tensor, keys: Tensor, temperature: Tensor) -> Tensor:
        loss = conr(
            rows,
            y,
            predicted,
            keys=keys,
            key_targets=far_y,
            key_predictions=far_predicted,
            sample_weight=weight,
            window=0.7,
            temperature=temperature,
            denominator=denominator,  # type: ignore[arg-type]
            reduction="none",
            **named,
        )
        return (loss * upstream).sum()

    inputs = (z.requires_grad_(), far.requires_grad_(), tau)
    assert all(float(grad.abs().max()) > 0 for grad in torch.autograd.grad(weighted(*inputs), inputs))
    assert torch.autograd.gradcheck(weighted, inputs)


def test_gradients_with_repeated_ids() -> None:
    z, y, predicted, _ = problem(8, 5)
    upstream = torch.randn(8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ids = some_ids(8, 2, high=5)
    assert torch.autograd.gradcheck(
        lambda rows: (
            conr(rows, y, predicted, ids=ids, window=0.7, temperature=0.5, reduction="none") * upstream
        ).sum(),
        (z.requires_grad_(),),
    )


@pytest.mark.parametrize("denominator", ["clean", "released"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_gradients(denominator: str, reduction: str) -> None:
    z, y, predicted, weight = problem(6, 3)
    upstream = torch.randn(6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    tau = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)

    def weighted(rows: Tensor, temperature: Tensor) -> Tensor:
        loss = conr(
            rows,
            y,
            predicted,
            sample_weight=weight,
            temperature=temperature,
            denominator=denominator,  # type: ignore[arg-type]
            reduction=reduction,  # type: ignore[arg-type]
        )
        return (loss * upstream).sum()

    assert torch.autograd.gradcheck(weighted, (z.requires_grad_(), tau))


def test_predictions_and_targets_carry_no_gradient() -> None:
    z, y, predicted, _ = problem(8, 1)
    predicted.requires_grad_()
    z.requires_grad_()
    (found,) = torch.autograd.grad(conr(z, y, predicted), [predicted], allow_unused=True)
    assert found is None


def test_anchors_without_partners_are_left_out() -> None:
    z = torch.eye(3, requires_grad=True)
    apart = conr(z, torch.tensor([0.0, 10.0, 20.0]), torch.zeros(3))
    together = conr(z, torch.zeros(3), torch.zeros(3))
    (grad,) = torch.autograd.grad(apart + together, [z])
    assert (apart.item(), together.item(), float(grad.abs().max())) == (0.0, 0.0, 0.0)
    for rows in (0, 1):
        assert float(conr(torch.ones(rows, 2), torch.zeros(rows), torch.zeros(rows))) == 0.0


def test_permutation_scale_blocks_and_types() -> None:
    z, y, predicted, weight = problem(30, 2)
    value = conr(z, y, predicted, sample_weight=weight)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    permuted = conr(3 * z[order], y[order], predicted[order], sample_weight=weight[order])
    torch.testing.assert_close(permuted, value)
    torch.testing.assert_close(
        conr(z, y, predicted, sample_weight=weight, memory_budget=512), value, rtol=1e-12, atol=0
    )
    single = conr(z.float(), y, predicted, sample_weight=weight)
    torch.testing.assert_close(single.double(), value, rtol=2e-5, atol=1e-5)
    assert torch.isfinite(conr(z.bfloat16(), y, predicted, temperature=1e-3))
    zero = torch.zeros(30, 3, requires_grad=True)
    (grad,) = torch.autograd.grad(conr(zero, y, predicted), [zero])
    assert float(grad.abs().max()) == 0.0


def test_arguments_are_named() -> None:
    z, y, predicted, _ = problem(4)
    with pytest.raises(ValueError, match=r"targets must have shape \(4,\)"):
        conr(z, y[:2], predicted)
    with pytest.raises(ValueError, match="push_form must be"):
        conr(z, y, predicted, push_form="x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="denominator must be"):
        conr(z, y, predicted, denominator="x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="reduction must be"):
        conr(z, y, predicted, reduction="x")  # type: ignore[arg-type]
    keyed: dict[str, Any] = {"keys": z, "key_targets": y, "key_predictions": predicted}
    for missing in ("key_targets", "key_predictions"):
        with pytest.raises(ValueError, match=f"keys need {missing}, got None"):
            conr(z, y, predicted, **{name: value for name, value in keyed.items() if name != missing})
        with pytest.raises(ValueError, match=f"{missing} belong to keys, got {missing} without keys"):
            conr(z, y, predicted, **{missing: y})  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=rf"{missing} must have shape \(4,\), got shape \(3,\)"):
            conr(z, y, predicted, **{**keyed, missing: y[:3]})
    with pytest.raises(ValueError, match="embeddings and keys must have the same number of features, got 3 and 2"):
        conr(z, y, predicted, **{**keyed, "keys": z[:, :2]})
    with pytest.raises(TypeError, match="embeddings and keys must share one dtype"):
        conr(z, y, predicted, **{**keyed, "keys": z.float()})
    ids = torch.arange(4)
    with pytest.raises(ValueError, match="key_ids belong to keys"):
        conr(z, y, predicted, key_ids=ids)
    with pytest.raises(ValueError, match="ids and key_ids are compared with each other, got only ids"):
        conr(z, y, predicted, ids=ids, **keyed)
    with pytest.raises(ValueError, match=r"^ids must have shape \(4,\), got shape \(3,\)"):
        conr(z, y, predicted, ids=ids[:3])
    with pytest.raises(TypeError, match="key_ids must be an integer tensor"):
        conr(z, y, predicted, ids=ids, key_ids=y, **keyed)
