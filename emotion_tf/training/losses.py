"""Losses on logits, one value a row; class weights and logit adjustment by class frequency.

Each loss of `config.train.LOSSES` is the function of that name.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from emotion_tf.config import TrainConfig
from emotion_tf.config.train import LOSSES

RowLoss = Callable[[Any, Any], tf.Tensor]
"""Labels (B,) and logits (B, C) to losses float32 (B,)."""
TINY = 1e-12


def cross_entropy(y_true: tf.Tensor, y_pred: tf.Tensor, smoothing: float = 0.0) -> tf.Tensor:
    """Returns the cross-entropy with smoothed targets: labels (B,) and logits (B, C) -> (B,).

    The target of the true class is 1 - smoothing + smoothing / C, of each other smoothing / C (Szegedy 2016,
    "Rethinking the Inception Architecture", section 7).
    """
    loss = -_log_probability(y_true, y_pred)
    if not smoothing:
        return loss
    uniform = -tf.reduce_mean(tf.nn.log_softmax(y_pred), axis=-1)
    return (1.0 - smoothing) * loss + smoothing * uniform


def focal(y_true: tf.Tensor, y_pred: tf.Tensor, gamma: float) -> tf.Tensor:
    """Returns the focal loss -(1 - p)^gamma log p, p of the true class: labels (B,) and logits (B, C) -> (B,).

    Lin 2017, "Focal Loss for Dense Object Detection", equation 4.
    """
    log_p = _log_probability(y_true, y_pred)
    # computed from the logarithm, away from 0: there the derivative of a power below 1 is infinite, and times 0 NaN
    log_rest = tf.math.log(tf.maximum(-tf.math.expm1(log_p), TINY))
    return -tf.exp(gamma * log_rest) * log_p


def _log_probability(y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
    return tf.gather(tf.nn.log_softmax(y_pred), tf.cast(y_true, tf.int32), batch_dims=1)


def build_loss(train: TrainConfig, counts: np.ndarray) -> RowLoss:
    """Returns the training loss of a configuration, with its class weights and before any weights of rows.

    With `logit_adjustment` tau it is a loss on logits + tau * log(frequency) (Menon 2021, "Long-tail learning via logit
    adjustment", equation 10). The plain logits, which the model outputs, then assume equally frequent classes.

    Args:
        train: training part of the configuration.
        counts: weighted number of rows of each class in the training split (C,).
    """
    arguments = {name: getattr(train, option) for name, option in LOSSES[train.loss].options.items()}
    loss = functools.partial(getattr(sys.modules[__name__], train.loss), **arguments)
    shift = logit_shift(train, counts)
    weights = balance(counts) if train.class_weights == "balanced" else None

    def row_loss(y_true: Any, y_pred: Any) -> tf.Tensor:
        losses = loss(y_true, tf.cast(y_pred, tf.float32) + shift)
        return losses if weights is None else losses * tf.gather(weights, y_true)

    return row_loss


def class_counts(label: np.ndarray, weight: np.ndarray, classes: int) -> np.ndarray:
    """Returns the weighted number of rows of each class, where a row of average weight counts as one: float64 (C,).

    Args:
        label: classes of the rows (N,).
        weight: weights of the rows (N,), not all 0.
        classes: number of classes.
    """
    weight = np.asarray(weight, np.float64)
    return np.bincount(label, weight / weight.mean(), classes)


def logit_shift(train: TrainConfig, counts: np.ndarray) -> np.ndarray:
    """Returns what logit adjustment adds to the logits in the loss, tau * log(frequency), float32 (C,)."""
    return (train.logit_adjustment * np.log(frequencies(counts))).astype(np.float32)


def frequencies(counts: np.ndarray) -> np.ndarray:
    """Returns the share of each class; a class with less than one row counts as one row."""
    counts = np.maximum(1, np.asarray(counts, np.float64))
    return counts / counts.sum()


def balance(counts: np.ndarray) -> np.ndarray:
    """Returns the weight of each class, inverse to its frequency; 1 if all are equally frequent: float32 (C,)."""
    return (1.0 / (len(counts) * frequencies(counts))).astype(np.float32)
