"""Damage to a shard is an error with the shard's name, before TensorFlow opens it."""

from __future__ import annotations

import dataclasses
import os
import shutil
import struct
from pathlib import Path

import pytest
import tensorflow as tf

from emotion_tf import files
from emotion_tf.data import verify
from emotion_tf.data.dataset import INFO, Dataset
from emotion_tf.errors import UserError


@pytest.fixture
def copied(dataset, tmp_path):
    """A data set to damage, and the first shard of its dev split."""
    shutil.copytree(dataset, tmp_path / "data")
    dataset = Dataset.open(tmp_path / "data")
    return dataset, Path(dataset.rows("dev").paths[0])


def with_counts(dataset, **values) -> Dataset:
    """Returns the data set with other values of split dev, or (`shard`) of its only shard."""
    dev = dataset.splits["dev"]
    if "shard" in values:
        values = {"shards": (dataclasses.replace(dev.shards[0], **values["shard"]),)}
    return dataclasses.replace(dataset, splits={**dataset.splits, "dev": dataclasses.replace(dev, **values)})


def fault(dataset, path) -> str:
    with pytest.raises(UserError) as caught:
        dataset.verify()
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message


def offsets(content: bytes) -> list[int]:
    """Returns the start of each record, and the end."""
    starts = [0]
    while starts[-1] < len(content):
        starts.append(starts[-1] + 16 + struct.unpack_from("<Q", content, starts[-1])[0])
    return starts


def flip_bit(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0x40]) + content[at + 1 :]


def test_an_undamaged_data_set_passes(copied):
    dataset, path = copied
    dataset.verify()
    starts = offsets(path.read_bytes())
    assert len(starts) - 1 == dataset.splits["dev"].records


def long_header(length: int) -> bytes:
    raw = struct.pack("<Q", length)
    return raw + struct.pack("<I", verify.masked_crc32c(raw))


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (lambda c, o: c[: o[3] + 12 + 5], ["Cut inside a record", "record 3", "offset"]),
        (lambda c, o: c[:-1], ["Cut inside a record"]),
        (lambda c, o: c[: o[3] + 7], ["Cut inside a record's header", "record 3"]),
        (lambda c, o: c[: o[3]], ["Cut between records: 3 records"]),
        (lambda c, o: b"", ["Cut between records: 0 records"]),
        (lambda c, o: flip_bit(c, o[2]), ["Flipped byte in the header", "record 2"]),
        (lambda c, o: flip_bit(c, o[2] + 9), ["Flipped byte in the header", "record 2"]),
        (lambda c, o: flip_bit(c, o[2] + 20), ["Flipped byte in the record", "record 2"]),
        (lambda c, o: flip_bit(c, o[3] - 1), ["Flipped byte in the record", "record 2"]),
        (lambda c, o: c[: o[1]] + long_header(1 << 62) + c[o[1] + 12 :], ["Absurd length field", str(1 << 62)]),
        (lambda c, o: c[: o[1]] + long_header(1 << 20) + c[o[1] + 12 :], ["wrong length field", str(1 << 20)]),
        (lambda c, o: c + c[: o[1]], ["Other content", "sha256"]),
        (lambda c, o: c[: o[1]] + c[o[2] :] + c[o[1] : o[2]], ["Other content", "sha256"]),
        (lambda c, o: c + b"\0" * 5, ["Cut inside a record's header"]),
        (lambda c, o: b"<html>404 Not Found</html>", ["Flipped byte in the header", "offset 0"]),
    ],
)
def test_a_damaged_shard(damage, parts, copied):
    dataset, path = copied
    content = path.read_bytes()
    path.write_bytes(damage(content, offsets(content)))
    message = fault(dataset, path)
    assert all(part in message for part in parts), message


def test_a_missing_shard(copied):
    dataset, path = copied
    path.unlink()
    assert "missing" in fault(dataset, path)
    path.mkdir()
    assert "missing" in fault(dataset, path)


@pytest.mark.parametrize("name", ["dev-00001-of-00002.tfrecord", "old.tfrecord.gz"])
def test_an_unknown_shard(name, copied):
    dataset, path = copied
    shutil.copy(path, dataset.path / name)
    assert "Unknown shard" in fault(dataset, dataset.path / name)


@pytest.mark.parametrize("kind", ["another file", "link", "pipe", "folder", "none"])
def test_another_vocabulary_is_not_read(kind, copied, tmp_path):
    """A link may lead to a private file, which `train` would copy into the run. A pipe would block."""
    dataset, _ = copied
    path, secret = dataset.path / "vocab.txt", tmp_path / "secret"
    secret.write_text("".join(f"{token}\n" for token in ("[CLS]", "[SEP]", "[UNK]", "secret")))
    path.unlink()
    make = {
        "another file": lambda: shutil.copy(secret, path),
        "link": lambda: path.symlink_to(secret),
        "pipe": lambda: os.mkfifo(path),
        "folder": path.mkdir,
        "none": lambda: None,
    }
    make[kind]()
    assert ("sha256 differs" if kind in ("another file", "link") else "missing") in fault(dataset, path)


def test_two_shards_swapped(copied):
    dataset, path = copied
    other = Path(dataset.rows("test").paths[0])
    contents = path.read_bytes(), other.read_bytes()
    path.write_bytes(contents[1])
    other.write_bytes(contents[0])
    assert "Other content" in fault(dataset, path)


def test_a_wrong_count_in_dataset_info(copied):
    dataset, path = copied
    count = dataset.splits["dev"].records
    assert "Wrong count" in fault(with_counts(dataset, shard={"records": count + 1}), path)
    assert "Wrong count" in fault(with_counts(dataset, records=count - 1), dataset.path / INFO)


def test_a_damaged_shard_with_a_matching_hash(copied):
    """The length fields are checked even if the hash matches, because TensorFlow would crash."""
    dataset, path = copied
    content = path.read_bytes()
    path.write_bytes(long_header(1 << 62) + content[12:])
    rewritten = with_counts(dataset, shard={"sha256": files.sha256(path), "bytes": len(content)})
    assert "Absurd length field" in fault(rewritten, path)


@pytest.mark.parametrize("payload", [b"", b"\0", b"123456789", bytes(range(256)) * 9])
def test_masked_crc32c_is_that_of_tensorflow(payload, tmp_path):
    path = str(tmp_path / "one")
    with tf.io.TFRecordWriter(path) as writer:
        writer.write(payload)
    content = (tmp_path / "one").read_bytes()
    length, header_crc = verify.HEADER.unpack_from(content)
    assert length == len(payload)
    assert verify.masked_crc32c(content[:8]) == header_crc
    assert verify.masked_crc32c(payload) == struct.unpack("<I", content[-4:])[0]


def test_crc32c_check_value():
    """The check value of CRC-32C in the catalogue of parametrised CRCs, 0xE3069283 for "123456789", masked."""
    crc = 0xE3069283
    assert verify.masked_crc32c(b"123456789") == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
