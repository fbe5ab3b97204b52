"""A trial as a worker process runs it."""

import tensorflow as tf

from emotion_tf.config import smoke
from emotion_tf.models.pretrained import PretrainedFiles
from emotion_tf.training import loop, strategies
from emotion_tf.training.checkpoint import State
from tuning import trial
from tuning.trial import Task, TrainingJob


def test_a_trial_trains_under_its_strategy(tmp_path, dataset, small_config, monkeypatch):
    names, mirrored = [], strategies.Cluster(tf.distribute.MirroredStrategy(["/cpu:0"]))
    monkeypatch.setattr(strategies, "connect", {"mirrored": mirrored, "none": strategies.Cluster()}.get)
    monkeypatch.setattr(loop, "train", lambda *_, **__: names.append(tf.distribute.has_strategy()) or State())
    for name in ("mirrored", "none"):
        TrainingJob(1, PretrainedFiles(), strategy=name).run(Task(small_config, tmp_path / "trial", "tune"))
    assert names == [True, False]


def test_a_smoke_search_validates_few_rows_of_each_fold(dataset, small_config, monkeypatch):
    monkeypatch.setattr(trial, "SMOKE_ROWS", 20)
    job = TrainingJob(1, PretrainedFiles(), folds=2)
    whole, few = (job._rows(config) for config in (small_config, smoke(small_config)))
    for (training, held_out), (same, sample) in zip(whole, few, strict=True):
        assert len(training.positions) == len(same.positions) and len(held_out.positions) > 90
        assert 15 <= len(sample.positions) <= 20 and set(sample.positions) <= set(held_out.positions)
