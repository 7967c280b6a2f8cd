"""Multi-label cluster discrimination as a module that owns its centres."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Unpack

import torch
from torch import Tensor, nn

from graphcl.functional.mlcd import mlcd, nearest_centers
from graphcl.losses._base import LossOptions, checked
from graphcl.losses.layout import Layout, Pairs
from graphcl.losses.state import Prototypes

__all__ = ["MLCD"]


class MLCD(nn.Module):
    """Multi-label cluster discrimination; see `graphcl.functional.mlcd`.

    Args:
        num_centers: K.
        dim: d.
        scale: of the similarities.
        margin: subtracted from the similarity of positives.
        negative_ratio: part of the centres drawn as negatives in every call.
        learnable: whether the centres are trained.
        generator: draws the first centres; replace them with those of a clustering by `set_centers`.
        options: ``reduction``, ``memory_budget``, ``backend``.

    Shapes: ``forward(embeddings (N, d), positives, *, weight (N,), generator)``, positives ``(2, E)`` or compressed
    rows such as those of `assign`; the generator draws the negatives.

    >>> import torch
    >>> loss = MLCD(3, 3, scale=1.0, negative_ratio=1.0)
    >>> loss.set_centers(torch.eye(3))
    >>> loss(torch.eye(3), loss.assign(torch.eye(3), 1))
    tensor(1.4119, grad_fn=<DivBackward0>)
    """

    argument_layout: ClassVar[Mapping[str, Layout]] = {"positives": Pairs("embeddings", None)}

    def __init__(
        self,
        num_centers: int,
        dim: int,
        *,
        scale: float = 32.0,
        margin: float = 0.0,
        negative_ratio: float = 0.1,
        learnable: bool = True,
        generator: torch.Generator | None = None,
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__()
        if not 0.0 < negative_ratio <= 1.0:
            raise ValueError(f"negative_ratio must lie in (0, 1], got {negative_ratio}")
        self.centers = Prototypes(num_centers, dim, learnable=learnable, generator=generator)
        self.scale = scale
        self.margin = margin
        self.negative_ratio = negative_ratio
        self.options = checked(options)

    @torch.no_grad()
    def set_centers(self, centers: Tensor) -> None:
        """Take ``(K, d)`` centres of a clustering."""
        if centers.shape != self.centers.weight.shape:
            expected = tuple(self.centers.weight.shape)
            raise ValueError(f"centers must have shape {expected}, got shape {tuple(centers.shape)}")
        self.centers.weight.copy_(centers)
        self.centers.normalize()

    @torch.no_grad()
    def assign(
        self, embeddings: Tensor, count: int = 8, *, min_similarity: float | None = None
    ) -> tuple[Tensor, Tensor]:
        """The nearest centres of every row; see `graphcl.functional.nearest_centers`."""
        return nearest_centers(embeddings, self.centers().to(embeddings), count, min_similarity=min_similarity)

    def forward(
        self,
        embeddings: Tensor,
        positives: Tensor | tuple[Tensor, Tensor],
        *,
        weight: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        centers = self.centers().to(embeddings)
        negatives = None
        if self.negative_ratio < 1.0:
            count = max(1, round(self.negative_ratio * centers.shape[0]))
            device = None if generator is None else generator.device
            negatives = torch.randperm(centers.shape[0], generator=generator, device=device)[:count].to(centers.device)
        return mlcd(
            embeddings,
            centers,
            positives,
            negatives=negatives,
            scale=self.scale,
            margin=self.margin,
            weight=weight,
            **self.options,
        )

    def extra_repr(self) -> str:
        return f"scale={self.scale}, margin={self.margin}, negative_ratio={self.negative_ratio}"
