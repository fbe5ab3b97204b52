"""Worker processes that run trials: each lives long, and is replaced before what it keeps can pile up."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Protocol

from pebble import ProcessExpired, ProcessPool

from emotion_tf.errors import UserError
from emotion_tf.processes import Spawn

TRIALS_A_PROCESS = 10


@dataclass(frozen=True)
class Outcome:
    """What a trial came to.

    Attributes:
        score: objective, or None with an error.
        epochs: that it was trained for; over all folds.
        seconds: that it took.
        error: one line, why there is no score.
        folds: scores of the folds that `score` is the mean of.
        died: whether its process ended with it.
    """

    score: float | None = None
    epochs: int = 0
    seconds: float = 0.0
    error: str = ""
    folds: tuple[float, ...] = ()
    died: bool = False


class Job(Protocol):
    """What a worker runs: picklable."""

    def start(self) -> None:
        """Once in each process."""

    def run(self, task: Any) -> Outcome:
        """One trial. Whatever it raises makes a broken trial."""


@contextmanager
def workers(job: Job, count: int, log: Path) -> Iterator[Callable[[Any], Future[Outcome]]]:
    """A pool of processes: gives a function that schedules a task.

    Args:
        job: what they run.
        count: how many.
        log: file that gets what they print.
    """
    pool = ProcessPool(count, max_tasks=TRIALS_A_PROCESS, initializer=_start, initargs=(job, log), context=Spawn())

    def submit(task: Any) -> Future[Outcome]:
        try:
            return pool.schedule(_run, (task,))
        except RuntimeError:  # of a pool whose processes failed before any task
            raise UserError(f"The worker processes cannot start. What they said is at the end of {log}.") from None

    try:
        yield submit
        pool.close()
    except BaseException:
        pool.stop()
        raise
    finally:
        pool.join()


def outcome(done: Future[Outcome]) -> Outcome:
    """The outcome of a finished task; what was raised, or a death, as a line."""
    try:
        return done.result()
    except ProcessExpired as death:
        return Outcome(error=f"the worker process ended with exit code {death.exitcode}", died=True)
    except UserError as error:
        return Outcome(error=" ".join(str(error).split()))
    except Exception as error:  # whatever TensorFlow says of a model that cannot be trained
        return Outcome(error=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


_job: Job | None = None


def _start(job: Job, log: Path) -> None:
    global _job
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's business
    threading.Thread(target=_end_with_parent, daemon=True).start()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    for descriptor in (1, 2):  # progress of one training would run through the table of all
        os.dup2(file, descriptor)
    _job = job
    job.start()


def _end_with_parent() -> None:
    """A worker whose search was killed must not go on writing beside the one that is resumed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _run(task: Any) -> Outcome:
    if _job is None:
        raise RuntimeError("_start has not run in this process")
    return _job.run(task)
