"""A trial: trains a configuration as `train` does and returns the objective."""

from __future__ import annotations

import functools
import gc
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emotion_tf.config import SMOKE_ROWS, Config, is_smoke
from emotion_tf.quiet import start_tensorflow
from tuning.workers import Outcome

if TYPE_CHECKING:
    from emotion_tf.models.pretrained import PretrainedFiles

SPLITS = ("train", "dev")


@dataclass(frozen=True)
class Task:
    """The task of one trial.

    Attributes:
        config: configuration to train.
        folder: folder of the trial's files.
        command: command line that started the search.
        until: epoch after which the trial stops, so that a later one can continue it; 0: trains to the end.
        earlier: folder of the trial to continue. If it is missing, the trial starts from scratch, with the same result.
    """

    config: Config
    folder: Path
    command: str
    until: int = 0
    earlier: Path | None = None


@dataclass(frozen=True)
class TrainingJob:
    """The job of a worker process.

    Attributes:
        threads: number of threads of one operation, as `--train.threads`.
        pretrained: local files of pretrained networks.
        folds: number of folds of train and dev whose mean score is the objective; 0: the score on dev.
        strategy: `none`, or `mirrored` for all GPUs of the machine.
    """

    threads: int
    pretrained: PretrainedFiles
    folds: int = 0
    strategy: str = "none"

    def start(self) -> None:
        """Starts TensorFlow in this process."""
        start_tensorflow(self.threads)
        gc.freeze()  # excludes the permanent objects of TensorFlow from later collections

    def check(self, config: Config) -> None:
        """Raises UserError if the data do not allow the folds, which no trial could train then."""
        self._rows(config)

    def run(self, task: Task) -> Outcome:
        """Trains a configuration. The objective is the weighted F1 of the best epoch, whose model `train` saves."""
        start = time.monotonic()
        shutil.rmtree(task.folder, ignore_errors=True)  # left by a trial that was killed
        is_continued = 0 < task.until < task.config.train.epochs
        try:
            states = [self._train(task, rows, f"fold{i}") for i, rows in enumerate(self._rows(task.config))]
        finally:
            if not is_continued:
                shutil.rmtree(task.folder, ignore_errors=True)
            _clear_session()
        if task.earlier:  # no other trial continues it
            shutil.rmtree(task.earlier, ignore_errors=True)
        scores = tuple(state.best for state in states)
        return Outcome(
            score=float(np.mean(scores)),
            epochs=sum(state.epoch for state in states),
            seconds=time.monotonic() - start,
            folds=scores if self.folds else (),
        )

    def _train(self, task: Task, rows: Any, name: str) -> Any:
        from emotion_tf.data.dataset import Dataset
        from emotion_tf.runs.run import Run
        from emotion_tf.training.loop import train
        from emotion_tf.training.setup import TrainingData
        from emotion_tf.training.strategies import connect

        run, dataset = Run(task.folder / name), Dataset.open(Path(task.config.data))
        earlier = task.earlier / name if task.earlier else None
        data = TrainingData(dataset, *rows) if rows else TrainingData.of_splits(dataset, is_smoke(task.config))
        if earlier and (earlier / "checkpoint" / "last.npz").is_file():
            shutil.copytree(earlier, run.path)
        with connect(self.strategy).scope():
            return train(
                task.config, run, data, self.pretrained, command=task.command, until=task.until, save_model=False
            )

    def _rows(self, config: Config) -> Sequence[Any]:
        """Returns training rows and held-out rows of each fold; None stands for the splits train and dev."""
        return fold_rows(config.data, self.folds, config.train.seed, is_smoke(config)) if self.folds else (None,)


@functools.cache
def fold_rows(data: str, count: int, seed: int, smoke: bool = False) -> tuple[tuple[Any, Any], ...]:
    """Returns training rows and held-out rows of each fold of train and dev together; test is in none.

    A dialogue is in one fold, and so are dialogues that share a picture. With `smoke`, at most `SMOKE_ROWS` rows are
    held out, at even distances.
    """
    from emotion_tf.data import pipeline, splits
    from emotion_tf.data.dataset import Dataset

    dataset = Dataset.open(Path(data))
    rows = dataset.rows(*SPLITS)
    labels = [pipeline.read_labels(dataset.rows(split)) for split in SPLITS]
    dialogues = [(split, i) for split, of_split in zip(SPLITS, labels, strict=True) for i in of_split.dialogue.tolist()]
    pictures = splits.hash_pictures(rows)
    group = splits.group_utterances(dialogues, pictures)
    folds = splits.assign_folds(np.concatenate([of_split.label for of_split in labels]), group, count, seed)
    positions = np.arange(len(group))
    sides = [(np.setdiff1d(positions, fold).tolist(), fold.tolist()) for fold in folds]
    for training, held_out in sides:
        splits.check_leaks(dialogues, pictures, training, held_out)
    if smoke:
        sides = [(training, held_out[:: -(-len(held_out) // SMOKE_ROWS)]) for training, held_out in sides]
    return tuple((rows.select(training), rows.select(held_out)) for training, held_out in sides)


def _clear_session() -> None:
    """Frees the memory that Keras holds for the models of a trial."""
    import keras

    keras.backend.clear_session()
    gc.collect()
