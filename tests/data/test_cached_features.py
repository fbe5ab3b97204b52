"""Features that stay on disk: the rows of any batch, of one value or of several steps, over several shards."""

import numpy as np
import pytest
import tensorflow as tf

from emotion_tf.arrays import StoredArray, open_arrays
from emotion_tf.data.batches import Batches
from emotion_tf.data.cached_features import CachedFeatures, Column
from emotion_tf.errors import UserError

STEPS = ([2, 0, 3], [1, 4])
LABELS = np.arange(5), np.ones(5, np.float32), np.arange(5)


@pytest.fixture
def cached(tmp_path):
    """Features of two shards, of three and two utterances."""
    columns = {"pooled": [], "tokens": []}
    for shard, steps in enumerate(STEPS):
        pooled = 10 * shard + np.arange(2 * len(steps), dtype=np.float32).reshape(-1, 2)
        tokens = 100 * shard + np.arange(2 * sum(steps), dtype=np.float32).reshape(-1, 2)
        np.savez(tmp_path / f"{shard}.npz", pooled=pooled, tokens=tokens)
        with open_arrays(tmp_path / f"{shard}.npz", "Remove it.") as arrays:
            columns["pooled"].append(Column(arrays.find("pooled")))
            columns["tokens"].append(Column(arrays.find("tokens"), np.array(steps)))
    return CachedFeatures(columns, *LABELS)


def test_rows_of_several_shards_in_any_order(cached):
    inputs = {name: values.numpy() for name, values in cached.inputs(tf.constant([4, 0, 2, 0], tf.int64)).items()}
    np.testing.assert_array_equal(inputs["pooled"], [[12, 13], [0, 1], [4, 5], [0, 1]])
    np.testing.assert_array_equal(
        inputs["tokens"][:, :, 0], [[102, 104, 106, 108], [0, 2, 0, 0], [4, 6, 8, 0], [0, 2, 0, 0]]
    )
    empty = cached.inputs(tf.constant([1], tf.int64))["tokens"]
    assert empty.shape == (1, 1, 2) and not empty.numpy().any()  # one step at least
    none = {name: values.shape for name, values in cached.inputs(tf.constant([], tf.int64)).items()}
    assert none == {"pooled": (0, 2), "tokens": (0, 1, 2)}


def test_features_are_not_held(cached):
    assert all(isinstance(part.values, StoredArray) for parts in cached._columns.values() for part in parts)


def test_shapes_in_a_data_set_and_a_file_that_is_gone(cached, tmp_path):
    data = tf.data.Dataset.from_tensor_slices(np.arange(5)).batch(2).map(cached.inputs)
    assert data.element_spec["pooled"].shape.as_list() == [None, 2]
    assert data.element_spec["tokens"].shape.as_list() == [None, None, 2]
    assert len(list(Batches(data, ()))) == 3
    (tmp_path / "1.npz").unlink()
    with pytest.raises(UserError, match="1.npz has changed while it was used"):
        list(Batches(data, ()))
