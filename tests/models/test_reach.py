"""Reaching the layers inside a model."""

import keras
import numpy as np
import pytest

from emotion_tf.errors import UserError
from emotion_tf.models.reach import inner_layer, layer_model, part_of_model, tapped
from emotion_tf.training.run_folder import RunFolder


@pytest.fixture(scope="module")
def nested():
    """A layer inside a network inside a model."""
    x = keras.Input((4,))
    network = keras.Model(x, keras.layers.Dense(3, name="deep")(keras.layers.Dense(4, name="first")(x)), name="network")
    y = keras.Input((4,))
    return keras.Model(y, keras.layers.Dense(2, name="head")(network(y)))


def test_a_tap_sees_and_changes_what_a_layer_passes_on_however_deep_it_lies(nested):
    deep = inner_layer(nested, "network/deep")
    x = np.ones((2, 4), np.float32)
    before, seen = np.asarray(nested(x)), []
    with tapped(deep, lambda call, *inputs: seen.append(call(*inputs)) or seen[0] * 0):
        changed = np.asarray(nested(x))
    assert seen[0].shape == (2, 3) and (changed != before).all()
    np.testing.assert_array_equal(changed, np.asarray(nested.get_layer("head")(np.zeros((2, 3), np.float32))))
    np.testing.assert_array_equal(np.asarray(nested(x)), before)
    np.testing.assert_array_equal(np.asarray(layer_model(nested, "fusion", "network/deep")(x)), np.asarray(seen[0]))


def test_a_tap_is_taken_away_when_what_is_done_with_it_fails(nested):
    deep = inner_layer(nested, "network/deep")
    with pytest.raises(ZeroDivisionError), tapped(deep, lambda call, *inputs: 1 / 0):
        nested(np.ones((2, 4), np.float32))
    assert np.isfinite(np.asarray(nested(np.ones((2, 4), np.float32)))).all()


def test_a_layer_that_is_not_there(nested, untrained):
    with pytest.raises(UserError, match="No layer 'deap'. Expected one of: .*Did you mean 'deep'"):
        inner_layer(nested, "network/deap")
    with pytest.raises(UserError, match="head has no parts"):
        inner_layer(nested, "head/x")
    with pytest.raises(UserError, match="Invalid `--tower`"):
        part_of_model(RunFolder(untrained).model, "txt")
