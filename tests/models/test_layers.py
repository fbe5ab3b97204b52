"""The small layers that the towers share, by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from emotion_tf.models.layers import (
    FirstSegmentMask,
    FoldFrames,
    HasMoreThan,
    MaskWherePresent,
    MissingEmbedding,
    ModalityDropout,
    UnfoldFrames,
)

RNG = np.random.default_rng(0)


def test_missing_embedding_by_hand():
    layer = MissingEmbedding()
    values = np.array([[1.0, 2.0], [np.nan, np.inf], [5.0, 6.0]], np.float32)
    layer.build([(None, 2), (None,)])
    assert np.asarray(layer.missing).tolist() == [0, 0] and layer.missing.path.endswith("missing")
    layer.missing.assign([7.0, 8.0])
    for present in ([True, False, True], [1, 0, 1], [3.0, 0.0, 0.5]):
        assert np.asarray(layer([values, np.array(present)])).tolist() == [[1, 2], [7, 8], [5, 6]]
    # a branch that returns no finite number for padding must not spoil what it learns from the other rows
    variable = tf.Variable(values)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer([variable, np.array([True, False, True])]) ** 2)
    to_values, to_missing = tape.gradient(loss, [variable, layer.missing.value])
    assert to_values.numpy().tolist() == [[2, 4], [0, 0], [10, 12]] and to_missing.numpy().tolist() == [14, 16]


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_keeps_the_missing_embedding_in_float32_and_returns_the_dtype_of_the_branch(policy):
    layer = MissingEmbedding(dtype=policy)
    inputs = [tf.ones((2, 3), layer.compute_dtype), tf.constant([True, False])]
    layer.build([(2, 3), (2,)])
    layer.missing.assign([0.5, 0.25, -1.0])
    embedding = layer(inputs)
    assert embedding.dtype == layer.compute_dtype and layer.missing.dtype == "float32"
    assert tf.cast(embedding, tf.float32).numpy().tolist() == [[1, 1, 1], [0.5, 0.25, -1]]


def test_has_more_than_counts_what_is_not_zero():
    ids = np.array([[5, 0, 7, 0], [0, 0, 0, 0], [1, 1, 1, 0]], np.int32)
    assert np.asarray(HasMoreThan(0)(ids)).tolist() == [True, False, True]
    assert np.asarray(HasMoreThan(2)(ids)).tolist() == [False, False, True]
    assert np.asarray(HasMoreThan(0)(ids > 0)).tolist() == [True, False, True]
    assert HasMoreThan.from_config(HasMoreThan(2).get_config()).count == 2


def test_modality_dropout_drops_its_share_in_training_only():
    layer = ModalityDropout(0.25)
    present = np.arange(4000) % 2 == 0
    assert np.asarray(layer(present, training=False)).tolist() == present.tolist()
    dropped = np.asarray(layer(present, training=True))
    assert not dropped[1::2].any() and dropped[::2].mean() == pytest.approx(0.75, abs=0.03)
    again = np.asarray(layer(present, training=True))
    assert (again != dropped).any()
    assert ModalityDropout.from_config(layer.get_config()).rate == 0.25


def test_modality_dropout_of_rate_0_draws_no_random_number():
    layer = ModalityDropout()
    assert layer.variables == [] and np.asarray(layer(np.array([True, False]), training=True)).tolist() == [True, False]


def test_mask_where_present_by_hand():
    mask = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0]])
    masked = MaskWherePresent()([mask, np.array([True, False, True])])
    assert masked.dtype == tf.bool and np.asarray(masked).tolist() == [[True, True, False], [False] * 3, [False] * 3]


def test_first_segment_mask_by_hand():
    mask, types = np.array([[1, 1, 1, 1, 0]], np.int32), np.array([[0, 0, 1, 1, 0]], np.int32)
    first = FirstSegmentMask()([mask, types])
    assert first.dtype == tf.int32 and np.asarray(first).tolist() == [[1, 1, 0, 0, 0]]


def test_frames_are_folded_without_padding_and_unfolded_into_their_places():
    faces = RNG.integers(1, 255, (3, 2, 4, 4, 3)).astype(np.uint8)
    mask = np.array([[False, True], [False, False], [True, True]])
    frames = FoldFrames()([faces, mask])
    np.testing.assert_array_equal(frames, faces[mask])
    vectors = np.asarray(frames, np.float32).mean(axis=(1, 2))
    sequence = np.asarray(UnfoldFrames()([vectors, mask]))
    np.testing.assert_array_equal(sequence[mask], vectors)
    assert not sequence[~mask].any()


def test_a_batch_without_any_crop_is_one_black_picture():
    faces, mask = np.full((2, 3, 4, 4, 3), 255, np.uint8), np.zeros((2, 3), bool)
    frames = np.asarray(FoldFrames()([faces, mask]))
    assert frames.shape == (1, 4, 4, 3) and not frames.any()
    # masked wherever it is read, but a value that is there must be finite
    assert np.asarray(UnfoldFrames()([np.ones((1, 5), np.float32), mask])).shape == (2, 3, 5)


@pytest.mark.parametrize("layer", [HasMoreThan(1), ModalityDropout(0.5), MissingEmbedding(), FoldFrames()])
def test_layers_are_registered(layer):
    name = keras.saving.get_registered_name(type(layer))
    assert name == f"emotion_tf>{type(layer).__name__}"
    assert type(keras.layers.deserialize(keras.layers.serialize(layer))) is type(layer)
