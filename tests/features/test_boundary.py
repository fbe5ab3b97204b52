"""Where a model is divided: the rest of it, fed with the kept columns, gives and trains what the whole model does."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from emotion_tf.config import Config, FaceConfig, FusionConfig, TextConfig
from emotion_tf.features.boundary import connect_rest, frozen_parts, rest_inputs
from emotion_tf.models.two_tower import build_model
from emotion_tf.run_info import DataSpec

SPEC = DataSpec(("a", "b", "c"), 16, 2, True, "learned", "")
SHAPE = (9, 4)
ROWS, LENGTH = 6, 7
RNG = np.random.default_rng(0)
GRU, BERT, CNN = {"branches": ("gru",)}, {"branches": ("bert",)}, {"branches": ("cnn",)}
ENCODER = {"branches": ("encoder",), "train_backbone": False}
CONTEXT = {"max_tokens": 16, "context_tokens": 16, "context": 1}
CROSS = {"kind": "cross_attention", "width": 4, "heads": 2}


@pytest.fixture(scope="module")
def face_network(tmp_path_factory):
    """A small network with positions and with dropout inside, as a .keras file."""
    pictures = keras.Input((12, 12, 3))
    x = keras.layers.Dropout(0.5)(keras.layers.Conv2D(5, 3, strides=2, name="conv")(pictures))
    path = tmp_path_factory.mktemp("network") / "face.keras"
    keras.Model(pictures, keras.layers.BatchNormalization(name="norm")(x)).save(path)
    return str(path)


@pytest.fixture
def build(tiny_bert, face_network):
    """Makes models whose encoder is frozen, with all kinds of dropout, and random missing embeddings."""

    def make(text, face, fusion=None):
        if "encoder" in face["branches"]:
            face = {**face, "encoder": face_network}
        if "bert" in text["branches"]:
            text = {"train_encoder": False, **text}
        config = Config(
            text=TextConfig(word_dim=4, gru_units=3, dropout=0.3, **text),
            face=FaceConfig(cnn_filters=(3,), dropout=0.3, **face),
            fusion=FusionConfig(dense_units=(4,), dropout=0.3, modality_dropout=0.3, **(fusion or {})),
        )
        model = build_model(config, SPEC, SHAPE, tiny_bert, {"encoder": face_network})
        for modality, tower in model.towers.items():
            vector = tower.find_layer(f"{modality}_missing").missing
            vector.assign(RNG.normal(size=vector.shape))
        return model

    return make


def some_inputs(model):
    """Six rows; the last but one has no text, the second and the last but one have no face."""
    rng = np.random.default_rng(0)
    lengths = np.array([4, 5, 7, 6, 2, 3])[:, None]
    real = np.arange(LENGTH) < lengths
    words = np.where(np.arange(5) < np.array([2, 3, 5, 4, 0, 1])[:, None], rng.integers(1, 9, (ROWS, 5)), 0)
    has_context = "context_word_ids" in model.input or model.towers["text"].layers_by_name.get("bert_utterance")
    context = (np.arange(LENGTH) >= lengths - 2) & (lengths > 4) & bool(has_context)
    inputs = {
        "input_word_ids": np.where(real, rng.integers(5, 30, (ROWS, LENGTH)), 0),
        "input_mask": real,
        "input_type_ids": real & context,
        "word_ids": words,
        "context_word_ids": words[::-1, :3],
        "faces": rng.integers(0, 255, (ROWS, 2, 16, 16, 3)),
        "face_mask": np.array([[1, 1], [0, 0], [1, 0], [1, 1], [0, 0], [0, 1]]),
    }
    return {name: tf.cast(inputs[name], tensor.dtype) for name, tensor in model.input.items()}


def columns_of(parts, inputs):
    columns = {}
    for part in parts:
        columns |= part.model({name: inputs[name] for name in part.model.input}, training=False)
    return columns


def names_of(parts):
    return {name for part in parts for name in part.steps}


def outputs_of(network, inputs, model, state, training):
    """Outputs from the given state of all variables: random seeds and statistics too."""
    for variable, value in zip(model.variables, state, strict=True):
        variable.assign(value)
    return {name: np.asarray(value, np.float32) for name, value in network(inputs, training=training).items()}


def check(model, augmented=()):
    """The rest gives and trains what the whole does, in inference and in training; returns the parts and the rest."""
    parts = frozen_parts(model, augmented)
    symbolic = rest_inputs(model, parts)
    rest = keras.Model(symbolic, connect_rest(model, parts, symbolic))
    inputs = some_inputs(model)
    fed = {**inputs, **columns_of(parts, inputs)}
    fed = {name: tf.cast(fed[name], tensor.dtype) for name, tensor in rest.input.items()}
    state = [np.array(variable) for variable in model.variables]
    by_mode = []
    for training in (False, True):
        expected = outputs_of(model, inputs, model, state, training)
        after = [np.array(variable) for variable in model.variables]
        outputs = outputs_of(rest, fed, model, state, training)
        assert set(outputs) == set(expected)
        for name, value in expected.items():
            np.testing.assert_allclose(outputs[name], value, atol=1e-5, err_msg=f"{name}, training={training}")
        for variable, value in zip(model.variables, after, strict=True):
            # the same dropout was drawn, the same statistics were kept
            np.testing.assert_allclose(np.asarray(variable), value, atol=1e-6, err_msg=variable.path)
        by_mode.append(expected)
    assert (by_mode[0]["logits"] != by_mode[1]["logits"]).any()  # dropout acts
    assert {id(v) for v in rest.trainable_variables} == {id(v) for v in model.trainable_variables}
    return parts, rest


CASES = {
    "BERT with its mean": (BERT, CNN, {}, {"text_bert", "input_mask"}, {"faces", "face_mask"}),
    "BERT with its mean beside a GRU": (
        {"branches": ("bert", "gru")}, CNN, {}, {"text_bert", "input_mask", "word_ids"}, {"faces", "face_mask"},
    ),
    "BERT with attention pooling beside a GRU": (
        {"branches": ("bert", "gru"), "pooling": "attention"}, CNN, {},
        {"text_bert", "input_mask", "word_ids"}, {"faces", "face_mask"},
    ),
    "BERT with its mean and context": (
        {"branches": ("bert", "gru"), **CONTEXT}, CNN, {},
        {"text_bert", "input_mask", "word_ids", "context_word_ids"}, {"faces", "face_mask"},
    ),
    "BERT with attention pooling and context": (
        {**BERT, "pooling": "attention", **CONTEXT}, CNN, {},
        {"text_bert", "input_mask", "input_type_ids"}, {"faces", "face_mask"},
    ),
    "a face network": (GRU, ENCODER, {}, {"face_encoder", "face_mask"}, {"word_ids"}),
    "a face network whose crops a GRU reads": (
        GRU, {**ENCODER, "frames": "gru"}, {}, {"face_encoder", "face_mask"}, {"word_ids"},
    ),
    "a face tower that stays as it is": (
        GRU, {"branches": ("encoder", "cnn"), "init": "run", "train_tower": False}, {},
        {"face_encoder", "face_cnn", "face_mask"}, {"word_ids"},
    ),
    "two face branches of which one trains": (
        GRU, {**ENCODER, "branches": ("encoder", "cnn")}, {}, {"face_encoder"}, {"word_ids", "faces", "face_mask"},
    ),
    "both under cross-attention": (
        BERT, ENCODER, CROSS, {"text_bert", "input_mask", "face_encoder", "face_mask"}, set(),
    ),
    "both under cross-attention with trained poolings": (
        {"branches": ("bert", "gru"), "pooling": "attention", **CONTEXT}, {**ENCODER, "frames": "attention"}, CROSS,
        {"text_bert", "input_mask", "input_type_ids", "word_ids", "context_word_ids", "face_encoder", "face_mask"},
        set(),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda name: name.replace(" ", "-"))
def test_part_and_rest_give_the_outputs_of_the_model(case, build):
    text, face, fusion, columns, raw = CASES[case]
    parts, rest = check(build(text, face, fusion))
    assert names_of(parts) == columns and set(rest.input) == columns | raw
    for part in parts:
        assert set(part.model.output) == set(part.steps)
        # pictures are never a column
        assert "faces" not in part.steps and all(len(x.shape) <= 3 for x in part.model.output.values())
        assert part.model.trainable_weights == []


def test_the_steps_of_each_column(build):
    """Empty: one value a row; else the raw input that counts the steps."""
    pooled = build({"branches": ("bert", "gru"), **CONTEXT}, ENCODER)
    steps = {part.modality: part.steps for part in frozen_parts(pooled)}
    words = {"word_ids": "word_ids", "context_word_ids": "context_word_ids"}
    assert steps["text"] == {"text_bert": "", "input_mask": "input_mask", **words}
    assert steps["face"] == {"face_encoder": "", "face_mask": "face_mask"}
    sequences = build({**BERT, "pooling": "gru", **CONTEXT}, {**ENCODER, "frames": "attention"})
    steps = {part.modality: part.steps for part in frozen_parts(sequences)}
    assert steps["text"] == dict.fromkeys(("text_bert", "input_mask", "input_type_ids"), "input_mask")
    assert steps["face"] == dict.fromkeys(("face_encoder", "face_mask"), "face_mask")


def test_a_part_reads_the_inputs_of_its_columns(build):
    model = build({"branches": ("bert", "gru")}, {**ENCODER, "branches": ("encoder", "cnn")})
    text, face = frozen_parts(model)
    assert (text.modality, text.trunks) == ("text", ("bert",))
    assert (face.modality, face.trunks) == ("face", ("encoder",))
    assert set(text.model.input) == {"input_word_ids", "input_mask", "input_type_ids", "word_ids"}
    assert set(face.model.input) == {"faces", "face_mask"}


def test_augmented_faces_are_not_cached_but_the_text_is(build):
    parts, rest = check(build(BERT, ENCODER), augmented=["faces"])
    assert [part.modality for part in parts] == ["text"]
    assert set(rest.input) == {"text_bert", "input_mask", "faces", "face_mask"}


def test_only_frozen_trunks_with_weights_are_cached(build):
    assert frozen_parts(build(GRU, CNN)) == ()
    assert frozen_parts(build({**BERT, "train_encoder": True}, CNN)) == ()
    assert frozen_parts(build(GRU, ENCODER), ["faces"]) == ()
    # pooling with learned weights of the positions is trained in the trunk
    assert frozen_parts(build(GRU, {**ENCODER, "pooling": "attention"})) == ()
    assert [part.trunks for part in frozen_parts(build(GRU, {**ENCODER, "pooling": "avgmax"}))] == [("encoder",)]


def test_without_a_part_the_rest_is_the_model(build):
    parts, rest = check(build(GRU, CNN))
    assert parts == () and set(rest.input) == {"word_ids", "faces", "face_mask"}


def test_a_network_with_dropout_inside_is_cached_only_while_it_is_frozen(build):
    """In a phase of `--train.freeze-epochs` it is in inference mode; what trains next to it trains as before."""
    model = build(GRU, {"branches": ("encoder",)})
    (layer,) = model.pretrained
    layer.set_trainable(False)
    parts, _ = check(model)
    assert names_of(parts) == {"face_encoder", "face_mask"}
    layer.set_trainable(True)
    assert frozen_parts(model) == ()
    assert [part.modality for part in frozen_parts(build(GRU, ENCODER))] == ["face"]


def test_an_encoder_is_cached_only_while_it_is_frozen(build):
    model = build({**BERT, "train_encoder": True}, CNN)
    (layer,) = model.pretrained
    layer.set_trainable(False)
    parts, _ = check(model)
    assert names_of(parts) == {"text_bert", "input_mask"}
    layer.set_trainable(True)
    assert frozen_parts(model) == ()


def test_a_network_with_a_trainable_layer_is_not_cached(build):
    assert frozen_parts(build(GRU, {"branches": ("encoder",), "unfreeze_from": "norm"})) == ()


@pytest.mark.slow
def test_dropout_inside_efficientnet_is_inactive_while_the_network_is_frozen():
    face = FaceConfig(branches=("efficientnetv2b0",), weights="none", init="run")
    spec = dataclasses.replace(SPEC, face_size=32)
    model = build_model(Config(text=TextConfig(word_dim=4, gru_units=3), face=face), spec, SHAPE)
    network = model.towers["face"].find_layer("efficientnetv2b0")
    faces = tf.random.stateless_uniform((4, 1, 32, 32, 3), (0, 1), maxval=255)
    batch = {"faces": tf.cast(faces, tf.uint8), "face_mask": tf.ones((4, 1), tf.bool)}

    def run(training: bool) -> tf.Tensor:
        return model.towers["face"].trunks["efficientnetv2b0"](batch, training=training)

    def is_random() -> bool:
        return bool(tf.reduce_any(run(training=True) != run(training=True)))

    assert is_random() and frozen_parts(model) == ()
    network.trainable = False
    assert not is_random()
    tf.debugging.assert_equal(run(training=True), run(training=False))
    assert [part.modality for part in frozen_parts(model)] == ["face"]
    face = dataclasses.replace(face, train_backbone=False)
    model = build_model(Config(text=TextConfig(word_dim=4, gru_units=3), face=face), spec, SHAPE)
    assert [part.modality for part in frozen_parts(model)] == ["face"]


def test_mixed_precision_is_cached_in_float32(build):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build({**BERT, "pooling": "mean"}, {**ENCODER, "frames": "attention"})
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.towers["text"].trunks["bert"].output.dtype == "bfloat16"
    parts, rest = check(model)
    columns = {name: rest.input[name].dtype for name in names_of(parts)}
    assert columns == {"text_bert": "float32", "input_mask": "int32", "face_encoder": "float32", "face_mask": "bool"}
