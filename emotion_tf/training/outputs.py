"""The outputs of a model on a data set."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from emotion_tf.evaluation.calibration import Outputs
from emotion_tf.models.devices import run_on_devices
from emotion_tf.models.two_tower import presence_pattern
from emotion_tf.training.replicas import sum_over_hosts, this_host

Tensors = Mapping[str, tf.Tensor]
Infer = Callable[[Tensors], dict[str, tf.Tensor]]


def input_spec(model: keras.Model) -> dict[str, tf.TensorSpec]:
    """Returns the specs of a model's inputs, for any batch size."""
    return {name: tf.TensorSpec((None, *x.shape[1:]), x.dtype) for name, x in model.input.items()}


@functools.lru_cache(maxsize=1)  # a run is evaluated on dev, then on test
def inference(model: keras.Model) -> Infer:
    """Returns the function from inputs to a model's outputs, traced once for any batch size."""
    signature = [input_spec(model)]
    return tf.function(lambda inputs: run_on_devices(model, inputs), input_signature=signature, autograph=False)


def collect_outputs(infer: Infer, data: Iterable[tuple[Any, ...]]) -> Outputs:
    """Returns the outputs of a `TwoTower` on a data set, in the order of its records.

    Args:
        infer: function from inputs to outputs.
        data: batches of (inputs, label (B,), weight (B,)) in this order, or with the position (B,) of each record.
    """
    columns: list[tuple[Any, ...]] = []
    for inputs, label, weight, *position in data:
        outputs = infer(inputs)
        columns.append((outputs["logits"], label, weight, presence_pattern(outputs), *position))
    arrays = [np.concatenate([np.asarray(part) for part in column]) for column in zip(*columns, strict=True)]
    order = np.argsort(arrays[4]) if len(arrays) > 4 else slice(None)
    return Outputs(*(array[order] for array in arrays[:4]))


def join_outputs(parts: Iterable[Outputs]) -> Outputs:
    """Returns the outputs on parts of a data set, one after the other, as those on the whole."""
    return Outputs(*map(np.concatenate, zip(*parts, strict=True)))


def join_hosts(outputs: Outputs | None, rows: int, classes: int) -> Outputs:
    """Returns the outputs on all rows, of which each host has its share (`Share.bounds`), the same on every host.

    Args:
        outputs: those of this host; None if it has no row.
        rows: number of rows of all hosts.
        classes: number of classes.
    """
    if this_host().count == 1 and outputs is not None:
        return outputs
    table = np.zeros((rows, classes + 3))
    if outputs is not None:
        begin, end = this_host().share.bounds(rows)
        columns = (outputs.label, outputs.weight, outputs.pattern)
        table[begin:end] = np.column_stack([outputs.logits, *columns])
    table = sum_over_hosts(table)
    logits, (label, weight, pattern) = table[:, :classes], table[:, classes:].T
    return Outputs(
        logits.astype(np.float32), label.astype(np.int64), weight.astype(np.float32), pattern.astype(np.int32)
    )
