"""The record of an epoch: a row of history.csv, and a line to read."""

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from emotion_tf.locks import WriteError
from emotion_tf.runs.run import Run
from emotion_tf.training.checkpoint import State
from emotion_tf.training.history import epoch_line, finished_state, write_epoch


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
    assert "weighted F1 0.375 *" in best and best.endswith("80 utterances/s  3m20s left")
    long = epoch_line(numbers, State(epoch=3, best=0.5, best_epoch=1, seconds=10_800.0), 5)
    assert "*" not in long and long.endswith("2h00m left")


def test_the_state_of_a_finished_training_is_read_from_its_history(tmp_path):
    state = State()
    assert finished_state(Run(tmp_path)) == state
    for score in (0.1, 0.3, 0.3, 0.2):
        state = state.after_epoch(score, 1.5)
        write_epoch(Run(tmp_path), {"epoch": state.epoch, "dev_weighted_f1": score, "seconds": 1.5})
    assert finished_state(Run(tmp_path)) == state
