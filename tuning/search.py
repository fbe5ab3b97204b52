"""The search loop: takes trials from an oracle, runs them in worker processes, and reports their outcomes."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

from emotion_tf.errors import UserError
from tuning.distributed import check_workers
from tuning.oracle import HEARTBEAT, REPORT
from tuning.workers import Outcome, outcome_of

TICK = 0.5
"""Seconds between two updates of the display."""
MAX_BROKEN = 3
"""Number of broken trials after which a search ends, if all trials so far broke with the same error."""


def run_trials(
    oracle: Any,
    submit: Callable[[Any], Future[Outcome]],
    task: Callable[[Any], Any],
    names: Sequence[str],
    tick: Callable[[dict[str, Any]], None],
) -> None:
    """Runs trials in parallel, one per worker, until the oracle has no more.

    Args:
        oracle: source of the trials: an oracle of `tuning.oracle`, or KerasTuner's client of a remote one.
        submit: schedules a task in a worker process.
        task: returns the task of a trial.
        names: names of the workers, for the oracle.
        tick: called every `TICK` seconds with the running trials: worker -> trial.

    Raises:
        UserError: the worker processes die repeatedly without finishing a trial.
    """
    running: dict[str, tuple[Any, Future[Outcome]]] = {}
    waiting, deaths, last_heartbeat = set(names), 0, time.monotonic()
    while waiting or running:
        for name in sorted(waiting):
            trial = oracle.create_trial(name)
            if trial.status == "RUNNING":
                running[name] = (trial, submit(task(trial)))
            if trial.status != "IDLE":  # idle: the oracle may have a trial after others have ended
                waiting.remove(name)
        done = _wait([future for _, future in running.values()])
        for name in [name for name, (_, future) in running.items() if future in done]:
            trial, future = running.pop(name)
            outcome = outcome_of(future)
            deaths = deaths + 1 if outcome.died else 0
            report(oracle, trial, outcome, name)
            waiting.add(name)
        if deaths >= max(2, len(names)):
            raise UserError(
                f"The worker processes die: {deaths} in a row, the last with: {outcome.error}. Finished trials are "
                "saved. Remove the cause (often too little memory: fewer --workers) and continue with --resume."
            )
        if time.monotonic() - last_heartbeat > HEARTBEAT:
            last_heartbeat = time.monotonic()
            for trial, _ in running.values():
                oracle.get_trial(trial.trial_id)  # the heartbeat of the trial
        tick({name: trial for name, (trial, _) in running.items()})


def _wait(futures: Sequence[Future[Outcome]]) -> set[Future[Outcome]]:
    if futures:
        return wait(futures, TICK, FIRST_COMPLETED).done
    time.sleep(TICK)
    return set()


def report(oracle: Any, trial: Any, outcome: Outcome, worker: str) -> None:
    """Reports the outcome of a trial to the oracle."""
    trial.status = "FAILED" if outcome.error else "COMPLETED"
    trial.hyperparameters.values[REPORT] = json.dumps({**dataclasses.asdict(outcome), "worker": worker})
    oracle.end_trial(trial)


def lead(
    oracle: Any,
    submit: Callable[[Any], Future[Outcome]],
    task: Callable[[Any], Any],
    names: Sequence[str],
    tick: Callable[[dict[str, Any]], None],
) -> None:
    """Runs a search to its end, with local workers (`names`), remote ones, or both.

    Raises:
        UserError: all trials break with the same error, no worker is left, or the state cannot be written.
    """

    before = len(oracle.ended_trials)  # the cause of errors in an earlier session may have been removed

    def check(running: dict[str, Any]) -> None:
        if oracle.save_error:
            raise oracle.save_error
        oracle.requeue_lost()
        check_broken([oracle.reports[trial.trial_id]["error"] for trial in oracle.ended_trials[before:]])
        tick(running)

    while not is_finished(oracle):
        run_trials(oracle, submit, task, names, check)
        if not is_finished(oracle):  # remote workers still run trials
            time.sleep(TICK)
            check({})
            if not names:
                check_workers(oracle)


def is_finished(oracle: Any) -> bool:
    """Whether no trial is running, waiting or left."""
    return oracle.is_exhausted and not oracle.ongoing_trials and not oracle._retry_queue


def check_broken(errors: Sequence[str]) -> None:
    """Raises UserError if all trials so far, and enough of them, broke with the same error."""
    messages = {re.sub(r"[\d.e+-]*\d", "#", error) for error in errors}
    if len(errors) >= MAX_BROKEN and len(messages) == 1 and "" not in messages:
        raise UserError(f"The search has ended: the first {len(errors)} trials all broke. {errors[-1]}")
