"""Contrastive learning on graphs and recommenders: exact, in linear memory, tested against reference numbers.

The top level loads nothing by itself: ``import graphcl`` stays under a second, and a room is imported when one of its
names is first asked for.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Public name -> room that holds it. Rooms themselves resolve the same way.
_EXPORTS = {
    "Interactions": "graphcl.data",
    "InputError": "graphcl.errors",
    "NodeClusterer": "graphcl.pipelines",
    "NodeEmbedder": "graphcl.pipelines",
    "SequentialRecommender": "graphcl.pipelines",
}
_ROOMS = (
    "cli",
    "data",
    "errors",
    "functional",
    "graphs",
    "integrations",
    "kernels",
    "losses",
    "metrics",
    "models",
    "nn",
    "pipelines",
    "report",
    "views",
)

__all__ = ["InputError", "Interactions", "NodeClusterer", "NodeEmbedder", "SequentialRecommender", "__version__"]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    if name in _ROOMS:
        return importlib.import_module(f"graphcl.{name}")
    raise AttributeError(f"module 'graphcl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS, *_ROOMS})
