"""Class activation maps and integration lines on tensors, by hand, eagerly and in a graph."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from emotion_tf.interpret import gradients

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("pool", [True, False])
@pytest.mark.parametrize("in_graph", [False, True])
def test_class_activation_maps_by_hand(pool, in_graph):
    feature, gradient = RNG.normal(size=(2, 3, 4, 4, 5)).astype(np.float32)
    weights = gradient.mean(axis=(1, 2), keepdims=True) if pool else gradient
    function = tf.function(gradients.class_activation_map) if in_graph else gradients.class_activation_map
    maps = function(tf.constant(feature), tf.constant(gradient), pool)
    np.testing.assert_allclose(maps, np.maximum((weights * feature).sum(axis=-1), 0), atol=1e-5)


def test_the_trapezoidal_rule_is_that_of_numpy():
    values = RNG.normal(size=(9, 2, 3)).astype(np.float32)
    np.testing.assert_allclose(gradients.trapezoid_sum(tf.constant(values)), np.trapezoid(values, axis=0), atol=1e-5)


def test_the_gradients_along_a_line_integrate_to_the_difference_of_the_score():
    """The score is the sum of x^2, whose gradient 2x is linear: the trapezoidal rule is exact."""
    layer = keras.layers.Identity()
    value, baseline = RNG.normal(size=(2, 4, 3)).astype(np.float32)
    line = gradients.Line(layer, value, baseline)
    alphas = np.linspace(0, 1, 5).tolist()
    scores, (along,) = gradients.line_gradients(
        [line], alphas, lambda: tf.reduce_sum(layer(tf.zeros((20, 3))) ** 2, axis=1)
    )
    assert scores.shape == (5, 4) and along.shape == (5, 4, 3)
    np.testing.assert_allclose(scores[0], (baseline**2).sum(axis=1), rtol=1e-5)
    attributions = (value - baseline) * gradients.trapezoid_sum(along) / 4
    np.testing.assert_allclose(tf.reduce_sum(attributions, axis=1), scores[-1] - scores[0], atol=1e-4)


def test_watched_integers_become_floats_that_have_a_gradient():
    layer = keras.layers.Identity(dtype="int32")
    outputs: list = []
    with tf.GradientTape(watch_accessed_variables=False) as tape, gradients.watch(layer, outputs, tape):
        score = tf.reduce_sum(3.0 * layer(tf.constant([[1, 2]])))
    assert outputs[0].dtype == tf.float32
    np.testing.assert_array_equal(tape.gradient(score, outputs[0]), [[3, 3]])


def test_maps_are_resized_without_a_shift():
    maps = tf.constant([[[0.0, 1.0], [2.0, 3.0]]])
    resized = gradients.resize_maps(maps, 4).numpy()
    assert resized.shape == (1, 4, 4) and resized[0, 0, 0] == 0 and resized[0, -1, -1] == 3
    np.testing.assert_allclose(resized[0] + resized[0, ::-1, ::-1], 3)
