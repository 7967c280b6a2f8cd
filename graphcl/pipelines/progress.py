"""What a person sees while a model trains: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, TextIO

_SHORT_EPOCH = 2.0  # seconds; a bar of shorter epochs would only flicker
_BETWEEN_LINES = 1.0
_BETWEEN_DRAWINGS = 0.1


class TrainingProgress:
    """Shows loss, validation metric and the time left.

    On a terminal: a bar, over the epoch where epochs are long and over the whole training where they are short.
    Elsewhere: a line an epoch, but at most one a second, and one for the last epoch.

    Args:
        epochs: most epochs of the run.
        metric: name of the validation metric; None when there is none.
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
        self, *, epochs: int, metric: str | None, targets: int, enabled: bool = True, stream: TextIO | None = None
    ) -> None:
        self.epochs = epochs
        self.metric = metric
        self.targets = targets
        self.stream = stream or sys.stderr
        self.enabled = enabled
        self._value = self._best = float("-inf")
        self._seconds: deque[float] = deque(maxlen=5)
        self._bar: Any = None
        self._task: Any = None
        self._done = 0
        self._drawn = self._loss_shown = self._printed = float("-inf")
        self._waiting = ""
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
        if self._bar is None:
            return
        self._done += targets
        if loss is not None:
            self._bar.update(self._task, status=f"loss {loss:.4f}")
        now = time.monotonic()
        if now - self._drawn >= _BETWEEN_DRAWINGS:
            self._drawn = now
            self._bar.update(self._task, completed=self._done)

    @property
    def wants_loss(self) -> bool:
        """Whether the bar would show a new loss now (reading it costs a device synchronisation)."""
        now = time.monotonic()
        if self._bar is None or now - self._loss_shown < 0.5:
            return False
        self._loss_shown = now
        return True

    def finish_epoch(self, epoch: int, record: Mapping[str, float], *, best_epoch: int | None) -> None:
        """Report a finished epoch.

        Args:
            epoch: its number, from 1.
            record: the epoch's line of the history; epochs without validation may lack the metric.
            best_epoch: epoch with the best validation metric so far; None when the last epoch counts.
        """
        if not self.enabled:
            return
        self._value = record.get(f"valid_{self.metric}", self._value)
        if best_epoch == epoch:
            self._best = self._value
        self._seconds.append(record["seconds"])
        recent = sum(self._seconds) / len(self._seconds)
        left = f"at most {_duration((self.epochs - epoch) * recent)} left"
        status = f"loss {record['loss']:.4f}"
        if self.metric is not None and self._value > float("-inf"):
            best = "" if best_epoch is None else f" (best {self._best:.4f}, epoch {best_epoch})"
            status += f"  {self.metric} {self._value:.4f}{best}"
        now = time.monotonic()
        if self._bar is None:
            self._waiting = f"epoch {epoch}/{self.epochs}  {status}  {record['seconds']:.1f} s, {left}"
            if now - self._printed >= _BETWEEN_LINES:
                self._printed = now
                self._print_waiting()
            return
        whole = recent < _SHORT_EPOCH
        self._done = epoch * self.targets if whole else 0
        if not whole or now - self._drawn >= _BETWEEN_DRAWINGS:
            self._drawn = now
            following, total = min(epoch + 1, self.epochs), self.targets * (self.epochs if whole else 1)
            self._bar.update(self._task, completed=self._done, total=total, epoch=following, status=status, left=left)

    def _print_waiting(self) -> None:
        if self._waiting:
            print(self._waiting, file=self.stream, flush=True)
            self._waiting = ""

    def start_from(self, best_value: float) -> None:
        """Continue a run that already has a best validation metric."""
        self._best = best_value

    def close(self) -> None:
        """Take the bar away, or print the last epoch's line."""
        self._print_waiting()
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
