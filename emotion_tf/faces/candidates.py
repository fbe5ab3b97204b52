"""All faces of a photo or a clip, with annotated frames, so that a person can select one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from emotion_tf.config import CropConfig
from emotion_tf.faces.crops import NO_FACE, PHOTO, FaceCrops, crop_candidates
from emotion_tf.faces.detect import Detector
from emotion_tf.faces.frames import Frame, Segment, frame_at, read_segments
from emotion_tf.faces.track import find_tracks

LONG_SIDE = 640
MAX_CANDIDATES = 24
FIRST_COLOUR, OTHER_COLOUR = (40, 170, 40), (30, 90, 220)  # BGR


@dataclass(frozen=True)
class AnnotatedFrame:
    """A frame with a box and a number drawn on each face.

    Attributes:
        jpeg: the frame, its long side at most 640 px.
        time: seconds from the clip's start.
        numbers: numbers of the annotated faces, from 1.
    """

    jpeg: bytes
    time: float
    numbers: tuple[int, ...]


@dataclass(frozen=True)
class Candidates:
    """The faces to select from.

    Attributes:
        faces: the crops of each face. The first is the face that `prepare` would select.
        frames: annotated frames that show every face once.
        problem: why there is no face, as in `FaceCrops`.
        detail: details of the problem, for messages.
    """

    faces: tuple[FaceCrops, ...] = ()
    frames: tuple[AnnotatedFrame, ...] = ()
    problem: str = ""
    detail: str = ""


def find_in_photo(pixels: np.ndarray, detect: Detector, size: int) -> Candidates:
    """Returns the faces of a photo uint8 (H, W, 3) BGR, the largest first, with crops of `size` pixels."""
    faces = crop_candidates(find_tracks([Frame(0.0, pixels)], detect), PHOTO, size)[:MAX_CANDIDATES]
    return _annotate(faces, lambda time: pixels)


def find_in_clip(path: Path, detect: Detector, config: CropConfig, size: int) -> Candidates:
    """Returns the faces of a clip, the active speaker first.

    Raises:
        UserError: the clip cannot be decoded.
    """
    segments = [Segment(path)]
    tracking = find_tracks(read_segments(segments, config.rate, config.most_frames), detect)
    faces = crop_candidates(tracking, config, size)[:MAX_CANDIDATES]
    return _annotate(faces, lambda time: frame_at(segments, time))


def _annotate(faces: list[FaceCrops], read_frame: Callable[[float], np.ndarray | None]) -> Candidates:
    if not faces:
        return Candidates(problem=NO_FACE)
    by_time: dict[float, list[int]] = {}
    for i, face in enumerate(faces):
        by_time.setdefault(face.times[len(face.times) // 2], []).append(i)
    frames = []
    for time, indices in by_time.items():
        pixels = read_frame(time)
        if pixels is not None:
            boxes = {i + 1: faces[i].boxes[len(faces[i].boxes) // 2] for i in indices}
            frames.append(AnnotatedFrame(_draw_boxes(pixels, boxes), time, tuple(boxes)))
    return Candidates(tuple(faces), tuple(frames))


def _draw_boxes(pixels: np.ndarray, boxes: dict[int, tuple[float, ...]]) -> bytes:
    scale = min(1.0, LONG_SIDE / max(pixels.shape[:2]))
    image = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else pixels.copy()
    for number, box in sorted(boxes.items(), reverse=True):  # the first face is drawn last, on top
        left, top, width, height = (round(x * scale) for x in box)
        colour = FIRST_COLOUR if number == 1 else OTHER_COLOUR
        cv2.rectangle(image, (left, top), (left + width, top + height), colour, 2)
        x, y = max(left, 0), max(top, 20)
        cv2.rectangle(image, (x, y - 20), (x + 12 + 10 * len(str(number)), y), colour, -1)
        cv2.putText(image, str(number), (x + 5, y - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (255, 255, 255), 2)
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
