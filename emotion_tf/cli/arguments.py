"""Arguments of `train` and `crossval`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated

import tyro

from emotion_tf import config as configuration
from emotion_tf import files, folders
from emotion_tf.command_line import (
    ConfigArguments,
    Flag,
    early_options,
    parse_configured,
    starting_configuration,
    with_smoke,
)
from emotion_tf.config import rules
from emotion_tf.config.rules import Range
from emotion_tf.errors import UserError

STRATEGIES = ("auto", "none", "mirrored", "multiworker")


@dataclasses.dataclass(frozen=True)
class TrainArguments(ConfigArguments):
    """Train a run and evaluate it. Prints the results on dev and test and the run's folder."""

    resume: Flag = False
    """Continue an interrupted run (--name, or the newest) from its last finished epoch, or evaluate it."""
    seeds: Annotated[int, Range(1, 1000)] = 1
    """Number of runs to train with consecutive seeds (NAME-seed0, NAME-seed1, ...).
    Prints mean and interval over seeds and dialogues. Rerun to continue."""
    strategy: Annotated[str, rules.names(STRATEGIES)] = "auto"
    """Devices that train: none (one), mirrored (all GPUs of this machine), multiworker (all machines of TF_CONFIG or of
    a SLURM step) or auto (multiworker if TF_CONFIG has several machines, mirrored with several GPUs, else none)."""
    data_service: Annotated[str, tyro.conf.arg(name="data.service", metavar="grpc://HOST:PORT")] = ""
    """Dispatcher of a tf.data service, whose workers read, decode and augment the training batches. Their order does
    not follow from the seed. Empty: this process makes them."""
    local_workers: Annotated[int, Range(1, 64)] = 1
    """Number of processes on this machine that train together, to try multiworker on the processor."""

    def __post_init__(self) -> None:
        """Raises UserError for values outside their ranges, and for options that exclude each other."""
        rules.check_fields(self)
        rules.one_of("--strategy", self.strategy, STRATEGIES)
        if self.local_workers > 1 and self.strategy not in ("auto", "multiworker"):
            raise UserError(
                f"--local-workers {self.local_workers} trains with --strategy multiworker. Received: {self.strategy}."
            )
        if self.data_service and (self.strategy == "multiworker" or self.local_workers > 1):
            raise UserError(
                "--data.service feeds one host. Expected --strategy none or mirrored with it: several hosts read their "
                "own shares."
            )
        if self.seeds > 1 and (self.strategy == "multiworker" or self.local_workers > 1):
            raise UserError(
                "--strategy multiworker trains one run. Expected --seeds 1; start the command once for each "
                f"--train.seed. Received: {self.seeds}."
            )
        _check_last_seed("--seeds", self.seeds, self.config.train.seed)


@dataclasses.dataclass(frozen=True)
class CrossvalArguments(ConfigArguments):
    """Cross-validate a configuration on the training split. Dialogues are kept whole; dev selects the epoch.

    Prints the metrics of each fold and of all, and writes out-of-fold predictions of every utterance. Rerun to continue
    after an interruption.
    """

    folds: Annotated[int, Range(2, 1000)] = 5
    """Number of folds of the training split; each is held out once."""
    repeats: Annotated[int, Range(1, 1000)] = 1
    """Number of repetitions with different folds and seeds."""

    def __post_init__(self) -> None:
        """Raises UserError for a number outside its range, and for seeds that are too large."""
        rules.check_fields(self)
        _check_last_seed("--repeats", self.repeats, self.config.train.seed)


def _check_last_seed(option: str, count: int, first: int) -> None:
    """Raises UserError if the last of `count` consecutive seeds is too large."""
    most = int(rules.SEED.high) + 1 - count
    if first > most:
        raise UserError(
            f"Invalid `train.seed`. Expected at most {most} with {option} {count}, which trains with as many "
            f"consecutive seeds. Received: {first}."
        )


def crossval_arguments(args: Sequence[str]) -> CrossvalArguments:
    """Parses the arguments of `crossval`."""
    start = CrossvalArguments(starting_configuration(early_options(args)))
    return with_smoke(parse_configured("crossval", args, start))


def train_arguments(args: Sequence[str]) -> TrainArguments:
    """Parses the arguments of `train`. With --resume, the configuration is that of the interrupted run."""
    early = early_options(args)
    start = starting_configuration(early, takes_url=True)
    if not early.resume:
        return with_smoke(parse_configured("train", args, TrainArguments(start)))
    run = folders.fetch_run(early.name) if early.name else folders.newest_unfinished()
    files.restore_missing(run, folders.RUN)
    start = configuration.read_config(run / "config.json")
    arguments = with_smoke(parse_configured("train", args, TrainArguments(start)))
    if arguments.config != start or arguments.overwrite or arguments.seeds != 1 or early.preset or early.config:
        raise UserError(
            f"--resume continues with the configuration of {run}. Received other options; leave them out, or train a "
            "new run."
        )
    return dataclasses.replace(arguments, name=early.name or run.name)
