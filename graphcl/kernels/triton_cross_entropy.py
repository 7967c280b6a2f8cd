"""Triton backend of `linear_cross_entropy`: the pair kernels over tokens and classes, with the target taken along.

Forward: one sweep over the catalogue per block of tokens keeps the log-sum-exp and picks up the logit of the target.
Backward: one sweep gives the gradient of the tokens, one that of the classes and the bias, both from recomputed logits;
``softmax - one_hot(target)`` is formed inside the tile, so nothing is scattered and nothing is added atomically.
"""

from __future__ import annotations

import torch
from torch import Tensor

from graphcl.kernels import _triton_launch as launch
from graphcl.kernels._arguments import compute_dtype
from graphcl.kernels.triton_pairs import Blocks, RuleTensors, Statistics

__all__ = ["supports", "token_losses"]


def supports(hidden: Tensor, weight: Tensor) -> bool:
    """Whether ``auto`` should take these kernels; float64 serves verification and is left to ``torch``."""
    return hidden.dtype != torch.float64


def token_losses(hidden: Tensor, weight: Tensor, target: Tensor, bias: Tensor | None, blocks: Blocks = None) -> Tensor:
    """``logsumexp_v(l_tv) - l_t,target`` per token, ``(T,)`` in the accumulation type. Targets are classes."""
    launch.check_device(hidden.device)
    scale = torch.ones(hidden.shape[0], dtype=compute_dtype(hidden.dtype), device=hidden.device)
    losses: Tensor = Statistics.apply(  # type: ignore[no-untyped-call]
        hidden, weight, scale, None, bias, target.long().contiguous(), RuleTensors(), 0, blocks
    )[0]
    return losses


def weighted_cross_entropy(
    hidden: Tensor, weight: Tensor, target: Tensor, bias: Tensor | None, share: Tensor, blocks: Blocks = None
) -> Tensor:
    """``sum_t share_t L_t``; an infinite loss of a token with share 0 does not count."""
    losses = token_losses(hidden, weight, target, bias, blocks)
    return (losses.masked_fill(share == 0, 0.0) * share).sum()
