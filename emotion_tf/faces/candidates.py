"""All faces of a photo or of a clip, with pictures of where they are, for somebody to choose from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from emotion_tf.config import CropConfig
from emotion_tf.faces.crops import NO_FACE, PHOTO, FaceCrops, crop_each
from emotion_tf.faces.detect import Detector
from emotion_tf.faces.frames import Frame, Piece, frame_at, read_pieces
from emotion_tf.faces.track import find_tracks

LONG_SIDE = 640
MOST = 24
"""Faces to choose from, at most."""
CHOSEN, OTHER = (40, 170, 40), (30, 90, 220)  # OpenCV's BGR


@dataclass(frozen=True)
class Scene:
    """A picture in which faces were found.

    Attributes:
        jpeg: the frame, its long side at most 640 px, each face with its box and number.
        time: seconds from the clip's start.
        numbers: of the faces that are marked in it, from 1.
    """

    jpeg: bytes
    time: float
    numbers: tuple[int, ...]


@dataclass(frozen=True)
class Candidates:
    """The faces to choose from.

    Attributes:
        faces: the crops of each; the first is the one that `prepare` would keep.
        scenes: pictures in which each of them is marked once.
        problem: why there is no face, as in `FaceCrops`.
        detail: more of it, for people.
    """

    faces: tuple[FaceCrops, ...] = ()
    scenes: tuple[Scene, ...] = ()
    problem: str = ""
    detail: str = ""


def in_photo(pixels: np.ndarray, detect: Detector, size: int) -> Candidates:
    """The faces in a photo uint8 (H, W, 3) BGR, the largest first; crops of `size` pixels."""
    faces = crop_each(find_tracks([Frame(0.0, pixels)], detect), PHOTO, size)[:MOST]
    return _candidates(faces, lambda time: pixels)


def in_clip(path: Path, detect: Detector, config: CropConfig, size: int) -> Candidates:
    """The faces in a clip, the one that speaks first.

    Raises:
        UserError: the clip cannot be decoded.
    """
    pieces = [Piece(path)]
    found = find_tracks(read_pieces(pieces, config.rate, config.most_frames), detect)
    return _candidates(crop_each(found, config, size)[:MOST], lambda time: frame_at(pieces, time))


def _candidates(faces: list[FaceCrops], frame: Callable[[float], np.ndarray | None]) -> Candidates:
    if not faces:
        return Candidates(problem=NO_FACE)
    at: dict[float, list[int]] = {}
    for n, face in enumerate(faces):
        at.setdefault(face.times[len(face.times) // 2], []).append(n)
    scenes = []
    for time, numbers in at.items():
        pixels = frame(time)
        if pixels is not None:
            boxes = {n + 1: faces[n].boxes[len(faces[n].boxes) // 2] for n in numbers}
            scenes.append(Scene(_marked(pixels, boxes), time, tuple(boxes)))
    return Candidates(tuple(faces), tuple(scenes))


def _marked(pixels: np.ndarray, boxes: dict[int, tuple[float, ...]]) -> bytes:
    scale = min(1.0, LONG_SIDE / max(pixels.shape[:2]))
    drawn = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else pixels.copy()
    for number, box in sorted(boxes.items(), reverse=True):  # the first face lies on top
        left, top, width, height = (round(x * scale) for x in box)
        colour = CHOSEN if number == 1 else OTHER
        cv2.rectangle(drawn, (left, top), (left + width, top + height), colour, 2)
        at = (max(left, 0), max(top, 20))
        cv2.rectangle(drawn, (at[0], at[1] - 20), (at[0] + 12 + 10 * len(str(number)), at[1]), colour, -1)
        cv2.putText(drawn, str(number), (at[0] + 5, at[1] - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (255, 255, 255), 2)
    return cv2.imencode(".jpg", drawn, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
