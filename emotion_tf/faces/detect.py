"""Face detection: box, score and five landmarks, by YuNet or MTCNN."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from emotion_tf.config import CropConfig
from emotion_tf.errors import UserError
from emotion_tf.quiet import start_tensorflow

LONG_SIDE = 640
SCORE = 0.7
YUNET = Path(__file__).with_name("face_detection_yunet_2023mar.onnx")  # of OpenCV Zoo; its licence lies beside it
NMS_OVERLAP = 0.3  # non-maximum suppression drops the weaker of two boxes that overlap more


@dataclass(frozen=True)
class Face:
    """A detected face, in pixels of the image.

    Attributes:
        box: float (4,): left, top, width, height; may extend beyond the image.
        score: confidence in 0..1.
        landmarks: float (5, 2), x and y: left eye, right eye, nose tip, left and right corner of the mouth, with left
            and right as seen in the image.
    """

    box: np.ndarray
    score: float
    landmarks: np.ndarray


Detector = Callable[[np.ndarray], list[Face]]
"""Image uint8 (H, W, 3) BGR -> faces, by decreasing score."""


class YuNet:
    """YuNet (Wu et al. 2023, "YuNet: A Tiny Millisecond-level Face Detector") through OpenCV.

    YuNet was trained on faces of up to about 300 px and misses larger ones. Images are therefore resized to a long side
    of 640 pixels, and to half of that if no face is found.

    Raises:
        UserError: the model file does not exist or is not a YuNet model.
    """

    def __init__(self, model: Path, score: float = SCORE, long_side: int = LONG_SIDE) -> None:
        if not model.is_file():
            raise UserError(
                f"No face detector at {model}. Expected YuNet's ONNX file. Leave --faces.detector-model out to use the "
                "one that comes with the program."
            )
        try:
            self._net = cv2.FaceDetectorYN.create(str(model), "", (320, 320), score, NMS_OVERLAP, 500)
        except cv2.error:
            raise UserError(f"{model} is not a YuNet model. Expected {YUNET.name}.") from None
        self._long_side = long_side

    def __call__(self, pixels: np.ndarray) -> list[Face]:
        """Returns the faces of an image uint8 (H, W, 3) BGR, by decreasing score."""
        for long_side in (self._long_side, self._long_side // 2):
            faces = self._detect(pixels, min(1.0, long_side / max(pixels.shape[:2])))
            if faces or max(pixels.shape[:2]) <= self._long_side // 2:
                break
        return faces

    def _detect(self, pixels: np.ndarray, scale: float) -> list[Face]:
        height, width = (max(1, round(scale * side)) for side in pixels.shape[:2])
        small = pixels if scale == 1 else cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
        self._net.setInputSize((width, height))
        rows = self._net.detect(small)[1]
        scales = np.array([pixels.shape[1] / width, pixels.shape[0] / height])
        faces = [
            Face(row[:4] * np.tile(scales, 2), float(row[14]), row[4:14].reshape(5, 2) * scales)
            for row in (() if rows is None else rows)
        ]
        return sorted(faces, key=lambda face: -face.score)


class Mtcnn:
    """MTCNN (Zhang et al. 2016) of the `mtcnn` package, which contains the weights. Slower than YuNet."""

    def __init__(self, score: float = SCORE, long_side: int = LONG_SIDE) -> None:
        start_tensorflow()  # the package imports it; this silences its log in each process
        from mtcnn import MTCNN

        self._net, self._score, self._long_side = MTCNN(), score, long_side

    def __call__(self, pixels: np.ndarray) -> list[Face]:
        """Returns the faces of an image uint8 (H, W, 3) BGR, by decreasing score."""
        scale = min(1.0, self._long_side / max(pixels.shape[:2]))
        small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        points = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
        scales = np.array([pixels.shape[1] / small.shape[1], pixels.shape[0] / small.shape[0]])
        faces = [
            Face(
                np.array(detection["box"], float) * np.tile(scales, 2),
                float(detection["confidence"]),
                np.array([detection["keypoints"][point] for point in points], float) * scales,
            )
            for detection in self._net.detect_faces(cv2.cvtColor(small, cv2.COLOR_BGR2RGB)) or ()
            if detection["confidence"] >= self._score
        ]
        return sorted(faces, key=lambda face: -face.score)


def load_detector(name: str, model: Path | None = None) -> Detector:
    """Returns a detector of `config.crops.DETECTORS`; `model` is another file of YuNet than the package's.

    Raises:
        UserError: the file does not exist, or is not a YuNet model.
    """
    return YuNet(model or YUNET) if name == "yunet" else Mtcnn()


def detector_model(faces: CropConfig) -> Path | None:
    """Returns YuNet's model file after a check, or None for another detector.

    Raises:
        UserError: the file does not exist, or is not a YuNet model.
    """
    if faces.detector != "yunet":
        return None
    model = Path(faces.detector_model) if faces.detector_model else YUNET
    load_detector("yunet", model)  # raises for a broken file before any clip is read
    return model
