"""Cross-attention between the towers' sequences: word pieces attend to crops, and crops to word pieces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import layers, ops

from emotion_tf.config import FusionConfig
from emotion_tf.models.pooling import MaskedMean
from emotion_tf.models.tower import TowerOutputs


def reads_sequences(fusion: Callable[..., Any]) -> Callable[..., Any]:
    """Marks a fusion that reads the towers' sequences beside their embeddings."""
    fusion.reads_sequences = True  # type: ignore[attr-defined]
    return fusion


def attend(towers: list[TowerOutputs], config: FusionConfig) -> keras.KerasTensor:
    """Lets each tower's steps attend to those of the others; returns the concatenated means of N towers, (B, N width).

    The first step of each sequence is the tower's embedding. It is never masked; for an absent modality it is the
    learned vector.
    """
    steps, masks = zip(*(_steps(tower, i, config.width) for i, tower in enumerate(towers)), strict=True)
    pooled = []
    for i in range(len(towers)):
        value = _join([*steps[:i], *steps[i + 1 :]], f"fusion_others_{i}")
        mask = _join([*masks[:i], *masks[i + 1 :]], f"fusion_others_mask_{i}")
        x = _block(steps[i], value, mask, config, f"fusion_cross_{i}")
        pooled.append(MaskedMean(name=f"fusion_cross_{i}_mean")([x, masks[i]]))
    return layers.Concatenate(name="fusion_concat")(pooled)


def _join(tensors: list[keras.KerasTensor], name: str) -> keras.KerasTensor:
    """Concatenates steps (B, L, width), or masks (B, L), along L."""
    return layers.Concatenate(axis=1, name=name)(tensors) if len(tensors) > 1 else tensors[0]


def _steps(tower: TowerOutputs, i: int, width: int) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Concatenates a tower's embedding and sequences, projected to one width: (B, 1 + L, width), mask (B, 1 + L)."""
    embedding = layers.Reshape((1, tower.embedding.shape[-1]), name=f"fusion_first_{i}")(tower.embedding)
    sequences = [embedding, *(sequence for sequence, _ in tower.sequences)]
    projected = [layers.Dense(width, name=f"fusion_project_{i}_{j}")(x) for j, x in enumerate(sequences)]
    mask = PrependTrue(name=f"fusion_mask_{i}")([mask for _, mask in tower.sequences])
    return layers.Concatenate(axis=1, name=f"fusion_steps_{i}")(projected), mask


def _block(
    query: keras.KerasTensor, value: keras.KerasTensor, mask: keras.KerasTensor, config: FusionConfig, name: str
) -> keras.KerasTensor:
    """Applies one transformer block (Vaswani 2017) whose queries attend to another sequence."""
    # a bias of the keys does not change the attention weights, so it would have no gradient
    attention = layers.MultiHeadAttention(
        config.heads, config.width // config.heads, dropout=config.dropout, use_bias=False, name=f"{name}_attention"
    )
    attended = attention(query, value, attention_mask=ExpandQueries(name=f"{name}_mask")(mask))
    x = layers.LayerNormalization(name=f"{name}_norm_0")(layers.Add(name=f"{name}_add_0")([query, attended]))
    hidden = layers.Dense(2 * config.width, activation="relu", name=f"{name}_hidden")(x)
    hidden = layers.Dense(config.width, name=f"{name}_out")(hidden)
    return layers.LayerNormalization(name=f"{name}_norm_1")(layers.Add(name=f"{name}_add_1")([x, hidden]))


@keras.saving.register_keras_serializable("emotion_tf")
class PrependTrue(keras.layers.Layer):
    """Concatenates masks bool (B, L_i) behind one true step: bool (B, 1 + sum L_i)."""

    def call(self, masks: list[Any]) -> Any:
        real = ops.ones((ops.shape(masks[0])[0], 1), "bool")
        return ops.concatenate([real, *masks], axis=1)


@keras.saving.register_keras_serializable("emotion_tf")
class ExpandQueries(keras.layers.Layer):
    """Adds the axis of the queries to a mask of keys: (B, K) -> (B, 1, K)."""

    def call(self, mask: Any) -> Any:
        return ops.expand_dims(mask, 1)
