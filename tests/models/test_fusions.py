"""Every fusion: by the papers' formulas in NumPy, trained, saved; and the table that `--fusion.kind` reads."""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from emotion_tf.config import CHOICES, Config, FusionConfig
from emotion_tf.config.fusion import KINDS
from emotion_tf.errors import UserError
from emotion_tf.models import fusions
from emotion_tf.models.fusion import build_fusion

RNG = np.random.default_rng(0)
TEXT, FACE = RNG.normal(size=(6, 5)).astype(np.float32), RNG.normal(size=(6, 3)).astype(np.float32)
WORDS, CROPS = RNG.normal(size=(6, 3, 2)).astype(np.float32), RNG.normal(size=(6, 4, 3)).astype(np.float32)
WORD_MASK, CROP_MASK = RNG.random((6, 3)) < 0.6, np.arange(6)[:, None] > np.arange(4)  # one row without any crop
INPUTS = {
    "text_embedding": TEXT, "text_sequence_0": WORDS, "text_mask_0": WORD_MASK,
    "face_embedding": FACE, "face_sequence_0": CROPS, "face_mask_0": CROP_MASK,
}  # fmt: skip


TWO = (("text", 5, 2), ("face", 3, 3))


def fusion(kind, widths=TWO, **options):
    """A fusion of the outputs of towers, each an embedding and one sequence: (modality, their widths)."""
    towers = {
        modality: SimpleNamespace(
            output={
                "embedding": keras.Input((width,)),
                "present": keras.Input((), dtype="bool"),
                "sequence_0": keras.Input((None, step_width)),
                "mask_0": keras.Input((None,), dtype="bool"),
            }
        )
        for modality, width, step_width in widths
    }
    options = {"kind": kind, "width": 4, "rank": 2, "heads": 2, "dense_units": (), "dropout": 0.0} | options
    model = build_fusion(towers, FusionConfig(**options), 7)
    for weight in model.weights:
        weight.assign(RNG.normal(size=weight.shape) * 0.5)
    return model


def dense(model, name, x):
    layer = model.get_layer(name)
    return x @ np.asarray(layer.kernel) + (np.asarray(layer.bias) if layer.use_bias else 0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def norm(model, name, x):
    layer = model.get_layer(name)
    normal = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + layer.epsilon)
    return normal * np.asarray(layer.gamma) + np.asarray(layer.beta)


def transformer_block(model, i, query, value, mask):
    """A transformer block whose queries attend to another sequence, head by head."""
    name = f"fusion_cross_{i}"
    q, k, v, out = (np.asarray(w) for w in model.get_layer(f"{name}_attention").weights)
    attended = 0
    for head in range(2):
        scores = (query @ q[:, head]) @ (value @ k[:, head]).transpose(0, 2, 1) / np.sqrt(2)
        weights = np.exp(scores) * mask[:, None]
        attended += weights / weights.sum(axis=-1, keepdims=True) @ (value @ v[:, head]) @ out[head]
    x = norm(model, f"{name}_norm_0", query + attended)
    hidden = np.maximum(dense(model, f"{name}_hidden", x), 0)
    return norm(model, f"{name}_norm_1", x + dense(model, f"{name}_out", hidden))


def concat(model):
    return dense(model, "logits", np.concatenate([TEXT, FACE], axis=1))


def sum_(model):
    text, face = dense(model, "fusion_project_0", TEXT), dense(model, "fusion_project_1", FACE)
    return dense(model, "logits", np.maximum(text + face, 0))


def weighted(model):
    weights = np.exp(np.asarray(model.get_layer("logits").scores))
    logits = dense(model, "logits_0", TEXT), dense(model, "logits_1", FACE)
    return (weights[0] * logits[0] + weights[1] * logits[1]) / weights.sum()


def gated(model):
    text, face = dense(model, "fusion_project_0", TEXT), dense(model, "fusion_project_1", FACE)
    gate = sigmoid(dense(model, "fusion_gate", np.concatenate([TEXT, FACE], axis=1)))
    return dense(model, "logits", gate * np.tanh(text) + (1 - gate) * np.tanh(face))


def lowrank(model):
    text, face = (dense(model, f"fusion_factor_{i}", x).reshape(6, 2, 4) for i, x in enumerate((TEXT, FACE)))
    layer = model.get_layer("fusion_lowrank")
    ranks = sum(np.asarray(layer.rank_weights)[r] * text[:, r] * face[:, r] for r in range(2))
    return dense(model, "logits", ranks + np.asarray(layer.bias))


def cross_attention(model):
    steps, masks = [], []
    for i, (embedding, sequence, mask) in enumerate(((TEXT, WORDS, WORD_MASK), (FACE, CROPS, CROP_MASK))):
        first = dense(model, f"fusion_project_{i}_0", embedding[:, None])
        steps.append(np.concatenate([first, dense(model, f"fusion_project_{i}_1", sequence)], axis=1))
        masks.append(np.pad(mask, [(0, 0), (1, 0)], constant_values=True))
    pooled = []
    for i, other in ((0, 1), (1, 0)):
        x, real = transformer_block(model, i, steps[i], steps[other], masks[other]), masks[i][:, :, None]
        pooled.append((x * real).sum(axis=1) / real.sum(axis=1))
    return dense(model, "logits", np.concatenate(pooled, axis=1))


FORMULAS = {
    "concat": concat,
    "sum": sum_,
    "weighted": weighted,
    "gated": gated,
    "lowrank": lowrank,
    "cross_attention": cross_attention,
}


def take_inputs(model, inputs=INPUTS):
    return {name: inputs[name] for name in model.input}


def test_kinds_are_the_public_functions_with_one_line_docstrings():
    functions = {
        name: function
        for name, function in inspect.getmembers(fusions, inspect.isfunction)
        if function.__module__ == fusions.__name__ and not name.startswith("_")
    }
    assert set(KINDS) == set(functions) == set(CHOICES["fusion.kind"]) == set(FORMULAS)
    for name, function in functions.items():
        assert "\n" not in function.__doc__ and function.__doc__.endswith("."), name
        assert KINDS[name] == function.__doc__.rstrip(".")
        assert list(inspect.signature(function).parameters) == ["towers", "config", "classify"]


@pytest.mark.parametrize("kind", FORMULAS)
def test_logits_are_those_of_the_formula(kind):
    model = fusion(kind)
    np.testing.assert_allclose(model(take_inputs(model)), FORMULAS[kind](model), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", FORMULAS)
def test_every_weight_learns_and_a_saved_model_gives_the_same(kind, tmp_path):
    model = fusion(kind, dense_units=(4,))
    inputs = take_inputs(model)
    before = [np.array(weight) for weight in model.trainable_weights]
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    model.fit(inputs, np.arange(6), batch_size=6, epochs=2, verbose=0)
    assert all((np.asarray(w) != b).any() for w, b in zip(model.trainable_weights, before, strict=True))
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras", compile=False)
    np.testing.assert_array_equal(loaded(inputs), model(inputs))


@pytest.mark.parametrize("kind", FORMULAS)
def test_every_fusion_joins_three_towers(kind):
    model = fusion(kind, (*TWO, ("audio", 4, 2)))
    audio = {"audio_embedding": RNG.normal(size=(6, 4)), "audio_sequence_0": WORDS, "audio_mask_0": WORD_MASK}
    inputs = take_inputs(model, INPUTS | audio)
    logits = np.asarray(model(inputs))
    for modality in ("text", "face", "audio"):
        name = f"{modality}_embedding"
        assert np.abs(model(inputs | {name: inputs[name] + 1}) - logits).max() > 1e-3


def test_open_gates_of_three_towers_choose_the_first():
    model = fusion("gated", (*TWO, ("audio", 4, 2)))
    audio = {"audio_embedding": np.ones((6, 4)), "audio_sequence_0": WORDS, "audio_mask_0": WORD_MASK}
    inputs = INPUTS | audio | {"text_embedding": np.abs(TEXT) + 1, "face_embedding": np.abs(FACE)}
    model.get_layer("fusion_gate").kernel.assign(np.full((12, 8), 100.0))  # all gates are open: the first tower counts
    others = {"face_embedding": 3 * np.abs(FACE), "audio_embedding": np.full((6, 4), 2.0)}
    np.testing.assert_allclose(model(inputs), model(inputs | others), rtol=1e-6)


def test_more_padding_changes_nothing_of_cross_attention():
    model = fusion("cross_attention")
    words, mask = np.pad(WORDS, [(0, 0), (0, 2), (0, 0)]), np.pad(WORD_MASK, [(0, 0), (0, 2)])
    for sequence in (words, np.where(mask[:, :, None], words, 9)):
        longer = {**INPUTS, "text_sequence_0": sequence, "text_mask_0": mask}
        np.testing.assert_allclose(model(longer), model(INPUTS), atol=1e-5)


def test_heads_share_the_width():
    with pytest.raises(UserError, match="`fusion.heads`. Expected a divisor of --fusion.width 6. Received: 4"):
        FusionConfig(kind="cross_attention", width=6)


def test_an_unknown_kind_is_refused():
    with pytest.raises(UserError, match=r"`fusion.kind`.*Did you mean 'gated'"):
        Config(fusion=FusionConfig(kind="gatd"))
