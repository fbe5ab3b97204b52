"""Cross-validation by dialogue: each utterance is predicted by a model that was not trained on its dialogue.

The folds divide the training split. Every fold chooses its epoch on dev, which no fold trains on, and never on its
held-out utterances. The test split is not used.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from emotion_tf import config as configuration
from emotion_tf import documents, files
from emotion_tf.config import Config
from emotion_tf.data import pipeline, splits
from emotion_tf.data.dataset import Dataset
from emotion_tf.data.pipeline import Labels
from emotion_tf.data.rows import Rows
from emotion_tf.documents import Command, Count, Sha256
from emotion_tf.errors import UserError
from emotion_tf.evaluation.csv_tables import read_csv
from emotion_tf.evaluation.report import write_predictions
from emotion_tf.folders import CROSS_VALIDATION
from emotion_tf.models.pretrained import PretrainedFiles
from emotion_tf.progress import track_batches
from emotion_tf.runs.run import Run
from emotion_tf.training.history import in_validations
from emotion_tf.training.loop import train
from emotion_tf.training.outputs import collect_outputs, inference
from emotion_tf.training.setup import TrainingData
from emotion_tf.wording import plural

HELD_OUT = "held_out.csv"
BATCH = 64


@dataclass(frozen=True)
class CrossValidationInfo:
    """The document `crossval.json`: numbers of folds and repeats, hash of the data set, and the command line."""

    folds: Count
    repeats: Count
    data_sha256: Sha256
    command: Command


@dataclass(frozen=True)
class Fold:
    """A fold: its numbers from 0, the utterances that it trains on and holds out, and the positions of the latter."""

    repeat: int
    number: int
    train: Rows
    held_out: Rows
    positions: np.ndarray

    @property
    def name(self) -> str:
        """Name of the folder of its run."""
        return f"repeat{self.repeat}-fold{self.number}"


def plan(rows: Rows, count: int, repeats: int, seed: int) -> tuple[Labels, list[Fold]]:
    """Returns the labels of the training rows, and `count` folds for each repeat (drawn with `seed` + repeat).

    Raises:
        UserError: the data do not allow so many folds.
    """
    labels, pictures = pipeline.read_labels(rows), splits.hash_pictures(rows)
    dialogue = labels.dialogue.tolist()
    group = splits.group_utterances(dialogue, pictures)
    record = np.arange(len(group)) if rows.positions is None else np.array(rows.positions)
    folds = []
    for repeat in range(repeats):
        for number, held_out in enumerate(splits.assign_folds(labels.label, group, count, seed + repeat)):
            train_positions = np.setdiff1d(np.arange(len(group)), held_out)
            splits.check_leaks(dialogue, pictures, train_positions, held_out)
            train_rows, held_out_rows = rows.select(record[train_positions]), rows.select(record[held_out])
            folds.append(Fold(repeat, number, train_rows, held_out_rows, np.sort(held_out)))
    return labels, folds


class CrossValidation:
    """Trains and evaluates the folds. Results of an interrupted call are reused.

    Args:
        config: configuration of every fold; repeat r trains with its seed + r.
        path: folder of the cross-validation, which contains a run for each fold.
        dataset: the data set, its shards verified.
        pretrained: local files of pretrained networks.
        say: receives lines of progress.
        initial: sentences about the initial checkpoints (`check_unseen`), stored with the run of each fold.
    """

    def __init__(
        self,
        config: Config,
        path: Path,
        dataset: Dataset,
        pretrained: PretrainedFiles,
        say: Callable[[str], None],
        initial: Sequence[str] = (),
    ) -> None:
        self.config, self.path, self.dataset, self.pretrained, self.say = config, path, dataset, pretrained, say
        self.initial = initial

    def prepare(self, folds: int, repeats: int, command: str, overwrite: bool) -> None:
        """Creates the folder. Raises UserError if it exists, unless the same command created it or with `overwrite`."""
        info = CrossValidationInfo(folds, repeats, self.dataset.spec.data_sha256, command)
        if self.path.exists() and not overwrite:
            self._check_same(info)
            return
        with files.new_folder(self.path, CROSS_VALIDATION, overwrite) as folder:
            (folder / "config.json").write_text(configuration.to_json(self.config), encoding="utf-8")
            (folder / "crossval.json").write_text(documents.to_json(info), encoding="utf-8")

    def _check_same(self, info: CrossValidationInfo) -> None:
        other = (
            f"{self.path} is not a cross-validation with these folds, repeats, data and options. Expected the same "
            "ones to continue it. Choose another --name, or --overwrite it."
        )
        saved = documents.read(
            self.path / "crossval.json", CrossValidationInfo, "Start again with --overwrite.", missing=other
        )
        config = configuration.read_config(self.path / "config.json")
        if dataclasses.replace(saved, command=info.command) != info or config != self.config:
            raise UserError(other)

    def run(self, folds: list[Fold]) -> Iterator[tuple[Fold, np.ndarray, np.ndarray]]:
        """Yields each fold with the predicted classes (n,) and the probabilities (n, C) of its held-out utterances.

        They have the order of the records.
        """
        labels = list(self.dataset.labels)
        for fold in folds:
            file = self.path / fold.name / HELD_OUT
            if not file.exists():
                self._train(fold, file)
            table = read_csv(file)
            predicted = np.array([labels.index(name) for name in table["predicted"]])
            yield fold, predicted, table[[f"p_{label}" for label in labels]].to_numpy(np.float64)

    def _train(self, fold: Fold, file: Path) -> None:
        """Trains or resumes the run of a fold, and writes the predictions of its held-out utterances."""
        seed = self.config.train.seed + fold.repeat
        config = dataclasses.replace(self.config, train=dataclasses.replace(self.config.train, seed=seed))
        run = Run(self.path / fold.name)
        self.say(
            f"Run: {run.path}: {plural(len(fold.train.positions or ()), 'utterance')}, {len(fold.positions):,} held out"
        )
        dev = TrainingData.of_splits(self.dataset, configuration.is_smoke(config)).dev
        data = TrainingData(self.dataset, fold.train, dev)
        command = f"fold {fold.number} of repeat {fold.repeat} of {self.path.name}"
        dev_count = self.dataset.splits["dev"].records
        later = in_validations(dev_count + len(fold.positions), dev_count)  # dev calibrates
        train(config, run, data, self.pretrained, command=command, initial=self.initial, later=later, say=self.say)
        batches = pipeline.sorted_batches(fold.held_out, run.preprocessor(run.model), BATCH)
        title = "predicting the held-out fold"
        outputs = collect_outputs(inference(run.model), track_batches(batches, len(fold.positions), BATCH, title))
        probabilities = run.calibration.temperatures.probabilities(outputs.logits, outputs.pattern)
        rows = pipeline.read_rows(fold.held_out)
        write_predictions(file, rows, run.labels, outputs.predicted, probabilities)
        keras.backend.clear_session()


def out_of_fold(
    examples: int, predictions: list[tuple[Fold, np.ndarray, np.ndarray]], repeats: int, labels: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the predicted classes int (R, N) and the probabilities (R, N, C) of every utterance in every repeat.

    Raises:
        ValueError: the predictions of an utterance are missing.
    """
    predicted, probabilities = np.zeros((repeats, examples), int), np.full((repeats, examples, labels), np.nan)
    for fold, *of_fold in predictions:
        predicted[fold.repeat, fold.positions], probabilities[fold.repeat, fold.positions] = of_fold
    if np.isnan(probabilities).any():
        raise ValueError("Out-of-fold predictions are not complete.")
    return predicted, probabilities
