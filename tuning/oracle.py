"""KerasTuner's oracles, as this project needs them: a killed search goes on, and errors arrive."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras_tuner as kt
from keras_tuner.src.engine import conditions
from keras_tuner.src.engine.trial import Trial
from sklearn.exceptions import ConvergenceWarning

from emotion_tf import files
from tuning.plan import HALVES

OBJECTIVE = "dev_weighted_f1"
REPORT = "tuner/report"
PLAN = "tuner/plan"
LOST_AFTER = 30.0
"""Seconds without a word of a trial after which whoever runs it is taken for dead; workers speak every BEAT seconds."""
BEAT = 5.0

# KerasTuner 1.4.8 prints each condition that it sends to another machine, and asks threads for their names in a way
# that Python has deprecated
conditions.print = lambda *_: None  # type: ignore[attr-defined]
warnings.filterwarnings("ignore", message=r".*(currentThread|getName)\(\) is deprecated.*")
# of a hyperparameter that does not matter the length scale has no optimum, which is as it should be
warnings.filterwarnings("ignore", category=ConvergenceWarning, module=r"sklearn\.gaussian_process.*")


class Kept:
    """What KerasTuner's oracles get in addition.

    - The whole state is one file, replaced at once: a search that is killed at any moment goes on from it. (KerasTuner
      keeps a file a trial beside it, and a kill between two of them repeats or forgets a trial.)
    - A trial's report (seconds, epochs, error) comes back as one of its values, since KerasTuner's protocol has no
      field for it; a report on a trial that is not running (any more) is ignored.
    - The first trial is the configuration that the search started from, or the nearest that the space has.
    - A trial that nobody has spoken of for LOST_AFTER seconds is given to another worker.
    - `get_space` carries the plan of the search to workers on other machines.
    """

    file: Path
    plan: str

    def prepare(self, file: Path, plan: str) -> None:
        """Sets what KerasTuner's constructors do not take."""
        self.file, self.plan = file, plan
        self.reports: dict[str, dict[str, Any]] = {}
        self.began: dict[str, float] = {}
        self.heard: dict[str, float] = {}
        self.last_word: float | None = None
        self.stopped = False
        self.fault: Exception | None = None
        self.verbose = 0

    def save(self) -> None:
        """Writes the state: all or nothing."""
        state = {
            **self.get_state(),  # type: ignore[attr-defined]
            "trials": [trial.get_state() for trial in self.trials.values()],  # type: ignore[attr-defined]
            "reports": self.reports,
        }
        try:
            files.write_text(self.file, json.dumps(state))
        except Exception as error:  # told by the main thread: here a server of KerasTuner's may be waiting
            self.fault = error
            raise

    def reload(self) -> None:
        """Takes up what `save` wrote.

        Trials that were running then are run again, before new ones; so are those whose worker process ended with
        them, for that may have been no fault of theirs.
        """
        state = json.loads(self.file.read_text(encoding="utf-8"))
        self.trials = {one["trial_id"]: Trial.from_state(one) for one in state["trials"]}
        self.reports = {name: one for name, one in state["reports"].items() if not one["died"]}
        self.set_state(state)  # type: ignore[attr-defined]
        self.end_order = [name for name in state["end_order"] if name in self.reports]
        ended = set(self.end_order)
        self._retry_queue = [name for name, one in self.trials.items() if name not in ended]
        self.ongoing_trials: dict[str, Trial] = {}

    def _save_trial(self, trial: Trial) -> None:
        """Nothing: `save` keeps the trials, too."""

    def get_space(self) -> kt.HyperParameters:
        """The space, and with it the plan."""
        space = super().get_space()  # type: ignore[misc]
        space.Fixed(PLAN, self.plan)
        return space

    @kt.synchronized
    def create_trial(self, tuner_id: str) -> Trial:
        """The next trial for a worker, or the one that it is running."""
        self.last_word = time.monotonic()
        trial = super().create_trial(tuner_id)  # type: ignore[misc]
        if trial.status == "STOPPED":
            self.stopped = True
        elif trial.status == "RUNNING":
            self.began.setdefault(trial.trial_id, self.last_word)
            self.heard[trial.trial_id] = self.last_word
        return trial

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """The first trial is the space's default; then as the algorithm says."""
        if self.trials or isinstance(self, kt.oracles.HyperbandOracle):
            return super().populate_space(trial_id)  # type: ignore[misc]
        space = kt.HyperParameters()
        space.merge(self.hyperparameters)  # type: ignore[attr-defined]
        return {"status": "RUNNING", "values": dict(space.values)}

    @kt.synchronized
    def get_trial(self, trial_id: str) -> Trial:
        """A trial; whoever asks for it is running it."""
        self.last_word = self.heard[trial_id] = time.monotonic()
        return self.trials[trial_id]

    @kt.synchronized
    def end_trial(self, trial: Trial) -> None:
        """Takes a worker's report."""
        self.last_word = time.monotonic()
        if trial.trial_id not in [one.trial_id for one in self.ongoing_trials.values()]:
            return
        report = json.loads(trial.hyperparameters.values.pop(REPORT))
        self.reports[trial.trial_id] = report
        trial.message = report["error"] or None
        trial.status = "FAILED" if report["error"] else "COMPLETED"
        if not report["error"]:
            self.update_trial(trial.trial_id, {OBJECTIVE: report["score"]}, report["epochs"])  # type: ignore[attr-defined]
        super().end_trial(trial)  # type: ignore[misc]

    @kt.synchronized
    def take_back_lost(self) -> list[str]:
        """Queues trials again whose workers have fallen silent; returns the workers."""
        now = time.monotonic()
        lost = [w for w, trial in self.ongoing_trials.items() if now - self.heard[trial.trial_id] > LOST_AFTER]
        for worker in lost:
            self._retry_queue.append(self.ongoing_trials.pop(worker).trial_id)
            self.tuner_ids.discard(worker)  # type: ignore[attr-defined]
        return lost

    @property
    def ended(self) -> list[Trial]:
        """Trials in the order in which they ended."""
        return [self.trials[name] for name in list(self.end_order)]  # type: ignore[attr-defined]


class RandomSearch(Kept, kt.oracles.RandomSearchOracle):
    """Independent draws."""


class Bayesian(Kept, kt.oracles.BayesianOptimizationOracle):
    """A Gaussian process of the objective, and where its upper confidence bound is highest."""


class Hyperband(Kept, kt.oracles.HyperbandOracle):
    """Many short trials, of which the better are trained on (Li 2018)."""


def build(
    algorithm: str, declare: Callable[[Any], Any], trials: int, epochs: int, seed: int, file: Path, plan: str
) -> Any:
    """An oracle.

    Args:
        algorithm: random, bayesian or hyperband.
        declare: registers the space in a `HyperParameters`.
        trials: at most so many, whatever the algorithm.
        epochs: of the longest trial (Hyperband).
        seed: of the draws.
        file: its state.
        plan: what workers on other machines must know, as text.
    """
    space = kt.HyperParameters()
    declare(space)
    common: dict[str, Any] = {
        "objective": kt.Objective(OBJECTIVE, "max"),
        "hyperparameters": space,
        "seed": seed + 1,  # KerasTuner takes 0 for "any"
        "max_consecutive_failed_trials": 10**9,  # the search itself stops, and says why
    }
    if algorithm == "random":
        oracle: Any = RandomSearch(max_trials=trials, **common)
    elif algorithm == "bayesian":
        # KerasTuner's default, three draws a hyperparameter, would leave a short search without a model
        oracle = Bayesian(max_trials=trials, num_initial_points=max(3, trials // 3), **common)
    else:
        oracle = Hyperband(
            max_epochs=epochs, factor=HALVES, hyperband_iterations=0, **common
        )  # 0: until the trials are used up
        oracle.max_trials = trials
    oracle.prepare(file, plan)
    return oracle
