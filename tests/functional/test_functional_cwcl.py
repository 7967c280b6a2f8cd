from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from graphcl.functional import cwcl, info_nce


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def unit(x: Tensor) -> Tensor:
    return torch.nn.functional.normalize(x)


def weighted_by_loops(x: Tensor, y: Tensor, teacher: Tensor, tau: float) -> list[float]:
    losses = []
    for i in range(len(x)):
        weights = [(float(unit(teacher)[i] @ unit(teacher)[j]) + 1) / 2 for j in range(len(x))]
        logits = [float(unit(x)[i] @ unit(y)[j]) / tau for j in range(len(x))]
        total = math.log(sum(math.exp(v) for v in logits))
        losses.append(sum(w * (total - v) for w, v in zip(weights, logits, strict=True)) / sum(weights))
    return losses


@pytest.mark.parametrize("ids", [None, [0, 0, 2, 3, 2]])
def test_equals_loops(ids: list[int] | None) -> None:
    x, y, teacher = rows(5, 3), rows(5, 3, seed=1), rows(5, 2, seed=2)
    teacher[3] = 0.0
    named = None if ids is None else torch.tensor(ids)
    loss, parts = cwcl(x, y, teacher, ids=named, temperature=0.3, return_components=True, reduction="none")
    assert parts["weighted"].tolist() == pytest.approx(weighted_by_loops(x, y, teacher, 0.3))
    reverse = info_nce(y, x, ids=named, temperature=0.3, reduction="none")
    assert torch.allclose(parts["reverse"], reverse, rtol=1e-12)
    assert torch.allclose(torch.as_tensor(loss), parts["weighted"] + parts["reverse"])
    halved = torch.as_tensor(cwcl(x, y, teacher, ids=named, temperature=0.3, average=True))
    assert float(halved) == pytest.approx(float(loss.mean()) / 2)


def test_opposite_teachers_of_two_samples_give_plain_info_nce() -> None:
    x, y = rows(2, 3), rows(2, 3, seed=1)
    teacher = torch.tensor([[1.0], [-1.0]])
    both = 2 * info_nce(x, y, temperature=0.2, symmetric=True)
    assert torch.allclose(torch.as_tensor(cwcl(x, y, teacher, temperature=0.2)), both, rtol=1e-12)


def test_constant_teacher_gives_uniform_targets() -> None:
    x, y = rows(4, 3), rows(4, 3, seed=1)
    _, parts = cwcl(x, y, torch.ones(4, 2), temperature=0.2, return_components=True)
    logits = unit(x) @ unit(y).T / 0.2
    assert torch.allclose(parts["weighted"], -torch.log_softmax(logits, dim=1).mean(), rtol=1e-12)


def test_gradient_reaches_embeddings_and_not_the_teacher() -> None:
    teacher, upstream = rows(4, 2, seed=2).requires_grad_(), rows(4, seed=3)

    def value(x: Tensor, y: Tensor, tau: Tensor) -> Tensor:
        loss = torch.as_tensor(cwcl(x, y, teacher, temperature=tau, reduction="none"))
        return (loss * upstream).sum()

    x, y = rows(4, 3).requires_grad_(), rows(4, 3, seed=1).requires_grad_()
    tau = torch.tensor([0.5, 0.4, 0.6, 0.8], dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(value, (x, y, tau))
    value(x, y, tau).backward()  # type: ignore[no-untyped-call]
    assert teacher.grad is None


def test_one_sample_and_none_give_zero() -> None:
    for num in (0, 1):
        x = rows(num, 3)
        assert float(torch.as_tensor(cwcl(x, x, rows(num, 2)))) == pytest.approx(0.0, abs=1e-12)


def test_bad_arguments_are_named() -> None:
    x = torch.ones(3, 2)
    with pytest.raises(ValueError, match=r"teacher must have shape \(3, features\), got shape \(2, 2\)"):
        cwcl(x, x, torch.ones(2, 2))
    with pytest.raises(ValueError, match="similarity must be 'cosine' or 'dot'"):
        cwcl(x, x, x, similarity="sqeuclidean")  # type: ignore[arg-type]
