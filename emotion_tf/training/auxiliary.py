"""Auxiliary heads: logits of each tower alone, for training only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import keras
import tensorflow as tf

from emotion_tf.training.losses import RowLoss


def build_heads(modalities: Iterable[str], classes: int) -> dict[str, keras.layers.Dense]:
    """Builds a dense layer from the embedding of each tower to logits float32 (B, classes)."""
    return {name: keras.layers.Dense(classes, dtype="float32", name=f"auxiliary_{name}") for name in modalities}


def training_network(
    inputs: Mapping[str, Any], outputs: Mapping[str, Any], heads: Mapping[str, keras.layers.Layer]
) -> keras.Model:
    """Returns the functional model from `inputs` to a model's outputs, and `NAME/logits` (B, C) of each head."""
    logits = {f"{name}/logits": head(outputs[f"{name}/embedding"]) for name, head in heads.items()}
    return keras.Model(dict(inputs), {**outputs, **logits}, name="training_network")


def auxiliary_loss(loss: RowLoss, y_true: tf.Tensor, outputs: Mapping[str, Any]) -> tf.Tensor | float:
    """Returns the mean over the towers of the losses of their own logits, float32 (B,); 0 without auxiliary heads.

    Rows without the modality are masked out of its loss. Rows that lose it to modality dropout are not: from these the
    head learns the class frequencies.
    """
    losses = [
        loss(y_true, outputs[f"{name}/logits"]) * tf.cast(outputs[f"{name}/present"], tf.float32)
        for name in (key.removesuffix("/logits") for key in outputs if key.endswith("/logits"))
    ]
    return tf.add_n(losses) / len(losses) if losses else 0.0
