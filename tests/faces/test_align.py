from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_faces import SIDE, draw_face

from emotion_tf.faces.align import CROP_SIZE, TEMPLATE, align, fit_similarity, sharpness


@given(angle=st.floats(-3.1, 3.1), scale=st.floats(0.01, 50), dx=st.floats(-1000, 1000), dy=st.floats(-1000, 1000))
def test_a_similarity_transform_is_recovered(angle, scale, dx, dy):
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = TEMPLATE * 100
    transform = fit_similarity(points, points @ turn.T + [dx, dy])
    np.testing.assert_allclose(
        transform, np.column_stack([turn, [dx, dy]]), atol=1e-6 * max(1, scale * 100, abs(dx), abs(dy))
    )


def test_noise_is_met_by_least_squares_and_never_by_a_mirror():
    rng = np.random.default_rng(0)
    targets = TEMPLATE * 112
    noisy = targets + rng.normal(0, 1, targets.shape)
    best = fit_similarity(noisy, targets)

    def error(matrix):
        return ((noisy @ matrix[:, :2].T + matrix[:, 2] - targets) ** 2).sum()

    for _ in range(50):
        a, b, dx, dy = rng.normal(0, 0.02, 4)
        assert error(best) <= error(best + np.array([[a, -b, dx], [b, a, dy]]))
    mirrored = targets * [-1, 1]
    assert np.linalg.det(fit_similarity(mirrored, targets)[:, :2]) > 0


@pytest.mark.parametrize("scale", [0.5, 1, 3, 12])
@pytest.mark.parametrize("quarter", [0, 1])
def test_a_face_of_any_size_and_turn_comes_to_the_template(scale, quarter):
    """A face whose landmarks lie as in the template is taken as it is, and scaled: its crop is the face itself."""
    import cv2

    face = draw_face(1, open_mouth=0.5)
    side = round(SIDE * scale)
    large = cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    picture = np.full((side + 400, side + 300, 3), 128, np.uint8)
    picture[200 : 200 + side, 100 : 100 + side] = large
    landmarks = TEMPLATE * side - 0.5 + [100, 200]
    if quarter:  # counter-clockwise: (x, y) -> (y, width - 1 - x)
        landmarks = np.stack([landmarks[:, 1], picture.shape[1] - 1 - landmarks[:, 0]], axis=1)
        picture = np.rot90(picture).copy()
    crop = align(picture, landmarks)
    expected = cv2.resize(face, (CROP_SIZE, CROP_SIZE), interpolation=cv2.INTER_AREA)
    inner = slice(8, -8)
    assert np.abs(crop.astype(int) - expected)[inner, inner].mean() < 6


def test_beyond_the_edge_the_border_is_repeated():
    picture = np.full((100, 100, 3), 77, np.uint8)
    assert (align(picture, TEMPLATE * 100 - [60, 60]) == 77).all()


def test_a_blurred_crop_is_less_sharp():
    import cv2

    crop = draw_face(2)
    assert sharpness(crop) > 2 * sharpness(cv2.GaussianBlur(crop, (0, 0), 2)) > 0
