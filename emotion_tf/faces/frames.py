"""A clip's frames: decoded once, in order, at a chosen rate, until reading fails."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

# FFmpeg prints a line for each damaged frame; what is wrong with a clip is told by us. Read when cv2 is imported.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

import cv2
import numpy as np

from emotion_tf.errors import UserError

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


@dataclass(frozen=True)
class Frame:
    """One frame: seconds from the clip's start, and its upright pixels uint8 (H, W, 3) in OpenCV's order BGR."""

    time: float
    pixels: np.ndarray


@dataclass(frozen=True)
class Piece:
    """A part of a clip, in seconds; by default all of it."""

    path: Path
    start: float = 0.0
    end: float = float("inf")

    def name(self, root: Path | None = None) -> str:
        """The path (below `root`) with the times as a media fragment: `a/b.mp4#t=1.5,3` (W3C Media Fragments)."""
        path = self.path.relative_to(root) if root and self.path.is_relative_to(root) else self.path
        end = f",{self.end:g}" if np.isfinite(self.end) else ""
        return f"{path.as_posix()}#t={self.start:g}{end}" if self.start or end else path.as_posix()


def parse_piece(name: str, root: Path) -> Piece:
    """The reverse of `Piece.name`."""
    path, _, times = name.partition("#t=")
    start, _, end = times.partition(",")
    return Piece(root / path, float(start or 0), float(end or "inf"))


def frame_at(pieces: Sequence[Piece], time: float) -> np.ndarray | None:
    """The picture uint8 (H, W, 3) BGR at a time as `read_pieces` counts it; None when it cannot be read any more."""
    elapsed = pieces[0].start
    for piece in pieces:
        inside = piece.start + time - elapsed
        if inside < piece.end:
            try:
                # times are kept to a tenth of a millisecond
                return next(read_frames(piece.path, most=1, start=max(0.0, inside - 2e-4))).pixels
            except UserError:
                return None
        elapsed += piece.end - piece.start
    return None


def read_pieces(pieces: Sequence[Piece], rate: float = 8.0, most: int = 240) -> Iterator[Frame]:
    """Frames of an utterance whose film lies in one or more pieces, as if they were joined.

    A frame's time counts from the first clip's start; those of later pieces follow on the first piece's end.

    Raises:
        UserError: a clip that cannot be decoded, or no frame in any piece.
    """
    elapsed, seen = pieces[0].start, False
    for n, piece in enumerate(pieces):
        try:
            for frame in read_frames(piece.path, rate, max(1, most // len(pieces)), piece.start, piece.end):
                seen = True
                yield Frame(elapsed + frame.time - piece.start, frame.pixels)
        except NoFrame:
            # a piece may be shorter than a frame
            if n == len(pieces) - 1 and not seen:
                raise
        elapsed += piece.end - piece.start


def frame_rate(path: Path) -> float:
    """Frames a second as the clip's container has it."""
    capture = _open(path)
    try:
        return capture.get(cv2.CAP_PROP_FPS) or 25.0
    finally:
        capture.release()


class NoFrame(UserError):
    """No frame lies in the wanted part of a clip."""


def read_frames(
    path: Path, rate: float = 8.0, most: int = 240, start: float = 0.0, end: float = float("inf")
) -> Iterator[Frame]:
    """Frames of a clip at about `rate` a second.

    The count that a file claims may be wrong, and its frames need not be evenly spaced: so each frame's own time
    decides, and the clip ends where reading fails. Only frames that are wanted are converted to pixels. A clip too long
    for `most` frames is sampled more thinly instead of being cut. Rotation metadata is applied.

    Args:
        path: the clip.
        rate: frames a second.
        most: at most so many frames.
        start: seconds from the clip's start where the first frame is taken.
        end: seconds where the last one is.

    Raises:
        UserError: the file is absent, empty, or no video that FFmpeg can decode; no frame lies in the window.
    """
    capture = _open(path)
    try:
        length = min(end, _claimed_length(capture)) - start
        step = max(1.0 / rate, length / most if np.isfinite(length) else 0.0)
        count = 0
        for time in _times(capture, start):
            if time >= end or count == most:
                break
            if time >= start + (count * step) - 1e-6:
                ok, pixels = capture.retrieve()
                if not ok:
                    break
                count = max(count + 1, int((time - start) / step + 1e-6) + 1)
                yield Frame(time, pixels)
        if not count:
            raise NoFrame(_no_frame(path, start, end))
    finally:
        capture.release()


def _open(path: Path) -> cv2.VideoCapture:
    if not path.is_file():
        raise UserError(f"Cannot read the clip {path}: No such file. Expected a video.")
    if not path.stat().st_size:
        raise UserError(f"Cannot decode the clip {path}: it is an empty file. Expected a video.")
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        with path.open("rb") as file:
            head = file.read(12)
        raise UserError(f"Cannot decode the clip {path}. Expected a video such as MP4. It begins {head!r}.")
    return capture


def _claimed_length(capture: cv2.VideoCapture) -> float:
    """Seconds as the container has them; infinite when it does not say. Good enough to choose a step."""
    rate, count = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
    return count / rate if rate > 0 and count > 0 else float("inf")


def _times(capture: cv2.VideoCapture, start: float) -> Iterator[float]:
    """Moves frame by frame and tells the time of each; a container without times is counted."""
    if start > 0:
        capture.set(cv2.CAP_PROP_POS_MSEC, 1000 * start)
    rate = capture.get(cv2.CAP_PROP_FPS) or 25.0
    last = -1.0
    while capture.grab():
        time = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        last = time if time > last else max(last, 0.0) + 1.0 / rate
        yield last


def _no_frame(path: Path, start: float, end: float) -> str:
    if start > 0 or np.isfinite(end):
        return f"The clip {path} has no frame from {start:g} to {end:g} seconds. Expected a time inside the clip."
    return f"Cannot decode the clip {path}: not one frame can be read. Expected a video."
