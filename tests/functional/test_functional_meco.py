from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from graphcl.functional import meco


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_first_step_is_the_batch_objective() -> None:
    data, noise = rows(5).requires_grad_(), rows(7, seed=1).requires_grad_()
    log_q = rows(7, seed=2)
    ratios = [math.exp(float(s) - float(q)) for s, q in zip(noise, log_q, strict=True)]
    expected = math.log(sum(ratios) / 7) - float(data.mean())
    for log_u in (None, torch.tensor(-torch.inf)):
        step = meco(data, noise, log_q, log_u)
        assert float(step.loss.detach()) == pytest.approx(expected)
        assert float(step.log_u) == pytest.approx(math.log(sum(ratios) / 7))
    assert torch.autograd.gradcheck(lambda a, b: 0.3 * meco(a, b, log_q).loss, (data, noise))


@pytest.mark.parametrize("gamma", [0.1, 0.9, 1.0])
def test_later_steps_move_the_estimate_and_use_it(gamma: float) -> None:
    data, noise = rows(5).requires_grad_(), rows(7, seed=1).requires_grad_()
    log_q, before = rows(7, seed=2), torch.tensor(0.8, dtype=torch.float64)
    step = meco(data, noise, log_q, before, gamma=gamma)
    ratios = (noise - log_q).exp().detach()
    u = (1 - gamma) * math.exp(0.8) + gamma * float(ratios.mean())
    assert float(step.log_u) == pytest.approx(math.log(u))
    assert not step.log_u.requires_grad
    assert float(step.loss.detach()) == pytest.approx(math.log(u) - float(data.mean()))
    to_data, to_noise = torch.autograd.grad(step.loss, (data, noise))
    torch.testing.assert_close(to_data, torch.full((5,), -0.2, dtype=torch.float64))
    torch.testing.assert_close(to_noise, ratios / (7 * u))


def test_extreme_scores_and_no_data() -> None:
    noise = torch.tensor([1e4, -1e4], dtype=torch.float64, requires_grad=True)
    step = meco(rows(0), noise, torch.zeros(2, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(step.loss, noise)
    assert bool(step.loss.isfinite())
    assert gradient.tolist() == pytest.approx([1.0, 0.0])


def test_messages() -> None:
    with pytest.raises(ValueError, match="gamma must lie"):
        meco(rows(2), rows(2), rows(2), gamma=0.0)
    with pytest.raises(ValueError, match="noise_scores must not be empty"):
        meco(rows(2), rows(0), rows(0))
    with pytest.raises(ValueError, match=r"log_noise must have shape \(2,\)"):
        meco(rows(2), rows(2), rows(3))
