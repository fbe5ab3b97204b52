"""Averaged weights: an exponential moving average of a model's weights (Polyak and Juditsky 1992)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence

import keras
import tensorflow as tf

Pair = tuple[tf.Variable, keras.Variable]
"""A mean, and the weight that it is of."""


class Average:
    """The means of a model's weights.

    Keras' `use_ema` leaves out the statistics of batch norm, has no warm-up, and begins anew with each optimizer.

    Attributes:
        pairs: of all floating-point weights.
    """

    def __init__(self, weights: Iterable[keras.Variable]) -> None:
        self.pairs: tuple[Pair, ...] = tuple(
            # under a strategy the weights are the same on every replica
            (tf.Variable(w.value, trainable=False, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA), w)
            for w in weights
            if w.dtype.startswith(("float", "bfloat"))
        )

    def pairs_of(self, weights: Iterable[keras.Variable]) -> list[Pair]:
        """Returns the pairs of some weights: those that a phase of training changes."""
        changing = {id(weight) for weight in weights}
        return [pair for pair in self.pairs if id(pair[1]) in changing]


def update_average(pairs: Sequence[Pair], momentum: float, step: tf.Tensor) -> None:
    """Moves the means towards the weights after update number `step` (the first is 1).

    The first updates forget faster, with min(momentum, (1 + t) / (10 + t)), as TensorFlow's
    `tf.train.ExponentialMovingAverage` does: a short training is not averaged with its start.
    """
    step = tf.cast(step, tf.float32)
    momentum = tf.minimum(momentum, (1.0 + step) / (10.0 + step))
    for mean, weight in pairs:
        mean.assign_add((1.0 - tf.cast(momentum, mean.dtype)) * (tf.cast(weight.value, mean.dtype) - mean))


@contextlib.contextmanager
def averaged(pairs: Sequence[Pair]) -> Iterator[None]:
    """Inside the block the model has the averaged weights, and the means hold the trained ones."""
    _swap(pairs)
    try:
        yield
    finally:
        _swap(pairs)


def _swap(pairs: Sequence[Pair]) -> None:
    for mean, weight in pairs:
        value = tf.identity(mean)
        mean.assign(weight.value)
        weight.assign(value)
