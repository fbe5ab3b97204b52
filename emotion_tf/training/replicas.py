"""Replicas of the model: on the devices of this host, and on those of the other hosts. Without a strategy, one.

The strategy is that of the scope: `tf.distribute.get_strategy()`. A host is a process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

from emotion_tf.data.share import Share
from emotion_tf.errors import UserError
from emotion_tf.models.devices import this_replica, zero_rows

T = TypeVar("T")
Batch = tuple[Mapping[str, tf.Tensor], tf.Tensor, tf.Tensor]
"""Inputs, labels (B,) and weights (B,)."""
PADDING = -1
"""Label of a row that only fills the batch of a replica that has no row: collectives need all replicas."""


@dataclass(frozen=True)
class Host:
    """A process that trains.

    Attributes:
        index: its number, from 0. Host 0 writes the run.
        count: number of hosts.
        devices: number of its devices, with a replica on each; all hosts have the same.
    """

    index: int = 0
    count: int = 1
    devices: int = 1

    @property
    def writes(self) -> bool:
        """Whether this host writes files and prints progress."""
        return self.index == 0

    @property
    def replicas(self) -> int:
        """Number of replicas of all hosts."""
        return self.count * self.devices

    @property
    def share(self) -> Share:
        """The share of the batches that this host reads."""
        return Share(self.index, self.count)


def this_host() -> Host:
    """Returns the host that this process is in the strategy of the scope."""
    if not tf.distribute.has_strategy():
        return Host()
    strategy = tf.distribute.get_strategy()
    devices = len(strategy.extended.worker_devices)
    count = strategy.num_replicas_in_sync // devices
    return Host(strategy.cluster_resolver.task_id, count, devices) if count > 1 else Host(devices=devices)


def rows_of_replica(batch: Batch) -> Batch:
    """Returns the rows of a host's batch that belong to the replica that is being traced; at least one (see `pad`).

    Rows are dealt in turn, so that each replica has long and short texts.
    """
    host = this_host()
    if host.replicas == 1:
        return batch
    first = this_replica() % host.devices
    return pad(tf.nest.map_structure(lambda x: x[first :: host.devices], batch))


def pad(batch: Batch) -> Batch:
    """Returns a batch (inputs, label, weight) with one more row if it has none: zeros with the label `PADDING`."""
    inputs, label, weight = batch
    missing = tf.maximum(0, 1 - tf.shape(label)[0])
    inputs, weight = tf.nest.map_structure(lambda x: tf.concat([x, zero_rows(x, missing)], axis=0), (inputs, weight))
    return inputs, tf.concat([label, PADDING + zero_rows(label, missing)], axis=0), weight


def empty_batch(inputs: Mapping[str, tf.TensorSpec]) -> Batch:
    """Returns a batch (inputs, label, weight) without rows, for a host that has fewer records than others."""
    values = {name: tf.zeros([0, *(size or 1 for size in spec.shape[1:])], spec.dtype) for name, spec in inputs.items()}
    return values, tf.zeros([0], tf.int64), tf.zeros([0], tf.float32)


def of_first_replica(values: T) -> T:
    """Returns what the first replica of this host has returned, for values that are the same on all."""
    strategy = tf.distribute.get_strategy()
    return tf.nest.map_structure(lambda x: strategy.experimental_local_results(x)[0], values)


def sum_over_hosts(values: np.ndarray) -> np.ndarray:
    """Returns the sums of the arrays of all hosts, float64 and of one shape; every host calls it."""
    return values if this_host().count == 1 else np.asarray(_reduce(tf.constant(values, tf.float64)))


@tf.function(autograph=False)
def _reduce(values: tf.Tensor) -> tf.Tensor:
    devices = this_host().devices

    def reduce() -> tf.Tensor:
        own = values if this_replica() % devices == 0 else tf.zeros_like(values)
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(own))

    return of_first_replica(tf.distribute.get_strategy().run(reduce))


def of_host_0(*numbers: float) -> tuple[float, ...]:
    """Returns the numbers of host 0, whose decisions all hosts follow."""
    values = np.array(numbers, np.float64)
    return tuple(sum_over_hosts(values if this_host().writes else np.zeros_like(values)).tolist())


def all_hosts(condition: bool) -> bool:
    """Returns whether a condition holds on every host."""
    return bool(sum_over_hosts(np.array([float(not condition)]))[0] == 0)


def wait_for_hosts() -> None:
    """Returns when all hosts have called it."""
    of_host_0(0)


def check_same(what: str, digest: str) -> None:
    """Raises UserError on every host if a hexadecimal digest of something differs between hosts.

    Args:
        what: what has to be the same, for the message.
        digest: at least 12 hexadecimal digits.
    """
    host = this_host()
    digests = np.zeros(host.count)
    digests[host.index] = int(digest[:12], 16)
    numbers = sum_over_hosts(digests)
    different = [str(i) for i, number in enumerate(numbers) if number != numbers[0]]
    if different:
        raise UserError(
            f"The hosts differ: {what} of host {' and '.join(different)} is not that of host 0. Start all hosts with "
            "the same command and the same files."
        )


def batches_for_all(batches: Any, steps: int, inputs: Mapping[str, tf.TensorSpec]) -> Iterator[Any]:
    """Yields `steps` batches, the last ones empty if there are fewer: all hosts take equally many steps."""
    count = 0
    for batch in batches.take(steps):
        count += 1
        yield batch
    for _ in range(steps - count):
        yield empty_batch(inputs)
