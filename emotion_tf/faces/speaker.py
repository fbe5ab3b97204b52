"""Which of a clip's faces speaks: named policies, each with a score and the margin to the next best face."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from emotion_tf.errors import UserError
from emotion_tf.faces.track import Track, Tracks, overlap

PAIRS = 6  # neighbouring frames that it takes to tell a moving mouth
SPEAKS = 1.0  # least motion of a mouth that speaks, as a multiple of the rest of the face's
MARGIN = 0.15  # least lead over the next face
NEIGHBOURS = 0.6  # seconds: crops further apart are not compared
MOUTH = (slice(71, 106), slice(30, 82))  # of the 112 px crop
REST = (slice(16, 65), slice(17, 95))  # brows, eyes and nose: hair and background move by themselves
SHIFT = 3  # pixels that a patch may have moved between two crops, beyond the alignment


@dataclass(frozen=True)
class Choice:
    """The chosen track and why.

    Attributes:
        track: the track.
        policy: what decided: a policy, or `speaking>largest` where speaking could not be told and size decided.
        score: of the chosen track under that policy.
        margin: score minus that of the next best; infinite when there was no other.
    """

    track: Track
    policy: str
    score: float
    margin: float


def choose(found: Tracks, policy: str = "speaking", boxes: dict[float, np.ndarray] | None = None) -> Choice | None:
    """The face that the utterance belongs to; None without a track.

    Args:
        found: the clip's tracks.
        policy: one of `config.crops.POLICIES`. `speaking`: the mouth that moves most against the rest of its face;
            `largest`: mean height of the box as a share of the picture's; `centre`: nearness to the picture's middle;
            `longest`: sampled frames; `boxes`: mean overlap with the given boxes.
        boxes: seconds -> box (left, top, width, height) of the speaking face, for the policy `boxes`.

    Raises:
        UserError: `boxes` without any.
    """
    if policy == "boxes" and not boxes:
        raise UserError(
            "The policy `boxes` needs boxes of the speaking face. Received: none. Name them by --fair-boxes."
        )
    if not found.tracks:
        return None
    scores: dict[str, Callable[[Track], float]] = {
        "largest": lambda track: float(np.mean([face.box[3] for face in track.faces])) / max(found.size[0], 1),
        "centre": lambda track: _centrality(track, found.size),
        "longest": lambda track: float(len(track)),
        "boxes": lambda track: _agreement(track, boxes or {}),
    }
    if policy != "speaking":
        return _best(found.tracks, [scores[policy](track) for track in found.tracks], policy)
    choice = _best(found.tracks, [mouth_motion(track) for track in found.tracks], policy)
    if len(found.tracks) == 1 or (choice.score >= SPEAKS and choice.margin >= MARGIN):
        return choice
    # size decides among those whose mouths move alike; of no use is a face that is there for a moment only
    longest = max(len(track) for track in found.tracks)
    there = [track for track in found.tracks if len(track) >= longest / 2]
    return _best(there, [scores["largest"](track) for track in there], "speaking>largest")


def _best(tracks: Sequence[Track], scores: list[float], policy: str) -> Choice:
    order = np.argsort(scores, kind="stable")[::-1]
    # of equal scores the first to appear
    first = int(np.flatnonzero(np.array(scores) == scores[order[0]])[0])
    others = [score for i, score in enumerate(scores) if i != first]
    return Choice(tracks[first], policy, scores[first], scores[first] - max(others) if others else float("inf"))


def _centrality(track: Track, size: tuple[int, int]) -> float:
    """1 in the middle of the picture, 0 in its corner."""
    middle = np.array([size[1], size[0]]) / 2
    away = [np.linalg.norm(face.box[:2] + face.box[2:] / 2 - middle) for face in track.faces]
    return 1.0 - float(np.mean(away)) / max(float(np.linalg.norm(middle)), 1.0)


def _agreement(track: Track, boxes: dict[float, np.ndarray]) -> float:
    times = np.array(sorted(boxes))
    at = [times[np.abs(times - time).argmin()] for time in track.times]
    return float(np.mean([overlap(boxes[t], face.box) for t, face in zip(at, track.faces, strict=True)]))


def mouth_motion(track: Track) -> float:
    """How much the mouth changes from frame to frame, as a multiple of how much the upper face does; 0: cannot tell.

    What is common to both is not speech: the head's turns, zooms and nods that alignment leaves over, compression and
    flickering light. Each patch is freed of its own light and of a remaining shift before it is compared. The upper
    face's median over the pairs lets a blink count little; the mouth's mean lets a short utterance count.
    """
    crops = [_grey(crop) for crop in track.crops]
    pairs = [
        (a, b)
        for a, b, s, t in zip(crops, crops[1:], track.times, track.times[1:], strict=False)
        if t - s <= NEIGHBOURS
    ]
    if len(pairs) < PAIRS:
        return 0.0
    mouth = np.array([_change(a, b, MOUTH) for a, b in pairs])
    rest = np.array([_change(a, b, REST) for a, b in pairs])
    return float(mouth.mean() / max(np.median(rest), 0.02))


def _grey(crop: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY).astype(np.float32), (0, 0), 1.5)


def _change(a: np.ndarray, b: np.ndarray, region: tuple[slice, slice]) -> float:
    """1 minus the best correlation of a region of `a` with `b`, shifted by at most SHIFT pixels."""
    rows, columns = region
    around = b[rows.start - SHIFT : rows.stop + SHIFT, columns.start - SHIFT : columns.stop + SHIFT]
    return 1.0 - float(cv2.matchTemplate(around, a[rows, columns], cv2.TM_CCOEFF_NORMED).max())
