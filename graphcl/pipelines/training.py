"""The training loop: a thin adapter between our models and Lightning, the only module that knows the framework."""

from __future__ import annotations

import copy
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.multiprocessing.spawn import ProcessRaisedException

from graphcl.errors import InputError
from graphcl.models.base import SequenceBatch
from graphcl.pipelines.batches import TrainingWindows, epoch_order, make_batch
from graphcl.pipelines.checkpoints import (
    TrainingState,
    best_name,
    load_checkpoint,
    load_state,
    load_tensors,
    save_checkpoint,
)
from graphcl.pipelines.progress import TrainingProgress
from graphcl.pipelines.runs import HISTORY, write_history

Validate = Callable[[nn.Module], dict[str, float]]


@dataclass(frozen=True)
class TrainingPlan:
    """How to train.

    Args:
        epochs: most epochs.
        batch_size: supervised targets a step, about.
        learning_rate: of Adam.
        weight_average: decay a step of the moving average of the weights that is measured and kept; 0 for none.
        patience: stop after so many epochs without a better validation metric.
        metric: name of that metric; higher is better.
        seed: decides the order of the batches and every dropout mask, together with the number of the epoch.
        devices: processes that share each step.
        accelerator: ``cpu``, ``gpu`` or ``auto``.
        progress: whether to show any.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    weight_average: float
    patience: int
    metric: str
    seed: int
    devices: int = 1
    accelerator: str = "auto"
    progress: bool = True


def train(
    model: nn.Module,
    windows: TrainingWindows,
    validate: Validate,
    plan: TrainingPlan,
    folder: Path,
    identity: dict[str, Any],
) -> TrainingState:
    """Train until the validation metric stops rising; the model ends with the weights of its best epoch.

    After each epoch the whole state is written to ``folder``; a state that is already there is continued. The batches
    and dropout masks of an epoch are a function of (seed, epoch, process), so a run that was killed and continued goes
    through the same steps as one that was not. Torch's own random state is left as it was.

    Args:
        model: has ``objective(batch)``.
        windows: what to train on.
        validate: called after each epoch with the model in evaluation mode; its record must hold ``plan.metric``.
        plan: how to train.
        folder: the run's checkpoint folder; ``history.csv`` goes into its parent.
        identity: stored with the state, for the caller to compare before it resumes.

    Returns:
        The final state with the history.

    Raises:
        InputError: when training diverges.

    Complexity: memory of the weights, Adam's two moments and one batch.
    """
    state = load_state(folder) or TrainingState(identity=identity)
    if state.epoch < plan.epochs and state.waited < plan.patience:
        module = _TrainedModule(model, plan.learning_rate)
        callback = _EpochKeeper(state, plan, windows.num_targets, validate, folder)
        accelerator = plan.accelerator
        if accelerator == "auto":
            accelerator = "gpu" if torch.cuda.is_available() else "cpu"
        # Spawned processes run this loop only, not the caller's script again; they leave their result in the folder.
        strategy = "ddp_spawn" if plan.devices > 1 else "auto"
        with torch.random.fork_rng(), _quiet_lightning(), _errors_of_processes():
            trainer = pl.Trainer(
                max_epochs=plan.epochs - state.epoch,
                accelerator=accelerator,
                devices=plan.devices,
                strategy=strategy,
                callbacks=[callback],
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                use_distributed_sampler=False,
            )
            trainer.fit(module, train_dataloaders=_EpochBatches(windows, plan, state.epoch))
    final = load_state(folder)
    if final is None:
        raise RuntimeError(f"training ended without a checkpoint in {folder}")
    weights, _ = load_tensors(folder / best_name(final.best_epoch))
    model.load_state_dict(weights)
    return final


class _EpochBatches:
    """The steps of one epoch, this process's share of each; the epoch after at the next pass."""

    def __init__(self, windows: TrainingWindows, plan: TrainingPlan, epoch: int) -> None:
        self.windows = windows
        self.plan = plan
        self.epoch = epoch

    def __iter__(self) -> Iterator[SequenceBatch]:
        rank, world = _rank_and_world()
        order = epoch_order(self.windows, self.plan.batch_size, seed=self.plan.seed, epoch=self.epoch)
        self.epoch += 1
        for step in order:
            # Gradients are averaged over the processes, so each divides by its share of the step's targets.
            total = int(self.windows.supervised[step].sum()) / world
            yield make_batch(self.windows, step[rank::world], total=total)


class _TrainedModule(pl.LightningModule):
    def __init__(self, model: nn.Module, learning_rate: float) -> None:
        super().__init__()
        self.model = model
        self.learning_rate = learning_rate

    def training_step(self, batch: SequenceBatch, batch_idx: int) -> dict[str, Any]:
        objective: Any = self.model.objective
        with _divergence_explained():
            loss, parts = objective(batch)
        return {"loss": loss, "parts": parts}

    def transfer_batch_to_device(
        self, batch: SequenceBatch, device: torch.device, dataloader_idx: int
    ) -> SequenceBatch:
        return batch.to(device)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.model.parameters(), lr=self.learning_rate, fused=True)


class _EpochKeeper(pl.Callback):
    """Seeds each epoch, adds up its loss, validates, writes the checkpoint and decides when to stop."""

    def __init__(
        self, state: TrainingState, plan: TrainingPlan, targets: int, validate: Validate, folder: Path
    ) -> None:
        self.state = state
        self.plan = plan
        self.targets = targets
        self.validate = validate
        self.folder = folder
        self.progress: TrainingProgress | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        model = _model_of(pl_module)
        self.average = copy.deepcopy(model).requires_grad_(False).eval() if self.plan.weight_average else model
        if self.state.epoch:
            load_checkpoint(self.folder, model, self.average, trainer.optimizers)
        self.progress = TrainingProgress(
            epochs=self.plan.epochs,
            metric=self.plan.metric,
            targets=self.targets,
            enabled=self.plan.progress and trainer.is_global_zero,
        )
        self.progress.start_from(self.state.best_value)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        seed = np.random.SeedSequence([self.plan.seed, self.state.epoch, trainer.global_rank]).generate_state(1)
        torch.manual_seed(int(seed[0]))
        self.sums: dict[str, Tensor] = {}
        self.started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.state.steps += 1
        if self.plan.weight_average:
            # The first steps count in full: at step n the average reaches back about n / 10 steps at least.
            decay = min(self.plan.weight_average, (1 + self.state.steps) / (10 + self.state.steps))
            update_average(self.average, _model_of(pl_module), decay)
        parts = {"loss": outputs["loss"].detach(), **outputs["parts"]}
        for name, value in parts.items():
            self.sums[name] = self.sums.get(name, torch.zeros_like(value)) + value * batch.total
        if self.progress is not None:
            loss = float(parts["loss"]) if self.progress.wants_loss else None
            self.progress.finish_step(round(batch.total * trainer.world_size), loss)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        seconds = time.perf_counter() - self.started
        model = _model_of(pl_module)
        self.average.eval()
        with torch.no_grad(), _divergence_explained():
            metrics = self.validate(self.average)
        model.train()
        state = self.state
        state.epoch += 1
        losses = {name: float(trainer.strategy.reduce(total, reduce_op="sum")) for name, total in self.sums.items()}
        if metrics[self.plan.metric] > state.best_value:
            state.best_epoch, state.best_value, state.waited = state.epoch, metrics[self.plan.metric], 0
        else:
            state.waited += 1
        record = {
            "epoch": state.epoch,
            **{name: total / self.targets for name, total in losses.items()},
            **{f"valid_{name}": value for name, value in metrics.items()},
            "seconds": round(seconds, 3),
            "tokens_per_second": round(self.targets / seconds, 1),
        }
        state.history.append(record)
        state.seconds += time.perf_counter() - self.started
        if trainer.is_global_zero:
            save_checkpoint(self.folder, model, self.average, trainer.optimizers, state)
            write_history(self.folder.parent / HISTORY, state.history)
        if self.progress is not None:
            self.progress.finish_epoch(state.epoch, record, best_epoch=state.best_epoch)
        if state.waited >= self.plan.patience:
            trainer.should_stop = True

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        if self.progress is not None:
            self.progress.close()
            self.progress = None


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """``average <- decay * average + (1 - decay) * model`` for parameters; buffers are copied.

    Paper: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992,
    https://doi.org/10.1137/0330046; here with exponential weights.

    Args:
        average: changed in place.
        model: same structure.
        decay: in [0, 1].

    Example:
        >>> average, model = nn.Linear(1, 1), nn.Linear(1, 1)
        >>> update_average(average, model, 0.0)
        >>> bool(average.weight == model.weight)
        True
    """
    for kept, new in zip(average.parameters(), model.parameters(), strict=True):
        kept.lerp_(new, 1.0 - decay)
    for state, newest in zip(average.buffers(), model.buffers(), strict=True):
        state.copy_(newest)


def require_devices(devices: int, accelerator: str) -> None:
    """Refuse more processes than this machine has processors, or GPUs that it does not have.

    Args:
        devices: processes that share each step.
        accelerator: ``cpu``, ``gpu`` or ``auto``.

    Raises:
        InputError: with the number that there is.

    Example:
        >>> require_devices(1, "cpu")
    """
    gpus = torch.cuda.device_count()
    if accelerator == "gpu" or (accelerator == "auto" and gpus):
        if devices > gpus:
            remedy = "use the setting accelerator=cpu, or fewer devices"
            raise InputError(f"{devices} GPUs were asked for and this machine has {gpus}", remedy)
    elif devices > (processors := os.cpu_count() or 1):
        raise InputError(
            f"{devices} processes were asked for and this machine has {processors} processors", "use fewer devices"
        )


@contextmanager
def _divergence_explained() -> Iterator[None]:
    """Name the cause when a kernel or a metric refuses numbers that are not finite; ids and shapes are ours."""
    try:
        yield
    except ValueError as error:
        if "NaN" not in str(error) and "not finite" not in str(error):
            raise
        raise InputError(f"training has diverged ({error})", "lower learning_rate or init_std") from error


@contextmanager
def _errors_of_processes() -> Iterator[None]:
    """Raise again the bad input that a spawned process met; its traceback arrives as text."""
    try:
        yield
    except ProcessRaisedException as error:
        name, _, message = str(error).strip().splitlines()[-1].partition(": ")
        if name != f"{InputError.__module__}.{InputError.__qualname__}":
            raise
        problem, _, remedy = message.rpartition("; ")
        raise InputError(problem, remedy) from error


def _model_of(module: pl.LightningModule) -> nn.Module:
    model = module.model
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a module, got {type(model).__name__}")
    return model


def _rank_and_world() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Keep Lightning's banners and its advice on data loaders and loggers, which we do not use, off the screen."""
    names = ("pytorch_lightning", "lightning.pytorch", "pytorch_lightning.utilities.rank_zero", "lightning_fabric")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(pytorch_)?lightning.*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
