"""Averaged weights: by hand, in a block, of some weights alone."""

import keras
import numpy as np
import pytest

from emotion_tf.training.average import Average, averaged, update_average


@pytest.fixture
def model():
    model = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(1, use_bias=False), keras.layers.Dropout(0.5, seed=1)]
    )
    model.layers[0].kernel.assign([[1.0], [0.0]])
    return model


def test_the_average_by_hand_and_swapped_twice(model):
    (kernel,) = model.trainable_weights
    pairs = Average(model.variables).pairs
    assert len(model.variables) == 2 and len(pairs) == 1  # and not the seed of dropout
    expected = 1.0
    for t, value in enumerate([2.0, 3.0, 5.0, 7.0], 1):
        kernel.assign([[value], [0.0]])
        update_average(pairs, 0.8, t)
        momentum = min(0.8, (1 + t) / (10 + t))
        expected = momentum * expected + (1 - momentum) * value
    mean = pairs[0][0]
    np.testing.assert_allclose(mean.numpy()[0, 0], expected, rtol=1e-6)
    with averaged(pairs):
        np.testing.assert_allclose(np.asarray(kernel)[0, 0], expected, rtol=1e-6)
        assert mean.numpy()[0, 0] == 7.0
    assert np.asarray(kernel)[0, 0] == 7.0
    np.testing.assert_allclose(mean.numpy()[0, 0], expected, rtol=1e-6)


def test_the_momentum_reaches_its_value_after_the_warm_up(model):
    (kernel,) = model.trainable_weights
    ((mean, _),) = pairs = Average(model.weights).pairs
    kernel.assign([[2.0], [0.0]])
    update_average(pairs, 0.75, 26)  # (1 + 26) / (10 + 26) is 0.75
    assert mean.numpy()[0, 0] == pytest.approx(1.25)
    update_average(pairs, 0.75, 1000)
    assert mean.numpy()[0, 0] == pytest.approx(1.4375)


def test_an_error_in_the_block_leaves_the_trained_weights(model):
    pairs = Average(model.weights).pairs
    model.layers[0].kernel.assign([[3.0], [4.0]])
    with pytest.raises(KeyboardInterrupt), averaged(pairs):
        assert np.asarray(model.layers[0].kernel)[:, 0].tolist() == [1.0, 0.0]
        raise KeyboardInterrupt
    assert np.asarray(model.layers[0].kernel)[:, 0].tolist() == [3.0, 4.0]
    assert pairs[0][0].numpy()[:, 0].tolist() == [1.0, 0.0]


def test_the_pairs_of_some_weights():
    layers = [keras.layers.Dense(2), keras.layers.BatchNormalization()]
    for layer in layers:
        layer.build((None, 2))
    average = Average(weight for layer in layers for weight in layer.weights)
    assert len(average.pairs) == 6
    assert [weight for _, weight in average.pairs_of(layers[1].weights)] == layers[1].weights
