"""Cached features: the same numbers as without, and never those of another weight, shard or option."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import train_run

from emotion_tf.data import records
from emotion_tf.training.run_folder import RunFolder
from emotion_tf.training.train import Trainer


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EMOTION_TF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"


@pytest.fixture
def config(bert_config):
    """A frozen BERT, whose tokens a trained layer pools, and a trained CNN."""
    text = dataclasses.replace(bert_config.text, branches=("bert",), pooling="attention", train_encoder=False)
    train = dataclasses.replace(bert_config.train, batch_size=64)
    return dataclasses.replace(bert_config, text=text, train=train)


def trainer_of(config, path, encoder, say=lambda line: None):
    made = Trainer(config, RunFolder(path), records.read_info(Path(config.data)), encoder, say)
    made.start("pytest")
    return made


def without(config):
    return dataclasses.replace(config, train=dataclasses.replace(config.train, cache_features=False))


@pytest.mark.slow
def test_training_gives_the_same_numbers_with_and_without(config, tiny_bert, tmp_path, cache, eager):
    config = dataclasses.replace(config, towers="text")
    plain = train_run(without(config), tmp_path / "plain", tiny_bert)
    assert not cache.exists()
    kept = train_run(config, tmp_path / "kept", tiny_bert)
    assert kept.phase.preprocess.inputs == ()
    columns = ["loss", "accuracy", "dev_loss", "dev_accuracy", "dev_weighted_f1"]
    both = [pd.read_csv(run.run.history)[columns].to_numpy() for run in (plain, kept)]
    np.testing.assert_allclose(*both, atol=1e-5)
    for a, b in zip(plain.model.weights, kept.run.model.weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def keys(config, tiny_bert, path, change=lambda trainer: None):
    """The names of the cache's files that a training would read."""
    trainer = trainer_of(config, path, tiny_bert)
    change(trainer)
    found = trainer._cache(9)
    return {key: sorted(trainer._shards(trainer.train_rows).values()) for key in found.keys}


def test_another_weight_shard_or_option_is_another_file(config, tiny_bert, tmp_path, dataset):
    def nudge(trainer):
        weight = trainer.model.get_layer("text_tower").get_layer("bert").weights[3]
        value = np.array(weight)
        value.flat[0] += 1e-6
        weight.assign(value)

    first = keys(config, tiny_bert, tmp_path / "a")
    assert keys(config, tiny_bert, tmp_path / "b") == first
    assert set(keys(config, tiny_bert, tmp_path / "c", nudge)) != set(first)
    shorter = dataclasses.replace(config, text=dataclasses.replace(config.text, context_tokens=31))
    assert set(keys(shorter, tiny_bert, tmp_path / "d")) != set(first)

    def tamper(trainer):
        trainer.info = json.loads(json.dumps(trainer.info))
        trainer.info["splits"]["train"]["shards"][0]["sha256"] = "0" * 64

    other = keys(config, tiny_bert, tmp_path / "e", tamper)
    assert set(other) == set(first) and list(other.values()) != list(first.values())


def test_what_does_not_matter_to_the_features_leaves_them(config, tiny_bert, tmp_path):
    first = keys(config, tiny_bert, tmp_path / "a")
    same = dataclasses.replace(
        config,
        text=dataclasses.replace(config.text, vocabulary_size=99, dropout=0.5),
        train=dataclasses.replace(config.train, seed=7, learning_rate=0.1),
    )
    assert keys(same, tiny_bert, tmp_path / "b") == first


@pytest.mark.slow
def test_a_damaged_file_is_made_anew(config, tiny_bert, tmp_path, cache):
    trainer = trainer_of(config, tmp_path / "a", tiny_bert)
    shards = trainer._shards(trainer.dev_rows)
    first = trainer._cache(9).read(trainer.dev_rows, shards)
    for file in cache.rglob("*.npz"):
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    again = trainer._cache(9).read(trainer.dev_rows, shards)
    rows = np.arange(first.count)
    for name, values in first.inputs(rows).items():
        np.testing.assert_array_equal(again.inputs(rows)[name], values)


@pytest.mark.slow
def test_interrupted_in_the_frozen_phase_it_goes_on(config, tiny_bert, tmp_path, monkeypatch, eager):
    """Frozen epochs by features, then the whole network; stopped in either, and between them."""
    text = dataclasses.replace(config.text, train_encoder=True)
    train = dataclasses.replace(config.train, epochs=3, freeze_epochs=2)
    config = dataclasses.replace(config, text=text, train=train, towers="text")
    whole = train_run(config, tmp_path / "whole", tiny_bert)
    cut = trainer_of(config, tmp_path / "cut", tiny_bert)
    real = Trainer._validate
    for stop in (1, 2):

        def interrupted(self, stop=stop):
            if self.state.epoch == stop:
                raise KeyboardInterrupt
            return real(self)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Trainer, "_validate", interrupted)
            cut.fit()
        cut = Trainer(config, RunFolder(tmp_path / "cut"), records.read_info(Path(config.data)), tiny_bert, print)
        cut.resume()
    cut.fit()
    columns = ["epoch", "loss", "dev_loss", "dev_weighted_f1"]
    both = [pd.read_csv(run.run.history)[columns].to_numpy() for run in (whole, cut)]
    np.testing.assert_allclose(*both, atol=1e-4)


def test_it_is_not_made_for_less_than_an_epoch_of_reading(config, tiny_bert, tmp_path, cache):
    short = dataclasses.replace(config, train=dataclasses.replace(config.train, steps_per_epoch=1, epochs=1))
    assert trainer_of(short, tmp_path / "a", tiny_bert)._cache(1) is None


def test_augmented_faces_are_said_to_need_their_network(config, tiny_bert, tmp_path):
    face = dataclasses.replace(
        config.face, branches=("mobilenetv3small",), weights="none", train_backbone=False, augment=True
    )
    lines = []
    trainer = trainer_of(dataclasses.replace(config, face=face), tmp_path / "a", tiny_bert, lines.append)
    reads = trainer._cache(9).reads
    assert reads == ("faces", "face_mask")
    assert any("--face.augment true changes the crops" in line for line in lines)
