"""TFRecords: records hold what the manifest says, the same bytes each time, and whole or not at all."""

from __future__ import annotations

import json
from unittest.mock import Mock

import pytest
from small_records import NAMES, PIECES, contents, read, shards
from small_tables import write_picture, write_table

from emotion_tf import files, schema
from emotion_tf.data import context, manifest, record_rules, records
from emotion_tf.data.arrangement import Arrangement
from emotion_tf.data.dataset import INFO, Dataset
from emotion_tf.data.record_rules import RecordRules
from emotion_tf.data.tokenizer import WordPieceTokenizer
from emotion_tf.errors import UserError
from emotion_tf.faces import encode
from emotion_tf.labels import MELD_EMOTIONS


def write(path, out, labels=MELD_EMOTIONS, overwrite=False, **options):
    rows = manifest.read_manifest(path, labels)
    prepare_options = records.PrepareOptions(
        **{"labels": labels, "face_size": 32, "context": 3, "tokenizer": "x"} | options
    )
    return records.write_dataset(rows, out, prepare_options, WordPieceTokenizer(PIECES, True), overwrite)


@pytest.fixture
def small(tmp_path):
    """A manifest of two dialogues in two splits, with pictures."""
    write_picture(tmp_path / "a.jpg")
    write_picture(tmp_path / "b.png", 20, 40)
    rows = [
        {"utterance_id": "0", "utterance": "Hello there.", "faces": "a.jpg;b.png", "speaker": "Ilka"},
        {"utterance_id": "1", "utterance": "", "faces": "a.jpg", "speaker": "Tavo", "emotion": "fear"},
        {"utterance_id": "2", "utterance": "שלום ☕", "speaker": ""},
        {"utterance_id": "x y", "utterance": "Well.\nNo.", "speaker": "Ilka", "weight": "0.25"},
        {"utterance_id": "4", "utterance": "Ha!", "emotion": "anger"},
        {"split": "test", "utterance": "Alone.", "emotion": "anger"},
    ]
    columns = (*manifest.COLUMNS, "weight")
    return write_table(tmp_path / "manifest.csv", rows, columns)


def test_every_feature_comes_back(small, tmp_path):
    dataset = write(small, tmp_path / "out")
    first, second, third, fourth, _ = read(shards(tmp_path / "out", "train"))
    whole = (tmp_path / "a.jpg").read_bytes()
    assert first == {
        "schema_version": schema.SCHEMA_VERSION,
        "dialogue_id": b"0",
        "utterance_id": b"0",
        "speaker": b"Ilka",
        "utterance": b"Hello there.",
        "tokens": [2, 5, 6, 7, 3],
        "context": [],
        "context_speaker": [],
        "future": ["שלום ☕".encode(), b"Well.\nNo.", b"Ha!"],  # the second has no text
        "future_speaker": [b"", b"Ilka", b"Ilka"],
        "face_jpeg": [whole, encode.read_crop(tmp_path / "b.png", 32)],
        "face_mask": [1, 1],
        "clip": [],
        "face_problem": b"",
        "face_policy": b"",
        "face_score": 0.0,
        "face_margin": 0.0,
        "face_track_length": 0,
        "face_tracks": 0,
        "face_frames": 0,
        "clip_seconds": 0.0,
        "face_box": [],
        "face_time": [],
        "face_sharpness": [],
        "face_height": [],
        "face_rivals": [],
        "face_rivals_time": 0.0,
        "label": MELD_EMOTIONS.index("joy"),
        "weight": 1.0,
    }
    assert (second["utterance"], second["tokens"], second["face_mask"]) == (b"", [2, 3], [1])
    assert (third["utterance"].decode(), third["face_jpeg"], third["speaker"]) == ("שלום ☕", [], b"")
    assert (fourth["utterance_id"], fourth["utterance"], fourth["weight"]) == (b"x y", b"Well.\nNo.", 0.25)
    assert dataset.max_faces == 2 and dataset == Dataset.open(tmp_path / "out")
    assert [feature["name"] for feature in json.loads((tmp_path / "out" / INFO).read_text())["features"]] == NAMES


def test_context_and_future_are_of_the_same_dialogue_and_split(small, tmp_path):
    write(small, tmp_path / "out")
    rows = read(shards(tmp_path / "out", "train"))
    for suffix, feature in (("", "utterance"), ("_speaker", "speaker")):
        first, _, third, fourth, fifth = (row[feature] for row in rows)  # the second has no text
        assert [row[f"context{suffix}"] for row in rows] == [
            [],
            [first],
            [first],
            [first, third],
            [first, third, fourth],
        ]
        assert [row[f"future{suffix}"] for row in rows] == [
            [third, fourth, fifth],
            [third, fourth, fifth],
            [fourth, fifth],
            [fifth],
            [],
        ]
    alone = read(shards(tmp_path / "out", "test"))[0]
    assert alone["context"] == alone["future"] == []
    write(small, tmp_path / "none", context=0)
    assert all(row["context"] == row["future"] == [] for row in read(shards(tmp_path / "none", "train")))


def test_an_utterance_without_text_is_not_in_the_context(tmp_path):
    """`predict-table` reads the same lines."""
    write_picture(tmp_path / "a.jpg")
    texts = ["a", "b", "", "c", "", "d", "e"]
    rows = [{"utterance_id": str(i), "utterance": x, "faces": "" if x else "a.jpg"} for i, x in enumerate(texts)]
    write(write_table(tmp_path / "m.csv", rows), tmp_path / "out", context=2)
    examples = read(shards(tmp_path / "out", "train"))
    assert [b"".join(row["context"]) for row in examples] == [b"", b"a", b"ab", b"ab", b"bc", b"bc", b"cd"]
    assert [b"".join(row["future"]) for row in examples] == [b"bc", b"cd", b"cd", b"de", b"de", b"e", b""]
    lines = context.previous_lines([("0", "", text) for text in texts], 2)
    assert ["".join(line) for line in lines] == [b"".join(row["context"]).decode() for row in examples]


def test_interleaved_dialogues_are_separated(tmp_path):
    rows = [{"dialogue_id": str(i % 2), "utterance_id": str(i), "utterance": f"Number {i}"} for i in range(6)]
    write(write_table(tmp_path / "m.csv", rows), tmp_path / "out")
    assert [row["context"] for row in read(shards(tmp_path / "out", "train"))[4:]] == [
        [b"Number 0", b"Number 2"],
        [b"Number 1", b"Number 3"],
    ]


def test_the_demo_data_set_has_the_rows_of_its_manifest(dataset, manifest_path):
    """Rows, order, labels, pictures and tokens of the session's data set, split by split."""
    facts = Dataset.open(dataset)
    rows = manifest.read_manifest(manifest_path, MELD_EMOTIONS)
    for split in manifest.SPLITS:
        expected = [row for row in rows if row.split == split]
        examples = read(shards(dataset, split))
        assert [r["utterance"].decode() for r in examples] == [row.utterance for row in expected]
        assert [r["label"] for r in examples] == [row.label for row in expected]
        assert [r["face_jpeg"] for r in examples] == [[path.read_bytes() for path in row.faces] for row in expected]
        counts = facts.splits[split]
        assert counts.records == len(expected) == sum(counts.per_class.values())
        assert counts.per_class == {
            label: sum(row.label == i for row in expected) for i, label in enumerate(MELD_EMOTIONS)
        }
        assert counts.dialogues == len({row.dialogue_id for row in expected})
        assert counts.with_face == sum(bool(row.faces) for row in expected)
    assert len(facts.read_vocabulary()) > 100


def test_the_bytes_are_deterministic(small, tmp_path):
    write(small, tmp_path / "one")
    write(small, tmp_path / "two")
    first = contents(tmp_path / "one")
    assert first == contents(tmp_path / "two")
    assert set(first) == {
        "train-00000-of-00001.tfrecord", "test-00000-of-00001.tfrecord", "vocab.txt", "dataset_info.json"
    }  # fmt: skip
    write(small, tmp_path / "three", context=2)
    other = contents(tmp_path / "three")
    assert other["vocab.txt"] == first["vocab.txt"] and other["dataset_info.json"] != first["dataset_info.json"]


def test_shards_are_cut_and_numbered(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "ROWS_PER_SHARD", 2)
    rows = [{"utterance_id": str(i), "utterance": f"Number {i}"} for i in range(5)]
    data_set = write(write_table(tmp_path / "m.csv", rows), tmp_path / "out")
    shard_list = data_set.splits["train"].shards
    assert [s.file for s in shard_list] == [f"train-0000{n}-of-00003.tfrecord" for n in range(3)]
    assert [s.records for s in shard_list] == [2, 2, 1]
    assert [r["utterance_id"] for r in read(shards(tmp_path / "out", "train"))] == [b"0", b"1", b"2", b"3", b"4"]


def test_the_records_of_a_shard_are_checked_a_few_at_a_time(small, tmp_path, monkeypatch):
    """Their pictures may take gigabytes."""
    sizes = []
    check = RecordRules.check
    monkeypatch.setattr(
        RecordRules, "check", lambda rules, records: [sizes.append(len(records)), check(rules, records)]
    )
    monkeypatch.setattr(records, "RECORDS_PER_CHECK", 2)
    assert len(read(shards(write(small, tmp_path / "out").path, "train"))) == 5
    assert sizes == [2, 2, 1, 1]


def test_a_shard_that_was_checked_by_earlier_rules_is_written_again(small, tmp_path, monkeypatch):
    rows = manifest.read_manifest(small, MELD_EMOTIONS)
    dataset = write(small, tmp_path / "out")
    table = Arrangement(rows, 3)
    key = records._key(dataset, table.members("train"), table, None)
    assert records._key(dataset, table.members("train"), table, None) == key
    monkeypatch.setattr(record_rules, "VERSION", record_rules.VERSION + 1)
    assert records._key(dataset, table.members("train"), table, None) != key


def test_the_name_of_a_tokenizer_is_a_long_path(small, tmp_path):
    name = "a/" * 1000
    assert Dataset.open(write(small, tmp_path / "out", tokenizer=name).path).tokenizer.name == name


@pytest.mark.parametrize("name", ["a/" * 2049, "", "caf\udce9/vocab.txt"])
def test_what_could_not_be_read_is_refused_before_the_first_shard(name, small, tmp_path, monkeypatch):
    monkeypatch.setattr(records, "_write_part", None)
    with pytest.raises(UserError, match="Cannot write a document that could not be read: .*Change this value"):
        write(small, tmp_path / "home" / "out", tokenizer=name)
    assert not (tmp_path / "home").exists()


def test_a_row_with_more_faces_than_can_be_read_is_refused(small, tmp_path, monkeypatch):
    monkeypatch.setattr(records, "MAX_LENGTH", 1)
    with pytest.raises(UserError, match="line 2: Invalid face_jpeg. Expected at most 1 values. Received: 2 values"):
        write(small, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("labels", [("neutral", "positive", "negative"), ("no", "yes")])
def test_other_labels(labels, tmp_path):
    rows = [{"utterance_id": str(i), "emotion": label} for i, label in enumerate(labels)]
    data_set = write(write_table(tmp_path / "m.csv", rows), tmp_path / "out", labels)
    assert data_set.splits["train"].per_class == dict.fromkeys(labels, 1)
    assert Dataset.open(tmp_path / "out").spec.labels == labels
    assert [row["label"] for row in read(shards(tmp_path / "out", "train"))] == list(range(len(labels)))


def test_overwrite_replaces_all(small, tmp_path):
    out = tmp_path / "out"
    write(small, out)
    with pytest.raises(UserError, match="exists"):
        write(small, out)
    lone = write_table(tmp_path / "lone.csv", [{"utterance": "Bye."}])
    write(lone, out, overwrite=True)
    assert set(contents(out)) == {"train-00000-of-00001.tfrecord", "vocab.txt", "dataset_info.json"}
    assert read(shards(out, "train"))[0]["utterance"] == b"Bye."


def test_overwrite_only_replaces_a_data_set(small, tmp_path):
    """`--out` that names the folder of the pictures must not delete them."""
    before = contents(tmp_path)
    with pytest.raises(UserError, match="no data set"):
        write(small, tmp_path, overwrite=True)
    with pytest.raises(UserError, match="no data set"):
        write(small, small, overwrite=True)
    assert contents(tmp_path) == before
    (tmp_path / "empty").mkdir()
    write(small, tmp_path / "empty", overwrite=True)


@pytest.mark.parametrize("before", [False, True])
def test_an_invalid_picture_in_the_last_row_leaves_no_files(before, small, tmp_path):
    home = tmp_path / "home"
    if before:
        write(small, home / "out")
    files_before = contents(home)
    (tmp_path / "bad.jpg").write_text("no picture")
    rows = [{"utterance_id": str(i)} for i in range(5)] + [{"split": "test", "faces": "bad.jpg"}]
    path = write_table(tmp_path / "bad.csv", rows)
    with pytest.raises(UserError, match=r"bad\.csv: line 7: .*bad\.jpg"):
        write(path, home / "out", overwrite=True)
    assert contents(home) == files_before
    assert [p.name for p in tmp_path.rglob("home/*")] == (["out"] if before else [])
    assert home.exists() == before


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "Full"), UserError("bad.jpg is no picture.")])
def test_an_error_before_the_first_shard_keeps_those_of_earlier_options(error, small, tmp_path, monkeypatch):
    partial = tmp_path / ".out.partial"
    (partial / "result").mkdir(parents=True)
    for suffix in ("json", "tfrecord"):
        (partial / f"other.{suffix}").write_text("{}")
    monkeypatch.setattr(records, "_write_part", Mock(side_effect=error))
    with pytest.raises((KeyboardInterrupt, UserError)) as caught:
        write(small, tmp_path / "out")
    assert {"other.json", "other.tfrecord"} <= {path.name for path in partial.iterdir()}
    assert "Nothing was written" not in str(caught.value)


def test_an_interruption_while_the_finished_shards_are_read_keeps_them(small, tmp_path, monkeypatch):
    write_part, calls = records._write_part, []

    def interrupt_second(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return write_part(*arguments)

    monkeypatch.setattr(records, "ROWS_PER_SHARD", 2)
    monkeypatch.setattr(records, "_write_part", interrupt_second)
    message = f"2 of 6 utterances are kept in {tmp_path / '.out.partial'}"
    with pytest.raises(KeyboardInterrupt, match=message):
        write(small, tmp_path / "out")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt, match=message):
        patch.setattr(files, "sha256", Mock(side_effect=KeyboardInterrupt))
        write(small, tmp_path / "out")
    write(small, tmp_path / "out")
    assert len(calls) == 5  # of 4 shards, the first was written once


def test_a_kill_while_the_old_data_set_is_deleted_repeats_nothing(small, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def die(path, owner=None):
        if path == files.replaced_folder(out):
            raise Killed

    out = tmp_path / "home" / "out"
    write(write_table(tmp_path / "lone.csv", [{"utterance": "Bye."}]), out)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(files, "delete", die)
        write(small, out, overwrite=True)
    written = contents(out)
    monkeypatch.setattr(records, "_write_shards", Mock(side_effect=AssertionError("repeated")))
    dataset = write(small, out, overwrite=True)
    assert dataset.splits["train"].records == 5 and contents(out) == written
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_the_data_spec_has_hashes_of_the_content(dataset, small, tmp_path):
    spec = Dataset.open(dataset).spec
    write(small, tmp_path / "out")
    other = Dataset.open(tmp_path / "out").spec
    assert spec.labels == MELD_EMOTIONS and spec.face_size == 32
    assert spec.data_sha256 != other.data_sha256 and spec.tokenizer_sha256 != other.tokenizer_sha256
