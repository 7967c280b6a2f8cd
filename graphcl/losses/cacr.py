"""Contrastive attraction and repulsion as a module."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor, nn

from graphcl.functional.cacr import cacr
from graphcl.losses._base import LossOptions, checked
from graphcl.losses.protocol import LossOutput

__all__ = ["CACR"]


class CACR(nn.Module):
    """Contrastive attraction and contrastive repulsion; see `graphcl.functional.cacr`.

    Args:
        attraction_weight: alpha.
        repulsion_weight: beta.
        positive_sharpness: tau+.
        negative_sharpness: tau-.
        detach_weights: differentiate the costs only.
        options: ``reduction``, ``memory_budget``, ``backend``.

    Shapes: ``forward(*views (N, d), keys (C, d), ids (N,), key_ids (C,), return_components=False)``.

    >>> import torch
    >>> CACR()(torch.eye(3), torch.eye(3)).round()
    tensor(-2.)
    """

    def __init__(
        self,
        *,
        attraction_weight: float = 1.0,
        repulsion_weight: float = 1.0,
        positive_sharpness: float = 1.0,
        negative_sharpness: float = 1.0,
        detach_weights: bool = False,
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__()
        self.attraction_weight = attraction_weight
        self.repulsion_weight = repulsion_weight
        self.positive_sharpness = positive_sharpness
        self.negative_sharpness = negative_sharpness
        self.detach_weights = detach_weights
        self.options = checked(options)

    def forward(
        self,
        *views: Tensor,
        keys: Tensor | None = None,
        ids: Tensor | None = None,
        key_ids: Tensor | None = None,
        return_components: bool = False,
    ) -> LossOutput:
        return cacr(
            views,
            keys=keys,
            ids=ids,
            key_ids=key_ids,
            attraction_weight=self.attraction_weight,
            repulsion_weight=self.repulsion_weight,
            positive_sharpness=self.positive_sharpness,
            negative_sharpness=self.negative_sharpness,
            detach_weights=self.detach_weights,
            return_components=return_components,
            **self.options,
        )
