"""Augmentation of face crops: flip, small rotation, shift, zoom, light. A function of its seed alone."""

from __future__ import annotations

import math

import tensorflow as tf

MAX_ROTATION = math.radians(12)
MAX_SHIFT = 0.08
MAX_ZOOM = 0.12
MAX_CONTRAST = 0.25
MAX_BRIGHTNESS = 0.12


def augment_faces(faces: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Augments each crop on its own.

    Args:
        faces: uint8 (B, T, H, W, 3).
        seed: int (2,), stateless: the same seed gives the same pixels.

    Returns:
        uint8 (B, T, H, W, 3).
    """
    shape = tf.shape(faces)
    flat = tf.cast(tf.reshape(faces, tf.concat([[-1], shape[2:]], 0)), tf.float32)
    seeds = tf.random.experimental.stateless_split(seed, 2)
    flat = _warp(flat, seeds[0])
    flat = _relight(flat, seeds[1])
    flat = tf.cast(tf.clip_by_value(tf.round(flat), 0.0, 255.0), tf.uint8)
    return tf.ensure_shape(tf.reshape(flat, shape), faces.shape)


def _warp(flat: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """One bilinear resampling for flip, rotation, shift and zoom together (N, H, W, 3)."""
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
