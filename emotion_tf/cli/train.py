"""`train`: trains and evaluates one run, or a run for each of several seeds."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from emotion_tf import config as configuration
from emotion_tf import folders
from emotion_tf.cli.arguments import TrainArguments
from emotion_tf.cli.evaluate import evaluate_split
from emotion_tf.cli.report import report_path
from emotion_tf.config import Config
from emotion_tf.errors import UserError
from emotion_tf.program import command, program
from emotion_tf.quiet import start_tensorflow


def train(arguments: TrainArguments) -> None:
    """Trains a run, or one for each seed. Draws the demo data set first if it is the data set and is missing."""
    config = arguments.config
    start_tensorflow(config.train.threads)
    from emotion_tf.data.prepare import draw_missing_demo

    draw_missing_demo(Path(config.data))
    if arguments.seeds > 1:
        _train_seeds(arguments)
        return
    run = folders.RUNS / (arguments.name or folders.free_name(config))
    if arguments.resume and (run / "model.keras").exists():
        raise UserError(f"{run} is finished: nothing to resume. Evaluate it with: {program()} evaluate {run}")
    if run.exists() and not (arguments.resume or arguments.overwrite):
        raise UserError(f"{run} exists. --resume continues it, --overwrite replaces it, --name gives another.")
    _train_one(config, run, arguments.overwrite)


def _train_one(config: Config, path: Path, overwrite: bool) -> None:
    from emotion_tf.data.dataset import Dataset
    from emotion_tf.models.pretrained import pretrained_files
    from emotion_tf.runs.run import Run
    from emotion_tf.training import loop
    from emotion_tf.training.setup import TrainingData

    dataset = Dataset.open(Path(config.data))
    dataset.verify()
    data, files = TrainingData.of_splits(dataset), pretrained_files(config)
    print(f"Run: {path}", flush=True)
    loop.train(config, Run(path), data, files, command=command(), overwrite=overwrite, say=_say)
    _evaluate(config, path)


def _say(line: str) -> None:
    print(line, flush=True)


def _evaluate(config: Config, path: Path) -> None:
    """Evaluates a trained run on dev and test, if the data set has them, and writes the report of the last one."""
    from emotion_tf.runs.run import Run

    data, run = Path(config.data), Run(path)
    splits = _splits(data)
    for split in splits:
        page = evaluate_split(run, data, split, command(), report=split == splits[-1])
    print(f"Run: {path}")
    print(f"Report: {page}")


def _splits(data: Path) -> list[str]:
    from emotion_tf.data.dataset import Dataset

    return [split for split in ("dev", "test") if split in Dataset.open(data).splits]


def _train_seeds(arguments: TrainArguments) -> None:
    """Trains NAME-seed0, NAME-seed1, ... Skips finished runs and resumes an interrupted one."""
    import keras

    from emotion_tf.evaluation.seeds import print_seeds

    config, name = arguments.config, arguments.name or folders.stem(arguments.config)
    paths = []
    for seed in range(config.train.seed, config.train.seed + arguments.seeds):
        seeded = dataclasses.replace(config, train=dataclasses.replace(config.train, seed=seed))
        path = folders.RUNS / f"{name}-seed{seed}"
        paths.append(path)
        continues = path.exists() and not arguments.overwrite
        if continues:
            _check_same(path, seeded)
        if continues and (path / "model.keras").exists():
            if not report_path(path, _splits(Path(config.data))[-1]).exists():  # interrupted during the evaluation
                _evaluate(seeded, path)
        else:
            _train_one(seeded, path, overwrite=not (continues and (path / "checkpoint").is_dir()))
            keras.backend.clear_session()
    scores = {path.name: json.loads((path / "metrics.json").read_text(encoding="utf-8")) for path in paths}
    print_seeds(scores)


def _check_same(path: Path, config: Config) -> None:
    """Raises UserError if an existing run has another configuration."""
    if configuration.read_config(path / "config.json") != config:
        raise UserError(
            f"{path} has other options. Expected the options of this command: choose another --name, or --overwrite "
            "the runs."
        )
