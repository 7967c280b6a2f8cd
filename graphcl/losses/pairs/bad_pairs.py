"""Weights for positive pairs by the history of their losses, for any loss that gives one number a pair."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from graphcl.functional.dbpm import bad_pair_weights
from graphcl.losses.state import PerSampleState

__all__ = ["BadPairMining"]


class BadPairMining(nn.Module):
    r"""Dynamic bad pair mining as a hook: remembers what each pair cost, and weighs bad pairs down after a warm-up.

    X. Lan, H. Yan, S. Hong, M. Feng, "Towards Enhancing Time Series Contrastive Learning: A Dynamic Bad Pair Mining
    Approach", 2024, https://arxiv.org/abs/2302.03357. Confidence: C. Call it with the losses of a batch
    (``reduction="none"``) and multiply them by what it returns.

    .. math:: \bar\ell_i = \operatorname{mean}_t \frac{1 + t}{E} \ell_{i,t}

    Mean and population standard deviation of these over the samples seen decide which pairs are bad; see
    `graphcl.functional.bad_pair_weights`.

    Args:
        num_samples: n of the data set.
        epochs: E, of the whole training.
        warmup_epochs: so many epochs all weights are 1.
        noisy_cut: deviations below the mean from which a pair is too easy.
        faulty_cut: deviations above the mean from which a pair is too hard.
        normalise: ``peak`` or ``none``.

    Raises:
        ValueError: epochs out of range.

    Shapes: ``forward(pair_loss (B,), ids (B,))`` gives weights ``(B,)``. In training mode the losses are remembered;
    statistics are those of the epochs before, taken in `set_epoch`. Complexity: O(B), O(n) an epoch.

    >>> import torch
    >>> mining = BadPairMining(3, epochs=2, warmup_epochs=1, faulty_cut=1.0)
    >>> losses, ids = torch.tensor([1.0, 1.0, 9.0]), torch.arange(3)
    >>> mining(losses, ids)
    tensor([1., 1., 1.])
    >>> mining.set_epoch(1)
    >>> mining(losses, ids) < 1
    tensor([False, False,  True])
    """

    def __init__(
        self,
        num_samples: int,
        *,
        epochs: int,
        warmup_epochs: int,
        noisy_cut: float = 2.0,
        faulty_cut: float = 3.0,
        normalise: Literal["peak", "none"] = "peak",
    ) -> None:
        super().__init__()
        if not 0 <= warmup_epochs <= epochs or epochs < 1:
            raise ValueError(
                f"warmup_epochs must lie in 0 .. epochs and epochs be above 0, got {warmup_epochs}, {epochs}"
            )
        self.epochs = epochs
        self.warmup_epochs = warmup_epochs
        self.noisy_cut = noisy_cut
        self.faulty_cut = faulty_cut
        self.normalise: Literal["peak", "none"] = normalise
        self.history = PerSampleState(num_samples, {"total": 0.0, "visits": 0.0, "mean": 0.0})
        self.epoch: Tensor
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("epoch", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("deviation", torch.zeros(()))

    @torch.no_grad()
    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch (from 0): take the statistics of the losses so far."""
        self.epoch.fill_(epoch)
        visits = self.history.vector("visits")
        means = self.history.vector("total") / visits.clamp(min=1.0)
        self.history.vector("mean").copy_(means)
        seen = means[visits > 0]
        if seen.numel() > 0:
            self.mean.copy_(seen.mean())
            self.deviation.copy_(seen.std(correction=0))

    @torch.no_grad()
    def forward(self, pair_loss: Tensor, ids: Tensor) -> Tensor:
        if pair_loss.shape != ids.shape:
            raise ValueError(f"pair_loss must have shape {tuple(ids.shape)}, got shape {tuple(pair_loss.shape)}")
        epoch = int(self.epoch)
        weights = torch.ones_like(pair_loss)
        if epoch >= self.warmup_epochs:
            weights = bad_pair_weights(
                pair_loss,
                self.history.read(ids, "mean"),
                mean=float(self.mean),
                deviation=float(self.deviation),
                noisy_cut=self.noisy_cut,
                faulty_cut=self.faulty_cut,
                normalise=self.normalise,
            )
            weights = torch.where(self.history.read(ids, "visits") > 0, weights, torch.ones_like(weights))
        if self.training:
            self._remember(pair_loss, ids, (1.0 + epoch) / self.epochs)
        return weights

    def _remember(self, pair_loss: Tensor, ids: Tensor, share: float) -> None:
        unique, index = torch.unique(ids, return_inverse=True)
        count = torch.bincount(index, minlength=unique.shape[0])
        total = self.history.read(unique, "total")
        self.history.write(
            unique,
            total=total.index_add(0, index, share * pair_loss.to(total)),
            visits=self.history.read(unique, "visits") + count,
        )
