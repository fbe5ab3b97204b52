"""Video files: FFmpeg opens a file of one of the `CONTAINERS`, and no other file that it names.

FFmpeg also reads play lists and patterns of names, by which a file opens others, and addresses. It is therefore given
an absolute path, one protocol and the container formats; and the first bytes are checked before. External tracks of a
MOV (`enable_drefs`) are off by default, and segments that a Matroska file links are not implemented.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

# FFmpeg logs a line for each damaged frame; our own errors replace them. cv2 reads the variable on import.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

import cv2

from emotion_tf import files
from emotion_tf.errors import UserError

MAX_PIXELS = 36 * 1024 * 1024
"""Largest frame: 8K video has 7680 x 4320 pixels."""
MAX_BYTES = 1 << 40
BEGINS = {
    "mov": rb".{4}(?:ftyp|moov|mdat|free|skip|wide)",
    "matroska": rb"\x1a\x45\xdf\xa3",
    "avi": rb"RIFF.{4}AVI ",
    # packets of 188 bytes, or of 192 with a time code before each
    "mpegts": rb"G.{187}G|.{4}G.{191}G",
    "mpeg": rb"\x00\x00\x01\xba",
    "flv": rb"FLV\x01",
    "ogg": rb"OggS",
    "asf": rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11",
}
"""FFmpeg's name of a format -> pattern of the first bytes of its files."""
CONTAINERS = "MP4, MOV, Matroska, WebM, AVI, MPEG, FLV, Ogg or WMV"
OPTIONS = f"protocol_whitelist;file|format_whitelist;{','.join(BEGINS)}"

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def open_clip(path: Path) -> cv2.VideoCapture:
    """Opens a video file for reading, with as many threads as OpenCV uses.

    Raises:
        UserError: the file does not exist, is empty, is in no known container, has frames of more than `MAX_PIXELS`, or
            cannot be decoded.
    """
    with files.open_regular(path, MAX_BYTES, "clip", "a video") as file:
        head = file.read(256)
    if not head:
        raise UserError(f"Cannot decode the clip {path}: the file is empty. Expected a video.")
    capture = _capture(path) if _is_container(head) else None
    if capture is None or not capture.isOpened():
        raise UserError(
            f"Cannot decode the clip {path}. Expected a video in one file: {CONTAINERS}. Received a file that begins "
            f"with {head[:12]!r}."
        )
    width, height = (int(capture.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    if width * height > MAX_PIXELS:  # known before a frame is decoded
        capture.release()
        raise UserError(
            f"Cannot decode the clip {path}. Expected frames of at most {MAX_PIXELS >> 20} megapixels. Received: "
            f"{width} x {height}."
        )
    return capture


def _capture(path: Path) -> cv2.VideoCapture:
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = OPTIONS  # read by each call
    parameters = [cv2.CAP_PROP_N_THREADS, max(1, cv2.getNumThreads())]
    return cv2.VideoCapture(os.path.abspath(path), cv2.CAP_FFMPEG, parameters)


def _is_container(head: bytes) -> bool:
    return any(re.match(pattern, head, re.DOTALL) for pattern in BEGINS.values())
