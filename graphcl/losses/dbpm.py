"""Dynamic bad pair mining as a module that remembers the losses of every sample."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from graphcl.functional.dbpm import Normalise, dbpm
from graphcl.losses._base import LossOptions, TemperatureLoss, checked
from graphcl.losses.protocol import LossOutput, split_output
from graphcl.losses.state import PerSampleState
from graphcl.losses.temperature import Temperature

__all__ = ["DBPM"]


class DBPM(TemperatureLoss):
    r"""NT-Xent with weights of the pairs from their history; see `graphcl.functional.dbpm`.

    Every call in training mode adds the losses of its samples to their history, later epochs counting more:
    :math:`\ell (1 + t) / E`. Call `set_epoch` when an epoch begins: it takes the statistics that the epoch works with.

    Args:
        num_samples: n of the data set.
        num_epochs: E.
        warmup: epochs before pairs are weighted; five eighths of all by default, as published (50 of 80).
        temperature: a number or a `Temperature`.
        noisy_cut: see `graphcl.functional.bad_pair_weights`.
        faulty_cut: likewise.
        normalise: likewise.
        options: ``reduction``, ``memory_budget``, ``backend``.

    Shapes: ``forward(z1 (N, d), z2 (N, d), ids (N,), *, return_components=False)``, ids in ``0 .. n - 1``, once each.

    >>> import torch
    >>> loss = DBPM(10, num_epochs=8, temperature=1.0)
    >>> loss(torch.eye(3), torch.eye(3), torch.tensor([4, 0, 9]))
    tensor(0.9048)
    >>> loss.set_epoch(5)
    >>> loss.history.read(torch.tensor([4, 1]), "mean")
    tensor([0.1131, 0.1131])
    """

    def __init__(
        self,
        num_samples: int,
        num_epochs: int,
        *,
        warmup: int | None = None,
        temperature: float | Temperature = 0.2,
        noisy_cut: float = 2.0,
        faulty_cut: float = 3.0,
        normalise: Normalise = "peak",
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(temperature)
        if num_epochs < 1:
            raise ValueError(f"num_epochs must be at least 1, got {num_epochs}")
        self.num_epochs = num_epochs
        self.warmup = num_epochs * 5 // 8 if warmup is None else warmup
        self.noisy_cut = noisy_cut
        self.faulty_cut = faulty_cut
        self.normalise: Normalise = normalise
        self.options = checked(options)
        self.history = PerSampleState(num_samples, {"sum": 0.0, "count": 0.0, "mean": 0.0})
        self.epoch: Tensor
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("epoch", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("deviation", torch.zeros(()))

    @torch.no_grad()
    def set_epoch(self, epoch: int) -> None:
        """Tell which epoch (from 0) begins, and take the statistics of the history so far."""
        self.epoch.fill_(epoch)
        total, count = self.history.vector("sum"), self.history.vector("count")
        seen = count > 0
        if not bool(seen.any()):
            return
        means = total / count.clamp(min=1)
        self.mean.copy_(means[seen].mean())
        self.deviation.copy_(means[seen].std(correction=0))
        # A sample that was never seen is as good as the average one.
        self.history.vector("mean").copy_(torch.where(seen, means, self.mean.to(means)))

    def forward(self, z1: Tensor, z2: Tensor, ids: Tensor, *, return_components: bool = False) -> LossOutput:
        weighted = int(self.epoch) >= self.warmup
        loss, parts = split_output(
            dbpm(
                z1,
                z2,
                self.history.read(ids, "mean") if weighted else None,
                mean=float(self.mean),
                deviation=float(self.deviation),
                noisy_cut=self.noisy_cut,
                faulty_cut=self.faulty_cut,
                normalise=self.normalise,
                temperature=self.temperature_of(ids),
                return_components=True,
                **self.options,
            )
        )
        if self.training:
            current = parts["pair_loss"].detach() * ((1 + int(self.epoch)) / self.num_epochs)
            total, count = self.history.read(ids, "sum"), self.history.read(ids, "count")
            self.history.write(ids, sum=total + current.to(total), count=count + 1.0)
        return (loss, parts) if return_components else loss

    def extra_repr(self) -> str:
        return f"num_epochs={self.num_epochs}, warmup={self.warmup}, cuts=({self.noisy_cut}, {self.faulty_cut})"
