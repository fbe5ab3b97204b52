"""Synthetic faces and clips, and a detector that finds them without a model.

Importable by name, so that the processes of a pool can load it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import cv2
import numpy as np

from emotion_tf.faces.align import TEMPLATE
from emotion_tf.faces.detect import Detector, Face

SIDE = 120  # side of a face in pixels; its landmarks are those of the template
MARK = (255, 0, 255)  # colour of a face's rim, which nothing else has


def draw_face(seed: int, open_mouth: float = 0.0, blink: bool = False) -> np.ndarray:
    """Draws a textured face uint8 (SIDE, SIDE, 3) with eyes and mouth at the template's landmarks and a marked rim."""
    rng = np.random.default_rng(seed)
    texture = cv2.resize(rng.integers(90, 170, (12, 12, 3)).astype(np.uint8), (SIDE, SIDE))
    eyes, mouth = (TEMPLATE[:2] * SIDE).astype(int), (TEMPLATE[3:].mean(axis=0) * SIDE).astype(int)
    for x, y in eyes:
        cv2.ellipse(texture, (int(x), int(y)), (12, 1 if blink else 7), 0, 0, 360, (30, 30, 30), -1)
    cv2.ellipse(texture, (int(mouth[0]), int(mouth[1])), (18, 2 + round(14 * open_mouth)), 0, 0, 360, (20, 20, 120), -1)
    cv2.rectangle(texture, (0, 0), (SIDE - 1, SIDE - 1), MARK, 4)
    return texture


def detect_faces(pixels: np.ndarray) -> list[Face]:
    """Returns the faces whose rims are in the image, the largest first."""
    rim = cv2.inRange(pixels, (200, 0, 200), (255, 60, 255))
    outlines = cv2.findContours(rim, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]
    boxes = [np.array(cv2.boundingRect(line), float) for line in outlines if cv2.contourArea(line) > 400]
    return [
        Face(box, 0.9, box[:2] - 0.5 + TEMPLATE * box[2:])
        for box in sorted(boxes, key=lambda box: (-box[2] * box[3], box[0]))
    ]


def draw_scene(faces: list[tuple[np.ndarray, tuple[int, int]]], colour=(60, 110, 60), size=(240, 480)) -> np.ndarray:
    """Draws an image uint8 (H, W, 3) with faces at (left, top)."""
    rng = np.random.default_rng(colour)
    picture = np.full((*size, 3), colour, np.uint8)
    for _ in range(12):  # furniture, whose places depend on the colour
        x, y = int(rng.integers(size[1])), int(rng.integers(size[0]))
        cv2.rectangle(picture, (x, y), (x + 90, y + 70), [int(c * rng.uniform(0.2, 1.6)) for c in colour], -1)
    for face, (left, top) in faces:
        picture[top : top + face.shape[0], left : left + face.shape[1]] = face
    return picture


# an image of one of these colours hangs or crashes the detector, makes it ask for much memory, or kills its parent
HANG, CRASH, HUNGRY, LETHAL = (255, 255, 0), (0, 255, 255), (0, 0, 255), (255, 0, 0)


def detect_or_fail(pixels: np.ndarray) -> list[Face]:
    """`detect_faces`, which hangs, exits, asks for 3 GB or kills its parent on an image of one colour."""
    corner = pixels[:40, :40].reshape(-1, 3).mean(axis=0)
    if np.abs(corner - HANG).max() < 30:
        time.sleep(1000)
    if np.abs(corner - CRASH).max() < 30:
        os._exit(3)
    if np.abs(corner - HUNGRY).max() < 30:
        np.empty(3 * 1024**3, np.uint8)
    if np.abs(corner - LETHAL).max() < 30:
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(1000)
    return detect_faces(pixels)


def load_detector(name: str = "", model: Path | None = None) -> Detector:
    """Replaces `faces.detect.load_detector`."""
    return detect_or_fail


def write_clip(path: Path, pictures: list[np.ndarray], rate: float = 24.0) -> Path:
    """Writes images as a clip."""
    path.parent.mkdir(parents=True, exist_ok=True)
    size = pictures[0].shape[1], pictures[0].shape[0]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), rate, size)
    for picture in pictures:
        writer.write(picture)
    writer.release()
    return path


def write_speaker(path: Path, seed: int = 0, frames: int = 36) -> Path:
    """Writes a clip of one face that speaks."""
    return write_clip(path, [draw_scene([(draw_face(seed, 0.5 + 0.5 * np.sin(n)), (60, 60))]) for n in range(frames)])


def write_empty(path: Path, colour: tuple[int, int, int] = (60, 110, 60), frames: int = 24) -> Path:
    """Writes a clip without a face, or of one plain colour if it is HANG, CRASH, HUNGRY or LETHAL."""
    still = (
        np.full((240, 480, 3), colour, np.uint8) if colour in (HANG, CRASH, HUNGRY, LETHAL) else draw_scene([], colour)
    )
    return write_clip(path, [still] * frames)
