"""Where a model's fixed part ends: the pieces together give what the whole gives, and train what it trains."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from emotion_tf.config import Config, FaceConfig, FusionConfig, TextConfig, TrainConfig
from emotion_tf.models.cut import cut_model
from emotion_tf.models.two_tower import build_model
from emotion_tf.schema import DataSpec
from emotion_tf.training.fitting import with_heads

SPEC = DataSpec(("a", "b", "c"), 32, 2, True, "learned", "")
ROWS, LENGTH = 4, 7


@pytest.fixture(scope="module")
def face_network(tmp_path_factory):
    """A small network with positions, as a .keras file."""
    pictures = keras.Input((16, 16, 3))
    x = keras.layers.Dropout(0.5)(keras.layers.Conv2D(5, 3, strides=4, name="conv")(pictures))  # off where it is frozen
    path = tmp_path_factory.mktemp("network") / "face.keras"
    keras.Model(pictures, keras.layers.BatchNormalization(name="norm")(x)).save(path)
    return str(path)


def some_inputs(model):
    rng = np.random.default_rng(0)
    real = np.arange(LENGTH) < np.array([3, 5, 7, 2])[:, None]
    made = {
        "input_word_ids": np.where(real, rng.integers(5, 30, (ROWS, LENGTH)), 0).astype(np.int32),
        "input_mask": real.astype(np.int32),
        "input_type_ids": np.zeros((ROWS, LENGTH), np.int32),
        "word_ids": np.where(real, 2, 0).astype(np.int32),
        "faces": rng.integers(0, 255, (ROWS, 2, 32, 32, 3)).astype(np.uint8),
        "face_mask": np.array([[True, True], [False, False], [True, False], [True, True]]),
    }
    return {name: tf.constant(made[name]) for name in model.input}


FROZEN = {"branches": ("encoder",), "train_backbone": False, "augment": False}
CASES = {
    "BERT, its mean": ({"branches": ("bert",)}, {}, {}, {"input_mask", "bert_mean"}, {"faces", "face_mask"}),
    "BERT, its tokens, beside a GRU": (
        {"branches": ("bert", "gru"), "pooling": "attention"},
        {},
        {},
        {"input_mask", "word_ids", "bert_1"},
        {"faces", "face_mask"},
    ),
    "a face network": ({"branches": ("gru",)}, FROZEN, {}, {"face_mask", "face_mean"}, {"word_ids"}),
    "a face tower that stays as it is": (
        {"branches": ("gru",)},
        {"branches": ("encoder",), "init": "run", "train_tower": False, "augment": False},
        {},
        {"face_mask", "no_face"},
        {"word_ids"},
    ),
    "both, positions and sequences": (
        {"branches": ("bert",)},
        {**FROZEN, "pooling": "attention", "frames": "gru"},
        {"kind": "cross_attention", "width": 4, "heads": 2},
        {"face_mask", "encoder_positions", "input_mask", "bert_mean", "bert_1"},
        set(),
    ),
}


def build(text, face, fusion, encoder, network):
    if "encoder" in face.get("branches", ()):
        face = {**face, "encoder": network}
    config = Config(
        text=TextConfig(train_encoder="bert" not in text["branches"], word_dim=4, gru_units=3, **text),
        face=FaceConfig(cnn_filters=(3,), **face),
        fusion=FusionConfig(dense_units=(4,), **fusion),
        train=TrainConfig(auxiliary_weight=0.1),
    )
    model = build_model(config, SPEC, 9, encoder, {"encoder": network})
    return config, with_heads(model, config.train, 3)


@pytest.mark.parametrize("case", CASES, ids=lambda name: name.replace(",", "").replace(" ", "-"))
def test_the_pieces_give_what_the_whole_gives(case, tiny_bert, face_network):
    text, face, fusion, kept, reads = CASES[case]
    config, model = build(text, face, fusion, tiny_bert, face_network)
    cut = cut_model(model, ["faces"] if config.face.augment else [])
    assert {name for part in cut.parts for name in part.steps} == kept
    assert set(cut.reads) == reads
    inputs = some_inputs(model)
    features = {}
    for part in cut.parts:
        features |= part.model({name: inputs[name] for name in part.model.input}, training=False)
    found = cut.rest({**features, **{name: inputs[name] for name in cut.reads}}, training=False)
    for name, expected in model(inputs, training=False).items():
        np.testing.assert_allclose(found[name], expected, atol=1e-6)
    assert {id(v) for v in cut.rest.trainable_variables} == {id(v) for v in model.trainable_variables}


def test_nothing_is_kept_where_nothing_is_frozen_or_the_pictures_change(tiny_bert, face_network):
    _, model = build({"branches": ("gru",)}, {}, {}, tiny_bert, face_network)
    assert cut_model(model) is None
    _, model = build({"branches": ("gru",)}, FROZEN, {}, tiny_bert, face_network)
    assert cut_model(model, ["faces"]) is None
    both = {**FROZEN, "branches": ("encoder", "cnn")}
    _, model = build({"branches": ("gru",)}, both, {}, tiny_bert, face_network)
    assert cut_model(model) is None  # the cnn needs the pictures


def test_a_whole_tower_that_is_kept_as_it_is(small_config):
    face = dataclasses.replace(small_config.face, init="somewhere", train_tower=False, augment=False)
    config = dataclasses.replace(small_config, face=face)
    model = with_heads(build_model(config, SPEC, 9), config.train, 3)
    cut = cut_model(model)
    assert [set(part.steps) for part in cut.parts] == [{"no_face"}] and cut.reads == ("word_ids",)
    assert not any("cnn" in v.path or "absent" in v.path for v in cut.rest.trainable_variables if "face" in v.path)
