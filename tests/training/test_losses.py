"""Losses on logits, by formula in NumPy."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

from emotion_tf.config import CHOICES, TrainConfig
from emotion_tf.config.train import LOSSES
from emotion_tf.errors import UserError
from emotion_tf.training import losses
from emotion_tf.training.losses import balance, build_loss, class_counts, cross_entropy, focal

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(5, 3)).astype(np.float32) * 3
LABEL = np.array([0, 1, 2, 0, 1])
COUNTS = np.array([6, 3, 1])


def log_softmax(x):
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def expected(smoothing=0.0, gamma=0.0, tau=0.0):
    """Of a smoothed target, with focal's factor, on adjusted logits."""
    log_p = log_softmax(LOGITS.astype(np.float64) + tau * np.log(COUNTS / 10))
    target = np.eye(3)[LABEL] * (1 - smoothing) + smoothing / 3
    p = np.exp(log_p[np.arange(5), LABEL])
    return -(target * log_p).sum(axis=1) * (1 - p) ** gamma


@pytest.mark.parametrize(
    ("options", "formula"),
    [
        ({}, {}),
        ({"label_smoothing": 0.2}, {"smoothing": 0.2}),
        ({"loss": "focal"}, {"gamma": 2.0}),
        ({"loss": "focal", "focal_gamma": 0.5}, {"gamma": 0.5}),
        ({"logit_adjustment": 1.0}, {"tau": 1.0}),
        ({"loss": "focal", "logit_adjustment": 0.5}, {"gamma": 2.0, "tau": 0.5}),
    ],
)
def test_by_formula(options, formula):
    loss = build_loss(TrainConfig(**options), COUNTS)(tf.constant(LABEL), tf.constant(LOGITS))
    np.testing.assert_allclose(loss, expected(**formula), rtol=1e-5)


def test_logits_of_lower_precision_give_a_loss_in_float32():
    loss = build_loss(TrainConfig(logit_adjustment=1.0), COUNTS)(tf.constant(LABEL), tf.constant(LOGITS, tf.bfloat16))
    assert loss.dtype == tf.float32
    np.testing.assert_allclose(loss, expected(tau=1.0), rtol=0.03)


def test_a_loss_of_the_configuration_is_the_function_of_its_name():
    assert set(LOSSES) == set(CHOICES["train.loss"])
    for name, row in LOSSES.items():
        assert set(inspect.signature(getattr(losses, name)).parameters) == {"y_true", "y_pred", *row.options}


def test_it_is_the_loss_of_keras():
    keras_loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")
    np.testing.assert_allclose(cross_entropy(LABEL, LOGITS), keras_loss(LABEL, LOGITS), rtol=1e-5)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_is_finite_at_certain_predictions(gamma):
    for sure in (50.0, -50.0):
        logits = tf.Variable([[sure, 0.0]])
        with tf.GradientTape() as tape:
            loss = focal(tf.constant([0]), logits, gamma)
        assert np.isfinite(loss).all() and np.isfinite(tape.gradient(loss, logits)).all()


def test_balanced_class_weights_by_hand():
    np.testing.assert_allclose(balance(np.array([6, 2])), [8 / (2 * 6), 8 / (2 * 2)])
    np.testing.assert_allclose(balance(np.array([5, 5, 5])), 1)
    assert np.isfinite(balance(np.array([5, 0]))).all()


def test_classes_are_balanced_by_the_weights_of_their_rows():
    """Each class has the same share of the loss; the unit of the weights does not matter."""
    label, weight = np.array([0, 0, 0, 1, 1, 2]), np.array([3.0, 1.0, 0.0, 1.0, 1.0, 2.0])
    counts = class_counts(label, weight, 4)
    np.testing.assert_allclose(counts, np.array([4, 2, 2, 0]) * 6 / 8)
    np.testing.assert_allclose(class_counts(label, 1e-3 * weight, 4), counts)
    share = np.bincount(label, weight * balance(counts)[label])
    np.testing.assert_allclose(share, share[0])
    assert class_counts(label, np.ones(6), 3).tolist() == [3, 2, 1]


def test_the_loss_of_balanced_classes_by_hand():
    loss = build_loss(TrainConfig(class_weights="balanced", label_smoothing=0.2), COUNTS)
    class_weights = 10 / (3 * COUNTS)
    np.testing.assert_allclose(
        loss(tf.constant(LABEL), tf.constant(LOGITS)), expected(smoothing=0.2) * class_weights[LABEL], rtol=1e-5
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"focal_gamma": 1.0}, "`train.focal_gamma`. It has an effect only with --train.loss focal"),
        ({"loss": "focal", "label_smoothing": 0.1}, "`train.label_smoothing`. It has an effect only with --train.loss"),
        ({"momentum": 0.5}, "`train.momentum`. It has an effect only with --train.optimizer sgd"),
        (
            {"optimizer": "adam", "weight_decay": 0.1},
            "`train.weight_decay`. It has an effect only with --train.optimizer",
        ),
        ({"logit_adjustment": 1.0, "class_weights": "balanced"}, "`train.logit_adjustment`. Expected 0 with"),
    ],
)
def test_options_without_an_effect_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        TrainConfig(**options)
