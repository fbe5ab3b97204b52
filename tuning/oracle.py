"""KerasTuner's oracles with a state that survives kills, error messages of trials, and detection of lost workers."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import keras_tuner as kt
from keras_tuner.src.engine import conditions
from keras_tuner.src.engine.trial import Trial
from sklearn.exceptions import ConvergenceWarning
from typing_extensions import TypedDict

from emotion_tf import documents, files
from emotion_tf.documents import Amount, Count, Finite, Name, Text
from emotion_tf.errors import UserError
from tuning.plan import HYPERBAND_FACTOR

OBJECTIVE = "dev_weighted_f1"
REPORT = "tuner/report"
PLAN = "tuner/plan"
LOST_AFTER = 30.0
"""Seconds without a heartbeat of a trial after which its worker counts as lost."""
REPAIR = "Expected the file that `tune` wrote. Start the search again with --overwrite."
HEARTBEAT = 5.0
"""Seconds between two heartbeats of a worker."""

# KerasTuner 1.4.8 prints each condition that it sends to another machine, and uses deprecated methods of threads
conditions.print = lambda *_: None  # type: ignore[attr-defined]
warnings.filterwarnings("ignore", message=r".*(currentThread|getName)\(\) is deprecated.*")
# the length scale of a hyperparameter without influence has no optimum, which is no problem
warnings.filterwarnings("ignore", category=ConvergenceWarning, module=r"sklearn\.gaussian_process.*")


class Report(TypedDict):
    """The report of a worker on a trial: its `Outcome`, and the worker."""

    score: Finite | None
    epochs: Count
    seconds: Amount
    error: Text
    folds: list[Finite]
    died: bool
    worker: Text


class TrialState(TypedDict):
    """The state of a trial, in KerasTuner's format."""

    trial_id: Name
    hyperparameters: dict[str, Any]
    metrics: dict[str, Any]
    score: Finite | None
    best_step: Count | None
    status: Literal["RUNNING", "IDLE", "INVALID", "STOPPED", "COMPLETED", "FAILED"]
    message: Text | None


class State(TypedDict):
    """The document `oracle.json`: the state of KerasTuner's oracle, of which it knows more keys, and of its trials."""

    trials: list[TrialState]
    reports: dict[str, Report]
    retrained: dict[str, Finite]
    end_order: list[Name]


class ResumableOracle:
    """Mixin for KerasTuner's oracles.

    - The whole state is one file that is replaced atomically, so that a search can be killed at any moment and resumed.
      (KerasTuner writes one more file per trial; a kill between two of them repeats or loses a trial.)
    - The report of a trial (seconds, epochs, error) is sent as one of its values, since KerasTuner's protocol has no
      field for it. A report on a trial that is not running is ignored.
    - The first trial is the base configuration, or the nearest one in the space.
    - A trial without a heartbeat for LOST_AFTER seconds is given to another worker.
    - `get_space` sends the plan of the search to workers on other machines.
    """

    file: Path
    plan: str

    def configure(self, file: Path, plan: str) -> None:
        """Sets the attributes that KerasTuner's constructors do not take."""
        self.file, self.plan = file, plan
        self.reports: dict[str, Report] = {}
        self.retrained: dict[str, float] = {}
        self.last_heartbeat: dict[str, float] = {}
        self.last_contact: float | None = None
        self.is_exhausted = False
        self.save_error: Exception | None = None
        self.verbose = 0

    def save(self) -> None:
        """Writes the state atomically."""
        state = {
            **self.get_state(),  # type: ignore[attr-defined]
            "trials": [trial.get_state() for trial in self.trials.values()],  # type: ignore[attr-defined]
            "reports": self.reports,
            "retrained": self.retrained,
        }
        try:
            files.write_text(self.file, json.dumps(state))
        except Exception as error:  # the main thread raises it again: this thread may be KerasTuner's server
            self.save_error = error
            raise

    def reload(self) -> None:
        """Restores the state that `save` wrote.

        Trials that were running are queued again, before new ones. So are trials whose worker process died, since the
        trial may not have been the cause.

        Raises:
            UserError: the file is damaged, or is that of a search of another space, by another version.
        """
        state = documents.read(self.file, State, REPAIR, extra="allow")
        declared = _space(self.hyperparameters.get_config())  # type: ignore[attr-defined]
        try:
            saved = _space(state["hyperparameters"])  # type: ignore[typeddict-item]
            self.trials = {trial["trial_id"]: Trial.from_state(trial) for trial in state["trials"]}
            self.reports = {name: report for name, report in state["reports"].items() if not report["died"]}
            self.retrained = state["retrained"]
            self.set_state(state)  # type: ignore[attr-defined]
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:  # of KerasTuner's own format
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:100]
            raise UserError(f"{self.file}: Invalid state of a search ({reason}). {REPAIR}") from None
        if saved != declared:
            raise UserError(
                f"{self.file}: The search has other hyperparameters or domains than this version of the program "
                "searches. Continue it with the version that began it, or start again with --overwrite."
            )
        if unknown := sorted(set(state["end_order"]) - set(self.trials)):
            raise UserError(
                f"{self.file}: Invalid `end_order`. Expected trials. Received: {unknown[0][:80]!r}. {REPAIR}"
            )
        self.end_order = [name for name in state["end_order"] if name in self.reports]
        ended = set(self.end_order)
        self._retry_queue = [name for name in self.trials if name not in ended]
        self.ongoing_trials: dict[str, Trial] = {}

    def _save_trial(self, trial: Trial) -> None:
        """Does nothing: `save` writes the trials as well."""

    def get_space(self) -> kt.HyperParameters:
        """Returns the space, with the plan as a fixed value."""
        space = super().get_space()  # type: ignore[misc]
        space.Fixed(PLAN, self.plan)
        return space

    @kt.synchronized
    def create_trial(self, tuner_id: str) -> Trial:
        """Returns the next trial of a worker, or the one that it is running."""
        self.last_contact = time.monotonic()
        trial = super().create_trial(tuner_id)  # type: ignore[misc]
        if trial.status == "STOPPED":
            self.is_exhausted = True
        elif trial.status == "RUNNING":
            self.last_heartbeat[trial.trial_id] = self.last_contact
        return trial

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Returns the values of a trial: the defaults of the space for the first, then those of the algorithm."""
        if self.trials or isinstance(self, kt.oracles.HyperbandOracle):
            return super().populate_space(trial_id)  # type: ignore[misc]
        space = kt.HyperParameters()
        space.merge(self.hyperparameters)  # type: ignore[attr-defined]
        return {"status": "RUNNING", "values": dict(space.values)}

    @kt.synchronized
    def get_trial(self, trial_id: str) -> Trial:
        """Returns a trial. A worker that asks for it is running it: this is its heartbeat."""
        self.last_contact = self.last_heartbeat[trial_id] = time.monotonic()
        return self.trials[trial_id]

    @kt.synchronized
    def end_trial(self, trial: Trial) -> None:
        """Records the report of a worker."""
        self.last_contact = time.monotonic()
        if trial.trial_id not in [running.trial_id for running in self.ongoing_trials.values()]:
            return
        report = parse_report(trial.hyperparameters.values.pop(REPORT))
        self.reports[trial.trial_id] = report
        trial.message = report["error"] or None
        trial.status = "FAILED" if report["error"] else "COMPLETED"
        if not report["error"]:
            self.update_trial(trial.trial_id, {OBJECTIVE: report["score"]}, report["epochs"])  # type: ignore[attr-defined]
        super().end_trial(trial)  # type: ignore[misc]

    @kt.synchronized
    def requeue_lost(self) -> list[str]:
        """Queues the trials of lost workers again; returns the workers."""
        now, last = time.monotonic(), self.last_heartbeat
        lost = [name for name, trial in self.ongoing_trials.items() if now - last[trial.trial_id] > LOST_AFTER]
        for worker in lost:
            self._retry_queue.append(self.ongoing_trials.pop(worker).trial_id)
            self.tuner_ids.discard(worker)  # type: ignore[attr-defined]
        return lost

    @property
    def ended_trials(self) -> list[Trial]:
        """Finished and broken trials, in the order in which they ended."""
        return [self.trials[name] for name in list(self.end_order)]  # type: ignore[attr-defined]


class RandomSearch(ResumableOracle, kt.oracles.RandomSearchOracle):
    """Random search (Bergstra and Bengio 2012)."""


class Bayesian(ResumableOracle, kt.oracles.BayesianOptimizationOracle):
    """Maximum of the upper confidence bound of a Gaussian process of the objective (Snoek 2012)."""


class Hyperband(ResumableOracle, kt.oracles.HyperbandOracle):
    """Many short trials, the best of which continue (Li 2018)."""


def _space(state: dict[str, Any]) -> list[str]:
    """Returns the hyperparameters of a space with their domains and conditions, from KerasTuner's state of it."""
    return sorted(json.dumps(parameter, sort_keys=True) for parameter in state["space"])


def parse_report(text: str) -> Report:
    """Returns the report that a worker sends. Raises UserError if it is none."""
    return documents.parse(text, Report, "The report of a worker", "Start it with this version.")


def build(
    algorithm: str, declare: Callable[[Any], Any], trials: int, epochs: int, seed: int, file: Path, plan: str
) -> Any:
    """Builds an oracle.

    Args:
        algorithm: random, bayesian or hyperband.
        declare: registers the space in a `HyperParameters`.
        trials: maximum number of trials.
        epochs: epochs of the longest trial (Hyperband).
        seed: seed of the sampling.
        file: file of the state.
        plan: plan of the search as JSON, for workers on other machines.
    """
    space = kt.HyperParameters()
    declare(space)
    common: dict[str, Any] = {
        "objective": kt.Objective(OBJECTIVE, "max"),
        "hyperparameters": space,
        "seed": seed + 1,  # 0 is a random seed in KerasTuner
        "max_consecutive_failed_trials": 10**9,  # `check_broken` ends the search
    }
    if algorithm == "random":
        oracle: Any = RandomSearch(max_trials=trials, **common)
    elif algorithm == "bayesian":
        # KerasTuner's default, three random trials per hyperparameter, would be more than a short search has
        oracle = Bayesian(max_trials=trials, num_initial_points=max(3, trials // 3), **common)
    else:
        # 0 iterations: until there are `trials`
        oracle = Hyperband(max_epochs=epochs, factor=HYPERBAND_FACTOR, hyperband_iterations=0, **common)
        oracle.max_trials = trials
    oracle.configure(file, plan)
    return oracle
