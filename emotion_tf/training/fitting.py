"""The training step: losses of the fusion and of each tower alone, batches in parts, averaged weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from emotion_tf.config import TrainConfig
from emotion_tf.training.losses import Loss

TOWERS = {"text": ("input_mask", "word_ids", "context_word_ids"), "face": ("face_mask",)}
"""Tower -> the inputs that tell whether its modality is there."""


class FitModel(keras.Model):
    """A model with what only training has.

    Auxiliary heads give each tower's own logits. A batch is gone through in parts of `batch_size` rows, whose gradients
    make one update: exactly that of the whole batch, but for batch norm, which sees the parts (`--train.accumulate`).
    """

    @classmethod
    def of(cls, model: keras.Model, train: TrainConfig, labels: int, loss: Loss) -> FitModel:
        """Around `model`, whose variables it trains.

        Args:
            model: inputs to logits.
            train: how it is fitted.
            labels: how many classes.
            loss: of logits (B, C) and labels (B,), float32 (B,).
        """
        outputs = {"logits": model.output}
        for name in TOWERS if train.auxiliary_weight else ():
            head = keras.layers.Dense(labels, dtype="float32", name=f"auxiliary_{name}")
            outputs[name] = head(model.get_layer(f"{name}_out").output)
        made = cls(model.input, outputs, name="fit")
        made.inner, made.train, made.row_loss = model, train, loss
        made.loss_mean = keras.metrics.Mean(name="loss")
        made.accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
        made.average = Average(model, train.ema) if train.ema else None
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
            rows = weight * (self.row_loss(outputs["logits"], label) + self._auxiliary(outputs, inputs, label))
            loss = tf.reduce_sum(rows) / whole
        self.loss_mean.update_state(rows)
        self.accuracy.update_state(label, outputs["logits"], sample_weight=weight)
        variables = [v.value for v in self.trainable_variables]
        return tape.gradient(loss, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    def _auxiliary(self, outputs: Mapping[str, Any], inputs: Mapping[str, Any], label: Any) -> Any:
        """The mean over the towers of their own losses; what an utterance lacks teaches its tower nothing."""
        names = [name for name in TOWERS if name in outputs]
        if not names:
            return 0.0
        losses = [self.row_loss(outputs[name], label) * _present(inputs, name) for name in names]
        return self.train.auxiliary_weight * tf.add_n(losses) / len(names)


def _present(inputs: Mapping[str, Any], name: str) -> Any:
    """1.0 where the modality is there, float32 (B,). BERT's [CLS] and [SEP] are always there."""
    counts = {
        key: tf.math.count_nonzero(inputs[key], axis=1) - (2 if key == "input_mask" else 0)
        for key in TOWERS[name]
        if key in inputs
    }
    return tf.cast(tf.reduce_any(tf.stack([count > 0 for count in counts.values()]), axis=0), tf.float32)


class Average:
    """An exponential moving average of a model's weights (Polyak and Juditsky 1992).

    In its first updates t it forgets faster, by min(momentum, (1 + t) / (10 + t)), as TensorFlow's
    `tf.train.ExponentialMovingAverage` does: a short training is not averaged with its start.
    """

    def __init__(self, model: keras.Model, momentum: float) -> None:
        self.momentum = momentum
        self.weights = [w for w in model.weights if w.dtype.startswith(("float", "bfloat"))]
        self.variables = [tf.Variable(w.value, trainable=False) for w in self.weights]

    def update(self, step: Any) -> None:
        """After update number `step` (the first is 1)."""
        step = tf.cast(step, tf.float32)
        momentum = tf.minimum(self.momentum, (1.0 + step) / (10.0 + step))
        for mean, weight in zip(self.variables, self.weights, strict=True):
            mean.assign_add((1.0 - tf.cast(momentum, mean.dtype)) * (tf.cast(weight.value, mean.dtype) - mean))

    def swap(self) -> None:
        """Exchanges weights and averages: once to use the averages, once more to go on training."""
        for mean, weight in zip(self.variables, self.weights, strict=True):
            kept = tf.identity(mean)
            mean.assign(weight.value)
            weight.assign(kept)
