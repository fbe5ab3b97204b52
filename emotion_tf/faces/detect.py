"""Faces in a picture: box, score, five landmarks. Two detectors with one result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from emotion_tf import weights
from emotion_tf.config import CropConfig
from emotion_tf.errors import UserError
from emotion_tf.program import program
from emotion_tf.quiet import start_tensorflow

LONG_SIDE = 640
SCORE = 0.7
OVERLAP = 0.3  # of two boxes: the weaker is the same face


@dataclass(frozen=True)
class Face:
    """One detected face, in pixels of the picture.

    Attributes:
        box: float (4,): left, top, width, height; may reach over the picture's edge.
        score: 0..1.
        landmarks: float (5, 2), x and y: the eye on the picture's left, the other eye, nose tip, the corner of the
            mouth on the picture's left, the other corner.
    """

    box: np.ndarray
    score: float
    landmarks: np.ndarray


Detector = Callable[[np.ndarray], list[Face]]
"""Picture uint8 (H, W, 3) BGR -> faces, best score first."""


class YuNet:
    """YuNet (Wu et al. 2023, "YuNet: A Tiny Millisecond-level Face Detector") through OpenCV.

    It was trained on faces of up to about 300 px and loses larger ones: pictures are shrunk to a long side of 640, and
    to half of it once more when nothing is found there.

    Raises:
        UserError: no such model file, or not a YuNet.
    """

    def __init__(self, model: Path, score: float = SCORE, long_side: int = LONG_SIDE) -> None:
        if not model.is_file():
            raise UserError(
                f"No face detector at {model}. Expected YuNet's ONNX file: {program()} weights fetch yunet, or name "
                "one with --faces.detector-model PATH, or take --faces.detector mtcnn."
            )
        try:
            self._net = cv2.FaceDetectorYN.create(str(model), "", (320, 320), score, OVERLAP, 500)
        except cv2.error:
            raise UserError(f"{model} is not a YuNet model. Expected face_detection_yunet_2023mar.onnx.") from None
        self._long_side = long_side

    def __call__(self, pixels: np.ndarray) -> list[Face]:
        """Faces of a picture uint8 (H, W, 3) BGR, best score first."""
        for long_side in (self._long_side, self._long_side // 2):
            found = self._detect(pixels, min(1.0, long_side / max(pixels.shape[:2])))
            if found or max(pixels.shape[:2]) <= self._long_side // 2:
                break
        return found

    def _detect(self, pixels: np.ndarray, scale: float) -> list[Face]:
        height, width = (max(1, round(scale * side)) for side in pixels.shape[:2])
        small = pixels if scale == 1 else cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
        self._net.setInputSize((width, height))
        rows = self._net.detect(small)[1]
        to_picture = np.array([pixels.shape[1] / width, pixels.shape[0] / height])
        faces = [
            Face(row[:4] * np.tile(to_picture, 2), float(row[14]), row[4:14].reshape(5, 2) * to_picture)
            for row in (() if rows is None else rows)
        ]
        return sorted(faces, key=lambda face: -face.score)


class Mtcnn:
    """MTCNN (Zhang et al. 2016) of the `mtcnn` package, whose wheel carries its weights: always there, and slow."""

    def __init__(self, score: float = SCORE, long_side: int = LONG_SIDE) -> None:
        start_tensorflow()  # the package needs it; quietly, in each process of a pool
        from mtcnn import MTCNN

        self._net, self._score, self._long_side = MTCNN(), score, long_side

    def __call__(self, pixels: np.ndarray) -> list[Face]:
        """Faces of a picture uint8 (H, W, 3) BGR, best score first."""
        scale = min(1.0, self._long_side / max(pixels.shape[:2]))
        small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        points = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
        to_picture = np.array([pixels.shape[1] / small.shape[1], pixels.shape[0] / small.shape[0]])
        faces = [
            Face(
                np.array(found["box"], float) * np.tile(to_picture, 2),
                float(found["confidence"]),
                np.array([found["keypoints"][p] for p in points], float) * to_picture,
            )
            for found in self._net.detect_faces(cv2.cvtColor(small, cv2.COLOR_BGR2RGB)) or ()
            if found["confidence"] >= self._score
        ]
        return sorted(faces, key=lambda face: -face.score)


def load_detector(name: str, model: Path | None = None) -> Detector:
    """The named detector (`config.crops.DETECTORS`). Raises UserError when YuNet's model file is not there."""
    return YuNet(model or Path("face_detection_yunet_2023mar.onnx")) if name == "yunet" else Mtcnn()


def fetch_yunet() -> Path:
    """Returns YuNet's model file, which is downloaded if it is not cached."""
    if weights.find("yunet") is None:
        print("Fetching yunet ...", flush=True)
    return weights.fetch("yunet")


def detector_model(faces: CropConfig) -> Path | None:
    """Returns YuNet's model file, checked; None for a detector whose package carries its weights.

    Raises:
        UserError: the file cannot be fetched, is not there, or is not a YuNet model.
    """
    if faces.detector != "yunet":
        return None
    model = Path(faces.detector_model) if faces.detector_model else fetch_yunet()
    load_detector("yunet", model)  # tells what is wrong with the file before any clip is read
    return model
