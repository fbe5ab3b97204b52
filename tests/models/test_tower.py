"""A tower of trunks and a head: its inputs and outputs, trunks that do not run, its layers, saving."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from emotion_tf.errors import UserError
from emotion_tf.models.activations import intercept
from emotion_tf.models.tower import Tower, fusion_inputs, tower_outputs

RNG = np.random.default_rng(0)
INPUTS = {"a": tf.ones((2, 3)), "b": tf.constant(RNG.normal(size=(2, 4)), tf.float32), "mask": tf.eye(2, 5)}


def trunk(name, width, deep=False):
    """One dense layer over a raw input; or a network that is a layer itself."""
    x = keras.Input((width,), name=name)
    layer = keras.layers.Dense(2, name=f"{name}_dense")
    if deep:
        layer = keras.Sequential([keras.Input((width,)), layer], name=f"{name}_network")
    return keras.Model({name: x}, layer(x), name=f"{name}_trunk")


def head():
    features = {name: keras.Input((2,), name=name) for name in ("first", "second")}
    mask = keras.Input((5,), name="mask")
    embedding = keras.layers.Concatenate(name="join")(list(features.values()))
    present = keras.layers.GlobalMaxPooling1D(name="largest")(keras.layers.Reshape((5, 1))(mask))
    outputs = {"embedding": keras.layers.Dense(4, name="out")(embedding), "present": present}
    return keras.Model({**features, "mask": mask}, outputs, name="head")


@pytest.fixture(scope="module")
def tower():
    return Tower({"first": trunk("a", 3, deep=True), "second": trunk("b", 4)}, head(), "mask", name="some_tower")


def arrays(outputs):
    return {name: np.asarray(value) for name, value in outputs.items()}


def test_inputs_and_outputs_of_a_tower(tower):
    assert set(tower.input) == {"a", "b", "mask"} and tower.steps == "mask" and tower.pretrained == ()
    outputs = arrays(tower(INPUTS))
    features = {name: tower.trunks[name]({key: INPUTS[key]}) for name, key in (("first", "a"), ("second", "b"))}
    expected = arrays(tower.head({**features, "mask": INPUTS["mask"]}))
    assert set(outputs) == {"embedding", "present"}
    for name in outputs:
        np.testing.assert_array_equal(outputs[name], expected[name])


def test_a_trunk_with_a_given_output_does_not_run_or_need_its_inputs(tower):
    feature = tower.trunks["first"]({"a": INPUTS["a"]})
    rest = {name: INPUTS[name] for name in ("b", "mask")}
    with intercept(tower.find_layer("a_network"), lambda call, *inputs: pytest.fail("the trunk ran")):
        outputs = arrays(tower.connect(rest, {"first": feature}))
    for name, value in arrays(tower.connect(INPUTS)).items():
        np.testing.assert_array_equal(outputs[name], value)
    with pytest.raises(KeyError):
        tower.connect(rest)


def test_layers_by_name_by_class_and_by_path(tower):
    assert set(tower.layers_by_name) >= {"a_network", "b_dense", "join", "out"}
    assert not any(isinstance(layer, keras.layers.InputLayer) for layer in tower.layers_by_name.values())
    assert [layer.name for layer in tower.layers_of(keras.layers.Dense)] == ["b_dense", "out"]
    assert tower.find_layer("a_network/a_dense") is tower.find_layer("a_network").layers[0]
    with pytest.raises(UserError, match="No layer 'b_dens'. Expected one of: .*Did you mean 'b_dense'"):
        tower.find_layer("b_dens")


def test_a_saved_tower_gives_equal_outputs_and_stays_frozen(tower, tmp_path):
    tower.trunks["second"].trainable = False
    try:
        tower.save(tmp_path / "tower.keras")
        loaded = keras.saving.load_model(tmp_path / "tower.keras", compile=False)
    finally:
        tower.trunks["second"].trainable = True
    assert isinstance(loaded, Tower) and loaded.name == "some_tower" and loaded.steps == "mask"
    assert list(loaded.trunks) == ["first", "second"] and loaded.pretrained == ()
    assert loaded.trunks["second"].trainable_weights == [] and len(loaded.trainable_weights) == 4
    for name, value in arrays(tower(INPUTS)).items():
        np.testing.assert_array_equal(loaded(INPUTS)[name], value)


def test_a_saved_tower_that_is_frozen_stays_frozen(tower, tmp_path):
    tower.trainable = False
    try:
        tower.save(tmp_path / "tower.keras")
    finally:
        tower.trainable = True
    loaded = keras.saving.load_model(tmp_path / "tower.keras", compile=False)
    assert loaded.trainable is False and loaded.trainable_weights == [] and len(loaded.weights) == 6


def test_fusion_inputs_and_back():
    outputs = {"embedding": 1, "present": 2, "sequence_0": 3, "mask_0": 4, "sequence_1": 5, "mask_1": 6}
    inputs = fusion_inputs("text", outputs)
    assert inputs == {
        "text_embedding": 1, "text_sequence_0": 3, "text_mask_0": 4, "text_sequence_1": 5, "text_mask_1": 6,
    }  # fmt: skip
    all_inputs = {**inputs, **fusion_inputs("face", {"embedding": 7, "present": 8})}
    assert tower_outputs("text", all_inputs) == (1, [(3, 4), (5, 6)])
    assert tower_outputs("face", all_inputs) == (7, [])
