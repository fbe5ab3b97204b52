"""Records in any order, and what is said of a shard that changes while it is read."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from emotion_tf.data.dataset import Dataset
from emotion_tf.data.record_index import RecordIndex
from emotion_tf.data.rows import Rows
from emotion_tf.errors import UserError


@pytest.fixture
def rows(dataset, tmp_path):
    """A copy of train and test, which are two shards."""
    shutil.copytree(dataset, tmp_path / "data")
    return Dataset.open(tmp_path / "data").rows("train", "test")


def test_records_in_any_order_are_those_of_the_file(rows):
    records = list(tf.data.TFRecordDataset(list(rows.paths)).as_numpy_iterator())
    assert len(rows.paths) > 1 and len(rows.index) == len(records)
    positions = np.random.default_rng(0).permutation(len(records))
    assert list(rows.index.read(positions)) == [records[i] for i in positions]
    assert list(rows.index.read(np.array([2, 2, len(records) - 1]))) == [records[2], records[2], records[-1]]
    assert rows.index.read(np.array([], np.int64)).tolist() == []


def test_the_index_holds_twelve_bytes_a_record(rows):
    index = rows.index
    assert index.offsets.nbytes + index._sums.nbytes <= 12 * (len(index) + 1)
    assert index.offsets[-1] == sum(Path(path).stat().st_size for path in rows.paths)


@pytest.mark.parametrize("damage", ["flip", "cut", "replace"])
def test_a_shard_that_changes_during_a_training_is_named(rows, damage):
    index = rows.index
    path, last = Path(rows.paths[1]), len(index) - 1
    content = path.read_bytes()
    path.write_bytes(
        {
            "flip": content[:-30] + bytes([content[-30] ^ 0x40]) + content[-29:],
            "cut": content[:-30],
            "replace": Path(rows.paths[0]).read_bytes()[: len(content)],
        }[damage]
    )
    offset = int(index.offsets[last] - index.offsets[len(RecordIndex(rows.paths[:1]))])
    with pytest.raises(UserError) as caught:
        index.read(np.array([0, last]))
    assert str(caught.value).startswith(
        f"{path}: The record at offset {offset} has changed. Prepare the data set again"
    )
    assert len(index.read(np.array([0]))) == 1


def test_rows_make_their_index_once(rows):
    assert rows.index is rows.index and rows == Rows(rows.paths)


def test_a_subset_shares_the_index(rows):
    assert rows.select([3, 1]).index is rows.select([2]).select([2]).index is rows.index


@pytest.mark.parametrize(
    ("damage", "message"), [("cut", "Cut inside a record"), ("stray", "Cut inside a record's header")]
)
def test_a_shard_that_changes_before_its_index_is_made_is_named(rows, damage, message):
    path = Path(rows.paths[1])
    content = path.read_bytes()
    path.write_bytes(content[:-5] if damage == "cut" else content + b"stray")
    with pytest.raises(UserError, match=f"^{path}: {message}.* at offset .*Prepare the data set again"):
        _ = rows.index
