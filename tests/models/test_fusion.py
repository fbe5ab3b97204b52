"""Every way to join the towers: by hand in NumPy, trained, saved; and modality dropout."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest

from emotion_tf.config import CHOICES, Config, FaceConfig, FusionConfig, TextConfig
from emotion_tf.errors import UserError
from emotion_tf.models.fusion import fuse
from emotion_tf.models.layers import Keep
from emotion_tf.models.tower import TowerOutputs

RNG = np.random.default_rng(0)
TEXT, FACE = RNG.normal(size=(6, 5)).astype(np.float32), RNG.normal(size=(6, 3)).astype(np.float32)


WORDS, CROPS = RNG.normal(size=(6, 3, 2)).astype(np.float32), RNG.normal(size=(6, 4, 3)).astype(np.float32)
WORD_MASK, CROP_MASK = RNG.random((6, 3)) < 0.6, np.arange(6)[:, None] > np.arange(4)  # one row without any crop
GIVEN = [TEXT, WORDS, WORD_MASK, FACE, CROPS, CROP_MASK]


def model(kind, **options):
    """A fusion of two made-up towers, each an embedding and one sequence."""
    inputs = [keras.Input(x.shape[1:] if x.ndim == 2 else (None, x.shape[2]), dtype=x.dtype.name) for x in GIVEN]
    inputs[2], inputs[5] = keras.Input((None,), dtype="bool"), keras.Input((None,), dtype="bool")
    towers = [TowerOutputs(inputs[i], [(inputs[i + 1], inputs[i + 2])]) for i in (0, 3)]
    options = {"kind": kind, "width": 4, "rank": 2, "heads": 2, "dense_units": (), "dropout": 0.0} | options
    made = keras.Model(inputs, fuse(towers, FusionConfig(**options), 7))
    for weight in made.weights:
        weight.assign(RNG.normal(size=weight.shape) * 0.5)
    return made


def dense(made, name, x):
    layer = made.get_layer(name)
    return x @ np.asarray(layer.kernel) + (np.asarray(layer.bias) if layer.use_bias else 0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def norm(made, name, x):
    layer = made.get_layer(name)
    normal = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + layer.epsilon)
    return normal * np.asarray(layer.gamma) + np.asarray(layer.beta)


def attended(made, i, query, seen, mask):
    """A block of a transformer whose queries look at another sequence, head by head."""
    name = f"fusion_cross_{i}"
    q, k, v, out = (np.asarray(w) for w in made.get_layer(f"{name}_attention").weights)
    looked = 0
    for head in range(2):
        scores = (query @ q[:, head]) @ (seen @ k[:, head]).transpose(0, 2, 1) / np.sqrt(2)
        weights = np.exp(scores) * mask[:, None]
        looked += weights / weights.sum(axis=-1, keepdims=True) @ (seen @ v[:, head]) @ out[head]
    x = norm(made, f"{name}_norm_0", query + looked)
    hidden = np.maximum(dense(made, f"{name}_hidden", x), 0)
    return norm(made, f"{name}_norm_1", x + dense(made, f"{name}_out", hidden))


def cross_attention(made):
    steps, masks = [], []
    for i, (embedding, sequence, mask) in enumerate(((TEXT, WORDS, WORD_MASK), (FACE, CROPS, CROP_MASK))):
        first = dense(made, f"fusion_project_{i}_0", embedding[:, None])
        steps.append(np.concatenate([first, dense(made, f"fusion_project_{i}_1", sequence)], axis=1))
        masks.append(np.pad(mask, [(0, 0), (1, 0)], constant_values=True))
    pooled = []
    for i, other in ((0, 1), (1, 0)):
        x, real = attended(made, i, steps[i], steps[other], masks[other]), masks[i][:, :, None]
        pooled.append((x * real).sum(axis=1) / real.sum(axis=1))
    return dense(made, "logits", np.concatenate(pooled, axis=1))


def by_hand(kind, made):
    """The logits, from the papers' formulas."""
    if kind == "cross_attention":
        return cross_attention(made)
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
    np.testing.assert_allclose(made(GIVEN), by_hand(kind, made), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", CHOICES["fusion.kind"])
def test_every_weight_learns_and_a_saved_model_gives_the_same(kind, tmp_path):
    made = model(kind, dense_units=(4,))
    before = [np.array(w) for w in made.trainable_weights]
    made.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    made.fit(GIVEN, np.arange(6), batch_size=6, epochs=2, verbose=0)
    assert all((np.asarray(w) != b).any() for w, b in zip(made.trainable_weights, before, strict=True))
    made.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras", compile=False)
    np.testing.assert_array_equal(loaded(GIVEN), made(GIVEN))


def test_more_padding_changes_nothing_of_cross_attention():
    made = model("cross_attention")
    longer = [np.pad(x, [(0, 0), (0, 2), *[(0, 0)] * (x.ndim - 2)], constant_values=0) for x in GIVEN[1:3]]
    for sequence in (longer[0], np.where(longer[1][:, :, None], longer[0], 9)):
        found = made([TEXT, sequence, longer[1], *GIVEN[3:]])
        np.testing.assert_allclose(found, made(GIVEN), atol=1e-5)


def test_heads_share_the_width():
    with pytest.raises(UserError, match="`fusion.heads`. Expected a divisor of --fusion.width 6. Received: 4"):
        FusionConfig(kind="cross_attention", width=6)


def test_one_tower_is_joined_to_nothing():
    inputs = keras.Input((5,))
    for kind in CHOICES["fusion.kind"]:
        made = keras.Model(inputs, fuse([TowerOutputs(inputs, [])], FusionConfig(kind=kind, dense_units=()), 7))
        assert [layer.name for layer in made.layers][-1] == "logits" and len(made.weights) == 2


def test_modality_dropout_takes_the_share_in_training_alone():
    layer = Keep(0.25)
    present = np.arange(4000) % 2 == 0
    assert np.asarray(layer(present, training=False)).tolist() == present.tolist()
    dropped = np.asarray(layer(present, training=True))
    assert not dropped[1::2].any() and dropped[::2].mean() == pytest.approx(0.75, abs=0.03)
    again = np.asarray(layer(present, training=True))
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
    rates = [made.get_layer(f"{t}_tower").get_layer(f"keep_{t}").rate for t in ("text", "face")]
    assert rates == [0.3, 0.3]
    with pytest.raises(UserError, match=r"fusion.modality_dropout.*Expected 0 with one tower"):
        dataclasses.replace(config, towers="text")
    with pytest.raises(UserError, match=r"`fusion.kind`.*Did you mean 'gated'"):
        Config(fusion=FusionConfig(kind="gatd"))
