"""How faces are found in clips."""

from __future__ import annotations

from dataclasses import dataclass

from emotion_tf.config import rules

DETECTORS = {
    "yunet": "fast; its weights are fetched once",
    "mtcnn": "slow; its weights come with the package",
}
POLICIES = {
    "speaking": "the face whose mouth moves most against the rest of it",
    "largest": "the largest on average over its frames",
    "centre": "the nearest to the middle of the picture",
    "longest": "the one that is seen for the longest time",
    "boxes": "the one that given boxes name",
}


@dataclass(frozen=True)
class CropConfig:
    """How the face that an utterance belongs to is found in a clip: the `--faces.*` options."""

    detector: str = "yunet"
    """yunet (fast; fetched once), or mtcnn (slow; its weights come with the package)."""
    detector_model: str = ""
    """YuNet's ONNX file, in place of the one that `weights fetch yunet` keeps."""
    rate: float = 8.0
    """Sampled frames a second."""
    most_frames: int = 240
    """At most so many frames of a clip; a longer one is sampled more thinly."""
    policy: str = "speaking"
    """Which face: speaking (the mouth that moves), largest, centre, longest, boxes (given ones)."""
    crops: int = 4
    """At most so many crops of an utterance, sharp ones spread over its time."""
    seconds: float = 120.0
    """A clip that takes longer is given up; its utterance keeps its text."""

    def __post_init__(self) -> None:
        """Refuses what makes no sense."""
        rules.one_of("faces.detector", self.detector, DETECTORS)
        rules.one_of("faces.policy", self.policy, POLICIES)
        for name in ("rate", "seconds"):
            rules.number(f"faces.{name}", getattr(self, name), 0, open_below=True)
        for name in ("most_frames", "crops"):
            rules.number(f"faces.{name}", getattr(self, name), 1)
