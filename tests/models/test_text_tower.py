"""The text tower: its branches, what of BERT is its trunk, and which utterances are absent."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from emotion_tf.config import TextConfig
from emotion_tf.errors import UserError
from emotion_tf.models.text_tower import build_text_tower

SHAPE = (10, 4)
CONFIG = TextConfig(branches=("bert", "gru"), gru_units=4, word_dim=4)
CONTEXT = {"max_tokens": 32, "context_tokens": 16, "context": 1}
RNG = np.random.default_rng(0)


def replace(**options):
    return dataclasses.replace(CONFIG, **options)


def pieces(ids, types=None):
    ids = np.array(ids, np.int32)
    types = np.zeros_like(ids) if types is None else np.array(types, np.int32)
    return {"input_word_ids": ids, "input_mask": (ids != 0).astype(np.int32), "input_type_ids": types}


def test_two_branches_are_concatenated(tiny_bert):
    tower = build_text_tower(CONFIG, tiny_bert, SHAPE)
    assert tower.output["embedding"].shape == (None, 16 + 2 * 4) and tower.output["present"].shape == (None,)
    assert set(tower.input) == {"input_word_ids", "input_mask", "input_type_ids", "word_ids"}
    assert list(tower.trunks) == ["bert"] and tower.steps == "input_mask" and tower.name == "text_tower"
    frozen = build_text_tower(replace(train_encoder=False), tiny_bert, SHAPE)
    assert len(frozen.trunks["bert"].trainable_weights) == 0 and frozen.trainable_weights
    assert len(tower.trunks["bert"].trainable_weights) > 10


def test_word_branches_alone_have_no_trunk():
    tower = build_text_tower(replace(branches=("gru", "cnn")), None, SHAPE)
    assert tower.trunks == {} and set(tower.input) == {"word_ids"}
    with_context = build_text_tower(replace(branches=("gru",), context=2), None, SHAPE)
    assert set(with_context.input) == {"word_ids", "context_word_ids"}
    assert with_context.output["embedding"].shape == (None, 2 * 2 * 4)


@pytest.mark.parametrize(
    ("pooling", "sequences", "shape"),
    [
        ("mean", False, (None, 16)),
        ("max", False, (None, 16)),
        ("cls", False, (None, 16)),
        ("attention", False, (None, None, 16)),
        ("gru", False, (None, None, 16)),
        ("mean", True, (None, None, 16)),
    ],
)
def test_the_trunk_outputs_the_pooled_vector_unless_a_trained_layer_reads_the_sequence(
    tiny_bert, pooling, sequences, shape
):
    config = replace(branches=("bert",), pooling=pooling, train_encoder=False)
    tower = build_text_tower(config, tiny_bert, SHAPE, sequences=sequences)
    assert tower.trunks["bert"].output.shape == shape
    assert tower.trunks["bert"].trainable_weights == []
    assert set(tower.head.input) == {"bert", "input_mask"}
    names = {"embedding", "present", "sequence_0", "mask_0"} if sequences else {"embedding", "present"}
    assert set(tower.output) == names and tower.output["embedding"].shape == (None, 16)


@pytest.mark.parametrize("pooling", ["mean", "max", "attention"])
@pytest.mark.parametrize("sequences", [False, True])
def test_with_context_the_tokens_of_the_utterance_are_pooled(tiny_bert, pooling, sequences):
    """They have attended to the context, which is not itself part of the mean."""
    config = TextConfig(branches=("bert",), dropout=0.0, pooling=pooling, **CONTEXT)
    tower = build_text_tower(config, tiny_bert, SHAPE, sequences=sequences)
    inputs = pieces([[2, 7, 8, 3, 9, 5, 3]], [[0] * 4 + [1] * 3])
    outputs = tower(inputs)
    utterance = np.asarray(tower.find_layer("bert")(inputs)["sequence_output"])[:, :4]
    if pooling == "attention":
        layer = tower.find_layer("bert_attention")
        weights = np.asarray(layer([utterance, np.ones((1, 4))]))[:, :, None]
        expected = (utterance * weights).sum(axis=1)
    else:
        expected = getattr(utterance, pooling)(axis=1)
    np.testing.assert_allclose(outputs["embedding"], expected, atol=1e-5)
    if sequences:
        assert outputs["sequence_0"].shape == (1, 7, 16) and np.asarray(outputs["mask_0"]).all()


@pytest.mark.parametrize("branches", [("gru",), ("bert",), ("gru", "bert")])
def test_an_empty_utterance_is_absent_for_any_branches(tiny_bert, branches):
    tower = build_text_tower(replace(branches=branches), tiny_bert, SHAPE)
    vector = tower.find_layer("text_missing").missing
    vector.assign(RNG.normal(size=vector.shape))
    inputs = {**pieces([[2, 7, 8, 3], [2, 3, 0, 0]]), "word_ids": np.array([[4, 5], [0, 0]])}
    outputs = tower({name: inputs[name] for name in tower.input})
    embedding = np.asarray(outputs["embedding"])
    assert [(row == np.asarray(vector)).all() for row in embedding] == [False, True]
    assert np.asarray(outputs["present"]).tolist() == [True, False]


@pytest.mark.parametrize("branches", [("gru",), ("bert",), ("gru", "bert")])
def test_an_utterance_of_context_alone_is_present(tiny_bert, branches):
    tower = build_text_tower(replace(branches=branches, **CONTEXT), tiny_bert, SHAPE)
    inputs = {
        **pieces([[2, 3, 9, 3], [2, 3, 0, 0]], [[0, 0, 1, 1], [0] * 4]),
        "word_ids": np.zeros((2, 1), np.int32),
        "context_word_ids": np.array([[4, 5], [0, 0]]),
    }
    outputs = tower({name: inputs[name] for name in tower.input})
    assert np.asarray(outputs["present"]).tolist() == [True, False]
    assert np.asarray(outputs["embedding"]).any(axis=1).tolist() == [True, False]


@pytest.mark.parametrize("text", ["", "   ", "\t\n"])
def test_an_empty_utterance_is_absent_for_both_branches(text, untrained_bert):
    model = untrained_bert.model
    preprocess, tower = untrained_bert.preprocessor(model), model.towers["text"]
    rows = preprocess({"utterance": tf.constant([text, "hello", "☕"])})
    outputs = tower({name: rows[name] for name in tower.input})
    vector = np.asarray(tower.find_layer("text_missing").missing)
    assert [(row == vector).all() for row in np.asarray(outputs["embedding"])] == [True, False, False]
    assert np.asarray(outputs["present"]).tolist() == [False, True, True]
    assert not np.asarray(rows["word_ids"])[0].any()


def test_an_encoder_with_too_few_positions_is_refused(tiny_bert):
    build_text_tower(replace(branches=("bert",), max_tokens=64), tiny_bert, SHAPE)
    with pytest.raises(UserError, match=r"at most 64 word pieces. Received --text.max-tokens 65 .*: 65 together"):
        build_text_tower(replace(branches=("bert",), max_tokens=65), tiny_bert, SHAPE)
    with pytest.raises(UserError, match="96 together"):
        build_text_tower(replace(branches=("bert",), **{**CONTEXT, "context_tokens": 64}), tiny_bert, SHAPE)


def test_a_frozen_tower_has_no_trainable_weight(tiny_bert):
    tower = build_text_tower(replace(init="run", train_tower=False), tiny_bert, SHAPE)
    assert tower.trainable_weights == [] and tower.pretrained == () and tower.weights
