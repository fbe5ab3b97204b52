"""`crossval`: folds by dialogue, out-of-fold predictions of every utterance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from emotion_tf import files, folders
from emotion_tf.cli.arguments import CrossvalArguments
from emotion_tf.program import command
from emotion_tf.quiet import start_tensorflow


def crossval(arguments: CrossvalArguments) -> None:
    """Cross-validate a configuration; said again after an interruption it goes on at the fold it was in."""
    config, data = arguments.config, Path(arguments.config.data)
    start_tensorflow(config.train.threads)
    from emotion_tf.data.dataset import Dataset
    from emotion_tf.evaluation.cross_validation import print_summary, summary
    from emotion_tf.models.pretrained import pretrained_files
    from emotion_tf.training import cross_validate
    from emotion_tf.training.initialize import check_unseen

    path = folders.RUNS / (arguments.name or f"{folders.stem(config)}-crossval")
    dataset = Dataset.open(data)
    dataset.verify()
    check_unseen(config, dataset.spec.data_sha256)
    known, folds = cross_validate.plan(dataset, arguments.folds, arguments.repeats, config.train.seed)
    work = cross_validate.CrossValidation(config, path, dataset, pretrained_files(config), _say)
    work.prepare(arguments.folds, arguments.repeats, command(), arguments.overwrite)
    found = list(work.run(folds))
    probabilities = cross_validate.out_of_fold(len(known), found, arguments.repeats, len(dataset.labels))
    label, weight = (np.array([row[name] for row in known]) for name in ("label", "weight"))
    group = np.array([row["dialogue_id"] for row in known])
    of_folds = [(fold.repeat, fold.number, fold.positions) for fold in folds]
    numbers = summary(label, weight, group, probabilities, of_folds, dataset.labels)
    _write(path, known, probabilities, dataset.labels, {**numbers, "command": command(), "data": str(data)})
    title = f"{path}: {arguments.folds} folds by dialogue of train of {data} (seed {config.train.seed})"
    print_summary(title, numbers)
    print(f"Out-of-fold predictions: {path / 'oof.csv'}")


def _say(line: str) -> None:
    print(line, flush=True)


def _write(path: Path, known: list[dict[str, Any]], probabilities: Any, labels: Any, numbers: dict[str, Any]) -> None:
    from emotion_tf.evaluation.report import write_predictions

    # of several repeats the mean: one line an utterance, as of a split's predictions
    write_predictions(path / "oof.csv", known, labels, probabilities.mean(axis=0))
    files.write_text(path / "metrics.json", json.dumps(numbers, indent=2) + "\n")
