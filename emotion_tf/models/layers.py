"""Small layers that the towers share."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import ops


@keras.saving.register_keras_serializable("emotion_tf")
class Keep(keras.layers.Layer):
    """Whether a modality is there: bool (B,) -> bool (B,); in training a share `rate` is taken for absent.

    Modality dropout: Neverova 2016, "ModDrop", section 4.2.
    """

    def __init__(self, rate: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        self.rate = rate
        self.seed_generator = keras.random.SeedGenerator() if rate else None

    def call(self, present: Any, training: bool = False) -> Any:
        """Drops in training alone."""
        if not (training and self.rate):
            return present
        kept = keras.random.uniform(ops.shape(present), seed=self.seed_generator) >= self.rate
        return ops.logical_and(present, kept)

    def get_config(self) -> dict[str, Any]:
        """With `rate`."""
        return {**super().get_config(), "rate": self.rate}


@keras.saving.register_keras_serializable("emotion_tf")
class OrAbsent(keras.layers.Layer):
    """The embedding of a modality, or a learned vector where it is absent: ((B, D), present (B,)) -> (B, D).

    The vector starts at zero and learns from the utterances that lack the modality, and from those that training takes
    for such.
    """

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> OrAbsent:
        """Also of runs in which modality dropout was an argument of this layer."""
        return cls(**{name: value for name, value in config.items() if name != "rate"})

    def build(self, input_shape: Any) -> None:
        """Makes the vector (D,)."""
        self.absent = self.add_weight(shape=(input_shape[0][-1],), initializer="zeros", name="absent")

    def call(self, inputs: list[Any]) -> Any:
        """Takes `inputs[0]` where `inputs[1]` is not zero."""
        embedding, present = inputs
        present = ops.expand_dims(ops.cast(present, "bool"), -1)
        return ops.where(present, embedding, ops.cast(self.absent, embedding.dtype))


@keras.saving.register_keras_serializable("emotion_tf")
class MaskWhere(keras.layers.Layer):
    """A mask (B, T) where the row is present (B,), nothing elsewhere: bool (B, T)."""

    def call(self, inputs: list[Any]) -> Any:
        """Joins `inputs[0]` and `inputs[1]`."""
        mask, present = inputs
        return ops.logical_and(ops.cast(mask, "bool"), ops.expand_dims(ops.cast(present, "bool"), -1))


@keras.saving.register_keras_serializable("emotion_tf")
class FirstSegment(keras.layers.Layer):
    """The part of BERT's mask (B, L) that is the first segment, by its types (B, L): the utterance, not its context."""

    def call(self, inputs: list[Any]) -> Any:
        """`inputs[0]` where `inputs[1]` is 0."""
        mask, types = inputs
        return mask * ops.cast(ops.equal(types, 0), mask.dtype)


@keras.saving.register_keras_serializable("emotion_tf")
class HasMore(keras.layers.Layer):
    """Whether a row has more than so many entries that are not zero: (B, L) -> bool (B,)."""

    def __init__(self, than: int, **options: Any) -> None:
        super().__init__(**options)
        self.than = than

    def call(self, ids: Any) -> Any:
        """Counts along the second axis."""
        return ops.sum(ops.cast(ops.not_equal(ops.cast(ids, "int32"), 0), "int32"), axis=1) > self.than

    def get_config(self) -> dict[str, Any]:
        """With `than`."""
        return {**super().get_config(), "than": self.than}


def _frames_to_run(mask: Any) -> Any:
    """The real frames; in a batch without any, the first: batch norm would make NaN of no picture at all."""
    none = tf.logical_not(tf.reduce_any(mask))
    first = tf.scatter_nd([[0, 0]], [True], tf.shape(mask))
    return tf.logical_or(mask, tf.logical_and(none, first))


@keras.saving.register_keras_serializable("emotion_tf")
class FoldFrames(keras.layers.Layer):
    """The real frames as one batch of pictures: (B, T, H, W, 3) and mask (B, T) -> (N, H, W, 3).

    Padding never reaches the network: it would cost time, and enter the statistics of batch norm.
    """

    def call(self, inputs: list[Any]) -> Any:
        """Picks the frames that the mask holds; in a batch without any, one black picture."""
        faces, mask = inputs
        frames = tf.boolean_mask(faces, _frames_to_run(mask))
        # the one that stands in is padding: what it holds must not get into the statistics of batch norm either
        return tf.where(tf.reduce_any(mask), frames, tf.zeros_like(frames))


@keras.saving.register_keras_serializable("emotion_tf")
class UnfoldFrames(keras.layers.Layer):
    """The reverse for features: (N, D) and the mask (B, T) -> (B, T, D), zero at padding."""

    def call(self, inputs: list[Any]) -> Any:
        """Puts each frame's features back in its place."""
        values, mask = inputs
        shape = tf.concat([tf.shape(mask), tf.shape(values)[1:]], axis=0)
        sequence = tf.scatter_nd(tf.cast(tf.where(_frames_to_run(mask)), tf.int32), values, shape)
        return tf.ensure_shape(sequence, (None, None, *values.shape[1:]))
