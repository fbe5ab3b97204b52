"""The search itself: trials from an oracle to worker processes and back, until there are no more."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

from emotion_tf.errors import UserError
from tuning.machines import watch
from tuning.oracle import BEAT, REPORT
from tuning.workers import Outcome, outcome

TICK = 0.5
ALIKE = 3
"""Broken trials, from the first on, after which a search in which all break alike is given up."""


def run_trials(
    oracle: Any,
    submit: Callable[[Any], Future[Outcome]],
    task: Callable[[Any], Any],
    names: Sequence[str],
    tick: Callable[[dict[str, Any]], None],
) -> None:
    """Runs trials, as many at a time as there are names, until the oracle has no more for any of them.

    Args:
        oracle: where trials come from: one of `oracle`, or KerasTuner's client of one on another machine.
        submit: schedules a task in a worker process.
        task: makes a trial's task.
        names: of the workers, by which the oracle knows them.
        tick: called twice a second with the trials that run: name -> trial.

    Raises:
        UserError: the worker processes die, one after the other, without finishing a trial.
    """
    running: dict[str, tuple[Any, Future[Outcome]]] = {}
    waiting, deaths, spoke = set(names), 0, time.monotonic()
    while waiting or running:
        for name in sorted(waiting):
            trial = oracle.create_trial(name)
            if trial.status == "RUNNING":
                running[name] = (trial, submit(task(trial)))
            if trial.status != "IDLE":  # which is: ask again, when others have ended
                waiting.remove(name)
        done = _wait([future for _, future in running.values()])
        for name in [name for name, (_, future) in running.items() if future in done]:
            trial, future = running.pop(name)
            found = outcome(future)
            deaths = deaths + 1 if found.died else 0
            report(oracle, trial, found, name)
            waiting.add(name)
        if deaths >= max(2, len(names)):
            raise UserError(
                f"The worker processes die: {deaths} in a row, the last with this: {found.error}. What is finished is "
                "kept: go on with --resume when the cause is mended (often too little memory: fewer --workers)."
            )
        if time.monotonic() - spoke > BEAT:
            spoke = time.monotonic()
            for trial, _ in running.values():
                oracle.get_trial(trial.trial_id)  # that is how it is known to be alive
        tick({name: trial for name, (trial, _) in running.items()})


def _wait(futures: Sequence[Future[Outcome]]) -> set[Future[Outcome]]:
    if futures:
        return wait(futures, TICK, FIRST_COMPLETED).done
    time.sleep(TICK)
    return set()


def report(oracle: Any, trial: Any, found: Outcome, worker: str) -> None:
    """Tells the oracle what a trial came to."""
    trial.status = "FAILED" if found.error else "COMPLETED"
    trial.hyperparameters.values[REPORT] = json.dumps({**dataclasses.asdict(found), "worker": worker})
    oracle.end_trial(trial)


def lead(
    oracle: Any,
    submit: Callable[[Any], Future[Outcome]],
    task: Callable[[Any], Any],
    names: Sequence[str],
    tick: Callable[[dict[str, Any]], None],
) -> None:
    """Sees a search through to its end, with its own workers (`names`), with others that come, or with both.

    Raises:
        UserError: all trials break alike, nobody is left to run any, or the state cannot be written.
    """

    before = len(oracle.ended)  # what broke in an earlier session may have been mended

    def check(running: dict[str, Any]) -> None:
        if oracle.fault:
            raise oracle.fault
        oracle.take_back_lost()
        check_broken([oracle.reports[trial.trial_id]["error"] for trial in oracle.ended[before:]])
        tick(running)

    while not finished(oracle):
        run_trials(oracle, submit, task, names, check)
        if not finished(oracle):  # others are still at it
            time.sleep(TICK)
            check({})
            if not names:
                watch(oracle)


def finished(oracle: Any) -> bool:
    """Whether no trial is running, nor waiting, nor to come."""
    return oracle.stopped and not oracle.ongoing_trials and not oracle._retry_queue


def check_broken(errors: Sequence[str]) -> None:
    """Raises UserError when the first trials, and so far all, broke in the same way."""
    alike = {re.sub(r"[\d.e+-]*\d", "#", error) for error in errors}
    if len(errors) >= ALIKE and len(alike) == 1 and "" not in alike:
        raise UserError(f"The first {len(errors)} trials all broke, so the search was given up: {errors[-1]}")
