"""Losses on logits, one number an utterance; what class frequencies do to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from emotion_tf.config import TrainConfig

Loss = Callable[[Any, Any], Any]
TINY = 1e-12


def cross_entropy(logits: tf.Tensor, label: tf.Tensor, smoothing: float = 0.0) -> tf.Tensor:
    """Cross-entropy with smoothed targets: (B, C) and (B,) -> (B,).

    The target of the true class is 1 - smoothing + smoothing / C, of each other smoothing / C (Szegedy 2016,
    "Rethinking the Inception Architecture", section 7).
    """
    true = -_log_probability(logits, label)
    if not smoothing:
        return true
    uniform = -tf.reduce_mean(tf.nn.log_softmax(logits), axis=-1)
    return (1.0 - smoothing) * true + smoothing * uniform


def focal(logits: tf.Tensor, label: tf.Tensor, gamma: float) -> tf.Tensor:
    """Focal loss -(1 - p)^gamma log p, p of the true class: (B, C) and (B,) -> (B,).

    Lin 2017, "Focal Loss for Dense Object Detection", equation 4.
    """
    log_p = _log_probability(logits, label)
    # by the logarithm and never at 0: the derivative of a power below 1 is infinite there, and infinity times 0 is NaN
    log_rest = tf.math.log(tf.maximum(-tf.math.expm1(log_p), TINY))
    return -tf.exp(gamma * log_rest) * log_p


def _log_probability(logits: tf.Tensor, label: tf.Tensor) -> tf.Tensor:
    return tf.gather(tf.nn.log_softmax(logits), tf.cast(label, tf.int32), batch_dims=1)


LOSSES: dict[str, Callable[[TrainConfig], Loss]] = {
    "cross_entropy": lambda train: lambda logits, label: cross_entropy(logits, label, train.label_smoothing),
    "focal": lambda train: lambda logits, label: focal(logits, label, train.focal_gamma),
}


def build_loss(train: TrainConfig, counts: np.ndarray) -> Loss:
    """The loss of training that the configuration names.

    Args:
        train: how the model is fitted.
        counts: utterances of each class in the training split (C,).

    Returns:
        Function of logits (B, C) and labels (B,) to float32 (B,), before any weights. With `logit_adjustment` tau it
        takes logits + tau * log(frequency) (Menon 2021, "Long-tail learning via logit adjustment", equation 10): the
        plain logits, which the model gives and inference uses, then answer as if all classes were equally frequent.
    """
    loss = LOSSES[train.loss](train)
    shift = (train.logit_adjustment * np.log(frequencies(counts))).astype(np.float32)
    return lambda logits, label: loss(tf.cast(logits, tf.float32) + shift, label)


def frequencies(counts: np.ndarray) -> np.ndarray:
    """Share of each class; a class that never occurs counts as one utterance."""
    counts = np.maximum(1, np.asarray(counts, np.float64))
    return counts / counts.sum()


def balance(counts: np.ndarray) -> np.ndarray:
    """Weight of each class, inverse to its frequency; 1 if all are equally frequent: float32 (C,)."""
    return (1.0 / (len(counts) * frequencies(counts))).astype(np.float32)
