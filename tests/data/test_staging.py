"""Shards in object storage (fsspec's `memory://`): a bounded cache, each record once, and what is damaged or gone."""

import dataclasses

import fsspec
import numpy as np
import pytest

from emotion_tf import remote_folders
from emotion_tf.config import TextConfig
from emotion_tf.data import staging
from emotion_tf.data.dataset import INFO, Dataset
from emotion_tf.data.pipeline import EpochOrder, read_labels, train_batches
from emotion_tf.data.preprocess import TEXT_NAMES, Preprocessor
from emotion_tf.errors import UserError
from emotion_tf.remote import StoreError

URL = "memory://bucket/staged/tiny"
SPLITS = ("train", "dev", "test")


@pytest.fixture
def stored(dataset, tmp_path, monkeypatch):
    """Function from a size of the cache, as a share of the data, to the rows of a data set of three shards."""
    monkeypatch.setenv("EMOTION_TF_CACHE", str(tmp_path / "cache"))
    remote_folders.upload_data(dataset, URL, INFO)

    def open_rows(share):
        total = sum(shard.bytes for split in Dataset.open(dataset).splits.values() for shard in split.shards)
        monkeypatch.setenv(staging.VARIABLE, str(share * total / 1e9))
        return Dataset.open(URL).rows(*SPLITS)

    yield open_rows
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def equal_shards(monkeypatch):
    """Groups of one shard, whatever their sizes."""
    monkeypatch.setattr(staging.Stage, "groups", lambda self, names: [[name] for name in names])


def records_of(rows):
    return [record.numpy() for _, record in rows.enumerate_records()]


def cached(rows):
    return sum(path.stat().st_size for path in rows.stage.folder.iterdir())


def test_staged_records_are_those_of_local_files(dataset, stored):
    rows, local = stored(3), Dataset.open(dataset).rows(*SPLITS)
    assert records_of(rows) == records_of(local)
    assert records_of(rows.select([5, 200, 3])) == records_of(local.select([5, 200, 3]))
    assert np.array_equal(read_labels(rows).dialogue, read_labels(local).dialogue)
    positions = np.random.default_rng(0).permutation(len(rows.index))
    assert rows.index.read(positions).tolist() == local.index.read(positions).tolist()
    assert Dataset.open(URL).spec == Dataset.open(dataset).spec


def test_an_order_with_room_for_all_shards_is_that_of_local_files(stored):
    rows, order = stored(2), EpochOrder(3, 1)
    positions = np.arange(len(rows.index))
    assert np.array_equal(rows.shuffle(positions, order.shuffle), order.shuffle(positions))


def test_a_cache_smaller_than_the_data_is_never_exceeded_and_reads_each_record_once(dataset, stored, equal_shards):
    local = Dataset.open(dataset).rows(*SPLITS)
    rows = stored(2)
    rows.stage.limit = int(0.9 * sum(shard.bytes for shard in rows.stage.shards.values()))
    read, most = [], 0
    preprocess = Preprocessor(TEXT_NAMES, 32, TextConfig())
    for epoch in (0, 1):
        order = rows.shuffle(np.arange(len(rows.index)), EpochOrder(0, epoch).shuffle)
        assert sorted(order.tolist()) == list(range(len(order)))
        for begin in range(0, len(order), 16):
            part = order[begin : begin + 16]
            assert rows.index.read(part).tolist() == local.index.read(part).tolist()
            most = max(most, cached(rows))
        read.append(order)
    assert most <= rows.stage.limit
    assert not np.array_equal(*read)
    again = rows.shuffle(np.arange(len(rows.index)), EpochOrder(0, 1).shuffle)
    assert np.array_equal(read[1], again)
    batches = train_batches(rows, preprocess, 16, None)(EpochOrder(0, 0))
    assert sum(len(label) for _, label, _ in batches) == len(rows.index)


def test_groups_of_shards_have_half_of_the_cache(stored):
    stage = stored(3).stage
    shards = {name: dataclasses.replace(shard, bytes=10) for name, shard in stage.shards.items()}
    names = list(shards)
    stage.shards, stage.limit = shards, 30
    assert stage.groups(names) == [names]
    stage.limit = 29
    assert stage.groups(names) == [[name] for name in names]


def test_the_next_shards_are_fetched_while_these_are_read(stored, equal_shards):
    rows = stored(2)
    records, names = rows.index, list(rows.stage.shards)
    records.read(np.array([0]))
    second = rows.stage._file(rows.stage.shards[names[1]].sha256)
    third = rows.stage._file(rows.stage.shards[names[2]].sha256)
    for _ in range(500):
        if second.exists():
            break
        staging.threading.Event().wait(0.01)
    assert second.exists() and not third.exists()


def test_a_shard_that_another_process_evicts_is_fetched_again(stored):
    rows = stored(3)
    first = rows.index.read(np.array([0, 1])).tolist()
    for path in rows.stage.folder.iterdir():
        path.unlink()
    assert rows.index.read(np.array([0, 1])).tolist() == first


def test_a_damaged_copy_in_the_cache_is_fetched_again(stored):
    expected = records_of(stored(3))
    for path in stored(3).stage.folder.iterdir():
        path.write_bytes(bytes(path.stat().st_size))
    assert records_of(stored(3)) == expected


def test_a_shard_that_is_not_the_one_of_the_info_is_refused_in_one_line(stored):
    rows = stored(3)
    name = next(iter(rows.stage.shards))
    files = fsspec.filesystem("memory")
    files.pipe_file(f"/bucket/staged/tiny/{name}", b"x" + files.cat_file(f"/bucket/staged/tiny/{name}")[1:])
    with pytest.raises(UserError, match=f"^{URL}/{name}: The shard is not the one of dataset_info.json"):
        read_labels(rows)
    files.rm_file(f"/bucket/staged/tiny/{name}")
    with pytest.raises(StoreError, match=f"^Cannot read {URL}/{name}: no such object or bucket"):
        read_labels(rows)
    assert not rows.stage._file(rows.stage.shards[name].sha256).exists()


@pytest.mark.parametrize("size", ["0", "-1", "nan", "inf", "much", "1e-9"])
def test_a_size_that_cannot_be_is_refused(stored, monkeypatch, size):
    stored(2)
    monkeypatch.setenv(staging.VARIABLE, size)
    with pytest.raises(UserError, match=staging.VARIABLE):
        Dataset.open(URL)


def test_a_url_without_a_data_set(stored):
    with pytest.raises(UserError, match=f"No data set at {URL}x"):
        try:
            Dataset.open(URL + "x")
        except UserError as error:
            from emotion_tf.terminal import with_urls

            raise UserError(with_urls(str(error))) from None
