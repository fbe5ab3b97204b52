"""Utterances: the records of some shards, on disk or in object storage."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import tensorflow as tf

from emotion_tf.data.record_index import RecordIndex
from emotion_tf.data.staging import Stage, StagedRecords

READ_BATCH = 64
"""Number of records of object storage that are read together."""
# No function here has Python control flow on tensors; AutoGraph would only make the first epoch start 2 s later.
as_graph = tf.autograph.experimental.do_not_convert


@dataclass(frozen=True)
class Rows:
    """Utterances: all records of some shards, or a subset.

    Attributes:
        paths: the shards, in order.
        positions: positions of the subset in the joined shards, ascending, int64; None: all records.
        whole: the utterances that these are a subset of, which share their index; None: they are no subset.
        stage: fetches the shards, if they are in object storage: `paths` are names, then.
    """

    paths: tuple[str, ...]
    positions: array[int] | None = field(default=None, hash=False)
    whole: Rows | None = field(default=None, repr=False, compare=False)
    stage: Stage | None = field(default=None, repr=False, compare=False)

    def select(self, positions: Iterable[int]) -> Rows:
        """Returns the subset at `positions` in the joined shards."""
        return Rows(self.paths, array("q", np.sort(np.fromiter(positions, np.int64)).tobytes()), self, self.stage)

    @cached_property
    def index(self) -> RecordIndex | StagedRecords:
        """Where the records of the shards are, to read them in any order."""
        if self.stage is not None:
            return self._staged
        return RecordIndex(self.paths) if self.whole is None else self.whole.index

    @cached_property
    def _staged(self) -> StagedRecords:
        assert self.stage is not None
        if self.whole is not None:
            return self.whole._staged
        return StagedRecords(self.stage, [Path(path).name for path in self.paths])

    @property
    def local_paths(self) -> tuple[str, ...]:
        """The shards that TensorFlow opens itself: none of object storage."""
        return self.paths if self.stage is None else ()

    @property
    def group_bytes(self) -> int:
        """Size of the groups of shards that an epoch shuffles; 0: it shuffles all records."""
        return 0 if self.stage is None else self._staged.group_bytes

    def shuffle(self, positions: np.ndarray, permute: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Returns the order in which an epoch reads the records at `positions`; see `StagedRecords.plan_epoch`."""
        return permute(positions) if self.stage is None else self._staged.plan_epoch(positions, permute)

    def files(self) -> Iterable[str]:
        """Returns the local file of each shard, in order, which is read before the next one."""
        return self.paths if self.stage is None else self._staged.in_order().files()

    def enumerate_records(self) -> tf.data.Dataset:
        """Returns a data set of (position in the joined shards int64, serialised record), in order."""
        if self.stage is not None:
            return self._enumerate_staged()
        dataset = tf.data.TFRecordDataset(list(self.paths)).enumerate()
        if self.positions is None:
            return dataset
        positions = np.frombuffer(self.positions, np.int64)
        keep = np.zeros(1 + positions.max(initial=0), bool)
        keep[positions] = True
        mask = tf.constant(keep)
        return dataset.take(len(keep)).filter(as_graph(lambda i, _: mask[i]))

    def _enumerate_staged(self) -> tf.data.Dataset:
        records = self._staged.in_order()
        positions = np.arange(len(records)) if self.positions is None else np.array(self.positions, np.int64)

        def read(batch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return batch, tf.ensure_shape(tf.numpy_function(records.read, [batch], tf.string, stateful=False), [None])

        return tf.data.Dataset.from_tensor_slices(positions).batch(READ_BATCH).map(as_graph(read)).unbatch()
