"""Data sets on disk: invalid `dataset_info.json` files, subsets of records."""

from __future__ import annotations

import json

import pytest

from emotion_tf.data import pipeline, splits
from emotion_tf.data.dataset import INFO, Dataset
from emotion_tf.errors import UserError

OTHER_FOLDERS = ("/etc/passwd", "../vocab.txt", "a/vocab.txt", "..", ".", "", 3)


def with_file(values, part, name):
    """Returns a `dataset_info.json` that names another file as its vocabulary or shard."""
    if part == "tokenizer":
        return {**values, part: {**values[part], "file": name}}
    dev = values["splits"]["dev"]
    return {**values, "splits": {"dev": {**dev, "shards": [{**dev["shards"][0], "file": name}]}}}


def test_opening_an_invalid_data_set(dataset, tmp_path):
    with pytest.raises(UserError, match="prepare table"):
        Dataset.open(tmp_path)
    path = tmp_path / INFO
    valid = json.loads((dataset / INFO).read_text())
    shard = {k: v for k, v in valid["splits"]["dev"]["shards"][0].items() if k != "sha256"}
    invalid = [
        "", "{", "[]", "3", "{}", "\0",
        json.dumps({k: v for k, v in valid.items() if k != "labels"}),
        json.dumps({**valid, "splits": []}),
        json.dumps({**valid, "splits": {"train": {}}}),
        json.dumps({**valid, "splits": {"train": {"records": 1, "shards": [shard]}}}),
        *(json.dumps(with_file(valid, part, name)) for part in ("tokenizer", "shard") for name in OTHER_FOLDERS),
    ]  # fmt: skip
    for text in invalid:
        path.write_text(text)
        with pytest.raises(UserError, match="Cannot read .*dataset_info.json"):
            Dataset.open(tmp_path)
    path.write_text(json.dumps({**valid, "schema_version": 99}))
    with pytest.raises(UserError, match="Schema version 99. Expected 3"):
        Dataset.open(tmp_path)


def test_a_subset_of_several_splits_is_read_in_order(dataset):
    rows = Dataset.open(dataset).rows("train", "dev")
    utterances = [row["utterance"] for row in pipeline.read_rows(rows)]
    positions = [len(utterances) - 1, 3, 0, len(utterances) // 2]
    selected = [row["utterance"] for row in pipeline.read_rows(rows.select(positions))]
    assert selected == [utterances[i] for i in sorted(positions)]
    assert len(splits.hash_pictures(rows.select(positions))) == 4
