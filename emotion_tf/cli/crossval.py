"""`crossval`: cross-validation by dialogue, with out-of-fold predictions of every utterance."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emotion_tf import config as configuration
from emotion_tf import files, folders, interrupts
from emotion_tf.cli.arguments import CrossvalArguments
from emotion_tf.config import SMOKE_ROWS
from emotion_tf.program import command
from emotion_tf.quiet import start_tensorflow
from emotion_tf.terminal import say
from emotion_tf.wording import plural


def crossval(arguments: CrossvalArguments) -> None:
    """Cross-validates a configuration. After an interruption, the same command continues."""
    config = arguments.config
    start_tensorflow(config.train.threads)
    path = folders.RUNS / (arguments.name or f"{folders.stem(config)}-crossval")
    resume = f"Continue with: {command().replace(' --overwrite', '')}"
    total = arguments.folds * arguments.repeats
    progress = interrupts.tell_progress(path, lambda: _progress(path, total))
    with progress, files.growing_folder(path, folders.CROSS_VALIDATION, resume, arguments.overwrite):
        _cross_validate(arguments, path)


def _progress(path: Path, total: int) -> str:
    finished = len(list(path.glob("*/held_out.csv")))
    return f"Stopped in fold {finished + 1} of {total}." if finished < total else "Stopped after the last fold."


def _cross_validate(arguments: CrossvalArguments, path: Path) -> None:
    from emotion_tf.data import pipeline
    from emotion_tf.data.dataset import Dataset
    from emotion_tf.evaluation.cross_validation import print_summary, summary
    from emotion_tf.models.pretrained import pretrained_files
    from emotion_tf.progress import stage
    from emotion_tf.training import cross_validate
    from emotion_tf.training.initialize import check_unseen

    config, data = arguments.config, Path(arguments.config.data)
    if arguments.overwrite:
        files.check_replaceable(path, folders.CROSS_VALIDATION)
    dataset = Dataset.open(data)
    dataset.verify()
    initial = check_unseen(config, dataset, held_out=["train"], selecting=["dev"], say=_say)
    smoke = configuration.is_smoke(config)
    rows = dataset.sample("train", SMOKE_ROWS * arguments.folds) if smoke else dataset.rows("train")
    with stage("dividing the dialogues into folds"):
        labels, folds = cross_validate.plan(rows, arguments.folds, arguments.repeats, config.train.seed)
    validation = cross_validate.CrossValidation(config, path, dataset, pretrained_files(config), _say, initial)
    validation.prepare(arguments.folds, arguments.repeats, command(), arguments.overwrite)
    predictions = list(validation.run(folds))
    outputs = cross_validate.out_of_fold(len(labels.label), predictions, arguments.repeats, len(dataset.labels))
    positions = [(fold.repeat, fold.number, fold.positions) for fold in folds]
    with stage("computing scores and intervals"):
        metrics = summary(*labels, *outputs, positions, dataset.labels)
    about = {"command": command(), "data": str(data), "initial": initial}
    part = f"{len(labels.label)} of {plural(dataset.splits['train'].records, 'utterance')}"
    about |= {"smoke": part} if smoke else {}
    _write(path, pipeline.read_rows(rows), *outputs, dataset.labels, {**metrics, **about})
    note = f"seed {config.train.seed}" + (f", smoke run: {part}" if smoke else "")
    title = f"{path}: {arguments.folds} folds by dialogue of train of {data} ({note})"
    print_summary(title, metrics)
    say(f"Out-of-fold predictions: {path / 'oof.csv'}")


def _say(line: str) -> None:
    say(line, flush=True)


def _write(
    path: Path,
    examples: Iterator[dict[str, Any]],
    predicted: np.ndarray,
    probabilities: np.ndarray,
    labels: Sequence[str],
    metrics: dict[str, Any],
) -> None:
    from emotion_tf.evaluation.report import write_predictions

    # one row per utterance, as in the predictions of a split: several repeats vote by their mean
    mean = probabilities.mean(axis=0)
    write_predictions(
        path / "oof.csv", examples, labels, predicted[0] if len(predicted) == 1 else mean.argmax(axis=1), mean
    )
    files.write_text(path / "metrics.json", json.dumps(metrics, indent=2) + "\n")
