"""Layers of face networks that know whether a batch has a face; a batch without one is a black image."""

from __future__ import annotations

import threading
from typing import Any

import keras
import tensorflow as tf
from keras import layers, ops


class FaceCount(threading.local):
    """Number of faces of the batch, int32 (): `FoldFrames` sets it, the layers behind it read it in the same trace.

    Networks are graphs of foreign layers, through which no mask passes. Each replica is traced in its own thread.
    """

    value: Any = None


@keras.saving.register_keras_serializable("emotion_tf")
class FaceBatchNormalization(layers.BatchNormalization):
    """Batch normalisation that keeps its moving statistics (up to rounding) when a batch has no face.

    Attributes:
        faces: number of faces. None, as in a saved model: it is the layer of Keras.
    """

    faces: FaceCount | None = None

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if not (training and self.trainable and self._is_one_operation(inputs, mask)):
            return super().call(inputs, training=training, mask=mask)
        channels = inputs.shape[-1]
        output, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=tf.cast(self.gamma, tf.float32) if self.scale else tf.ones(channels),
            offset=tf.cast(self.beta, tf.float32) if self.center else tf.zeros(channels),
            mean=tf.constant([]),
            variance=tf.constant([]),
            epsilon=self.epsilon,
        )
        count = tf.cast(tf.size(inputs) // channels, tf.float32)
        variance *= tf.maximum(count - 1, 1) / count  # the moving one is that of the batch, not an estimate from it
        rate = 1 - self.momentum
        if self.faces is not None:
            rate = tf.where(_has_face(self.faces, self.synchronized), rate, 0.0)
        for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            # few operations: a ResNet50 has 53 of these layers, and all are traced before the first step
            moving.value.assign_sub((moving.value - tf.cast(value, moving.dtype)) * tf.cast(rate, moving.dtype))
        return output

    def _is_one_operation(self, inputs: Any, mask: Any) -> bool:
        """Whether TensorFlow has one operation for it, in place of sums and products over the batch."""
        is_image = len(inputs.shape) == 4 and self.axis in (-1, 3) and mask is None
        is_type = inputs.dtype == self.compute_dtype and inputs.dtype in ("float32", "bfloat16")
        return is_image and is_type and self.epsilon >= 1.001e-5 and not (self.renorm or self.synchronized)

    def _moments(self, inputs: Any, mask: Any) -> tuple[Any, Any]:
        if self.faces is not None and self.synchronized and tf.distribute.get_replica_context():
            inputs = inputs[: self.faces.value]  # without the black image of a replica that has no face
        return self._of_faces(*super()._moments(inputs, mask))

    def _of_faces(self, mean: Any, variance: Any) -> tuple[Any, Any]:
        """Returns the moments, or the moving ones if no batch has a face."""
        if self.faces is None:
            return mean, variance
        has_face = _has_face(self.faces, self.synchronized)
        moving = (self.moving_mean, self.moving_variance)
        mean, variance = (
            ops.where(has_face, values, ops.cast(before, values.dtype))
            for values, before in zip((mean, variance), moving, strict=True)
        )
        return mean, variance

    def _update_renorm_statistics(self, mean: Any, variance: Any) -> None:
        statistics = (self.renorm_mean, self.renorm_stddev, self.moving_mean, self.moving_stddev, self.moving_variance)
        before = [tf.identity(variable.value) for variable in statistics]
        super()._update_renorm_statistics(mean, variance)
        if self.faces is not None:
            has_face = _has_face(self.faces, self.synchronized)
            for variable, value in zip(statistics, before, strict=True):
                variable.assign(ops.where(has_face, variable, value))


def _has_face(faces: FaceCount, synchronized: bool) -> Any:
    """Returns whether the batch has a face, that of all replicas if `synchronized`: bool ()."""
    count, context = faces.value, tf.distribute.get_replica_context()
    if synchronized and context:
        count = context.all_reduce(tf.distribute.ReduceOp.SUM, count)
    return count > 0


def count_faces(network: keras.layers.Layer, faces: FaceCount | None) -> None:
    """Makes every batch norm of a network a `FaceBatchNormalization`, over all replicas if there are several.

    It changes the layers in place: copies would draw new initial seeds for the layers that are built after them.
    """
    for layer in network._flatten_layers():
        if type(layer) in (layers.BatchNormalization, FaceBatchNormalization):
            layer.__class__ = FaceBatchNormalization
            layer.faces = faces
            layer.synchronized = tf.distribute.get_strategy().num_replicas_in_sync > 1
