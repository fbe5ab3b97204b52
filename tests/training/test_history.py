"""The record of an epoch: a row of history.csv, and a line to read."""

import pandas as pd

from emotion_tf.runs.run import Run
from emotion_tf.training.checkpoint import State
from emotion_tf.training.history import epoch_line, write_epoch


def test_a_repeated_epoch_replaces_its_row(tmp_path):
    run = Run(tmp_path)
    for epoch, loss in ((1, 3.0), (2, 2.0), (3, 1.0), (2, 2.5)):
        write_epoch(run, {"epoch": epoch, "loss": loss})
    assert pd.read_csv(run.history).to_dict("list") == {"epoch": [1, 2], "loss": [3.0, 2.5]}
    assert list((tmp_path / "logs").iterdir())


def test_a_line_says_which_epoch_is_the_best_and_how_long_it_takes():
    numbers = {"loss": 1.25, "accuracy": 0.5, "dev_loss": 1.5, "dev_accuracy": 0.25, "dev_weighted_f1": 0.375}
    numbers |= {"utterances_per_second": 80.0}
    best = epoch_line(numbers, State(epoch=2, best=0.375, best_epoch=1, seconds=50.0), 10)
    assert best.startswith("epoch 2/10  loss 1.250  accuracy 0.500")
    assert "weighted F1 0.375 *" in best and best.endswith("80 utterances/s  3m20s left")
    long = epoch_line(numbers, State(epoch=3, best=0.5, best_epoch=1, seconds=10_800.0), 5)
    assert "*" not in long and long.endswith("2h00m left")
