"""Kept features: the same numbers as without, and never those of another weight, shard or option."""

import dataclasses
import errno
import os
from concurrent.futures import ThreadPoolExecutor, wait

import fsspec
import kills
import numpy as np
import pandas as pd
import pytest
from helpers import build_setup, train_run
from small_records import with_other_hash

from emotion_tf import files, locks
from emotion_tf.errors import UserError
from emotion_tf.features.boundary import frozen_parts
from emotion_tf.features.cache import FeatureCache, _load, _save
from emotion_tf.runs.run import Run

pytestmark = pytest.mark.usefixtures("eager")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EMOTION_TF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"


@pytest.fixture(scope="module")
def config(bert_config):
    """A frozen BERT, whose tokens a trained layer pools, and a trained CNN; random layers in between and behind."""
    text = dataclasses.replace(bert_config.text, branches=("bert",), pooling="attention", train_encoder=False)
    face = dataclasses.replace(bert_config.face, cnn_filters=(4,))
    fusion = dataclasses.replace(bert_config.fusion, modality_dropout=0.3)
    train = dataclasses.replace(bert_config.train, batch_size=96, steps_per_epoch=1)
    return dataclasses.replace(bert_config, text=text, face=face, fusion=fusion, train=train)


@pytest.fixture(scope="module")
def text_config(config):
    """The frozen BERT alone."""
    return dataclasses.replace(
        config, towers=("text",), fusion=dataclasses.replace(config.fusion, modality_dropout=0.0)
    )


@pytest.fixture(scope="module")
def setup(text_config, tiny_bert):
    """A setup of the frozen BERT, whose features each test keeps in a folder of its own."""
    return build_setup(text_config, tiny_bert)


def change(config, **train):
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **train))


def feature_cache(setup, say=lambda line: None):
    return FeatureCache(frozen_parts(setup.model), setup.preprocess, say)


@pytest.mark.parametrize(
    "towers", ["both", pytest.param("text", marks=pytest.mark.slow)], ids=["with-faces", "without-records"]
)
def test_training_gives_equal_results_with_and_without_cache(config, text_config, tiny_bert, tmp_path, cache, towers):
    """With dropout everywhere and modality dropout: a random layer draws the same numbers in both graphs."""
    config = change(config if towers == "both" else text_config, ema=0.9)
    assert config.text.dropout and config.fusion.dropout and (config.fusion.modality_dropout or towers == "text")
    plain = train_run(change(config, cache_features=False), tmp_path / "plain", tiny_bert)
    assert not cache.exists()
    lines = []
    cached = train_run(config, tmp_path / "kept", tiny_bert, lines.append)
    assert any(line.startswith("Features of frozen networks (text_bert, input_mask") for line in lines)
    assert cached.epoch == plain.epoch == 2 and cached.best_epoch == plain.best_epoch
    runs = [Run(tmp_path / name) for name in ("plain", "kept")]
    columns = ["loss", "accuracy", "dev_loss", "dev_accuracy", "dev_weighted_f1"]
    np.testing.assert_allclose(*(pd.read_csv(run.history)[columns].to_numpy() for run in runs), atol=1e-5)
    for a, b in zip(*(run.model.weights for run in runs), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def holds(setup):
    """Whether the features of dev, as a training would read them, are on disk."""
    return feature_cache(setup).holds(setup.data.shards(setup.data.dev))


@pytest.fixture
def computed(setup):
    """A setup, the features of whose dev split are on disk."""
    assert not holds(setup)
    feature_cache(setup).read(setup.data.dev, setup.data.shards(setup.data.dev))
    assert holds(setup)
    return setup


def test_weights_shards_and_options_change_the_file(computed, text_config, tiny_bert):
    for option in ({"context_tokens": 31}, {"pooling": "mean"}):
        other = dataclasses.replace(text_config, text=dataclasses.replace(text_config.text, **option))
        assert not holds(build_setup(other, tiny_bert)), option
    data = dataclasses.replace(computed.data, dataset=with_other_hash(computed.data.dataset, "dev"))
    assert not holds(dataclasses.replace(computed, data=data))
    weight = computed.model.towers["text"].find_layer("bert").weights[3]
    value = np.array(weight)
    value.flat[0] += 1e-6
    before = weight.numpy()
    weight.assign(value)
    assert not holds(computed)
    weight.assign(before)
    assert holds(computed)


def test_irrelevant_options_do_not_change_the_file(computed, text_config, tiny_bert):
    assert holds(build_setup(text_config, tiny_bert))
    same = dataclasses.replace(
        text_config,
        text=dataclasses.replace(text_config.text, vocabulary_size=99, dropout=0.5),
        train=dataclasses.replace(text_config.train, seed=7, learning_rate=0.1),
    )
    assert holds(build_setup(same, tiny_bert))


def test_a_damaged_or_missing_file_is_computed_again(setup, cache):
    rows, of_shards, lines = setup.data.dev, setup.data.shards(setup.data.dev), []
    features = feature_cache(setup, lines.append)
    assert not features.holds(of_shards)
    first = features.read(rows, of_shards)
    assert features.holds(of_shards) and not features.holds({"another": "0" * 64})
    features.read(rows, of_shards)
    for file in cache.rglob("*.npz"):
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    again = features.read(rows, of_shards)
    assert ["computed in" in line for line in lines] == [True, False, True]
    positions = np.arange(first.count)
    assert set(first.inputs(positions)) == features.columns == {"text_bert", "input_mask", "input_type_ids"}
    for name, values in first.inputs(positions).items():
        np.testing.assert_array_equal(again.inputs(positions)[name], values)


def test_machines_share_features_in_object_storage(setup, tmp_path, monkeypatch):
    url, rows, of_shards = "memory://bucket/cache", setup.data.dev, setup.data.shards(setup.data.dev)
    monkeypatch.setenv("EMOTION_TF_CACHE", url)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "one"))
    first = feature_cache(setup).read(rows, of_shards)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "two"))
    monkeypatch.setattr("emotion_tf.features.cache._compute", None)  # it need not
    features, lines = feature_cache(setup), []
    assert features.holds(of_shards) and not features.holds({"another": "0" * 64})
    features.say = lines.append
    again = features.read(rows, of_shards)
    assert "read from" in lines[0] and len(list((tmp_path / "two").rglob("features/*/*.npz"))) == 1
    positions = np.arange(first.count)
    for name, values in first.inputs(positions).items():
        np.testing.assert_array_equal(again.inputs(positions)[name], values)
    fsspec.filesystem("memory").store.clear()
    monkeypatch.setenv("EMOTION_TF_CACHE", "s3://key:secret@bucket/cache")
    with pytest.raises(UserError, match="Invalid `EMOTION_TF_CACHE`") as error:
        feature_cache(setup)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    "damage", ["emptied", "garbage", "cut", "of another shard", "of other layers", "folder", "pipe"]
)
def test_a_file_that_is_not_the_one_that_was_written_is_not_read(damage, tmp_path):
    """Then the features are computed again."""
    file, other, steps = tmp_path / "layers" / "shard.npz", tmp_path / "layers" / "other.npz", {"a": "", "b": "mask"}
    file.parent.mkdir()
    for path, value in ((file, 1.0), (other, 2.0)):
        _save(path, {"a": np.array([value]), "b": (np.array([value, value]), np.array([2]))})
    assert [_load(path, steps)["a"].read(np.array([0])) for path in (file, other)] == [[1], [2]]
    content = file.read_bytes()
    if damage == "of another shard":
        other.replace(file)
    elif damage == "of other layers":
        file = file.parent.rename(tmp_path / "other") / file.name
    elif damage in ("folder", "pipe"):
        file.unlink()
        (os.mkdir if damage == "folder" else os.mkfifo)(file)
    else:
        file.write_bytes({"emptied": b"", "garbage": b"garbage", "cut": content[:-100]}[damage])
    assert _load(file, steps) is None


def test_the_second_of_two_trainings_waits_for_the_features_of_the_first(setup, cache, monkeypatch):
    """Another process holds the lock of the only file until its content is there."""
    rows, of_shards, lines = setup.data.dev, setup.data.shards(setup.data.dev), []
    feature_cache(setup).read(rows, of_shards)
    (file,) = cache.rglob("*.npz")
    aside = file.rename(file.with_suffix(".aside"))
    monkeypatch.setattr(locks, "WAIT", 0.01)
    with kills.lock_of_another_process(file) as holder, ThreadPoolExecutor() as pool:
        second = pool.submit(feature_cache(setup, lines.append).read, rows, of_shards)
        assert wait([second], 0.3).not_done
        aside.rename(file)
        holder.communicate()
        assert second.result(30).count == len(list(rows.enumerate_records()))
    assert len(lines) == 1 and "read from" in lines[0]
    assert [path for path in cache.rglob("*") if path.is_file()] == [file]


def test_a_full_disk_names_the_ways_out(setup, cache, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(files.WriteError, match="Cannot write .*npz: No space left.*EMOTION_TF_CACHE.*no-cache-feat"):
        feature_cache(setup).read(setup.data.dev, setup.data.shards(setup.data.dev))
    assert not list(cache.rglob(".*"))


def test_a_cache_that_cannot_be_written_names_the_ways_out(setup, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EMOTION_TF_CACHE", str(tmp_path / "file"))
    with pytest.raises(files.WriteError, match="Cannot write .*npz: Not a dir.*EMOTION_TF_CACHE.*no-cache-features"):
        feature_cache(setup).read(setup.data.dev, setup.data.shards(setup.data.dev))
