"""The faces of a clip linked over time: a track is one face inside one shot."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from emotion_tf.faces.align import CROP_SIZE, align, shrunk
from emotion_tf.faces.detect import Detector, Face
from emotion_tf.faces.frames import Frame

SAME_FACE = 0.3  # least overlap of a face with itself one sampled frame later
LONGEST_GAP = 2  # sampled frames that a face may be missed in
SHORTEST = 3  # sampled frames; less is chance
CUTS = ((0.5, 0.93), (0.85, 0.6))  # likeness of layout and of colours; below both of a pair: a cut


@dataclass
class Track:
    """One face through one shot.

    Attributes:
        shot: number of the shot in the clip.
        index: number of the sampled frame of each face.
        times: seconds of each.
        faces: the detections.
        crops: aligned crops uint8 (112, 112, 3) BGR.
    """

    shot: int
    index: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    faces: list[Face] = field(default_factory=list)
    crops: list[np.ndarray] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.faces)


@dataclass(frozen=True)
class Look:
    """A frame reduced to where it is light and dark, float (576,), and its colours, float32 (256,), of length 1.

    A cut changes both. Flickering light leaves the layout as it is, a moving camera or a turning head the colours.
    Two numbers a frame that is decoded anyway are enough here: PySceneDetect would decode every clip once more.
    """

    layout: np.ndarray
    colours: np.ndarray

    @classmethod
    def of(cls, pixels: np.ndarray) -> Look:
        """The look of a picture uint8 (H, W, 3) BGR."""
        pixels = shrunk(pixels, max(1, min(pixels.shape[0] // 54, pixels.shape[1] // 96)))
        small = cv2.resize(pixels, (96, 54), interpolation=cv2.INTER_AREA)
        grey = cv2.resize(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), (32, 18), interpolation=cv2.INTER_AREA)
        layout = cv2.GaussianBlur(grey, (0, 0), 1).astype(float).ravel()
        hsv = cv2.cvtColor(small, cv2.COLOR_BGR2HSV)
        histogram = cv2.calcHist([hsv], [0, 1, 2], None, [8, 4, 8], [0, 180, 0, 256, 0, 256])
        # square roots: a large even wall must not outweigh all else
        return cls(_unit(layout - layout.mean()), _unit(np.sqrt(histogram.ravel())))

    def is_cut(self, after: Look) -> bool:
        """Whether a new shot begins between this frame and `after`."""
        layout, colours = self.layout @ after.layout, self.colours @ after.colours
        return any(layout < least and colours < same for least, same in CUTS)


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-9)


@dataclass
class Tracks:
    """What was seen in a clip: tracks in order of appearance, sampled frames, shots, picture size (H, W), seconds."""

    tracks: list[Track]
    frames: int
    shots: int
    size: tuple[int, int]
    seconds: float = 0.0


def find_tracks(frames: Iterable[Frame], detect: Detector, crop_size: int = CROP_SIZE) -> Tracks:
    """Detects, cuts into shots and links. One pass; no frame is kept.

    Args:
        frames: in order of time.
        detect: the detector.
        crop_size: side of the kept crops in pixels.
    """
    ended: list[Track] = []
    active: list[Track] = []
    look, shot, count, size = None, 0, 0, (0, 0)
    times = [0.0, 0.0]
    for count, frame in enumerate(frames, start=1):
        before, look = look, Look.of(frame.pixels)
        if before is not None and before.is_cut(look):
            ended, active, shot = ended + active, [], shot + 1
        lost = [track for track in active if count - 2 - track.index[-1] > LONGEST_GAP]
        ended, active = ended + lost, [track for track in active if not any(track is other for other in lost)]
        for face, track in link(active, detect(frame.pixels)):
            if track is None:
                track = Track(shot)
                active.append(track)
            track.index.append(count - 1)
            track.times.append(frame.time)
            track.faces.append(face)
            track.crops.append(align(frame.pixels, face.landmarks, crop_size))
        size = frame.pixels.shape[:2]
        times = [times[0] if count > 1 else frame.time, frame.time]
    shortest = min(SHORTEST, count)  # a clip of two frames has no longer track
    kept = [track for track in ended + active if len(track) >= shortest]
    return Tracks(sorted(kept, key=lambda track: track.index[0]), count, shot + 1, size, times[1] - times[0])


def link(tracks: list[Track], faces: list[Face]) -> list[tuple[Face, Track | None]]:
    """Each face with the track that it goes on, or None: the assignment with the largest sum of overlaps."""
    overlaps = np.array([[overlap(track.faces[-1].box, face.box) for track in tracks] for face in faces])
    overlaps = np.where(overlaps < SAME_FACE, 0.0, overlaps).reshape(len(faces), len(tracks))
    rows, columns = linear_sum_assignment(overlaps, maximize=True)
    found = {row: tracks[column] for row, column in zip(rows, columns, strict=True) if overlaps[row, column]}
    return [(face, found.get(row)) for row, face in enumerate(faces)]


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes (left, top, width, height)."""
    corner = np.minimum(a[:2] + a[2:], b[:2] + b[2:]) - np.maximum(a[:2], b[:2])
    shared = float(np.prod(np.maximum(corner, 0.0)))
    return shared / max(float(a[2] * a[3] + b[2] * b[3]) - shared, 1e-12)
