"""A trial as a worker process runs it."""

import tensorflow as tf

from emotion_tf.models.pretrained import PretrainedFiles
from emotion_tf.training import loop, strategies
from emotion_tf.training.checkpoint import State
from tuning.trial import Task, TrainingJob


def test_a_trial_trains_under_its_strategy(tmp_path, dataset, small_config, monkeypatch):
    names, mirrored = [], strategies.Cluster(tf.distribute.MirroredStrategy(["/cpu:0"]))
    monkeypatch.setattr(strategies, "connect", {"mirrored": mirrored, "none": strategies.Cluster()}.get)
    monkeypatch.setattr(loop, "train", lambda *_, **__: names.append(tf.distribute.has_strategy()) or State())
    for name in ("mirrored", "none"):
        TrainingJob(1, PretrainedFiles(), strategy=name).run(Task(small_config, tmp_path / "trial", "tune"))
    assert names == [True, False]
