"""From a sequence to one vector: by formula, and padding has no influence."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import ops_of, pretend_gpu

from emotion_tf.config import CHOICES
from emotion_tf.models.pooling import FirstStep, MaskedMean, Recurrent, pool
from emotion_tf.models.text_tower import POOLINGS

RNG = np.random.default_rng(0)
SEQUENCE = RNG.normal(size=(4, 5, 6)).astype(np.float32)
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]], np.int32)
KINDS = ["first", "mean", "max", "attention", "gru"]


@pytest.fixture(scope="module", params=KINDS)
def pooled(request):
    """A model of one pooling, and its kind."""
    sequence, mask = keras.Input((None, 6)), keras.Input((None,), dtype="int32")
    model = keras.Model([sequence, mask], pool(sequence, mask, request.param, "x"))
    return model, request.param


def test_pool_accepts_every_name_of_the_configuration():
    assert {POOLINGS.get(name, name) for name in CHOICES["text.pooling"]} == set(KINDS)


def test_masked_mean_and_first_step_by_hand():
    values = np.array([[[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]], [[5.0, 5.0]] * 3], np.float32)
    mask = np.array([[1, 1, 0], [0, 0, 0]])
    np.testing.assert_allclose(MaskedMean()([values, mask]), [[2.0, 3.0], [0.0, 0.0]])
    np.testing.assert_allclose(FirstStep()(values), [[1.0, 2.0], [5.0, 5.0]])


def test_by_formula(pooled):
    model, kind = pooled
    vector = np.asarray(model([SEQUENCE, MASK]))
    for row, (values, count) in enumerate(zip(SEQUENCE, MASK.sum(axis=1), strict=True)):
        real = values[:count]
        if kind == "first":
            expected = values[0]
        elif not count:
            expected = np.zeros(6)
        elif kind == "mean":
            expected = real.mean(axis=0)
        elif kind == "max":
            expected = real.max(axis=0)
        elif kind == "attention":
            w, b, v = (np.asarray(x) for x in model.get_layer("x_attention").weights)
            scores = np.exp(np.tanh(real @ w + b) @ v)
            expected = (scores / scores.sum() * real).sum(axis=0)
        else:
            inner = model.get_layer("x_gru").both  # without padding nothing needs a mask
            expected = np.asarray(inner(real[None]))[0]
        np.testing.assert_allclose(vector[row], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("training", [False, True])
def test_a_gru_does_not_use_cudnn_on_a_gpu(training):
    """It would refuse a row of padding alone, and padding before a real step."""
    layer = Recurrent(3)
    layer.build([(None, None, 6), (None, None)])
    with pretend_gpu():
        graph = tf.function(lambda *inputs: layer(list(inputs), training=training)).get_concrete_function(
            tf.TensorSpec((None, None, 6)), tf.TensorSpec((None, None), tf.bool)
        )
    ops = ops_of(graph.graph.as_graph_def())
    assert "While" in ops and not any("Cudnn" in op for op in ops)


def test_a_gru_skips_padding_before_and_between_the_steps():
    layer = Recurrent(3)
    expected = layer([SEQUENCE[:1, [1, 3]], np.ones((1, 2), bool)])
    np.testing.assert_allclose(layer([SEQUENCE[:1], np.array([[0, 1, 0, 1, 0]])]), expected, atol=1e-6)


def test_more_padding_and_its_content_change_nothing(pooled):
    model, kind = pooled
    longer = np.concatenate([SEQUENCE, np.full((4, 3, 6), 99.0, np.float32)], axis=1)
    longer[:, :5][MASK == 0] = -77.0
    mask = np.pad(MASK, [(0, 0), (0, 3)])
    rows = slice(0, 3 if kind == "first" else 4)  # [CLS] is never padding
    # only the order in which numbers are added may differ
    np.testing.assert_allclose(model([longer, mask])[rows], np.asarray(model([SEQUENCE, MASK]))[rows], atol=1e-6)


def test_gradients_are_finite_and_reach_every_weight(pooled):
    model, _ = pooled
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model([SEQUENCE, MASK]) ** 2)
    gradients = tape.gradient(loss, model.trainable_weights)
    assert all(np.isfinite(g).all() and np.asarray(g).any() for g in map(tf.convert_to_tensor, gradients))


def test_a_saved_model_pools_the_same(pooled, tmp_path):
    model, _ = pooled
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras", compile=False)
    np.testing.assert_array_equal(loaded([SEQUENCE, MASK]), model([SEQUENCE, MASK]))


def test_attention_weights_are_readable():
    sequence, mask = keras.Input((None, 6)), keras.Input((None,), dtype="int32")
    model = keras.Model([sequence, mask], pool(sequence, mask, "attention", "x"))
    weights = np.asarray(keras.Model(model.input, model.get_layer("x_attention").output)([SEQUENCE * 50, MASK]))
    np.testing.assert_allclose(weights.sum(axis=1), [1, 1, 1, 0], atol=1e-6)
    assert not weights[MASK == 0].any() and (weights >= 0).all()


def test_large_scores_at_padding_take_no_weight():
    sequence, mask = keras.Input((None, 2)), keras.Input((None,), dtype="int32")
    model = keras.Model([sequence, mask], pool(sequence, mask, "attention", "x"))
    model.set_weights([np.eye(2), np.zeros(2), np.full((2, 1), 100.0)])  # scores from -200 to 200
    values = np.array([[[-9, -9], [-9, -8], [9, 9]]], np.float32)
    steps = tf.constant(values)
    with tf.GradientTape() as tape:
        tape.watch(steps)
        vector = model([steps, tf.constant([[1, 1, 0]])])
    np.testing.assert_allclose(vector, model([values[:, :2], np.ones((1, 2))]), rtol=1e-6)
    np.testing.assert_allclose(vector, values[:, :2].mean(axis=1), rtol=1e-3)  # both score -200
    gradient = np.asarray(tape.gradient(vector, steps))
    assert np.isfinite(gradient).all() and not gradient[0, 2].any()
