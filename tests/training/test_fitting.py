"""The training step: batches in parts, each tower's own loss, averaged weights, precision."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from emotion_tf.config import Config, FaceConfig, FusionConfig, TextConfig, TrainConfig
from emotion_tf.errors import UserError
from emotion_tf.models.two_tower import build_model
from emotion_tf.schema import DataSpec
from emotion_tf.training import precision
from emotion_tf.training.fitting import Average, FitModel, with_heads
from emotion_tf.training.losses import build_loss

SPEC = DataSpec(("a", "b", "c"), face_size=8, max_faces=1, lower_case=True, tokenizer="learned", tokenizer_sha256="")
CONFIG = Config(
    text=TextConfig(word_dim=4, gru_units=3, dropout=0.0),
    face=FaceConfig(cnn_filters=(3,), dropout=0.0),
    fusion=FusionConfig(dense_units=(4,), dropout=0.0),
)
RNG = np.random.default_rng(0)
ROWS = 20
INPUTS = {
    "word_ids": RNG.integers(1, 9, (ROWS, 5)).astype(np.int32),
    "faces": RNG.integers(0, 255, (ROWS, 1, 8, 8, 3)).astype(np.uint8),
    "face_mask": RNG.random((ROWS, 1)) < 0.7,
}
INPUTS["word_ids"][3] = 0
LABEL, WEIGHT = RNG.integers(0, 3, ROWS), RNG.random(ROWS).astype(np.float32)


def fit_model(config, train, **towers):
    """A small model from the same start every time, plain gradient descent."""
    keras.utils.set_random_seed(1)
    model = build_model(dataclasses.replace(config, train=train, **towers), SPEC, 9)
    average = Average(model, train.ema) if train.ema else None
    made = FitModel.of(with_heads(model, train, 3), train, build_loss(train, np.array([5, 3, 2])), average)
    made.inner = model
    made.compile(keras.optimizers.SGD(0.1), jit_compile=False, run_eagerly=True)
    return made


def step(made):
    inputs = {name: x for name, x in INPUTS.items() if name in made.input}
    data = tf.data.Dataset.from_tensors((inputs, LABEL, WEIGHT))
    return made.fit(data, verbose=0).history


def test_parts_of_a_batch_make_the_update_of_the_whole():
    """20 rows as parts of 8, 8 and 4; without the face tower, whose batch norm sees the parts."""
    whole = fit_model(CONFIG, TrainConfig(batch_size=32), towers="text")
    parts = fit_model(CONFIG, TrainConfig(batch_size=8, accumulate=4), towers="text")
    start = [np.array(w) for w in whole.weights]
    said = step(whole), step(parts)
    assert any((np.asarray(w) != s).any() for w, s in zip(whole.weights, start, strict=True))
    for a, b in zip(whole.weights, parts.weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    np.testing.assert_allclose(said[0]["loss"], said[1]["loss"], rtol=1e-5)
    np.testing.assert_allclose(said[0]["accuracy"], said[1]["accuracy"], rtol=1e-5)
    assert int(parts.optimizer.iterations) == 1


def test_the_loss_is_the_weighted_sum_over_the_rows_of_the_batch():
    made = fit_model(CONFIG, TrainConfig(), towers="text")
    logits = np.asarray(made({"word_ids": INPUTS["word_ids"]})["logits"], np.float64)
    rows = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(ROWS), LABEL]
    assert step(made)["loss"][0] == pytest.approx((WEIGHT * rows).sum() / ROWS, rel=1e-5)
    right = logits.argmax(axis=1) == LABEL
    assert float(made.accuracy.result()) == pytest.approx(np.average(right, weights=WEIGHT), rel=1e-5)


def test_each_tower_learns_from_its_own_loss_where_its_modality_is_there():
    made = fit_model(CONFIG, TrainConfig(auxiliary_weight=0.5))
    logits = {name: np.asarray(x) for name, x in made(INPUTS, training=True).items() if not name.startswith("has_")}
    rows = {name: np.asarray(made.row_loss(x, LABEL)) for name, x in logits.items()}
    present = {"text": INPUTS["word_ids"].any(axis=1), "face": INPUTS["face_mask"].any(axis=1)}
    assert not present["text"].all() and not present["face"].all()
    own = sum(rows[name] * present[name] for name in present) / 2
    assert step(made)["loss"][0] == pytest.approx((WEIGHT * (rows["logits"] + 0.5 * own)).mean(), rel=1e-4)
    # the model that is kept has no such heads, and they are trained
    assert not [w for w in made.inner.weights if "auxiliary" in w.path]
    heads = [w for w in made.trainable_weights if "auxiliary" in w.path]
    assert len(heads) == 4 and all(np.asarray(w).any() for w in heads)
    with pytest.raises(UserError, match="`train.auxiliary_weight`. Expected 0 with one tower"):
        dataclasses.replace(CONFIG, towers="text", train=TrainConfig(auxiliary_weight=0.5))


def test_the_average_by_hand_and_there_and_back():
    model = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(1, use_bias=False), keras.layers.Dropout(0.5, seed=1)]
    )
    (kernel,) = model.trainable_weights
    kernel.assign([[1.0], [0.0]])
    average = Average(model, 0.8)
    assert len(average.variables) == 1  # and not the seed of dropout
    expected = 1.0
    for t, value in enumerate([2.0, 3.0, 5.0, 7.0], 1):
        kernel.assign([[value], [0.0]])
        average.update(t)
        momentum = min(0.8, (1 + t) / (10 + t))
        expected = momentum * expected + (1 - momentum) * value
    average.swap()
    np.testing.assert_allclose(np.asarray(kernel)[0, 0], expected, rtol=1e-6)
    average.swap()
    assert np.asarray(kernel)[0, 0] == 7.0
    np.testing.assert_allclose(average.variables[0].numpy()[0, 0], expected, rtol=1e-6)


def test_training_averages_its_weights():
    made = fit_model(CONFIG, TrainConfig(ema=0.9), towers="text")
    start = [np.array(w) for w in made.average.weights]
    step(made)
    for before, now, mean in zip(start, made.average.weights, made.average.variables, strict=True):
        np.testing.assert_allclose(mean, before + (1 - 2 / 11) * (np.asarray(now) - before), atol=1e-6)


def test_mixed_precision_keeps_weights_and_logits_and_leaks_nothing(tmp_path):
    with precision.computing_in("bfloat16"):
        made = fit_model(
            dataclasses.replace(CONFIG, fusion=FusionConfig("cross_attention", width=4, heads=2)), TrainConfig()
        )
    assert keras.config.dtype_policy().name == "float32"
    assert {w.dtype for w in made.inner.trainable_weights} == {"float32"}
    logits = made.inner(INPUTS)
    assert logits.dtype == "float32" and made.inner.get_layer("text_tower").output["embedding"].dtype == "bfloat16"
    before = [np.array(w) for w in made.inner.trainable_weights]
    step(made)
    assert all((np.asarray(w) != b).any() for w, b in zip(made.inner.trainable_weights, before, strict=True))
    made.inner.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras", compile=False)
    np.testing.assert_array_equal(loaded(INPUTS), made.inner(INPUTS))


@pytest.mark.parametrize(
    ("gpu", "processor", "branches", "towers", "expected"),
    [
        (None, "avx512f", ("resnet50",), "face", "float32"),
        (None, "avx512_bf16 amx_bf16", ("resnet50",), "both", "bfloat16"),
        (None, "avx512_bf16 amx_bf16", ("cnn",), "both", "float32"),
        (None, "avx512_bf16", ("cnn", "vgg16"), "face", "bfloat16"),
        (None, "avx512_bf16", ("cnn", "mobilenetv2"), "face", "float32"),
        (None, "avx512_bf16", ("cnn",), "both", "float32"),
        ((8, 0), "", ("cnn",), "both", "bfloat16"),
        ((7, 5), "avx512_bf16", ("cnn",), "face", "float32"),
    ],
)
def test_auto_is_lower_precision_only_where_it_gains(monkeypatch, gpu, processor, branches, towers, expected):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["GPU"] if gpu else [])
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda device: {"compute_capability": gpu})
    monkeypatch.setattr(precision, "_instructions", lambda: set(processor.split()))
    config = Config(towers=towers, face=FaceConfig(branches=branches), train=TrainConfig(precision="auto"))
    found, why = precision.chosen(config)
    assert found == expected and why
    assert precision.chosen(dataclasses.replace(config, train=TrainConfig())) == ("float32", "")
