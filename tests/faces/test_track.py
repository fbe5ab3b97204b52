from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from synthetic_faces import detect_faces, draw_face, draw_scene

from emotion_tf.faces.detect import Face
from emotion_tf.faces.frames import Frame
from emotion_tf.faces.track import FrameDescriptor, Track, assign, box_iou, find_tracks, link


def frames(pictures):
    return [Frame(i / 8, picture) for i, picture in enumerate(pictures)]


def box(left, top, width=10.0, height=10.0):
    return Face(np.array([left, top, width, height], float), 0.9, np.zeros((5, 2)))


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((0, 0, 10, 10), (0, 0, 10, 10), 1.0),
        ((0, 0, 10, 10), (5, 0, 10, 10), 50 / 150),
        ((0, 0, 10, 10), (10, 0, 10, 10), 0.0),
        ((0, 0, 10, 10), (20, 20, 5, 5), 0.0),
        ((0, 0, 0, 0), (0, 0, 0, 0), 0.0),
    ],
)
def test_overlap_by_hand(a, b, expected):
    assert box_iou(np.array(a, float), np.array(b, float)) == pytest.approx(expected)


def test_faces_go_to_the_assignment_with_the_largest_overlap():
    left, right = Track(0, faces=[box(0, 0)]), Track(0, faces=[box(4, 0)])
    # the first face overlaps both; greedy by order would give it the wrong track
    linked = link([left, right], [box(3, 0), box(0, 0)])
    assert linked[0][1] is right and linked[1][1] is left
    assert link([left], [box(50, 50)])[0][1] is None
    assert link([], [box(0, 0)])[0][1] is None
    assert link([left], []) == []


@pytest.mark.parametrize("shape", [(0, 2), (2, 0), (1, 1), (1, 3), (3, 1), (2, 3)])
def test_any_number_of_faces_and_tracks_is_assigned_as_by_scipy(shape):
    overlaps = np.random.default_rng(0).random(shape)
    rows, columns = linear_sum_assignment(overlaps, maximize=True)
    assert assign(overlaps) == [*zip(rows, columns, strict=True)]


def test_two_people_who_walk_give_two_tracks():
    pictures = [
        draw_scene([(draw_face(1), (10 + 6 * i, 40)), (draw_face(2), (330 - 6 * i, 60 + i))]) for i in range(12)
    ]
    tracking = find_tracks(frames(pictures), detect_faces)
    assert [len(track) for track in tracking.tracks] == [12, 12]
    assert (tracking.frames, tracking.shots, tracking.size) == (12, 1, (240, 480))
    for track in tracking.tracks:
        steps = np.diff([face.box[0] for face in track.faces])
        assert abs(abs(steps) - 6).max() <= 1  # neither jumps to the other
        assert track.crops[0].shape == (112, 112, 3)


def test_a_face_missed_for_two_frames_goes_on_and_for_three_begins_anew():
    def lengths(gap):
        clip = frames([draw_scene([(draw_face(1), (100, 60))])] * (10 + gap))
        missed = iter([False] * 5 + [True] * gap + [False] * 5)
        tracking = find_tracks(clip, lambda pixels: [] if next(missed) else detect_faces(pixels))
        return [len(track) for track in tracking.tracks]

    assert lengths(2) == [10]
    assert lengths(3) == [5, 5]


def test_a_cut_ends_the_track_even_where_a_face_is_at_the_same_place():
    first = [draw_scene([(draw_face(1), (100, 60))], (60, 110, 60))] * 6
    second = [draw_scene([(draw_face(2), (100, 60))], (150, 60, 90))] * 6
    tracking = find_tracks(frames(first + second), detect_faces)
    assert tracking.shots == 2
    assert [(track.shot, len(track), track.index[0]) for track in tracking.tracks] == [(0, 6, 0), (1, 6, 6)]


def test_flickering_light_is_no_cut():
    base = draw_scene([(draw_face(1), (100, 60))]).astype(float)
    descriptors = [
        FrameDescriptor.from_pixels(np.clip(base * light, 0, 255).astype(np.uint8)) for light in (1.0, 0.6, 1.3)
    ]
    assert not descriptors[0].is_cut(descriptors[1]) and not descriptors[1].is_cut(descriptors[2])


def test_chance_is_no_track_but_a_clip_of_two_frames_has_one():
    face, empty = draw_scene([(draw_face(1), (100, 60))]), draw_scene([])
    assert find_tracks(frames([face, face, *[empty] * 9]), detect_faces).tracks == []
    assert len(find_tracks(frames([face, face]), detect_faces).tracks) == 1
    nothing = find_tracks(frames([empty] * 5), detect_faces)
    assert (nothing.tracks, nothing.frames) == ([], 5)
