"""BERT as a tf.Module: its interface, its formulas and its dropout."""

import numpy as np
import pytest
import tensorflow as tf

from emotion_tf.models import bert_module
from emotion_tf.models.bert_module import BertConfig, BertModule

CONFIG = BertConfig(vocab_size=20, hidden=16, layers=2, heads=2, intermediate=32, positions=12, dropout=0.5)


def batch(rows=3, length=7):
    ids = np.random.default_rng(0).integers(1, 20, (rows, length)).astype(np.int32)
    return {k: tf.constant(v) for k, v in zip(bert_module.INPUT_NAMES, (ids, np.ones_like(ids), ids % 2), strict=True)}


@pytest.fixture(scope="module")
def vocab(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    path.write_text("".join(f"w{n}\n" for n in range(20)))
    return path


@pytest.fixture(scope="module")
def module(vocab):
    return BertModule(CONFIG, vocab, seed=1)


@pytest.fixture(scope="module")
def loaded(module, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "bert"
    bert_module.save_bert(module, path)
    return tf.saved_model.load(str(path))


def test_saved_module_has_the_hub_interface(module, loaded):
    names = {v.name for v in loaded.trainable_variables}
    assert len(loaded.trainable_variables) == len(CONFIG.shapes()) == len(module.trainable_variables)
    assert len(loaded.variables) == len(loaded.trainable_variables) + 3
    assert "layer_1/attention/qkv/kernel:0" in names and "dropout_counter:0" not in names
    assert bool(loaded.do_lower_case) is True
    assert loaded.vocab_file.asset_path.numpy().endswith(b"vocab.txt")


@pytest.mark.parametrize(("rows", "length"), [(1, 1), (3, 7), (2, 12)])
def test_outputs_are_those_of_the_module_at_any_size(module, loaded, rows, length):
    inputs = batch(rows, length)
    ours, theirs = module(inputs, training=False), loaded(inputs, training=False)
    assert theirs["pooled_output"].shape == (rows, 16) and theirs["sequence_output"].shape == (rows, length, 16)
    assert len(theirs["encoder_outputs"]) == 2
    assert theirs["attention"].shape == (2, rows, length, length)
    np.testing.assert_allclose(theirs["attention"].numpy().sum(axis=-1), 1, atol=1e-5)
    np.testing.assert_array_equal(theirs["encoder_outputs"][-1], theirs["sequence_output"])
    np.testing.assert_allclose(ours["pooled_output"], theirs["pooled_output"], atol=1e-6)


def test_padding_changes_nothing(loaded):
    short = batch(2, 4)
    padded = {k: tf.pad(v, [[0, 0], [0, 3]]) for k, v in short.items()}
    a, b = (loaded(x, training=False)["sequence_output"][:, :4] for x in (short, padded))
    np.testing.assert_allclose(a, b, atol=1e-6)


def test_forward_pass_equals_the_formulas_in_numpy(module):
    """The whole encoder again in NumPy, head by head, without any trick."""
    w = {k: v.numpy().astype(np.float64) for k, v in module.weights.items()}
    erf = np.vectorize(__import__("math").erf)
    inputs = {k: v.numpy() for k, v in batch(1, 5).items()}
    inputs["input_mask"][0, 4] = 0

    def norm(x, name):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return x * w[f"{name}/gamma"] + w[f"{name}/beta"]

    def dense(x, name):
        return x @ w[f"{name}/kernel"] + w[f"{name}/bias"]

    x = w["embeddings/word"][inputs["input_word_ids"][0]] + w["embeddings/type"][inputs["input_type_ids"][0]]
    x = norm(x + w["embeddings/position"][:5], "embeddings/norm")
    for n in range(2):
        q, k, v = np.split(dense(x, f"layer_{n}/attention/qkv"), 3, -1)
        heads = []
        for h in (slice(0, 8), slice(8, 16)):
            e = np.exp(q[:, h] @ k[:, h].T / np.sqrt(8)) * inputs["input_mask"]
            heads.append(e / e.sum(-1, keepdims=True) @ v[:, h])
        attended = dense(np.concatenate(heads, -1), f"layer_{n}/attention/output")
        x = norm(x + attended, f"layer_{n}/attention/norm")
        inner = dense(x, f"layer_{n}/feed_forward/in")
        inner = inner * 0.5 * (1 + erf(inner / np.sqrt(2)))
        x = norm(x + dense(inner, f"layer_{n}/feed_forward/out"), f"layer_{n}/feed_forward/norm")
    outputs = module({k: tf.constant(v) for k, v in inputs.items()}, training=False)
    np.testing.assert_allclose(outputs["sequence_output"][0], x, atol=1e-5)
    np.testing.assert_allclose(outputs["pooled_output"][0], np.tanh(dense(x[0], "pooler")), atol=1e-5)


def test_dropout_is_a_function_of_seed_and_counter(loaded):
    def run():
        return loaded(batch(), training=True)["sequence_output"].numpy()

    loaded.dropout_counter.assign(5)
    first, second = run(), run()
    assert int(loaded.dropout_counter) == 7 and not np.array_equal(first, second)
    loaded.dropout_counter.assign(5)
    np.testing.assert_array_equal(run(), first)
    loaded.dropout_counter.assign(5)
    loaded.dropout_seed.assign_add(1)
    assert not np.array_equal(run(), first)
    before = int(loaded.dropout_counter)
    loaded(batch(), training=False)
    assert int(loaded.dropout_counter) == before


def test_dropout_rate(module):
    module.dropout_counter.assign(0)
    drop = bert_module._Dropout(module, True)
    values = np.concatenate([drop(tf.ones(20000)).numpy() for _ in range(2)])
    assert set(np.unique(values)) == {0.0, 2.0} and abs(values.mean() - 1.0) < 0.02
    assert not np.array_equal(values[:20000], values[20000:])


def test_every_weight_gets_a_gradient(module):
    with tf.GradientTape() as tape:
        out = module(batch(), training=True)
        loss = tf.reduce_sum(out["pooled_output"] ** 2) + tf.reduce_sum(out["sequence_output"] ** 3)
    gradients = tape.gradient(loss, module.trainable_variables)
    assert all(g is not None for g in gradients)


def test_bad_sizes_are_refused(vocab):
    with pytest.raises(ValueError, match="multiple"):
        BertConfig(hidden=10, heads=3)
    with pytest.raises(ValueError, match="dropout"):
        BertConfig(dropout=1.0)
    with pytest.raises(ValueError, match="20 entries"):
        BertModule(BertConfig(vocab_size=21, hidden=16, heads=2), vocab)
    with pytest.raises(ValueError, match="embeddings/word"):
        BertModule(CONFIG, vocab, weights={})
