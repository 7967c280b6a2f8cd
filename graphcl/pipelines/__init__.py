"""Data in, model and metrics out: the pipelines train, measure, save and serve, and are the only users of a trainer."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphcl.errors import InputError

if TYPE_CHECKING:
    from graphcl.pipelines.alignment import ItemAligner
    from graphcl.pipelines.base import Embeddings, Pipeline, TrainedPipeline
    from graphcl.pipelines.bundle import BundleConstructor
    from graphcl.pipelines.clustering import NodeClusterer
    from graphcl.pipelines.collaborative import CollaborativeRecommender
    from graphcl.pipelines.embedding import NodeEmbedder
    from graphcl.pipelines.events import EventScorer
    from graphcl.pipelines.retrieval import Retriever
    from graphcl.pipelines.retrieval_index import RetrievalIndex
    from graphcl.pipelines.runs import RunFolder
    from graphcl.pipelines.sequential import SequentialRecommender
    from graphcl.pipelines.unlearning import Unlearned, Unlearner
    from graphcl.pipelines.unlearning_report import UnlearningReport

# Task of a model -> module and class of the pipeline that trains it; imported when first asked for.
_PIPELINES = {
    "sequential": ("graphcl.pipelines.sequential", "SequentialRecommender"),
    "collaborative": ("graphcl.pipelines.collaborative", "CollaborativeRecommender"),
    "clustering": ("graphcl.pipelines.clustering", "NodeClusterer"),
    "embedding": ("graphcl.pipelines.embedding", "NodeEmbedder"),
    "alignment": ("graphcl.pipelines.alignment", "ItemAligner"),
    "bundle": ("graphcl.pipelines.bundle", "BundleConstructor"),
    "events": ("graphcl.pipelines.events", "EventScorer"),
    "retrieval": ("graphcl.pipelines.retrieval", "Retriever"),
}
_LAZY = {
    "Embeddings": "graphcl.pipelines.base",
    "RetrievalIndex": "graphcl.pipelines.retrieval_index",
    "Pipeline": "graphcl.pipelines.base",
    "RunFolder": "graphcl.pipelines.runs",
    "TrainedPipeline": "graphcl.pipelines.base",
    "Unlearned": "graphcl.pipelines.unlearning",
    "Unlearner": "graphcl.pipelines.unlearning",
    "UnlearningReport": "graphcl.pipelines.unlearning_report",
    **{name: module for module, name in _PIPELINES.values()},
}

__all__ = [
    "BundleConstructor",
    "CollaborativeRecommender",
    "Embeddings",
    "EventScorer",
    "ItemAligner",
    "NodeClusterer",
    "NodeEmbedder",
    "Pipeline",
    "RetrievalIndex",
    "Retriever",
    "RunFolder",
    "SequentialRecommender",
    "TrainedPipeline",
    "Unlearned",
    "Unlearner",
    "UnlearningReport",
    "create_pipeline",
    "load_pipeline",
]


def create_pipeline(model: str, settings: Mapping[str, Any] | None = None) -> Pipeline:
    """The pipeline that trains a model, by the model's name.

    Args:
        model: a name that :func:`graphcl.models.list_models` gives.
        settings: settings of the pipeline and of the model together; also the content of a run's ``config.yaml``, when
            it is a run of the same model.

    Returns:
        The pipeline, not yet fitted: a recommender, a clusterer or an embedder, as the model's task is.

    Raises:
        InputError: for an unknown model or setting, with the nearest known name.

    Example:
        >>> create_pipeline("sasrec", {"hidden": 32}).get_config()["hidden"]
        32
    """
    from graphcl.models import get_model, list_models

    get_model(model)
    task = next((task for task in _PIPELINES if model.lower() in list_models(task)), None)
    if task is None:
        raise InputError(f"no pipeline trains {model!r}", f"register it for one of the tasks {', '.join(_PIPELINES)}")
    given = dict(settings or {})
    for name, expected in (("pipeline", task), ("model", model.lower())):
        if given.pop(name, expected) != expected:
            found = (settings or {})[name]
            raise InputError(f"the settings are those of the {name} {found!r}, not {expected!r}", f"leave {name} out")
    pipeline: Pipeline = _pipeline_class(task).from_config({"model": model, **given})
    return pipeline


def load_pipeline(path: str | Path) -> Pipeline:
    """The fitted pipeline of a run folder.

    Args:
        path: a folder that ``fit(..., out=path)`` or ``save(path)`` wrote.

    Returns:
        The pipeline with its weights and its data, ready to evaluate and to serve.

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
    name = str(folder.read_config().get("pipeline"))
    if name not in _PIPELINES:
        raise InputError(f"unknown pipeline {name!r}", f"use one of: {', '.join(_PIPELINES)}", path=path)
    pipeline: Pipeline = _pipeline_class(name).load(path)
    return pipeline


def _pipeline_class(task: str) -> Any:
    module, name = _PIPELINES[task]
    return getattr(importlib.import_module(module), name)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'graphcl.pipelines' has no attribute {name!r}")
