"""Pictures from elsewhere: the header is checked before a decoder runs."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import cv2
import hostile_pictures
import numpy as np
import pytest
from helpers import ROOT, modules_with
from hostile_pictures import BOMBS, SMALL

from emotion_tf import pictures

PIXELS = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)


def encode(ending: str, pixels: np.ndarray = PIXELS, *options: int) -> bytes:
    return cv2.imencode(ending, pixels, options)[1].tobytes()


VALID = {
    "jpeg": encode(".jpg"),
    "progressive jpeg": encode(".jpg", PIXELS, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "grey jpeg": encode(".jpg", PIXELS[..., 0]),
    "png": encode(".png"),
    "png, 16 bits, alpha": encode(".png", np.dstack([PIXELS, PIXELS[..., :1]]).astype(np.uint16) * 257),
    "webp": encode(".webp"),
    "tiff": encode(".tiff"),
    "tiff, 16 bits": encode(".tiff", PIXELS.astype(np.uint16) * 257),
    "grey tiff": encode(".tiff", PIXELS[..., 0]),
    "gif": encode(".gif"),
    "bmp": encode(".bmp"),
    "small scan": hostile_pictures.jpeg(SMALL, scans=1),
}


@pytest.mark.parametrize("kind", VALID)
def test_pictures_are_decoded_as_before(kind):
    expected = cv2.imdecode(np.frombuffer(VALID[kind], np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(pictures.decode(VALID[kind]), expected)


def test_the_first_frame_of_an_animation_is_decoded(tmp_path):
    for ending in ("png", "gif", "webp", "tiff"):
        path = str(tmp_path / f"a.{ending}")
        if ending == "tiff":
            assert cv2.imwritemulti(path, [PIXELS, PIXELS // 2])
        else:
            animation = cv2.Animation()
            animation.frames, animation.durations = [PIXELS, PIXELS // 2], [100, 100]
            assert cv2.imwriteanimation(path, animation)
        assert pictures.decode(Path(path).read_bytes()).shape == PIXELS.shape


def test_an_animated_png_is_its_still_picture():
    expected = pictures.decode(hostile_pictures.complete_png(SMALL))
    np.testing.assert_array_equal(pictures.decode(hostile_pictures.animated_png()), expected)


def test_a_damaged_frame_of_a_png_does_not_crash_the_decoder():
    """OpenCV 5.0 ends with a segmentation fault on some of these."""
    data = hostile_pictures.animated_png()
    start = data.index(b"fcTL")
    for n in range(start, len(data) - 12):
        try:
            pictures.decode(data[:n] + bytes([data[n] ^ 0xFF]) + data[n + 1 :])
        except ValueError as error:
            assert str(error).startswith(f"{len(data)} bytes")


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_reaches_no_decoder(kind, monkeypatch, capfd):
    monkeypatch.setattr(cv2, "imdecode", lambda *args: pytest.fail("the decoder was called"))
    with pytest.raises(ValueError, match="pixels|bytes that begin"):
        pictures.decode(BOMBS[kind])
    assert capfd.readouterr().err == ""


MEASURE = """
import resource, sys
sys.path.insert(0, "tests")
import cv2, hostile_pictures
from emotion_tf import pictures
bombs = [*hostile_pictures.BOMBS.values(), hostile_pictures.complete_png(hostile_pictures.LARGE)]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for data in bombs:
    try:
        pictures.decode(data)
    except ValueError:
        continue
    raise SystemExit("decoded")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_a_bomb_takes_no_memory_and_prints_nothing_when_opencv_has_no_limit():
    """OpenCV reads its limit when it is imported, which may be before this package is."""
    environment = {**os.environ, "OPENCV_IO_MAX_IMAGE_PIXELS": str(1 << 40)}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and int(done.stdout) < 100 and not done.stderr, done


def test_opencv_has_the_limit_as_well():
    assert os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] == str(pictures.MAX_PIXELS)


OTHER = {
    "avif": encode(".avif"),
    "hdr": encode(".hdr", PIXELS.astype(np.float32)),
    "pfm": encode(".pfm", PIXELS.astype(np.float32)),
    "ppm": encode(".ppm"),
    "pam": encode(".pam"),
    "sun": encode(".ras"),
    "jpeg 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0" * 99,
    "exr": b"\x76\x2f\x31\x01" + b"\0" * 99,
    "ico": b"\0\0\1\0" + b"\0" * 99,
    "big tiff": b"II+\0\x08\0\0\0" + b"\0" * 99,
    "svg": b"<svg/>",
    "a sound in RIFF": b"RIFF\x64\0\0\0WAVE" + b"\0" * 99,
    "nothing": b"",
}


@pytest.mark.parametrize("kind", OTHER)
def test_other_formats_reach_no_decoder(kind, monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", lambda *args: pytest.fail("the decoder was called"))
    with pytest.raises(ValueError, match="bytes that begin|an empty file"):
        pictures.decode(OTHER[kind])


def test_one_module_decodes_pictures():
    assert modules_with(r"\bim(decode|read)\w*\(|\bImage\.open\(") == ["emotion_tf/pictures.py"]


def test_the_libraries_of_pictures_print_nothing(capfd):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for suffix in (".png", ".jpg"):
        data = bytearray(cv2.imencode(suffix, noise)[1].tobytes())
        data[len(data) // 2 : len(data) // 2 + 40] = bytes(40)
        for content in (bytes(data), bytes(data[: len(data) // 3])):
            with contextlib.suppress(ValueError):
                pictures.decode(content)
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"
