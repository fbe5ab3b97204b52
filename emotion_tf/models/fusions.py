"""The fusions. Each public function is one: its name is a value of `--fusion.kind`, its docstring the help text.

A fusion is called with the outputs of the towers, the configuration, and `classify`, which applies dropout and dense
layers to a tensor (B, D). It returns logits (B, C).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import layers, ops

from emotion_tf.config import FusionConfig
from emotion_tf.models.cross_attention import attend, reads_sequences
from emotion_tf.models.tower import TowerOutputs

Classify = Callable[..., keras.KerasTensor]


def concat(towers: list[TowerOutputs], config: FusionConfig, classify: Classify) -> keras.KerasTensor:
    """The concatenated embeddings."""
    return classify(layers.Concatenate(name="fusion_concat")([tower.embedding for tower in towers]))


def sum(towers: list[TowerOutputs], config: FusionConfig, classify: Classify) -> keras.KerasTensor:
    """The sum of the embeddings, projected to one width."""
    projected = [
        layers.Dense(config.width, name=f"fusion_project_{i}")(tower.embedding) for i, tower in enumerate(towers)
    ]
    return classify(layers.Activation("relu", name="fusion_relu")(layers.Add(name="fusion_sum")(projected)))


def weighted(towers: list[TowerOutputs], config: FusionConfig, classify: Classify) -> keras.KerasTensor:
    """Late fusion: a learned mean of each tower's own logits."""
    logits = [classify(tower.embedding, suffix=f"_{i}") for i, tower in enumerate(towers)]
    return WeightedMean(name="logits", dtype="float32")(logits)


def gated(towers: list[TowerOutputs], config: FusionConfig, classify: Classify) -> keras.KerasTensor:
    """A gate for each unit chooses between the towers (Arevalo 2017, "Gated Multimodal Units", equation 4)."""
    embeddings = [tower.embedding for tower in towers]
    hidden = [
        layers.Dense(config.width, activation="tanh", name=f"fusion_project_{i}")(x) for i, x in enumerate(embeddings)
    ]
    joined = layers.Concatenate(name="fusion_concat")(embeddings)
    width = config.width * (len(towers) - 1)  # the first tower or the rest, the second or the rest, and so on
    gates = layers.Dense(width, activation="sigmoid", use_bias=False, name="fusion_gate")(joined)
    return classify(Gate(name="fusion_gated")([gates, *hidden]))


def lowrank(towers: list[TowerOutputs], config: FusionConfig, classify: Classify) -> keras.KerasTensor:
    """Low-rank bilinear fusion (Liu 2018, "Efficient Low-rank Multimodal Fusion", equation 6)."""
    # the bias of a dense layer is the constant 1 that the paper appends to each modality
    factors = [
        layers.Dense(config.rank * config.width, name=f"fusion_factor_{i}")(tower.embedding)
        for i, tower in enumerate(towers)
    ]
    product = layers.Multiply(name="fusion_product")(factors)
    ranks = layers.Reshape((config.rank, config.width), name="fusion_ranks")(product)
    return classify(RankSum(name="fusion_lowrank")(ranks))


@reads_sequences
def cross_attention(towers: list[TowerOutputs], config: FusionConfig, classify: Classify) -> keras.KerasTensor:
    """Each tower's steps attend to those of the others (Tsai 2019, "Multimodal Transformer", section 3.1)."""
    return classify(attend(towers, config))


@keras.saving.register_keras_serializable("emotion_tf")
class Gate(keras.layers.Layer):
    """(gates (B, (N - 1) D), and N tensors (B, D)) -> gate * first + (1 - gate) * second; the last gate acts first."""

    def call(self, inputs: list[Any]) -> Any:
        gates, *values = inputs
        x = values.pop()
        for gate, value in zip(reversed(ops.split(gates, len(values), axis=-1)), reversed(values), strict=True):
            x = gate * value + (1.0 - gate) * x
        return x


@keras.saving.register_keras_serializable("emotion_tf")
class RankSum(keras.layers.Layer):
    """A learned weighted sum over the ranks: (B, R, D) -> (B, D)."""

    def build(self, input_shape: Any) -> None:
        self.rank_weights = self.add_weight(shape=(input_shape[1],), initializer="ones", name="rank_weights")
        self.bias = self.add_weight(shape=(input_shape[2],), initializer="zeros", name="bias")

    def call(self, ranks: Any) -> Any:
        return ops.sum(ranks * ops.cast(self.rank_weights, ranks.dtype)[:, None], axis=1) + self.bias


@keras.saving.register_keras_serializable("emotion_tf")
class WeightedMean(keras.layers.Layer):
    """A mean of tensors of one shape; its weights, one for each tensor, are learned and sum to 1."""

    def build(self, input_shape: Any) -> None:
        # before the softmax: all equal
        self.scores = self.add_weight(shape=(len(input_shape),), initializer="zeros", name="scores")

    def call(self, inputs: list[Any]) -> Any:
        return ops.sum(ops.stack(inputs, axis=-1) * ops.softmax(self.scores), axis=-1)
