"""Features of utterances kept from an earlier pass, as inputs of what is still trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

Column = np.ndarray | tuple[np.ndarray, np.ndarray]
"""One value an utterance (N, ...); or the values of all their steps (M, ...), and how many steps each has (N,)."""


class CachedFeatures:
    """What is known of the N utterances of several shards.

    Args:
        columns: feature -> its columns, one a shard.
        label: int64 (N,).
        weight: float32 (N,).
        length: int64 (N,), by which utterances are put into batches.
    """

    def __init__(
        self, columns: Mapping[str, Sequence[Column]], label: np.ndarray, weight: np.ndarray, length: np.ndarray
    ) -> None:
        self._known = {"label": tf.constant(label), "weight": tf.constant(weight), "length": tf.constant(length)}
        self._features = {name: _join(parts) for name, parts in columns.items()}
        self.count = len(label)

    def known(self, positions: tf.Tensor) -> dict[str, tf.Tensor]:
        """Label, weight and length of utterances at positions int64 (B,), each (B,)."""
        return {name: tf.gather(values, positions) for name, values in self._known.items()}

    def inputs(self, positions: tf.Tensor) -> dict[str, tf.Tensor]:
        """Their features, each (B, ...), or (B, T, ...) padded with zeros to the longest, at least one step."""
        return {name: _gather(values, positions) for name, values in self._features.items()}


def _join(columns: Sequence[Column]) -> tf.Tensor | tf.RaggedTensor:
    if isinstance(columns[0], np.ndarray):
        return tf.constant(np.concatenate(columns))  # type: ignore[arg-type]
    values, lengths = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    return tf.RaggedTensor.from_row_lengths(values, lengths)


def _gather(values: tf.Tensor | tf.RaggedTensor, positions: tf.Tensor) -> tf.Tensor:
    found = tf.gather(values, positions)
    if not isinstance(found, tf.RaggedTensor):
        return found
    padded = found.to_tensor()
    missing = tf.maximum(0, 1 - tf.shape(padded)[1])
    return tf.pad(padded, [[0, 0], [0, missing], *[[0, 0]] * (len(padded.shape) - 2)])
