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
def write_features(run, dataset, tmp_path, monkeypatch):
    """Writes the features of a layer, and returns the arrays of the file and the rows of the split."""
    monkeypatch.setattr(features, "BATCH", 8)  # more than one batch

    def write(tower, layer="", split="test", run=run):
        out = tmp_path / "x.npz"
        data = Dataset.open(dataset)
        shape = features.write_features(run, data, split, tower, layer, out)
        with np.load(out, allow_pickle=False) as file:
            arrays = dict(file)
        rows = list(pipeline.read_rows(data.rows(split)))
        assert arrays["features"].shape == shape and arrays["labels"].tolist() == list(run.labels)
        return arrays, rows

    return write


def test_logits_in_the_order_of_the_split(write_features, run, dataset):
    arrays, rows = write_features("fusion", "logits")
    probabilities = evaluate(run, Dataset.open(dataset), "test").probabilities
    np.testing.assert_allclose(np.asarray(tf.nn.softmax(arrays["features"])), probabilities, atol=1e-5)
    for name in features.IDS:
        assert arrays[name].tolist() == [row[name] for row in rows]
    np.testing.assert_array_equal(write_features("fusion")[0]["features"], arrays["features"])


@pytest.mark.slow
def test_an_embedding_gives_the_logits_when_the_head_is_applied(write_features, run):
    text, face, logits = write_features("text")[0], write_features("face")[0], write_features("fusion", "logits")[0]
    x = np.concatenate([text["features"], face["features"]], axis=1)
    fusion = run.model.fusion.layers
    for layer in fusion[[layer.name for layer in fusion].index("fusion_concat") + 1 :]:
        x = layer(x)
    np.testing.assert_allclose(np.asarray(x), logits["features"], atol=1e-5)


def test_a_layer_along_the_tokens_is_padded_to_the_longest(write_features, untrained_bert):
    arrays, _ = write_features("text", "bert/sequence_output", run=untrained_bert)
    pooled = write_features("text", "bert/pooled_output", run=untrained_bert)[0]["features"]
    assert arrays["features"].ndim == 3 and arrays["features"].shape[0] == len(pooled) and pooled.ndim == 2


def test_a_layer_of_single_crops_has_one_row_per_crop(write_features):
    arrays, rows = write_features("face", "cnn")
    expected = [(row["utterance_id"], frame) for row in rows for frame in range(row["faces"])]
    assert list(zip(arrays["utterance_id"].tolist(), arrays["frame"].tolist(), strict=True)) == expected
    assert len({row["faces"] for row in rows}) > 1 and len(expected) != len(rows)
    sequence, _ = write_features("face", "cnn_crops")
    by_row = [values[: row["faces"]] for values, row in zip(sequence["features"], rows, strict=True)]
    np.testing.assert_allclose(arrays["features"], np.concatenate(by_row), atol=1e-6)


def build_model(modality, trunk, **outputs):
    """Returns a model of one tower, whose trunk `net` returns the embedding, and logits."""
    feature, mask = keras.Input((3,), name="net"), keras.Input((None,), dtype="int32", name="word_ids")
    named = {"embedding": feature, "present": HasMoreThan(0)(mask)} | {k: f(feature) for k, f in outputs.items()}
    tower = Tower({"net": trunk}, keras.Model({"net": feature, "word_ids": mask}, named), "word_ids", name="tower")
    joined = {k: keras.Input(x.shape[1:], name=k) for k, x in fusion_inputs(modality, named).items()}
    logits = keras.layers.Dense(2, name="logits")(joined[f"{modality}_embedding"])
    return TwoTower({modality: tower}, keras.Model(joined, logits))


INPUTS = {"x": np.ones((5, 4), np.float32), "word_ids": np.ones((5, 1), np.int32)}


@pytest.fixture
def network():
    """A model like a Keras Application: it is a layer, called on another input than its own."""
    start = keras.Input((4,))
    a = keras.layers.Dense(3, name="a")(start)
    return keras.Model(start, keras.layers.ReLU(name="b")(a), name="net")


@pytest.fixture
def trunk(network):
    inputs = {"x": keras.Input((4,), name="x")}
    return keras.Model(inputs, network(keras.layers.Rescaling(2.0, name="twice")(inputs["x"])))


def test_a_layer_inside_a_network(network, trunk):
    model = build_model("face", trunk)
    expected = 2 * INPUTS["x"] @ np.asarray(network.get_layer("a").kernel)
    for layer, values in {"net/a": expected, "net": np.maximum(expected, 0), "twice": 2 * INPUTS["x"]}.items():
        function, by_crop = features.layer_function(model, "face", layer)
        for run in (function, tf.function(function)):  # as a graph, too, which computes only what it needs
            np.testing.assert_allclose(np.asarray(run(INPUTS)), values, rtol=1e-5)
        assert not by_crop
    with pytest.raises(UserError, match="No layer 'c'. Expected one of: a, b"):
        features.layer_function(model, "face", "net/c")


def test_a_tower_that_also_returns_sequences(trunk):
    model = build_model("text", trunk, sequence_0=keras.layers.Rescaling(3.0))
    function, _ = features.layer_function(model, "text", "")
    np.testing.assert_array_equal(np.asarray(function(INPUTS)), np.asarray(trunk({"x": INPUTS["x"]})))


@pytest.fixture
def loaded_once(untrained_bert, monkeypatch):
    """Lets the verb share the model of `untrained_bert`, which it does not change."""
    model = untrained_bert.model
    monkeypatch.setattr("emotion_tf.runs.run.load_keras_file", lambda path: model)


@pytest.mark.usefixtures("loaded_once")
@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--tower", "txt"], ["No tower 'txt'", "text, face, fusion", "Did you mean 'text'?"]),
        (["--tower", "text", "--layer", "gruu"], ["No layer 'gruu'", "Did you mean 'gru'?", "bert"]),
        (["--tower", "text", "--layer", "bert"], ["No output of bert ''", "sequence_output", "pooled_output"]),
        (["--tower", "text", "--layer", "gru/x"], ["No output of gru 'x'", "pooled, sequence"]),
        (["--tower", "text", "--layer", "text_present/x"], ["text_present has no inner layers"]),
        (["--split", "tset"], ["No split 'tset'"]),
    ],
)
def test_invalid_options_are_one_line_and_leave_no_file(fault, untrained_bert, dataset, tmp_path, options, parts):
    message = fault("features", untrained_bert.path, dataset, "--out", tmp_path / "x.npz", *options)
    assert all(part in message for part in parts), message
    assert not list(tmp_path.glob("*.npz*"))


def test_the_verb(succeed, fault, untrained, dataset, tmp_path):
    out = tmp_path / "x.npz"
    assert f"of dev: {out}" in succeed(
        "features", untrained, dataset, "--out", out, "--tower", "text", "--split", "dev"
    )
    assert "exists" in fault("features", untrained, dataset, "--out", out)
    assert "the ending .npz" in fault("features", untrained, dataset, "--out", tmp_path / "x.csv")
