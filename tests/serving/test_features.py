"""Features of towers and layers, with the ids of their utterances."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from emotion_tf.data import pipeline
from emotion_tf.data.dataset import Dataset
from emotion_tf.errors import UserError
from emotion_tf.models.layers import HasMoreThan
from emotion_tf.models.tower import Tower, fusion_inputs
from emotion_tf.models.two_tower import TwoTower
from emotion_tf.runs.run import Run
from emotion_tf.serving import features
from emotion_tf.training.evaluate import evaluate


@pytest.fixture(scope="module")
def run(untrained):
    """A run without BERT."""
    return Run(untrained)


@pytest.fixture
def ask(run, dataset, tmp_path, monkeypatch):
    """Layer -> what the file holds, beside what the split holds."""
    monkeypatch.setattr(features, "BATCH", 8)  # more than one batch

    def ask(tower, layer="", split="test", run=run):
        out = tmp_path / "x.npz"
        data = Dataset.open(dataset)
        shape = features.write_features(run, data, split, tower, layer, out)
        with np.load(out, allow_pickle=False) as file:
            found = dict(file)
        rows = list(pipeline.read_rows(data.rows(split)))
        assert found["features"].shape == shape and found["labels"].tolist() == list(run.labels)
        return found, rows

    return ask


def test_logits_in_the_order_of_the_split(ask, run, dataset):
    found, rows = ask("fusion", "logits")
    probabilities = evaluate(run, Dataset.open(dataset), "test").probabilities
    np.testing.assert_allclose(np.asarray(tf.nn.softmax(found["features"])), probabilities, atol=1e-5)
    for name in features.IDS:
        assert found[name].tolist() == [row[name] for row in rows]
    np.testing.assert_array_equal(ask("fusion")[0]["features"], found["features"])


@pytest.mark.slow
def test_an_embedding_gives_the_logits_when_the_head_is_applied(ask, run):
    text, face, logits = ask("text")[0], ask("face")[0], ask("fusion", "logits")[0]
    x = np.concatenate([text["features"], face["features"]], axis=1)
    fusion = run.model.fusion.layers
    for layer in fusion[[one.name for one in fusion].index("fusion_concat") + 1 :]:
        x = layer(x)
    np.testing.assert_allclose(np.asarray(x), logits["features"], atol=1e-5)


def test_a_layer_along_the_tokens_is_padded_to_the_longest(ask, untrained_bert):
    found, _ = ask("text", "bert/sequence_output", run=untrained_bert)
    pooled = ask("text", "bert/pooled_output", run=untrained_bert)[0]["features"]
    assert found["features"].ndim == 3 and found["features"].shape[0] == len(pooled) and pooled.ndim == 2


def test_a_layer_of_single_crops_gives_one_row_a_crop(ask):
    found, rows = ask("face", "cnn")
    wanted = [(row["utterance_id"], frame) for row in rows for frame in range(row["faces"])]
    assert list(zip(found["utterance_id"].tolist(), found["frame"].tolist(), strict=True)) == wanted
    assert len({row["faces"] for row in rows}) > 1 and len(wanted) != len(rows)
    sequence, _ = ask("face", "cnn_crops")
    by_row = [values[: row["faces"]] for values, row in zip(sequence["features"], rows, strict=True)]
    np.testing.assert_allclose(found["features"], np.concatenate(by_row), atol=1e-6)


def made_of(modality, trunk, **outputs):
    """A model of one tower: its trunk `net`, whose output is the embedding, then logits."""
    feature, mask = keras.Input((3,), name="net"), keras.Input((None,), dtype="int32", name="word_ids")
    named = {"embedding": feature, "present": HasMoreThan(0)(mask)} | {k: f(feature) for k, f in outputs.items()}
    tower = Tower({"net": trunk}, keras.Model({"net": feature, "word_ids": mask}, named), "word_ids", name="tower")
    joined = {k: keras.Input(x.shape[1:], name=k) for k, x in fusion_inputs(modality, named).items()}
    logits = keras.layers.Dense(2, name="logits")(joined[f"{modality}_embedding"])
    return TwoTower({modality: tower}, keras.Model(joined, logits))


GIVEN = {"x": np.ones((5, 4), np.float32), "word_ids": np.ones((5, 1), np.int32)}


@pytest.fixture
def network():
    """As a Keras Application is: a model that is a layer, called on another input than its own."""
    start = keras.Input((4,))
    a = keras.layers.Dense(3, name="a")(start)
    return keras.Model(start, keras.layers.ReLU(name="b")(a), name="net")


@pytest.fixture
def trunk(network):
    inputs = {"x": keras.Input((4,), name="x")}
    return keras.Model(inputs, network(keras.layers.Rescaling(2.0, name="twice")(inputs["x"])))


def test_a_layer_inside_a_network(network, trunk):
    model = made_of("face", trunk)
    expected = 2 * GIVEN["x"] @ np.asarray(network.get_layer("a").kernel)
    for layer, values in {"net/a": expected, "net": np.maximum(expected, 0), "twice": 2 * GIVEN["x"]}.items():
        function, by_crop = features.layer_function(model, "face", layer)
        for run in (function, tf.function(function)):  # of which the second computes no more than it must
            np.testing.assert_allclose(np.asarray(run(GIVEN)), values, rtol=1e-5)
        assert not by_crop
    with pytest.raises(UserError, match="No layer 'c'. Expected one of: a, b"):
        features.layer_function(model, "face", "net/c")


def test_a_tower_that_gives_its_sequences_too(trunk):
    model = made_of("text", trunk, sequence_0=keras.layers.Rescaling(3.0))
    function, _ = features.layer_function(model, "text", "")
    np.testing.assert_array_equal(np.asarray(function(GIVEN)), np.asarray(trunk({"x": GIVEN["x"]})))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tower", "txt"], ["No tower 'txt'", "text, face, fusion", "Did you mean 'text'?"]),
        (["--tower", "text", "--layer", "gruu"], ["No layer 'gruu'", "Did you mean 'gru'?", "bert"]),
        (["--tower", "text", "--layer", "bert"], ["No output of bert ''", "sequence_output", "pooled_output"]),
        (["--tower", "text", "--layer", "gru/x"], ["No output of gru 'x'", "pooled, sequence"]),
        (["--tower", "text", "--layer", "text_present/x"], ["text_present has no inner layers"]),
        (["--split", "tset"], ["No split 'tset'"]),
    ],
)
def test_wrong_words_are_one_line_and_leave_no_file(fault, untrained_bert, dataset, tmp_path, words, said):
    message = fault("features", untrained_bert.path, dataset, "--out", tmp_path / "x.npz", *words)
    assert all(part in message for part in said), message
    assert not list(tmp_path.glob("*.npz*"))


def test_the_verb(succeed, fault, untrained, dataset, tmp_path):
    out = tmp_path / "x.npz"
    assert f"of dev: {out}" in succeed(
        "features", untrained, dataset, "--out", out, "--tower", "text", "--split", "dev"
    )
    assert "exists" in fault("features", untrained, dataset, "--out", out)
    assert "ends in .npz" in fault("features", untrained, dataset, "--out", tmp_path / "x.csv")
