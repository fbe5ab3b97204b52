"""Small layers that the towers share."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from emotion_tf.models.face_layers import FaceCount


@keras.saving.register_keras_serializable("emotion_tf")
class ModalityDropout(keras.layers.Layer):
    """Marks a share `rate` of the rows as lacking the modality, in training: present bool (B,) -> bool (B,).

    Neverova 2016, "ModDrop", section 4.2.
    """

    def __init__(self, rate: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        self.rate = rate
        self.seed_generator = keras.random.SeedGenerator() if rate else None

    def call(self, present: Any, training: bool = False) -> Any:
        if not (training and self.rate):
            return present
        keep = keras.random.uniform(ops.shape(present), seed=self.seed_generator) >= self.rate
        return ops.logical_and(present, keep)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate}


@keras.saving.register_keras_serializable("emotion_tf")
class MissingEmbedding(keras.layers.Layer):
    """Replaces the embedding of an absent modality by a learned vector: ((B, D), present (B,)) -> (B, D).

    The vector starts at zero. It learns from the rows that lack the modality, or lose it to modality dropout.
    """

    def build(self, input_shape: Any) -> None:
        self.missing = self.add_weight(shape=(input_shape[0][-1],), initializer="zeros", name="missing")

    def call(self, inputs: list[Any]) -> Any:
        embedding, present = inputs
        present = ops.expand_dims(ops.cast(present, "bool"), -1)
        return ops.where(present, embedding, ops.cast(self.missing, embedding.dtype))


@keras.saving.register_keras_serializable("emotion_tf")
class MaskWherePresent(keras.layers.Layer):
    """Masks every step of the rows without the modality: (mask (B, T), present (B,)) -> bool (B, T)."""

    def call(self, inputs: list[Any]) -> Any:
        mask, present = inputs
        return ops.logical_and(ops.cast(mask, "bool"), ops.expand_dims(ops.cast(present, "bool"), -1))


@keras.saving.register_keras_serializable("emotion_tf")
class FirstSegmentMask(keras.layers.Layer):
    """BERT's mask without its second segment, the context: (mask (B, L), type ids (B, L)) -> (B, L)."""

    def call(self, inputs: list[Any]) -> Any:
        mask, types = inputs
        return mask * ops.cast(ops.equal(types, 0), mask.dtype)


@keras.saving.register_keras_serializable("emotion_tf")
class HasMoreThan(keras.layers.Layer):
    """Whether a row has more than `count` entries that are not zero: (B, L) -> bool (B,)."""

    def __init__(self, count: int, **options: Any) -> None:
        super().__init__(**options)
        self.count = count

    def call(self, ids: Any) -> Any:
        return ops.sum(ops.cast(ops.not_equal(ops.cast(ids, "int32"), 0), "int32"), axis=1) > self.count

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "count": self.count}


def _frames_to_run(mask: Any) -> Any:
    """Returns the mask of the real crops; in a batch without any, of the first (batch norm of no image is NaN)."""
    is_empty = tf.logical_not(tf.reduce_any(mask))
    first_crop = tf.scatter_nd([[0, 0]], [True], tf.shape(mask))
    return tf.logical_or(mask, tf.logical_and(is_empty, first_crop))


@keras.saving.register_keras_serializable("emotion_tf")
class FoldFrames(keras.layers.Layer):
    """Gathers the real crops into one batch of images: ((B, T, H, W, 3), mask (B, T)) -> (N, H, W, 3).

    Padding does not reach the network: it would cost time and enter the statistics of batch norm. A batch without any
    crop becomes one black image, which `FaceCount` tells from a face.
    """

    faces: FaceCount | None = None

    def call(self, inputs: list[Any]) -> Any:
        faces, mask = inputs
        if self.faces is not None:
            self.faces.value = tf.math.count_nonzero(mask, dtype=tf.int32)
        frames = tf.boolean_mask(faces, _frames_to_run(mask))
        # the first crop of an empty batch is padding: its pixels must not enter the statistics of batch norm
        return tf.where(tf.reduce_any(mask), frames, tf.zeros_like(frames))


@keras.saving.register_keras_serializable("emotion_tf")
class UnfoldFrames(keras.layers.Layer):
    """Scatters the vectors of the real crops: (values (N, D), mask (B, T)) -> (B, T, D), zero at padding."""

    def call(self, inputs: list[Any]) -> Any:
        values, mask = inputs
        shape = tf.concat([tf.shape(mask), tf.shape(values)[1:]], axis=0)
        sequence = tf.scatter_nd(tf.cast(tf.where(_frames_to_run(mask)), tf.int32), values, shape)
        return tf.ensure_shape(sequence, (None, None, *values.shape[1:]))
