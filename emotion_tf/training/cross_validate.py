"""Cross-validation by dialogue: each utterance is predicted by a model that saw nothing of its dialogue.

The folds are of the training split. In each the epoch is chosen on the split dev, which no fold trains on, and never on
what the fold holds out; test is not looked at.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from emotion_tf import config as configuration
from emotion_tf import files
from emotion_tf.config import Config
from emotion_tf.data import pipeline, splits
from emotion_tf.data.dataset import Dataset, Rows
from emotion_tf.errors import UserError
from emotion_tf.evaluation.report import write_predictions
from emotion_tf.models.pretrained import PretrainedFiles
from emotion_tf.runs.run import Run
from emotion_tf.training.loop import train
from emotion_tf.training.outputs import collect_outputs, inference
from emotion_tf.training.setup import TrainingData

HELD_OUT = "held_out.csv"


@dataclass(frozen=True)
class Fold:
    """One fold: `repeat` and `number` from 0, what it trains on, and what it holds out (positions and rows)."""

    repeat: int
    number: int
    train: Rows
    held: Rows
    positions: np.ndarray

    @property
    def name(self) -> str:
        """Of its run's folder."""
        return f"repeat{self.repeat}-fold{self.number}"


def plan(dataset: Dataset, count: int, repeats: int, seed: int) -> tuple[list[dict[str, Any]], list[Fold]]:
    """The utterances of the training split, and `count` folds of them for each repeat (drawn by `seed` + repeat).

    Raises:
        UserError: a number of folds that the data do not allow.
    """
    rows = dataset.rows("train")
    known, pictures = list(pipeline.read_rows(rows)), splits.picture_hashes(rows)
    dialogue = [row["dialogue_id"] for row in known]
    group = splits.groups(dialogue, pictures)
    found = []
    for repeat in range(repeats):
        for number, held in enumerate(splits.folds([row["label"] for row in known], group, count, seed + repeat)):
            rest = np.setdiff1d(np.arange(len(known)), held)
            splits.check_leaks(dialogue, pictures, rest, held)
            found.append(Fold(repeat, number, splits.choose(rows, rest), splits.choose(rows, held), np.sort(held)))
    return known, found


class CrossValidation:
    """Trains and evaluates the folds; what was finished in an earlier, interrupted call stays.

    Args:
        config: of every fold; repeat r trains with its seed + r.
        path: folder of the whole; each fold has a run of its own in it.
        dataset: the data set, its shards verified.
        pretrained: local files of pretrained networks.
        say: receives lines of progress.
    """

    def __init__(
        self,
        config: Config,
        path: Path,
        dataset: Dataset,
        pretrained: PretrainedFiles,
        say: Callable[[str], None],
    ) -> None:
        self.config, self.path, self.dataset, self.pretrained, self.say = config, path, dataset, pretrained, say

    def prepare(self, folds: int, repeats: int, command: str, overwrite: bool) -> None:
        """Makes the folder, or takes up the one that the same command made. Raises UserError for another one's."""
        about = {"folds": folds, "repeats": repeats, "data_sha256": self.dataset.spec.data_sha256}
        if self.path.exists() and not overwrite:
            self._check_same(about)
            return
        with files.new_folder(self.path, overwrite) as folder:
            (folder / "config.json").write_text(configuration.to_json(self.config), encoding="utf-8")
            (folder / "crossval.json").write_text(json.dumps({**about, "command": command}, indent=2) + "\n")

    def _check_same(self, about: dict[str, Any]) -> None:
        try:
            known = json.loads((self.path / "crossval.json").read_text(encoding="utf-8"))
            same = {name: known[name] for name in about} == about
        except (OSError, ValueError, KeyError):
            same = False
        if not same or configuration.read_config(self.path / "config.json") != self.config:
            raise UserError(
                f"{self.path} is of another cross-validation (folds, repeats, data or options differ), or none. "
                "Expected those of this command, which then goes on; take another --name, or --overwrite it."
            )

    def run(self, folds: list[Fold]) -> Iterator[tuple[Fold, np.ndarray]]:
        """Each fold with its probabilities (n, C) of what it holds out, in the order of the records."""
        for fold in folds:
            file = self.path / fold.name / HELD_OUT
            if not file.exists():
                self._train(fold, file)
            table = pd.read_csv(file, dtype=str, keep_default_na=False)
            yield fold, table[[f"p_{label}" for label in self.dataset.labels]].to_numpy(np.float64)

    def _train(self, fold: Fold, file: Path) -> None:
        """Trains a fold's run, or continues it, and writes the predictions of what the fold holds out."""
        seed = self.config.train.seed + fold.repeat
        config = dataclasses.replace(self.config, train=dataclasses.replace(self.config.train, seed=seed))
        run = Run(self.path / fold.name)
        self.say(f"Run: {run.path}: {len(fold.train.chosen or ())} utterances, {len(fold.positions)} held out")
        if not run.model_path.exists():
            data = TrainingData(self.dataset, fold.train, self.dataset.rows("dev"))
            command = f"fold {fold.number} of repeat {fold.repeat} of {self.path.name}"
            broken = not run.checkpoints.is_dir()
            train(config, run, data, self.pretrained, command=command, overwrite=broken, say=self.say)
        batches = pipeline.eval_batches(fold.held, run.preprocessor(run.model), 64)
        outputs = collect_outputs(inference(run.model), batches)
        probabilities = run.calibration.temperatures.probabilities(outputs.logits, outputs.pattern)
        write_predictions(file, list(pipeline.read_rows(fold.held)), run.labels, probabilities)
        keras.backend.clear_session()


def out_of_fold(
    known: list[dict[str, Any]], found: list[tuple[Fold, np.ndarray]], repeats: int, labels: int
) -> np.ndarray:
    """Probabilities (R, N, C) of every utterance in every repeat. Raises ValueError when one is missing."""
    made = np.full((repeats, len(known), labels), np.nan)
    for fold, probabilities in found:
        made[fold.repeat, fold.positions] = probabilities
    if np.isnan(made).any():
        raise ValueError("Out-of-fold predictions are not complete.")
    return made
