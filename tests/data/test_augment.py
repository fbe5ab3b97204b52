"""Augmentation: deterministic for a seed, and within its limits."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from emotion_tf.data import augment
from emotion_tf.data.augment import augment_faces

SIZE = 48


def smooth(count=6, frames=2) -> np.ndarray:
    coarse = np.random.default_rng(0).integers(40, 200, (count * frames, 6, 6, 3))
    large = tf.image.resize(coarse.astype(np.float32), (SIZE, SIZE), "bilinear").numpy()
    return large.round().astype(np.uint8).reshape(count, frames, SIZE, SIZE, 3)


def spot(count, at, size=SIZE) -> np.ndarray:
    """Black pictures with a bright spot around `at`, given as (y, x)."""
    y, x = np.mgrid[:size, :size]
    picture = 255 * np.exp(-((y - at[0]) ** 2 + (x - at[1]) ** 2) / 18)
    return np.repeat(picture.round().astype(np.uint8)[None, None, :, :, None], 3, axis=-1).repeat(count, axis=0)


def centres(faces) -> np.ndarray:
    """Centre (y, x) of what is bright in each picture (N, 1, H, W, 3)."""
    light = faces.numpy()[:, 0, :, :, 0].astype(float)
    light = np.maximum(light - 0.6 * light.max(axis=(1, 2), keepdims=True), 0)
    y, x = np.mgrid[: light.shape[1], : light.shape[2]]
    total = light.sum(axis=(1, 2))
    return np.stack([(light * y).sum(axis=(1, 2)) / total, (light * x).sum(axis=(1, 2)) / total], axis=1)


def test_the_pixels_depend_on_the_seed_only():
    faces = smooth()
    first, again, other = (augment_faces(tf.constant(faces), seed).numpy() for seed in ([1, 2], [1, 2], [1, 3]))
    np.testing.assert_array_equal(first, again)
    assert first.dtype == np.uint8 and first.shape == faces.shape
    assert (first != other).mean() > 0.5 and (first != faces).mean() > 0.5


def test_a_graph_gives_the_eager_result():
    spec = [tf.TensorSpec((None, None, SIZE, SIZE, 3), tf.uint8), tf.TensorSpec((2,), tf.int32)]
    in_graph = tf.function(augment_faces, input_signature=spec)
    augmented = in_graph(smooth(), [5, 6])
    assert augmented.shape == (6, 2, SIZE, SIZE, 3)
    difference = np.abs(augmented.numpy().astype(int) - augment_faces(tf.constant(smooth()), [5, 6]).numpy())
    assert difference.max() <= 1  # a fused multiplication may round the other way


def test_each_crop_is_augmented_independently():
    same = np.repeat(smooth(1, 1), 3, axis=0).repeat(2, axis=1)
    augmented = augment_faces(tf.constant(same), [1, 1]).numpy().reshape(6, -1)
    assert len(np.unique(augmented, axis=0)) == 6


def test_augmentation_is_small():
    """Every crop changes a little, apart from the flip."""
    faces = smooth(16, 1)
    augmented = augment_faces(tf.constant(faces), [7, 7]).numpy().astype(int)
    plain, mirrored = (np.abs(augmented - f).mean(axis=(1, 2, 3, 4)) for f in (faces, faces[:, :, :, ::-1]))
    changed = np.minimum(plain, mirrored)
    assert changed.max() < 60 and changed.mean() < 30 and changed.min() > 0
    assert 3 <= (mirrored < plain).sum() <= 13


def test_the_middle_moves_by_at_most_the_shift():
    centre = (SIZE - 1) / 2
    positions = centres(augment_faces(tf.constant(spot(200, (centre, centre))), [3, 4]))
    limit = augment.MAX_SHIFT * SIZE / (1 - augment.MAX_ZOOM) * (1 + np.sin(augment.MAX_ROTATION)) + 0.5
    assert np.abs(positions - centre).max() <= limit
    assert np.abs(positions.mean(axis=0) - centre).max() < 0.6


def test_flip_is_left_to_right_and_in_half_of_the_crops():
    """A spot up on the right comes out up: on the right, or, mirrored, as far on the left."""
    centre = (SIZE - 1) / 2
    positions = centres(augment_faces(tf.constant(spot(400, (centre - 12, centre + 12))), [5, 9])) - centre
    right = positions[:, 1] > 0
    assert 0.4 < right.mean() < 0.6
    assert (positions[:, 0] < 0).all()
    for side, sign in ((right, 1), (~right, -1)):
        np.testing.assert_allclose(positions[side].mean(axis=0), [-12, 12 * sign], atol=0.9)


def test_rotation_zoom_and_shift_are_within_their_limits():
    """Two spots in one picture: their distance tells the zoom, their direction the rotation."""
    centre = (SIZE - 1) / 2
    left, right = spot(200, (centre, centre - 10)), spot(200, (centre, centre + 10))
    seed = [2, 8]
    apart = centres(augment_faces(tf.constant(right), seed)) - centres(augment_faces(tf.constant(left), seed))
    length = np.hypot(*apart.T)
    assert 20 / (1 + augment.MAX_ZOOM) - 0.7 < length.min() < 19 < 21 < length.max() < 20 / (1 - augment.MAX_ZOOM) + 0.7
    angle = np.abs(np.arctan2(apart[:, 0], np.abs(apart[:, 1])))
    assert 0.7 * augment.MAX_ROTATION < angle.max() < augment.MAX_ROTATION + 0.05


def test_light_is_within_its_limits():
    augmented = augment_faces(tf.constant(np.full((100, 1, 8, 8, 3), 128, np.uint8)), [1, 9]).numpy().astype(int)
    assert np.ptp(augmented, axis=(1, 2, 3, 4)).max() == 0  # a flat picture stays flat
    change = augmented[:, 0, 0, 0, 0] - 128
    assert np.abs(change).max() <= augment.MAX_BRIGHTNESS * 255 + 1
    assert change.min() < -15 and change.max() > 15


@pytest.mark.parametrize("shape", [(0, 1, 8, 8, 3), (2, 0, 8, 8, 3), (1, 1, 1, 1, 3)])
def test_no_face_and_a_face_of_one_pixel(shape):
    assert augment_faces(tf.zeros(shape, tf.uint8), [0, 0]).shape == shape


def test_black_and_white_do_not_overflow():
    for value in (0, 255):
        augmented = augment_faces(tf.fill((50, 1, 8, 8, 3), tf.constant(value, tf.uint8)), [4, 4]).numpy().astype(int)
        assert np.abs(augmented - value).max() <= augment.MAX_BRIGHTNESS * 255 + 1


def test_erasing_replaces_a_rectangle_of_a_share_of_the_crops_by_noise():
    faces, seed = np.full((400, 1, 40, 40, 3), 128, np.uint8), [3, 8]
    plain, augmented = (augment_faces(tf.constant(faces), seed, erase).numpy()[:, 0] for erase in (0.0, 0.5))
    erased = (plain != augmented).any(axis=3)
    hit = erased.any(axis=(1, 2))
    assert 0.4 < hit.mean() < 0.6
    areas, shapes = [], []
    for where in map(np.argwhere, erased[hit]):
        (top, left), (bottom, right) = where.min(axis=0), where.max(axis=0) + 1
        assert len(where) > 0.95 * (bottom - top) * (right - left)  # noise may be the same grey
        areas.append((bottom - top) * (right - left) / 1600)
        shapes.append((bottom - top) / (right - left))
    assert 0.0 < min(areas) < 0.05 and 0.35 < max(areas) <= 0.42
    assert min(shapes) < 0.5 and max(shapes) > 2
    noise = augmented[erased]
    assert noise.min() < 5 and noise.max() > 250 and abs(noise.mean() - 127.5) < 3
    assert (augment_faces(tf.constant(faces), seed, 1.0).numpy()[:, 0] != plain).any(axis=(1, 2, 3)).all()
