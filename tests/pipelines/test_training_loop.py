"""The training loop on tiny models: order of events, stopping, keeping, schedules, checkpoints, resuming."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from graphcl.errors import InputError
from graphcl.pipelines.checkpoints import LAST, TrainingState, load_tensors
from graphcl.pipelines.progress import TrainingProgress
from graphcl.pipelines.training import TrainingPlan, train

events: list[str] = []


@dataclass(frozen=True)
class TinyBatch:
    x: Tensor
    total: float

    def to(self, device: torch.device) -> TinyBatch:
        return replace(self, x=self.x.to(device))


@dataclass(frozen=True)
class TinySource:
    """Steps of equal size; the rows are a function of (epoch, step)."""

    steps: int = 1

    @property
    def num_targets(self) -> int:
        return 4 * self.steps

    def batches(self, epoch: int, rank: int, world: int) -> Iterator[TinyBatch]:
        for step in range(self.steps):
            events.append(f"batch {epoch}.{step}")
            generator = torch.Generator().manual_seed(1000 * epoch + step)
            yield TinyBatch(torch.rand(4, 3, generator=generator) + 0.5, 4.0)


class TinyModel(nn.Module):
    """Pulls its weight to 1 with noise; ``offset`` is redrawn at the start of an epoch."""

    offset: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
        self.register_buffer("offset", torch.zeros(()))

    def on_epoch_start(self, epoch: int, generator: torch.Generator) -> None:
        events.append(f"start {epoch}")
        self.offset.fill_(torch.rand((), generator=generator))

    def objective(self, batch: TinyBatch) -> tuple[Tensor, dict[str, Tensor]]:
        events.append("step")
        noise = 0.01 * torch.rand(4)
        pull = ((batch.x * (self.weight - 1)).sum(1) + noise).square().mean()
        loss = pull + 0.01 * self.offset
        return loss, {"pull": pull.detach()}


def fit(folder: Path, plan: TrainingPlan, *, source: TinySource | None = None, validate: Any = None) -> Any:
    events.clear()
    model = TinyModel()
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    state = train(model, source or TinySource(), validate, plan, folder / "checkpoints", {})
    return model, state


PLAN = TrainingPlan(epochs=5, learning_rate=0.1, progress=False, accelerator="cpu")


def test_a_batch_is_drawn_when_the_step_before_is_over_and_its_epoch_has_begun(tmp_path: Path) -> None:
    fit(tmp_path, replace(PLAN, epochs=2), source=TinySource(steps=2))
    epoch = ["batch {0}.0", "step", "batch {0}.1", "step"]
    assert events == ["start 0", *(e.format(0) for e in epoch), "start 1", *(e.format(1) for e in epoch)]


def test_without_metric_the_last_epoch_is_kept(tmp_path: Path) -> None:
    model, state = fit(tmp_path, PLAN)
    assert state.best_epoch == state.epoch == 5
    stored, _ = load_tensors(tmp_path / "checkpoints" / LAST)
    assert torch.equal(stored["model.weight"], model.weight)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [LAST]
    assert {"epoch", "loss", "pull", "seconds", "targets_per_second"} == set(state.history[0])


def test_the_history_holds_the_epochs_means(tmp_path: Path) -> None:
    """Means over targets, recomputed by hand with the noise of each step."""
    plan = replace(PLAN, epochs=1, learning_rate=1e-12)
    _, state = fit(tmp_path, plan, source=TinySource(steps=3))
    by_hand = []
    for step in range(3):
        x = torch.rand(4, 3, generator=torch.Generator().manual_seed(step)) + 0.5
        by_hand.append((-x.sum(1)).square().mean())
    assert state.history[0]["pull"] == pytest.approx(float(torch.stack(by_hand).mean()), rel=0.02)


def test_a_seed_decides_noise_and_draws(tmp_path: Path) -> None:
    random_state = torch.get_rng_state()
    runs = [fit(tmp_path / str(run), replace(PLAN, seed=seed)) for run, seed in enumerate((3, 3, 4))]
    assert torch.equal(torch.get_rng_state(), random_state)
    assert torch.equal(runs[0][0].weight, runs[1][0].weight)
    assert torch.equal(runs[0][0].offset, runs[1][0].offset)
    assert not torch.equal(runs[0][0].offset, runs[2][0].offset)


@pytest.mark.parametrize("average", [0.0, 0.5])
@pytest.mark.parametrize("keep", ["best", "last"])
def test_a_resumed_run_ends_with_the_same_bits(keep: Any, average: float, tmp_path: Path) -> None:
    plan = replace(PLAN, epochs=6, keep=keep, weight_average=average, lr_decay=0.7, weight_decay=0.1, stop="loss")
    plan = replace(plan, patience=99)
    whole, state = fit(tmp_path / "whole", plan)
    fit(tmp_path / "parts", replace(plan, epochs=2))
    parts, resumed = fit(tmp_path / "parts", plan)
    assert torch.equal(whole.weight, parts.weight)
    timeless = [
        [{name: value for name, value in record.items() if "second" not in name} for record in each.history]
        for each in (state, resumed)
    ]
    assert timeless[0] == timeless[1]
    assert events[0] == "start 2"


def test_the_lowest_loss_stops_and_is_kept(tmp_path: Path) -> None:
    """The learning rate explodes after three epochs."""
    plan = replace(PLAN, epochs=50, stop="loss", keep="best", patience=2, learning_rate=0.2, lr_decay=explode)
    model, state = fit(tmp_path, plan)
    losses = [record["loss"] for record in state.history]
    best = losses.index(min(losses))
    assert state.best_epoch == best + 1
    assert len(losses) == best + 3 < 50
    kept = train(TinyModel(), TinySource(), None, plan, tmp_path / "checkpoints", {})  # a finished run trains no more
    assert kept.epoch == state.epoch
    again, _ = fit(tmp_path / "again", replace(plan, epochs=best + 1))
    assert torch.equal(again.weight, model.weight)


def explode(epochs: int) -> float:
    return 1.0 if epochs < 3 else 50.0


def test_learning_rate_follows_the_plan() -> None:
    assert [replace(PLAN, lr_decay=0.5).learning_rate_after(epochs) for epochs in range(3)] == [0.1, 0.05, 0.025]
    assert replace(PLAN, lr_decay=explode).learning_rate_after(3) == pytest.approx(5.0)


def test_the_optimizer_is_given_rate_and_penalty(tmp_path: Path) -> None:
    """Adam's first step moves by the learning rate against the sign of gradient + penalty * weight."""

    class Flat(TinyModel):
        def objective(self, batch: TinyBatch) -> tuple[Tensor, dict[str, Tensor]]:
            return 0.0 * self.weight.sum(), {}

    model = Flat()
    model.weight.data = torch.tensor([1.0, -2.0, 0.0])
    (tmp_path / "checkpoints").mkdir()
    plan = replace(PLAN, epochs=2, lr_decay=0.5, weight_decay=0.3)
    train(model, TinySource(), None, plan, tmp_path / "checkpoints", {})
    torch.testing.assert_close(model.weight.data[2], torch.tensor(0.0))
    assert model.weight[0].item() == pytest.approx(1 - 0.1 - 0.05, abs=2e-3)
    assert model.weight[1].item() == pytest.approx(-2 + 0.1 + 0.05, abs=2e-3)


def measure(model: nn.Module) -> dict[str, float]:
    assert not model.training
    assert not torch.is_grad_enabled()
    weight = model.get_parameter("weight")
    return {"closeness": -float((weight - 1).abs().sum())}


def test_validation_comes_every_few_epochs_and_at_the_end(tmp_path: Path) -> None:
    _, state = fit(tmp_path, replace(PLAN, epochs=8, validate_every=3), validate=measure)
    assert [record["epoch"] for record in state.history if "closeness" in record] == [3, 6, 8]
    history = list(csv.DictReader((tmp_path / "history.csv").open()))
    assert [row["closeness"] != "" for row in history] == [False, False, True, False, False, True, False, True]


def test_a_metric_chooses_the_epoch_where_it_is_measured(tmp_path: Path) -> None:
    plan = replace(PLAN, epochs=40, metric="closeness", stop="metric", keep="best", validate_every=3, patience=4)
    model, state = fit(tmp_path, replace(plan, learning_rate=0.3), validate=measure)
    values = {record["epoch"]: record["valid_closeness"] for record in state.history if "valid_closeness" in record}
    best = max(values, key=lambda epoch: values[epoch])
    assert state.best_epoch == best
    assert state.epoch % 3 == 0
    assert best + 4 <= state.epoch < 40
    with torch.no_grad():
        assert measure(model.eval())["closeness"] == values[best]


def settled(history: Sequence[dict[str, float]]) -> bool:
    return history[-1].get("closeness", -math.inf) > -2.5


def test_a_rule_over_the_history_ends_the_training(tmp_path: Path) -> None:
    _, state = fit(tmp_path, replace(PLAN, epochs=50, finished=settled), validate=measure)
    assert state.history[-1]["closeness"] > -2.5 >= state.history[-2]["closeness"]
    _, again = fit(tmp_path, replace(PLAN, epochs=50, finished=settled), validate=measure)
    assert events == []
    assert again.epoch == state.epoch


def test_checkpoints_are_written_by_time_and_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    monkeypatch.setattr(
        "graphcl.pipelines.training.write_history", lambda path, history: written.append(history[-1]["epoch"])
    )
    fit(tmp_path, replace(PLAN, epochs=30, checkpoint_seconds=3600.0, stop="loss", keep="best", patience=99))
    assert written == [1, 30]
    assert len(list((tmp_path / "checkpoints").glob("best-*"))) == 1


class Interrupted(Exception):
    """What a power cut is to this test."""


@dataclass(frozen=True)
class PowerCut:
    """Validation that ends the process before an epoch is kept."""

    epoch: int

    def __call__(self, model: nn.Module) -> dict[str, float]:
        if events.count("step") == self.epoch:
            raise Interrupted
        return measure(model)


@pytest.mark.parametrize("keep", ["best", "last"])
def test_epochs_after_the_last_checkpoint_are_repeated(keep: Any, tmp_path: Path) -> None:
    plan = replace(PLAN, epochs=8, metric="closeness", keep=keep, checkpoint_seconds=3600.0, weight_average=0.5)
    whole, state = fit(tmp_path / "whole", plan, validate=measure)
    with pytest.raises(Interrupted):
        fit(tmp_path / "parts", plan, validate=PowerCut(5))
    assert len((tmp_path / "parts" / "history.csv").read_text().splitlines()) == 2
    parts, resumed = fit(tmp_path / "parts", plan, validate=measure)
    assert events[0] == "start 1"
    assert torch.equal(whole.weight, parts.weight)
    assert [record["loss"] for record in state.history] == [record["loss"] for record in resumed.history]
    assert state.best_epoch == resumed.best_epoch


def test_a_loss_that_is_no_number_is_bad_input(tmp_path: Path) -> None:
    class Broken(TinyModel):
        def objective(self, batch: TinyBatch) -> tuple[Tensor, dict[str, Tensor]]:
            return self.weight.sum() * math.nan, {}

    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(InputError, match=r"training has diverged \(the loss is nan\); lower learning_rate"):
        train(Broken(), TinySource(), None, PLAN, tmp_path / "checkpoints", {})


def test_a_metric_is_needed_to_stop_by() -> None:
    with pytest.raises(ValueError, match="stop='metric' needs a metric"):
        TrainingPlan(epochs=1, learning_rate=0.1, stop="metric")


def test_an_epoch_of_one_step_costs_little(tmp_path: Path) -> None:
    """Beside the model's own work; about 2 ms on an idle core, with room for a busy machine."""
    fit(tmp_path / "warm", PLAN)
    started = time.process_time()
    fit(tmp_path / "timed", replace(PLAN, epochs=300, checkpoint_seconds=60.0))
    assert (time.process_time() - started) / 300 < 0.008


def test_lines_are_at_most_one_a_second_and_the_last_is_shown() -> None:
    stream = io.StringIO()
    progress = TrainingProgress(epochs=1000, metric=None, targets=1, stream=stream)
    for epoch in range(1, 1001):
        progress.finish_step(1, None)
        progress.finish_epoch(epoch, {"loss": 1.0, "seconds": 0.001}, best_epoch=None)
    progress.close()
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("epoch 1/1000  loss 1.0000  0.0 s, at most 1 s left")
    assert lines[-1].startswith("epoch 1000/1000")
    assert len(lines) <= 4


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("seconds", "total"), [(0.01, 30), (60.0, 10)])
def test_the_bar_covers_an_epoch_or_all_of_them(seconds: float, total: int) -> None:
    progress = TrainingProgress(epochs=3, metric="NDCG@20", targets=10, stream=Terminal())
    progress.finish_step(4, 2.5)
    progress._drawn = -math.inf  # let the next drawing through
    progress.finish_epoch(1, {"loss": 2.0, "seconds": seconds}, best_epoch=0)
    task = progress._bar.tasks[0]
    assert task.total == total
    assert task.completed == (10 if total == 30 else 0)
    assert task.fields["epoch"] == 2
    assert task.fields["status"] == "loss 2.0000"  # nothing was validated yet
    progress.finish_epoch(2, {"loss": 2.0, "valid_NDCG@20": 0.5, "seconds": seconds}, best_epoch=2)
    progress.close()


def test_a_state_says_when_training_is_over() -> None:
    plan = replace(PLAN, stop="loss", patience=2)
    assert not plan.is_over(TrainingState(epoch=4, waited=1))
    assert plan.is_over(TrainingState(epoch=4, waited=2))
    assert plan.is_over(TrainingState(epoch=5))
    assert not replace(plan, stop="never").is_over(TrainingState(epoch=4, waited=9))
    patient = replace(plan, min_epochs=4)
    assert not patient.is_over(TrainingState(epoch=3, waited=3))
    assert patient.is_over(TrainingState(epoch=4, waited=2))
