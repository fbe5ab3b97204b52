"""Inference of a model that was built in the scope of a strategy of `tf.distribute`, or in none."""

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
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        device = int(tf.get_static_value(tf.convert_to_tensor(replica))) % devices
        begin, end = bounds[device], bounds[device + 1]
        missing = tf.maximum(0, 1 - (end - begin))
        part = {name: tf.concat([x[begin:end], _zeros(x, missing)], axis=0) for name, x in inputs.items()}
        return {name: values[: end - begin] for name, values in model(part, training=False).items()}

    outputs = strategy.run(run)
    return {name: tf.concat(strategy.experimental_local_results(x), axis=0) for name, x in outputs.items()}


def _zeros(values: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    return tf.zeros(tf.concat([[rows], tf.shape(values)[1:]], axis=0), values.dtype)
