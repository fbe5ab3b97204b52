"""Frame sampling: decodes a clip once, in order, at a given rate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from emotion_tf.errors import UserError
from emotion_tf.faces.containers import open_clip


@dataclass(frozen=True)
class Frame:
    """A frame: seconds from the clip's start, and upright pixels uint8 (H, W, 3) BGR."""

    time: float
    pixels: np.ndarray


@dataclass(frozen=True)
class Segment:
    """A time span of a clip, in seconds; the whole clip by default."""

    path: Path
    start: float = 0.0
    end: float = float("inf")

    def name(self, root: Path | None = None) -> str:
        """Returns the path, relative to `root`, with the times as a W3C media fragment: `a/b.mp4#t=1.5,3`."""
        path = self.path.relative_to(root) if root and self.path.is_relative_to(root) else self.path
        end = f",{self.end:.10g}" if np.isfinite(self.end) else ""
        return f"{path.as_posix()}#t={self.start:.10g}{end}" if self.start or end else path.as_posix()


def parse_segment(name: str, root: Path) -> Segment:
    """Parses the result of `Segment.name`."""
    path, _, times = name.partition("#t=")
    start, _, end = times.partition(",")
    return Segment(root / path, float(start or 0), float(end or "inf"))


def frame_at(segments: Sequence[Segment], time: float) -> np.ndarray | None:
    """Returns the image uint8 (H, W, 3) BGR at a `Frame.time` of `read_segments`, or None if it cannot be read."""
    elapsed = segments[0].start if segments else 0.0
    for segment in segments:
        clip_time = segment.start + time - elapsed
        if clip_time < segment.end:
            try:
                # times are rounded to 0.1 ms
                return next(read_frames(segment.path, max_frames=1, start=max(0.0, clip_time - 2e-4))).pixels
            except UserError:
                return None
        elapsed += segment.end - segment.start
    return None


def read_segments(segments: Sequence[Segment], rate: float = 8.0, max_frames: int = 240) -> Iterator[Frame]:
    """Yields the frames of one or more segments as if they were joined.

    `Frame.time` counts from the start of the first clip. Each later segment begins where the previous one ends.

    Raises:
        UserError: a clip cannot be decoded, or no segment has a frame.
    """
    elapsed, any_frame = segments[0].start, False
    for i, segment in enumerate(segments):
        try:
            for frame in read_frames(
                segment.path, rate, max(1, max_frames // len(segments)), segment.start, segment.end
            ):
                any_frame = True
                yield Frame(elapsed + frame.time - segment.start, frame.pixels)
        except NoFrame:
            # a segment may be shorter than a frame
            if i == len(segments) - 1 and not any_frame:
                raise
        elapsed += segment.end - segment.start


def frame_rate(path: Path) -> float:
    """Returns the frames per second that the clip's container declares."""
    capture = open_clip(path)
    try:
        return capture.get(cv2.CAP_PROP_FPS) or 25.0
    finally:
        capture.release()


class NoFrame(UserError):
    """The segment of a clip has no frame."""


class OutsideClip(NoFrame):
    """The segment of a clip has no frame, but the clip has some."""


def read_frames(
    path: Path, rate: float = 8.0, max_frames: int = 240, start: float = 0.0, end: float = float("inf")
) -> Iterator[Frame]:
    """Yields frames of a clip at about `rate` frames per second.

    The frame count in a file may be wrong and frames may be unevenly spaced. Sampling therefore uses the time of each
    frame, and the clip ends where reading fails. Only sampled frames are converted to pixels. A clip with more than
    `max_frames` samples is sampled at a lower rate, not truncated. Rotation metadata is applied.

    Args:
        path: the clip.
        rate: frames per second.
        max_frames: largest number of frames.
        start: seconds from the clip's start of the first frame.
        end: seconds from the clip's start at which sampling ends.

    Raises:
        UserError: the file does not exist, is empty, or cannot be decoded by FFmpeg; or there is no frame from `start`
            to `end`.
    """
    capture = open_clip(path)
    try:
        length = min(end, _declared_length(capture)) - start
        step = max(1.0 / rate, length / max_frames if np.isfinite(length) else 0.0)
        count = 0
        for time in _times(capture, start):
            if time >= end or count == max_frames:
                break
            if time >= start + (count * step) - 1e-6:
                ok, pixels = capture.retrieve()
                if not ok:
                    break
                count = max(count + 1, int((time - start) / step + 1e-6) + 1)
                yield Frame(time, pixels)
        if not count:
            raise _no_frame(capture, path, start, end)
    finally:
        capture.release()


def _declared_length(capture: cv2.VideoCapture) -> float:
    """Returns the length in seconds that the container declares, or infinity. It only sets the sampling step."""
    rate, count = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
    return count / rate if rate > 0 and count > 0 else float("inf")


def _times(capture: cv2.VideoCapture, start: float) -> Iterator[float]:
    """Grabs frame after frame and yields the time of each; counts frames if the container has no times."""
    if start > 0:
        capture.set(cv2.CAP_PROP_POS_MSEC, 1000 * start)
    rate = capture.get(cv2.CAP_PROP_FPS) or 25.0
    last = -1.0
    while capture.grab():
        time = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        last = time if time > last else max(last, 0.0) + 1.0 / rate
        yield last


def _no_frame(capture: cv2.VideoCapture, path: Path, start: float, end: float) -> NoFrame:
    """Returns the error for a segment without a frame."""
    length = _declared_length(capture)
    capture.set(cv2.CAP_PROP_POS_MSEC, 0)
    if not capture.grab():
        return NoFrame(f"Cannot decode the clip {path}: no frame can be read. Expected a video.")
    span = f"from {start:g} to {end:g}" if np.isfinite(end) else f"after {start:g}"
    until = f", which lasts {length:.1f} seconds," if length <= start else ""
    return OutsideClip(f"The clip {path}{until} has no frame {span} seconds. Expected a time inside the clip.")
