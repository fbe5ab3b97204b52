"""The arguments of `tune`. No TensorFlow here: `--help` answers at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from emotion_tf import config as configuration
from emotion_tf import folders
from emotion_tf.command_line import ConfigArguments, Flag, early_options, parse_configured
from emotion_tf.config import file, rules
from emotion_tf.errors import UserError
from emotion_tf.program import program
from tuning import plan
from tuning.plan import Plan

SHORT = 2
"""Epochs of a trial by default: enough to tell many configurations apart, few enough to try many."""
ROLES = {
    "alone": "the whole search on this machine",
    "chief": "the same, and workers on other machines may take trials; with --workers 0 they take all",
    "worker": "takes trials from the chief at --tuner.address, whose options hold",
}


@dataclasses.dataclass(frozen=True)
class TunerOptions:
    """How it is searched."""

    algorithm: str = "random"
    """random, bayesian (a Gaussian process), or hyperband (short trials, of which the better are trained on)."""
    epochs: int = 0
    """Epochs of a trial, if --train.epochs is not less; 0: 2, or with hyperband (whose longest they are)
    --train.epochs."""
    role: str = "alone"
    """alone, chief (workers elsewhere may join), or worker (of a chief, whose options hold)."""
    address: str = ""
    """HOST:PORT at which the chief listens, and where workers find it."""

    def __post_init__(self) -> None:
        """Refuses what makes no sense."""
        rules.one_of("tuner.role", self.role, ROLES)
        rules.number("tuner.epochs", self.epochs, 0)
        if bool(self.address) != (self.role != "alone"):
            raise UserError(
                "Invalid `tuner.address`. Expected HOST:PORT with --tuner.role chief or worker, and none without. "
                f"Received: {self.address!r}."
            )
        if self.address:
            host_and_port(self.address)


def host_and_port(address: str) -> tuple[str, int]:
    """The parts of HOST:PORT. Raises UserError."""
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
    trials: int = 30
    """Number of configurations to try."""
    search: tuple[str, ...] = ()
    """Options to search: `train.learning_rate`, `dropout` (of each part), `fusion` (all of it),
    `learning_rate=1e-4:1e-3`, `fusion.kind=concat,gated`; none: all that act in the configuration."""
    fix: tuple[str, ...] = ()
    """Options to leave as the configuration has them, named in the same way."""
    folds: int = 0
    """A trial is the mean over so many folds of train and dev, dialogues kept whole; 0: train on train, judge on dev.
    Not with hyperband."""
    workers: int = 2
    """Processes that run trials at the same time, each with its share of the processors."""
    resume: Flag = False
    """Continue a search (--name, or the newest unfinished one); with more --trials, a finished one as well."""

    def __post_init__(self) -> None:
        """Raises UserError for options that exclude each other, and for too few workers."""
        if self.resume and self.overwrite:
            raise UserError(
                "Received --resume and --overwrite. Expected one: the first continues, the second starts anew."
            )
        rules.number("--workers", self.workers, 0 if self.tuner.role == "chief" else 1)


def tune_arguments(args: Sequence[str]) -> TuneArguments:
    """Parses the arguments of `tune`. --preset, --config or the resumed search give the configuration."""
    known = early_options(args)
    if known.name is not None:
        folders.check_name(known.name, plan.RESULTS)
    start = TuneArguments(configuration.preset(known.preset or "demo"))
    if known.resume:
        folder = plan.RESULTS / known.name if known.name else newest_unfinished()
        start = _resumed(start, saved_plan(folder), folder.name)
    if known.config or (known.preset and known.resume):
        config = configuration.read_config(Path(known.config)) if known.config else configuration.preset(known.preset)
        start = dataclasses.replace(start, config=config)
    return parse_configured("tune", args, start)


def _resumed(start: TuneArguments, saved: Plan, name: str) -> TuneArguments:
    tuner = TunerOptions(algorithm=saved.algorithm, epochs=saved.config.train.epochs)
    return dataclasses.replace(
        start, config=saved.config, tuner=tuner, name=name, trials=saved.trials, search=saved.search, fix=saved.fix,
        folds=saved.folds,
    )  # fmt: skip


def saved_plan(folder: Path) -> Plan:
    """The search in a folder of tuning/results/. Raises UserError when there is none."""
    if not (folder / "search.json").is_file():
        raise UserError(f"No search at {folder}: there is no search.json. Start one with: {program()} tune")
    return file.read_json(Plan, folder / "search.json")


def newest_unfinished() -> Path:
    """The search that was interrupted last. Raises UserError when there is none."""
    found = [path.parent for path in plan.RESULTS.glob("*/search.json") if not (path.parent / "summary.json").exists()]
    if not found:
        raise UserError(f"Nothing to resume: no search in {plan.RESULTS}/ was interrupted. Expected its --name.")
    return max(found, key=lambda folder: (folder / "search.json").stat().st_mtime)
