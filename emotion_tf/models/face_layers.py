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

    def _moments(self, inputs: Any, mask: Any) -> tuple[Any, Any]:
        if self.faces is None:
            return super()._moments(inputs, mask)
        if self.synchronized and tf.distribute.get_replica_context():
            inputs = inputs[: self.faces.value]  # without the black image of a replica that has no face
        moments = super()._moments(inputs, mask)
        statistics = (self.moving_mean, self.moving_variance)
        has_face = _has_face(self.faces, self.synchronized)
        mean, variance = (
            ops.where(has_face, values, ops.cast(moving, values.dtype))
            for values, moving in zip(moments, statistics, strict=True)
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
