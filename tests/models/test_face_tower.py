"""The face tower: its trunks, crops that are padding, rows without a face."""

import keras
import numpy as np
import pytest

from emotion_tf.config import FaceConfig
from emotion_tf.models.face_tower import build_face_tower

SIZE = 16
RNG = np.random.default_rng(0)


def faces(rows, frames):
    return RNG.integers(0, 255, (rows, frames, SIZE, SIZE, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A small network with positions, as a .keras file."""
    inputs = keras.Input((12, 12, 3))
    x = keras.layers.Conv2D(5, 3, strides=2, name="conv")(inputs)
    path = tmp_path_factory.mktemp("network") / "face.keras"
    keras.Model(inputs, keras.layers.BatchNormalization(name="norm")(x)).save(path)
    return str(path)


@pytest.fixture(scope="module")
def tower():
    """A tower whose missing embedding is not the zero that it starts from."""
    tower = build_face_tower(FaceConfig(cnn_filters=(4, 8)), SIZE)
    vector = tower.find_layer("face_missing").missing
    vector.assign(RNG.normal(size=vector.shape))
    return tower


def test_padding_frames_change_nothing(tower):
    crops = faces(3, 2)
    mask = np.array([[True, False], [True, True], [False, False]])
    outputs = tower.predict({"faces": crops, "face_mask": mask}, verbose=0)
    embedding = outputs["embedding"]
    first = mask[:1, :1]
    alone = tower.predict({"faces": crops[:1, :1], "face_mask": first}, verbose=0)["embedding"]
    np.testing.assert_allclose(embedding[:1], alone, atol=1e-6)
    second = [
        tower.predict({"faces": crops[1:2, i : i + 1], "face_mask": first}, verbose=0)["embedding"] for i in (0, 1)
    ]
    np.testing.assert_allclose(embedding[1], (second[0] + second[1])[0] / 2, atol=1e-6)
    np.testing.assert_array_equal(embedding[2], tower.find_layer("face_missing").missing)
    assert outputs["present"].tolist() == [True, True, False]


def test_a_batch_without_any_face_trains_to_finite_weights(tower):
    model = keras.Model(tower.input, keras.layers.Dense(3)(tower.output["embedding"]))
    model.compile("sgd", "mse", run_eagerly=True, jit_compile=False)
    inputs = {"faces": np.zeros((2, 1, SIZE, SIZE, 3), np.uint8), "face_mask": np.zeros((2, 1), bool)}
    model.train_on_batch(inputs, np.zeros((2, 3)))
    assert all(np.isfinite(weights).all() for weights in model.get_weights())


def test_each_branch_is_a_trunk_and_branches_are_concatenated(network):
    config = FaceConfig(branches=("encoder", "cnn"), encoder=network, cnn_filters=(4,), frames="max", dropout=0.0)
    tower = build_face_tower(config, SIZE, files={"encoder": network})
    assert list(tower.trunks) == ["encoder", "cnn"] and tower.steps == "face_mask" and tower.name == "face_tower"
    inputs = {"faces": faces(2, 3), "face_mask": np.array([[True, True, False], [True, False, False]])}
    parts = [np.asarray(trunk(inputs)) for trunk in tower.trunks.values()]
    assert [part.shape for part in parts] == [(2, 5), (2, 16)]
    np.testing.assert_allclose(tower(inputs)["embedding"], np.concatenate(parts, axis=1), atol=1e-6)


@pytest.mark.parametrize(
    ("frames", "sequences", "shape", "width"),
    [
        ("mean", False, (None, 5), 5),
        ("max", False, (None, 5), 5),
        ("attention", False, (None, None, 5), 5),
        ("gru", False, (None, None, 5), 4),
        ("mean", True, (None, None, 5), 5),
    ],
)
def test_a_trunk_outputs_the_pooled_vector_unless_a_trained_layer_reads_the_crops(
    network, frames, sequences, shape, width
):
    config = FaceConfig(branches=("encoder",), encoder=network, train_backbone=False, frames=frames)
    tower = build_face_tower(config, SIZE, files={"encoder": network}, sequences=sequences)
    (trunk,) = tower.trunks.values()
    assert trunk.output.shape == shape and trunk.trainable_weights == []
    names = {"embedding", "present", "sequence_0", "mask_0"} if sequences else {"embedding", "present"}
    assert set(tower.output) == names and tower.output["embedding"].shape == (None, width)


@pytest.mark.parametrize("frames", ["mean", "max", "attention"])
def test_pooling_in_the_trunk_equals_pooling_in_the_head(network, frames):
    """A fusion that reads the sequence of the crops moves the pooling from the trunks to the head, and no number."""
    config = FaceConfig(branches=("encoder", "cnn"), encoder=network, cnn_filters=(4,), frames=frames, dropout=0.0)
    towers = [
        build_face_tower(config, SIZE, files={"encoder": network}, sequences=sequences) for sequences in (False, True)
    ]
    towers[1].set_weights(towers[0].get_weights())
    inputs = {"faces": faces(3, 3), "face_mask": np.arange(3) < np.array([3, 1, 0])[:, None]}
    outputs = [tower(inputs) for tower in towers]
    np.testing.assert_allclose(outputs[1]["embedding"], outputs[0]["embedding"], atol=1e-5)
    np.testing.assert_array_equal(outputs[1]["mask_0"], inputs["face_mask"])
    assert outputs[1]["sequence_0"].shape == (3, 3, 5 + 16)


def test_a_frozen_tower_has_no_trainable_weight(network):
    config = FaceConfig(branches=("encoder", "cnn"), encoder=network, cnn_filters=(4,), init="run", train_tower=False)
    tower = build_face_tower(config, SIZE, files={"encoder": network})
    assert tower.trainable_weights == [] and tower.pretrained == () and tower.weights
