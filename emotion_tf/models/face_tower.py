"""The face tower: branches side by side on each crop, concatenated, then the mean over the real crops.

Without any crop a learned vector stands for the face."""

from __future__ import annotations

import keras
from keras import layers

from emotion_tf import schema
from emotion_tf.config import FaceConfig
from emotion_tf.errors import UserError
from emotion_tf.models.layers import FoldFrames, HasMore, KerasPreprocess, MaskedMean, OrAbsent, UnfoldFrames

RESNET_SMALLEST = 32


def build_face_tower(config: FaceConfig, face_size: int, drop: float = 0.0) -> keras.Model:
    """Face crops -> face_embedding.

    Args:
        config: the tower's configuration.
        face_size: side of the crops in pixels.
        drop: share of faces that training takes for absent.

    Returns:
        Model from {faces uint8 (B, T, H, W, 3), face_mask bool (B, T)} to face_embedding (B, D); a learned vector
        without a face.

    Raises:
        UserError: the ImageNet weights cannot be had, or the crops are too small for the network.
    """
    inputs = {f.name: keras.Input(f.shape, dtype=f.dtype, name=f.name) for f in schema.face_inputs(face_size)}
    frames = FoldFrames(name="fold_frames")([inputs["faces"], inputs["face_mask"]])
    builders = {"resnet50": _resnet50, "cnn": _cnn}
    outputs = [builders[branch](frames, config, face_size) for branch in config.branches]
    joined = layers.Concatenate(name="face_concat")(outputs) if len(outputs) > 1 else outputs[0]
    sequence = UnfoldFrames(name="unfold_frames")([joined, inputs["face_mask"]])
    mean = MaskedMean(name="face_mean")([sequence, inputs["face_mask"]])
    present = HasMore(0, name="has_face")(inputs["face_mask"])
    embedding = layers.Dropout(config.dropout, name="face_embedding")(OrAbsent(drop, name="no_face")([mean, present]))
    return keras.Model(inputs, embedding, name="face_tower")


def _cnn(frames: keras.KerasTensor, config: FaceConfig, face_size: int) -> keras.KerasTensor:
    """A small VGG-like network with batch norm; each stage halves the picture."""
    x = layers.Rescaling(1 / 127.5, offset=-1, name="cnn_rescale")(frames)
    for i, filters in enumerate(config.cnn_filters):
        # one convolution at full size, where pictures are large and patterns small: it is half of the cost
        for j in range(2 if i else 1):
            x = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"cnn_{i}_conv_{j}")(x)
            x = layers.BatchNormalization(momentum=0.9, name=f"cnn_{i}_norm_{j}")(x)
            x = layers.Activation("relu", name=f"cnn_{i}_relu_{j}")(x)
        x = layers.MaxPooling2D(2, padding="same", name=f"cnn_{i}_pool")(x)
    # a grid of 2 x 2 keeps where on the face something is: brows above, mouth below
    cell = -(-face_size // 2 ** len(config.cnn_filters))
    if cell >= 2:
        x = layers.AveragePooling2D(cell // 2, name="cnn_grid")(x)
    return layers.Flatten(name="cnn")(x)


def _resnet50(frames: keras.KerasTensor, config: FaceConfig, face_size: int) -> keras.KerasTensor:
    if face_size < RESNET_SMALLEST:
        raise UserError(
            f"Face crops of {face_size} px are too small for resnet50. Expected at least "
            f"{RESNET_SMALLEST}. Prepare the data with --face-size {RESNET_SMALLEST} or more."
        )
    weights = "imagenet" if config.weights == "imagenet" else None
    try:
        backbone = keras.applications.ResNet50(
            include_top=False, weights=weights, input_shape=(face_size, face_size, 3)
        )
    except Exception as error:
        # Keras wraps whatever the download failed with in a bare Exception
        raise UserError(
            f"Cannot get the ImageNet weights of resnet50 ({str(error).splitlines()[0][:200]}). Connect to "
            "the network once, or use --face.weights none or --face.branches cnn."
        ) from None
    backbone.trainable = config.train_backbone
    x = backbone(KerasPreprocess(name="resnet50_preprocess")(frames))
    return layers.GlobalAveragePooling2D(name="resnet50_pool")(x)
