"""Inference under a strategy of `tf.distribute`, or under none, and the number of the replica that is traced."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import tensorflow as tf


def run_on_devices(model: keras.Model, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Returns the outputs of a model in inference; each device of this host computes a part of the rows.

    With a strategy, the model runs as a replica even on one device: TF-Hub's modules have no variables elsewhere.
    """
    if not tf.distribute.has_strategy():
        return model(inputs, training=False)
    strategy = tf.distribute.get_strategy()
    devices = len(strategy.extended.worker_devices)
    rows = tf.shape(next(iter(inputs.values())))[0]
    bounds = [i * rows // devices for i in range(devices + 1)]

    def run() -> dict[str, tf.Tensor]:
        device = this_replica() % devices
        begin, end = bounds[device], bounds[device + 1]
        missing = tf.maximum(0, 1 - (end - begin))
        part = {name: tf.concat([x[begin:end], zero_rows(x, missing)], axis=0) for name, x in inputs.items()}
        return {name: values[: end - begin] for name, values in model(part, training=False).items()}

    outputs = strategy.run(run)
    return {name: tf.concat(strategy.experimental_local_results(x), axis=0) for name, x in outputs.items()}


def this_replica() -> int:
    """Returns the number of the replica that is being traced, of those of all hosts."""
    number = tf.distribute.get_replica_context().replica_id_in_sync_group
    return int(tf.get_static_value(tf.convert_to_tensor(number)))


def zero_rows(values: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Returns `rows` rows of zeros, with the dtype of `values` (N, ...) and the shape of its rows."""
    return tf.zeros(tf.concat([[rows], tf.shape(values)[1:]], axis=0), values.dtype)
