"""Fixtures of the tests of the command line."""

from __future__ import annotations

import dataclasses

import pytest
from dask_cluster import DaskCluster
from small_tables import write_picture


@pytest.fixture(scope="module", autouse=True)
def devices():
    """Lists the devices of TensorFlow before the output of a test is captured."""
    import tensorflow as tf

    tf.config.list_logical_devices()


@pytest.fixture(scope="session")
def untrained_words(small_config, initialised):
    """Path of an untrained run of convolutions over words, the quickest to evaluate."""
    text = dataclasses.replace(small_config.text, branches=("cnn",), word_dim=4, cnn_filters=3)
    return initialised(dataclasses.replace(small_config, towers=("text",), text=text)).path


@pytest.fixture
def manifest(tmp_path):
    """A path for a manifest, with its pictures, and a folder for data sets."""
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    write_picture(tmp_path / "in" / "a.jpg")
    (tmp_path / "secret.jpg").write_bytes((tmp_path / "in" / "a.jpg").read_bytes())
    (tmp_path / "in" / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (tmp_path / "in" / "text.jpg").write_text("This is no picture.")
    (tmp_path / "in" / "empty.jpg").write_bytes(b"")
    (tmp_path / "in" / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0 \0\0\0 ")
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\nhello\n")
    return tmp_path / "in" / "manifest.csv"


@pytest.fixture
def dask(tmp_path):
    (tmp_path / "dask").mkdir()
    cluster = DaskCluster(tmp_path / "dask")
    yield cluster
    cluster.close()
