"""Batches whose errors name the shard that was damaged."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from emotion_tf.data.verify import verify_records
from emotion_tf.errors import UserError
from emotion_tf.locks import WriteError
from emotion_tf.remote import StoreError

ERRORS = {error.__name__: error for error in (UserError, WriteError, StoreError)}
OPTIONS = tf.data.Options()
# to look for rewrites, of which these data sets need none, takes longer than to start reading
OPTIONS.experimental_optimization.apply_default_optimizations = False


@dataclass(frozen=True)
class Batches:
    """Elements that TensorFlow reads from shards, which may be damaged or replaced after they were verified.

    TensorFlow's errors do not name the shard, and those of Python code inside a data set have a traceback as message.

    Attributes:
        dataset: the elements.
        paths: the shards that TensorFlow opens (`Rows.local_paths`).

    Raises:
        UserError: in an iteration, a shard is damaged, missing or not the one of before.
    """

    dataset: tf.data.Dataset
    paths: tuple[str, ...]

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from self.dataset.with_options(OPTIONS)
        except tf.errors.OpError as error:
            if message := re.search(rf"\b({'|'.join(ERRORS)}): (.*)", error.message):
                raise ERRORS[message[1]](message[2]) from None
            for path in self.paths:
                if not _is_readable(path):
                    verify_records(Path(path))
            raise

    def take(self, count: int) -> Batches:
        """Returns the first `count` elements."""
        return Batches(self.dataset.take(count), self.paths)


def _is_readable(path: str) -> bool:
    """Whether TensorFlow reads a shard to its end; quicker than the checksums of `verify_records`."""
    try:
        for _ in tf.data.TFRecordDataset(path):
            pass
    except tf.errors.OpError:
        return False
    return True
