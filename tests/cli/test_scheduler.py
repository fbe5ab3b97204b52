"""`evaluate`, `features` and `predict-table --scheduler`: workers compute the shards, or the parts of a table."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest

from emotion_tf import cluster
from emotion_tf.data import manifest as manifests
from emotion_tf.data import records
from emotion_tf.data.dataset import Dataset
from emotion_tf.data.tokenizer import WordPieceTokenizer
from emotion_tf.errors import UserError
from emotion_tf.folders import other_results
from emotion_tf.labels import MELD_EMOTIONS
from emotion_tf.runs.place import Place
from emotion_tf.runs.run import Run
from emotion_tf.serving import features, tables
from emotion_tf.training import evaluate

DEAD = "tcp://127.0.0.1:1"


@pytest.fixture(scope="module")
def shards(manifest_path, dataset, tmp_path_factory):
    """Folder of the small data set in shards of ten utterances."""
    rows = manifests.read_manifest(manifest_path, MELD_EMOTIONS)
    tokenizer = WordPieceTokenizer(Dataset.open(dataset).read_vocabulary(), True)
    options = records.PrepareOptions(MELD_EMOTIONS, 32, 3, "learned")
    out = tmp_path_factory.mktemp("shards") / "tiny"
    records.write_dataset(rows, out, options, tokenizer, rows_per_shard=10)
    return out


@pytest.fixture
def here(monkeypatch):
    """Lets this process compute the parts; returns how many they were."""
    counts = []

    def compute(scheduler, function, parts, total, *names):
        results = [function(*part) for part in parts]
        assert len(results) == total
        counts.append(total)
        return results

    monkeypatch.setattr(evaluate, "compute", compute)
    monkeypatch.setattr(features, "compute", compute)
    return counts


def test_shards_give_what_the_split_gives(untrained_words, shards, here, tmp_path):
    run, data = Run(untrained_words), Dataset.open(shards)
    one, many = (evaluate.evaluate(run, data, "test", scheduler=name) for name in ("", DEAD))
    for mine, its in zip(one.outputs, many.outputs, strict=True):
        np.testing.assert_allclose(its, mine, atol=1e-6)
    assert many.metrics["confusion"] == one.metrics["confusion"]
    for name in ("", DEAD):
        features.write_features(run, data, "test", "fusion", "", tmp_path / f"{len(name)}.npz", name)
    check_arrays(tmp_path / "0.npz", tmp_path / f"{len(DEAD)}.npz")
    assert here == [len(data.splits["test"].shards)] * 2 and here[0] > 1


def check_arrays(path, other):
    with np.load(path) as one, np.load(other) as many:
        assert one.files == many.files
        for name in one.files:
            if name == "features":
                np.testing.assert_allclose(many[name], one[name], atol=1e-5)
            else:
                np.testing.assert_array_equal(many[name], one[name])


def test_a_worker_with_another_model_or_data_set_or_none(untrained_words, shards, tmp_path):
    place = Place.of(Run(untrained_words), Dataset.open(shards))
    for name, fault in (
        ("model_sha256", f"{untrained_words} is not the one of the command"),
        ("data_sha256", f"{shards} is not the one of the command"),
        ("run", "No run at x"),
        ("data", "No data set at x"),
    ):
        with pytest.raises(UserError, match=fault):
            dataclasses.replace(place, **{name: "x"}).open("test", 0)
    shutil.copytree(shards, tmp_path / "data")
    (tmp_path / "data" / Dataset.open(shards).splits["test"].shards[1].file).write_bytes(b"")
    with pytest.raises(UserError, match="test-00001"):
        dataclasses.replace(place, data=str(tmp_path / "data")).open("test", 1)


def test_a_wrong_option(untrained_words, dataset, manifest_path, tmp_path, fault, opened_once, monkeypatch):
    monkeypatch.setattr("emotion_tf.cluster.TIMEOUT", 0.5)
    table = ("predict-table", untrained_words, manifest_path, "--out", tmp_path / "p.csv")
    for words in (("evaluate", untrained_words), ("features", untrained_words, dataset, "--out", "x.npz"), table):
        assert "Invalid `--scheduler`. Expected the address" in fault(*words, "--scheduler", "http://x")
    assert "Received --server and --scheduler" in fault(*table, "--scheduler", DEAD, "--server", "x:1")
    words = ("features", untrained_words, dataset, "--out", tmp_path / "x.npz", "--scheduler", DEAD)
    assert f"No scheduler of Dask at {DEAD}" in fault(*words)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_killed_worker_changes_no_result(
    dask, untrained, untrained_text, shards, manifest_path, tmp_path, succeed, monkeypatch
):
    monkeypatch.setattr(tables, "PART", 16)
    one, many = ((), ("--scheduler", dask.address))
    paths = {}
    for words, name in ((one, "one"), (many, "many")):
        paths[name] = tmp_path / name
        shutil.copytree(untrained, paths[name])
        if words:
            kill_after_the_first_part(monkeypatch, dask)
        succeed("evaluate", paths[name], "--data", shards, "--split", "train", *words)
        layer = ("--tower", "face", "--layer", "cnn", "--split", "train")
        succeed("features", untrained, shards, "--out", paths[name] / "x.npz", *layer, *words)
        succeed("predict-table", untrained_text, manifest_path, "--out", paths[name] / "p.csv", *words)
    check_arrays(paths["one"] / "x.npz", paths["many"] / "x.npz")
    assert (paths["one"] / "p.csv").read_bytes() == (paths["many"] / "p.csv").read_bytes()
    results = [other_results(path, shards) for path in paths.values()]
    tables_of = [pd.read_csv(path / "predictions_train.csv") for path in results]
    pd.testing.assert_frame_equal(*tables_of, atol=2e-6)
    scores = [json.loads((path / "metrics.json").read_text())["train"]["confusion"] for path in results]
    assert scores[0] == scores[1]


def kill_after_the_first_part(monkeypatch, dask):
    """Kills a worker when the first part of the first verb has come."""
    track, kills = cluster.track, []

    def track_and_kill(items, *names):
        for item in track(items, *names):
            if not kills:
                kills.append(dask.kill_worker())
            yield item

    monkeypatch.setattr(cluster, "track", track_and_kill)
