"""pair_logsumexp, pair_logsumexp_both and edge_dot against loops, reference numbers and the dense backend."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from graphcl.kernels import (
    AllOf,
    AnyOf,
    Backend,
    CandidateRule,
    EqualIds,
    ExcludePairs,
    ExcludeSameIndex,
    KeepPairs,
    LabelDistanceWeight,
    LevelTable,
    PairTile,
    ScoreThreshold,
    Similarity,
    _matmul,
    edge_dot,
    normalize_rows,
    pair_logsumexp,
    pair_logsumexp_both,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "losses.json").read_text())
BACKENDS: tuple[Backend, ...] = ("reference", "torch")
SIMILARITIES: tuple[Similarity, ...] = ("dot", "cosine", "sqeuclidean")


def golden(name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(case for case in GOLDEN["cases"] if case["id"] == name)
    return found


def golden_input(shape: Sequence[int], k: int) -> Tensor:
    i = torch.arange(shape[0], dtype=torch.float64)[:, None]
    j = torch.arange(shape[1], dtype=torch.float64)[None, :]
    return torch.sin(0.7 * i + 1.3 * j + 0.37 * i * j + k).requires_grad_()


def assert_matches(case: dict[str, Any], value: Tensor, inputs: dict[str, Tensor], rtol: float = 1e-8) -> None:
    value.backward()  # type: ignore[no-untyped-call]
    assert float(value.detach()) == pytest.approx(case["expected"]["value"], rel=rtol)
    for name, tensor in inputs.items():
        grad = tensor.grad
        assert grad is not None
        i, j = torch.arange(grad.shape[0])[:, None], torch.arange(grad.shape[1])[None, :]
        assert float(grad.norm()) == pytest.approx(case["expected"]["grad_norm"][name], rel=rtol)
        checksum = float((grad * torch.cos(i + 2.0 * j)).sum())
        assert checksum == pytest.approx(case["expected"]["grad_checksum"][name], rel=1e-7)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def random_csr(rows: int, columns: int, seed: int = 0, density: float = 0.3) -> tuple[Tensor, Tensor]:
    mask = torch.rand(rows, columns, generator=generator(seed)) < density
    return torch.cat([torch.zeros(1, dtype=torch.int64), mask.sum(1).cumsum(0)]), mask.nonzero()[:, 1]


class PositiveSimilarity:
    """A rule as a user would write it."""

    def log_weight_tile(self, tile: PairTile) -> Tensor | bool:
        return tile.similarity > 0


# --- reference numbers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("block_size", [None, 1, (4, 5)])
def test_engine_weighted_lse(backend: Backend, block_size: int | tuple[int, int] | None) -> None:
    case = golden("engine_weighted_lse")
    x, c = golden_input((6, 4), 0), golden_input((9, 4), 1)
    pairs = torch.tensor(case["params"]["masked_pairs"])
    offsets = torch.searchsorted(pairs[:, 0].contiguous(), torch.arange(7))
    result = pair_logsumexp(
        x,
        c,
        temperature=case["params"]["tau"],
        candidate_bias=torch.tensor(case["params"]["log_weight"], dtype=torch.float64),
        rules=ExcludePairs(offsets, pairs[:, 1]),
        moments=1,
        block_size=block_size,
        backend=backend,
    )
    assert result.mean is not None
    assert result.logsumexp.tolist() == pytest.approx(case["expected"]["lse"], rel=1e-8)
    assert result.mean.tolist() == pytest.approx(case["expected"]["first_moment"], rel=1e-8)
    assert_matches(case, result.logsumexp.sum() + 0.5 * result.mean.sum(), {"x": x, "c": c})


@pytest.mark.parametrize("backend", BACKENDS)
def test_sparse_positives(backend: Backend) -> None:
    case = golden("sparse_positives")
    z1, z2 = golden_input((6, 4), 0), golden_input((6, 4), 1)
    rows, columns = torch.tensor(case["params"]["edges"])
    weights = torch.tensor(case["params"]["weights"], dtype=torch.float64)
    tau = case["params"]["tau"]
    total = pair_logsumexp(z1, z2, temperature=tau, similarity="cosine", backend=backend).logsumexp
    log_p = edge_dot(z1, z2, rows, columns, similarity="cosine", backend=backend) / tau - total[rows]
    per_anchor = torch.zeros(6, dtype=torch.float64).index_add(0, rows, weights * log_p)
    norm = torch.zeros(6, dtype=torch.float64).index_add(0, rows, weights)
    assert_matches(case, -(per_anchor / norm).mean(), {"z1": z1, "z2": z2})


def ntxent(z1: Tensor, z2: Tensor, tau: float, block_size: int | tuple[int, int] | None, backend: Backend) -> Tensor:
    z = torch.cat([z1, z2])
    n = z1.shape[0]
    total = pair_logsumexp(
        z, z, temperature=tau, similarity="cosine", rules=ExcludeSameIndex(), block_size=block_size, backend=backend
    ).logsumexp
    positive = edge_dot(z1, z2, torch.arange(n), torch.arange(n), similarity="cosine", backend=backend)
    return (total - torch.cat([positive, positive]) / tau).mean()


@pytest.mark.parametrize("block_size", [None, (333, 701)])
def test_ntxent_large(block_size: tuple[int, int] | None) -> None:
    z1, z2 = golden_input((1500, 16), 0), golden_input((1500, 16), 1)
    assert_matches(golden("ntxent_large"), ntxent(z1, z2, 0.07, block_size, "torch"), {"z1": z1, "z2": z2})


@pytest.mark.parametrize("backend", BACKENDS)
def test_ntxent_cold(backend: Backend) -> None:
    z1, z2 = golden_input((6, 4), 0), golden_input((6, 4), 1)
    assert_matches(golden("ntxent_cold"), ntxent(z1, z2, 0.002, 5, backend), {"z1": z1, "z2": z2})


def test_cold_logits_stay_finite_in_float32() -> None:
    z1, z2 = (golden_input((6, 4), k).detach().float().requires_grad_() for k in (0, 1))
    value = ntxent(z1, z2, 0.002, 5, "torch")
    value.backward()  # type: ignore[no-untyped-call]
    assert float(value.detach()) == pytest.approx(golden("ntxent_cold")["expected"]["value"], rel=1e-3)
    assert z1.grad is not None
    assert bool(torch.isfinite(z1.grad).all())


# --- loops ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_loops(similarity: Similarity, backend: Backend) -> None:
    x, y = normal(4, 3), normal(5, 3, seed=1)
    tau, tau_c = torch.tensor([0.5, 1.0, 2.0, 0.1]).double(), torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0]).double()
    a, b = normal(4, seed=2), normal(5, seed=3)
    got = pair_logsumexp(
        x,
        y,
        temperature=tau,
        candidate_temperature=tau_c,
        anchor_bias=a,
        candidate_bias=b,
        similarity=similarity,
        rules=ExcludeSameIndex(),
        moments=2,
        block_size=2,
        backend=backend,
    )
    assert got.mean is not None
    assert got.variance is not None
    for i in range(4):
        s, weight = [], []
        for j in range(5):
            if i == j:
                continue
            dot = sum(float(x[i, f] * y[j, f]) for f in range(3))
            if similarity == "cosine":
                dot /= math.sqrt(float((x[i] ** 2).sum() * (y[j] ** 2).sum()))
            if similarity == "sqeuclidean":
                dot = -sum(float(x[i, f] - y[j, f]) ** 2 for f in range(3))
            s.append(dot)
            weight.append(math.exp(dot / float(tau[i] * tau_c[j]) + float(a[i] + b[j])))
        mean = sum(w * v for w, v in zip(weight, s, strict=True)) / sum(weight)
        second = sum(w * v * v for w, v in zip(weight, s, strict=True)) / sum(weight)
        assert float(got.logsumexp[i]) == pytest.approx(math.log(sum(weight)), rel=1e-12)
        assert float(got.mean[i]) == pytest.approx(mean, rel=1e-10)
        assert float(got.variance[i]) == pytest.approx(second - mean**2, rel=1e-8, abs=1e-12)


# --- gradients --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alone", range(6))
@pytest.mark.parametrize("moments", [0, 1, 2])
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_gradcheck_of_each_input_alone(alone: int, moments: Literal[0, 1, 2], similarity: Similarity) -> None:
    inputs = [
        normal(4, 3),
        normal(5, 3, seed=1),
        torch.rand(4, generator=generator(2)).double() + 0.5,
        torch.rand(5, generator=generator(3)).double() + 0.5,
        normal(4, seed=4),
        normal(5, seed=5),
    ]
    inputs[alone].requires_grad_()

    def outputs(*values: Tensor) -> tuple[Tensor, ...]:
        x, y, tau, tau_c, a, b = values
        result = pair_logsumexp(
            x,
            y,
            temperature=tau,
            candidate_temperature=tau_c,
            anchor_bias=a,
            candidate_bias=b,
            similarity=similarity,
            rules=EqualIds(torch.tensor([0, 1, 0, 1]), torch.tensor([0, 1, 1, 0, 2]), keep=False),
            moments=moments,
            block_size=(3, 2),
            backend="torch",
        )
        return tuple(v for v in result if v is not None and v.requires_grad)

    assert torch.autograd.gradcheck(outputs, tuple(inputs))


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("memory_budget", [2**20, 64])
def test_gradcheck_with_everything_on(shifted: bool, memory_budget: int) -> None:
    x, y, b = normal(4, 3).requires_grad_(), normal(5, 3, seed=1).requires_grad_(), normal(5, seed=2).requires_grad_()
    scale = 400.0 if shifted else 1.0
    upstream = normal(4, seed=3)

    def loss(x: Tensor, y: Tensor, b: Tensor) -> Tensor:
        rows = pair_logsumexp(
            x, y, candidate_bias=b * scale, memory_budget=memory_budget, block_size=(3, 2), backend="torch"
        )
        return (rows.logsumexp * upstream).sum() / scale

    assert torch.autograd.gradcheck(loss, (x, y, b))


@pytest.mark.parametrize("alone", range(4))
@pytest.mark.parametrize("shifted", [False, True])
def test_gradcheck_of_both_directions(alone: int, shifted: bool) -> None:
    inputs = [normal(4, 3), normal(5, 3, seed=1), normal(4, seed=2), normal(5, seed=3)]
    inputs[alone].requires_grad_()
    temperature = 1 / 700 if shifted else 0.7

    def outputs(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        both = pair_logsumexp_both(
            x,
            y,
            temperature=temperature,
            anchor_bias=a,
            candidate_bias=b,
            rules=ExcludeSameIndex(),
            block_size=(3, 2),
            backend="torch",
        )
        return both.rows * temperature, both.columns * temperature

    assert torch.autograd.gradcheck(outputs, tuple(inputs), eps=1e-7, atol=1e-5)


def test_constant_and_other_upstream_gradients_agree() -> None:
    """The forward sweep foresees a constant upstream gradient; any other takes the second sweep."""
    x, y, b = normal(7, 3).requires_grad_(), normal(9, 3, seed=1).requires_grad_(), normal(9, seed=2).requires_grad_()

    def gradients(upstream: Tensor) -> tuple[Tensor, ...]:
        total = pair_logsumexp(x, y, candidate_bias=b, block_size=(2, 4), backend="torch").logsumexp
        return torch.autograd.grad((total * upstream).sum(), (x, y, b))

    parts = [gradients(torch.eye(7, dtype=torch.float64)[i]) for i in range(7)]
    for whole, pieces in zip(gradients(torch.full((7,), 2.5).double()), zip(*parts, strict=True), strict=True):
        torch.testing.assert_close(whole, 2.5 * torch.stack(list(pieces)).sum(0), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("moments", [0, 1])
def test_second_derivative_is_refused(moments: Literal[0, 1]) -> None:
    x = normal(3, 2).requires_grad_()
    total = pair_logsumexp(x, normal(4, 2, seed=1), moments=moments, backend="torch").logsumexp.square().sum()
    (first,) = torch.autograd.grad(total, x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()  # type: ignore[no-untyped-call]


def test_no_gradient_is_formed_without_grad_mode() -> None:
    x = normal(3, 2).requires_grad_()
    with torch.no_grad():
        assert not pair_logsumexp(x, x).logsumexp.requires_grad


# --- backends agree ---------------------------------------------------------------------------------------------------


def rule_sets(anchors: int, candidates: int) -> dict[str, tuple[CandidateRule, ...]]:
    la = torch.randint(0, 3, (anchors,), generator=generator(1))
    lc = torch.randint(0, 3, (candidates,), generator=generator(2))
    table = normal(3, 3, seed=3)
    table[0, 1] = -torch.inf
    distance = LabelDistanceWeight(la.double(), lc.double(), torch.log)
    return {
        "none": (),
        "same index": (ExcludeSameIndex(),),
        "given index": (ExcludeSameIndex(la, lc),),
        "given candidate index": (ExcludeSameIndex(candidate_index=lc),),
        "equal": (EqualIds(la, lc),),
        "different": (EqualIds(la, lc, keep=False),),
        "exclude": (ExcludePairs(*random_csr(anchors, candidates)),),
        "keep": (KeepPairs(*random_csr(anchors, candidates)),),
        "distance": (distance,),
        "table": (LevelTable(la, lc, table),),
        "threshold": (ScoreThreshold(normal(anchors, seed=4)),),
        "below": (ScoreThreshold(normal(anchors, seed=4), keep_above=False),),
        "own": (PositiveSimilarity(),),
        "and": (EqualIds(la, lc, keep=False), ExcludeSameIndex(), ExcludePairs(*random_csr(anchors, candidates))),
        "and weights": (distance, LevelTable(la, lc, table), EqualIds(la, lc, keep=False)),
        "any": (AnyOf([EqualIds(la, lc), KeepPairs(*random_csr(anchors, candidates, density=0.1))]),),
        "any weights": (AnyOf([EqualIds(la, lc), LevelTable(la, lc, table)]), ExcludeSameIndex()),
        "all in any": (
            AnyOf(
                [AllOf([EqualIds(la, lc), ExcludeSameIndex(), distance]), KeepPairs(*random_csr(anchors, candidates))]
            ),
        ),
    }


RULE_NAMES = tuple(rule_sets(2, 2))


@pytest.mark.parametrize("rules", RULE_NAMES)
@pytest.mark.parametrize("moments", [0, 2])
@pytest.mark.parametrize("spread", [1.0, 60.0])
def test_every_rule_in_blocks_equals_the_dense_form(rules: str, moments: Literal[0, 2], spread: float) -> None:
    anchors, candidates = 13, 17
    results = []
    runs: list[tuple[Backend, int | tuple[int, int] | None]] = [
        ("reference", None),
        ("torch", None),
        ("torch", 1),
        ("torch", (5, 4)),
    ]
    for backend, block_size in runs:
        x = (normal(anchors, 3) * spread).requires_grad_()
        y = normal(candidates, 3, seed=1).requires_grad_()
        got = pair_logsumexp(
            x,
            y,
            rules=rule_sets(anchors, candidates)[rules],
            moments=moments,
            block_size=block_size,
            backend=backend,
        )
        outputs = [value for value in got if value is not None]
        finite = [value.masked_fill(value == -torch.inf, 0.0) for value in outputs]
        sum((value * normal(anchors, seed=7 + k)).sum() for k, value in enumerate(finite)).backward()  # type: ignore[union-attr]
        results.append([*outputs, x.grad, y.grad])
    for other in results[1:]:
        for expected, actual in zip(results[0], other, strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("rules", ["none", "and", "and weights"])
def test_both_directions_equal_two_calls(rules: str) -> None:
    x, y = normal(13, 3), normal(17, 3, seed=1)
    chosen = rule_sets(13, 17)[rules]
    for scale in (1.0, 500.0):
        both = pair_logsumexp_both(x * scale, y, rules=chosen, block_size=(5, 4), backend="torch")
        dense = pair_logsumexp_both(x * scale, y, rules=chosen, backend="reference")
        torch.testing.assert_close(both.rows, dense.rows, rtol=1e-12, atol=0)
        torch.testing.assert_close(both.columns, dense.columns, rtol=1e-12, atol=0)
        rows = pair_logsumexp(x * scale, y, rules=chosen, backend="torch").logsumexp
        torch.testing.assert_close(both.rows, rows, rtol=1e-12, atol=0)


@pytest.mark.parametrize("block_size", [1, 7, (64, 3), (3, 64), (100, 100)])
@pytest.mark.parametrize("temperature", [0.5, 0.002])
def test_results_do_not_depend_on_the_block_size(block_size: int | tuple[int, int], temperature: float) -> None:
    x, y = normal(37, 8), normal(53, 8, seed=1)
    whole = pair_logsumexp(x, y, temperature=temperature, moments=2, backend="torch")
    parts = pair_logsumexp(x, y, temperature=temperature, moments=2, block_size=block_size, backend="torch")
    plain = pair_logsumexp(x, y, temperature=temperature, block_size=block_size, backend="torch").logsumexp
    assert whole.mean is not None
    assert parts.mean is not None
    torch.testing.assert_close(parts.logsumexp, whole.logsumexp, rtol=1e-12, atol=0)
    torch.testing.assert_close(plain, whole.logsumexp, rtol=1e-12, atol=0)
    torch.testing.assert_close(parts.mean, whole.mean, rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("temperature", [1.0, 0.05, 0.002])
def test_error_rule(dtype: torch.dtype, similarity: Similarity, temperature: float) -> None:
    """The blocked backend may not be further from the float64 truth than the dense one of the same dtype."""
    scale = 1.0 if similarity == "cosine" else 0.2
    x, y = (normal(300, 24) * scale).to(dtype), (normal(500, 24, seed=1) * scale).to(dtype)
    upstream = normal(300, seed=2)

    def run(backend: Backend, wide: torch.dtype) -> tuple[Tensor, ...]:
        a, b = (t.to(wide).detach().requires_grad_() for t in (x, y))
        total = pair_logsumexp(a, b, temperature=temperature, similarity=similarity, backend=backend).logsumexp
        assert total.dtype == (torch.float64 if wide == torch.float64 else torch.float32)
        return total.detach(), *torch.autograd.grad((total.double() * upstream).sum(), (a, b))

    truth, dense, blocked = run("reference", torch.float64), run("reference", dtype), run("torch", dtype)
    for t, r, f in zip(truth, dense, blocked, strict=True):
        assert f.dtype == r.dtype
        size = float(t.abs().max())
        assert float((f.double() - t).abs().max()) <= 1.5 * float((r.double() - t).abs().max()) + 2e-6 * size


def test_autocast_does_not_narrow_the_sums() -> None:
    x = normal(6, 4).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = pair_logsumexp(x, x, backend="torch").logsumexp
    torch.testing.assert_close(inside, pair_logsumexp(x, x, backend="torch").logsumexp)


# --- edge cases -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("anchors", "candidates", "width"), [(0, 3, 2), (3, 0, 2), (0, 0, 2), (3, 2, 0), (1, 1, 1)])
@pytest.mark.parametrize("moments", [0, 2])
def test_zero_size(backend: Backend, anchors: int, candidates: int, width: int, moments: Literal[0, 2]) -> None:
    x, y = normal(anchors, width).requires_grad_(), normal(candidates, width, seed=1).requires_grad_()
    result = pair_logsumexp(x, y, moments=moments, backend=backend)
    assert result.logsumexp.shape == (anchors,)
    expected = -torch.inf if candidates == 0 else math.log(candidates)
    if width == 0 or candidates == 0:
        assert bool((result.logsumexp == expected).all())
    total = result.logsumexp.masked_fill(result.logsumexp == -torch.inf, 0.0).sum()
    total.backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert y.grad is not None
    assert x.grad.shape == x.shape
    assert bool(torch.isfinite(x.grad).all() & torch.isfinite(y.grad).all())
    both = pair_logsumexp_both(x, y, backend=backend)
    assert both.rows.shape == (anchors,)
    assert both.columns.shape == (candidates,)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("moments", [0, 1, 2])
@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_anchor_without_candidates(backend: Backend, moments: Literal[0, 1, 2], scale: float) -> None:
    x, y = (normal(3, 2) * scale).requires_grad_(), normal(4, 2, seed=1).requires_grad_()
    rule = EqualIds(torch.tensor([0, 5, 0]), torch.tensor([0, 0, 1, 1]))
    result = pair_logsumexp(x, y, rules=rule, moments=moments, backend=backend)
    assert float(result.logsumexp[1].detach()) == -torch.inf
    for moment in result[1:]:
        assert moment is None or float(moment[1].detach()) == 0.0
    outputs = [value for value in result if value is not None]
    torch.autograd.backward(outputs, [torch.ones(3).double()] * len(outputs))
    assert x.grad is not None
    assert y.grad is not None
    assert x.grad[1].tolist() == [0.0, 0.0]
    assert bool(torch.isfinite(x.grad).all() & torch.isfinite(y.grad).all())


@pytest.mark.parametrize("backend", BACKENDS)
def test_minus_infinite_bias_leaves_a_candidate_out(backend: Backend) -> None:
    x, y = normal(3, 2).requires_grad_(), normal(4, 2, seed=1).requires_grad_()
    bias = torch.tensor([0.0, -torch.inf, 0.5, -1.0]).double().requires_grad_()
    total = pair_logsumexp(x, y, candidate_bias=bias, backend=backend).logsumexp
    kept = torch.tensor([0, 2, 3])
    torch.testing.assert_close(total, pair_logsumexp(x, y[kept], candidate_bias=bias[kept]).logsumexp)
    (total * normal(3, seed=2)).sum().backward()  # type: ignore[no-untyped-call]
    for grad in (y.grad, bias.grad):
        assert grad is not None
        assert bool((grad[1] == 0).all() & torch.isfinite(grad).all())


def test_row_without_candidates_in_its_first_tiles() -> None:
    """Far points at a low temperature, where the level of the row is below the range of exponentials."""
    x, y = (normal(3, 2).float()).requires_grad_(), (normal(6, 2, seed=1).float() + 9).requires_grad_()
    rule = EqualIds(torch.tensor([1, 1, 0]), torch.tensor([0, 0, 0, 1, 1, 1]))
    for block_size in (1, 3, 6):
        total = pair_logsumexp(x, y, similarity="sqeuclidean", temperature=0.1, rules=rule, block_size=block_size)
        assert float(total.logsumexp.detach().max()) < -200
        grads = torch.autograd.grad(total.logsumexp.sum(), [x, y])
        wide = (x.detach().double().requires_grad_(), y.detach().double().requires_grad_())
        dense = pair_logsumexp(*wide, similarity="sqeuclidean", temperature=0.1, rules=rule, backend="reference")
        for grad, expected in zip(grads, torch.autograd.grad(dense.logsumexp.sum(), wide), strict=True):
            torch.testing.assert_close(grad, expected.float(), rtol=1e-3, atol=1e-3)


def test_tiny_anchors_and_huge_candidates_do_not_overflow() -> None:
    x, y = (normal(4, 3).float() * 1e-16).requires_grad_(), (normal(300, 3, seed=1).float() * 1e17).requires_grad_()
    grads = torch.autograd.grad(pair_logsumexp(x, y).logsumexp.sum(), [x, y])
    wide = x.detach().double().requires_grad_(), y.detach().double().requires_grad_()
    expected = torch.autograd.grad(torch.logsumexp(wide[0] @ wide[1].T, 1).sum(), wide)
    for grad, wanted in zip(grads, expected, strict=True):
        torch.testing.assert_close(grad.double(), wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))


def test_features_of_width_zero_with_every_gradient() -> None:
    x, y = torch.zeros(2, 0).double().requires_grad_(), torch.zeros(3, 0).double().requires_grad_()
    candidate_temperature = torch.ones(3).double().requires_grad_()
    result = pair_logsumexp(x, y, candidate_temperature=candidate_temperature, moments=1)
    assert result.mean is not None
    (grad,) = torch.autograd.grad(result.logsumexp.sum() + result.mean.sum(), [candidate_temperature])
    assert grad.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("moments", [0, 1, 2])
@pytest.mark.parametrize("side", ["anchor_bias", "candidate_bias"])
def test_row_emptied_by_a_bias(backend: Backend, moments: Literal[0, 1, 2], side: str) -> None:
    x, y = normal(3, 2).requires_grad_(), normal(4, 2, seed=1).requires_grad_()
    temperature = torch.full((3,), 0.5).double().requires_grad_()
    anchor_bias, candidate_bias = torch.zeros(3).double(), torch.zeros(4).double()
    emptied = torch.tensor([False, True, False]) if side == "anchor_bias" else torch.ones(3, dtype=torch.bool)
    (anchor_bias if side == "anchor_bias" else candidate_bias)[1 if side == "anchor_bias" else slice(None)] = -torch.inf
    leaves = [x, y, temperature, anchor_bias.requires_grad_(), candidate_bias.requires_grad_()]
    result = pair_logsumexp(
        x,
        y,
        temperature=temperature,
        anchor_bias=anchor_bias,
        candidate_bias=candidate_bias,
        moments=moments,
        backend=backend,
    )
    assert bool((result.logsumexp[emptied] == -torch.inf).all())
    outputs = [value for value in result if value is not None]
    for value in outputs[1:]:
        assert bool((value[emptied] == 0).all())
    grads = torch.autograd.grad(outputs, leaves, [normal(3, seed=7 + place) for place in range(len(outputs))])
    for grad in (grads[0], grads[2], grads[3]):
        assert bool((grad[emptied] == 0).all())
    if side == "candidate_bias":
        assert all(bool((grad == 0).all()) for grad in grads)
        return
    kept = pair_logsumexp(x[::2], y, temperature=temperature[::2], moments=moments)
    kept_outputs = [value for value in kept if value is not None]
    upstream = [normal(3, seed=7 + place)[::2] for place in range(len(outputs))]
    for grad, expected in zip(grads[:3], torch.autograd.grad(kept_outputs, leaves[:3], upstream), strict=True):
        torch.testing.assert_close(grad, expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_moments_of_far_points_do_not_cancel(backend: Backend) -> None:
    scale = 1e3
    x, y, bias = normal(5, 3) * scale, normal(6, 3, seed=1) * scale, normal(6, seed=2).requires_grad_()
    temperature = torch.full((5,), scale**2).double().requires_grad_()
    result = pair_logsumexp(
        x,
        y,
        similarity="sqeuclidean",
        temperature=temperature,
        candidate_bias=bias,
        moments=2,
        backend=backend,
    )
    assert result.mean is not None
    assert result.variance is not None
    upstream = [normal(5, seed=3), normal(5, seed=4), normal(5, seed=5)]
    outputs = [result.logsumexp, result.mean, result.variance]
    grads = torch.autograd.grad(outputs, [bias, temperature], upstream)
    similarity = -((x[:, None] - y) ** 2).sum(2)
    share = torch.softmax(similarity / scale**2 + bias.detach(), dim=1)
    mean = (share * similarity).sum(1)
    centred = similarity - mean[:, None]
    variance = (share * centred**2).sum(1)
    g_total, g_mean, g_variance = (value[:, None] for value in upstream)
    by_logit = share * (g_total + g_mean * centred + g_variance * (centred**2 - variance[:, None]))
    torch.testing.assert_close(result.mean.detach(), mean, rtol=1e-12, atol=0)
    torch.testing.assert_close(result.variance.detach(), variance, rtol=1e-11, atol=0)
    expected = by_logit.sum(0), -(by_logit * similarity).sum(1) / scale**4
    for grad, wanted in zip(grads, expected, strict=True):
        torch.testing.assert_close(grad, wanted, rtol=1e-10, atol=1e-12 * float(wanted.abs().max()))


def test_zero_rows_have_similarity_and_gradient_zero() -> None:
    x = torch.tensor([[0.0, 0.0], [1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    y = normal(3, 2).requires_grad_()
    total = pair_logsumexp(x, y, similarity="cosine", temperature=0.1).logsumexp
    assert float(total[0].detach()) == pytest.approx(math.log(3))
    total.sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert x.grad[0].tolist() == [0.0, 0.0]
    assert float(x.grad[1].abs().sum()) > 0


def test_non_contiguous_inputs() -> None:
    wide, other = normal(6, 8), normal(3, 7, seed=1)
    x, y = wide[::2, 1::3], other.T
    torch.testing.assert_close(
        pair_logsumexp(x, y, backend="torch").logsumexp,
        pair_logsumexp(x.contiguous(), y.contiguous(), backend="reference").logsumexp,
    )


def test_duplicate_candidates_count_each_time() -> None:
    x = normal(2, 3)
    y = normal(1, 3, seed=1).expand(5, 3)
    expected = (x @ y[0]) + math.log(5)
    torch.testing.assert_close(pair_logsumexp(x, y).logsumexp, expected)


def test_views_past_two_to_the_31_elements() -> None:
    """Rows two billion elements apart: offsets must be 64 bit. The storage is one small vector seen through strides."""
    base = torch.arange(8, dtype=torch.float32)
    far = base.as_strided((1, 4), (2**31 + 7, 1))
    torch.testing.assert_close(pair_logsumexp(far, far).logsumexp, (far @ far.T)[0])
    # a list whose row times candidates passes 2^31 inside the key of the binary search
    rows, candidates = 70_000, 40_000
    listed = torch.tensor([candidates - 1])
    tail = torch.cat([torch.zeros(rows, dtype=torch.int64), torch.ones(1, dtype=torch.int64)])
    tile = PairTile(
        slice(0, rows), slice(candidates - 10, candidates), candidates, torch.device("cpu"), lambda r, c: base
    )
    assert ExcludePairs(tail, listed).listed_positions(tile).tolist() == [(rows - 1) * 10 + 9]


def test_memory_stays_linear() -> None:
    """Largest tensor of a sweep: far below the 64 MB of the dense matrix."""
    x = torch.randn(4096, 8, generator=generator())
    sizes: list[int] = []

    class Spy(torch.utils._python_dispatch.TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(
            self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
        ) -> Any:
            out = func(*args, **(kwargs or {}))
            if isinstance(out, Tensor):
                sizes.append(out.untyped_storage().nbytes())
            return out

    leaf = x.requires_grad_()
    with Spy():  # type: ignore[no-untyped-call]
        pair_logsumexp(leaf, leaf, backend="torch", memory_budget=2**21).logsumexp.sum().backward()  # type: ignore[no-untyped-call]
    assert 0 < max(sizes) <= 2**21


@pytest.mark.parametrize("only_avx2", [True, False])
def test_tile_products_agree_with_and_without_onednn(only_avx2: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_matmul, "widest_unit_is_avx2", lambda: only_avx2)
    x, y = normal(64, 24).float(), normal(48, 24, seed=1).float()
    stored_by_columns = x.T.contiguous().T, y.T.contiguous().T
    transposed = x.T.contiguous(), normal(64, 48, seed=2).float().T
    for a, b in ((x, y), transposed, (x, stored_by_columns[1]), stored_by_columns):
        exact = (a.double() @ b.double().T).float()
        torch.testing.assert_close(_matmul.matmul_nt(a, b), exact)
        with monkeypatch.context() as patch:
            patch.setattr(_matmul, "_onednn_linear", lambda: None)
            torch.testing.assert_close(_matmul.matmul_nt(a, b), exact)
    with monkeypatch.context() as patch:
        patch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
        assert _matmul._onednn_linear.__wrapped__() is None


def test_tile_product_of_leaves_is_differentiable() -> None:
    a, b = normal(64, 24).float().requires_grad_(), normal(48, 24, seed=1).float().requires_grad_()
    up = normal(64, 48, seed=2).float()
    for grad, expected in zip(
        torch.autograd.grad(_matmul.matmul_nt(a, b), [a, b], up), (up @ b.detach(), up.T @ a.detach()), strict=True
    ):
        torch.testing.assert_close(grad, expected)


def test_two_transposed_views_go_to_the_blas_where_avx2_is_the_widest(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[bool] = []
    monkeypatch.setattr(_matmul, "_onednn_linear", lambda: taken.append(True))
    x, y = normal(64, 24).float(), normal(48, 24, seed=1).float()
    for only_avx2, expected in ((True, 1), (False, 2)):
        monkeypatch.setattr(_matmul, "widest_unit_is_avx2", lambda answer=only_avx2: answer)
        taken.clear()
        _matmul.matmul_nt(x, y)
        _matmul.matmul_nt(x.T.contiguous().T, y.T.contiguous().T)
        assert len(taken) == expected


@pytest.mark.parametrize("only_avx2", [True, False])
def test_aligned_tile_products_have_the_same_bits_in_every_block(
    only_avx2: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_matmul, "widest_unit_is_avx2", lambda: only_avx2)
    for width in (3, 17, 64, 130):
        a, b = normal(192, width).float(), normal(384, width, seed=1).float()
        whole = _matmul.matmul_nt(a, b)
        assert torch.equal(_matmul.matmul_nt(a[96:], b[96:288]), whole[96:, 96:288])


def test_triton_asked_for_and_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"backend 'triton' needs the triton package: pip install"):
        pair_logsumexp(normal(3, 2), normal(3, 2), backend="triton")
    pair_logsumexp(normal(3, 2), normal(3, 2), backend="auto")


# --- edge_dot ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("memory_budget", [2**26, 1])
def test_edge_dot_equals_loops(similarity: Similarity, backend: Backend, memory_budget: int) -> None:
    x, y = normal(4, 3), normal(5, 3, seed=1)
    rows, columns = torch.tensor([0, 3, 3, 3, 1]), torch.tensor([4, 0, 0, 2, 1])
    got = edge_dot(x, y, rows, columns, similarity=similarity, backend=backend, memory_budget=memory_budget)
    for e, (i, j) in enumerate(zip(rows.tolist(), columns.tolist(), strict=True)):
        a, b = x[i], y[j]
        expected = {
            "dot": float(a @ b),
            "cosine": float(a @ b / (a.norm() * b.norm())),
            "sqeuclidean": -float((a - b).square().sum()),
        }[similarity]
        assert float(got[e]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("alone", [0, 1])
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_edge_dot_gradcheck(alone: int, similarity: Similarity) -> None:
    inputs = [normal(4, 3), normal(5, 3, seed=1)]
    inputs[alone].requires_grad_()
    rows, columns = torch.tensor([0, 3, 3, 3, 1]), torch.tensor([4, 0, 0, 2, 1])
    weight = normal(5, seed=2)

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return (edge_dot(x, y, rows, columns, similarity=similarity, memory_budget=1, backend="torch") * weight).sum()

    assert torch.autograd.gradcheck(loss, tuple(inputs))


def test_edge_dot_edge_cases() -> None:
    x = normal(3, 2).requires_grad_()
    none = torch.empty(0, dtype=torch.int64)
    empty = edge_dot(x, x, none, none)
    assert empty.shape == (0,)
    empty.sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert x.grad.tolist() == [[0.0, 0.0]] * 3
    half = x.detach().bfloat16()
    one = torch.tensor([1], dtype=torch.int32)
    assert edge_dot(half, half, one, one).dtype == torch.float32


def test_edge_dot_repeats_bit_for_bit() -> None:
    x = torch.randn(50, 8, generator=generator()).requires_grad_()
    rows = torch.randint(0, 50, (5000,), generator=generator(1))
    columns = torch.randint(0, 50, (5000,), generator=generator(2))
    first, second = (torch.autograd.grad(edge_dot(x, x, rows, columns).square().sum(), x)[0] for _ in range(2))
    assert torch.equal(first, second)


# --- messages ---------------------------------------------------------------------------------------------------------


def test_bad_arguments_are_named() -> None:
    x = normal(3, 2)
    with pytest.raises(ValueError, match=r"anchors must have shape .* got shape \(3,\)"):
        pair_logsumexp(x[:, 0], x)
    with pytest.raises(ValueError, match=r"same number of features, got 2 and 1"):
        pair_logsumexp(x, x[:, :1])
    with pytest.raises(TypeError, match=r"share one dtype, got torch.float64 and torch.float32"):
        pair_logsumexp(x, x.float())
    with pytest.raises(TypeError, match=r"candidates must be a float tensor, got dtype torch.int64"):
        pair_logsumexp(x, x.long())
    with pytest.raises(ValueError, match=r"temperature must be a finite number above 0, got 0"):
        pair_logsumexp(x, x, temperature=0.0)
    with pytest.raises(ValueError, match=r"temperature must be a finite number above 0, got nan"):
        pair_logsumexp(x, x, temperature=math.nan)
    with pytest.raises(ValueError, match=r"temperature must be above 0, got -1"):
        pair_logsumexp(x, x, temperature=torch.tensor([1.0, -1.0, 1.0]))
    with pytest.raises(ValueError, match=r"temperature must have shape \(3,\), got shape \(2,\)"):
        pair_logsumexp(x, x, temperature=torch.ones(2))
    with pytest.raises(ValueError, match=r"temperature must be .* got shape \(\) of torch.int64"):
        pair_logsumexp(x, x, temperature=torch.tensor(1))
    with pytest.raises(ValueError, match=r"candidate_temperature must be above 0, got 0"):
        pair_logsumexp(x, x, candidate_temperature=torch.zeros(3))
    with pytest.raises(ValueError, match=r"candidate_bias must have shape \(3,\), got shape \(4,\)"):
        pair_logsumexp(x, x, candidate_bias=torch.zeros(4))
    with pytest.raises(TypeError, match=r"anchor_bias must be a float tensor, got dtype torch.int64"):
        pair_logsumexp(x, x, anchor_bias=torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"similarity must be one of dot, cosine, sqeuclidean, got 'cos'"):
        pair_logsumexp(x, x, similarity="cos")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"moments must be 0, 1 or 2, got 3"):
        pair_logsumexp(x, x, moments=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"backend must be one of .*, got 'numpy'"):
        pair_logsumexp(x, x, backend="numpy")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"block_size must be an integer of at least 1, got 0"):
        pair_logsumexp(x, x, block_size=0)
    with pytest.raises(ValueError, match=r"block_size must be an integer or a pair, got \(1, 2, 3\)"):
        pair_logsumexp(x, x, block_size=(1, 2, 3))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"rules must have a method log_weight_tile\(tile\), got int"):
        pair_logsumexp(x, x, rules=3)  # type: ignore[arg-type]
    spoiled = x.clone()
    spoiled[1, 0] = math.nan
    with pytest.raises(ValueError, match=r"anchors holds NaN, first at position \[1, 0\]"):
        pair_logsumexp(spoiled, x)
    assert bool(torch.isnan(pair_logsumexp(spoiled, x, check=False).logsumexp[1]))


def test_bad_edges_are_named() -> None:
    x = normal(3, 2)
    good = torch.tensor([0, 1])
    with pytest.raises(IndexError, match=r"rows holds 3, outside 0 .. 2"):
        edge_dot(x, x, torch.tensor([0, 3]), good)
    with pytest.raises(IndexError, match=r"columns holds -1, outside 0 .. 2"):
        edge_dot(x, x, good, torch.tensor([0, -1]))
    with pytest.raises(ValueError, match=r"columns must have shape \(2,\), got shape \(1,\)"):
        edge_dot(x, x, good, good[:1])
    with pytest.raises(TypeError, match=r"rows must be an integer tensor, got dtype torch.float64"):
        edge_dot(x, x, good.double(), good)


def test_normalised_rows_are_what_cosine_uses() -> None:
    x, y = normal(4, 3) * 100, normal(5, 3, seed=1)
    by_hand = pair_logsumexp(normalize_rows(x), normalize_rows(y)).logsumexp
    torch.testing.assert_close(pair_logsumexp(x, y, similarity="cosine").logsumexp, by_hand)


def test_values_without_a_meaning_are_named() -> None:
    x, y = normal(2, 2), normal(3, 2, seed=1)
    nan, inf = math.nan, math.inf
    levels = torch.zeros(2, dtype=torch.int64), torch.zeros(3, dtype=torch.int64)
    for rule, message in (
        (ScoreThreshold(torch.tensor([0.0, nan])), r"ScoreThreshold.threshold holds NaN, first at position \[1\]"),
        (LevelTable(*levels, torch.tensor([[nan]])), r"LevelTable.table holds NaN"),
        (
            LevelTable(*levels, torch.tensor([[inf]])),
            r"LevelTable.table must be below \+inf, got inf at position \[0, 0\]",
        ),
        (
            LabelDistanceWeight(torch.tensor([nan, 0.0]), torch.zeros(3), torch.log),
            r"LabelDistanceWeight.anchor_labels holds NaN",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            pair_logsumexp(x, y, rules=rule)
    with pytest.raises(ValueError, match=r"candidate_bias must be below \+inf, got inf at position \[2\]"):
        pair_logsumexp(x, y, candidate_bias=torch.tensor([0.0, 0.0, inf]))
    with pytest.raises(ValueError, match="temperature must be finite, got inf"):
        pair_logsumexp(x, y, temperature=torch.tensor([1.0, inf]))
    with pytest.raises(TypeError, match="temperature must be a number or a tensor, got 'cold'"):
        pair_logsumexp(x, y, temperature="cold")  # type: ignore[arg-type]
