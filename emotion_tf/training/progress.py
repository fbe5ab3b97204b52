"""Progress inside an epoch."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from emotion_tf.training.step import Sums

LOG_EVERY, SHOW_EVERY = 60.0, 0.2
"""Seconds between two lines in a log, and between two updates of the bar on a terminal."""


class EpochProgress:
    """A progress bar with rate and time left on a terminal; a line a minute in a log.

    Args:
        epoch: from 0.
        epochs: total number of epochs.
        steps: updates per epoch.
        silent: show nothing, as all hosts but one do.
    """

    def __init__(self, epoch: int, epochs: int, steps: int, silent: bool = False) -> None:
        self.title, self.steps, self.step, self.silent = f"epoch {epoch + 1}/{epochs}", steps, 0, silent
        self.bar = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(None), TimeRemainingColumn(),
            TextColumn("{task.fields[numbers]}"),
            console=Console(file=sys.stderr), transient=True, disable=silent or not sys.stderr.isatty(),
        )  # fmt: skip
        # the first step of a phase traces and optimises the graph, which takes seconds
        self.task = self.bar.add_task(f"{self.title}: first step", total=steps, numbers="")
        self.began = self.shown = time.monotonic()

    def __enter__(self) -> EpochProgress:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def advance(self, sums: Sums) -> None:
        """Counts an update. `sums` are those of the epoch so far; they are evaluated only for display."""
        self.step += 1
        if self.silent:
            return
        now = time.monotonic()
        if now - self.shown < (LOG_EVERY if self.bar.disable else SHOW_EVERY) and self.step < self.steps:
            return
        self.shown = now
        seconds = max(now - self.began, 1e-9)
        rate, loss = float(sums.rows) / seconds, sums.mean_loss
        numbers = f"{rate:.0f} utterances/s  loss {loss:.3f}"
        self.bar.update(self.task, completed=self.step, description=self.title, numbers=numbers)
        if self.bar.disable and self.step < self.steps:
            left = (self.steps - self.step) * seconds / self.step
            print(
                f"{self.title}: batch {self.step}/{self.steps}, loss {loss:.3f}, {rate:.0f} utterances/s, "
                f"{left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )
