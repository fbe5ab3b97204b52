"""Augmentation of face crops: flip, rotation, shift, zoom, contrast, brightness, random erasing. Stateless."""

from __future__ import annotations

import math

import tensorflow as tf

MAX_ROTATION = math.radians(12)
MAX_SHIFT = 0.08
MAX_ZOOM = 0.12
MAX_CONTRAST = 0.25
MAX_BRIGHTNESS = 0.12
ERASED_AREA = (0.02, 0.4)
ERASED_ASPECT = 0.3  # height / width, from this value to its inverse


def augment_faces(faces: tf.Tensor, seed: tf.Tensor, erase: float = 0.0) -> tf.Tensor:
    """Augments each crop independently.

    Args:
        faces: uint8 (B, T, H, W, 3).
        seed: int (2,); the same seed gives the same pixels.
        erase: probability that a rectangle of a crop is replaced by noise.

    Returns:
        uint8 (B, T, H, W, 3).
    """
    shape = tf.shape(faces)
    flat = tf.cast(tf.reshape(faces, tf.concat([[-1], shape[2:]], 0)), tf.float32)
    seeds = tf.random.experimental.stateless_split(seed, 2)
    flat = _warp(flat, seeds[0])
    flat = _relight(flat, seeds[1])
    if erase:
        flat = _erase(flat, tf.random.experimental.stateless_fold_in(seeds[1], 1), erase)
    flat = tf.cast(tf.clip_by_value(tf.round(flat), 0.0, 255.0), tf.uint8)
    return tf.ensure_shape(tf.reshape(flat, shape), faces.shape)


def _warp(flat: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Applies flip, rotation, shift and zoom to images (N, H, W, 3) in one bilinear resampling."""
    count, size = tf.shape(flat)[0], tf.cast(tf.shape(flat)[1], tf.float32)
    u = tf.random.stateless_uniform((5, count), seed, -1.0, 1.0)
    flip, angle = tf.where(u[0] < 0, -1.0, 1.0), u[1] * MAX_ROTATION
    scale = 1.0 + u[2] * MAX_ZOOM
    a, b = flip * tf.cos(angle) * scale, -tf.sin(angle) * scale
    c, d = flip * tf.sin(angle) * scale, tf.cos(angle) * scale
    centre = (size - 1.0) / 2.0
    dx = centre - (a + b) * centre + u[3] * MAX_SHIFT * size
    dy = centre - (c + d) * centre + u[4] * MAX_SHIFT * size
    zero = tf.zeros_like(a)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=flat,
        transforms=tf.stack([a, b, dx, c, d, dy, zero, zero], axis=1),
        output_shape=tf.shape(flat)[1:3],
        interpolation="BILINEAR",
        fill_mode="NEAREST",
        fill_value=0.0,
    )


def _relight(flat: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    u = tf.random.stateless_uniform((2, tf.shape(flat)[0], 1, 1, 1), seed, -1.0, 1.0)
    mean = tf.reduce_mean(flat, axis=(1, 2, 3), keepdims=True)
    return (flat - mean) * (1.0 + u[0] * MAX_CONTRAST) + mean + u[1] * MAX_BRIGHTNESS * 255.0


def _erase(flat: tf.Tensor, seed: tf.Tensor, share: float) -> tf.Tensor:
    """Random erasing with a random value for each pixel (Zhong 2020, algorithm 1), in a share of the crops.

    A rectangle that is longer than the image is clipped, whereas the paper draws another one.
    """
    seeds = tf.random.experimental.stateless_split(seed, 2)
    u = tf.random.stateless_uniform((5, tf.shape(flat)[0], 1), seeds[0])
    area = ERASED_AREA[0] + u[1] * (ERASED_AREA[1] - ERASED_AREA[0])
    aspect = tf.exp((2.0 * u[2] - 1.0) * -math.log(ERASED_ASPECT))
    rows = _span(tf.sqrt(area * aspect), u[3], tf.shape(flat)[1])
    columns = _span(tf.sqrt(area / aspect), u[4], tf.shape(flat)[2])
    erased = (u[0] < share)[:, :, tf.newaxis] & rows[:, :, tf.newaxis] & columns[:, tf.newaxis, :]
    noise = tf.random.stateless_uniform(tf.shape(flat), seeds[1], 0.0, 255.0)
    return tf.where(erased[..., tf.newaxis], noise, flat)


def _span(length: tf.Tensor, place: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Returns bool (N, size): the pixels of a span of relative `length` (N, 1), at relative position `place` (N, 1)."""
    length = tf.minimum(length, 1.0)
    middle = (tf.range(size, dtype=tf.float32) + 0.5) / tf.cast(size, tf.float32)
    begin = place * (1.0 - length)
    return (middle >= begin) & (middle < begin + length)
