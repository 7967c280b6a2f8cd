"""BaCon as modules: soft contrast, and a regulariser that remembers class frequencies."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor, nn

from graphcl.functional.bacon import bacon_log_prior, bacon_regularizer, bacon_sampling_rate, bacon_soft
from graphcl.losses._base import LossOptions, TemperatureLoss, checked
from graphcl.losses.temperature import Temperature

__all__ = ["BaConRegularizer", "BaConSoft", "estimate_class_counts"]


class BaConSoft(TemperatureLoss):
    """Contrast by the agreement of class probabilities; see `graphcl.functional.bacon_soft`.

    The published mixture is .65 NT-Xent + .175 SupCon (labelled samples) + .175 of this loss, which a `Sum` states.

    Args:
        temperature: a number or a `Temperature`; with one for every sample, ``forward`` needs ``ids``.
        options: ``reduction``, ``memory_budget``, ``backend``.

    Shapes: ``forward(z1 (N, d), z2 (N, d), probabilities (N, K), *, ids (N,), weight (N,))``.

    >>> import torch
    >>> BaConSoft(temperature=1.0)(torch.eye(2), torch.eye(2), torch.eye(2))
    tensor(0.5514)
    """

    def __init__(self, temperature: float | Temperature = 0.07, **options: Unpack[LossOptions]) -> None:
        super().__init__(temperature)
        self.options = checked(options)

    def forward(
        self,
        z1: Tensor,
        z2: Tensor,
        probabilities: Tensor,
        *,
        ids: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        return bacon_soft(z1, z2, probabilities, temperature=self.temperature_of(ids), weight=weight, **self.options)


class BaConRegularizer(nn.Module):
    """Keeps the mean prediction close to remembered class frequencies; see `graphcl.functional.bacon_regularizer`.

    Args:
        num_classes: K.
        power: of the frequencies.
        temperature: of the predictions.

    Shapes: ``forward(logits (N, K))``.

    >>> import torch
    >>> loss = BaConRegularizer(2)
    >>> loss.set_counts(torch.tensor([3.0, 1.0]))
    >>> bool(loss(torch.zeros(4, 2)) > 0)
    True
    """

    def __init__(self, num_classes: int, *, power: float = 1.1, temperature: float = 0.1) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        self.power = power
        self.temperature = temperature
        self.counts: Tensor
        self.register_buffer("counts", torch.ones(num_classes))

    @torch.no_grad()
    def set_counts(self, counts: Tensor) -> None:
        """Take ``(K,)`` frequencies, for instance of `estimate_class_counts`."""
        if counts.shape != self.counts.shape or bool((counts <= 0).any()):
            raise ValueError(f"counts must be {self.counts.shape[0]} numbers above 0, got {counts}")
        self.counts.copy_(counts)

    @property
    def log_prior(self) -> Tensor:
        """``(K,)`` adjustment of the logits of a pseudo-label; see `graphcl.functional.bacon_log_prior`."""
        return bacon_log_prior(self.counts)

    def sampling_rate(self, known: Tensor, *, known_power: float = 0.8, novel_power: float = 0.5) -> Tensor:
        """``(K,)`` share of pseudo-labelled samples to keep; see `graphcl.functional.bacon_sampling_rate`."""
        return bacon_sampling_rate(self.counts, known, known_power=known_power, novel_power=novel_power)

    def forward(self, logits: Tensor) -> Tensor:
        return bacon_regularizer(logits, self.counts.to(logits), power=self.power, temperature=self.temperature)

    def extra_repr(self) -> str:
        return f"num_classes={self.counts.shape[0]}, power={self.power}, temperature={self.temperature}"


@torch.no_grad()
def estimate_class_counts(
    embeddings: Tensor, labels: Tensor, num_classes: int, *, num_known: int, seed: int = 0
) -> Tensor:
    """Frequencies of known and novel classes: k-means, known classes matched by their labelled samples.

    J. Bai et al., "Towards Distribution-Agnostic Generalized Category Discovery", 2023,
    https://arxiv.org/abs/2310.01376. Confidence: V.

    Args:
        embeddings: ``(n, d)``.
        labels: ``(n,)`` integers in ``0 .. num_known - 1``, -1 for samples without a label.
        num_classes: K, clusters to look for.
        num_known: classes that have labels; they come first.
        seed: of k-means.

    Returns:
        ``(K,)`` counts, at least 1: of the known classes in their order, then of the other clusters, largest first.

    Raises:
        ValueError: sizes out of range.

    Complexity: O(n K d) an iteration of k-means, O(K^3) for the matching.

    >>> import torch
    >>> z = torch.tensor([[0.0], [0.1], [0.2], [5.0], [9.0], [9.1]])
    >>> estimate_class_counts(z, torch.tensor([-1, -1, -1, 0, -1, -1]), 3, num_known=1)
    tensor([1., 3., 2.])
    """
    from scipy.optimize import linear_sum_assignment
    from sklearn.cluster import KMeans

    if not 0 <= num_known <= num_classes <= embeddings.shape[0]:
        raise ValueError(
            f"num_known <= num_classes <= samples must hold, got {num_known}, {num_classes} and {embeddings.shape[0]}"
        )
    rows = embeddings.detach().to("cpu", torch.float64).numpy()
    found = torch.from_numpy(KMeans(num_classes, n_init=10, random_state=seed).fit_predict(rows)).long()
    sizes = torch.bincount(found, minlength=num_classes)
    labels = labels.to("cpu").long()
    table = torch.zeros(num_known, num_classes, dtype=torch.int64)
    labelled = labels >= 0
    table.index_put_((labels[labelled], found[labelled]), torch.ones((), dtype=torch.int64), accumulate=True)
    matched = torch.from_numpy(linear_sum_assignment(table.numpy(), maximize=True)[1]).long()
    novel = torch.ones(num_classes, dtype=torch.bool)
    novel[matched] = False
    counts = torch.cat([sizes[matched], sizes[novel].sort(descending=True).values])
    return counts.clamp(min=1).to(embeddings.device, torch.get_default_dtype())
