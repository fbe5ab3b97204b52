"""Readers of files and requests, as functions of bytes: what they refuse is a UserError, and nothing else.

Only `record` and `document` start TensorFlow: thousands of inputs are read in a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import struct
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

LABELS = ("anger", "joy", "neutral")


@dataclass(frozen=True)
class Target:
    """A reader.

    Attributes:
        read: reads bytes.
        modules: the files of the reader, of which coverage is reported.
        seeds: returns valid inputs, and some that reach other branches.
        least_covered: share of the lines and branches of `modules` that 8 s cover at least, in percent: some 15 points
            below what they covered when it was measured, and more than an empty input covers.
        words: pieces of valid inputs.
    """

    read: Callable[[bytes], object]
    modules: tuple[str, ...]
    seeds: Callable[[], Sequence[bytes]]
    least_covered: int
    words: tuple[bytes, ...] = ()


def check(target: Target, data: bytes) -> None:
    """Reads bytes, or refuses them by a UserError; anything else is raised."""
    from emotion_tf.errors import UserError

    with contextlib.suppress(UserError):
        target.read(data)


@functools.cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))


def _file(name: str, data: bytes) -> Path:
    path = _folder() / name
    path.write_bytes(data)
    return path


def _manifest(data: bytes) -> None:
    from emotion_tf.data.manifest import read_manifest

    rows = read_manifest(_file("manifest.csv", data), LABELS)
    assert rows and all(0 <= row.label < len(LABELS) and row.weight >= 0 for row in rows)


def _meld(data: bytes) -> None:
    from emotion_tf.data import meld

    meld._read_table(_file("train_sent_emo.csv", data), "train", "emotion")


def _subtitles(data: bytes) -> None:
    from emotion_tf.serving.film import read_subtitles

    subtitles = read_subtitles(_file("film.srt", data))
    assert all(0 <= subtitle.start < subtitle.end for subtitle in subtitles)


def _embeddings(data: bytes) -> None:
    import numpy as np

    from emotion_tf.data.embeddings import read_embeddings

    embeddings = read_embeddings(_file("vectors", data), ("the", "you", "don't", "do", "n't"))
    assert np.isfinite(embeddings.vectors).all() and embeddings.vectors.dtype == np.float32


def _clips(data: bytes) -> None:
    from emotion_tf.data.clips import read_clips

    read_clips(_file("clips.csv", data), LABELS)


def _table(data: bytes) -> None:
    from emotion_tf.serving.tables import read_table

    assert list(read_table(_file("table.csv", data)))


def _history(data: bytes) -> None:
    import numpy as np

    from emotion_tf.evaluation.csv_tables import read_history

    columns = ("epoch", "dev_loss")
    table = read_history(_file("history.csv", data), columns)
    assert np.isfinite(table[list(columns)]).all(axis=None)


def _document(data: bytes) -> None:
    """First byte: which document."""
    from small_documents import DOCUMENTS

    kinds = list(DOCUMENTS.values())
    kind = kinds[data[0] % len(kinds)] if data else kinds[0]
    kind.read(_document_file(kind.file, data[1:]))


def _valid_documents() -> tuple[bytes, ...]:
    from small_documents import DOCUMENTS

    contents = []
    for number, kind in enumerate(DOCUMENTS.values()):
        path = _document_file(kind.file, b"")
        kind.write(path)
        kind.read(path)  # imports the reader, before the time of an input is measured
        contents.append(bytes([number]) + path.read_bytes())
    return tuple(contents)


def _document_file(name: str, data: bytes) -> Path:
    (_folder() / name).parent.mkdir(parents=True, exist_ok=True)
    return _file(name, data)


def _shard(data: bytes) -> None:
    from emotion_tf.data import verify

    path = _file("train-00000-of-00001.tfrecord", data)
    verify.verify_records(path)
    assert all(isinstance(payload, bytes) for payload in verify.read_payloads(str(path)))


def _record(data: bytes) -> None:
    from emotion_tf.data.record_rules import Fault, RecordRules
    from emotion_tf.errors import UserError

    try:
        columns = RecordRules(labels=3, face_size=16, max_faces=2, context=1, pieces=50).check([data])
    except Fault as fault:  # the caller adds the shard
        raise UserError(fault.message) from None
    assert 0 <= columns["label"].values[0] < 3


def _valid_record() -> bytes:
    """Returns a record with a face and a line before it."""
    import cv2
    import numpy as np
    import tensorflow as tf

    from emotion_tf import schema

    jpeg = cv2.imencode(".jpg", np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3))[1].tobytes()
    lists = {"tokens": [2, 7], "context": [b"Hi"], "context_speaker": [b"Bob"], "face_jpeg": [jpeg], "face_mask": [1]}
    first = {"schema_version": schema.SCHEMA_VERSION, "dialogue_id": b"1", "utterance_id": b"2", "weight": 1.0}
    defaults = {"string": b"", "float32": 0.0, "int64": 0}
    kinds = {
        "string": lambda values: tf.train.Feature(bytes_list=tf.train.BytesList(value=values)),
        "float32": lambda values: tf.train.Feature(float_list=tf.train.FloatList(value=values)),
        "int64": lambda values: tf.train.Feature(int64_list=tf.train.Int64List(value=values)),
    }
    features = {}
    for feature in schema.RECORD:
        default = [] if feature.shape else [first.get(feature.name, defaults[feature.dtype])]
        features[feature.name] = kinds[feature.dtype](lists.get(feature.name, default))
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString(deterministic=True)


def _valid_shard() -> bytes:
    from emotion_tf.data.verify import CRC, HEADER, masked_crc32c

    length = struct.pack("<Q", 3)
    header = HEADER.pack(3, masked_crc32c(length))
    return 2 * (header + b"abc" + CRC.pack(masked_crc32c(b"abc")))


def _picture(data: bytes) -> None:
    from emotion_tf import pictures
    from emotion_tf.errors import UserError

    try:
        pixels = pictures.decode(data)
    except ValueError as error:  # the caller adds the name of the file
        raise UserError(str(error)) from None
    assert pixels.ndim == 3 and pixels.dtype.name == "uint8"


def _request(data: bytes) -> None:
    """First line: method and path; second line: a header; then the body."""
    from emotion_tf.page.gate import Gate
    from emotion_tf.page.uploads import Uploads

    folder = _folder() / "uploads"
    uploads = Uploads(folder, 1000)
    first, header, body = [*data.split(b"\n", 2), b"", b""][:3]
    method, _, path = first.decode("latin-1").partition(" ")
    name, _, value = header.partition(b":")
    scope = {
        "type": "http", "method": method, "path": path, "root_path": "", "query_string": b"",
        "scheme": "http", "headers": [(b"host", b"127.0.0.1:7860"), (name.lower(), value)],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 7860),
    }  # fmt: skip
    messages = [{"type": "http.request", "body": body, "more_body": False}]
    answers = []

    async def receive():
        return messages.pop() if messages else {"type": "http.disconnect"}

    async def send(message):
        answers.append(message)

    async def page(scope, receive, send):
        if path.startswith("/gradio_api/queue/join"):
            inner = json.loads((await receive())["body"])
            assert not _foreign_paths(inner, folder)
        await send({"type": "http.response.start", "status": 200, "headers": []})

    _loop().run_until_complete(Gate(page, uploads)(scope, receive, send))
    assert answers and answers[0]["status"] in (200, 400, 403, 404, 413, 503)


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def _foreign_paths(values: object, folder: Path) -> list[object]:
    """Returns the paths and addresses in a request that are not in the folder."""
    if isinstance(values, list):
        return [path for value in values for path in _foreign_paths(value, folder)]
    if not isinstance(values, dict):
        return []
    here = [value for key, value in values.items() if key in ("path", "url")]
    inner = [path for value in values.values() for path in _foreign_paths(value, folder)]
    return [path for path in here if not str(path).startswith(f"{folder}/")] + inner


def _pictures() -> tuple[bytes, ...]:
    """Returns a small picture in each format."""
    import cv2
    import hostile_pictures
    import numpy as np

    pixels = np.arange(12 * 12 * 3, dtype=np.uint8).reshape(12, 12, 3)
    encoded = [cv2.imencode(kind, pixels)[1].tobytes() for kind in (".jpg", ".png", ".webp", ".tiff", ".bmp")]
    return (
        *encoded,
        hostile_pictures.animated_png(),
        hostile_pictures.hidden_png(16),
        hostile_pictures.png(16, 12_000),
        hostile_pictures.jpeg(16, 12_000),
    )


MANIFEST = b"split,dialogue_id,utterance_id,speaker,utterance,emotion,faces,weight\n"
MELD = b"Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime\n"

TARGETS = {
    "manifest": Target(
        _manifest,
        ("emotion_tf/data/manifest.py", "emotion_tf/csv_rows.py"),
        lambda: (
            MANIFEST + b'train,1,1,Ann,"Hi, you",joy,a.jpg;b.jpg,0.5\ntrain,1,2,Bob,No,anger,,1\n',
            MANIFEST + b"dev,1,1,Ann,Hi,joy,,nan\n",
            b"\xef\xbb\xbf" + MANIFEST + b"test,1,1,,,neutral,../a.jpg,\n",
        ),
        72,
        (b"train", b"dev", b"joy", b"faces", b"weight", b",", b'"', b";", b"\r\n", b"inf", b"1e999"),
    ),
    "meld": Target(
        _meld,
        ("emotion_tf/data/meld.py", "emotion_tf/csv_rows.py"),
        lambda: (
            MELD + b'1,"Hi, you",Ann,joy,positive,0,0,8,21,"00:16:16,059","00:16:21,731"\n',
            MELD + b"2,No\x92t,Bob,neutral,neutral,0,1,8,21,x,00:16:24\n",
        ),
        45,
        (b"joy", b"00:16:16,059", b"\x92", b'"', b","),
    ),
    "subtitles": Target(
        _subtitles,
        ("emotion_tf/serving/film.py",),
        lambda: (
            b"1\n00:00:01,000 --> 00:00:02,500\nHello.\n\n2\n00:00:03,000 --> 00:00:04,000\n<i>You</i>\nthere\n",
            b"WEBVTT\n\n00:01.000 --> 00:02.000 align:start\nHello.\n",
            b"[Script Info]\nScriptType: v4.00+\n\n[Events]\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, "
            b"MarginV, Effect, Text\nDialogue: 0,0:00:01.00,0:00:02.00,Default,,0,0,0,,{\\b1}Hello\n",
        ),
        50,
        (b" --> ", b"WEBVTT", b"00:00:01,000", b"[Events]", b"Dialogue: ", b"\n\n", b"99999999"),
    ),
    "embeddings": Target(
        _embeddings,
        ("emotion_tf/data/embeddings.py",),
        lambda: (
            b"the 0.5 -1.25\nyou 1 2\ndo 0 0\nn't 1 1\n",
            b"2 3\nthe 0.5 -1.25 1e-3\nThe 1 2 3\n",
            b"1 2\nthe \x00\x00\x80?\x00\x00\x00@\n",
        ),
        66,
        (b"the ", b"you ", b"nan", b"inf", b"1e39", b"2 3\n", b" ", b"\n", b"\x00\x00\x80?"),
    ),
    "clips": Target(
        _clips,
        ("emotion_tf/data/clips.py", "emotion_tf/data/manifest.py"),
        lambda: (
            b"split,dialogue_id,utterance_id,speaker,utterance,emotion,clip,start,end\n"
            b"train,1,1,Ann,Hi,joy,a.mp4,0,1.5\ntrain,1,2,Bob,No,anger,,,\n",
        ),
        45,
        (b"start", b"end", b"1e309", b"-1", b"nan", b"a.mp4"),
    ),
    "table": Target(
        _table,
        ("emotion_tf/serving/tables.py", "emotion_tf/evaluation/csv_tables.py"),
        lambda: (b"utterance,faces,dialogue_id\nHi,a.jpg;b.jpg,1\n'=1+1,,2\n", b'utterance\n"a\nb"\n'),
        45,
        (b"utterance", b"faces", b"speaker", b'"', b"'="),
    ),
    "history": Target(
        _history,
        ("emotion_tf/evaluation/csv_tables.py", "emotion_tf/csv_rows.py"),
        lambda: (b"epoch,loss,dev_loss\n1,0.5,0.25\n2,,1e-3\n",),
        69,
        (b"epoch", b"dev_loss", b"1e999", b"nan", b",", b'"'),
    ),
    "document": Target(
        _document,
        (
            "emotion_tf/documents.py",
            "emotion_tf/run_info.py",
            "emotion_tf/config/__init__.py",
            "emotion_tf/evaluation/results.py",
            "emotion_tf/evaluation/vote.py",
            "emotion_tf/evaluation/calibration.py",
        ),
        _valid_documents,
        66,
        (b"null", b"true", b"-1", b"1e999", b"NaN", b"[", b"{", b'"', b"[[", b"\\u0000"),
    ),
    "shard": Target(_shard, ("emotion_tf/data/verify.py",), lambda: (_valid_shard(),), 46),
    "record": Target(
        _record,
        ("emotion_tf/data/record_rules.py",),
        lambda: (_valid_record(),),
        61,
        (b"label", b"weight", b"face_jpeg"),
    ),
    "picture": Target(_picture, ("emotion_tf/pictures.py",), _pictures, 60),
    "request": Target(
        _request,
        ("emotion_tf/page/gate.py", "emotion_tf/page/uploads.py"),
        lambda: (
            b"GET /\norigin:http://127.0.0.1:7860\n",
            b'POST /gradio_api/queue/join\norigin:null\n{"data":[{"path":"/etc/passwd"}],"fn_index":1}',
            b"POST /gradio_api/upload\ncontent-length:99\nabc",
            b"GET /gradio_api/file=/etc/hostname\nsec-fetch-site:cross-site\n",
        ),
        37,
        (b"/gradio_api/", b"queue/join", b"origin:", b'"path"', b'"url"', b"content-length:", b"http://"),
    ),
}
