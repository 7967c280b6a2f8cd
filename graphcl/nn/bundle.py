"""Encoders of items by their tokens and of bundles by their items, both by attention whose values are the inputs."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphcl.kernels import normalize_rows

__all__ = ["BundleEncoder", "TokenFusion", "pad_sets"]


class TokenFusion(nn.Module):
    r"""Attention among the few tokens of one item, without a value map, and their mean.

    .. math:: x_t = \frac{token_t}{|token_t|}, \quad A = \mathrm{softmax}\Big(\frac{x W_q^T (x W_k^T)^T}{\sqrt d}\Big),
        \quad z = \frac{1}{M} \sum_t (A x)_t

    A token of zeros stays zero, takes part in the softmax with score 0 and in the mean. Part of CLHE (Ma et al.,
    "Leveraging Multimodal Features and Item-level User Feedback for Bundle Construction", 2024,
    https://arxiv.org/abs/2310.18770).

    Args:
        width: d of the tokens.

    Complexity: O(N M d^2) time for N items of M tokens.

    Example:
        >>> TokenFusion(4)(torch.ones(2, 3, 4)).shape
        torch.Size([2, 4])
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """``(N, M, d)`` tokens to ``(N, d)``."""
        count, kinds, width = tokens.shape
        x = normalize_rows(tokens.reshape(-1, width)).reshape(count, kinds, width)
        scores = self.query(x) @ self.key(x).mT / math.sqrt(width)
        # The mean over the queries can be taken of the weights, before they meet the values.
        weights = torch.softmax(scores, dim=2).mean(dim=1)
        return (weights.unsqueeze(1) @ x).squeeze(1)


class BundleEncoder(nn.Module):
    r"""One vector a bundle: attention among its items, without a value map, and the mean over them.

    .. math:: x = \mathrm{LayerNorm}(X), \quad b = \frac{1}{n} \sum_t \Big(\mathrm{softmax}\Big(
        \frac{x W_q^T (x W_k^T)^T}{\sqrt d}\Big) x\Big)_t

    over the n items of the bundle; the layer norm has no parameters. Part of CLHE, see :class:`TokenFusion`.

    Args:
        width: d of the item vectors.
        frozen: keep the first weights for ever, as the published code does by an oversight; they are saved all the
            same.

    Complexity: O(b t d (d + t)) time and O(b t (d + t)) memory for b bundles of at most t items.

    Example:
        >>> encoder = BundleEncoder(4)
        >>> encoder(torch.randn(5, 4), torch.tensor([0, 2, 5])).shape
        torch.Size([2, 4])
    """

    def __init__(self, width: int, *, frozen: bool = False) -> None:
        super().__init__()
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.query.weight.requires_grad_(not frozen)
        self.key.weight.requires_grad_(not frozen)

    def forward(self, vectors: Tensor, offsets: Tensor) -> Tensor:
        """Encode sets of vectors.

        Args:
            vectors: ``(N, d)``, the vectors of all bundles one after the other.
            offsets: ``(b + 1,)`` where each bundle begins; none is empty.

        Returns:
            ``(b, d)``; the order of the items of a bundle does not matter.
        """
        padded, real = pad_sets(functional.layer_norm(vectors, vectors.shape[1:], eps=1e-9), offsets)
        scores = self.query(padded) @ self.key(padded).mT / math.sqrt(vectors.shape[1])
        weights = torch.softmax(scores.masked_fill(~real.unsqueeze(1), -torch.inf), dim=2)
        count = real.sum(dim=1, keepdim=True).to(vectors.dtype)
        # How much each item weighs in the mean over the real queries; then one product with the values.
        share = (weights * (real / count).unsqueeze(2)).sum(dim=1, keepdim=True)
        return (share @ padded).squeeze(1)


def pad_sets(vectors: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Sets of vectors side by side, shorter ones filled with zeros.

    Args:
        vectors: ``(N, d)``.
        offsets: ``(b + 1,)`` int64.

    Returns:
        ``(b, t, d)`` with t the size of the largest set, and ``(b, t)`` bool, which places are filled.

    Complexity: O(b t d).

    Example:
        >>> pad_sets(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([0, 1, 3]))[1].tolist()
        [[True, False], [True, True]]
    """
    sizes = offsets.diff()
    longest = int(sizes.max()) if sizes.shape[0] else 0
    real = torch.arange(longest, device=offsets.device) < sizes.unsqueeze(1)
    padded = vectors.new_zeros(sizes.shape[0], longest, vectors.shape[1])
    return padded.masked_scatter(real.unsqueeze(2), vectors), real
