"""Verifies shards before TensorFlow opens them.

TensorFlow accepts a shard that is truncated between records, does not name the file in errors, and crashes on a length
field that is too large.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from emotion_tf import files
from emotion_tf.errors import UserError
from emotion_tf.wording import plural

if TYPE_CHECKING:
    from emotion_tf.data.dataset import Shard, Split

HEADER = struct.Struct("<QI")  # length of the payload, masked CRC32C of those eight bytes
CRC = struct.Struct("<I")
REPAIR = "Prepare the data set again, or copy the shard again."


def verify_shards(data: Path, splits: Mapping[str, Split]) -> None:
    """Compares the size, SHA-256 and number of records of every shard with `dataset_info.json`.

    Raises:
        UserError: a shard is missing, damaged or not listed. The message has the shard, the damage and its offset.
    """
    shards = [shard for split in splits.values() for shard in split.shards]
    names = {shard.file for shard in shards}
    for path in sorted(data.glob("*.tfrecord*")):
        if path.name not in names:
            raise UserError(
                f"{path}: Unknown shard: dataset_info.json does not list it. Expected only {len(names)} "
                "listed shards. Remove it."
            )
    for shard in shards:
        verify_shard(data / shard.file, shard)


def verify_counts(data: Path, splits: Mapping[str, Split]) -> None:
    """Raises UserError if the numbers of records in `dataset_info.json` do not agree, or a split has none."""
    for name, split in splits.items():
        count = sum(shard.records for shard in split.shards)
        if count != split.records:
            raise UserError(
                f"{data / 'dataset_info.json'}: Wrong count: it has {plural(split.records, 'record')} in {name}, "
                f"its shards have {count}. {REPAIR}"
            )
        if not count:
            raise UserError(
                f"{data / 'dataset_info.json'}: The split {name} has no record. Expected at least one. {REPAIR}"
            )


def verify_shard(path: Path, shard: Shard) -> None:
    """Compares a shard with its entry in `dataset_info.json`. Raises UserError as `verify_shards` does."""
    if not path.is_file():
        raise UserError(
            f"{path}: The shard is missing. Expected {plural(shard.records, 'record')} in {shard.bytes:,} bytes. "
            f"{REPAIR}"
        )
    size = path.stat().st_size
    if size != shard.bytes or files.sha256(path) != shard.sha256:
        raise UserError(f"{path}: {_diagnose(path, size, shard)}. {REPAIR}")
    try:
        records = sum(1 for _ in _walk(path))
    except _Damage as damage:
        raise UserError(f"{path}: {damage}. {REPAIR}") from None
    if records != shard.records:
        raise UserError(
            f"{path}: Wrong count: dataset_info.json has {plural(shard.records, 'record')}, the shard {records:,}. "
            f"{REPAIR}"
        )


def verify_records(path: Path) -> None:
    """Compares the checksums of the records of a shard. Raises UserError if it is missing or damaged."""
    if not path.is_file():
        raise UserError(f"{path}: The shard is missing. {REPAIR}")
    try:
        for _offset, _length in _walk(path, check=True):
            pass
    except _Damage as damage:
        raise UserError(f"{path}: {damage}. {REPAIR}") from None


def _diagnose(path: Path, size: int, shard: Shard) -> str:
    """Describes the damage of a shard whose size or hash differs."""
    records = 0
    try:
        for _offset, _length in _walk(path, check=True):
            records += 1
    except _Damage as damage:
        return f"{damage} (record {records}; {size} bytes, expected {shard.bytes})"
    if size < shard.bytes:
        expected = f"{shard.records:,} in {shard.bytes:,}"
        return f"Cut between records: {plural(records, 'record')} in {size:,} bytes, expected {expected}"
    return (
        f"Other content: {records} whole records in {size} bytes, but not those of dataset_info.json (sha256 differs)"
    )


class _Damage(Exception):
    pass


def read_payloads(path: str | Path) -> Iterator[bytes]:
    """Yields the records of a shard.

    Raises:
        UserError: a record is cut, or its length field is wrong: the shard has changed since it was verified.
    """
    size, offset = os.path.getsize(path), 0
    with open(path, "rb") as file:
        while offset < size:
            try:
                length = _length(file, offset, size, check=False)
            except _Damage as damage:
                raise UserError(f"{path}: {damage}. {REPAIR}") from None
            yield file.read(length)
            file.read(CRC.size)
            offset += HEADER.size + length + CRC.size


def _walk(path: Path, check: bool = False) -> Iterator[tuple[int, int]]:
    """Yields (offset, length) of each record from the length fields; also compares the checksums if `check`."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        offset = 0
        while offset < size:
            length = _length(file, offset, size, check)
            if check:
                _check_payload(file, offset, length)
            yield offset, length
            offset += HEADER.size + length + CRC.size
            file.seek(offset)


def _length(file: BinaryIO, offset: int, size: int, check: bool) -> int:
    header = file.read(HEADER.size)
    if len(header) < HEADER.size:
        raise _Damage(f"Cut inside a record's header at offset {offset}")
    length, crc = HEADER.unpack(header)
    if check and masked_crc32c(header[:8]) != crc:
        raise _Damage(f"Flipped byte in the header at offset {offset}: its checksum differs")
    left = size - offset - HEADER.size - CRC.size
    if length > left:
        damage = "Absurd length field" if length > 1 << 31 else "Cut inside a record, or wrong length field,"
        raise _Damage(f"{damage} at offset {offset}: {length} bytes claimed, {max(left, 0)} left")
    return length


def _check_payload(file: BinaryIO, offset: int, length: int) -> None:
    payload = file.read(length)
    if masked_crc32c(payload) != CRC.unpack(file.read(CRC.size))[0]:
        raise _Damage(f"Flipped byte in the record at offset {offset}: its checksum differs")


def masked_crc32c(data: bytes) -> int:
    """Returns TFRecord's masked CRC32C (Castagnoli). Plain Python, because it only runs on damaged shards."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _crc_table()
