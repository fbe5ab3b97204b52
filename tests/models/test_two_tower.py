"""The functional model: its inputs, its towers alone and together, padding, saving."""

import dataclasses

import keras
import numpy as np
import pytest

from emotion_tf.config import Config, FaceConfig, TextConfig
from emotion_tf.models.face_tower import build_face_tower
from emotion_tf.models.pooling import FirstStep, MaskedMean
from emotion_tf.models.text_tower import build_text_tower
from emotion_tf.models.two_tower import build_model, pretrained_layers
from emotion_tf.schema import DataSpec

SPEC = DataSpec(("a", "b", "c"), face_size=16, max_faces=2, lower_case=True, tokenizer="learned", tokenizer_sha256="")
TINY = Config(text=TextConfig(word_dim=4, gru_units=4), face=FaceConfig(cnn_filters=(4,)))
RNG = np.random.default_rng(0)


def faces(rows, frames, size=16):
    return RNG.integers(0, 255, (rows, frames, size, size, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def face_tower():
    """A tower whose learned vector is not the zero that it starts from."""
    tower = build_face_tower(FaceConfig(cnn_filters=(4, 8)), 16)
    vector = tower.get_layer("no_face").absent
    vector.assign(RNG.normal(size=vector.shape))
    return tower


@pytest.mark.parametrize(
    ("towers", "inputs"),
    [("text", {"word_ids"}), ("face", {"faces", "face_mask"}), ("both", {"word_ids", "faces", "face_mask"})],
)
def test_towers_read_only_their_inputs_and_give_one_logit_a_label(towers, inputs):
    model = build_model(dataclasses.replace(TINY, towers=towers), SPEC, words=10)
    assert set(model.input) == inputs
    assert model.output.shape == (None, 3)
    assert {layer.name for layer in model.layers} >= {f"{t}_tower" for t in ("text", "face") if towers in (t, "both")}
    assert ("fusion_concat" in {layer.name for layer in model.layers}) == (towers == "both")


def test_two_branches_of_text_side_by_side(tiny_bert):
    config = TextConfig(branches=("bert", "gru"), gru_units=4, word_dim=4)
    tower = build_text_tower(config, tiny_bert, words=10)
    assert tower.output.shape == (None, 16 + 2 * 4)
    frozen = build_text_tower(dataclasses.replace(config, train_encoder=False), tiny_bert, words=10)
    assert len(frozen.get_layer("bert").trainable_weights) == 0
    assert len(tower.get_layer("bert").trainable_weights) > 10


def test_pretrained_layers_are_the_encoder_only_when_it_is_trained(tiny_bert):
    text = TextConfig(branches=("bert",), encoder=tiny_bert)
    config = dataclasses.replace(TINY, towers="text", text=text)
    model = build_model(config, SPEC, 10, tiny_bert)
    assert [layer.name for layer in pretrained_layers(model, config)] == ["bert"]
    frozen = dataclasses.replace(config, text=dataclasses.replace(text, train_encoder=False))
    assert list(pretrained_layers(model, frozen)) == []


def test_padding_frames_change_nothing(face_tower):
    crops = faces(3, 2)
    mask = np.array([[True, False], [True, True], [False, False]])
    embedding = face_tower.predict({"faces": crops, "face_mask": mask}, verbose=0)
    alone = face_tower.predict({"faces": crops[:1, :1], "face_mask": mask[:1, :1]}, verbose=0)
    np.testing.assert_allclose(embedding[:1], alone, atol=1e-6)
    second = [
        face_tower.predict({"faces": crops[1:2, i : i + 1], "face_mask": mask[:1, :1]}, verbose=0) for i in (0, 1)
    ]
    np.testing.assert_allclose(embedding[1], (second[0] + second[1])[0] / 2, atol=1e-6)
    np.testing.assert_array_equal(embedding[2], face_tower.get_layer("no_face").absent)


def test_a_batch_without_any_face_trains_to_finite_weights(face_tower):
    model = keras.Model(face_tower.input, keras.layers.Dense(3)(face_tower.output))
    model.compile("sgd", "mse", run_eagerly=True, jit_compile=False)
    model.train_on_batch(
        {"faces": np.zeros((2, 1, 16, 16, 3), np.uint8), "face_mask": np.zeros((2, 1), bool)}, np.zeros((2, 3))
    )
    assert all(np.isfinite(w).all() for w in model.get_weights())


def test_saved_model_file_gives_the_same_logits(tmp_path):
    model = build_model(TINY, SPEC, words=10)
    inputs = {
        "word_ids": np.array([[2, 3, 0], [4, 1, 5]]),
        "faces": faces(2, 1),
        "face_mask": np.array([[True], [False]]),
    }
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras", compile=False)
    np.testing.assert_array_equal(loaded.predict(inputs, verbose=0), model.predict(inputs, verbose=0))


def test_masked_mean_and_first_token_by_hand():
    values = np.array([[[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]], [[5.0, 5.0]] * 3], np.float32)
    mask = np.array([[1, 1, 0], [0, 0, 0]])
    np.testing.assert_allclose(MaskedMean()([values, mask]), [[2.0, 3.0], [0.0, 0.0]])
    np.testing.assert_allclose(FirstStep()(values), [[1.0, 2.0], [5.0, 5.0]])


def test_with_context_the_tokens_of_the_utterance_are_pooled(tiny_bert):
    """They have looked at the context, which is not itself part of the mean."""
    text = TextConfig(branches=("bert",), max_tokens=32, context_tokens=16, context=1, dropout=0.0)
    tower = build_text_tower(text, tiny_bert, 10)
    ids = np.array([[2, 7, 8, 3, 9, 5, 3]])
    inputs = {"input_word_ids": ids, "input_mask": np.ones_like(ids), "input_type_ids": np.array([[0] * 4 + [1] * 3])}
    sequence = np.asarray(tower.get_layer("bert")(inputs)["sequence_output"])
    np.testing.assert_allclose(np.asarray(tower(inputs)), sequence[:, :4].mean(axis=1), atol=1e-5)


@pytest.mark.parametrize("size", [6, 8, 10, 14, 18, 28])
def test_the_grid_of_the_cnn_leaves_no_part_of_the_face_out(size):
    tower = build_face_tower(FaceConfig(cnn_filters=(1,)), size)
    grid, cells = tower.get_layer("cnn_grid"), size // 2
    for corner in ((0, 0), (cells - 1, cells - 1)):
        values = np.zeros((1, cells, cells, 1), np.float32)
        values[:, corner[0], corner[1]] = 1
        assert np.sum(grid(values)) > 0
    assert grid(values).shape[1:3] == ((3, 3) if cells == 3 else (2, 2))
