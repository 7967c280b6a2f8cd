"""Training state on disk: tensors in safetensors, the rest as JSON in the same file; never a pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from graphcl.errors import InputError
from graphcl.pipelines.runs import write_by_rename

LAST = "last.safetensors"


@dataclass
class TrainingState:
    """Everything but tensors that training needs to go on as if it had never stopped.

    Args:
        epoch: epochs that are finished.
        steps: optimiser steps that are finished.
        best_epoch: epoch whose weights are kept, from 1; 0 before the first.
        best_value: best validation metric, or training loss with its sign turned, so far.
        waited: epochs since then.
        history: one record an epoch.
        identity: what must be equal for a resume to make sense (settings, data).
        seconds: time spent so far.
    """

    epoch: int = 0
    steps: int = 0
    best_epoch: int = 0
    best_value: float = float("-inf")
    waited: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    identity: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


def save_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any] | None = None) -> None:
    """Write tensors, with a JSON record inside the file, by rename.

    Args:
        path: file to write.
        tensors: by name, any device.
        about: plain values to keep beside them.
    """
    from safetensors.torch import save_file

    ready = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    metadata = None if about is None else {"json": json.dumps(about)}
    write_by_rename(path, lambda temporary: save_file(ready, temporary, metadata=metadata))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and JSON record of a file that :func:`save_tensors` wrote.

    Raises:
        InputError: when the file is missing, damaged or without readable record.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
        about = json.loads(metadata.get("json", "{}"))
    except (OSError, SafetensorError, ValueError) as error:
        raise InputError("cannot be read as safetensors", "restore the file or train again", path=path) from error
    return tensors, about


def save_checkpoint(
    folder: Path,
    model: torch.nn.Module,
    average: torch.nn.Module,
    optimizers: list[torch.optim.Optimizer],
    state: TrainingState,
    best_weights: Mapping[str, Tensor] | None = None,
) -> None:
    """Write the weights, their average, the optimiser's state and the training state of a finished epoch.

    The weights of the best epoch have a file of their own, named after the epoch. It is written before the record
    that points to it and older ones are deleted after, so that a kill at any moment leaves a consistent pair.

    Args:
        folder: the run's checkpoint folder.
        model, optimizers: what is trained.
        average: what is measured and kept: a model with averaged weights, or ``model`` itself.
        state: the state after the epoch.
        best_weights: those of ``state.best_epoch``, when they are not in the folder yet and wanted there.
    """
    if best_weights is not None:
        save_tensors(folder / best_name(state.best_epoch), best_weights)
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    if average is not model:
        tensors |= {f"average.{name}": tensor for name, tensor in average.state_dict().items()}
    groups: list[Any] = []
    for number, optimizer in enumerate(optimizers):
        stored = optimizer.state_dict()
        groups.append(stored["param_groups"])
        for parameter, values in stored["state"].items():
            for name, value in values.items():
                tensors[f"optimizer.{number}.{parameter}.{name}"] = torch.as_tensor(value)
    save_tensors(folder / LAST, tensors, {"state": vars(state), "groups": groups})
    for file in folder.glob("best-*.safetensors"):
        if file.name != best_name(state.best_epoch):
            file.unlink()


def load_state(folder: Path) -> TrainingState | None:
    """The training state of the last finished epoch; None when there is no checkpoint yet."""
    if not (folder / LAST).is_file():
        return None
    _, about = load_tensors(folder / LAST)
    try:
        return TrainingState(**about["state"])
    except (KeyError, TypeError) as error:
        raise InputError("holds no training state", "train again with --overwrite", path=folder / LAST) from error


def load_checkpoint(
    folder: Path, model: torch.nn.Module, average: torch.nn.Module, optimizers: list[torch.optim.Optimizer]
) -> None:
    """Put the weights, their average and the optimiser's state of the last finished epoch back.

    Raises:
        InputError: when the file is damaged or belongs to another model.
    """
    tensors, about = load_tensors(folder / LAST)
    states: list[dict[int, dict[str, Tensor]]] = [{} for _ in optimizers]
    weights: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}}
    for name, tensor in tensors.items():
        kind, rest = name.split(".", 1)
        if kind in weights:
            weights[kind][rest] = tensor
        else:
            number, parameter, key = rest.split(".", 2)
            states[int(number)].setdefault(int(parameter), {})[key] = tensor
    try:
        model.load_state_dict(weights["model"])
        if average is not model:
            average.load_state_dict(weights["average"])
        for optimizer, state, groups in zip(optimizers, states, about["groups"], strict=True):
            optimizer.load_state_dict({"state": state, "param_groups": groups})
    except (RuntimeError, KeyError, ValueError) as error:
        raise InputError("does not fit this model", "train again with --overwrite", path=folder / LAST) from error


def load_kept_weights(folder: Path, model: torch.nn.Module, best: str | None) -> None:
    """Put the weights that training keeps into a model.

    Args:
        folder: the run's checkpoint folder.
        model: what was trained.
        best: file of the best epoch's weights; None takes those of the last epoch, averaged where they are.

    Raises:
        InputError: when the file is damaged or belongs to another model.
    """
    path = folder / (best or LAST)
    weights, _ = load_tensors(path)
    if best is None:
        averaged = any(name.startswith("average.") for name in weights)
        prefix = "average." if averaged else "model."
        weights = {name.removeprefix(prefix): kept for name, kept in weights.items() if name.startswith(prefix)}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError("does not fit this model", "train again with --overwrite", path=path) from error


def best_name(epoch: int) -> str:
    """File name of the weights of the best epoch.

    Example:
        >>> best_name(7)
        'best-0007.safetensors'
    """
    return f"best-{epoch:04d}.safetensors"
