"""The branches that read words: by formula, and padding has no influence."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import ops_of, pretend_gpu

from emotion_tf.config import CHOICES, TextConfig
from emotion_tf.models.text_tower import build_text_tower
from emotion_tf.models.word_branches import BRANCHES, RecurrentBranch, WordBranches, WordReplacement

CONFIG = TextConfig(
    branches=("gru", "lstm", "cnn"), word_dim=4, gru_units=3, lstm_units=2, cnn_filters=5, cnn_widths=(1, 2, 4)
)
SHAPE = (10, 4)
IDS = np.array([[3, 4, 5, 6], [7, 8, 0, 0], [9, 0, 0, 0], [0, 0, 0, 0]], np.int32)
WIDTHS = {"gru": 6, "lstm": 4, "cnn": 15}


@pytest.fixture(scope="module")
def branches():
    """All branches on one input: name -> (pooled, sequence, mask)."""
    ids = keras.Input((None,), dtype="int32")
    word_branches = WordBranches(CONFIG, SHAPE)
    model = keras.Model(ids, {name: list(read) for name, read in zip(CONFIG.branches, word_branches(ids), strict=True)})
    return lambda ids: {name: [np.asarray(x) for x in read] for name, read in model(ids).items()}, model, word_branches


def test_every_branch_of_the_configuration_exists():
    assert {"bert", *BRANCHES} == set(CHOICES["text.branches"])


def test_shapes_and_zeros_at_padding(branches):
    for name, (pooled, sequence, mask) in branches[0](IDS).items():
        assert pooled.shape == (4, WIDTHS[name]) and sequence.shape == (4, 4, WIDTHS[name])
        assert mask.tolist() == (IDS != 0).tolist() and not sequence[IDS == 0].any()
        assert not pooled[3].any() and pooled[:3].any(axis=1).all()


def test_padding_of_any_length_changes_nothing(branches):
    whole = branches[0](np.pad(IDS, [(0, 0), (0, 7)]))
    for name, (pooled, sequence, _) in branches[0](IDS).items():
        np.testing.assert_allclose(whole[name][0], pooled, atol=1e-6)
        np.testing.assert_allclose(whole[name][1][:, :4], sequence, atol=1e-6)
    alone = branches[0](IDS[2:3, :1])  # one word: shorter than the widest filter
    for name, (pooled, _, _) in branches[0](IDS).items():
        np.testing.assert_allclose(alone[name][0][0], pooled[2], atol=1e-6)


def test_convolutions_by_formula(branches):
    run, _, word_branches = branches
    table = np.asarray(word_branches.embedding.embeddings)
    for row, (pooled, _, _) in zip(IDS[:3], zip(*run(IDS)["cnn"], strict=True), strict=False):
        words = table[row[row != 0]]
        expected = []
        for convolution in word_branches.branches[2].convolutions:
            kernel, bias = np.asarray(convolution.kernel), np.asarray(convolution.bias)
            width = len(kernel)
            padded = np.pad(words, [((width - 1) // 2, width - 1 - (width - 1) // 2), (0, 0)])
            values = [np.einsum("we,wef->f", padded[i : i + width], kernel) + bias for i in range(len(words))]
            expected.append(np.maximum(values, 0).max(axis=0))
        np.testing.assert_allclose(pooled, np.concatenate(expected), atol=1e-5)


def test_last_states_are_those_of_the_layer_without_padding(branches):
    run, _, word_branches = branches
    table = np.asarray(word_branches.embedding.embeddings)
    for i, name in enumerate(("gru", "lstm")):
        *_, layer = [word_branches.branches[i].both]
        for row, pooled in zip(IDS[:3], run(IDS)[name][0], strict=False):
            sequence, *states = layer(table[row[row != 0]][None])
            first = np.concatenate([states[0][0], states[len(states) // 2][0]])
            np.testing.assert_allclose(pooled, first, atol=1e-6)
            units = pooled.shape[0] // 2
            ends = np.concatenate([sequence[0, -1, :units], sequence[0, 0, units:]])
            np.testing.assert_allclose(pooled, ends, atol=1e-6)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_on_a_gpu_cudnn_trains_with_rows_of_padding_alone_and_does_not_infer(cell):
    """cuDNN is not here: its op and the condition that Keras asserts of the mask are read from the graph."""
    layer = RecurrentBranch(cell, 3)
    layer.build([(None, None, 4), (None, None)])
    inputs = [tf.TensorSpec((None, None, 4)), tf.TensorSpec((None, None), tf.bool)]

    def trace(training):
        with pretend_gpu():
            call = lambda embedded, mask: layer([embedded, mask], training=training)  # noqa: E731
            return tf.compat.v1.wrap_function(call, inputs)

    inference, training = trace(False), trace(True)
    assert not any("Cudnn" in op for op in ops_of(inference.graph.as_graph_def()))
    assert "CudnnRNNV3" in ops_of(training.graph.as_graph_def())
    conditions = [op.inputs[0] for op in training.graph.get_operations() if op.type == "Assert"]
    assert len(conditions) == 2
    is_valid = training.prune(training.inputs[:2], conditions)
    assert all(is_valid(tf.zeros((4, 4, 4)), tf.constant(IDS != 0)))
    assert not any(is_valid(tf.zeros((4, 4, 4)), tf.constant(IDS[:, ::-1] != 0)))


@pytest.mark.parametrize("training", [False, True])
def test_a_row_of_padding_alone_is_zero_and_gives_the_embedding_no_gradient(branches, training):
    _, model, word_branches = branches
    with tf.GradientTape() as tape:
        last = [values[3] for outputs in model(IDS, training=training).values() for values in outputs[:2]]
        loss = sum(tf.reduce_sum(values**2) for values in last)
    assert float(loss) == 0
    assert not np.asarray(tf.convert_to_tensor(tape.gradient(loss, word_branches.embedding.embeddings.value))).any()


def test_context_is_read_by_the_same_branches_and_is_zero_when_absent():
    tower = build_text_tower(TextConfig(**{**vars(CONFIG), "context": 2, "dropout": 0.0}), None, SHAPE)
    without = build_text_tower(TextConfig(**{**vars(CONFIG), "dropout": 0.0}), None, SHAPE)
    assert [w.shape for w in without.weights[:-1]] == [w.shape for w in tower.weights[:-1]]
    without.set_weights([*tower.get_weights()[:-1], np.zeros(25)])
    read = lambda ids, context: np.asarray(tower({"word_ids": ids, "context_word_ids": context})["embedding"])  # noqa: E731
    none = np.zeros((4, 1), np.int32)
    alone = np.asarray(without({"word_ids": IDS})["embedding"])
    np.testing.assert_allclose(read(IDS, none)[:3], np.concatenate([alone, np.zeros((4, 25))], axis=1)[:3], atol=1e-6)
    # only what was said around it: no longer the vector for an absent text
    vector = tower.find_layer("text_missing").missing
    vector.assign(np.ones(50))
    assert (read(IDS, none)[3] == 1).all() and not (read(IDS, IDS[:1].repeat(4, 0))[3] == 1).all()
    np.testing.assert_allclose(read(IDS, IDS)[:3, 25:], alone[:3], atol=1e-6)


def test_every_weight_learns_and_a_saved_tower_gives_the_same(branches, tmp_path):
    run, model, _ = branches
    with tf.GradientTape() as tape:
        loss = sum(tf.reduce_sum(pooled**2) for pooled, _, _ in model(IDS).values())
    gradients = tape.gradient(loss, model.trainable_weights)
    assert all(np.asarray(tf.convert_to_tensor(g)).any() for g in gradients)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras", compile=False)(IDS)
    for name, (pooled, _, _) in run(IDS).items():
        np.testing.assert_array_equal(loaded[name][0], pooled)


def test_rare_words_become_unknown_in_training_alone():
    """With probability 0.25 / (0.25 + n); padding and the unknown word stay."""
    layer = WordReplacement([1000, 3, 2, 1])
    ids = np.arange(6, dtype=np.int32)[None].repeat(10_000, 0)
    np.testing.assert_array_equal(layer(ids, training=False), ids)
    first, second = (np.asarray(layer(ids, training=True)) for _ in range(2))
    assert first.dtype == np.int32 and (first != second).any() and ((first == ids) | (first == 1)).all()
    shares = (first != ids).mean(axis=0)
    np.testing.assert_allclose(shares, [0, 0, 0.00025, 1 / 13, 1 / 9, 0.2], atol=0.02)
    assert shares[0] == shares[1] == 0 and shares[2] < 0.002
    assert WordReplacement.from_config(layer.get_config()).rates.tolist() == layer.rates.tolist()
    assert WordReplacement().variables == []


@pytest.mark.parametrize("frequencies", [(), (1,) * 8])
def test_the_unknown_word_learns_without_an_unknown_word_in_the_training_split(frequencies):
    ids = keras.Input((None,), dtype="int32")
    word_branches = WordBranches(CONFIG, SHAPE, frequencies)
    model = keras.Model(ids, [outputs.pooled for outputs in word_branches(ids)])
    with tf.GradientTape() as tape:
        loss = sum(tf.reduce_sum(pooled**2) for pooled in model(np.repeat(IDS, 16, axis=0), training=True))
    gradient = np.asarray(tf.convert_to_tensor(tape.gradient(loss, word_branches.embedding.embeddings.value)))
    assert gradient[3:].any(axis=1).all() and gradient[1].any() == bool(frequencies) and not gradient[0].any()


@pytest.mark.parametrize("frozen", ["embedding", "tower", "phase"])
def test_frozen_words_stay_in_training(frozen):
    """A random unknown word would never learn, and the tower of another run would get noise that it was trained on."""
    options = {
        "embedding": {"embeddings": "x.txt", "train_embeddings": False},
        "tower": {"init": "run", "train_tower": False},
        "phase": {"init": "run"},
    }
    config = TextConfig(branches=("gru",), word_dim=4, gru_units=3, dropout=0.0, **options[frozen])
    tower = build_text_tower(config, None, SHAPE, frequencies=(1,) * 8)
    if frozen == "phase":
        for layer in tower.pretrained:
            layer.set_trainable(False)
    inputs = {"word_ids": np.arange(2, 10, dtype=np.int32)[None].repeat(1000, 0)}
    trained, inferred = (np.asarray(tower(inputs, training=training)["embedding"]) for training in (True, False))
    np.testing.assert_allclose(trained, inferred, atol=1e-6)


def test_frozen_word_embeddings():
    config = TextConfig(branches=("lstm",), word_dim=4, embeddings="x.txt", train_embeddings=False)
    tower = build_text_tower(config, None, SHAPE)
    assert [w.path for w in tower.non_trainable_weights] == ["word_embedding/embeddings"]


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_a_recurrent_branch_states_the_specs_of_its_outputs(monkeypatch, cell, policy):
    """So that Keras traces no loop when a model is built or opened."""
    branch = RecurrentBranch(cell, 3, dtype=policy)
    inputs = [keras.Input((None, 4), dtype=branch.compute_dtype), keras.Input((None,), dtype="bool")]
    with monkeypatch.context() as patch:
        patch.setattr(RecurrentBranch, "call", None)
        specs = branch(inputs)
    outputs = branch([np.ones((2, 5, 4), np.float32), np.ones((2, 5), bool)])
    assert [spec.shape for spec in specs] == [(None, 6), (None, None, 6)]
    assert [tuple(output.shape) for output in outputs] == [(2, 6), (2, 5, 6)]
    assert [spec.dtype for spec in specs] == [output.dtype.name for output in outputs]
