"""Published methods, one a file: ``forward`` gives embeddings, ``objective`` gives a scalar and its parts by name.

Names are looked up in a registry that imports a method's file when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from graphcl.models.registry import get_model, list_models, register_model
from graphcl.models.settings import ModelConfig, build_config, nearest_names

if TYPE_CHECKING:
    from graphcl.models.base import SequenceBatch, SequentialModel
    from graphcl.models.sasrec import SASRec, SASRecConfig

_LAZY = {
    "SASRec": "graphcl.models.sasrec",
    "SASRecConfig": "graphcl.models.sasrec",
    "SequenceBatch": "graphcl.models.base",
    "SequentialModel": "graphcl.models.base",
}

__all__ = [
    "ModelConfig",
    "SASRec",
    "SASRecConfig",
    "SequenceBatch",
    "SequentialModel",
    "build_config",
    "get_model",
    "list_models",
    "nearest_names",
    "register_model",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'graphcl.models' has no attribute {name!r}")
