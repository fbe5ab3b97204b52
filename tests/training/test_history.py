"""The record of an epoch: a row of history.csv, and a line to read."""

import shutil

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from emotion_tf.evaluation import figures
from emotion_tf.locks import WriteError
from emotion_tf.runs.run import Run
from emotion_tf.training.checkpoint import State
from emotion_tf.training.history import (
    epoch_line,
    finished_state,
    write_confusion,
    write_epoch,
    write_hyperparameters,
)
from emotion_tf.training.log import RunLog


def test_a_repeated_epoch_replaces_its_row(tmp_path):
    run = Run(tmp_path)
    for epoch, loss in ((1, 3.0), (2, 2.0), (3, 1.0), (2, 2.5)):
        write_epoch(run, {"epoch": epoch, "loss": loss})
    assert pd.read_csv(run.history).to_dict("list") == {"epoch": [1, 2], "loss": [3.0, 2.5]}
    files = [path.suffix for path in (tmp_path / "logs").iterdir()]
    assert sorted(files) == [".epoch-1", ".epoch-2"]  # TensorBoard shows each epoch once


def test_rewriting_keeps_every_bit(tmp_path):
    """pandas reads numbers with an error of a last bit, unless told otherwise."""
    losses = np.random.default_rng(0).random(40).tolist()
    for epoch, loss in enumerate(losses, 1):
        write_epoch(Run(tmp_path), {"epoch": epoch, "loss": loss})
    assert pd.read_csv(tmp_path / "history.csv", float_precision="round_trip")["loss"].tolist() == losses


def summaries(folder):
    return EventAccumulator(str(folder)).Reload()


def test_tensorboard_has_the_hyperparameters_and_the_confusion_matrix(untrained, tmp_path):
    run = Run(shutil.copytree(untrained, tmp_path / "run"))
    for _ in range(2):  # as a training that is continued does
        write_hyperparameters(run, run.config)
        picture = tmp_path / "confusion.png"
        figures.plot_confusion(picture, np.eye(7, dtype=int).tolist(), run.labels, "a title")
        write_confusion(run, "test", picture)
        write_confusion(run, "dev", picture)
    assert sorted(path.suffix for path in (run.path / "logs").iterdir()) == [
        ".confusion-dev", ".confusion-test", ".hparams",
    ]  # fmt: skip
    events = summaries(run.path / "logs")
    (event,) = events.Tensors("confusion/test")
    shown = tf.io.decode_png(tf.make_ndarray(event.tensor_proto)[2])  # after width and height
    np.testing.assert_array_equal(shown, tf.io.decode_png(picture.read_bytes(), channels=3))
    data = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    start = HParamsPluginData.FromString(data).session_start_info
    options = {name: value for name, value in start.hparams.items()}
    assert start.group_name == "run" and options["train.epochs"].number_value == run.config.train.epochs
    assert options["text.branches"].string_value == "gru" and options["train.deterministic"].bool_value is False


def test_a_run_has_a_log(tmp_path):
    lines = []
    log = RunLog(lines.append)
    log("before there is a folder")
    log.open(tmp_path, "python main.py train")
    log("epoch 1/2")
    again = RunLog(lines.append)
    again.open(tmp_path, "python main.py train --resume")
    written = (tmp_path / "train.log").read_text().splitlines()
    assert lines == ["before there is a folder", "epoch 1/2"]
    texts = ["$ python main.py train", *lines, "$ python main.py train --resume"]
    assert [line.partition("+00:00 ")[2] for line in written] == texts
    (tmp_path / "train.log").unlink()
    (tmp_path / "private").write_text("mine")
    (tmp_path / "train.log").symlink_to(tmp_path / "private")
    with pytest.raises(WriteError, match=r"Cannot write .*train\.log"):
        log("into another file")
    assert (tmp_path / "private").read_text() == "mine"


def test_a_full_disk_is_an_error_of_the_user(tmp_path, monkeypatch):
    def create_file_writer(*arguments, **options):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    monkeypatch.setattr(tf.summary, "create_file_writer", create_file_writer)
    with pytest.raises(WriteError, match=r"Cannot write .*logs: No space left on device\. Free some space"):
        write_epoch(Run(tmp_path), {"epoch": 1, "loss": 1.0})


def test_a_line_says_which_epoch_is_the_best_and_how_long_it_takes():
    numbers = {"loss": 1.25, "accuracy": 0.5, "dev_loss": 1.5, "dev_accuracy": 0.25, "dev_weighted_f1": 0.375}
    numbers |= {"utterances_per_second": 80.0}
    best = epoch_line(numbers, State(epoch=2, best=0.375, best_epoch=1, seconds=50.0), 10)
    assert best.startswith("epoch 2/10  loss 1.250  accuracy 0.500")
    assert "weighted F1 0.375 *" in best and best.endswith("80 utterances/s  about 3m20s left")
    long = epoch_line(numbers, State(epoch=3, best=0.5, best_epoch=1, seconds=10_800.0), 5)
    assert "*" not in long and long.endswith("2h00m left")
    last = epoch_line(numbers, State(epoch=10, best=0.5, best_epoch=1, seconds=50.0), 10, later=75.0)
    assert last.endswith("80 utterances/s  about 1m15s left, evaluation included")


def test_the_state_of_a_finished_training_is_read_from_its_history(tmp_path):
    state = State()
    assert finished_state(Run(tmp_path)) == state
    for score in (0.1, 0.3, 0.3, 0.2):
        state = state.after_epoch(score, 1.5)
        write_epoch(Run(tmp_path), {"epoch": state.epoch, "dev_weighted_f1": score, "seconds": 1.5})
    assert finished_state(Run(tmp_path)) == state
