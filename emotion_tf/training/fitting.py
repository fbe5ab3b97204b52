"""The training step: losses of the fusion and of each tower alone, batches in parts, averaged weights."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from emotion_tf.config import TrainConfig
from emotion_tf.models.layers import HasMore
from emotion_tf.training.losses import Loss

TOWERS = {"text": ("input_mask", "word_ids", "context_word_ids"), "face": ("face_mask",)}
"""Tower -> the inputs that tell whether its modality is there."""


def with_heads(model: keras.Model, train: TrainConfig, labels: int) -> keras.Model:
    """A model with the auxiliary heads that only training has.

    Returns:
        The same inputs to a dict: `logits` (B, C), and with `--train.auxiliary-weight` of each tower its own logits
        `text`, `face` (B, C), and whether its modality is there, `has_text`, `has_face` bool (B,).
    """
    outputs = {"logits": model.output}
    for name in TOWERS if train.auxiliary_weight else ():
        head = keras.layers.Dense(labels, dtype="float32", name=f"auxiliary_{name}")
        outputs[name] = head(model.get_layer(f"{name}_out").output)
        outputs[f"has_{name}"] = _present(model.input, name)
    return keras.Model(model.input, outputs, name="with_heads")


def _present(inputs: Mapping[str, Any], name: str) -> Any:
    found = [
        # BERT's [CLS] and [SEP] are always there
        HasMore(2 if key == "input_mask" else 0, name=f"auxiliary_{key}")(inputs[key])
        for key in TOWERS[name]
        if key in inputs
    ]
    return functools.reduce(keras.ops.logical_or, found)


class FitModel(keras.Model):
    """A model with what only training has.

    Auxiliary heads give each tower's own logits. A batch is gone through in parts of `batch_size` rows, whose gradients
    make one update: exactly that of the whole batch, but for batch norm, which sees the parts (`--train.accumulate`).
    """

    @classmethod
    def of(cls, model: keras.Model, train: TrainConfig, loss: Loss, average: Average | None = None) -> FitModel:
        """Around `model`, whose variables it trains.

        Args:
            model: inputs to the outputs of `with_heads`.
            train: how it is fitted.
            loss: of logits (B, C) and labels (B,), float32 (B,).
            average: of its weights, updated after each step.
        """
        made = cls(model.input, model.output, name="fit")
        made.train, made.row_loss, made.average = train, loss, average
        made.loss_mean = keras.metrics.Mean(name="loss")
        made.accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
        return made

    @property
    def metrics(self) -> list[Any]:
        """Set back at the start of each epoch."""
        return [self.loss_mean, self.accuracy]

    def train_step(self, data: Any) -> dict[str, Any]:
        """One update."""
        inputs, label, weight = data
        whole = tf.cast(tf.shape(label)[0], tf.float32)
        if self.train.accumulate == 1:
            gradients = self._gradients(inputs, label, weight, whole)
        else:
            gradients = self._in_parts(inputs, label, weight, whole)
        self.optimizer.apply(gradients, self.trainable_variables)
        if self.average:
            self.average.update(self.optimizer.iterations)
        return {metric.name: metric.result() for metric in self.metrics}

    def _in_parts(self, inputs: Any, label: Any, weight: Any, whole: Any) -> list[Any]:
        size = self.train.batch_size
        parts = (tf.shape(label)[0] + size - 1) // size
        zeros = [tf.zeros(v.shape, v.dtype) for v in self.trainable_variables]

        def add(i: Any, *sums: Any) -> tuple[Any, ...]:
            rows = slice(i * size, (i + 1) * size)
            part = {name: x[rows] for name, x in inputs.items()}
            found = self._gradients(part, label[rows], weight[rows], whole)
            return i + 1, *(a + b for a, b in zip(sums, found, strict=True))

        return list(tf.while_loop(lambda i, *_: i < parts, add, [0, *zeros], parallel_iterations=1)[1:])

    def _gradients(self, inputs: Any, label: Any, weight: Any, whole: Any) -> list[Any]:
        """Of the rows' losses, summed and divided by the rows of the whole batch."""
        with tf.GradientTape() as tape:
            outputs = self(inputs, training=True)
            rows = weight * (self.row_loss(outputs["logits"], label) + self._auxiliary(outputs, label))
            loss = tf.reduce_sum(rows) / whole
        self.loss_mean.update_state(rows)
        self.accuracy.update_state(label, outputs["logits"], sample_weight=weight)
        variables = [v.value for v in self.trainable_variables]
        return tape.gradient(loss, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    def _auxiliary(self, outputs: Mapping[str, Any], label: Any) -> Any:
        """The mean over the towers of their own losses; what an utterance lacks teaches its tower nothing.

        What modality dropout took away counts as there: the head then learns how frequent the classes are.
        """
        names = [name for name in TOWERS if name in outputs]
        if not names:
            return 0.0
        losses = [self.row_loss(outputs[name], label) * tf.cast(outputs[f"has_{name}"], tf.float32) for name in names]
        return self.train.auxiliary_weight * tf.add_n(losses) / len(names)


class Average:
    """An exponential moving average of a model's weights (Polyak and Juditsky 1992).

    In its first updates t it forgets faster, by min(momentum, (1 + t) / (10 + t)), as TensorFlow's
    `tf.train.ExponentialMovingAverage` does: a short training is not averaged with its start.
    """

    def __init__(self, model: keras.Model, momentum: float) -> None:
        self.momentum = momentum
        self.weights = [w for w in model.weights if w.dtype.startswith(("float", "bfloat"))]
        self.variables = [tf.Variable(w.value, trainable=False) for w in self.weights]
        self.follow(model)

    def follow(self, model: keras.Model) -> None:
        """Takes the weights of `model`, some of them all, for those that change: the others are their own mean."""
        changing = {id(weight) for weight in model.weights}
        self.pairs = [pair for pair in zip(self.variables, self.weights, strict=True) if id(pair[1]) in changing]

    def update(self, step: Any) -> None:
        """After update number `step` (the first is 1)."""
        step = tf.cast(step, tf.float32)
        momentum = tf.minimum(self.momentum, (1.0 + step) / (10.0 + step))
        for mean, weight in self.pairs:
            mean.assign_add((1.0 - tf.cast(momentum, mean.dtype)) * (tf.cast(weight.value, mean.dtype) - mean))

    def swap(self) -> None:
        """Exchanges weights and averages: once to use the averages, once more to go on training."""
        for mean, weight in self.pairs:
            kept = tf.identity(mean)
            mean.assign(weight.value)
            weight.assign(kept)
