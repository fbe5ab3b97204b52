"""Training batches by a tf.data service: every record once an epoch, whoever reads it."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from helpers import ROOT

from emotion_tf.config import TextConfig
from emotion_tf.data import manifest, records, serve, service
from emotion_tf.data.augment import augment_faces
from emotion_tf.data.dataset import Dataset
from emotion_tf.data.pipeline import EpochOrder
from emotion_tf.data.preprocess import Preprocessor
from emotion_tf.data.tokenizer import WordPieceTokenizer, WordVocabulary
from emotion_tf.errors import UserError
from emotion_tf.labels import MELD_EMOTIONS

BATCH = 16


@pytest.fixture(scope="module")
def shards(manifest_path, dataset, tmp_path_factory):
    """A data set of small shards, each record of which has a weight of its own."""
    rows = [
        dataclasses.replace(row, weight=float(n))
        for n, row in enumerate(manifest.read_manifest(manifest_path, MELD_EMOTIONS), 1)
    ]
    out = tmp_path_factory.mktemp("service") / "data"
    pieces = WordPieceTokenizer(Dataset.open(dataset).read_vocabulary(), True)
    options = records.PrepareOptions(MELD_EMOTIONS, 32, 3, "learned")
    return records.write_dataset(rows, out, options, pieces, rows_per_shard=20)


@pytest.fixture(scope="module")
def address():
    """The address of a dispatcher with two workers, in this process."""
    api = tf.data.experimental.service
    dispatcher = api.DispatchServer(api.DispatcherConfig(port=0))
    host = dispatcher.target.partition("://")[2]
    workers = [api.WorkerServer(api.WorkerConfig(host, heartbeat_interval_ms=100)) for _ in range(2)]
    yield dispatcher.target.replace("localhost", "127.0.0.1")
    del workers


def batches(shards, address):
    """Function from an epoch to its batches, of text, words and augmented faces."""
    names = ("input_word_ids", "input_mask", "input_type_ids", "word_ids", "context_word_ids", "faces", "face_mask")
    words = WordVocabulary(("happy", "sad"), (2, 1))
    pieces = WordPieceTokenizer(shards.read_vocabulary(), True)
    preprocess = Preprocessor(names, 32, TextConfig(context=2), pieces, words)
    return service.service_batches(shards.rows("train"), preprocess, BATCH, augment_faces, address)


def test_every_record_is_read_once_in_each_epoch(shards, address):
    train, count = batches(shards, address), shards.splits["train"].records
    assert len(shards.splits["train"].shards) > 4
    orders = []
    for epoch in range(2):
        read = list(train(EpochOrder(0, epoch)))
        assert [len(label) for _, label, _ in read[:-1]] == [BATCH] * (count // BATCH)
        assert len(read) == math.ceil(count / BATCH)
        assert all(len(x) == len(label) for inputs, label, _ in read for x in inputs.values())
        orders.append(np.concatenate([weight for _, _, weight in read]).tolist())
    weights = [float(weight) for weight in expected_weights(shards)]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(weights) and len(weights) == count
    assert orders[0] != orders[1]
    assert len(list(train(EpochOrder(0, 0)).take(2))) == 2


def expected_weights(shards):
    from emotion_tf.data.pipeline import read_labels

    return read_labels(shards.rows("train")).weight


def test_short_batches_are_joined_with_padding():
    short = [
        ({"ids": tf.constant([[1, 2, 3]])}, tf.constant([0])),
        ({"ids": tf.constant([[4], [5]])}, tf.constant([1, 2])),
    ]
    inputs, label = service._join(short)
    assert inputs["ids"].numpy().tolist() == [[1, 2, 3], [4, 0, 0], [5, 0, 0]] and label.numpy().tolist() == [0, 1, 2]


def test_a_service_without_workers(shards, monkeypatch):
    monkeypatch.setattr(service, "PATIENCE", 0.5)
    api = tf.data.experimental.service
    dispatcher = api.DispatchServer(api.DispatcherConfig(port=0))
    with pytest.raises(UserError, match=r"has sent no batch for .*workers with the data at the same path"):
        next(iter(batches(shards, dispatcher.target.replace("localhost", "127.0.0.1"))(EpochOrder(0, 0))))


@pytest.mark.parametrize("address", ["http://x:1", "grpc://x", "grpc://:1", "grpc://x:0", "grpc://x:1/y", "x:1"])
def test_an_invalid_address(address):
    with pytest.raises(UserError, match=r"Invalid `--data.service`. Expected the address of a dispatcher"):
        service.check_service(address)


def test_nothing_listens():
    with pytest.raises(UserError, match="No tf.data service at grpc://127.0.0.1:1: Connection refused"):
        service.check_service("grpc://127.0.0.1:1")


def test_servers_that_cannot_start(monkeypatch, capsys):
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        for words, message in (
            (["--port", str(port)], f"error: Cannot listen at port {port}: Address already in use"),
            (["--dispatcher", "127.0.0.1:1"], "error: No tf.data service at 127.0.0.1:1"),
            (["--dispatcher", "x"], "error: Invalid `--dispatcher`. Expected the address of a dispatcher, HOST:PORT."),
            (["--port", "-1"], "error: Invalid `--port`"),
            (["--port", "abc"], "error: Invalid `--port`. Expected a whole number, such as 3. Received: 'abc'."),
            (["--prot", "1"], "error: Unknown option --prot. Did you mean --port?"),
        ):
            monkeypatch.setattr(sys, "argv", ["serve", *words])
            assert serve.main() == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert line.startswith(message)


def test_shards_in_object_storage_are_refused(shards):
    rows = dataclasses.replace(shards.rows("train"), stage=object())
    with pytest.raises(UserError, match="reads files"):
        service.service_batches(rows, Preprocessor(("faces",), 32, TextConfig()), BATCH, None, "grpc://x:1")


@pytest.mark.slow
def test_a_training_with_servers_of_their_own(shards, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    servers = [[f"--port={port}"], *[[f"--dispatcher=127.0.0.1:{port}"]] * 2]
    processes = []
    try:
        for words in servers:
            command = [sys.executable, "-m", "emotion_tf.data.serve", *words, "--host=127.0.0.1"]
            processes.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
            assert "127.0.0.1" in processes[-1].stdout.readline()
        words = ["train", "--data", str(shards.path), "--name", "served", "--train.epochs", "2"]
        words += ["--text.branches", "cnn", "--data.service", f"grpc://127.0.0.1:{port}"]
        command = [sys.executable, str(ROOT / "main.py"), *words]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    finally:
        for process in processes:
            process.kill()
    assert done.returncode == 0, done.stderr
    assert "their order does not follow from the seed" in done.stdout
    assert json.loads((tmp_path / "saved_models" / "served" / "run.json").read_text())["seeded_order"] is False
