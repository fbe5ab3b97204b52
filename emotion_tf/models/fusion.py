"""Joining the towers."""

from __future__ import annotations

import keras
from keras import layers

from emotion_tf.config import FusionConfig


def fuse(embeddings: list[keras.KerasTensor], config: FusionConfig, labels: int) -> keras.KerasTensor:
    """Concat fusion: embeddings (B, D_i) -> concat -> (dropout, dense) ... -> dropout -> logits (B, labels)."""
    x = layers.Concatenate(name="fusion_concat")(embeddings) if len(embeddings) > 1 else embeddings[0]
    for i, units in enumerate(config.dense_units):
        x = layers.Dropout(config.dropout, name=f"fusion_dropout_{i}")(x)
        x = layers.Dense(units, activation="relu", name=f"fusion_dense_{i}")(x)
    x = layers.Dropout(config.dropout, name="fusion_dropout")(x)
    return layers.Dense(labels, dtype="float32", name="logits")(x)
