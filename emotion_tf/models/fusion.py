"""Joining the towers: embeddings (B, D_i) to logits (B, labels)."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from emotion_tf.config import FusionConfig
from emotion_tf.models.cross_attention import cross_attention
from emotion_tf.models.tower import TowerOutputs


def fuse(towers: list[TowerOutputs], config: FusionConfig, labels: int) -> keras.KerasTensor:
    """Joins the towers as `config.kind` says, then (dropout, dense) ... -> dropout -> logits (B, labels), float32.

    A single tower goes to the dense layers as it is.
    """
    embeddings = [tower.embedding for tower in towers]
    if len(towers) == 1:
        return _head(embeddings[0], config, labels, "")
    if config.kind == "weighted":
        each = [_head(x, config, labels, f"_{i}") for i, x in enumerate(embeddings)]
        return WeightedMean(name="logits", dtype="float32")(each)
    joined = cross_attention(towers, config) if config.kind == CROSS else JOINS[config.kind](embeddings, config)
    return _head(joined, config, labels, "")


def _head(x: keras.KerasTensor, config: FusionConfig, labels: int, suffix: str) -> keras.KerasTensor:
    for i, units in enumerate(config.dense_units):
        x = layers.Dropout(config.dropout, name=f"fusion_dropout_{i}{suffix}")(x)
        x = layers.Dense(units, activation="relu", name=f"fusion_dense_{i}{suffix}")(x)
    x = layers.Dropout(config.dropout, name=f"fusion_dropout{suffix}")(x)
    return layers.Dense(labels, dtype="float32", name=f"logits{suffix}")(x)


def _concat(embeddings: list[keras.KerasTensor], config: FusionConfig) -> keras.KerasTensor:
    return layers.Concatenate(name="fusion_concat")(embeddings)


def _sum(embeddings: list[keras.KerasTensor], config: FusionConfig) -> keras.KerasTensor:
    same = [layers.Dense(config.width, name=f"fusion_project_{i}")(x) for i, x in enumerate(embeddings)]
    return layers.Activation("relu", name="fusion_relu")(layers.Add(name="fusion_sum")(same))


def _gated(embeddings: list[keras.KerasTensor], config: FusionConfig) -> keras.KerasTensor:
    """Gated multimodal unit (Arevalo 2017, "Gated Multimodal Units for Information Fusion", equation 4)."""
    hidden = [
        layers.Dense(config.width, activation="tanh", name=f"fusion_project_{i}")(x) for i, x in enumerate(embeddings)
    ]
    both = layers.Concatenate(name="fusion_concat")(embeddings)
    gate = layers.Dense(config.width, activation="sigmoid", use_bias=False, name="fusion_gate")(both)
    return Mix(name="fusion_gated")([gate, *hidden])


def _lowrank(embeddings: list[keras.KerasTensor], config: FusionConfig) -> keras.KerasTensor:
    """Low-rank bilinear fusion (Liu 2018, "Efficient Low-rank Multimodal Fusion", equation 6)."""
    # the bias of a dense layer is the constant 1 that the paper appends to each modality
    factors = [layers.Dense(config.rank * config.width, name=f"fusion_factor_{i}")(x) for i, x in enumerate(embeddings)]
    product = layers.Multiply(name="fusion_product")(factors)
    ranks = layers.Reshape((config.rank, config.width), name="fusion_ranks")(product)
    return RankSum(name="fusion_lowrank")(ranks)


CROSS = "cross_attention"
JOINS = {"concat": _concat, "sum": _sum, "gated": _gated, "lowrank": _lowrank}


@keras.saving.register_keras_serializable("emotion_tf")
class Mix(keras.layers.Layer):
    """gate * first + (1 - gate) * second, all (B, D)."""

    def call(self, inputs: list[Any]) -> Any:
        """Mixes `inputs[1]` and `inputs[2]` by `inputs[0]`."""
        gate, first, second = inputs
        return gate * first + (1.0 - gate) * second


@keras.saving.register_keras_serializable("emotion_tf")
class RankSum(keras.layers.Layer):
    """A learned weighted sum over the ranks: (B, R, D) -> (B, D)."""

    def build(self, input_shape: Any) -> None:
        """Makes the weights (R,) and the bias (D,)."""
        self.rank_weights = self.add_weight(shape=(input_shape[1],), initializer="ones", name="rank_weights")
        self.bias = self.add_weight(shape=(input_shape[2],), initializer="zeros", name="bias")

    def call(self, ranks: Any) -> Any:
        """Sums."""
        return ops.sum(ranks * ops.cast(self.rank_weights, ranks.dtype)[:, None], axis=1) + self.bias


@keras.saving.register_keras_serializable("emotion_tf")
class WeightedMean(keras.layers.Layer):
    """A mean of tensors of one shape whose weights, one each, are learned and sum to 1."""

    def build(self, input_shape: Any) -> None:
        """Makes the weights before the softmax: all alike."""
        self.scores = self.add_weight(shape=(len(input_shape),), initializer="zeros", name="scores")

    def call(self, inputs: list[Any]) -> Any:
        """Averages."""
        return ops.sum(ops.stack(inputs, axis=-1) * ops.softmax(self.scores), axis=-1)
