"""What one trial is: the training that `train` does, with the objective as its result."""

from __future__ import annotations

import functools
import gc
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emotion_tf.config import Config
from emotion_tf.quiet import start_tensorflow
from tuning.workers import Outcome

if TYPE_CHECKING:
    from emotion_tf.models.pretrained import PretrainedFiles

SPLITS = ("train", "dev")


@dataclass(frozen=True)
class Task:
    """One trial.

    Attributes:
        config: what is trained.
        folder: of its files.
        command: that the search was started with.
        until: epochs after which it stops, for a later trial to go on from; 0: to its end.
        earlier: folder of a trial of the same configuration that stopped earlier; what is not there is trained again,
            which gives the same.
    """

    config: Config
    folder: Path
    command: str
    until: int = 0
    earlier: Path | None = None


@dataclass(frozen=True)
class Training:
    """The job of a worker process.

    Attributes:
        threads: of each process, as `--train.threads`.
        pretrained: local files of pretrained networks.
        folds: the objective is the mean over so many folds of train and dev; 0: it is dev's.
    """

    threads: int
    pretrained: PretrainedFiles
    folds: int = 0

    def start(self) -> None:
        """Imports TensorFlow, once in each process."""
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # the processes share it
        start_tensorflow(self.threads)
        gc.freeze()  # what TensorFlow keeps for good is not looked through after each trial

    def run(self, task: Task) -> Outcome:
        """Trains; the objective is the weighted F1 of the best epoch."""
        began = time.monotonic()
        shutil.rmtree(task.folder, ignore_errors=True)  # of a trial that was killed
        goes_on = 0 < task.until < task.config.train.epochs
        try:
            states = [self._train(task, rows, f"fold{i}") for i, rows in enumerate(self._rows(task.config))]
        finally:
            if not goes_on:
                shutil.rmtree(task.folder, ignore_errors=True)
            _forget()
        if task.earlier:  # which only this trial goes on from
            shutil.rmtree(task.earlier, ignore_errors=True)
        scores = tuple(state.best for state in states)
        return Outcome(
            score=float(np.mean(scores)),
            epochs=sum(state.epoch for state in states),
            seconds=time.monotonic() - began,
            folds=scores if self.folds else (),
        )

    def _train(self, task: Task, rows: Any, name: str) -> Any:
        from emotion_tf.data.dataset import Dataset
        from emotion_tf.runs.run import Run
        from emotion_tf.training.loop import train
        from emotion_tf.training.setup import TrainingData

        run, dataset = Run(task.folder / name), Dataset.open(Path(task.config.data))
        earlier = task.earlier / name if task.earlier else None
        data = TrainingData(dataset, *rows) if rows else TrainingData.of_splits(dataset)
        if earlier and (earlier / "checkpoint" / "last.npz").is_file():
            shutil.copytree(earlier, run.path)
        return train(task.config, run, data, self.pretrained, command=task.command, until=task.until, save_model=False)

    def _rows(self, config: Config) -> Sequence[Any]:
        """Training and held-out rows of each training; None: the splits train and dev."""
        return fold_rows(config.data, self.folds, config.train.seed) if self.folds else (None,)


@functools.cache
def fold_rows(data: str, count: int, seed: int) -> tuple[tuple[Any, Any], ...]:
    """Rows to train on and rows held out, for each fold of train and dev together; test is in none.

    Dialogues, and those that share a picture, stay whole.
    """
    from emotion_tf.data import pipeline, splits
    from emotion_tf.data.dataset import Dataset

    dataset = Dataset.open(Path(data))
    rows = dataset.rows(*SPLITS)
    known = [(s, row) for s in SPLITS for row in pipeline.read_rows(dataset.rows(s))]
    dialogues = [(split, row["dialogue_id"]) for split, row in known]
    pictures = splits.hash_pictures(rows)
    group = splits.group_utterances(dialogues, pictures)
    held = splits.assign_folds([int(row["label"]) for _, row in known], group, count, seed)
    everyone = np.arange(len(known))
    sides = [(np.setdiff1d(everyone, out).tolist(), out.tolist()) for out in held]
    for kept, out in sides:
        splits.check_leaks(dialogues, pictures, kept, out)
    return tuple((rows.select(kept), rows.select(out)) for kept, out in sides)


def _forget() -> None:
    """Gives back what Keras keeps of a model."""
    import keras

    keras.backend.clear_session()
    gc.collect()
