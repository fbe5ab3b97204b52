"""A clip to the aligned crops of the person who speaks, with the record of how they were chosen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from emotion_tf.faces.align import CROP_SIZE, sharpness
from emotion_tf.faces.detect import Detector
from emotion_tf.faces.frames import read_frames
from emotion_tf.faces.speaker import Choice, choose
from emotion_tf.faces.track import Track, Tracks, find_tracks

JPEG_QUALITY = 95
CROPS = 4


@dataclass(frozen=True)
class FaceCrops:
    """What `prepare` keeps of a clip's faces. All lists have one entry a crop, in order of time; none: no face.

    Attributes:
        jpegs: aligned crops, JPEG of `size` x `size`.
        policy: what chose the face; empty without one.
        score: of the chosen face under that policy.
        margin: its lead over the next best; infinite without another.
        track_length: sampled frames that the face was followed through.
        boxes: float (K, 4), left, top, width, height in the frame's pixels.
        times: seconds from the clip's start.
        sharpness: variance of the Laplacian of the crop.
        face_sizes: height of the box in the frame's pixels.
        frames: sampled frames of the clip.
        tracks: faces that there were to choose from.
    """

    jpegs: tuple[bytes, ...] = ()
    policy: str = ""
    score: float = 0.0
    margin: float = 0.0
    track_length: int = 0
    boxes: tuple[tuple[float, ...], ...] = ()
    times: tuple[float, ...] = ()
    sharpness: tuple[float, ...] = ()
    face_sizes: tuple[float, ...] = ()
    frames: int = 0
    tracks: int = 0


@dataclass(frozen=True)
class CropOptions:
    """How faces are taken from a clip.

    Attributes:
        rate: sampled frames a second.
        most_frames: at most so many frames of a clip; a longer one is sampled more thinly.
        policy: how the speaking face is chosen (`speaker.POLICIES`).
        crops: face crops kept of an utterance.
        size: side of a crop in pixels.
    """

    rate: float = 8.0
    most_frames: int = 240
    policy: str = "speaking"
    crops: int = CROPS
    size: int = CROP_SIZE


def crop_clip(
    path: Path,
    detect: Detector,
    options: CropOptions = CropOptions(),
    start: float = 0.0,
    end: float = float("inf"),
    boxes: dict[float, np.ndarray] | None = None,
) -> FaceCrops:
    """The crops of the face that speaks in a clip, or in the part of it from `start` to `end` seconds.

    Raises:
        UserError: a clip that cannot be decoded, no frame in the window, or a policy that cannot be applied.
    """
    frames = read_frames(path, options.rate, options.most_frames, start, end)
    return crop_tracks(find_tracks(frames, detect), options, boxes)


def crop_tracks(
    found: Tracks, options: CropOptions = CropOptions(), boxes: dict[float, np.ndarray] | None = None
) -> FaceCrops:
    """The crops of the chosen track; without a track no crop, which is a state and not an error."""
    choice = choose(found, options.policy, boxes)
    if choice is None:
        return FaceCrops(frames=found.frames)
    return _keep(choice, select(choice.track, options.crops), found, options)


def select(track: Track, count: int) -> list[int]:
    """At most `count` of a track's faces: its time in equal parts, and of each part the sharpest crop."""
    parts = np.array_split(np.arange(len(track)), min(count, len(track)))
    return [int(max(part, key=lambda i: sharpness(track.crops[i]))) for part in parts]


def _keep(choice: Choice, kept: list[int], found: Tracks, options: CropOptions) -> FaceCrops:
    track = choice.track
    boxes = tuple(tuple(round(float(x), 2) for x in track.faces[i].box) for i in kept)
    return FaceCrops(
        jpegs=tuple(_jpeg(track.crops[i], options.size) for i in kept),
        policy=choice.policy,
        score=round(choice.score, 6),
        margin=round(choice.margin, 6),
        track_length=len(track),
        boxes=boxes,
        times=tuple(round(track.times[i], 4) for i in kept),
        sharpness=tuple(round(sharpness(track.crops[i]), 3) for i in kept),
        face_sizes=tuple(box[3] for box in boxes),
        frames=found.frames,
        tracks=len(found.tracks),
    )


def _jpeg(crop: np.ndarray, size: int) -> bytes:
    if crop.shape[0] != size:
        shrinks = crop.shape[0] > size
        crop = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
