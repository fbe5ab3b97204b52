"""Cached features: outputs of frozen parts of the model, as inputs of the parts that train. They stay on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
import tensorflow as tf

from emotion_tf.arrays import StoredArray


@dataclass(frozen=True)
class Column:
    """A feature of the N utterances of a shard.

    Attributes:
        values: one value per utterance (N, ...), or the values of all steps (M, ...).
        steps: number of steps per utterance int64 (N,); None: one value per utterance.
    """

    values: StoredArray
    steps: np.ndarray | None = field(default=None, compare=False)

    @cached_property
    def ends(self) -> np.ndarray:
        """Where the steps of each utterance begin, and the end of the last one, int64 (N + 1,)."""
        return np.arange(self.values.shape[0] + 1) if self.steps is None else np.cumsum([0, *self.steps])

    def read(self, positions: np.ndarray) -> list[np.ndarray]:
        """Returns the values at `positions` int64 (B,), each (steps, ...). Raises UserError if the file has changed."""
        return self.values.read(zip(self.ends[positions].tolist(), self.ends[positions + 1].tolist(), strict=True))


class CachedFeatures:
    """Features and metadata of the N utterances of some shards.

    Features stay on disk, in the memory that the system has to spare; the metadata take 20 bytes an utterance, and a
    feature in steps 8.

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
        self._columns = {name: tuple(parts) for name, parts in columns.items()}
        self.count = len(label)

    def metadata(self, positions: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns label, weight and length of the utterances at `positions` int64 (B,), each (B,)."""
        return {name: tf.gather(values, positions) for name, values in self._metadata.items()}

    def inputs(self, positions: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the features at `positions`: (B, ...), or (B, T, ...) padded with zeros, where T is at least 1."""
        return {name: _gather(parts, positions) for name, parts in self._columns.items()}


def _gather(columns: Sequence[Column], positions: tf.Tensor) -> tf.Tensor:
    values, in_steps = columns[0].values, columns[0].steps is not None
    features = tf.numpy_function(partial(_read, columns), [positions], values.dtype, stateful=False)
    return tf.ensure_shape(features, [None, *[None] * in_steps, *values.shape[1:]])


def _read(columns: Sequence[Column], positions: np.ndarray) -> np.ndarray:
    """Returns the features at positions in the joined shards."""
    begins = np.cumsum([0, *(len(column.ends) - 1 for column in columns)])
    shards = np.searchsorted(begins, positions, side="right") - 1
    rows: list[np.ndarray] = [np.empty(0)] * len(positions)
    for shard in np.unique(shards).tolist():
        here = np.flatnonzero(shards == shard)
        for i, row in zip(here.tolist(), columns[shard].read(positions[here] - begins[shard]), strict=True):
            rows[i] = row
    if columns[0].steps is None:
        return np.concatenate(rows) if rows else np.empty((0, *columns[0].values.shape[1:]), columns[0].values.dtype)
    longest = max(1, *map(len, rows)) if rows else 1
    padded = np.zeros((len(rows), longest, *columns[0].values.shape[1:]), columns[0].values.dtype)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    return padded
