"""The training loop: a thin adapter between our models and Lightning, the only module that knows the framework."""

from __future__ import annotations

import copy
import logging
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.multiprocessing.spawn import ProcessRaisedException

from graphcl.errors import InputError
from graphcl.pipelines.checkpoints import (
    TrainingState,
    best_name,
    load_checkpoint,
    load_kept_weights,
    load_state,
    save_checkpoint,
)
from graphcl.pipelines.freed_memory import give_back_freed_memory, keep_freed_memory
from graphcl.pipelines.progress import TrainingProgress
from graphcl.pipelines.runs import HISTORY, write_history

History = Sequence[dict[str, float]]
Validate = Callable[[nn.Module], dict[str, float]]


class Batch(Protocol):
    """One training step of a process."""

    @property
    def total(self) -> float:
        """Weight of the step's mean loss in the epoch's mean: its targets, shared out among the processes."""

    def to(self, device: torch.device) -> Any:
        """The same batch on another device."""


class EpochSource(Protocol):
    """Where the steps of an epoch come from; pickled when processes share the steps."""

    @property
    def num_targets(self) -> int:
        """Sum of the ``total`` of an epoch's batches over all processes."""

    def batches(self, epoch: int, rank: int, world: int) -> Iterator[Batch]:
        """The steps of an epoch (from 0), the share of process ``rank`` of ``world``.

        It must be a function of its arguments and of what the source was made with, so that a resumed run goes through
        the same steps; every process must get as many steps. A batch is drawn when the step before it is over.
        """


@dataclass(frozen=True)
class TrainingPlan:
    """How to train.

    Args:
        epochs: most epochs.
        learning_rate: of Adam.
        metric: validation metric to watch, higher is better; None when there is none.
        stop: end after ``patience`` epochs without a better validation metric (``metric``) or a lower mean training
            loss (``loss``), or go through all epochs (``never``).
        keep: weights to end with: those of the epoch that was best by what ``stop`` watches (by the metric, or by the
            loss where there is no metric, under ``never``), or those of the last epoch.
        patience: see ``stop``.
        min_epochs: patience ends nothing before so many epochs.
        finished: looks at the history after each epoch; True ends the training. A module-level function or a picklable
            object.
        weight_decay: L2 penalty that Adam adds to the gradient.
        weight_average: decay a step of the moving average of the weights that is measured and kept; 0 for none.
        lr_decay: the learning rate after e finished epochs is ``learning_rate * lr_decay ** e``, or
            ``learning_rate * lr_decay(e)`` for a module-level function.
        validate_every: validate after every so many epochs, and after the last.
        checkpoint_seconds: write a checkpoint after an epoch only when the one before is so old, and after the last.
        seed: decides the order of the batches and every dropout mask, together with the number of the epoch.
        unit: plural of what the source's targets are, for the speed in the history.
        devices: processes that share each step.
        accelerator: ``cpu``, ``gpu`` or ``auto``.
        keep_freed_memory: what a step frees stays for the next one, see `graphcl.pipelines.freed_memory`.
        progress: whether to show any.

    Raises:
        ValueError: when there is no metric to stop by.

    Example:
        >>> TrainingPlan(epochs=9, learning_rate=0.01, lr_decay=0.5).learning_rate_after(2)
        0.0025
    """

    epochs: int
    learning_rate: float
    metric: str | None = None
    stop: Literal["metric", "loss", "never"] = "never"
    keep: Literal["best", "last"] = "last"
    patience: int = 1
    min_epochs: int = 0
    finished: Callable[[History], bool] | None = None
    weight_decay: float = 0.0
    weight_average: float = 0.0
    lr_decay: float | Callable[[int], float] = 1.0
    validate_every: int = 1
    checkpoint_seconds: float = 0.0
    seed: int = 0
    unit: str = "targets"
    devices: int = 1
    accelerator: str = "auto"
    keep_freed_memory: bool = False
    progress: bool = True

    def __post_init__(self) -> None:
        if self.stop == "metric" and self.metric is None:
            raise ValueError("stop='metric' needs a metric")

    @property
    def watches_loss(self) -> bool:
        """Whether the best epoch is that of the lowest training loss; else it is that of the highest metric."""
        return self.stop == "loss" or self.metric is None

    def learning_rate_after(self, epochs: int) -> float:
        """Learning rate after so many finished epochs."""
        factor = self.lr_decay(epochs) if callable(self.lr_decay) else self.lr_decay**epochs
        return self.learning_rate * factor

    def is_exhausted(self, state: TrainingState) -> bool:
        """Whether the epochs or the patience are used up; patience with a metric is, only where it was measured."""
        judged = self.watches_loss or state.epoch % self.validate_every == 0
        impatient = self.stop != "never" and judged and state.waited >= self.patience and state.epoch >= self.min_epochs
        return state.epoch >= self.epochs or impatient

    def is_over(self, state: TrainingState) -> bool:
        """Whether training ends in this state."""
        finished = self.finished is not None and bool(state.history) and self.finished(state.history)
        return finished or self.is_exhausted(state)


def train(
    model: nn.Module,
    source: EpochSource,
    validate: Validate | None,
    plan: TrainingPlan,
    folder: Path,
    identity: dict[str, Any],
) -> TrainingState:
    """Train as planned; the model ends with the weights that the plan says to keep.

    The whole state is written to ``folder`` after an epoch; a state that is already there is continued. The batches
    and dropout masks of an epoch are a function of (seed, epoch, process), so a run that was killed and continued goes
    through the same steps as one that was not. Torch's own random state is left as it was.

    Args:
        model: has ``objective(batch) -> (loss, {name: part})``; the loss is a mean over the batch's ``total``. Where it
            has ``parameter_groups()`` and ``training_steps(batch)``, a batch takes those steps instead, each group with
            an Adam of its own (see :class:`graphcl.models.SteppedModel`). Where it
            has ``on_epoch_start(epoch, generator)``, that is called before the batches of each epoch (from 0) are
            drawn, with a CPU generator that is a function of (seed, epoch) alone: models redraw their graphs or set
            their centres there.
        source: what to train on.
        validate: called with the model in evaluation mode, gradients off. With ``plan.metric`` its record must hold
            that name, and enters the history with the prefix ``valid_``; without it enters as it is.
        plan: how to train.
        folder: the run's checkpoint folder; ``history.csv`` goes into its parent.
        identity: stored with the state, for the caller to compare before it resumes.

    Returns:
        The final state with the history.

    Raises:
        InputError: when training diverges.

    Complexity: memory of the weights, Adam's two moments and one batch, and once more the weights while those of the
    best epoch wait for their checkpoint. An epoch of one step costs about two milliseconds beside the model's work.
    """
    state = load_state(folder) or TrainingState(identity=identity)
    if not plan.is_over(state):
        epochs = _Epochs(state, source, validate, plan, folder)
        accelerator = plan.accelerator
        if accelerator == "auto":
            accelerator = "gpu" if torch.cuda.is_available() else "cpu"
        # Spawned processes run this loop only, not the caller's script again; they leave their result in the folder.
        stepped = hasattr(model, "training_steps")  # such a step leaves the gradients of other groups out
        several = "ddp_spawn_find_unused_parameters_true" if stepped else "ddp_spawn"
        strategy = several if plan.devices > 1 else "auto"
        with torch.random.fork_rng(), _quiet_lightning(), _errors_of_processes(), ExitStack() as at_end:
            if plan.keep_freed_memory:
                at_end.callback(give_back_freed_memory)
            trainer = pl.Trainer(
                max_epochs=1,  # Lightning runs the steps of all epochs in one; `_Epochs` knows where they begin and end
                accelerator=accelerator,
                devices=plan.devices,
                strategy=strategy,
                callbacks=[epochs],
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                use_distributed_sampler=False,
            )
            trainer.fit(_TrainedModule(model, plan), train_dataloaders=epochs.steps)
    final = load_state(folder)
    if final is None:
        raise RuntimeError(f"training ended without a checkpoint in {folder}")
    load_kept_weights(folder, model, best_name(final.best_epoch) if plan.keep == "best" else None)
    return final


class _TrainedModule(pl.LightningModule):
    def __init__(self, model: nn.Module, plan: TrainingPlan) -> None:
        super().__init__()
        self.model = model
        self.plan = plan
        self.groups: dict[str, list[nn.Parameter]] = {}
        if hasattr(model, "training_steps"):
            self.automatic_optimization = False
            grouped: Any = model.parameter_groups
            self.groups = {name: list(parameters) for name, parameters in grouped().items()}

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        if self.groups:
            return self._take_steps(batch)
        objective: Any = self.model.objective
        with _divergence_explained():
            loss, parts = objective(batch)
        return {"loss": loss, "parts": parts}

    def _take_steps(self, batch: Any) -> dict[str, Any]:
        """All steps of a batch; the first one's value is the loss, a part that comes again keeps its first value."""
        optimizers = dict(zip(self.groups, self.trainer.optimizers, strict=True))
        steps: Any = self.model.training_steps
        record: dict[str, Any] = {}
        for name, objective in steps(batch):
            with self._only(name), _divergence_explained():
                loss, parts = objective()
                optimizers[name].zero_grad()
                self.manual_backward(loss)
            optimizers[name].step()
            record = record or {"loss": loss.detach(), "parts": {}}
            record["parts"] = {**parts, **record["parts"]}
        return record

    @contextmanager
    def _only(self, name: str) -> Iterator[None]:
        """Let the parameters of one group alone require gradients."""
        others = [parameter for group in self.groups if group != name for parameter in self.groups[group]]
        frozen = [parameter for parameter in others if parameter.requires_grad]
        try:
            for parameter in frozen:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter in frozen:
                parameter.requires_grad_(True)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Any:
        return batch.to(device)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        plan = self.plan
        groups = self.groups.values() if self.groups else [list(self.model.parameters())]
        return [
            torch.optim.Adam(group, lr=plan.learning_rate, weight_decay=plan.weight_decay, fused=True)
            for group in groups
        ]


class _Steps:
    """The steps of all epochs, one after the other, as Lightning reads them."""

    def __init__(self, epochs: _Epochs) -> None:
        self.epochs = epochs

    def __len__(self) -> int:
        # Without a length Lightning would draw a batch before the step of the one before it is over, and so before the
        # epoch of the new batch has begun. The end comes when the iterator says so.
        return 2**31 - 1

    def __iter__(self) -> Iterator[Batch]:
        return self.epochs.run()


class _Epochs(pl.Callback):
    """Seeds each epoch, adds up its loss, validates, writes the checkpoint and decides when to stop."""

    trainer: pl.Trainer
    model: nn.Module
    average: nn.Module
    progress: TrainingProgress

    def __init__(
        self, state: TrainingState, source: EpochSource, validate: Validate | None, plan: TrainingPlan, folder: Path
    ) -> None:
        self.state = state
        self.source = source
        self.validate = validate
        self.plan = plan
        self.folder = folder
        self.steps = _Steps(self)
        self.sums: dict[str, Tensor] = {}
        self.best_weights: dict[str, Tensor] | None = None
        self.saved_at = -math.inf

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.plan.keep_freed_memory:
            keep_freed_memory()
        self.trainer = trainer
        self.model = _model_of(pl_module)
        self.average = self.model
        if self.plan.weight_average:
            self.average = copy.deepcopy(self.model).requires_grad_(False).eval()
        if self.state.epoch:
            load_checkpoint(self.folder, self.model, self.average, trainer.optimizers)
        self.progress = TrainingProgress(
            epochs=self.plan.epochs,
            metric=self.plan.metric,
            targets=self.source.num_targets,
            enabled=self.plan.progress and trainer.is_global_zero,
        )
        if not self.plan.watches_loss:
            self.progress.start_from(self.state.best_value)

    def run(self) -> Iterator[Batch]:
        """The batches of every epoch, with what surrounds an epoch in between."""
        world, rank = self.trainer.world_size, self.trainer.global_rank
        while not self.plan.is_over(self.state):
            started = time.perf_counter()
            self._start_epoch(rank)
            yield from self.source.batches(self.state.epoch, rank, world)
            self._finish_epoch(started)

    def _start_epoch(self, rank: int) -> None:
        epoch, plan = self.state.epoch, self.plan
        torch.manual_seed(_seed_of(plan.seed, epoch, rank))
        self.sums = {}
        if plan.lr_decay != 1.0:
            for group in (group for optimizer in self.trainer.optimizers for group in optimizer.param_groups):
                group["lr"] = plan.learning_rate_after(epoch)
        hook = getattr(self.model, "on_epoch_start", None)
        if hook is not None:
            hook(epoch, torch.Generator().manual_seed(_seed_of(plan.seed, epoch)))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.state.steps += 1
        if self.plan.weight_average:
            # The first steps count in full: at step n the average reaches back about n / 10 steps at least.
            decay = min(self.plan.weight_average, (1 + self.state.steps) / (10 + self.state.steps))
            update_average(self.average, self.model, decay)
        parts = {"loss": outputs["loss"].detach(), **outputs["parts"]}
        for name, value in parts.items():
            self.sums[name] = self.sums.get(name, torch.zeros_like(value)) + value * batch.total
        loss = float(parts["loss"]) if self.progress.wants_loss else None
        self.progress.finish_step(round(batch.total * trainer.world_size), loss)

    def _finish_epoch(self, started: float) -> None:
        seconds = time.perf_counter() - started
        state, plan = self.state, self.plan
        state.epoch += 1
        state.waited += 1
        record: dict[str, float] = {"epoch": state.epoch, **self._losses()}
        if plan.watches_loss:
            self._compare(-record["loss"])
        if self.validate is not None and (state.epoch % plan.validate_every == 0 or plan.is_exhausted(state)):
            measured = self._measure(self.validate)
            prefix = "" if plan.metric is None else "valid_"
            record |= {f"{prefix}{name}": value for name, value in measured.items()}
            if not plan.watches_loss:
                self._compare(measured[str(plan.metric)])
        if plan.keep == "last":
            state.best_epoch = state.epoch
        state.history.append(record)
        record["seconds"] = round(seconds, 6)
        record[f"{plan.unit}_per_second"] = round(self.source.num_targets / seconds, 1)
        state.seconds += time.perf_counter() - started
        self._save()
        self.progress.finish_epoch(state.epoch, record, best_epoch=state.best_epoch if plan.keep == "best" else None)

    def _losses(self) -> dict[str, float]:
        """Mean loss and parts of the epoch over all processes."""
        reduce, targets = self.trainer.strategy.reduce, self.source.num_targets
        losses = {name: float(reduce(total, reduce_op="sum")) / targets for name, total in self.sums.items()}
        if not losses:
            raise RuntimeError("the source of an epoch gave no batch")
        if not math.isfinite(losses["loss"]):
            raise _diverged(f"the loss is {losses['loss']}")
        return losses

    def _measure(self, validate: Validate) -> dict[str, float]:
        self.average.eval()
        with torch.no_grad(), _divergence_explained():
            measured = validate(self.average)
        self.model.train()
        return measured

    def _compare(self, value: float) -> None:
        """Note whether this epoch is the best so far, and keep its weights if they are wanted."""
        state = self.state
        if value > state.best_value:
            state.best_epoch, state.best_value, state.waited = state.epoch, value, 0
            if self.plan.keep == "best" and self.trainer.is_global_zero:
                weights = self.average.state_dict()
                self.best_weights = {name: weight.detach().to("cpu", copy=True) for name, weight in weights.items()}

    def _save(self) -> None:
        due = time.monotonic() - self.saved_at >= self.plan.checkpoint_seconds
        if self.trainer.is_global_zero and (due or self.plan.is_over(self.state)):
            optimizers = self.trainer.optimizers
            save_checkpoint(self.folder, self.model, self.average, optimizers, self.state, self.best_weights)
            write_history(self.folder.parent / HISTORY, self.state.history)
            self.best_weights = None
            self.saved_at = time.monotonic()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.progress.close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if hasattr(self, "progress"):
            self.progress.close()


def _seed_of(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


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
        raise _diverged(str(error)) from error


def _diverged(sign: str) -> InputError:
    return InputError(f"training has diverged ({sign})", "lower learning_rate")


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
