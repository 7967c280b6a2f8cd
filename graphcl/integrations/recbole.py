"""Our sequential models in RecBole 1.2.1's trainer and evaluator, and RecBole's files in ours.

`load_recbole` and `read_recbole_settings` need no RecBole; the rest needs the extra ``[recbole]`` in an environment of
its own, because RecBole 1.2.1 works with numpy below 2, pandas below 3 and setuptools below 81 alone.
"""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from graphcl.data.ids import id_series
from graphcl.errors import InputError, MissingPackageError, plain_name
from graphcl.integrations.recbole_rows import ROW, RecBoleRows, read_rows
from graphcl.integrations.recbole_settings import (
    RECBOLE_MODEL_SETTINGS,
    RECBOLE_SETTINGS,
    RecBoleSettings,
    load_recbole,
    model_settings,
    models_with,
    read_recbole_settings,
)
from graphcl.models import SequenceBatch, build_config, get_model, list_models
from graphcl.models.base_contrastive import ContrastiveModel
from graphcl.nn import pack_sequences

__all__ = [
    "RecBoleSettings",
    "load_recbole",
    "read_recbole_settings",
    "recbole_model",
    "recbole_trainer",
    "run_recbole",
]

IntArray = npt.NDArray[np.int64]


@cache
def recbole_model(name: str) -> Any:
    """A `recbole.model.abstract_recommender.SequentialRecommender` class around one of our sequential models.

    It takes RecBole's settings (``hidden_size``, ``n_layers``, ``MAX_ITEM_LIST_LENGTH``, ...) and our own names, which
    win. RecBole trains it on its prefix rows; its loss is the model's own objective on them, contrastive terms
    included: partners and retrieved sequences come from RecBole's training rows, semantic vectors from co-occurrence in
    them or from a file keyed by item id (``semantics``). MCLRec's schedules of several optimiser steps need
    `recbole_trainer`, which `run_recbole` uses; RecBole's own trainer takes ``schedule: joint``. RecBole cuts the
    histories before the model sees them, so ``max_length`` must be ``MAX_ITEM_LIST_LENGTH``; `run_recbole` sees to it.

    Args:
        name: of a sequential model, see :func:`graphcl.models.list_models`.

    Returns:
        The class, to be given to `recbole.config.Config` as the model.

    Raises:
        InputError: for an unknown model; of the class, for a setting that nobody knows and that resembles one of the
            model's, another ``max_length`` than RecBole's, negatives drawn for training, training rows that are not all
            prefixes in time order, or a source of semantic vectors that RecBole's data do not have.
        MissingPackageError: when RecBole is not importable.

    Complexity:
        A training step costs what the model's step on prefix rows costs.

    Example:
        >>> recbole_model("sasrec").__name__  # doctest: +SKIP
        'GraphclSASRec'
    """
    model_class = get_model(name, task="sequential")
    try:
        from recbole.data.interaction import Interaction
        from recbole.model.abstract_recommender import SequentialRecommender
        from recbole.utils import InputType
    except ImportError as error:
        raise MissingPackageError("recbole", "recbole", "running in RecBole") from error

    class Wrapped(SequentialRecommender):  # type: ignore[misc]
        input_type = InputType.POINTWISE

        def __init__(self, config: Any, dataset: Any) -> None:
            super().__init__(config, dataset)
            own = self.own_config(config)
            if own.max_length != config["MAX_ITEM_LIST_LENGTH"]:
                raise InputError(
                    f"max_length is {own.max_length}, and MAX_ITEM_LIST_LENGTH, by which RecBole cuts the histories, "
                    f"{config['MAX_ITEM_LIST_LENGTH']}", f"set MAX_ITEM_LIST_LENGTH to {own.max_length}, or use "
                    "run_recbole",
                )  # fmt: skip
            generator = torch.Generator().manual_seed(int(config["seed"] or 0))
            # RecBole's item 0 is padding, as ours is; items are 1 .. n_items - 1 in both.
            self.rows_of: Callable[[IntArray], SequenceBatch] | None = None
            rows = self.training_rows(dataset) if issubclass(model_class, ContrastiveModel) else None
            vectors, width = None, {}
            if rows is not None and getattr(model_class, "uses_item_vectors", False):
                external = [str(token) for token in dataset.id2token(dataset.iid_field, np.arange(1, self.n_items))]
                ids = id_series(external, infer_integers=True).to_numpy()
                vectors = rows.vectors(own.semantics, ids, own.semantic_dim)
                width = {"semantic_dim": vectors.shape[1]}
            self.model = model_class(self.n_items - 1, own, generator=generator, **width)
            if rows is not None and self.model.contrast.rows:
                self.rows_of = rows.batches(self.model, int(config["seed"] or 0), vectors)

        @staticmethod
        def own_config(config: Any) -> Any:
            """The model's settings in a `recbole.config.Config`; what would be lost or spoil training is refused."""
            kind = model_class.config_class
            _refuse_misspelt(config, [*kind.model_fields, *RECBOLE_MODEL_SETTINGS])
            if config["train_neg_sample_args"]["distribution"] != "none":
                raise InputError(
                    "RecBole would add random items to the training rows, which our models learn as targets",
                    "set train_neg_sample_args to None",
                )
            return build_config(kind, model_settings(kind, config.final_config_dict))

        def training_rows(self, dataset: Any) -> RecBoleRows:
            table = dataset.inter_feat
            fields = (dataset.uid_field, self.ITEM_SEQ, self.ITEM_SEQ_LEN, self.POS_ITEM_ID)
            if any(field not in table for field in fields):
                raise InputError("the data set holds no training rows", "give RecBole's training data set")
            table.update(Interaction({ROW: torch.arange(len(table))}))
            return read_rows(*(table[field].cpu().numpy().astype(np.int64) for field in fields))

        def forward(self, item_seq: torch.Tensor, item_seq_len: torch.Tensor) -> torch.Tensor:
            hidden: torch.Tensor = self.model(item_seq, item_seq_len)
            return hidden

        def batch_of(self, interaction: Any) -> SequenceBatch:
            if self.rows_of is not None:
                if ROW not in interaction:
                    raise InputError("the batch is not of the data set that the model was made for", "give it that")
                return self.rows_of(interaction[ROW].cpu().numpy()).to(self.device)
            items, lengths = interaction[self.ITEM_SEQ].cpu().numpy(), interaction[self.ITEM_SEQ_LEN].cpu().numpy()
            kept = np.arange(items.shape[1]) < lengths[:, None]
            sequences = pack_sequences(items[kept].astype(np.int64), np.concatenate([[0], np.cumsum(lengths)]))
            targets = interaction[self.POS_ITEM_ID].cpu()
            return SequenceBatch(sequences, sequences.last, targets, float(targets.numel())).to(self.device)

        def parameter_groups(self) -> Mapping[str, list[torch.nn.Parameter]]:
            """Parameters that are updated in turn; one group of all where every step updates all."""
            groups = getattr(self.model, "parameter_groups", None)
            return {"all": list(self.parameters())} if groups is None else groups()

        def training_steps(self, interaction: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
            """The optimiser steps of one batch."""
            steps: Iterator[tuple[str, Callable[[], Any]]] = self.model.training_steps(self.batch_of(interaction))
            return steps

        def calculate_loss(self, interaction: Any) -> torch.Tensor:
            if len(self.parameter_groups()) > 1:
                raise InputError(
                    f"schedule {self.model.config.schedule} takes several steps a batch, which RecBole's trainer does "
                    "not", "train by run_recbole or recbole_trainer, or set schedule to joint",
                )  # fmt: skip
            loss: torch.Tensor = self.model.objective(self.batch_of(interaction))[0]
            return loss

        def full_sort_predict(self, interaction: Any) -> torch.Tensor:
            hidden = self.forward(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])
            scores = hidden @ self.model.item_embeddings().T
            # RecBole masks column 0 itself, where it looks.
            return torch.cat([scores.new_full((scores.shape[0], 1), -torch.inf), scores], dim=1)

        def predict(self, interaction: Any) -> torch.Tensor:
            hidden = self.forward(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])
            table: torch.Tensor = self.model.item_embeddings()
            return (hidden * table[interaction[self.ITEM_ID] - 1]).sum(-1)

    Wrapped.__name__ = Wrapped.__qualname__ = f"Graphcl{model_class.__name__}"
    Wrapped.__doc__ = f"{model_class.__name__} of graphcl, in RecBole."
    return Wrapped


def run_recbole(
    model: str | type,
    dataset: str,
    config_files: Sequence[str | Path] = (),
    config: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Train and test in RecBole, as `recbole.quick_start.run_recbole` does, also under torch 2.6 and later.

    The best weights are kept by `recbole_trainer`, because torch since 2.6 does not load RecBole's own checkpoints.
    The histories are cut to ``max_length`` of our models where it is given.

    Args:
        model: name of one of our sequential models, or of one of RecBole's own, or a RecBole class.
        dataset: name of the data set below ``data_path``.
        config_files: RecBole's YAML files.
        config: RecBole's settings and those of our model, which win.

    Returns:
        ``best_valid_score``, ``best_valid_result``, ``test_result``, and the ``trainer`` and ``test_data`` themselves.

    Raises:
        InputError: as the class of `recbole_model`.
        MissingPackageError: when RecBole is not importable.

    Complexity:
        An epoch takes the model's steps on R prefix rows of at most L = ``MAX_ITEM_LIST_LENGTH`` items, and a ranking
        of V items for U users, O(U V d) time; memory O(R L) for the rows.

    Example:
        >>> few_users = {"user_inter_num_interval": "[500,inf)", "epochs": 1, "train_neg_sample_args": None}
        >>> quiet = {"state": "ERROR", "show_progress": False}
        >>> result = run_recbole("sasrec", "ml-100k", config={**few_users, **quiet})  # doctest: +SKIP
        >>> list(result["test_result"])  # doctest: +SKIP
        ['recall@10', 'mrr@10', 'ndcg@10', 'hit@10', 'precision@10']
    """
    if isinstance(model, str) and model.lower() in list_models("sequential"):
        model = recbole_model(model)
    try:
        from recbole.config import Config
        from recbole.data import create_dataset, data_preparation
        from recbole.utils import get_model as recbole_class
        from recbole.utils import init_seed
    except ImportError as error:
        raise MissingPackageError("recbole", "recbole", "running in RecBole") from error
    settings = Config(
        model=model,
        dataset=dataset,
        config_file_list=[str(file) for file in config_files],
        config_dict=dict(config or {}),
    )
    if hasattr(model, "own_config"):
        settings["MAX_ITEM_LIST_LENGTH"] = model.own_config(settings).max_length
    init_seed(settings["seed"], settings["reproducibility"])
    train, valid, test = data_preparation(settings, create_dataset(settings))
    init_seed(settings["seed"], settings["reproducibility"])
    chosen = recbole_class(settings["model"]) if isinstance(model, str) else model
    trainer = recbole_trainer(settings, chosen(settings, train.dataset).to(settings["device"]))
    score, result = trainer.fit(train, valid, saved=True, show_progress=bool(settings["show_progress"]))
    tested = trainer.evaluate(test, load_best_model=True, show_progress=False)
    return {
        "best_valid_score": score, "best_valid_result": dict(result), "test_result": dict(tested), "trainer": trainer,
        "test_data": test,
    }  # fmt: skip


def recbole_trainer(config: Any, model: Any) -> Any:
    """RecBole's trainer of a model, with best weights kept as safetensors instead of a pickle.

    RecBole 1.2.1 saves its configuration beside the weights in a pickle of protocol 4, which ``torch.load`` refuses
    since torch 2.6 (and cannot be told to admit). The trainer returned here differs in that, and in taking the steps of
    our models that update groups of parameters in turn (MCLRec), each group with an optimiser of its own.

    Args:
        config: a `recbole.config.Config`.
        model: a RecBole model.

    Returns:
        The trainer; ``evaluate(..., load_best_model=True)`` loads what ``fit(..., saved=True)`` saved.

    Raises:
        MissingPackageError: when RecBole is not importable.
        InputError: of the trainer, for a RecBole checkpoint to resume from, or MCLRec's steps in several processes.

    Complexity:
        That of RecBole's trainer; keeping the best weights copies them, O(parameters).

    Example:
        >>> from recbole.config import Config  # doctest: +SKIP
        >>> from recbole.data import create_dataset, data_preparation  # doctest: +SKIP
        >>> given = {"user_inter_num_interval": "[500,inf)", "epochs": 1, "train_neg_sample_args": None}
        >>> config = Config(recbole_model("sasrec"), "ml-100k", config_dict=given)  # doctest: +SKIP
        >>> train, valid, test = data_preparation(config, create_dataset(config))  # doctest: +SKIP
        >>> trainer = recbole_trainer(config, recbole_model("sasrec")(config, train.dataset))  # doctest: +SKIP
        >>> score, by_metric = trainer.fit(train, valid)  # doctest: +SKIP
        >>> list(trainer.evaluate(test)) == list(by_metric)  # doctest: +SKIP
        True
    """
    try:
        from recbole.utils import get_trainer
    except ImportError as error:
        raise MissingPackageError("recbole", "recbole", "running in RecBole") from error
    from safetensors.torch import load_file, save_file

    class SafeTrainer(get_trainer(config["MODEL_TYPE"], config["model"])):  # type: ignore[misc]
        def __init__(self, config: Any, model: Any) -> None:
            super().__init__(config, model)
            given: Any = self.saved_model_file  # type: ignore[has-type]
            self.saved_model_file = str(Path(given).with_suffix(".safetensors"))
            self.best_other: dict[str, Any] = {}
            groups = model.parameter_groups() if hasattr(model, "parameter_groups") else {}
            self.groups: Mapping[str, list[torch.nn.Parameter]] = groups if len(groups) > 1 else {}
            self.optimizers = {name: self._build_optimizer(params=group) for name, group in self.groups.items()}

        def _train_epoch(
            self, train_data: Any, epoch_idx: int, loss_func: Any = None, show_progress: bool = False
        ) -> Any:
            if not self.groups:
                return super()._train_epoch(train_data, epoch_idx, loss_func, show_progress)
            if not self.config["single_spec"]:
                raise InputError("steps in turn are taken in one process only", "train without nproc, or in graphcl")
            self.model.train()
            total = 0.0
            for interaction in train_data:
                losses = []
                for name, objective in self.model.training_steps(interaction.to(self.device)):
                    for other, group in self.groups.items():
                        for parameter in group:
                            parameter.requires_grad_(other == name)
                    loss = objective()[0]
                    self._check_nan(loss)
                    self.optimizers[name].zero_grad()
                    loss.backward()
                    if self.clip_grad_norm:
                        torch.nn.utils.clip_grad_norm_(self.groups[name], **self.clip_grad_norm)
                    self.optimizers[name].step()
                    losses.append(float(loss.detach()))
                total += losses[0]
            for group in self.groups.values():
                for parameter in group:
                    parameter.requires_grad_(True)
            return total

        def _save_checkpoint(self, epoch: int, verbose: bool = True, **kwargs: Any) -> None:
            weights = {
                name: value.detach().cpu().contiguous().clone() for name, value in self.model.state_dict().items()
            }
            self.best_other = copy.deepcopy(self.model.other_parameter())
            save_file(weights, kwargs.get("saved_model_file") or self.saved_model_file)

        def resume_checkpoint(self, resume_file: str) -> None:
            raise InputError(
                "RecBole's checkpoints are pickles", "train anew, or in graphcl, which resumes", path=resume_file
            )

        def evaluate(
            self, eval_data: Any, load_best_model: bool = True, model_file: Any = None, show_progress: bool = False
        ) -> Any:
            if load_best_model:
                self.model.load_state_dict(load_file(model_file or self.saved_model_file))
                self.model.load_other_parameter(self.best_other)
            return super().evaluate(eval_data, load_best_model=False, show_progress=show_progress)

    return SafeTrainer(config, model)


def _refuse_misspelt(config: Any, read: Iterable[str]) -> None:
    """Refuse a setting that nobody knows and that resembles one that the model reads.

    RecBole takes any name, for parts of its user's own, so that a misspelt one changes nothing and nobody is told.

    Args:
        config: a `recbole.config.Config`; its command line is not looked at, which is that of the whole program.
        read: what the model reads.
    """
    by_plain_name = {plain_name(name): name for name in read}
    for name in {**config.file_config_dict, **config.variable_config_dict}:
        near = difflib.get_close_matches(plain_name(name), by_plain_name, n=1, cutoff=0.8)
        known = name in RECBOLE_SETTINGS or models_with(name, "sequential")
        if near and not known and name not in _settings_of_recbole_models():
            raise InputError(
                f"neither RecBole nor our models have a setting {name!r}",
                f"did you mean {by_plain_name[near[0]]!r}? mend it, or rename a setting of your own",
            )


@cache
def _settings_of_recbole_models() -> frozenset[str]:
    import recbole

    files = (Path(recbole.__path__[0]) / "properties" / "model").glob("*.yaml")
    return frozenset(
        name
        for file in files
        for name in re.findall(r"^(\w+)\s*:", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    )
