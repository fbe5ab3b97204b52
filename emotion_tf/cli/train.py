"""`train`: trains and evaluates one run, or a run for each of several seeds."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from emotion_tf import config as configuration
from emotion_tf import files, folders, interrupts
from emotion_tf.cli import hosts
from emotion_tf.cli.arguments import TrainArguments
from emotion_tf.cli.evaluate import evaluate_split
from emotion_tf.cli.report import later_stages, report_path
from emotion_tf.config import Config
from emotion_tf.csv_rows import count_rows
from emotion_tf.errors import UserError
from emotion_tf.folders import RUN
from emotion_tf.program import command, program
from emotion_tf.quiet import start_tensorflow
from emotion_tf.terminal import say

if TYPE_CHECKING:
    from emotion_tf.training.strategies import Cluster


def train(arguments: TrainArguments) -> list[Path]:
    """Trains a run, or one for each seed. Draws the demo data set first if it is the data set and is missing.

    Returns:
        The folders of the runs.
    """
    if arguments.local_workers > 1 and hosts.TF_CONFIG not in os.environ:
        return [hosts.run_local_workers(arguments)]
    config, name = arguments.config, hosts.choose_strategy(arguments.strategy)
    if name == "multiworker" and not arguments.name:
        raise UserError("--strategy multiworker needs the name of the run. Expected the same --name on all hosts.")
    start_tensorflow(config.train.threads, list_devices=name != "multiworker")
    from emotion_tf.data.prepare import draw_missing_demo
    from emotion_tf.data.service import check_service
    from emotion_tf.training.strategies import connect

    if arguments.data_service:
        check_service(arguments.data_service)
    cluster = connect(name)
    with cluster.errors(lambda: hosts.how_to_continue(arguments)):
        draw_missing_demo(Path(config.data))
        if not cluster.writes:
            return [_help_train(arguments, cluster)]
        return _train_seeds(arguments, cluster) if arguments.seeds > 1 else [_train_run(arguments, cluster)]


def _help_train(arguments: TrainArguments, cluster: Cluster) -> Path:
    """Trains the run that host 0 writes."""
    run = folders.run_path(str(arguments.name))
    _train_model(arguments.config, run, arguments.overwrite, tuple, lambda line: None, cluster, "")
    return run


def _train_run(arguments: TrainArguments, cluster: Cluster) -> Path:
    config, name = arguments.config, arguments.name
    with contextlib.nullcontext(folders.fetch_run(name)) if name else folders.free_folder(config) as run:
        words = ["train", "--resume", "--name", name or run.name, *["--trust"] * arguments.trust]
        words += ["--data.service", arguments.data_service] if arguments.data_service else []
        resume = f"Continue with: {program()} {shlex.join(words)}"
        progress = interrupts.tell_progress(run, functools.partial(_progress, run, config.train.epochs))
        with progress, files.growing_folder(run, RUN, resume, arguments.overwrite):
            if arguments.resume and RUN.is_finished(run) and not _splits_to_evaluate(config, run):
                raise UserError(f"{run} is finished: nothing to resume. Evaluate it with: {program()} evaluate {run}")
            if run.exists() and not (arguments.resume or arguments.overwrite):
                raise UserError(f"{run} exists. --resume continues it, --overwrite replaces it, --name gives another.")
            _train_one(
                config, run, arguments.overwrite, lambda: _check_initial(config), cluster, arguments.data_service
            )
        return run


def _progress(run: Path, epochs: int) -> str:
    """Returns a sentence about the part of a training, or of its evaluation, that an interruption ended."""
    if RUN.is_finished(run):
        return "Stopped in the evaluation."
    finished = count_rows(run / "history.csv")
    return f"Stopped in epoch {finished + 1} of {epochs}." if finished < epochs else "Stopped after the last epoch."


def _train_one(
    config: Config,
    path: Path,
    overwrite: bool,
    check_initial: Callable[[], Sequence[str]],
    cluster: Cluster,
    service: str,
) -> None:
    """Trains and evaluates a run, or does what is missing after an interruption."""
    if overwrite:
        files.check_replaceable(path, RUN)
    _train_model(config, path, overwrite, check_initial, _say, cluster, service)
    _evaluate(config, path)


def _train_model(
    config: Config,
    path: Path,
    overwrite: bool,
    check_initial: Callable[[], Sequence[str]],
    print_line: Callable[[str], None],
    cluster: Cluster,
    service: str,
) -> None:
    from emotion_tf.data.dataset import Dataset
    from emotion_tf.models.pretrained import PretrainedFiles, pretrained_files
    from emotion_tf.runs.run import Run
    from emotion_tf.training import loop
    from emotion_tf.training.setup import TrainingData

    dataset = Dataset.open(Path(config.data))
    dataset.verify()
    data, is_trained = (
        TrainingData.of_splits(dataset, configuration.is_smoke(config), service),
        RUN.is_finished(path) and not overwrite,
    )
    pretrained = PretrainedFiles() if is_trained else pretrained_files(config)
    print_line(f"Run: {path}")
    is_new = overwrite or not path.exists()
    initial = check_initial() if is_new else ()
    later = later_stages(dataset, _splits(config), len(config.towers), configuration.is_smoke(config))
    with cluster.scope():
        loop.train(
            config, Run(path), data, pretrained, command=command(), overwrite=overwrite, initial=initial, later=later,
            say=print_line,
        )  # fmt: skip


def _check_initial(config: Config) -> Sequence[str]:
    """Returns a sentence about each initial checkpoint. Raises UserError if one has seen held-out utterances."""
    from emotion_tf.data.dataset import Dataset
    from emotion_tf.training.initialize import check_unseen

    return check_unseen(config, Dataset.open(Path(config.data)), held_out=["test"], selecting=["dev"], say=_say)


def _say(line: str) -> None:
    say(line, flush=True)


def _evaluate(config: Config, path: Path) -> None:
    """Evaluates a trained run on dev and test, if the data set has them, and writes the report of the last one."""
    from emotion_tf.runs.run import Run

    data, run, last = Path(config.data), Run(path), _splits(config)[-1]
    for split in _splits_to_evaluate(config, path):
        evaluate_split(run, data, split, command(), split == last, configuration.is_smoke(config))
    say(f"Run: {path}")
    say(f"Report: {report_path(path, last)}")


def _splits(config: Config) -> list[str]:
    from emotion_tf.data.dataset import Dataset

    return [split for split in ("dev", "test") if split in Dataset.open(Path(config.data)).splits]


def _splits_to_evaluate(config: Config, run: Path) -> list[str]:
    """Returns the splits without metrics, and the last one if its report is missing; both are written last."""
    from emotion_tf.evaluation.results import read_splits

    evaluated = read_splits(run / "metrics.json")
    *others, last = _splits(config)
    is_missing = last not in evaluated or not report_path(run, last).is_file()
    return [split for split in others if split not in evaluated] + [last] * is_missing


def _train_seeds(arguments: TrainArguments, cluster: Cluster) -> list[Path]:
    """Trains NAME-seed0, NAME-seed1, ... Skips finished runs and resumes an interrupted one. Returns all of them."""
    import keras

    from emotion_tf.evaluation.seeds import print_seeds

    config, name = arguments.config, arguments.name or folders.stem(arguments.config)
    seeds = range(config.train.seed, config.train.seed + arguments.seeds)
    paths = [folders.fetch_run(f"{name}-seed{seed}") for seed in seeds]
    check_initial = functools.cache(lambda: _check_initial(config))
    for number, (seed, path) in enumerate(zip(seeds, paths, strict=True)):
        seeded = dataclasses.replace(config, train=dataclasses.replace(config.train, seed=seed))
        resume = _how_to_continue(paths[0], paths[number + 1 :], arguments.overwrite)
        progress = interrupts.tell_progress(path, functools.partial(_progress, path, config.train.epochs))
        with progress, files.growing_folder(path, RUN, resume, arguments.overwrite):
            if path.exists() and not arguments.overwrite:
                _check_same(path, seeded)
            if arguments.overwrite or not RUN.is_finished(path) or _splits_to_evaluate(seeded, path):
                _train_one(seeded, path, arguments.overwrite, check_initial, cluster, arguments.data_service)
                keras.backend.clear_session()
    if not configuration.is_smoke(config):
        print_seeds(paths)
    return paths


def _how_to_continue(first: Path, later: list[Path], overwrite: bool) -> str:
    """Returns the command that continues; with --overwrite, which starts again, while older runs are to be replaced."""
    if overwrite and any(path.exists() for path in later):
        return f"Start again from {first.name}, since later runs are still the old ones, with: {command()}"
    return f"Continue with: {command().replace(' --overwrite', '')}"


def _check_same(path: Path, config: Config) -> None:
    """Raises UserError if an existing run has another configuration."""
    if configuration.read_config(path / "config.json") != config:
        raise UserError(
            f"{path} has other options. Expected the options of this command: choose another --name, or --overwrite "
            "the runs."
        )
