"""RecBole's YAML files and atomic files, read without RecBole."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from graphcl.data import IdMap, Split, k_core, leave_one_out, read_features, read_interactions, split_by_ratio
from graphcl.errors import InputError, nearest
from graphcl.models import CollaborativeConfig, GRU4RecConfig, get_model, list_models
from graphcl.models.settings import named_settings
from graphcl.pipelines import Pipeline, create_pipeline
from graphcl.pipelines.catalogue import with_items

__all__ = [
    "RECBOLE_MODEL_SETTINGS",
    "RECBOLE_SETTINGS",
    "RecBoleSettings",
    "load_recbole",
    "model_settings",
    "models_with",
    "read_recbole_settings",
]

# Our setting of a model -> RecBole's names of it, of which the first that is given counts. RecBole's GRU4Rec calls the
# recurrent state hidden_size, which is the width of everything in its SASRec.
_ATTENTION = {
    "hidden": ("hidden_size", "embedding_size"), "layers": ("n_layers",), "heads": ("n_heads",),
    "inner": ("inner_size",), "dropout": ("hidden_dropout_prob", "dropout_prob"),
    "attention_dropout": ("attn_dropout_prob",), "layer_norm_eps": ("layer_norm_eps",),
    "init_std": ("initializer_range",), "max_length": ("MAX_ITEM_LIST_LENGTH",),
}  # fmt: skip
_RECURRENT = {
    "hidden": ("embedding_size",), "layers": ("num_layers", "n_layers"), "inner": ("hidden_size", "inner_size"),
    "dropout": ("dropout_prob", "hidden_dropout_prob"), "max_length": ("MAX_ITEM_LIST_LENGTH",),
}  # fmt: skip
_GRAPH = {"hidden": ("embedding_size", "hidden_size"), "layers": ("n_layers",)}
RECBOLE_MODEL_SETTINGS = frozenset(
    name for kind in (_ATTENTION, _RECURRENT, _GRAPH) for names in kind.values() for name in names
)
_OF_TRAINING = {
    "epochs": "epochs", "train_batch_size": "batch_size", "learning_rate": "learning_rate", "seed": "seed",
}  # fmt: skip
_OF_DATA = (
    "model", "dataset", "data_path", "USER_ID_FIELD", "ITEM_ID_FIELD", "TIME_FIELD", "RATING_FIELD", "load_col",
    "unload_col", "user_inter_num_interval", "item_inter_num_interval", "val_interval", "filter_inter_by_user_or_item",
    "train_neg_sample_args", "eval_args", "repeatable", "valid_metric", "eval_step", "stopping_step",
)  # fmt: skip
# What has one meaning here: (values that have it, what to do otherwise); of models, and of their data and training.
_Fixed = Mapping[str, tuple[tuple[Any, ...], str]]
_FIXED_OF_MODELS: _Fixed = {
    "loss_type": (("CE", None), "our sequential models train with the full softmax, CE"),
    "hidden_act": (("gelu", None), "the blocks use gelu"),
}
_FIXED: _Fixed = {
    "rm_dup_inter": ((None,), "drop repeated pairs before"),
    "learner": (("adam", "Adam"), "training uses Adam"),
    "weight_decay": ((0, None), "training has no weight decay"),
    "clip_grad_norm": ((None,), "training clips no gradients: set it to null"),
    "shuffle": ((True,), "training shuffles its rows: set it to True"),
    "transform": ((None,), "our models make their own views: set it to null"),
    "field_separator": (("\t",), "write the file with tabs"),
    "encoding": ((None, "utf-8", "utf8", "UTF-8"), "write the file in UTF-8"),
    "benchmark_filename": ((None, []), "join the files and say in eval_args how to split them"),
    "alias_of_user_id": ((None, []), "users are those of USER_ID_FIELD: set it to null"),
    "alias_of_item_id": ((None, []), "items are those of ITEM_ID_FIELD: set it to null"),
}
_FIXED_OF_TASK: Mapping[str, _Fixed] = {
    "sequential": {"eval_step": ((1, None), "our sequential models validate after every epoch: set it to 1")},
    "collaborative": {"require_pow": ((True,), "our regulariser takes squares, as RecBole's LightGCN: set it to True")},
}
# What says how RecBole runs, logs, batches, or handles columns and losses that our models do not read.
_LISTED = (
    "gpu_id", "use_gpu", "device", "show_progress", "state", "log_wandb", "wandb_project", "save_dataset",
    "dataset_save_path", "save_dataloaders", "dataloaders_save_path", "worker", "reproducibility", "checkpoint_dir",
    "eval_batch_size", "metrics", "topk", "metric_decimal_place", "loss_decimal_place", "valid_metric_bigger",
    "enable_amp", "enable_scaler", "require_pow", "config_files", "NEG_PREFIX", "LIST_SUFFIX", "POSITION_FIELD",
    "ITEM_LIST_LENGTH_FIELD", "LABEL_FIELD", "threshold", "seq_separator", "seq_len", "numerical_features",
    "discretization", "normalize_field", "normalize_all", "preload_weight", "unused_col", "additional_feat_suffix",
    "HEAD_ENTITY_ID_FIELD", "TAIL_ENTITY_ID_FIELD", "RELATION_ID_FIELD", "ENTITY_ID_FIELD", "kg_reverse_r",
    "entity_kg_num_interval", "relation_kg_num_interval", "alias_of_entity_id", "alias_of_relation_id",
)  # fmt: skip
RECBOLE_SETTINGS = frozenset((*RECBOLE_MODEL_SETTINGS, *_OF_TRAINING, *_OF_DATA, *_FIXED_OF_MODELS, *_FIXED, *_LISTED))
# What RecBole's overall.yaml says: one negative that is drawn uniformly for each positive.
_ONE_NEGATIVE = {"distribution": "uniform", "sample_num": 1, "alpha": 1.0, "dynamic": False, "candidate_num": 0}
_MAPPINGS = {
    "load_col": "load_col: {inter: [COLUMN, ...]}", "unload_col": "unload_col: {inter: [COLUMN, ...]}",
    "val_interval": 'val_interval: {COLUMN: "[BOUND,inf)"}', "eval_args": "eval_args: {split: {LS: valid_and_test}}",
}  # fmt: skip
_METRICS = {"hit": "HR", "recall": "Recall", "precision": "Precision", "ndcg": "NDCG", "mrr": "MRR", "map": "MAP"}
_COLUMNS = {
    "user": ("USER_ID_FIELD", "user_id"), "item": ("ITEM_ID_FIELD", "item_id"), "time": ("TIME_FIELD", "timestamp"),
    "value": ("RATING_FIELD", "rating"),
}  # fmt: skip

Side = Literal["user", "item"]


@dataclass(frozen=True)
class RecBoleSettings:
    """What RecBole's settings mean here.

    Attributes:
        model: name of one of our models.
        settings: of its pipeline.
        path: the ``.inter`` file.
        columns: of the file by role.
        sides: id column of the ``.user`` and ``.item`` files that RecBole reads beside it, where they exist.
        filter_by_sides: drop interactions whose user or item those files do not name.
        user_core, item_core: least interactions of a user and of an item.
        min_value: least rating; None for all.
        ratios: of a split by ratio within users; None for leave-one-out.
        listed: RecBole settings that change nothing here.
    """

    model: str
    settings: Mapping[str, Any]
    path: Path
    columns: Mapping[str, str]
    sides: Mapping[Side, str]
    filter_by_sides: bool
    user_core: int
    item_core: int
    min_value: float | None
    ratios: tuple[float, float, float] | None
    listed: tuple[str, ...]


def load_recbole(files: str | Path | Sequence[str | Path], **more: Any) -> tuple[Pipeline, Split, RecBoleSettings]:
    """A pipeline and the split that RecBole's settings describe.

    Where ``load_col`` reads the ``.user`` and ``.item`` files, they decide as in RecBole: interactions of others are
    dropped (``filter_inter_by_user_or_item``), and all items are ranked (but under ``item_inter_num_interval``).

    Args:
        files: YAML files; later ones win.
        **more: settings by RecBole's names or ours, which win over the files.

    Returns:
        The pipeline, ready to ``fit`` the split, and what was understood; ``listed`` names what has no meaning here.

    Raises:
        InputError: as `read_recbole_settings`, or bad data.

    Complexity:
        O(E + U + V) for E rows, U users and V items.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / "shop").mkdir()
        >>> rows = [f"{user}\\t{item}\\t{n}" for user in ("ann", "bob") for n, item in enumerate(["tea", "cup", "pot"])]
        >>> text = "\\n".join(["user_id:token\\titem_id:token\\ttimestamp:float", *rows])
        >>> written = (folder / "shop" / "shop.inter").write_text(text)
        >>> written = (folder / "run.yaml").write_text("model: SASRec\\nhidden_size: 32\\nshow_progress: False\\n")
        >>> pipeline, split, found = load_recbole(folder / "run.yaml", dataset="shop", data_path=folder)
        >>> pipeline.get_config()["hidden"], split.interactions, found.listed
        (32, Interactions(2 users, 3 items, 6 interactions), ('show_progress',))
    """
    found = read_recbole_settings(files, **more)
    pipeline = create_pipeline(found.model, found.settings)
    reading: dict[str, Any] = {"min_value": found.min_value, **found.columns}
    log = read_interactions(found.path, format="atomic", item_features=False, user_features=False, **reading)
    catalogues = []
    for side, column in found.sides.items():
        path = found.path.with_suffix(f".{side}")
        if not path.exists():
            continue
        listed = IdMap(read_features(path, side, key=column).get_column(column))
        if side == "item" and found.item_core == 0:
            catalogues.append(listed)
        if found.filter_by_sides:
            index, ids = (log.user, log.user_ids) if side == "user" else (log.item, log.item_ids)
            log = log.take(listed.to_internal(ids.to_series(), unknown="ignore")[index] >= 0)
            if not log.num_interactions:
                raise InputError(
                    f"names no {side} of {found.path}", "set filter_inter_by_user_or_item to False", path=path
                )
            log = log.compact()
    if max(found.user_core, found.item_core) > 1:
        log = k_core(log, found.user_core, found.item_core)
    split = leave_one_out(log) if found.ratios is None else split_by_ratio(log, found.ratios)
    return pipeline, with_items(split, *catalogues), found


def read_recbole_settings(files: str | Path | Sequence[str | Path], **more: Any) -> RecBoleSettings:
    """Understand RecBole's settings, or refuse those that would change a number.

    The settings of our pipeline and model may stand among them under their own names (or the symbols of their paper),
    which win over RecBole's. What is not given keeps our defaults.

    Args:
        files: YAML files; later ones win.
        **more: settings by RecBole's names or ours, which win over the files.

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
        >>> read_recbole_settings([], model="GRU4Rec", dataset="ml-100k", embedding_size=32, hidden_size=100).settings
        {'hidden': 32, 'inner': 100}
    """
    given: dict[str, Any] = {}
    for file in [files] if isinstance(files, str | Path) else files:
        given |= _read_yaml(Path(file))
    given |= more
    for name in ("model", "dataset"):
        if not isinstance(given.get(name), str):
            raise InputError(f"the RecBole settings name no {name}", f"add {name}: NAME")
    model = given["model"].lower().removeprefix("graphcl")
    known_models = [*list_models("sequential"), *list_models("collaborative")]
    if model not in known_models:
        raise InputError(
            f"no model of ours is called {model!r}", f"{nearest(model, known_models)}use one of {known_models}"
        )
    task = "sequential" if model in list_models("sequential") else "collaborative"
    config_class = get_model(model).config_class
    given = named_settings(config_class, given)
    own = frozenset(create_pipeline(model).get_config()) - {"model"}
    known = RECBOLE_SETTINGS | own
    for name, value in given.items():
        if name not in known:
            owners = models_with(name, task)
            if owners:
                raise InputError(f"{name} is a setting of {', '.join(owners)}, not of {model}", "leave it out")
            remedy = f"{nearest(name, sorted(known.difference(_LISTED)))}leave it out"
            raise InputError(f"the RecBole setting {name!r} has no counterpart", remedy)
        if name in _MAPPINGS and not isinstance(value, Mapping | None):
            raise InputError(f"the RecBole setting {name} cannot be {value!r} here", f"write {_MAPPINGS[name]}")
    _refuse_other(given, _FIXED, _FIXED_OF_TASK[task])
    _refuse_negatives(given.get("train_neg_sample_args"))
    settings = {ours: given[name] for name, ours in _OF_TRAINING.items() if given.get(name) is not None}
    settings |= _validation(given, task) | model_settings(config_class, given)
    settings |= {name: given[name] for name in own.difference(config_class.model_fields) if name in given}
    unread = RECBOLE_MODEL_SETTINGS - own - set(_names(config_class, given).values())
    return RecBoleSettings(
        model=model,
        settings=settings,
        path=Path(str(given.get("data_path", "dataset"))) / given["dataset"] / f"{given['dataset']}.inter",
        columns=_columns(given),
        sides=_sides(given),
        filter_by_sides=given.get("filter_inter_by_user_or_item", True) is True,
        user_core=_least(given.get("user_inter_num_interval"), "user_inter_num_interval"),
        item_core=_least(given.get("item_inter_num_interval"), "item_inter_num_interval"),
        min_value=_least_value(given.get("val_interval"), str(given.get("RATING_FIELD", "rating"))),
        ratios=_ratios(given.get("eval_args")),
        listed=tuple(name for name in given if name in _LISTED or name in unread),
    )


def model_settings(config_class: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a model of ours from RecBole's or our own names.

    Args:
        config_class: of the model.
        given: settings by either name, or by the symbol of a paper; None under RecBole's is none.

    Returns:
        Settings of the class; our own names win.

    Raises:
        InputError: an ``encoder`` that is no model, another loss or activation than ours, or a setting given twice.

    Complexity:
        O(settings).

    Example:
        >>> from graphcl.models import SASRecConfig
        >>> model_settings(SASRecConfig, {"hidden_size": 32, "n_layers": 1, "layers": 3, "epochs": 9})
        {'hidden': 32, 'layers': 3}
    """
    given = named_settings(config_class, given)
    _refuse_other(given, _FIXED_OF_MODELS)
    settings = {ours: given[name] for ours, name in _names(config_class, given).items()}
    for name, field in config_class.model_fields.items():
        if given.get(name) is not None or (name in given and type(None) in get_args(field.annotation)):
            settings[name] = given[name]
    return settings


def models_with(setting: str, task: str) -> list[str]:
    """Our models of a task that have a setting.

    Args:
        setting: our name of it.
        task: of the models.

    Returns:
        Their names.

    Complexity:
        O(models).

    Example:
        >>> models_with("schedule", "sequential")
        ['mclrec']
    """
    return [model for model in list_models(task) if setting in get_model(model).config_class.model_fields]


def _names(config_class: Any, given: Mapping[str, Any]) -> dict[str, str]:
    """Our setting of a model -> RecBole's name that decides it, of those that are given; an encoder says whose."""
    fields = config_class.model_fields
    kind, names = config_class, _ATTENTION
    encoder = (given.get("encoder") or fields["encoder"].default) if "encoder" in fields else None
    if isinstance(encoder, str):
        kind = get_model(encoder, task="sequential").config_class
    if issubclass(kind, GRU4RecConfig):
        names = _RECURRENT
    elif issubclass(kind, CollaborativeConfig):
        names = _GRAPH
    first = {
        ours: next((name for name in theirs if given.get(name) is not None), None) for ours, theirs in names.items()
    }
    return {ours: name for ours, name in first.items() if name is not None and ours in fields}


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


def _validation(given: Mapping[str, Any], task: str) -> dict[str, Any]:
    """Settings of a pipeline that say when it validates, what it ranks by, when it stops, and what it ranks."""
    settings: dict[str, Any] = {}
    every, waits = _count(given, "eval_step"), _count(given, "stopping_step")
    if every is not None and task == "collaborative":
        settings["validate_every"] = every
    if waits is not None:
        # RecBole stops at the first validation beyond so many without a gain.
        settings["patience"] = (waits + 1) * (every or 1)
    if given.get("valid_metric") is not None:
        name, _, cutoff = str(given["valid_metric"]).partition("@")
        if name.lower() not in _METRICS or not cutoff.isdigit():
            raise InputError(
                f"valid_metric {given['valid_metric']!r} has no counterpart", f"use {', '.join(_METRICS)} with @k"
            )
        settings["metric"] = f"{_METRICS[name.lower()]}@{cutoff}"
    if given.get("repeatable") is not None:
        settings["seen"] = "keep" if given["repeatable"] else "exclude"
        if task == "collaborative" and not given["repeatable"]:
            settings["mask"] = "all_known"
    return settings


def _count(given: Mapping[str, Any], name: str) -> int | None:
    value = given.get(name)
    if value is not None and (not isinstance(value, int) or value < 0):
        raise InputError(f"the RecBole setting {name} cannot be {value!r} here", "give a whole number")
    return value


def _refuse_other(given: Mapping[str, Any], *tables: _Fixed) -> None:
    """Refuse a value that is not among those that a table admits."""
    for table in tables:
        for name, (values, remedy) in table.items():
            if name in given and given[name] not in values:
                raise InputError(f"the RecBole setting {name} cannot be {given[name]!r} here", remedy)


def _refuse_negatives(arguments: Any) -> None:
    """Our losses draw no negatives (CE, beside which RecBole refuses its default) or one uniformly (BPR)."""
    drawn = {**_ONE_NEGATIVE, **arguments} if isinstance(arguments, Mapping) else {"distribution": arguments}
    if drawn["distribution"] not in (None, "None", "none") and drawn != _ONE_NEGATIVE:
        raise InputError(
            f"the RecBole setting train_neg_sample_args cannot be {arguments!r} here", "leave negative sampling out"
        )


def _columns(given: Mapping[str, Any]) -> dict[str, str]:
    named = {role: str(given.get(field, default)) for role, (field, default) in _COLUMNS.items()}
    for name in (given.get("unload_col") or {}).get("inter", ()):
        if name in (named["user"], named["item"], named["time"]):
            raise InputError(f"unload_col leaves out the column {name!r}, which is needed", "take it out of unload_col")
    loaded = (given.get("load_col") or {}).get("inter", "*")
    if loaded == "*":
        return {role: name for role, name in named.items() if role in ("user", "item") or _COLUMNS[role][0] in given}
    for role in ("user", "item"):
        if named[role] not in loaded:
            raise InputError(
                f"load_col does not load the {role} column {named[role]!r}", f"add it, or set {_COLUMNS[role][0]}"
            )
    return {role: name for role, name in named.items() if name in loaded}


def _sides(given: Mapping[str, Any]) -> dict[Side, str]:
    loaded = given.get("load_col", {})  # null loads every column of every file
    return {side: str(given.get(*_COLUMNS[side])) for side in get_args(Side) if loaded is None or loaded.get(side)}


_INTERVAL = re.compile(r"\s*([\[(])\s*(-?[\d.]+)\s*,\s*(inf|-?[\d.]*)\s*[\])]\s*")


def _bounds(text: Any, name: str) -> tuple[bool, float]:
    matched = _INTERVAL.fullmatch(str(text))
    if matched is None or matched[3] not in ("inf", ""):
        raise InputError(f"{name} {text!r} has no counterpart", 'give a lower bound alone, such as "[5,inf)"')
    return matched[1] == "(", float(matched[2])


def _least(text: Any, name: str) -> int:
    if text is None:
        return 0
    is_open, bound = _bounds(text, name)
    return max(0, int(bound) + 1 if is_open and bound == int(bound) else -int(-bound // 1))


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
