"""RecBole's YAML files and atomic files, read without RecBole."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphcl.data import Split, k_core, leave_one_out, read_interactions, split_by_ratio
from graphcl.errors import InputError, nearest
from graphcl.models import list_models
from graphcl.pipelines import Pipeline, create_pipeline

__all__ = ["RecBoleSettings", "load_recbole", "model_settings", "read_recbole_settings"]

# RecBole's name of a setting -> ours, for models and for their training.
OF_MODELS = {
    "hidden_size": "hidden", "embedding_size": "hidden", "n_layers": "layers", "n_heads": "heads",
    "inner_size": "inner",
    "hidden_dropout_prob": "dropout", "dropout_prob": "dropout", "attn_dropout_prob": "attention_dropout",
    "layer_norm_eps": "layer_norm_eps", "initializer_range": "init_std", "MAX_ITEM_LIST_LENGTH": "max_length",
}  # fmt: skip
_OF_TRAINING = {
    "epochs": "epochs", "train_batch_size": "batch_size", "learning_rate": "learning_rate", "stopping_step": "patience",
    "seed": "seed",
}  # fmt: skip
_OF_DATA = (
    "model", "dataset", "data_path", "USER_ID_FIELD", "ITEM_ID_FIELD", "TIME_FIELD", "RATING_FIELD", "load_col",
    "user_inter_num_interval", "item_inter_num_interval", "val_interval", "eval_args", "valid_metric",
)  # fmt: skip
# What has one admissible value here: (values that mean the same, what to do otherwise).
_FIXED: dict[str, tuple[tuple[Any, ...], str]] = {
    "loss_type": (("CE",), "our sequential models train with the full softmax, CE"),
    "hidden_act": (("gelu",), "the blocks use gelu"),
    "rm_dup_inter": ((None,), "drop repeated pairs before"),
    "train_neg_sample_args": ((None,), "leave negative sampling out"),
    "learner": (("adam",), "training uses Adam"),
    "weight_decay": ((0, 0.0, None), "training has no weight decay"),
    "field_separator": (("\t",), "write the file with tabs"),
}
# What says how RecBole runs, logs or batches, and changes no number of ours.
_LISTED = (
    "gpu_id", "use_gpu", "device", "show_progress", "state", "log_wandb", "save_dataset", "save_dataloaders", "worker",
    "reproducibility", "checkpoint_dir", "eval_batch_size", "eval_step", "metrics", "topk", "metric_decimal_place",
    "valid_metric_bigger", "benchmark_filename", "encoding", "shuffle", "NEG_PREFIX", "LIST_SUFFIX", "POSITION_FIELD",
    "ITEM_LIST_LENGTH_FIELD", "LABEL_FIELD", "unused_col", "config_files", "seq_separator", "enable_amp",
)  # fmt: skip
_METRICS = {"hit": "HR", "recall": "Recall", "precision": "Precision", "ndcg": "NDCG", "mrr": "MRR", "map": "MAP"}


@dataclass(frozen=True)
class RecBoleSettings:
    """What RecBole's settings mean here.

    Attributes:
        model: name of one of our models.
        settings: of its pipeline.
        path: the ``.inter`` file.
        columns: of the file by role.
        user_core, item_core: least interactions of a user and of an item.
        min_value: least rating; None for all.
        ratios: of a split by ratio within users; None for leave-one-out.
        listed: RecBole settings that change nothing here.
    """

    model: str
    settings: Mapping[str, Any]
    path: Path
    columns: Mapping[str, str]
    user_core: int
    item_core: int
    min_value: float | None
    ratios: tuple[float, float, float] | None
    listed: tuple[str, ...]


def load_recbole(files: str | Path | Sequence[str | Path], **more: Any) -> tuple[Pipeline, Split, RecBoleSettings]:
    """A pipeline and the split that RecBole's settings describe.

    Args:
        files: YAML files; later ones win.
        **more: settings by RecBole's names, which win over the files.

    Returns:
        The pipeline, ready to ``fit`` the split, and what was understood; ``listed`` names what has no meaning here.

    Raises:
        InputError: as `read_recbole_settings`, or bad data.

    Complexity:
        O(rows).
    """
    found = read_recbole_settings(files, **more)
    pipeline = create_pipeline(found.model, found.settings)
    reading: dict[str, Any] = {"min_value": found.min_value, **found.columns}
    log = read_interactions(found.path, format="atomic", item_features=False, user_features=False, **reading)
    if max(found.user_core, found.item_core) > 1:
        log = k_core(log, found.user_core, found.item_core)
    return pipeline, leave_one_out(log) if found.ratios is None else split_by_ratio(log, found.ratios), found


def read_recbole_settings(files: str | Path | Sequence[str | Path], **more: Any) -> RecBoleSettings:
    """Understand RecBole's settings, or refuse those that would change a number.

    Args:
        files: YAML files; later ones win.
        **more: settings by RecBole's names, which win over the files.

    Returns:
        Their meaning here.

    Raises:
        InputError: a file that is no YAML, no model or data set named, an unknown setting (the nearest known is named),
            or one with a value that has no counterpart here.

    Complexity:
        O(settings).

    Example:
        >>> found = read_recbole_settings([], model="SASRec", dataset="ml-100k", hidden_size=32, show_progress=False)
        >>> found.model, found.path.as_posix(), found.settings["hidden"], found.listed
        ('sasrec', 'dataset/ml-100k/ml-100k.inter', 32, ('show_progress',))
    """
    given: dict[str, Any] = {}
    for file in [files] if isinstance(files, str | Path) else files:
        given |= _read_yaml(Path(file))
    given |= more
    known = (*OF_MODELS, *_OF_TRAINING, *_OF_DATA, *_FIXED, *_LISTED)
    for name, value in given.items():
        if name not in known:
            raise InputError(f"the RecBole setting {name!r} has no counterpart", f"{nearest(name, known)}leave it out")
        if name in _FIXED and value not in _FIXED[name][0]:
            raise InputError(f"the RecBole setting {name} cannot be {value!r} here", _FIXED[name][1])
    for name in ("model", "dataset"):
        if not isinstance(given.get(name), str):
            raise InputError(f"the RecBole settings name no {name}", f"add {name}: NAME")
    model = given["model"].lower().removeprefix("graphcl")
    if model not in (*list_models("sequential"), *list_models("collaborative")):
        known_models = [*list_models("sequential"), *list_models("collaborative")]
        raise InputError(
            f"no model of ours is called {model!r}", f"{nearest(model, known_models)}use one of {known_models}"
        )
    settings = {ours: given[name] for name, ours in (OF_MODELS | _OF_TRAINING).items() if name in given}
    if "valid_metric" in given:
        name, _, cutoff = str(given["valid_metric"]).partition("@")
        if name.lower() not in _METRICS or not cutoff.isdigit():
            raise InputError(
                f"valid_metric {given['valid_metric']!r} has no counterpart", f"use {', '.join(_METRICS)} with @k"
            )
        settings["metric"] = f"{_METRICS[name.lower()]}@{cutoff}"
    rating = str(given.get("RATING_FIELD", "rating"))
    return RecBoleSettings(
        model=model,
        settings=settings,
        path=Path(str(given.get("data_path", "dataset"))) / given["dataset"] / f"{given['dataset']}.inter",
        columns=_columns(given),
        user_core=_least(given.get("user_inter_num_interval"), "user_inter_num_interval"),
        item_core=_least(given.get("item_inter_num_interval"), "item_inter_num_interval"),
        min_value=_least_value(given.get("val_interval"), rating),
        ratios=_ratios(given.get("eval_args")),
        listed=tuple(name for name in given if name in _LISTED),
    )


def model_settings(config_class: Any, get: Any) -> dict[str, Any]:
    """Settings of a model of ours from RecBole's or our own names.

    Args:
        config_class: of the model.
        get: a function from a name to RecBole's value, None where it has none.

    Returns:
        Settings that the class accepts; our own names win.
    """
    fields = config_class.model_fields
    settings = {ours: get(name) for name, ours in OF_MODELS.items() if ours in fields and get(name) is not None}
    return settings | {name: get(name) for name in fields if get(name) is not None}


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", "give an existing YAML file", path=path) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError("not valid YAML", "write one 'key: value' a line", path=path) from error
    if content is not None and not isinstance(content, dict):
        raise InputError("not a mapping of settings", "write one 'key: value' a line", path=path)
    return content or {}


def _columns(given: Mapping[str, Any]) -> dict[str, str]:
    roles = {"user": "USER_ID_FIELD", "item": "ITEM_ID_FIELD", "time": "TIME_FIELD", "value": "RATING_FIELD"}
    defaults = {"user": "user_id", "item": "item_id", "time": "timestamp", "value": "rating"}
    named = {role: str(given.get(field, defaults[role])) for role, field in roles.items()}
    loaded = (given.get("load_col") or {}).get("inter")
    if loaded is None:
        return {role: name for role, name in named.items() if role in ("user", "item") or roles[role] in given}
    for role in ("user", "item"):
        if named[role] not in loaded:
            raise InputError(
                f"load_col does not load the {role} column {named[role]!r}", f"add it, or set {roles[role]}"
            )
    return {role: name for role, name in named.items() if name in loaded}


_INTERVAL = re.compile(r"\s*([\[(])\s*(-?[\d.]+)\s*,\s*(inf|-?[\d.]*)\s*[\])]\s*")


def _bounds(text: Any, name: str) -> tuple[bool, float]:
    matched = _INTERVAL.fullmatch(str(text))
    if matched is None or matched[3] not in ("inf", ""):
        raise InputError(f"{name} {text!r} has no counterpart", 'give a lower bound alone, such as "[5,inf)"')
    return matched[1] == "(", float(matched[2])


def _least(text: Any, name: str) -> int:
    if text is None:
        return 1
    is_open, bound = _bounds(text, name)
    return max(1, int(bound) + 1 if is_open and bound == int(bound) else -int(-bound // 1))


def _least_value(intervals: Any, rating: str) -> float | None:
    if not intervals:
        return None
    if list(intervals) != [rating]:
        raise InputError(f"val_interval of {list(intervals)} has no counterpart", f"filter by {rating} alone")
    is_open, bound = _bounds(intervals[rating], "val_interval")
    if is_open:
        raise InputError("val_interval with an open lower bound has no counterpart", 'write "[3,inf)"')
    return bound


def _ratios(arguments: Any) -> tuple[float, float, float] | None:
    given = dict(arguments or {})
    split = given.get("split", {"LS": "valid_and_test"})
    for name, allowed in (("order", ("TO",)), ("group_by", ("user",)), ("mode", ("full",))):
        value = given.get(name, allowed[0])
        if isinstance(value, Mapping):
            value = next((entry for entry in value.values() if entry not in allowed), allowed[0])
        if value not in allowed:
            raise InputError(f"eval_args with {name} {value!r} has no counterpart", f"use {allowed[0]}")
    if split == {"LS": "valid_and_test"}:
        return None
    parts = split.get("RS") if isinstance(split, Mapping) and list(split) == ["RS"] else None
    if not isinstance(parts, list) or len(parts) != 3:
        raise InputError(
            f"eval_args with the split {split!r} has no counterpart", "use LS: valid_and_test, or RS: [a, b, c]"
        )
    first, second, third = (float(part) / sum(parts) for part in parts)
    return first, second, third
