"""Every way to join the towers: by hand in NumPy, trained, saved; and modality dropout."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest

from emotion_tf.config import CHOICES, Config, FaceConfig, FusionConfig, TextConfig
from emotion_tf.errors import UserError
from emotion_tf.models.fusion import fuse
from emotion_tf.models.layers import OrAbsent

RNG = np.random.default_rng(0)
TEXT, FACE = RNG.normal(size=(6, 5)).astype(np.float32), RNG.normal(size=(6, 3)).astype(np.float32)


def model(kind, **options):
    inputs = [keras.Input((5,)), keras.Input((3,))]
    config = FusionConfig(**{"kind": kind, "width": 4, "rank": 2, "dense_units": (), "dropout": 0.0} | options)
    made = keras.Model(inputs, fuse(inputs, config, 7))
    for weight in made.weights:
        weight.assign(RNG.normal(size=weight.shape) * 0.5)
    return made


def dense(made, name, x):
    layer = made.get_layer(name)
    return x @ np.asarray(layer.kernel) + (np.asarray(layer.bias) if layer.use_bias else 0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def by_hand(kind, made):
    """The logits, from the papers' formulas."""
    if kind == "concat":
        return dense(made, "logits", np.concatenate([TEXT, FACE], axis=1))
    if kind == "weighted":
        weights = np.exp(np.asarray(made.get_layer("logits").scores))
        each = dense(made, "logits_0", TEXT), dense(made, "logits_1", FACE)
        return (weights[0] * each[0] + weights[1] * each[1]) / weights.sum()
    if kind == "lowrank":
        text, face = (dense(made, f"fusion_factor_{i}", x).reshape(6, 2, 4) for i, x in enumerate((TEXT, FACE)))
        join = made.get_layer("fusion_lowrank")
        joined = sum(np.asarray(join.rank_weights)[r] * text[:, r] * face[:, r] for r in range(2)) + np.asarray(
            join.bias
        )
        return dense(made, "logits", joined)
    text, face = dense(made, "fusion_project_0", TEXT), dense(made, "fusion_project_1", FACE)
    if kind == "sum":
        return dense(made, "logits", np.maximum(text + face, 0))
    gate = sigmoid(dense(made, "fusion_gate", np.concatenate([TEXT, FACE], axis=1)))
    return dense(made, "logits", gate * np.tanh(text) + (1 - gate) * np.tanh(face))


@pytest.mark.parametrize("kind", CHOICES["fusion.kind"])
def test_logits_are_those_of_the_formula(kind):
    made = model(kind)
    np.testing.assert_allclose(made([TEXT, FACE]), by_hand(kind, made), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", CHOICES["fusion.kind"])
def test_every_weight_learns_and_a_saved_model_gives_the_same(kind, tmp_path):
    made = model(kind, dense_units=(4,))
    before = [np.array(w) for w in made.trainable_weights]
    made.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    made.fit([TEXT, FACE], np.arange(6), batch_size=6, epochs=2, verbose=0)
    assert all((np.asarray(w) != b).any() for w, b in zip(made.trainable_weights, before, strict=True))
    made.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras", compile=False)
    np.testing.assert_array_equal(loaded([TEXT, FACE]), made([TEXT, FACE]))


def test_one_tower_is_joined_to_nothing():
    inputs = keras.Input((5,))
    for kind in CHOICES["fusion.kind"]:
        made = keras.Model(inputs, fuse([inputs], FusionConfig(kind=kind, dense_units=()), 7))
        assert [layer.name for layer in made.layers][-1] == "logits" and len(made.weights) == 2


def test_modality_dropout_takes_the_share_in_training_alone():
    layer = OrAbsent(0.25)
    values, present = np.ones((4000, 2), np.float32), np.arange(4000) % 2 == 0
    assert np.asarray(layer([values, present], training=False))[:, 0].tolist() == present.tolist()
    dropped = np.asarray(layer([values, present], training=True))[:, 0]
    assert not dropped[1::2].any() and dropped[::2].mean() == pytest.approx(0.75, abs=0.03)
    again = np.asarray(layer([values, present], training=True))[:, 0]
    assert (again != dropped).any()


def test_modality_dropout_reaches_both_towers_and_needs_both():
    from emotion_tf.models.two_tower import build_model
    from emotion_tf.schema import DataSpec

    spec = DataSpec(("a", "b"), face_size=16, max_faces=1, lower_case=True, tokenizer="learned", tokenizer_sha256="")
    config = Config(
        text=TextConfig(word_dim=4, gru_units=4), face=FaceConfig(cnn_filters=(4,)),
        fusion=FusionConfig(modality_dropout=0.3),
    )  # fmt: skip
    made = build_model(config, spec, 10)
    rates = [made.get_layer(f"{t}_tower").get_layer(f"no_{t}").rate for t in ("text", "face")]
    assert rates == [0.3, 0.3]
    with pytest.raises(UserError, match=r"fusion.modality_dropout.*Expected 0 with one tower"):
        dataclasses.replace(config, towers="text")
    with pytest.raises(UserError, match=r"`fusion.kind`.*Did you mean 'gated'"):
        Config(fusion=FusionConfig(kind="gatd"))
