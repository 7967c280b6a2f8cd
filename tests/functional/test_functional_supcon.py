from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from torch import Tensor

from graphcl.functional import multi_positive_info_nce, sup_con

FORMS: tuple[Literal["out", "in"], ...] = ("out", "in")


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def log_sum_exp(values: list[float]) -> float:
    peak = max(values)
    return peak + math.log(sum(math.exp(value - peak) for value in values))


def cosines(x: Tensor, y: Tensor, tau: float) -> list[list[float]]:
    return [[float(a @ b) / float(a.norm() * b.norm()) / tau for b in y] for a in x]


def sup_con_by_loops(
    logits: list[list[float]], labels: list[int], key_labels: list[int], excluded: list[list[bool]], form: str
) -> list[float]:
    losses = []
    for i, row in enumerate(logits):
        candidates = [j for j in range(len(row)) if not excluded[i][j]]
        positives = [j for j in candidates if key_labels[j] == labels[i]]
        if not positives:
            losses.append(0.0)
            continue
        total = log_sum_exp([row[j] for j in candidates])
        if form == "out":
            losses.append(sum(total - row[j] for j in positives) / len(positives))
        else:
            losses.append(total - log_sum_exp([row[j] for j in positives]) + math.log(len(positives)))
    return losses


@pytest.mark.parametrize("form", ["out", "in"])
@pytest.mark.parametrize("ids", [None, [0, 0, 1, 2, 3, 3, 3]])
def test_sup_con_equals_loops(form: Literal["out", "in"], ids: list[int] | None) -> None:
    z, labels = rows(7, 3), [5, 5, 5, -2, 9, 9, 5]
    names = ids or list(range(7))
    excluded = [[names[i] == names[j] for j in range(7)] for i in range(7)]
    expected = sup_con_by_loops(cosines(z, z, 0.2), labels, labels, excluded, form)
    named = None if ids is None else torch.tensor(ids)
    got = sup_con(z, torch.tensor(labels), ids=named, form=form, temperature=0.2, reduction="none")
    assert got.tolist() == pytest.approx(expected)
    valid = [loss for i, loss in enumerate(expected) if loss != 0.0]
    mean = sup_con(z, torch.tensor(labels), ids=named, form=form, temperature=0.2)
    assert float(mean) == pytest.approx(sum(valid) / len(valid))


@pytest.mark.parametrize("form", ["out", "in"])
def test_keys_with_and_without_ids(form: Literal["out", "in"]) -> None:
    z, keys = rows(4, 3), rows(5, 3, seed=1)
    labels, key_labels = [0, 1, 1, 3], [1, 0, 1, 0, 2]
    ids, key_ids = [8, 9, 7, 6], [9, 1, 2, 8, 6]
    logits = cosines(z, keys, 0.5)
    nothing = [[False] * 5] * 4
    same = [[a == b for b in key_ids] for a in ids]
    tensors = {"keys": keys, "key_labels": torch.tensor(key_labels), "form": form, "temperature": 0.5}
    got = sup_con(z, torch.tensor(labels), reduction="none", **tensors)  # type: ignore[arg-type]
    assert got.tolist() == pytest.approx(sup_con_by_loops(logits, labels, key_labels, nothing, form))
    tensors |= {"ids": torch.tensor(ids), "key_ids": torch.tensor(key_ids)}
    got = sup_con(z, torch.tensor(labels), reduction="none", **tensors)  # type: ignore[arg-type]
    assert got.tolist() == pytest.approx(sup_con_by_loops(logits, labels, key_labels, same, form))


@pytest.mark.parametrize("form", ["out", "in"])
def test_sup_con_gradient(form: Literal["out", "in"]) -> None:
    labels, upstream = torch.tensor([0, 1, 0, 1, 1, 4]), rows(6, seed=3)

    def value(z: Tensor, tau: Tensor) -> Tensor:
        return (sup_con(z, labels, form=form, temperature=tau, reduction="none") * upstream).sum()

    tau = torch.tensor(0.4, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(value, (rows(6, 3).requires_grad_(), tau))


def test_one_positive_makes_both_forms_equal() -> None:
    z, labels = rows(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    out, inside = (sup_con(z, labels, form=form, reduction="none") for form in FORMS)
    assert torch.allclose(out, inside, rtol=1e-12)


def test_labels_as_sparse_positives_give_the_same_loss() -> None:
    z, labels = rows(6, 4), torch.tensor([0, 1, 0, 0, 1, 2])
    pairs = ((labels[:, None] == labels) & ~torch.eye(6, dtype=torch.bool)).nonzero().T
    keys = torch.cat([z, rows(0, 4)])
    # Own rows stay candidates of the sparse form, so they are left out by id.
    ids = torch.arange(6)
    sparse = multi_positive_info_nce(z, keys, pairs, ids=ids, key_ids=ids, reduction="none")
    assert torch.allclose(sparse, sup_con(z, labels, reduction="none"), rtol=1e-12)


def test_base_temperature_scales() -> None:
    z, labels = rows(4, 3), torch.tensor([0, 0, 1, 1])
    plain = sup_con(z, labels, temperature=0.2)
    assert torch.allclose(sup_con(z, labels, temperature=0.2, base_temperature=0.1), 2 * plain)


def test_no_positive_anywhere_is_zero_with_zero_gradient() -> None:
    z = rows(4, 3).requires_grad_()
    loss = sup_con(z, torch.arange(4))
    assert loss.item() == 0.0
    (gradient,) = torch.autograd.grad(loss, z)
    assert torch.equal(gradient, torch.zeros_like(z))
    assert float(sup_con(rows(0, 3), torch.zeros(0, dtype=torch.int64))) == 0.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": torch.zeros(3, dtype=torch.int64)}, r"labels must have shape \(2,\)"),
        ({"form": "sum"}, "form must be 'out' or 'in', got 'sum'"),
        ({"similarity": "sqeuclidean"}, "similarity must be 'cosine' or 'dot'"),
        ({"keys": torch.ones(2, 2)}, "keys need key_labels"),
        ({"key_labels": torch.arange(2)}, "key_labels without keys"),
        ({"base_temperature": -1.0}, "base_temperature must be a finite number above 0"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    call: dict[str, object] = {"labels": torch.zeros(2, dtype=torch.int64), **arguments}
    with pytest.raises(ValueError, match=message):
        sup_con(torch.ones(2, 2), **call)  # type: ignore[arg-type]
