"""A loss of your own in one file: write it, check it against the contract, mix it with others.

    python examples/custom_loss.py

The loss pushes embeddings of sessions apart, the more the farther they lie apart in time, on the pair engine (linear
memory) and with a learned temperature. Runs in a second.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphcl.functional import reduce_anchors
from graphcl.kernels import ExcludeSameIndex, LabelDistanceWeight, normalize_rows, pair_logsumexp
from graphcl.losses import NTXent, Sum, Temperature, Term
from graphcl.testing import check_loss


class TimeAwareContrast(nn.Module):
    """InfoNCE whose negatives weigh log(1 + time difference)."""

    def __init__(self, temperature: float = 0.2) -> None:
        super().__init__()
        self.temperature = Temperature(temperature, learnable=True, minimum=1e-4)

    def forward(self, z1: Tensor, z2: Tensor, day: Tensor) -> Tensor:
        x, y = normalize_rows(z1), normalize_rows(z2)
        tau = self.temperature()
        farther_pushes_more = LabelDistanceWeight(day, day, lambda days: torch.log(torch.log1p(days.to(x.dtype))))
        negatives = pair_logsumexp(x, y, temperature=tau, rules=(ExcludeSameIndex(), farther_pushes_more)).logsumexp
        positive = (x * y).sum(dim=1) / tau
        return reduce_anchors(torch.logaddexp(negatives - positive, torch.zeros_like(positive)))


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    z1, z2 = torch.randn(2, 8, 5, generator=generator)
    day = torch.tensor([0, 0, 1, 3, 3, 7, 9, 9])
    check_loss(TimeAwareContrast, (z1, z2, day), make_cold=lambda: TimeAwareContrast(1e-3))
    print("the loss keeps the contract")

    mixture = Sum(
        views=Term(NTXent(temperature=0.2), "z1", "z2"),
        time=Term(TimeAwareContrast(), "z1", "z2", "day", weight=0.5),
    )
    z1.requires_grad_()
    optimizer = torch.optim.Adam([z1, *mixture.parameters()], lr=0.05)
    for step in range(51):
        loss, parts = mixture(z1=z1, z2=z2, day=day)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 25 == 0:
            named = "  ".join(f"{name} {value.item():.3f}" for name, value in parts.items())
            print(f"step {step:2d}: loss {loss.item():.3f}  {named}")


if __name__ == "__main__":
    main()
