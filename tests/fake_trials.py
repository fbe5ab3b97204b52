"""Trials that need no training: tests of the search without TensorFlow."""

from __future__ import annotations

import math
import os
import signal
import time
from concurrent.futures import Future
from dataclasses import dataclass

from emotion_tf.errors import UserError
from tuning.workers import Outcome


@dataclass(frozen=True)
class Fake:
    """Scores a configuration by a formula.

    Attributes:
        breaks: message of the error of every trial; empty: none.
        dies: optimizer whose trials kill their process; empty: none.
        seconds: duration of a trial.
        starts: whether a process can start.
    """

    breaks: str = ""
    dies: str = ""
    seconds: float = 0.0
    starts: bool = True

    def start(self) -> None:
        if not self.starts:
            raise ImportError("no such module")

    def run(self, task) -> Outcome:
        time.sleep(self.seconds)
        train = task.config.train
        if self.breaks:
            raise UserError(f"{self.breaks} with {train.learning_rate}")
        if self.dies == train.optimizer:
            os.kill(os.getpid(), signal.SIGKILL)
        if train.optimizer == "rmsprop":
            raise UserError(f"The loss became nan in epoch 1. Lower --train.learning-rate (now {train.learning_rate}).")
        epochs = task.until or train.epochs
        return Outcome(score=score(task.config) + epochs / 100, epochs=epochs, seconds=0.5)

    def submit(self, task) -> Future:
        """Runs a task at once, in this process."""
        done: Future = Future()
        try:
            done.set_result(self.run(task))
        except Exception as error:
            done.set_exception(error)
        return done


class LoudJob(Fake):
    """Prints a line when a process unpickles it, as an import of TensorFlow does."""

    def __reduce__(self):
        return _loud_job, ()


def _loud_job() -> LoudJob:
    print("imported", flush=True)
    return LoudJob()


def score(config) -> float:
    """Returns a score with its maximum at a learning rate of 1e-3 and the fusion gated."""
    return 0.8 - 0.2 * abs(math.log10(config.train.learning_rate / 1e-3)) + 0.05 * (config.fusion.kind == "gated")
