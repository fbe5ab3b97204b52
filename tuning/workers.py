"""Pool of worker processes that run trials. A process is replaced after some trials, which bounds its memory."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pebble import ProcessExpired, ProcessPool

from emotion_tf.errors import UserError
from emotion_tf.locks import DISK, WriteError
from emotion_tf.processes import Spawn, end_with_parent

TRIALS_PER_PROCESS = 10


@dataclass(frozen=True)
class Outcome:
    """Result of a trial.

    Attributes:
        score: objective; None after an error.
        epochs: number of epochs, over all folds.
        seconds: duration.
        error: message in one line; empty for a finished trial.
        folds: scores of the folds, whose mean is `score`.
        died: whether the worker process ended during the trial.
    """

    score: float | None = None
    epochs: int = 0
    seconds: float = 0.0
    error: str = ""
    folds: tuple[float, ...] = ()
    died: bool = False


class Job(Protocol):
    """Job of the worker processes. Must be picklable."""

    def start(self) -> None:
        """Starts a process; called once in each."""

    def run(self, task: Any) -> Outcome:
        """Runs a trial. Any exception makes the trial a broken one."""


@contextmanager
def worker_pool(job: Job, count: int, log: Path) -> Iterator[Callable[[Any], Future[Outcome]]]:
    """Starts worker processes and yields a function that schedules a task.

    Args:
        job: job of the processes.
        count: number of processes.
        log: file to which their output is appended.
    """
    arguments = (pickle.dumps(job), log)  # a process redirects its output before the job imports TensorFlow
    pool = ProcessPool(count, max_tasks=TRIALS_PER_PROCESS, initializer=_start, initargs=arguments, context=Spawn())

    def submit(task: Any) -> Future[Outcome]:
        try:
            return pool.schedule(_run, (task,))
        except RuntimeError:  # of a pool whose processes failed before any task
            raise UserError(f"The worker processes cannot start. {_last_line(log)}".rstrip()) from None

    try:
        yield submit
        pool.close()
    except BaseException:
        pool.stop()
        raise
    finally:
        pool.join()


def _last_line(log: Path) -> str:
    """Returns the last message of the processes: an error may delete the log with the folder of the search."""
    with contextlib.suppress(OSError):
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        return "".join(character for character in lines[-1][:300] if character.isprintable()) if lines else ""
    return ""


def outcome_of(done: Future[Outcome]) -> Outcome:
    """Returns the outcome of a finished task; an exception or the death of its process becomes the error.

    Raises:
        WriteError: the disk is full or not writable, for which the trial is not to blame.
    """
    try:
        return done.result()
    except WriteError:
        raise
    except ProcessExpired as death:  # an OSError
        return Outcome(error=f"the worker process ended with exit code {death.exitcode}", died=True)
    except OSError as error:
        if error.errno in DISK:
            raise WriteError(f"Cannot write {error.filename or 'the files of a trial'}: {error.strerror}.") from None
        return Outcome(error=f"OSError: {' '.join(str(error).split())[:300]}")
    except UserError as error:
        return Outcome(error=" ".join(str(error).split()))
    except Exception as error:  # any exception of TensorFlow for a model that cannot be trained
        return Outcome(error=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


_job: Job | None = None


def _start(job: bytes, log: Path) -> None:
    global _job
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process handles Ctrl-C
    end_with_parent()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    for descriptor in (1, 2):  # the output of trainings would disturb the display of the search
        os.dup2(file, descriptor)
    _job = pickle.loads(job)
    _job.start()


def _run(task: Any) -> Outcome:
    if _job is None:
        raise RuntimeError("_start was not called in this process")
    return _job.run(task)
