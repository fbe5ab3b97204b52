"""The head of a tower, and what the model makes of a modality that is absent: nothing of its padding comes through."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from emotion_tf.config import Config, FaceConfig, FusionConfig, TextConfig
from emotion_tf.models.head import build_head, feature_input
from emotion_tf.models.two_tower import build_model
from emotion_tf.models.word_branches import BranchOutputs
from emotion_tf.run_info import DataSpec

SPEC = DataSpec(("a", "b", "c"), face_size=16, max_faces=2, lower_case=True, tokenizer="learned", tokenizer_sha256="")
CONFIG = Config(
    text=TextConfig(branches=("bert", "gru"), word_dim=4, gru_units=4, pooling="mean"),
    face=FaceConfig(cnn_filters=(4,)),
    fusion=FusionConfig(dense_units=(), dropout=0.0),
)
RNG = np.random.default_rng(0)
MISSING_ROWS = {"text": [2, 3], "face": [1, 3]}
MODALITY = pytest.mark.parametrize(("modality", "missing_rows"), MISSING_ROWS.items())


@pytest.fixture(scope="module")
def model_and_inputs(tiny_bert):
    """A model whose missing embeddings are not zero, and inputs: whole, no face, no text, neither."""
    model = build_model(CONFIG, SPEC, (10, 4), tiny_bert)
    for modality in model.towers:
        vector = missing_embedding(model, modality)
        vector.assign(RNG.normal(size=vector.shape))
    text = np.array([1, 1, 0, 0])[:, None]
    inputs = {
        "input_word_ids": np.where(text, [[2, 7, 8, 3]], [[2, 3, 0, 0]]),
        "input_mask": np.where(text, [[1, 1, 1, 1]], [[1, 1, 0, 0]]),
        "input_type_ids": np.zeros((4, 4), int),
        "word_ids": np.where(text, [[4, 5]], [[0, 0]]),
        "faces": RNG.integers(0, 255, (4, 2, 16, 16, 3)).astype(np.uint8),
        "face_mask": np.array([[True, True], [False, False], [True, False], [False, False]]),
    }
    return model, inputs


def missing_embedding(model, modality):
    return model.towers[modality].find_layer(f"{modality}_missing").missing


def outputs_of(model, inputs):
    return {name: np.asarray(value) for name, value in model(inputs, training=False).items()}


def logits_of(model, inputs):
    return outputs_of(model, inputs)["logits"]


def take(inputs, rows):
    return {key: value[rows] for key, value in inputs.items()}


@MODALITY
def test_only_absent_modalities_get_the_missing_embedding(model_and_inputs, modality, missing_rows):
    model, inputs = model_and_inputs
    vector = missing_embedding(model, modality)
    before = outputs_of(model, inputs)
    for row in range(4):
        assert (before[f"{modality}/embedding"][row] == np.asarray(vector)).all() == (row in missing_rows)
    value = np.array(vector)
    vector.assign(value + 1)
    differs = (logits_of(model, inputs) != before["logits"]).any(axis=1)
    vector.assign(value)
    assert differs.tolist() == [row in missing_rows for row in range(4)]


@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [0, 0], [3, 3], [3], [1, 3], [2, 3]])
def test_logits_with_missing_embeddings_by_formula(model_and_inputs, rows):
    """In NumPy; also with all absent, none absent, one row alone."""
    model, inputs = model_and_inputs
    outputs, embeddings = outputs_of(model, inputs), []
    for modality, missing_rows in MISSING_ROWS.items():
        embedding = outputs[f"{modality}/embedding"].copy()
        embedding[missing_rows] = np.asarray(missing_embedding(model, modality))
        embeddings.append(embedding)
    dense = model.fusion.get_layer("logits")
    expected = np.concatenate(embeddings, axis=1)[rows] @ np.asarray(dense.kernel) + np.asarray(dense.bias)
    np.testing.assert_allclose(logits_of(model, take(inputs, rows)), expected, rtol=1e-5, atol=1e-5)


def test_inputs_of_an_absent_modality_have_no_influence(model_and_inputs):
    model, inputs = model_and_inputs
    before = logits_of(model, inputs)
    after = logits_of(model, {**inputs, "faces": 255 - inputs["faces"]})
    assert (after != before).any(axis=1).tolist() == [True, False, True, False]
    other_text = {"input_word_ids": inputs["input_word_ids"] + 1, "word_ids": inputs["word_ids"] + 1}
    other_text["input_type_ids"] = 1 - inputs["input_type_ids"]
    after = logits_of(model, {**inputs, **other_text})
    assert (after != before).any(axis=1).tolist() == [True, True, False, False]


@MODALITY
def test_missing_embeddings_learn_from_absent_rows_and_branches_from_present_rows(
    model_and_inputs, modality, missing_rows
):
    model, inputs = model_and_inputs
    vector = missing_embedding(model, modality)
    branches = [weight for weight in model.towers[modality].trainable_weights if weight is not vector]
    present_rows = [row for row in range(4) if row not in missing_rows]
    for rows, vector_learns, branches_learn in ((present_rows, 0, 1), (missing_rows, 1, 0), ([0, *missing_rows], 1, 1)):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(take(inputs, rows), training=False)["logits"] ** 2)
        variables = [weight.value for weight in (vector, *branches)]
        first, *others = tape.gradient(loss, variables, unconnected_gradients="zero")
        assert tf.math.count_nonzero(first).numpy() == vector_learns * vector.shape[0]
        assert any(np.asarray(tf.convert_to_tensor(gradient)).any() for gradient in others) == branches_learn


@pytest.fixture
def head():
    """A head of two branches, one of them a trunk's sequence, with modality dropout, without dropout."""
    trunk_input = keras.Input((None, 3), name="x")
    trunk = keras.Model({"x": trunk_input}, keras.layers.Identity()(trunk_input), name="trunk")
    feature, pooled = feature_input("trunk", trunk), keras.Input((2,), name="pooled")
    mask, present = keras.Input((None,), dtype="bool", name="mask"), keras.Input((), dtype="bool", name="has_it")
    inputs = {"trunk": feature, "pooled": pooled, "mask": mask, "has_it": present}
    first = keras.layers.GlobalMaxPooling1D()(feature)
    branches = [BranchOutputs(first, feature, mask), BranchOutputs(pooled, feature, mask)]
    return build_head("text", inputs, branches, present, 0.0, 0.5, sequences=True)


def head_inputs(rows):
    return {
        "trunk": np.abs(RNG.normal(size=(rows, 4, 3))).astype(np.float32) + 1,
        "pooled": np.ones((rows, 2), np.float32),
        "mask": np.tile([True, True, True, False], (rows, 1)),
        "has_it": np.arange(rows) % 4 != 0,
    }


def test_a_head_concatenates_its_branches_and_outputs_their_sequences(head):
    inputs = head_inputs(8)
    outputs = head(inputs, training=False)
    assert set(outputs) == {"embedding", "present", "sequence_0", "mask_0", "sequence_1", "mask_1"}
    joined = np.concatenate([inputs["trunk"].max(axis=1), inputs["pooled"]], axis=1)
    present = inputs["has_it"]
    np.testing.assert_array_equal(outputs["embedding"], np.where(present[:, None], joined, 0))
    np.testing.assert_array_equal(outputs["mask_0"], inputs["mask"] & present[:, None])
    np.testing.assert_array_equal(outputs["sequence_1"], inputs["trunk"])


def test_modality_dropout_changes_embedding_and_masks_but_not_present(head):
    inputs = head_inputs(400)
    outputs = {name: np.asarray(value) for name, value in head(inputs, training=True).items()}
    np.testing.assert_array_equal(outputs["present"], inputs["has_it"])
    available = outputs["embedding"].any(axis=1)
    assert not available[~inputs["has_it"]].any() and available[inputs["has_it"]].mean() == pytest.approx(0.5, abs=0.1)
    for i in (0, 1):
        np.testing.assert_array_equal(outputs[f"mask_{i}"].any(axis=1), available)


def test_a_head_of_one_branch_without_sequences():
    pooled, present = keras.Input((2,), name="pooled"), keras.Input((), dtype="bool", name="has_it")
    branch = BranchOutputs(pooled, pooled, present)
    head = build_head("face", {"pooled": pooled, "has_it": present}, [branch], present, 0.5, 0.0, sequences=False)
    assert set(head.output) == {"embedding", "present"} and head.output["embedding"].shape == (None, 2)
    assert "face_concat" not in [layer.name for layer in head.layers]
    assert head.get_layer("face_embedding").rate == 0.5 and head.get_layer("face_modality_dropout").rate == 0.0
