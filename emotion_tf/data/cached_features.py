"""Cached features: outputs of frozen parts of the model, as inputs of the parts that train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

Column = np.ndarray | tuple[np.ndarray, np.ndarray]
"""One value per utterance (N, ...); or the values of all steps (M, ...) and the number of steps per utterance (N,)."""


class CachedFeatures:
    """Features and metadata of the N utterances of some shards.

    Args:
        columns: feature -> its columns, one per shard.
        label: int64 (N,).
        weight: float32 (N,).
        length: int64 (N,), used to batch utterances of similar length.
    """

    def __init__(
        self, columns: Mapping[str, Sequence[Column]], label: np.ndarray, weight: np.ndarray, length: np.ndarray
    ) -> None:
        self._metadata = {"label": tf.constant(label), "weight": tf.constant(weight), "length": tf.constant(length)}
        self._features = {name: _concatenate(parts) for name, parts in columns.items()}
        self.count = len(label)

    def metadata(self, positions: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns label, weight and length of the utterances at `positions` int64 (B,), each (B,)."""
        return {name: tf.gather(values, positions) for name, values in self._metadata.items()}

    def inputs(self, positions: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the features at `positions`: (B, ...), or (B, T, ...) padded with zeros, where T is at least 1."""
        return {name: _gather(values, positions) for name, values in self._features.items()}


def _concatenate(columns: Sequence[Column]) -> tf.Tensor | tf.RaggedTensor:
    if isinstance(columns[0], np.ndarray):
        return tf.constant(np.concatenate(columns))  # type: ignore[arg-type]
    values, lengths = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    return tf.RaggedTensor.from_row_lengths(values, lengths)


def _gather(values: tf.Tensor | tf.RaggedTensor, positions: tf.Tensor) -> tf.Tensor:
    rows = tf.gather(values, positions)
    if not isinstance(rows, tf.RaggedTensor):
        return rows
    padded = rows.to_tensor()
    missing = tf.maximum(0, 1 - tf.shape(padded)[1])
    return tf.pad(padded, [[0, 0], [0, missing], *[[0, 0]] * (len(padded.shape) - 2)])
