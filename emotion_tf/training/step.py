"""An update: sums over the rows of a replica, and a function that applies them.

`replica_sums` changes no weights, only the state of the model (batch norm, seeds). `apply_update` runs in replica
context: it reduces over the replicas, divides by the rows of the whole update, clips and applies. Keras would clip
before it reduces, and reduce again in `apply`; its `gradient_accumulation_steps` weighs parts equally, however many
rows they have, and fails under a strategy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import keras
import tensorflow as tf

from emotion_tf.training.average import Pair, update_average
from emotion_tf.training.replicas import Batch, pad

Tensors = Mapping[str, tf.Tensor]
Objective = Callable[[tf.Tensor, Tensors], tf.Tensor]
"""Labels (B,) and the outputs of the training network to losses float32 (B,)."""


class Sums(NamedTuple):
    """Sums over rows.

    Attributes:
        gradients: gradients of the weighted losses, dense, one for each variable.
        rows: number of rows.
        loss: weighted losses.
        weight: weights.
        correct: weights of the rows that are predicted correctly.
    """

    gradients: list[tf.Tensor]
    rows: tf.Tensor
    loss: tf.Tensor
    weight: tf.Tensor
    correct: tf.Tensor

    @property
    def mean_loss(self) -> float:
        """Weighted mean of the losses."""
        return float(tf.math.divide_no_nan(self.loss, self.weight))

    @property
    def accuracy(self) -> float:
        """Weighted accuracy, as on dev: class weights do not count."""
        return float(tf.math.divide_no_nan(self.correct, self.weight))


def zero_sums(gradients: Sequence[tf.Tensor] = ()) -> Sums:
    """Returns the sums over no rows."""
    return Sums([tf.zeros_like(gradient) for gradient in gradients], *[tf.zeros(())] * 4)


@dataclass(frozen=True)
class Update:
    """A function that applies one batch to the weights.

    Attributes:
        network: model whose outputs `objective` reads.
        objective: loss of each row.
        optimizer: optimizer built for the trainable variables of the network; it does not clip.
        clip_norm: maximum global norm of the gradients.
        part_size: rows that pass through the network at once (`--train.accumulate`). The sums are the same, except that
            batch norm normalises each part. None: all rows.
        average: pairs of `Average` that the update moves.
        momentum: momentum of the average.
        first_step: number of updates before those of this optimizer, in earlier phases.
        parts: number of parts on each of several replicas, which must make equally many: some may have no row. None:
            as many as the rows fill.
    """

    network: keras.Model
    objective: Objective
    optimizer: keras.Optimizer
    clip_norm: float
    part_size: int | None = None
    average: Sequence[Pair] = ()
    momentum: float = 0.0
    first_step: int = 0
    parts: int | None = None

    def __call__(self, batch: Batch) -> Sums:
        """Applies one update in replica context; returns the sums over all replicas, without gradients."""
        return apply_update(self, replica_sums(self, batch))._replace(gradients=[])


def replica_sums(update: Update, batch: Batch) -> Sums:
    """Returns the sums over the rows of one replica."""
    inputs, label, weight = batch
    size = update.part_size
    if size is None:
        return _part_sums(update, inputs, label, weight)

    def part(i: tf.Tensor) -> Sums:
        at = slice(i * size, (i + 1) * size)
        rows = {name: x[at] for name, x in inputs.items()}, label[at], weight[at]
        return _part_sums(update, *(rows if update.parts is None else pad(rows)))

    if update.parts is not None:  # a loop of the graph may not contain a reduction over replicas
        sums = [part(i) for i in range(update.parts)]
        return tf.nest.map_structure(lambda *values: tf.add_n(values), *sums)

    start = zero_sums([v.value for v in update.network.trainable_variables])
    _, sums = tf.while_loop(
        lambda i, _: i * size < tf.shape(label)[0],
        lambda i, sums: (i + 1, tf.nest.map_structure(tf.add, sums, part(i))),
        [0, start],
        parallel_iterations=1,
    )
    return sums


def _part_sums(update: Update, inputs: Tensors, label: tf.Tensor, weight: tf.Tensor) -> Sums:
    is_row = label >= 0  # not padding
    with tf.GradientTape() as tape:
        outputs = update.network(inputs, training=True)
        losses = weight * update.objective(tf.maximum(label, 0), outputs)
        loss = tf.reduce_sum(losses)
    variables = [v.value for v in update.network.trainable_variables]
    gradients = tape.gradient(loss, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    is_correct = tf.equal(tf.argmax(outputs["logits"], axis=-1), tf.cast(label, tf.int64))
    return Sums(
        # dense: a row of an embedding that occurs twice must count as one entry in the norm and the second moment
        [tf.convert_to_tensor(gradient) for gradient in gradients],
        tf.reduce_sum(tf.cast(is_row, tf.float32)),
        loss,
        tf.reduce_sum(weight),
        tf.reduce_sum(weight * tf.cast(is_correct, weight.dtype)),
    )


def apply_update(update: Update, sums: Sums) -> Sums:
    """Reduces the sums over the replicas and applies the mean gradient over all rows; returns the reduced sums."""
    sums = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, sums)
    norm = tf.linalg.global_norm(sums.gradients) / sums.rows
    # one multiple for the mean and the clipping; nan, as a gradient that is not finite, changes all weights
    scale = update.clip_norm / tf.maximum(norm, update.clip_norm) / sums.rows + (norm - norm)
    gradients = [gradient * tf.cast(scale, gradient.dtype) for gradient in sums.gradients]
    update.optimizer.apply(gradients, update.network.trainable_variables)
    if update.average:
        update_average(update.average, update.momentum, update.first_step + update.optimizer.iterations)
    return sums
