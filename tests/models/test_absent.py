"""A modality that is absent: the learned vector stands for it, and nothing of its padding comes through."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from emotion_tf.config import Config, FaceConfig, FusionConfig, TextConfig
from emotion_tf.models.face_tower import build_face_tower
from emotion_tf.models.layers import HasMore, OrAbsent
from emotion_tf.models.text_tower import build_text_tower
from emotion_tf.models.two_tower import build_model
from emotion_tf.schema import DataSpec

SPEC = DataSpec(("a", "b", "c"), face_size=16, max_faces=2, lower_case=True, tokenizer="learned", tokenizer_sha256="")
TINY = Config(
    text=TextConfig(branches=("bert", "gru"), word_dim=4, gru_units=4, pooling="mean"),
    face=FaceConfig(cnn_filters=(4,)),
    fusion=FusionConfig(dense_units=(), dropout=0.0),
)
RNG = np.random.default_rng(0)
TOWERS = [("text_tower", "no_text", [2, 3]), ("face_tower", "no_face", [1, 3])]
ABSENT = pytest.mark.parametrize(("tower", "name", "absent"), TOWERS)
SUBSETS = pytest.mark.parametrize("rows", [[0, 1, 2, 3], [0, 0], [3, 3], [3], [1, 3], [2, 3]])


@pytest.fixture(scope="module")
def both(tiny_bert):
    """A model of all branches with learned vectors that are not zero, and inputs: whole, no face, no text, neither."""
    model = build_model(TINY, SPEC, 10, tiny_bert)
    for tower, name, _ in TOWERS:
        vector = model.get_layer(tower).get_layer(name).absent
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


def outputs(model, inputs):
    return np.asarray(model(inputs, training=False))


def of(inputs, rows):
    return {key: value[rows] for key, value in inputs.items()}


def test_the_layer_by_hand():
    layer = OrAbsent()
    values = np.array([[1.0, 2.0], [np.nan, np.inf], [5.0, 6.0]], np.float32)
    layer.build([(None, 2), (None,)])
    assert np.asarray(layer.absent).tolist() == [0, 0] and layer.absent.path.endswith("absent")
    layer.absent.assign([7.0, 8.0])
    for present in ([True, False, True], [1, 0, 1], [3.0, 0.0, 0.5]):
        assert np.asarray(layer([values, np.array(present)])).tolist() == [[1, 2], [7, 8], [5, 6]]
    # a branch that gives no number for padding must not spoil what it learns from the others
    variable = tf.Variable(values)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer([variable, np.array([True, False, True])]) ** 2)
    to_values, to_absent = tape.gradient(loss, [variable, layer.absent.value])
    assert to_values.numpy().tolist() == [[2, 4], [0, 0], [10, 12]] and to_absent.numpy().tolist() == [14, 16]


def test_has_more_counts_what_is_not_zero():
    ids = np.array([[5, 0, 7, 0], [0, 0, 0, 0], [1, 1, 1, 0]], np.int32)
    assert np.asarray(HasMore(0)(ids)).tolist() == [True, False, True]
    assert np.asarray(HasMore(2)(ids)).tolist() == [False, False, True]
    assert np.asarray(HasMore(0)(ids > 0)).tolist() == [True, False, True]


@ABSENT
def test_a_learned_vector_stands_for_what_is_absent_and_only_there(both, tower, name, absent):
    model, inputs = both
    part = model.get_layer(tower)
    vector = part.get_layer(name).absent
    embedding = outputs(part, {key: inputs[key] for key in part.input})
    for row in range(4):
        assert (embedding[row] == np.asarray(vector)).all() == (row in absent)
    before, kept = outputs(model, inputs), np.array(vector)
    vector.assign(kept + 1)
    changed = (outputs(model, inputs) != before).any(axis=1)
    vector.assign(kept)
    assert changed.tolist() == [row in absent for row in range(4)]


@SUBSETS
def test_logits_are_those_of_the_fusion_with_the_vectors_put_in(both, rows):
    """In NumPy; and with all absent, none absent, one row alone."""
    model, inputs = both
    embeddings = []
    for tower, name, absent in TOWERS:
        part = model.get_layer(tower)
        embedding = outputs(part, {key: inputs[key] for key in part.input}).copy()
        embedding[absent] = np.asarray(part.get_layer(name).absent)
        embeddings.append(embedding)
    logits = model.get_layer("logits")
    expected = np.concatenate(embeddings, axis=1)[rows] @ np.asarray(logits.kernel) + np.asarray(logits.bias)
    np.testing.assert_allclose(outputs(model, of(inputs, rows)), expected, rtol=1e-5, atol=1e-5)


def test_nothing_of_the_padding_of_an_absent_modality_comes_through(both):
    model, inputs = both
    before = outputs(model, inputs)
    after = outputs(model, {**inputs, "faces": 255 - inputs["faces"]})
    assert (after != before).any(axis=1).tolist() == [True, False, True, False]
    other_text = {"input_word_ids": inputs["input_word_ids"] + 1, "word_ids": inputs["word_ids"] + 1}
    after = outputs(model, {**inputs, **other_text, "input_type_ids": 1 - inputs["input_type_ids"]})
    assert (after != before).any(axis=1).tolist() == [True, True, False, False]


@ABSENT
def test_the_vector_learns_from_rows_that_lack_the_modality_and_the_branches_from_the_others(both, tower, name, absent):
    model, inputs = both
    part = model.get_layer(tower)
    vector = part.get_layer(name).absent
    branches = [w for w in part.trainable_weights if w is not vector]
    present = [row for row in range(4) if row not in absent]
    for rows, vector_learns, branches_learn in ((present, 0, 1), (absent, 1, 0), ([0, *absent], 1, 1)):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(of(inputs, rows), training=False) ** 2)
        first, *others = tape.gradient(loss, [w.value for w in (vector, *branches)], unconnected_gradients="zero")
        assert tf.math.count_nonzero(first).numpy() == vector_learns * vector.shape[0]
        assert any(np.asarray(tf.convert_to_tensor(g)).any() for g in others) == branches_learn


def test_a_batch_without_a_face_leaves_the_same_statistics_whatever_its_padding_holds():
    tower = build_face_tower(TINY.face, 16)
    kept, found = tower.get_weights(), []
    for faces in (np.zeros((2, 2, 16, 16, 3), np.uint8), np.full((2, 2, 16, 16, 3), 255, np.uint8)):
        tower.set_weights(kept)
        tower({"faces": faces, "face_mask": np.zeros((2, 2), bool)}, training=True)
        found.append(tower.get_weights())
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("branches", [("gru",), ("bert",), ("gru", "bert")])
def test_every_choice_of_branches_knows_an_empty_utterance(both, tiny_bert, branches):
    tower = build_text_tower(dataclasses.replace(TINY.text, branches=branches), tiny_bert, 10)
    vector = tower.get_layer("no_text").absent
    vector.assign(RNG.normal(size=vector.shape))
    embedding = outputs(tower, {key: both[1][key] for key in tower.input})
    assert [(row == np.asarray(vector)).all() for row in embedding] == [False, False, True, True]


@pytest.mark.parametrize("text", ["", "   ", "\t\n"])
def test_an_empty_utterance_is_absent_for_both_branches(text, untrained_bert):
    model = untrained_bert.model
    preprocess, tower = untrained_bert.preprocessor(model), model.get_layer("text_tower")
    rows = preprocess(tf.constant([text, "hello", "☕"]), tf.constant([[""]] * 3))
    found = outputs(tower, {key: rows[key] for key in tower.input})
    vector = np.asarray(tower.get_layer("no_text").absent)
    assert [(row == vector).all() for row in found] == [True, False, False]
    assert not np.asarray(rows["word_ids"])[0].any()


@SUBSETS
def test_a_saved_model_gives_the_same_logits(both, saved, rows):
    model, inputs = both
    np.testing.assert_array_equal(outputs(saved, of(inputs, rows)), outputs(model, of(inputs, rows)))


@pytest.fixture(scope="module")
def saved(both, tmp_path_factory):
    path = tmp_path_factory.mktemp("absent") / "m.keras"
    both[0].save(path)
    return keras.saving.load_model(path, compile=False)


def test_an_exported_model_gives_the_same_logits(both, tmp_path):
    model, inputs = both
    archive = keras.export.ExportArchive()
    archive.track(model)
    specs = {name: tf.TensorSpec(x.shape, x.dtype) for name, x in model.input.items()}
    archive.add_endpoint("serve", lambda given: model(given, training=False), [specs])
    archive.write_out(str(tmp_path / "served"), verbose=False)
    served = tf.saved_model.load(str(tmp_path / "served"))
    for rows in ([0, 1, 2, 3], [3, 3], [0]):
        given = {name: tf.cast(x, model.input[name].dtype) for name, x in of(inputs, rows).items()}
        np.testing.assert_allclose(served.serve(given), outputs(model, of(inputs, rows)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_keeps_the_vector_in_float32_and_gives_the_dtype_of_the_branch(policy):
    layer = OrAbsent(dtype=policy)
    given = [tf.ones((2, 3), layer.compute_dtype), tf.constant([True, False])]
    layer.build([(2, 3), (2,)])
    layer.absent.assign([0.5, 0.25, -1.0])
    found = layer(given)
    assert found.dtype == layer.compute_dtype and layer.absent.dtype == "float32"
    assert tf.cast(found, tf.float32).numpy().tolist() == [[1, 1, 1], [0.5, 0.25, -1]]
