from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from graphcl.functional import info_nce, nt_xent


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def similarity(x: Tensor, y: Tensor, kind: str = "cosine") -> float:
    if kind == "dot":
        return float(x @ y)
    if kind == "sqeuclidean":
        return -float(((x - y) ** 2).sum())
    norms = float(x.norm()) * float(y.norm())
    return float(x @ y) / norms if norms > 0 else 0.0


def log_share(positive: float, negatives: list[float]) -> float:
    """-log of e^positive over the sum, with the positive counted once."""
    peak = max([positive, *negatives])
    return peak + math.log(sum(math.exp(v - peak) for v in [positive, *negatives])) - positive


def info_nce_by_loops(
    x: Tensor, y: Tensor, tau: list[float], ids: list[int] | None = None, kind: str = "cosine"
) -> list[float]:
    names = ids or list(range(len(x)))
    return [
        log_share(
            similarity(x[i], y[i], kind) / tau[i],
            [similarity(x[i], y[j], kind) / tau[i] for j in range(len(y)) if names[j] != names[i]],
        )
        for i in range(len(x))
    ]


def nt_xent_by_loops(x: Tensor, y: Tensor, tau: list[float], ids: list[int] | None = None) -> list[float]:
    num, names = len(x), ids or list(range(len(x)))
    z = torch.cat([x, y])
    return [
        log_share(
            similarity(z[i], z[(i + num) % (2 * num)]) / tau[i % num],
            [similarity(z[i], z[j]) / tau[i % num] for j in range(2 * num) if names[j % num] != names[i % num]],
        )
        for i in range(2 * num)
    ]


@pytest.mark.parametrize("kind", ["cosine", "dot", "sqeuclidean"])
def test_info_nce_equals_loops(kind: str) -> None:
    x, y = rows(5, 3), rows(5, 3, seed=1)
    got = info_nce(x, y, temperature=0.3, similarity=kind, reduction="none")  # type: ignore[arg-type]
    assert got.tolist() == pytest.approx(info_nce_by_loops(x, y, [0.3] * 5, kind=kind))


@pytest.mark.parametrize("ids", [None, [4, 4, 1, 1, 1], [7, 7, 7, 7, 7]])
def test_symmetric_info_nce_averages_both_ways(ids: list[int] | None) -> None:
    x, y = rows(5, 3), rows(5, 3, seed=1)
    tau = [0.3, 0.1, 0.5, 0.2, 1.0]
    forward, backward = info_nce_by_loops(x, y, tau, ids), info_nce_by_loops(y, x, tau, ids)
    named = None if ids is None else torch.tensor(ids)
    each = torch.tensor(tau, dtype=torch.float64)
    got = info_nce(x, y, ids=named, temperature=each, symmetric=True, reduction="none")
    assert got.tolist() == pytest.approx(forward + backward, abs=1e-12)
    same = [0.3] * 5
    expected = sum(info_nce_by_loops(x, y, same, ids) + info_nce_by_loops(y, x, same, ids)) / 10
    assert float(info_nce(x, y, ids=named, temperature=0.3, symmetric=True)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("ids", [None, [4, 4, 1, 1, 1]])
def test_nt_xent_equals_loops(ids: list[int] | None) -> None:
    x, y = rows(5, 3), rows(5, 3, seed=1)
    named = None if ids is None else torch.tensor(ids)
    tau = [0.3, 0.1, 0.5, 0.2, 1.0]
    expected = nt_xent_by_loops(x, y, tau, ids)
    each = torch.tensor(tau, dtype=torch.float64)
    assert nt_xent(x, y, ids=named, temperature=each, reduction="none").tolist() == pytest.approx(expected)
    one_way = nt_xent(x, y, ids=named, temperature=each, symmetric=False, reduction="none")
    assert one_way.tolist() == pytest.approx(expected[:5])


def test_keys_replace_the_batch_and_equal_ids_are_no_negatives() -> None:
    x, y, keys = rows(3, 4), rows(3, 4, seed=1), rows(4, 4, seed=2)
    ids, key_ids = torch.tensor([0, 1, 2]), torch.tensor([1, 1, 5, 2])
    expected = [
        log_share(
            similarity(x[i], y[i]) / 0.2,
            [similarity(x[i], keys[j]) / 0.2 for j in range(4) if key_ids[j] != ids[i]],
        )
        for i in range(3)
    ]
    got = info_nce(x, y, keys=keys, ids=ids, key_ids=key_ids, temperature=0.2, reduction="none")
    assert got.tolist() == pytest.approx(expected)
    one_way = nt_xent(x, y, keys=keys, ids=ids, key_ids=key_ids, temperature=0.2, symmetric=False, reduction="none")
    assert one_way.tolist() == pytest.approx(expected)


def test_batch_given_as_keys_with_ids_is_the_batch() -> None:
    x, y = rows(6, 3), rows(6, 3, seed=1)
    ids = torch.arange(6)
    assert torch.allclose(info_nce(x, y), info_nce(x, y, keys=y, ids=ids, key_ids=ids), rtol=1e-12)
    both, both_ids = torch.cat([x, y]), ids.repeat(2)
    assert torch.allclose(nt_xent(x, y), nt_xent(x, y, keys=both, ids=ids, key_ids=both_ids), rtol=1e-12)


@pytest.mark.parametrize("function", [info_nce, nt_xent])
def test_gradient_of_embeddings_and_temperature(function: Callable[..., Tensor]) -> None:
    upstream = rows(8, seed=5)
    tau = torch.tensor([0.4, 0.7, 1.0, 0.5], dtype=torch.float64).requires_grad_()

    def value(x: Tensor, y: Tensor, tau: Tensor) -> Tensor:
        loss = function(x, y, temperature=tau, symmetric=True, reduction="none")
        total: Tensor = (loss * upstream).sum()
        return total

    x, y = rows(4, 3).requires_grad_(), rows(4, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(value, (x, y, tau))
    single = torch.tensor(0.6, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(value, (x, y, single))


def test_gradient_through_keys_and_ids() -> None:
    ids, key_ids = torch.tensor([0, 1, 1]), torch.tensor([1, 0, 3, 1])

    def value(x: Tensor, y: Tensor, keys: Tensor) -> Tensor:
        return info_nce(
            x, y, keys=keys, ids=ids, key_ids=key_ids, temperature=0.5, weight=torch.tensor([0.2, 1.0, 3.0])
        )

    inputs = tuple(rows(n, 2, seed=n).requires_grad_() for n in (3, 3, 4))
    assert torch.autograd.gradcheck(value, inputs)


def test_weights_average_the_anchors() -> None:
    x, y = rows(4, 3), rows(4, 3, seed=1)
    each = info_nce(x, y, reduction="none")
    weight = torch.tensor([1.0, 0.0, 2.0, 1.0], dtype=torch.float64)
    assert torch.allclose(info_nce(x, y, weight=weight), (each * weight).sum() / 4)
    assert torch.allclose(info_nce(x, y, reduction="sum"), each.sum())


def test_a_single_sample_and_no_sample_give_zero() -> None:
    for num in (0, 1):
        x = rows(num, 3).requires_grad_()
        for loss in (info_nce(x, x, symmetric=True), nt_xent(x, x * 2), info_nce(x, x, ids=torch.arange(num))):
            assert loss.item() == pytest.approx(0.0, abs=1e-12)
            (gradient,) = torch.autograd.grad(loss, x, retain_graph=True)
            assert float(gradient.abs().sum()) == pytest.approx(0.0, abs=1e-12)


def test_tiny_losses_keep_their_digits_when_negatives_are_apart() -> None:
    x = torch.eye(3, dtype=torch.float64)
    loss = info_nce(x, x, ids=torch.arange(3), temperature=0.02)
    assert float(loss) == pytest.approx(2 * math.exp(-50), rel=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"positives": torch.ones(3, 2)}, "same number of rows, got 2 and 3"),
        ({"temperature": 0.0}, "temperature must be a finite number above 0, got 0.0"),
        ({"keys": torch.ones(3, 2), "symmetric": True}, "with keys call once a direction"),
        ({"keys": torch.ones(3, 2), "ids": torch.arange(2)}, "got only ids"),
        ({"keys": torch.ones(3, 2), "key_ids": torch.arange(3)}, "got only key_ids"),
        ({"key_ids": torch.arange(2)}, "key_ids without keys"),
        ({"ids": torch.arange(3)}, r"ids must have shape \(2,\)"),
        ({"similarity": "l1"}, "similarity must be one of"),
        ({"reduction": "max"}, "reduction must be"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    call: dict[str, object] = {"positives": torch.ones(2, 2), **arguments}
    with pytest.raises(ValueError, match=message):
        info_nce(torch.ones(2, 2), **call)  # type: ignore[arg-type]


def test_nt_xent_refuses_views_of_different_types() -> None:
    with pytest.raises(TypeError, match="must share one dtype"):
        nt_xent(torch.ones(2, 2), torch.ones(2, 2).double())
    with pytest.raises(ValueError, match="key_ids without keys"):
        nt_xent(torch.ones(2, 2), torch.ones(2, 2), key_ids=torch.arange(2))
