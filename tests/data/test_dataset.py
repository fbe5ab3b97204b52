"""Data sets on disk: invalid `dataset_info.json` files, subsets of records."""

from __future__ import annotations

import json

import pytest

from emotion_tf.data import pipeline, splits
from emotion_tf.data.dataset import INFO, Dataset
from emotion_tf.errors import UserError
from emotion_tf.labels import MELD_EMOTIONS

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
        "", "{", "[]", "3", "{}", "\0", "null", "[" * 10**5,
        json.dumps({k: v for k, v in valid.items() if k != "labels"}),
        json.dumps({**valid, "splits": []}),
        json.dumps({**valid, "splits": {"train": {}}}),
        json.dumps({**valid, "splits": {"train": {"records": 1, "shards": [shard]}}}),
        *(json.dumps(with_file(valid, part, name)) for part in ("tokenizer", "shard") for name in OTHER_FOLDERS),
    ]  # fmt: skip
    for text in invalid:
        path.write_text(text)
        with pytest.raises(UserError, match="dataset_info.json: "):
            Dataset.open(tmp_path)
    path.write_text(json.dumps({**valid, "schema_version": 99}))
    with pytest.raises(UserError, match="Invalid `schema_version`. Expected 3. Received: 99"):
        Dataset.open(tmp_path)


ROWS = [
    ("splits.dev.shards.0.bytes", None, "`splits.dev.shards[0].bytes`. Expected an integer. Received: None"),
    ("splits.dev.shards.0.records", float("inf"), "`splits.dev.shards[0].records`. Expected an integer"),
    ("splits.dev.shards.0.sha256", "0", "`splits.dev.shards[0].sha256`. Expected"),
    ("splits.dev.records", -1, "`splits.dev.records`. Expected a number of at least 0"),
    ("splits.dev", [], "`splits.dev`. Expected an object"),
    ("context", "8", "`context`. Expected an integer. Received: '8'"),
    ("context", 10**20, "`context`. Expected a number of at most 10000"),
    ("faces", ["x"], "`faces`. Expected an object"),
    ("faces", {"rate": "x"}, "`faces.rate`. Expected a number"),
    ("account", {"not_used": [{"row": "x"}]}, "`account.not_used[0].row`. Expected a list"),
    ("demo", {"best_accuracy": {"dev": {"text": "x"}}}, "`demo.best_accuracy.dev.text`. Expected a number"),
    ("notes", "x", "`notes`. Expected a list"),
    ("face_size", 0, "`face_size`. Expected a number of at least 1. Received: 0"),
    ("face_size", "48", "`face_size`. Expected an integer. Received: '48'"),
    ("face_size", None, "`face_size`. Expected an integer. Received: None"),
    ("face_size", 1_000_000, "`face_size`. Expected a number of at most 1024"),
    ("max_faces", 0, "`max_faces`. Expected a number of at least 1"),
    ("labels", 7, "`labels`. Expected a list. Received: 7"),
    ("labels", list(range(7)), "`labels[0]`. Expected a text. Received: 0"),
    ("labels", ["neutral", "joy"], "`splits.train.per_class`. Expected a number for each of the labels"),
    ("labels", [*reversed(MELD_EMOTIONS)], "`splits.train.per_class`. Expected a number for each of the labels"),
    ("tokenizer.lower_case", "no", "`tokenizer.lower_case`. Expected true or false"),
    ("tokenizer.file", "../vocab.txt", "`tokenizer.file`. Expected the name of a file in this folder"),
    ("schema_version", "3", "`schema_version`. Expected an integer"),
    ("features", 3, "`features`. Expected a list"),
]


@pytest.mark.parametrize(("field", "value", "message"), ROWS, ids=lambda value: str(value)[:30])
def test_an_edit_of_dataset_info_that_breaks_a_rule(field, value, message, dataset, tmp_path):
    values = json.loads((dataset / INFO).read_text())
    *parents, last = (int(key) if key.isdigit() else key for key in field.split("."))
    part = values
    for key in parents:
        part = part[key]
    part[last] = value
    (tmp_path / INFO).write_text(json.dumps(values))
    with pytest.raises(UserError) as error:
        Dataset.open(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / INFO}: ") and message in str(error.value)


def test_a_data_set_without_the_fields_that_older_programs_left_out_when_empty(dataset, tmp_path):
    values = json.loads((dataset / INFO).read_text())
    left_out = {"account": {}, "demo": {}, "notes": ()}
    old = {key: value for key, value in values.items() if key not in left_out}
    (tmp_path / INFO).write_text(json.dumps(old))
    opened = Dataset.open(tmp_path)
    assert {name: getattr(opened, name) for name in left_out} == left_out
    assert opened.spec == Dataset.open(dataset).spec
    (tmp_path / INFO).write_text(json.dumps({k: v for k, v in old.items() if k != "schema_version"}))
    with pytest.raises(UserError, match="No `schema_version`. Expected this field"):
        Dataset.open(tmp_path)


def test_a_subset_of_several_splits_is_read_in_order(dataset):
    rows = Dataset.open(dataset).rows("train", "dev")
    utterances = [row["utterance"] for row in pipeline.read_rows(rows)]
    positions = [len(utterances) - 1, 3, 0, len(utterances) // 2]
    selected = [row["utterance"] for row in pipeline.read_rows(rows.select(positions))]
    assert selected == [utterances[i] for i in sorted(positions)]
    assert len(splits.hash_pictures(rows.select(positions))) == 4
