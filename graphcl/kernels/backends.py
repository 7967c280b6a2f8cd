"""Which implementation of a pair kernel runs: chosen per call, never by replacing names.

``reference``  plain torch on the dense matrix: slow, large, and obviously right. The truth of the tests.
``torch``      blocked torch with its own backward, on any device, in linear memory.
``triton``     fused CUDA kernels, in `graphcl.kernels.triton_pairs` and `graphcl.kernels.triton_cross_entropy`.
``auto``       ``triton`` on CUDA where it is installed and supports the call, ``torch`` everywhere else.
"""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType
from typing import Literal

import torch

__all__ = ["Backend"]

Backend = Literal["auto", "reference", "torch", "triton"]
_BACKENDS = ("auto", "reference", "torch", "triton")


def check_backend(backend: str) -> None:
    if backend not in _BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(_BACKENDS)}, got {backend!r}")


def load_triton(module: str) -> ModuleType:
    """Import ``graphcl.kernels.<module>``, saying what to install when Triton is not there."""
    if importlib.util.find_spec("triton") is None:
        raise ImportError(
            "backend 'triton' needs the triton package: pip install 'graphcl[triton]'; or pass backend='torch'"
        )
    return importlib.import_module(f"graphcl.kernels.{module}")


def triton_for(module: str, backend: str, device: torch.device) -> ModuleType | None:
    """Module to try for this call: always when asked for by name, on CUDA where it can be imported for ``auto``."""
    if backend == "triton":
        return load_triton(module)
    if backend == "auto" and device.type == "cuda" and importlib.util.find_spec("triton") is not None:
        return load_triton(module)
    return None
