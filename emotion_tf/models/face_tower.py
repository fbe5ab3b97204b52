"""The face tower: branches side by side on each crop, concatenated, then the mean over the real crops.

Without any crop a learned vector stands for the face."""

from __future__ import annotations

import keras
from keras import layers

from emotion_tf import schema
from emotion_tf.config import FaceConfig
from emotion_tf.errors import UserError
from emotion_tf.models.cnn import build_cnn
from emotion_tf.models.layers import FoldFrames, HasMore, KerasPreprocess, OrAbsent, UnfoldFrames
from emotion_tf.models.pooling import pool

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
    builders = {"resnet50": _resnet50, "cnn": build_cnn}
    outputs = [builders[branch](frames, config, face_size) for branch in config.branches]
    joined = layers.Concatenate(name="face_concat")(outputs) if len(outputs) > 1 else outputs[0]
    sequence = UnfoldFrames(name="unfold_frames")([joined, inputs["face_mask"]])
    mean = pool(sequence, inputs["face_mask"], "mean", "face")
    present = HasMore(0, name="has_face")(inputs["face_mask"])
    embedding = layers.Dropout(config.dropout, name="face_embedding")(OrAbsent(drop, name="no_face")([mean, present]))
    return keras.Model(inputs, embedding, name="face_tower")


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
