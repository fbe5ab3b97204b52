"""The record of a training: rows of history.csv, lines of text, and what TensorBoard shows."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import tensorflow as tf

from emotion_tf import files
from emotion_tf.config import Config
from emotion_tf.evaluation.csv_tables import read_history
from emotion_tf.folders import check_no_link
from emotion_tf.locks import WriteError
from emotion_tf.runs.run import Run
from emotion_tf.training.checkpoint import State

LEAST_DEV = 256
"""Utterances below which the duration of a validation says more about its start than about its rate."""


def in_validations(utterances: int, dev: int) -> float:
    """Returns how many validations on `dev` utterances take about as long as the evaluation of some utterances."""
    return utterances / max(dev, LEAST_DEV)


def write_epoch(run: Run, numbers: Mapping[str, float]) -> None:
    """Appends the row of epoch `numbers["epoch"]` (from 1); replaces rows of an interrupted attempt."""
    history = _read_history(run, ["epoch"])
    history = history[history["epoch"] < numbers["epoch"]] if len(history) else history
    with files.new_file(run.history) as temporary:
        pd.concat([history, pd.DataFrame([numbers])]).to_csv(temporary, index=False)
    _write_scalars(run.path / "logs", int(numbers["epoch"]), numbers)


def finished_state(run: Run) -> State:
    """Returns the state of a finished training from its history."""
    state = State()
    for row in _read_history(run, ["dev_weighted_f1", "seconds"]).itertuples():
        state = state.after_epoch(row.dev_weighted_f1, row.seconds)
    return state


def _read_history(run: Run, columns: Sequence[str]) -> pd.DataFrame:
    if not run.history.exists():
        return pd.DataFrame()
    return read_history(run.history, columns)


def _write_scalars(logs: Path, epoch: int, numbers: Mapping[str, float]) -> None:
    """Writes the file of an epoch for TensorBoard; replaces files of an interrupted attempt."""
    check_no_link(logs)
    for file in logs.glob("*.epoch-*"):
        if int(file.name.rpartition("-")[2]) >= epoch:
            file.unlink()
    with _writer(logs, f".epoch-{epoch}", epoch):
        for name, value in numbers.items():
            tf.summary.scalar(name, value)


def write_hyperparameters(run: Run, config: Config) -> None:
    """Writes the options of the configuration for TensorBoard's HParams."""
    from tensorboard.plugins.hparams import api

    options = dict(_flat(dataclasses.asdict(config)))
    with _writer(run.path / "logs", ".hparams", 0):
        api.hparams(options, trial_id=run.path.name)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, bool | float | str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, (bool, int, float, str)) else " ".join(map(str, value))


def write_confusion(run: Run, split: str, picture: Path) -> None:
    """Writes the picture of the confusion matrix on a split for TensorBoard, in place of an earlier one."""
    pixels = tf.io.decode_png(picture.read_bytes(), channels=3)
    with _writer(run.path / "logs", f".confusion-{split}", 0):
        tf.summary.image(f"confusion/{split}", pixels[tf.newaxis])


@contextlib.contextmanager
def _writer(logs: Path, suffix: str, step: int) -> Iterator[None]:
    """Writes the summaries of the block into a file, in place of one with this suffix.

    Raises:
        UserError: the folder is a link, or cannot be written.
    """
    check_no_link(logs)
    try:
        for file in logs.glob(f"*{suffix}"):
            file.unlink()
        writer = tf.summary.create_file_writer(str(logs), filename_suffix=suffix)
        with writer.as_default(step=step):
            yield
        writer.close()
    except tf.errors.OpError as error:  # such as a full disk
        raise WriteError(f"Cannot write {logs}: {str(error.message).splitlines()[0][:200]}. Free some space.") from None


def epoch_line(numbers: Mapping[str, float], state: State, epochs: int, later: float = 0.0) -> str:
    """Returns a line about the last epoch, of `epochs` in total; * marks the best so far.

    `later` is the estimated duration of the stages after the last epoch, in seconds.
    """
    left = state.seconds / state.epoch * (epochs - state.epoch) + later
    return (
        f"epoch {state.epoch}/{epochs}  loss {numbers['loss']:.3f}  accuracy {numbers['accuracy']:.3f}  |  "
        f"dev loss {numbers['dev_loss']:.3f}  accuracy {numbers['dev_accuracy']:.3f}  weighted F1 "
        f"{numbers['dev_weighted_f1']:.3f}{' *' if state.best_epoch == state.epoch - 1 else '  '}|  "
        f"{numbers['utterances_per_second']:.0f} utterances/s  about "
        f"{_clock(left)} left{', evaluation included' if later else ''}"
    )


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{seconds:02d}s"
