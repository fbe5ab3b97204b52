"""A record whose checksums are right and whose content is not is an error with its place, before anything trains."""

import json
import re
import shutil
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf
from small_records import replace_record

from emotion_tf import schema, trust
from emotion_tf.data import dataset as datasets
from emotion_tf.data import record_rules
from emotion_tf.data.dataset import INFO, Dataset
from emotion_tf.data.record_rules import RecordRules, check_split
from emotion_tf.errors import UserError
from emotion_tf.faces import encode
from emotion_tf.pictures import jpeg_size

SIZE = 16
RULES = RecordRules(labels=7, face_size=SIZE, max_faces=2, context=1, pieces=100)


def jpeg(side=SIZE, *options) -> bytes:
    pixels = np.add.outer(np.arange(side), np.arange(side)).astype(np.uint8)
    return cv2.imencode(".jpg", cv2.merge([pixels] * 3), options)[1].tobytes()


CROP = jpeg()
# a marker amid the compressed data: OpenCV decodes the picture, TensorFlow does not
UNREADABLE = CROP[:-20] + b"\xff" + CROP[-19:]
BASE = {
    **{f.name: [] if f.shape else "" if f.dtype == "string" else 0 for f in schema.RECORD},
    "schema_version": schema.SCHEMA_VERSION,
    "dialogue_id": "3",
    "utterance_id": "1",
    "speaker": "Ilka",
    "utterance": "Hello there.",
    "tokens": [2, 5, 3],
    "context": ["Hi."],
    "context_speaker": ["Ben"],
    "face_jpeg": [CROP],
    "face_mask": [1],
    "weight": 1.0,
}


def record(**changes) -> bytes:
    return schema.to_example({**BASE, **changes})


def edited(edit, **changes) -> bytes:
    """Returns a record after a change of its protobuf."""
    example = tf.train.Example.FromString(record(**changes))
    edit(example.features.feature)
    return example.SerializeToString(deterministic=True)


def rename(payload: bytes, name: str) -> bytes:
    """Returns a record in which a feature has another name."""
    return payload.replace(b"\n%c%b\x12" % (len(name), name.encode()), b"\n%c%b\x12" % (len(name), name[::-1].encode()))


@pytest.fixture
def check(tmp_path):
    """Function that writes payloads into two shards and checks them as the split dev; returns the second one's path."""

    def run(*payloads):
        paths = [str(tmp_path / name) for name in ("a.tfrecord", "b.tfrecord")]
        for path, of_shard in zip(paths, ([record(utterance_id="first")], payloads), strict=True):
            with tf.io.TFRecordWriter(path) as writer:
                for payload in of_shard:
                    writer.write(payload)
        check_split("dev", paths, RULES)
        return paths[1]

    return run


def test_good_records_pass(check):
    check(
        record(utterance_id="0"),
        record(utterance_id="1", context=[], context_speaker=[], face_jpeg=[], face_mask=[], utterance="", weight=0.0),
        record(
            utterance_id="2", face_jpeg=[CROP] * 2, face_mask=[1, 1], face_box=[1.0] * 8, face_time=[0.1, 0.2],
            face_rivals=[1.0] * 4, face_margin=float("inf"), clip=["a.mp4"], clip_seconds=0.5, speaker="日本",
        ),
    )  # fmt: skip


BAD = {
    "label above": (record(label=99), "Invalid label. Expected 0 to 6. Received: 99."),
    "label below": (record(label=-1), "Invalid label. Expected 0 to 6. Received: -1."),
    "weight nan": (record(weight=float("nan")), r"Invalid weight. Expected a number from 0 to 1e\+09. Received: nan."),
    "weight inf": (record(weight=float("inf")), "Invalid weight.*Received: inf."),
    "weight below": (record(weight=-5.0), r"Invalid weight.*Received: -5\.0\."),
    "version": (record(schema_version=2), "Invalid schema_version. Expected 3. Received: 2."),
    "token": (record(tokens=[2, 100, 3]), "Invalid tokens. Expected word pieces 0 to 99. Received: 100."),
    "token below": (record(tokens=[-1]), "Invalid tokens.*Received: -1."),
    "number nan": (record(face_score=float("nan")), "Invalid face_score. Expected a number. Received: nan."),
    "time inf": (record(face_time=[float("inf")]), "Invalid face_time. Expected a number. Received: inf."),
    "margin nan": (record(face_margin=float("nan")), "Invalid face_margin."),
    "count": (record(face_tracks=-2), "Invalid face_tracks. Expected at least 0. Received: -2."),
    "text": (record(utterance=b"\xff\xfeabc"), r"Invalid utterance. Expected UTF-8. Received: b'\\xff\\xfeabc'."),
    "line": (record(context=[b"caf\xe9"]), r"Invalid context. Expected UTF-8. Received: b'caf\\xe9'."),
    "cut character": (record(speaker="日".encode()[:2]), "Invalid speaker. Expected UTF-8."),
    "no id": (record(dialogue_id=""), "Invalid dialogue_id. Expected an id. Received: b''."),
    "many lines": (record(context=["a", "b"]), "Invalid context. Expected at most 1 values. Received: 2 values."),
    "speakers": (
        record(future=["a"]),
        "Invalid future_speaker. Expected as many values as future. Received: 0 values.",
    ),
    "many faces": (record(face_jpeg=[CROP] * 3), "Invalid face_jpeg. Expected at most 2 values. Received: 3 values."),
    "mask": (record(face_mask=[0]), "Invalid face_mask. Expected 1. Received: 0."),
    "no mask": (record(face_mask=[]), "Invalid face_mask. Expected as many values as face_jpeg. Received: 0 values."),
    "times": (record(face_time=[0.0, 1.0]), "Invalid face_time. Expected none, or as many values as face_jpeg."),
    "box": (record(face_box=[0.0] * 3), "Invalid face_box. Expected none, or 4 per crop. Received: 3 values."),
    "rivals": (record(face_rivals=[0.0] * 5), "Invalid face_rivals. Expected 4 numbers per box. Received: 5 values."),
    "no clip": (record(clip_seconds=1.0), "Invalid clip. Expected a segment.*Received: 0 values."),
    "no picture": (
        record(face_jpeg=[b"garbage"]),
        "Invalid face_jpeg. Expected JPEGs of 16 x 16 pixels. Received: 7 b",
    ),
    "empty picture": (record(face_jpeg=[b""]), "Invalid face_jpeg.*Received: an empty file."),
    "bomb": (record(face_jpeg=[jpeg(2048)]), "Invalid face_jpeg.*Received: 2048 x 2048 pixels."),
    "cut picture": (record(face_jpeg=[CROP[:-40]]), "Invalid face_jpeg. Expected JPEGs that can be decoded."),
    "damaged picture": (record(face_jpeg=[UNREADABLE]), "Invalid face_jpeg. Expected JPEGs that can be decoded."),
    "no example": (b"garbage", "Not a tf.train.Example. Received: 7 bytes that begin b'garbage'."),
    "empty": (b"", "The feature schema_version is missing."),
    "no weight": (rename(record(), "weight"), "The feature weight is missing."),
    "no tokens": (rename(record(), "tokens"), "The feature tokens is missing."),
    "no face": (rename(record(), "face_jpeg"), "The feature face_jpeg is missing."),
    "kind": (
        edited(lambda f: f["weight"].int64_list.value.append(1)),
        "Invalid weight. Expected float32. Received: int64_list.",
    ),
    "two labels": (
        edited(lambda f: f["label"].int64_list.value.append(1)),
        "Invalid label. Expected 1 value. Received: 2 values.",
    ),
    "twice": (record(utterance_id="0"), "Duplicate dialogue_id and utterance_id. .*Received: '3' '0'."),
}


@pytest.mark.parametrize(("payload", "message"), BAD.values(), ids=BAD)
def test_a_bad_record_is_an_error_with_its_place(payload, message, check, tmp_path, capfd):
    before = record(utterance_id="0")
    with pytest.raises(UserError) as caught:
        check(before, payload, record(utterance_id="2"))
    text = str(caught.value)
    assert text.startswith(f"{tmp_path / 'b.tfrecord'}: record 1 at offset {len(before) + 16}: ") and "\n" not in text
    assert re.search(message, text) and text.endswith("Prepare the data set again, or copy the shard again.")
    assert capfd.readouterr().err == ""  # libjpeg writes lines of its own


def test_the_first_of_several_bad_records_is_named(check):
    with pytest.raises(UserError, match="record 1 at offset .*Invalid weight"):
        check(record(utterance_id="0"), record(weight=-1.0), record(utterance_id="2", label=9))


def test_a_split_without_positive_weights(tmp_path):
    path = str(tmp_path / "a")
    with tf.io.TFRecordWriter(path) as writer:
        writer.write(record(weight=0.0))
    with pytest.raises(UserError, match=f"^{path}: All weights of dev are 0"):
        check_split("dev", [path], RULES)


@pytest.mark.parametrize("options", [(), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1), (cv2.IMWRITE_JPEG_RST_INTERVAL, 1)])
def test_the_size_of_a_jpeg(options):
    assert jpeg_size(jpeg(24, *options)) == (24, 24)
    wide = cv2.imencode(".jpg", np.zeros((5, 300), np.uint8))[1].tobytes()
    assert jpeg_size(wide) == (300, 5)


def test_a_jpeg_with_bytes_that_decoders_skip_has_no_size():
    """A decoder would find another frame header than a reader that takes the markers for segments."""
    hidden = b"\xff\xd8\xff\x01" + struct.pack(">H", 2 + 200) + CROP[2:]
    for data in (b"", b"\xff\xd8\xff", CROP[:2] + b"\0" + CROP[2:], hidden, CROP[:2] + b"\xff\xff" + CROP[3:]):
        assert jpeg_size(data) is None


def test_checking_large_faces_takes_little_memory():
    """The pixels of 24 crops of 1024 px are 75 MB, and as integers of 32 bits 300 MB."""
    counter = Path("/proc/self/clear_refs")
    if not counter.exists():
        pytest.skip("only Linux counts the peak of the memory")
    crops = [jpeg(1024)] * 24
    rules = RecordRules(labels=7, face_size=1024, max_faces=99, context=1, pieces=100)
    rules.check([record(face_jpeg=crops[:1])])  # traces the decoder
    counter.write_text("5")  # sets the peak to the present size
    before = memory("VmHWM")
    rules.check([record(face_jpeg=crops, face_mask=[1] * len(crops))])
    assert memory("VmHWM") - before < 100 << 20


def memory(name) -> int:
    """Returns a number of bytes of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) << 10


def test_records_are_checked_in_batches_of_bounded_size(monkeypatch):
    monkeypatch.setattr(record_rules, "BATCH", 3)
    monkeypatch.setattr(record_rules, "BATCH_BYTES", 10)
    records = [b"a" * size for size in (1, 1, 1, 1, 9, 1, 11, 0)]
    batches = list(record_rules.batches(iter(records)))
    assert [[len(record) for record in batch] for batch in batches] == [[1, 1, 1], [1, 9], [1], [11], [0]]


@pytest.fixture
def copied(dataset, tmp_path):
    """A data set to change."""
    shutil.copytree(dataset, tmp_path / "data")
    return tmp_path / "data"


def test_a_changed_data_set_with_right_sums_is_checked(copied):
    replace_record(copied, "dev", 2, label=99)
    with trust.everything(), pytest.raises(UserError, match=r"dev-.*: record 2 at offset \d+: Invalid label"):
        Dataset.open(copied).verify()


def test_records_are_checked_once(copied, monkeypatch):
    """Those that this user has written were checked then."""
    checked = []
    monkeypatch.setattr(datasets, "check_split", lambda split, *_: checked.append(split))
    Dataset.open(copied).verify()
    assert not checked
    replace_record(copied, "dev", 2, label=1)
    for _ in range(2):
        Dataset.open(copied).verify()
    assert checked == ["train", "dev", "test"]
    assert not Dataset.open(copied).is_own


def test_a_long_check_is_announced(copied, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("EMOTION_TF_CONFIG", str(tmp_path))  # of another user
    monkeypatch.setattr(datasets, "LONG_CHECK", 3)
    monkeypatch.setattr(datasets, "track", lambda records, total, title, unit: shown.append((total, title)) or records)
    shown = []
    dataset = Dataset.open(copied)
    dataset.verify()
    total = sum(split.records for split in dataset.splits.values())
    assert capsys.readouterr().err == f"Checking {total:,} records of {copied}, once.\n"
    assert shown == [(split.records, f"checking {name}") for name, split in dataset.splits.items()]
    dataset.verify()
    assert capsys.readouterr().err == ""


def test_a_check_that_cannot_be_recorded_is_said_once(copied, tmp_path, monkeypatch, capsys):
    """Each command then checks the records again."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EMOTION_TF_CONFIG", str(tmp_path / "file"))
    trust._warn.cache_clear()
    monkeypatch.setattr(datasets, "check_split", lambda *_: None)
    for _ in range(2):
        Dataset.open(copied).verify()
    warning = capsys.readouterr().err
    assert warning.count("warning: Cannot record") == 1 and "checks the records of data again" in warning
    trust.remember("0" * 64, "a test")
    assert capsys.readouterr().err == ""


def test_ids_are_told_apart_by_their_bounds(check):
    check(record(dialogue_id="1", utterance_id="23"), record(dialogue_id="12", utterance_id="3"))


def test_the_digests_of_ids_are_small():
    digests = set()
    columns = record_rules._parse([record(dialogue_id="x" * 500), record(utterance_id="y" * 500)])
    record_rules._check_ids(columns, digests)
    assert [len(digest) for digest in digests] == [16, 16]


def test_an_empty_split(copied):
    values = json.loads((copied / INFO).read_text())
    (shard,) = values["splits"]["dev"]["shards"]
    (copied / shard["file"]).write_bytes(b"")
    shard |= {"records": 0, "bytes": 0, "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}
    values["splits"]["dev"]["records"] = 0
    (copied / INFO).write_text(json.dumps(values))
    with pytest.raises(UserError, match="dataset_info.json: The split dev has no record. Expected at least one."):
        Dataset.open(copied).verify()


def test_a_picture_that_only_opencv_decodes_is_not_written(make_records, tmp_path):
    """Otherwise the training would fail on it."""
    from small_tables import ROW, write_table

    (tmp_path / "a.jpg").write_bytes(UNREADABLE)
    assert encode.read_crop(tmp_path / "a.jpg", SIZE) == UNREADABLE
    path = write_table(tmp_path / "m.csv", [ROW, {"utterance_id": "1", "faces": "a.jpg"}])
    with pytest.raises(UserError, match=f"^{path}: line 3: Invalid face_jpeg. Expected JPEGs that can be decoded"):
        make_records(path, tmp_path / "out", SIZE, 50)
    assert not (tmp_path / "out").exists()
