"""Initial weights of the small networks that some losses own."""

from __future__ import annotations

import math

import torch
from torch import nn


@torch.no_grad()
def initialize_linear(module: nn.Module, generator: torch.Generator | None) -> None:
    """Uniform weights and biases of all linear layers, bounded by the inverse root of their width."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            bound = 1.0 / math.sqrt(layer.in_features)
            layer.weight.uniform_(-bound, bound, generator=generator)
            layer.bias.uniform_(-bound, bound, generator=generator)
