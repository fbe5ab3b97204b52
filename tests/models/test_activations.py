"""What a layer inside a model returns, and what the model returns when the layer returns something else."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from emotion_tf.config import Config, FaceConfig, TextConfig
from emotion_tf.errors import UserError
from emotion_tf.interpret.gradients import watch
from emotion_tf.models.activations import (
    activation,
    find_layer,
    intercept,
    layers_by_name,
    record,
    replay,
    replay_all,
)
from emotion_tf.models.two_tower import build_model
from emotion_tf.run_info import DataSpec

SPEC = DataSpec(("a", "b", "c"), face_size=16, max_faces=2, lower_case=True, tokenizer="learned", tokenizer_sha256="")
X = np.ones((2, 4), np.float32)


@pytest.fixture(scope="module")
def nested():
    """A layer inside a network inside a model."""
    x = keras.Input((4,))
    network = keras.Model(x, keras.layers.Dense(3, name="deep")(keras.layers.Dense(4, name="first")(x)), name="network")
    y = keras.Input((4,))
    return keras.Model(y, keras.layers.Dense(2, name="last")(network(y)))


@pytest.fixture(scope="module")
def twice():
    """A layer that is called twice, the second time on what it returned, and its model."""
    layer = keras.layers.Dense(4, use_bias=False, name="twice")
    x = keras.Input((4,))
    model = keras.Model(x, layer(layer(x)))
    layer.set_weights([2 * np.eye(4)])
    return model, layer


@pytest.fixture(scope="module")
def two_tower(tiny_bert):
    text = TextConfig(branches=("bert", "gru"), word_dim=4, gru_units=3)
    model = build_model(Config(text=text, face=FaceConfig(cnn_filters=(4,))), SPEC, (10, 4), tiny_bert)
    ids = np.array([[2, 7, 8, 3], [2, 3, 0, 0]], np.int32)
    inputs = {
        "input_word_ids": ids,
        "input_mask": np.sign(ids),
        "input_type_ids": np.zeros_like(ids),
        "word_ids": np.array([[4, 5], [0, 0]], np.int32),
        "faces": np.random.default_rng(0).integers(0, 255, (2, 2, 16, 16, 3)).astype(np.uint8),
        "face_mask": np.array([[True, False], [True, True]]),
    }
    return model, {name: tf.constant(value) for name, value in inputs.items()}


def find(model, path):
    return find_layer(layers_by_name(model), path)


def test_intercept_reads_and_replaces_the_output_of_a_nested_layer(nested):
    deep = find(nested, "network/deep")
    before, outputs = np.asarray(nested(X)), []
    with intercept(deep, lambda call, *inputs: outputs.append(call(*inputs)) or outputs[0] * 0):
        replaced = np.asarray(nested(X))
    assert outputs[0].shape == (2, 3) and (replaced != before).all()
    np.testing.assert_array_equal(replaced, np.asarray(nested.get_layer("last")(np.zeros((2, 3), np.float32))))
    np.testing.assert_array_equal(np.asarray(nested(X)), before)


def test_intercept_restores_the_layer_after_an_error(nested):
    deep = find(nested, "network/deep")
    with pytest.raises(ZeroDivisionError), intercept(deep, lambda call, *inputs: 1 / 0):
        nested(X)
    assert np.isfinite(np.asarray(nested(X))).all() and "call" not in vars(deep)


def test_record_appends_the_output_of_each_call(twice):
    model, layer = twice
    outputs = []
    with record(layer, outputs):
        result = model(X)
    assert [np.asarray(output)[0, 0] for output in outputs] == [2, 4]
    np.testing.assert_array_equal(result, 4 * X)
    model(X)
    assert len(outputs) == 2


def test_replay_returns_one_value_per_call_without_running_the_layer(twice):
    model, layer = twice
    with intercept(layer, lambda call, *inputs: pytest.fail("the layer ran")), replay(layer, [X, 7 * X]):
        np.testing.assert_array_equal(model(X), 7 * X)
    np.testing.assert_array_equal(model(X), 4 * X)


def test_replaying_records_gives_the_outputs_of_the_model(two_tower):
    """Of several layers, in the order of their calls."""
    model, inputs = two_tower
    paths = [("text", "bert"), ("text", "gru"), ("face", "cnn_crops_mean")]
    layers = [model.towers[modality].find_layer(path) for modality, path in paths]
    expected, outputs = model(inputs), []
    for layer in layers:
        recorded = []
        with record(layer, recorded):
            model(inputs)
        outputs += recorded
    assert len(outputs) == 3
    other = {**inputs, **{name: tf.zeros_like(inputs[name]) for name in ("faces", "input_word_ids", "word_ids")}}
    with replay_all(layers, outputs):
        replayed = model(other)
    for name, value in expected.items():
        np.testing.assert_array_equal(replayed[name], value)
    assert (np.asarray(model(other)["logits"]) != np.asarray(expected["logits"])).any()


def test_replay_all_of_a_layer_that_is_called_twice(twice, nested):
    model, layer = twice
    with replay_all([layer, find(nested, "last"), layer], [X, X * 3, X * 5]):
        np.testing.assert_array_equal(model(X), 5 * X)
        np.testing.assert_array_equal(nested(X), 3 * X)
    np.testing.assert_array_equal(model(X), 4 * X)


def test_gradients_with_respect_to_a_watched_output(twice):
    model, layer = twice
    outputs = []
    with tf.GradientTape() as tape, watch(layer, outputs, tape):
        loss = tf.reduce_sum(model(tf.constant(X)))
    first, second = tape.gradient(loss, outputs)
    assert np.asarray(first).tolist() == (2 * X).tolist() and np.asarray(second).tolist() == X.tolist()


def test_a_model_in_a_graph_is_intercepted_when_it_is_traced(nested):
    deep = find(nested, "network/deep")

    @tf.function
    def run(x):
        with intercept(deep, lambda call, *inputs: call(*inputs) * 0):
            return nested(x)

    expected = np.asarray(nested.get_layer("last")(np.zeros((2, 3), np.float32)))
    np.testing.assert_allclose(run(tf.constant(X)), expected, atol=1e-6)
    assert (np.asarray(nested(X)) != expected).all()


def test_interceptions_of_one_layer_nest(twice):
    model, layer = twice
    inner, outer = [], []
    with record(layer, outer):
        with intercept(layer, lambda call, *inputs: inner.append(call(*inputs)) or inner[-1] + 1):
            np.testing.assert_array_equal(model(X), 2 * (2 * X + 1) + 1)
        assert len(inner) == len(outer) == 2
        np.testing.assert_array_equal(model(X), 4 * X)
    assert len(outer) == 4 and "call" not in vars(layer)


def test_layers_by_name_omits_input_layers(nested, twice):
    assert set(layers_by_name(nested, twice[0])) == {"network", "last", "twice"}


def test_an_unknown_layer_is_refused(nested):
    with pytest.raises(UserError, match="No layer 'netwrk'. Expected one of: .*Did you mean 'network'"):
        find(nested, "netwrk")
    with pytest.raises(UserError, match="No layer 'deap'. Expected one of: .*Did you mean 'deep'"):
        find(nested, "network/deap")
    with pytest.raises(UserError, match="last has no inner layers. Expected 'last'. Received: 'last/x'"):
        find(nested, "last/x")


def test_activation_of_a_layer_inside_a_network(nested):
    outputs = []
    with record(find(nested, "network/deep"), outputs):
        nested(X)
    function = activation(nested, layers_by_name(nested), "network/deep")
    np.testing.assert_array_equal(function(X), outputs[0])
    np.testing.assert_allclose(tf.function(function)(tf.constant(X)), outputs[0], atol=1e-6)
    np.testing.assert_array_equal(activation(nested, layers_by_name(nested), "network")(X), outputs[0])


def test_activation_of_a_layer_that_is_called_twice_is_that_of_its_first_call(twice):
    model, _ = twice
    np.testing.assert_array_equal(activation(model, layers_by_name(model), "twice")(X), 2 * X)


def test_activation_of_layers_inside_towers(two_tower):
    model, inputs = two_tower
    layers = model.towers["text"].layers_by_name
    bert = layers["bert"]({name: inputs[name] for name in ("input_word_ids", "input_mask", "input_type_ids")})
    for name in ("pooled_output", "sequence_output"):
        np.testing.assert_allclose(activation(model, layers, f"bert/{name}")(inputs), bert[name], atol=1e-6)
    assert activation(model, layers, "gru/pooled")(inputs).shape == (2, 6)
    assert activation(model, layers, "gru/sequence")(inputs).shape == (2, 2, 6)
    embedding = activation(model, layers, "text_embedding")(inputs)
    np.testing.assert_array_equal(embedding, model(inputs)["text/embedding"])
    crops = activation(model, model.towers["face"].layers_by_name, "cnn_frames")(inputs)
    np.testing.assert_array_equal(crops, inputs["faces"][inputs["face_mask"]])


def test_activation_of_an_unknown_output_is_refused(two_tower):
    model, _ = two_tower
    layers = model.towers["text"].layers_by_name
    for path in ("bert", "bert/pooled"):
        with pytest.raises(UserError, match="No output of bert '.*'. Expected one of: pooled_output, sequence_output"):
            activation(model, layers, path)
    with pytest.raises(UserError, match="No layer 'brt'. Expected one of: .*Did you mean 'bert'"):
        activation(model, layers, "brt/pooled_output")
    with pytest.raises(UserError, match="text_embedding has no inner layers"):
        activation(model, layers, "text_embedding/x")
