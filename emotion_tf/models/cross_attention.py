"""Cross-attention between the towers' sequences: word pieces look at crops, crops at word pieces."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from emotion_tf.config import FusionConfig
from emotion_tf.models.pooling import MaskedMean
from emotion_tf.models.tower import TowerOutputs


def cross_attention(towers: list[TowerOutputs], config: FusionConfig) -> keras.KerasTensor:
    """Each tower's steps attend to the other's (Tsai 2019, "Multimodal Transformer", section 3.1): -> (B, 2 width).

    The first step of each sequence is the tower's embedding, and always real: of a modality that is absent the other
    one sees the learned vector for its absence.
    """
    steps, masks = zip(*(_steps(tower, i, config.width) for i, tower in enumerate(towers)), strict=True)
    pooled = []
    for i, other in ((0, 1), (1, 0)):
        x = _block(steps[i], steps[other], masks[other], config, f"fusion_cross_{i}")
        pooled.append(MaskedMean(name=f"fusion_cross_{i}_mean")([x, masks[i]]))
    return layers.Concatenate(name="fusion_concat")(pooled)


def _steps(tower: TowerOutputs, i: int, width: int) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Embedding and sequences of a tower in one width, one behind the other: (B, 1 + L, width), mask (B, 1 + L)."""
    first = layers.Reshape((1, tower.embedding.shape[-1]), name=f"fusion_first_{i}")(tower.embedding)
    parts = [first, *(sequence for sequence, _ in tower.sequences)]
    same = [layers.Dense(width, name=f"fusion_project_{i}_{j}")(part) for j, part in enumerate(parts)]
    mask = FirstIsReal(name=f"fusion_mask_{i}")([mask for _, mask in tower.sequences])
    return layers.Concatenate(axis=1, name=f"fusion_steps_{i}")(same), mask


def _block(
    query: keras.KerasTensor, seen: keras.KerasTensor, mask: keras.KerasTensor, config: FusionConfig, name: str
) -> keras.KerasTensor:
    """One block of a transformer (Vaswani 2017) whose queries look at another sequence."""
    # a bias of the keys would change no weight of the attention: it could not be learned
    attention = layers.MultiHeadAttention(
        config.heads, config.width // config.heads, dropout=config.dropout, use_bias=False, name=f"{name}_attention"
    )
    looked = attention(query, seen, attention_mask=ForEachQuery(name=f"{name}_mask")(mask))
    x = layers.LayerNormalization(name=f"{name}_norm_0")(layers.Add(name=f"{name}_add_0")([query, looked]))
    hidden = layers.Dense(2 * config.width, activation="relu", name=f"{name}_hidden")(x)
    hidden = layers.Dense(config.width, name=f"{name}_out")(hidden)
    return layers.LayerNormalization(name=f"{name}_norm_1")(layers.Add(name=f"{name}_add_1")([x, hidden]))


@keras.saving.register_keras_serializable("emotion_tf")
class FirstIsReal(keras.layers.Layer):
    """Masks bool (B, L_i), one behind the other, behind a step that is always real: bool (B, 1 + sum L_i)."""

    def call(self, masks: list[Any]) -> Any:
        """Joins them."""
        real = ops.ones((ops.shape(masks[0])[0], 1), "bool")
        return ops.concatenate([real, *masks], axis=1)


@keras.saving.register_keras_serializable("emotion_tf")
class ForEachQuery(keras.layers.Layer):
    """The mask of what is looked at, as attention wants it: (B, K) -> (B, 1, K)."""

    def call(self, mask: Any) -> Any:
        """Adds the axis of the queries."""
        return ops.expand_dims(mask, 1)
