"""A live line inside an epoch."""

from __future__ import annotations

import sys
import time
from typing import Any

import keras
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

LOG_EVERY = 60.0


class EpochProgress(keras.callbacks.Callback):
    """A bar with rate and time left on a terminal; a line a minute in a log. Whoever calls `fit` stops the `bar`."""

    def __init__(self, epoch: int, epochs: int, steps: int, batch_size: int) -> None:
        super().__init__()
        self.title, self.steps, self.batch_size = f"epoch {epoch + 1}/{epochs}", steps, batch_size
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[rate]:.0f} utterances/s"),
            TimeRemainingColumn(), TextColumn("loss {task.fields[loss]:.3f}"),
            console=Console(file=sys.stderr), transient=True, disable=not sys.stderr.isatty(),
        )  # fmt: skip

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Starts the clock."""
        self.began = self.logged = time.monotonic()
        self.bar.start()
        self.task = self.bar.add_task(self.title, total=self.steps, rate=0.0, loss=0.0)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Moves the bar, or writes the minute's line."""
        now = time.monotonic()
        rate = (batch + 1) * self.batch_size / max(now - self.began, 1e-9)
        loss = float((logs or {}).get("loss", 0.0))
        self.bar.update(self.task, advance=1, rate=rate, loss=loss)
        if self.bar.disable and now - self.logged > LOG_EVERY:
            self.logged = now
            left = (self.steps - batch - 1) * (now - self.began) / (batch + 1)
            print(
                f"{self.title}: batch {batch + 1}/{self.steps}, loss {loss:.3f}, {rate:.0f} utterances/s, "
                f"{left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )
