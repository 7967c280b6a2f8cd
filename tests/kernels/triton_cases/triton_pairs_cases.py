"""Cases of the Triton pair and cross-entropy kernels, run through Triton's interpreter on CPU tensors.

`tests/kernels/test_kernel_triton.py` runs this file in a process of its own, where TRITON_INTERPRET=1 is set before
anything imports triton. By hand, from this folder: ``TRITON_INTERPRET=1 python -m pytest triton_pairs_cases.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from graphcl.kernels import (
    AllOf,
    AnyOf,
    CandidateRule,
    EqualIds,
    ExcludePairs,
    ExcludeSameIndex,
    KeepPairs,
    LabelDistanceWeight,
    LevelTable,
    PairTile,
    ScoreThreshold,
    linear_cross_entropy,
    pair_logsumexp,
    pair_logsumexp_both,
)
from graphcl.kernels import _triton_launch as launch
from graphcl.kernels._product import ScaledProduct
from graphcl.kernels.triton_pairs import supports

A, C = 17, 37
Sparse = tuple[Tensor, Tensor]
Moments = Literal[0, 1, 2]


@pytest.fixture(autouse=True)
def _many_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few blocks on many processors: ranges of candidates are swept apart and merged."""
    monkeypatch.setattr(launch, "multiprocessors", lambda device: 4)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ids(count: int, bound: int, seed: int = 0) -> Tensor:
    return torch.randint(bound, (count,), generator=generator(seed))


def sparse(seed: int, density: float, rows: int = A, columns: int = C) -> Sparse:
    """Sorted lists with an empty row, a full row and one entry twice."""
    hit = torch.rand(rows, columns, generator=generator(seed)) < density
    hit[0], hit[1] = False, True
    lists = [torch.nonzero(row)[:, 0] for row in hit]
    lists[2] = torch.sort(torch.cat([lists[2], lists[2][:1]])).values
    offsets = torch.tensor([0, *(len(item) for item in lists)]).cumsum(0)
    return offsets, torch.cat(lists)


def inputs(dtype: torch.dtype, rows: int = A, columns: int = C, dim: int = 5, seed: int = 1) -> dict[str, Tensor]:
    """All six differentiable arguments."""
    g = generator(seed)
    wide = torch.float64 if dtype == torch.float64 else torch.float32

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    values = {
        "anchors": (normal(rows, dim) / max(dim, 1) ** 0.5).to(dtype),
        "candidates": normal(columns, dim).to(dtype),
        "temperature": (normal(rows).abs() + 0.5).to(wide),
        "candidate_temperature": (normal(columns).abs() + 0.5).to(wide),
        "anchor_bias": normal(rows).to(wide),
        "candidate_bias": normal(columns).to(wide),
    }
    return {name: value.requires_grad_() for name, value in values.items()}


def evaluated(
    values: dict[str, Any], wanted: Sequence[str], **arguments: Any
) -> tuple[list[Tensor], tuple[Tensor, ...]]:
    """Outputs, and gradients of ``wanted`` under a fixed random upstream on every output; -inf rows carry none."""
    found = pair_logsumexp(**values, **arguments)
    outputs = [value for value in found if value is not None]
    g = generator(2)
    total = torch.zeros((), dtype=torch.float64)
    for value in outputs:
        upstream = torch.randn(value.shape, generator=g, dtype=torch.float64)
        total = total + (value.masked_fill(value == -torch.inf, 0.0) * upstream).sum()
    return outputs, torch.autograd.grad(total, [values[name] for name in wanted])


def assert_same(got: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float) -> None:
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * max(1.0, _largest(b)))


def _largest(value: Tensor) -> float:
    finite = value.detach()[torch.isfinite(value)]
    return float(finite.abs().max()) if finite.numel() > 0 else 0.0


def assert_as_exact_as_reference(
    got: Sequence[Tensor], reference: Sequence[Tensor], truth: Sequence[Tensor], epsilons: float
) -> None:
    """Error rule: at most twice the error of the reference against float64, plus rounding of the largest entry."""
    for a, b, t in zip(got, reference, truth, strict=True):
        rounding = epsilons * torch.finfo(a.dtype).eps * _largest(t)
        assert float((a.double() - t).abs().max()) <= 2 * float((b.double() - t).abs().max()) + rounding


def table(rows: int, columns: int, seed: int) -> Tensor:
    values = torch.randn(rows, columns, generator=generator(seed), dtype=torch.float64)
    values[0, 0] = -torch.inf
    return values


def threshold(shift: float, seed: int) -> Tensor:
    return torch.randn(A, generator=generator(seed), dtype=torch.float64) + shift


RULES: dict[str, Sequence[CandidateRule]] = {
    "none": (),
    "same_index": (ExcludeSameIndex(),),
    "same_index_given": (ExcludeSameIndex(ids(A, 9), ids(C, 9, 1).int()), ExcludeSameIndex(ids(A, 40))),
    "equal_ids": (
        EqualIds(ids(A, 2), ids(C, 2, 1)),
        EqualIds(ids(A, 3, 2), ids(C, 3, 3), keep=False),
        EqualIds(ids(A, 4, 4), ids(C, 4, 5), keep=False),
    ),
    "equal_ids_narrow": (EqualIds(ids(A, 2).int(), ids(C, 2, 1).to(torch.uint8)),),
    "equal_ids_wide": (EqualIds(ids(A, 2) << 40, ids(C, 2, 1) << 40),),
    "exclude": (ExcludePairs(*sparse(0, 0.3)),),
    "exclude_several": (ExcludePairs(*sparse(0, 0.2)), ExcludePairs(*sparse(1, 0.2))),
    "keep": (KeepPairs(*sparse(0, 0.3)),),
    "keep_and_exclude": (KeepPairs(*sparse(0, 0.5)), ExcludePairs(*sparse(1, 0.2))),
    "levels": (
        LevelTable(ids(A, 2), ids(C, 3, 1), table(2, 3, 0)),
        LevelTable(ids(A, 4, 2), ids(C, 2), table(4, 2, 1)),
    ),
    "above": (ScoreThreshold(threshold(0.0, 0)), ScoreThreshold(threshold(-1.0, 1))),
    "between": (ScoreThreshold(threshold(-1.0, 0)), ScoreThreshold(threshold(1.5, 1), keep_above=False)),
    "all_of": (AllOf([ExcludeSameIndex(), AllOf([EqualIds(ids(A, 2), ids(C, 2, 1)), ExcludePairs(*sparse(0, 0.3))])]),),
}


@pytest.mark.parametrize("name", RULES)
def test_rules_equal_the_reference(name: str) -> None:
    values = inputs(torch.float64, dim=3)
    got = evaluated(values, list(values), rules=RULES[name], moments=2, block_size=16, backend="triton")
    expected = evaluated(values, list(values), rules=RULES[name], moments=2, backend="reference")
    assert_same(got[0], expected[0], 1e-12)
    assert_same(got[1], expected[1], 1e-11)


@pytest.mark.parametrize("moments", [0, 1, 2])
@pytest.mark.parametrize(("dtype", "epsilons"), [(torch.float32, 64.0), (torch.bfloat16, 4.0), (torch.float16, 4.0)])
def test_types_follow_the_error_rule(dtype: torch.dtype, epsilons: float, moments: Moments) -> None:
    values = inputs(dtype, dim=19)
    exact = {name: value.detach().double().requires_grad_() for name, value in values.items()}
    arguments: dict[str, Any] = {"rules": ExcludeSameIndex(), "moments": moments}
    got = evaluated(values, list(values), backend="triton", block_size=16, **arguments)
    reference = evaluated(values, list(values), backend="reference", **arguments)
    truth = evaluated(exact, list(values), backend="reference", **arguments)
    assert_as_exact_as_reference(got[0], reference[0], truth[0], 64.0)
    assert_as_exact_as_reference(
        got[1], reference[1], truth[1], epsilons if dtype == torch.float32 else 16.0 * epsilons
    )
    assert all(value.dtype == values[name].dtype for name, value in zip(values, got[1], strict=True))
    for name, gradient, t in zip(values, got[1], truth[1], strict=True):
        if name in ("anchors", "candidates"):
            assert float((gradient.double() - t).abs().max()) <= epsilons * torch.finfo(dtype).eps * _largest(t)


@pytest.mark.parametrize(
    ("rows", "columns", "dim", "dtype"),
    [
        (1, 1, 1, torch.float64),
        (5, 7, 3, torch.float64),
        (16, 16, 16, torch.float64),
        (3, 50, 17, torch.float64),  # two feature pieces
        (18, 3, 35, torch.float64),  # three feature pieces
        (17, 33, 70, torch.float32),  # two pieces of 64
        (9, 5, 130, torch.float16),  # two pieces of 128
        (4, 6, 0, torch.float64),
    ],
)
def test_shapes_equal_the_reference(rows: int, columns: int, dim: int, dtype: torch.dtype) -> None:
    values = inputs(dtype, rows, columns, dim)
    got = evaluated(values, list(values), moments=1, backend="triton")
    expected = evaluated(values, list(values), moments=1, backend="reference")
    tolerance = {torch.float64: 1e-11, torch.float32: 1e-4, torch.float16: 5e-3}[dtype]
    assert_same(got[0], expected[0], tolerance)
    assert_same(got[1], expected[1], tolerance)


def test_wide_rows_in_small_chunks() -> None:
    """Lists shrink the float32 chunk below the gradient slice: 40 features are two chunks of one slice."""
    values = inputs(torch.float32, dim=40)
    rules = ExcludePairs(*sparse(0, 0.2))
    got = evaluated(values, list(values), rules=rules, backend="triton")
    expected = evaluated(values, list(values), rules=rules, backend="reference")
    assert_same(got[0], expected[0], 1e-5)
    assert_same(got[1], expected[1], 1e-4)


@pytest.mark.parametrize("wanted", list(inputs(torch.float64)))
def test_each_gradient_alone(wanted: str) -> None:
    values = {name: value.detach() for name, value in inputs(torch.float64, 6, 18, 3).items()}
    values[wanted].requires_grad_()
    got = evaluated(values, [wanted], moments=2, backend="triton")
    expected = evaluated(values, [wanted], moments=2, backend="reference")
    assert_same(got[1], expected[1], 1e-11)


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_gradient_of_one_output_alone(kept: int) -> None:
    """An output nobody uses sends no gradient, not an error."""
    values: dict[str, Any] = dict(inputs(torch.float64, 6, 18, 3))
    gradients = []
    for backend in ("triton", "reference"):
        value = pair_logsumexp(**values, moments=2, backend=backend)[kept]
        assert value is not None
        weight = torch.linspace(-1, 1, 6, dtype=torch.float64)
        gradients.append(torch.autograd.grad((value * weight).sum(), list(values.values()), allow_unused=True))
    for got, expected in zip(*gradients, strict=True):
        if expected is None or got is None:
            assert all(value is None or _largest(value) < 1e-12 for value in (got, expected))
        else:
            torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("similarity", ["cosine", "sqeuclidean"])
def test_similarities(similarity: str) -> None:
    values = inputs(torch.float64, 6, 18, 3)
    with torch.no_grad():
        values["anchors"][2] = 0.0
    got = evaluated(values, list(values), similarity=similarity, moments=2, backend="triton")
    expected = evaluated(values, list(values), similarity=similarity, moments=2, backend="reference")
    assert_same(got[0], expected[0], 1e-11)
    assert_same(got[1], expected[1], 1e-11)


def test_number_temperature_and_no_vectors() -> None:
    x, y = (value.detach().requires_grad_() for value in list(inputs(torch.float64, 5, 20, 3).values())[:2])
    results = []
    for backend in ("triton", "reference"):
        total = pair_logsumexp(x, y, temperature=0.2, backend=backend).logsumexp
        results.append((total.detach(), *torch.autograd.grad((total * torch.arange(5)).sum(), (x, y))))
    assert_same(results[0], results[1], 1e-12)


def test_cold_temperature() -> None:
    """Logits in the thousands: sums go through their maximum. Float32 holds such a logit to 1e-4."""
    values = inputs(torch.float32, 6, 40, 8)
    x, y = values["anchors"], values["candidates"]
    got = pair_logsumexp(x, y, temperature=2e-3, moments=2, backend="triton")
    truth = pair_logsumexp(x.double(), y.double(), temperature=2e-3, moments=2, backend="reference")
    for a, b in zip(got, truth, strict=True):
        assert a is not None
        assert b is not None
        torch.testing.assert_close(a.double(), b, rtol=1e-6, atol=2e-4)


def test_small_variance_keeps_its_digits() -> None:
    """Similarities near 1000 that differ in the third decimal: E[s^2] - E[s]^2 would keep no digit in float32."""
    x = torch.ones(2, 1)
    y = 1000.0 + 0.25 * torch.arange(40.0)[:, None]
    found = pair_logsumexp(x, y, temperature=1e3, moments=2, backend="triton", block_size=16)
    truth = pair_logsumexp(x.double(), y.double(), temperature=1e3, moments=2, backend="reference")
    assert found.variance is not None
    assert truth.variance is not None
    torch.testing.assert_close(found.variance.double(), truth.variance, rtol=1e-4, atol=0.0)


@pytest.mark.parametrize("moments", [0, 2])
def test_empty_rows_give_minus_infinity_and_no_gradient(moments: Moments) -> None:
    values = inputs(torch.float64, 5, 20, 3)
    with torch.no_grad():
        values["anchor_bias"][3] = -torch.inf
        values["candidate_bias"][4] = -torch.inf
    keep = KeepPairs(torch.tensor([0, 0, 2, 3, 5, 6]), torch.tensor([1, 19, 4, 0, 1, 7]))
    got = evaluated(values, list(values), rules=keep, moments=moments, backend="triton")
    assert torch.isneginf(got[0][0]).tolist() == [True, False, True, True, False]
    for output in got[0][1:]:
        assert (output[torch.tensor([0, 2, 3])] == 0).all()
    expected = evaluated(values, list(values), rules=keep, moments=moments, backend="reference")
    assert_same(got[0], expected[0], 1e-12)
    assert all(torch.isfinite(gradient).all() for gradient in got[1])
    assert (got[1][0][torch.tensor([0, 2, 3])] == 0).all()
    assert_same(got[1], expected[1], 1e-12)


@pytest.mark.parametrize(("rows", "columns"), [(0, 4), (4, 0), (0, 0)])
def test_no_rows_or_no_candidates(rows: int, columns: int) -> None:
    values: dict[str, Any] = dict(inputs(torch.float64, rows, columns, 3))
    found = pair_logsumexp(**values, moments=2, backend="triton")
    assert found.logsumexp.shape == (rows,)
    assert torch.isneginf(found.logsumexp).all()
    assert found.mean is not None
    gradients = torch.autograd.grad(found.mean.sum(), list(values.values()), allow_unused=True)
    assert all(gradient is None or (gradient == 0).all() for gradient in gradients)


def test_block_size_and_splits_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    values = inputs(torch.float32, 18, 70, 3)
    wide = evaluated(values, list(values), moments=2, backend="triton")
    narrow = evaluated(values, list(values), moments=2, backend="triton", block_size=16)
    assert_same(wide[0], narrow[0], 1e-5)
    assert_same(wide[1], narrow[1], 1e-5)
    exact = inputs(torch.float64, 16, 50, 3)
    split = evaluated(exact, list(exact), moments=2, backend="triton")
    monkeypatch.setattr(launch, "multiprocessors", lambda device: 1)
    whole = evaluated(exact, list(exact), moments=2, backend="triton")
    assert_same(whole[0], split[0], 1e-12)
    assert_same(whole[1], split[1], 1e-12)


def test_runs_repeat_to_the_last_bit() -> None:
    values = inputs(torch.float32, 18, 40, 3)
    first, second = (evaluated(values, list(values), moments=2, backend="triton", block_size=16) for _ in range(2))
    for a, b in zip((*first[0], *first[1]), (*second[0], *second[1]), strict=True):
        assert torch.equal(a, b)


def test_strides_are_followed() -> None:
    base = torch.randn(20, 30, generator=generator(3), dtype=torch.float64)
    for x, y in ((base[::2, 3:8], base[:, ::5][:, :5]), (base[:5].T[:, :5], base[1:2, :5].expand(18, 5))):
        found = [pair_logsumexp(x, y, backend=b).logsumexp for b in ("triton", "reference")]
        torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-12)


def test_offsets_past_31_bits() -> None:
    """Two rows 2^31 + 8 numbers apart: memory that is reserved but never touched in between."""
    stride = 2**31 + 8
    x = torch.empty(stride + 4, dtype=torch.float16).as_strided((2, 4), (stride, 1))
    x.copy_(torch.randn(2, 4, generator=generator(4)))
    y = torch.randn(3, 4, generator=generator(5)).half()
    for left, right in ((x, y), (y, x)):
        got = pair_logsumexp(left, right, backend="triton", check=False).logsumexp
        expected = pair_logsumexp(left.contiguous(), right.contiguous(), backend="reference").logsumexp
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


class _Odd:
    def log_weight_tile(self, tile: PairTile) -> Tensor | bool:
        return True


@pytest.mark.parametrize(
    ("rules", "named"),
    [
        ((AnyOf([ExcludeSameIndex()]),), "AnyOf"),
        ((AllOf([ExcludeSameIndex(), AnyOf([ExcludeSameIndex()])]),), "AnyOf"),
        ((LabelDistanceWeight(torch.arange(2.0), torch.arange(2.0), torch.log),), "LabelDistanceWeight"),
        ((_Odd(),), "_Odd"),
        ((KeepPairs(torch.tensor([0, 0, 0]), torch.tensor([]).long()),) * 2, "more than one KeepPairs"),
    ],
)
def test_rules_that_cannot_be_expressed(rules: tuple[CandidateRule, ...], named: str) -> None:
    x = torch.ones(2, 3)
    assert not supports(ScaledProduct(x, x, 1.0, None, None, None, rules), 0)
    with pytest.raises(ValueError, match=f"backend 'triton' cannot express.*{named}"):
        pair_logsumexp(x, x, rules=rules, backend="triton")
    with pytest.raises(ValueError, match=f"backend 'triton' cannot express.*{named}"):
        pair_logsumexp_both(x, x, rules=rules, backend="triton")


def test_what_auto_takes() -> None:
    rules = tuple(rule for name in ("all_of", "levels", "between", "keep") for rule in RULES[name])
    x, y = torch.ones(A, 3), torch.ones(C, 3)
    assert supports(ScaledProduct(x, y, 1.0, None, None, None, rules), 2)
    assert not supports(ScaledProduct(x.double(), y.double(), 1.0, None, None, None, ()), 0)


def test_float32_products_are_exact_unless_torch_is_told_otherwise() -> None:
    switch = torch.backends.cuda.matmul
    before = switch.allow_tf32
    try:
        switch.allow_tf32 = False
        assert launch.float32_precision() == "ieee"
        switch.allow_tf32 = True
        assert launch.float32_precision() == "tf32"
    finally:
        switch.allow_tf32 = before


BOTH_RULES: dict[str, Sequence[CandidateRule]] = {
    "none": (),
    "ids_and_lists": (*RULES["keep_and_exclude"], EqualIds(ids(A, 3), ids(C, 3, 1), keep=False), ExcludeSameIndex()),
    "levels_and_bounds": (*RULES["levels"], *RULES["between"]),
}


@pytest.mark.parametrize("name", BOTH_RULES)
def test_rows_and_columns(name: str) -> None:
    values: dict[str, Any] = dict(inputs(torch.float64, dim=3))
    with torch.no_grad():
        values["anchor_bias"][5] = -torch.inf
        values["candidate_bias"][6] = -torch.inf
    results = []
    for backend in ("triton", "torch"):
        rows, columns = pair_logsumexp_both(
            **values,
            rules=BOTH_RULES[name],
            backend=backend,
            block_size=(16, 32),
        )
        total = (rows.masked_fill(rows == -torch.inf, 0.0) * torch.arange(A)).sum()
        total = total + (columns.masked_fill(columns == -torch.inf, 0.0) * torch.arange(C).cos()).sum()
        results.append((rows, columns, *torch.autograd.grad(total, list(values.values()))))
    assert_same(results[0], results[1], 1e-11)


def catalogue(dtype: torch.dtype, tokens: int = 13, classes: int = 37, dim: int = 3) -> dict[str, Tensor]:
    g = generator(7)
    return {
        "hidden": torch.randn(tokens, dim, generator=g).to(dtype).requires_grad_(),
        "weight": torch.randn(classes, dim, generator=g).to(dtype).requires_grad_(),
        "bias": torch.randn(classes, generator=g).to(dtype).requires_grad_(),
    }


def entropy(values: dict[str, Tensor], target: Tensor, wanted: Sequence[str], **arguments: Any) -> list[Tensor]:
    """Loss, then gradients of ``wanted`` under a random upstream."""
    loss = linear_cross_entropy(values["hidden"], values["weight"], target, bias=values["bias"], **arguments)
    upstream = torch.randn(loss.shape, generator=generator(8), dtype=torch.float64)
    return [loss.detach(), *torch.autograd.grad((loss * upstream).sum(), [values[name] for name in wanted])]


def targets(tokens: int = 13, classes: int = 37) -> Tensor:
    target = ids(tokens, classes, 9)
    target[3], target[tokens - 1] = -100, -100
    target[0], target[1] = classes - 1, 0
    return target


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("sampled", [False, True])
def test_cross_entropy_equals_the_reference(reduction: str, sampled: bool) -> None:
    values = catalogue(torch.float64)
    arguments: dict[str, Any] = {
        "reduction": reduction,
        "token_weight": torch.rand(13, generator=generator(10), dtype=torch.float64),
        "log_q": torch.rand(37, generator=generator(11), dtype=torch.float64).log(),
        "candidates": ids(9, 37, 12) if sampled else None,
    }
    got = entropy(values, targets(), list(values), backend="triton", block_size=16, **arguments)
    assert_same(got, entropy(values, targets(), list(values), backend="reference", **arguments), 1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_cross_entropy_types_follow_the_error_rule(dtype: torch.dtype) -> None:
    values = catalogue(dtype, dim=21)
    exact = {name: value.detach().double().requires_grad_() for name, value in values.items()}
    found = [
        entropy(source, targets(), list(values), backend=backend)
        for source, backend in ((values, "triton"), (values, "reference"), (exact, "reference"))
    ]
    assert_as_exact_as_reference(found[0], found[1], found[2], 64.0 if dtype == torch.float32 else 4.0)


@pytest.mark.parametrize("wanted", ["hidden", "weight", "bias"])
def test_cross_entropy_each_gradient_alone(wanted: str) -> None:
    values = {name: value.detach() for name, value in catalogue(torch.float64, 5, 18).items()}
    values[wanted].requires_grad_()
    target = targets(5, 18)
    got = entropy(values, target, [wanted], backend="triton", reduction="none")
    assert_same(got, entropy(values, target, [wanted], backend="reference", reduction="none"), 1e-12)


def test_cross_entropy_without_a_token_left() -> None:
    values = catalogue(torch.float32, 2, 18)
    loss, *gradients = entropy(values, torch.tensor([-100, -100]), list(values), backend="triton")
    assert loss == 0
    assert all((gradient == 0).all() for gradient in gradients)


def test_cross_entropy_ignores_infinite_losses_of_weightless_tokens() -> None:
    values = catalogue(torch.float64, 3, 18)
    with torch.no_grad():
        values["bias"][4] = -torch.inf
    weight = torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64)
    got = entropy(values, torch.tensor([4, 1, 2]), list(values), backend="triton", token_weight=weight)
    kept = {**values, "hidden": values["hidden"].detach()[1:].requires_grad_()}
    expected = entropy(kept, torch.tensor([1, 2]), ["weight", "bias"], backend="reference")
    torch.testing.assert_close(got[0], expected[0], rtol=1e-12, atol=1e-12)
    assert all(torch.isfinite(gradient).all() for gradient in got[1:])
    assert_same(got[2:], expected[1:], 1e-12)
