"""Arguments of `train` and `crossval`. No TensorFlow here: `--help` answers at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from emotion_tf import config as configuration
from emotion_tf import folders
from emotion_tf.command_line import early_options, parse, starting_configuration
from emotion_tf.config import Config
from emotion_tf.errors import UserError
from emotion_tf.program import program


@dataclasses.dataclass(frozen=True)
class TrainArguments:
    """Train a run: the configuration, and what becomes of it. Ends with the results on test and the run's folder."""

    config: Annotated[Config, tyro.conf.arg(name="")]
    preset: str = "demo"
    """Starting configuration: demo (GRU + CNN), minilm (MiniLM + GRU, CNN), base (BERT + GRU, ResNet50 + CNN)."""
    config_file: Annotated[Path | None, tyro.conf.arg(name="config")] = None
    """Starting point of the configuration: the config.json of a run."""
    name: str | None = None
    """Name of the run in saved_models/; without it, data set and towers, and the next free number."""
    resume: bool = False
    """Go on with an interrupted run (--name, or the newest) from its last finished epoch."""
    overwrite: bool = False
    """Replace the run of that name."""
    seeds: int = 1
    """Train so many runs, NAME-seed0, NAME-seed1 ..., and print their mean; the same command goes on after an end."""
    smoke: bool = False
    """A run of seconds: one epoch of four small batches."""


@dataclasses.dataclass(frozen=True)
class CrossvalArguments:
    """Cross-validate a configuration on the training split: dialogues are kept whole, the epoch is chosen on dev.

    Ends with metrics of each fold and of all, and a prediction for every utterance by a model that did not see its
    dialogue. The same command goes on after an interruption.
    """

    config: Annotated[Config, tyro.conf.arg(name="")]
    preset: str = "demo"
    """Starting configuration: demo, minilm or base, as for `train`."""
    config_file: Annotated[Path | None, tyro.conf.arg(name="config")] = None
    """Starting point of the configuration: the config.json of a run."""
    name: str | None = None
    """Name of its folder in saved_models/; without it, data set and towers."""
    folds: int = 5
    """Parts of the training split, each held out once."""
    repeats: int = 1
    """How often, each time with other folds and another seed."""
    overwrite: bool = False
    """Begin anew in place of the folder of that name."""
    smoke: bool = False
    """Folds of seconds: one epoch of four small batches each."""


def crossval_arguments(args: Sequence[str]) -> CrossvalArguments:
    """Arguments of `crossval`."""
    start = starting_configuration(early_options(args))
    found: CrossvalArguments = parse(CrossvalArguments, args, f"{program()} crossval", CrossvalArguments(config=start))
    if found.repeats < 1:
        raise UserError(f"Invalid `--repeats`. Expected a number of at least 1. Received: {found.repeats}.")
    return dataclasses.replace(found, config=configuration.smoke(found.config)) if found.smoke else found


def train_arguments(args: Sequence[str]) -> TrainArguments:
    """Arguments of `train`: --preset, --config or the resumed run give the configuration that the others change."""
    known = early_options(args)
    start = starting_configuration(known)
    resume = known.resume.lower() != "false"
    run = None
    if resume:
        run = folders.RUNS / known.name if known.name else folders.newest_unfinished()
        start = configuration.read_config(run / "config.json")
    found: TrainArguments = parse(TrainArguments, args, f"{program()} train", default=TrainArguments(config=start))
    if found.seeds < 1:
        raise UserError(f"Invalid `--seeds`. Expected a number of at least 1. Received: {found.seeds}.")
    if found.smoke:
        found = dataclasses.replace(found, config=configuration.smoke(found.config))
    if run is not None:
        if found.config != start or found.overwrite or found.seeds != 1 or known.preset or known.config:
            raise UserError(
                f"--resume goes on with the configuration of {run}. Received other options; leave them "
                "away, or train anew."
            )
        found = dataclasses.replace(found, name=run.name)
    return found
