"""Rates per variable, and decay."""

import keras
import numpy as np
import pytest

from emotion_tf.config import CHOICES, TrainConfig
from emotion_tf.config.train import OPTIMIZERS
from emotion_tf.training.optimizers import build_optimizer, scaled
from emotion_tf.training.schedules import WarmupSchedule


def test_scale_rate_scales_the_update():
    first, second = keras.Variable(np.ones((2, 2))), keras.Variable(np.ones((2, 2)))
    optimizer = scaled("AdamW")(1e-2, weight_decay=0.0)
    optimizer.scale_rate([second], 0.05)
    optimizer.build([first, second])
    for _ in range(3):
        optimizer.apply([np.full((2, 2), 3.0, np.float32)] * 2, [first, second])
    moved, slow = 1 - np.asarray(first), 1 - np.asarray(second)
    assert moved.min() > 1e-3
    np.testing.assert_allclose(slow / moved, 0.05, rtol=1e-3)


def test_decay_follows_the_rate_of_the_variable():
    first, second = keras.Variable(np.ones((2, 2))), keras.Variable(np.ones((2, 2)))
    optimizer = scaled("AdamW")(0.1, weight_decay=0.5)
    optimizer.scale_rate([second], 0.1)
    optimizer.build([first, second])
    optimizer.apply([np.zeros((2, 2), np.float32)] * 2, [first, second])
    np.testing.assert_allclose(np.asarray(first), 1 - 0.1 * 0.5, rtol=1e-6)
    np.testing.assert_allclose(np.asarray(second), 1 - 0.01 * 0.5, rtol=1e-6)


def test_without_scaling_it_is_keras_adamw():
    mine, theirs = keras.Variable(np.ones((3, 2))), keras.Variable(np.ones((3, 2)))
    gradient = np.arange(6, dtype=np.float32).reshape(3, 2) - 2
    for optimizer, variable in (
        (scaled("AdamW")(1e-2, weight_decay=0.1), mine),
        (keras.optimizers.AdamW(1e-2, weight_decay=0.1), theirs),
    ):
        optimizer.build([variable])
        for _ in range(4):
            optimizer.apply([gradient], [variable])
    np.testing.assert_allclose(np.asarray(mine), np.asarray(theirs), rtol=1e-6)


@pytest.mark.parametrize("name", CHOICES["train.optimizer"])
def test_vectors_do_not_decay_and_pretrained_layers_learn_slower(name):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="old"), keras.layers.Dense(2, name="new")])
    slower = [(variable, 0.05) for variable in model.get_layer("old").trainable_variables]
    train = TrainConfig(optimizer=name, weight_decay=0.1 if name in ("adamw", "sgd") else 0.0)
    optimizer = build_optimizer(train, model.trainable_variables, slower, WarmupSchedule("linear", 1e-2, 0, 10))
    assert [optimizer._use_weight_decay(v) for v in model.trainable_variables] == [True, False, True, False]
    before = [np.array(v) for v in model.trainable_variables]
    optimizer.apply([np.full(v.shape, 3.0, np.float32) for v in model.trainable_variables], model.trainable_variables)
    moved = [np.abs(np.asarray(a) - b).max() for a, b in zip(model.trainable_variables, before, strict=True)]
    assert moved[1] / moved[3] == pytest.approx(0.05, rel=1e-3)  # biases: no decay


def test_no_bias_decays_whatever_its_shape():
    layer = keras.layers.GRU(3)
    layer.build((None, None, 2))
    optimizer = build_optimizer(TrainConfig(), layer.trainable_variables, [], WarmupSchedule("linear", 1e-2, 0, 10))
    assert {v.name: optimizer._use_weight_decay(v) for v in layer.trainable_variables} == {
        "kernel": True,
        "recurrent_kernel": True,
        "bias": False,
    }


@pytest.mark.parametrize(("name", "decays"), [("adamw", True), ("adam", False), ("rmsprop", False), ("sgd", True)])
def test_which_optimizers_decay(name, decays):
    """Without a gradient, decay alone moves: by the rate times the decay."""
    variable = keras.Variable(np.ones((2, 2)))
    train = TrainConfig(optimizer=name, weight_decay=0.5 if decays else 0.01)
    optimizer = build_optimizer(train, [variable], [], WarmupSchedule("constant", 0.1, 0, 10))
    optimizer.apply([np.zeros((2, 2), np.float32)], [variable])
    np.testing.assert_allclose(np.asarray(variable), 1 - 0.1 * 0.5 if decays else 1, rtol=1e-6)


def test_gradient_descent_with_momentum_by_hand():
    variable = keras.Variable(np.zeros(2))
    train = TrainConfig(optimizer="sgd", momentum=0.5, clip_norm=100.0)
    optimizer = build_optimizer(train, [variable], [], WarmupSchedule("constant", 0.1, 0, 10))
    for _ in range(3):
        optimizer.apply([np.ones(2, np.float32)], [variable])
    np.testing.assert_allclose(np.asarray(variable), -0.1 * (1 + 1.5 + 1.75), rtol=1e-5)


def test_optimizers_do_not_clip():
    """`apply_update` does, over all replicas."""
    variable = keras.Variable(np.zeros(2))
    train = TrainConfig(optimizer="sgd", momentum=0.0, weight_decay=0.0, clip_norm=0.1)
    optimizer = build_optimizer(train, [variable], [], WarmupSchedule("constant", 0.1, 0, 10))
    optimizer.apply([np.full(2, 30.0, np.float32)], [variable])
    np.testing.assert_allclose(np.asarray(variable), -3.0, rtol=1e-5)


def test_every_optimizer_is_the_one_of_keras():
    assert set(OPTIMIZERS) == set(CHOICES["train.optimizer"])
    for name, row in OPTIMIZERS.items():
        variable = keras.Variable(np.zeros((2, 2)))
        train = TrainConfig(optimizer=name)
        optimizer = build_optimizer(train, [variable], [], WarmupSchedule("constant", 0.1, 0, 10))
        assert isinstance(optimizer, getattr(keras.optimizers, row.constructor)) and row.constructor.lower() == name
        assert optimizer.weight_decay == (train.weight_decay if name in ("adamw", "sgd") else None)
