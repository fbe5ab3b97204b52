"""The rules of a record's content: what the pipeline, the model and the reports rely on.

The checksums of a shard say that it is the one that was written, not that it may be read. The records are parsed by the
parser of the pipeline and their faces decoded by its decoder, so that nothing passes here and fails in a training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from emotion_tf import schema
from emotion_tf.data import images
from emotion_tf.data.manifest import MAX_WEIGHT
from emotion_tf.data.verify import CRC, HEADER, REPAIR, read_payloads
from emotion_tf.errors import UserError
from emotion_tf.pictures import describe, jpeg_size
from emotion_tf.streams import silent_libraries

VERSION = 2
"""Is raised with every new rule: records that passed earlier rules are checked again."""
IDS = ("dialogue_id", "utterance_id")
OF_EACH_CROP = ("face_time", "face_sharpness", "face_height")
COUNTS = ("face_track_length", "face_tracks", "face_frames")
TEXTS = tuple(f.name for f in schema.RECORD if f.dtype == "string" and f.name != "face_jpeg")
NUMBERS = tuple(f.name for f in schema.RECORD if f.dtype == "float32")
LISTS = tuple(f.name for f in schema.RECORD if f.shape)
KINDS = {"string": "bytes_list", "float32": "float_list", "int64": "int64_list"}
PARSER_ERRORS = (tf.errors.OpError, UnicodeDecodeError)
"""What TensorFlow's parser raises; the second if its message holds bytes of the record that are not UTF-8."""
BATCH = 1024
BATCH_BYTES = 64 << 20
"""Largest number of records, and of their bytes, that are checked at once. A larger record is checked alone."""
MAX_SHOWN = 60
"""Number of characters of a value in a message."""


class Fault(Exception):
    """A record that breaks a rule.

    Args:
        position: position of the record in its batch.
        message: what is wrong with it.
    """

    def __init__(self, position: int, message: str) -> None:
        super().__init__(message)
        self.position, self.message = position, message


@dataclass(frozen=True)
class Column:
    """All M values of a feature of N records, the record of each value int (M,), and the number of each record (N,)."""

    values: Any
    rows: np.ndarray
    lengths: np.ndarray


@dataclass(frozen=True)
class RecordRules:
    """Limits of the values of a data set's records.

    Attributes:
        labels: number of labels.
        face_size: side of the face crops in pixels.
        max_faces: largest number of face crops of a record.
        context: largest number of past, and of future, utterances of a record.
        pieces: number of entries of the vocabulary.
    """

    labels: int
    face_size: int
    max_faces: int
    context: int
    pieces: int

    def check(self, records: Sequence[bytes]) -> dict[str, Column]:
        """Returns the features of records. Raises Fault for the first record that breaks a rule."""
        _check_wire_format(records)
        try:
            columns = _parse(records)
        except PARSER_ERRORS as error:
            raise _find_unparsable(records, error) from None
        faults = [fault for fault in (_find_absent(records), *self._faults(columns)) if fault is not None]
        if faults:
            raise min(faults, key=lambda fault: fault.position)
        _check_decoding(columns["face_jpeg"], self.face_size)
        return columns

    def _faults(self, columns: dict[str, Column]) -> Iterator[Fault | None]:
        """Yields the first fault of each rule."""

        def first(name: str, is_invalid: Any, expected: str) -> Fault | None:
            return _first(name, columns[name], is_invalid, expected)

        def values(name: str) -> Any:
            return columns[name].values

        def lengths(name: str, is_invalid: Any, expected: str) -> Fault | None:
            rows = np.flatnonzero(is_invalid)
            counts = columns[name].lengths
            return Fault(int(rows[0]), _invalid(name, expected, f"{counts[rows[0]]} values")) if len(rows) else None

        version = schema.SCHEMA_VERSION
        yield first("schema_version", values("schema_version") != version, str(version))
        yield first("label", _outside(values("label"), 0, self.labels - 1), f"0 to {self.labels - 1}")
        yield first("weight", ~_within(values("weight"), 0, MAX_WEIGHT), f"a number from 0 to {MAX_WEIGHT:g}")
        yield first("tokens", _outside(values("tokens"), 0, self.pieces - 1), f"word pieces 0 to {self.pieces - 1}")
        for name in COUNTS:
            yield first(name, values(name) < 0, "at least 0")
        for name in NUMBERS:
            is_number = ~np.isnan(values(name)) if name == "face_margin" else np.isfinite(values(name))
            yield first(name, ~is_number, "a number")
        for name in TEXTS:
            yield first(name, _not_utf8(values(name)), "UTF-8")
        for name in IDS:
            yield first(name, np.array([not value for value in values(name)], bool), "an id")
        count = {name: columns[name].lengths for name in LISTS}
        for name in ("context", "future"):
            yield lengths(name, count[name] > self.context, f"at most {self.context} values")
            yield lengths(f"{name}_speaker", count[f"{name}_speaker"] != count[name], f"as many values as {name}")
        crops = count["face_jpeg"]
        yield lengths("face_jpeg", crops > self.max_faces, f"at most {self.max_faces} values")
        yield lengths("face_mask", count["face_mask"] != crops, "as many values as face_jpeg")
        yield first("face_mask", values("face_mask") != 1, "1")
        for name in OF_EACH_CROP:
            yield lengths(name, (count[name] != 0) & (count[name] != crops), "none, or as many values as face_jpeg")
        yield lengths("face_box", (count["face_box"] != 0) & (count["face_box"] != 4 * crops), "none, or 4 per crop")
        yield lengths("face_rivals", count["face_rivals"] % 4 != 0, "4 numbers per box")
        yield lengths("clip", (values("clip_seconds") > 0) & (count["clip"] == 0), "a segment, since clip_seconds > 0")
        side = self.face_size
        other = np.array([jpeg_size(jpeg) != (side, side) for jpeg in values("face_jpeg")], bool)
        yield first("face_jpeg", other, f"JPEGs of {side} x {side} pixels")


def check_split(
    name: str,
    paths: Iterable[str],
    rules: RecordRules,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> None:
    """Checks the records of the shards of a split; `progress` wraps the records while they are checked.

    Raises:
        UserError: a record breaks a rule or has the ids of another one, or all weights are 0. The message has the
            shard, and the number (from 0) and the offset of the record.
    """
    digests: set[bytes] = set()
    weight, path = 0.0, ""
    payloads = ((path, record) for path in paths for record in read_payloads(path))
    for path, of_shard in groupby(progress(payloads), key=itemgetter(0)):
        number = offset = 0
        for records in batches(record for _, record in of_shard):
            ends = np.cumsum([HEADER.size + len(record) + CRC.size for record in records])
            try:
                columns = rules.check(records)
                _check_ids(columns, digests)
            except Fault as fault:
                start = offset + (int(ends[fault.position - 1]) if fault.position else 0)
                where = f"{path}: record {number + fault.position} at offset {start}"
                raise UserError(f"{where}: {fault.message} {REPAIR}") from None
            weight += float(columns["weight"].values.sum())
            number, offset = number + len(records), offset + int(ends[-1])
    if not weight:
        raise UserError(f"{path}: All weights of {name} are 0. Expected at least one utterance that counts. {REPAIR}")


def batches(records: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Yields lists of at most `BATCH` records and `BATCH_BYTES`."""
    batch: list[bytes] = []
    size = 0
    for record in records:
        if batch and (len(batch) == BATCH or size + len(record) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(record)
        size += len(record)
    if batch:
        yield batch


def _check_ids(columns: Mapping[str, Column], digests: set[bytes]) -> None:
    """Raises Fault for the first record whose ids are in `digests` or those of another record; adds all digests.

    A digest of 16 bytes takes a third of the memory of the ids, and two of a million are the same once in 10^26 times.
    """
    for position, (dialogue, utterance) in enumerate(zip(*(columns[name].values for name in IDS), strict=True)):
        digest = hashlib.blake2b(b"%d %b%b" % (len(dialogue), dialogue, utterance), digest_size=16).digest()
        if digest in digests:
            shown = " ".join(f"{value.decode()!r}"[:MAX_SHOWN] for value in (dialogue, utterance))
            raise Fault(position, f"Duplicate {' and '.join(IDS)}. Expected each pair once. Received: {shown}.")
        digests.add(digest)


def _check_wire_format(records: Sequence[bytes]) -> None:
    """Raises Fault for the first record that protobuf cannot parse: TensorFlow's parser crashes on some of these."""
    for position, record in enumerate(records):
        try:
            tf.train.Example.FromString(record)
        except DecodeError:
            raise Fault(position, f"Not a tf.train.Example. Received: {describe(record)}.") from None


def _parse(records: Sequence[bytes]) -> dict[str, Column]:
    columns = {}
    parsed = schema.parse_examples(tf.constant(list(records)), [feature.name for feature in schema.RECORD])
    for name, tensor in parsed.items():
        if isinstance(tensor, tf.RaggedTensor):
            lengths = np.diff(tensor.row_splits.numpy())
            columns[name] = Column(tensor.values.numpy(), np.repeat(np.arange(len(records)), lengths), lengths)
        else:
            columns[name] = Column(tensor.numpy(), np.arange(len(records)), np.ones(len(records), int))
    return columns


def _find_unparsable(records: Sequence[bytes], error: Exception) -> Fault:
    """Returns the fault of the first record that TensorFlow cannot parse; `error` is that of all records."""
    for position, record in enumerate(records):
        try:
            _parse([record])
        except PARSER_ERRORS as of_record:
            return Fault(position, _describe_unparsable(record) or " ".join(str(of_record).split())[:200])
    return Fault(0, " ".join(str(error).split())[:200])


def _describe_unparsable(record: bytes) -> str:
    """Says which feature of a record is not as in `schema.RECORD`; empty if none is found."""
    features = tf.train.Example.FromString(record).features.feature
    for feature in schema.RECORD:
        if feature.name not in features:
            return _absent(feature.name)
        kind = features[feature.name].WhichOneof("kind")
        if kind != KINDS[feature.dtype]:
            return _invalid(feature.name, feature.dtype, kind or "no value")
        count = len(getattr(features[feature.name], kind).value)
        if not feature.shape and count != 1:
            return _invalid(feature.name, "1 value", f"{count} values")
    return ""


def _find_absent(records: Sequence[bytes]) -> Fault | None:
    """Returns the first record without a feature of variable length, which TensorFlow takes for an empty one."""
    # the key of an entry in the map of features, as protobuf writes it
    keys = [(name, b"\n%c%b\x12" % (len(name), name.encode())) for name in LISTS]
    for position, record in enumerate(records):
        for name, key in keys:
            if key not in record:
                return Fault(position, _absent(name))
    return None


def _check_decoding(faces: Column, face_size: int) -> None:
    """Raises Fault for the first record with a face that the pipeline cannot decode."""
    if _can_decode(faces.values, face_size):
        return
    for position, jpeg in zip(faces.rows, faces.values, strict=True):
        if not _can_decode([jpeg], face_size):
            raise Fault(int(position), _invalid("face_jpeg", "JPEGs that can be decoded", describe(jpeg)))


def _can_decode(jpegs: Sequence[bytes], face_size: int) -> bool:
    try:
        with silent_libraries():
            _decoder(face_size)(tf.constant(list(jpegs), tf.string))
    except tf.errors.OpError:
        return False
    return True


@cache
def _decoder(face_size: int) -> Any:
    def decode(jpegs: tf.Tensor) -> tf.Tensor:
        # one value of each face: the pixels of all of them would take gigabytes
        return tf.map_fn(lambda jpeg: images.decode_face(jpeg, face_size)[0, 0, 0], jpegs, fn_output_signature=tf.uint8)

    return tf.function(decode, input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)


def _first(name: str, column: Column, is_invalid: Any, expected: str) -> Fault | None:
    invalid = np.flatnonzero(is_invalid)
    if not len(invalid):
        return None
    value = column.values[invalid[0]]
    if name == "face_jpeg":
        size = jpeg_size(value)
        shown = f"{size[0]} x {size[1]} pixels" if size else describe(value)
    else:
        shown = repr(value if isinstance(value, bytes) else value.item())[:MAX_SHOWN]
    return Fault(int(column.rows[invalid[0]]), _invalid(name, expected, shown))


def _invalid(name: str, expected: str, received: str) -> str:
    return f"Invalid {name}. Expected {expected}. Received: {received}."


def _absent(name: str) -> str:
    return f"The feature {name} is missing."


def _outside(values: np.ndarray, least: int, most: int) -> np.ndarray:
    return (values < least) | (values > most)


def _within(values: np.ndarray, least: float, most: float) -> np.ndarray:
    """Whether values are in a closed range; NaN is not."""
    return (values >= least) & (values <= most)


def _not_utf8(values: np.ndarray) -> np.ndarray:
    try:
        # an ASCII character between them: a joined text is UTF-8 exactly if its parts are
        b"\n".join(values).decode()
    except UnicodeDecodeError:
        return np.array([not _is_utf8(value) for value in values], bool)
    return np.zeros(len(values), bool)


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
