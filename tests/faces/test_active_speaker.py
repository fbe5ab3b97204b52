from __future__ import annotations

import cv2
import numpy as np
import pytest
from synthetic_faces import SIDE, detect_faces, draw_face, draw_scene, write_clip

from emotion_tf.config import CropConfig
from emotion_tf.errors import UserError
from emotion_tf.faces.active_speaker import mouth_motion, select_track
from emotion_tf.faces.crops import crop_clip, crop_tracks, sharpest_crops
from emotion_tf.faces.detect import Face
from emotion_tf.faces.frames import Frame, Segment
from emotion_tf.faces.track import Track, Tracking, find_tracks

COUNT = 20


def speaking(seed):
    rng = np.random.default_rng(seed)
    return [(draw_face(seed, open_mouth), 0) for open_mouth in rng.uniform(0, 1, COUNT)]


def still(seed, how):
    """A face whose mouth never moves, while something else does."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(COUNT):
        face, shift = draw_face(seed, 0.4, blink=how == "blink" and i % 5 == 0), 0
        if how == "shift":
            shift = int(rng.integers(-12, 13))
        if how == "zoom":
            side = int(rng.integers(SIDE - 14, SIDE + 15))
            face = cv2.resize(face, (side, side))
        if how == "flicker":
            inside = face[6:-6, 6:-6] * rng.uniform(0.7, 1.25) + rng.normal(0, 3, (SIDE - 12, SIDE - 12, 3))
            face[6:-6, 6:-6] = np.clip(inside, 0, 255)
        found.append((face, shift))
    return found


def side_by_side(left, right):
    pictures = [
        draw_scene([(a, (40 + da, 50)), (b, (290 + db, 50))]) for (a, da), (b, db) in zip(left, right, strict=True)
    ]
    return find_tracks([Frame(i / 8, picture) for i, picture in enumerate(pictures)], detect_faces)


@pytest.mark.parametrize("how", ["shift", "zoom", "blink", "flicker"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_the_moving_mouth_is_chosen(how, side):
    a, b = speaking(1), still(2, how)
    tracking = side_by_side(a, b) if side == "left" else side_by_side(b, a)
    selection = select_track(tracking)
    assert selection.policy == "speaking"
    assert (selection.track.faces[0].box[0] < 240) == (side == "left")
    assert selection.score >= 1 and selection.margin > 0.15


def test_where_no_mouth_moves_size_decides_and_says_so():
    tracking = side_by_side(still(1, "shift"), [(cv2.resize(f, (150, 150)), d) for f, d in still(2, "blink")])
    selection = select_track(tracking)
    assert selection.policy == "speaking>largest"
    assert selection.track.faces[0].box[2] > SIDE + 10
    assert selection.score == pytest.approx(150 / 240, abs=0.02)


def test_a_clip_too_short_to_tell_falls_back():
    tracking = side_by_side(speaking(1)[:4], still(2, "shift")[:4])
    assert [mouth_motion(track) for track in tracking.tracks] == [0, 0]
    assert select_track(tracking).policy == "speaking>largest"


def track(left, top, size, length):
    face = Face(np.array([left, top, size, size], float), 0.9, np.zeros((5, 2)))
    crops = [np.zeros((112, 112, 3), np.uint8)] * length
    return Track(0, list(range(length)), [i / 8 for i in range(length)], [face] * length, crops)


def test_the_other_policies_by_hand():
    small, large, middle = track(0, 0, 20, 9), track(150, 0, 50, 5), track(80, 30, 40, 3)
    tracking = Tracking([small, large, middle], 9, 1, (100, 200))
    assert select_track(tracking, "largest").track is large
    assert select_track(tracking, "largest").score == pytest.approx(0.5)
    assert select_track(tracking, "largest").margin == pytest.approx(0.1)
    assert select_track(tracking, "centre").track is middle
    assert select_track(tracking, "centre").score == pytest.approx(1.0)
    assert select_track(tracking, "longest").track is small
    assert (select_track(tracking, "longest").score, select_track(tracking, "longest").margin) == (9, 4)
    spoken = select_track(tracking, "boxes", {0.0: np.array([150, 0, 50, 25.0])})
    assert spoken.track is large and spoken.score == pytest.approx(0.5)


def test_one_face_has_no_rival_and_none_is_no_error():
    assert select_track(Tracking([track(0, 0, 20, 9)], 9, 1, (100, 200))).margin == float("inf")
    nothing = Tracking([], 9, 1, (100, 200))
    assert select_track(nothing) is None
    assert crop_tracks(nothing).jpegs == () and crop_tracks(nothing).frames == 9


def test_a_wrong_policy_is_told_with_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'largest'"):
        CropConfig(policy="largst")
    with pytest.raises(UserError, match="needs boxes"):
        select_track(Tracking([], 0, 0, (1, 1)), "boxes")


def test_crops_are_the_sharpest_of_equal_parts_of_the_time():
    sharp, blurred = draw_face(3), cv2.GaussianBlur(draw_face(3), (0, 0), 3)
    crops = [sharp if i in (1, 4, 9) else blurred for i in range(12)]
    speaker_track = Track(0, list(range(12)), [i / 8 for i in range(12)], [None] * 12, crops)
    assert sharpest_crops(speaker_track, 3) == [1, 4, 9]
    assert sharpest_crops(speaker_track, 1)[0] in (1, 4, 9)
    assert sharpest_crops(speaker_track, 99) == list(range(12))


def test_a_clip_becomes_crops_with_their_record(tmp_path):
    pictures = [draw_scene([(f, (40, 50)), (draw_face(2, 0.4), (290, 50))]) for f, _ in speaking(1)]
    path = write_clip(tmp_path / "clip.mp4", pictures, 8.0)
    # MPEG-4 smears the rim's colour: the places are known
    places = [box for face in detect_faces(pictures[0]) for box in [face]]
    face_crops = crop_clip([Segment(path)], lambda pixels: places, CropConfig(crops=4))
    assert (face_crops.policy, face_crops.frames, face_crops.tracks, face_crops.track_length) == ("speaking", 20, 2, 20)
    assert len(face_crops.jpegs) == len(face_crops.boxes) == len(face_crops.times) == len(face_crops.sharpness) == 4
    assert all(box[0] == pytest.approx(40, abs=1) for box in face_crops.boxes)
    assert list(face_crops.times) == sorted(face_crops.times) and face_crops.times[-1] - face_crops.times[0] > 1
    crop = cv2.imdecode(np.frombuffer(face_crops.jpegs[0], np.uint8), cv2.IMREAD_COLOR)
    assert crop.shape == (112, 112, 3)
    assert crop_clip([Segment(path)], lambda pixels: places, CropConfig(crops=4)) == face_crops
    assert crop_clip([Segment(path)], lambda pixels: []).jpegs == ()
