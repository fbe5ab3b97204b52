"""A clip to the aligned crops of the person who speaks, with the record of how they were chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from emotion_tf.config import CropConfig
from emotion_tf.faces.align import CROP_SIZE, sharpness
from emotion_tf.faces.detect import Detector, Face
from emotion_tf.faces.frames import Frame, Piece, frame_rate, read_pieces
from emotion_tf.faces.speaker import Choice, choose
from emotion_tf.faces.track import Track, Tracks, find_tracks

JPEG_QUALITY = 95
NO_FACE = "no face found"
EVEN = 8.0  # grey levels of standard deviation
DEFAULTS = CropConfig()
PHOTO = CropConfig(policy="largest", crops=1)


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
        seconds: from the first to the last of them.
        tracks: faces that there were to choose from.
        rivals: boxes of all faces in the frame at `rivals_time`, the chosen one first.
        rivals_time: seconds; of the kept crops' frames the one with the most faces.
        problem: the kind of reason for which there is no crop, such as "no face found"; empty with crops.
        detail: more of it, for people.
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
    pieces: Sequence[Piece],
    detect: Detector,
    config: CropConfig = DEFAULTS,
    size: int = CROP_SIZE,
    boxes: Mapping[int, Sequence[float]] | None = None,
) -> FaceCrops:
    """The crops of the face that speaks in an utterance's clip.

    Args:
        pieces: the clip, or the parts of clips that the utterance lies in.
        detect: the detector.
        config: sampling, policy and number of crops.
        size: side of a crop in pixels.
        boxes: for the policy `boxes`: number of the frame in the joined pieces -> left, top, width, height.

    Raises:
        UserError: a clip that cannot be decoded, no frame in the pieces, or a policy that cannot be applied.
    """
    found = find_tracks(read_pieces(pieces, config.rate, config.most_frames), detect)
    rate = frame_rate(pieces[0].path) if boxes else 1.0
    at = {pieces[0].start + n / rate: np.array(box, float) for n, box in (boxes or {}).items()}
    return crop_tracks(found, config, size, at)


def crop_tracks(
    found: Tracks,
    config: CropConfig = DEFAULTS,
    size: int = CROP_SIZE,
    boxes: dict[float, np.ndarray] | None = None,
) -> FaceCrops:
    """The crops of the chosen track; without a track no crop, which is a state and not an error."""
    choice = choose(found, config.policy, boxes)
    if choice is None:
        return FaceCrops(frames=found.frames, seconds=round(found.seconds, 4), problem=NO_FACE)
    return _keep(choice, select(choice.track, config.crops), found, size)


def crop_each(found: Tracks, config: CropConfig = DEFAULTS, size: int = CROP_SIZE) -> list[FaceCrops]:
    """The crops of every face, for somebody to choose from: the one that `crop_tracks` would keep first, then the
    larger before the smaller."""
    choice = choose(found, config.policy)
    if choice is None:
        return []
    others = [track for track in found.tracks if track is not choice.track]
    others.sort(key=lambda track: -float(np.mean([face.box[3] for face in track.faces])))
    choices = [choice, *(Choice(track, "by hand", 0.0, 0.0) for track in others)]
    return [_keep(one, select(one.track, config.crops), found, size) for one in choices]


def crop_photo(pixels: np.ndarray, detect: Detector, size: int = CROP_SIZE) -> FaceCrops:
    """The aligned crop of the largest face in a photo uint8 (H, W, 3) BGR."""
    return crop_tracks(find_tracks([Frame(0.0, pixels)], detect), PHOTO, size)


def select(track: Track, count: int) -> list[int]:
    """At most `count` of a track's faces: its time in equal parts, and of each part the sharpest crop.

    Crops that are all but even, as in a fade to black, are passed over when the track has others.
    """
    shows = [i for i in range(len(track)) if track.crops[i].std() >= EVEN] or list(range(len(track)))
    parts = np.array_split(np.array(shows), min(count, len(shows)))
    return [int(max(part, key=lambda i: sharpness(track.crops[i]))) for part in parts]


def _keep(choice: Choice, kept: list[int], found: Tracks, size: int) -> FaceCrops:
    track = choice.track
    boxes = tuple(_rounded(track.faces[i]) for i in kept)
    shown, rivals = _rivals(track, kept, found)
    return FaceCrops(
        jpegs=tuple(_jpeg(track.crops[i], size) for i in kept),
        policy=choice.policy,
        score=round(choice.score, 6),
        margin=round(choice.margin, 6),
        track_length=len(track),
        boxes=boxes,
        times=tuple(round(track.times[i], 4) for i in kept),
        sharpness=tuple(round(sharpness(track.crops[i]), 3) for i in kept),
        face_sizes=tuple(box[3] for box in boxes),
        frames=found.frames,
        seconds=round(found.seconds, 4),
        tracks=len(found.tracks),
        rivals=rivals,
        rivals_time=round(track.times[shown], 4),
    )


def _rivals(track: Track, kept: list[int], found: Tracks) -> tuple[int, tuple[tuple[float, ...], ...]]:
    """The kept face whose frame shows most others, and the boxes of all in that frame, the chosen face first."""
    others = [dict(zip(other.index, other.faces, strict=True)) for other in found.tracks if other is not track]
    shown = max(kept, key=lambda i: sum(track.index[i] in other for other in others))
    faces = [other[track.index[shown]] for other in others if track.index[shown] in other]
    return shown, tuple(_rounded(face) for face in [track.faces[shown], *faces])


def _rounded(face: Face) -> tuple[float, ...]:
    return tuple(round(float(x), 2) for x in face.box)


def _jpeg(crop: np.ndarray, size: int) -> bytes:
    if crop.shape[0] != size:
        shrinks = crop.shape[0] > size
        crop = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
