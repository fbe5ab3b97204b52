"""Which files FFmpeg opens: one video in one file, and no other file that it names."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import modules_with

from emotion_tf.errors import UserError
from emotion_tf.faces import containers
from emotion_tf.faces.containers import open_clip
from emotion_tf.faces.frames import read_frames

FRAMES = 10
CODECS = {
    "mp4": "mp4v", "mov": "mp4v", "m4v": "mp4v", "3gp": "mp4v", "mkv": "mp4v", "webm": "VP80", "avi": "MJPG",
    "ts": "mp4v", "m2ts": "mpg2", "vob": "mpg2", "flv": "FLV1", "wmv": "WMV2",
    "y4m": "I420", "nut": "mp4v", "rm": "RV10",
}  # fmt: skip


def write(path: Path, codec: str, brightness: int = 100, frames: int = FRAMES) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 10.0, (64, 48))
    for _ in range(frames):
        writer.write(np.full((48, 64, 3), brightness, np.uint8))
    writer.release()
    assert path.exists()
    return path


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """A folder with a video of each kind."""
    folder = tmp_path_factory.mktemp("videos")
    for ending, codec in CODECS.items():
        write(folder / f"a.{ending}", codec)
    return folder


@pytest.mark.parametrize("ending", list(CODECS)[:12])
def test_videos_are_read(ending, videos, tmp_path):
    assert len(list(read_frames(videos / f"a.{ending}", rate=100))) == FRAMES
    unnamed = tmp_path / "upload"
    shutil.copy(videos / f"a.{ending}", unnamed)
    assert len(list(read_frames(unnamed, rate=100))) == FRAMES


@pytest.fixture
def traps(videos, tmp_path):
    """Files that FFmpeg plays by opening others, or that are no container of a video."""
    for name in ("a.ts", "a.avi", "a.mp4", "a.y4m", "a.nut", "a.rm"):
        shutil.copy(videos / name, tmp_path)
    for i in range(3):
        cv2.imwrite(str(tmp_path / f"im{i:02d}.png"), np.zeros((20, 30, 3), np.uint8))
    texts = {
        "list.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{tmp_path}/a.ts\n#EXT-X-ENDLIST\n",
        "list.mp4": "ffconcat version 1.0\nfile a.avi\n",
        "list.mpd": f"<?xml version='1.0'?><MPD><Period><BaseURL>file://{tmp_path}/a.mp4</BaseURL></Period></MPD>",
        "list.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
        "im%02d.png": "pattern",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    return [
        *(tmp_path / name for name in texts),
        *(tmp_path / f"a.{e}" for e in ("y4m", "nut", "rm")),
        tmp_path / "im00.png",
    ]


def test_play_lists_and_patterns_reach_no_decoder(traps, monkeypatch):
    monkeypatch.setattr(containers, "_capture", lambda path: pytest.fail("FFmpeg opens it"))
    for path in traps:
        with pytest.raises(UserError, match="Expected a video in one file: MP4, .* begins with") as caught:
            list(read_frames(path))
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_ffmpeg_refuses_play_lists_and_patterns_as_well(traps, monkeypatch):
    monkeypatch.setattr(containers, "_is_container", lambda head: True)
    for path in traps:
        with pytest.raises(UserError, match="Expected a video in one file"):
            list(read_frames(path))


def test_a_name_is_no_address(videos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(videos / "a.ts", "a.ts")
    names = (
        "concat:a.ts|a.ts",
        "-",
        "subfile,,start,0,end,0,,:a.ts",
        "http:x.mp4",
        "crypto:a.ts",
        "im%02d.mp4",
        "file:x",
    )
    for name in names:
        write(tmp_path / "b.mp4", "mp4v", frames=4).rename(name)
        assert len(list(read_frames(Path(name), rate=100))) == 4
        Path(name).unlink()
        with pytest.raises(UserError, match="No such file"):
            list(read_frames(Path(name)))


def _with_external_track(data: bytes, path: Path) -> bytes:
    """Returns a MOV whose track refers to another file, by an alias record with an absolute path."""
    name = str(path).encode() + b"\0" * (len(str(path)) % 2)
    alias = b"\0" * 50 + b"\5a.mov".ljust(64, b"\0") + b"\0" * 16 + struct.pack(">HH", 1, 1) + b"\0" * 16
    alias += struct.pack(">HH", 2, len(name)) + name + struct.pack(">HH", 0xFFFF, 0)
    entry = struct.pack(">I4sI", 12 + max(160, len(alias)), b"alis", 0) + alias.ljust(160, b"\0")
    start, length = data.index(b"dref") - 4, 28
    table = struct.pack(">I4sII", 16 + len(entry), b"dref", 0, 1) + entry
    changed = bytearray(data[:start] + table + data[start + length :])
    for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
        at = data.index(box) - 4
        changed[at : at + 4] = struct.pack(">I", struct.unpack(">I", data[at : at + 4])[0] + len(table) - length)
    return bytes(changed)


def test_a_mov_opens_no_other_file(videos, tmp_path, monkeypatch):
    other = write(tmp_path / "other.mov", "mp4v", brightness=250)
    path = tmp_path / "alias.mov"
    path.write_bytes(_with_external_track((videos / "a.mov").read_bytes(), other))
    monkeypatch.setenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", "enable_drefs;1|use_absolute_path;1")
    assert cv2.VideoCapture(str(path), cv2.CAP_FFMPEG).read()[1].mean() > 200  # the other file
    with pytest.raises(UserError, match="no frame can be read"):
        list(read_frames(path))


def test_a_large_frame_is_not_decoded(tmp_path, monkeypatch):
    path = write(tmp_path / "a.avi", "I420")
    data = bytearray(path.read_bytes())
    at = data.index(b"strf") + 12
    data[at : at + 8] = struct.pack("<II", 12_000, 12_000)
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"at most 36 megapixels. Received: 12000 x 12000\."):
        open_clip(path)


def test_one_module_opens_videos():
    assert modules_with(r"\bVideoCapture\(") == ["emotion_tf/faces/containers.py"]
