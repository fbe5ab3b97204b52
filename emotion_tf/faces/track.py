"""Face tracking: links the detections of a clip over time. A track is one face in one shot."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import cv2
import numpy as np

from emotion_tf.faces.align import CROP_SIZE, align, downscale
from emotion_tf.faces.detect import Detector, Face
from emotion_tf.faces.frames import Frame

LEAST_OVERLAP = 0.3  # intersection over union of a face with itself in the next sampled frame
LONGEST_GAP = 2  # sampled frames in which a face may be missed
SHORTEST_TRACK = 3  # sampled frames; shorter tracks are false detections
CUTS = ((0.5, 0.93), (0.85, 0.6))  # similarity of layout and of colours: a cut if both are below those of a pair


@dataclass
class Track:
    """A face in one shot, with one entry for each sampled frame in which it was detected.

    Attributes:
        shot: index of the shot in the clip.
        index: indices of the sampled frames.
        times: seconds from the clip's start.
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
class FrameDescriptor:
    """Unit vectors that describe a frame: layout, a smoothed thumbnail float (576,), and colours, a histogram (256,).

    A cut changes both. Flickering light keeps the layout; a moving camera or a turning head keeps the colours.
    PySceneDetect would decode every clip a second time.
    """

    layout: np.ndarray
    colours: np.ndarray

    @classmethod
    def from_pixels(cls, pixels: np.ndarray) -> FrameDescriptor:
        """Returns the descriptor of an image uint8 (H, W, 3) BGR."""
        pixels = downscale(pixels, max(1, min(pixels.shape[0] // 54, pixels.shape[1] // 96)))
        small = cv2.resize(pixels, (96, 54), interpolation=cv2.INTER_AREA)
        grey = cv2.resize(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), (32, 18), interpolation=cv2.INTER_AREA)
        layout = cv2.GaussianBlur(grey, (0, 0), 1).astype(float).ravel()
        hsv = cv2.cvtColor(small, cv2.COLOR_BGR2HSV)
        histogram = cv2.calcHist([hsv], [0, 1, 2], None, [8, 4, 8], [0, 180, 0, 256, 0, 256])
        # square roots, so that a large uniform wall does not dominate
        return cls(_unit(layout - layout.mean()), _unit(np.sqrt(histogram.ravel())))

    def is_cut(self, after: FrameDescriptor) -> bool:
        """Returns whether a new shot begins between this frame and `after`."""
        layout, colours = self.layout @ after.layout, self.colours @ after.colours
        return any(layout < least_layout and colours < least_colours for least_layout, least_colours in CUTS)


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-9)


@dataclass
class Tracking:
    """The tracks of a clip.

    Attributes:
        tracks: in order of appearance.
        frames: number of sampled frames.
        shots: number of shots.
        size: (H, W) of a frame.
        seconds: time from the first to the last sampled frame.
    """

    tracks: list[Track]
    frames: int
    shots: int
    size: tuple[int, int]
    seconds: float = 0.0


def find_tracks(frames: Iterable[Frame], detect: Detector, crop_size: int = CROP_SIZE) -> Tracking:
    """Detects faces and shots and links the faces to tracks, in one pass that stores no frame.

    Args:
        frames: in order of time.
        detect: the detector.
        crop_size: side of the tracks' crops in pixels.
    """
    ended: list[Track] = []
    active: list[Track] = []
    descriptor, shot, count, size = None, 0, 0, (0, 0)
    times = [0.0, 0.0]
    for count, frame in enumerate(frames, start=1):
        previous, descriptor = descriptor, FrameDescriptor.from_pixels(frame.pixels)
        if previous is not None and previous.is_cut(descriptor):
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
    shortest = min(SHORTEST_TRACK, count)  # a clip of two frames has no longer track
    tracks = [track for track in ended + active if len(track) >= shortest]
    return Tracking(sorted(tracks, key=lambda track: track.index[0]), count, shot + 1, size, times[1] - times[0])


def link(tracks: list[Track], faces: list[Face]) -> list[tuple[Face, Track | None]]:
    """Assigns each face to the track that it continues, or None. The assignment maximises the sum of overlaps."""
    overlaps = np.array([[box_iou(track.faces[-1].box, face.box) for track in tracks] for face in faces])
    overlaps = np.where(overlaps < LEAST_OVERLAP, 0.0, overlaps).reshape(len(faces), len(tracks))
    assigned = {row: tracks[column] for row, column in assign(overlaps) if overlaps[row, column]}
    return [(face, assigned.get(row)) for row, face in enumerate(faces)]


def assign(overlaps: np.ndarray) -> list[tuple[int, int]]:
    """Returns the rows and columns of (N, M) whose sum is largest, each row and column at most once."""
    if not overlaps.size:
        return []
    if 1 in overlaps.shape:
        return [divmod(int(overlaps.argmax()), overlaps.shape[1])]
    # half of the imports of each process that crops, and most clips have one face at a time
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(overlaps, maximize=True)
    return list(zip(rows.tolist(), columns.tolist(), strict=True))


def box_iou(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the intersection over union of two boxes (left, top, width, height)."""
    corner = np.minimum(a[:2] + a[2:], b[:2] + b[2:]) - np.maximum(a[:2], b[:2])
    intersection = float(np.prod(np.maximum(corner, 0.0)))
    return intersection / max(float(a[2] * a[3] + b[2] * b[3]) - intersection, 1e-12)
