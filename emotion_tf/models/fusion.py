"""The fusion model: from the towers' outputs to logits."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import keras
from keras import layers

from emotion_tf.config import FusionConfig
from emotion_tf.models import fusions
from emotion_tf.models.tower import Tower, fusion_inputs, tower_outputs


def reads_sequences(kind: str) -> bool:
    """Whether a fusion reads the towers' sequences beside their embeddings."""
    return getattr(getattr(fusions, kind), "reads_sequences", False)


def build_fusion(towers: Mapping[str, Tower], config: FusionConfig, classes: int) -> keras.Model:
    """Builds the functional model from `fusion_inputs` to logits float32 (B, classes).

    The embedding of a single tower goes directly to the dense layers.
    """
    inputs = {
        name: keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=name)
        for modality, tower in towers.items()
        for name, tensor in fusion_inputs(modality, tower.output).items()
    }
    outputs = [tower_outputs(modality, inputs) for modality in towers]
    classify = functools.partial(_classify, config=config, classes=classes)
    if len(outputs) == 1:
        logits = classify(outputs[0].embedding)
    else:
        logits = getattr(fusions, config.kind)(outputs, config, classify)
    return keras.Model(inputs, logits, name="fusion")


def _classify(x: keras.KerasTensor, config: FusionConfig, classes: int, suffix: str = "") -> keras.KerasTensor:
    """Applies (dropout, dense) ... -> dropout -> dense to a tensor (B, D); returns logits (B, classes)."""
    for i, units in enumerate(config.dense_units):
        x = layers.Dropout(config.dropout, name=f"fusion_dropout_{i}{suffix}")(x)
        x = layers.Dense(units, activation="relu", name=f"fusion_dense_{i}{suffix}")(x)
    x = layers.Dropout(config.dropout, name=f"fusion_dropout{suffix}")(x)
    return layers.Dense(classes, dtype="float32", name=f"logits{suffix}")(x)
