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
        count, context = self.faces.value, tf.distribute.get_replica_context()
        if self.synchronized and context:
            inputs = inputs[:count]  # without the black image of a replica that has no face
            count = context.all_reduce(tf.distribute.ReduceOp.SUM, count)
        moments = super()._moments(inputs, mask)
        statistics = (self.moving_mean, self.moving_variance)
        mean, variance = (
            ops.where(count > 0, values, ops.cast(moving, values.dtype))
            for values, moving in zip(moments, statistics, strict=True)
        )
        return mean, variance


def count_faces(network: keras.Model, faces: FaceCount) -> None:
    """Makes every batch norm of a network a `FaceBatchNormalization`.

    It changes the layers in place: copies would draw new initial seeds for the layers that are built after them.
    """
    for layer in network._flatten_layers():
        if type(layer) is layers.BatchNormalization:
            layer.__class__ = FaceBatchNormalization
            layer.faces = faces
