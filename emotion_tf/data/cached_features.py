"""Features of utterances kept from an earlier pass, as inputs of what is still trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

Column = np.ndarray | tuple[np.ndarray, np.ndarray]
"""One value an utterance (N, ...); or the values of all its steps (M, ...), and how many steps each has (N,)."""


@dataclass(frozen=True)
class Columns:
    """What is kept of the N utterances of a shard.

    Attributes:
        features: name -> column.
        label: int64 (N,).
        weight: float32 (N,).
        length: int64 (N,), by which utterances are put into batches.
    """

    features: Mapping[str, Column]
    label: np.ndarray
    weight: np.ndarray
    length: np.ndarray


class CachedFeatures:
    """The columns of several shards, one behind the other, as tensors."""

    def __init__(self, shards: Sequence[Columns]) -> None:
        self.label, self.weight, self.length = (
            tf.constant(np.concatenate([getattr(shard, name) for shard in shards]))
            for name in ("label", "weight", "length")
        )
        self._features = {name: _join([shard.features[name] for shard in shards]) for name in shards[0].features}

    def known(self, positions: tf.Tensor) -> dict[str, tf.Tensor]:
        """Label, weight and length of utterances at positions int64 (B,), each (B,)."""
        columns = {"label": self.label, "weight": self.weight, "length": self.length}
        return {name: tf.gather(values, positions) for name, values in columns.items()}

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
