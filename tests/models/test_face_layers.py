"""Face networks learn from real crops alone, also their batch norm; a batch without a face changes nothing."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from emotion_tf.config import FaceConfig
from emotion_tf.models.face_layers import FaceBatchNormalization, FaceCount, count_faces
from emotion_tf.models.face_tower import build_face_tower

RNG = np.random.default_rng(0)
SIZE = 16


class ModuleWithBatchNorm(tf.Module):
    """TF-Hub's image signature with a batch norm: float32 (N, 16, 16, 3) to (N, 3)."""

    def __init__(self):
        super().__init__()
        self.scale, self.moving = tf.Variable(tf.ones(3)), tf.Variable(tf.ones(3), trainable=False)

    @tf.function
    def __call__(self, images, training=False):
        if training:
            self.moving.assign(0.9 * self.moving + 0.1 * tf.reduce_mean(images, axis=(0, 1, 2)))
        return tf.reduce_mean(images, axis=(1, 2)) * self.scale - self.moving


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Networks with batch norm: a .keras file and a SavedModel."""
    folder = tmp_path_factory.mktemp("networks")
    inputs = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(2, 3)(inputs))
    inner = keras.Sequential([keras.Input((14, 14, 2)), keras.layers.BatchNormalization()])
    keras.Model(inputs, inner(x)).save(folder / "map.keras")
    keras.Model(inputs, keras.layers.GlobalMaxPooling2D()(inner(x))).save(folder / "network.keras")
    again = keras.Model(inputs, keras.layers.BatchNormalization(renorm=True)(inner(x)))
    count_faces(again, FaceCount())
    again.save(folder / "again.keras")
    module = ModuleWithBatchNorm()
    for training in (False, True):
        module.__call__.get_concrete_function(tf.TensorSpec((None, SIZE, SIZE, 3), tf.float32), training=training)
    tf.saved_model.save(module, str(folder / "module"))
    return folder


@pytest.fixture(
    params=[
        ("cnn", ""),
        ("network.keras", "avg"),
        ("map.keras", "avgmax"),
        ("map.keras", "attention"),
        ("again.keras", "avg"),
        ("module", "avg"),
    ]
)
def tower(request, files):
    name, pooling = request.param
    if name == "cnn":
        return build_face_tower(FaceConfig(cnn_filters=(3, 4), dropout=0.0), SIZE)
    path = str(files / name)
    config = FaceConfig(branches=("encoder",), encoder=path, pooling=pooling, dropout=0.0)
    return build_face_tower(config, SIZE, files={"encoder": path})


def batch(mask, padding=0):
    """Random crops where the mask is true, and `padding` elsewhere."""
    mask = np.array(mask)
    faces = RNG.integers(0, 255, (*mask.shape, SIZE, SIZE, 3)).astype(np.uint8)
    faces[~mask] = padding
    return {"faces": faces, "face_mask": mask}


def arrays(variables):
    return [np.array(variable) for variable in variables]


@pytest.mark.parametrize("options", [{}, {"scale": False, "epsilon": 1.001e-5}, {"center": False}, {"epsilon": 1e-6}])
@pytest.mark.parametrize("shape", [(3, 4, 4, 2), (1, 1, 1, 2), (3, 2)])
def test_it_is_the_layer_of_keras(options, shape):
    """Outputs, moving statistics and gradients, also of one pixel and where TensorFlow has no operation for it."""
    images, weights = tf.constant(RNG.normal(3, 2, shape), tf.float32), RNG.normal(size=shape).astype(np.float32)

    def results(layer):
        values = []
        for training in (True, False):
            with tf.GradientTape() as tape:
                tape.watch(images)
                output = layer(images, training=training)
                loss = tf.reduce_sum(output * weights)
            values += [output, *tape.gradient(loss, [images, *[v.value for v in layer.trainable_variables]])]
        return [*values, *layer.weights]

    ours = results(FaceBatchNormalization(momentum=0.9, **options))
    theirs = results(keras.layers.BatchNormalization(momentum=0.9, **options))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("options", [{}, {"synchronized": True}, {"renorm": True}])
def test_without_a_face_the_statistics_stay(options):
    layer = FaceBatchNormalization(**options)
    layer.faces = FaceCount()
    layer.faces.value = tf.constant(0)
    layer.build((None, 4, 4, 2))
    start = [
        np.array([1.5, -2.5]) / (i + 1) ** 2 if "mean" in v.name else np.array([0.3, 4.0]) / (i + 1) ** 2
        for i, v in enumerate(layer.non_trainable_weights)
    ]
    for variable, value in zip(layer.non_trainable_weights, start, strict=True):
        variable.assign(value)
    assert np.isfinite(layer(np.ones((1, 4, 4, 2), np.float32), training=True)).all()
    for variable, value in zip(layer.non_trainable_weights, start, strict=True):
        np.testing.assert_allclose(variable, value, rtol=1e-6, err_msg=variable.path)


def test_with_images_renormalisation_is_that_of_keras():
    ours, theirs = FaceBatchNormalization(renorm=True), keras.layers.BatchNormalization(renorm=True)
    ours.faces = FaceCount()
    ours.faces.value = tf.constant(3)
    images = RNG.normal(size=(3, 4, 4, 2)).astype(np.float32)
    for training in (True, True, False):
        np.testing.assert_array_equal(ours(images, training=training), theirs(images, training=training))
    for a, b in zip(ours.weights, theirs.weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_statistics_are_those_of_the_real_crops_by_hand():
    """2 of 3 utterances have a face, with 1 and 2 crops; padding is white."""
    tower = build_face_tower(FaceConfig(cnn_filters=(3,), dropout=0.0), SIZE)
    inputs = batch([[True, False], [False, False], [True, True]], padding=255)
    tower(inputs, training=True)
    norm, kernel = tower.find_layer("cnn_0_norm_0"), tower.find_layer("cnn_0_conv_0").kernel
    pixels = inputs["faces"][inputs["face_mask"]] / np.float32(127.5) - 1
    maps = np.asarray(tf.nn.conv2d(pixels, kernel, 1, "SAME"), np.float64)
    np.testing.assert_allclose(norm.moving_mean, 0.1 * maps.mean(axis=(0, 1, 2)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(norm.moving_variance, 0.9 + 0.1 * maps.var(axis=(0, 1, 2)), rtol=1e-5)


@pytest.mark.parametrize("frames", [1, 3])
def test_a_batch_without_a_face_updates_no_network(tower, frames):
    """Whatever its padding holds; the missing embedding learns."""
    tower(batch(np.ones((4, 1), bool)), training=True)
    start = arrays(tower.weights)
    with tf.GradientTape() as tape:
        embedding = tower(batch(np.zeros((2, frames), bool), padding=255), training=True)["embedding"]
        loss = tf.reduce_sum(embedding)
    for before, weight in zip(start, tower.weights, strict=True):
        np.testing.assert_allclose(weight, before, rtol=1e-6, err_msg=weight.path)
    gradients = tape.gradient(loss, [v.value for v in tower.trainable_variables], unconnected_gradients="zero")
    for variable, gradient in zip(tower.trainable_variables, gradients, strict=True):
        assert (np.array(gradient) == (2.0 if variable.name == "missing" else 0.0)).all(), variable.path


def test_faces_on_a_twentieth_of_the_utterances():
    """The embedding is that of the same batches without those that have no face (they moved it by 55 %)."""
    tower = build_face_tower(FaceConfig(cnn_filters=(3, 4), dropout=0.0), SIZE)
    train = tf.function(lambda inputs: tower(inputs, training=True), reduce_retracing=True)
    crops, batches = batch(np.ones((16, 1), bool)), [batch(RNG.random((16, 1)) < 0.05) for _ in range(40)]
    assert 10 < sum(not inputs["face_mask"].any() for inputs in batches) < 30
    start, embeddings = tower.get_weights(), []
    for skips in (False, True):
        tower.set_weights(start)
        for inputs in batches:
            if inputs["face_mask"].any() or not skips:
                train({name: tf.constant(value) for name, value in inputs.items()})
        embeddings.append(np.asarray(tower(crops)["embedding"]))
    assert np.linalg.norm(embeddings[0] - embeddings[1]) < 1e-5 * np.linalg.norm(embeddings[1])


def test_a_saved_tower_gives_the_same_also_without_a_face(tower, tmp_path):
    tower(batch(np.ones((4, 1), bool)), training=True)
    tower.save(tmp_path / "tower.keras")
    loaded = keras.saving.load_model(tmp_path / "tower.keras", compile=False)
    for mask in ([[True], [False]], [[False], [False]]):
        inputs = batch(mask)
        np.testing.assert_array_equal(loaded(inputs)["embedding"], tower(inputs)["embedding"])
