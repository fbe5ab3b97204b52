"""The face tower: branches side by side on each crop, concatenated, then one vector of the real crops.

Without any crop a learned vector stands for the face."""

from __future__ import annotations

from collections.abc import Mapping

import keras
from keras import layers

from emotion_tf import schema
from emotion_tf.config import FaceConfig
from emotion_tf.models.backbones import build_network
from emotion_tf.models.cnn import build_cnn
from emotion_tf.models.layers import FoldFrames, HasMore, Keep, OrAbsent, UnfoldFrames
from emotion_tf.models.pooling import pool
from emotion_tf.models.tower import tower


def build_face_tower(
    config: FaceConfig,
    face_size: int,
    drop: float = 0.0,
    files: Mapping[str, str] | None = None,
    sequences: bool = False,
) -> keras.Model:
    """Face crops -> face_embedding.

    Args:
        config: the tower's configuration.
        face_size: side of the crops in pixels.
        drop: share of faces that training takes for absent.
        files: paths of the networks of the branches fer and encoder.
        sequences: give the sequence of the crops too, as `tower_outputs` reads it.

    Returns:
        Model from {faces uint8 (B, T, H, W, 3), face_mask bool (B, T)} to face_embedding (B, D); a learned vector
        without a face.

    Raises:
        UserError: a network's weights cannot be had, or the crops or layers asked for do not fit it.
    """
    inputs = {f.name: keras.Input(f.shape, dtype=f.dtype, name=f.name) for f in schema.face_inputs(face_size)}
    frames = FoldFrames(name="fold_frames")([inputs["faces"], inputs["face_mask"]])
    outputs = [
        build_cnn(frames, config, face_size)
        if branch == "cnn"
        else build_network(branch, frames, config, face_size, (files or {}).get(branch))
        for branch in config.branches
    ]
    joined = layers.Concatenate(name="face_concat")(outputs) if len(outputs) > 1 else outputs[0]
    sequence = UnfoldFrames(name="unfold_frames")([joined, inputs["face_mask"]])
    pooled = pool(sequence, inputs["face_mask"], config.frames, "face")
    present = Keep(drop, name="keep_face")(HasMore(0, name="has_face")(inputs["face_mask"]))
    embedding = layers.Dropout(config.dropout, name="face_embedding")(OrAbsent(name="no_face")([pooled, present]))
    return tower(inputs, embedding, present, [(sequence, inputs["face_mask"])], sequences, "face_tower")
