"""Configuration of face detection, tracking and cropping in video clips."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from emotion_tf.config import rules
from emotion_tf.config.rules import Range

DETECTORS = {
    "yunet": "YuNet (Wu 2023): fast",
    "mtcnn": "MTCNN (Zhang 2016): slow",
}
POLICIES = {
    "speaking": "face whose mouth moves most, relative to the rest of the face",
    "largest": "largest face, on average over its frames",
    "centre": "face nearest to the centre of the frame",
    "longest": "face with the longest track",
    "boxes": "face inside the bounding boxes of the table (MELD-FAIR)",
}


@dataclass(frozen=True)
class CropConfig:
    """How the active speaker's face is found in a clip."""

    detector: Annotated[str, rules.names(DETECTORS)] = "yunet"
    """Face detector."""
    detector_model: Annotated[str, rules.value("FILE")] = ""
    """ONNX file of YuNet. Empty: the file that comes with the program."""
    rate: Annotated[float, Range(0, 1000, above=True)] = 8.0
    """Frames to sample per second."""
    most_frames: Annotated[int, Range(1, 10_000)] = 240
    """Maximum number of frames per clip. Longer clips are sampled at a lower rate."""
    policy: Annotated[str, rules.names(POLICIES)] = "speaking"
    """Selection of the active speaker among several faces."""
    crops: Annotated[int, Range(1, 1000)] = 4
    """Maximum number of crops per utterance: sharp frames, spread over its duration."""
    seconds: Annotated[float, Range(0, 86_400, above=True)] = 120.0
    """Time limit per clip in seconds. After it the clip is skipped; its utterance keeps its text."""

    def __post_init__(self) -> None:
        """Raises UserError for an invalid value."""
        rules.one_of("faces.detector", self.detector, DETECTORS)
        rules.one_of("faces.policy", self.policy, POLICIES)
        rules.check_fields(self, "faces")
