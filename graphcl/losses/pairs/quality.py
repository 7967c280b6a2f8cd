"""Weights of positive pairs by the quality of their views, from parts of the samples and attention to them."""

from __future__ import annotations

from torch import Tensor, nn

from graphcl.functional.genview import attention_pool, quality_weights

__all__ = ["QualityWeights"]


class QualityWeights(nn.Module):
    """Weights of mean 1 for pairs of views: like foregrounds and unlike backgrounds count more.

    "GenView: Enhancing View Quality with Pretrained Generative Model for Self-Supervised Learning", 2024.
    Confidence: C. Pass the result as ``weight`` to any loss that takes one.

    Args:
        gamma: sharpness.

    Shapes: ``forward(features1, features2 (N, P, d), attention1, attention2 (N, P))`` gives ``(N,)`` without gradient.
    Complexity: O(N P d).

    >>> import torch
    >>> parts, attention = torch.eye(2).expand(3, 2, 2), torch.tensor([[1.0, 0.0]]).expand(3, 2)
    >>> QualityWeights()(parts, parts, attention, attention)
    tensor([1., 1., 1.])
    """

    def __init__(self, gamma: float = 1.0) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, features1: Tensor, features2: Tensor, attention1: Tensor, attention2: Tensor) -> Tensor:
        foreground1, background1 = attention_pool(features1, attention1)
        foreground2, background2 = attention_pool(features2, attention2)
        return quality_weights(foreground1, foreground2, background1, background2, gamma=self.gamma)

    def extra_repr(self) -> str:
        return f"gamma={self.gamma}"
