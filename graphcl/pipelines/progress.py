"""What a person sees while a model trains: a bar on a terminal, one line an epoch elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO


class TrainingProgress:
    """Shows loss, validation metric and the time left.

    On a terminal: a bar that advances with every step. Elsewhere: one line an epoch.

    Args:
        epochs: most epochs of the run.
        metric: name of the validation metric.
        targets: supervised targets an epoch.
        enabled: False shows nothing.
        stream: where to write; standard error when None.

    Example:
        >>> progress = TrainingProgress(epochs=2, metric="NDCG@20", targets=10, stream=sys.stdout)
        >>> record = {"loss": 2.5, "valid_NDCG@20": 0.1, "seconds": 3.0}
        >>> progress.finish_epoch(1, record, best_epoch=1)
        epoch 1/2  loss 2.5000  NDCG@20 0.1000 (best 0.1000, epoch 1)  3.0 s, at most 3 s left
        >>> progress.close()
    """

    def __init__(
        self, *, epochs: int, metric: str, targets: int, enabled: bool = True, stream: TextIO | None = None
    ) -> None:
        self.epochs = epochs
        self.metric = metric
        self.targets = targets
        self.stream = stream or sys.stderr
        self.enabled = enabled
        self._best = float("-inf")
        self._seconds: list[float] = []
        self._bar: Any = None
        self._task: Any = None
        self._shown = 0.0
        if enabled and self.stream.isatty():
            self._open_bar()

    def _open_bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(),
            TextColumn("{task.fields[status]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=Console(file=self.stream),
            transient=True,
        )
        self._task = self._bar.add_task(
            "train", total=self.targets, epoch=1, epochs=self.epochs, status="", left="time left unknown"
        )
        self._bar.start()

    def finish_step(self, targets: int, loss: float | None) -> None:
        """Advance the bar by the targets of one step; ``loss`` may be None to keep the value that is shown."""
        if self._bar is not None:
            self._bar.advance(self._task, targets)
            if loss is not None:
                self._bar.update(self._task, status=f"loss {loss:.4f}")

    @property
    def wants_loss(self) -> bool:
        """Whether the bar would show a new loss now (reading it costs a device synchronisation)."""
        now = time.monotonic()
        if self._bar is None or now - self._shown < 0.5:
            return False
        self._shown = now
        return True

    def finish_epoch(self, epoch: int, record: Mapping[str, float], *, best_epoch: int) -> None:
        """Report a finished epoch.

        Args:
            epoch: its number, from 1.
            record: the epoch's line of the history.
            best_epoch: epoch with the best validation metric so far.
        """
        if not self.enabled:
            return
        value = record[f"valid_{self.metric}"]
        if best_epoch == epoch:
            self._best = value
        self._seconds.append(record["seconds"])
        recent = self._seconds[-5:]
        left = f"at most {_duration((self.epochs - epoch) * sum(recent) / len(recent))} left"
        status = f"loss {record['loss']:.4f}  {self.metric} {value:.4f} (best {self._best:.4f}, epoch {best_epoch})"
        if self._bar is not None:
            following = min(epoch + 1, self.epochs)
            self._bar.update(self._task, completed=0, epoch=following, status=status, left=left)
            return
        print(f"epoch {epoch}/{self.epochs}  {status}  {record['seconds']:.1f} s, {left}", file=self.stream, flush=True)

    def start_from(self, best_value: float) -> None:
        """Continue a run that already has a best validation metric."""
        self._best = best_value

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
