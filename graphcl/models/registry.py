"""Model names and the classes behind them; a class is imported when its name is first asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, TypeVar

from graphcl.errors import InputError
from graphcl.models.settings import nearest_names

ModelClass = TypeVar("ModelClass", bound=type)

# name -> (task, "module:class" or the class itself)
_MODELS: dict[str, tuple[str, str | type]] = {
    "adameow": ("embedding", "graphcl.models.adameow:AdaMEOW"),
    "ape": ("events", "graphcl.models.ape:APE"),
    "bgrl": ("embedding", "graphcl.models.bgrl:BGRL"),
    "cl4srec": ("sequential", "graphcl.models.cl4srec:CL4SRec"),
    "clhe": ("bundle", "graphcl.models.clhe:CLHE"),
    "dgi": ("embedding", "graphcl.models.dgi:DGI"),
    "dual_encoder": ("retrieval", "graphcl.models.dual_encoder:DualEncoder"),
    "duorec": ("sequential", "graphcl.models.duorec:DuoRec"),
    "grace": ("embedding", "graphcl.models.grace:GRACE"),
    "gru4rec": ("sequential", "graphcl.models.gru4rec:GRU4Rec"),
    "heco": ("embedding", "graphcl.models.heco:HeCo"),
    "htcl": ("alignment", "graphcl.models.htcl:HTCL"),
    "lightgcl": ("collaborative", "graphcl.models.lightgcl:LightGCL"),
    "lightgcn": ("collaborative", "graphcl.models.lightgcn:LightGCN"),
    "mclrec": ("sequential", "graphcl.models.mclrec:MCLRec"),
    "meow": ("embedding", "graphcl.models.meow:MEOW"),
    "mmhcl": ("collaborative", "graphcl.models.mmhcl:MMHCL"),
    "mvgrl": ("embedding", "graphcl.models.mvgrl:MVGRL"),
    "pamc": ("clustering", "graphcl.models.pamc:PamC"),
    "sasrec": ("sequential", "graphcl.models.sasrec:SASRec"),
    "scgc": ("clustering", "graphcl.models.scgc:SCGC"),
    "scgc_star": ("clustering", "graphcl.models.scgc:SCGCStar"),
    "sgl": ("collaborative", "graphcl.models.sgl:SGL"),
    "simgcl": ("collaborative", "graphcl.models.simgcl:SimGCL"),
    "sracl": ("sequential", "graphcl.models.sracl:SRACL"),
    "xsimgcl": ("collaborative", "graphcl.models.xsimgcl:XSimGCL"),
}


def register_model(name: str, task: str) -> Callable[[ModelClass], ModelClass]:
    """Class decorator that makes a model of your own known by name.

    Args:
        name: the name for ``--model`` and the pipelines.
        task: the pipeline that trains it, for example ``"sequential"``.

    Raises:
        ValueError: when the name is taken by another class.

    Example:
        >>> from graphcl.models import SASRec, get_model
        >>> @register_model("my-sasrec", task="sequential")
        ... class MySASRec(SASRec):
        ...     '''Same encoder, own name.'''
        >>> get_model("my-sasrec") is MySASRec
        True
        >>> unregister_model("my-sasrec")
    """

    def register(model: ModelClass) -> ModelClass:
        if name in _MODELS and _MODELS[name][1] is not model:
            raise ValueError(f"model name {name!r} is taken by {_MODELS[name][1]}")
        _MODELS[name] = (task, model)
        return model

    return register


def unregister_model(name: str) -> None:
    """Forget a name that :func:`register_model` added; an unknown name is no error."""
    _MODELS.pop(name, None)


def list_models(task: str | None = None) -> list[str]:
    """Known model names in alphabetical order, all of them or those of one task.

    Example:
        >>> "sasrec" in list_models("sequential")
        True
    """
    return sorted(name for name, (owner, _) in _MODELS.items() if task is None or owner == task)


def get_model(name: str, task: str | None = None) -> Any:
    """The model class behind a name.

    Args:
        name: a registered name; case does not matter.
        task: accept only models of this task.

    Raises:
        InputError: for an unknown name, with the nearest known ones.

    Example:
        >>> get_model("sasrec").__name__
        'SASRec'
    """
    known = list_models(task)
    key = name.lower()
    if key not in known:
        raise InputError(f"unknown model {name!r}", nearest_names(key, known))
    source = _MODELS[key][1]
    if isinstance(source, str):
        module, attribute = source.split(":")
        return getattr(importlib.import_module(module), attribute)
    return source
