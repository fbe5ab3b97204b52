"""A repeated epoch need not be what it was: threads, a graphics card. History, weights and state stay one training."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from helpers import train_run

from emotion_tf.runs.run import Run
from emotion_tf.training import loop


def test_an_interrupted_best_epoch_does_not_replace_the_earlier_one(small_config, tmp_path, monkeypatch, eager):
    """The second epoch is the best until it is interrupted; repeated, it is not."""
    text = dataclasses.replace(small_config.text, branches=("cnn",), word_dim=4, cnn_filters=3)
    train = dataclasses.replace(small_config.train, epochs=2, steps_per_epoch=1, warmup=0.0)
    config = dataclasses.replace(small_config, towers=("text",), text=text, train=train)
    scores, weights, write_epoch = iter([0.2, 0.5, 0.1]), [], loop.write_epoch

    def validate(stage):
        weights.append([np.array(variable) for variable in stage.setup.model.weights])
        return {"dev_loss": 1.0, "dev_accuracy": 0.0, "dev_weighted_f1": next(scores)}

    def interrupted(run, numbers):
        if numbers["epoch"] == 2:
            raise KeyboardInterrupt
        write_epoch(run, numbers)

    monkeypatch.setattr(loop, "_validate", validate)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "write_epoch", interrupted)
        train_run(config, tmp_path / "run")
    state = train_run(config, tmp_path / "run")
    assert (state.epoch, state.best_epoch, state.best) == (2, 0, 0.2)
    assert pd.read_csv(tmp_path / "run" / "history.csv")["dev_weighted_f1"].tolist() == [0.2, 0.1]
    for saved, first in zip(Run(tmp_path / "run").model.weights, weights[0], strict=True):
        np.testing.assert_array_equal(saved, first)
