"""Training batches by the tf.data service: other machines read, decode and augment the records (`data/serve.py`)."""

from __future__ import annotations

import dataclasses
import os
import queue
import re
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from emotion_tf.data import pipeline
from emotion_tf.data.batches import Batches
from emotion_tf.data.preprocess import Preprocessor
from emotion_tf.data.rows import Rows, as_graph
from emotion_tf.errors import UserError

PATIENCE = 60.0
"""Seconds without a batch after which the service is lost: TensorFlow itself waits for an hour."""
TIMEOUT = 5.0
BUFFER = 4
"""Batches that wait for the training."""
END = object()


def check_service(address: str, option: str = "--data.service", scheme: str = "grpc://") -> None:
    """Raises UserError unless something listens at `address`, the value of an option: `scheme` and HOST:PORT."""
    match = re.fullmatch(rf"{scheme}([^\s/:]+|\[[\da-fA-F:.]+\]):(\d{{1,5}})", address)
    if not match or not 0 < int(match[2]) < 2**16:
        raise UserError(
            f"Invalid `{option}`. Expected the address of a dispatcher, {scheme}HOST:PORT. Received: {address!r}."
        )
    try:
        socket.create_connection((match[1].strip("[]"), int(match[2])), TIMEOUT).close()
    except OSError as error:
        raise UserError(
            f"No tf.data service at {address}: {error.strerror or error}. Start its dispatcher with: python -m "
            f"emotion_tf.data.serve --port {match[2]}"
        ) from None


def service_batches(
    rows: Rows, preprocess: Preprocessor, batch_size: int, augment: Callable[..., tf.Tensor] | None, address: str
) -> Callable[[pipeline.EpochOrder], ServiceBatches]:
    """Returns the function from an epoch to its batches, as `pipeline.train_batches` does.

    Each shard is read by one worker, whichever is free (dynamic sharding), so each record is read once in an epoch.
    When a worker dies, the epoch does not end. The order is random; it does not follow from the seed.

    Args:
        rows: the utterances: whole shards, which all workers have at the same paths.
        preprocess: computes the inputs.
        batch_size: utterances per batch.
        augment: augments faces uint8 (B, T, H, W, 3), with a seed (2,).
        address: the dispatcher.

    Raises:
        UserError: the shards are in object storage.
    """
    if rows.stage is not None:
        raise UserError("--data.service reads files. Expected --data on storage that all workers have, no URL.")
    make = pipeline.Examples(preprocess)
    paths = np.array([os.path.abspath(path) for path in rows.paths], object)
    service, pool = tf.data.experimental.service, batch_size * pipeline.pool_batches(batch_size)
    # without compression, which pictures do not gain from
    distribute = service.distribute(
        service.ShardingPolicy.DYNAMIC, address, max_outstanding_requests=BUFFER, compression=None
    )

    def batch(features: dict[str, tf.Tensor], seed: tf.Tensor) -> Any:
        # workers count their batches each from 0: the seed is that of the first record
        return make(features, augment and partial(augment, seed=tf.stack([seed, features["position"][0]])))

    def read(path: tf.Tensor) -> tf.data.Dataset:
        return tf.data.TFRecordDataset(path).map(
            as_graph(lambda record: (tf.strings.to_hash_bucket_fast(record, 2**31 - 1), record))
        )

    def cut(seed: tf.Tensor, *elements: tf.Tensor) -> tf.data.Dataset:
        return pipeline.by_length(make, elements, batch_size, tf.stack([seed, elements[0][0]]))

    def build(files: tf.Tensor, seed: tf.Tensor) -> tf.data.Dataset:
        # the files are shuffled before: those of `Dataset.shuffle` would be read by each worker (TensorFlow 2.21)
        records = tf.data.Dataset.from_tensor_slices(files).interleave(as_graph(read), cycle_length=4)
        return (
            _shuffle(records, pool, seed)
            .batch(pool)
            .flat_map(as_graph(partial(cut, seed)))
            .map(as_graph(lambda features: batch(features, seed)), num_parallel_calls=tf.data.AUTOTUNE)
            .apply(distribute)
            .prefetch(BUFFER)
        )

    signature = (tf.TensorSpec((None,), tf.string), tf.TensorSpec((), tf.int64))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of options of a data set that a graph does not know
        graph = tf.function(build, input_signature=signature, autograph=False).get_concrete_function()

    def epoch(order: pipeline.EpochOrder) -> ServiceBatches:
        files = paths[order.shuffle(np.arange(len(paths)))].tolist()
        dataset = graph(tf.constant(files), tf.constant(order.mixed, tf.int64))
        return ServiceBatches(Batches(dataset, rows.paths), batch_size, address)

    return epoch


def _shuffle(dataset: tf.data.Dataset, size: int, seed: tf.Tensor) -> tf.data.Dataset:
    """Returns `dataset.shuffle(size, seed)`, which takes no tensor as the seed."""
    spec = tf.nest.flatten(dataset.element_spec)
    shuffled = tf.raw_ops.ShuffleDataset(
        input_dataset=tf.data.experimental.to_variant(dataset), buffer_size=size, seed=seed, seed2=seed,
        reshuffle_each_iteration=False, output_types=[x.dtype for x in spec], output_shapes=[x.shape for x in spec],
    )  # fmt: skip
    return tf.data.experimental.from_variant(shuffled, dataset.element_spec)


@dataclasses.dataclass(frozen=True)
class ServiceBatches:
    """Batches of a service, of which each worker's last one may be short: short ones are joined.

    So there are as many batches as one process would make, and the last one alone is short.

    Attributes:
        batches: the batches of the service.
        size: utterances per batch.
        address: the dispatcher, for messages.
        count: number of batches that are wanted; None: all.

    Raises:
        UserError: in an iteration, no batch comes for `PATIENCE` seconds.
    """

    batches: Batches
    size: int
    address: str
    count: int | None = None

    def take(self, count: int) -> ServiceBatches:
        """Returns the first `count` batches."""
        return dataclasses.replace(self, count=count)

    def __iter__(self) -> Iterator[Any]:
        short: list[Any] = []
        number = 0
        for batch in self._received():
            if self.count is not None and number >= self.count:
                return
            if len(batch[1]) == self.size:
                number += 1
                yield batch
            else:
                short.append(batch)
        if short:
            joined = _join(short)
            for begin in range(0, len(joined[1]), self.size):
                yield tf.nest.map_structure(lambda x, begin=begin: x[begin : begin + self.size], joined)

    def _received(self) -> Iterator[Any]:
        """Yields batches that a thread receives: TensorFlow waits without an end, deaf to Ctrl-C."""
        received: queue.Queue[Any] = queue.Queue(BUFFER)
        stopped = threading.Event()

        def receive() -> None:
            try:
                for batch in self.batches:
                    received.put(batch)
                    if stopped.is_set():
                        return
                received.put(END)
            except BaseException as error:
                received.put(error)

        threading.Thread(target=receive, daemon=True).start()
        last = time.monotonic()
        try:
            while True:
                try:
                    batch = received.get(timeout=1)
                except queue.Empty:
                    if time.monotonic() - last > PATIENCE:
                        raise UserError(
                            f"The tf.data service at {self.address} has sent no batch for {PATIENCE:.0f} s. Expected a "
                            "dispatcher that runs, and workers with the data at the same path. Finished epochs are "
                            "kept; continue with --resume."
                        ) from None
                    continue
                if batch is END:
                    return
                if isinstance(batch, BaseException):
                    raise batch
                yield batch
                last = time.monotonic()
        finally:
            stopped.set()
            while not received.empty():
                received.get_nowait()


def _join(batches: list[Any]) -> Any:
    """Joins batches along their first axis; the others are padded with zeros to the largest."""

    def join(*parts: tf.Tensor) -> tf.Tensor:
        largest = np.max([part.shape[1:] for part in parts], axis=0, initial=0)
        padded = [
            tf.pad(part, [[0, 0], *([0, most - length] for most, length in zip(largest, part.shape[1:], strict=True))])
            for part in parts
        ]
        return tf.concat(padded, axis=0)

    return tf.nest.map_structure(join, *batches)
