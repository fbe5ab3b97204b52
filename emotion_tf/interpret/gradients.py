"""Gradients of a score at the outputs of layers: class activation maps, and the steps of integrated gradients.

These functions work on tensors, both eagerly (`explain`) and in a graph (the `explain` signature of an export).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from emotion_tf.models.activations import intercept, replay_all


def watch(
    layer: keras.layers.Layer, outputs: list[tf.Tensor], tape: tf.GradientTape
) -> contextlib.AbstractContextManager[None]:
    """Inside the block, the tape watches what the layer returns, and `outputs` collects it call by call.

    Integers, such as pixels, have no gradient: the layer returns them as float32.
    """

    def function(call: Callable[..., Any], *args: Any, **options: Any) -> tf.Tensor:
        output = call(*args, **options)
        output = output if output.dtype.is_floating else tf.cast(output, tf.float32)
        tape.watch(output)
        outputs.append(output)
        return output

    return intercept(layer, function)


def class_activation_map(feature: tf.Tensor, gradient: tf.Tensor, pool: bool = True) -> tf.Tensor:
    """Returns class activation maps (M, h, w), float32 and not negative.

    Args:
        feature: feature maps (M, h, w, C).
        gradient: the score's gradient at the feature maps, of the same shape.
        pool: averages the gradient over the positions, as Grad-CAM does (Selvaraju 2017, equations 1 and 2); False:
            multiplies position by position, as HiResCAM does (Draelos 2020, equation 5).
    """
    feature, gradient = tf.cast(feature, tf.float32), tf.cast(gradient, tf.float32)
    weights = tf.reduce_mean(gradient, axis=(1, 2), keepdims=True) if pool else gradient
    return tf.nn.relu(tf.reduce_sum(weights * feature, axis=-1))


def resize_maps(maps: tf.Tensor, side: int) -> tf.Tensor:
    """Resizes maps (M, h, w) to float32 (M, side, side), bilinearly."""
    return tf.image.resize(maps[..., tf.newaxis], (side, side))[..., 0]


@dataclass(frozen=True)
class Line:
    """The straight line from a baseline to what one call of a layer returned.

    Attributes:
        layer: the layer.
        value: what it returned, float32 (M, ...).
        baseline: the other end of the line, (M, ...).
        output: converts a point of the line to what the layer returns.
    """

    layer: keras.layers.Layer
    value: Any
    baseline: Any
    output: Callable[[tf.Tensor], Any] = lambda point: point

    def points(self, alphas: Sequence[float]) -> tf.Tensor:
        """Returns A points of the line, from the baseline (0) to the value (1), float32 (A * M, ...)."""
        shares = tf.reshape(tf.constant(alphas, self.value.dtype), [-1] + [1] * len(self.value.shape))
        points = self.baseline + shares * (self.value - self.baseline)
        return tf.reshape(points, tf.concat([[-1], tf.shape(points)[2:]], axis=0))


def embedding_line(layer: keras.layers.Layer, output: Any) -> Line:
    """Returns the line from zeros to the output of a word embedding, or to the `sequence_output` of a BERT encoder."""
    if isinstance(output, dict):
        value = tf.cast(output["sequence_output"], tf.float32)
        return Line(layer, value, tf.zeros_like(value), _encoder_output)
    value = tf.cast(output, tf.float32)
    return Line(layer, value, tf.zeros_like(value), lambda point: tf.cast(point, output.dtype))


def _encoder_output(point: tf.Tensor) -> dict[str, tf.Tensor]:
    return {"pooled_output": point[:, 0], "sequence_output": point}


def line_gradients(
    lines: Sequence[Line], alphas: Sequence[float], score: Callable[[], tf.Tensor]
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Returns the score at points of several lines, (A, B), and its gradient at the points of each, (A, M, ...).

    Args:
        lines: all move together.
        alphas: the points; see `Line.points`.
        score: runs the model on the inputs of B utterances, repeated A times; returns (A * B,).
    """
    points = [line.points(alphas) for line in lines]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(points)
        outputs = [line.output(point) for line, point in zip(lines, points, strict=True)]
        with replay_all([line.layer for line in lines], outputs):
            scores = score()
    gradients = tape.gradient(scores, points, unconnected_gradients="zero")
    shapes = [tf.concat([[len(alphas), -1], tf.shape(point)[1:]], 0) for point in points]
    return tf.reshape(scores, (len(alphas), -1)), [tf.reshape(g, s) for g, s in zip(gradients, shapes, strict=True)]


def trapezoid_sum(gradients: tf.Tensor) -> tf.Tensor:
    """Sums gradients at evenly spaced points, (A, M, ...), by the trapezoidal rule: the two ends count half."""
    return tf.reduce_sum(gradients, axis=0) - 0.5 * (gradients[0] + gradients[-1])
