"""Averaged weights: an exponential moving average of a model's weights (Polyak and Juditsky 1992)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence

import keras
import tensorflow as tf

Pair = tuple[tf.Variable, keras.Variable]
"""The mean of a weight, and the weight."""


class Average:
    """The moving averages of a model's weights.

    Keras' `use_ema` omits the statistics of batch norm, has no warm-up, and starts again with each optimizer.

    Attributes:
        pairs: means and weights, for all floating-point weights.
    """

    def __init__(self, weights: Iterable[keras.Variable]) -> None:
        self.pairs: tuple[Pair, ...] = tuple(
            # under a strategy the weights are the same on every replica
            (tf.Variable(w.value, trainable=False, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA), w)
            for w in weights
            if w.dtype.startswith(("float", "bfloat"))
        )

    def pairs_of(self, weights: Iterable[keras.Variable]) -> list[Pair]:
        """Returns the pairs of the given weights: those that a phase of training changes."""
        changing = {id(weight) for weight in weights}
        return [pair for pair in self.pairs if id(pair[1]) in changing]


def update_average(pairs: Sequence[Pair], momentum: float, step: tf.Tensor) -> None:
    """Moves the means towards the weights after update number `step` of the training (starting at 1).

    All weights have the same momentum, so that the means are those of whole models, each with one share. The mean of a
    weight that was frozen until now is the weight.

    The momentum is min(momentum, (1 + t) / (10 + t)), as in `tf.train.ExponentialMovingAverage`, so that the initial
    weights do not dominate a short training.
    """
    step = tf.cast(step, tf.float32)
    momentum = tf.minimum(momentum, (1.0 + step) / (10.0 + step))
    for mean, weight in pairs:
        mean.assign_add((1.0 - tf.cast(momentum, mean.dtype)) * (tf.cast(weight.value, mean.dtype) - mean))


@contextlib.contextmanager
def averaged(pairs: Sequence[Pair]) -> Iterator[None]:
    """Swaps the weights with their means inside the block."""
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
