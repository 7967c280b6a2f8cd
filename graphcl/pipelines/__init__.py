"""Data in, model and metrics out: the pipelines train, measure, save and serve, and are the only users of a trainer."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphcl.errors import InputError

if TYPE_CHECKING:
    from graphcl.pipelines.runs import RunFolder
    from graphcl.pipelines.sequential import Embeddings, SequentialRecommender

_LAZY = {
    "Embeddings": "graphcl.pipelines.sequential",
    "RunFolder": "graphcl.pipelines.runs",
    "SequentialRecommender": "graphcl.pipelines.sequential",
}
# Task of a model -> pipeline that trains it.
_PIPELINES = {"sequential": "SequentialRecommender"}

__all__ = ["Embeddings", "RunFolder", "SequentialRecommender", "create_pipeline", "load_pipeline"]


def create_pipeline(model: str, settings: Mapping[str, Any] | None = None) -> SequentialRecommender:
    """The pipeline that trains a model, by the model's name.

    Args:
        model: a name that :func:`graphcl.models.list_models` gives.
        settings: settings of the pipeline and of the model together; also the content of a run's ``config.yaml``, when
            it is a run of the same model.

    Returns:
        The pipeline, not yet fitted.

    Raises:
        InputError: for an unknown model or setting, with the nearest known name.

    Example:
        >>> create_pipeline("sasrec", {"hidden": 32}).get_config()["hidden"]
        32
    """
    from graphcl.models import get_model, list_models

    get_model(model)
    task = next(task for task in _PIPELINES if model.lower() in list_models(task))
    given = dict(settings or {})
    for name, expected in (("pipeline", task), ("model", model.lower())):
        if given.pop(name, expected) != expected:
            found = (settings or {})[name]
            raise InputError(f"the settings are those of the {name} {found!r}, not {expected!r}", f"leave {name} out")
    pipeline: SequentialRecommender = __getattr__(_PIPELINES[task]).from_config({"model": model, **given})
    return pipeline


def load_pipeline(path: str | Path) -> SequentialRecommender:
    """The fitted pipeline of a run folder.

    Args:
        path: a folder that ``fit(..., out=path)`` or ``save(path)`` wrote.

    Returns:
        The pipeline with its weights and its data, ready to evaluate and to recommend.

    Raises:
        InputError: when the folder is incomplete or damaged.

    Example:
        >>> load_pipeline("no-such-run")
        Traceback (most recent call last):
        graphcl.errors.InputError: no-such-run: no such run folder; give a folder that `graphcl train` wrote
    """
    from graphcl.pipelines.runs import RunFolder

    folder = RunFolder(Path(path))
    folder.require_complete()
    name = folder.read_config().get("pipeline", "sequential")
    if name not in _PIPELINES:
        raise InputError(f"unknown pipeline {name!r}", f"use one of: {', '.join(_PIPELINES)}", path=path)
    pipeline: SequentialRecommender = __getattr__(_PIPELINES[name]).load(path)
    return pipeline


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'graphcl.pipelines' has no attribute {name!r}")
