"""The arguments of `tune`. No TensorFlow here: `--help` answers at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from emotion_tf import config as configuration
from emotion_tf import documents, files, folders
from emotion_tf.command_line import ConfigArguments, Flag, check_start, early_options, parse_configured
from emotion_tf.config import rules
from emotion_tf.config.rules import Range
from emotion_tf.errors import UserError
from emotion_tf.program import program
from tuning import plan
from tuning.plan import Plan

STRATEGIES = ("none", "mirrored")
DEFAULT_EPOCHS = 2
"""Epochs of a trial by default: enough to compare configurations, few enough to try many."""
ANSWER_TIMEOUT = 60
"""Seconds that a worker waits for an answer of the chief. KerasTuner waits an hour."""
ROLES = {
    "alone": "runs the search on this machine",
    "chief": "runs the search and gives trials to workers on other machines; with --workers 0 to them alone",
    "worker": "runs trials of the chief at --tuner.address, with the chief's options",
}


@dataclasses.dataclass(frozen=True)
class TunerOptions:
    """The search algorithm, the length of trials, and the role of this machine."""

    algorithm: Annotated[str, rules.names(plan.ALGORITHMS)] = "random"
    """Search algorithm: random search, a Gaussian process, or Hyperband (short trials, the best of which continue)."""
    epochs: Annotated[int, Range(0, 100_000)] = 0
    """Epochs of a trial, at most --train.epochs. 0: 2, or --train.epochs for the longest trials of hyperband."""
    role: Annotated[str, rules.names(ROLES)] = "alone"
    """Role of this machine: it searches alone, as chief of workers on other machines, or as a worker of a chief."""
    address: Annotated[str, rules.value("HOST:PORT")] = ""
    """Address of the chief."""

    def __post_init__(self) -> None:
        """Raises UserError for an invalid value."""
        rules.one_of("tuner.role", self.role, ROLES)
        rules.check_fields(self, "tuner")
        if bool(self.address) != (self.role != "alone"):
            raise UserError(
                "Invalid `tuner.address`. Expected HOST:PORT with --tuner.role chief or worker, and none without. "
                f"Received: {self.address!r}."
            )
        if self.address:
            host_and_port(self.address)


def host_and_port(address: str) -> tuple[str, int]:
    """Returns the parts of HOST:PORT. Raises UserError for another form."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise UserError(f"Invalid `tuner.address`. Expected HOST:PORT of the chief. Received: {address!r}.")
    return host, int(port)


@dataclasses.dataclass(frozen=True)
class TuneArguments(ConfigArguments):
    """Search hyperparameters around a configuration. Writes the best one as best.json for `train --config`.

    Trials are compared by their weighted F1 on dev; test is not read. The first trial is the configuration itself, or
    the nearest one that is searched (Hyperband draws all).
    """

    tuner: TunerOptions = TunerOptions()
    trials: Annotated[int, plan.TRIALS] = 30
    """Number of configurations to try."""
    search: Annotated[tuple[str, ...], rules.value("OPTION ...")] = ()
    """Options to search: `train.learning_rate`, `dropout` (of every section), `fusion` (all of its options).
    `learning_rate=1e-4:1e-3` and `fusion.kind=concat,gated` set the domain. Empty: all options with an effect."""
    fix: Annotated[tuple[str, ...], rules.value("OPTION ...")] = ()
    """Options that keep the values of the configuration, named in the same way."""
    folds: Annotated[int, plan.FOLDS] = 0
    """Number of folds by dialogue of train and dev. The objective is their mean weighted F1; not with hyperband.
    0: trains on train, and the objective is the weighted F1 on dev."""
    workers: Annotated[int, rules.PROCESSES] = 2
    """Number of processes that run trials in parallel. They share the processors."""
    strategy: Annotated[str, rules.names(STRATEGIES)] = "none"
    """Devices of a trial: none (one), or mirrored (all GPUs of its machine, with --workers 1)."""
    resume: Flag = False
    """Continue an interrupted search (--name, or the newest). With more --trials, continues a finished one.
    The same command continues it, too."""

    def __post_init__(self) -> None:
        """Raises UserError for options that exclude each other, and for too few workers."""
        if self.resume and self.overwrite:
            raise UserError(
                "Received --resume and --overwrite. Expected one: the first continues, the second starts anew."
            )
        rules.check_fields(self)
        rules.one_of("--strategy", self.strategy, STRATEGIES)
        if self.strategy == "mirrored" and self.workers > 1:
            raise UserError(
                "--strategy mirrored gives all GPUs of this machine to one trial. Expected --workers 1. Received: "
                f"{self.workers}."
            )
        if not self.workers and self.tuner.role != "chief":
            raise UserError("Invalid `--workers`. Expected 1 or more; 0 only with --tuner.role chief. Received: 0.")


def tune_arguments(args: Sequence[str]) -> TuneArguments:
    """Parses the arguments of `tune`. --preset, --config or the resumed search give the configuration."""
    early = early_options(args)
    check_start(early)
    if early.name is not None:
        folders.check_name(early.name, plan.RESULTS)
    start = TuneArguments(configuration.preset(early.preset or "demo"))
    if early.resume:
        folder = plan.RESULTS / early.name if early.name else newest_unfinished()
        start = _with_plan(start, read_plan(folder), folder.name)
    if early.config or (early.preset and early.resume):
        config = configuration.read_config(Path(early.config)) if early.config else configuration.preset(early.preset)
        start = dataclasses.replace(start, config=config)
    return parse_configured("tune", args, start)


def _with_plan(start: TuneArguments, saved: Plan, name: str) -> TuneArguments:
    """Returns the defaults with the options of the search to resume."""
    tuner = TunerOptions(algorithm=saved.algorithm, epochs=saved.config.train.epochs)
    return dataclasses.replace(
        start, config=saved.config, tuner=tuner, name=name, trials=saved.trials, search=saved.search, fix=saved.fix,
        folds=saved.folds, smoke=saved.smoke,
    )  # fmt: skip


def read_plan(folder: Path) -> Plan:
    """Reads the plan of the search in a folder. Raises UserError if there is none."""
    files.restore_missing(folder, plan.SEARCH)
    return documents.read(
        folder / "search.json",
        Plan,
        "Expected the file that `tune` wrote; start the search again with --overwrite.",
        missing=f"No search at {folder}: there is no search.json. Start one with: {program()} tune",
    )


def newest_unfinished() -> Path:
    """Returns the folder of the search that was interrupted last. Raises UserError if there is none."""
    searches = unfinished_searches()
    if not searches:
        raise UserError(f"Nothing to resume: {plan.RESULTS}/ has no interrupted search. Expected --name for another.")
    return searches[0]


def unfinished_searches() -> list[Path]:
    """Returns the folders of interrupted searches, newest first."""
    folders.restore_replaced(plan.RESULTS, [plan.SEARCH])
    searches = folders.subfolders_with("search.json", plan.RESULTS)
    unfinished = [folder for folder in searches if not plan.SEARCH.is_finished(folder)]
    return sorted(unfinished, key=lambda folder: (folder / "search.json").stat().st_mtime, reverse=True)
