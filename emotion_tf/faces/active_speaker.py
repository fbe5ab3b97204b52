"""Active speaker selection: which of a clip's face tracks speaks, by a named policy, with a score and a margin."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from emotion_tf.errors import UserError
from emotion_tf.faces.track import Track, Tracking, box_iou

PAIRS = 6  # fewest pairs of neighbouring frames from which mouth motion is measured
SPEAKS = 1.0  # least mouth motion of a speaker, relative to the motion of the upper face
MARGIN = 0.15  # least margin over the next best track
NEIGHBOURS = 0.6  # seconds: crops further apart are not compared
MOUTH = (slice(71, 106), slice(30, 82))  # of the 112 px crop
UPPER_FACE = (
    slice(16, 65),
    slice(17, 95),
)  # brows, eyes and nose; hair and background move by themselves
SHIFT = 3  # pixels that a patch may move between two crops in spite of the alignment


@dataclass(frozen=True)
class Selection:
    """The selected track and its score.

    Attributes:
        track: the track.
        policy: the policy that decided, or `speaking>largest` if mouth motion was ambiguous and size decided.
        score: score of the selected track under that policy.
        margin: score minus the next best score; infinite for the only track.
    """

    track: Track
    policy: str
    score: float
    margin: float


def select_track(
    tracking: Tracking, policy: str = "speaking", boxes: dict[float, np.ndarray] | None = None
) -> Selection | None:
    """Selects the track of the utterance's speaker. Returns None if there is no track.

    Args:
        tracking: the tracks of the clip.
        policy: one of `config.crops.POLICIES`. `speaking`: largest motion of the mouth relative to the upper face;
            `largest`: largest mean box height relative to the frame's; `centre`: nearest to the middle of the frame;
            `longest`: most sampled frames; `boxes`: largest mean overlap with the boxes.
        boxes: seconds -> box (left, top, width, height) of the speaking face, for the policy `boxes`.

    Raises:
        UserError: the policy is `boxes` and there are none.
    """
    if policy == "boxes" and not boxes:
        raise UserError(
            "The policy `boxes` needs boxes of the speaking face. Received: none. Name them by --fair-boxes."
        )
    if not tracking.tracks:
        return None
    scores: dict[str, Callable[[Track], float]] = {
        "largest": lambda track: float(np.mean([face.box[3] for face in track.faces])) / max(tracking.size[0], 1),
        "centre": lambda track: _centrality(track, tracking.size),
        "longest": lambda track: float(len(track)),
        "boxes": lambda track: _mean_overlap(track, boxes or {}),
    }
    if policy != "speaking":
        return _best(tracking.tracks, [scores[policy](track) for track in tracking.tracks], policy)
    selection = _best(tracking.tracks, [mouth_motion(track) for track in tracking.tracks], policy)
    if len(tracking.tracks) == 1 or (selection.score >= SPEAKS and selection.margin >= MARGIN):
        return selection
    # The mouths move alike, so size decides, but only between tracks that last: the largest face may appear briefly.
    longest = max(len(track) for track in tracking.tracks)
    lasting = [track for track in tracking.tracks if len(track) >= longest / 2]
    return _best(lasting, [scores["largest"](track) for track in lasting], "speaking>largest")


def _best(tracks: Sequence[Track], scores: list[float], policy: str) -> Selection:
    best = int(np.argmax(scores))  # the first of equal scores
    others = [score for i, score in enumerate(scores) if i != best]
    return Selection(tracks[best], policy, scores[best], scores[best] - max(others) if others else float("inf"))


def _centrality(track: Track, size: tuple[int, int]) -> float:
    """Returns 1 for a face in the middle of the frame, 0 for one in its corner."""
    middle = np.array([size[1], size[0]]) / 2
    distances = [np.linalg.norm(face.box[:2] + face.box[2:] / 2 - middle) for face in track.faces]
    return 1.0 - float(np.mean(distances)) / max(float(np.linalg.norm(middle)), 1.0)


def _mean_overlap(track: Track, boxes: dict[float, np.ndarray]) -> float:
    times = np.array(sorted(boxes))
    nearest = [boxes[times[np.abs(times - time).argmin()]] for time in track.times]
    return float(np.mean([box_iou(box, face.box) for box, face in zip(nearest, track.faces, strict=True)]))


def mouth_motion(track: Track) -> float:
    """Returns how much the mouth changes between frames, relative to the upper face; 0 for too few frames.

    Changes that both regions share are not speech: residual head motion after alignment, compression, flickering light.
    Each patch is normalised for its own light and compared at its best shift. The median over the upper face's pairs
    limits the effect of a blink; the mean over the mouth's pairs keeps short utterances.
    """
    crops = [_smooth_grey(crop) for crop in track.crops]
    pairs = [
        (a, b)
        for a, b, s, t in zip(crops, crops[1:], track.times, track.times[1:], strict=False)
        if t - s <= NEIGHBOURS
    ]
    if len(pairs) < PAIRS:
        return 0.0
    mouth = np.array([_change(a, b, MOUTH) for a, b in pairs])
    upper_face = np.array([_change(a, b, UPPER_FACE) for a, b in pairs])
    return float(mouth.mean() / max(np.median(upper_face), 0.02))


def _smooth_grey(crop: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY).astype(np.float32), (0, 0), 1.5)


def _change(a: np.ndarray, b: np.ndarray, region: tuple[slice, slice]) -> float:
    """Returns 1 minus the best correlation of a region of `a` with `b`, shifted by at most SHIFT pixels."""
    rows, columns = region
    search_area = b[rows.start - SHIFT : rows.stop + SHIFT, columns.start - SHIFT : columns.stop + SHIFT]
    return 1.0 - float(cv2.matchTemplate(search_area, a[rows, columns], cv2.TM_CCOEFF_NORMED).max())
