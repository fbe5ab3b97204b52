"""Aligned face crops of the active speaker of a clip, with the record of how they were selected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from emotion_tf.config import CropConfig
from emotion_tf.faces.active_speaker import Selection, select_track
from emotion_tf.faces.align import CROP_SIZE, sharpness
from emotion_tf.faces.detect import Detector, Face
from emotion_tf.faces.frames import Frame, Segment, frame_rate, read_segments
from emotion_tf.faces.track import Track, Tracking, find_tracks

JPEG_QUALITY = 95
NO_FACE, UNDECODABLE, OUTSIDE = "no face found", "cannot be decoded", "outside the clip"
LEAST_CONTRAST = 8.0  # standard deviation in grey levels; a crop below it is blank
DEFAULTS = CropConfig()
PHOTO = CropConfig(policy="largest", crops=1)


@dataclass(frozen=True)
class FaceCrops:
    """The crops of one face of a clip. The tuples have one entry for each of the K crops, in order of time.

    Attributes:
        jpegs: aligned square crops; empty if there is no face.
        policy: the policy that selected the face; empty if there is no face.
        score: score of the face under that policy.
        margin: score minus the next best score; infinite for the only face.
        track_length: number of sampled frames in the face's track.
        boxes: float (K, 4): left, top, width, height in pixels of the frame.
        times: seconds from the clip's start.
        sharpness: variance of the Laplacian of each crop.
        face_sizes: height of each box in pixels of the frame.
        frames: number of sampled frames of the clip.
        seconds: time from the first to the last sampled frame.
        tracks: number of tracks that the policy selected from.
        rivals: boxes of all faces in the frame at `rivals_time`, the selected face first.
        rivals_time: seconds from the clip's start: of the crops' frames, the one with the most faces.
        problem: the category of the reason why there is no crop, such as "no face found"; empty if there are crops.
        detail: details of the problem, for messages.
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
    seconds: float = 0.0
    tracks: int = 0
    rivals: tuple[tuple[float, ...], ...] = ()
    rivals_time: float = 0.0
    problem: str = ""
    detail: str = ""


def crop_clip(
    segments: Sequence[Segment],
    detect: Detector,
    config: CropConfig = DEFAULTS,
    size: int = CROP_SIZE,
    boxes: Mapping[int, Sequence[float]] | None = None,
) -> FaceCrops:
    """Returns the crops of the active speaker of an utterance.

    Args:
        segments: the segments of clips that contain the utterance.
        detect: the detector.
        config: sampling, policy and number of crops.
        size: side of a crop in pixels.
        boxes: for the policy `boxes`: frame number in the joined segments -> left, top, width, height.

    Raises:
        UserError: a clip cannot be decoded, the segments have no frame, or the policy cannot be applied.
    """
    tracking = find_tracks(read_segments(segments, config.rate, config.most_frames), detect)
    rate = frame_rate(segments[0].path) if boxes else 1.0
    timed_boxes = {segments[0].start + n / rate: np.array(box, float) for n, box in (boxes or {}).items()}
    return crop_tracks(tracking, config, size, timed_boxes)


def crop_tracks(
    tracking: Tracking,
    config: CropConfig = DEFAULTS,
    size: int = CROP_SIZE,
    boxes: dict[float, np.ndarray] | None = None,
) -> FaceCrops:
    """Returns the crops of the selected track. A clip without a track is no error: `problem` is then set."""
    selection = select_track(tracking, config.policy, boxes)
    if selection is None:
        return FaceCrops(frames=tracking.frames, seconds=round(tracking.seconds, 4), problem=NO_FACE)
    return _encode(selection, tracking, config.crops, size)


def crop_candidates(tracking: Tracking, config: CropConfig = DEFAULTS, size: int = CROP_SIZE) -> list[FaceCrops]:
    """Returns the crops of every track: the one that `crop_tracks` selects, then the others by decreasing size."""
    selection = select_track(tracking, config.policy)
    if selection is None:
        return []
    others = [track for track in tracking.tracks if track is not selection.track]
    others.sort(key=lambda track: -float(np.mean([face.box[3] for face in track.faces])))
    selections = [selection, *(Selection(track, "by hand", 0.0, 0.0) for track in others)]
    return [_encode(selection, tracking, config.crops, size) for selection in selections]


def crop_photo(pixels: np.ndarray, detect: Detector, size: int = CROP_SIZE) -> FaceCrops:
    """Returns the aligned crop of the largest face in a photo uint8 (H, W, 3) BGR."""
    return crop_tracks(find_tracks([Frame(0.0, pixels)], detect), PHOTO, size)


def sharpest_crops(track: Track, count: int) -> list[int]:
    """Returns the indices of at most `count` crops: the sharpest of each of `count` equal parts of the track.

    Blank crops, as in a fade to black, are used only if the track has no others.
    """
    usable = [i for i in range(len(track)) if track.crops[i].std() >= LEAST_CONTRAST] or list(range(len(track)))
    parts = np.array_split(np.array(usable), min(count, len(usable)))
    return [int(max(part, key=lambda i: sharpness(track.crops[i]))) for part in parts]


def _encode(selection: Selection, tracking: Tracking, count: int, size: int) -> FaceCrops:
    track = selection.track
    indices = sharpest_crops(track, count)
    boxes = tuple(_rounded_box(track.faces[i]) for i in indices)
    most_rivals, rivals = _rivals(track, indices, tracking)
    return FaceCrops(
        jpegs=tuple(encode_square(track.crops[i], size) for i in indices),
        policy=selection.policy,
        score=round(selection.score, 6),
        margin=round(selection.margin, 6),
        track_length=len(track),
        boxes=boxes,
        times=tuple(round(track.times[i], 4) for i in indices),
        sharpness=tuple(round(sharpness(track.crops[i]), 3) for i in indices),
        face_sizes=tuple(box[3] for box in boxes),
        frames=tracking.frames,
        seconds=round(tracking.seconds, 4),
        tracks=len(tracking.tracks),
        rivals=rivals,
        rivals_time=round(track.times[most_rivals], 4),
    )


def _rivals(track: Track, indices: list[int], tracking: Tracking) -> tuple[int, tuple[tuple[float, ...], ...]]:
    """Returns the crop whose frame has the most other faces, and the boxes in that frame, the track's own first."""
    others = [dict(zip(other.index, other.faces, strict=True)) for other in tracking.tracks if other is not track]
    best = max(indices, key=lambda i: sum(track.index[i] in other for other in others))
    faces = [other[track.index[best]] for other in others if track.index[best] in other]
    return best, tuple(_rounded_box(face) for face in [track.faces[best], *faces])


def _rounded_box(face: Face) -> tuple[float, ...]:
    return tuple(round(float(x), 2) for x in face.box)


def encode_square(pixels: np.ndarray, size: int) -> bytes:
    """Returns a picture uint8 (H, W, 3) BGR as a JPEG of `size` x `size`, padded with its edges if it is not square."""
    # resized before it is padded: a strip of 1 x 60,000 pixels must not become 10 GB
    side = max(pixels.shape[:2])
    height, width = (max(1, round(length * size / side)) for length in pixels.shape[:2])
    if side != size:
        interpolation = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
        pixels = cv2.resize(pixels, (width, height), interpolation=interpolation)
    top, left = (size - height) // 2, (size - width) // 2
    pixels = cv2.copyMakeBorder(pixels, top, size - height - top, left, size - width - left, cv2.BORDER_REPLICATE)
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
