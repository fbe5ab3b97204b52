"""Rates per variable, decay, warm-up."""

import keras
import numpy as np
import pytest

from emotion_tf.training.optimizers import ScaledAdamW, WarmupLinear, build_optimizer


def test_the_update_is_scaled_and_not_the_gradient():
    first, second = keras.Variable(np.ones((2, 2))), keras.Variable(np.ones((2, 2)))
    optimizer = ScaledAdamW(1e-2, weight_decay=0.0)
    optimizer.scale_rate([second], 0.05)
    optimizer.build([first, second])
    for _ in range(3):
        optimizer.apply([np.full((2, 2), 3.0, np.float32)] * 2, [first, second])
    moved, slow = 1 - np.asarray(first), 1 - np.asarray(second)
    assert moved.min() > 1e-3
    np.testing.assert_allclose(slow / moved, 0.05, rtol=1e-3)


def test_decay_follows_the_variables_own_rate():
    first, second = keras.Variable(np.ones((2, 2))), keras.Variable(np.ones((2, 2)))
    optimizer = ScaledAdamW(0.1, weight_decay=0.5)
    optimizer.scale_rate([second], 0.1)
    optimizer.build([first, second])
    optimizer.apply([np.zeros((2, 2), np.float32)] * 2, [first, second])
    np.testing.assert_allclose(np.asarray(first), 1 - 0.1 * 0.5, rtol=1e-6)
    np.testing.assert_allclose(np.asarray(second), 1 - 0.01 * 0.5, rtol=1e-6)


def test_without_scaling_it_is_keras_adamw():
    mine, theirs = keras.Variable(np.ones((3, 2))), keras.Variable(np.ones((3, 2)))
    gradient = np.arange(6, dtype=np.float32).reshape(3, 2) - 2
    for optimizer, variable in (
        (ScaledAdamW(1e-2, weight_decay=0.1), mine),
        (keras.optimizers.AdamW(1e-2, weight_decay=0.1), theirs),
    ):
        optimizer.build([variable])
        for _ in range(4):
            optimizer.apply([gradient], [variable])
    np.testing.assert_allclose(np.asarray(mine), np.asarray(theirs), rtol=1e-6)


def test_vectors_do_not_decay_and_pretrained_layers_learn_slower():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="old"), keras.layers.Dense(2, name="new")])
    slower = [(variable, 0.05) for variable in model.get_layer("old").trainable_variables]
    optimizer = build_optimizer(model, slower, WarmupLinear(1e-2, 0, 10), 0.1, 1.0)
    assert [optimizer._use_weight_decay(v) for v in model.trainable_variables] == [True, False, True, False]
    before = [w.copy() for w in model.get_weights()]
    model.compile(optimizer, "mse", run_eagerly=True, jit_compile=False)
    model.train_on_batch(np.ones((4, 2)), np.full((4, 2), 5.0))
    moved = [np.abs(a - b).max() for a, b in zip(model.get_weights(), before, strict=True)]
    assert moved[1] / moved[3] == pytest.approx(0.05, rel=0.02)  # biases: Adam's first step is the rate itself


def test_warmup_rises_then_falls_to_the_end():
    rate = [float(WarmupLinear(1.0, 4, 10)(i)) for i in range(11)]
    np.testing.assert_allclose(rate[:4], [0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(np.diff(rate[3:10]), -1 / 7, rtol=1e-5)
    assert rate[9] > 0
    assert rate[10] == 0
