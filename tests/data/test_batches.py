"""Shards that are damaged while they are read: the error names the shard in one line."""

import shutil
from pathlib import Path

import pytest
import tensorflow as tf

from emotion_tf.config import TextConfig
from emotion_tf.data.batches import Batches
from emotion_tf.data.dataset import Dataset
from emotion_tf.data.pipeline import EpochOrder, eval_batches, read_rows, train_batches
from emotion_tf.data.preprocess import TEXT_NAMES, Preprocessor
from emotion_tf.errors import UserError

preprocess = Preprocessor(TEXT_NAMES, 32, TextConfig())


@pytest.fixture
def rows(dataset, tmp_path):
    shutil.copytree(dataset, tmp_path / "data")
    return Dataset.open(tmp_path / "data").rows("train")


def message(batches):
    with pytest.raises(UserError) as caught:
        list(batches)
    text = str(caught.value)
    assert "\n" not in text and "Traceback" not in text
    return text


def flip_byte(path):
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[:-30] + bytes([content[-30] ^ 0x40]) + content[-29:])


def test_a_shard_that_is_damaged_between_epochs(rows):
    path = rows.paths[-1]
    list(train_batches(rows, preprocess, 8, None)(EpochOrder(0, 0)))
    flip_byte(path)
    epoch = train_batches(rows, preprocess, 8, None)(EpochOrder(0, 1))
    assert message(epoch).startswith(f"{path}: The record at offset ")
    assert message(epoch.take(100)).endswith("Prepare the data set again, or copy the shard again.")
    expected = f"{path}: Flipped byte in the record at offset "
    assert message(eval_batches(rows, preprocess, 8)).startswith(expected)
    assert message(read_rows(rows)).startswith(expected)


def test_a_shard_that_is_removed_between_epochs(rows):
    assert len(rows.index) > 0
    Path(rows.paths[0]).unlink()
    for batches in (train_batches(rows, preprocess, 8, None)(EpochOrder(0, 1)), eval_batches(rows, preprocess, 8)):
        assert message(batches).startswith(f"{rows.paths[0]}: The shard is missing.")


def test_an_error_that_is_not_of_the_shards_is_not_hidden(rows):
    data = tf.data.Dataset.from_tensor_slices([1.0, 0.0]).map(lambda x: tf.debugging.check_numerics(1 / x, "1/0"))
    with pytest.raises(tf.errors.InvalidArgumentError):
        list(Batches(data, rows.paths))
